"""An inertial measurement unit on a base that moves along a path.

Poses are interpolated smoothly (cubic Hermite, C. de Boor, A Practical Guide to Splines) between
those of the path; rates are those of the interpolated motion, so that a perfect gyroscope turns
exactly as far as the camera does from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from depth_node.recording.messages import ImuFields
from depth_node.world.builder import tilted
from depth_node.world.builder import turned
from depth_node.world.paths import Path
from depth_node.world.solids import Floats

FRAME = 'imu_link'
"""Frame of the sensor."""

_GRAVITY_M_S2 = 9.81
_HALF_STEP_S = 0.001


@dataclass(frozen=True, eq=False)
class Imu:
    """A sensor that is fixed to the base, and what is wrong with it."""

    T_base_imu: Floats
    """(4, 4) pose on the base; turned, so that no axis is that of the base."""
    bias_rad_s: tuple[float, float, float] = (0.02, -0.015, 0.01)
    """Added to all turn rates, axes of the sensor."""
    noise_rad_s: float = 0.005
    """Standard deviation of turn rates."""
    noise_m_s2: float = 0.05
    """Standard deviation of accelerations."""


def mounted() -> Imu:
    """Return the sensor of generated recordings."""
    pose = np.eye(4)
    pose[:3, :3] = turned(0.6) @ tilted(-0.4)
    pose[:3, 3] = -0.05, 0.08, 0.12
    return Imu(pose)


def measured(
    path: Path, imu: Imu, rate_hz: float, rng: np.random.Generator, start_ns: int, frame_id: str
) -> list[ImuFields]:
    """Return what a sensor measures along a path, in the order of time.

    :param rate_hz: measurements per second.
    :param rng: source of the noise.
    :param start_ns: stamp of time 0 of the path, nanoseconds.
    """
    last_s = float(path.stamps_s[-1])
    times = np.arange(int(last_s * rate_hz) + 1) / rate_hz
    rotations, places = _sampled(path, imu, times)
    before, place_before = _sampled(path, imu, times - _HALF_STEP_S)
    after, place_after = _sampled(path, imu, times + _HALF_STEP_S)
    # R^T dR/dt is the cross product matrix of the rate in the axes of the sensor.
    slopes = np.swapaxes(rotations, 1, 2) @ (after - before) / (2 * _HALF_STEP_S)
    rates = np.stack([slopes[:, 2, 1], slopes[:, 0, 2], slopes[:, 1, 0]], axis=1)
    pushes = (place_after - 2 * places + place_before) / _HALF_STEP_S**2
    pushes[:, 2] += _GRAVITY_M_S2
    pushes = (np.swapaxes(rotations, 1, 2) @ pushes[:, :, None])[:, :, 0]
    rates += imu.bias_rad_s + rng.normal(0.0, imu.noise_rad_s, rates.shape)
    pushes += rng.normal(0.0, imu.noise_m_s2, pushes.shape)
    stamps = start_ns + np.rint(times * 1e9).astype(np.int64)
    return [
        ImuFields(rate, push, int(stamp), frame_id)
        for rate, push, stamp in zip(rates, pushes, stamps, strict=True)
    ]


def _sampled(path: Path, imu: Imu, times_s: Floats) -> tuple[Floats, Floats]:
    """Return rotation (N, 3, 3) and place (N, 3) of the sensor in the world; ends stand still."""
    poses = path.T_world_base @ imu.T_base_imu
    known = path.stamps_s
    slopes = np.gradient(poses, known, axis=0)
    times = np.clip(times_s, known[0], known[-1])
    at = np.clip(np.searchsorted(known, times, side='right') - 1, 0, len(known) - 2)
    width = (known[at + 1] - known[at])[:, None, None]
    s = ((times - known[at])[:, None, None]) / width
    mixed = (
        (1 + 2 * s) * (1 - s) ** 2 * poses[at]
        + s * (1 - s) ** 2 * width * slopes[at]
        + s**2 * (3 - 2 * s) * poses[at + 1]
        - s**2 * (1 - s) * width * slopes[at + 1]
    )
    # the closest rotation to a matrix that interpolation has bent a little
    u, _, v = np.linalg.svd(mixed[:, :3, :3])
    return np.asarray(u @ v), np.asarray(mixed[:, :3, 3])
