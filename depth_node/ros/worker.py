"""The thread that turns the newest image of each camera in turn into depth and publishes it."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Protocol

import cv2

from depth_node.engines import DeviceLost
from depth_node.engines import NotFinite
from depth_node.engines import OutOfMemory
from depth_node.engines.memory import give_back_freed_memory
from depth_node.errors import DepthNodeError
from depth_node.errors import EngineError
from depth_node.errors import ImageRejected
from depth_node.errors import Rejected
from depth_node.frames import CameraImage
from depth_node.health import NO_SUBSCRIBER
from depth_node.health import Health
from depth_node.health import stamp_remark
from depth_node.image_codec import decode_image
from depth_node.newest import NewestOfEach
from depth_node.newest import StampOrder
from depth_node.ros.cameras import Cameras
from depth_node.ros.images import Arrival
from depth_node.ros.outputs import Outputs
from depth_node.ros.remarks import Remarks
from depth_node.settings import Settings

if TYPE_CHECKING:
    from depth_node.pipeline import Pipeline

EXIT_WORKER = 2
EXIT_ENGINE = 3
EXIT_DEVICE_LOST = 5
_ENGINE_FAILURES_IN_A_ROW = 3
_BAD_OUTPUTS_IN_A_ROW = 3

_ENGINE_FAILED = 'engine'
_NO_MEMORY, _BAD_OUTPUT, _LOST = 'out_of_memory', 'engine_output', 'device_lost'


@dataclass(frozen=True)
class _Failure:
    """What is kept of an exception: it holds the frames that it passed, and so their memory."""

    reason: str
    """Name under which the image is counted."""
    text: str

    @classmethod
    def of(cls, error: DepthNodeError | MemoryError) -> _Failure:
        """Return reason and words of an exception."""
        if isinstance(error, MemoryError):
            return cls(_NO_MEMORY, f'this machine has too little memory ({error}).')
        for kind, reason in (
            (DeviceLost, _LOST),
            (OutOfMemory, _NO_MEMORY),
            (NotFinite, _BAD_OUTPUT),
        ):
            if isinstance(error, kind):
                return cls(reason, str(error))
        return cls(_ENGINE_FAILED, str(error))


class Host(Protocol):
    """What the worker needs of the node; usable from its thread."""

    @property
    def settings(self) -> Settings:
        """Return the settings in force."""

    def stamp_now_ns(self) -> int:
        """Return the time by the clock that stamps are made with, nanoseconds."""

    def reopen_pipeline(self) -> Pipeline:
        """Replace a pipeline whose engine failed."""

    def give_up(self, exit_code: int, text: str) -> None:
        """End the process for the reason that ``text`` tells."""


@dataclass
class Lane:
    """What the worker needs of one camera."""

    name: str
    """Empty where there is one camera."""
    order: StampOrder
    """Which stamps may leave."""
    remarks: Remarks
    cameras: Cameras
    outputs: Outputs
    failures: int = 0
    """Failures of the engine on images of this camera since it last succeeded on one."""
    closed: bool = False
    """True once the engine has failed on images of this camera alone too often."""

    @property
    def health(self) -> Health:
        """Return the counters of this camera."""
        return self.remarks.health


class Worker:
    """Takes the newest images in turn until the slots close; dies loudly."""

    def __init__(
        self,
        host: Host,
        pipeline: Pipeline,
        slots: NewestOfEach[Arrival],
        lanes: Sequence[Lane],
    ) -> None:
        """Prepare; :meth:`start` begins.

        :param pipeline: used by this thread alone from now on.
        :param lanes: one for each slot.
        """
        self._host = host
        self._pipeline = pipeline
        self._slots = slots
        self._lanes = tuple(lanes)
        self._failures = 0
        self._bad_outputs = 0
        self._lost = False
        self._thread = threading.Thread(target=self._run, name='depth worker', daemon=True)

    def start(self) -> None:
        """Begin to take images."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait until the thread has ended; the slots must have been closed.

        :returns: False when it is still busy after ``timeout_s``.
        """
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        """Work until the slots close."""
        try:
            while not self._lost and (taken := self._slots.take()) is not None:
                self._attempt(self._lanes[taken[0]], taken[1])
                taken = None  # an image that waits for the next one would hold its memory
        except Exception:
            self._host.give_up(EXIT_WORKER, f'the worker thread died: {traceback.format_exc()}')

    def _attempt(self, lane: Lane, arrival: Arrival) -> None:
        """Process one image; count it under exactly one name."""
        if lane.closed:
            lane.health.dropped(_ENGINE_FAILED)
            return
        completed = False
        failure: _Failure | None = None
        lane.health.work_began()
        try:
            self._process(lane, arrival)
            completed = True
        except Rejected as error:
            lane.remarks.dropped(error)
        except (EngineError, MemoryError) as error:
            failure = _Failure.of(error)
        except cv2.error as error:
            # not its attribute 'code', which is of the class: that of whatever was raised last
            if f'({cv2.Error.StsNoMem}:' not in str(error):
                raise
            failure = _Failure.of(MemoryError(str(error)))
        finally:
            lane.health.work_ended(completed=completed)
        # here, where the exception and with it the memory of the image are gone
        if failure is not None:
            lane.health.dropped(failure.reason)
            self._heed(lane, failure)

    def _process(self, lane: Lane, arrival: Arrival) -> None:
        """Decode, compute, publish.

        :raises Rejected: with the reason for which the image is dropped.
        :raises EngineError: when the engine failed.
        """
        image = arrival.image
        settings = self._host.settings
        _check_order(lane.order, arrival)
        _check_age(arrival, settings.input.max_age_s)
        began_ns = time.perf_counter_ns()
        rgb = decode_image(image, settings.input.max_pixels)
        decoded_ns = time.perf_counter_ns()
        view = lane.cameras.view(
            *(rgb.shape[1], rgb.shape[0], image.frame_id),
            needed=self._pipeline.card.needs_intrinsics,
        )
        if self._pipeline.opens_engine_for(lane.name, view.model):
            lane.health.work_is_first()
        frame = self._pipeline.process(
            CameraImage(rgb, image.stamp_ns, image.frame_id, lane.name), view, settings
        )
        self._failures = self._bad_outputs = lane.failures = 0
        _check_age(arrival, settings.input.max_age_s)
        ready_ns = time.perf_counter_ns()
        if not lane.outputs.publish(frame, settings):
            lane.health.dropped(NO_SUBSCRIBER)
            return
        lane.order.note(image.frame_id, image.stamp_ns, arrival.era)
        spent_ns = {
            'decode': decoded_ns - began_ns,
            **frame.stage_ns,
            'publish': time.perf_counter_ns() - ready_ns,
        }
        self._count_published(lane, arrival, spent_ns)

    def _count_published(self, lane: Lane, arrival: Arrival, spent_ns: dict[str, int]) -> None:
        """Hand ages and stage times to the health, and say when clocks disagree."""
        stamp_ns = arrival.image.stamp_ns
        stamp_age_ns = self._host.stamp_now_ns() - stamp_ns
        odd = stamp_remark(stamp_age_ns, stamp_ns)
        if odd:
            lane.remarks.warn('stamp', odd)
        age_ns = time.monotonic_ns() - arrival.arrived_ns
        lane.health.published(age_ns, None if odd else stamp_age_ns, spent_ns, odd)

    def _heed(self, lane: Lane, failure: _Failure) -> None:
        """Do about a failure what helps against its kind; give up when nothing does."""
        if failure.reason == _LOST:
            self._lose_engine(failure)
            return
        if failure.reason == _BAD_OUTPUT:
            self._heed_bad_output(lane, failure)
            return
        self._failures += 1
        lane.failures += 1
        lasting = f'{_ENGINE_FAILURES_IN_A_ROW} images in a row failed: {failure.text}'
        if self._failures >= _ENGINE_FAILURES_IN_A_ROW:
            self._lose_engine(_Failure(failure.reason, lasting))
            return
        if lane.failures >= _ENGINE_FAILURES_IN_A_ROW:
            # The engine serves the other cameras: opening it again and again would stop them.
            lane.closed = True
            lane.health.failed(f'{lasting} No more are taken until the node is activated anew.')
        if failure.reason == _NO_MEMORY:
            give_back_freed_memory()
            lane.remarks.warn(failure.reason, f'{failure.text} The next image is tried.')
        else:
            lane.remarks.warn(failure.reason, f'{failure.text} The engine is opened anew.')
            self._open_anew()

    def _heed_bad_output(self, lane: Lane, failure: _Failure) -> None:
        """Open an engine anew, once, that keeps giving what is no number.

        After that it is the images or the model: another engine would give the same, so that the
        images are dropped and the state stays DEGRADED until one succeeds.
        """
        self._bad_outputs += 1
        again = self._bad_outputs == _BAD_OUTPUTS_IN_A_ROW
        if again:
            # under a cause of its own, which is not kept back by the lines before
            lane.remarks.warn('engine_output_lasts', f'{failure.text} The engine is opened anew.')
            self._open_anew()
        else:
            lane.remarks.warn(failure.reason, failure.text)

    def _open_anew(self) -> None:
        """Replace the pipeline; give up when that fails."""
        failure: _Failure | None = None
        try:
            self._pipeline = self._host.reopen_pipeline()
        except (DepthNodeError, MemoryError) as error:
            failure = _Failure.of(error)
        if failure is not None:
            self._lose_engine(failure)

    def _lose_engine(self, failure: _Failure) -> None:
        """Take no further image and end the process."""
        self._lost = True
        lost = failure.reason == _LOST
        self._host.give_up(EXIT_DEVICE_LOST if lost else EXIT_ENGINE, failure.text)


def _check_order(order: StampOrder, arrival: Arrival) -> None:
    """Refuse a stamp that is not newer than the last one that left."""
    image = arrival.image
    reason = order.objection(image.frame_id, image.stamp_ns, arrival.era)
    if reason:
        raise ImageRejected(
            reason,
            'image',
            f'the stamp {image.stamp_ns} ns',
            'a stamp newer than that of the last depth image',
            'Does more than one node publish on the topic?',
        )


def _check_age(arrival: Arrival, max_age_s: float) -> None:
    """Refuse an image that came too long ago to be of use."""
    age_s = (time.monotonic_ns() - arrival.arrived_ns) / 1e9
    if age_s > max_age_s:
        raise ImageRejected(
            'too_old',
            'image',
            f'one that came {age_s:.2f} s ago',
            f'at most {max_age_s:g} s (input.max_age_s)',
            'The machine is too slow for this model or too busy.',
        )
