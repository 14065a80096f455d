"""What one frame looks like from another, by depth and pose: geometry of the proxies, in numpy.

``T_source_target`` maps points of the target's camera to the source's; both have the intrinsics
of one camera.  Pixel centres are integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera import ray_slopes
from depth_node.frames import CameraModel

Floats = NDArray[np.float32]

_NEAREST_M = 1e-3
_ROUNDED_PX = 1e-3
_C1, _C2 = 1e-4, 9e-4
_SSIM_SHARE = 0.85


@dataclass(frozen=True, eq=False)
class Projection:
    """Where the pixels of the target are in the source."""

    u: Floats
    """(H, W) column in the source, pixels; 0 where it is unknown."""
    v: Floats
    """(H, W) row in the source, pixels; 0 where it is unknown."""
    depth_m: Floats
    """(H, W) depth along z of the source, metres; NaN where it is unknown."""
    in_view: NDArray[np.bool_]
    """(H, W) whether the pixel lies in front of the source and inside its image."""


def projected(
    depth_m: Floats,
    camera: CameraModel,
    T_source_target: NDArray[np.float64],  # noqa: N803
) -> Projection:
    """Project the pixels of the target to the source.

    :param depth_m: (H, W) of the target, metres; what is not finite and positive is unknown.
    :param T_source_target: (4, 4).
    """
    with np.errstate(invalid='ignore', divide='ignore', over='ignore'):
        known = np.isfinite(depth_m) & (depth_m > 0.0)
        z = np.where(known, depth_m, np.nan).astype(np.float64)
        x_slope, y_slope = ray_slopes(camera)
        x, y = z * x_slope[None, :], z * y_slope[:, None]
        m = T_source_target
        moved = [m[row, 0] * x + m[row, 1] * y + m[row, 2] * z + m[row, 3] for row in range(3)]
        u = camera.fx * moved[0] / moved[2] + camera.cx
        v = camera.fy * moved[1] / moved[2] + camera.cy
        inside = moved[2] > _NEAREST_M
        inside &= (u >= -_ROUNDED_PX) & (u <= camera.width - 1.0 + _ROUNDED_PX)
        inside &= (v >= -_ROUNDED_PX) & (v <= camera.height - 1.0 + _ROUNDED_PX)
    return Projection(
        u=np.where(inside, u, 0.0).astype(np.float32),
        v=np.where(inside, v, 0.0).astype(np.float32),
        depth_m=np.where(inside, moved[2], np.nan).astype(np.float32),
        in_view=inside,
    )


def sampled(image: NDArray[np.float32], projection: Projection) -> NDArray[np.float32]:
    """Sample an image of the source at the projected pixels, bilinear to 1/32 pixel.

    :param image: (H, W) or (H, W, 3).
    :returns: of the same shape; without meaning where nothing is in view.
    """
    found: NDArray[np.float32] = cv2.remap(
        image, projection.u, projection.v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return found


def photometric_difference(one: Floats, other: Floats) -> Floats:
    """Return 0.85 (1 - SSIM) / 2 + 0.15 L1 of two images, (H, W), the mean over the colours.

    SSIM has a 3 x 3 box window with reflected borders, as C. Godard et al., "Digging into
    self-supervised monocular depth estimation" (ICCV 2019) compare images.

    :param one: (H, W, 3), 0 to 1.
    :param other: (H, W, 3), 0 to 1.
    """
    mean_one, mean_other = _box(one), _box(other)
    squares = mean_one**2 + mean_other**2
    variances = _box(one * one) + _box(other * other) - squares
    covariance = _box(one * other) - mean_one * mean_other
    ssim = (2.0 * mean_one * mean_other + _C1) * (2.0 * covariance + _C2)
    ssim /= (squares + _C1) * (variances + _C2)
    unlike = np.clip(0.5 * (1.0 - ssim), 0.0, 1.0)
    both = _SSIM_SHARE * unlike + (1.0 - _SSIM_SHARE) * np.abs(one - other)
    mean: Floats = both.mean(axis=-1)
    return mean


def inconsistency(projection: Projection, source_depth_m: Floats) -> Floats:
    """Return |D' - D| / (D' + D) of the target's depth seen from the source and the source's own.

    J. Bian et al., "Unsupervised scale-consistent depth and ego-motion learning" (NeurIPS 2019).

    :param source_depth_m: (H, W) metres.
    :returns: (H, W), 0 to 1; NaN where one of the two is unknown.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        inverse = np.where(source_depth_m > 0.0, 1.0 / source_depth_m, np.nan).astype(np.float32)
        own = 1.0 / sampled(inverse, projection)
        unlike = np.abs(projection.depth_m - own) / (projection.depth_m + own)
    found: Floats = np.where(projection.in_view & np.isfinite(unlike), unlike, np.nan)
    return found


def height_above_ground_m(
    depth_m: Floats, camera: CameraModel, down: NDArray[np.float64]
) -> float:
    """Return how high the camera is above what is level and below it.

    Level is a surface whose normal is within 10 degrees of vertical; of these points the median of
    their distance along the vertical is taken.

    :param depth_m: (H, W) metres.
    :param down: (3,) unit vector that points to the ground, in the camera's frame.
    :returns: metres; NaN where fewer than one percent of the pixels are level.
    """
    x_slope, y_slope = ray_slopes(camera)
    points = np.stack(
        [depth_m * x_slope[None, :], depth_m * y_slope[:, None], depth_m], axis=-1
    ).astype(np.float64)
    with np.errstate(invalid='ignore', divide='ignore'):
        along_u = points[1:-1, 2:] - points[1:-1, :-2]
        along_v = points[2:, 1:-1] - points[:-2, 1:-1]
        normal = np.cross(along_u, along_v)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        heights = points[1:-1, 1:-1] @ down
        level = (np.abs(normal @ down) > np.cos(np.radians(10.0))) & (heights > 0.0)
    if np.count_nonzero(level) < 0.01 * depth_m.size:
        return float('nan')
    return float(np.median(heights[level]))


def _box(image: Floats) -> Floats:
    mean: Floats = cv2.blur(image, (3, 3), borderType=cv2.BORDER_REFLECT_101)
    return mean
