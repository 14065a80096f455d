"""The scale over the whole image: no part of it outvotes the others, and chance is not applied."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from dataset_samples import BENT
from dataset_samples import HIDDEN
from dataset_samples import TrueModel
from dataset_samples import cached

from depth_node.dataset import even_scale as even
from depth_node.dataset.even_scale import CellRatios
from depth_node.dataset.even_scale import cell_ratios
from depth_node.dataset.even_scale import even_scale
from depth_node.dataset.pairs import plan_pairs
from depth_node.dataset.tracks import SOURCE
from depth_node.dataset.tracks import measured_depth_m

CELLS = even.CELLS[0] * even.CELLS[1]
TRACKS = f'{SOURCE.kind} {SOURCE.topic}'


@functools.cache
def planned(cache):
    return plan_pairs(cache, range(len(cache)), measured_depth_m(cache, range(len(cache))))


def ratios(log_ratio, weight=None, blocks: int = 10, frames: int = 60, noise: float = 0.05):
    """Make the ratios of frames: (block, cell) -> logarithm; cells are there with a chance."""
    rng = np.random.default_rng(3)
    there = np.ones(CELLS) if weight is None else np.asarray(weight)
    rows = [
        (frame * blocks // frames, cell, log_ratio(frame * blocks // frames, cell))
        for frame in range(frames)
        for cell in range(CELLS)
        if rng.random() < there[cell]
    ]
    block, cell, values = zip(*rows, strict=True)
    noisy = np.array(values) + noise * rng.normal(size=len(rows))
    return CellRatios(np.array(block), np.array(cell), noisy)


def test_parts_of_the_image_with_many_points_do_not_outvote_the_others():
    # a third of the image is 20 % too near and full of corners, the rest is right and bare
    rich = np.arange(CELLS) < CELLS // 3
    found = ratios(lambda _, cell: 0.2 * rich[cell], np.where(rich, 1.0, 0.2), noise=0.01)
    assert np.median(found.log_ratio) > 0.1, 'counted point by point it would be far off'
    scale = even_scale([found])
    assert scale.factor == pytest.approx(1.0, abs=0.03) and scale.covered > 0.9


def test_a_factor_that_all_of_the_time_agrees_on_is_significant():
    scale = even_scale([ratios(lambda block, cell: np.log(1.06))])
    assert scale.factor == pytest.approx(1.06, rel=0.01)
    assert scale.significant and scale.low > 1.04 and scale.high < 1.08


def test_a_factor_that_changes_with_the_view_is_not_applied():
    scale = even_scale([ratios(lambda block, cell: 0.15 if block % 2 else -0.1)])
    assert not scale.significant and scale.low < 1.0 < scale.high


def test_a_source_that_sees_a_stripe_says_nothing_about_the_whole_image():
    stripe = np.arange(CELLS) // even.CELLS[1] == 2
    scale = even_scale([ratios(lambda *_: np.log(1.3), stripe)])
    assert np.isnan(scale.factor) and not scale.significant
    assert scale.covered == pytest.approx(1 / even.CELLS[0])


def test_no_points_are_no_answer():
    assert not even_scale([]).significant
    nothing = CellRatios(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    assert np.isnan(even_scale([nothing]).factor)


def test_tracks_find_the_factor_of_a_true_model_through_a_lens():
    cache = cached(BENT, HIDDEN)
    found = {}
    for factor in (1.0, 1.1):
        model = TrueModel(BENT, cache, factor=factor)
        found[factor] = even_scale([cell_ratios(cache, planned(cache), model, TRACKS)])
    assert found[1.0].factor == pytest.approx(1.0, abs=0.03)
    assert found[1.1].factor == pytest.approx(1 / 1.1, abs=0.03) and found[1.1].significant
