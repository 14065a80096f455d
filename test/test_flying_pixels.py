"""Between a foreground and its background no points are invented; surfaces stay."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from depth_node.flying_pixels import forget_flying
from depth_node.world import samples

Depth = NDArray[np.float32]


def enlarged(inverse: Depth, factor: float = 2.5) -> Depth:
    """Return inverse depth without flying pixels, enlarged as the pipeline does it."""
    inverse = inverse.copy()
    forget_flying(inverse, 0.15)
    size = (round(inverse.shape[1] * factor), round(inverse.shape[0] * factor))
    return np.asarray(cv2.resize(inverse, size, interpolation=cv2.INTER_LINEAR))


def forgotten(inverse: Depth) -> NDArray[np.bool_]:
    """Tell which pixels of a network's output are forgotten."""
    inverse = inverse.copy()
    forget_flying(inverse, 0.15)
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
def test_of_a_blurred_edge_the_far_side_goes_and_no_more_than_two_pixels_of_it(
    blur_px: float,
) -> None:
    inverse = np.full((40, 60), 1 / 5.0, np.float32)
    inverse[:, 30:] = 1 / 2.0
    mask = forgotten(cv2.GaussianBlur(inverse, (0, 0), blur_px))
    assert mask[:, 29].all()
    assert not mask[:, :27].any()
    assert not mask[:, 32:].any()


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
    forget_flying(kept, 0.0)
    assert np.array_equal(kept, inverse, equal_nan=True)
    assert np.array_equal(np.argwhere(forgotten(inverse)), [[0, 0], [4, 4]])


def test_on_exact_depth_flying_points_go_and_others_stay() -> None:
    rng = np.random.default_rng(11)
    counts = np.zeros(4)
    for _ in range(4):
        sample = samples.draw(rng, 480, 640)[0]
        counts += _counted(sample.depth_m)
    removed, flew, lost, stood = counts
    assert flew > 500
    assert removed >= 0.8 * flew
    assert lost <= 0.05 * stood


def _counted(true_m: Depth) -> NDArray[np.float64]:
    """Count flying points removed and in all, and other points lost and in all."""
    inverse = np.where(np.isfinite(true_m), 1.0 / true_m, 0.0).astype(np.float32)
    small = cv2.resize(inverse, (256, 192), interpolation=cv2.INTER_AREA)
    large = np.asarray(cv2.resize(small, (640, 480), interpolation=cv2.INTER_LINEAR))
    mask = np.isnan(enlarged(small))
    seen = large > 1 / 80.0
    flies = np.zeros_like(seen)
    flies[seen] = _off_surface(np.where(seen, 1.0 / np.maximum(large, 1e-6), 0.0), true_m)[seen]
    return np.array(
        [
            (mask & flies).sum(),
            flies.sum(),
            (mask & seen & ~flies).sum(),
            (seen & ~flies).sum(),
        ],
        np.float64,
    )


def _off_surface(depth_m: Depth, true_m: Depth, reach_px: int = 6) -> NDArray[np.bool_]:
    """Tell which points are farther than 5 cm and 5 % from all that is seen around them."""
    true_m = np.where(np.isfinite(true_m), true_m, 1e6)
    padded = np.pad(true_m, reach_px, mode='edge')
    height, width = depth_m.shape
    closest_m = np.full(depth_m.shape, np.inf)
    for top in range(2 * reach_px + 1):
        for left in range(2 * reach_px + 1):
            there_m = padded[top : top + height, left : left + width]
            np.minimum(closest_m, np.abs(depth_m - there_m), out=closest_m)
    return np.asarray((closest_m > 0.05) & (closest_m > 0.05 * depth_m), np.bool_)
