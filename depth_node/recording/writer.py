"""Writing recordings that ``ros2 bag`` plays: one rosbag2 folder, whole or not at all."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import MissingPackage
from depth_node.errors import RecordingError
from depth_node.errors import quoted
from depth_node.files import sync
from depth_node.frames import CameraFields
from depth_node.image_codec import encode_compressed_depth
from depth_node.image_codec import encode_jpeg
from depth_node.recording.factory import MessageFactory
from depth_node.recording.messages import ImuFields
from depth_node.recording.messages import LaserScanFields

__all__ = ['LaserScanFields', 'RecordingWriter']

_BAG_VERSION = 9
_JPEG = 'rgb8; jpeg compressed bgr8'


class RecordingWriter:
    """A context manager that fills a new rosbag2 folder.

    Messages go into a temporary folder beside ``path``, which takes its name when the ``with``
    block ends without an exception and is removed otherwise.

    :param path: folder to make; must not exist, its parent is made if needed.
    :param storage: 'mcap' or 'sqlite3'.
    :raises RecordingError: when ``path`` exists, the storage is unknown or the disk refuses.
    :raises MissingPackage: without ``rosbags``.
    """

    def __init__(self, path: Path, storage: Literal['mcap', 'sqlite3']) -> None:
        if storage not in ('mcap', 'sqlite3'):
            raise RecordingError(
                f'recording {path}', quoted(storage), "storage 'mcap' or 'sqlite3'"
            )
        self._path = Path(path)
        self._storage = storage
        self._bag, self._store, self._latched = _rosbags()
        self._make = MessageFactory(self._store.types)
        self._connections: dict[str, Any] = {}
        self._scratch: Path | None = None
        self._writer: Any = None

    def __enter__(self) -> RecordingWriter:
        self._refuse_existing()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._scratch = Path(
                tempfile.mkdtemp(
                    prefix=f'.{self._path.name}.', suffix='.tmp', dir=self._path.parent
                )
            )
            # The bag's files carry the name of their folder: the final name sits one level down.
            plugin = self._bag.StoragePlugin[self._storage.upper()]
            self._writer = self._bag.Writer(
                self._scratch / self._path.name, version=_BAG_VERSION, storage_plugin=plugin
            )
            self._writer.open()
        except (OSError, sqlite3.Error) as error:
            if self._scratch is not None:  # no end of a block is going to remove it
                shutil.rmtree(self._scratch, ignore_errors=True)
            raise self._refused(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._scratch is None:
            return
        writer, self._writer = self._writer, None
        try:
            if kind is None:
                self._publish(writer)
            else:
                writer.abort()
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def image(
        self,
        topic: str,
        rgb: NDArray[np.uint8],
        stamp_ns: int,
        frame_id: str,
        jpeg_quality: int | None = None,
    ) -> None:
        """Write an image.

        :param topic: raw images go here, JPEG files on ``topic + '/compressed'``.
        :param rgb: (H, W, 3) RGB.
        :param stamp_ns: time of acquisition, nanoseconds; also the time of the record.
        :param frame_id: optical frame.
        :param jpeg_quality: 1 to 100, or None for a raw rgb8 image.
        """
        if jpeg_quality is None:
            pixels = np.ascontiguousarray(rgb, dtype=np.uint8)
            message = self._make.raw_image(pixels, 'rgb8', stamp_ns, frame_id)
        else:
            topic += '/compressed'
            data = encode_jpeg(rgb, jpeg_quality)
            message = self._make.compressed_image(_JPEG, data, stamp_ns, frame_id)
        self._write(topic, message, stamp_ns)

    def depth(
        self,
        topic: str,
        depth_m: NDArray[np.float32],
        stamp_ns: int,
        frame_id: str,
        compressed: bool,
    ) -> None:
        """Write a depth image.

        :param topic: raw 32FC1 goes here, 16UC1 PNG on ``topic + '/compressedDepth'``.
        :param depth_m: (H, W) metres along z; NaN unknown, +Inf nothing within range.
        :param stamp_ns: time of acquisition, nanoseconds; also the time of the record.
        :param frame_id: optical frame.
        :param compressed: whole millimetres up to 65.535 m; infinity becomes unknown.
        """
        if compressed:
            topic += '/compressedDepth'
            layout, data = encode_compressed_depth(depth_m)
            message = self._make.compressed_image(layout, data, stamp_ns, frame_id)
        else:
            values = np.ascontiguousarray(depth_m, dtype='<f4')
            message = self._make.raw_image(values, '32FC1', stamp_ns, frame_id)
        self._write(topic, message, stamp_ns)

    def camera_info(self, topic: str, fields: CameraFields) -> None:
        """Write a camera_info under its own stamp and frame.

        :param topic: full topic name.
        :param fields: ``k`` of 9 values; ``p`` of 12 or none, then zeros are written.
        """
        self._write(topic, self._make.camera_info(fields), fields.stamp_ns)

    def odometry(
        self,
        topic: str,
        stamp_ns: int,
        frame_id: str,
        child_frame_id: str,
        pose: NDArray[np.float64],
    ) -> None:
        """Write an odometry message without velocities and covariances.

        :param pose: (4, 4) pose of the child frame in ``frame_id``, metres.
        """
        message = self._make.odometry(stamp_ns, frame_id, child_frame_id, pose)
        self._write(topic, message, stamp_ns)

    def static_transform(
        self, transforms: Sequence[tuple[str, str, NDArray[np.float64]]], stamp_ns: int
    ) -> None:
        """Write one latched message on /tf_static.

        :param transforms: (parent, child, (4, 4) pose of the child in the parent, metres).
        """
        message = self._make.transforms(transforms, stamp_ns)
        self._write('/tf_static', message, stamp_ns, latched=True)

    def scan(self, topic: str, scan: LaserScanFields) -> None:
        """Write a laser scan under its own stamp and frame."""
        self._write(topic, self._make.scan(scan), scan.stamp_ns)

    def imu(self, topic: str, imu: ImuFields) -> None:
        """Write what an IMU measured under its own stamp and frame."""
        self._write(topic, self._make.imu(imu), imu.stamp_ns)

    def _write(self, topic: str, message: Any, stamp_ns: int, latched: bool = False) -> None:
        """Serialize a message and append it under its topic."""
        if self._writer is None:
            raise RecordingError(
                f'recording {self._path}', f'a message on {topic}', 'an open recording'
            )
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic,
                kind,
                typestore=self._store,
                offered_qos_profiles=[self._latched] if latched else [],
            )
        connection = self._connections[topic]
        if connection.msgtype != kind:
            raise RecordingError(
                f'recording {self._path}, topic {topic}', kind, connection.msgtype
            )
        data = self._store.serialize_cdr(message, kind)
        try:
            self._writer.write(connection, stamp_ns, data)
        except (OSError, sqlite3.Error) as error:
            raise self._refused(error) from error

    def _publish(self, writer: Any) -> None:
        """Finish the bag, bring it to disk and give it its name."""
        if self._scratch is None:
            return
        try:
            writer.close()
            whole = self._scratch / self._path.name
            for path in (*whole.iterdir(), whole):
                sync(path)
            self._refuse_existing()
            whole.rename(self._path)
            sync(self._path.parent)
        except (OSError, sqlite3.Error) as error:
            raise self._refused(error) from error

    def _refuse_existing(self) -> None:
        """Raise when something is in the place of the recording."""
        if self._path.exists() or self._path.is_symlink():
            raise RecordingError(
                f'recording {self._path}',
                'a path that exists',
                'a new one',
                'Recordings are never overwritten: move it away, or choose another path.',
            )

    def _refused(self, error: Exception) -> RecordingError:
        """Word what the disk said."""
        said = quoted(str(error))
        return RecordingError(f'recording {self._path}', said, 'a disk that can be written')


def _rosbags() -> tuple[Any, Any, Any]:
    """Return rosbags' rosbag2 module, the message types of Jazzy, and the QoS of a latched topic.

    :raises MissingPackage: without ``rosbags``.
    """
    try:
        from rosbags import interfaces
        from rosbags import rosbag2
        from rosbags.typesys import Stores
        from rosbags.typesys import get_typestore
    except ImportError as error:
        raise MissingPackage('rosbags', 'writing recordings', 'pip install rosbags') from error
    forever = interfaces.QosTime(0, 0)
    latched = interfaces.Qos(
        interfaces.QosHistory.KEEP_LAST,
        1,
        interfaces.QosReliability.RELIABLE,
        interfaces.QosDurability.TRANSIENT_LOCAL,
        forever,
        forever,
        interfaces.QosLiveliness.AUTOMATIC,
        forever,
        False,
    )
    return rosbag2, get_typestore(Stores.ROS2_JAZZY), latched
