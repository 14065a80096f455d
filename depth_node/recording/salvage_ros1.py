"""ROS 1 bags read from the front, without their index; format 2.0 (wiki.ros.org/Bags/Format/2.0).

A record is a header of named fields and data, each after its length of 4 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from depth_node.recording.chunk_codecs import MAX_CHUNK_BYTES
from depth_node.recording.chunk_codecs import decompressed
from depth_node.recording.stored import Damage
from depth_node.recording.stored import StoredMessage

_MAGIC = b'#ROSBAG V2.0\n'
_MESSAGE, _CHUNK, _CONNECTION = 0x02, 0x05, 0x07
_OPCODES = range(0x02, 0x08)

Fields = dict[bytes, bytes]


def read_ros1(path: Path, damage: Damage) -> Iterator[StoredMessage]:
    """Yield the messages of a file in the order of its chunks, by time within each.

    :param damage: told what could not be read.
    """
    size = path.stat().st_size
    connections: dict[int, tuple[str, str]] = {}
    with path.open('rb') as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            damage.stopped('no ROS 1 bag')
            return
        while file.tell() < size:
            start = file.tell()
            try:
                fields = _fields(_sized(file, size))
                length = _number(file.read(4))
            except ValueError:
                damage.stopped(f'no record at byte {start}')
                return
            missing = length > size - file.tell()
            if missing:
                damage.stopped(f'cut off in the record at byte {start}')
            opcode = fields[b'op'][0]
            if opcode == _CHUNK:
                data = file.read(min(length, MAX_CHUNK_BYTES))
                yield from _of_chunk(fields, data, connections, damage, missing)
            elif opcode in (_MESSAGE, _CONNECTION) and not missing:
                yield from _of_records([(fields, file.read(length))], connections, damage)
            elif not missing:
                file.seek(length, 1)
            if missing:
                return


def _of_chunk(
    fields: Fields,
    data: bytes,
    connections: dict[int, tuple[str, str]],
    damage: Damage,
    missing: bool,
) -> Iterator[StoredMessage]:
    """Yield the messages of a chunk by time; of one that is cut off, those that are whole."""
    try:
        size = _number(fields.get(b'size', b''))
        compression = fields.get(b'compression', b'').decode(errors='replace')
        plain = decompressed(data, compression, size)
    except ValueError:
        damage.chunks += not missing
        return
    if len(plain) != size and not missing:
        damage.chunks += 1
        return
    whole = list(_of_records(_records(plain), connections, damage, missing))
    yield from sorted(whole, key=lambda message: message.time_ns)


def _of_records(
    records: Iterator[tuple[Fields, bytes]] | list[tuple[Fields, bytes]],
    connections: dict[int, tuple[str, str]],
    damage: Damage,
    missing: bool = False,
) -> Iterator[StoredMessage]:
    """Yield the messages among records; connections are remembered."""
    try:
        for fields, data in records:
            opcode = fields[b'op'][0]
            if opcode not in (_MESSAGE, _CONNECTION):
                continue
            number = _number(fields.get(b'conn', b''))
            if opcode == _CONNECTION:
                kind = _fields(data, b'type')[b'type'].decode(errors='replace')
                topic = fields.get(b'topic', b'').decode(errors='replace')
                connections[number] = topic, _modern(kind)
            elif number in connections:
                stamp = fields.get(b'time', b'')
                time_ns = _number(stamp[:4]) * 1_000_000_000 + _number(stamp[4:])
                yield StoredMessage(*connections[number], time_ns, data)
            else:
                damage.holes += 1
    except ValueError:
        damage.holes += not missing


def _records(data: bytes) -> Iterator[tuple[Fields, bytes]]:
    """Yield header and data of every whole record of a chunk."""
    at = 0
    while at < len(data):
        parts = []
        for _ in range(2):
            length = _number(data[at : at + 4])
            at += 4
            if length > len(data) - at:
                raise ValueError('a record that is cut off')
            parts.append(data[at : at + length])
            at += length
        yield _fields(parts[0]), parts[1]


def _fields(header: bytes, wanted: bytes = b'op') -> Fields:
    """Split a header into its named fields.

    :raises ValueError: when it is damaged, lacks the field ``wanted`` or has an unknown opcode.
    """
    fields: Fields = {}
    at = 0
    while at < len(header):
        length = _number(header[at : at + 4])
        name, separator, value = header[at + 4 : at + 4 + length].partition(b'=')
        if not separator or at + 4 + length > len(header):
            raise ValueError('a header that is damaged')
        fields[name] = value
        at += 4 + length
    found = fields.get(wanted, b'')
    if not found or (wanted == b'op' and found[0] not in _OPCODES):
        raise ValueError('no record')
    return fields


def _sized(file: BinaryIO, size: int) -> bytes:
    """Read a length and that many bytes."""
    length = _number(file.read(4))
    if length > size - file.tell():
        raise ValueError('a header that is cut off')
    return file.read(length)


def _number(data: bytes) -> int:
    """Return four bytes as a number."""
    if len(data) != 4:
        raise ValueError('a number that is cut off')
    return int(struct.unpack('<I', data)[0])


def _modern(kind: str) -> str:
    """Return a type name as ROS 2 and ``rosbags`` write it."""
    package, _, name = kind.partition('/')
    return kind if '/' in name else f'{package}/msg/{name}'
