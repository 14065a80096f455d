"""How much depth trembles while nothing moves: the same picture again, with fresh sensor noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.frames import CameraImage
from depth_node.frames import DepthFrame
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.scenes import Scene

NOISE = 3.0
"""Standard deviation of the noise, of 255."""
SHOTS = 12
"""Pictures of each scene."""
_MAD_TO_STD = 1.4826
_FRAME_NS = 33_333_333


@dataclass(frozen=True)
class Flicker:
    """Standard deviation of depth over time, as a share of depth, with a robust estimator."""

    scenes: int
    """Still pictures that were looked at."""
    typical: float
    """Of the median pixel; mean over the scenes; NaN without scenes."""
    p95: float
    """Of the pixel that 95 percent are below; mean over the scenes."""
    worst: float
    """Of the median pixel of the worst scene."""


def flicker(
    model: ModelUnderTest, scenes: Iterable[Scene], noise: float = NOISE, shots: int = SHOTS
) -> Flicker:
    """Show a model of metric depth still pictures and measure what changes.

    :param noise: standard deviation of the noise, of 255.
    :param shots: pictures of each scene, 2 or more.
    """
    rng = np.random.default_rng(7)
    found = [_of_scene(model, scene, noise, shots, rng) for scene in scenes]
    if not found:
        return Flicker(0, np.nan, np.nan, np.nan)
    typical, p95 = np.array(found).T
    return Flicker(len(found), float(typical.mean()), float(p95.mean()), float(typical.max()))


def _of_scene(
    model: ModelUnderTest, scene: Scene, noise: float, shots: int, rng: np.random.Generator
) -> tuple[float, float]:
    depths = []
    for shot in range(shots):
        rgb = noisy(scene.image.rgb, noise, rng)
        stamp_ns = scene.image.stamp_ns + shot * _FRAME_NS
        frame = model.process(CameraImage(rgb, stamp_ns, scene.image.frame_id), scene.view)
        if isinstance(frame, DepthFrame):
            depths.append(frame.depth_m.copy())
    spread = spread_over_time(np.stack(depths))
    known = spread[np.isfinite(spread)]
    typical, p95 = np.percentile(known, (50, 95)) if known.size else (np.nan, np.nan)
    return float(typical), float(p95)


def noisy(rgb: NDArray[np.uint8], noise: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture, (H, W, 3), with fresh noise of a standard deviation of ``noise``."""
    values = rgb + rng.standard_normal(rgb.shape, np.float32) * np.float32(noise)
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def spread_over_time(depths_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1.4826 median |d - median d| / median d of every pixel.

    :param depths_m: (T, H, W) metres.
    :returns: (H, W); NaN where a depth is not finite.
    """
    known = np.isfinite(depths_m).all(axis=0)
    depths = np.where(known, depths_m, np.float32(1.0))
    middle = np.median(depths, axis=0)
    spread = _MAD_TO_STD * np.median(np.abs(depths - middle), axis=0) / middle
    return np.asarray(np.where(known, spread, np.nan), np.float32)
