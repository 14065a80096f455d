"""Points followed from frame to frame, triangulated with recorded poses: depth without a network.

Corners are followed by pyramids (Lucas-Kanade; Bouguet's implementation in OpenCV), starting where
the known turn puts them, and back again; what does not come back to where it started, or leaves
the epipolar line that the poses demand, is dropped.  Inverse depth is linear in what a source
sees: with the ray r of the target, source = R r + rho t, so that
``rho (t_x - x' t_z) = x' (R r)_z - (R r)_x`` and the same for y; least squares over all sources,
weighted so that residuals are pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.dataset import sparse_depth
from depth_node.dataset.frame_cache import FrameCache
from depth_node.dataset.pairs import Pair
from depth_node.dataset.pairs import PairLimits
from depth_node.dataset.pairs import plan_pairs
from depth_node.dataset.sparse_depth import SparseDepth
from depth_node.dataset.sparse_depth import SparseSource
from depth_node.frames import CameraModel

Floats = NDArray[np.float64]
Grey = NDArray[np.uint8]

SOURCE = SparseSource(sparse_depth.TRACKS, 'tracks with recorded poses')

_WINDOW_PX = 15
_LEVELS = 3
_REFINEMENTS = 3
_ROUNDS = 3
_PROBED = 12
_SETTLED = 0.05


@dataclass(frozen=True)
class TrackLimits:
    """Which tracks are believed."""

    most_corners: int = 400
    """Per target."""
    apart_px: float = 4.0
    """Between two corners, pixels."""
    max_return_px: float = 0.5
    """Between a corner and where following it there and back ends, pixels."""
    max_epipolar_px: float = 0.75
    """Between a followed corner and the line that the poses demand, pixels."""
    max_residual_px: float = 1.0
    """Of the triangulated point in any of its sources, pixels."""
    min_angle_rad: float = np.deg2rad(0.7)
    """Between the two rays that are farthest apart, radians."""
    noise_px: float = 0.5
    """Standard deviation of a followed corner, pixels; what the uncertainty is reckoned from."""
    max_uncertainty: float = 0.25
    """Standard deviation of the depth as a share of it."""


@dataclass(frozen=True, eq=False)
class TrackedDepth:
    """Depth at corners of a target."""

    depth: SparseDepth
    """At pixels of the target."""
    sigma_m: NDArray[np.float32]
    """(N,) standard deviation of each depth that the noise of following explains, metres."""


def tracked_depth(
    cache: FrameCache, pairs: Sequence[Pair], limits: TrackLimits | None = None
) -> TrackedDepth:
    """Measure depth at corners of a frame.

    :param pairs: of one target.
    :raises RecordingError: when an image of the cache cannot be read.
    """
    target = grey_of(cache.rgb(pairs[0].target))
    sources = [(grey_of(cache.rgb(pair.source)), pair.T_source_target) for pair in pairs]
    return triangulated(target, sources, cache.camera, cache.seen, limits)


def triangulated(
    target: Grey,
    sources: Sequence[tuple[Grey, Floats]],
    model: CameraModel,
    seen: NDArray[np.bool_],
    limits: TrackLimits | None = None,
) -> TrackedDepth:
    """Measure depth at corners of an image.

    :param target: (h, w) grey.
    :param sources: (h, w) grey each, and (4, 4) T_source_target, metres.
    :param model: camera of all images.
    :param seen: (h, w) False where images are black.
    """
    limits = limits or TrackLimits()
    corners = corners_in(target, seen, limits)
    slopes = (corners - (model.cx, model.cy)) / (model.fx, model.fy)
    rays = np.concatenate([slopes, np.ones((len(slopes), 1))], axis=1)
    followed = [
        _followed(target, grey, corners, rays, pose, model, limits) for grey, pose in sources
    ]
    rho, sigma, good = _solved(rays, followed, [pose for _, pose in sources], model, limits)
    with np.errstate(divide='ignore', invalid='ignore'):
        z, sigma_z = 1.0 / rho, sigma / rho**2
    parts = [
        values[good].astype(np.float32) for values in (corners[:, 0], corners[:, 1], z, sigma_z)
    ]
    u, v, metres, deviation = parts
    return TrackedDepth(SparseDepth(u, v, metres, SOURCE), deviation)


def measured_depth_m(
    cache: FrameCache, indices: Sequence[int], guess_m: float = 3.0
) -> float | None:
    """Return the median depth of what frames show, as far as corners tell, metres.

    Which frames make a pair depends on the depth, and the depth is measured by pairs: both are
    found in turns, the first time with wide limits.

    :param indices: frames of the cache, in the order of time.
    :param guess_m: where to begin, metres.
    :returns: None where the poses allow no measurement.
    :raises RecordingError: when an image of the cache cannot be read.
    """
    depth_m, found = guess_m, False
    for turn in range(_ROUNDS):
        limits = PairLimits(min_parallax_px=2.0, max_parallax_px=40.0) if not turn else None
        targets = list(plan_pairs(cache, indices, depth_m, limits).targets.values())
        step = max(1, len(targets) // _PROBED)
        parts = [tracked_depth(cache, pairs).depth.depth_m for pairs in targets[::step]]
        depths = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        if not len(depths):
            continue
        last, depth_m, found = depth_m, float(np.median(depths)), True
        if abs(np.log(depth_m / last)) < _SETTLED:
            break
    return depth_m if found else None


def grey_of(rgb: NDArray[np.uint8]) -> Grey:
    """Return (h, w) grey of (h, w, 3) RGB."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def corners_in(grey: Grey, seen: NDArray[np.bool_], limits: TrackLimits) -> Floats:
    """Return (N, 2) corners, pixels, away from what was not seen."""
    border = _WINDOW_PX // 2
    mask = np.zeros(grey.shape, np.uint8)
    mask[border:-border, border:-border] = seen[border:-border, border:-border]
    if not seen.all():
        kernel = np.ones((_WINDOW_PX, _WINDOW_PX), np.uint8)
        mask &= cv2.erode(seen.astype(np.uint8), kernel)
    found = cv2.goodFeaturesToTrack(
        grey, limits.most_corners, 0.005, limits.apart_px, mask=mask, blockSize=5
    )
    return np.zeros((0, 2)) if found is None else found.reshape(-1, 2).astype(np.float64)


Followed = tuple[Floats, NDArray[np.bool_]]


def _followed(
    target: Grey,
    source: Grey,
    corners: Floats,
    rays: Floats,
    pose: Floats,
    model: CameraModel,
    limits: TrackLimits,
) -> Followed:
    """Return where corners are in a source, (N, 2) pixels, and which (N,) are believed."""
    nothing = np.zeros(len(corners), bool)
    if not len(corners):
        return corners, nothing
    turned = rays @ pose[:3, :3].T
    ahead = turned[:, 2] > 0.1
    start = np.where(ahead[:, None], _projected(turned, model), corners)
    there, good = flow_of(target, source, corners, start)
    inside = (there >= 0.0) & (there <= (model.width - 1.0, model.height - 1.0))
    good &= ahead & inside.all(axis=1)
    good &= _epipolar_px(there, turned, pose, model) <= limits.max_epipolar_px
    if good.any():
        # back from a place of its own, so that standing still is no success
        begin = there[good] + (corners - start)[good]
        back, returned = flow_of(source, target, there[good], begin)
        near = np.linalg.norm(back - corners[good], axis=1) <= limits.max_return_px
        good[good] = returned & near
    return there, good


def flow_of(one: Grey, two: Grey, points: Floats, start: Floats) -> Followed:
    """Follow points from one image to another.

    :param points: (N, 2) in the first, pixels.
    :param start: (N, 2) where to begin to look in the second.
    :returns: (N, 2) in the second, and which were found.
    """
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)
    moved, status, _ = cv2.calcOpticalFlowPyrLK(
        one, two, _flat(points), _flat(start),
        winSize=(_WINDOW_PX, _WINDOW_PX), maxLevel=_LEVELS, criteria=criteria,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW, minEigThreshold=1e-4,
    )  # fmt: skip
    return moved[:, 0].astype(np.float64), status[:, 0] > 0


def _flat(points: Floats) -> NDArray[np.float32]:
    """Return (N, 1, 2), which OpenCV may write to."""
    return np.array(points, np.float32, order='C').reshape(-1, 1, 2)


def _projected(points: Floats, model: CameraModel) -> Floats:
    with np.errstate(divide='ignore', invalid='ignore'):
        slopes = points[:, :2] / points[:, 2:]
    return np.asarray(slopes * (model.fx, model.fy) + (model.cx, model.cy))


def _epipolar_px(there: Floats, turned: Floats, pose: Floats, model: CameraModel) -> Floats:
    """Return (N,) the distance from the line through all places that a depth would allow, pixels.

    Its points are those of ``turned + rho t``; the normal in pixels is the cross product's, scaled
    by the focal lengths.
    """
    seen = np.concatenate(
        [(there - (model.cx, model.cy)) / (model.fx, model.fy), np.ones((len(there), 1))], axis=1
    )
    line = np.cross(turned, pose[:3, 3][None])
    length = np.hypot(line[:, 0] / model.fx, line[:, 1] / model.fy)
    with np.errstate(divide='ignore', invalid='ignore'):
        distance = np.abs((line * seen).sum(axis=1)) / length
    return np.where(np.isfinite(distance), distance, np.inf)


def _solved(
    rays: Floats,
    followed: Sequence[Followed],
    poses: Sequence[Floats],
    model: CameraModel,
    limits: TrackLimits,
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return inverse depth, its standard deviation, 1/m, and which are believed, (N,) each."""
    count = len(rays)
    focal = np.array([model.fx, model.fy])
    rho = np.zeros(count)
    used = [good.copy() for _, good in followed]
    for _ in range(_REFINEMENTS):
        normal, moment = np.zeros(count), np.zeros(count)
        for (there, _), good, pose in zip(followed, used, poses, strict=True):
            slope = (there - (model.cx, model.cy)) / focal
            turned, t = rays @ pose[:3, :3].T, pose[:3, 3]
            # dividing by the depth in the source makes residuals of pixels
            scale = focal / np.maximum(turned[:, 2:] + rho[:, None] * t[2], 0.05)
            a = (t[:2] - slope * t[2]) * scale
            b = (slope * turned[:, 2:] - turned[:, :2]) * scale
            normal += np.where(good, (a * a).sum(axis=1), 0.0)
            moment += np.where(good, (a * b).sum(axis=1), 0.0)
        with np.errstate(divide='ignore', invalid='ignore'):
            rho = np.where(normal > 0.0, moment / normal, 0.0)
        rho = np.maximum(rho, 0.0)
    sigma = limits.noise_px / np.sqrt(np.maximum(normal, 1e-12))
    worst, angle = _residuals(rays, rho, followed, poses, model)
    good = (rho > 0.0) & (worst <= limits.max_residual_px)
    good &= (sigma <= limits.max_uncertainty * rho) & (angle >= limits.min_angle_rad)
    return rho, sigma, good


def _residuals(
    rays: Floats,
    rho: Floats,
    followed: Sequence[Followed],
    poses: Sequence[Floats],
    model: CameraModel,
) -> tuple[Floats, Floats]:
    """Return (N,) the largest residual, pixels, and the largest angle between rays, radians."""
    worst, widest = np.zeros(len(rays)), np.zeros(len(rays))
    for (there, good), pose in zip(followed, poses, strict=True):
        turned = rays @ pose[:3, :3].T
        point = turned + rho[:, None] * pose[:3, 3]
        off = np.linalg.norm(_projected(point, model) - there, axis=1)
        off = np.where(point[:, 2] > 0.0, off, np.inf)
        worst = np.where(good, np.maximum(worst, off), worst)
        sine = np.linalg.norm(np.cross(turned, point), axis=1)
        angle = np.arctan2(sine, (turned * point).sum(axis=1))
        widest = np.where(good, np.maximum(widest, angle), widest)
    return worst, widest
