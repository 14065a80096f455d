"""Pictures and cameras as ROS messages, for those who play the part of a camera driver."""

from __future__ import annotations

from array import array
from typing import Any

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage as CompressedImageMessage
from sensor_msgs.msg import Image

from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.ros.footage import Picture
from depth_node.ros.serialized import sec_and_nanosec


def picture_message(picture: Picture) -> Any:
    """Make the message of a picture; the stamp is left to the publishing."""
    if isinstance(picture, CompressedImage):
        message = CompressedImageMessage(format=picture.format)
    else:
        message = _image_message(picture)
    message.header.frame_id = picture.frame_id
    data = array('B')
    data.frombytes(picture.data)
    message.data = data
    return message


def _image_message(picture: RawImage) -> Any:
    """Make the message of a raw picture without header and pixels."""
    return Image(
        height=picture.height,
        width=picture.width,
        encoding=picture.encoding,
        is_bigendian=picture.is_bigendian,
        step=picture.step,
    )


def camera_message(camera: CameraFields) -> Any:
    """Make the message of a camera_info; the stamp is left to the publishing."""
    message = CameraInfo(
        width=camera.width,
        height=camera.height,
        distortion_model=camera.distortion_model,
        d=camera.d,
        k=camera.k,
        r=camera.r,
        p=camera.p or (0.0,) * 12,
        binning_x=camera.binning_x,
        binning_y=camera.binning_y,
    )
    message.header.frame_id = camera.frame_id
    message.roi.x_offset = camera.roi_x_offset
    message.roi.y_offset = camera.roi_y_offset
    message.roi.width = camera.roi_width
    message.roi.height = camera.roi_height
    message.roi.do_rectify = camera.roi_do_rectify
    return message


def time_message(stamp_ns: int) -> Any:
    """Make a builtin_interfaces/Time.

    :raises RecordingError: for a time that it cannot hold.
    """
    sec, nanosec = sec_and_nanosec(stamp_ns)
    return Time(sec=sec, nanosec=nanosec)
