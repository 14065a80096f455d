"""Casting the rays of many views at once.

Images are cut into tiles of 16 x 16 rays, and every tile has a list of the solids whose rectangle
in the image meets it.  Step k of the loop over a kind intersects, in all tiles whose list is
longer than k, the tile with the k-th solid of its own list: tiles lie sorted by the length of
their lists, so that those are a prefix, and hardly any work is spent on padding.  The host waits
for the device twice per kind (the pairs, the lengths), never per solid.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from depth_node.pretraining.rendering.packing import NOTHING
from depth_node.pretraining.rendering.packing import PackedScenes
from depth_node.world.solids import BOX
from depth_node.world.solids import CYLINDER
from depth_node.world.solids import ELLIPSOID

Vector = tuple[Tensor, Tensor, Tensor]

_NEAR_M = 1e-3
_TILE = 16
_TILES_AT_ONCE = 4096
_MOST_STEPS = 16
_MARGIN = 1e-5
_SIGNS = [(x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
_EDGES = [(i, i + step) for step in (1, 2, 4) for i in range(8) if not i & step]


@dataclass(frozen=True)
class Solids:
    """The solids of each view's scene as that view sees them; P rows per view, padding included.

    A ray (x, y, 1) runs, in coordinates of the unit solid, along ``linear @ (x, y, 1)`` from
    ``origin``.
    """

    kind: Tensor
    """(B, P) uint8."""
    linear: Tensor
    """(B, P, 3, 3) float64."""
    origin: Tensor
    """(B, P, 3) float64."""
    taper: Tensor
    """(B, P) float64."""
    nearest_m: Tensor
    """(B, P) float64 least depth of the solid's own box."""
    low: Tensor
    """(B, P, 2) float64 least slopes x/z and y/z that may meet it; +inf where none does."""
    high: Tensor
    """(B, P, 2) float64 largest ones."""


def seen_solids(
    scenes: PackedScenes, scene: Tensor, pose: Tensor, keep: Tensor | None = None
) -> Solids:
    """Return the solids as seen by each view.

    :param scene: (B,) number of each view's scene.
    :param pose: (B, 4, 4) float64; takes depth * (x, y, 1) into the world, sheared or not.
    :param keep: (S, P) bool, solids that count; all where None.
    """
    kind = scenes.kind if keep is None else scenes.kind.masked_fill(~keep, NOTHING)
    kind = kind[scene]
    rotation, half, center = scenes.rotation[scene], scenes.half_m[scene], scenes.center_m[scene]
    to_unit = rotation.transpose(2, 3) / half[..., None]  # (B, P, 3, 3)
    offset = -(to_unit @ center[..., None])[..., 0]
    turn, eye = pose[:, None, :3, :3], pose[:, None, :3, 3]
    origin = (to_unit @ eye[..., None])[..., 0] + offset
    signs = torch.tensor(_SIGNS, dtype=torch.float64, device=pose.device)
    # a tube that flares outgrows the box of its foot
    wider = scenes.taper[scene].clamp_min(1.0)
    box = half * torch.stack((wider, wider, torch.ones_like(wider)), dim=2)
    local = signs * box[:, :, None]
    corners = local @ rotation.transpose(2, 3) + (center - eye)[:, :, None]
    inverse = torch.linalg.inv_ex(turn)[0]
    nearest, low, high = _extent(corners @ inverse.transpose(2, 3))
    return Solids(kind, to_unit @ turn, origin, scenes.taper[scene], nearest, low, high)


def _extent(corners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return least depth, least and largest slopes of boxes with corners (B, P, 8, 3)."""
    z = corners[..., 2]
    front = z > _NEAR_M
    edges = torch.tensor(_EDGES, device=corners.device)
    a, b = corners[:, :, edges[:, 0]], corners[:, :, edges[:, 1]]
    crosses = front[:, :, edges[:, 0]] != front[:, :, edges[:, 1]]
    rise = torch.where(crosses, b[..., 2] - a[..., 2], 1.0)
    share = (_NEAR_M - a[..., 2]) / rise
    cuts = (a + share[..., None] * (b - a))[..., :2] / _NEAR_M
    whole = corners[..., :2] / torch.where(front, z, 1.0)[..., None]
    slopes = torch.cat((whole, cuts), dim=2)
    valid = torch.cat((front, crosses), dim=2)[..., None]
    low = torch.where(valid, slopes, torch.inf).amin(dim=2)
    high = torch.where(valid, slopes, -torch.inf).amax(dim=2)
    return z.amin(dim=2), low, high


def cast(solids: Solids, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Find the nearest solid of every ray.

    :param x: (B, W) slopes of the columns; :param y: (B, H) slopes of the rows.
    :returns: (B, H, W) float32 depth, +inf where nothing is met, and the (B, H, W) int64 number of
        the solid, P where nothing is met.
    """
    tiles = _Tiles(x, y)
    batch, count = solids.kind.shape
    depth = torch.full(tiles.shape, torch.inf, device=x.device)
    number = torch.full(tiles.shape, count, dtype=torch.int32, device=x.device)
    order = solids.nearest_m.argsort(dim=1, stable=True)  # of coplanar faces the first one wins
    meets = tiles.meets(_taken(solids.low, order), _taken(solids.high, order))  # (N, P)
    kinds = solids.kind.gather(1, order)
    for kind, rows, meet in (
        (BOX, _box_rows(solids), _box),
        (CYLINDER, _round_rows(solids), _cylinder),
        (ELLIPSOID, _round_rows(solids), _ellipsoid),
    ):
        listed = meets & (kinds == kind).repeat_interleave(tiles.per_view, dim=0)
        tile, place = listed.nonzero(as_tuple=True)
        numbers = order[tile // tiles.per_view, place]
        row = rows.view(batch * count, -1)
        lists = _Lists(numbers, numbers + count * (tile // tiles.per_view), listed.sum(dim=1))
        _cast_kind(lists, row, meet, tiles, depth, number)
    return tiles.whole(depth), tiles.whole(number).long()


def _taken(values: Tensor, order: Tensor) -> Tensor:
    return values.gather(1, order[..., None].expand(-1, -1, values.shape[2]))


@dataclass(frozen=True)
class _Lists:
    """The solids of one kind that each of N tiles may show, one tile after the other."""

    number: Tensor
    """(pairs,) in the scene."""
    row: Tensor
    """(pairs,) in the table of all views."""
    length: Tensor
    """(N,) of each tile's list."""


class _Tiles:
    """The image grids of B views cut into N = B * per_view tiles."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self._batch, self._width, self._height = x.shape[0], x.shape[1], y.shape[1]
        across, down = -(-self._width // _TILE), -(-self._height // _TILE)
        self._grid = (down, across)
        self.per_view = down * across
        self.shape = (self._batch * self.per_view, _TILE, _TILE)
        # (B, tiles along the axis, 16); the last ray is repeated
        self._columns = _filled(x, across)
        self._rows = _filled(y, down)

    def x(self) -> Tensor:
        """Return (N, 1, 16) slopes of the tiles' columns."""
        whole = self._columns[:, None].expand(-1, self._grid[0], -1, -1)
        return whole.reshape(-1, 1, _TILE)

    def y(self) -> Tensor:
        """Return (N, 16, 1) slopes of the tiles' rows."""
        whole = self._rows[:, :, None].expand(-1, -1, self._grid[1], -1)
        return whole.reshape(-1, _TILE, 1)

    def meets(self, low: Tensor, high: Tensor) -> Tensor:
        """Return (N, P) bool, which tiles the slope rectangles (B, P, 2) meet."""
        masks = []
        for axis, slopes in ((0, self._columns), (1, self._rows)):
            least = slopes.amin(dim=2)[:, :, None] - _MARGIN
            most = slopes.amax(dim=2)[:, :, None] + _MARGIN
            masks.append((most >= low[:, None, :, axis]) & (least <= high[:, None, :, axis]))
        both = masks[1][:, :, None] & masks[0][:, None]  # (B, down, across, P)
        return both.flatten(0, 2)

    def whole(self, values: Tensor) -> Tensor:
        """Return (N, 16, 16) values of the tiles as (B, H, W)."""
        down, across = self._grid
        grid = values.view(self._batch, down, across, _TILE, _TILE).transpose(2, 3)
        full = grid.reshape(self._batch, down * _TILE, across * _TILE)
        return full[:, : self._height, : self._width]


def _filled(slopes: Tensor, tiles: int) -> Tensor:
    missing = tiles * _TILE - slopes.shape[1]
    if missing:
        slopes = torch.cat((slopes, slopes[:, -1:].expand(-1, missing)), dim=1)
    return slopes.reshape(slopes.shape[0], tiles, _TILE)


Meet = Callable[[Tensor, Tensor, Tensor], Tensor]


def _cast_kind(
    lists: _Lists, rows: Tensor, meet: Meet, tiles: _Tiles, depth: Tensor, number: Tensor
) -> None:
    """Replace (N, 16, 16) ``depth`` and ``number`` in place where solids of a kind are nearer."""
    prefixes = _prefixes(lists.length)
    if not prefixes:
        return
    order = lists.length.argsort(descending=True, stable=True)[: prefixes[0]]
    start = (lists.length.cumsum(0) - lists.length)[order]
    end = start + lists.length[order]
    x, y = tiles.x()[order, None], tiles.y()[order, None]
    best, winner = depth[order], number[order]
    for step, together, count in _schedule(prefixes):
        pair = start[:count, None] + torch.arange(step, step + together, device=start.device)
        listed = (pair < end[:count, None])[..., None, None]
        pair = pair.clamp_max(len(lists.row) - 1)
        solid = rows[lists.row[pair]].movedim(2, 0)[..., None, None]  # (columns, n, k, 1, 1)
        hit = meet(solid, x[:count], y[:count])  # (n, k, 16, 16)
        hit, which = torch.where(listed & (hit > _NEAR_M), hit, torch.inf).min(dim=1)
        named = lists.number[pair].gather(1, which.flatten(1)).view_as(which).to(torch.int32)
        nearer = hit < best[:count]
        best[:count].copy_(torch.where(nearer, hit, best[:count]))
        winner[:count].copy_(torch.where(nearer, named, winner[:count]))
    depth[order] = best
    number[order] = winner


def _schedule(prefixes: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield first step, number of steps taken together, and tiles.

    Where few tiles are left, steps cost the time of their launch: many are taken at once.
    """
    step = 0
    while step < len(prefixes):
        together = min(max(1, _TILES_AT_ONCE // prefixes[step]), _MOST_STEPS, len(prefixes) - step)
        yield step, together, prefixes[step]
        step += together


def _prefixes(lengths: Tensor) -> list[int]:
    """Return, for every step, how many lists are longer than it; the host waits here."""
    of_length = torch.bincount(lengths).cpu()
    return (of_length.sum() - of_length.cumsum(0))[:-1].tolist()


def _box_rows(solids: Solids) -> Tensor:
    """Return (B, P, 15): linear map, way to the low and to the high faces; float32."""
    ways = torch.cat((-1.0 - solids.origin, 1.0 - solids.origin), dim=2)
    return torch.cat((solids.linear.flatten(2), ways), dim=2).float()


def _round_rows(solids: Solids) -> Tensor:
    """Return (B, P, 13): linear map, origin, taper; float64."""
    linear = solids.linear.float().double().flatten(2)
    return torch.cat((linear, solids.origin, solids.taper[..., None]), dim=2)


def _along(row: Tensor, axis: int, x: Tensor, y: Tensor) -> Tensor:
    return (x * row[3 * axis] + row[3 * axis + 2]) + y * row[3 * axis + 1]


def _box(row: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the depth at which rays enter the cube [-1, 1]^3; +inf where they miss it."""
    ends = []
    for axis in range(3):
        inverse = 1.0 / _along(row, axis, x, y)
        first, second = inverse * row[9 + axis], inverse * row[12 + axis]
        ends.append((torch.minimum(first, second), torch.maximum(first, second)))
    enter = torch.maximum(torch.maximum(ends[0][0], ends[1][0]), ends[2][0])
    leave = torch.minimum(torch.minimum(ends[0][1], ends[1][1]), ends[2][1])
    return torch.where(enter <= leave, enter, torch.inf)


def _cylinder(row: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the depth at which rays meet the tapered unit cylinder; +inf where they miss it.

    Double precision: the discriminant of a thin far pole is a small difference of large terms.
    """
    x, y = x.double(), y.double()
    dx, dy, dz = (_along(row, axis, x, y) for axis in range(3))
    ox, oy, oz, taper = (row[9 + k] for k in range(4))
    slope = 0.5 * (taper - 1.0)
    radius = 0.5 * (taper + 1.0) + slope * oz
    dr = slope * dz
    a = dx * dx + dy * dy - dr * dr
    b = ox * dx + oy * dy - radius * dr
    root = torch.sqrt(b * b - a * (ox * ox + oy * oy - radius * radius))
    best = torch.full_like(a, torch.inf)
    for t in ((-b - root) / a, (-b + root) / a):
        valid = ((oz + t * dz).abs() <= 1.0) & (t > _NEAR_M) & (t < best)
        best = torch.where(valid, t, best)
    for cap, limit in ((-1.0, torch.ones_like(taper)), (1.0, taper)):
        t = (cap - oz) / dz
        across = (ox + t * dx) ** 2 + (oy + t * dy) ** 2
        valid = (across <= limit * limit) & (t > _NEAR_M) & (t < best)
        best = torch.where(valid, t, best)
    return best.float()


def _ellipsoid(row: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the depth at which rays enter the unit ball; +inf where they miss it."""
    x, y = x.double(), y.double()
    dx, dy, dz = (_along(row, axis, x, y) for axis in range(3))
    ox, oy, oz = (row[9 + k] for k in range(3))
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - 1.0
    hit = (-b - torch.sqrt(b * b - a * c)) / a
    return torch.where(hit > _NEAR_M, hit, torch.inf).float()


def shell_depth(
    low_m: Tensor, high_m: Tensor, pose: Tensor, ways: Vector
) -> tuple[Tensor, Tensor]:
    """Return depth (B, H, W) and axis (int64) of the plane of the shell that each ray meets.

    :param low_m: (B, 3) float64; :param high_m: (B, 3) float64; infinite where open.
    :param ways: world directions of the rays.
    """
    depth = torch.full_like(ways[0], torch.inf)
    axis = torch.zeros_like(ways[0], dtype=torch.long)
    for k in range(3):
        inverse = 1.0 / ways[k]
        ends = []
        for plane in (low_m[:, k], high_m[:, k]):
            distance = (plane - pose[:, k, 3]).float()[:, None, None]
            ends.append(torch.where(distance.isfinite(), distance * inverse, -torch.inf))
        far = torch.maximum(ends[0], ends[1])
        far = torch.where(far > 0, far, torch.inf)
        nearer = far < depth
        depth = torch.where(nearer, far, depth)
        axis = torch.where(nearer, k, axis)
    return depth, axis


def directions(pose: Tensor, x: Tensor, y: Tensor) -> Vector:
    """Return the world directions of rays of depth 1, three of (B, H, W)."""
    turn = pose[:, :3, :3].float()
    columns, rows = x[:, None, :], y[:, :, None]
    ways = []
    for k in range(3):
        a, b, c = (turn[:, k, j, None, None] for j in range(3))
        ways.append((columns * a + c) + rows * b)
    return ways[0], ways[1], ways[2]
