"""Where cameras are and look in training samples: robots, drones and hands, of many lenses."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from depth_node.frames import CameraModel
from depth_node.world.render import FARTHEST_M
from depth_node.world.scene import Scene
from depth_node.world.scene import look_at
from depth_node.world.solids import Floats
from depth_node.world.solids import clearance_m
from depth_node.world.tracing import Rays
from depth_node.world.tracing import trace

NEAR_KINDS = ('closeup', 'tabletop')
"""Kinds whose centre is the middle of a table, which cameras go round."""
_LONG_KINDS = ('street', 'corridor', 'warehouse', 'shop', 'underpass')
_PROBE_PX = (12, 16)
_TRIES = 8


def pinhole_slopes(camera: CameraModel) -> NDArray[np.float64]:
    """Return x/z and y/z of every pixel centre, (H, W, 2)."""
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    return np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=2)


def rolled_shutter(slopes: NDArray[np.float64], shear: float) -> NDArray[np.float64]:
    """Return the slopes of a camera that turned while its rows were read one after another.

    :param slopes: (H, W, 2) x/z and y/z.
    :param shear: by which x/z has moved from the first row to the last.
    """
    moved = slopes.copy()
    moved[..., 0] += np.linspace(-shear / 2, shear / 2, len(slopes))[:, None]
    return moved


def random_camera(rng: np.random.Generator, height: int, width: int) -> CameraModel:
    """Return a camera with a horizontal field of view of 50 to 120 degrees, mostly 52 to 85.

    Of some, the image is a part: their principal point is away from the middle.
    """
    degrees = rng.uniform(50, 120) if rng.random() < 0.3 else rng.uniform(52, 85)
    focal = width / (2 * math.tan(math.radians(degrees) / 2))
    shift = 0.12 if rng.random() < 0.1 else 0.03
    x, y = 1 + shift * rng.normal(size=2).clip(-2, 2)
    return CameraModel(
        width,
        height,
        focal,
        focal * float(rng.uniform(0.99, 1.01)),
        (width - 1) / 2 * float(x),
        (height - 1) / 2 * float(y),
    )


def worthwhile_pose(scene: Scene, rng: np.random.Generator, camera: CameraModel) -> Floats:
    """Return a pose (4, 4) from which there is something to see; the best of some tries."""
    small = CameraModel(
        _PROBE_PX[1],
        _PROBE_PX[0],
        camera.fx * _PROBE_PX[1] / camera.width,
        camera.fy * _PROBE_PX[0] / camera.height,
        (_PROBE_PX[1] - 1) / 2,
        (_PROBE_PX[0] - 1) / 2,
    )
    rays = Rays(pinhole_slopes(small))
    # Real pictures are often of nearly one depth; unasked, most would be of many.
    least = math.exp(rng.uniform(math.log(1.15), math.log(2.0)))
    most = least * 1.7 if rng.random() < 0.45 else math.inf
    best, best_score, probed = None, -math.inf, 0
    for _ in range(5 * _TRIES):
        pose = _pose(scene, rng)
        if pose is None:
            continue
        hits = trace(scene.solids, scene.shell, pose, rays)
        score = _score(hits.depth_m, hits.index, scene.kind, (least, most))
        if score > best_score:
            best, best_score = pose, score
        probed += 1
        if score >= 1.0 or probed == _TRIES:
            break
    if best is None:
        above = scene.center_m + np.array([0.0, 0.0, 1.2])
        return look_at(above, scene.center_m + np.array([0.8, 0.0, 0.3]))
    return best


def _score(
    depth_m: NDArray[np.float32],
    index: NDArray[np.intp],
    kind: str,
    wanted: tuple[float, float],
) -> float:
    """Return 1 or more for a view that may be used.

    One surface that fills the frame has no scale, so several depths and things are wanted.

    :param wanted: least and largest ratio of far to near parts of the picture.
    """
    depth = np.minimum(depth_m, FARTHEST_M)
    near, far = np.percentile(depth, (10, 90))
    nearest = 0.12 if kind in NEAR_KINDS else 0.3
    if float(depth.min()) < nearest:
        return 0.0
    _, counts = np.unique(index, return_counts=True)
    things = min(int((counts >= 2).sum()), 6) / (3 if kind in NEAR_KINDS else 4)
    spread = math.log(max(float(far / near), 1.01))
    narrow, wide = spread / math.log(wanted[0]), math.log(wanted[1]) / spread
    return min(things, narrow, wide, float(near) / nearest / 1.5)


def _pose(scene: Scene, rng: np.random.Generator) -> Floats | None:
    """Return a random pose (4, 4) of the camera that keeps clear of everything, or None."""
    subject = None
    if scene.kind in NEAR_KINDS:
        position = _around_table(scene, rng)
    else:
        if rng.random() < 0.4:
            subject = _subject(scene, rng)
        if subject is None:
            flat = rng.uniform(scene.walk_low_m, scene.walk_high_m)
            position = np.array([flat[0], flat[1], _camera_height(scene, rng)])
        else:
            position = _around(subject, scene, rng)
    margin = 0.1 if scene.kind in NEAR_KINDS else 0.25
    if position[2] < 0.3:
        margin = 0.08
    if clearance_m(scene.solids, scene.shell, position[None])[0] < margin:
        return None
    if subject is None:
        target = _target(scene, rng, position)
    else:
        reach = float(np.linalg.norm(subject - position))
        target = subject + rng.normal(0, 0.15 * reach, 3) * (1.0, 1.0, 0.6)
    return look_at(position, target, _roll(rng))


def _subject(scene: Scene, rng: np.random.Generator) -> Floats | None:
    """Return the middle of a thing of 0.1 to 5 m in the part where cameras are, or None."""
    solids = scene.solids
    flat, size = solids.center_m[:, :2], solids.half_m.max(axis=1)
    walk = (flat > scene.walk_low_m - 1).all(axis=1) & (flat < scene.walk_high_m + 1).all(axis=1)
    chosen = np.flatnonzero(walk & (size > 0.05) & (size < 2.5) & (solids.center_m[:, 2] < 2.5))
    if not len(chosen):
        return None
    return np.asarray(solids.center_m[chosen[int(rng.integers(len(chosen)))]].copy(), float)


def _around(subject: Floats, scene: Scene, rng: np.random.Generator) -> Floats:
    """Return a place 0.6 to 4 m from a thing."""
    distance, angle = math.exp(rng.uniform(-0.5, 1.4)), rng.uniform(0, 2 * math.pi)
    flat = subject[:2] + distance * np.array([math.cos(angle), math.sin(angle)])
    flat = np.clip(flat, scene.walk_low_m, scene.walk_high_m)
    return np.array([flat[0], flat[1], _camera_height(scene, rng)])


def _camera_height(scene: Scene, rng: np.random.Generator) -> float:
    """Return the height of a small robot, a wheeled base, a vehicle, a hand or a drone."""
    kind = rng.random()
    if kind < 0.2:
        height = rng.uniform(0.1, 0.35)
    elif kind < 0.5:
        height = rng.uniform(0.35, 1.1)
    elif kind < 0.9 or np.isfinite(scene.shell.high_m[2]):
        height = rng.uniform(1.0, 1.9)
    else:
        height = rng.uniform(1.9, 5.0)
    top = scene.shell.high_m[2]
    return float(min(height, top - 0.4) if np.isfinite(top) else height)


def _around_table(scene: Scene, rng: np.random.Generator) -> Floats:
    distance, angle = rng.uniform(0.3, 1.1), rng.uniform(0, 2 * math.pi)
    height = rng.uniform(0.1, 1.3)
    flat = distance * math.cos(height)
    offset = (flat * math.cos(angle), flat * math.sin(angle), distance * math.sin(height))
    return np.asarray(scene.center_m + offset, float)


def _target(scene: Scene, rng: np.random.Generator, position: Floats) -> Floats:
    """Return the point that the camera looks at."""
    if scene.kind in NEAR_KINDS:
        return np.asarray(scene.center_m + rng.normal(0, (0.12, 0.12, 0.05)), float)
    kind, target = rng.random(), scene.center_m.copy()
    spread = (scene.walk_high_m - scene.walk_low_m) * 0.2
    target[:2] += rng.normal(0, 1, 2) * spread
    if kind < 0.3 and len(scene.solids.kind):
        near = np.linalg.norm(scene.solids.center_m - position, axis=1)
        close = np.flatnonzero((near > 0.5) & (near < 12))
        if len(close):
            target = scene.solids.center_m[close[int(rng.integers(len(close)))]].copy()
    elif scene.kind in _LONG_KINDS and kind < 0.65:
        ahead = 20.0 * (1 if rng.random() < 0.5 else -1)
        target = position + np.array([ahead, rng.normal(0, 4), 0.0])
    away = target - position
    distance = max(float(np.hypot(away[0], away[1])), 0.5)
    pitch = rng.normal(-0.1 if position[2] < 2 else -0.35, 0.14)
    if rng.random() < 0.18:
        pitch = -rng.uniform(0.2, 0.8)
    target[2] = position[2] + distance * math.tan(pitch)
    if np.hypot(away[0], away[1]) < 0.3:
        target[0] += 0.5
    return np.asarray(target, float)


def _roll(rng: np.random.Generator) -> float:
    return float(rng.normal(0, 0.25) if rng.random() < 0.15 else rng.normal(0, 0.03))
