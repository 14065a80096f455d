"""MCAP files read from the front, record by record; the format: mcap.dev/spec.

A record is an opcode, a length of 8 bytes and its content, little-endian.  Chunks hold records,
mostly compressed, under a CRC-32; one with a wrong sum is left out whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from depth_node.recording.chunk_codecs import decompressed
from depth_node.recording.stored import Damage
from depth_node.recording.stored import StoredMessage

_MAGIC = b'\x89MCAP0\r\n'
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x02, 0x03, 0x04, 0x05, 0x06, 0x0F
_LAST_OPCODE = 0x7F
_FOOTER_BYTES = 9 + 20 + len(_MAGIC)
_HEAD = struct.Struct('<BQ')
_MESSAGE_HEAD = struct.Struct('<HIQQ')
_CHUNK_HEAD = struct.Struct('<QQQII')


class _Channels:
    """Topic and type of every channel seen so far."""

    def __init__(self) -> None:
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, tuple[str, str]] = {}

    def learn(self, opcode: int, content: bytes) -> None:
        """Take in a schema or a channel.

        :raises ValueError: when it is damaged.
        """
        if opcode == _SCHEMA:
            name, _ = _text(content, 2)
            self._schemas[_number(content, 0)] = name
        elif opcode == _CHANNEL:
            topic, end = _text(content, 4)
            encoding, _ = _text(content, end)
            kind = self._schemas.get(_number(content, 2), '') if encoding == 'cdr' else ''
            self._channels[_number(content, 0)] = topic, kind

    def of(self, number: int) -> tuple[str, str] | None:
        """Return topic and type; None where nothing said them."""
        return self._channels.get(number)


def read_mcap(path: Path, damage: Damage) -> Iterator[StoredMessage]:
    """Yield the messages of a file in the order of its chunks, by time within each.

    :param damage: told what could not be read.
    """
    size = path.stat().st_size
    with path.open('rb') as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            damage.stopped('no MCAP file')
            return
        channels = _Channels()
        _learn_from_summary(file, size, channels)
        file.seek(len(_MAGIC))
        while True:
            start = file.tell()
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                damage.stopped(f'cut off at byte {start}')
                return
            opcode, length = _HEAD.unpack(head)
            if opcode in (_DATA_END, _FOOTER):
                return
            if not 0 < opcode <= _LAST_OPCODE:
                damage.stopped(f'no record at byte {start}')
                return
            missing = length > size - file.tell()
            if missing:
                damage.stopped(f'cut off in the record at byte {start}')
            if opcode == _CHUNK:
                yield from _of_chunk(file.read(min(length, size)), channels, damage, missing)
            elif opcode in (_SCHEMA, _CHANNEL, _MESSAGE) and not missing:
                yield from _of_records([(opcode, file.read(length))], channels, damage)
            elif not missing:
                file.seek(length, 1)
            if missing:
                return


def _learn_from_summary(file: BinaryIO, size: int, channels: _Channels) -> None:
    """Read the channels at the end of a file, so that no damaged chunk takes them along."""
    if size < _FOOTER_BYTES:
        return
    file.seek(size - _FOOTER_BYTES)
    footer = file.read()
    if footer[-len(_MAGIC) :] != _MAGIC or footer[0] != _FOOTER:
        return
    (summary,) = struct.unpack_from('<Q', footer, 9)
    if not 0 < summary < size:
        return
    file.seek(summary)
    try:
        for opcode, content in _records(file.read(size - summary - _FOOTER_BYTES)):
            channels.learn(opcode, content)
    except ValueError:
        return


def _of_chunk(
    content: bytes, channels: _Channels, damage: Damage, missing: bool
) -> Iterator[StoredMessage]:
    """Yield the messages of a chunk by time; of one that is cut off, those that are whole."""
    try:
        _, _, size, checksum, _ = _CHUNK_HEAD.unpack_from(content)
        compression, at = _text(content, _CHUNK_HEAD.size - 4)
        data = decompressed(content[at + 8 :], compression, size)
    except (ValueError, struct.error):
        if not missing:
            damage.chunks += 1
        return
    if not missing and (len(data) != size or (checksum and crc32(data) != checksum)):
        damage.chunks += 1
        return
    whole = list(_of_records(_records(data), channels, damage, missing))
    yield from sorted(whole, key=lambda message: message.time_ns)


def _of_records(
    records: Iterator[tuple[int, bytes]] | list[tuple[int, bytes]],
    channels: _Channels,
    damage: Damage,
    missing: bool = False,
) -> Iterator[StoredMessage]:
    """Yield the messages among records; schemas and channels are remembered."""
    try:
        for opcode, content in records:
            if opcode != _MESSAGE:
                channels.learn(opcode, content)
                continue
            number, _, time_ns, _ = _MESSAGE_HEAD.unpack_from(content)
            channel = channels.of(number)
            if channel is None:
                damage.holes += 1
                continue
            yield StoredMessage(*channel, time_ns, content[_MESSAGE_HEAD.size :])
    except (ValueError, struct.error):
        damage.holes += not missing


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield opcode and content of every whole record."""
    at = 0
    while at < len(data):
        if at + _HEAD.size > len(data):
            raise ValueError('a record that is cut off')
        opcode, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if length > len(data) - at:
            raise ValueError('a record that is cut off')
        yield opcode, data[at : at + length]
        at += length


def _number(content: bytes, at: int) -> int:
    """Return two bytes as a number."""
    if at + 2 > len(content):
        raise ValueError('a record that is too short')
    return int.from_bytes(content[at : at + 2], 'little')


def _text(content: bytes, at: int) -> tuple[str, int]:
    """Return a text and where it ends."""
    end = at + 4 + int.from_bytes(content[at : at + 4], 'little')
    if end > len(content) or at + 4 > len(content):
        raise ValueError('a text that is too short')
    return content[at + 4 : end].decode(errors='replace'), end
