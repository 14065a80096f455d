"""The lifecycle node: what is made, started, stopped and released when; and its process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn

from depth_node.engines import upgrade
from depth_node.engines.memory import give_back_freed_memory
from depth_node.engines.selection import ON_GPU
from depth_node.errors import DepthNodeError
from depth_node.errors import ModelError
from depth_node.health import State
from depth_node.pipeline import Pipeline
from depth_node.ros import diagnostics
from depth_node.ros import qos
from depth_node.ros.channel import Channel
from depth_node.ros.lifecycle import ROS_ERRORS
from depth_node.ros.lifecycle import all_or_none
from depth_node.ros.lifecycle import forget_destroyed
from depth_node.ros.lifecycle import survive_illegal_transitions
from depth_node.ros.outputs import remark_on
from depth_node.ros.parameters import NodeParameters
from depth_node.ros.parameters import unknown_names
from depth_node.ros.remarks import pass_on_log
from depth_node.ros.stream import EXIT_HUNG
from depth_node.ros.stream import Stream
from depth_node.ros.transport_profile import use_profile
from depth_node.ros.worker import EXIT_DEVICE_LOST
from depth_node.settings import Settings

EXIT_CONFIGURE = 1
_NAME = 'depth_node'
_WATCH_PERIOD_S = 0.5
_STATE_PERIOD_S = 0.2
_DEACTIVATES_WITHIN_S = 30.0
_ENDS_WITHIN_S = 1.5
_SWITCH_INTERVAL_S = 1e-4

OpenPipeline = Callable[[Settings], Pipeline]


class DepthNode(LifecycleNode):  # type: ignore[misc]
    """Configure opens the model, activate subscribes and starts the worker."""

    def __init__(self, open_pipeline: OpenPipeline = Pipeline.open, **options: Any) -> None:
        """Declare the parameters; nothing is opened yet.

        :param open_pipeline: called when the node is configured.
        :param options: passed on to rclpy's node.
        :raises SettingsError: for parameters that are refused.
        """
        super().__init__(_NAME, **options)
        self.exit_code = 0
        self._open_pipeline = open_pipeline
        self._pipeline: Pipeline | None = None
        self._stream: Stream | None = None
        self._told: set[str] = set()
        self._parameters_of_node = NodeParameters(self, lambda: self._pipeline is not None)
        self._channels: tuple[Channel, ...] = ()
        self._make_channels()
        for sentence in unknown_names(self._parameter_overrides):
            self.get_logger().warning(sentence)
        survive_illegal_transitions(self)
        # Without a reference to the handle the first jump of the clock is a segmentation fault.
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1)),
            post_callback=lambda _: self._begin_order(),
        )
        self._diagnostics = self.create_publisher(
            DiagnosticArray,
            '/diagnostics',
            qos.newest(reliable=True),
            qos_overriding_options=qos.output_overrides(),
        )
        # Timers of the node's own clock stand still while simulated time does.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._watch_timer = self.create_timer(_WATCH_PERIOD_S, self._watch, clock=self._steady)
        self._report_timer = self._new_report_timer()
        self._shown: list[tuple[State, dict[str, str]]] = []
        self._state_timer = self.create_timer(
            _STATE_PERIOD_S, self._publish_change, clock=self._steady
        )

    @property
    def settings(self) -> Settings:
        """Return the settings in force."""
        return self._parameters_of_node.settings

    def autostart(self) -> bool:
        """Configure and activate; return False when either fails."""
        return all(
            trigger() == TransitionCallbackReturn.SUCCESS
            for trigger in (self.trigger_configure, self.trigger_activate)
        )

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open model and engine, and offer the topics."""
        try:
            self._configure()
        except Exception as error:
            self._tell_failure('configured', error)
            self._release()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the worker."""
        if self._pipeline is None:
            return TransitionCallbackReturn.FAILURE
        forget_destroyed(self)
        try:
            with all_or_none(self):
                self._stream = Stream(self, self._pipeline, self._channels)
        except Exception as error:  # rclpy would keep it to itself
            for channel in self._channels:
                channel.inputs = None
            self._tell_failure('activated', error)
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the worker and unsubscribe."""
        return self._result_of(self._stop_stream(_DEACTIVATES_WITHIN_S))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the engine and withdraw the topics."""
        return self._result_of(self._release())

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Undo all, from whatever state."""
        return self._result_of(self._release())

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Undo all, so that the node can be configured again."""
        return self._result_of(self._release())

    def stamp_now_ns(self) -> int:
        """Return the time of the node's clock, which is simulated where use_sim_time is set."""
        return int(self.get_clock().now().nanoseconds)

    def reopen_pipeline(self) -> Pipeline:
        """Replace a pipeline whose engine failed; called by the worker between two images.

        A GPU engine is replaced by itself: with the whole list it would be tried, taken and fail
        again and again.

        :raises ModelError: when another model has taken the place of the one that was configured:
            the topics that are offered, and what was said of it, would not hold for that one.
        """
        before = self._pipeline
        settings = self.settings
        if before is not None:
            before.close()
            name = before.engine_info.name
            if name in ON_GPU:
                settings = replace(settings, model=replace(settings.model, engine=name))
        self._pipeline = self._open_pipeline(settings)
        if before is not None and self._pipeline.card != before.card:
            raise ModelError(
                f'model {before.card.name}',
                'another model under its name',
                'the one that was configured',
                'Start the node anew, or clean it up and configure it.',
            )
        return self._pipeline

    def give_up(self, exit_code: int, text: str) -> None:
        """Say why and end ``spin``; a supervisor may then start a fresh process."""
        if self.exit_code or not self.context.ok():
            return
        self.exit_code = exit_code
        for channel in self._channels:
            channel.health.failed(text)
        self.get_logger().fatal(text)
        self.context.try_shutdown()

    def close(self) -> bool:
        """Stop all and release the engine; return False when the worker cannot be stopped."""
        return self._release(_ENDS_WITHIN_S)

    def _configure(self) -> None:
        """Open the pipeline and make the publishers."""
        self.destroy_timer(self._report_timer)
        self._report_timer = self._new_report_timer()
        began_s = time.monotonic()
        self._make_channels()
        self._pipeline = self._open_pipeline(self.settings)
        give_back_freed_memory()
        with all_or_none(self):
            for channel in self._channels:
                channel.offer(self, self._pipeline.card)
        for channel in self._channels:
            channel.health.mended()
        self._told.clear()
        self._tell_engine(self._pipeline, f' after {time.monotonic() - began_s:.1f} s')
        remark = remark_on(self._pipeline.card)
        if remark:
            self.get_logger().warning(remark)

    def _tell_failure(self, what: str, error: Exception) -> None:
        """Say why the node is not what it was to become.

        :param what: 'configured' or 'activated'.
        """
        expected = isinstance(error, DepthNodeError)
        text = str(error) if expected else f'{type(error).__name__}: {error}'
        for channel in self._channels:
            channel.health.failed(f'not {what}: {text}')
        if self.context.ok():  # else a signal came, and what failed is what it took away
            self.get_logger().error(text)

    def _make_channels(self) -> None:
        """Make a channel for each camera of the settings; those that there are stay."""
        known = {channel.name: channel for channel in self._channels}
        self._channels = tuple(
            known.get(name) or Channel(name, self.get_logger())
            for name in self.settings.cameras or ('',)
        )

    def _begin_order(self) -> None:
        """Let stamps begin anew, after the clock was set back."""
        for channel in self._channels:
            channel.order.reset()

    def _tell_engine(self, pipeline: Pipeline, when: str = '') -> None:
        """Log which engine serves and why others do not, each sentence once."""
        info = pipeline.engine_info
        engine = f'{info.name} {info.version} ({info.precision}, {info.device})'
        if engine not in self._told:
            self._told.add(engine)
            self.get_logger().info(f'model {pipeline.card.name} on {engine} is ready{when}')
        for note in pipeline.engine_notes:
            if note not in self._told:
                self._told.add(note)
                self.get_logger().warning(note)

    def _stop_stream(self, within_s: float) -> bool:
        """End the worker if there is one; return False when it is still busy.

        A stream that does not end stays, so that whoever asks again does not believe it gone.
        """
        if self._stream is not None and not self._stream.close(within_s):
            return False
        self._stream = None
        return True

    def _release(self, within_s: float = _DEACTIVATES_WITHIN_S) -> bool:
        """Undo activate and configure; the engine of a busy worker is left alone."""
        if not self._stop_stream(within_s):
            return False
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.close()
        if self.context.ok():
            for channel in self._channels:
                channel.withdraw()
        return True

    def _result_of(self, done: bool) -> TransitionCallbackReturn:
        """Return success; a worker that cannot be stopped ends the process."""
        if not done:
            self.give_up(EXIT_HUNG, 'the worker thread does not end')
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _new_report_timer(self) -> Any:
        """Make the timer of /diagnostics with the period in force."""
        period_s = self.settings.node.diagnostics_period_s
        return self.create_timer(period_s, self._publish_diagnostics, clock=self._steady)

    def _watch(self) -> None:
        """Look after the engine and the stream, if there are any."""
        if self._pipeline is not None:
            self._tell_engine(self._pipeline)
        if self._stream is not None:
            self._stream.watch()

    def _publish_change(self) -> None:
        """Publish at once, not after node.diagnostics_period_s, when a fault came or went."""
        if self._stream is not None and self._states() != self._shown:
            self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        """Publish the health, if anybody listens."""
        if not self._diagnostics.get_subscription_count():
            return
        pipeline = self._pipeline
        phase = 'inactive' if pipeline is not None else 'unconfigured'
        if self._stream is not None:
            phase = 'active'
            self._shown = self._states()
        array = DiagnosticArray()
        array.header.stamp = self.get_clock().now().to_msg()
        for channel in self._channels:
            report = channel.health.report(self.settings.input.max_age_s)
            facts = channel.facts()
            if pipeline is not None:
                scale = self.settings.depth.scale
                facts |= diagnostics.pipeline_facts(pipeline, scale, channel.name)
            array.status.append(
                diagnostics.camera_status(self.get_name(), channel.name, report, phase, facts)
            )
        self._diagnostics.publish(array)

    def _states(self) -> list[tuple[State, dict[str, str]]]:
        """Return of each camera what is shown at once when it changes."""
        return [channel.state(self.settings.input.max_age_s) for channel in self._channels]


def run(arguments: list[str] | None, open_pipeline: OpenPipeline) -> int:
    """Run the node until a signal or a failure ends it; takes over the signals of the process.

    :param arguments: command line with ROS arguments; None takes sys.argv.
    :returns: exit code: 0 after SIGINT or SIGTERM, otherwise one per kind of failure.
    """
    node = None
    exit_code = 0
    begun = False

    def heed(number: int, frame: FrameType | None) -> None:
        """Leave before ROS runs; from then on its own handler shuts it down, which ends us.

        An exception here could surface anywhere: within an import it leaves a lock behind.
        """
        if not begun:
            os._exit(0)

    _on_signals(heed)
    try:
        rclpy.init(args=arguments)
        begun = True
        node = DepthNode(open_pipeline)
        pass_on_log(node.get_logger())
        exit_code = _spin(node)
    except ExternalShutdownException:
        pass
    except (DepthNodeError, ParameterException) as error:
        exit_code = _refused(str(error))
    except Exception as error:
        # A signal invalidates the context under the hands of whatever uses it at that moment.
        if rclpy.ok() or not begun:
            exit_code = _refused(
                f'{type(error).__name__}: {error}'
                if isinstance(error, ROS_ERRORS)
                else traceback.format_exc()
            )
    finally:
        # A second signal, as `ros2 launch` sends it, must not interrupt the tidying.
        _on_signals(signal.SIG_IGN)
    exit_code = exit_code or (node.exit_code if node is not None else 0)
    _end(node, exit_code)
    return exit_code


def main(arguments: list[str] | None = None) -> int:
    """Run the node, with DDS and memory set up for large messages.

    :param arguments: command line with ROS arguments; None takes sys.argv.
    :returns: exit code, as of :func:`run`.
    """
    logging.basicConfig(level=logging.WARNING)
    # The executor and the worker take turns in the interpreter; at the default of 5 ms one that
    # computes makes the other wait for a sixth of a camera's period.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    use_profile(os.environ)
    return run(arguments, partial(Pipeline.open, wanted=rclpy.ok))


def _on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Set what SIGINT and SIGTERM do."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _spin(node: DepthNode) -> int:
    """Start as the parameters say, and serve until ROS is shut down."""
    if node.settings.node.autostart and not node.autostart():
        return EXIT_CONFIGURE if rclpy.ok() else 0
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.spin()
    return 0


def _refused(text: str) -> int:
    """Say why the process ends."""
    rclpy.logging.get_logger(_NAME).fatal(text)
    return EXIT_CONFIGURE


def _end(node: DepthNode | None, exit_code: int) -> None:
    """Release what the node holds and leave ROS."""
    if exit_code == EXIT_DEVICE_LOST:
        # releasing anything on a GPU that is lost can hang or crash
        _leave_at_once(exit_code)
    ended = node is None or node.close()
    rclpy.try_shutdown()
    if not ended or upgrade.is_busy():
        # An engine holds its thread; unloading its library under it would crash.
        _leave_at_once(exit_code)


def _leave_at_once(exit_code: int) -> None:
    """End the process without releasing anything."""
    sys.stderr.flush()
    os._exit(exit_code)
