"""A cloud seen from above, without and with the mask, as a picture for the page."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.benchmark.edge_views import View
from depth_node.benchmark.edges import enlarged
from depth_node.benchmark.edges import shrunk
from depth_node.benchmark.flying import REACH_PX
from depth_node.benchmark.flying import Depth
from depth_node.benchmark.flying import Mask
from depth_node.benchmark.flying import flying_points
from depth_node.camera.fitting import ray_slopes
from depth_node.flying_pixels import FlyingPixels

_SIDE_PX = 440
_MARGIN_PX = 8
_RED = (220, 0, 0)
_GREY = (90, 90, 90)

Picture = NDArray[np.uint8]


def picture(view: View, size: tuple[int, int], step: float) -> Picture:
    """Draw the points of one view from above, before and after; those that fly are red.

    :param size: columns and rows of the network that sees averaged true depth.
    :param step: depth.edge_step.
    :returns: (H, W, 3) RGB.
    """
    small = shrunk(view.depth_m, size, 'averaged')
    before_m = enlarged(small, view.depth_m.shape)
    FlyingPixels().forget(small, step)
    after_m = enlarged(small, view.depth_m.shape)
    flies = flying_points(before_m, view.depth_m, view.camera, REACH_PX)
    farthest_m = float(np.percentile(before_m[np.isfinite(before_m)], 99.0))
    drawn = [
        _from_above(view, depth_m, flies, farthest_m, text)
        for depth_m, text in ((before_m, 'depth.edge_step 0'), (after_m, f'{step:g}'))
    ]
    return np.concatenate(drawn, axis=1)


def _from_above(view: View, depth_m: Depth, flies: Mask, farthest_m: float, text: str) -> Picture:
    """Draw one cloud; the camera is in the middle of the lower rim and looks up."""
    canvas = np.full((_SIDE_PX, _SIDE_PX, 3), 255, np.uint8)
    slopes_x, _ = ray_slopes(view.camera)
    shown = np.isfinite(depth_m) & (depth_m < farthest_m)
    scale = (_SIDE_PX - 2 * _MARGIN_PX) / farthest_m
    x_m = depth_m * slopes_x
    for chosen, colour in ((shown & ~flies, _GREY), (shown & flies, _RED)):
        columns = (_SIDE_PX / 2 + x_m[chosen] * scale).astype(np.intp)
        rows = (_SIDE_PX - _MARGIN_PX - depth_m[chosen] * scale).astype(np.intp)
        inside = (columns >= 0) & (columns < _SIDE_PX) & (rows >= 0)
        canvas[rows[inside], columns[inside]] = colour
    cv2.putText(canvas, text, (12, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


def png(image: Picture) -> bytes:
    """Return an RGB picture as the bytes of a PNG file."""
    _, data = cv2.imencode('.png', image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return bytes(data)
