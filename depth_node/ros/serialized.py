"""Serialized messages that begin with a std_msgs/Header, read without unpacking the rest.

CDR: four bytes of encapsulation, whose second one tells the byte order, then sec and nanosec.
"""

from __future__ import annotations

import struct

from depth_node.errors import RecordingError

_STAMP = 4
_STAMP_END = 12
_SECOND_NS = 1_000_000_000
_LAST_SECOND, _LARGEST_NANOSEC = 2**31 - 1, 2**32 - 1


def stamp_ns(message: bytes) -> int:
    """Return the stamp, nanoseconds."""
    sec, nanosec = struct.unpack_from(_format_of(message), message, _STAMP)
    return int(sec) * _SECOND_NS + int(nanosec)


def with_stamp(message: bytes, stamp_ns: int) -> bytes:
    """Return the same message with another stamp, nanoseconds.

    :raises RecordingError: as :func:`sec_and_nanosec` does.
    """
    stamp = struct.pack(_format_of(message), *sec_and_nanosec(stamp_ns))
    return b''.join((message[:_STAMP], stamp, memoryview(message)[_STAMP_END:]))


def sec_and_nanosec(stamp_ns: int) -> tuple[int, int]:
    """Return the two fields of a builtin_interfaces/Time.

    nanosec is a second or more only where sec is at its end: so every stamp that a message can
    bring, also a hostile one, can go out again.

    :raises RecordingError: for a time that no message can hold.
    """
    sec = min(stamp_ns // _SECOND_NS, _LAST_SECOND)
    nanosec = stamp_ns - sec * _SECOND_NS
    if sec < -_LAST_SECOND - 1 or nanosec > _LARGEST_NANOSEC:
        raise RecordingError('stamp', f'{stamp_ns} ns', 'a time of 1902 to 2038')
    return sec, nanosec


def without_stamp(message: bytes) -> bytes:
    """Return what is the same in messages that differ by their stamps alone."""
    return message[_STAMP_END:]


def _format_of(message: bytes) -> str:
    return '<iI' if message[1] & 1 else '>iI'
