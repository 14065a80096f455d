"""Points of scans and clouds that were measured one after the other land where they belong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from depth_node.camera import from_horizontal_fov
from depth_node.dataset.projection import Target
from depth_node.dataset.projection import scan_points_and_times
from depth_node.dataset.sensors import Sensor
from depth_node.dataset.sparse_depth import SparseSource
from depth_node.dataset.sweep import at_one_moment
from depth_node.dataset.trajectory import Trajectory
from depth_node.errors import RecordingError
from depth_node.frames import PointField
from depth_node.recording.messages import LaserScanFields
from depth_node.recording.messages import PointCloudFields
from depth_node.recording.points import points_and_times

T0 = 1_700_000_000_123_456_789
SWEEP_S = 0.1
RAYS = 401
SPEED_M_S, TURN_RAD_S = 2.0, 1.0
WALL_M = 4.0
TARGET = Target(from_horizontal_fov(128, 96, 1.2), np.ones((96, 128), bool))
FORWARD = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""T_camera_laser of a laser (x forward, z up) in the place of the camera."""


def T_world_laser(seconds):
    """Return where a laser is that drives towards a wall at x = 4 m and turns to the left."""
    yaw = TURN_RAD_S * seconds - 0.2
    pose = np.eye(4)
    pose[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    pose[0, 3] = SPEED_M_S * seconds
    return pose


def way(first_s=-0.5, last_s=1.0):
    stamps = np.arange(first_s, last_s, 0.02)
    poses = np.stack([T_world_laser(at) @ np.linalg.inv(FORWARD) for at in stamps])
    return Trajectory('t', T0 + np.rint(stamps * 1e9).astype(np.int64), poses)


def swept(begin_s=0.0):
    """Return angles, ranges and times of rays, seconds after T0, one after the other."""
    angles = np.linspace(-0.5, 0.5, RAYS)
    times = begin_s + np.linspace(0.0, SWEEP_S, RAYS)
    heading = angles + TURN_RAD_S * times - 0.2
    return angles, (WALL_M - SPEED_M_S * times) / np.cos(heading), times


def scan(**changes):
    angles, ranges, times = swept()
    values = {
        'angle_min_rad': angles[0], 'angle_max_rad': angles[-1],
        'angle_increment_rad': angles[1] - angles[0], 'range_min_m': 0.1, 'range_max_m': 20.0,
        'ranges_m': ranges.astype(np.float32), 'stamp_ns': T0, 'frame_id': 'laser',
        'time_increment_s': times[1] - times[0], 'scan_time_s': SWEEP_S,
    }  # fmt: skip
    return LaserScanFields(**{**values, **changes})


def cloud(name, datatype, times, begin_s=0.0):
    """Return a cloud of a sweep that began after T0; ``times`` are as its driver writes them."""
    angles, ranges, _ = swept(begin_s)
    kind = {2: 'u1', 4: 'u2', 5: '<i4', 6: '<u4', 7: '<f4', 8: '<f8'}[datatype]
    packed = np.zeros(
        RAYS, np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), (name, kind), ('end', 'u1')])
    )
    packed['x'], packed['y'] = ranges * np.cos(angles), ranges * np.sin(angles)
    packed[name] = times
    fields = [PointField(axis, 4 * k, 7) for k, axis in enumerate('xyz')]
    fields.append(PointField(name, 12, datatype))
    step = packed.dtype.itemsize
    return PointCloudFields(
        1, RAYS, tuple(fields), False, step, RAYS * step, packed.tobytes(), T0, 'laser'
    )


def depth_error(message, image_s=0.06, trajectory=None):
    """Return the largest error of depth at its pixel, as a share, for an image after T0."""
    sensor = Sensor(SparseSource('lidar', '/points'), FORWARD)
    sensor.hear(message)
    found = sensor.depth_at(T0 + round(image_s * 1e9), TARGET, trajectory or way())
    assert found is not None and len(found) > 50, sensor.trouble
    model, yaw = TARGET.camera, TURN_RAD_S * image_s - 0.2
    slopes = (found.u - model.cx) / model.fx
    # along the ray through the pixel: forward minus slope times left reaches the wall
    truth = (WALL_M - SPEED_M_S * image_s) / (math.cos(yaw) + slopes * math.sin(yaw))
    return float(np.abs(found.depth_m / truth - 1).max())


def test_a_scan_of_a_moving_sensor_lands_on_the_true_depth():
    assert depth_error(scan()) < 0.002
    assert depth_error(scan(time_increment_s=0.0)) > 0.02, 'visibly off without its times'


_, _, FROM_BEGIN = swept()
NAMED = {
    'uint32 nanoseconds (t)': ('t', 6, np.rint(FROM_BEGIN * 1e9), 0.0),
    'uint32 nanoseconds (offset_time)': ('offset_time', 6, np.rint(FROM_BEGIN * 1e9), 0.0),
    'int32 nanoseconds, stamped at the end': ('t', 5, (FROM_BEGIN - SWEEP_S) * 1e9, -SWEEP_S),
    'float32 seconds': ('time', 7, FROM_BEGIN, 0.0),
    'float32 seconds, stamped at the end': ('time', 7, FROM_BEGIN - SWEEP_S, -SWEEP_S),
    'float64 seconds': ('time', 8, FROM_BEGIN, 0.0),
    'float64 time of day, seconds': ('timestamp', 8, T0 / 1e9 + FROM_BEGIN, 0.0),
    'float64 time of day, microseconds': ('timestamp', 8, T0 / 1e3 + FROM_BEGIN * 1e6, 0.0),
    'float64 time of day, nanoseconds': ('timestamp', 8, T0 + FROM_BEGIN * 1e9, 0.0),
}


@pytest.mark.parametrize('encoding', NAMED)
def test_every_encoding_of_time_brings_a_cloud_to_the_true_depth(encoding):
    name, datatype, times, begin_s = NAMED[encoding]
    message = cloud(name, datatype, times, begin_s)
    _, found = points_and_times(message)
    np.testing.assert_allclose(found, FROM_BEGIN + begin_s, atol=2e-6)
    image_s = begin_s + 0.06
    assert depth_error(message, image_s) < 0.002
    assert depth_error(cloud('ring', datatype, times, begin_s), image_s) > 0.02


@pytest.mark.parametrize('name, datatype, times, said', [
    ('t', 6, 4e9, 'times from 4e.09'),
    ('time', 7, FROM_BEGIN * 1e9, 'within 1 s of the stamp'),
    ('time', 7, np.nan, 'times from nan'),
    ('timestamp', 8, T0 / 1e9 - 3600.0, "its field 'timestamp'"),
    ('time', 4, 7, 'datatype 4'),
])  # fmt: skip
def test_absurd_times_of_points_are_refused_with_a_sentence(name, datatype, times, said):
    with pytest.raises(RecordingError, match=said):
        points_and_times(cloud(name, datatype, times))
    sensor = Sensor(SparseSource('lidar', '/points'), FORWARD)
    sensor.hear(cloud(name, datatype, times))
    assert sensor.depth_at(T0, TARGET, way()) is None
    assert sensor.unusable == 1 and 'point cloud' in sensor.trouble


@pytest.mark.parametrize(
    'changes, said',
    [
        ({'time_increment_s': 0.1}, '0.1 s from ray to ray'),
        ({'time_increment_s': float('nan')}, 'nan s from ray to ray'),
        ({'scan_time_s': 0.02}, 'a scan of 0.02 s'),
    ],
)
def test_absurd_times_of_rays_are_refused_with_a_sentence(changes, said):
    with pytest.raises(RecordingError, match=said):
        scan_points_and_times(scan(**changes))


def test_what_has_no_times_stays_as_it_is():
    assert scan_points_and_times(scan(time_increment_s=0.0))[1] is None
    assert points_and_times(cloud('t', 6, 0))[1] is None
    assert points_and_times(cloud('ring', 4, 7))[1] is None


def test_rays_keep_their_times_where_others_hit_nothing():
    ranges = swept()[1].astype(np.float32)
    ranges[::3] = np.inf
    points, times = scan_points_and_times(scan(ranges_m=ranges))
    assert len(points) == len(times)
    np.testing.assert_allclose(times, np.delete(FROM_BEGIN, np.s_[::3]), atol=1e-9)


def test_points_of_times_without_a_pose_are_left_out():
    points = np.tile([1.0, 0.0, 0.0], (5, 1))
    times = np.array([0.0, 0.1, 0.2, 0.3, 5.0])
    kept = at_one_moment(points, times, T0, way(last_s=0.25), FORWARD)
    assert len(kept) == 3
    assert len(at_one_moment(points, times, T0 + 9_000_000_000, way(), FORWARD)) == 0
    moved = T_world_laser(0.1)[:3] @ [1.0, 0.0, 0.0, 1.0]
    then = np.linalg.inv(T_world_laser(0.0)) @ [*moved, 1.0]
    np.testing.assert_allclose(kept[1], then[:3], atol=1e-4)
