"""From the image to the network's input: nothing shifted, nothing aliased, nothing invented."""

from __future__ import annotations

import numpy as np
import pytest

from depth_node.camera import Fit
from depth_node.camera import resampled
from depth_node.frames import CameraModel


def fit_of(rectangle: tuple[int, int, int, int], height: int, width: int) -> Fit:
    return Fit(*rectangle, camera=CameraModel(width, height, 100.0, 100.0, 50.0, 50.0))


def test_powers_of_two_are_exact_area_averages() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    found = resampled(rgb, fit_of((0, 0, 128, 96), 24, 32))
    exact = rgb.reshape(24, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(found - exact).max() <= 1.01  # a rounding at each of two halvings


@pytest.mark.parametrize(
    ('source', 'target'),
    [
        ((480, 640), (192, 256)),
        ((480, 640), (96, 128)),
        ((720, 1280), (192, 352)),
        ((477, 641), (192, 256)),
        ((1080, 1920), (192, 352)),
        ((120, 160), (192, 256)),
        ((192, 256), (192, 256)),
    ],
)
def test_a_ramp_stays_where_it_was(source: tuple[int, int], target: tuple[int, int]) -> None:
    v, u = np.mgrid[: source[0], : source[1]].astype(np.float64)
    x, y = (u + 0.5) / source[1], (v + 0.5) / source[0]
    rgb = np.stack((240 * x, 240 * y, 120 * (x + y)), axis=-1).round().astype(np.uint8)
    found = resampled(rgb, fit_of((0, 0, source[1], source[0]), *target))
    v, u = np.mgrid[: target[0], : target[1]].astype(np.float64)
    x, y = (u + 0.5) / target[1], (v + 0.5) / target[0]
    exact = np.stack((240 * x, 240 * y, 120 * (x + y)), axis=-1)
    assert found.shape == exact.shape
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(found - exact)[inner].max() <= 2.1
    assert abs((found - exact)[inner].mean()) < 0.6


@pytest.mark.parametrize('source', [(480, 640), (477, 641), (1080, 1920)])
def test_a_fine_pattern_becomes_its_mean_and_not_another_pattern(source: tuple[int, int]) -> None:
    v, u = np.mgrid[: source[0], : source[1]]
    rgb = np.repeat((255 * ((u + v) % 2)).astype(np.uint8)[..., None], 3, axis=2)
    found = resampled(rgb, fit_of((0, 0, source[1], source[0]), 192, 256)).astype(float)
    assert np.abs(found - 127.5).max() < 40.0
    assert abs(found.mean() - 127.5) < 2.0


def test_only_the_rectangle_is_seen_and_rows_may_be_strided() -> None:
    rgb = np.zeros((100, 210, 3), np.uint8)
    rgb[10:74, 20:148] = 200
    view = rgb[:, :200]
    assert (resampled(view, fit_of((20, 10, 128, 64), 32, 64)) == 200).all()
    assert (resampled(view, fit_of((0, 80, 128, 16), 32, 64)) == 0).all()
