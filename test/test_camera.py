"""Cameras: what is refused, and geometry against formulas in float64 and against OpenCV."""

import dataclasses
import math

import cv2
import numpy as np
import pytest

from depth_node.camera import check_fields
from depth_node.camera import cropped
from depth_node.camera import distort_slopes
from depth_node.camera import fit
from depth_node.camera import from_horizontal_fov
from depth_node.camera import has_distortion
from depth_node.camera import horizontal_fov_rad
from depth_node.camera import ray_slopes
from depth_node.camera import resized
from depth_node.camera import undistorted_slopes
from depth_node.camera import view_of
from depth_node.errors import CameraRejected
from depth_node.errors import ModelError
from depth_node.errors import SettingsError
from depth_node.frames import CameraFields
from depth_node.frames import CameraModel
from depth_node.lens import lens_of

K = (450.0, 0.0, 323.0, 0.0, 455.0, 236.0, 0.0, 0.0, 1.0)
P = (430.0, 0.0, 318.5, 0.0, 0.0, 431.0, 240.5, 0.0, 0.0, 0.0, 1.0, 0.0)
BARREL = (-0.35, 0.15, 0.001, -0.002, -0.03)
RATIONAL = (1.2, 0.4, 0.001, -0.0005, 0.05, 1.5, 0.7, 0.1)
PRISM = (*RATIONAL, 0.01, 0.002, -0.01, 0.001)
FISHEYE = (-0.02, 0.01, -0.005, 0.001)

LENSES = {
    'none': ('plumb_bob', (0.0,) * 5),
    'barrel': ('plumb_bob', BARREL),
    'barrel4': ('plumb_bob', BARREL[:4]),
    'pincushion': ('plumb_bob', (0.25, 0.1, 0.004, 0.003, 0.0)),
    'rational': ('rational_polynomial', RATIONAL),
    'prism': ('rational_polynomial', PRISM),
    'fisheye': ('equidistant', FISHEYE),
    'ideal fisheye': ('equidistant', (0.0,) * 4),
}


def fields_of(**changes):
    """Return good fields of a 640x480 camera with some changed."""
    good = CameraFields(640, 480, 'plumb_bob', (0.0,) * 5, K, p=P)
    return dataclasses.replace(good, **changes)


def lens_fields(name, **changes):
    model, d = LENSES[name]
    return fields_of(distortion_model=model, d=d, **changes)


def region(left, top, width, height):
    """Return the fields of a region of interest."""
    return {
        'roi_x_offset': left,
        'roi_y_offset': top,
        'roi_width': width,
        'roi_height': height,
    }


def entries(values, **changes):
    """Return values with entries replaced: _3=1.0 sets number 3."""
    listed = list(values)
    for name, value in changes.items():
        listed[int(name[1:])] = value
    return tuple(listed)


def turned(angle_x_rad, angle_y_rad):
    """Return a rotation about x, then y, row-major."""
    rotation, _ = cv2.Rodrigues(np.array([angle_x_rad, 0.0, 0.0]))
    second, _ = cv2.Rodrigues(np.array([0.0, angle_y_rad, 0.0]))
    return tuple((second @ rotation).ravel().tolist())


BAD_FIELDS = [
    ({'width': 0}, 'camera_size', 'width = 0'),
    ({'height': -1}, 'camera_size', 'height = -1'),
    ({'width': 2**31}, 'camera_size', 'width = 2147483648'),
    ({'k': (0.0,) * 9}, 'camera_uncalibrated', 'not calibrated'),
    ({'k': entries(K, _0=0.0)}, 'camera_uncalibrated', 'K[0] = 0'),
    ({'k': K[:8]}, 'camera_intrinsics', 'K with 8 entries'),
    ({'k': ()}, 'camera_intrinsics', 'K with 0 entries'),
    ({'k': entries(K, _4=math.nan)}, 'camera_intrinsics', 'K[4] = nan'),
    ({'k': entries(K, _0=math.inf)}, 'camera_intrinsics', 'K[0] = inf'),
    ({'k': entries(K, _0=-450.0)}, 'camera_intrinsics', 'K[0] = -450, expected a positive'),
    ({'k': entries(K, _4=0.0)}, 'camera_intrinsics', 'K[4] = 0'),
    ({'k': entries(K, _0=1e6, _4=1e6)}, 'camera_intrinsics', 'field of view'),
    ({'k': entries(K, _0=1.0, _4=1.0)}, 'camera_intrinsics', 'field of view'),
    ({'k': entries(K, _4=1000.0)}, 'camera_intrinsics', 'K[0] / K[4]'),
    ({'k': entries(K, _4=200.0)}, 'camera_intrinsics', 'K[0] / K[4]'),
    ({'k': entries(K, _2=-1.0)}, 'camera_intrinsics', 'K[2] = -1'),
    (
        {'k': entries(K, _2=640.0)},
        'camera_intrinsics',
        'expected a principal point inside the image, 0 to 639',
    ),
    ({'k': entries(K, _5=480.0)}, 'camera_intrinsics', 'K[5] = 480'),
    ({'k': entries(K, _5=-2.0)}, 'camera_intrinsics', 'K[5] = -2'),
    ({'k': entries(K, _1=0.5)}, 'camera_intrinsics', 'K[1] = 0.5'),
    ({'k': entries(K, _3=1e-5)}, 'camera_intrinsics', 'K[3] = 1e-05'),
    ({'k': entries(K, _6=0.1)}, 'camera_intrinsics', 'K[6] = 0.1'),
    ({'k': entries(K, _7=0.1)}, 'camera_intrinsics', 'K[7] = 0.1'),
    ({'k': entries(K, _8=0.0)}, 'camera_intrinsics', 'K[8] = 0'),
    ({'d': entries(BARREL, _2=math.nan)}, 'camera_distortion', 'D[2] = nan'),
    ({'d': (math.inf,), 'distortion_model': 'none'}, 'camera_distortion', 'D[0] = inf'),
    ({'d': BARREL[:3]}, 'camera_distortion', 'D with 3 entries for plumb_bob'),
    ({'d': RATIONAL}, 'camera_distortion', 'D with 8 entries for plumb_bob'),
    ({'d': (), 'distortion_model': 'equidistant'}, 'camera_distortion', 'D with 0 entries'),
    ({'d': BARREL, 'distortion_model': 'equidistant'}, 'camera_distortion', 'D with 5 entries'),
    ({'d': BARREL, 'distortion_model': 'fancy\n'}, 'camera_distortion', "'fancy\\n'"),
    ({'d': BARREL, 'distortion_model': ''}, 'camera_distortion', "distortion_model ''"),
    (
        {'d': entries(BARREL, _0=1e9)},
        'camera_distortion',
        'D[0] = 1e+09, expected -100000 to 100000',
    ),
    (
        {'d': (*PRISM, 0.01, 0.0), 'distortion_model': 'rational_polynomial'},
        'camera_distortion',
        'tilted sensors',
    ),
    ({'r': (1.0,) * 9}, 'camera_rotation', 'R with determinant'),
    ({'r': entries(turned(0.1, 0.2), _4=-1.0)}, 'camera_rotation', 'R with determinant'),
    ({'r': (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}, 'camera_rotation', 'determinant -1'),
    ({'r': (1.0, 0.0)}, 'camera_rotation', 'R with 2 entries'),
    ({'r': (math.nan,) * 9}, 'camera_rotation', 'R[0] = nan'),
    ({'p': P[:9]}, 'camera_projection', 'P with 9 entries'),
    ({'p': entries(P, _3=math.nan)}, 'camera_projection', 'P[3] = nan'),
    ({'binning_x': -1}, 'camera_binning_roi', 'binning_x = -1'),
    ({'binning_y': 65}, 'camera_binning_roi', 'binning_y = 65'),
    ({**region(0, 0, 8, 8), 'binning_x': 9}, 'camera_binning_roi', 'binning_x = 9'),
    ({**region(0, 0, 8, 8), 'binning_y': 9}, 'camera_binning_roi', 'binning_y = 9'),
    ({'roi_width': 64}, 'camera_binning_roi', 'roi of 64 x 0'),
    ({'roi_x_offset': 3}, 'camera_binning_roi', 'roi.x_offset = 3'),
    ({'roi_y_offset': 3}, 'camera_binning_roi', 'roi.y_offset = 3'),
    (
        {**region(-1, 0, 9, 9)},
        'camera_binning_roi',
        'roi.x_offset = -1',
    ),
    ({**region(0, 0, -9, 9)}, 'camera_binning_roi', 'roi.width = -9'),
    (
        {**region(600, 0, 41, 9)},
        'camera_binning_roi',
        'roi.width = 41',
    ),
    (
        {**region(0, 470, 9, 11)},
        'camera_binning_roi',
        'roi.height = 11',
    ),
]


@pytest.mark.parametrize(('changes', 'reason', 'said'), BAD_FIELDS)
def test_bad_camera_info_is_refused_with_its_entry_named(changes, reason, said):
    with pytest.raises(CameraRejected) as refused:
        check_fields(fields_of(**changes))
    assert refused.value.reason == reason
    assert said in str(refused.value)
    assert '\n' not in str(refused.value)


GOOD_FIELDS = [
    {},
    {'k': entries(K, _1=1e-5)},
    {'d': ()},
    {'d': (), 'distortion_model': ''},
    {'d': (0.0,) * 5, 'distortion_model': 'none'},
    {'p': ()},
    {'p': (0.0,) * 12},
    {'r': (0.0,) * 9},
    {'r': ()},
    {'r': turned(0.02, -0.03)},
    {'d': (*PRISM, 0.0, 0.0), 'distortion_model': 'rational_polynomial'},
    {'d': FISHEYE, 'distortion_model': 'equidistant'},
    {
        'binning_x': 2,
        'binning_y': 2,
        'roi_x_offset': 4,
        'roi_y_offset': 6,
        'roi_width': 636,
        'roi_height': 474,
    },
    {**region(0, 0, 640, 480)},
]


@pytest.mark.parametrize('changes', GOOD_FIELDS)
def test_good_camera_info_passes(changes):
    check_fields(fields_of(**changes))


def test_a_raw_image_is_seen_with_k():
    view = view_of(fields_of(d=BARREL), 640, 480, rectify=False, rectified_input=False)
    assert view.rectifier is None
    assert view.model == CameraModel(640, 480, 450.0, 455.0, 323.0, 236.0)


def test_a_rectified_image_is_seen_with_p_and_its_baseline_is_ignored():
    fields = fields_of(d=BARREL, p=entries(P, _3=-50.0))
    for rectify in (False, True):
        view = view_of(fields, 640, 480, rectify=rectify, rectified_input=True)
        assert view.rectifier is None
        assert view.model == CameraModel(640, 480, 430.0, 431.0, 318.5, 240.5)


@pytest.mark.parametrize('p', [(), (0.0,) * 12])
def test_without_p_a_rectified_image_is_seen_with_k_only_where_there_is_no_lens(p):
    view = view_of(fields_of(p=p), 640, 480, rectify=False, rectified_input=True)
    assert (view.model.fx, view.model.cy) == (450.0, 236.0)
    for name in ('barrel', 'fisheye', 'ideal fisheye'):
        with pytest.raises(CameraRejected, match='P all zero') as refused:
            view_of(lens_fields(name, p=p), 640, 480, rectify=False, rectified_input=True)
        assert refused.value.reason == 'camera_projection'


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'_0': 0.0}, 'P[0] = 0'),
        ({'_5': -1.0}, 'P[5] = -1'),
        ({'_0': 4e4, '_5': 4e4}, 'field of view'),
        ({'_5': 900.0}, 'P[0] / P[5]'),
        ({'_1': 1.0}, 'P[1] = 1'),
        ({'_4': 1.0}, 'P[4] = 1'),
        ({'_2': 700.0}, 'P[2] = 700'),
        ({'_6': -5.0}, 'P[6] = -5'),
        ({'_10': 0.0}, 'P[10] = 0'),
        ({'_11': 1.0}, 'P[11] = 1'),
    ],
)
def test_an_implausible_p_is_refused_where_it_is_needed_and_only_there(changes, said):
    fields = fields_of(d=BARREL, p=entries(P, **changes))
    view_of(fields, 640, 480, rectify=False, rectified_input=False)
    for rectify, rectified_input in ((True, False), (False, True)):
        with pytest.raises(CameraRejected) as refused:
            view_of(fields, 640, 480, rectify=rectify, rectified_input=rectified_input)
        assert refused.value.reason == 'camera_projection'
        assert said in str(refused.value)


def test_view_of_checks_the_fields_itself():
    with pytest.raises(CameraRejected, match='not calibrated'):
        view_of(fields_of(k=(0.0,) * 9), 640, 480, rectify=False, rectified_input=True)


@pytest.mark.parametrize('rectified_input', [False, True])
def test_binning_and_region_keep_every_ray(rectified_input):
    fields = fields_of(
        binning_x=2,
        binning_y=3,
        roi_x_offset=40,
        roi_y_offset=30,
        roi_width=401,
        roi_height=300,
    )
    full = view_of(fields_of(), 640, 480, rectify=False, rectified_input=rectified_input).model
    view = view_of(fields, 200, 100, rectify=False, rectified_input=rectified_input)
    x, y = ray_slopes(view.model)
    # Image pixel (7, 5) is the mean of sensor columns 54, 55 and rows 45, 46, 47.
    assert x[7] == pytest.approx((54.5 - full.cx) / full.fx, rel=1e-6)
    assert y[5] == pytest.approx((46.0 - full.cy) / full.fy, rel=1e-6)
    assert (len(x), len(y)) == (200, 100)


def test_a_binning_of_zero_means_one():
    zero = view_of(fields_of(), 640, 480, rectify=False, rectified_input=False)
    one = view_of(
        fields_of(binning_x=1, binning_y=1), 640, 480, rectify=False, rectified_input=False
    )
    assert zero == one


@pytest.mark.parametrize(('width', 'height'), [(320, 240), (1280, 960), (213, 160), (100, 76)])
def test_a_resized_image_keeps_the_rays_of_its_borders(width, height):
    view = view_of(fields_of(), width, height, rectify=False, rectified_input=False)
    model = view.model
    assert (model.width, model.height) == (width, height)
    assert (-0.5 - model.cx) / model.fx == pytest.approx((-0.5 - 323.0) / 450.0)
    assert (width - 0.5 - model.cx) / model.fx == pytest.approx((639.5 - 323.0) / 450.0)
    assert (height - 0.5 - model.cy) / model.fy == pytest.approx((479.5 - 236.0) / 455.0)


@pytest.mark.parametrize(
    ('width', 'height'),
    [(640, 360), (480, 640), (641, 478), (100, 77), (1280, 720), (0, 0), (-640, -480)],
)
def test_an_image_of_another_shape_is_refused(width, height):
    with pytest.raises(CameraRejected) as refused:
        view_of(fields_of(), width, height, rectify=False, rectified_input=False)
    assert refused.value.reason == 'camera_image_size'


def test_an_absurdly_large_image_is_refused_before_maps_are_made():
    for width, height in ((64_000, 48_000), (16_384, 2**31)):
        with pytest.raises(CameraRejected, match='1 to 16384'):
            view_of(lens_fields('barrel'), width, height, rectify=True, rectified_input=False)


def test_an_uncut_image_of_a_camera_with_a_region_is_refused():
    fields = fields_of(roi_x_offset=160, roi_y_offset=120, roi_width=320, roi_height=240)
    view = view_of(fields, 320, 240, rectify=False, rectified_input=False)
    assert view.model.cx == 163.0
    view = view_of(fields, 160, 120, rectify=False, rectified_input=False)
    assert view.model.cx == 81.25
    with pytest.raises(CameraRejected, match='640 x 480'):
        view_of(fields, 640, 480, rectify=False, rectified_input=False)
    binned = dataclasses.replace(fields, binning_x=2, binning_y=2)
    with pytest.raises(CameraRejected, match='320 x 240'):
        view_of(binned, 320, 240, rectify=False, rectified_input=False)


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
