"""The door for sensor_msgs/CameraInfo: what is refused, and in which words.

Every sentence names the entry as the message does: K[0], P[5], D[2], roi.width.
"""

from __future__ import annotations

import math

import numpy as np

from depth_node.errors import CameraRejected
from depth_node.errors import quoted
from depth_node.frames import CameraFields

SIZE = 'camera_size'
UNCALIBRATED = 'camera_uncalibrated'
INTRINSICS = 'camera_intrinsics'
DISTORTION = 'camera_distortion'
ROTATION = 'camera_rotation'
PROJECTION = 'camera_projection'
WINDOW = 'camera_binning_roi'
IMAGE_SIZE = 'camera_image_size'

MAX_SIDE_PX = 16_384

_WHO = 'camera_info'
_MIN_FOV_RAD = math.radians(1.0)
_MAX_FOV_RAD = math.radians(179.0)
_MAX_FOCAL_RATIO = 2.0
_MAX_SKEW_PX = 1e-3
_MAX_COEFFICIENT = 1e5
_ROTATION_TOLERANCE = 1e-3
_MAX_BINNING = 64
_CALIBRATE = 'Calibrate the camera or mend what publishes the message.'

_COEFFICIENT_COUNTS = {
    'plumb_bob': (0, 4, 5),
    'rational_polynomial': (0, 8, 12, 14),
    'equidistant': (4,),
}


def check_fields(fields: CameraFields) -> None:
    """Refuse a message that describes no usable camera.

    P is only checked for its length and for NaN here, because it is not always needed:
    :func:`check_projection` does the rest.

    :raises CameraRejected: with one of the reasons of this file; the text names the entry.
    """
    _check_sides(fields)
    _check_entries('K', fields.k, (9,), INTRINSICS)
    _check_entries('R', fields.r, (0, 9), ROTATION)
    _check_entries('P', fields.p, (0, 12), PROJECTION)
    if fields.k[0] == 0.0:
        raise CameraRejected(
            UNCALIBRATED,
            _WHO,
            'K[0] = 0, which means that the camera is not calibrated',
            'a focal length in K[0]',
            _CALIBRATE,
        )
    _check_pinhole('K', fields.k, 3, fields, INTRINSICS)
    _check_coefficients(fields)
    _check_rotation(fields)
    _check_window(fields)


def check_image_size(width: int, height: int) -> None:
    """Refuse an image size that no camera has.

    :raises CameraRejected: when a side is below 1 or above :data:`MAX_SIDE_PX` pixels.
    """
    _check_range('image width', width, 1, MAX_SIDE_PX, IMAGE_SIZE)
    _check_range('image height', height, 1, MAX_SIDE_PX, IMAGE_SIZE)


def check_projection(fields: CameraFields) -> None:
    """Refuse a P that is no projection of a rectified image; P[3] and P[7] are not looked at.

    :param fields: fields that passed :func:`check_fields` and :func:`has_projection`.
    :raises CameraRejected: with the reason 'camera_projection'.
    """
    _check_pinhole('P', fields.p, 4, fields, PROJECTION)
    if fields.p[11] != 0.0:
        raise CameraRejected(PROJECTION, _WHO, f'P[11] = {fields.p[11]:g}', '0', _CALIBRATE)


def has_projection(fields: CameraFields) -> bool:
    """Tell whether P was filled in at all; drivers without rectification leave it zero."""
    return any(fields.p)


def _check_sides(fields: CameraFields) -> None:
    """Refuse a sensor without pixels or with absurdly many."""
    _check_range('width', fields.width, 1, MAX_SIDE_PX, SIZE)
    _check_range('height', fields.height, 1, MAX_SIDE_PX, SIZE)


def _check_range(name: str, value: int, low: int, high: int, reason: str) -> None:
    """Refuse a whole number out of range."""
    if not low <= value <= high:
        raise CameraRejected(
            reason, _WHO, f'{name} = {quoted(value)}', f'{low} to {high}', _CALIBRATE
        )


def _check_entries(
    name: str, values: tuple[float, ...], lengths: tuple[int, ...], reason: str
) -> None:
    """Refuse a wrong number of entries, NaN and Inf."""
    if len(values) not in lengths:
        expected = ' or '.join(str(length) for length in lengths)
        raise CameraRejected(
            reason, _WHO, f'{name} with {len(values)} entries', f'{expected} entries', _CALIBRATE
        )
    for index, value in enumerate(values):
        if not math.isfinite(value):
            raise CameraRejected(
                reason, _WHO, f'{name}[{index}] = {value}', 'a finite number', _CALIBRATE
            )


def _check_pinhole(
    name: str, matrix: tuple[float, ...], columns: int, fields: CameraFields, reason: str
) -> None:
    """Refuse intrinsics that no lens on a sensor of that size has."""
    _check_constants(name, matrix, columns, reason)
    horizontal = (0, 2, fields.width)
    vertical = (columns + 1, columns + 2, fields.height)
    for focal_at, center_at, side_px in (horizontal, vertical):
        _check_focal(f'{name}[{focal_at}]', matrix[focal_at], side_px, reason)
        center_px = matrix[center_at]
        if not -0.5 <= center_px <= side_px - 0.5:
            raise CameraRejected(
                reason,
                _WHO,
                f'{name}[{center_at}] = {center_px:g}',
                f'a principal point inside the image, 0 to {side_px - 1}',
                _CALIBRATE,
            )
    ratio = matrix[0] / matrix[columns + 1]
    if not 1.0 / _MAX_FOCAL_RATIO <= ratio <= _MAX_FOCAL_RATIO:
        raise CameraRejected(
            reason,
            _WHO,
            f'{name}[0] / {name}[{columns + 1}] = {ratio:g}',
            'focal lengths within a factor of 2 of each other',
            _CALIBRATE,
        )


def _check_constants(name: str, matrix: tuple[float, ...], columns: int, reason: str) -> None:
    """Refuse skew and a last row other than 0 0 1."""
    wanted = {1: 0.0, columns: 0.0, 2 * columns: 0.0, 2 * columns + 1: 0.0, 2 * columns + 2: 1.0}
    for index, value in wanted.items():
        tolerance = _MAX_SKEW_PX if index == 1 else 1e-9
        if abs(matrix[index] - value) > tolerance:
            raise CameraRejected(
                reason, _WHO, f'{name}[{index}] = {matrix[index]:g}', f'{value:g}', _CALIBRATE
            )


def _check_focal(entry: str, focal_px: float, side_px: int, reason: str) -> None:
    """Refuse a focal length that is not positive or whose field of view is implausible."""
    if focal_px <= 0.0:
        raise CameraRejected(
            reason, _WHO, f'{entry} = {focal_px:g}', 'a positive focal length', _CALIBRATE
        )
    fov_rad = 2.0 * math.atan2(0.5 * side_px, focal_px)
    if not _MIN_FOV_RAD <= fov_rad <= _MAX_FOV_RAD:
        raise CameraRejected(
            reason,
            _WHO,
            f'{entry} = {focal_px:g}, a field of view of {math.degrees(fov_rad):.3g} degrees',
            'a focal length in pixels that gives 1 to 179 degrees',
            _CALIBRATE,
        )


def _check_coefficients(fields: CameraFields) -> None:
    """Refuse coefficients that do not belong to their distortion model."""
    _check_entries('D', fields.d, (len(fields.d),), DISTORTION)
    counts = _COEFFICIENT_COUNTS.get(fields.distortion_model)
    if counts is None:
        if any(fields.d):
            raise CameraRejected(
                DISTORTION,
                _WHO,
                f'distortion_model {quoted(fields.distortion_model)} with D that is not zero',
                'one of ' + ', '.join(_COEFFICIENT_COUNTS),
            )
        return
    if len(fields.d) not in counts:
        expected = ' or '.join(str(count) for count in counts if count)
        raise CameraRejected(
            DISTORTION,
            _WHO,
            f'D with {len(fields.d)} entries for {fields.distortion_model}',
            f'{expected} entries',
            _CALIBRATE,
        )
    _check_magnitudes(fields)


def _check_magnitudes(fields: CameraFields) -> None:
    """Refuse absurd coefficients, and the sensor tilt that no part of this package models."""
    for index, value in enumerate(fields.d):
        limit = 0.0 if index >= 12 else _MAX_COEFFICIENT
        if abs(value) > limit:
            expected = f'-{limit:g} to {limit:g}' if limit else '0: tilted sensors are not known'
            raise CameraRejected(DISTORTION, _WHO, f'D[{index}] = {value:g}', expected)


def _check_rotation(fields: CameraFields) -> None:
    """Refuse an R that is no rotation; one that was left all zero means the identity."""
    if not any(fields.r):
        return
    for index, value in enumerate(fields.r):
        if abs(value) > 1.0 + _ROTATION_TOLERANCE:
            raise CameraRejected(ROTATION, _WHO, f'R[{index}] = {value:g}', '-1 to 1', _CALIBRATE)
    rotation = np.array(fields.r, dtype=np.float64).reshape(3, 3)
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    determinant = float(np.linalg.det(rotation))
    if error > _ROTATION_TOLERANCE or determinant < 0.0:
        raise CameraRejected(
            ROTATION,
            _WHO,
            f'R with determinant {determinant:.3g}, off from orthogonal by {error:.3g}',
            'a rotation, or all zero where there is none',
            _CALIBRATE,
        )


def _check_window(fields: CameraFields) -> None:
    """Refuse binning and a region of interest that do not fit the sensor."""
    _check_range('binning_x', fields.binning_x, 0, _MAX_BINNING, WINDOW)
    _check_range('binning_y', fields.binning_y, 0, _MAX_BINNING, WINDOW)
    _check_axis('x_offset', fields.roi_x_offset, 'width', fields.roi_width, fields.width)
    _check_axis('y_offset', fields.roi_y_offset, 'height', fields.roi_height, fields.height)
    if (fields.roi_width == 0) != (fields.roi_height == 0):
        raise CameraRejected(
            WINDOW,
            _WHO,
            f'roi of {fields.roi_width} x {fields.roi_height}',
            'both sides of the roi, or 0 x 0 for the full image',
        )
    _check_binned('binning_x', fields.binning_x, fields.roi_width or fields.width)
    _check_binned('binning_y', fields.binning_y, fields.roi_height or fields.height)


def _check_axis(offset_name: str, offset: int, side_name: str, side: int, full: int) -> None:
    """Refuse a region of interest that reaches over the sensor along one axis."""
    end = offset + side
    beyond = offset < 0 or side < 0 or end > full
    if beyond or (side == 0 and offset != 0):
        raise CameraRejected(
            WINDOW,
            _WHO,
            f'roi.{offset_name} = {quoted(offset)} and roi.{side_name} = {quoted(side)}',
            f'a region inside the {side_name} of {full} pixels, or 0 and 0 for all of it',
        )


def _check_binned(name: str, binning: int, side_px: int) -> None:
    """Refuse binning that leaves no pixel."""
    if binning > side_px:
        raise CameraRejected(WINDOW, _WHO, f'{name} = {binning}', f'at most {side_px}')
