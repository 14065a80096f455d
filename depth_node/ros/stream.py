"""What exists while the node is active: subscriptions, slots, worker, and a watch on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from depth_node.newest import NewestOfEach
from depth_node.ros.channel import Channel
from depth_node.ros.channel import Inputs
from depth_node.ros.images import Arrival
from depth_node.ros.worker import Lane
from depth_node.ros.worker import Worker

if TYPE_CHECKING:
    from depth_node.pipeline import Pipeline

EXIT_HUNG = 4


class Stream:
    """From the image topics to the outputs; begins when made, ends with :meth:`close`."""

    def __init__(self, node: Any, pipeline: Pipeline, channels: Sequence[Channel]) -> None:
        """Subscribe and start the worker.

        :param node: a rclpy node that is a :class:`depth_node.ros.worker.Host` too.
        :param channels: the cameras, with their outputs.
        """
        self._node = node
        self._channels = tuple(channels)
        self._slots: NewestOfEach[Arrival] = NewestOfEach(len(self._channels))
        self._worker = Worker(
            node,
            pipeline,
            self._slots,
            [self._lane(slot, channel) for slot, channel in enumerate(self._channels)],
        )
        self._worker.start()

    def close(self, within_s: float) -> bool:
        """Unsubscribe and end the worker after the image in work; may be called again.

        :param within_s: longest wait for the worker, seconds.
        :returns: False when the worker is still busy.
        """
        for channel in self._channels:
            if channel.inputs is not None:
                channel.inputs.close()
        for slot in self._slots.close():
            self._channels[slot].health.dropped('inactive')
        for channel in self._channels:
            channel.inputs = None
        return self._worker.join(within_s)

    def watch(self) -> None:
        """Look after what comes in, and after a worker that hangs."""
        for channel in self._channels:
            report = channel.inputs.watch() if channel.inputs is not None else None
            if report is not None and report.hung:
                self._node.give_up(EXIT_HUNG, f'the engine hangs: {report.text}')

    def _lane(self, slot: int, channel: Channel) -> Lane:
        """Subscribe to one camera; return what the worker needs of it."""
        channel.order.reset()
        channel.health.mended()
        inputs = channel.inputs = Inputs(self._node, channel, self._slots, slot)
        return Lane(channel.name, channel.order, channel.remarks, inputs.cameras, inputs.outputs)
