"""Lenses and rectification, against OpenCV and formulas in float64."""

import dataclasses
import math

import cv2
import numpy as np
import pytest
from camera_samples import LENSES
from camera_samples import P
from camera_samples import entries
from camera_samples import fields_of
from camera_samples import lens_fields
from camera_samples import turned

from depth_node.camera import distort_slopes
from depth_node.camera import has_distortion
from depth_node.camera import ray_slopes
from depth_node.camera import resized
from depth_node.camera import undistorted_slopes
from depth_node.camera import view_of
from depth_node.camera.lens import lens_of
from depth_node.errors import CameraRejected


def independent_projection(slopes, fields):
    """Project with OpenCV, whose code shares nothing with ours."""
    rays = np.concatenate((slopes, np.ones((len(slopes), 1))), axis=1)[:, np.newaxis]
    camera = np.array(fields.k).reshape(3, 3)
    d = np.array(fields.d)
    project = (
        cv2.fisheye.projectPoints
        if fields.distortion_model == 'equidistant'
        else cv2.projectPoints
    )
    pixels, _ = project(rays, np.zeros(3), np.zeros(3), camera, d)
    return pixels.reshape(-1, 2)


@pytest.mark.parametrize('name', LENSES)
def test_the_lens_agrees_with_opencv(name):
    fields = lens_fields(name)
    grid = np.stack(np.meshgrid(np.linspace(-0.7, 0.7, 41), np.linspace(-0.5, 0.5, 31)), -1)
    slopes = grid.reshape(-1, 2)
    ours = distort_slopes(slopes, fields)
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, independent_projection(slopes, fields), rtol=0, atol=1e-9)


@pytest.mark.parametrize('name', LENSES)
def test_every_pixel_has_a_ray_that_lands_on_it(name):
    fields = lens_fields(name)
    slopes = undistorted_slopes(fields)
    assert slopes.shape == (480, 640, 2)
    assert np.isfinite(slopes).all()
    centers = np.stack(np.meshgrid(np.arange(640.0), np.arange(480.0)), axis=-1)
    assert np.abs(distort_slopes(slopes, fields) - centers).max() < 1e-9
    independent = independent_projection(slopes.reshape(-1, 2), fields)
    assert np.abs(independent - centers.reshape(-1, 2)).max() < 1e-6


def test_strong_lenses_are_inverted_up_to_the_corners():
    wide = (250.0, 0.0, 320.0, 0.0, 250.0, 240.0, 0.0, 0.0, 1.0)
    for name in ('rational', 'fisheye', 'ideal fisheye'):
        fields = lens_fields(name, k=wide)
        slopes = undistorted_slopes(fields)
        seen = np.isfinite(slopes[..., 0])
        assert seen.mean() > 0.98
        assert np.hypot(*np.moveaxis(slopes[seen], -1, 0)).max() > 2.5
        error = independent_projection(slopes[seen], fields) - np.argwhere(seen)[:, ::-1]
        assert np.abs(error).max() < 1e-6


def test_rays_beyond_the_fold_of_a_lens_have_no_pixel():
    fields = fields_of(d=(-0.3, 0.0, 0.0, 0.0, 0.0))
    fold = math.sqrt(1.0 / 0.9)  # where d(r - 0.3 r^3)/dr = 0
    slopes = np.array([[0.98 * fold, 0.0], [1.02 * fold, 0.0], [0.0, -3.0]])
    assert np.isfinite(distort_slopes(slopes, fields)).all(axis=-1).tolist() == [
        True,
        False,
        False,
    ]


def test_rays_beyond_the_pole_of_a_rational_lens_have_no_pixel():
    fields = dataclasses.replace(lens_fields('rational'), d=(0.0,) * 5 + (-0.5, 0.0, 0.0))
    slopes = np.array([[1.3, 0.0], [1.5, 0.0], [0.0, -3.0]])
    seen = np.isfinite(distort_slopes(slopes, fields)).all(axis=-1)
    assert seen.tolist() == [True, False, False]


def test_derivatives_of_the_lenses_are_those_of_their_formulas():
    step = 1e-6
    lens = lens_of(lens_fields('prism'))
    x, y = np.array([0.3, -0.5, 0.1]), np.array([0.2, 0.4, -0.6])
    along_x = np.subtract(lens._image(x + step, y), lens._image(x - step, y)) / (2.0 * step)
    along_y = np.subtract(lens._image(x, y + step), lens._image(x, y - step)) / (2.0 * step)
    wanted = (along_x[0], along_y[0], along_x[1], along_y[1])
    np.testing.assert_allclose(lens._derivatives(x, y), wanted, atol=1e-8)
    fisheye = lens_of(lens_fields('fisheye'))
    angle = np.array([0.2, 0.9, 1.4])
    slope = (fisheye._image(angle + step) - fisheye._image(angle - step)) / (2.0 * step)
    np.testing.assert_allclose(fisheye._derivative(angle), slope, atol=1e-8)


def test_pixels_that_no_ray_reaches_are_nan():
    """A fold at image radius 0.70 leaves the corners of a wide sensor dark."""
    wide = (400.0, 0.0, 319.5, 0.0, 400.0, 239.5, 0.0, 0.0, 1.0)
    fields = fields_of(d=(-0.3, 0.0, 0.0, 0.0, 0.0), k=wide)
    reach_px = 400.0 * (2.0 / 3.0) * math.sqrt(1.0 / 0.9)
    columns, rows = np.meshgrid(np.arange(640.0) - 319.5, np.arange(480.0) - 239.5)
    radius_px = np.hypot(columns, rows)
    seen = np.isfinite(undistorted_slopes(fields)).all(axis=-1)
    assert seen[radius_px < reach_px - 0.01].all()
    assert not seen[radius_px > reach_px + 0.01].any()


def test_slopes_of_a_cut_and_binned_image_are_those_of_its_sensor_pixels():
    window = {
        'binning_x': 2,
        'binning_y': 2,
        'roi_x_offset': 100,
        'roi_y_offset': 60,
        'roi_width': 200,
        'roi_height': 100,
    }
    fields = lens_fields('barrel', **window)
    slopes = undistorted_slopes(fields)
    assert slopes.shape == (50, 100, 2)
    sensor = distort_slopes(slopes, lens_fields('barrel'))
    np.testing.assert_allclose(sensor[3, 8], (116.5, 66.5), atol=1e-6)
    np.testing.assert_allclose(distort_slopes(slopes, fields)[3, 8], (8.0, 3.0), atol=1e-6)


def test_an_equidistant_lens_without_coefficients_still_bends():
    fields = lens_fields('ideal fisheye')
    assert has_distortion(fields)
    pixel = distort_slopes(np.array([math.tan(1.0), 0.0]), fields)
    np.testing.assert_allclose(pixel, (323.0 + 450.0, 236.0), atol=1e-9)
    assert not has_distortion(lens_fields('none'))
    assert has_distortion(lens_fields('barrel'))


def map_sources(rectifier):
    """Return the source column and row of every rectified pixel, (H, W, 2)."""
    steps = np.stack((rectifier.fraction & 31, rectifier.fraction >> 5), axis=-1)
    return rectifier.source + steps / 32.0


@pytest.mark.parametrize('name', [name for name in LENSES if name != 'none'])
def test_rectified_pixels_come_from_where_their_rays_land(name):
    rotation = turned(0.03, -0.05)
    fields = lens_fields(name, r=rotation)
    view = view_of(fields, 640, 480, rectify=True, rectified_input=False)
    assert (view.model.fx, view.model.cx) == (430.0, 318.5)
    x, y = ray_slopes(view.model)
    rays = np.stack((*np.meshgrid(x, y), np.ones((480, 640))), axis=-1).astype(np.float64)
    raw = np.einsum('ji,hwj->hwi', np.array(rotation).reshape(3, 3), rays)
    wanted = distort_slopes(raw[..., :2] / raw[..., 2:], fields)
    rectifier = view.rectifier
    error = np.abs(map_sources(rectifier) - wanted)[rectifier.valid]
    assert error.max() < 1.0 / 32.0
    inside = ((wanted > 0.1) & (wanted < (638.9, 478.9))).all(axis=-1)
    outside = ~((wanted > -0.1) & (wanted < (639.1, 479.1))).all(axis=-1)
    assert rectifier.valid[inside].all()
    assert not rectifier.valid[outside].any()


def test_rectification_moves_colors_and_blackens_what_has_no_source():
    # The rectified camera looks wider than the raw one, so that its border sees nothing.
    wide_p = entries(P, _0=300.0, _5=300.0)
    fields = fields_of(d=(-0.1, 0.0, 0.0, 0.0, 0.0), p=wide_p)
    rectifier = view_of(fields, 640, 480, rectify=True, rectified_input=False).rectifier
    columns, rows = np.meshgrid(np.arange(640), np.arange(480))
    raw = np.stack((columns * 255 / 639, rows * 255 / 479, np.full((480, 640), 200.0)), axis=-1)
    rectified = rectifier.apply(np.round(raw).astype(np.uint8)).astype(np.float64)
    wanted = map_sources(rectifier) * (255 / 639, 255 / 479)
    valid = rectifier.valid
    assert 0.3 < valid.mean() < 0.9
    assert np.abs(rectified[..., :2] - wanted)[valid].max() <= 1.1
    assert (rectified[valid][:, 2] == 200.0).all()
    assert (rectified[~valid] == 0.0).all()


@pytest.mark.parametrize('angle_rad', [0.0, 0.6])
def test_what_a_lens_cannot_image_is_not_mirrored_into_the_rectified_image(angle_rad):
    rotation = turned(0.0, angle_rad)
    wide_p = entries(P, _0=120.0, _5=120.0)
    fields = fields_of(d=(-0.3, 0.0, 0.0, 0.0, 0.0), p=wide_p, r=rotation)
    rectifier = view_of(fields, 640, 480, rectify=True, rectified_input=False).rectifier
    x = (np.arange(640) - 318.5) / 120.0
    y = (np.arange(480) - 240.5) / 120.0
    rays = np.stack((*np.meshgrid(x, y), np.ones((480, 640))), axis=-1)
    raw = rays @ np.array(rotation).reshape(3, 3)
    angle = np.arctan2(np.hypot(raw[..., 0], raw[..., 1]), raw[..., 2])
    assert not rectifier.valid[np.tan(angle) > math.sqrt(1.0 / 0.9)].any()
    assert rectifier.valid[np.abs(angle) < 0.45].all()


@pytest.mark.parametrize(
    'changes',
    [
        {'d': ()},
        {'d': (0.0,) * 5, 'r': (0.0,) * 9},
        {'d': (0.0,) * 3, 'distortion_model': 'none', 'r': ()},
    ],
)
def test_a_shift_by_whole_pixels_loses_only_what_it_shifts_out(changes):
    shifted = (450.0, 0.0, 326.0, 0.0, 0.0, 455.0, 234.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    for sign in (1, -1):
        p = entries(shifted, _2=323.0 + 3 * sign, _6=236.0 - 2 * sign)
        fields = fields_of(p=p, **changes)
        rectifier = view_of(fields, 640, 480, rectify=True, rectified_input=False).rectifier
        wanted = np.zeros((480, 640), bool)
        if sign > 0:
            wanted[:478, 3:] = True
        else:
            wanted[2:, :637] = True
        np.testing.assert_array_equal(rectifier.valid, wanted)


def test_rays_from_behind_are_not_seen():
    """A rotation of 100 degrees puts half of the rectified image behind the raw camera."""
    fields = fields_of(r=turned(0.0, math.radians(100.0)))
    rectifier = view_of(fields, 640, 480, rectify=True, rectified_input=False).rectifier
    assert not rectifier.valid[:, 320:].any() or not rectifier.valid[:, :320].any()
    rotation = np.array(fields.r).reshape(3, 3)
    x, y = (np.arange(640) - 318.5) / 430.0, (np.arange(480) - 240.5) / 431.0
    rays = np.stack((*np.meshgrid(x, y), np.ones((480, 640))), axis=-1) @ rotation
    assert not rectifier.valid[rays[..., 2] <= 0.0].any()


def test_maps_cannot_be_changed_and_another_image_size_is_refused():
    fields = lens_fields('barrel')
    rectifier = view_of(fields, 640, 480, rectify=True, rectified_input=False).rectifier
    with pytest.raises(ValueError, match='read-only'):
        rectifier.source[0, 0, 0] = 1
    with pytest.raises(CameraRejected, match='320 x 240') as refused:
        rectifier.apply(np.zeros((240, 320, 3), np.uint8))
    assert refused.value.reason == 'camera_image_size'


def test_rectification_can_write_to_a_given_buffer_and_read_strided_read_only_rows():
    rectifier = view_of(
        lens_fields('barrel'), 640, 480, rectify=True, rectified_input=False
    ).rectifier
    padded = np.random.default_rng(1).integers(0, 255, (480, 660, 3), np.uint8)
    image = padded[:, :640]
    image.flags.writeable = False
    out = np.full((480, 640, 3), 99, np.uint8)
    assert rectifier.apply(image, out) is out
    np.testing.assert_array_equal(out, rectifier.apply(np.ascontiguousarray(image)))


def test_maps_for_a_resized_image_are_made_at_its_size():
    fields = lens_fields('barrel')
    full = view_of(fields, 640, 480, rectify=True, rectified_input=False)
    half = view_of(fields, 320, 240, rectify=True, rectified_input=False)
    assert half.rectifier.valid.shape == (240, 320)
    assert half.model == resized(full.model, 320, 240)
    # The centre of half-size pixel (100, 50) is full-size (200.5, 100.5).
    corner = map_sources(full.rectifier)[100:102, 200:202].mean(axis=(0, 1))
    wanted = (corner + 0.5) / 2.0 - 0.5
    np.testing.assert_allclose(map_sources(half.rectifier)[50, 100], wanted, atol=0.05)


def test_nothing_is_rectified_where_nothing_would_change():
    same = fields_of(p=(450.0, 0, 323.0, 0, 0, 455.0, 236.0, 0, 0, 0, 1.0, 0))
    missing = fields_of(p=())
    barely_turned = fields_of(p=(), r=turned(1e-7, 0.0))
    for fields in (same, missing, barely_turned):
        view = view_of(fields, 640, 480, rectify=True, rectified_input=False)
        assert view.rectifier is None
        assert view.model.fx == 450.0
    for fields in (
        fields_of(),
        fields_of(p=(), r=turned(1e-5, 0.0)),
        lens_fields('barrel', p=()),
        lens_fields('ideal fisheye', p=()),
    ):
        view = view_of(fields, 640, 480, rectify=True, rectified_input=False)
        assert view.rectifier is not None
    assert view.model.fx == 450.0
