"""Makes the message objects that ``rosbags`` serializes, from plain values."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.frames import CameraFields
from depth_node.recording.messages import ImuFields
from depth_node.recording.messages import LaserScanFields
from depth_node.recording.messages import quaternion_of

Pose = NDArray[np.float64]


class MessageFactory:
    """Makes messages of the types of one type store.

    :param types: type name, e.g. 'sensor_msgs/msg/Image', to its class.
    """

    def __init__(self, types: Mapping[str, Any]) -> None:
        self._types = types

    def raw_image(self, pixels: NDArray[Any], encoding: str, stamp_ns: int, frame_id: str) -> Any:
        """Make a little-endian sensor_msgs/Image without row padding.

        :param pixels: (H, W) or (H, W, C), contiguous, H at least 1.
        """
        return self._types['sensor_msgs/msg/Image'](
            header=self._header(stamp_ns, frame_id),
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=pixels.nbytes // pixels.shape[0],
            data=pixels.reshape(-1).view(np.uint8),
        )

    def compressed_image(self, layout: str, data: bytes, stamp_ns: int, frame_id: str) -> Any:
        """Make a sensor_msgs/CompressedImage; ``layout`` is its format field."""
        return self._types['sensor_msgs/msg/CompressedImage'](
            header=self._header(stamp_ns, frame_id),
            format=layout,
            data=np.frombuffer(data, dtype=np.uint8),
        )

    def camera_info(self, fields: CameraFields) -> Any:
        """Make a sensor_msgs/CameraInfo; an empty ``p`` becomes zeros."""
        region = self._types['sensor_msgs/msg/RegionOfInterest'](
            x_offset=fields.roi_x_offset,
            y_offset=fields.roi_y_offset,
            height=fields.roi_height,
            width=fields.roi_width,
            do_rectify=fields.roi_do_rectify,
        )
        return self._types['sensor_msgs/msg/CameraInfo'](
            header=self._header(fields.stamp_ns, fields.frame_id),
            height=fields.height,
            width=fields.width,
            distortion_model=fields.distortion_model,
            d=np.array(fields.d, dtype=np.float64),
            k=np.array(fields.k, dtype=np.float64),
            r=np.array(fields.r, dtype=np.float64),
            p=np.array(fields.p or (0.0,) * 12, dtype=np.float64),
            binning_x=fields.binning_x,
            binning_y=fields.binning_y,
            roi=region,
        )

    def odometry(self, stamp_ns: int, frame_id: str, child_frame_id: str, pose: Pose) -> Any:
        """Make a nav_msgs/Odometry without velocities and covariances.

        :param pose: (4, 4) pose of the child frame in ``frame_id``, metres.
        """
        types = self._types
        zero = np.zeros(3)
        twist = types['geometry_msgs/msg/Twist'](
            linear=self._vector(zero), angular=self._vector(zero)
        )
        placed = types['geometry_msgs/msg/Pose'](
            position=types['geometry_msgs/msg/Point'](*_floats(pose[:3, 3])),
            orientation=self._quaternion(pose),
        )
        return types['nav_msgs/msg/Odometry'](
            header=self._header(stamp_ns, frame_id),
            child_frame_id=child_frame_id,
            pose=types['geometry_msgs/msg/PoseWithCovariance'](
                pose=placed, covariance=np.zeros(36)
            ),
            twist=types['geometry_msgs/msg/TwistWithCovariance'](
                twist=twist, covariance=np.zeros(36)
            ),
        )

    def transforms(self, transforms: Sequence[tuple[str, str, Pose]], stamp_ns: int) -> Any:
        """Make a tf2_msgs/TFMessage of (parent, child, (4, 4) pose of the child, metres)."""
        types = self._types
        return types['tf2_msgs/msg/TFMessage'](
            transforms=[
                types['geometry_msgs/msg/TransformStamped'](
                    header=self._header(stamp_ns, parent),
                    child_frame_id=child,
                    transform=types['geometry_msgs/msg/Transform'](
                        translation=self._vector(pose[:3, 3]), rotation=self._quaternion(pose)
                    ),
                )
                for parent, child, pose in transforms
            ]
        )

    def scan(self, scan: LaserScanFields) -> Any:
        """Make a sensor_msgs/LaserScan without intensities."""
        return self._types['sensor_msgs/msg/LaserScan'](
            header=self._header(scan.stamp_ns, scan.frame_id),
            angle_min=scan.angle_min_rad,
            angle_max=scan.angle_max_rad,
            angle_increment=scan.angle_increment_rad,
            time_increment=float(scan.time_increment_s),
            scan_time=float(scan.scan_time_s),
            range_min=scan.range_min_m,
            range_max=scan.range_max_m,
            ranges=np.ascontiguousarray(scan.ranges_m, dtype=np.float32),
            intensities=np.zeros(0, dtype=np.float32),
        )

    def imu(self, imu: ImuFields) -> Any:
        """Make a sensor_msgs/Imu; what is NaN is marked as not measured, and so is orientation."""
        types = self._types
        turns, pushes = imu.angular_velocity_rad_s, imu.linear_acceleration_m_s2
        return types['sensor_msgs/msg/Imu'](
            header=self._header(imu.stamp_ns, imu.frame_id),
            orientation=self._quaternion(np.eye(4)),
            orientation_covariance=_covariance(False),
            angular_velocity=self._vector(turns),
            angular_velocity_covariance=_covariance(bool(np.isfinite(turns).all())),
            linear_acceleration=self._vector(pushes),
            linear_acceleration_covariance=_covariance(bool(np.isfinite(pushes).all())),
        )

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        sec, nanosec = divmod(stamp_ns, 1_000_000_000)
        stamp = self._types['builtin_interfaces/msg/Time'](sec=sec, nanosec=nanosec)
        return self._types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame_id)

    def _vector(self, values: Pose) -> Any:
        return self._types['geometry_msgs/msg/Vector3'](*_floats(values))

    def _quaternion(self, pose: Pose) -> Any:
        return self._types['geometry_msgs/msg/Quaternion'](*quaternion_of(pose[:3, :3]))


def _covariance(measured: bool) -> Pose:
    """Return an unknown covariance, or the one that says that nothing was measured."""
    covariance = np.zeros(9)
    covariance[0] = 0.0 if measured else -1.0
    return covariance


def _floats(values: Pose) -> list[float]:
    """Return plain floats; the serializer refuses numpy's."""
    return [float(value) for value in values]
