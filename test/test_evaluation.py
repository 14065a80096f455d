from __future__ import annotations

import math

import numpy as np
import pytest

from depth_node.errors import DepthNodeError
from depth_node.evaluation import ConstantBaseline
from depth_node.evaluation import Evaluation
from depth_node.evaluation import metrics_of
from depth_node.evaluation import nearest


def test_errors_equal_those_computed_by_hand():
    truth = np.array([[1.0, 2.0, 4.0, 10.0]])
    prediction = np.array([[1.1, 2.0, 3.0, 20.0]])
    metrics = metrics_of(prediction, truth)
    assert metrics.abs_rel == pytest.approx((0.1 + 0.0 + 0.25 + 1.0) / 4)
    assert metrics.sq_rel == pytest.approx((0.01 + 0.0 + 0.25 + 10.0) / 4)
    assert metrics.rmse_m == pytest.approx(math.sqrt((0.01 + 0.0 + 1.0 + 100.0) / 4))
    logs = [math.log(1.1), 0.0, math.log(0.75), math.log(2.0)]
    assert metrics.rmse_log == pytest.approx(math.sqrt(sum(x * x for x in logs) / 4))
    assert (metrics.a1, metrics.a2, metrics.a3) == (0.5, 0.75, 0.75)
    assert metrics.coverage == 1.0


def test_pixels_without_truth_or_prediction_do_not_count():
    truth = np.array([np.nan, np.inf, 0.0, -1.0, 0.04, 90.0, 2.0, 2.0, 2.0, 2.0])[None]
    prediction = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0, np.nan, np.inf, 0.0])[None]
    metrics = metrics_of(prediction, truth)
    assert metrics.abs_rel == pytest.approx(0.5)
    assert metrics.coverage == pytest.approx(0.25)


def test_limits_are_those_that_are_given():
    truth = np.array([[0.5, 5.0]])
    prediction = np.array([[1.0, 5.0]])
    assert metrics_of(prediction, truth, min_m=1.0).abs_rel == 0.0
    assert metrics_of(prediction, truth, max_m=1.0).abs_rel == 1.0


def test_zero_depth_is_no_truth_even_without_a_lower_limit():
    metrics = metrics_of(np.array([[1.0, 3.0]]), np.array([[0.0, 2.0]]), min_m=0.0)
    assert metrics.abs_rel == 0.5 and metrics.coverage == 1.0


def test_nothing_to_compare_is_none_and_not_zero():
    empty = np.full((2, 2), np.nan)
    assert metrics_of(np.ones((2, 2)), empty) is None
    assert metrics_of(empty, np.ones((2, 2))) is None
    evaluation = Evaluation()
    assert evaluation.add(empty, empty) is None
    assert evaluation.report() is None


def test_different_shapes_are_refused_instead_of_broadcast():
    with pytest.raises(DepthNodeError, match=r'\(1, 4\)'):
        metrics_of(np.ones((1, 4)), np.ones((3, 4)))


def test_median_scaling_takes_out_a_wrong_scale_frame_by_frame():
    rng = np.random.default_rng(1)
    evaluation = Evaluation()
    for factor in (0.5, 2.0, 4.0):
        truth = rng.uniform(1.0, 9.0, (6, 7))
        evaluation.add(truth * factor, truth)
    report = evaluation.report()
    assert report.frames == 3
    assert report.metric.abs_rel == pytest.approx((0.5 + 1.0 + 3.0) / 3)
    assert report.scaled.abs_rel == pytest.approx(0.0, abs=1e-12)
    assert report.scale == pytest.approx(0.5)


def test_baseline_is_the_best_of_all_constants():
    rng = np.random.default_rng(2)
    frames = [np.exp(rng.normal(mean, 0.7, 500)) for mean in (0.0, 1.0, 1.5)]
    baseline = ConstantBaseline()
    for frame in frames:
        baseline.add(frame)
    best = baseline.best()

    def abs_rel(constant: float) -> float:
        return float(np.mean([np.mean(np.abs(constant - d) / d) for d in frames]))

    tried = [abs_rel(constant) for constant in np.geomspace(0.1, 50.0, 3000)]
    assert best.abs_rel == pytest.approx(min(tried), rel=2e-3)
    assert abs_rel(best.depth_m) == pytest.approx(best.abs_rel, rel=2e-3)
    share = np.mean(
        [np.mean(np.maximum(best.depth_m / d, d / best.depth_m) < 1.25) for d in frames]
    )
    assert best.a1 == pytest.approx(share, abs=0.01)
    medians = np.mean([np.mean(np.abs(np.median(d) - d) / d) for d in frames])
    assert best.median_abs_rel == pytest.approx(medians)


def test_baseline_weighs_frames_alike_whatever_their_number_of_pixels():
    baseline = ConstantBaseline()
    baseline.add(np.full(10, 1.0))
    baseline.add(np.full(10_000, 10.0))
    # A pixel at 1 m pulls ten times as hard as one at 10 m, and both frames weigh the same.
    assert baseline.best().depth_m == pytest.approx(1.0, rel=0.01)
    assert baseline.best().abs_rel == pytest.approx(0.45, rel=0.01)


def test_baseline_without_frames_is_an_error():
    with pytest.raises(DepthNodeError):
        ConstantBaseline().best()


def test_nearest_follows_pixel_centres_and_mixes_nothing():
    depth = np.array([[1.0, 2.0, 3.0, 4.0]], dtype=np.float32)
    assert nearest(depth, 1, 2).tolist() == [[2.0, 4.0]]
    assert nearest(depth, 2, 8).tolist() == [[1, 1, 2, 2, 3, 3, 4, 4]] * 2
    assert nearest(depth, 1, 3).tolist() == [[1.0, 3.0, 4.0]]
    assert nearest(depth, 1, 4).tolist() == depth.tolist()
