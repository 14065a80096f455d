"""What is published of a frame: all that is listened to, as it was asked for, and no more."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any

import cv2
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
from depth_node.frames import RelativeFrame
from depth_node.ros import outputs as outputs_module
from depth_node.ros.outputs import MetricOutputs
from depth_node.ros.outputs import RelativeOutputs
from depth_node.ros.scan_topic import ScanMaker
from depth_node.settings import DepthSettings
from depth_node.settings import PointsSettings
from depth_node.settings import Settings

CAMERA = CameraModel(4, 3, 5.0, 5.0, 1.5, 1.0)
ALONE = ('depth/image_rect', 'depth/color', 'depth/color/compressed', 'scan', 'points')


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
        self.settings = Settings()

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
    for stamp_ns in range(1_000_000_000, 2_000_000_000, 50_000_000):
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
    monkeypatch.setattr(outputs_module, 'jpeg_of', None)
    for topic in ALONE:
        node.publishers[topic].listeners = 0
    assert outputs.wanted()
    assert outputs.publish(frame_with(None, None), Settings())
    assert len(node.publishers['depth/camera_info'].sent) == 1
    node.publishers['depth/camera_info'].listeners = 0
    assert not outputs.wanted()
    assert not outputs.publish(frame_with(None, None), Settings())


@pytest.mark.parametrize('topic', ALONE)
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


def ramp_frame(kind: str) -> DepthFrame | RelativeFrame:
    """Return a frame of 64 x 48 whose depth grows to the right, the first column unknown."""
    inverse = np.tile(np.linspace(2.0, 0.1, 64, dtype=np.float32), (48, 1))
    inverse[:, :8] = np.nan
    common = {
        'camera': CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5),
        'rgb': np.zeros((48, 64, 3), np.uint8),
        'stamp_ns': 7_000_000_001,
        'frame_id': 'c',
    }
    if kind == 'relative':
        return RelativeFrame(inverse=inverse, **common)
    return DepthFrame(depth_m=1.0 / inverse, **common)


@pytest.mark.parametrize('kind', ['metric', 'relative'])
def test_the_jpeg_shows_the_picture_in_its_colours_and_is_named_as_image_transport_names_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = FakeNode()
    outputs: Any = (RelativeOutputs if kind == 'relative' else MetricOutputs)(node)  # type: ignore[arg-type]
    colored = []
    of_inverse = DepthColors.of_inverse
    monkeypatch.setattr(
        DepthColors, 'of_inverse', lambda *args: colored.append(1) or of_inverse(*args)
    )
    assert outputs.publish(ramp_frame(kind), Settings())
    (whole,), (small,) = (
        node.publishers[topic].sent for topic in ('depth/color', 'depth/color/compressed')
    )
    assert len(colored) == 1
    assert small.format == 'rgb8; jpeg compressed bgr8'
    assert small.header == whole.header and small.header.stamp.sec == 7
    decoded = cv2.imdecode(np.frombuffer(bytes(small.data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    rgb = np.frombuffer(whole.data, np.uint8).reshape(48, 64, 3)
    assert np.abs(decoded.astype(int) - rgb).mean() < 8
    assert np.abs(decoded[..., ::-1].astype(int) - rgb).mean() > 30


def test_the_quality_of_the_jpeg_holds_from_the_next_frame_on() -> None:
    node = FakeNode()
    outputs: Any = MetricOutputs(node)  # type: ignore[arg-type]
    for quality in (95, 10):
        outputs.publish(ramp_frame('metric'), Settings(depth=DepthSettings(color_quality=quality)))
    fine, coarse = (
        len(message.data) for message in node.publishers['depth/color/compressed'].sent
    )
    assert coarse < 0.7 * fine


def test_a_picture_that_jpeg_cannot_hold_is_left_out_while_the_rest_goes_out() -> None:
    node = FakeNode()
    outputs: Any = MetricOutputs(node)  # type: ignore[arg-type]
    frame = replace(
        frame_with(None, None),
        camera=CameraModel(70_000, 1, 5.0, 5.0, 1.5, 0.0),
        rgb=np.zeros((1, 70_000, 3), np.uint8),
        depth_m=np.full((1, 70_000), 2.0, np.float32),
    )
    node.publishers['points'].listeners = 0
    assert outputs.publish(frame, Settings())
    assert not node.publishers['depth/color/compressed'].sent
    assert len(node.publishers['depth/color'].sent) == 1
