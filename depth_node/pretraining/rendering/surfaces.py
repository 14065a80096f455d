"""What is known of the visible surface at each pixel, from what its ray met."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depth_node.pretraining.rendering.casting import Solids
from depth_node.pretraining.rendering.casting import Vector
from depth_node.pretraining.rendering.packing import PackedShots
from depth_node.world.solids import BOX
from depth_node.world.solids import CYLINDER

_CAP = 0.9999


@dataclass(frozen=True)
class Surface:
    """The visible surface; tensors are (B, H, W), vectors three of them in the world."""

    material: Tensor
    """Row in the table of materials of all views, int64."""
    position: Vector
    """Metres."""
    normal: Vector
    """Unit vector out of the surface."""
    u_m: Tensor
    """Coordinate along the surface for textures, metres."""
    v_m: Tensor
    """The other one, upwards on walls."""
    facing: Tensor
    """Cosine between the normal and the way to the camera."""
    ray_length: Tensor
    """Length of the ray of depth 1."""
    toward: Vector
    """Unit vector to the camera."""
    shell_axis: Tensor
    """Axis of the shell plane, -1 on solids."""


@dataclass(frozen=True)
class Met:
    """What each ray meets first; tensors are (B, H, W)."""

    depth_m: Tensor
    """Along z; finite everywhere, anything where the sky is."""
    number: Tensor
    """int64 number of the solid; P for the shell and for nothing."""
    shell_axis: Tensor
    """int64 axis of the shell plane behind everything."""


@dataclass(frozen=True)
class _Solid:
    """The solid that each pixel shows, or a box of half size 1 around the world's origin."""

    local: Vector
    turn: Tensor
    """(B, H, W, 9) rotation, rows first."""
    half: Vector
    taper: Tensor
    kind: Tensor


def dot(a: Vector, b: Vector) -> Tensor:
    """Return the inner product of vectors of tensors."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def surface_of(shots: PackedShots, solids: Solids, ways: Vector, met: Met) -> Surface:
    """Return the visible surface.

    :param solids: as the views see them.
    :param ways: world directions of the rays of depth 1.
    """
    count = solids.kind.shape[1]
    on_shell = met.number == count
    solid = _shown(shots, solids, met)
    local, turn = solid.local, solid.turn
    axis = torch.where(on_shell, met.shell_axis, _farthest_axis(local))
    side = torch.where(on_shell, -_picked(axis, ways), _picked(axis, local)).sign()
    x, y, z = (
        _picked(axis, (turn[..., 3 * k], turn[..., 3 * k + 1], turn[..., 3 * k + 2])) * side
        for k in range(3)
    )
    u = torch.where(axis == 0, local[1] * solid.half[1], local[0] * solid.half[0])
    v = torch.where(axis == 2, local[1] * solid.half[1], local[2] * solid.half[2])
    slot = 3 * met.number + torch.where(on_shell, 2 * axis + (side < 0).long(), axis)
    normal, u, slot = _round_ones(solid, met.number, (x, y, z), u, slot)
    length = torch.sqrt(dot(ways, ways))
    # Equal things next to each other would show the same piece of their texture.
    shift = (met.number.double() * _FLOAT32_037) % 1.0 * ~on_shell
    start = shots.pose[:, :3, 3].float()[:, :, None, None]
    return Surface(
        _material(shots, slot),
        tuple(start[:, k] + met.depth_m * ways[k] for k in range(3)),
        normal,
        (u + shift).float(),
        v,
        (-dot(normal, ways) / length).clamp(0.02, 1.0),
        length,
        (-ways[0] / length, -ways[1] / length, -ways[2] / length),
        torch.where(on_shell, axis, -1),
    )


_FLOAT32_037 = float(torch.tensor(0.37))


def _material(shots: PackedShots, slot: Tensor) -> Tensor:
    table = shots.scenes.face_material
    scene = shots.scene[:, None, None]
    number = table.flatten()[scene * table.shape[1] + slot]
    batch, count = shots.looks.materials.shape[:2]
    return torch.arange(batch, device=number.device)[:, None, None] * count + number


def _picked(axis: Tensor, vector: Vector) -> Tensor:
    return torch.where(axis == 0, vector[0], torch.where(axis == 1, vector[1], vector[2]))


def _farthest_axis(local: Vector) -> Tensor:
    """Return the face of the unit cube that a point on it lies on."""
    x, y, z = (value.abs() for value in local)
    return torch.where(z >= torch.maximum(x, y), 2, (y > x).long())


def _shown(shots: PackedShots, solids: Solids, met: Met) -> _Solid:
    batch, count = solids.kind.shape
    scenes, scene = shots.scenes, shots.scene
    rotation = scenes.rotation[scene].flatten(2)
    columns = (
        solids.linear.flatten(2),
        solids.origin,
        rotation,
        scenes.half_m[scene],
        solids.taper[..., None],
        solids.kind[..., None],
    )
    table = torch.cat([column.float() for column in columns], dim=2)
    table = torch.cat((table, _world_rows(shots.pose)[:, None]), dim=1)  # (B, P + 1, 26)
    row = met.number + (count + 1) * torch.arange(batch, device=table.device)[:, None, None]
    own = table.view(batch * (count + 1), -1)[row]
    x, y = shots.x[:, None, :], shots.y[:, :, None]
    local = tuple(
        ((own[..., 3 * k] * x + own[..., 3 * k + 1] * y) + own[..., 3 * k + 2]) * met.depth_m
        + own[..., 9 + k]
        for k in range(3)
    )
    half = (own[..., 21], own[..., 22], own[..., 23])
    return _Solid(local, own[..., 12:21], half, own[..., 24], own[..., 25])


def _world_rows(pose: Tensor) -> Tensor:
    """Return (B, 26) the row of the shell, whose coordinates are those of the world."""
    batch = pose.shape[0]
    identity = torch.eye(3, device=pose.device).flatten().expand(batch, -1)
    rest = torch.tensor([1.0, 1.0, 1.0, 1.0, float(BOX)], device=pose.device).expand(batch, -1)
    linear, eye = pose[:, :3, :3].flatten(1).float(), pose[:, :3, 3].float()
    return torch.cat((linear, eye, identity, rest), dim=1)


def _round_ones(
    solid: _Solid, number: Tensor, normal: Vector, u: Tensor, slot: Tensor
) -> tuple[Vector, Tensor, Tensor]:
    """Return normal, u and slot with what was computed as for boxes corrected on round solids."""
    x, y, z = solid.local
    is_round, tube = solid.kind != BOX, solid.kind == CYLINDER
    slope = 0.5 * (solid.taper - 1.0)
    radius = 0.5 * (solid.taper + 1.0) + slope * z
    cap = tube & (z.abs() > _CAP) & (x * x + y * y < radius * radius * (2 * _CAP - 1))
    gradient = (
        torch.where(cap, 0.0, x / solid.half[0]),
        torch.where(cap, 0.0, y / solid.half[1]),
        torch.where(cap, z.sign(), torch.where(tube, -slope * radius, z) / solid.half[2]),
    )
    turn = solid.turn
    a, b, c = (
        turn[..., 3 * k] * gradient[0]
        + turn[..., 3 * k + 1] * gradient[1]
        + turn[..., 3 * k + 2] * gradient[2]
        for k in range(3)
    )
    length = torch.sqrt(a * a + b * b + c * c) + 1e-12
    a, b, c = (
        torch.where(is_round, own / length, flat)
        for own, flat in zip((a, b, c), normal, strict=True)
    )
    u = torch.where(tube & ~cap, torch.atan2(y, x) * solid.half[0], u)
    return (a, b, c), u, torch.where(tube, 3 * number + 2 * cap.long(), slot)
