"""What one depth per row of the image reaches: the mark for a model that has learned the floor.

A robot's camera keeps its height and its tilt, so that the row of a pixel alone tells much of its
depth.  A model that is no better than the best such table has not looked at the image.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_BANDS = 120
_RATIO = 1.02
_NEAREST_M = 0.01
_FARTHEST_M = 1000.0
_COUNT = math.ceil(math.log(_FARTHEST_M / _NEAREST_M) / math.log(_RATIO)) + 1


class RowPrior:
    """Finds the constant per row with the lowest Abs Rel over many frames, in little memory.

    As ``ConstantBaseline`` of depth_node/evaluation.py, for each of 120 bands of rows, with bins
    two percent wide.

    :param scaled: the table is in units of each frame's own median, which it is told: the mark for
        depth that is scaled to the true median of each frame.
    """

    def __init__(self, *, scaled: bool = False) -> None:
        self._scaled = scaled
        self._shares = np.zeros((_BANDS, _COUNT))
        self._inverse = np.zeros((_BANDS, _COUNT))
        self._frames = 0

    def add(self, truth_m: NDArray[np.float32], counted: NDArray[np.bool_]) -> None:
        """Count the true depths of one frame.

        :param truth_m: (H, W) metres.
        :param counted: (H, W) the pixels that count; positive and finite there.
        """
        rows = np.nonzero(counted)[0]
        if not rows.size:
            return
        depths = truth_m[counted].astype(np.float64)
        if self._scaled:
            depths /= np.median(depths)
        depths = np.clip(depths, _NEAREST_M, _FARTHEST_M)
        bands = rows * _BANDS // truth_m.shape[0]
        bins = (np.log(depths / _NEAREST_M) / math.log(_RATIO)).astype(np.intp)
        places, size = bands * _COUNT + bins, _BANDS * _COUNT
        shape = (_BANDS, _COUNT)
        self._shares += (np.bincount(places, minlength=size) / depths.size).reshape(shape)
        weights = 1.0 / (depths * depths.size)
        self._inverse += np.bincount(places, weights, size).reshape(shape)
        self._frames += 1

    def best(self) -> tuple[float, float]:
        """Return the mean Abs Rel of the best rows and their share within a factor of 1.25.

        NaN where nothing was added.
        """
        if not self._frames:
            return math.nan, math.nan
        abs_rel = within = 0.0
        for shares, inverse in zip(self._shares, self._inverse, strict=True):
            heavy = np.cumsum(inverse)
            if heavy[-1] <= 0.0:
                continue
            middle = int(np.searchsorted(heavy, heavy[-1] / 2.0))
            constant = shares[middle] / inverse[middle]
            filled = shares > 0.0
            depths = shares[filled] / inverse[filled]
            ratios = np.maximum(constant / depths, depths / constant)
            abs_rel += float(np.abs(constant * inverse[filled] - shares[filled]).sum())
            within += float(shares[filled][ratios < 1.25].sum())
        return abs_rel / self._frames, within / self._frames
