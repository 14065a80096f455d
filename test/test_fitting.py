"""Pinhole cameras under crop and resize, and the fit of images to networks."""

import dataclasses
import math

import numpy as np
import pytest

from depth_node.camera import cropped
from depth_node.camera import fit
from depth_node.camera import from_horizontal_fov
from depth_node.camera import horizontal_fov_rad
from depth_node.camera import ray_slopes
from depth_node.camera import resized
from depth_node.errors import ModelError
from depth_node.errors import SettingsError
from depth_node.frames import CameraModel


def test_crop_and_resize_keep_every_ray():
    model = CameraModel(640, 480, 450.0, 455.0, 323.0, 236.0)
    x, y = ray_slopes(model)
    cut_x, cut_y = ray_slopes(cropped(model, 11, 23, 100, 80))
    np.testing.assert_allclose(cut_x, x[11:111], atol=1e-6)
    np.testing.assert_allclose(cut_y, y[23:103], atol=1e-6)
    half_x, half_y = ray_slopes(resized(model, 320, 160))
    np.testing.assert_allclose(half_x, x.reshape(-1, 2).mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(half_y, y.reshape(-1, 3).mean(axis=1), atol=1e-6)
    assert x.dtype == np.float32
    assert x[0] == np.float32((0 - 323.0) / 450.0)


def test_field_of_view_spans_the_edges_of_the_image():
    model = from_horizontal_fov(641, 480, math.radians(90.0))
    assert model.fx == pytest.approx(320.5)
    assert model.fy == model.fx
    assert (model.cx, model.cy) == (320.0, 239.5)
    assert horizontal_fov_rad(model) == pytest.approx(math.radians(90.0))
    narrow = from_horizontal_fov(641, 480, math.radians(60.0))
    assert narrow.fx == pytest.approx(320.5 * math.sqrt(3.0))
    shifted = dataclasses.replace(model, cx=200.0)
    assert horizontal_fov_rad(shifted) == pytest.approx(
        math.atan(200.5 / 320.5) + math.atan(440.5 / 320.5)
    )


@pytest.mark.parametrize('bad', [0.0, -1.0, math.pi, 90.0, math.nan, math.inf])
def test_a_field_of_view_in_degrees_or_out_of_range_is_refused(bad):
    with pytest.raises(SettingsError, match='field of view'):
        from_horizontal_fov(640, 480, bad)


@pytest.mark.parametrize(('width', 'height'), [(640, 0), (0, 480)])
def test_a_camera_without_pixels_is_refused(width, height):
    with pytest.raises(SettingsError, match='camera size'):
        from_horizontal_fov(width, height, 1.0)


CAMERA = CameraModel(640, 480, 450.0, 455.0, 323.0, 236.0)


def assert_rays_kept(source, fitted):
    """The network's border pixels look along the borders of the rectangle."""
    camera = fitted.camera
    for side in (0, 1):
        u = (-0.5, camera.width - 0.5)[side]
        v = (-0.5, camera.height - 0.5)[side]
        source_u = fitted.left - 0.5 + side * fitted.width
        source_v = fitted.top - 0.5 + side * fitted.height
        assert (u - camera.cx) / camera.fx == pytest.approx((source_u - source.cx) / source.fx)
        assert (v - camera.cy) / camera.fy == pytest.approx((source_v - source.cy) / source.fy)


@pytest.mark.parametrize(
    ('sizes', 'policy', 'rectangle', 'index'),
    [
        (((192, 640), (480, 640)), 'native', (0, 0, 640, 480), 1),
        (((192, 640), (256, 320), (240, 320)), 'native', (0, 0, 640, 480), 2),
        (((240, 320), (480, 640)), 'native', (0, 0, 640, 480), 0),
        (((240, 345),), 'native', (0, 0, 640, 480), 0),
        (((240, 346),), 'native', (0, 18, 640, 444), 0),
        (((192, 640),), 'native', (0, 144, 640, 192), 0),
        (((224, 224), (480, 640)), 'crop', (80, 0, 480, 480), 0),
        (((192, 640), (480, 640)), 'crop', (0, 144, 640, 192), 0),
        (((240, 320),), 'crop', (0, 0, 640, 480), 0),
        (((192, 640), (480, 640)), 'stretch', (0, 0, 640, 480), 0),
    ],
)
def test_images_are_fitted_to_the_network(sizes, policy, rectangle, index):
    fitted = fit(CAMERA, sizes, policy)
    assert (fitted.left, fitted.top, fitted.width, fitted.height) == rectangle
    assert fitted.size_index == index
    assert (fitted.camera.height, fitted.camera.width) == sizes[index]
    assert_rays_kept(CAMERA, fitted)


def test_crops_stay_inside_and_are_exact_to_half_a_pixel():
    rng = np.random.default_rng(7)
    for _ in range(300):
        width, height, to_width, to_height = rng.integers(1, 2000, 4).tolist()
        source = from_horizontal_fov(width, height, 1.2)
        fitted = fit(source, [(to_height, to_width)], 'crop')
        assert fitted.left >= 0 and fitted.left + fitted.width <= width
        assert fitted.top >= 0 and fitted.top + fitted.height <= height
        assert fitted.width == width or fitted.height == height
        off_px = min(
            abs(fitted.width - fitted.height * to_width / to_height),
            abs(fitted.height - fitted.width * to_height / to_width),
        )
        assert off_px <= 0.5 or min(fitted.width, fitted.height) == 1
        assert abs(2 * fitted.left + fitted.width - width) <= 1
        assert abs(2 * fitted.top + fitted.height - height) <= 1
        assert_rays_kept(source, fitted)


@pytest.mark.parametrize(
    ('sizes', 'policy'),
    [(((192, 640),), 'squeeze'), ((), 'native'), (((0, 640),), 'crop'), (((192, -1),), 'stretch')],
)
def test_an_unknown_policy_or_no_size_is_refused(sizes, policy):
    with pytest.raises(ModelError, match="model card's"):
        fit(CAMERA, sizes, policy)
