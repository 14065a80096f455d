"""What is published of a frame: all that is listened to, as it was asked for, and no more."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2

from depth_node.cloud import XYZRGB_FIELDS
from depth_node.cloud import CloudPacker
from depth_node.depth_colors import DepthColors
from depth_node.depth_image import DepthEncoder
from depth_node.frames import CameraModel
from depth_node.frames import DepthFrame
from depth_node.frames import PackedCloud
from depth_node.ros.outputs import MetricOutputs
from depth_node.ros.scan_topic import ScanMaker
from depth_node.settings import DepthSettings
from depth_node.settings import PointsSettings
from depth_node.settings import Settings

CAMERA = CameraModel(4, 3, 5.0, 5.0, 1.5, 1.0)


class Listened:
    """A publisher that has one subscriber unless it is told otherwise."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.listeners = 1

    def get_subscription_count(self) -> int:
        return self.listeners

    def publish(self, message: Any) -> None:
        self.sent.append(message)


class FakeNode:
    def __init__(self) -> None:
        self.publishers: dict[str, Listened] = {}
        self.warnings: list[str] = []
        self.warning = self.warnings.append

    def create_publisher(self, kind: type, topic: str, *_: Any, **__: Any) -> Listened:
        return self.publishers.setdefault(topic, Listened())

    def get_logger(self) -> Any:
        return self


def frame_with(cloud: PackedCloud | None, settings: PointsSettings | None) -> DepthFrame:
    return DepthFrame(
        camera=CAMERA,
        rgb=np.zeros((3, 4, 3), np.uint8),
        stamp_ns=1,
        frame_id='c',
        depth_m=np.full((3, 4), 2.0, np.float32),
        cloud=cloud,
        cloud_settings=settings,
    )


def published(frame: DepthFrame, points: PointsSettings) -> PointCloud2:
    node = FakeNode()
    outputs: Any = MetricOutputs(node)  # type: ignore[arg-type]
    assert outputs.publish(frame, Settings(points=points))
    (message,) = node.publishers['points'].sent
    return message


PACKED = PackedCloud(array('B', bytes(range(192))), 4, 3, 16, XYZRGB_FIELDS, is_dense=False)


def test_a_cloud_that_came_with_the_frame_is_not_packed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CloudPacker, 'pack', None)
    message = published(frame_with(PACKED, PointsSettings()), PointsSettings())
    assert bytes(message.data) == bytes(range(192))
    assert (message.width, message.height, message.point_step) == (4, 3, 16)
    assert not message.is_dense


@pytest.mark.parametrize('made_for', [None, PointsSettings(stride=2)])
def test_a_cloud_of_another_kind_than_is_wanted_is_packed_from_the_depth(
    made_for: PointsSettings | None,
) -> None:
    cloud = None if made_for is None else PACKED
    message = published(frame_with(cloud, made_for), PointsSettings())
    z = np.frombuffer(bytes(message.data), np.float32).reshape(3, 4, 4)[..., 2]
    assert (z == 2.0).all() and message.is_dense


def test_a_cloud_that_is_not_due_is_not_packed_while_depth_goes_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = FakeNode()
    outputs: Any = MetricOutputs(node)  # type: ignore[arg-type]
    settings = Settings(points=PointsSettings(max_rate_hz=10.0))
    packed = []
    pack = CloudPacker.pack
    monkeypatch.setattr(CloudPacker, 'pack', lambda *args: packed.append(1) or pack(*args))
    for stamp_ns in range(0, 1_000_000_000, 50_000_000):
        assert outputs.publish(replace(frame_with(None, None), stamp_ns=stamp_ns), settings)
    assert len(node.publishers['depth/image_rect'].sent) == 20
    assert len(node.publishers['points'].sent) == len(packed) == 10


def test_a_cloud_that_came_with_the_frame_is_good_for_every_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CloudPacker, 'pack', None)
    frame = frame_with(PACKED, PointsSettings())
    assert bytes(published(frame, PointsSettings(max_rate_hz=5.0)).data) == bytes(range(192))


def test_depth_colours_and_scan_cost_nothing_while_nobody_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = FakeNode()
    outputs: Any = MetricOutputs(node)  # type: ignore[arg-type]
    for name in ('of_depth', 'of_inverse'):
        monkeypatch.setattr(DepthColors, name, None)
    monkeypatch.setattr(DepthEncoder, 'encoded', None)
    monkeypatch.setattr(ScanMaker, 'message', None)
    monkeypatch.setattr(CloudPacker, 'check', None)
    for topic in ('depth/image_rect', 'depth/color', 'scan', 'points'):
        node.publishers[topic].listeners = 0
    assert outputs.wanted()
    assert outputs.publish(frame_with(None, None), Settings())
    assert len(node.publishers['depth/camera_info'].sent) == 1
    node.publishers['depth/camera_info'].listeners = 0
    assert not outputs.wanted()
    assert not outputs.publish(frame_with(None, None), Settings())


@pytest.mark.parametrize('topic', ['depth/image_rect', 'depth/color', 'scan', 'points'])
def test_every_output_alone_is_served(topic: str) -> None:
    node = FakeNode()
    outputs: Any = MetricOutputs(node)  # type: ignore[arg-type]
    for name, publisher in node.publishers.items():
        publisher.listeners = int(name == topic)
    assert outputs.wanted() and outputs.publish(frame_with(None, None), Settings())
    assert {name: len(item.sent) for name, item in node.publishers.items() if item.sent} == {
        topic: 1
    }


def test_depth_goes_out_in_the_encoding_that_is_asked_for() -> None:
    node = FakeNode()
    outputs: Any = MetricOutputs(node)  # type: ignore[arg-type]
    frame = replace(frame_with(None, None), depth_m=np.full((3, 4), np.inf, np.float32))
    outputs.publish(frame, Settings(depth=DepthSettings(encoding='16UC1', beyond='max', max_m=9)))
    (depth,) = node.publishers['depth/image_rect'].sent
    assert (depth.encoding, depth.step, depth.height, depth.width) == ('16UC1', 8, 3, 4)
    assert (np.frombuffer(depth.data, np.uint16) == 9000).all()
    # what is beyond the range stays so for those who clear by it, and is no point
    (scan,) = node.publishers['scan'].sent
    assert np.isposinf(scan.ranges).all()
    (cloud,) = node.publishers['points'].sent
    assert np.isnan(np.frombuffer(bytes(cloud.data), np.float32).reshape(-1, 4)[:, :3]).all()
    (color,) = node.publishers['depth/color'].sent
    assert (color.encoding, color.step, len(color.data)) == ('rgb8', 12, 36)
