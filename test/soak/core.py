"""The node's own stream without DDS: its checks, slot, worker, pipeline and outputs are real.

What stands in for rclpy's node hands messages to the callbacks and records what is published.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import scripted_engine
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from depth_node.engines import selection
from depth_node.health import Health
from depth_node.pipeline import Pipeline
from depth_node.ros.channel import Channel
from depth_node.ros.stream import Stream
from depth_node.settings import flat
from depth_node.settings import settings_from
from soak.engine import CHANCE


class Silent:
    """A logger that only counts."""

    def __init__(self) -> None:
        self.lines = 0

    def warning(self, text: str) -> None:
        self.lines += 1


class RecordingPublisher:
    """Serialises what is published, as rclpy does, and tells a listener of it."""

    def __init__(self, node: FakeNode, kind: type, topic: str) -> None:
        self._node, self._kind, self.topic = node, kind, topic

    def get_subscription_count(self) -> int:
        return int(self._node.listened_to)

    def publish(self, message: Any) -> None:
        serialize_message(message)
        if self.topic.endswith('depth/image_rect'):
            self._node.on_depth(message)


class FakeNode:
    """What Stream, Worker and Outputs need of a node."""

    def __init__(self, settings: dict[str, Any], on_depth: Callable[[Any], None]) -> None:
        self.settings = settings_from(settings)
        self.on_depth = on_depth
        self.listened_to = True
        self.log = Silent()
        self.now_ns = time.monotonic_ns()
        self.given_up: list[str] = []
        self.reopened = 0
        self.pipeline = Pipeline.open(self.settings)
        self._callbacks: dict[str, Callable[[Any], None]] = {}

    def get_logger(self) -> Silent:
        return self.log

    def stamp_now_ns(self) -> int:
        return self.now_ns

    def reopen_pipeline(self) -> Pipeline:
        self.reopened += 1
        self.pipeline.close()
        self.pipeline = Pipeline.open(self.settings)
        return self.pipeline

    def give_up(self, exit_code: int, text: str) -> None:
        self.given_up.append(f'{exit_code}: {text}')

    def resolve_topic_name(self, name: str) -> str:
        return f'/{name}'

    def get_publishers_info_by_topic(self, topic: str) -> list[Any]:
        return []

    def count_publishers(self, topic: str) -> int:
        return 0

    def create_publisher(self, kind: type, topic: str, *_: Any, **__: Any) -> Any:
        return RecordingPublisher(self, kind, topic)

    def create_subscription(
        self, kind: type, topic: str, callback: Any, *_: Any, **__: Any
    ) -> Any:
        self._callbacks[topic] = callback
        return topic

    def destroy_subscription(self, topic: str) -> None:
        self._callbacks.pop(topic, None)

    def deliver_camera(self, message: CameraInfo, prefix: str = '') -> None:
        self._callbacks[f'{prefix}camera_info'](serialize_message(message))

    def deliver_image(self, message: Image | CompressedImage, prefix: str = '') -> None:
        name = 'image' if isinstance(message, Image) else 'image/compressed'
        self._callbacks[prefix + name](message)


class Core:
    """An active node without DDS."""

    def __init__(self, folder: Path, on_depth: Callable[[Any], None], **settings: Any) -> None:
        values = {'model.name': str(folder), 'model.engine': 'openvino', **settings}
        self.node = FakeNode(values, on_depth)
        self.channels = [Channel(name, self.node.log) for name in self.node.settings.cameras]
        self.channels = self.channels or [Channel('', self.node.log)]
        for channel in self.channels:
            channel.offer(self.node, self.node.pipeline.card)
        self.health = self.channels[0].health
        self.stream: Stream | None = None

    def activate(self, **settings: Any) -> None:
        """Do what the lifecycle node does, with some settings changed."""
        if settings:
            self.node.settings = settings_from({**flat(self.node.settings), **settings})
        self.stream = Stream(self.node, self.node.pipeline, self.channels)

    def deactivate(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None and not stream.close(30.0):
            self.node.given_up.append('the worker does not end')

    def close(self) -> None:
        self.deactivate()
        self.node.pipeline.close()

    def set_clock(self, now_ns: int) -> None:
        """Set the node's clock; back as rclpy does it, with the callback for jumps."""
        back = now_ns < self.node.now_ns
        self.node.now_ns = now_ns
        if back:
            for channel in self.channels:
                channel.order.reset()

    def pending(self) -> int:
        """Return the number of images that wait or are in work; cheaper than a report."""
        return sum(_pending(channel.health) for channel in self.channels)

    def report(self) -> Any:
        return self.health.report(self.node.settings.input.max_age_s)

    def settle(self, timeout_s: float) -> bool:
        """Wait until every image is published or counted."""
        end = time.monotonic() + timeout_s
        while self.pending() and not self.node.given_up:
            if time.monotonic() > end:
                return False
            time.sleep(0.0002)
        return True


def _pending(health: Health) -> int:
    with health._lock:
        counted = health._published + sum(health._drops.values())
        return health._received - counted


@contextmanager
def chance_engine(tmp: Path, **rates: float) -> Any:
    """Put the engine that fails by chance in place; yields a model folder for it."""
    folder = tmp / 'soak-model'
    if not folder.exists():
        scripted_engine.write_model(folder)
    CHANCE.__init__()  # type: ignore[misc]
    CHANCE.rates = rates
    with mock.patch.dict(selection.ENGINES, {'openvino': 'soak.engine:ChanceEngine'}):
        yield folder
