"""Shots -> pictures and depth, a whole batch at once on one device.

Memory on the device at B views of h x w rays (supersampling counted): tracing holds about 30
numbers of 4 bytes per ray, half of them doubles while round solids are met; shading about 120.  So
128 views of 192 x 256 take about 3 GB, with 2 x 2 rays per pixel about 12 GB; the pictures of the
lights add about 60 MB per scene while they are taken, the texture bank 62 MB once.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from depth_node.pretraining.rendering.bank import device_bank
from depth_node.pretraining.rendering.casting import Solids
from depth_node.pretraining.rendering.casting import Vector
from depth_node.pretraining.rendering.casting import cast
from depth_node.pretraining.rendering.casting import directions
from depth_node.pretraining.rendering.casting import seen_solids
from depth_node.pretraining.rendering.casting import shell_depth
from depth_node.pretraining.rendering.light_views import light_views
from depth_node.pretraining.rendering.packing import PackedShots
from depth_node.pretraining.rendering.sensor import develop
from depth_node.pretraining.rendering.shading import Shading
from depth_node.pretraining.rendering.surfaces import Met
from depth_node.pretraining.rendering.surfaces import surface_of
from depth_node.world.render import FARTHEST_M

_BRIGHTEST = 4.0


@dataclass(frozen=True)
class RenderedBatch:
    """Views of one size."""

    rgb: Tensor
    """(B, 3, H, W) uint8."""
    depth_m: Tensor
    """(B, 1, H, W) float32 along z at the pixel centres; +inf for sky."""


def render(
    shots: PackedShots, generator: torch.Generator | None, supersample: int = 1
) -> RenderedBatch:
    """Render shots on the device where they are.

    :param generator: source of the sensors' noise, on that device; none is added where None.
    :param supersample: rays per pixel and axis for the colors.
    """
    with torch.no_grad():
        light, depth = lit(shots, supersample)
        return RenderedBatch(develop(light, shots.sensor, generator, depth), depth[:, None])


def lit(shots: PackedShots, supersample: int = 1) -> tuple[Tensor, Tensor]:
    """Return the light (B, 3, H, W) that reaches the pixels, and their depth (B, H, W)."""
    solids = seen_solids(shots.scenes, shots.scene, shots.pose)
    shading = Shading(shots, light_views(shots.scenes), device_bank(shots.pose.device))
    if supersample == 1:
        return _of_rays(shots, solids, shading)
    fine = _finer(shots, supersample)
    shading = Shading(fine, shading.views, device_bank(shots.pose.device))
    light, _ = _of_rays(fine, solids, shading)
    depth = _met(shots, solids, directions(shots.pose, shots.x, shots.y))[1]
    return F.avg_pool2d(light.clamp_max(_BRIGHTEST), supersample), depth


def _of_rays(shots: PackedShots, solids: Solids, shading: Shading) -> tuple[Tensor, Tensor]:
    ways = directions(shots.pose, shots.x, shots.y)
    met, depth = _met(shots, solids, ways)
    surface = surface_of(shots, solids, ways, met)
    return shading.light(surface, met, ways, depth.isinf()), depth


def _met(shots: PackedShots, solids: Solids, ways: Vector) -> tuple[Met, Tensor]:
    """Return what is met, and its depth with +inf for sky."""
    scenes, scene = shots.scenes, shots.scene
    depth, number = cast(solids, shots.x, shots.y)
    low, high = scenes.shell_low_m[scene], scenes.shell_high_m[scene]
    behind, axis = shell_depth(low, high, shots.pose, ways)
    on_solid = depth < behind
    depth = torch.where(on_solid, depth, behind)
    number = torch.where(on_solid, number, solids.kind.shape[1])
    # the ground ends in the sky far away
    depth = torch.where(depth > FARTHEST_M, torch.inf, depth)
    return Met(torch.where(depth.isinf(), 1.0, depth), number, axis), depth


def _finer(shots: PackedShots, factor: int) -> PackedShots:
    """Return the shots with a grid ``factor`` times as dense."""
    return replace(shots, x=_finer_axis(shots.x, factor), y=_finer_axis(shots.y, factor))


def _finer_axis(slopes: Tensor, factor: int) -> Tensor:
    """Return the slopes (B, factor n) within the pixels of (B, n), which are evenly spaced."""
    step = (slopes[:, -1:] - slopes[:, :1]) / (slopes.shape[1] - 1)
    fine = torch.arange(factor, device=slopes.device, dtype=slopes.dtype) + 0.5
    return (slopes[:, :, None] + step[:, :, None] * (fine / factor - 0.5)).flatten(1)
