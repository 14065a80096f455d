"""Depth, differences and errors as pictures for a page that needs no other file."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Depth = NDArray[np.float32]

LARGEST_ERROR = 0.5
"""Relative error of the last colour."""

_UNKNOWN_RGB = (48, 48, 48)
_WIDTH_PX = 320
_JPEG_QUALITY = 88


def data_uri(rgb: Picture) -> str:
    """Return a picture as text that an <img> shows, as JPEG at the width of a column."""
    height = max(1, round(rgb.shape[0] * _WIDTH_PX / rgb.shape[1]))
    shrinks = rgb.shape[1] > _WIDTH_PX
    way = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    scaled = cv2.resize(rgb, (_WIDTH_PX, height), interpolation=way)
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    data = cv2.imencode('.jpg', cv2.cvtColor(scaled, cv2.COLOR_RGB2BGR), options)[1].tobytes()
    return 'data:image/jpeg;base64,' + base64.b64encode(data).decode()


def depth_limits(depths_m: Sequence[Depth]) -> tuple[float, float]:
    """Return the metres between which colours run: all but the outermost two percent."""
    known = [depth[np.isfinite(depth) & (depth > 0.0)] for depth in depths_m]
    values = np.concatenate(known) if known else np.empty(0, np.float32)
    if not values.size:
        return 1.0, 10.0
    near, far = (float(value) for value in np.percentile(values, (2, 98)))
    return near, max(far, near * 1.05)


def depth_picture(depth_m: Depth, limits_m: tuple[float, float]) -> Picture:
    """Colour depth on a logarithmic scale: near is blue, far is red, unknown is dark grey."""
    near, far = limits_m
    with np.errstate(invalid='ignore', divide='ignore'):
        share = np.log(depth_m / near) / math.log(far / near)
    return _colored(share, cv2.COLORMAP_TURBO)


def error_picture(depth_m: Depth, reference_m: Depth) -> Picture:
    """Colour |depth - reference| / reference from 0, black, to 50 % and more, yellow."""
    with np.errstate(invalid='ignore', divide='ignore'):
        error = np.abs(depth_m - reference_m) / reference_m
    return _colored(error / LARGEST_ERROR, cv2.COLORMAP_INFERNO)


def change_picture(before_m: Depth, after_m: Depth) -> Picture:
    """Colour log(after / before): blue came nearer, red went farther, by up to a factor of 2."""
    with np.errstate(invalid='ignore', divide='ignore'):
        share = np.log2(after_m / before_m) / 2.0 + 0.5
    level = np.clip(np.nan_to_num(share, nan=0.5), 0.0, 1.0)[..., None]
    cold, hot = np.array((40.0, 90.0, 200.0)), np.array((205.0, 60.0, 40.0))
    away = np.abs(2.0 * level - 1.0)
    rgb = 245.0 * (1.0 - away) + np.where(level < 0.5, cold, hot) * away
    picture: Picture = np.round(rgb).astype(np.uint8)
    picture[~np.isfinite(share)] = _UNKNOWN_RGB
    return picture


def _colored(share: NDArray[np.floating[Any]], colormap: int) -> Picture:
    """Colour values between 0 and 1; what is not a number is dark grey."""
    unknown = np.isnan(share)
    level = np.clip(np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    bgr = cv2.applyColorMap(np.round(level * 255.0).astype(np.uint8), colormap)
    rgb: Picture = np.ascontiguousarray(bgr[..., ::-1])
    rgb[unknown] = _UNKNOWN_RGB
    return rgb
