"""What two images say about the motion between them without depth: turn, and parallax left over.

Corners that were followed from one image to the other move because the camera turned and because
it moved across the line of sight.  A turn alone moves them all by one rule; where that rule leaves
too little over, nothing else is claimed.  Otherwise the essential matrix gives the turn (Nister's
five points with RANSAC, of OpenCV), and all that agree with it refine it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.image_rotation import rotation_between
from depth_node.dataset.poses import Floats
from depth_node.frames import CameraModel

FEWEST_TRACKS = 20
"""Followed corners below which two images say nothing."""

_TURN_ONLY_PX = 0.7
_INLIER_PX = 1.0
_LEAST_INLIERS = 0.5
_ROUNDS = 3
_GRID = (16, 12)


@dataclass(frozen=True)
class ViewChange:
    """How the view changed from one image to another."""

    flow_px: float
    """Median movement of corners, pixels."""
    angle_rad: float
    """By how much the camera turned, radians."""
    parallax_px: float
    """Median movement of corners that is not due to turning, pixels."""
    overlap: float
    """Share of the first image that the second shows, 0 to 1."""
    T_second_first: Floats
    """(4, 4), with a translation of length 1; NaN where turning explains all."""


def view_change(before_px: Floats, after_px: Floats, model: CameraModel) -> ViewChange | None:
    """Return the change between two images.

    :param before_px: (N, 2) corners in the first image, pixels; ``after_px`` the same in the
        second.
    :param model: camera of both.
    :returns: None where too few corners agree on one motion.
    """
    if len(before_px) < FEWEST_TRACKS:
        return None
    centre, focal = (model.cx, model.cy), np.array((model.fx, model.fy))
    before, after = (before_px - centre) / focal, (after_px - centre) / focal
    flow_px = float(np.median(np.linalg.norm(after_px - before_px, axis=1)))
    turn = rotation_between(before, after)
    if turn is None:
        return None
    matrix, shift = _matrix(-turn), np.full(3, np.nan)
    parallax_px = _left_px(matrix, before, after, focal)
    if parallax_px > _TURN_ONLY_PX:
        found = _essential(before, after, focal)
        if found is None:
            return None
        matrix, shift, agrees = found
        parallax_px = _left_px(matrix, before[agrees], after[agrees], focal)
    angle = float(np.linalg.norm(cv2.Rodrigues(matrix)[0]))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = matrix, shift
    return ViewChange(flow_px, angle, parallax_px, _overlap(before_px, after_px, model), pose)


def _matrix(turn: Floats) -> Floats:
    return np.asarray(cv2.Rodrigues(np.asarray(turn, np.float64))[0])


def _rays(slopes: Floats) -> Floats:
    return np.concatenate([slopes, np.ones((len(slopes), 1))], axis=1)


def _left_px(matrix: Floats, before: Floats, after: Floats, focal: Floats) -> float:
    """Return the median movement that a turn leaves over, pixels."""
    turned = _rays(before) @ matrix.T
    with np.errstate(divide='ignore', invalid='ignore'):
        left = (turned[:, :2] / turned[:, 2:] - after) * focal
    return float(np.median(np.linalg.norm(left, axis=1)))


def _essential(
    before: Floats, after: Floats, focal: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_]] | None:
    """Return turn (3, 3) and direction (3,), first camera to second, and who agrees with them."""
    threshold = _INLIER_PX / float(focal.mean())
    matrix, mask = cv2.findEssentialMat(before, after, np.eye(3), cv2.RANSAC, 0.999, threshold)
    if matrix is None or matrix.shape != (3, 3):
        return None
    agrees = mask.ravel() > 0
    if agrees.sum() < max(FEWEST_TRACKS, _LEAST_INLIERS * len(before)):
        return None
    _, turn, shift, _ = cv2.recoverPose(matrix, before[agrees], after[agrees], np.eye(3))
    return *_refined(turn, shift.ravel(), before[agrees], after[agrees]), agrees


def _refined(turn: Floats, shift: Floats, before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Return turn and direction that make all points lie on their epipolar lines best.

    Gauss-Newton.

    The residual is Sampson's: the epipolar product over the length of its gradient.
    """
    first, second = _rays(before), _rays(after)
    for _ in range(_ROUNDS):
        across = np.linalg.svd(shift[None])[2][1:]  # two directions square to the motion

        def residuals(step: Floats, turn=turn, shift=shift, across=across) -> Floats:  # type: ignore[no-untyped-def]
            moved = shift + step[3:] @ across
            return _sampson(_matrix(step[:3]) @ turn, moved, first, second)

        here = residuals(np.zeros(5))
        slopes = np.stack([(residuals(d) - here) / 1e-6 for d in 1e-6 * np.eye(5)], axis=1)
        weights = 1.0 / (1.0 + (here / (1.5 * float(np.median(np.abs(here))) + 1e-9)) ** 2)
        weighted = slopes * weights[:, None]
        # damped a little, as a shift along the line of sight may be free
        normal = weighted.T @ slopes
        step = np.linalg.solve(normal + 1e-6 * np.trace(normal) * np.eye(5), -weighted.T @ here)
        turn = _matrix(step[:3]) @ turn
        shift = shift + step[3:] @ across
        shift = shift / np.linalg.norm(shift)
        if np.linalg.norm(step[:3]) < 1e-5:
            break
    return turn, shift


def _sampson(turn: Floats, shift: Floats, first: Floats, second: Floats) -> Floats:
    """Return (N,) signed distances from epipolar lines, slopes."""
    cross = np.array(
        [[0, -shift[2], shift[1]], [shift[2], 0, -shift[0]], [-shift[1], shift[0], 0]]
    )
    matrix = cross @ turn
    there, back = first @ matrix.T, second @ matrix
    length = np.sqrt((there[:, :2] ** 2).sum(axis=1) + (back[:, :2] ** 2).sum(axis=1))
    return np.asarray((second * there).sum(axis=1) / np.maximum(length, 1e-12))


def _overlap(before_px: Floats, after_px: Floats, model: CameraModel) -> float:
    """Return the share of a grid that stays in the image, moved as the corners are on average."""
    rows = np.concatenate([before_px, np.ones((len(before_px), 1))], axis=1)
    bend = np.linalg.lstsq(rows, after_px, rcond=None)[0]
    u, v = np.meshgrid(
        (np.arange(_GRID[0]) + 0.5) * model.width / _GRID[0] - 0.5,
        (np.arange(_GRID[1]) + 0.5) * model.height / _GRID[1] - 0.5,
    )
    moved = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], axis=1) @ bend
    inside = (moved >= -0.5) & (moved <= (model.width - 0.5, model.height - 0.5))
    return float(inside.all(axis=1).mean())
