"""Colors of hits: materials, light, shadows, haze and sky; every step once per visible pixel."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.world.scene import COVER_STEEPNESS_PER_M
from depth_node.world.scene import Lamp
from depth_node.world.scene import Light
from depth_node.world.scene import Scene
from depth_node.world.scene import View
from depth_node.world.solids import Floats
from depth_node.world.surface import Surface
from depth_node.world.surface import Vector
from depth_node.world.surface import directions
from depth_node.world.surface import dot
from depth_node.world.surface import surface_of
from depth_node.world.textures import TextureBank
from depth_node.world.textures import texture_bank
from depth_node.world.tracing import Hits
from depth_node.world.tracing import Rays

_SHADOW_BIAS_M = 0.004
_STAIN_SCALE = 2.7
_BESIDE_M = np.float32(0.2)
_MIRRORING = 0.25

Array = NDArray[np.float32]


def shade(scene: Scene, T_world_camera: Floats, rays: Rays, hits: Hits) -> Array:  # noqa: N803
    """Return the light that reaches the camera, (H, W, 3) linear RGB, 1 is white paper."""
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        sky = ~np.isfinite(hits.depth_m)
        depth = np.where(sky, np.float32(1.0), hits.depth_m)
        surface = surface_of(scene, T_world_camera, rays, hits, depth)
        color = _lit(scene, surface, depth, rays)
        _add_haze(scene, color, depth * surface.ray_length)
        if sky.any():
            color[sky] = _sky(scene, T_world_camera, rays)[sky]
    return color


def _lit(scene: Scene, surface: Surface, depth: Array, rays: Rays) -> Array:
    albedo = _albedo(scene, surface, depth, rays)
    key, shine = _key_light(scene.light, surface)
    around = scene.surroundings
    open_sky = _openness(scene, surface)
    toward = around.fill_direction
    fill = np.maximum(
        surface.normal[0] * toward[0]
        + surface.normal[1] * toward[1]
        + surface.normal[2] * toward[2],
        0.0,
    )
    lamps = [(lamp.color, _lamp_strength(lamp, surface)) for lamp in scene.lamps]
    head = around.headlight * surface.facing / (0.2 + (depth * np.float32(0.5)) ** 2)
    upward = open_sky * (0.8 + 0.2 * surface.normal[2])
    materials, number = scene.materials, surface.material
    shine *= materials.shine.take(number)
    glow = materials.glow.take(number)
    color = np.empty((*depth.shape, 3), np.float32)
    for k in range(3):
        light = key * scene.light.color[k]
        light += fill * around.fill[k]
        light += upward * around.ambient[k]
        for tint, strength in lamps:
            light += strength * tint[k]
        light += head + glow
        color[..., k] = albedo[..., k] * light + shine * scene.light.color[k]
    if around.mirror > 0:
        _add_mirrored(scene, color, surface, rays.width)
    return color


def _lamp_strength(lamp: Lamp, surface: Surface) -> Array:
    """Return the share of a lamp's light that reaches the surface."""
    x, y, z = (np.float32(lamp.position_m[k]) - surface.position[k] for k in range(3))
    squared = dot((x, y, z), (x, y, z)) + np.float32(1e-4)
    cosine = np.maximum(dot(surface.normal, (x, y, z)) / np.sqrt(squared), 0.0)
    reach = np.float32(lamp.reach_m**2)
    return np.asarray(cosine * (reach / (reach + squared)), np.float32)


def _add_mirrored(scene: Scene, color: Array, surface: Surface, width: int) -> None:
    """Add what shiny surfaces mirror: an invented environment, for the true one costs a view."""
    shine = scene.materials.shine.take(surface.material)
    rows, columns = np.nonzero(shine > _MIRRORING)
    if not len(rows):
        return
    around, bank = scene.surroundings, texture_bank()
    normal = [part[rows, columns][:, None] for part in surface.normal]
    way = [part[rows, columns][:, None] for part in surface.toward]
    facing = surface.facing[rows, columns][:, None]
    x, y, z = (2 * facing * n - w for n, w in zip(normal, way, strict=True))
    number = np.full(x.shape, around.mirror_texture)
    footprint = np.full(x.shape, 1.5 / width, np.float32)
    seen = _lookup_rows(bank, number, np.arctan2(y, x), z, footprint)
    fresnel = 0.06 + 0.94 * (1 - facing) ** 4
    strength = np.minimum(shine[rows, columns][:, None], 1.0) * np.float32(around.mirror) * fresnel
    bright = around.ambient + (around.fill + 0.3 * scene.light.color) * np.maximum(z, 0.0)
    color[rows, columns] *= 1 - 0.5 * strength
    color[rows, columns] += strength * bright * seen * np.float32(1 / 127.5)


def _lookup_rows(
    bank: TextureBank, number: NDArray[np.intp], u: Array, v: Array, footprint: Array
) -> Array:
    """Look up a column of any length; OpenCV refuses more than 32767 rows."""
    step = 32000
    parts = [
        bank.lookup(
            number[k : k + step], u[k : k + step], v[k : k + step], footprint[k : k + step]
        )
        for k in range(0, len(number), step)
    ]
    return np.concatenate(parts)[:, 0].astype(np.float32)


def _albedo(scene: Scene, surface: Surface, depth: Array, rays: Rays) -> Array:
    materials, number, bank = scene.materials, surface.material, texture_bank()
    pixel = np.float32(_pixel_slope(rays))
    footprint = np.asarray(
        depth * surface.ray_length * pixel / np.sqrt(surface.facing), np.float32
    )
    u, v = surface.u_m, surface.v_m
    texture = bank.lookup(
        materials.texture.take(number), u, v, footprint, materials.scale.take(number)
    )
    stain = bank.lookup(materials.stain.take(number), u, v, footprint, _STAIN_SCALE)[..., 0]
    strength = materials.contrast.take(number) * np.float32(1 / 127.5)
    wear = materials.staining.take(number)
    base = (1.0 - materials.contrast.take(number)) * (
        wear * (stain * np.float32(1 / 127.5) - 1.0) + 1.0
    )
    strength *= wear * (stain * np.float32(1 / 127.5) - 1.0) + 1.0
    albedo = np.empty((*depth.shape, 3), np.float32)
    for k in range(3):
        tint = np.ascontiguousarray(materials.tint[:, k]).take(number)
        albedo[..., k] = np.maximum(tint * (base + strength * texture[..., k]), 0.004)
    return albedo


def _pixel_slope(rays: Rays) -> float:
    """Return the width of a pixel in the middle of the image, as a slope."""
    if rays.width < 2:
        return 1e-2
    return abs(float(rays.x[-1, -1]) - float(rays.x[-1, 0])) / (rays.width - 1)


def _key_light(light: Light, surface: Surface) -> tuple[Array, Array]:
    """Return diffuse and mirrored strength of the key light, shadows included."""
    x, y, z = (np.float32(light.position_m[k]) - surface.position[k] for k in range(3))
    to_light = (x, y, z)
    squared = dot(to_light, to_light)
    cosine = np.maximum(dot(surface.normal, to_light) / np.sqrt(squared), 0.0)
    strength = _visibility(light.shadow, surface.position, cosine, light.pattern)
    if light.reach_m > 0:
        reach = np.float32(light.reach_m**2)
        strength *= np.float32(2.0) * reach / (reach + squared)
    if len(light.openings_m):
        strength *= _through_openings(light.openings_m, surface.position, to_light)
    mirrored = np.clip(cosine * surface.facing * 1.05 - 0.05, 0.0, 1.0)
    for _ in range(4):
        mirrored *= mirrored
    return np.asarray(cosine * strength, np.float32), np.asarray(mirrored * strength, np.float32)


def _in_view(view: View, position: Vector) -> Vector:
    """Return column, row and depth of points in a light's picture."""
    T = view.T_world_view  # noqa: N806
    a, b, c = (position[k] - np.float32(T[k, 3]) for k in range(3))
    R = T[:3, :3].astype(np.float32)  # noqa: N806
    x, y, z = (a * R[0, k] + b * R[1, k] + c * R[2, k] for k in range(3))
    size = view.values.shape[0]
    scale = np.float32(0.5 * size / view.tangent)
    half = np.float32(0.5 * size - 0.5)
    return x / z * scale + half, y / z * scale + half, z


def _visibility(
    view: View, position: Vector, cosine: Array, pattern: Array | None = None
) -> Array:
    """Return 1 in light, 0 in shadow, between at the edge of a shadow."""
    column, row, depth = _in_view(view, position)
    size = view.values.shape[0]
    texel_m = np.abs(depth) * np.float32(2 * view.tangent / size)
    bias = np.float32(_SHADOW_BIAS_M) + texel_m / np.maximum(cosine, 0.2)
    limit = depth - bias
    inside = (depth > 0) & (column > 0) & (row > 0) & (column < size - 1) & (row < size - 1)
    column = np.where(inside, column, 0.0)
    row = np.where(inside, row, 0.0)
    left, top = column.astype(np.intp), row.astype(np.intp)
    right, down = column - left, row - top
    flat = view.values.ravel()
    corner = np.minimum(top, size - 2) * size + np.minimum(left, size - 2)
    lit = np.zeros(depth.shape, np.float32)
    for step, weight in (
        (0, (1 - right) * (1 - down)),
        (1, right * (1 - down)),
        (size, (1 - right) * down),
        (size + 1, right * down),
    ):
        lit += weight * (flat.take(corner + step) >= limit)
    visible = np.where(inside, lit, np.float32(1.0))
    if pattern is not None:
        visible *= cv2.remap(
            pattern,
            column.astype(np.float32, copy=False),
            row.astype(np.float32, copy=False),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return visible


def _through_openings(openings: Floats, position: Vector, to_light: Vector) -> Array:
    """Return 1 where the way to the sun leaves through a window, else 0."""
    lit = np.zeros(position[0].shape, bool)
    for low, high in openings:
        normal = int(np.argmin(high - low))
        way = (np.float32(low[normal]) - position[normal]) / to_light[normal]
        through = way > -1e-3
        for k in range(3):
            if k != normal:
                crossing = position[k] + way * to_light[k]
                through &= (crossing > low[k]) & (crossing < high[k])
        lit |= through
    return lit.astype(np.float32)


def _openness(scene: Scene, surface: Surface) -> Array:
    """Return how much of the surroundings a point sees: less in corners and under things."""
    x, y = (surface.position[k] + _BESIDE_M * surface.normal[k] for k in range(2))
    column, row, _ = _in_view(scene.cover, (x, y, surface.position[2]))
    cover = cv2.remap(
        scene.cover.values,
        column.astype(np.float32, copy=False),
        row.astype(np.float32, copy=False),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=1.0,
    )
    lift = np.exp(np.float32(COVER_STEEPNESS_PER_M) * np.minimum(surface.position[2] + 0.04, 5.2))
    open_sky = np.clip(lift / np.maximum(cover, 1.0), 0.4, 1.0).astype(np.float32)
    shell = scene.shell
    for k in range(3):
        for plane, sign in ((shell.low_m[k], 1.0), (shell.high_m[k], -1.0)):
            if np.isfinite(plane):
                gap = (surface.position[k] - np.float32(plane)) * np.float32(sign / 0.3)
                dim = np.float32(0.35) / (1.0 + gap * gap)
                open_sky *= 1.0 - dim * (surface.shell_axis != k)
    return np.asarray(open_sky, np.float32)


def _add_haze(scene: Scene, color: Array, distance_m: Array) -> None:
    around = scene.surroundings
    keep = np.exp(distance_m * np.float32(-1.0 / around.haze_m))[..., None]
    color -= around.haze
    color *= keep
    color += around.haze


def _sky(scene: Scene, T: Floats, rays: Rays) -> Array:  # noqa: N803
    around, bank = scene.surroundings, texture_bank()
    x, y, z = directions(T, rays)
    height = np.clip(z / np.sqrt(x * x + y * y + z * z), 0.0, 1.0)
    blend = np.minimum(height * np.float32(2.0), 1.0)[..., None]
    color = around.horizon * (1 - blend) + around.zenith * blend
    if around.clouds > 0:
        far = np.float32(0.4) / (height + np.float32(0.12))
        number = np.full(x.shape, bank.first['cloud'] + int(around.clouds * 97) % 6)
        cloud = bank.lookup(number, x * far, y * far, far * np.float32(0.01))[..., :1]
        color *= 1 + np.float32(around.clouds) * (cloud * np.float32(1 / 127.5) - 1)
    return np.asarray(np.maximum(color, 0.0), np.float32)
