"""A scan says what is near, what is free and what is unknown, in the directions that it names."""

from __future__ import annotations

import numpy as np
import pytest

from depth_node.errors import SettingsError
from depth_node.frames import CameraModel
from depth_node.scan import Scanner
from depth_node.scan import scan_frame

CAMERA = CameraModel(640, 480, 400.0, 400.0, 310.0, 245.0)


def depth_of(value: float, camera: CameraModel = CAMERA) -> np.ndarray:
    return np.full((camera.height, camera.width), value, np.float32)


@pytest.mark.parametrize(
    'camera', [CAMERA, CameraModel(256, 192, 90.0, 95.0, 140.0, 80.0)], ids=['narrow', 'wide']
)
def test_a_wall_is_straight(camera: CameraModel) -> None:
    scan = Scanner(camera, band=0.1).scan(depth_of(3.0, camera), 0.1, 50.0)
    angles = scan.angle_min_rad + scan.angle_increment_rad * np.arange(len(scan.ranges_m))
    ahead_m = scan.ranges_m * np.cos(angles)
    # a direction takes the nearest of one or two pixels, half an increment off at most
    off = np.abs(np.tan(angles)) * scan.angle_increment_rad
    assert (np.abs(ahead_m - 3.0) <= 3.0 * (off + 1e-5)).all()
    right, left = (camera.width - 1 - camera.cx) / camera.fx, camera.cx / camera.fx
    assert scan.angle_min_rad == pytest.approx(-np.arctan(right), abs=1e-6)
    assert scan.angle_max_rad == pytest.approx(np.arctan(left), abs=scan.angle_increment_rad)


def test_what_stands_on_the_left_of_the_image_is_at_positive_angles() -> None:
    depth_m = depth_of(10.0)
    depth_m[:, 100:110] = 2.0
    scan = Scanner(CAMERA, band=0.1).scan(depth_m, 0.1, 50.0)
    near = np.flatnonzero(scan.ranges_m < 5.0)
    angle = scan.angle_min_rad + scan.angle_increment_rad * near.mean()
    assert angle == pytest.approx(np.arctan((310.0 - 104.5) / 400.0), abs=2e-3)
    assert scan.ranges_m[near].min() == pytest.approx(2.0 * np.hypot(1, 200.5 / 400), rel=2e-3)


def test_a_thin_pole_is_not_lost_between_two_directions() -> None:
    for column in range(640):
        depth_m = depth_of(10.0)
        depth_m[:, column] = 1.0
        assert (Scanner(CAMERA, band=0.0).scan(depth_m, 0.1, 50.0).ranges_m < 2.0).any()


def test_every_direction_has_a_value_and_free_ones_are_infinite() -> None:
    scan = Scanner(CAMERA, band=0.05).scan(depth_of(np.inf), 0.1, 50.0)
    assert np.isposinf(scan.ranges_m).all()
    far = Scanner(CAMERA, band=0.05).scan(depth_of(60.0), 0.1, 50.0)
    assert np.isposinf(far.ranges_m).all()


def test_a_direction_is_unknown_only_where_all_its_pixels_are() -> None:
    depth_m = depth_of(np.nan)
    assert np.isnan(Scanner(CAMERA, band=0.1).scan(depth_m, 0.1, 50.0).ranges_m).all()
    depth_m[240] = 4.0
    assert np.isfinite(Scanner(CAMERA, band=0.1).scan(depth_m, 0.1, 50.0).ranges_m).all()
    too_near = Scanner(CAMERA, band=0.1).scan(depth_of(0.05), 0.1, 50.0)
    assert np.isnan(too_near.ranges_m).all()


def test_only_the_band_about_the_horizon_counts() -> None:
    depth_m = depth_of(10.0)
    depth_m[300:] = 1.0  # the floor
    assert (Scanner(CAMERA, band=0.1).scan(depth_m, 0.1, 50.0).ranges_m > 5.0).all()
    assert (Scanner(CAMERA, band=0.5).scan(depth_m, 0.1, 50.0).ranges_m < 5.0).all()


def test_a_camera_that_does_not_see_its_horizon_has_no_scan() -> None:
    with pytest.raises(SettingsError, match=r'row -30, is not in the image'):
        Scanner(CameraModel(640, 480, 400.0, 400.0, 310.0, -30.0), band=0.1)


@pytest.mark.parametrize(
    ('optical', 'forward'),
    [
        ('camera_color_optical_frame', 'camera_color_frame'),
        ('cam_optical', 'cam'),
        ('camera', 'camera'),
    ],
)
def test_the_frame_of_the_scan_is_the_one_beside_the_optical_frame(
    optical: str, forward: str
) -> None:
    assert scan_frame(optical) == forward
