"""What a scene is made of: boxes, tapered cylinders and ellipsoids inside a shell of planes.

World frame: x and y level, z up, metres.  Each solid is the image of a unit solid under
``center + rotation @ (half * unit)``: the cube [-1, 1]^3, the cylinder of radius 1 (at its foot;
``taper`` at its top) and z in [-1, 1], or the unit ball.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

BOX = 0
CYLINDER = 1
ELLIPSOID = 2

Floats = NDArray[np.float64]

FARTHEST_CLEARANCE_M = 2.0


@dataclass(frozen=True)
class Solids:
    """P solids as arrays."""

    kind: NDArray[np.uint8]
    """(P,) BOX, CYLINDER or ELLIPSOID."""
    center_m: Floats
    """(P, 3) world coordinates."""
    rotation: Floats
    """(P, 3, 3) columns are the solid's axes in the world."""
    half_m: Floats
    """(P, 3) half sizes along the solid's axes, positive."""
    taper: Floats
    """(P,) radius at the top over radius at the foot of a cylinder; 1 for all others."""
    material: NDArray[np.intp]
    """(P, 3) material of the faces across each axis; a cylinder's side is axis 0."""

    def to_unit(self) -> Floats:
        """Return (P, 3, 4) maps from the world into the unit solids; computed once."""
        return self._to_unit

    @cached_property
    def _to_unit(self) -> Floats:
        linear = np.swapaxes(self.rotation, 1, 2) / self.half_m[:, :, None]
        offset = -(linear @ self.center_m[:, :, None])
        return np.concatenate([linear, offset], axis=2)

    @cached_property
    def box_half_m(self) -> Floats:
        """(P, 3) half sizes of boxes around the solids; a tube that flares outgrows its foot."""
        wider = np.maximum(self.taper, 1.0)
        return np.asarray(self.half_m * np.stack([wider, wider, np.ones_like(wider)], 1), float)

    @cached_property
    def reach_m(self) -> Floats:
        """(P, 3) half sizes of the upright boxes around the solids."""
        return np.asarray((np.abs(self.rotation) @ self.half_m[:, :, None])[:, :, 0], float)

    def corners_m(self) -> Floats:
        """Return (P, 8, 3) world corners of the boxes around the solids; computed once."""
        return self._corners_m

    @cached_property
    def _corners_m(self) -> Floats:
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
        local = signs[None] * self.box_half_m[:, None, :]
        world = local @ np.swapaxes(self.rotation, 1, 2)
        return np.asarray(world + self.center_m[:, None, :], float)

    def only(self, keep: NDArray[np.bool_]) -> Solids:
        """Return the solids marked in ``keep`` (P,)."""
        return Solids(
            self.kind[keep],
            self.center_m[keep],
            self.rotation[keep],
            self.half_m[keep],
            self.taper[keep],
            self.material[keep],
        )


@dataclass(frozen=True)
class Shell:
    """Six planes seen from inside: a room; outdoors the ground alone, the rest at infinity."""

    low_m: Floats
    """(3,) lowest coordinates; -inf where open."""
    high_m: Floats
    """(3,) highest coordinates; +inf where open."""
    material: NDArray[np.intp]
    """(3, 2) material of the low and the high plane of each axis."""


def clearance_m(solids: Solids, shell: Shell, points_m: Floats) -> Floats:
    """Return how far points are from the nearest solid's box and from the shell, up to 2 m.

    :param points_m: (N, 3) world coordinates.
    :returns: (N,) metres, at most 2; negative inside a solid's box (or outside the shell).
    """
    points = np.asarray(points_m, float)
    inside = np.minimum((points - shell.low_m).min(axis=1), (shell.high_m - points).min(axis=1))
    inside = np.minimum(inside, FARTHEST_CLEARANCE_M)
    near = solids.only(_near(solids, points.min(axis=0), points.max(axis=0)))
    if not len(near.kind):
        return np.asarray(inside, float)
    local = np.einsum('npk,pkj->npj', points[:, None] - near.center_m, near.rotation)
    gap = np.abs(local) - near.half_m
    outside = np.linalg.norm(np.maximum(gap, 0.0), axis=2)
    signed = outside + np.minimum(gap.max(axis=2), 0.0)
    return np.asarray(np.minimum(signed.min(axis=1), inside), float)


def _near(solids: Solids, low_m: Floats, high_m: Floats) -> NDArray[np.bool_]:
    """Mark the solids that may come within the farthest clearance of an upright box."""
    reach = solids.reach_m + FARTHEST_CLEARANCE_M
    beside = (solids.center_m - reach > high_m) | (solids.center_m + reach < low_m)
    return np.asarray(~beside.any(axis=1), bool)
