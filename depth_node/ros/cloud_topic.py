"""What goes out on ``points``: when, and of what kind; packing is :mod:`depth_node.cloud`."""

from __future__ import annotations

from sensor_msgs.msg import PointCloud2

from depth_node.cloud import CloudPacker
from depth_node.frames import CameraModel
from depth_node.frames import DepthFrame
from depth_node.rate_limit import RateLimit
from depth_node.ros import messages
from depth_node.settings import PointsSettings


class CloudMaker:
    """Makes clouds of depth frames; keeps the tables and buffers of the last camera."""

    def __init__(self) -> None:
        self._rate = RateLimit()
        self._key: tuple[CameraModel, PointsSettings] | None = None
        self._packer: CloudPacker | None = None

    def due(self, frame: DepthFrame, points: PointsSettings) -> bool:
        """Tell whether a cloud of this frame is to go out; to be asked once per frame.

        :raises Rejected: when the frame cannot become a cloud.
        """
        if not _is_packed(frame, points):
            self._packer_of(frame.camera, points).check(frame.depth_m, frame.rgb)
        return self._rate.take(frame.stamp_ns, points.max_rate_hz)

    def message(self, frame: DepthFrame, points: PointsSettings) -> PointCloud2:
        """Return the cloud of a frame that is :meth:`due`; valid until the next is made."""
        packed = frame.cloud if _is_packed(frame, points) else None
        if packed is None:
            packed = self._packer_of(frame.camera, points).pack(frame.depth_m, frame.rgb)
        return messages.cloud_message(packed, frame)

    def _packer_of(self, camera: CameraModel, points: PointsSettings) -> CloudPacker:
        """Return the packer of this camera, whose tables and buffers are kept."""
        if self._packer is None or self._key != (camera, points):
            self._packer = CloudPacker(
                camera,
                organized=points.organized,
                color=points.color,
                stride=points.stride,
                padded=points.padded,
                voxel_m=points.voxel_m,
            )
            self._key = (camera, points)
        return self._packer


def _is_packed(frame: DepthFrame, points: PointsSettings) -> bool:
    """Tell whether the engine has packed a cloud of this kind already."""
    return frame.cloud is not None and frame.cloud_settings == points
