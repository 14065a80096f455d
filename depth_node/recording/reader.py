"""Reading recordings: rosbag2 folders, bare .mcap and .db3 files, and ROS 1 .bag files.

Messages are read one after the other in the order of their record times; a file is never loaded
whole.  Whatever the reading libraries raise becomes one :class:`RecordingError`.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depth_node.errors import MissingPackage
from depth_node.errors import RecordingError
from depth_node.errors import quoted
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.recording.messages import Content
from depth_node.recording.messages import content_of
from depth_node.recording.messages import known_types
from depth_node.recording.salvage import SUFFIXES
from depth_node.recording.salvage import SalvageReader
from depth_node.recording.salvage import damage_sentence
from depth_node.recording.salvage import refuse_empty

RAW_IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'

_STORAGE_SUFFIXES = ('.mcap', '.db3')
_FILE_SUFFIXES = (*_STORAGE_SUFFIXES, '.bag')
_EXPECTED = 'a rosbag2 folder, an .mcap or .db3 file, or a ROS 1 .bag file'
_DEPTH_ENCODINGS = ('16UC1', '32FC1')
_LATEST_NS = 1 << 62
_TRANSPORTS = ('/compressedDepth', '/compressed')
_REMEDIES = {
    '.mcap': 'If the recording was cut short, run: mcap recover IN.mcap -o OUT.mcap',
    '.db3': 'If metadata.yaml is at fault, run: ros2 bag reindex FOLDER; '
    'for the file itself: sqlite3 IN.db3 .recover | sqlite3 OUT.db3',
    '.bag': 'If the recording was cut short, run: rosbag reindex FILE.bag',
}


@dataclass(frozen=True)
class Topic:
    """One topic of a recording."""

    name: str
    """As recorded; ROS 1 names may lack the leading slash."""
    kind: str
    """Message type, e.g. 'sensor_msgs/msg/Image'; '' where it changes within the topic."""
    count: int
    """Number of messages."""

    @property
    def base(self) -> str:
        """The name without leading slash and without the suffix of an image transport."""
        name = self.name.lstrip('/')
        for suffix in _TRANSPORTS:
            name = name.removesuffix(suffix)
        return name

    @property
    def namespace(self) -> str:
        """The base name up to its last slash: 'camera' of '/camera/image_raw/compressed'."""
        return self.base.rpartition('/')[0]


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera."""

    image: Topic
    """Colour or grey images, raw or compressed."""
    camera_info: Topic | None
    """None where the recording has no camera_info."""
    depth: Topic | None
    """Depth images, raw or compressedDepth; None where the recording has none."""


@dataclass(frozen=True)
class Record:
    """One message of a recording."""

    topic: str
    """Name as recorded."""
    time_ns: int
    """When it was recorded, nanoseconds; the stamp of acquisition is in the content."""
    content: Content
    """What the message says."""


class Recording:
    """An open recording; made by :func:`open_recording`."""

    def __init__(self, path: Path, reader: Any, salvage: bool = False) -> None:
        self.path = path
        self._reader = reader
        self._salvage = salvage
        self._unreadable: set[tuple[str, int]] = set()
        self.topics: tuple[Topic, ...] = tuple(
            Topic(name, info.msgtype or '', info.msgcount)
            for name, info in sorted(reader.topics.items())
        )
        empty = all(topic.count == 0 for topic in self.topics)
        self.start_ns: int = 0 if empty else int(reader.start_time)
        """Record time of the first message, nanoseconds."""
        self.end_ns: int = 0 if empty else int(reader.end_time)
        """Record time after the last message, nanoseconds."""

    def of_type(self, *kinds: str) -> tuple[Topic, ...]:
        """List the topics of these message types that have messages."""
        return tuple(topic for topic in self.topics if topic.kind in kinds and topic.count)

    def records(self, topics: Collection[Topic] | None = None) -> Iterator[Record]:
        """Yield messages in the order of their record times.

        :param topics: which; None for every topic of a type that this package understands.
        :raises RecordingError: when the recording turns out to be damaged on the way.
        """
        chosen = self.topics if topics is None else topics
        names = {topic.name for topic in chosen if topic.kind in known_types()}
        for connection, time_ns, data in self._messages(names):
            try:
                content = self._content(connection, time_ns, data)
            except RecordingError:
                if not self._salvage:
                    raise
                self._unreadable.add((connection.topic, time_ns))
                continue
            yield Record(connection.topic, time_ns, content)

    @property
    def damage(self) -> str:
        """What of the recording could not be read, in sentences; '' where nothing is missing.

        Complete only after the messages have been read: damage in the middle of a file whose
        index is whole shows only there.
        """
        damage = ''
        if isinstance(self._reader, SalvageReader):
            damage = damage_sentence(self._reader, _remedy(self.path))
        if self._unreadable:
            lost = f'{len(self._unreadable)} messages could not be decoded and were left out.'
            damage = f'{damage} {lost}'.lstrip()
        return damage

    def first(self, topic: Topic) -> Content | None:
        """Return the first message of a topic, or None where there is none."""
        return next((record.content for record in self.records([topic])), None)

    def camera_topics(
        self,
        image: str | None = None,
        camera_info: str | None = None,
        depth: str | None = None,
    ) -> CameraTopics:
        """Choose the topics of one camera.

        A topic that is not named is found: the only camera of the recording (raw images go before
        compressed ones of the same name), the camera_info in the namespace of the image, the only
        depth image.  Names may lack the leading slash and the suffix of the image transport.

        :param depth: '' for none.
        :raises RecordingError: when a named topic is missing, when there are no images, or when
            several topics would do; the text lists the topics and their counts.
        """
        depths = self.depth_topics()
        pictures = self.of_type(RAW_IMAGE, COMPRESSED_IMAGE)
        colors = tuple(topic for topic in pictures if topic not in depths)
        chosen = self._chosen('image topic', image, colors)
        if chosen is None:
            raise self._unclear('no images', 'a topic of images')
        return CameraTopics(
            image=chosen,
            camera_info=self._camera_info_of(chosen, camera_info),
            depth=None if depth == '' else self._chosen('depth topic', depth, depths),
        )

    def depth_topics(self) -> tuple[Topic, ...]:
        """List the topics of depth images, raw or compressedDepth, that have messages."""
        pictures = self.of_type(RAW_IMAGE, COMPRESSED_IMAGE)
        return tuple(topic for topic in pictures if self._is_depth(topic))

    def _camera_info_of(self, image: Topic, wanted: str | None) -> Topic | None:
        """Choose the camera_info: the named one, the image's neighbour, or the only one."""
        infos = self.of_type(CAMERA_INFO)
        near = tuple(topic for topic in infos if topic.namespace == image.namespace)
        return self._chosen('camera_info topic', wanted, infos if wanted else near or infos)

    def _chosen(self, role: str, wanted: str | None, topics: tuple[Topic, ...]) -> Topic | None:
        """Return the only topic that fits, None where there is none, or say what is unclear."""
        if wanted is not None:
            bare = wanted.lstrip('/')
            exact = tuple(topic for topic in topics if topic.name.lstrip('/') == bare)
            topics = exact or tuple(topic for topic in topics if topic.base == bare)
            if not topics:
                raise self._unclear(f'no {role} {quoted(wanted)}', 'one of its topics')
        if len({topic.base for topic in topics}) > 1:
            raise self._unclear(
                f'{len(topics)} topics that could be the {role}', f'the {role} to be named'
            )
        return min(topics, key=lambda topic: len(topic.name), default=None)

    def _is_depth(self, topic: Topic) -> bool:
        """Tell depth from colour by name, and by the first message where names say nothing."""
        if topic.name.endswith('/compressedDepth'):
            return True
        content = self.first(topic)
        if isinstance(content, RawImage):
            return content.encoding in _DEPTH_ENCODINGS
        return isinstance(content, CompressedImage) and (
            'compressedDepth' in content.format or content.format.startswith(_DEPTH_ENCODINGS)
        )

    def _content(self, connection: Any, time_ns: int, data: bytes) -> Content:
        """Turn the bytes of a message into one of our values."""
        if not -_LATEST_NS <= time_ns <= _LATEST_NS:
            # a difference to a stamp, which has 32 bits of seconds, must fit into 64 bits
            raise RecordingError(
                f'recording {self.path}', f'a record time of {time_ns} ns', 'one before 2116'
            )
        try:
            message = self._reader.deserialize(data, connection.msgtype)
            content = content_of(connection.msgtype, message)
        except Exception as error:
            raise _damaged(self.path, error) from error
        if content is None:
            raise RecordingError(f'recording {self.path}', connection.msgtype, 'a known type')
        return content

    def _messages(self, names: Collection[str]) -> Iterator[Any]:
        """Yield the messages of these topics; salvage what follows damage, if that is wanted."""
        chosen = [item for item in self._reader.connections if item.topic in names]
        if not chosen:
            return
        last_ns = -_LATEST_NS
        told: Counter[str] = Counter()  # of that time: topics are often recorded at the same one
        try:
            for item in self._guarded(self._reader.messages(chosen)):
                if item[1] != last_ns:
                    last_ns = item[1]
                    told.clear()
                told[item[0].topic] += 1
                yield item
        except RecordingError:
            if not self._salvage or isinstance(self._reader, SalvageReader):
                raise
        else:
            return
        # opened first: where nothing is left, it is the old one that is closed in the end
        reader, self._reader = self._reader, _salvaged(self.path)
        reader.close()
        for item in self._messages(names):
            if item[1] == last_ns and told[item[0].topic]:
                told[item[0].topic] -= 1
            elif item[1] >= last_ns:
                yield item

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def _guarded(self, messages: Iterator[Any]) -> Iterator[Any]:
        """Yield what the library reads; its exceptions become ours."""
        while True:
            try:
                item = next(messages)
            except StopIteration:
                return
            except Exception as error:
                raise _damaged(self.path, error) from error
            yield item

    def _unclear(self, received: str, expected: str) -> RecordingError:
        """Word a choice that cannot be made, with what there is to choose from."""
        listed = ', '.join(
            f'{topic.name} ({topic.kind or "mixed types"}, {topic.count})' for topic in self.topics
        )
        return RecordingError(
            f'recording {self.path}', received, expected, f'It holds: {listed or "no topics"}.'
        )


@contextmanager
def open_recording(path: Path | str, salvage: bool = False) -> Iterator[Recording]:
    """Open a recording for reading; it is closed with the ``with`` block.

    :param path: rosbag2 folder (with or without metadata.yaml), .mcap, .db3 or ROS 1 .bag file.
    :param salvage: read what is left of a damaged recording, and say in
        :attr:`Recording.damage` what is missing; the order is then that of recording.
    :raises RecordingError: when it is missing, of a foreign format, or damaged (with ``salvage``:
        so badly that no message can be read).
    :raises MissingPackage: without ``rosbags``.
    """
    path = Path(path)
    try:
        reader = _reader(path, _storage_files(path))
    except RecordingError:
        if not salvage or not os.path.exists(path):  # which raises nothing, whatever the path
            raise
        reader = _salvaged(path)
    recording = Recording(path, reader, salvage)
    try:
        yield recording
    finally:
        recording.close()


def _salvaged(path: Path) -> SalvageReader:
    """Open a reader of what is left of a recording.

    :raises RecordingError: where nothing is.
    """
    from rosbags.typesys import Stores
    from rosbags.typesys import get_typestore

    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        files = [item for item in files if item.name.endswith(SUFFIXES) and item.is_file()]
    except OSError:
        files = []
    if not files:
        # The strict way says what kind of path this is.
        _storage_files(path)
        raise RecordingError(f'recording {path}', 'no file of messages', _EXPECTED)
    old = any(item.suffix == '.bag' for item in files)
    store = get_typestore(Stores.ROS1_NOETIC if old else Stores.ROS2_JAZZY)
    reader = SalvageReader(files, store)
    refuse_empty(path, reader, _remedy(path))
    return reader


def _reader(path: Path, files: list[Path]) -> Any:
    """Open rosbags' reader on the files of a recording."""
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores
        from rosbags.typesys import get_typestore
    except ImportError as error:
        raise MissingPackage('rosbags', 'reading recordings', 'pip install rosbags') from error
    # rosbags, apsw and the decompressors raise a dozen unrelated classes, AssertionError among
    # them, for files that are damaged.
    try:
        reader = AnyReader(files, default_typestore=get_typestore(Stores.ROS2_JAZZY))
        reader.open()
        try:
            _ = reader.topics, reader.start_time, reader.end_time  # made of what the files say
        except Exception:
            reader.close()
            raise
    except Exception as error:
        raise _damaged(files[0], error) from error
    if not reader.connections:
        reader.close()
        raise RecordingError(f'recording {path}', 'no topics', 'a recording with messages')
    return reader


def _storage_files(path: Path) -> list[Path]:
    """Return what the reader is to open: one folder, one file, or the files of a bare folder."""
    who = f'recording {path}'
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            if (path / 'metadata.yaml').is_file():
                return [path]
            files = sorted(item for item in path.iterdir() if item.suffix in _STORAGE_SUFFIXES)
            if files:
                return files
            raise RecordingError(who, 'a folder without metadata.yaml, .mcap or .db3', _EXPECTED)
    except OSError as error:
        raise RecordingError(
            who, f'nothing readable ({error.strerror})', _EXPECTED, 'Check the path.'
        ) from error
    if not stat.S_ISREG(mode) or path.suffix not in _FILE_SUFFIXES:
        raise RecordingError(who, f'a file of another kind ({quoted(path.name)})', _EXPECTED)
    return [path]


def _damaged(path: Path, error: Exception) -> RecordingError:
    """Word what a reading library said about a file."""
    said = quoted(f'{type(error).__name__}: {error}')
    return RecordingError(
        f'recording {path}', f'damaged or foreign data ({said})', _EXPECTED, _remedy(path)
    )


def _remedy(path: Path) -> str:
    """Return what mends files of this kind."""
    suffixes = {item.suffix for item in path.iterdir()} if path.is_dir() else {path.suffix}
    return next((text for suffix, text in _REMEDIES.items() if suffix in suffixes), '')
