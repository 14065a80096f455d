"""Scene and camera -> picture and depth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.world.scene import Scene
from depth_node.world.sensor import IDEAL
from depth_node.world.sensor import Sensor
from depth_node.world.sensor import develop
from depth_node.world.shading import shade
from depth_node.world.solids import Floats
from depth_node.world.tracing import Hits
from depth_node.world.tracing import Rays
from depth_node.world.tracing import trace

FARTHEST_M = 1000.0


@dataclass(frozen=True)
class Rendered:
    """One view of a scene."""

    rgb: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    depth_m: NDArray[np.float32]
    """(H, W) along z at the pixel centres; +inf for sky."""


def render(
    scene: Scene,
    T_world_camera: Floats,  # noqa: N803
    slopes: NDArray[np.floating],
    *,
    supersample: float = 1.0,
    sensor: Sensor = IDEAL,
    rng: np.random.Generator | None = None,
) -> Rendered:
    """Render what a camera sees; the depth is exact at the pixel centres.

    :param T_world_camera: (4, 4) pose of the optical frame (x right, y down, z forward).
    :param slopes: (H, W, 2) x/z and y/z of every pixel centre; of any lens.
    :param supersample: rays per pixel along each side of the image, for its colors.
    :param sensor: turns light into pixel values.
    :param rng: noise of the sensor; none where None.
    """
    rays = Rays(slopes)
    hits = _cut(trace(scene.solids, scene.shell, T_world_camera, rays))
    if supersample == 1.0:
        light = shade(scene, T_world_camera, rays, hits)
    else:
        fine = Rays(_finer(slopes, supersample))
        fine_hits = _cut(trace(scene.solids, scene.shell, T_world_camera, fine))
        light = cv2.resize(
            np.minimum(shade(scene, T_world_camera, fine, fine_hits), 4.0),
            (rays.width, rays.height),
            interpolation=cv2.INTER_AREA,
        )
    return Rendered(develop(light, sensor, rng, hits.depth_m), hits.depth_m)


def _cut(hits: Hits) -> Hits:
    """Let the ground end in the sky far away."""
    hits.depth_m[hits.depth_m > FARTHEST_M] = np.inf
    return hits


def _finer(slopes: NDArray[np.floating], factor: float) -> NDArray[np.float32]:
    """Return the slopes of a grid ``factor`` times as dense, extrapolated to the image's edge."""
    height, width = slopes.shape[:2]
    padded = np.pad(slopes, ((1, 1), (1, 1), (0, 0)), mode='reflect', reflect_type='odd')
    columns = _fine_axis(width, factor)
    rows = _fine_axis(height, factor)
    if width < 2 or height < 2:
        raise ValueError('supersampling needs an image of at least 2 by 2 pixels')
    left, top = np.floor(columns).astype(int), np.floor(rows).astype(int)
    across = (columns - left)[None, :, None]
    down = (rows - top)[:, None, None]
    wide = padded[:, left] * (1 - across) + padded[:, left + 1] * across
    return np.asarray(wide[top] * (1 - down) + wide[top + 1] * down, np.float32)


def _fine_axis(size: int, factor: float) -> Floats:
    """Return the positions of a finer grid's pixel centres in the image padded by one."""
    fine = max(2, round(size * factor))
    return np.asarray((np.arange(fine) + 0.5) * size / fine + 0.5, float)
