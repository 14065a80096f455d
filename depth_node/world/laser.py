"""A flat laser scanner in a scene."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from depth_node.world.builder import turned
from depth_node.world.scene import Scene
from depth_node.world.solids import Floats
from depth_node.world.tracing import Rays
from depth_node.world.tracing import trace

# Columns: right, down and forward of an optical frame in the axes forward, left, up of a scanner.
_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def ranges_m(
    scene: Scene,
    T_world_laser: Floats,  # noqa: N803
    angles_rad: Floats,
) -> NDArray[np.float64]:
    """Return the exact range along each ray of a scanner.

    :param T_world_laser: (4, 4) pose of the scanner: x forward, y left, z up.
    :param angles_rad: (N,) angles about z, 0 is forward, counter-clockwise.
    :returns: (N,) metres; +inf where nothing is met.
    """
    angles = np.asarray(angles_rad, float)
    quarter = np.round(angles / (math.pi / 2)).astype(int)
    result = np.full(angles.shape, np.inf)
    for q in np.unique(quarter).tolist():
        chosen = np.flatnonzero(quarter == q)
        tangent = np.tan(angles[chosen] - q * math.pi / 2)
        pose = T_world_laser.copy()
        pose[:3, :3] = T_world_laser[:3, :3] @ turned(q * math.pi / 2) @ _OPTICAL
        slopes = np.stack([-tangent, np.zeros_like(tangent)], axis=1)[None]
        depth = trace(scene.solids, scene.shell, pose, Rays(slopes)).depth_m[0]
        result[chosen] = depth.astype(float) * np.hypot(1.0, tangent)
    return result
