"""Colors of hits: materials, light, shadows, haze and sky; every step once per visible pixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.world.scene import COVER_STEEPNESS_PER_M
from depth_node.world.scene import Light
from depth_node.world.scene import Scene
from depth_node.world.scene import View
from depth_node.world.solids import BOX
from depth_node.world.solids import CYLINDER
from depth_node.world.solids import Floats
from depth_node.world.textures import texture_bank
from depth_node.world.tracing import Hits
from depth_node.world.tracing import Rays

_U_AXIS = np.array([1, 0, 0])
_V_AXIS = np.array([2, 2, 1])
_EVERYTHING = (slice(None), slice(None))
_SHADOW_BIAS_M = 0.004
_STAIN_SCALE = 2.7
_BESIDE_M = np.float32(0.2)

Array = NDArray[np.float32]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class _Surface:
    """What is known of the visible surface at each pixel; arrays are (H, W) or three of them."""

    material: Index
    position: tuple[Array, Array, Array]
    normal: tuple[Array, Array, Array]
    u_m: Array
    v_m: Array
    facing: Array
    """Cosine between the normal and the way to the camera."""
    ray_length: Array
    """Length of the ray of depth 1."""
    axis: Index
    """World axis of the shell plane, -1 on solids."""


def shade(scene: Scene, T_world_camera: Floats, rays: Rays, hits: Hits) -> Array:  # noqa: N803
    """Return the light that reaches the camera, (H, W, 3) linear RGB, 1 is white paper."""
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        sky = ~np.isfinite(hits.depth_m)
        depth = np.where(sky, np.float32(1.0), hits.depth_m)
        surface = _surface(scene, T_world_camera, rays, hits, depth)
        color = _lit(scene, surface, depth, rays)
        _add_haze(scene, color, depth * surface.ray_length)
        if sky.any():
            color[sky] = _sky(scene, T_world_camera, rays)[sky]
    return color


def _directions(T: Floats, rays: Rays) -> tuple[Array, Array, Array]:  # noqa: N803
    x, y, z = (rays.along(T[k, :3], _EVERYTHING) for k in range(3))
    return x, y, z


def _surface(
    scene: Scene,
    T: Floats,  # noqa: N803
    rays: Rays,
    hits: Hits,
    depth: Array,
) -> _Surface:
    solids, index = scene.solids, hits.index
    solid_count = len(solids.kind)
    local = _local(scene, T, rays, index, depth)
    directions = _directions(T, rays)
    position = tuple(
        np.float32(T[k, 3]) + depth * direction for k, direction in enumerate(directions)
    )
    on_shell = index == solid_count
    far = [np.abs(value) for value in local]
    axis = np.where(
        on_shell,
        hits.shell_axis,
        np.where(far[2] >= np.maximum(far[0], far[1]), 2, far[1] > far[0]),
    )
    face = index * 3 + axis
    along = np.where(axis == 0, local[0], np.where(axis == 1, local[1], local[2]))
    inward = np.where(on_shell, -np.sign(np.choose(axis, directions)), np.sign(along)).astype(
        np.float32
    )
    axes = np.concatenate([np.swapaxes(solids.rotation, 1, 2), np.eye(3)[None]]).reshape(-1, 3)
    table = np.ascontiguousarray(axes.T, np.float32)
    normal = [table[k].take(face) * inward for k in range(3)]
    half = np.concatenate([solids.half_m, np.ones((1, 3))]).astype(np.float32).ravel()
    u = np.where(axis == 0, local[1], local[0]) * half.take(index * 3 + _U_AXIS.take(axis))
    v = np.where(axis == 2, local[1], local[2]) * half.take(index * 3 + _V_AXIS.take(axis))
    material = np.concatenate([solids.material.ravel(), scene.shell.material.ravel()])
    slot = np.where(on_shell, 3 * solid_count + 2 * axis + (inward < 0), face)
    _round_surfaces(scene, index, local, normal, u, slot)
    length = np.sqrt(sum(direction * direction for direction in directions))
    facing = -sum(n * d for n, d in zip(normal, directions)) / length
    shift = (index * np.float32(0.37)) % np.float32(1.0) * (~on_shell)
    return _Surface(
        material.take(slot),
        (position[0], position[1], position[2]),
        (normal[0], normal[1], normal[2]),
        u + shift,
        v,
        np.clip(facing, 0.02, 1.0),
        length,
        np.where(on_shell, axis, -1),
    )


def _local(
    scene: Scene,
    T: Floats,  # noqa: N803
    rays: Rays,
    index: Index,
    depth: Array,
) -> list[Array]:
    """Return the hit in coordinates of its unit solid; of the world for the shell."""
    to_unit = np.concatenate([scene.solids.to_unit(), np.eye(4)[None, :3]])
    linear = (to_unit[:, :, :3] @ T[:3, :3]).astype(np.float32)
    origin = (to_unit[:, :, :3] @ T[:3, 3] + to_unit[:, :, 3]).astype(np.float32)
    result = []
    for k in range(3):
        a, b, c = (np.ascontiguousarray(linear[:, k, j]).take(index) for j in range(3))
        a *= rays.x
        b *= rays.y
        a += b
        a += c
        a *= depth
        a += np.ascontiguousarray(origin[:, k]).take(index)
        result.append(a)
    return result


def _round_surfaces(
    scene: Scene, index: Index, local: list[Array], normal: list[Array], u: Array, slot: Index
) -> None:
    """Correct what was computed as for boxes on cylinders and ellipsoids."""
    solids = scene.solids
    kinds = np.append(solids.kind, BOX)
    chosen = np.flatnonzero(kinds.take(index))
    if not chosen.size:
        return
    which = index.ravel()[chosen]
    x, y, z = (value.ravel()[chosen] for value in local)
    half = solids.half_m.astype(np.float32)[which]
    taper = solids.taper.astype(np.float32)[which]
    tube = kinds[which] == CYLINDER
    slope = 0.5 * (taper - 1.0)
    radius = 0.5 * (taper + 1.0) + slope * z
    cap = tube & (np.abs(z) > 0.9999) & (x * x + y * y < radius * radius * 0.9998)
    gradient = np.stack([x, y, np.where(tube, -slope * radius, z)], axis=1) / half
    gradient[cap] = np.stack([0 * z, 0 * z, np.sign(z)], axis=1)[cap]
    world = np.einsum('nij,nj->ni', solids.rotation.astype(np.float32)[which], gradient)
    world /= np.linalg.norm(world, axis=1, keepdims=True) + 1e-12
    for k in range(3):
        normal[k].ravel()[chosen] = world[:, k]
    side = tube & ~cap
    around = np.arctan2(y, x) * half[:, 0]
    u.ravel()[chosen[side]] = around[side]
    slot.ravel()[chosen[tube]] = (which * 3 + np.where(cap, 2, 0))[tube]


def _lit(scene: Scene, surface: _Surface, depth: Array, rays: Rays) -> Array:
    albedo = _albedo(scene, surface, depth, rays)
    key, shine = _key_light(scene.light, surface)
    around = scene.surroundings
    open_sky = _openness(scene, surface)
    fill = np.maximum(sum(n * w for n, w in zip(surface.normal, around.fill_direction)), 0.0)
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
        light += head + glow
        color[..., k] = albedo[..., k] * light + shine * scene.light.color[k]
    return color


def _albedo(scene: Scene, surface: _Surface, depth: Array, rays: Rays) -> Array:
    materials, number, bank = scene.materials, surface.material, texture_bank()
    pixel = np.float32(_pixel_slope(rays))
    footprint = depth * surface.ray_length * pixel / np.sqrt(surface.facing)
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
    return float(abs(rays.x[-1, -1] - rays.x[-1, 0])) / (rays.width - 1)


def _key_light(light: Light, surface: _Surface) -> tuple[Array, Array]:
    """Return diffuse and mirrored strength of the key light, shadows included."""
    to_light = [np.float32(light.position_m[k]) - surface.position[k] for k in range(3)]
    squared = sum(value * value for value in to_light)
    inverse = 1.0 / np.sqrt(squared)
    cosine = np.maximum(sum(n * w for n, w in zip(surface.normal, to_light)) * inverse, 0.0)
    strength = _visibility(light.shadow, surface.position, cosine)
    if light.reach_m > 0:
        reach = np.float32(light.reach_m**2)
        strength *= np.float32(2.0) * reach / (reach + squared)
    if len(light.openings_m):
        strength *= _through_openings(light.openings_m, surface.position, to_light)
    mirrored = np.clip(cosine * surface.facing * 1.05 - 0.05, 0.0, 1.0)
    for _ in range(4):
        mirrored *= mirrored
    return np.asarray(cosine * strength, np.float32), np.asarray(mirrored * strength, np.float32)


def _in_view(view: View, position: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """Return column, row and depth of points in a light's picture."""
    T = view.T_world_view  # noqa: N806
    shifted = [position[k] - np.float32(T[k, 3]) for k in range(3)]
    x, y, z = (sum(shifted[j] * np.float32(T[j, k]) for j in range(3)) for k in range(3))
    size = view.values.shape[0]
    scale = np.float32(0.5 * size / view.tangent)
    half = np.float32(0.5 * size - 0.5)
    return x / z * scale + half, y / z * scale + half, z


def _visibility(view: View, position: tuple[Array, Array, Array], cosine: Array) -> Array:
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
    return np.where(inside, lit, np.float32(1.0))


def _through_openings(
    openings: Floats, position: tuple[Array, Array, Array], to_light: list[Array]
) -> Array:
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


def _openness(scene: Scene, surface: _Surface) -> Array:
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
                open_sky *= 1.0 - dim * (surface.axis != k)
    return open_sky


def _add_haze(scene: Scene, color: Array, distance_m: Array) -> None:
    around = scene.surroundings
    keep = np.exp(distance_m * np.float32(-1.0 / around.haze_m))[..., None]
    color -= around.haze
    color *= keep
    color += around.haze


def _sky(scene: Scene, T: Floats, rays: Rays) -> Array:  # noqa: N803
    around, bank = scene.surroundings, texture_bank()
    x, y, z = _directions(T, rays)
    height = np.clip(z / np.sqrt(x * x + y * y + z * z), 0.0, 1.0)
    blend = np.minimum(height * np.float32(2.0), 1.0)[..., None]
    color = around.horizon * (1 - blend) + around.zenith * blend
    if around.clouds > 0:
        far = np.float32(0.4) / (height + np.float32(0.12))
        number = np.full(x.shape, bank.first['cloud'] + int(around.clouds * 97) % 6)
        cloud = bank.lookup(number, x * far, y * far, far * np.float32(0.01))[..., :1]
        color *= 1 + np.float32(around.clouds) * (cloud * np.float32(1 / 127.5) - 1)
    return np.maximum(color, 0.0).astype(np.float32)
