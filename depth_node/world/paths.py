"""How a robot or a hand carries a camera through a scene, without touching anything.

Base frame: x forward, y left, z up; on the floor under a robot, at the camera of a hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.world.builder import turned
from depth_node.world.scene import Scene
from depth_node.world.solids import Floats
from depth_node.world.solids import clearance_m
from depth_node.world.tracing import Rays
from depth_node.world.tracing import trace

ROBOT = 'robot'
HANDHELD = 'handheld'

_TRIES = 300
_CHECKED = 48
_SPEED_M_S = {ROBOT: 0.55, HANDHELD: 0.4}
_BODY_M = {ROBOT: 0.28, HANDHELD: 0.22}
_LEAST_PATH_M = 0.4
_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class Path:
    """Poses over time."""

    stamps_s: Floats
    """(N,) seconds from the start."""
    T_world_base: Floats
    """(N, 4, 4) pose of the base."""
    T_base_camera: Floats
    """(4, 4) pose of the optical frame (x right, y down, z forward) on the base."""

    def T_world_camera(self, index: int) -> Floats:  # noqa: N802
        """Return the pose (4, 4) of the optical frame in the world."""
        return np.asarray(self.T_world_base[index] @ self.T_base_camera, float)


@dataclass(frozen=True)
class PathSettings:
    """What kind of path is wanted."""

    carrier: str = ROBOT
    """'robot' (level, at a fixed height) or 'handheld' (walking, swaying)."""
    seconds: float = 10.0
    """Duration."""
    rate_hz: float = 15.0
    """Poses per second."""
    stand_still: bool = False
    """Begin with a fifth of the time without any motion."""
    turn: bool = False
    """End with 30 % of the time turning on the spot."""


def make(scene: Scene, rng: np.random.Generator, settings: PathSettings) -> Path:
    """Return a smooth path that keeps clear of everything and has something to see.

    :param rng: source of all choices; equal generators give equal paths.
    :raises SettingsError: for settings out of range, and when the scene has no room for a path.
    """
    _check(settings)
    seconds = settings.seconds
    count = max(2, round(seconds * settings.rate_hz))
    stamps = np.arange(count) / settings.rate_hz
    height = _height(scene, rng, settings.carrier)
    curve = _best_curve(scene, rng, settings, height)
    progress, turned_share, active = _phases(stamps / seconds, settings)
    flat = curve.at(progress)
    turn = float(rng.choice([-1, 1]) * rng.uniform(1.2, 2.4)) * turned_share
    yaw = curve.heading(progress) + turn
    T = np.tile(np.eye(4), (count, 1, 1))  # noqa: N806
    T[:, :2, 3] = flat
    if settings.carrier == ROBOT:
        T[:, :3, :3] = [turned(angle) for angle in yaw]
        mount = np.eye(4)
        mount[:3, :3] = _pitched(float(rng.uniform(0.0, 0.15))) @ _OPTICAL
        mount[:3, 3] = (0.1, 0.0, height)
        return Path(stamps, T, mount)
    sway = _Sway(rng)
    walking = np.cumsum(active) / settings.rate_hz
    T[:, 2, 3] = height + 0.015 * active * np.sin(2 * math.pi * 1.7 * walking)
    T[:, :3, :3] = [
        turned(angle + a) @ _pitched(0.12 + b) @ _rolled(c)
        for angle, (a, b, c) in zip(yaw, sway.angles(walking), strict=True)
    ]
    mount = np.eye(4)
    mount[:3, :3] = _OPTICAL
    return Path(stamps, T, mount)


def _check(settings: PathSettings) -> None:
    if settings.carrier not in _SPEED_M_S:
        raise SettingsError(
            'path', quoted(settings.carrier), f'one of {", ".join(sorted(_SPEED_M_S))}'
        )
    if not (0.1 <= settings.seconds <= 3600 and 0.1 <= settings.rate_hz <= 240):
        raise SettingsError(
            'path',
            f'{settings.seconds:g} s at {settings.rate_hz:g} Hz',
            '0.1 to 3600 s at 0.1 to 240 Hz',
        )


def _height(scene: Scene, rng: np.random.Generator, carrier: str) -> float:
    high = float(rng.uniform(0.35, 0.9) if carrier == ROBOT else rng.uniform(1.25, 1.6))
    return min(high, float(scene.shell.high_m[2]) - 0.4)


@dataclass(frozen=True)
class _Curve:
    """A cubic with given ends and directions, in the plane."""

    points: Floats
    """(4, 2) Bezier points."""

    def at(self, share: Floats) -> Floats:
        s = np.asarray(share)[:, None]
        a, b, c, d = self.points
        return np.asarray(
            (1 - s) ** 3 * a + 3 * (1 - s) ** 2 * s * b + 3 * (1 - s) * s**2 * c + s**3 * d
        )

    def heading(self, share: Floats) -> Floats:
        s = np.asarray(share)[:, None]
        a, b, c, d = self.points
        slope = (1 - s) ** 2 * (b - a) + 2 * (1 - s) * s * (c - b) + s**2 * (d - c)
        return np.unwrap(np.arctan2(slope[:, 1], slope[:, 0]))

    def length_m(self) -> float:
        steps = np.diff(self.at(np.linspace(0, 1, _CHECKED)), axis=0)
        return float(np.linalg.norm(steps, axis=1).sum())


def _best_curve(
    scene: Scene, rng: np.random.Generator, settings: PathSettings, height: float
) -> _Curve:
    moving = settings.seconds * (1 - 0.2 * settings.stand_still - 0.3 * settings.turn)
    longest = moving * _SPEED_M_S[settings.carrier] * 0.9
    shares = np.linspace(0, 1, _CHECKED)
    best, best_score = None, -math.inf
    for attempt in range(_TRIES):
        curve = _random_curve(scene, rng, longest * (0.12 + 0.88 * rng.random()))
        flat = curve.at(shares)
        room = _room_m(scene, flat, height, settings.carrier)
        if room < 0:
            continue
        heading = curve.heading(shares)
        winding = float(np.ptp(heading))
        score = min(curve.length_m(), longest) / longest - 0.2 * winding
        score += _outlook(scene, flat, heading, height)
        if score > best_score:
            best, best_score = curve, score
        if attempt > _TRIES // 3 and best_score > 1.2:
            break
    if best is None:
        raise SettingsError(
            'path',
            f'a {scene.kind} without free space',
            f'{_LEAST_PATH_M} m of free path',
            'Choose another seed.',
        )
    return best


def _random_curve(scene: Scene, rng: np.random.Generator, length: float) -> _Curve:
    start = rng.uniform(scene.walk_low_m, scene.walk_high_m)
    extent = scene.walk_high_m - scene.walk_low_m
    angle = rng.uniform(-math.pi, math.pi)
    if extent.max() > 2.5 * extent.min():
        along = 0.0 if extent[0] > extent[1] else math.pi / 2
        angle = along + math.pi * int(rng.integers(2)) + rng.normal(0, 0.1)
    bend = rng.normal(0, 0.5)
    first = np.array([math.cos(angle - bend), math.sin(angle - bend)])
    last = np.array([math.cos(angle + bend), math.sin(angle + bend)])
    end = start + max(length, _LEAST_PATH_M) * np.array([math.cos(angle), math.sin(angle)])
    return _Curve(np.stack([start, start + first * length / 3, end - last * length / 3, end]))


def _room_m(scene: Scene, flat: Floats, height: float, carrier: str) -> float:
    """Return the free space around the body on its way, less what it needs."""
    levels = (0.3, height) if carrier == ROBOT else (0.4, 1.0, height)
    points = np.concatenate([np.column_stack([flat, np.full(len(flat), z)]) for z in levels])
    return float(clearance_m(scene.solids, scene.shell, points).min()) - _BODY_M[carrier]


def _outlook(scene: Scene, flat: Floats, heading: Floats, height: float) -> float:
    """Return 1 where the camera looks into the open all the way, less before walls."""
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 8), np.linspace(-0.35, 0.35, 6))
    rays = Rays(np.stack([x, y], axis=2))
    worst = math.inf
    for k in (0, len(flat) // 2, len(flat) - 1):
        pose = np.eye(4)
        pose[:3, :3] = turned(float(heading[k])) @ _OPTICAL
        pose[:3, 3] = (*flat[k], height)
        depth = trace(scene.solids, scene.shell, pose, rays).depth_m
        worst = min(worst, float(np.median(depth)), 4 * float(depth.min()))
    return min(worst, 2.5) / 2.5


def _phases(share: Floats, settings: PathSettings) -> tuple[Floats, Floats, Floats]:
    """Return progress along the curve, share of the final turn, and whether anything moves."""
    still = 0.2 if settings.stand_still else 0.0
    turn = 0.3 if settings.turn else 0.0
    progress = _eased((share - still) / (1 - still - turn))
    rotation = _eased((share - (1 - turn)) / turn) if turn else np.zeros_like(share)
    ramp = np.clip((share - still) / 0.05, 0, 1) if still else np.ones_like(share)
    return progress, rotation, ramp


def _eased(share: Floats) -> Floats:
    """Start and stop gently."""
    s = np.clip(share, 0.0, 1.0)
    ramp = 0.15
    level = 1 / (1 - ramp)
    rising = level * s**2 / (2 * ramp)
    falling = 1 - level * (1 - s) ** 2 / (2 * ramp)
    return np.where(s < ramp, rising, np.where(s > 1 - ramp, falling, level * (s - ramp / 2)))


class _Sway:
    """Slow, smooth motion of a hand: sums of sines."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rates = rng.uniform(0.15, 0.9, (3, 3))
        self._shifts = rng.uniform(0, 2 * math.pi, (3, 3))
        self._sizes = np.array([0.10, 0.05, 0.025])

    def angles(self, times_s: Floats) -> Floats:
        """Return (N, 3) yaw, pitch and roll, radians; zero at time 0."""
        phase = 2 * math.pi * self._rates * times_s[:, None, None]
        waves = np.sin(phase + self._shifts) - np.sin(self._shifts)
        return np.asarray(waves.mean(axis=2) * self._sizes)


def _pitched(down_rad: float) -> Floats:
    """Return the rotation of a base that looks down."""
    cosine, sine = math.cos(down_rad), math.sin(down_rad)
    return np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])


def _rolled(angle_rad: float) -> Floats:
    cosine, sine = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])
