"""Scans, clouds and depth images land on the right pixels, and nothing is seen through things."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_samples import IDLE
from dataset_samples import cached
from dataset_samples import true_depth

from depth_node.camera import distort_slopes
from depth_node.camera import from_horizontal_fov
from depth_node.dataset.projection import ProjectionLimits
from depth_node.dataset.projection import Target
from depth_node.dataset.projection import depth_rays
from depth_node.dataset.projection import projected
from depth_node.dataset.projection import scan_points
from depth_node.dataset.sensors import Sensor
from depth_node.dataset.sparse_depth import SparseSource
from depth_node.dataset.trajectory import Trajectory
from depth_node.frames import PointField
from depth_node.recording.messages import LaserScanFields
from depth_node.recording.messages import PointCloudFields
from depth_node.world.recording import RecordingSettings
from depth_node.world.recording import camera_fields

MODEL = from_horizontal_fov(128, 96, 1.2)
TARGET = Target(MODEL, np.ones((96, 128), bool))
CLOUD = SparseSource('lidar', '/points')
FORWARD = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""T_camera_laser of a laser (x forward, z up) in the place of the camera."""


def wall(z: float, half_width: float, points: int = 60) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(-half_width, half_width, points), np.linspace(-1, 1, points))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], axis=1)


def shifted(x=0.0, y=0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[:2, 3] = x, y
    return pose


def scan(ranges, stamp_ns=0) -> LaserScanFields:
    ranges = np.asarray(ranges, np.float32)
    return LaserScanFields(-0.4, 0.4, 0.8 / (len(ranges) - 1), 0.1, 10.0, ranges, stamp_ns, 'l')


def test_points_land_where_the_camera_sees_them():
    points = np.array([[0.1, -0.2, 2.0], [0.0, 0.0, 5.0]])
    found = projected(points, np.eye(4), TARGET, CLOUD)
    order = np.argsort(found.depth_m)
    np.testing.assert_allclose(found.depth_m[order], [2.0, 5.0])
    np.testing.assert_allclose(
        found.u[order], MODEL.cx + MODEL.fx * np.array([0.05, 0]), atol=1e-4
    )
    np.testing.assert_allclose(found.v[order], MODEL.cy - MODEL.fy * np.array([0.1, 0]), atol=1e-4)


def test_what_a_near_thing_hides_is_taken_out():
    # the sensor stands aside and looks past the near wall, the camera does not
    points = np.concatenate([wall(1.0, 0.3), wall(4.0, 3.0, 90)])
    found = projected(points, shifted(x=0.2), TARGET, CLOUD)
    right = MODEL.fx * (0.3 + 0.2) + MODEL.cx
    left = MODEL.fx * (-0.3 + 0.2) + MODEL.cx
    behind = found.depth_m > 2
    covered = (found.u > left) & (found.u < right)
    assert behind.sum() > 300 and (~behind).sum() > 500
    assert not (behind & covered).any()
    untouched = projected(wall(4.0, 3.0, 90), shifted(x=0.2), TARGET, CLOUD)
    assert len(untouched) > 1000, 'a wall alone hides nothing'


def test_the_floor_hides_no_floor():
    x, z = np.meshgrid(np.linspace(-1, 1, 60), np.linspace(1.0, 6.0, 150))
    floor = np.stack([x.ravel(), np.full(x.size, 0.5), z.ravel()], axis=1)
    every = projected(floor, np.eye(4), TARGET, CLOUD, ProjectionLimits(most_points=100_000))
    kept = projected(floor, shifted(x=0.1), TARGET, CLOUD, ProjectionLimits(most_points=100_000))
    assert len(kept) > 0.75 * len(every)


def test_ranges_that_are_no_measurement_are_left_out():
    points = scan_points(scan([np.nan, np.inf, 0.0, 0.05, 10.0, 11.0, -1.0, 2.0]))
    np.testing.assert_allclose(points, [[2 * np.cos(0.4), 2 * np.sin(0.4), 0.0]], atol=1e-6)
    limits = ProjectionLimits(min_m=0.5, max_m=3.0)
    z = np.array([0.1, 0.4, 1.0, 2.9, 3.1, np.nan, np.inf, -1.0])
    points = np.stack([0.1 * np.arange(8.0) - 0.2, np.zeros(8), z], axis=1)
    found = projected(points, np.eye(4), TARGET, CLOUD, limits)
    np.testing.assert_allclose(np.sort(found.depth_m), [1.0, 2.9], rtol=1e-6)


def test_nothing_lands_where_rectification_left_black():
    seen = np.ones((96, 128), bool)
    seen[:, :64] = False
    found = projected(wall(2.0, 1.0), np.eye(4), Target(MODEL, seen), CLOUD)
    assert len(found) and found.u.min() > 63


def test_a_scan_is_brought_to_the_time_of_the_image():
    poses = np.tile(np.eye(4), (11, 1, 1))
    poses[:, 2, 3] = np.linspace(0, 1, 11)  # 1 m/s forwards
    stamps = np.arange(11, dtype=np.int64) * 100_000_000
    way = Trajectory('t', stamps, poses)
    sensor = Sensor(SparseSource('scan', '/scan'), FORWARD)
    angles = np.linspace(-0.4, 0.4, 81)
    sensor.hear(scan(3.0 / np.cos(angles), stamp_ns=450_000_000))
    found = sensor.depth_at(500_000_000, TARGET, way)
    np.testing.assert_allclose(found.depth_m, 2.95, rtol=1e-5)
    np.testing.assert_allclose(found.v, MODEL.cy, atol=1e-4)
    assert sensor.depth_at(560_000_000, TARGET, way) is None, 'more than a tenth of a second'
    assert sensor.depth_at(500_000_000, TARGET, None) is None, 'no poses to bring it over'
    assert sensor.depth_at(460_000_000, TARGET, None) is not None


def test_points_of_a_lidar_are_read_through_its_mount_and_bad_ones_are_counted():
    xyz = np.array([[3.0, 0.1, 0.2], [np.nan, 0, 0], [-2.0, 0.0, 0.0]], np.float32)
    fields = tuple(PointField(name, 4 * k) for k, name in enumerate('xyz'))
    sensor = Sensor(CLOUD, FORWARD)
    sensor.hear(PointCloudFields(1, 3, fields, False, 12, 36, xyz.tobytes(), 5, 'lidar'))
    found = sensor.depth_at(5, TARGET, None)
    np.testing.assert_allclose(found.depth_m, [3.0])
    np.testing.assert_allclose(found.u, MODEL.cx - MODEL.fx * 0.1 / 3.0, atol=1e-4)
    np.testing.assert_allclose(found.v, MODEL.cy - MODEL.fy * 0.2 / 3.0, atol=1e-4)
    sensor.hear(PointCloudFields(1, 3, fields, False, 12, 36, b'short', 9, 'lidar'))
    assert sensor.depth_at(9, TARGET, None) is None and sensor.unusable == 1


@pytest.mark.parametrize('lens', ['plumb_bob', 'equidistant'])
def test_raw_depth_images_are_read_through_their_lens(lens):
    fields = camera_fields(RecordingSettings(width=160, height=120, lens=lens))
    rays = depth_rays(fields, 120, 160, rectified=False, wanted=160 * 120 // 4)
    assert rays.step == 2
    points = rays.points(np.full((120, 160), 3.0, np.float32))
    u, v = np.moveaxis(distort_slopes(points[:, :2] / 3.0, fields), 1, 0)
    wanted_v, wanted_u = np.mgrid[:120:2, :160:2]
    np.testing.assert_allclose(u, wanted_u.ravel(), atol=0.01)
    np.testing.assert_allclose(v, wanted_v.ravel(), atol=0.01)


@pytest.mark.parametrize('kind', ['depth', 'scan'])
def test_what_a_recording_measured_agrees_with_its_truth(kind):
    cache, truth = cached(IDLE), true_depth(IDLE)
    ratios = []
    for frame in cache.frames:
        for part in cache.sparse_all(frame.index):
            if part.source.kind == kind:
                ratios.append(part.sampled(truth[frame.stamp_ns]) / part.depth_m)
    assert len(ratios) > 0.9 * len(cache)
    ratio = np.concatenate(ratios)
    ratio = ratio[np.isfinite(ratio)]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.01)
    # the scanner looks under tables whose tops the camera sees
    assert (np.abs(ratio - 1) < 0.1).mean() > {'depth': 0.95, 'scan': 0.6}[kind]
