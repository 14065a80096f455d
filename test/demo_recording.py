"""A recording of noise with the depth that the stand-in for the node knows, as of another sensor.

A test file takes the fixture by naming it: ``recording = demo_recording.recording``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from standin_node import truth

from depth_node.frames import CameraFields
from depth_node.recording.writer import RecordingWriter

WIDTH, HEIGHT, COUNT, RATE_HZ = 64, 48, 24, 20.0
T0 = 1_700_000_000_000_000_000
CAMERA = CameraFields(
    width=WIDTH,
    height=HEIGHT,
    distortion_model='plumb_bob',
    d=(0.0,) * 5,
    k=(60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0),
    frame_id='cam',
    stamp_ns=T0,
)


def write(
    path: Path, camera: CameraFields = CAMERA, depth_frame: str = 'cam', quality: int | None = 90
) -> Path:
    rng = np.random.default_rng(0)
    with RecordingWriter(path, 'mcap') as writer:
        for index in range(COUNT):
            stamp = T0 + round(index * 1e9 / RATE_HZ)
            writer.camera_info('/camera/camera_info', replace(camera, stamp_ns=stamp))
            rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            writer.image('/camera/image_raw', rgb, stamp, 'cam', quality)
            # Twice the size of the image, three milliseconds late, as of another sensor.
            writer.depth(
                '/camera/depth/image_rect',
                truth(2 * HEIGHT, 2 * WIDTH),
                stamp + 3_000_000,
                depth_frame,
                compressed=True,
            )
    return path


@pytest.fixture(scope='module')
def recording(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp('recording') / 'bag')
