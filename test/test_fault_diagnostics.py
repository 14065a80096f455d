"""Every fault shows on /diagnostics within a second and is off it two seconds after it is over.

The real node, with a camera of 20 images a second.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass
from dataclasses import field

import pytest

pytest.importorskip('rclpy')

from node_rig import HEIGHT
from node_rig import camera_message
from node_rig import image_message

PERIOD_S = 0.05
SHOWS_S, CLEARS_S = 1.0, 2.0
OK, WARN, ERROR, STALE = b'\x00', b'\x01', b'\x02', b'\x03'
LONG = {'node.diagnostics_period_s': 60.0}


@dataclass
class Fault:
    """What goes wrong, and where a user finds it."""

    level: bytes
    said: str
    image: dict = field(default_factory=dict)
    offset_ns: int = 0
    repeats: bool = False
    stops: bool = False
    frame_id: str = 'camera_optical_frame'
    camera: dict | None = None


FAULTS = {
    'data': Fault(WARN, 'image_data_length', {'data': array('B', bytes(9))}),
    'encoding': Fault(WARN, 'image_encoding', {'encoding': 'rgb9'}),
    'other size': Fault(
        WARN,
        'camera_image_size',
        {'width': HEIGHT, 'step': HEIGHT * 3, 'data': array('B', bytes(HEIGHT * HEIGHT * 3))},
    ),
    'uncalibrated': Fault(WARN, 'refused in the last', camera={'k': [0.0] * 9}),
    'duplicate': Fault(WARN, 'duplicate', repeats=True),
    'older': Fault(WARN, 'out_of_order', offset_ns=-(9 * 10**8)),
    'stops': Fault(STALE, 'no image for', stops=True),
    'frame': Fault(OK, "that of images is 'left'", frame_id='left'),
}


def status_text(status):
    return ' '.join([status.message, *(f'{pair.key}={pair.value}' for pair in status.values)])


class Camera:
    """Sends images, good or faulty, at a steady rate while it waits for a status."""

    def __init__(self, it):
        self.it = it
        self.last_ns = 0

    def tick(self, fault=None):
        now_ns = time.time_ns()
        if fault is None:
            self.last_ns = now_ns
            self._send(now_ns)
            self.it.cameras.publish(camera_message())
        elif fault.camera is not None:
            self._send(now_ns)
            self.it.cameras.publish(camera_message(**fault.camera))
        elif not fault.stops:
            stamp_ns = self.last_ns if fault.repeats else now_ns
            self._send(stamp_ns + fault.offset_ns, fault.frame_id, **fault.image)

    def until(self, condition, within_s, fault=None):
        """Return how long it took until a status met the condition."""
        self.it.diagnostics.clear()
        began = time.monotonic()
        while time.monotonic() < began + within_s:
            self.tick(fault)
            self.it.pump(PERIOD_S)
            if any(condition(array.status[0]) for array in self.it.diagnostics):
                return time.monotonic() - began
        last = self.it.diagnostics[-1].status[0] if self.it.diagnostics else None
        raise AssertionError(f'not within {within_s} s: {last and status_text(last)}')

    def _send(self, stamp_ns, frame_id='camera_optical_frame', **changes):
        message = image_message(stamp_ns, **changes)
        message.header.frame_id = frame_id
        self.it.images.publish(message)


@pytest.mark.parametrize('name', FAULTS)
def test_a_fault_shows_within_a_second_and_clears_within_two(rig, name):
    fault = FAULTS[name]
    # A long period: faults that come and go are published by themselves.
    it = rig(**LONG).ready().listen_to_diagnostics()
    sender = Camera(it)

    def well(status):
        text = status_text(status)
        return status.level == OK and "is 'left'" not in text

    sender.until(well, 3.0)
    sender.until(
        lambda status: status.level == fault.level and fault.said in status_text(status),
        SHOWS_S,
        fault,
    )
    sender.until(well, CLEARS_S)


def test_a_camera_that_is_not_described_shows_within_a_second_and_clears_within_two(rig):
    it = rig(**LONG).listen().listen_to_diagnostics()
    it.wait(lambda: it.cameras.get_subscription_count())
    sender = Camera(it)
    unknown = Fault(WARN, '', camera={'k': [0.0] * 9})
    sender.until(lambda status: 'no_camera_info' in status.message, SHOWS_S, unknown)
    sender.until(lambda status: status.level == OK, CLEARS_S)


def test_an_image_that_hangs_is_an_error_after_a_second_until_it_is_done(rig):
    it = rig('ok', 'hang', **LONG, **{'input.max_age_s': 60.0}).ready().listen_to_diagnostics()
    sender = Camera(it)
    it.send()
    sender.until(lambda status: status.level == ERROR and 'in work' in status.message, 2.0)
    it.pipeline.released.set()
    sender.until(lambda status: status.level == OK, CLEARS_S)
