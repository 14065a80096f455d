"""A recording of a camera whose images tell their number and whose depth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from depth_node.frames import CameraFields
from depth_node.recording.messages import LaserScanFields
from depth_node.recording.writer import RecordingWriter

T0 = 1_700_000_000_000_000_000
STEP_NS = 100_000_000
WIDTH, HEIGHT = 32, 24
CAMERA = CameraFields(
    WIDTH, HEIGHT, 'plumb_bob', (0.0,) * 5,
    (30.0, 0.0, 15.5, 0.0, 30.0, 11.5, 0.0, 0.0, 1.0),
    p=(30.0, 0.0, 15.5, 0.0, 0.0, 30.0, 11.5, 0.0, 0.0, 0.0, 1.0, 0.0),
    frame_id='cam',
)  # fmt: skip


def picture(index: int) -> np.ndarray:
    """Return an image whose colour tells its index."""
    return np.full((HEIGHT, WIDTH, 3), 10 + index, np.uint8)


def depth(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    values = np.linspace(1.0, 6.0, HEIGHT)[:, None] * np.exp(rng.normal(0, 0.2, (HEIGHT, WIDTH)))
    values[0, :5] = np.nan
    return values.astype(np.float32)


def scanned(stamp_ns: int) -> LaserScanFields:
    ranges = np.full(9, 2.0, np.float32)
    return LaserScanFields(-0.4, 0.4, 0.1, 0.1, 10.0, ranges, stamp_ns, 'laser')


def write(path, count=20, shift_ns=0, late=0, depth_frame='cam', storage='mcap', camera=CAMERA,
          topic='/camera/depth/image_rect', skip=(), scan=False):  # fmt: skip
    """Write a recording; ``late`` is by how many frames depth messages come after their image."""
    with RecordingWriter(path, storage) as writer:
        for index in range(count + late):
            stamp = T0 + index * STEP_NS
            writer.camera_info('/camera/camera_info', replace(camera, stamp_ns=stamp))
            if index < count:
                writer.image('/camera/image_raw', picture(index), stamp, 'cam', None)
            if scan:
                writer.scan('/scan', scanned(stamp))
            taken = index - late
            if taken >= 0 and taken not in skip:
                at = T0 + taken * STEP_NS + shift_ns
                writer.depth(topic, depth(taken), at, depth_frame, False)
    return path
