"""The pictures that a scene's lights take: depth for shadows, heights for openness."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from depth_node.pretraining.rendering.blurring import blurred
from depth_node.pretraining.rendering.casting import Vector
from depth_node.pretraining.rendering.casting import cast
from depth_node.pretraining.rendering.casting import seen_solids
from depth_node.pretraining.rendering.packing import PackedScenes
from depth_node.world.scene import COVER_FROM_M
from depth_node.world.scene import COVER_PX
from depth_node.world.scene import COVER_STEEPNESS_PER_M
from depth_node.world.scene import COVER_TOP_M
from depth_node.world.scene import SHADOW_PX


@dataclass(frozen=True)
class LightViews:
    """Square pictures of S scenes."""

    shadow_m: Tensor
    """(S, SHADOW_PX, SHADOW_PX) depth of the solids from the key light."""
    cover: Tensor
    """(S, COVER_PX, COVER_PX); see ``world.scene.Scene.cover``."""


def light_views(scenes: PackedScenes) -> LightViews:
    """Take both pictures of every scene."""
    every = torch.arange(scenes.kind.shape[0], device=scenes.kind.device)
    x = _square(scenes.shadow_tangent, SHADOW_PX)
    shadow, _ = cast(seen_solids(scenes, every, scenes.shadow_pose), x, x)
    x = _square(scenes.cover_tangent, COVER_PX)
    depth, _ = cast(seen_solids(scenes, every, scenes.cover_pose, scenes.stands), x, x)
    height = (COVER_FROM_M - depth).clamp(0.0, COVER_TOP_M)
    grown = torch.exp(COVER_STEEPNESS_PER_M * height)
    largest = math.ceil(float(scenes.cover_blur_px.max()))
    return LightViews(shadow, blurred(grown[:, None], scenes.cover_blur_px, largest)[:, 0])


def _square(tangent: Tensor, size: int) -> Tensor:
    steps = torch.arange(size, device=tangent.device, dtype=torch.float64) + 0.5
    return (steps * (2 * tangent[:, None] / size) - tangent[:, None]).float()


def in_picture(pose: Tensor, tangent: Tensor, size: int, position: Vector) -> Vector:
    """Return column, row and depth of points in a light's picture.

    :param pose: (B, 4, 4) float64; :param tangent: (B,); :param position: three of (B, H, W).
    """
    turn, eye = pose[:, :3, :3].float(), pose[:, :3, 3].float()
    a, b, c = (position[k] - eye[:, k, None, None] for k in range(3))
    x, y, z = (
        a * turn[:, 0, k, None, None]
        + b * turn[:, 1, k, None, None]
        + c * turn[:, 2, k, None, None]
        for k in range(3)
    )
    scale = (0.5 * size / tangent).float()[:, None, None]
    half = 0.5 * size - 0.5
    return x / z * scale + half, y / z * scale + half, z


def corners_of(column: Tensor, row: Tensor, picture: Tensor, size: int) -> tuple[Tensor, ...]:
    """Return the flat index of the pixel at the upper left and the shares to its right and below.

    :param column: (B, H, W) in [0, size - 1]; :param picture: (B,) number of the picture.
    """
    left, top = column.floor().clamp(0, size - 2), row.floor().clamp(0, size - 2)
    flat = (picture[:, None, None] * size + top.long()) * size + left.long()
    return flat, column - left, row - top
