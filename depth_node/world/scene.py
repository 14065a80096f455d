"""A scene: solids in a shell, what they look like, and the light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.world.materials import Materials
from depth_node.world.solids import Floats
from depth_node.world.solids import Shell
from depth_node.world.solids import Solids
from depth_node.world.tracing import Rays
from depth_node.world.tracing import trace

SHADOW_PX = 288
COVER_PX = 144
COVER_STEEPNESS_PER_M = 6.0
COVER_FROM_M = 80.0
COVER_TOP_M = 5.0
_OVERHEAD_M = 1.3

Array = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """A square picture taken from a light: where it stands, its opening and its values."""

    T_world_view: Floats
    """(4, 4) optical frame of the light in the world."""
    tangent: float
    """Largest slope of the picture."""
    look: Callable[[], Array]
    """Makes the values; it can be pickled."""
    size_px: int
    """S: rows and columns of the values."""

    @cached_property
    def values(self) -> Array:
        """Return (S, S) depth along z from the light, or another quantity per direction.

        Made when they are first read: where a GPU renders, nobody reads them.
        """
        return self.look()


@dataclass(frozen=True)
class Light:
    """The key light, with what it casts shadows of."""

    position_m: Floats
    """(3,) world coordinates; far away for the sun."""
    color: Array
    """(3,) irradiance at ``reach_m``."""
    reach_m: float
    """Distance at which a lamp has its nominal strength; 0 for the sun, which has no falloff."""
    shadow: View
    """Depth of the solids from the light."""
    openings_m: Floats
    """(n, 2, 3) low and high corners of flat windows through which alone the sun shines; n = 0
    where nothing stops it."""
    pattern: Array | None = None
    """(S, S) share of the light that passes per direction, of the size of ``shadow``: blinds,
    twigs, a window; None where everything passes."""


@dataclass(frozen=True)
class Lamp:
    """A further light that casts no shadows."""

    position_m: Array
    """(3,) world coordinates."""
    color: Array
    """(3,) twice the irradiance at ``reach_m``."""
    reach_m: float
    """Distance at which it has lost half of the light that it gives next to it."""


@dataclass(frozen=True)
class Surroundings:
    """All light but the key light."""

    ambient: Array
    """(3,) light from everywhere."""
    fill: Array
    """(3,) color of a second light without shadows."""
    fill_direction: Array
    """(3,) unit vector towards it, world."""
    headlight: float
    """Strength of a lamp at the camera itself."""
    horizon: Array
    """(3,) color of the low sky."""
    zenith: Array
    """(3,) color of the high sky."""
    clouds: float
    """Contrast of the clouds."""
    haze: Array
    """(3,) color that distance fades into."""
    haze_m: float
    """Distance after which 63 % of the light is haze."""
    mirror: float = 0.0
    """Strength of an invented environment in shiny surfaces; 0 leaves only the key light's."""
    mirror_texture: int = 0
    """Number of the texture that the invented environment shows."""


@dataclass(frozen=True)
class Scene:
    """Everything that rendering needs, and what cameras and paths must respect."""

    kind: str
    """'room', 'corridor', ..."""
    solids: Solids
    shell: Shell
    materials: Materials
    light: Light
    surroundings: Surroundings
    cover: View
    """exp(COVER_STEEPNESS_PER_M * height) of the solids seen from above, blurred."""
    center_m: Floats
    """(3,) the middle of what is worth looking at."""
    walk_low_m: Floats
    """(2,) least x and y where a camera may be."""
    walk_high_m: Floats
    """(2,) largest x and y where a camera may be."""
    lamps: tuple[Lamp, ...] = ()
    """Further lights."""


def look_at(position_m: Floats, target_m: Floats, roll_rad: float = 0.0) -> Floats:
    """Return the pose (4, 4) of an optical frame at ``position_m`` that looks at ``target_m``.

    :param roll_rad: clockwise turn of the camera about its own axis.
    """
    z = np.asarray(target_m, float) - position_m
    z /= np.linalg.norm(z)
    up = np.array([0.0, 0.0, 1.0]) if abs(z[2]) < 0.999 else np.array([0.0, 1.0, 0.0])
    x = np.cross(z, up)
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    cosine, sine = np.cos(roll_rad), np.sin(roll_rad)
    pose = np.eye(4)
    pose[:3, 0] = cosine * x + sine * y
    pose[:3, 1] = cosine * y - sine * x
    pose[:3, 2] = z
    pose[:3, 3] = position_m
    return pose


def _square_rays(tangent: float, size: int) -> Rays:
    axis = (np.arange(size) + 0.5) * (2 * tangent / size) - tangent
    x, y = np.meshgrid(axis, axis)
    return Rays(np.stack([x, y], axis=2))


_OPEN = np.full(3, np.inf)


def shadow_view(solids: Solids, position_m: Floats, target_m: Floats, radius_m: float) -> View:
    """Return the depth of the solids seen from a light that covers a ball around its target.

    A light inside the ball sees a cone of 143 degrees; what lies outside has no shadow.
    """
    pose = look_at(position_m, target_m)
    tangent = min(radius_m / float(np.linalg.norm(target_m - position_m)), 3.0)
    return View(pose, tangent, partial(_depth_from, solids, pose, tangent, SHADOW_PX), SHADOW_PX)


def _depth_from(solids: Solids, pose: Floats, tangent: float, size: int) -> Array:
    """Return the depth (size, size) of solids alone, as seen by a square picture."""
    open_shell = Shell(-_OPEN, _OPEN, np.zeros((3, 2), np.intp))
    return trace(solids, open_shell, pose, _square_rays(tangent, size)).depth_m


def cover_view(solids: Solids, center_m: Floats, radius_m: float) -> View:
    """Return how high things stand, as seen from above, in a form that may be interpolated.

    What hangs overhead (lamps, beams, tree tops) does not count.
    """
    above = np.array([center_m[0], center_m[1], COVER_FROM_M])
    pose = look_at(above, above - np.array([0.0, 0.0, 1.0]))
    tangent = radius_m / COVER_FROM_M
    return View(pose, tangent, partial(_cover, solids, pose, tangent), COVER_PX)


def _cover(solids: Solids, pose: Floats, tangent: float) -> Array:
    depth = _depth_from(solids.only(stands(solids)), pose, tangent, COVER_PX)
    height = np.clip(COVER_FROM_M - depth, 0.0, COVER_TOP_M)
    grown = np.exp(np.float32(COVER_STEEPNESS_PER_M) * height)
    return np.asarray(cv2.GaussianBlur(grown, (0, 0), cover_blur_px(tangent)), np.float32)


def stands(solids: Solids) -> NDArray[np.bool_]:
    """Mark (P,) what begins low enough to dim the light beside it."""
    return np.asarray(solids.corners_m()[..., 2].min(axis=1) < _OVERHEAD_M, bool)


def cover_blur_px(tangent: float) -> float:
    """Return the standard deviation of the blur of a cover view, pixels."""
    return max(0.12 / (2 * tangent * COVER_FROM_M / COVER_PX), 0.8)


def sharpened(scene: Scene, size_px: int) -> Scene:
    """Return the scene with shadows of a finer resolution; worth it for many or large views."""
    view = scene.light.shadow
    look = partial(_depth_from, scene.solids, view.T_world_view, view.tangent, size_px)
    return replace(
        scene, light=replace(scene.light, shadow=replace(view, look=look, size_px=size_px))
    )
