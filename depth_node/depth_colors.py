"""Depth -> a picture for people: near is red, far is blue, unknown is black."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.byte_arrays import message_image

_SAMPLED_STRIDE = 8
_SHARES = (0.02, 0.98)
_LONGEST_JPEG_SIDE_PX = 65_500  # of libjpeg


class DepthColors:
    """Colours depth images into buffers that it keeps; for one thread at a time.

    Colours are spread over the inverse depth of each image for itself, without its farthest and
    nearest 2 %: they tell near from far in one image, and no metres.
    """

    def __init__(self) -> None:
        ramp = np.arange(256, dtype=np.uint8)[:, np.newaxis]
        # as B, G, R; turned round once here instead of in every image
        turbo = cv2.applyColorMap(ramp, cv2.COLORMAP_TURBO)
        self._map = np.ascontiguousarray(turbo[..., ::-1])
        self._rgb = message_image((1, 1, 3), np.dtype(np.uint8))

    def of_depth(self, depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Colour metric depth.

        :param depth_m: (H, W) metres, positive; NaN becomes black, +Inf as the farthest.
        :returns: (H, W, 3) uint8 RGB, valid until the next call.
        """
        return self.of_inverse(np.reciprocal(depth_m))

    def of_inverse(self, inverse: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Colour inverse depth of whatever unit.

        :param inverse: (H, W), larger is nearer, finite or NaN, which becomes black.
        :returns: (H, W, 3) uint8 RGB, valid until the next call.
        """
        if self._rgb.shape[:2] != inverse.shape:
            self._rgb = message_image((*inverse.shape, 3), np.dtype(np.uint8))
        far, near = _span(inverse)
        # comparisons with NaN are false: it counts as the farthest here and turns black below
        share = np.fmax((inverse - far) * np.float32(255.0 / (near - far)), np.float32(0.0))
        levels = np.fmin(share, np.float32(255.0)).astype(np.uint8)
        cv2.applyColorMap(levels, self._map, dst=self._rgb)
        self._rgb[np.isnan(inverse)] = 0
        return self._rgb


def jpeg_of(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8] | None:
    """Return a picture as the bytes of a JPEG file.

    :param rgb: (H, W, 3).
    :param quality: 1 to 100.
    :returns: (N,) bytes; None for sides that JPEG cannot hold.
    """
    if max(rgb.shape) > _LONGEST_JPEG_SIDE_PX:
        return None
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode('.jpg', bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return np.asarray(encoded, np.uint8).ravel()


def _span(inverse: NDArray[np.float32]) -> tuple[np.float32, np.float32]:
    """Return what the first and last colour stand for; the second is the larger."""
    sampled = inverse[::_SAMPLED_STRIDE, ::_SAMPLED_STRIDE]
    known = sampled[~np.isnan(sampled)]
    if not known.size:
        return np.float32(0.0), np.float32(1.0)
    known = np.sort(known)
    far, near = (known[int(share * (known.size - 1))] for share in _SHARES)
    smallest = max(abs(float(far)), 1e-6) * 1e-3
    return far, np.float32(max(float(near), float(far) + smallest))
