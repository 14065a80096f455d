"""Rectification: from the image of a real lens to the image of a pinhole camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera.lens import lens_of
from depth_node.errors import CameraRejected
from depth_node.frames import CameraFields
from depth_node.frames import CameraModel

Scalar = TypeVar('Scalar', bound=np.generic)

_ROUNDED_PX = 1.0 / 64.0  # cv2 rounds sources to 1/32 pixel


@dataclass(frozen=True, eq=False)
class Rectifier:
    """Maps from every rectified pixel to its source, made once for a camera and image size."""

    source: NDArray[np.int16]
    """(H, W, 2) whole part of the source column and row, pixels."""
    fraction: NDArray[np.uint16]
    """(H, W) their fractions, as cv2.remap packs them."""
    valid: NDArray[np.bool_]
    """(H, W) True where the source lies inside the image; depth elsewhere is unknown."""

    def apply(
        self, rgb: NDArray[np.uint8], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Rectify an image, bilinear; pixels without a source are black.

        :param rgb: (H, W, 3) of the size for which the maps were made.
        :param out: optional (H, W, 3) to write to; its old content is lost.
        :returns: (H, W, 3), ``out`` where it was given.
        :raises CameraRejected: with the reason 'camera_image_size' for an image of another size.
        """
        if rgb.shape[:2] != self.valid.shape:
            raise CameraRejected(
                'camera_image_size',
                'rectifier',
                f'an image of {rgb.shape[1]} x {rgb.shape[0]} pixels',
                f'{self.valid.shape[1]} x {self.valid.shape[0]}, for which its maps were made',
            )
        rectified: NDArray[np.uint8] = cv2.remap(
            rgb,
            self.source,
            self.fraction,
            cv2.INTER_LINEAR,
            dst=out,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(0, 0, 0),
        )
        return rectified

    def apply_nearest(self, values: NDArray[Scalar], outside: Scalar) -> NDArray[Scalar]:
        """Rectify values that must not be mixed, as depth or a mask: the nearest pixel's.

        :param values: (H, W) of the size for which the maps were made.
        :param outside: what pixels without a source get.
        :returns: (H, W).
        """
        # fractions are packed as 32 rows of 32 columns; cv2's own nearest would cut them off
        columns = self.source[..., 0].astype(np.intp) + (self.fraction % 32 >= 16)
        rows = self.source[..., 1].astype(np.intp) + (self.fraction // 32 >= 16)
        height, width = values.shape
        found: NDArray[Scalar] = values[
            np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
        ]
        found[~self.valid] = outside
        return found


def rectifier_of(fields: CameraFields, raw: CameraModel, rectified: CameraModel) -> Rectifier:
    """Make the maps from a raw image to a rectified one of the same size.

    :param fields: fields that passed ``check_fields``: lens and rectifying rotation.
    :param raw: intrinsics of the raw image at its own size.
    :param rectified: intrinsics of the rectified image.
    """
    size = (rectified.width, rectified.height)
    rotation = rotation_of(fields)
    coefficients = np.array(fields.d, dtype=np.float64)
    if fields.distortion_model == 'equidistant':
        u, v = cv2.fisheye.initUndistortRectifyMap(
            raw.k, coefficients, rotation, rectified.k, size, cv2.CV_32FC1
        )
    else:
        coefficients = coefficients if any(fields.d) else np.zeros(5)
        u, v = cv2.initUndistortRectifyMap(
            raw.k, coefficients, rotation, rectified.k, size, cv2.CV_32FC1
        )
    valid = _imaged(fields, rotation, rectified)
    valid &= (u >= -_ROUNDED_PX) & (u <= raw.width - 1.0 + _ROUNDED_PX)
    valid &= (v >= -_ROUNDED_PX) & (v <= raw.height - 1.0 + _ROUNDED_PX)
    u[~valid] = -2.0
    v[~valid] = -2.0
    source, fraction = cv2.convertMaps(u, v, cv2.CV_16SC2)
    for array in (source, fraction, valid):
        array.flags.writeable = False
    return Rectifier(source, fraction, valid)


def rotation_of(fields: CameraFields) -> NDArray[np.float64]:
    """Return the 3x3 rectifying rotation; the identity where R is empty or all zero."""
    if not any(fields.r):
        return np.eye(3)
    return np.array(fields.r, dtype=np.float64).reshape(3, 3)


def _imaged(
    fields: CameraFields, rotation: NDArray[np.float64], rectified: CameraModel
) -> NDArray[np.bool_]:
    """Tell for every rectified pixel whether its ray passes the lens, (H, W).

    The formulas behind the maps know no limit: past its fold a polynomial brings parts of the
    image back a second time, and a ray from behind is mirrored to the front.
    """
    x = (np.arange(rectified.width) - rectified.cx) / rectified.fx
    y = (np.arange(rectified.height) - rectified.cy) / rectified.fy
    rays = np.stack((*np.meshgrid(x, y), np.ones((len(y), len(x)))), axis=-1) @ rotation
    ahead: NDArray[np.bool_] = rays[..., 2] > 1e-9
    lens = lens_of(fields)
    if lens is None:
        return ahead
    slopes = rays[..., :2] / np.where(ahead, rays[..., 2], 1.0)[..., np.newaxis]
    return ahead & np.isfinite(lens.distort(slopes)[..., 0])
