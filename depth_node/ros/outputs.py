"""Depth, its camera and its points as topics; made only for those who listen."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2

from depth_node.cloud import CloudPacker
from depth_node.frames import CameraModel
from depth_node.frames import DepthFrame
from depth_node.ros import messages
from depth_node.ros import qos
from depth_node.settings import PointsSettings


class Outputs:
    """The three publishers of a configured node; published to by one thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._depth = self._publisher(Image, 'depth/image_rect')
        self._camera_info = self._publisher(CameraInfo, 'depth/camera_info')
        self._points = self._publisher(PointCloud2, 'points')
        self._packer: tuple[CameraModel, PointsSettings, CloudPacker] | None = None

    def wanted(self) -> bool:
        """Tell whether anybody listens to anything."""
        publishers = (self._depth, self._points, self._camera_info)
        return any(publisher.get_subscription_count() for publisher in publishers)

    def publish(self, frame: DepthFrame, points: PointsSettings) -> bool:
        """Publish what is listened to, the depth first: packing a cloud takes a millisecond.

        :returns: False when nobody listens any more.
        :raises Rejected: when the frame cannot become a cloud; then nothing has left.
        """
        packer = None
        if self._points.get_subscription_count():
            packer = self._packer_of(frame.camera, points)
            packer.check(frame.depth_m, frame.rgb)
        ready = []
        if self._depth.get_subscription_count():
            ready.append((self._depth, messages.depth_message(frame)))
        if self._camera_info.get_subscription_count():
            ready.append((self._camera_info, messages.camera_info_message(frame)))
        for publisher, message in ready:
            publisher.publish(message)
        if packer is not None:
            packed = packer.pack(frame.depth_m, frame.rgb)
            self._points.publish(messages.cloud_message(packed, frame))
        return bool(ready) or packer is not None

    def close(self) -> None:
        """Withdraw the topics."""
        for publisher in (self._depth, self._camera_info, self._points):
            self._node.destroy_publisher(publisher)

    def _publisher(self, kind: type, topic: str) -> Any:
        """Make a publisher that serves reliable and best-effort readers."""
        return self._node.create_publisher(
            kind,
            topic,
            qos.newest(reliable=True),
            qos_overriding_options=qos.output_overrides(),
        )

    def _packer_of(self, camera: CameraModel, points: PointsSettings) -> CloudPacker:
        """Return the packer of this camera, whose tables and buffers are kept."""
        if self._packer is None or self._packer[:2] != (camera, points):
            packer = CloudPacker(
                camera,
                organized=points.organized,
                color=points.color,
                stride=points.stride,
                padded=points.padded,
            )
            self._packer = (camera, points, packer)
        return self._packer[2]
