"""CameraInfo: what is refused, and which camera an image of some size is seen with."""

import dataclasses
import math

import numpy as np
import pytest
from camera_samples import BARREL
from camera_samples import FISHEYE
from camera_samples import LENSES
from camera_samples import PRISM
from camera_samples import RATIONAL
from camera_samples import K
from camera_samples import P
from camera_samples import entries
from camera_samples import fields_of
from camera_samples import lens_fields
from camera_samples import region
from camera_samples import turned

from depth_node.camera import check_fields
from depth_node.camera import ray_slopes
from depth_node.camera import undistorted_slopes
from depth_node.camera import view_of
from depth_node.errors import CameraRejected
from depth_node.frames import CameraModel

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
    ({'r': entries(turned(0.1, 0.2), _5=1e200)}, 'camera_rotation', 'R[5] = 1e+200'),
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


def test_whatever_numbers_arrive_are_refused_or_give_a_finite_camera():
    rng = np.random.default_rng(11)
    odd = [0.0, -0.0, 1.0, -1.0, 1e-320, 1e308, -1e308, math.nan, math.inf, 300.0, 2.0**31]
    outcomes = {'refused': 0, 'seen': 0}
    with np.errstate(all='raise', under='ignore'):
        for _ in range(400):
            model, d = LENSES[rng.choice(list(LENSES))]
            changes = {'distortion_model': model, 'd': d}
            for name, values in (('k', K), ('p', P), ('d', d), ('r', turned(0.1, 0.1))):
                if rng.random() < 0.3:
                    at = int(rng.integers(len(values)))
                    changes[name] = entries(values, **{f'_{at}': float(rng.choice(odd))})
            fields = fields_of(**changes)
            try:
                view = view_of(fields, 40, 30, rectify=True, rectified_input=False)
                slopes = undistorted_slopes(
                    dataclasses.replace(fields, roi_width=32, roi_height=24)
                )
            except CameraRejected:
                outcomes['refused'] += 1
                continue
            outcomes['seen'] += 1
            assert np.isfinite(view.model.k).all()
            assert slopes.shape == (24, 32, 2)
    assert min(outcomes.values()) > 50
