"""CameraInfo fields and an image size -> the camera of that image, and maps to rectify it.

Pixel centres are integers, x right, y down, z forward.  Binning averages blocks of sensor pixels,
so that a principal point c becomes (c + 0.5) / binning - 0.5; a region of interest is cut out
first.  This file is the entrance; fields are checked in :mod:`depth_node.camera.info`, lenses
live in :mod:`depth_node.camera.lens`, crop and resize in :mod:`depth_node.camera.fitting`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.camera.fitting import cropped
from depth_node.camera.fitting import resized
from depth_node.camera.fitting import scaled
from depth_node.camera.info import IMAGE_SIZE
from depth_node.camera.info import PROJECTION
from depth_node.camera.info import check_fields
from depth_node.camera.info import check_image_size
from depth_node.camera.info import check_projection
from depth_node.camera.info import has_projection
from depth_node.camera.lens import lens_of
from depth_node.camera.rectifier import Rectifier
from depth_node.camera.rectifier import rectifier_of
from depth_node.camera.rectifier import rotation_of
from depth_node.errors import CameraRejected
from depth_node.frames import CameraFields
from depth_node.frames import CameraModel

_UNCHANGED_PX = 1e-3


@dataclass(frozen=True)
class CameraView:
    """How images of one size are to be looked at."""

    model: CameraModel
    """Intrinsics of the image after ``rectifier``, at the image's own size."""
    rectifier: Rectifier | None
    """To be applied to every image first; None where the image is used as it comes."""


def view_of(
    fields: CameraFields, width: int, height: int, *, rectify: bool, rectified_input: bool
) -> CameraView:
    """Say how an image of ``width`` x ``height`` pixels of this camera is to be looked at.

    The size that the message describes is the sensor's, or its region of interest, divided by the
    binning.  An image of another size is accepted where a resize that keeps the aspect to one row
    explains it.

    :param rectify: make the maps from K, D, R and P; without a P the rectified image keeps K.
    :param rectified_input: the image has been rectified by its sender: P holds (K where P is all
        zero and there is no distortion) and ``rectify`` has nothing left to do.
    :raises CameraRejected: for fields that describe no camera, an unusable P where it is needed,
        or a size that they do not explain.
    """
    check_fields(fields)
    check_image_size(width, height)
    if rectified_input:
        return CameraView(_at_size(fields, _projection(fields), width, height), None)
    raw = _at_size(fields, _intrinsics(fields), width, height)
    if not rectify:
        return CameraView(raw, None)
    if has_projection(fields):
        rectified = _at_size(fields, _projection(fields), width, height)
    else:
        rectified = raw
    if _same_image(fields, raw, rectified):
        return CameraView(raw, None)
    return CameraView(rectified, rectifier_of(fields, raw, rectified))


def chosen_view(
    fields: CameraFields, width: int, height: int, rectify: str, rectified_input: bool
) -> CameraView:
    """Say how an image is to be looked at under the setting input.rectify.

    :param rectify: 'auto' (rectify where the lens bends the image, unless the sender has done
        so), 'always' or 'never'.
    :param rectified_input: see :func:`is_named_rectified`; 'always' overrules it.
    :raises CameraRejected: as :func:`view_of` does.
    """
    always = rectify == 'always'
    bent = rectify == 'auto' and has_distortion(fields)
    return view_of(
        fields,
        width,
        height,
        rectify=always or bent,
        rectified_input=rectified_input and not always,
    )


def is_named_rectified(topic: str) -> bool:
    """Tell whether the name of an image topic says that its images are rectified."""
    return topic.removesuffix('/compressed').rpartition('/')[2].startswith('image_rect')


def has_distortion(fields: CameraFields) -> bool:
    """Tell whether the raw image is bent by its lens.

    :param fields: fields that passed :func:`check_fields`.
    """
    return lens_of(fields) is not None


def raw_camera(fields: CameraFields) -> CameraModel:
    """Return K for the image as the camera sends it: region of interest cut, then binned.

    :param fields: fields that passed :func:`check_fields`.
    """
    return _windowed(fields, _intrinsics(fields))


def undistorted_slopes(fields: CameraFields) -> NDArray[np.float64]:
    """Return the ray of every pixel centre of the raw image that the camera sends.

    :param fields: fields that passed :func:`check_fields`.
    :returns: (H, W, 2) float64, x/z and y/z in the raw optical frame (R is not applied); NaN
        where no ray in front of the camera lands on the pixel.
    """
    model = raw_camera(fields)
    x = (np.arange(model.width) - model.cx) / model.fx
    y = (np.arange(model.height) - model.cy) / model.fy
    distorted = np.stack(np.meshgrid(x, y), axis=-1)
    lens = lens_of(fields)
    return distorted if lens is None else lens.undistort(distorted)


def distort_slopes(slopes: NDArray[np.float64], fields: CameraFields) -> NDArray[np.float64]:
    """Project rays to the raw image that the camera sends, lens included.

    :param slopes: (..., 2) x/z and y/z in the raw optical frame.
    :param fields: fields that passed :func:`check_fields`.
    :returns: (..., 2) float64, column and row, pixels, also outside the image; NaN where the lens
        does not image the ray.
    """
    model = raw_camera(fields)
    lens = lens_of(fields)
    distorted = np.asarray(slopes, dtype=np.float64)
    if lens is not None:
        distorted = lens.distort(distorted)
    return distorted * (model.fx, model.fy) + (model.cx, model.cy)


def _intrinsics(fields: CameraFields) -> CameraModel:
    """Return K of the full sensor."""
    k = fields.k
    return CameraModel(fields.width, fields.height, k[0], k[4], k[2], k[5])


def _projection(fields: CameraFields) -> CameraModel:
    """Return P of the full sensor, or K where P was left zero and K says the same."""
    p = fields.p
    if has_projection(fields):
        check_projection(fields)
        return CameraModel(fields.width, fields.height, p[0], p[5], p[2], p[6])
    if has_distortion(fields):
        raise CameraRejected(
            PROJECTION,
            'camera_info',
            'P all zero and a lens with distortion',
            'P of the rectified image',
            'Subscribe to the raw image and let the node rectify it.',
        )
    return _intrinsics(fields)


def _windowed(fields: CameraFields, full: CameraModel) -> CameraModel:
    """Apply region of interest and binning to a camera of the full sensor."""
    roi_width = fields.roi_width or fields.width
    roi_height = fields.roi_height or fields.height
    region = cropped(full, fields.roi_x_offset, fields.roi_y_offset, roi_width, roi_height)
    bin_x, bin_y = max(fields.binning_x, 1), max(fields.binning_y, 1)
    return scaled(region, 1.0 / bin_x, 1.0 / bin_y, roi_width // bin_x, roi_height // bin_y)


def _at_size(fields: CameraFields, full: CameraModel, width: int, height: int) -> CameraModel:
    """Return a camera of the full sensor for an image of the given size."""
    sent = _windowed(fields, full)
    if (sent.width, sent.height) == (width, height):
        return sent
    same_aspect = abs(sent.height * width / sent.width - height) <= 1.0
    if not same_aspect or _is_uncut(fields, width, height):
        raise CameraRejected(
            IMAGE_SIZE,
            'camera_info',
            f'an image of {width} x {height} pixels',
            f'{sent.width} x {sent.height}, the size that camera_info describes, or that aspect',
            'Check that image and camera_info come from the same camera and mode.',
        )
    return resized(sent, width, height)


def _is_uncut(fields: CameraFields, width: int, height: int) -> bool:
    """Tell whether an image has the size of the binned sensor.

    Where a region of interest is set, it cannot be known then whether the region was cut out and
    enlarged or not cut out at all.
    """
    bin_x, bin_y = max(fields.binning_x, 1), max(fields.binning_y, 1)
    return (width, height) == (fields.width // bin_x, fields.height // bin_y)


def _same_image(fields: CameraFields, raw: CameraModel, rectified: CameraModel) -> bool:
    """Tell whether rectification would change nothing."""
    moved = np.abs(raw.k - rectified.k).max()
    turned = np.abs(rotation_of(fields) - np.eye(3)).max() * max(raw.fx, raw.fy)
    return not has_distortion(fields) and bool(moved <= _UNCHANGED_PX and turned <= _UNCHANGED_PX)
