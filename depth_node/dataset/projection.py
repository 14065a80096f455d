"""Scans, clouds and depth images -> depth at pixels of what the network sees.

Points are brought to the camera of the image at the image's own stamp: a point p of a sensor that
measured at time s is at ``T_world_camera(t)^-1 T_world_camera(s) T_camera_sensor p``.  What a
camera does not see although its pixel is right, because something nearer hides it, is taken out:
of the points on one pixel the nearest stays, and of those in a window only those that are not
clearly behind the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node import camera
from depth_node.dataset.sparse_depth import SparseDepth
from depth_node.dataset.sparse_depth import SparseSource
from depth_node.errors import RecordingError
from depth_node.frames import CameraFields
from depth_node.frames import CameraModel
from depth_node.recording.messages import LaserScanFields
from depth_node.recording.points import LONGEST_SWEEP_S

Floats = NDArray[np.float64]

WIDEST_BASELINE_M = 0.01
"""Sensors nearer to the camera than this see what it sees; nothing is taken out as hidden."""

_LONGER_THAN_SCAN = 1.5


@dataclass(frozen=True)
class ProjectionLimits:
    """Which points are believed."""

    min_m: float = 0.1
    """Nearer than this along z is no measurement, metres."""
    max_m: float = 80.0
    """Farther than this is left out, metres."""
    window_share: float = 0.03
    """Side of the window that searches for something nearer, as a share of the image's width."""
    behind_share: float = 0.12
    """A point is behind another when its depth is larger by this share ..."""
    behind_m: float = 0.1
    """... and this much, metres."""
    most_points: int = 4096
    """More points are thinned out evenly."""


@dataclass(frozen=True, eq=False)
class Target:
    """What points are projected to."""

    camera: CameraModel
    """At network size."""
    seen: NDArray[np.bool_]
    """(h, w) False where rectification found no pixel."""


def projected(
    points_m: Floats,
    T_camera_sensor: Floats,  # noqa: N803
    target: Target,
    source: SparseSource,
    limits: ProjectionLimits | None = None,
) -> SparseDepth:
    """Project points to pixels and take out those that the camera cannot see.

    :param points_m: (N, 3) in the frame of the sensor, metres; rows that are not finite are left
        out.
    :param T_camera_sensor: (4, 4) pose of the sensor, at the time of the points, in the frame of
        the camera at the time of the image.
    """
    limits = limits or ProjectionLimits()
    pose = np.asarray(T_camera_sensor, np.float64)
    there = np.isfinite(points_m).all(axis=1)
    inside = np.asarray(points_m, np.float64)[there] @ pose[:3, :3].T + pose[:3, 3]
    z = inside[:, 2]
    inside = inside[(z >= limits.min_m) & (z <= limits.max_m)]
    u, v, z = _pixels(inside, target)
    first = _nearest_per_pixel(u, v, z, target.camera)
    u, v, z = u[first], v[first], z[first]
    if np.linalg.norm(pose[:3, 3]) > WIDEST_BASELINE_M:
        kept = ~_hidden(u, v, z, target.camera, limits)
        u, v, z = u[kept], v[kept], z[kept]
    if len(z) > limits.most_points:
        # a fixed stride would fall into step with the rows of an image
        thin = np.random.default_rng(len(z)).permutation(len(z))[: limits.most_points]
        thin.sort()
        u, v, z = u[thin], v[thin], z[thin]
    return SparseDepth(u.astype(np.float32), v.astype(np.float32), z.astype(np.float32), source)


def scan_points(scan: LaserScanFields) -> Floats:
    """Return the end points of the rays that hit something, (N, 3) in the scanner's frame, metres.

    What is shorter than the range that the scanner names, longer, or not finite is left out.
    """
    return _ends(scan)[0]


def scan_points_and_times(scan: LaserScanFields) -> tuple[Floats, Floats | None]:
    """Return the end points of rays as :func:`scan_points`, and when each was measured.

    :returns: points, and (N,) seconds after the stamp of the scan, which is the time of its first
        ray; None where the scan does not say how long it takes.
    :raises RecordingError: where the time from ray to ray is none, or contradicts that from scan
        to scan.
    """
    points, rays = _ends(scan)
    step = scan.time_increment_s
    if step == 0.0:
        return points, None
    whole = step * max(len(scan.ranges_m) - 1, 0)
    if not abs(whole) <= LONGEST_SWEEP_S:
        received = f'{step:g} s from ray to ray (time_increment) at {len(scan.ranges_m)} rays'
        expected = f'a scan of at most {LONGEST_SWEEP_S:g} s'
    elif scan.scan_time_s > 0.0 and abs(whole) > _LONGER_THAN_SCAN * scan.scan_time_s:
        received = f'rays over {whole:g} s (time_increment) in a scan of {scan.scan_time_s:g} s'
        expected = 'a scan_time that is no shorter'
    else:
        return points, step * rays
    raise RecordingError('laser scan', received, expected, 'Mend the driver of the scanner.')


def _ends(scan: LaserScanFields) -> tuple[Floats, Floats]:
    """Return the end points (N, 3) of rays that hit something, and their numbers (N,)."""
    ranges = scan.ranges_m.astype(np.float64)
    angles = scan.angle_min_rad + scan.angle_increment_rad * np.arange(len(ranges))
    # at the very end of the range some scanners write 'nothing'
    good = np.isfinite(ranges) & (ranges > 0.0)
    good &= (ranges >= scan.range_min_m) & (ranges < scan.range_max_m)
    ranges, angles = ranges[good], angles[good]
    ends = np.stack(
        [ranges * np.cos(angles), ranges * np.sin(angles), np.zeros_like(ranges)], axis=1
    )
    return ends, np.flatnonzero(good).astype(np.float64)


@dataclass(frozen=True, eq=False)
class DepthRays:
    """The rays of the pixels of a depth image, thinned out."""

    slopes: Floats
    """(H', W', 2) x/z and y/z of every used pixel; NaN where it has no ray."""
    step: int
    """Every how many pixels, along both axes."""
    height: int
    """Rows of the whole image."""
    width: int
    """Columns of the whole image."""

    def points(self, depth_m: NDArray[np.float32]) -> Floats:
        """Return the points of a depth image, (N, 3) in its optical frame, metres.

        :param depth_m: (height, width) metres along z; NaN and Inf are left out.
        """
        z = depth_m[:: self.step, :: self.step].astype(np.float64)
        points = np.concatenate([self.slopes * z[..., None], z[..., None]], axis=2).reshape(-1, 3)
        good = np.isfinite(points).all(axis=1) & (points[:, 2] > 0.0)
        return np.asarray(points[good])


def depth_rays(
    fields: CameraFields, height: int, width: int, rectified: bool, wanted: int = 20000
) -> DepthRays:
    """Return the rays of a depth image.

    :param fields: its camera_info.
    :param height: rows of the image.
    :param width: columns of the image.
    :param rectified: the image is without distortion: P holds.
    :param wanted: about how many pixels are used.
    :raises CameraRejected: where the fields describe no camera of such an image.
    """
    step = max(1, round(np.sqrt(height * width / wanted)))
    model = camera.view_of(fields, width, height, rectify=False, rectified_input=rectified).model
    own = camera.raw_camera(fields)
    if (
        not rectified
        and camera.has_distortion(fields)
        and (own.height, own.width)
        == (
            height,
            width,
        )
    ):
        slopes = camera.undistorted_slopes(fields)
    else:
        slopes = np.stack(np.meshgrid(*camera.ray_slopes(model)), axis=2).astype(np.float64)
    return DepthRays(slopes[::step, ::step], step, height, width)


def _pixels(points: Floats, target: Target) -> tuple[Floats, Floats, Floats]:
    """Return column, row and depth of the points that fall on pixels that were seen."""
    model = target.camera
    z = points[:, 2]
    u = model.fx * points[:, 0] / z + model.cx
    v = model.fy * points[:, 1] / z + model.cy
    inside = (u > -0.5) & (u < model.width - 0.5) & (v > -0.5) & (v < model.height - 0.5)
    u, v, z = u[inside], v[inside], z[inside]
    seen = target.seen[np.rint(v).astype(np.intp), np.rint(u).astype(np.intp)]
    # stored pixels are not negative
    return np.maximum(u[seen], 0.0), np.maximum(v[seen], 0.0), z[seen]


def _nearest_per_pixel(u: Floats, v: Floats, z: Floats, model: CameraModel) -> NDArray[np.intp]:
    """Return which points are the nearest of their pixel."""
    pixel = np.rint(v).astype(np.int64) * model.width + np.rint(u).astype(np.int64)
    order = np.lexsort((z, pixel))
    _, first = np.unique(pixel[order], return_index=True)
    return np.asarray(order[first], np.intp)


def _hidden(
    u: Floats, v: Floats, z: Floats, model: CameraModel, limits: ProjectionLimits
) -> NDArray[np.bool_]:
    """Tell which points are seen through a nearer surface: (N,)."""
    rows, columns = np.rint(v).astype(np.intp), np.rint(u).astype(np.intp)
    buffer = np.full((model.height, model.width), np.inf, np.float32)
    buffer[rows, columns] = z
    side = 2 * max(1, round(0.5 * limits.window_share * model.width)) + 1
    nearest = cv2.erode(
        buffer, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT,
        borderValue=float('inf'),
    )[rows, columns]  # fmt: skip
    return np.asarray(z > nearest * (1.0 + limits.behind_share) + limits.behind_m)
