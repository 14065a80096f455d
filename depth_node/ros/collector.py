"""Receives what the node publishes, and notes when it came: ages, counts, the last results.

Messages are taken as bytes and only those that are looked at later are unpacked, so that the
measuring takes little of the machine that it measures.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2
from sensor_msgs.msg import PointField

from depth_node.errors import RecordingError
from depth_node.errors import quoted
from depth_node.frames import CameraFields
from depth_node.health import Percentiles
from depth_node.image_codec import decode_depth
from depth_node.ros import serialized
from depth_node.ros.messages import camera_fields
from depth_node.ros.messages import raw_image

DEPTH = 'depth/image_rect'
RELATIVE = 'depth/relative'
CAMERA_INFO = 'depth/camera_info'
POINTS = 'points'
DIAGNOSTICS = '/diagnostics'

_FLOAT32 = PointField.FLOAT32

# Deep enough that a pause of this process is not counted against the node.
_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
_KINDS: tuple[tuple[str, Any], ...] = (
    (DEPTH, Image),
    (RELATIVE, Image),
    (CAMERA_INFO, CameraInfo),
    (POINTS, PointCloud2),
)


@dataclass(frozen=True)
class Arrival:
    """One message that came."""

    stamp_ns: int
    """Stamp in its header: that of the source image, nanoseconds."""
    arrived_ns: int
    """When it came, nanoseconds of the wall clock, which is that of the stamps."""
    size_bytes: int
    """Its length as sent, bytes."""

    @property
    def age_ns(self) -> int:
        """Time from the stamp to the arrival, nanoseconds."""
        return self.arrived_ns - self.stamp_ns


@dataclass(frozen=True)
class Status:
    """The last word of one diagnostics status."""

    name: str
    """Name of the status, e.g. 'depth_node: images'."""
    level: int
    """0 OK, 1 WARN, 2 ERROR, 3 STALE."""
    message: str
    """Its sentence."""
    values: dict[str, str]
    """Its keys and values as sent."""


@dataclass(frozen=True)
class Cloud:
    """The finite points of a PointCloud2."""

    xyz_m: NDArray[np.float32]
    """(N, 3) metres, in the optical frame."""
    rgb: NDArray[np.uint8]
    """(N, 3) colours; white where the cloud has none."""
    frame_id: str
    """Frame of the points."""


@dataclass(frozen=True)
class Published:
    """Images that a node published, all of the same kind."""

    relative: bool
    """Whether they are relative inverse depth."""
    images: dict[int, NDArray[np.float32]]
    """Stamp in nanoseconds to (H, W): metres, NaN for unknown; or numbers without unit."""


class Collector:
    """Subscribes to the outputs of a node in a thread and a ROS context of its own.

    A node offers metric depth or relative inverse depth; which one shows when the first image
    comes.

    :param keep_every: the bytes of every n-th image are kept for :meth:`published`.
    :param points: False leaves the cloud unsubscribed, so that the node need not make it.
    """

    def __init__(self, keep_every: int = 1, points: bool = True) -> None:
        self._keep_every = keep_every
        self._points = points
        self._lock = threading.Lock()
        self._arrivals: dict[str, list[Arrival]] = {topic: [] for topic, _ in _KINDS}
        self._latest: dict[str, bytes] = {}
        self._kept: dict[int, bytes] = {}
        self._statuses: dict[str, Status] = {}
        self._diagnostics = 0
        self._context = Context()

    def __enter__(self) -> Collector:
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        node = Node('collector', context=self._context)
        for topic, kind in _KINDS:
            if topic != POINTS or self._points:
                node.create_subscription(kind, topic, self._receiver(topic), _QOS, raw=True)
        node.create_subscription(DiagnosticArray, DIAGNOSTICS, self._diagnose, _QOS)
        self._node = node
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, name='collector', daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown()
        self._context.try_shutdown()
        self._thread.join(timeout=5.0)

    def arrivals(self, topic: str) -> tuple[Arrival, ...]:
        """Return what came on one of the topics of the node's outputs so far."""
        with self._lock:
            return tuple(self._arrivals[topic])

    def count(self, topic: str) -> int:
        """Return how many messages came on a topic so far."""
        with self._lock:
            return len(self._arrivals[topic])

    @property
    def image_topic(self) -> str:
        """Return RELATIVE where images came on it, else DEPTH."""
        return RELATIVE if self.count(RELATIVE) else DEPTH

    def published(self) -> Published:
        """Return the kept images.

        Unpacks all of them: for use after the run.
        """
        topic = self.image_topic
        with self._lock:
            kept = dict(self._kept)
            if last := self._latest.get(topic):
                kept[serialized.stamp_ns(last)] = last
        unpack = _relative_of if topic == RELATIVE else _depth_of
        images = {stamp_ns: unpack(data) for stamp_ns, data in sorted(kept.items())}
        return Published(topic == RELATIVE, images)

    def camera(self) -> CameraFields | None:
        """Return the last depth/camera_info."""
        data = self._last(CAMERA_INFO)
        return None if data is None else camera_fields(deserialize_message(data, CameraInfo))

    def cloud(self) -> Cloud | None:
        """Return the finite points of the last cloud."""
        data = self._last(POINTS)
        return None if data is None else cloud_of(deserialize_message(data, PointCloud2))

    def statuses(self) -> tuple[Status, ...]:
        """Return the last status of every name on /diagnostics."""
        with self._lock:
            return tuple(self._statuses.values())

    def wait_for_diagnostics(self, timeout_s: float) -> bool:
        """Wait for one more message on /diagnostics; return whether it came."""
        with self._lock:
            before = self._diagnostics
        limit_s = time.monotonic() + timeout_s
        while time.monotonic() < limit_s:
            with self._lock:
                if self._diagnostics > before:
                    return True
            time.sleep(0.02)
        return False

    def _last(self, topic: str) -> bytes | None:
        """Return the bytes of the last message of a topic."""
        with self._lock:
            return self._latest.get(topic)

    def _receiver(self, topic: str) -> Any:
        """Make the callback of a topic."""

        def receive(data: bytes) -> None:
            arrival = Arrival(serialized.stamp_ns(data), time.time_ns(), len(data))
            with self._lock:
                arrivals = self._arrivals[topic]
                image = topic in (DEPTH, RELATIVE)
                if image and len(arrivals) % self._keep_every == 0:
                    self._kept[arrival.stamp_ns] = data
                arrivals.append(arrival)
                self._latest[topic] = data

        return receive

    def _diagnose(self, message: Any) -> None:
        """Note the statuses of a DiagnosticArray."""
        statuses = {
            status.name: Status(
                name=status.name,
                level=status.level[0] if isinstance(status.level, bytes) else status.level,
                message=status.message,
                values={item.key: item.value for item in status.values},
            )
            for status in message.status
        }
        with self._lock:
            self._statuses.update(statuses)
            self._diagnostics += 1

    def _spin(self) -> None:
        """Take messages until the context is shut down."""
        try:
            self._executor.spin()
        except Exception:
            # rclpy raises from its wait set when the context ends while it waits.
            if self._context.ok():
                raise


def percentiles_ms(arrivals: Sequence[Arrival]) -> Percentiles | None:
    """Return the nearest-rank percentiles of the ages, or None where nothing came."""
    ages_ns = sorted(arrival.age_ns for arrival in arrivals)
    if not ages_ns:
        return None
    ranked = [ages_ns[math.ceil(share * len(ages_ns)) - 1] / 1e6 for share in (0.5, 0.95, 0.99)]
    return Percentiles(*ranked)


def rate_hz(arrivals: Sequence[Arrival]) -> float:
    """Return the mean rate between the first and the last arrival; 0 for fewer than two."""
    if len(arrivals) < 2:
        return 0.0
    spent_ns = arrivals[-1].arrived_ns - arrivals[0].arrived_ns
    return (len(arrivals) - 1) / spent_ns * 1e9 if spent_ns > 0 else 0.0


def cloud_of(message: Any) -> Cloud:
    """Return the finite points of a sensor_msgs/PointCloud2.

    :raises RecordingError: for a cloud without float32 x, y and z.
    """
    offsets = {field.name: field.offset for field in message.fields}
    floats = {field.name for field in message.fields if field.datatype == _FLOAT32}
    if not {'x', 'y', 'z'} <= floats:
        listed = ', '.join(field.name for field in message.fields)
        raise RecordingError('cloud', f'fields {listed}', 'float32 x, y and z')
    order = '>' if message.is_bigendian else '<'
    # Colours are bits in a field that is called a float: read as one, some would be NaN.
    formats = {'x': f'{order}f4', 'y': f'{order}f4', 'z': f'{order}f4', 'rgb': f'{order}u4'}
    names = [name for name in formats if name in offsets]
    layout = np.dtype(
        {
            'names': names,
            'formats': [formats[name] for name in names],
            'offsets': [offsets[name] for name in names],
            'itemsize': message.point_step,
        }
    )
    points = np.frombuffer(message.data, dtype=layout, count=message.width * message.height)
    xyz_m = np.stack([points[name].astype(np.float32) for name in 'xyz'], axis=-1)
    finite = np.isfinite(xyz_m).all(axis=-1)
    colors = np.full((xyz_m.shape[0], 3), 255, dtype=np.uint8)
    if 'rgb' in offsets:
        packed = points['rgb']
        colors = np.stack([packed >> shift & 0xFF for shift in (16, 8, 0)], -1).astype(np.uint8)
    return Cloud(xyz_m[finite], colors[finite], message.header.frame_id)


def _depth_of(data: bytes) -> NDArray[np.float32]:
    """Unpack a serialized depth image to (H, W) metres."""
    return decode_depth(raw_image(deserialize_message(data, Image)))


def _relative_of(data: bytes) -> NDArray[np.float32]:
    """Unpack a serialized image of relative inverse depth to (H, W) numbers without unit.

    :raises RecordingError: for another layout than that of the node.
    """
    message = deserialize_message(data, Image)
    height, width = message.height, message.width
    if message.encoding != '32FC1' or len(message.data) != height * width * 4:
        raise RecordingError('relative image', quoted(message.encoding), '32FC1 without padding')
    order = '>' if message.is_bigendian else '<'
    values = np.frombuffer(message.data, np.dtype(f'{order}f4')).reshape(height, width)
    return values.astype(np.float32)
