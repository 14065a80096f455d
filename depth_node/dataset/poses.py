"""Rotations as quaternions, many at a time: interpolation and the angle between poses.

Quaternions are (..., 4) float64, order x y z w, unit length, as :mod:`recording.messages` has
them.  Source: K. Shoemake, Animating rotation with quaternion curves, 1985, for the spherical
interpolation; Hamilton's product for the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_PARALLEL = 1.0 - 1e-9


def quaternions_of(rotations: Floats) -> Floats:
    """Return the quaternions (N, 4) of rotations (N, 3, 3).

    Of the four ways to start (from w, x, y or z) the one with the largest divisor is taken.
    """
    m = np.asarray(rotations, dtype=np.float64)
    trace = np.trace(m, axis1=1, axis2=2)
    diagonal = np.diagonal(m, axis1=1, axis2=2)
    squares = np.concatenate([1.0 + 2.0 * diagonal - trace[:, None], 1.0 + trace[:, None]], axis=1)
    a = np.stack([m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], 1)
    s01, s02, s12 = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    # Row i of each 4x4 matrix is the quaternion times 4 q_i.
    rows = np.stack(
        [
            np.stack([squares[:, 0], s01, s02, a[:, 0]], 1),
            np.stack([s01, squares[:, 1], s12, a[:, 1]], 1),
            np.stack([s02, s12, squares[:, 2], a[:, 2]], 1),
            np.stack([a[:, 0], a[:, 1], a[:, 2], squares[:, 3]], 1),
        ],
        axis=1,
    )
    best = rows[np.arange(len(m)), np.argmax(squares, axis=1)]
    return np.asarray(best / np.linalg.norm(best, axis=1, keepdims=True))


def rotations_of(quaternions: Floats) -> Floats:
    """Return the rotations (N, 3, 3) of unit quaternions (N, 4)."""
    x, y, z, w = np.moveaxis(np.asarray(quaternions, dtype=np.float64), -1, 0)
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], -1),
            np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], -1),
            np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], -1),
        ],
        axis=-2,
    )


def interpolated(before: Floats, after: Floats, share: Floats) -> Floats:
    """Return poses between two: translations linearly, rotations along the shorter arc.

    :param before: (N, 4, 4).
    :param after: (N, 4, 4).
    :param share: (N,) 0 gives ``before``, 1 gives ``after``.
    """
    poses = np.tile(np.eye(4), (len(share), 1, 1))
    rest = (1.0 - share)[:, None]
    poses[:, :3, 3] = rest * before[:, :3, 3] + share[:, None] * after[:, :3, 3]
    one, two = quaternions_of(before[:, :3, :3]), quaternions_of(after[:, :3, :3])
    cosine = (one * two).sum(axis=1)
    two = np.where(cosine[:, None] < 0.0, -two, two)
    cosine = np.abs(cosine)
    angle = np.arccos(np.minimum(cosine, 1.0))[:, None]
    near = (cosine > _PARALLEL)[:, None]
    sine = np.where(near, 1.0, np.sin(angle))
    mixed = np.where(
        near,
        rest * one + share[:, None] * two,
        (np.sin(rest * angle) * one + np.sin(share[:, None] * angle) * two) / sine,
    )
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    poses[:, :3, :3] = rotations_of(mixed)
    return poses


def inverted(poses: Floats) -> Floats:
    """Return the inverses of rigid poses (N, 4, 4)."""
    back = np.tile(np.eye(4), (len(poses), 1, 1))
    turned = np.swapaxes(poses[:, :3, :3], 1, 2)
    back[:, :3, :3] = turned
    back[:, :3, 3] = -(turned @ poses[:, :3, 3:])[:, :, 0]
    return back


def rotation_vectors(rotations: Floats) -> Floats:
    """Return axis times angle (N, 3), radians, of rotations (N, 3, 3); angles up to pi."""
    q = quaternions_of(rotations)
    q = np.where(q[:, 3:] < 0.0, -q, q)
    sine = np.linalg.norm(q[:, :3], axis=1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, q[:, 3:])
    small = sine < 1e-12
    return np.asarray(q[:, :3] * np.where(small, 2.0, angle / np.where(small, 1.0, sine)))
