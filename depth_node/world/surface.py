"""What is known of the visible surface at each pixel, from what its ray met."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.world.scene import Scene
from depth_node.world.solids import BOX
from depth_node.world.solids import CYLINDER
from depth_node.world.solids import Floats
from depth_node.world.tracing import Hits
from depth_node.world.tracing import Rays

_U_AXIS = np.array([1, 0, 0])
_V_AXIS = np.array([2, 2, 1])
_EVERYTHING = (slice(None), slice(None))
_CAP = 0.9999

Array = NDArray[np.float32]
Index = NDArray[np.intp]
Vector = tuple[Array, Array, Array]


@dataclass(frozen=True)
class Surface:
    """The visible surface; arrays are (H, W), vectors three of them in world coordinates."""

    material: Index
    """Number of the material."""
    position: Vector
    """Metres."""
    normal: Vector
    """Unit vector out of the surface."""
    u_m: Array
    """Coordinate along the surface for textures, metres."""
    v_m: Array
    """The other one, upwards on walls."""
    facing: Array
    """Cosine between the normal and the way to the camera."""
    ray_length: Array
    """Length of the ray of depth 1."""
    toward: Vector
    """Unit vector to the camera."""
    shell_axis: Index
    """Axis of the shell plane, -1 on solids."""


def directions(T_world_camera: Floats, rays: Rays) -> Vector:  # noqa: N803
    """Return the world directions of rays of depth 1."""
    x, y, z = (rays.along(T_world_camera[k, :3], _EVERYTHING) for k in range(3))
    return x, y, z


def dot(a: Vector, b: Vector) -> Array:
    """Return the inner product of vectors of arrays."""
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2], np.float32)


def surface_of(
    scene: Scene,
    T_world_camera: Floats,  # noqa: N803
    rays: Rays,
    hits: Hits,
    depth: Array,
) -> Surface:
    """Return the visible surface.

    :param depth: (H, W) depth of the hits, finite everywhere (anything where the sky is).
    """
    solids, index = scene.solids, hits.index
    on_shell = index == len(solids.kind)
    ways = directions(T_world_camera, rays)
    local = _local(scene, T_world_camera, rays, index, depth)
    axis = np.where(on_shell, hits.shell_axis, _farthest_axis(local))
    outward = np.where(on_shell, -np.sign(_picked(axis, ways)), np.sign(_picked(axis, local)))
    normal = _flat_normals(scene, index * 3 + axis, outward.astype(np.float32))
    u, v = _flat_coordinates(scene, index, axis, local)
    slot = np.where(on_shell, 3 * index + 2 * axis + (outward < 0), 3 * index + axis)
    _correct_round_ones(scene, index, local, normal, u, slot)
    material = np.concatenate([solids.material.ravel(), scene.shell.material.ravel()])
    length = np.sqrt(dot(ways, ways))
    back = np.asarray(np.float32(-1.0) / length, np.float32)
    # Equal things next to each other would show the same piece of their texture.
    shift = (index * np.float32(0.37)) % np.float32(1.0) * (~on_shell)
    x, y, z = (np.float32(T_world_camera[k, 3]) + depth * ways[k] for k in range(3))
    return Surface(
        material.take(slot),
        (x, y, z),
        normal,
        (u + shift).astype(np.float32),
        v,
        np.clip(-dot(normal, ways) / length, 0.02, 1.0),
        length,
        _scaled(ways, back),
        np.where(on_shell, axis, -1),
    )


def _scaled(vector: Vector, factor: Array) -> Vector:
    x, y, z = (np.asarray(part * factor, np.float32) for part in vector)
    return x, y, z


def _picked(axis: Index, vector: Vector) -> Array:
    return np.where(axis == 0, vector[0], np.where(axis == 1, vector[1], vector[2]))


def _farthest_axis(local: Vector) -> Index:
    """Return the face of the unit cube that a point on it lies on."""
    x, y, z = (np.abs(value) for value in local)
    return np.where(z >= np.maximum(x, y), 2, y > x)


def _local(
    scene: Scene,
    T: Floats,  # noqa: N803
    rays: Rays,
    index: Index,
    depth: Array,
) -> Vector:
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
    return result[0], result[1], result[2]


def _flat_normals(scene: Scene, face: Index, outward: Array) -> Vector:
    rotations = np.concatenate([np.swapaxes(scene.solids.rotation, 1, 2), np.eye(3)[None]])
    table = np.ascontiguousarray(rotations.reshape(-1, 3).T, np.float32)
    x, y, z = (table[k].take(face) * outward for k in range(3))
    return x, y, z


def _flat_coordinates(
    scene: Scene, index: Index, axis: Index, local: Vector
) -> tuple[Array, Array]:
    """Return metres along the face."""
    half = np.concatenate([scene.solids.half_m, np.ones((1, 3))]).astype(np.float32).ravel()
    u = np.where(axis == 0, local[1], local[0]) * half.take(index * 3 + _U_AXIS.take(axis))
    v = np.where(axis == 2, local[1], local[2]) * half.take(index * 3 + _V_AXIS.take(axis))
    return u, v


def _correct_round_ones(
    scene: Scene, index: Index, local: Vector, normal: Vector, u: Array, slot: Index
) -> None:
    """Correct what was computed as for boxes on cylinders and ellipsoids, in place."""
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
    cap = tube & (np.abs(z) > _CAP) & (x * x + y * y < radius * radius * (2 * _CAP - 1))
    gradient = np.stack([x, y, np.where(tube, -slope * radius, z)], axis=1) / half
    gradient[cap] = np.stack([0 * z, 0 * z, np.sign(z)], axis=1)[cap]
    world = np.einsum('nij,nj->ni', solids.rotation.astype(np.float32)[which], gradient)
    world /= np.linalg.norm(world, axis=1, keepdims=True) + 1e-12
    for k in range(3):
        normal[k].ravel()[chosen] = world[:, k]
    side = tube & ~cap
    u.ravel()[chosen[side]] = (np.arctan2(y, x) * half[:, 0])[side]
    slot.ravel()[chosen[tube]] = (which * 3 + np.where(cap, 2, 0))[tube]
