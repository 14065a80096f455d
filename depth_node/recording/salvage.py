"""Reads what is left of a damaged recording, message by message from the front.

Nothing that a file says about itself at its end (indices, statistics) is needed, so that files
whose end is missing can be read.  Per format one generator yields what is whole and writes into a
:class:`Damage` what is not: :mod:`~depth_node.recording.salvage_mcap`,
:mod:`~depth_node.recording.salvage_sqlite` and :mod:`~depth_node.recording.salvage_ros1`.
"""

from __future__ import annotations

import heapq
import itertools
import tempfile
from collections import deque
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depth_node.errors import RecordingError
from depth_node.recording.chunk_codecs import decompressed_file
from depth_node.recording.chunk_codecs import whole_message
from depth_node.recording.salvage_mcap import read_mcap
from depth_node.recording.salvage_ros1 import read_ros1
from depth_node.recording.salvage_sqlite import read_sqlite
from depth_node.recording.stored import Damage
from depth_node.recording.stored import StoredMessage

_READERS: dict[str, Callable[[Path, Damage], Iterator[StoredMessage]]] = {
    '.mcap': read_mcap,
    '.db3': read_sqlite,
    '.bag': read_ros1,
}
_COMPRESSED = '.zstd'
SUFFIXES = (*_READERS, *(suffix + _COMPRESSED for suffix in ('.mcap', '.db3')))
"""How the names of files end that can be salvaged."""


@dataclass(frozen=True)
class SalvagedTopic:
    """What a reader says of a topic, with the names that ``rosbags`` uses."""

    topic: str
    """Name as recorded."""
    msgtype: str | None
    """Message type; None where it changes within the topic."""
    msgcount: int
    """Messages that could be read."""


class SalvageReader:
    """Stands where ``rosbags``' reader stands, for files that it refuses.

    The files are read once to count what is there; memory is one chunk of one file.

    :param files: .mcap, .db3 or .bag files of one recording.
    :param store: the type store that messages are decoded with.
    :raises RecordingError: when nothing can be read.
    """

    def __init__(self, files: Collection[Path], store: Any) -> None:
        self._store = store
        self._is_ros1 = any(path.suffix == '.bag' for path in files)
        self._scratch = tempfile.TemporaryDirectory()
        self.damages: dict[Path, Damage] = {}
        self._files: list[Path] = []
        counts: dict[str, dict[str, int]] = {}
        self._starts: dict[Path, int] = {}
        self.start_time, self.end_time = 2**63 - 1, 0
        """Record times of the first message and just after the last, nanoseconds."""
        for path in sorted(files):
            damage = self.damages[path] = Damage()
            file = self._plain(path, damage)
            self._files.append(file)
            for message in _messages(file, damage):
                kinds = counts.setdefault(message.topic, {})
                kinds[message.kind] = kinds.get(message.kind, 0) + 1
                self._starts.setdefault(file, message.time_ns)
                self.start_time = min(self.start_time, message.time_ns)
                self.end_time = max(self.end_time, message.time_ns + 1)
        self._files.sort(key=lambda item: self._starts.get(item, 0))
        self.connections = [
            SalvagedTopic(
                topic, next(iter(kinds)) if len(kinds) == 1 else None, sum(kinds.values())
            )
            for topic, kinds in counts.items()
        ]
        self.topics = {item.topic: item for item in self.connections}
        if not self.connections:
            self.close()

    @property
    def messages_read(self) -> int:
        """Number of messages that could be read."""
        return sum(item.msgcount for item in self.connections)

    def messages(
        self, connections: Collection[SalvagedTopic]
    ) -> Iterator[tuple[SalvagedTopic, int, bytes]]:
        """Yield (topic, record time, bytes) in the order of recording."""
        wanted = {item.topic: item for item in connections}
        for message in self._merged(wanted):
            try:
                data = whole_message(message.data)
            except ValueError:
                data = message.data  # which nobody can decode: counted there
            yield wanted[message.topic], message.time_ns, data

    def _merged(self, wanted: Collection[str]) -> Iterator[StoredMessage]:
        """Yield the messages of all files by time, each file opened when its time has come.

        The parts of a split recording follow each other, so that few are open at once.
        """
        coming = deque(enumerate(self._files))
        heap: list[tuple[int, int, StoredMessage, Iterator[StoredMessage]]] = []
        while heap or coming:
            while coming and (not heap or self._starts.get(coming[0][1], 0) <= heap[0][0]):
                place, path = coming.popleft()
                messages = _messages(path, Damage(), wanted)
                for message in itertools.islice(messages, 1):
                    heapq.heappush(heap, (message.time_ns, place, message, messages))
            if heap:
                _, place, message, messages = heap[0]
                yield message
                following = next(messages, None)
                if following is None:
                    heapq.heappop(heap)
                else:
                    entry = following.time_ns, place, following, messages
                    heapq.heapreplace(heap, entry)

    def deserialize(self, data: bytes, kind: str) -> Any:
        """Turn bytes into a message object; raises whatever the type store raises."""
        if self._is_ros1:
            return self._store.deserialize_ros1(data, kind)
        return self._store.deserialize_cdr(data, kind)

    def close(self) -> None:
        """Remove what was unpacked."""
        self._scratch.cleanup()

    def _plain(self, path: Path, damage: Damage) -> Path:
        """Unpack a file that was compressed as a whole, as far as that goes."""
        if path.suffix != _COMPRESSED:
            return path
        plain = Path(self._scratch.name) / path.stem
        try:
            decompressed_file(path, plain, damage)
        except OSError as error:
            damage.stopped(f'{type(error).__name__}: {error}')
        return plain


def _messages(
    path: Path, damage: Damage, wanted: Collection[str] | None = None
) -> Iterator[StoredMessage]:
    """Yield the messages of one file; whatever goes wrong ends it and is noted."""
    try:
        for message in _READERS[path.suffix](path, damage):
            if wanted is None or message.topic in wanted:
                yield message
    except (OSError, ValueError, MemoryError) as error:
        damage.stopped(f'{type(error).__name__}: {error}')


def damage_sentence(reader: SalvageReader, remedy: str) -> str:
    """Say what was read and what was not; '' where nothing is missing."""
    seconds = max(0, reader.end_time - 1 - reader.start_time) / 1e9
    faults = [
        f'{path.name}: {text}' for path, damage in reader.damages.items() if (text := str(damage))
    ]
    if not faults:
        return ''
    read = f'{reader.messages_read} messages over {seconds:.1f} s were read.'
    return ' '.join(filter(None, [f'Damaged recording: {"; ".join(faults)}.', read, remedy]))


def refuse_empty(path: Path, reader: SalvageReader, remedy: str) -> None:
    """Refuse a recording of which nothing could be read.

    :raises RecordingError: then.
    """
    if reader.connections:
        return
    faults = '; '.join(filter(None, map(str, reader.damages.values()))) or 'no messages'
    raise RecordingError(
        f'recording {path}', f'nothing that can be read ({faults})', 'whole messages', remedy
    )
