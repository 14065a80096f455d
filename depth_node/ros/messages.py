"""ROS messages <-> frames: fields are copied, pixels neither looked at nor copied.

A message holds the memory of its frame or cloud, so it is to be published at once.
"""

from __future__ import annotations

import sys
from array import array
from functools import cache
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage as CompressedImageMessage
from sensor_msgs.msg import Image
from sensor_msgs.msg import LaserScan
from sensor_msgs.msg import PointCloud2
from sensor_msgs.msg import PointField
from std_msgs.msg import Header

from depth_node import frames
from depth_node.byte_arrays import bytes_of
from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import DepthFrame
from depth_node.frames import Frame
from depth_node.frames import PackedCloud
from depth_node.frames import RawImage
from depth_node.frames import RelativeFrame
from depth_node.ros.serialized import sec_and_nanosec
from depth_node.scan import Scan

_BIG_ENDIAN = sys.byteorder == 'big'
_SECOND_NS = 1_000_000_000
# From Jazzy on, messages copy what is assigned to a field of bytes, 5 MB for a cloud, unless they
# check their fields: then an array of bytes is taken as it is.  Earlier ones always take it.
_TAKES_ARRAYS = {'check_fields': True} if '_check_fields' in Image.__slots__ else {}


def raw_image(message: Image) -> RawImage:
    """Return the fields of an Image; the pixels are a view of the message's."""
    return RawImage(
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=message.is_bigendian,
        step=message.step,
        data=memoryview(message.data),
        stamp_ns=stamp_ns(message.header),
        frame_id=message.header.frame_id,
    )


def compressed_image(message: CompressedImageMessage) -> CompressedImage:
    """Return the fields of a CompressedImage; the bytes are a view of the message's."""
    return CompressedImage(
        format=message.format,
        data=memoryview(message.data),
        stamp_ns=stamp_ns(message.header),
        frame_id=message.header.frame_id,
    )


def camera_fields(message: CameraInfo) -> CameraFields:
    """Return the fields of a CameraInfo."""
    roi = message.roi
    return CameraFields(
        width=message.width,
        height=message.height,
        distortion_model=message.distortion_model,
        d=tuple(float(value) for value in message.d),
        k=tuple(float(value) for value in message.k),
        r=tuple(float(value) for value in message.r),
        p=tuple(float(value) for value in message.p),
        binning_x=message.binning_x,
        binning_y=message.binning_y,
        roi_x_offset=roi.x_offset,
        roi_y_offset=roi.y_offset,
        roi_width=roi.width,
        roi_height=roi.height,
        roi_do_rectify=roi.do_rectify,
        frame_id=message.header.frame_id,
        stamp_ns=stamp_ns(message.header),
    )


def depth_message(frame: DepthFrame) -> Image:
    """Return depth as a 32FC1 image: metres along z, NaN unknown, +Inf nothing within range."""
    return image_message(frame, frame.depth_m, '32FC1')


def relative_message(frame: RelativeFrame) -> Image:
    """Return relative inverse depth as a 32FC1 image: no unit, larger is nearer, NaN unknown."""
    return image_message(frame, frame.inverse, '32FC1')


def image_message(frame: Frame, values: NDArray[Any], encoding: str) -> Image:
    """Return an image with the header of the source image.

    :param values: (H, W) or (H, W, C), as ``encoding`` says.
    """
    message = Image(**_TAKES_ARRAYS)
    message.header = header(frame)
    message.height, message.width = values.shape[:2]
    message.encoding = encoding
    message.is_bigendian = int(_BIG_ENDIAN)
    message.step = values.nbytes // len(values)
    # Assigning the numpy array itself would be converted element by element: 50 ms for 640x480.
    message.data = bytes_of(values)
    return message


def jpeg_message(frame: Frame, encoded: NDArray[np.uint8]) -> CompressedImageMessage:
    """Return a JPEG file of an rgb8 image, its format said as image_transport says it.

    :param encoded: (N,) bytes of the file.
    """
    message = CompressedImageMessage(**_TAKES_ARRAYS)
    message.header = header(frame)
    message.format = 'rgb8; jpeg compressed bgr8'
    message.data = bytes_of(encoded)
    return message


def camera_info_message(frame: Frame) -> CameraInfo:
    """Return the camera of the published image, which has no distortion."""
    camera = frame.camera
    message = CameraInfo()
    message.header = header(frame)
    message.height, message.width = camera.height, camera.width
    message.distortion_model = 'plumb_bob'
    message.d = [0.0] * 5
    message.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [
        *(camera.fx, 0.0, camera.cx, 0.0),
        *(0.0, camera.fy, camera.cy, 0.0),
        *(0.0, 0.0, 1.0, 0.0),
    ]
    return message


def cloud_message(packed: PackedCloud, frame: DepthFrame) -> PointCloud2:
    """Return packed points as a PointCloud2 in the optical frame of the source image."""
    message = PointCloud2(**_TAKES_ARRAYS)
    message.header = header(frame)
    message.height, message.width = packed.height, packed.width
    message.fields = _point_fields(packed.fields)
    message.is_bigendian = _BIG_ENDIAN
    message.point_step = packed.point_step
    message.row_step = packed.point_step * packed.width
    message.data = packed.data
    message.is_dense = packed.is_dense
    return message


def scan_message(scan: Scan, frame: Frame, frame_id: str) -> LaserScan:
    """Return a scan with the stamp of the source image.

    :param frame_id: x forward, y left, z up, at the place of the camera.
    """
    message = LaserScan()
    message.header = header(frame)
    message.header.frame_id = frame_id
    message.angle_min, message.angle_max = scan.angle_min_rad, scan.angle_max_rad
    message.angle_increment = scan.angle_increment_rad
    message.range_min, message.range_max = scan.range_min_m, scan.range_max_m
    message.ranges = array('f', scan.ranges_m.tobytes())
    return message


@cache
def _point_fields(fields: tuple[frames.PointField, ...]) -> list[PointField]:
    """Return the fields of a cloud as messages, which every cloud shares."""
    return [
        PointField(name=item.name, offset=item.offset, datatype=item.datatype, count=item.count)
        for item in fields
    ]


def header(frame: Frame) -> Header:
    """Return the header of the source image: its stamp and its frame_id, unchanged."""
    sec, nanosec = sec_and_nanosec(frame.stamp_ns)
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame.frame_id)


def stamp_ns(source: Header) -> int:
    """Return the stamp of a header, nanoseconds."""
    return int(source.stamp.sec) * _SECOND_NS + int(source.stamp.nanosec)
