"""Several cameras in one rendered recording: where they are, and what their topics say of it."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from depth_node.errors import SettingsError
from depth_node.frames import CameraFields
from depth_node.recording import open_recording
from depth_node.world.recording import RecordingSettings
from depth_node.world.recording import camera_fields
from depth_node.world.recording import write
from depth_node.world.rig import CameraMount
from depth_node.world.rig import rig_fields

RIGHT = CameraMount('camera_right', right_m=0.12, depth=True)
TURNED = CameraMount('side', -0.05, 0.02, 0.03, math.radians(20.0))
SETTINGS = RecordingSettings(
    seconds=0.2, rate_hz=10.0, width=160, height=120, raw_depth=True, extra_cameras=(RIGHT, TURNED)
)


@pytest.fixture(scope='module')
def contents(tmp_path_factory):
    path = tmp_path_factory.mktemp('rig') / 'bag'
    write(path, SETTINGS, workers=1)
    with open_recording(path) as recording:
        found = {}
        for record in recording.records(recording.topics):
            found.setdefault(record.topic, []).append(record.content)
    return found


def test_all_cameras_have_the_same_stamps(contents):
    stamps = [
        [content.stamp_ns for content in contents[topic]]
        for topic in (
            '/camera/image_raw/compressed',
            '/camera_right/image_raw/compressed',
            '/side/image_raw/compressed',
            '/camera_right/camera_info',
            '/camera_right/depth/image_rect',
        )
    ]
    assert len(stamps[0]) == 2
    assert all(other == stamps[0] for other in stamps)
    assert '/side/depth/image_rect' not in contents


def test_the_right_camera_has_the_baseline_in_p(contents):
    first = contents['/camera/camera_info'][0]
    right = contents['/camera_right/camera_info'][0]
    side = contents['/side/camera_info'][0]
    assert first.p[3] == side.p[3] == 0.0
    assert right.p[3] == pytest.approx(-right.p[0] * 0.12)
    assert right.frame_id == 'camera_right_optical_frame'


def test_a_camera_to_the_left_makes_the_first_one_the_right_one():
    first, left = rig_fields(camera_fields(SETTINGS), [CameraMount('left', right_m=-0.1)], 'none')
    assert first.p[3] == pytest.approx(-first.p[0] * 0.1)
    assert left.p[3] == 0.0


def test_a_lens_keeps_the_baseline_out_of_p():
    assert all(fields.p[3] == 0.0 for fields in rig_fields(camera_fields(SETTINGS), [RIGHT], 'x'))


def test_points_of_one_camera_lie_where_the_other_measures_them(contents):
    fields = contents['/camera/camera_info'][0]
    assert isinstance(fields, CameraFields)
    depth = [
        np.frombuffer(contents[topic][0].data, '<f4').reshape(120, 160)
        for topic in ('/camera/depth/image_rect', '/camera_right/depth/image_rect')
    ]
    v, u = np.mgrid[:120, :160].astype(np.float32)
    moved = u - np.float32(fields.k[0] * 0.12) / depth[0]
    seen = cv2.remap(depth[1], moved, v, cv2.INTER_NEAREST, borderValue=float('nan'))
    error = np.abs(seen / depth[0] - 1.0)[moved > 0]
    assert np.nanmedian(error) < 0.01
    assert np.nanmean(error < 0.05) > 0.9


def test_yaw_to_the_right_turns_forward_to_the_right():
    forward = TURNED.T_first_camera[:3, :3] @ (0.0, 0.0, 1.0)
    assert forward[0] == pytest.approx(math.sin(math.radians(20.0)))
    assert np.allclose(TURNED.T_first_camera[:3, 3], (-0.05, 0.02, 0.03))


@pytest.mark.parametrize(
    'mounts',
    [
        (CameraMount('camera', 0.1),),
        (CameraMount('a', 0.1), CameraMount('a', 0.2)),
        (CameraMount('no name', 0.1),),
        (CameraMount('far', 20.0),),
        (CameraMount('lost', float('nan')),),
    ],
)
def test_impossible_cameras_are_refused(mounts, tmp_path):
    with pytest.raises(SettingsError):
        write(tmp_path / 'bag', RecordingSettings(extra_cameras=mounts), workers=1)
