"""The part of an image that a network sees, at the size at which it sees it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera.fitting import Fit

HALVE, AREA, LINEAR = 'halve', 'area', 'linear'
_FILTERS = {HALVE: cv2.INTER_AREA, AREA: cv2.INTER_AREA, LINEAR: cv2.INTER_LINEAR}


@dataclass(frozen=True)
class Step:
    """One resize on the way to the network's input."""

    filter: str
    """HALVE averages 2x2 pixels, AREA averages what a pixel of the result covers, LINEAR is
    bilinear."""
    height: int
    """Rows of the result, pixels."""
    width: int
    """Columns of the result, pixels."""


def steps_of(fit: Fit) -> tuple[Step, ...]:
    """Return the resizes that bring the rectangle of ``fit`` to the network's input, in order."""
    steps: list[Step] = []
    rows, columns = fit.height, fit.width
    height, width = fit.camera.height, fit.camera.width
    # an odd side would shift the image by half a pixel of the result
    while columns >= 2 * width and rows >= 2 * height and not (rows % 2 or columns % 2):
        rows, columns = rows // 2, columns // 2
        steps.append(Step(HALVE, rows, columns))
    if (rows, columns) != (height, width):
        far = columns >= 2 * width or rows >= 2 * height
        steps.append(Step(AREA if far else LINEAR, height, width))
    return tuple(steps)


def resampled(rgb: NDArray[np.uint8], fit: Fit) -> NDArray[np.uint8]:
    """Cut out the rectangle of ``fit`` and resize it to the network's input.

    Halved by averaging 2x2 pixels while it is at least twice too large, then bilinear: this does
    not alias, and takes a fifth of the time of an exact area average (0.11 ms instead of 0.63 for
    640x480 to 256x192).

    Convention: pixel centres are integers, the outer borders of image and result coincide.

    :param rgb: (H, W, 3) uint8 of the camera that was fitted; rows may be strided.
    :returns: (h, w, 3) uint8, a copy unless the rectangle has the wanted size already.
    """
    part = rgb[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width]
    for step in steps_of(fit):
        part = cv2.resize(part, (step.width, step.height), interpolation=_FILTERS[step.filter])
    return np.asarray(part, np.uint8)


def resampled_mask(mask: NDArray[np.bool_], fit: Fit) -> NDArray[np.bool_]:
    """Return what :func:`resampled` shows of a mask: the nearest pixel's value.

    :param mask: (H, W) of the camera that was fitted.
    :returns: (h, w) of the network's input.
    """
    part = mask[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width].astype(np.uint8)
    size = (fit.camera.width, fit.camera.height)
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_NEAREST) > 0)
