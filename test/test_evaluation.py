from __future__ import annotations

import math

import numpy as np
import pytest

from depth_node.errors import DepthNodeError
from depth_node.evaluation import AlignedEvaluation
from depth_node.evaluation import Alignment
from depth_node.evaluation import ConstantBaseline
from depth_node.evaluation import Evaluation
from depth_node.evaluation import aligned_depth
from depth_node.evaluation import alignment_of
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


def scene(seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(1.0, 0.6, (20, 30)))


@pytest.mark.parametrize(('scale', 'shift'), [(1 / 900, 0.05), (0.3, -0.2), (1e-6, 0.0)])
def test_alignment_finds_scale_and_shift_and_leaves_no_error(scale, shift):
    truth = scene()
    inverse = (1 / truth - shift) / scale
    found = alignment_of(inverse, truth)
    assert found.scale == pytest.approx(scale) and found.shift == pytest.approx(shift, abs=1e-9)
    np.testing.assert_allclose(aligned_depth(inverse, found), truth, rtol=1e-5)
    evaluation = AlignedEvaluation()
    assert evaluation.add(inverse, truth).abs_rel < 1e-6
    assert evaluation.report().reversed_frames == 0


def test_alignment_is_the_least_squares_fit_in_inverse_depth():
    truth = scene()
    inverse = 50 / truth + np.random.default_rng(1).normal(0, 5, truth.shape)
    found = alignment_of(inverse, truth)
    columns = np.stack([inverse.ravel(), np.ones(truth.size)], axis=1)
    wanted = np.linalg.lstsq(columns, 1 / truth.ravel(), rcond=None)[0]
    assert (found.scale, found.shift) == pytest.approx(tuple(wanted))


def test_zero_and_negative_relative_values_count_and_unknown_ones_do_not():
    truth = np.array([[1.0, 2.0, 4.0, 2.0, np.nan, 2.0]])
    inverse = np.array([[6.0, 0.0, -3.0, np.nan, 5.0, np.inf]])
    errors = AlignedEvaluation().add(inverse, truth)
    assert errors.abs_rel == pytest.approx(0.0, abs=1e-6)
    assert errors.coverage == pytest.approx(3 / 5)


def test_an_image_without_contrast_is_as_good_as_the_constant_and_not_better():
    evaluation = AlignedEvaluation()
    evaluation.add(np.full((20, 30), 7.0), scene())
    report = evaluation.report()
    assert report.aligned.abs_rel == pytest.approx(report.constant.abs_rel, rel=1e-6)
    harmonic = 1 / np.mean(1 / scene())
    wanted = np.mean(np.abs(harmonic - scene()) / scene())
    assert report.constant.abs_rel == pytest.approx(wanted)


def test_larger_is_farther_is_told_and_not_hidden_by_the_fit():
    evaluation = AlignedEvaluation()
    evaluation.add(-1 / scene(), scene())
    evaluation.add(1 / scene(1), scene(1))
    assert (evaluation.report().reversed_frames, evaluation.report().frames) == (1, 2)


def test_what_is_aligned_behind_the_horizon_is_cut_to_the_farthest_truth():
    inverse = np.array([[10.0, 0.5, 0.0, -5.0, np.nan]])
    depth = aligned_depth(inverse, Alignment(0.1, 0.0), max_m=15.0)
    np.testing.assert_allclose(depth, [[1.0, 15.0, 15.0, 15.0, np.nan]])


def test_nothing_to_align_is_none_and_other_shapes_are_refused():
    evaluation = AlignedEvaluation()
    nothing = np.full((2, 2), np.nan)
    assert evaluation.add(np.ones((2, 2)), nothing) is None
    assert evaluation.report() is None
    assert alignment_of(nothing, np.ones((2, 2))) is None
    with pytest.raises(DepthNodeError, match='shape'):
        alignment_of(np.ones((1, 4)), np.ones((3, 4)))
