"""Numbers that resizing an image takes along one axis, as OpenCV computes them.

With them a device that has no OpenCV gives the same pixels.  Pixel centres are integers; the outer
borders of image and result coincide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIXED_POINT_ONE = 2048
"""OpenCV interpolates bytes with weights that are multiples of 1 / 2048."""


@dataclass(frozen=True, eq=False)
class Taps:
    """Between which two pixels every pixel of the result lies, and how far from the first."""

    first: NDArray[np.int64]
    """(n,) index of the first."""
    second: NDArray[np.int64]
    """(n,) index of the second; the first again beyond the outermost centres, so that a NaN
    beside them does not spread to where it has no weight."""
    fraction: NDArray[np.float32]
    """(n,) 0 at the first, 1 at the second."""


def linear_taps(size: int, wanted: int) -> Taps:
    """Return the taps of linear interpolation from ``size`` to ``wanted`` pixels."""
    # in float64: a fraction that is off by 1e-5 shows between neighbours of 0.01 and 10
    return _taps((np.arange(wanted) + 0.5) * (size / wanted) - 0.5, size)


def cell_taps(size: int, wanted: int) -> Taps:
    """Return the taps that OpenCV's area average takes where one axis of the image grows.

    Every pixel of the result covers at most two of the image then, along an axis that grows; along
    one that shrinks the others in between are left out.
    """
    scale = size / wanted
    index = np.arange(wanted)
    first = np.floor(index * scale)
    fraction = (index + 1) - (first + 1) / scale
    fraction = np.where(fraction <= 0.0, 0.0, fraction - np.floor(fraction))
    return _taps(first + fraction, size)


def _taps(at: NDArray[np.floating[Any]], size: int) -> Taps:
    inside = (at >= 0.0) & (at < size - 1.0)
    at = np.clip(at, 0.0, size - 1.0)
    first = np.floor(at).astype(np.int64)
    return Taps(first, np.where(inside, first + 1, first), (at - first).astype(np.float32))


def fixed_point(taps: Taps) -> NDArray[np.float32]:
    """Return (2, n) the weights of both taps, rounded as OpenCV does for bytes, times 2048."""
    weights = np.stack((np.float32(1.0) - taps.fraction, taps.fraction))
    return np.asarray(np.rint(weights * np.float32(FIXED_POINT_ONE)), np.float32)


def area_matrix(size: int, wanted: int) -> NDArray[np.float32]:
    """Return (wanted, size) the share that every pixel has in each that covers it."""
    edges = np.arange(wanted + 1) * (size / wanted)
    left, right = edges[:-1, np.newaxis], edges[1:, np.newaxis]
    pixel = np.arange(size)
    covered = np.minimum(right, pixel + 1.0) - np.maximum(left, pixel)
    shares = np.clip(covered, 0.0, None)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)
