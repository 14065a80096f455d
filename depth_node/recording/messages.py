"""What recordings hold besides images and cameras, and how message objects become these values.

A message object here is whatever ``rosbags`` made of the bytes: attributes named as in the
message definition, arrays of numpy.  ROS 1 definitions differ in the case of the camera matrices
and in the name of the nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Union

import numpy as np
from numpy.typing import NDArray

from depth_node.frames import Buffer
from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import PointField
from depth_node.frames import RawImage


@dataclass(frozen=True)
class LaserScanFields:
    """The fields of a sensor_msgs/LaserScan that say where something is, unchecked."""

    angle_min_rad: float
    """Angle of the first ray about z, x forward, counter-clockwise, radians."""
    angle_max_rad: float
    """Angle of the last ray, radians."""
    angle_increment_rad: float
    """Angle between two rays, radians."""
    range_min_m: float
    """Ranges below are no measurement, metres."""
    range_max_m: float
    """Ranges above are no measurement, metres."""
    ranges_m: NDArray[np.float32]
    """(N,) range along each ray, metres; NaN unknown, +Inf nothing within range."""
    stamp_ns: int
    """Time of the first ray, nanoseconds."""
    frame_id: str
    """Frame of the scanner."""
    time_increment_s: float = 0.0
    """Time from ray to ray, seconds; 0 where all rays are of one moment, or that is not known."""
    scan_time_s: float = 0.0
    """Time from scan to scan, seconds; 0 where it is not known."""


@dataclass(frozen=True)
class OdometryFields:
    """The pose of a nav_msgs/Odometry; the twist is left out."""

    pose: NDArray[np.float64]
    """(4, 4) pose of the child frame in the parent frame, metres; not finite if sent so."""
    stamp_ns: int
    """Nanoseconds."""
    frame_id: str
    """Parent frame, e.g. 'odom'."""
    child_frame_id: str
    """Child frame, e.g. 'base_link'."""


@dataclass(frozen=True)
class Transform:
    """One transform of a tf2_msgs/TFMessage."""

    parent: str
    """Frame in which the pose is given."""
    child: str
    """Frame whose pose is given."""
    pose: NDArray[np.float64]
    """(4, 4) pose of the child in the parent, metres."""
    stamp_ns: int
    """Nanoseconds."""


@dataclass(frozen=True)
class TransformsFields:
    """The transforms of one tf2_msgs/TFMessage."""

    transforms: tuple[Transform, ...]
    """In the order of the message."""


@dataclass(frozen=True)
class ImuFields:
    """What a sensor_msgs/Imu measured; the covariances are left out."""

    angular_velocity_rad_s: NDArray[np.float64]
    """(3,) about x, y and z of the sensor, radians per second; NaN where there is no gyroscope."""
    linear_acceleration_m_s2: NDArray[np.float64]
    """(3,) along x, y and z of the sensor, gravity included; NaN where there is none."""
    stamp_ns: int
    """Nanoseconds."""
    frame_id: str
    """Frame of the sensor."""


@dataclass(frozen=True)
class PointCloudFields:
    """The fields of a sensor_msgs/PointCloud2, unchecked; see :mod:`recording.points`."""

    height: int
    """Rows; 1 where the cloud is not organized."""
    width: int
    """Points per row."""
    fields: tuple[PointField, ...]
    """What a point holds, as sent."""
    is_bigendian: bool
    """As sent."""
    point_step: int
    """Length of a point, bytes."""
    row_step: int
    """Length of a row, bytes."""
    data: Buffer
    """Points as sent; not copied."""
    stamp_ns: int
    """Nanoseconds."""
    frame_id: str
    """Frame of the points."""


Content = Union[
    RawImage,
    CompressedImage,
    CameraFields,
    LaserScanFields,
    OdometryFields,
    TransformsFields,
    ImuFields,
    PointCloudFields,
]


def rotation_of(x: float, y: float, z: float, w: float) -> NDArray[np.float64]:
    """Return the (3, 3) rotation of a quaternion of any length but zero.

    Source: J. Kuipers, Quaternions and Rotation Sequences, section 5.14.

    :returns: a rotation matrix; NaN throughout when the quaternion is zero or not finite.
    """
    norm = float(np.sqrt(x * x + y * y + z * z + w * w))
    if not np.isfinite(norm) or norm == 0.0:
        return np.full((3, 3), np.nan)
    x, y, z, w = x / norm, y / norm, z / norm, w / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_of(rotation: NDArray[np.floating[Any]]) -> tuple[float, float, float, float]:
    """Return the unit quaternion (x, y, z, w) of a (3, 3) rotation, w not negative.

    The dominant eigenvector of Bar-Itzhack's symmetric matrix (Journal of Guidance, 2000) is
    exact for a rotation and the closest quaternion for a matrix that rounding has bent.
    """
    m = np.asarray(rotation, dtype=np.float64)
    symmetric = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
        ]
    )
    vector = np.linalg.eigh(symmetric / 3.0)[1][:, -1]
    x, y, z, w = (float(value) for value in (vector if vector[3] >= 0.0 else -vector))
    return x, y, z, w


def content_of(kind: str, message: Any) -> Content | None:
    """Turn a message object into one of our values.

    :param kind: type name with or without the ``msg`` part, e.g. 'sensor_msgs/msg/Image'.
    :param message: the object that ``rosbags`` made of the bytes.
    :returns: the value, or None for a type that this package has no use for.
    """
    convert = _CONVERTERS.get(kind)
    return None if convert is None else convert(message)


def known_types() -> frozenset[str]:
    """Name the message types that :func:`content_of` understands."""
    return frozenset(_CONVERTERS)


def _stamp_ns(header: Any) -> int:
    """Return a header's stamp; the parts are read as they are, valid or not."""
    stamp = header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _image(message: Any) -> RawImage:
    return RawImage(
        height=int(message.height),
        width=int(message.width),
        encoding=message.encoding,
        is_bigendian=int(message.is_bigendian),
        step=int(message.step),
        data=np.ascontiguousarray(message.data, dtype=np.uint8).data,
        stamp_ns=_stamp_ns(message.header),
        frame_id=message.header.frame_id,
    )


def _compressed(message: Any) -> CompressedImage:
    return CompressedImage(
        format=message.format,
        data=np.ascontiguousarray(message.data, dtype=np.uint8).data,
        stamp_ns=_stamp_ns(message.header),
        frame_id=message.header.frame_id,
    )


def _camera(message: Any) -> CameraFields:
    return CameraFields(
        width=int(message.width),
        height=int(message.height),
        distortion_model=message.distortion_model,
        d=_matrix(message, 'd'),
        k=_matrix(message, 'k'),
        r=_matrix(message, 'r'),
        p=_matrix(message, 'p'),
        binning_x=int(message.binning_x),
        binning_y=int(message.binning_y),
        roi_x_offset=int(message.roi.x_offset),
        roi_y_offset=int(message.roi.y_offset),
        roi_width=int(message.roi.width),
        roi_height=int(message.roi.height),
        roi_do_rectify=bool(message.roi.do_rectify),
        frame_id=message.header.frame_id,
        stamp_ns=_stamp_ns(message.header),
    )


def _matrix(message: Any, name: str) -> tuple[float, ...]:
    """Return a field of CameraInfo, whose name is a capital letter in ROS 1."""
    values = getattr(message, name) if hasattr(message, name) else getattr(message, name.upper())
    return tuple(float(value) for value in values)


def _scan(message: Any) -> LaserScanFields:
    return LaserScanFields(
        angle_min_rad=float(message.angle_min),
        angle_max_rad=float(message.angle_max),
        angle_increment_rad=float(message.angle_increment),
        range_min_m=float(message.range_min),
        range_max_m=float(message.range_max),
        ranges_m=np.array(message.ranges, dtype=np.float32),
        stamp_ns=_stamp_ns(message.header),
        frame_id=message.header.frame_id,
        time_increment_s=float(message.time_increment),
        scan_time_s=float(message.scan_time),
    )


def _pose(position: Any, orientation: Any) -> NDArray[np.float64]:
    """Return the (4, 4) pose of a geometry_msgs position and orientation."""
    pose = np.eye(4)
    pose[:3, :3] = rotation_of(orientation.x, orientation.y, orientation.z, orientation.w)
    pose[:3, 3] = position.x, position.y, position.z
    return pose


def _odometry(message: Any) -> OdometryFields:
    return OdometryFields(
        pose=_pose(message.pose.pose.position, message.pose.pose.orientation),
        stamp_ns=_stamp_ns(message.header),
        frame_id=message.header.frame_id,
        child_frame_id=message.child_frame_id,
    )


def _transforms(message: Any) -> TransformsFields:
    return TransformsFields(
        tuple(
            Transform(
                parent=item.header.frame_id,
                child=item.child_frame_id,
                pose=_pose(item.transform.translation, item.transform.rotation),
                stamp_ns=_stamp_ns(item.header),
            )
            for item in message.transforms
        )
    )


def _imu(message: Any) -> ImuFields:
    return ImuFields(
        angular_velocity_rad_s=_measured(
            message.angular_velocity, message.angular_velocity_covariance
        ),
        linear_acceleration_m_s2=_measured(
            message.linear_acceleration, message.linear_acceleration_covariance
        ),
        stamp_ns=_stamp_ns(message.header),
        frame_id=message.header.frame_id,
    )


def _measured(vector: Any, covariance: Any) -> NDArray[np.float64]:
    """Return a vector; NaN where the first covariance is -1, which means 'not measured'."""
    if float(covariance[0]) == -1.0:
        return np.full(3, np.nan)
    return np.array([vector.x, vector.y, vector.z], dtype=np.float64)


def _cloud(message: Any) -> PointCloudFields:
    return PointCloudFields(
        height=int(message.height),
        width=int(message.width),
        fields=tuple(
            PointField(item.name, int(item.offset), int(item.datatype), int(item.count))
            for item in message.fields
        ),
        is_bigendian=bool(message.is_bigendian),
        point_step=int(message.point_step),
        row_step=int(message.row_step),
        data=np.ascontiguousarray(message.data, dtype=np.uint8).data,
        stamp_ns=_stamp_ns(message.header),
        frame_id=message.header.frame_id,
    )


_CONVERTERS: Mapping[str, Callable[[Any], Content]] = {
    'sensor_msgs/msg/Image': _image,
    'sensor_msgs/msg/CompressedImage': _compressed,
    'sensor_msgs/msg/CameraInfo': _camera,
    'sensor_msgs/msg/LaserScan': _scan,
    'sensor_msgs/msg/Imu': _imu,
    'sensor_msgs/msg/PointCloud2': _cloud,
    'nav_msgs/msg/Odometry': _odometry,
    'tf2_msgs/msg/TFMessage': _transforms,
    'tf/msg/tfMessage': _transforms,
}
