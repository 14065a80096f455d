"""The part of an image that a network sees, at the size at which it sees it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera.fitting import Fit


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
    width, height = fit.camera.width, fit.camera.height
    while part.shape[1] >= 2 * width and part.shape[0] >= 2 * height:
        rows, columns = part.shape[0] // 2, part.shape[1] // 2
        if (2 * rows, 2 * columns) != part.shape[:2]:
            # an odd side would shift the image by half a pixel of the result
            break
        part = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    if part.shape[:2] == (height, width):
        return np.asarray(part, np.uint8)
    far = part.shape[1] >= 2 * width or part.shape[0] >= 2 * height
    filter_ = cv2.INTER_AREA if far else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, (width, height), interpolation=filter_), np.uint8)
