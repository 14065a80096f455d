"""Pinhole cameras under crop and resize, and how an image is fitted to the sizes of a network.

Pixel centres are integers: the image covers -0.5 to width - 0.5.  Scaling by s therefore moves a
coordinate u to (u + 0.5) s - 0.5, and the principal point with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import ModelError
from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.frames import CameraModel

POLICIES = ('native', 'crop', 'stretch')

_MAX_NATIVE_ANISOTROPY = 1.08


@dataclass(frozen=True)
class Fit:
    """The rectangle of the source image that the network sees, and the camera it sees it with."""

    left: int
    """First column of the rectangle, source pixels."""
    top: int
    """First row of the rectangle, source pixels."""
    width: int
    """Columns of the rectangle, source pixels."""
    height: int
    """Rows of the rectangle, source pixels."""
    camera: CameraModel
    """Intrinsics at network input, after crop and resize."""
    size_index: int = 0
    """Which of the offered sizes was taken."""


def from_horizontal_fov(width: int, height: int, hfov_rad: float) -> CameraModel:
    """Make the camera of a centred lens with square pixels.

    :param width: columns, pixels.
    :param height: rows, pixels.
    :param hfov_rad: angle between the left and the right edge of the image, radians, in (0, pi).
    :raises SettingsError: when the angle or the size describes no camera.
    """
    if width < 1 or height < 1:
        raise SettingsError('camera size', f'{quoted(width)} x {quoted(height)}', '1 x 1 or more')
    if not 0.0 < hfov_rad < math.pi:
        raise SettingsError('horizontal field of view', f'{quoted(hfov_rad)} rad', '0 to pi rad')
    focal_px = 0.5 * width / math.tan(0.5 * hfov_rad)
    return CameraModel(
        width, height, focal_px, focal_px, 0.5 * (width - 1.0), 0.5 * (height - 1.0)
    )


def horizontal_fov_rad(model: CameraModel) -> float:
    """Return the angle between the left and the right edge of the image, radians."""
    right = math.atan((model.width - 0.5 - model.cx) / model.fx)
    left = math.atan((model.cx + 0.5) / model.fx)
    return right + left


def scaled(
    model: CameraModel, scale_x: float, scale_y: float, width: int, height: int
) -> CameraModel:
    """Scale the pixel grid about the top left corner of the image and give it a new size.

    :param scale_x: new pixels per old pixel along u.
    :param scale_y: new pixels per old pixel along v.
    :param width: columns of the result, pixels; need not be the scaled old ones.
    :param height: rows of the result, pixels.
    """
    return CameraModel(
        width=width,
        height=height,
        fx=model.fx * scale_x,
        fy=model.fy * scale_y,
        cx=(model.cx + 0.5) * scale_x - 0.5,
        cy=(model.cy + 0.5) * scale_y - 0.5,
    )


def resized(model: CameraModel, width: int, height: int) -> CameraModel:
    """Return the camera of the whole image resized to ``width`` x ``height`` pixels."""
    return scaled(model, width / model.width, height / model.height, width, height)


def cropped(model: CameraModel, left: int, top: int, width: int, height: int) -> CameraModel:
    """Return the camera of the rectangle that starts at column ``left`` and row ``top``."""
    return CameraModel(width, height, model.fx, model.fy, model.cx - left, model.cy - top)


def ray_slopes(model: CameraModel) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return x/z of every column, (W,), and y/z of every row, (H,), float32.

    A pixel (u, v) with depth z is the point (x_slope[u] z, y_slope[v] z, z).
    """
    x = (np.arange(model.width, dtype=np.float64) - model.cx) / model.fx
    y = (np.arange(model.height, dtype=np.float64) - model.cy) / model.fy
    return x.astype(np.float32), y.astype(np.float32)


def fit(model: CameraModel, sizes: Sequence[tuple[int, int]], policy: str) -> Fit:
    """Choose the part of the image and the size at which a network sees it.

    'native' takes the size whose aspect is nearest (the earlier one of equals) and the whole
    image where the axes then scale apart by at most 8 percent, else the largest centred rectangle
    of that aspect.  'crop' takes that rectangle for the first size, 'stretch' the whole image for
    the first size.  The rectangle is exact to half a source pixel; what rounding leaves is in the
    camera, whose axes are scaled apart.

    :param model: camera of the source image.
    :param sizes: (height, width) of the network's inputs, pixels, the preferred one first.
    :param policy: one of :data:`POLICIES`.
    :raises ModelError: for an unknown policy, no sizes, or sizes below one pixel.
    """
    _check_offer(sizes, policy)
    index = _nearest_aspect(model, sizes) if policy == 'native' else 0
    height, width = sizes[index]
    whole = (0, 0, model.width, model.height)
    if policy == 'stretch' or (policy == 'native' and _nearly_uniform(model, height, width)):
        rectangle = whole
    else:
        rectangle = _centered(model, height, width)
    camera = resized(cropped(model, *rectangle), width, height)
    return Fit(*rectangle, camera=camera, size_index=index)


def _check_offer(sizes: Sequence[tuple[int, int]], policy: str) -> None:
    """Refuse a policy or sizes that no image can be fitted to."""
    if policy not in POLICIES:
        raise ModelError("model card's fit", quoted(policy), 'one of ' + ', '.join(POLICIES))
    if not sizes or any(height < 1 or width < 1 for height, width in sizes):
        raise ModelError(
            "model card's inputs", quoted(tuple(sizes)), 'at least one size, each 1 x 1 or more'
        )


def _anisotropy(model: CameraModel, height: int, width: int) -> float:
    """Return how far the axes scale apart, as a ratio of at least 1."""
    ratio = (width * model.height) / (height * model.width)
    return max(ratio, 1.0 / ratio)


def _nearest_aspect(model: CameraModel, sizes: Sequence[tuple[int, int]]) -> int:
    """Return the index of the size whose aspect is nearest to the image's."""
    return min(range(len(sizes)), key=lambda index: _anisotropy(model, *sizes[index]))


def _nearly_uniform(model: CameraModel, height: int, width: int) -> bool:
    """Tell whether the whole image may be resized without a crop."""
    return _anisotropy(model, height, width) <= _MAX_NATIVE_ANISOTROPY


def _centered(model: CameraModel, height: int, width: int) -> tuple[int, int, int, int]:
    """Return left, top, width, height of the largest centred rectangle of an aspect."""
    crop_width = min(model.width, max(1, round(model.height * width / height)))
    crop_height = min(model.height, max(1, round(model.width * height / width)))
    left = (model.width - crop_width) // 2
    top = (model.height - crop_height) // 2
    return left, top, crop_width, crop_height
