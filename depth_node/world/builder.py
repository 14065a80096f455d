"""Putting solids together: local frames for describing objects in their own coordinates."""

from __future__ import annotations

import math
from typing import Union

import numpy as np

from depth_node.world.materials import Palette
from depth_node.world.solids import BOX
from depth_node.world.solids import CYLINDER
from depth_node.world.solids import ELLIPSOID
from depth_node.world.solids import Floats
from depth_node.world.solids import Solids

Faces = Union[int, tuple[int, int, int]]

_THINNEST_M = 0.002


def turned(yaw_rad: float) -> Floats:
    """Return the rotation about the vertical axis."""
    cosine, sine = math.cos(yaw_rad), math.sin(yaw_rad)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def tilted(roll_rad: float) -> Floats:
    """Return the rotation about the x axis."""
    cosine, sine = math.cos(roll_rad), math.sin(roll_rad)
    return np.array([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])


_LYING_X = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_LYING_Y = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
_AXES = {'x': _LYING_X, 'y': _LYING_Y, 'z': np.eye(3)}


class Builder:
    """Collects the solids of one scene."""

    def __init__(self, rng: np.random.Generator) -> None:
        """:param rng: source of all choices."""
        self.rng = rng
        self.palette = Palette(rng)
        self._kinds: list[int] = []
        self._centers: list[Floats] = []
        self._rotations: list[Floats] = []
        self._halves: list[tuple[float, float, float]] = []
        self._tapers: list[float] = []
        self._materials: list[tuple[int, int, int]] = []
        self._claims: list[tuple[float, float, float]] = []

    def spot(self, x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw_rad: float = 0.0) -> Spot:
        """Return a local frame at a point of the world."""
        return Spot(self, np.array([x, y, z]), turned(yaw_rad))

    def claim(self, x: float, y: float, radius_m: float) -> bool:
        """Reserve a disc of the floor; False where it is taken."""
        for other_x, other_y, other in self._claims:
            if math.hypot(x - other_x, y - other_y) < radius_m + other:
                return False
        self._claims.append((x, y, radius_m))
        return True

    def add(
        self,
        kind: int,
        center: Floats,
        rotation: Floats,
        half: tuple[float, float, float],
        material: Faces,
        taper: float = 1.0,
    ) -> None:
        """Add a solid in world coordinates; see :class:`Solids`."""
        self._kinds.append(kind)
        self._centers.append(center)
        self._rotations.append(rotation)
        self._halves.append(
            (max(half[0], _THINNEST_M), max(half[1], _THINNEST_M), max(half[2], _THINNEST_M))
        )
        self._tapers.append(taper)
        self._materials.append(material if isinstance(material, tuple) else (material,) * 3)

    def solids(self) -> Solids:
        """Return everything added so far."""
        count = len(self._kinds)
        return Solids(
            np.array(self._kinds, np.uint8),
            np.array(self._centers, float).reshape(count, 3),
            np.array(self._rotations, float).reshape(count, 3, 3),
            np.array(self._halves, float).reshape(count, 3),
            np.array(self._tapers, float),
            np.array(self._materials, np.intp).reshape(count, 3),
        )


class Spot:
    """A local frame: objects stand at its origin, x to their right, y to their front, z up."""

    def __init__(self, builder: Builder, origin: Floats, rotation: Floats) -> None:
        """:param origin: (3,) world coordinates; :param rotation: (3, 3) local to world."""
        self._builder = builder
        self.origin = origin
        self._rotation = rotation

    @property
    def rng(self) -> np.random.Generator:
        """Return the scene's source of choices."""
        return self._builder.rng

    @property
    def rotation(self) -> Floats:
        """Return the rotation (3, 3) from this frame to the world."""
        return self._rotation

    def at(self, x: float, y: float, z: float = 0.0, yaw_rad: float = 0.0) -> Spot:
        """Return a frame at a point of this one."""
        origin = self.origin + self._rotation @ np.array([x, y, z])
        return Spot(self._builder, origin, self._rotation @ turned(yaw_rad))

    def leaned(self, roll_rad: float) -> Spot:
        """Return this frame tilted about its x axis."""
        return Spot(self._builder, self.origin, self._rotation @ tilted(roll_rad))

    def some(self, look: str, fresh: float = 0.3) -> int:
        """Return a material of the scene; see :meth:`Palette.some`."""
        return self._builder.palette.some(look, fresh)

    def new(self, look: str, glow: float = 0.0, value: float | None = None) -> int:
        """Return a new material; see :meth:`Palette.new`."""
        return self._builder.palette.new(look, glow, value)

    def uniform(self, low: float, high: float) -> float:
        """Draw a number."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Draw a decision."""
        return bool(self.rng.random() < probability)

    def box(
        self,
        x: float,
        y: float,
        z: float,
        size: tuple[float, float, float],
        material: Faces,
        yaw_rad: float = 0.0,
    ) -> None:
        """Add a box of full ``size`` whose foot is centred at x, y, z."""
        center = self.origin + self._rotation @ np.array([x, y, z + size[2] / 2])
        half = (size[0] / 2, size[1] / 2, size[2] / 2)
        self._builder.add(BOX, center, self._rotation @ turned(yaw_rad), half, material)

    def tube(
        self,
        x: float,
        y: float,
        z: float,
        radius: float,
        length: float,
        material: Faces,
        taper: float = 1.0,
        along: str = 'z',
    ) -> None:
        """Add a cylinder: upright with its foot at x, y, z, or lying with its middle there."""
        lift = length / 2 if along == 'z' else 0.0
        center = self.origin + self._rotation @ np.array([x, y, z + lift])
        half = (radius, radius, length / 2)
        rotation = self._rotation @ _AXES[along]
        self._builder.add(CYLINDER, center, rotation, half, material, taper)

    def ball(
        self, x: float, y: float, z: float, radii: tuple[float, float, float], material: Faces
    ) -> None:
        """Add an ellipsoid centred at x, y, z."""
        center = self.origin + self._rotation @ np.array([x, y, z])
        self._builder.add(ELLIPSOID, center, self._rotation, radii, material)
