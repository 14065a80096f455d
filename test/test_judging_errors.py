"""Errors under other scales, crops, ranges and priors, held to their definitions."""

from __future__ import annotations

import math
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from depth_node.errors import SettingsError
from depth_node.evaluation import counted_pixels
from depth_node.evaluation import errors_of
from depth_node.evaluation import metrics_of
from depth_node.judging.crops import RANGES_M
from depth_node.judging.crops import cropped_truth
from depth_node.judging.crops import range_errors
from depth_node.judging.crops import range_name
from depth_node.judging.rescaled import sketch_of
from depth_node.row_prior import RowPrior

OFFICIAL = np.load(Path(__file__).parent / 'data' / 'depth_metrics.npz')


def drawn(count: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.exp(rng.normal(1.0, 0.7, count))
    return truth * np.exp(rng.normal(0.4, 0.4, count)), truth


def test_silog_is_blind_to_scale_and_equals_its_definition():
    prediction, truth = drawn()
    logarithm = np.log(prediction) - np.log(truth)
    wanted = 100 * math.sqrt(np.mean(logarithm**2) - np.mean(logarithm) ** 2)
    for factor in (1.0, 3.0):
        found = metrics_of(prediction[None] * factor, truth[None], 1e-3, 1e6).silog
        assert found == pytest.approx(wanted)


def test_official_numbers_with_garg_crop_and_limits_are_reproduced():
    truth = np.where(OFFICIAL['in_gt'] > 0, OFFICIAL['in_gt'], np.nan)
    inside = cropped_truth(truth, 'garg')
    pair = counted_pixels(OFFICIAL['in_pred'], inside, 1e-3, 80.0)
    prediction, known, coverage = pair
    ratio = np.median(known) / np.median(prediction)
    assert ratio == pytest.approx(float(OFFICIAL['metric_ratio']), rel=1e-6)
    for factor, name in ((ratio, 'metrics_median'), (1.0, 'metrics_noscale')):
        errors = errors_of(np.clip(prediction * factor, 1e-3, 80.0), known, coverage)
        found = [
            *(errors.abs_rel, errors.sq_rel, errors.rmse_m, errors.rmse_log),
            *(errors.a1, errors.a2, errors.a3),
        ]
        np.testing.assert_allclose(found, OFFICIAL[name], rtol=2e-6)


def test_the_eigen_crop_reaches_higher_than_that_of_garg_and_unknown_ones_are_refused():
    truth = np.ones((375, 1242), np.float32)
    rows = {}
    for crop in ('eigen', 'garg'):
        inside = np.isfinite(cropped_truth(truth, crop))
        rows[crop] = np.flatnonzero(inside.any(axis=1))[[0, -1]].tolist()
        columns = np.flatnonzero(inside.any(axis=0))[[0, -1]].tolist()
        assert columns == [44, 1196]
    assert rows == {'eigen': [124, 341], 'garg': [153, 370]}
    assert cropped_truth(truth, '') is truth
    with pytest.raises(SettingsError, match='eigen, garg'):
        cropped_truth(truth, 'square')


def test_ranges_split_the_pixels_and_weigh_to_the_whole():
    prediction, truth = drawn()
    kept = truth < 80.0
    prediction, truth = prediction[kept], truth[kept]
    found = range_errors(prediction, truth)
    assert list(found) == [range_name(limits) for limits in RANGES_M]
    counts = [np.count_nonzero((truth >= a) & (truth < b)) for a, b in RANGES_M]
    mean = np.nansum(np.array(list(found.values())) * counts) / sum(counts)
    assert mean == pytest.approx(np.mean(np.abs(prediction - truth) / truth))
    assert math.isnan(range_errors(prediction[:1], np.array([1.0]))['range.20-80m.abs_rel'])


@pytest.mark.parametrize('scale', [0.2, 0.5, 0.67, 1.0, 1.7])
def test_a_frame_rescaled_from_its_sketch_has_the_errors_of_the_frame_rescaled(scale):
    prediction, truth = drawn()
    wanted = astuple(errors_of(prediction * scale, truth, 0.9))
    found = astuple(sketch_of(prediction, truth, 0.9).errors(scale))
    np.testing.assert_allclose(found[:1], wanted[:1], rtol=2e-4)
    np.testing.assert_allclose(found[1:5], wanted[1:5], rtol=1e-6)
    np.testing.assert_allclose(found[5:], wanted[5:], atol=2e-3)


def test_a_perfect_frame_stays_perfect_in_its_sketch():
    _, truth = drawn()
    errors = sketch_of(truth * 4.0, truth, 1.0).errors(0.25)
    assert errors.abs_rel < 1e-6 and errors.a1 == 1.0 and errors.rmse_m < 1e-4


def test_the_row_prior_is_the_best_constant_of_every_row():
    rng = np.random.default_rng(3)
    frames = [
        (np.linspace(8.0, 1.0, 120)[:, None] * np.exp(rng.normal(0, 0.2, (120, 40)))).astype('f4')
        for _ in range(3)
    ]
    prior = RowPrior()
    for frame in frames:
        prior.add(frame, np.ones(frame.shape, bool))
    abs_rel, a1 = prior.best()
    stacked = np.concatenate(frames, axis=1).astype(float)
    wanted = []
    for row in stacked:
        tried = np.geomspace(row.min(), row.max(), 800)[:, None]
        wanted.append(np.min(np.mean(np.abs(tried - row) / row, axis=1)))
    assert abs_rel == pytest.approx(np.mean(wanted), rel=0.01)
    assert 0.6 < a1 < 0.9


def test_a_scaled_row_prior_knows_the_median_of_every_frame():
    ramp = np.repeat(np.linspace(8.0, 1.0, 120, dtype=np.float32)[:, None], 4, axis=1)
    plain, scaled = RowPrior(), RowPrior(scaled=True)
    for factor in (0.5, 1.0, 3.0):
        for prior in (plain, scaled):
            prior.add(ramp * np.float32(factor), np.ones(ramp.shape, bool))
    assert plain.best()[0] > 0.3
    assert scaled.best()[0] < 0.012


def test_the_row_prior_is_the_same_at_any_image_size_and_nan_without_frames():
    tall, small = RowPrior(), RowPrior()
    ramp = np.repeat(np.linspace(1, 5, 120, dtype=np.float32)[:, None], 4, axis=1)
    small.add(ramp, np.ones(ramp.shape, bool))
    large = ramp.repeat(4, axis=0)
    tall.add(large, np.ones(large.shape, bool))
    assert tall.best() == pytest.approx(small.best())
    assert all(math.isnan(value) for value in RowPrior().best())
    empty = RowPrior()
    empty.add(ramp, np.zeros(ramp.shape, bool))
    assert math.isnan(empty.best()[0])
