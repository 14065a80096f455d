"""Points of a recorded sensor_msgs/PointCloud2: the only code that believes its layout."""

from __future__ import annotations

from typing import Any
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import RecordingError
from depth_node.errors import quoted
from depth_node.frames import PointField
from depth_node.recording.messages import PointCloudFields

_FLOATS = {7: 'f4', 8: 'f8'}
_MAX_POINTS = 50_000_000
_WHO = 'point cloud'


def points_m(cloud: PointCloudFields) -> NDArray[np.float32]:
    """Return the points of a cloud in its own frame.

    :returns: (N, 3) float32 x, y, z in metres, in the order of the message; points that are not
        finite are left out, and so are those at the origin, which senders without NaN write for
        'nothing'.
    :raises RecordingError: when the fields contradict each other or the length of the data.
    """
    size = len(cloud.data)
    if not (0 <= cloud.width * cloud.height <= _MAX_POINTS and cloud.width >= 0):
        _refuse(f'{cloud.width} x {cloud.height} points', f'0 to {_MAX_POINTS} points')
    if cloud.width == 0 or cloud.height == 0:
        return np.zeros((0, 3), dtype=np.float32)
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
    return points[np.isfinite(points).all(axis=1) & points.any(axis=1)]


def _axis(cloud: PointCloudFields, field: PointField) -> NDArray[np.floating[Any]]:
    """Return one coordinate as a strided view (height, width) of the message."""
    kind = _FLOATS.get(field.datatype)
    if kind is None or field.count not in (0, 1):
        _refuse(
            f'field {quoted(field.name)} of datatype {field.datatype}, count {field.count}',
            'one FLOAT32 (7) or FLOAT64 (8)',
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
