"""Depth in metres -> the numbers of a depth image: what is far, which unit (REP-117, REP-118)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from depth_node.byte_arrays import float_image
from depth_node.byte_arrays import message_image
from depth_node.settings import DepthSettings

_LARGEST_MM = np.float32(65_535.0)


class DepthEncoder:
    """Encodes depth images into buffers that it keeps; for one thread at a time."""

    def __init__(self) -> None:
        self._floats = float_image(1, 1)
        self._millimetres = message_image((1, 1), np.dtype(np.uint16))

    def encoded(
        self, depth_m: NDArray[np.float32], wanted: DepthSettings
    ) -> NDArray[np.float32] | NDArray[np.uint16]:
        """Return depth as depth.encoding and depth.beyond ask for.

        :param depth_m: (H, W) metres; NaN unknown, +Inf farther than depth.max_m; not changed.
        :returns: (H, W) metres, float32, or millimetres, uint16, 1 to 65535 and 0 for what is no
            number; valid until the next call, and as long as ``depth_m`` where nothing is to be
            changed.
        """
        in_millimetres = wanted.encoding == '16UC1'
        if wanted.beyond == 'inf' and not in_millimetres:
            return depth_m
        if self._floats.shape != depth_m.shape:
            self._floats = float_image(*depth_m.shape)
        values = self._floats
        if wanted.beyond == 'max':
            # passes NaN on
            np.minimum(depth_m, np.float32(wanted.max_m), out=values)
        elif in_millimetres:
            np.copyto(values, depth_m)
        else:
            with np.errstate(invalid='ignore'):
                # Inf - Inf is NaN
                np.subtract(depth_m, depth_m, out=values)
            np.add(depth_m, values, out=values)
        return self._in_millimetres(values) if in_millimetres else values

    def _in_millimetres(self, values: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Return whole millimetres; ``values``, metres, is overwritten."""
        if self._millimetres.shape != values.shape:
            self._millimetres = message_image(values.shape, np.dtype(np.uint16))
        unknown = ~np.isfinite(values)
        np.multiply(values, np.float32(1000.0), out=values)
        np.rint(values, out=values)
        # not 0, which would say that what is known to be near is unknown
        np.clip(values, np.float32(1.0), _LARGEST_MM, out=values)
        values[unknown] = 0.0
        np.copyto(self._millimetres, values, casting='unsafe')
        return self._millimetres
