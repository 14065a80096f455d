"""Rotations of poses made steadier by a gyroscope.

A gyroscope is right from moment to moment and drifts; odometry wanders less over seconds than it
shakes from pose to pose.  So the turning comes from the gyroscope, and what it drifts away from
the poses, averaged over a second or so, is taken back (a complementary filter without delay).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.audit import GyroUse
from depth_node.dataset.clock_offset import TurnRates
from depth_node.dataset.gyroscope import Gyroscope
from depth_node.dataset.gyroscope import read_gyroscope
from depth_node.dataset.pose_source import camera_poses
from depth_node.dataset.poses import Floats
from depth_node.dataset.poses import rotation_vectors
from depth_node.dataset.poses import rotations_of
from depth_node.dataset.topics import RecordingTopics
from depth_node.dataset.trajectory import Trajectory
from depth_node.recording import Recording

_WINDOW_S = 1.0
_LARGEST_DRIFT_RAD = 1.0
_LEAST_POSES = 10
_LEAST_KNOWN = 0.9


def steadied_poses(
    recording: Recording, topics: RecordingTopics, camera_frame: str, use: GyroUse | None
) -> Trajectory | None:
    """Return the poses of a camera, see :func:`camera_poses`, steadied as an audit decided."""
    found = camera_poses(recording, topics, camera_frame)
    if found is None or use is None or topics.imu is None:
        return found
    gyroscope, _ = read_gyroscope(recording, topics.imu)
    return found if gyroscope is None else steadied_by(found, gyroscope, use)


def steadied_by(trajectory: Trajectory, gyroscope: Gyroscope, use: GyroUse) -> Trajectory:
    """Return poses that are steadied by a gyroscope as an audit decided."""
    rotation = np.array(use.R_camera_gyro).reshape(3, 3)
    rates = gyroscope.rates_in(rotation)
    return steadied(trajectory, replace(rates, stamps_ns=rates.stamps_ns + use.delay_ns))


def steadied(trajectory: Trajectory, rates: TurnRates) -> Trajectory:
    """Return poses whose rotation follows a gyroscope over short times, and theirs over longer.

    Places stay as they are; where the gyroscope has a gap, the poses count, and so they do in
    pieces of which it lacks a tenth, or in which it drifts by more than a radian.

    :param rates: in axes of the camera, by the clock of the poses; a constant bias is found from
        the poses themselves.
    """
    poses = trajectory.poses.copy()
    for number in np.unique(trajectory.segments):
        piece = np.flatnonzero(trajectory.segments == number)
        if len(piece) < _LEAST_POSES:
            continue
        rotations = _steadied(trajectory.stamps_ns[piece], poses[piece, :3, :3], rates)
        if rotations is not None:
            poses[piece, :3, :3] = rotations
    return replace(trajectory, poses=poses)


def _steadied(stamps_ns: NDArray[np.int64], rotations: Floats, rates: TurnRates) -> Floats | None:
    """Return the rotations (N, 3, 3) of one piece."""
    turns, known = rates.turned(stamps_ns[:-1], stamps_ns[1:])
    if known.mean() < _LEAST_KNOWN:
        return None
    steps = (np.diff(stamps_ns) / 1e9)[:, None]
    own = rotation_vectors(np.swapaxes(rotations[:-1], 1, 2) @ rotations[1:])
    bias_rad_s = (turns - own)[known].sum(axis=0) / steps[known].sum()
    turns = np.where(known[:, None], turns - steps * bias_rad_s, own)
    by_gyro = _chained(rotations_by(turns))
    apart = rotations @ np.swapaxes(by_gyro, 1, 2)
    middle = apart[len(apart) // 2]
    drift = rotation_vectors(apart @ middle.T)
    if np.linalg.norm(drift, axis=1).max() > _LARGEST_DRIFT_RAD:
        return None
    smooth = _averaged(drift, _WINDOW_S / float(np.median(steps)))
    return np.asarray(rotations_by(smooth) @ middle @ by_gyro)


def rotations_by(vectors: Floats) -> Floats:
    """Return the rotations (N, 3, 3) by axes times angles (N, 3), radians."""
    angles = np.linalg.norm(vectors, axis=1, keepdims=True)
    # sin(a / 2) / a, good at 0
    parts = vectors * np.sinc(angles / (2 * np.pi)) / 2.0
    return rotations_of(np.concatenate([parts, np.cos(angles / 2.0)], axis=1))


def _chained(steps: Floats) -> Floats:
    """Return the products (N + 1, 3, 3) of the first n of N rotations."""
    whole = np.tile(np.eye(3), (len(steps) + 1, 1, 1))
    for index, step in enumerate(steps):
        whole[index + 1] = whole[index] @ step
    return whole


def _averaged(values: Floats, sigma: float) -> Floats:
    """Return averages with Gaussian weights; at the ends over what there is."""
    reach = max(1, min(round(3 * sigma), (len(values) - 1) // 2))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    there = np.convolve(np.ones(len(values)), weights, mode='same')
    return np.stack([np.convolve(axis, weights, mode='same') / there for axis in values.T], axis=1)
