"""How good a depth image is: the usual error measures, and what a constant would have reached.

The measures are those of D. Eigen, C. Puhrsch, R. Fergus, "Depth map prediction from a single
image using a multi-scale deep network" (NIPS 2014), section 3; SILog is scaled as the KITTI
benchmark scales it.  A pixel counts where the true
depth is finite and within limits and the prediction is finite and positive; how many pixels with
truth have a prediction is reported beside the errors, because leaving out the hard ones helps.

Relative inverse depth is first given the scale and the shift that fit it best to the truth of each
image, by least squares in inverse depth, as R. Ranftl et al., "Towards robust monocular depth
estimation" (TPAMI 2022), do.  Errors after that alignment tell how well shapes are seen; beside
metric ones they flatter, since two numbers per image come from the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import DepthNodeError

_BIN_RATIO = 1.005
_NEAREST_M = 0.001
_FARTHEST_M = 10_000.0


@dataclass(frozen=True)
class DepthMetrics:
    """Errors of one depth image, or their mean over several."""

    abs_rel: float
    """Mean of |prediction - truth| / truth."""
    sq_rel: float
    """Mean of (prediction - truth)^2 / truth, metres."""
    rmse_m: float
    """Root of the mean squared difference, metres."""
    rmse_log: float
    """Root of the mean squared difference of the natural logarithms."""
    silog: float
    """100 times the standard deviation of that difference: blind to a wrong scale."""
    a1: float
    """Share of pixels with max(prediction / truth, truth / prediction) below 1.25."""
    a2: float
    """The same share below 1.25^2."""
    a3: float
    """The same share below 1.25^3."""
    coverage: float
    """Share of the pixels with truth that have a prediction."""


@dataclass(frozen=True)
class Baseline:
    """What one constant depth for the whole recording reaches."""

    depth_m: float
    """The constant with the lowest mean Abs Rel, metres."""
    abs_rel: float
    """Its mean Abs Rel."""
    a1: float
    """Its mean share of pixels within a factor of 1.25."""
    median_abs_rel: float
    """Mean Abs Rel when each frame gets its own true median: the mark for scaled predictions."""


@dataclass(frozen=True)
class Report:
    """Errors over several frames; each frame has the same weight."""

    frames: int
    """Frames with at least one pixel that counts."""
    metric: DepthMetrics
    """Of the predictions as they are."""
    scaled: DepthMetrics
    """Of the predictions times median(truth) / median(prediction), frame by frame."""
    scale: float
    """Median over the frames of that factor; 1 where the metric scale is right."""
    baseline: Baseline
    """What a constant reaches on the same truth."""


@dataclass(frozen=True)
class Alignment:
    """What turns the relative inverse depth of one image into inverse depth."""

    scale: float
    """Inverse metres per unit; below 0 where larger was farther."""
    shift: float
    """Inverse metres."""


@dataclass(frozen=True)
class AlignedReport:
    """Errors of relative inverse depth over several frames, each aligned to its own truth."""

    frames: int
    """Frames with at least one pixel that counts."""
    aligned: DepthMetrics
    """After the alignment."""
    constant: DepthMetrics
    """What an image without any contrast reaches with the same alignment: 1 / mean(1 / truth)."""
    reversed_frames: int
    """Frames whose scale came out negative: larger was farther there."""


def nearest(depth_m: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Sample a depth image at another size without mixing near and far.

    Pixel (u, v) of the result takes the source pixel in whose area its centre lies:
    ``floor((u + 0.5) * source_width / width)``.

    :param depth_m: (h, w) metres.
    :returns: (height, width) metres.
    """
    rows = ((np.arange(height) + 0.5) * depth_m.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * depth_m.shape[1] / width).astype(np.intp)
    sampled: NDArray[np.float32] = depth_m[rows[:, None], columns[None, :]]
    return sampled


def metrics_of(
    prediction_m: NDArray[np.floating[Any]],
    truth_m: NDArray[np.floating[Any]],
    min_m: float = 0.05,
    max_m: float = 80.0,
) -> DepthMetrics | None:
    """Compare a depth image with the truth.

    :param prediction_m: (H, W) metres; what is not finite and positive is no prediction.
    :param truth_m: (H, W) metres; what is not finite is unknown.
    :param min_m: truth below does not count, metres.
    :param max_m: truth above does not count, metres.
    :returns: the errors; None where no pixel has both truth and prediction.
    :raises DepthNodeError: when the shapes differ.
    """
    pair = counted_pixels(prediction_m, truth_m, min_m, max_m)
    return None if pair is None else errors_of(*pair)


def alignment_of(
    inverse: NDArray[np.floating[Any]],
    truth_m: NDArray[np.floating[Any]],
    min_m: float = 0.05,
    max_m: float = 80.0,
) -> Alignment | None:
    """Fit the scale and the shift of one image by least squares in inverse depth.

    :param inverse: (H, W) relative inverse depth; what is not finite is no prediction.
    :param truth_m: (H, W) metres; what is not finite is unknown.
    :param min_m: truth below does not count, metres.
    :param max_m: truth above does not count, metres.
    :returns: None where no pixel has both.  An image without contrast gets the scale 0.
    :raises DepthNodeError: when the shapes differ.
    """
    pair = _matched(inverse, truth_m, np.isfinite(inverse), min_m, max_m)
    return None if pair is None else _fitted(pair[0], 1.0 / pair[1])


def aligned_depth(
    inverse: NDArray[np.floating[Any]], alignment: Alignment, max_m: float = 80.0
) -> NDArray[np.float32]:
    """Turn relative inverse depth into metres.

    :param inverse: (H, W) without unit; NaN stays NaN.
    :param max_m: what comes out farther, or at an inverse depth that is not positive, becomes
        this, metres.
    :returns: (H, W) metres.
    """
    metric = alignment.scale * inverse.astype(np.float64) + alignment.shift
    depth_m: NDArray[np.float32] = (1.0 / np.maximum(metric, 1.0 / max_m)).astype(np.float32)
    return depth_m


class AlignedEvaluation:
    """Collects the errors of the relative inverse depth of the frames of a recording.

    :param min_m: truth below does not count, metres.
    :param max_m: truth above does not count, and aligned depth is cut to it, metres.
    """

    def __init__(self, min_m: float = 0.05, max_m: float = 80.0) -> None:
        self._limits = (min_m, max_m)
        self._aligned: list[DepthMetrics] = []
        self._constant: list[DepthMetrics] = []
        self._reversed = 0

    def add(
        self, inverse: NDArray[np.floating[Any]], truth_m: NDArray[np.floating[Any]]
    ) -> DepthMetrics | None:
        """Count one frame; parameters and errors are those of :func:`alignment_of`.

        :returns: the errors after the alignment; None where no pixel has both.
        """
        pair = _matched(inverse, truth_m, np.isfinite(inverse), *self._limits)
        if pair is None:
            return None
        values, truth, coverage = pair
        alignment = _fitted(values, 1.0 / truth)
        aligned = aligned_depth(values, alignment, self._limits[1]).astype(np.float64)
        errors = errors_of(aligned, truth, coverage)
        self._aligned.append(errors)
        constant = np.full_like(truth, 1.0 / np.mean(1.0 / truth))
        self._constant.append(errors_of(constant, truth, coverage))
        self._reversed += alignment.scale < 0.0
        return errors

    def report(self) -> AlignedReport | None:
        """Sum up; None where no frame counted."""
        if not self._aligned:
            return None
        return AlignedReport(
            frames=len(self._aligned),
            aligned=_mean(self._aligned),
            constant=_mean(self._constant),
            reversed_frames=self._reversed,
        )


class Evaluation:
    """Collects the errors of the frames of a recording.

    :param min_m: truth below does not count, metres.
    :param max_m: truth above does not count, metres.
    """

    def __init__(self, min_m: float = 0.05, max_m: float = 80.0) -> None:
        self._limits = (min_m, max_m)
        self._metric: list[DepthMetrics] = []
        self._scaled: list[DepthMetrics] = []
        self._scales: list[float] = []
        self._constant = ConstantBaseline()

    def add(
        self, prediction_m: NDArray[np.floating[Any]], truth_m: NDArray[np.floating[Any]]
    ) -> DepthMetrics | None:
        """Count one frame; parameters, result and errors are those of :func:`metrics_of`."""
        pair = counted_pixels(prediction_m, truth_m, *self._limits)
        if pair is None:
            return None
        prediction, truth, coverage = pair
        scale = float(np.median(truth) / np.median(prediction))
        errors = errors_of(prediction, truth, coverage)
        self._metric.append(errors)
        self._scaled.append(errors_of(prediction * scale, truth, coverage))
        self._scales.append(scale)
        self._constant.add(truth)
        return errors

    def report(self) -> Report | None:
        """Sum up; None where no frame counted."""
        if not self._metric:
            return None
        return Report(
            frames=len(self._metric),
            metric=_mean(self._metric),
            scaled=_mean(self._scaled),
            scale=float(np.median(self._scales)),
            baseline=self._constant.best(),
        )


class ConstantBaseline:
    """Finds the constant depth with the lowest Abs Rel over many frames, in little memory.

    ``sum |c - d| / d`` is least at the median of the depths weighted with ``1 / d``.  The weights
    are kept per depth bin, each 0.5 % wide, so that the result is exact to half a percent.
    """

    def __init__(self) -> None:
        count = math.ceil(math.log(_FARTHEST_M / _NEAREST_M) / math.log(_BIN_RATIO)) + 1
        self._shares = np.zeros(count)
        self._inverse = np.zeros(count)
        self._frames = 0
        self._median_abs_rel = 0.0

    def add(self, truth_m: NDArray[np.floating[Any]]) -> None:
        """Count the valid true depths of one frame, whatever their number.

        :param truth_m: (N,) metres, finite, positive, N at least 1.
        """
        depths = np.clip(truth_m.astype(np.float64), _NEAREST_M, _FARTHEST_M)
        bins = (np.log(depths / _NEAREST_M) / math.log(_BIN_RATIO)).astype(np.intp)
        size = self._shares.size
        self._shares += np.bincount(bins, minlength=size) / depths.size
        self._inverse += np.bincount(bins, weights=1.0 / depths, minlength=size) / depths.size
        self._frames += 1
        self._median_abs_rel += float(np.mean(np.abs(np.median(depths) - depths) / depths))

    def best(self) -> Baseline:
        """Return the best constant and what it reaches.

        :raises DepthNodeError: when nothing was added.
        """
        if not self._frames:
            raise DepthNodeError('constant baseline', 'no frames', 'at least one')
        heavy = np.cumsum(self._inverse)
        middle = int(np.searchsorted(heavy, heavy[-1] / 2.0))
        constant = float(self._shares[middle] / self._inverse[middle])
        filled = self._shares > 0.0
        depths = self._shares[filled] / self._inverse[filled]
        ratios = np.maximum(constant / depths, depths / constant)
        errors = np.abs(constant * self._inverse[filled] - self._shares[filled])
        return Baseline(
            depth_m=constant,
            abs_rel=float(errors.sum() / self._frames),
            a1=float(self._shares[filled][ratios < 1.25].sum() / self._frames),
            median_abs_rel=self._median_abs_rel / self._frames,
        )


def counted_pixels(
    prediction_m: NDArray[np.floating[Any]],
    truth_m: NDArray[np.floating[Any]],
    min_m: float,
    max_m: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float] | None:
    """Return prediction and truth of the pixels that count, and the coverage.

    Parameters and errors are those of :func:`metrics_of`.

    :returns: (N,) and (N,) metres, and the share of the pixels with truth that they are; None
        where there are none.
    """
    with np.errstate(invalid='ignore'):
        usable = np.isfinite(prediction_m) & (prediction_m > 0.0)
    return _matched(prediction_m, truth_m, usable, min_m, max_m)


def _matched(
    prediction: NDArray[np.floating[Any]],
    truth_m: NDArray[np.floating[Any]],
    usable: NDArray[np.bool_],
    min_m: float,
    max_m: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float] | None:
    """Return what was predicted and the truth where both count, (N,) each, and the coverage.

    :param prediction: (H, W) in any unit.
    :param usable: (H, W), where the prediction is one.
    """
    if prediction.shape != truth_m.shape:
        raise DepthNodeError(
            'depth evaluation',
            f'a prediction of shape {prediction.shape}',
            f'the shape of the truth, {truth_m.shape}',
        )
    with np.errstate(invalid='ignore'):
        known = np.isfinite(truth_m) & (truth_m >= min_m) & (truth_m <= max_m) & (truth_m > 0.0)
    both = known & usable
    count = int(np.count_nonzero(both))
    if not count:
        return None
    coverage = count / int(np.count_nonzero(known))
    return prediction[both].astype(np.float64), truth_m[both].astype(np.float64), coverage


def _fitted(values: NDArray[np.float64], inverse_truth: NDArray[np.float64]) -> Alignment:
    """Fit a line through (value, inverse depth), (N,) each, N at least 1."""
    centred = values - values.mean()
    spread = float(centred @ centred)
    scale = float(centred @ inverse_truth) / spread if spread > 0.0 else 0.0
    return Alignment(scale, float(inverse_truth.mean() - scale * values.mean()))


def errors_of(
    prediction: NDArray[np.float64], truth: NDArray[np.float64], coverage: float
) -> DepthMetrics:
    """Return the errors of pixels that count; all arrays (N,), positive, metres."""
    difference = prediction - truth
    logarithm = np.log(prediction / truth)
    ratio = np.exp(np.abs(logarithm))
    return DepthMetrics(
        abs_rel=float(np.mean(np.abs(difference) / truth)),
        sq_rel=float(np.mean(difference**2 / truth)),
        rmse_m=float(np.sqrt(np.mean(difference**2))),
        rmse_log=float(np.sqrt(np.mean(logarithm**2))),
        silog=100.0 * float(np.std(logarithm)),
        a1=float(np.mean(ratio < 1.25)),
        a2=float(np.mean(ratio < 1.25**2)),
        a3=float(np.mean(ratio < 1.25**3)),
        coverage=coverage,
    )


def _mean(items: list[DepthMetrics]) -> DepthMetrics:
    """Return the mean of each measure; every frame has the same weight."""
    names = DepthMetrics.__dataclass_fields__
    return DepthMetrics(
        **{name: float(np.mean([getattr(item, name) for item in items])) for name in names}
    )
