"""Errors of a frame under a scale that is known only after the last frame, in little memory.

Of each frame are kept the sums that make squared errors exact for every scale, and a histogram of
the ratio of prediction and truth in bins of one percent, which gives the others to within a small
part of that: only pixels in the bin of the threshold are counted by interpolation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.evaluation import DepthMetrics

_STEP = math.log(1.01)
_SMALLEST = math.log(1e-3)
_COUNT = 2 * math.ceil(-_SMALLEST / _STEP)


@dataclass(frozen=True, eq=False)
class RatioSketch:
    """What one frame leaves behind."""

    counts: NDArray[np.uint32]
    """(1388,) pixels per bin of log(prediction / truth), from 1/1000 to 1000."""
    ratio_sums: NDArray[np.float32]
    """(1388,) sum of prediction / truth per bin."""
    squares: tuple[float, float, float]
    """Means of prediction^2, prediction * truth and truth^2."""
    squares_over_truth: tuple[float, float, float]
    """Means of prediction^2 / truth, prediction and truth."""
    logarithm: tuple[float, float]
    """Mean and standard deviation of log(prediction / truth)."""
    coverage: float
    """Share of the pixels with truth that have a prediction."""

    def errors(self, scale: float) -> DepthMetrics:
        """Return the errors of the prediction times ``scale``.

        :param scale: above 0.
        """
        aa, ab, bb = self.squares
        sa, sb, sc = self.squares_over_truth
        mean, deviation = self.logarithm
        shifted = mean + math.log(scale)
        shares = [self._share_within(scale, 1.25**power) for power in (1, 2, 3)]
        return DepthMetrics(
            abs_rel=self._abs_rel(scale),
            sq_rel=max(scale * scale * sa - 2.0 * scale * sb + sc, 0.0),
            rmse_m=math.sqrt(max(scale * scale * aa - 2.0 * scale * ab + bb, 0.0)),
            rmse_log=math.hypot(shifted, deviation),
            silog=100.0 * deviation,
            a1=shares[0],
            a2=shares[1],
            a3=shares[2],
            coverage=self.coverage,
        )

    def _abs_rel(self, scale: float) -> float:
        """Return the mean of |scale * ratio - 1|; exact but for the bin that holds 1 / scale."""
        difference = scale * self.ratio_sums.astype(np.float64) - self.counts
        return float(np.abs(difference).sum() / self.counts.sum())

    def _share_within(self, scale: float, factor: float) -> float:
        """Return the share of pixels with 1 / factor < scale * ratio < factor."""
        below = np.concatenate([[0.0], np.cumsum(self.counts, dtype=np.float64)])
        middle = (-math.log(scale) - _SMALLEST) / _STEP
        reach = math.log(factor) / _STEP
        ends = np.interp([middle - reach, middle + reach], np.arange(_COUNT + 1), below)
        return float((ends[1] - ends[0]) / below[-1])


def sketch_of(
    prediction: NDArray[np.float64], truth: NDArray[np.float64], coverage: float
) -> RatioSketch:
    """Keep what is needed of the pixels that count.

    :param prediction: (N,) metres, positive, N at least 1.
    :param truth: (N,) metres, positive.
    """
    ratio = prediction / truth
    logarithm = np.log(ratio)
    bins = np.clip((logarithm - _SMALLEST) / _STEP, 0, _COUNT - 1).astype(np.intp)
    return RatioSketch(
        counts=np.bincount(bins, minlength=_COUNT).astype(np.uint32),
        ratio_sums=np.bincount(bins, ratio, _COUNT).astype(np.float32),
        squares=(
            float(np.mean(prediction**2)),
            float(np.mean(prediction * truth)),
            float(np.mean(truth**2)),
        ),
        squares_over_truth=(
            float(np.mean(prediction * ratio)),
            float(np.mean(prediction)),
            float(np.mean(truth)),
        ),
        logarithm=(float(logarithm.mean()), float(logarithm.std())),
        coverage=coverage,
    )
