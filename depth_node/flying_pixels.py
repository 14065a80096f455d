"""Pixels that lie on no surface: between a foreground and its background.

A network blurs the edges of things over two or three of its pixels, and enlarging its output to
the image draws a ramp between any two neighbours: points that hang in the air behind every edge.
So the pixels of the network on the far side of an edge are forgotten before its output is
enlarged: everything that would be drawn with their help goes with them.

A pixel is on the far side where one that touches it is nearer by the wanted share; or, so that
blurred edges are found too, where one two pixels away is and half of it happens on the way, unless
the two steps are as long as each other: inverse depth of a plane is an affine function of the
pixel.  For a share of 0.12 a floor is lost only within 9 network rows of the horizon.

What goes and what stays is measured by ``python -m depth_node.tools.benchmark edges``, which made
docs/flying-points.md.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

PLANE = 0.1
"""Two steps that differ by no more than this share of the first are those of a plane."""

_NEIGHBOURS = np.ones((3, 3), np.uint8)


class FlyingPixels:
    """Finds them; keeps its buffers, because fresh memory costs more than the arithmetic."""

    def __init__(self) -> None:
        self._allocate((0, 0))

    def forget(self, inverse: NDArray[np.float32], largest_step: float) -> None:
        """Make NaN of the pixels of a network's output that are on the far side of an edge.

        :param inverse: (h, w) inverse depth, 0 or more, of any unit, changed in place; NaN counts
            as infinitely far.
        :param largest_step: share by which a pixel may be farther than one beside it, e.g. 0.12;
            0 changes nothing.
        """
        if largest_step <= 0.0:
            return
        if inverse.shape != self._far.shape:
            self._allocate(inverse.shape)
        # the minimum of anything with NaN is NaN, and what a dilation makes of one is not defined
        known = np.nan_to_num(inverse) if np.isnan(inverse.min()) else inverse
        self._find(known, np.float32(largest_step))
        np.copyto(inverse, np.nan, where=self._far)

    def _find(self, known: NDArray[np.float32], largest_step: np.float32) -> None:
        """Fill the mask; gpu_frame.py computes the same in the same order."""
        first, both, limit = self._first, self._both, self._limit
        cv2.dilate(known, _NEIGHBOURS, dst=first)
        cv2.dilate(first, _NEIGHBOURS, dst=both)
        np.subtract(first, known, out=first)
        np.subtract(both, known, out=both)
        np.multiply(known, largest_step, out=limit)
        far, blurred, also = self._far, self._blurred, self._also
        np.greater(first, limit, out=far)
        np.greater(both, limit, out=blurred)
        np.multiply(limit, np.float32(0.5), out=limit)
        blurred &= np.greater(first, limit, out=also)
        np.subtract(both, first, out=both)
        np.subtract(both, first, out=both)
        np.abs(both, out=both)
        np.multiply(first, np.float32(PLANE), out=first)
        blurred &= np.greater(both, first, out=also)
        far |= blurred

    def _allocate(self, shape: tuple[int, ...]) -> None:
        self._first, self._both, self._limit = (np.empty(shape, np.float32) for _ in range(3))
        self._far, self._blurred, self._also = (np.empty(shape, np.bool_) for _ in range(3))
