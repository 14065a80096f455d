"""The worst and the typical image of every data set, with what models make of them, as a JPEG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.benchmark.bundled_data import RECORDING
from depth_node.benchmark.bundled_data import DataSet
from depth_node.evaluation import counted_pixels
from depth_node.frames import DepthFrame
from depth_node.judging.judgement import Series
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.pictures import Depth
from depth_node.judging.pictures import Picture
from depth_node.judging.pictures import depth_limits
from depth_node.judging.pictures import depth_picture
from depth_node.judging.scenes import Scene

LARGEST_BYTES = 300_000
_CELL = (208, 156)
"""Columns and rows, pixels."""
_BAND = 18
_GAP = 3
_QUALITIES = (90, 85, 80, 72, 64, 55, 45, 35, 25)


@dataclass(frozen=True, eq=False)
class Shown:
    """One image."""

    caption: str
    """Data set, and which image of it."""
    rgb: Picture
    """(H, W, 3) as the model saw it."""
    truth_m: Depth
    """(H, W) metres."""
    depths: tuple[tuple[str, Depth, float, float], ...]
    """Of each model: its name, (H, W) metres after median scaling, the factor of the scaling, and
    the Abs Rel after it."""


def shown_images(models: Sequence[ModelUnderTest], data: DataSet, series: Series) -> list[Shown]:
    """Return the image with the largest value of a series, and the one with the middle value.

    :param series: of the first model, over the images of the data set.
    """
    chosen = _chosen(series)
    found = {
        scene.image.stamp_ns: _shown(models, data, scene, chosen[scene.image.stamp_ns])
        for scene in data.scenes(chosen.__contains__)
    }
    return [found[stamp_ns] for stamp_ns in chosen if stamp_ns in found]


def _chosen(series: Series) -> dict[int, str]:
    """Return stamp -> which image it is."""
    known = np.flatnonzero(np.isfinite(series.values))
    if not known.size:
        return {}
    order = known[np.argsort(series.values[known], kind='stable')]
    chosen = {int(series.stamps_ns[order[order.size // 2]]): 'median'}
    chosen[int(series.stamps_ns[order[-1]])] = 'worst'
    return chosen


def _shown(models: Sequence[ModelUnderTest], data: DataSet, scene: Scene, which: str) -> Shown:
    rgb, depths = scene.image.rgb, []
    for model in models:
        frame = model.process(scene.image, scene.view)
        if not isinstance(frame, DepthFrame):
            continue
        pair = counted_pixels(frame.depth_m, scene.truth_m, 0.05, 80.0)
        if pair is None:
            continue
        prediction, truth, _ = pair
        scale = float(np.median(truth) / np.median(prediction))
        error = float(np.mean(np.abs(prediction * scale - truth) / truth))
        # copies: the arrays are reused by the next image
        depths.append((model.name, frame.depth_m * np.float32(scale), scale, error))
        rgb = frame.rgb.copy()
    place = data.name if data.kind == RECORDING else f'{data.name}, {scene.image.frame_id}'
    return Shown(f'{place}: {which}', rgb, scene.truth_m, tuple(depths))


def sheet(shown: Sequence[Shown]) -> Picture:
    """Put images in rows: picture, truth, and the depth of each model; (H, W, 3) RGB."""
    columns = 2 + max((len(item.depths) for item in shown), default=0)
    width, height = _CELL[0] + _GAP, _CELL[1] + _BAND + _GAP
    page = np.full((max(1, len(shown)) * height, columns * width, 3), 255, np.uint8)
    for row, item in enumerate(shown):
        limits = depth_limits([item.truth_m])
        cells = [(item.caption, item.rgb), ('truth', depth_picture(item.truth_m, limits))]
        cells += [
            (f'{name}: x {scale:.2f}, Abs Rel {error:.2f}', depth_picture(depth_m, limits))
            for name, depth_m, scale, error in item.depths
        ]
        for column, (caption, picture) in enumerate(cells):
            top, left = row * height, column * width
            _write(page, caption, left + 2, top + _BAND - 5)
            page[top + _BAND : top + _BAND + _CELL[1], left : left + _CELL[0]] = _fitted(picture)
    return page


def jpeg(rgb: Picture, largest: int = LARGEST_BYTES) -> bytes:
    """Return a picture as the JPEG of the highest quality that is small enough."""
    data = b''
    for quality in _QUALITIES:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        data = cv2.imencode('.jpg', rgb[..., ::-1], options)[1].tobytes()
        if len(data) < largest:
            break
    return data


def _fitted(picture: Picture) -> Picture:
    """Return a picture at the size of a cell, its aspect kept, the rest white."""
    scale = min(_CELL[0] / picture.shape[1], _CELL[1] / picture.shape[0])
    width, height = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    cell = np.full((_CELL[1], _CELL[0], 3), 255, np.uint8)
    way = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    cell[:height, :width] = cv2.resize(picture, (width, height), interpolation=way)
    return cell


def _write(page: NDArray[np.uint8], text: str, left: int, base: int) -> None:
    cv2.putText(
        page, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (20, 20, 20), 1, cv2.LINE_AA
    )
