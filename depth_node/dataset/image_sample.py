"""What a sample of the images looks like, and how points move in it."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera.lens import Lens
from depth_node.dataset.audit import PictureAudit
from depth_node.dataset.clock_offset import TrackedPair
from depth_node.dataset.clock_offset import TurnRates
from depth_node.dataset.image_rotation import shrunk_grey
from depth_node.dataset.image_rotation import slopes_of
from depth_node.dataset.image_rotation import tracked
from depth_node.dataset.trajectory import Trajectory
from depth_node.frames import CameraModel

_ALL_BELOW = 400
_BLOCK = 40
_BLOCKS = 10
_WINDOW_NS = 4_000_000_000
_TURNING_WINDOWS = 7
_OTHER_WINDOWS = 3


def chosen_times(
    trajectory: Trajectory | None, count: int, gyro: TurnRates | None = None
) -> Callable[[int, int], bool]:
    """Return a test of index and stamp: which images are to be decoded.

    Few images all; of more, stretches of neighbours, most of them from where the turning of the
    camera varies most, because that is what tells a delay.
    """
    if count <= _ALL_BELOW:
        return lambda index, stamp_ns: True
    if gyro is not None:
        stamps_ns = gyro.stamps_ns
        rates = np.linalg.norm(gyro.rates_rad_s - np.median(gyro.rates_rad_s, axis=0), axis=1)[1:]
    elif trajectory is not None:
        stamps_ns, rates = trajectory.stamps_ns, np.nan_to_num(trajectory.turn_rates_rad_s)
    else:
        period = max(_BLOCK, count // _BLOCKS)
        return lambda index, stamp_ns: index % period < _BLOCK
    windows = (stamps_ns[1:] - stamps_ns[0]) // _WINDOW_NS
    spread = {
        int(number): float(np.std(rates[windows == number])) for number in np.unique(windows)
    }
    turning = sorted(spread, key=lambda number: -spread[number])[:_TURNING_WINDOWS]
    numbers = sorted(spread)
    chosen = {*turning, *numbers[:: max(1, len(numbers) // _OTHER_WINDOWS)]}
    start = int(stamps_ns[0])
    return lambda index, stamp_ns: (stamp_ns - start) // _WINDOW_NS in chosen


class ImageSample:
    """Takes images one after the other and keeps what an audit needs of them.

    :param model: K at the size of the images; None where no camera is known: then no pairs.
    :param lens: None where the images are not bent.
    """

    def __init__(self, model: CameraModel | None, lens: Lens | None) -> None:
        self.pairs: list[TrackedPair] = []
        """Points that were followed between neighbours."""
        self._model, self._lens = model, lens
        self._before: tuple[int, int, NDArray[np.uint8]] | None = None
        self._brightness: list[float] = []
        self._sharpness: list[float] = []
        self._corners: list[int] = []
        self._followed: list[float] = []
        self._flow_px: list[float] = []

    def add(self, index: int, stamp_ns: int, rgb: NDArray[np.uint8]) -> None:
        """Take the next image.

        :param index: its number among all images; only neighbours are compared.
        :param rgb: (H, W, 3).
        """
        grey = shrunk_grey(rgb)
        self._brightness.append(float(grey.mean()))
        self._sharpness.append(float(cv2.Laplacian(grey, cv2.CV_32F).var()))
        before, self._before = self._before, (index, stamp_ns, grey)
        if before is None or before[0] != index - 1:
            return
        tracks = tracked(before[2], grey, rgb.shape[1])
        self._corners.append(tracks.corners)
        self._followed.append(tracks.share)
        self._flow_px.append(tracks.median_px)
        if self._model is not None and stamp_ns > before[1]:
            points = (
                slopes_of(points, self._model, self._lens)
                for points in (tracks.before_px, tracks.after_px)
            )
            self.pairs.append(TrackedPair(before[1], stamp_ns, *points))

    def pictures(self) -> PictureAudit:
        """Return the figures of all images so far."""
        known = [value for value in self._flow_px if np.isfinite(value)]
        return PictureAudit(
            sampled=len(self._brightness),
            brightness=_quantiles(self._brightness),
            sharpness=_quantiles(self._sharpness),
            corners=float(np.median(self._corners)) if self._corners else 0.0,
            followed=float(np.median(self._followed)) if self._followed else 0.0,
            flow_px=float(np.percentile(known, 75)) if known else float('nan'),
        )


def _quantiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, (5, 50, 95))
    return float(low), float(middle), float(high)
