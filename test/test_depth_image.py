"""What the numbers of a depth image say, in every encoding, and the picture of it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from depth_node.byte_arrays import bytes_of
from depth_node.depth_colors import DepthColors
from depth_node.depth_image import DepthEncoder
from depth_node.settings import DepthSettings

DEPTH_M = np.array([[np.nan, np.inf, 1.2344, 1.2346], [0.0002, 65.53, 70.0, 2.0]], np.float32)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def encoded(**wanted) -> np.ndarray:
    before = DEPTH_M.copy()
    values = DepthEncoder().encoded(DEPTH_M, DepthSettings(max_m=80.0, **wanted))
    # cloud and scan are made of the same array
    np.testing.assert_array_equal(DEPTH_M, before)
    return values


def test_by_default_depth_goes_out_as_it_is_and_is_not_copied() -> None:
    assert DepthEncoder().encoded(DEPTH_M, DepthSettings()) is DEPTH_M


@pytest.mark.parametrize(('beyond', 'far_m'), [('nan', np.nan), ('max', 80.0)])
def test_what_is_beyond_the_range_becomes_what_is_asked_and_nothing_else_changes(
    beyond: str, far_m: float
) -> None:
    expected = DEPTH_M.copy()
    expected[0, 1] = far_m
    np.testing.assert_array_equal(encoded(beyond=beyond), expected)


@pytest.mark.parametrize(('beyond', 'far_mm'), [('inf', 0), ('nan', 0), ('max', 65_535)])
def test_millimetres_are_rounded_and_saturated_and_0_only_where_there_is_no_number(
    beyond: str, far_mm: int
) -> None:
    values = encoded(encoding='16UC1', beyond=beyond)
    assert values.dtype == np.uint16
    assert values.tolist() == [[0, far_mm, 1234, 1235], [1, 65_530, 65_535, 2000]]


def test_a_range_that_millimetres_can_say_is_said_as_it_is() -> None:
    values = DepthEncoder().encoded(
        np.array([[np.inf]], np.float32),
        DepthSettings(max_m=12.5, encoding='16UC1', beyond='max'),
    )
    assert values.tolist() == [[12_500]]


@pytest.mark.parametrize('encoding', ['32FC1', '16UC1'])
def test_images_of_another_size_and_views_are_encoded_in_memory_that_a_message_holds(
    encoding: str,
) -> None:
    encoder = DepthEncoder()
    for shape in ((6, 8), (3, 5), (6, 8)):
        depth_m = np.full((12, 16), 2.0, np.float32)[: shape[0], : shape[1]]
        values = encoder.encoded(depth_m, DepthSettings(encoding=encoding, beyond='max'))
        assert values.shape == shape and len(np.unique(values)) == 1
        data = bytes_of(values)
        assert data.tobytes() == values.tobytes() and data is bytes_of(values)


def test_near_is_red_far_is_blue_and_unknown_is_black() -> None:
    depth_m = np.geomspace(1.0, 50.0, 80 * 64, dtype=np.float32).reshape(64, 80)
    depth_m[:2, 40:] = np.nan
    depth_m[60:] = np.inf
    rgb = DepthColors().of_depth(depth_m).astype(int)
    assert rgb.shape == (64, 80, 3)
    assert (rgb[:2, 40:] == 0).all() and (rgb[2:].sum(-1) > 0).all()
    assert rgb[0, 0, 0] > 100 and rgb[0, 0, 0] > 3 * rgb[0, 0, 2]
    assert (rgb[58, :, 2] > rgb[58, :, 0]).all()
    assert (rgb[62] == rgb[63]).all() and rgb[63, 0, 2] >= rgb[63, 0, 0]
    # the middle of the ramp is green
    inverse = np.tile(np.linspace(0, 1, 101, dtype=np.float32), (9, 1))
    assert DepthColors().of_inverse(inverse)[4, 50].argmax() == 1


@pytest.mark.parametrize(
    'value', [np.nan, np.inf, 3.0], ids=['all unknown', 'nothing in range', 'a wall']
)
def test_an_image_of_one_value_has_one_colour(value: float) -> None:
    rgb = DepthColors().of_depth(np.full((16, 24), value, np.float32))
    assert (rgb == rgb[0, 0]).all() and (rgb.sum() == 0) == np.isnan(value)


def test_colours_of_relative_inverse_depth_do_not_depend_on_its_scale_and_shift() -> None:
    inverse = np.random.default_rng(8).uniform(-3.0, 700.0, (40, 56)).astype(np.float32)
    first = DepthColors().of_inverse(inverse).astype(int)
    second = DepthColors().of_inverse(inverse * 4 + 256).astype(int)
    assert np.abs(first - second).max() <= 12 and len(np.unique(first)) > 50
