"""Serialized messages that begin with a std_msgs/Header, read without unpacking the rest.

CDR: four bytes of encapsulation, whose second one tells the byte order, then sec and nanosec.
"""

from __future__ import annotations

import struct

_STAMP = 4
_STAMP_END = 12
_SECOND_NS = 1_000_000_000


def stamp_ns(message: bytes) -> int:
    """Return the stamp, nanoseconds."""
    sec, nanosec = struct.unpack_from(_format_of(message), message, _STAMP)
    return int(sec) * _SECOND_NS + int(nanosec)


def with_stamp(message: bytes, stamp_ns: int) -> bytes:
    """Return the same message with another stamp, nanoseconds."""
    stamp = struct.pack(_format_of(message), *divmod(stamp_ns, _SECOND_NS))
    return b''.join((message[:_STAMP], stamp, memoryview(message)[_STAMP_END:]))


def without_stamp(message: bytes) -> bytes:
    """Return what is the same in messages that differ by their stamps alone."""
    return message[_STAMP_END:]


def _format_of(message: bytes) -> str:
    return '<iI' if message[1] & 1 else '>iI'
