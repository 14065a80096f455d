"""Pictures in the order and at the times at which a camera made them: a recording or a video."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.errors import RecordingError
from depth_node.errors import SettingsError
from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.image_codec import decode_compressed
from depth_node.recording import CameraTopics
from depth_node.recording import Recording

Picture = Union[RawImage, CompressedImage]

_FRAME_ID = 'camera_optical_frame'


@dataclass(frozen=True)
class Shot:
    """One picture on its way to be published."""

    index: int
    """Number of the picture in its footage, from 0."""
    due_s: float
    """When it was made, seconds since the first picture."""
    picture: Picture
    """As recorded; frames of a video are raw rgb8."""
    camera: CameraFields | None
    """The camera_info that goes with it; None where the recording has none."""


def recorded_shots(recording: Recording, topics: CameraTopics) -> Iterator[Shot]:
    """Yield the pictures of a recording with the camera_info that was valid then.

    :raises RecordingError: when the recording turns out to be damaged on the way.
    """
    wanted = [topics.image] + ([topics.camera_info] if topics.camera_info else [])
    first = recording.first(topics.camera_info) if topics.camera_info else None
    camera = first if isinstance(first, CameraFields) else None
    began_ns: int | None = None
    index = 0
    for record in recording.records(wanted):
        if isinstance(record.content, CameraFields):
            camera = record.content
        elif isinstance(record.content, (RawImage, CompressedImage)):
            began_ns = record.time_ns if began_ns is None else began_ns
            due_s = (record.time_ns - began_ns) / 1e9
            yield Shot(index, due_s, record.content, camera)
            index += 1


def filmed_shots(path: Path, hfov_rad: float) -> Iterator[Shot]:
    """Yield the frames of a video file with a camera_info made from the field of view.

    :param hfov_rad: horizontal field of view, radians, above 0 and below pi.
    :raises SettingsError: for a field of view out of range.
    :raises RecordingError: when the file cannot be read as a video.
    """
    if not 0.0 < hfov_rad < math.pi:
        raise SettingsError(
            'field of view', f'{math.degrees(hfov_rad):g} degrees', 'more than 0 and less than 180'
        )
    film = cv2.VideoCapture(str(path)) if path.is_file() else None
    try:
        rate_hz = film.get(cv2.CAP_PROP_FPS) if film is not None and film.isOpened() else 0.0
        if film is None or not (math.isfinite(rate_hz) and rate_hz > 0.0):
            raise RecordingError(
                f'video {path}', 'no readable frames', 'a video file that OpenCV can decode'
            )
        index = 0
        while True:
            there, bgr = film.read()
            if not there:
                return
            height, width = bgr.shape[:2]
            stamp_ns = round(index / rate_hz * 1e9)
            yield Shot(
                index,
                index / rate_hz,
                _raw_image(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), stamp_ns),
                camera_of_view(width, height, hfov_rad, stamp_ns),
            )
            index += 1
    finally:
        if film is not None:
            film.release()


def camera_of_view(width: int, height: int, hfov_rad: float, stamp_ns: int = 0) -> CameraFields:
    """Return the camera_info of a pinhole camera with square pixels that looks straight ahead.

    :param hfov_rad: horizontal field of view from the left edge of the first column to the right
        edge of the last one, radians.
    """
    focal_px = width / 2.0 / math.tan(hfov_rad / 2.0)
    cx, cy = (width - 1) / 2.0, (height - 1) / 2.0
    return CameraFields(
        width=width,
        height=height,
        distortion_model='plumb_bob',
        d=(0.0,) * 5,
        k=(focal_px, 0.0, cx, 0.0, focal_px, cy, 0.0, 0.0, 1.0),
        p=(focal_px, 0.0, cx, 0.0, 0.0, focal_px, cy, 0.0, 0.0, 0.0, 1.0, 0.0),
        frame_id=_FRAME_ID,
        stamp_ns=stamp_ns,
    )


def as_raw(picture: Picture) -> RawImage:
    """Return a picture as a raw image; compressed ones are decoded to rgb8.

    :raises ImageRejected: when it cannot be decoded.
    """
    if isinstance(picture, RawImage):
        return picture
    return _raw_image(decode_compressed(picture), picture.stamp_ns, picture.frame_id)


def _raw_image(rgb: NDArray[np.uint8], stamp_ns: int, frame_id: str = _FRAME_ID) -> RawImage:
    """Pack (H, W, 3) RGB as an rgb8 image without row padding."""
    height, width = rgb.shape[:2]
    return RawImage(
        height=height,
        width=width,
        encoding='rgb8',
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(rgb).reshape(-1).data,
        stamp_ns=stamp_ns,
        frame_id=frame_id,
    )
