"""What a node publishes of its frames, as topics; messages are made only for those who listen.

A model of metric depth has ``depth/image_rect``, ``scan`` and ``points``, one of relative inverse
depth ``depth/relative``, and both ``depth/camera_info``, ``depth/color`` and
``depth/color/compressed``.  A topic of the other kind is not even advertised, so that nobody waits
for metres that will never come or takes other numbers for them.
"""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from sensor_msgs.msg import LaserScan
from sensor_msgs.msg import PointCloud2

from depth_node.depth_colors import DepthColors
from depth_node.depth_colors import jpeg_of
from depth_node.depth_image import DepthEncoder
from depth_node.frames import DepthFrame
from depth_node.frames import OutputFrame
from depth_node.frames import RelativeFrame
from depth_node.model_folder import ModelCard
from depth_node.ros import messages
from depth_node.ros import qos
from depth_node.ros.cloud_topic import CloudMaker
from depth_node.ros.scan_topic import ScanMaker
from depth_node.settings import DepthSettings
from depth_node.settings import Settings

Offer = tuple[Any, Callable[[], Any]]
"""A publisher, and what makes its message; None where there is none for this frame."""


class Outputs(ABC):
    """The publishers of one camera of a configured node; published to by one thread.

    :param prefix: what stands before the names of the topics.
    """

    def __init__(self, node: Node, image_topic: str, prefix: str) -> None:
        self._node = node
        self._prefix = prefix
        self._publishers: list[Any] = []
        self._image = self._publisher(Image, image_topic)
        self._camera_info = self._publisher(CameraInfo, 'depth/camera_info')
        self._color = self._publisher(Image, 'depth/color')
        self._jpeg = self._publisher(CompressedImage, 'depth/color/compressed')
        self._colors = DepthColors()

    def wanted(self) -> bool:
        """Tell whether anybody listens to anything."""
        return any(publisher.get_subscription_count() for publisher in self._publishers)

    @abstractmethod
    def publish(self, frame: OutputFrame, settings: Settings) -> bool:
        """Publish what is listened to.

        :param frame: of the kind that these outputs are for.
        :returns: False when nobody listens any more; True also where what is listened to is not
            due, or not to be had of this camera.
        :raises Rejected: when the frame cannot become a cloud; then nothing has left.
        """

    def close(self) -> None:
        """Withdraw the topics."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)

    def _send(self, *offers: Offer) -> bool:
        """Make what is listened to, all before any of it leaves; return False for nothing."""
        listened = [offer for offer in offers if offer[0].get_subscription_count()]
        ready = [(publisher, make()) for publisher, make in listened]
        for publisher, message in ready:
            if message is not None:
                publisher.publish(message)
        return bool(listened)

    def _send_pictures(
        self, frame: OutputFrame, colored: Callable[[], NDArray[np.uint8]], quality: int
    ) -> bool:
        """Send the picture for people, whole and as JPEG; coloured once for both.

        :param colored: makes the picture, (H, W, 3) RGB.
        """
        rgb = cache(colored)

        def compressed() -> CompressedImage | None:
            encoded = jpeg_of(rgb(), quality)
            return None if encoded is None else messages.jpeg_message(frame, encoded)

        return self._send(
            (self._color, lambda: messages.image_message(frame, rgb(), 'rgb8')),
            (self._jpeg, compressed),
        )

    def _publisher(self, kind: type, topic: str) -> Any:
        """Make a publisher that serves reliable and best-effort readers, with nothing stale."""
        publisher = self._node.create_publisher(
            kind,
            self._prefix + topic,
            qos.of_frames(self._node.settings.input.max_age_s),
            qos_overriding_options=qos.output_overrides(),
        )
        self._publishers.append(publisher)
        return publisher


class MetricOutputs(Outputs):
    """Depth in metres, its camera, its scan and its points."""

    def __init__(self, node: Node, prefix: str = '') -> None:
        super().__init__(node, 'depth/image_rect', prefix)
        self._scan = self._publisher(LaserScan, 'scan')
        self._points = self._publisher(PointCloud2, 'points')
        self._scans = ScanMaker(node)
        self._clouds = CloudMaker()
        self._depths = DepthEncoder()

    def publish(self, frame: OutputFrame, settings: Settings) -> bool:
        """Publish the depth first: packing a cloud takes a millisecond."""
        if not isinstance(frame, DepthFrame):
            raise TypeError(f'{type(frame).__name__} has no metres')
        listened_to = self._points.get_subscription_count() > 0
        known = frame.camera.is_known
        due = listened_to and known and self._clouds.due(frame, settings.points)
        sent = self._send(
            (self._image, lambda: self._depth_message(frame, settings.depth)),
            (self._camera_info, lambda: _camera_info(frame)),
        )
        sent |= self._send(
            (self._scan, lambda: self._scans.message(frame, settings) if known else None)
        )
        sent |= self._send_pictures(
            frame, lambda: self._colors.of_depth(frame.depth_m), settings.depth.color_quality
        )
        if due:
            self._points.publish(self._clouds.message(frame, settings.points))
        return sent or listened_to

    def _depth_message(self, frame: DepthFrame, depth: DepthSettings) -> Image:
        """Return the depth in the encoding that is asked for."""
        values = self._depths.encoded(frame.depth_m, depth)
        return messages.image_message(frame, values, depth.encoding)


class RelativeOutputs(Outputs):
    """Relative inverse depth and its camera."""

    def __init__(self, node: Node, prefix: str = '') -> None:
        super().__init__(node, 'depth/relative', prefix)

    def publish(self, frame: OutputFrame, settings: Settings) -> bool:
        """Publish the image, its camera and its picture."""
        if not isinstance(frame, RelativeFrame):
            raise TypeError(f'{type(frame).__name__} is no relative inverse depth')
        sent = self._send(
            (self._image, lambda: messages.relative_message(frame)),
            (self._camera_info, lambda: _camera_info(frame)),
        )
        return (
            self._send_pictures(
                frame, lambda: self._colors.of_inverse(frame.inverse), settings.depth.color_quality
            )
            or sent
        )


def _camera_info(frame: OutputFrame) -> CameraInfo | None:
    """Return the camera of a frame; None where it is unknown: nobody is told a wrong one."""
    return messages.camera_info_message(frame) if frame.camera.is_known else None


def outputs_for(node: Node, card: ModelCard, prefix: str = '') -> Outputs:
    """Offer the topics of what a model gives.

    :param prefix: what stands before their names.
    """
    kind = RelativeOutputs if card.output.kind == 'relative' else MetricOutputs
    return kind(node, prefix)


def remark_on(card: ModelCard) -> str:
    """Say what a user should know of the topics of a model; empty where it gives metric depth."""
    if card.output.kind != 'relative':
        return ''
    return (
        f'model {card.name} gives relative inverse depth: numbers without unit, larger is nearer. '
        'They go out on depth/relative; depth/image_rect and points are not offered, because '
        'metres need a scale and a shift, which are not measured yet. For metres set model.name '
        'to a model that is listed as metric by: python -m depth_node.tools.models list'
    )
