"""Between a foreground and its background no points are invented; surfaces stay."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from depth_node.benchmark import edges
from depth_node.flying_pixels import FlyingPixels
from depth_node.settings import Settings
from depth_node.world import samples

Depth = NDArray[np.float32]
STEP = Settings().depth.edge_step


def enlarged(inverse: Depth, factor: float = 2.5) -> Depth:
    """Return inverse depth without flying pixels, enlarged as the pipeline does it."""
    inverse = inverse.copy()
    FlyingPixels().forget(inverse, STEP)
    size = (round(inverse.shape[1] * factor), round(inverse.shape[0] * factor))
    return np.asarray(cv2.resize(inverse, size, interpolation=cv2.INTER_LINEAR))


def forgotten(inverse: Depth) -> NDArray[np.bool_]:
    """Tell which pixels of a network's output are forgotten."""
    inverse = inverse.copy()
    FlyingPixels().forget(inverse, STEP)
    return np.isnan(inverse)


@pytest.mark.parametrize('factor', [1.0, 2.5, 3.75])
def test_between_a_box_and_the_wall_behind_it_nothing_is_left(factor: float) -> None:
    inverse = np.full((60, 80), 1 / 4.0, np.float32)
    inverse[20:41, 30:51] = 1 / 2.0
    large = enlarged(inverse, factor)
    depth_m = 1.0 / large[~np.isnan(large)]
    assert np.isclose(depth_m, 2.0, rtol=1e-5).any()
    assert (np.isclose(depth_m, 2.0, rtol=1e-5) | np.isclose(depth_m, 4.0, rtol=1e-5)).all()


@pytest.mark.parametrize('blur_px', [0.5, 0.8])
def test_of_a_blurred_edge_the_far_side_goes_and_no_more_than_three_pixels_of_it(
    blur_px: float,
) -> None:
    inverse = np.full((40, 60), 1 / 5.0, np.float32)
    inverse[:, 30:] = 1 / 2.0
    mask = forgotten(cv2.GaussianBlur(inverse, (0, 0), blur_px))
    assert mask[:, 29].all()
    assert not mask[:, :27].any()
    assert not mask[:, 32:].any()


def test_a_ramp_of_which_no_step_is_an_edge_alone_is_cut_and_a_plane_as_steep_is_not() -> None:
    plane = np.tile(1.0 + 0.08 * np.arange(60, dtype=np.float32), (20, 1))
    plane[:, 30:] = plane[:, 29:30]
    assert (plane[:, 1] > (1 + STEP / 2) * plane[:, 0]).all()
    mask = forgotten(plane)
    assert not mask[:, :28].any()
    ramp = np.ones((20, 30), np.float32)
    ramp[:, 9:] = (1.07, 1.18, *[1.25] * 19)
    assert forgotten(ramp)[:, 8:10].all()
    assert not np.delete(forgotten(ramp), (8, 9), axis=1).any()


@pytest.mark.parametrize('slope', [0.0, 1.0, 4.0])
def test_a_wall_at_an_angle_stays_whole(slope: float) -> None:
    # z = 3 + slope * x, of a camera with a focal length of 200 px
    x = (np.arange(256, dtype=np.float32) - 127.5) / 200.0
    inverse = np.tile(np.maximum(1.0 - slope * x, 0.0) / 3.0, (40, 1)).astype(np.float32)
    seen = inverse > 1 / 18.0
    assert not (forgotten(inverse) & seen).any()


def test_a_floor_is_lost_near_the_horizon_alone() -> None:
    below = np.arange(-96, 96, dtype=np.float32)[:, None] + 0.5
    inverse = np.maximum(below, 0.0) / 200.0 * np.ones((1, 256), np.float32)
    assert not forgotten(inverse)[96 + 8 :].any()


def test_sky_beside_a_roof_is_an_edge_and_sky_alone_is_not() -> None:
    inverse = np.zeros((20, 20), np.float32)
    inverse[12:] = 0.1
    mask = forgotten(inverse)
    assert mask[11].all()
    assert not np.delete(mask, 11, axis=0).any()


def test_unknown_pixels_stay_unknown_and_a_step_of_0_keeps_all() -> None:
    inverse = np.ones((9, 9), np.float32)
    inverse[4, 4] = np.nan
    inverse[0, 0] = 0.5
    kept = inverse.copy()
    FlyingPixels().forget(kept, 0.0)
    assert np.array_equal(kept, inverse, equal_nan=True)
    assert np.array_equal(np.argwhere(forgotten(inverse)), [[0, 0], [4, 4]])


def test_on_exact_depth_flying_points_go_and_others_stay() -> None:
    rng = np.random.default_rng(11)
    views = [samples.draw(rng, 480, 640)[0] for _ in range(8)]
    for seen in ('exact', 'averaged', 'blurred'):
        count = edges.counted(views, (256, 192), seen, (STEP,))[0]
        assert count.flying > 500
        assert count.removed_share >= 0.8
        assert count.lost_share <= 0.05
