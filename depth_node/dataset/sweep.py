"""Points that a moving sensor measured one after the other, brought to one moment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.trajectory import Trajectory

Floats = NDArray[np.float64]

_STEP_S = 0.0005
"""Times are rounded to this; at 2 m/s and 1 rad/s half of it is 0.5 mm and 0.25 mrad."""


def at_one_moment(
    points_m: Floats,
    times_s: Floats,
    stamp_ns: int,
    trajectory: Trajectory,
    T_camera_sensor: Floats,  # noqa: N803
) -> Floats:
    """Return where the points were in the frame of the sensor as it was at one moment.

    The world stands still; points of times without a pose, or with a gap or a jump between them
    and that moment, are left out.

    :param points_m: (N, 3) each in the frame of the sensor at its own time, metres.
    :param times_s: (N,) time of each point, seconds after ``stamp_ns``.
    :param stamp_ns: the moment, by the clock of the trajectory.
    :param T_camera_sensor: (4, 4) pose of the sensor in the frame of the camera.
    :returns: (M, 3), M at most N; none where the pose of that moment is not known.
    """
    then = trajectory.at(stamp_ns)
    if then is None:
        return np.zeros((0, 3))
    ticks, which = np.unique(np.rint(times_s / _STEP_S).astype(np.int64), return_inverse=True)
    stamps = stamp_ns + np.rint(ticks * (_STEP_S * 1e9)).astype(np.int64)
    poses, known = trajectory.at_many(stamps)
    known &= _segments(trajectory, stamps) == _segments(trajectory, np.array([stamp_ns]))
    mount = np.asarray(T_camera_sensor, np.float64)
    moves = np.linalg.inv(then @ mount) @ poses @ mount
    kept = known[which]
    move = moves[which[kept]]
    points = np.asarray(points_m, np.float64)[kept]
    return np.asarray((move[:, :3, :3] @ points[:, :, None])[:, :, 0] + move[:, :3, 3])


def _segments(trajectory: Trajectory, stamps_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return in which piece without gap or jump each time lies, where its pose is known."""
    return trajectory.segments[np.searchsorted(trajectory.stamps_ns, stamps_ns, side='right') - 1]
