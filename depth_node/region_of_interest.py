"""What lies outside of the region of interest is unknown: the robot's own bonnet, a mast, the sky.

Sizes stay as they are, so that depth, its camera, colours and organized points keep their rows and
columns; outside stands NaN.  The region is said in shares of the image, so that it survives a
change of size and means the same at the size of the network.  A pixel is inside where its centre
is.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import Fit
from depth_node.frames import CameraModel
from depth_node.frames import PackedCloud

Shares = tuple[float, float, float, float]
"""What is cut off at the left, the right, the top and the bottom, each a share of the image."""


def rows_and_columns(
    shares: Shares, image: CameraModel, fit: Fit, *, full_size: bool
) -> tuple[slice, slice]:
    """Return the pixels of a frame that are inside.

    :param image: the rectified camera, of whose image ``shares`` are.
    :param fit: where the network looks.
    :param full_size: the frame has the size of the image (True) or of the network (False).
    """
    left, right, top, bottom = shares
    rows, columns = (fit.top, fit.height), (fit.left, fit.width)
    height, width = fit.camera.height, fit.camera.width
    if full_size:
        rows, columns = (0, image.height), (0, image.width)
        height, width = image.height, image.width
    return (
        _inside(top * image.height, (1.0 - bottom) * image.height, rows, height),
        _inside(left * image.width, (1.0 - right) * image.width, columns, width),
    )


def forget_outside(values: NDArray[np.float32], rows: slice, columns: slice) -> None:
    """Make NaN of what is outside.

    :param values: (H, W) or (H, W, C), changed in place.
    """
    values[: rows.start] = np.nan
    values[rows.stop :] = np.nan
    values[rows, : columns.start] = np.nan
    values[rows, columns.stop :] = np.nan


def without_outside(cloud: PackedCloud, rows: slice, columns: slice, stride: int) -> PackedCloud:
    """Return an organized cloud whose points outside are NaN, in the same memory.

    :param cloud: x, y and z are the first numbers of its points; colours stay.
    :param rows: inside, in pixels of the frame.
    :param columns: inside, in pixels of the frame.
    :param stride: pixels of the frame from one point to the next.
    """
    numbers = np.frombuffer(cloud.data, np.float32)
    points = numbers.reshape(cloud.height, cloud.width, cloud.point_step // 4)
    forget_outside(points[..., :3], _thinned(rows, stride), _thinned(columns, stride))
    return replace(cloud, is_dense=False)


def _inside(first: float, last: float, seen: tuple[int, int], size: int) -> slice:
    """Return the pixels of a frame whose centres lie between two edges.

    :param first: the lower edge, source pixels from the border of the image.
    :param last: the upper edge.
    :param seen: first source pixel that the frame shows, and how many.
    :param size: pixels of the frame.
    """
    offset, length = seen
    per_pixel = size / length
    start, stop = (math.ceil((edge - offset) * per_pixel - 0.5) for edge in (first, last))
    return slice(min(max(start, 0), size), min(max(stop, 0), size))


def _thinned(pixels: slice, stride: int) -> slice:
    """Return which of every ``stride``-th pixel are inside."""
    return slice(-(-pixels.start // stride), -(-pixels.stop // stride))
