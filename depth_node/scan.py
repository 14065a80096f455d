"""A virtual laser scanner: the nearest thing in a band of rows of a depth image, per direction.

For costmaps: what is near marks, and +Inf, nothing within range, clears, which the missing points
of a cloud cannot do.  The scan lies in the plane through the camera's x and z axes; so it is
horizontal where the camera looks horizontally.

Frame: x forward, y left, z up, at the camera's place, as scans are defined (REP-103); angles grow
to the left.  Conventions of values: REP-117.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import ray_slopes
from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.frames import CameraModel

_OPTICAL = '_optical'


@dataclass(frozen=True, eq=False)
class Scan:
    """The fields of a sensor_msgs/LaserScan besides its header."""

    ranges_m: NDArray[np.float32]
    """(N,) distances from the camera, the rightmost first; +Inf nothing in range, NaN unknown."""
    angle_min_rad: float
    """Angle of the first, negative to the right."""
    angle_increment_rad: float
    """From one to the next."""
    range_min_m: float
    range_max_m: float

    @property
    def angle_max_rad(self) -> float:
        """Return the angle of the last."""
        return self.angle_min_rad + self.angle_increment_rad * (len(self.ranges_m) - 1)


class Scanner:
    """Makes scans of the depth images of one camera.

    :param camera: of the depth images.
    :param band: height of the band of rows about the camera's horizon, as a share of the image;
        at least one row is taken.
    :raises SettingsError: for a band outside of 0 to 1, or a horizon outside of the image.
    """

    def __init__(self, camera: CameraModel, *, band: float) -> None:
        if not 0.0 <= band <= 1.0:
            raise SettingsError('scan.band', quoted(band), '0 to 1')
        if not 0.0 <= camera.cy <= camera.height - 1:
            raise SettingsError(
                'scan',
                f'a camera whose horizon, row {camera.cy:.0f}, is not in the image',
                f'rows 0 to {camera.height - 1}',
            )
        half = max(0.5, band * camera.height / 2.0)
        self._rows = slice(
            max(0, math.ceil(camera.cy - half)),
            min(camera.height, math.floor(camera.cy + half) + 1),
        )
        slopes_x, _ = ray_slopes(camera)
        # z times this is the distance in the plane of the scan
        self._stretch = np.hypot(1.0, slopes_x).astype(np.float32)
        angles = -np.arctan(slopes_x.astype(np.float64))[::-1]
        # as wide as the widest pixel, so that no direction is without one
        self._increment = float(np.diff(angles).max()) if len(angles) > 1 else 1.0
        self._angle_min = float(angles[0])
        index = np.rint((angles - angles[0]) / self._increment).astype(np.intp)
        self._first_column = np.flatnonzero(np.diff(index, prepend=-1))

    def scan(self, depth_m: NDArray[np.float32], min_m: float, max_m: float) -> Scan:
        """Return what a scanner would see.

        :param depth_m: (H, W) metres along z of the camera's size; NaN unknown, +Inf nothing.
        :param min_m: nearest distance that counts.
        :param max_m: farthest; what is farther becomes +Inf.
        """
        band = depth_m[self._rows]
        # fmin passes NaN over: a direction is unknown only where all of its pixels are
        nearest = np.fmin.reduce(band, axis=0) * self._stretch
        ranges = np.fmin.reduceat(nearest[::-1], self._first_column)
        with np.errstate(invalid='ignore'):
            ranges[ranges > max_m] = np.inf
            ranges[ranges < min_m] = np.nan
        return Scan(ranges, self._angle_min, self._increment, min_m, max_m)


def scan_frame(frame_id: str) -> str:
    """Return the usual name of the frame with x forward beside an optical frame.

    REP-103 has the suffix ``_optical`` for frames with z forward: ``cam_optical_frame`` is beside
    ``cam_frame``, and ``cam_optical`` beside ``cam``.

    :returns: the same name where it has no such part.
    """
    head, found, tail = frame_id.rpartition(_OPTICAL)
    return head + tail if found else frame_id
