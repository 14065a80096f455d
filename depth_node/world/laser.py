"""A flat laser scanner in a scene."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from depth_node.recording.messages import LaserScanFields
from depth_node.world.builder import turned
from depth_node.world.scene import Scene
from depth_node.world.solids import Floats
from depth_node.world.tracing import Rays
from depth_node.world.tracing import trace

# Columns: right, down and forward of an optical frame in the axes forward, left, up of a scanner.
_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])

_RAYS = 720
_RANGE_M = (0.05, 25.0)


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


def scan(
    scene: Scene,
    T_world_laser: Floats,  # noqa: N803
    stamp_ns: int,
    frame_id: str,
) -> LaserScanFields:
    """Return a full turn of a scanner; +inf beyond its range.

    :param T_world_laser: (4, 4) pose of the scanner: x forward, y left, z up.
    :param stamp_ns: all rays are of this moment.
    :param frame_id: frame of the scanner.
    """
    increment = 2 * math.pi / _RAYS
    angles = np.asarray(-math.pi + increment * np.arange(_RAYS), float)
    ranges = ranges_m(scene, T_world_laser, angles)
    nearest, farthest = _RANGE_M
    ranges[ranges > farthest] = np.inf
    ranges[ranges < nearest] = np.nan
    return LaserScanFields(
        float(angles[0]),
        float(angles[-1]),
        increment,
        nearest,
        farthest,
        ranges.astype(np.float32),
        stamp_ns,
        frame_id,
    )
