"""The brightness of a source is brought to that of its target, and only where that is of use."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from dataset_samples import BENT
from dataset_samples import cached

from depth_node.dataset.exposure import TELLING
from depth_node.dataset.exposure import brightness_gain
from depth_node.dataset.exposure import exposure_change
from depth_node.dataset.pairs import plan_pairs
from depth_node.dataset.tracks import measured_depth_m

SEEN = np.ones((120, 160), bool)


def picture() -> np.ndarray:
    noise = np.random.default_rng(5).uniform(30, 190, (9, 12, 3)).astype(np.float32)
    return cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC).clip(0, 255)


@pytest.mark.parametrize('factor', [0.6, 0.9, 1.2])
def test_a_gain_is_found_through_parallax_and_a_thing_that_comes_in(factor):
    target = picture()
    source = np.roll(target, 6, axis=1) * factor
    source[70:, :40] = 240
    found = brightness_gain(target.astype(np.uint8), source.clip(0, 255).astype(np.uint8), SEEN)
    assert found == pytest.approx(1 / factor, rel=0.04)


def test_a_gain_is_limited_and_1_where_too_little_is_seen_or_lit():
    target = picture().astype(np.uint8)
    assert brightness_gain(target, target // 4, SEEN) == 2.0
    assert brightness_gain(target // 4, target, SEEN) == 0.5
    assert brightness_gain(target, target // 2, SEEN & (np.arange(120) < 10)[:, None]) == 1.0
    assert brightness_gain(target, np.zeros_like(target), SEEN) == 1.0


def test_a_drifting_exposure_is_told_from_a_constant_one():
    changes = []
    for settings in (BENT, replace(BENT, exposure_drift=True)):
        cache = cached(settings)
        depth_m = measured_depth_m(cache, range(len(cache)))
        changes.append(exposure_change(cache, plan_pairs(cache, range(len(cache)), depth_m)))
    assert changes[0] < TELLING < changes[1] / 2
