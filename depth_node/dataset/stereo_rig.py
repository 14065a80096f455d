"""Two cameras side by side -> maps that put what both see on the same rows.

The common frame has its x axis along the baseline and its z axis as near to both optical axes as
that allows.  One way for all pairs: whether the poses come from TF or from a camera_info of a
rectified pair, lenses are undone and axes are turned in one resampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera import ray_slopes
from depth_node.camera import view_of
from depth_node.camera.fitting import resized
from depth_node.camera.lens import lens_of
from depth_node.frames import CameraFields
from depth_node.frames import CameraModel

Floats = NDArray[np.float64]

SHORTEST_M, LONGEST_M = 0.02, 1.0
"""Baselines that are used, metres."""
WIDEST_RAD = math.radians(15.0)
"""Between the optical axes."""
WIDTH_PX = 480
"""Columns that disparities are looked for in, at most."""

_SIDEWAYS = math.cos(math.radians(30.0))


@dataclass(frozen=True)
class Eye:
    """One camera of a pair, as it sends its images."""

    fields: CameraFields
    """Its camera_info."""
    width: int
    """Columns of its images, pixels."""
    height: int
    """Rows of its images, pixels."""
    rectified: bool = False
    """Its images come without distortion: P holds."""

    def model(self) -> CameraModel:
        """Return its intrinsics, without its lens.

        :raises CameraRejected: where the fields describe no camera of such images.
        """
        return view_of(
            self.fields, self.width, self.height, rectify=False, rectified_input=self.rectified
        ).model

    def pixels(self, rays: Floats) -> Floats:
        """Return where rays land in its images.

        :param rays: (..., 3) in its optical frame.
        :returns: (..., 2) column and row; NaN where it does not image the ray.
        """
        z = rays[..., 2:]
        with np.errstate(divide='ignore', invalid='ignore'):
            slopes = np.where(z > 0.0, rays[..., :2] / z, np.nan)
        lens = None if self.rectified else lens_of(self.fields)
        if lens is not None:
            slopes = lens.distort(slopes)
        model = self.model()
        return np.asarray(slopes * (model.fx, model.fy) + (model.cx, model.cy))


def refusal_of_pose(T_camera_partner: Floats) -> str:  # noqa: N803
    """Say in words why two cameras are no stereo pair, or ''.

    :param T_camera_partner: (4, 4) pose of the second camera's optical frame in the first one's.
    """
    centre = T_camera_partner[:3, 3]
    baseline_m = float(np.linalg.norm(centre))
    if not SHORTEST_M <= baseline_m <= LONGEST_M:
        return (
            f'there is no usable baseline: the cameras are {baseline_m:.3g} m apart, '
            f'{SHORTEST_M:g} to {LONGEST_M:g} m are needed'
        )
    angle = math.acos(float(np.clip(T_camera_partner[2, 2], -1.0, 1.0)))
    if angle > WIDEST_RAD:
        return (
            f'the cameras look {math.degrees(angle):.0f} degrees apart, at most '
            f'{math.degrees(WIDEST_RAD):.0f} are used'
        )
    if abs(centre[0]) < _SIDEWAYS * baseline_m or T_camera_partner[0, 0] < _SIDEWAYS:
        return 'the cameras are not side by side: one is above, below or in front of the other'
    return ''


@dataclass(frozen=True, eq=False)
class _Maps:
    """From every common pixel to its source in an image that is shrunk first."""

    shrink: int
    u: NDArray[np.float32]
    v: NDArray[np.float32]
    seen: NDArray[np.bool_]

    def grey(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        if self.shrink > 1:
            size = (rgb.shape[1] // self.shrink, rgb.shape[0] // self.shrink)
            whole = image[: size[1] * self.shrink, : size[0] * self.shrink]
            image = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
        return np.asarray(
            cv2.remap(image, self.u, self.v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
            np.uint8,
        )


class StereoRig:
    """Two cameras in one common camera.

    :param camera: the camera whose depth is wanted.
    :param partner: the other one.
    :param T_camera_partner: (4, 4) pose of the partner's optical frame in the camera's, metres;
        one that :func:`refusal_of_pose` has nothing against.
    :raises CameraRejected: where fields describe no camera of such images.
    """

    def __init__(self, camera: Eye, partner: Eye, T_camera_partner: Floats) -> None:  # noqa: N803
        centre = T_camera_partner[:3, 3]
        self.baseline_m = float(np.linalg.norm(centre))
        self.camera_is_left = bool(centre[0] > 0.0)
        axes = _common_axes(T_camera_partner)
        self.T_camera_common: Floats = np.eye(4)
        """(4, 4) from the common frame, whose origin is the camera's, to the camera's."""
        self.T_camera_common[:3, :3] = axes
        raw = camera.model()
        width = min(WIDTH_PX, raw.width)
        height = max(1, round(raw.height * width / raw.width))
        small = resized(raw, width, height)
        self.model = CameraModel(width, height, small.fx, small.fx, small.cx, small.cy)
        """Of both images once they are on the same rows."""
        x, y = ray_slopes(self.model)
        rays = np.stack([*np.meshgrid(x, y), np.ones((height, width))], axis=2) @ axes.T
        self._eyes = (
            _maps(camera, rays, width),
            _maps(partner, rays @ T_camera_partner[:3, :3], width),
        )

    @property
    def seen(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return (H, W) of camera and partner, False where a common pixel has no source."""
        return self._eyes[0].seen, self._eyes[1].seen

    def common(
        self, rgb: NDArray[np.uint8], partner_rgb: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return both images, (H, W) grey, with whatever both see on the same rows."""
        return self._eyes[0].grey(rgb), self._eyes[1].grey(partner_rgb)

    def points(self, disparity_px: NDArray[np.float32]) -> Floats:
        """Return the points of the camera's disparities, (N, 3) in its optical frame, metres.

        :param disparity_px: (H, W) positive; NaN where unknown.
        """
        rows, columns = np.nonzero(np.isfinite(disparity_px) & (disparity_px > 0.0))
        z = self.model.fx * self.baseline_m / disparity_px[rows, columns].astype(np.float64)
        x = (columns - self.model.cx) / self.model.fx
        y = (rows - self.model.cy) / self.model.fy
        points = np.stack([x * z, y * z, z], axis=1)
        return np.asarray(points @ self.T_camera_common[:3, :3].T)


def _common_axes(T_camera_partner: Floats) -> Floats:  # noqa: N803
    """Return (3, 3) the axes of the common frame, as columns, in the camera's frame."""
    centre = T_camera_partner[:3, 3]
    x = centre / np.linalg.norm(centre) * np.sign(centre[0])
    forward = T_camera_partner[:3, 2] + (0.0, 0.0, 1.0)
    z = forward - (forward @ x) * x
    z /= np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _maps(eye: Eye, rays: Floats, width: int) -> _Maps:
    shrink = max(1, eye.width // width)
    pixels = eye.pixels(rays)
    u, v = np.moveaxis((pixels + 0.5) / shrink - 0.5, 2, 0)
    with np.errstate(invalid='ignore'):
        seen = (u >= 0) & (v >= 0)
        seen &= (u <= eye.width // shrink - 1) & (v <= eye.height // shrink - 1)
    u, v = (np.where(seen, axis, 0.0).astype(np.float32) for axis in (u, v))
    return _Maps(shrink, u, v, seen)
