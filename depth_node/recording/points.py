"""Points of a recorded sensor_msgs/PointCloud2: the only code that believes its layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import RecordingError
from depth_node.errors import quoted
from depth_node.frames import PointField
from depth_node.recording.messages import PointCloudFields

_FLOATS = {7: 'f4', 8: 'f8'}
_TIMES = {5: 'i4', 6: 'u4', **_FLOATS}
_TIME_NAMES = ('t', 'time', 'timestamp', 'time_stamp', 'offset_time', 'time_offset')
LONGEST_SWEEP_S = 1.0
"""Points that are farther than this from the stamp of their message in time are not believed."""
_MAX_POINTS = 50_000_000
_WHO = 'point cloud'


def points_m(cloud: PointCloudFields) -> NDArray[np.float32]:
    """Return the points of a cloud in its own frame.

    :returns: (N, 3) float32 x, y, z in metres, in the order of the message; points that are not
        finite are left out, and so are those at the origin, which senders without NaN write for
        'nothing'.
    :raises RecordingError: when the fields contradict each other or the length of the data.
    """
    points, _ = _believed(cloud)
    return points


def points_and_times(
    cloud: PointCloudFields,
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """Return the points of a cloud, and when each of them was measured.

    A field named t, time, timestamp, time_stamp, offset_time or time_offset is the time.  Whole
    numbers are nanoseconds from the stamp of the message, floats are seconds from there, before
    or after; FLOAT64 may also be the time of day in seconds, milli-, micro- or nanoseconds: the
    unit is the one that puts all points near the stamp.

    :returns: points as :func:`points_m`, and (N,) seconds after the stamp of the message; None
        where there is no such field, or all points have the same time as the stamp.
    :raises RecordingError: as there, and where no unit puts all points within a second of the
        stamp.
    """
    points, kept = _believed(cloud)
    field = next((item for item in cloud.fields if item.name in _TIME_NAMES), None)
    if field is None or not len(points):
        return points, None
    raw = _axis(cloud, field, _TIMES, 'one INT32 (5), UINT32 (6), FLOAT32 (7) or FLOAT64 (8)')
    times_s = _seconds(raw.reshape(-1)[kept], field, cloud.stamp_ns)
    return points, times_s if times_s.any() else None


def _seconds(raw: NDArray[Any], field: PointField, stamp_ns: int) -> NDArray[np.float64]:
    """Return times in seconds after the stamp."""
    values = np.asarray(raw, np.float64)
    if field.datatype in (5, 6):
        candidates = [values / 1e9]
    else:
        candidates = [values]
        if field.datatype == 8:
            # the difference first: float64 holds times of day to a quarter of a microsecond
            candidates += [
                (values - stamp_ns / 1e9 * unit) / unit for unit in (1.0, 1e3, 1e6, 1e9)
            ]
    for seconds in candidates:
        if np.isfinite(seconds).all() and np.abs(seconds).max() <= LONGEST_SWEEP_S:
            return seconds
    low, high = float(values.min()), float(values.max())
    _refuse(
        f'times from {low:g} to {high:g} in its field {quoted(field.name)}',
        f'times within {LONGEST_SWEEP_S:g} s of the stamp of the message: whole nanoseconds or '
        'float seconds from there, or the time of day in FLOAT64',
    )


def _believed(cloud: PointCloudFields) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the points that mean something, and which (height * width,) of all they are."""
    size = len(cloud.data)
    if not (0 <= cloud.width * cloud.height <= _MAX_POINTS and cloud.width >= 0):
        _refuse(f'{cloud.width} x {cloud.height} points', f'0 to {_MAX_POINTS} points')
    if cloud.width == 0 or cloud.height == 0:
        return np.zeros((0, 3), dtype=np.float32), np.zeros(0, np.bool_)
    row = cloud.width * cloud.point_step
    if cloud.point_step <= 0 or cloud.row_step < row:
        _refuse(
            f'point_step {cloud.point_step} and row_step {cloud.row_step}',
            f'row_step of at least {cloud.width} points',
        )
    # The padding after the last row may be missing.
    if size < (cloud.height - 1) * cloud.row_step + row:
        _refuse(f'{size} bytes', f'{cloud.height} rows of {cloud.row_step} bytes')
    named = {field.name: field for field in cloud.fields}
    axes = [
        _axis(cloud, named[name] if name in named else _missing(name, named)) for name in 'xyz'
    ]
    with np.errstate(over='ignore'):  # beyond float32 is not finite, and left out
        points = np.stack([axis.astype(np.float32) for axis in axes], axis=-1).reshape(-1, 3)
    kept = np.isfinite(points).all(axis=1) & points.any(axis=1)
    return points[kept], np.asarray(kept)


def _axis(
    cloud: PointCloudFields,
    field: PointField,
    kinds: Mapping[int, str] = _FLOATS,
    expected: str = 'one FLOAT32 (7) or FLOAT64 (8)',
) -> NDArray[Any]:
    """Return one field of every point as a strided view (height, width) of the message."""
    kind = kinds.get(field.datatype)
    if kind is None or field.count not in (0, 1):
        _refuse(
            f'field {quoted(field.name)} of datatype {field.datatype}, count {field.count}',
            expected,
        )
    dtype = np.dtype(('>' if cloud.is_bigendian else '<') + str(kind))
    if not 0 <= field.offset <= cloud.point_step - dtype.itemsize:
        _refuse(
            f'field {quoted(field.name)} at offset {field.offset}',
            f'a place within the point_step of {cloud.point_step} bytes',
        )
    return np.ndarray(
        (cloud.height, cloud.width),
        dtype,
        cloud.data,
        field.offset,
        (cloud.row_step, cloud.point_step),
    )


def _missing(name: str, named: dict[str, PointField]) -> PointField:
    listed = ', '.join(quoted(item) for item in named) or 'none'
    raise RecordingError(_WHO, f'the fields {listed}', f'a field {name!r}')


def _refuse(received: str, expected: str) -> NoReturn:
    raise RecordingError(_WHO, received, expected, 'Mend what publishes the cloud.')
