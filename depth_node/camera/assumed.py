"""The camera that the parameters describe, for when no camera_info does.

Both ways assume a lens without distortion and an image that is neither cut nor binned.
"""

from __future__ import annotations

import math

from depth_node.camera.fitting import from_horizontal_fov
from depth_node.camera.info import IMAGE_SIZE
from depth_node.camera.info import INTRINSICS
from depth_node.camera.info import check_image_size
from depth_node.camera.view import CameraView
from depth_node.errors import CameraRejected
from depth_node.frames import CameraFields
from depth_node.frames import CameraModel
from depth_node.setting_texts import intrinsics_px
from depth_node.settings import CameraSettings

FROM_INTRINSICS = 'camera.intrinsics'
FROM_FOV = 'camera.horizontal_fov_deg'

_MIN_FOV_RAD, _MAX_FOV_RAD = math.radians(1.0), math.radians(179.0)


class AssumedCamera:
    """Makes the fields of a camera_info from the parameters; used by one thread.

    The parameter camera.intrinsics does not say of which image size its pixels are: it is that of
    the first image that it is used for.
    """

    def __init__(self) -> None:
        self._first: tuple[str, int, int] | None = None

    def fields(
        self, chosen: CameraSettings, width: int, height: int, frame_id: str
    ) -> CameraFields | None:
        """Return the camera of an image of ``width`` x ``height`` pixels.

        :param frame_id: that of the image; the camera gets the same.
        :returns: fields whose size may be that of an earlier image, of which this one is a resize;
            None where the parameters say nothing.
        :raises CameraRejected: for a size that no camera has or that the parameter does not fit.
        """
        check_image_size(width, height)
        entries = intrinsics_px(chosen.intrinsics)
        if entries is not None:
            if self._first is None or self._first[0] != chosen.intrinsics:
                _check_fits(entries, width, height)
                self._first = (chosen.intrinsics, width, height)
            return _fields(entries, *self._sensor_size(width, height), frame_id)
        if not chosen.horizontal_fov_deg:
            return None
        model = from_horizontal_fov(width, height, math.radians(chosen.horizontal_fov_deg))
        return _fields((model.fx, model.fy, model.cx, model.cy), width, height, frame_id)

    def _sensor_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the size of the first image, of which this one must be a resize."""
        if self._first is None:
            return width, height
        _, first_width, first_height = self._first
        if abs(first_height * width / first_width - height) > 1.0:
            raise CameraRejected(
                IMAGE_SIZE,
                FROM_INTRINSICS,
                f'an image of {width} x {height} pixels',
                f'{first_width} x {first_height}, the size of the first image, or that aspect',
                'Set the parameter to the intrinsics of the new images.',
            )
        return first_width, first_height


def unknown_view(width: int, height: int) -> CameraView:
    """Return the view of a camera of which nothing is known but the size of its image.

    :raises CameraRejected: for a size that no camera has.
    """
    check_image_size(width, height)
    centre = 0.5 * (width - 1.0), 0.5 * (height - 1.0)
    return CameraView(CameraModel(width, height, 0.0, 0.0, *centre), None)


def source_of(chosen: CameraSettings) -> str:
    """Name the parameter that describes the camera; '' where none does."""
    if chosen.intrinsics:
        return FROM_INTRINSICS
    return FROM_FOV if chosen.horizontal_fov_deg else ''


def _fields(
    entries: tuple[float, float, float, float], width: int, height: int, frame_id: str
) -> CameraFields:
    """Return the fields of a camera without distortion."""
    fx, fy, cx, cy = entries
    k = (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)
    return CameraFields(width, height, '', (), k, frame_id=frame_id)


def _check_fits(entries: tuple[float, float, float, float], width: int, height: int) -> None:
    """Refuse intrinsics of another image: their principal point or field of view is off."""
    for name, focal_px, center_px, side_px in (
        ('x', entries[0], entries[2], width),
        ('y', entries[1], entries[3], height),
    ):
        fov_rad = 2.0 * math.atan2(0.5 * side_px, focal_px)
        if center_px > side_px - 0.5 or not _MIN_FOV_RAD <= fov_rad <= _MAX_FOV_RAD:
            raise CameraRejected(
                INTRINSICS,
                FROM_INTRINSICS,
                f'f{name} = {focal_px:g} and c{name} = {center_px:g}',
                f'what an image of {width} x {height} pixels can have: a principal point inside '
                'it and a field of view of 1 to 179 degrees',
                'Set the parameter to the intrinsics of these images.',
            )
