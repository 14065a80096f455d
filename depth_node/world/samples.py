"""Training samples: a random scene through a random camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import SettingsError
from depth_node.frames import CameraModel
from depth_node.world.render import FARTHEST_M
from depth_node.world.render import render
from depth_node.world.scene import Scene
from depth_node.world.scene import look_at
from depth_node.world.scenes import make
from depth_node.world.sensor import Sensor
from depth_node.world.sensor import random_sensor
from depth_node.world.solids import Floats
from depth_node.world.solids import clearance_m
from depth_node.world.tracing import Rays
from depth_node.world.tracing import trace

SHARES = {
    'room': 0.40,
    'closeup': 0.14,
    'corridor': 0.08,
    'warehouse': 0.10,
    'street': 0.22,
    'field': 0.06,
}
_LARGEST_PX = 8192
_PROBE_PX = (12, 16)
_TRIES = 12


@dataclass(frozen=True)
class Sample:
    """A picture with its exact depth."""

    rgb: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    depth_m: NDArray[np.float32]
    """(H, W) metres along z, exact at the pixel centres; +inf is sky."""
    camera: CameraModel
    """Intrinsics of both."""
    kind: str
    """Kind of the scene."""


@dataclass(frozen=True)
class Shot:
    """A sample before it is rendered."""

    scene: Scene
    T_world_camera: Floats
    """(4, 4) pose of the optical frame in the world."""
    camera: CameraModel
    sensor: Sensor


def draw(
    rng: np.random.Generator,
    height: int,
    width: int,
    views_per_scene: int = 1,
    supersample: float = 1.0,
) -> list[Sample]:
    """Draw a scene of a random kind and look at it from several places.

    :param rng: source of all choices; equal generators give equal samples.
    :param height: rows, 2 to 8192.
    :param width: columns, 2 to 8192.
    :param views_per_scene: samples to return; building a scene takes about as long as two views.
    :param supersample: rays per pixel and axis for the colors; above 1 edges are smooth.
    :raises SettingsError: when a size or a count is out of range.
    """
    return [taken(shot, rng, supersample) for shot in shots(rng, height, width, views_per_scene)]


def shots(
    rng: np.random.Generator, height: int, width: int, views_per_scene: int = 1
) -> list[Shot]:
    """Draw a scene of a random kind and cameras that look at it; nothing is rendered.

    Arguments and errors as of :func:`draw`.
    """
    if not (2 <= height <= _LARGEST_PX and 2 <= width <= _LARGEST_PX):
        raise SettingsError(
            'sample size', f'{width} x {height}', f'2 to {_LARGEST_PX} pixels each way'
        )
    if views_per_scene < 1:
        raise SettingsError('views_per_scene', str(views_per_scene), 'at least 1')
    kinds = list(SHARES)
    kind = kinds[int(rng.choice(len(kinds), p=list(SHARES.values())))]
    scene = make(kind, rng)
    return [_shot(scene, rng, height, width) for _ in range(views_per_scene)]


def _shot(scene: Scene, rng: np.random.Generator, height: int, width: int) -> Shot:
    camera = _camera(rng, height, width)
    return Shot(scene, _worthwhile_pose(scene, rng, camera), camera, random_sensor(rng))


def taken(shot: Shot, rng: np.random.Generator | None, supersample: float = 1.0) -> Sample:
    """Render a shot.

    :param rng: noise of the sensor; none where None.
    :param supersample: rays per pixel and axis for the colors.
    """
    rendered = render(
        shot.scene,
        shot.T_world_camera,
        pinhole_slopes(shot.camera),
        supersample=supersample,
        sensor=shot.sensor,
        rng=rng,
    )
    return Sample(rendered.rgb, rendered.depth_m, shot.camera, shot.scene.kind)


def pinhole_slopes(camera: CameraModel) -> NDArray[np.float64]:
    """Return x/z and y/z of every pixel centre, (H, W, 2)."""
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    return np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=2)


def _camera(rng: np.random.Generator, height: int, width: int) -> CameraModel:
    """Return a camera with a horizontal field of view of 45 to 112 degrees, mostly 55 to 85."""
    degrees = rng.uniform(48, 112) if rng.random() < 0.3 else rng.uniform(55, 85)
    focal = width / (2 * math.tan(math.radians(degrees) / 2))
    x, y = 1 + 0.03 * rng.normal(size=2).clip(-2, 2)
    return CameraModel(
        width,
        height,
        focal,
        focal * float(rng.uniform(0.99, 1.01)),
        (width - 1) / 2 * float(x),
        (height - 1) / 2 * float(y),
    )


def _worthwhile_pose(scene: Scene, rng: np.random.Generator, camera: CameraModel) -> Floats:
    """Return a pose from which there is something to see; the best of some tries."""
    small = CameraModel(
        _PROBE_PX[1],
        _PROBE_PX[0],
        camera.fx * _PROBE_PX[1] / camera.width,
        camera.fy * _PROBE_PX[0] / camera.height,
        (_PROBE_PX[1] - 1) / 2,
        (_PROBE_PX[0] - 1) / 2,
    )
    rays = Rays(pinhole_slopes(small))
    best, best_score = None, -math.inf
    for _ in range(_TRIES):
        pose = _pose(scene, rng)
        if pose is None:
            continue
        hits = trace(scene.solids, scene.shell, pose, rays)
        score = _score(hits.depth_m, hits.index, scene.kind)
        if score > best_score:
            best, best_score = pose, score
        if score >= 1.0:
            break
    if best is None:
        above = scene.center_m + np.array([0.0, 0.0, 1.2])
        return look_at(above, scene.center_m + np.array([0.8, 0.0, 0.3]))
    return best


def _score(depth_m: NDArray[np.float32], index: NDArray[np.intp], kind: str) -> float:
    """Return 1 or more for a view that may be used.

    One surface that fills the frame has no scale, so several depths and things are wanted.
    """
    depth = np.minimum(depth_m, FARTHEST_M)
    near, far = np.percentile(depth, (10, 90))
    nearest = 0.12 if kind == 'closeup' else 0.3
    if float(depth.min()) < nearest:
        return 0.0
    _, counts = np.unique(index, return_counts=True)
    things = min(int((counts >= 2).sum()), 6) / 4
    spread = math.log(max(float(far / near), 1.01)) / math.log(1.7)
    return min(things, spread, float(near) / nearest / 1.5)


def _pose(scene: Scene, rng: np.random.Generator) -> Floats | None:
    """Return a random pose (4, 4) of the camera that keeps clear of everything, or None."""
    if scene.kind == 'closeup':
        position = _around_table(scene, rng)
    else:
        flat = rng.uniform(scene.walk_low_m, scene.walk_high_m)
        position = np.array([flat[0], flat[1], _camera_height(scene, rng)])
    margin = 0.1 if scene.kind == 'closeup' else 0.25
    if position[2] < 0.3:
        margin = 0.08
    if clearance_m(scene.solids, scene.shell, position[None])[0] < margin:
        return None
    return look_at(position, _target(scene, rng, position), _roll(rng))


def _camera_height(scene: Scene, rng: np.random.Generator) -> float:
    """Return the height of a small robot, a wheeled base, a vehicle or a person's hand."""
    kind = rng.random()
    if kind < 0.2:
        height = rng.uniform(0.1, 0.35)
    elif kind < 0.55:
        height = rng.uniform(0.35, 1.1)
    elif kind < 0.95 or scene.kind in ('room', 'corridor'):
        height = rng.uniform(1.1, 1.9)
    else:
        height = rng.uniform(1.9, 3.5)
    top = scene.shell.high_m[2]
    return float(min(height, top - 0.4) if np.isfinite(top) else height)


def _around_table(scene: Scene, rng: np.random.Generator) -> Floats:
    distance, angle = rng.uniform(0.3, 1.1), rng.uniform(0, 2 * math.pi)
    height = rng.uniform(0.15, 1.3)
    flat = distance * math.cos(height)
    offset = (flat * math.cos(angle), flat * math.sin(angle), distance * math.sin(height))
    return np.asarray(scene.center_m + offset, float)


def _target(scene: Scene, rng: np.random.Generator, position: Floats) -> Floats:
    """Return the point that the camera looks at."""
    if scene.kind == 'closeup':
        return np.asarray(scene.center_m + rng.normal(0, (0.2, 0.2, 0.05)), float)
    kind, target = rng.random(), scene.center_m.copy()
    spread = (scene.walk_high_m - scene.walk_low_m) * 0.2
    target[:2] += rng.normal(0, 1, 2) * spread
    if kind < 0.3 and len(scene.solids.kind):
        near = np.linalg.norm(scene.solids.center_m - position, axis=1)
        close = np.flatnonzero((near > 0.5) & (near < 12))
        if len(close):
            target = scene.solids.center_m[close[int(rng.integers(len(close)))]].copy()
    elif scene.kind in ('street', 'corridor', 'warehouse') and kind < 0.75:
        ahead = 20.0 * (1 if rng.random() < 0.5 else -1)
        target = position + np.array([ahead, rng.normal(0, 4), 0.0])
    away = target - position
    distance = max(float(np.hypot(away[0], away[1])), 0.5)
    pitch = rng.normal(-0.1, 0.12)
    if rng.random() < 0.18:
        pitch = -rng.uniform(0.2, 0.8)
    target[2] = position[2] + distance * math.tan(pitch)
    if np.hypot(away[0], away[1]) < 0.3:
        target[0] += 0.5
    return np.asarray(target, float)


def _roll(rng: np.random.Generator) -> float:
    return float(rng.normal(0, 0.2) if rng.random() < 0.12 else rng.normal(0, 0.03))
