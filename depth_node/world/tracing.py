"""Casting rays into solids: each solid is met only inside its own rectangle of the image.

Rays start at the camera and are given as slopes x/z and y/z, so that the ray parameter of a hit
is its depth along z, for any lens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.world.solids import BOX
from depth_node.world.solids import CYLINDER
from depth_node.world.solids import Floats
from depth_node.world.solids import Shell
from depth_node.world.solids import Solids

_NEAR_M = 1e-3
_EDGES = np.array(
    [
        (0, 1),
        (2, 3),
        (4, 5),
        (6, 7),
        (0, 2),
        (1, 3),
        (4, 6),
        (5, 7),
        (0, 4),
        (1, 5),
        (2, 6),
        (3, 7),
    ]
)

Array = NDArray[np.float32]
Rectangle = tuple[slice, slice]


@dataclass(frozen=True)
class Hits:
    """What each ray meets first."""

    depth_m: Array
    """(H, W) along z; +inf where nothing is met."""
    index: NDArray[np.intp]
    """(H, W) number of the solid; P for the shell and for nothing."""
    shell_axis: NDArray[np.intp]
    """(H, W) axis of the shell plane behind everything."""


class Rays:
    """Slopes of an image's pixels, kept as one row and one column where the lens allows it."""

    def __init__(self, slopes: NDArray[np.floating]) -> None:
        """:param slopes: (H, W, 2) x/z and y/z of every pixel centre."""
        self.height = int(slopes.shape[0])
        self.width = int(slopes.shape[1])
        x, y = slopes[..., 0], slopes[..., 1]
        self._separable = bool((x == x[:1]).all() and (y == y[:, :1]).all())
        if self._separable:
            x, y = x[:1], y[:, :1]
        self.x: Array = np.ascontiguousarray(x, np.float32)
        self.y: Array = np.ascontiguousarray(y, np.float32)
        margin = np.float32(1e-5)
        self._columns = (self.x.min(axis=0) - margin, self.x.max(axis=0) + margin)
        self._rows = (self.y.min(axis=1) - margin, self.y.max(axis=1) + margin)

    def along(self, row: Floats | Array, where: Rectangle, dtype: type = np.float32) -> Array:
        """Return ``row @ (x, y, 1)`` of the rays in a rectangle, (h, w)."""
        rows, columns = where
        if self._separable:
            x, y = self.x[:, columns], self.y[rows]
        else:
            x, y = self.x[where], self.y[where]
        if dtype is not np.float32:
            x, y = x.astype(dtype), y.astype(dtype)
        a, b, c = (dtype(value) for value in row)
        return np.asarray((x * a + c) + y * b)

    def spans(self, low: Floats, high: Floats) -> NDArray[np.intp]:
        """Return the pixel rectangles that cover slope rectangles.

        :param low: (P, 2) smallest x and y slope.
        :param high: (P, 2) largest x and y slope.
        :returns: (P, 4) top, bottom, left, right; bottom and right are one past the last;
            empty rectangles have top >= bottom or left >= right.
        """
        result = np.zeros((len(low), 4), np.intp)
        for k, (lows, highs) in ((0, self._columns), (1, self._rows)):
            meets = (highs >= low[:, k, None]) & (lows <= high[:, k, None])
            some = meets.any(axis=1)
            result[:, 2 - 2 * k] = meets.argmax(axis=1)
            result[:, 3 - 2 * k] = np.where(
                some, meets.shape[1] - meets[:, ::-1].argmax(axis=1), 0
            )
        return result


def trace(solids: Solids, shell: Shell, T_world_camera: Floats, rays: Rays) -> Hits:  # noqa: N803
    """Find what every ray meets first.

    :param solids: nothing may contain the camera.
    :param T_world_camera: (4, 4) pose of the optical frame in the world.
    :param rays: pixels to look through.
    """
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        depth, axis = _shell_depth(shell, T_world_camera, rays)
        index = np.full(depth.shape, len(solids.kind), np.intp)
        if len(solids.kind):
            _solids_depth(solids, T_world_camera, rays, depth, index)
    return Hits(depth, index, axis)


def _shell_depth(
    shell: Shell,
    T: Floats,  # noqa: N803
    rays: Rays,
) -> tuple[Array, NDArray[np.intp]]:
    everything = (slice(None), slice(None))
    depth = np.full((rays.height, rays.width), np.inf, np.float32)
    axis = np.zeros(depth.shape, np.intp)
    for k in range(3):
        low, high = shell.low_m[k] - T[k, 3], shell.high_m[k] - T[k, 3]
        if not (np.isfinite(low) or np.isfinite(high)):
            continue
        inverse = 1.0 / rays.along(T[k, :3], everything)
        far = np.maximum(_times(low, inverse), _times(high, inverse))
        far[far <= 0] = np.inf
        nearer = far < depth
        np.copyto(depth, far, where=nearer)
        axis[nearer] = k
    return depth, axis


def _times(distance: float, inverse: Array) -> Array:
    """Return the ray parameters of a plane; none (-inf) for one at infinity."""
    if not np.isfinite(distance):
        return np.full(inverse.shape, -np.inf, np.float32)
    return np.float32(distance) * inverse


def _solids_depth(
    solids: Solids,
    T: Floats,  # noqa: N803
    rays: Rays,
    depth: Array,
    index: NDArray[np.intp],
) -> None:
    nearest, spans = _visible(solids, T, rays)
    to_unit = solids.to_unit()
    linear = to_unit[:, :, :3] @ T[:3, :3]
    origin = to_unit[:, :, :3] @ T[:3, 3] + to_unit[:, :, 3]
    order = np.argsort(nearest)
    seen = (spans[order, 0] < spans[order, 1]) & (spans[order, 2] < spans[order, 3])
    for i in order[seen].tolist():
        top, bottom, left, right = spans[i].tolist()
        where = (slice(top, bottom), slice(left, right))
        best = depth[where]
        if nearest[i] > _NEAR_M and best.max() < nearest[i]:
            continue
        kind = solids.kind[i]
        if kind == BOX:
            hit = _box(origin[i], linear[i], rays, where)
        elif kind == CYLINDER:
            hit = _cylinder(origin[i], linear[i], float(solids.taper[i]), rays, where)
        else:
            hit = _ellipsoid(origin[i], linear[i], rays, where)
        nearer = (hit < best) & (hit > _NEAR_M)
        np.copyto(best, hit, where=nearer, casting='same_kind')
        np.copyto(index[where], i, where=nearer)


def _in_front(
    solids: Solids,
    T: Floats,  # noqa: N803
    rays: Rays,
) -> NDArray[np.bool_]:
    """Mark the solids (P,) whose balls may reach into the image: most of a scene does not."""
    x, y, z = ((solids.center_m - T[:3, 3]) @ T[:3, :3]).T
    radius = np.sqrt((solids.box_half_m**2).sum(axis=1)) + _NEAR_M
    marked = z > -radius
    for side, slopes in ((x, rays.x), (y, rays.y)):
        for least, sign in ((float(slopes.max()), 1.0), (-float(slopes.min()), -1.0)):
            # beyond the plane through the camera and the image's border
            beyond = (sign * side - least * z) / np.sqrt(1 + least * least)
            marked &= beyond < radius + 1e-4 * np.abs(z)
    return np.asarray(marked, bool)


def _visible(
    solids: Solids,
    T: Floats,  # noqa: N803
    rays: Rays,
) -> tuple[Floats, NDArray[np.intp]]:
    """Return the least depth (P,) of each solid's box and its rectangle (P, 4) in the image."""
    everywhere = (solids.corners_m() - T[:3, 3]) @ T[:3, :3]
    nearest = everywhere[..., 2].min(axis=1)
    which = np.flatnonzero(_in_front(solids, T, rays))
    corners = everywhere[which]
    z = corners[..., 2]
    front = z > _NEAR_M
    a, b = corners[:, _EDGES[:, 0]], corners[:, _EDGES[:, 1]]
    crosses = front[:, _EDGES[:, 0]] != front[:, _EDGES[:, 1]]
    share = (_NEAR_M - a[..., 2]) / np.where(crosses, b[..., 2] - a[..., 2], 1.0)
    cuts = a + share[..., None] * (b - a)
    cuts[..., 2] = _NEAR_M
    points = np.concatenate([corners, cuts], axis=1)
    valid = np.concatenate([front, crosses], axis=1)[..., None]
    slopes = points[..., :2] / np.where(valid, points[..., 2:], 1.0)
    low = np.where(valid, slopes, np.inf).min(axis=1)
    high = np.where(valid, slopes, -np.inf).max(axis=1)
    spans = np.zeros((len(nearest), 4), np.intp)
    spans[which] = rays.spans(low, high)
    return nearest, spans


def _box(origin: Floats, linear: Floats, rays: Rays, where: Rectangle) -> Array:
    """Return the depth at which rays enter the cube [-1, 1]^3; +inf where they miss it."""
    enter: Array | None = None
    leave: Array | None = None
    for k in range(3):
        inverse = 1.0 / rays.along(linear[k], where)
        first = inverse * np.float32(-1.0 - origin[k])
        second = inverse * np.float32(1.0 - origin[k])
        low, high = np.minimum(first, second), np.maximum(first, second)
        enter = low if enter is None else np.maximum(enter, low, out=enter)
        leave = high if leave is None else np.minimum(leave, high, out=leave)
    if enter is None or leave is None:
        raise ValueError('a box has three axes')
    enter[~(enter <= leave)] = np.inf
    return enter


def _cylinder(origin: Floats, linear: Floats, taper: float, rays: Rays, where: Rectangle) -> Array:
    """Return the depth at which rays meet the tapered unit cylinder; +inf where they miss it.

    Double precision: the discriminant of a thin far pole is a small difference of large terms.
    """
    x, y, z = (rays.along(linear[k], where, np.float64) for k in range(3))
    ox, oy, oz = origin
    slope = 0.5 * (taper - 1.0)
    radius = 0.5 * (taper + 1.0) + slope * oz
    dr = slope * z
    a = x * x + y * y - dr * dr
    b = ox * x + oy * y - radius * dr
    root = np.sqrt(b * b - a * (ox * ox + oy * oy - radius * radius))
    best = np.full(a.shape, np.inf)
    for t in ((-b - root) / a, (-b + root) / a):
        valid = (np.abs(oz + t * z) <= 1.0) & (t > _NEAR_M)
        np.copyto(best, t, where=valid & (t < best))
    for cap, limit in ((-1.0, 1.0), (1.0, taper)):
        t = (cap - oz) / z
        valid = ((ox + t * x) ** 2 + (oy + t * y) ** 2 <= limit * limit) & (t > _NEAR_M)
        np.copyto(best, t, where=valid & (t < best))
    return best.astype(np.float32)


def _ellipsoid(origin: Floats, linear: Floats, rays: Rays, where: Rectangle) -> Array:
    """Return the depth at which rays enter the unit ball; +inf where they miss it."""
    x, y, z = (rays.along(linear[k], where, np.float64) for k in range(3))
    a = x * x + y * y + z * z
    b = origin[0] * x + origin[1] * y + origin[2] * z
    hit = (-b - np.sqrt(b * b - a * (origin @ origin - 1.0))) / a
    return np.where(hit > _NEAR_M, hit, np.inf).astype(np.float32)
