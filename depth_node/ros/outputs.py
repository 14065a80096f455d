"""What a node publishes of its frames, as topics; messages are made only for those who listen.

A model of metric depth has ``depth/image_rect`` and ``points``, one of relative inverse depth
``depth/relative``, and both ``depth/camera_info``.  A topic of the other kind is not even
advertised, so that nobody waits for metres that will never come or takes other numbers for them.
"""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
from collections.abc import Callable
from typing import Any
from typing import TypeVar

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2

from depth_node.cloud import CloudPacker
from depth_node.frames import CameraModel
from depth_node.frames import DepthFrame
from depth_node.frames import Frame
from depth_node.frames import OutputFrame
from depth_node.frames import RelativeFrame
from depth_node.model_folder import ModelCard
from depth_node.ros import messages
from depth_node.ros import qos
from depth_node.settings import PointsSettings

F = TypeVar('F', bound=Frame)


class Outputs(ABC):
    """The publishers of a configured node; published to by one thread."""

    def __init__(self, node: Node, image_topic: str) -> None:
        self._node = node
        self._publishers: list[Any] = []
        self._image = self._publisher(Image, image_topic)
        self._camera_info = self._publisher(CameraInfo, 'depth/camera_info')

    def wanted(self) -> bool:
        """Tell whether anybody listens to anything."""
        return any(publisher.get_subscription_count() for publisher in self._publishers)

    @abstractmethod
    def publish(self, frame: OutputFrame, points: PointsSettings) -> bool:
        """Publish what is listened to.

        :param frame: of the kind that these outputs are for.
        :returns: False when nobody listens any more.
        :raises Rejected: when the frame cannot become a cloud; then nothing has left.
        """

    def close(self) -> None:
        """Withdraw the topics."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)

    def _send_image(self, frame: F, message_of: Callable[[F], Image]) -> bool:
        """Publish image and camera to those who listen; both are made before either leaves."""
        ready = []
        if self._image.get_subscription_count():
            ready.append((self._image, message_of(frame)))
        if self._camera_info.get_subscription_count():
            ready.append((self._camera_info, messages.camera_info_message(frame)))
        for publisher, message in ready:
            publisher.publish(message)
        return bool(ready)

    def _publisher(self, kind: type, topic: str) -> Any:
        """Make a publisher that serves reliable and best-effort readers."""
        publisher = self._node.create_publisher(
            kind,
            topic,
            qos.newest(reliable=True),
            qos_overriding_options=qos.output_overrides(),
        )
        self._publishers.append(publisher)
        return publisher


class MetricOutputs(Outputs):
    """Depth in metres, its camera and its points."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, 'depth/image_rect')
        self._points = self._publisher(PointCloud2, 'points')
        self._packer: tuple[CameraModel, PointsSettings, CloudPacker] | None = None

    def publish(self, frame: OutputFrame, points: PointsSettings) -> bool:
        """Publish the depth first: packing a cloud takes a millisecond."""
        if not isinstance(frame, DepthFrame):
            raise TypeError(f'{type(frame).__name__} has no metres')
        listened_to = self._points.get_subscription_count() > 0
        packed = frame.cloud if points == frame.cloud_settings else None
        packer = None
        if listened_to and packed is None:
            packer = self._packer_of(frame.camera, points)
            packer.check(frame.depth_m, frame.rgb)
        sent = self._send_image(frame, messages.depth_message)
        if packer is not None:
            packed = packer.pack(frame.depth_m, frame.rgb)
        if listened_to and packed is not None:
            self._points.publish(messages.cloud_message(packed, frame))
        return sent or listened_to

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


class RelativeOutputs(Outputs):
    """Relative inverse depth and its camera."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, 'depth/relative')

    def publish(self, frame: OutputFrame, points: PointsSettings) -> bool:
        """Publish the image and its camera; ``points`` is for metres and changes nothing."""
        if not isinstance(frame, RelativeFrame):
            raise TypeError(f'{type(frame).__name__} is no relative inverse depth')
        return self._send_image(frame, messages.relative_message)


def outputs_for(node: Node, card: ModelCard) -> Outputs:
    """Offer the topics of what a model gives."""
    return RelativeOutputs(node) if card.output.kind == 'relative' else MetricOutputs(node)


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
