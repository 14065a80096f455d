"""Which points of an enlarged depth image lie on no surface, and what a mask does to them.

A point flies when no surface that is seen within some pixels of it is nearer than 5 cm or 5 % of
its depth, whichever is more; the distance is that in space.  Surfaces farther away in the image
are not looked at, so that a few points too many count as flying and none too few.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera.fitting import ray_slopes
from depth_node.frames import CameraModel

NEAR_M = 0.05
"""A point this near to a surface, metres, lies on it."""
NEAR_SHARE = 0.05
"""The same as a share of the depth of the point; the larger of both counts."""
REACH_PX = 8
"""Surfaces are looked for within this many pixels each way."""
FARTHEST_M = 80.0
"""What is farther is no point, metres; the same as no surface."""

Depth = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass
class Count:
    """Points of some images, and what became of them."""

    flying: int = 0
    """Points that fly."""
    flying_removed: int = 0
    """Those of them that were removed."""
    good: int = 0
    """All other points."""
    good_removed: int = 0
    """Those of them that were removed."""

    def add(self, flying: Mask, judged: Mask, removed: Mask) -> None:
        """Count one image.

        :param flying: (H, W) points that fly.
        :param judged: (H, W) points that count.
        :param removed: (H, W) points that a mask has removed.
        """
        bad, good = flying & judged, judged & ~flying
        self.flying += int(bad.sum())
        self.flying_removed += int((bad & removed).sum())
        self.good += int(good.sum())
        self.good_removed += int((good & removed).sum())

    @property
    def removed_share(self) -> float:
        """Share of the flying points that were removed; NaN without any."""
        return self.flying_removed / self.flying if self.flying else np.nan

    @property
    def lost_share(self) -> float:
        """Share of the other points that were removed."""
        return self.good_removed / self.good if self.good else np.nan

    @property
    def before_share(self) -> float:
        """Share of flying points among all."""
        points = self.flying + self.good
        return self.flying / points if points else np.nan

    @property
    def after_share(self) -> float:
        """Share of flying points among all that were kept."""
        flying = self.flying - self.flying_removed
        points = flying + self.good - self.good_removed
        return flying / points if points else np.nan


def flying_points(depth_m: Depth, surface_m: Depth, camera: CameraModel, reach_px: int) -> Mask:
    """Tell which points are far from every surface around them.

    :param depth_m: (H, W) metres along z; what is not finite is no point.
    :param surface_m: (H, W) metres along z of the surfaces; NaN unknown, +Inf none.
    :param camera: of both, (H, W).
    :param reach_px: surfaces are looked for within so many pixels each way.
    """
    near_m = np.maximum(NEAR_M, NEAR_SHARE * depth_m)
    points = np.isfinite(depth_m)
    beside_m = np.abs(np.where(points, depth_m, np.float32(0.0)) - surface_m)
    rows, columns = np.nonzero(points & ~(beside_m <= near_m))
    flies = np.zeros(depth_m.shape, np.bool_)
    padded = np.pad(surface_m, reach_px, constant_values=np.nan)
    slopes_x, slopes_y = ray_slopes(camera)
    z_m, limit_m2 = depth_m[rows, columns], near_m[rows, columns] ** 2
    x_m, y_m = z_m * slopes_x[columns], z_m * slopes_y[rows]
    alone = np.ones(len(rows), np.bool_)
    for down in range(-reach_px, reach_px + 1):
        for right in range(-reach_px, reach_px + 1):
            there_m = padded[rows + down + reach_px, columns + right + reach_px]
            # the same line continued over the rim of the image; what lies there is NaN
            across = (columns + right - camera.cx) / camera.fx
            along = (rows + down - camera.cy) / camera.fy
            away_m2 = (
                (there_m - z_m) ** 2 + (there_m * across - x_m) ** 2 + (there_m * along - y_m) ** 2
            )
            alone &= ~(away_m2 <= limit_m2)
    flies[rows, columns] = alone
    return flies


def edges_of(depth_m: Depth) -> Mask:
    """Tell which pixels touch one that is more than twice the tolerance nearer or farther.

    Only between such surfaces is there room for a point that flies.

    :param depth_m: (H, W) metres along z; NaN unknown makes no edge, +Inf none does.
    """
    known = np.where(np.isnan(depth_m), np.inf, depth_m)
    nearest = cv2.erode(np.minimum(known, 1e6), _CROSS)
    far = np.where(np.isnan(depth_m), 0.0, np.minimum(depth_m, 1e6))
    farthest = cv2.dilate(far.astype(np.float32), _CROSS)
    gap_m = 2.0 * np.maximum(NEAR_M, NEAR_SHARE * nearest)
    return np.asarray(farthest - nearest > gap_m, np.bool_)


_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
