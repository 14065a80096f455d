"""What lenses and motion do to the light before it is measured."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def aberrated(light: Array, difference: float) -> Array:
    """Return the picture with red and blue of different sizes.

    :param light: (H, W, 3) linear RGB.
    :param difference: of red, relative to green; blue differs as much to the other side.
    """
    height, width = light.shape[:2]
    result = light.copy()
    for channel, sign in ((0, 1.0), (2, -1.0)):
        zoom = 1 + sign * difference
        shift = ((1 - zoom) * (width - 1) / 2, (1 - zoom) * (height - 1) / 2)
        matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
        result[..., channel] = cv2.warpAffine(
            np.ascontiguousarray(light[..., channel]),
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return result


def defocused(light: Array, depth_m: Array, radius_px: float, focus_m: float) -> Array:
    """Return the picture blurred by its distance from the focus, in reciprocal metres.

    A blend of the sharp picture and one blurred once: cheap, and right where depth is even.

    :param depth_m: (H, W) depth; +inf is sky.
    :param radius_px: of the blur at 1 / metre from the focus, and the largest.
    """
    size = 2 * max(1, round(radius_px)) + 1
    soft = cv2.blur(cv2.blur(light, (size, size)), (size, size))
    amount = np.minimum(np.abs(1 / depth_m - np.float32(1 / focus_m)) * np.float32(1.5), 1.0)
    # The blur of an edge reaches beyond it.
    amount = np.asarray(cv2.blur(amount.astype(np.float32), (size, size)))[..., None]
    return np.asarray(light + amount * (soft - light), np.float32)


def smeared(light: Array, way_px: tuple[float, float]) -> Array:
    """Return the picture moved along a straight way while it was taken, columns and rows."""
    kernel = motion_kernel(way_px)
    return np.asarray(cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REPLICATE))


def motion_kernel(way_px: tuple[float, float]) -> Array:
    """Return the weights (n, n) of a straight way, columns and rows; n is odd."""
    reach = int(np.ceil(max(map(abs, way_px)) / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for share in np.linspace(-0.5, 0.5, 4 * reach + 3):
        column, row = reach + share * way_px[0], reach + share * way_px[1]
        left, top = min(int(column), 2 * reach - 1), min(int(row), 2 * reach - 1)
        right, down = column - left, row - top
        kernel[top : top + 2, left : left + 2] += np.outer((1 - down, down), (1 - right, right))
    return np.asarray(kernel / kernel.sum(), np.float32)
