"""Depth that is known at some pixels, and its compact form in a file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import RecordingError

DEPTH_IMAGE, LIDAR, STEREO, TRACKS, SCAN, HEIGHT = (
    'depth', 'lidar', 'stereo', 'tracks', 'scan', 'height',
)  # fmt: skip
"""Kinds of sources of metric depth, as reports name them."""
KINDS = (DEPTH_IMAGE, LIDAR, STEREO, TRACKS, SCAN, HEIGHT)
"""All of them, that which is believed first in front."""

_HEAD = struct.Struct('<BI')
_PARTS_PER_PX = 16.0
_LARGEST_PX = 4095.0
_LARGEST_BYTES = 64 << 20


@dataclass(frozen=True)
class SparseSource:
    """Where depth at some pixels comes from."""

    kind: str
    """'depth', 'lidar', 'stereo', 'tracks' or 'scan'."""
    topic: str
    """Topic, or what else names the source."""


@dataclass(frozen=True, eq=False)
class SparseDepth:
    """Depth at some pixels of a frame."""

    u: NDArray[np.float32]
    """(N,) columns, pixels of the network's input; pixel centres are integers."""
    v: NDArray[np.float32]
    """(N,) rows, pixels of the network's input."""
    depth_m: NDArray[np.float32]
    """(N,) metres along z of the frame's camera; finite and positive."""
    source: SparseSource
    """Where it comes from."""

    def __len__(self) -> int:
        return len(self.depth_m)

    def sampled(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N,) the values of an (h, w) image at the nearest pixels."""
        height, width = image.shape
        rows = np.clip(np.rint(self.v), 0, height - 1).astype(np.intp)
        columns = np.clip(np.rint(self.u), 0, width - 1).astype(np.intp)
        return image[rows, columns]


def pack(parts: Sequence[SparseDepth], sources: Sequence[SparseSource]) -> bytes:
    """Return the bytes of the depths of one frame; pixels are rounded to 1/16.

    :param sources: what ``parts`` refer to, in the order of the cache's header.
    """
    pieces = []
    for part in parts:
        if not len(part):
            continue
        pieces.append(_HEAD.pack(sources.index(part.source), len(part)))
        for axis in (part.u, part.v):
            fixed = np.rint(np.clip(axis, 0.0, _LARGEST_PX) * _PARTS_PER_PX)
            pieces.append(fixed.astype('<u2').tobytes())
        pieces.append(part.depth_m.astype('<f4').tobytes())
    return zlib.compress(b''.join(pieces), 1) if pieces else b''


def unpack(data: bytes, sources: Sequence[SparseSource]) -> tuple[SparseDepth, ...]:
    """Return what :func:`pack` was given.

    :raises RecordingError: for bytes that it did not make.
    """
    parts: list[SparseDepth] = []
    try:
        unpacked = zlib.decompressobj()
        plain = unpacked.decompress(data, _LARGEST_BYTES)
        if data and not unpacked.eof:
            raise ValueError('too long, or cut off')
        at = 0
        while at < len(plain):
            which, count = _HEAD.unpack_from(plain, at)
            at += _HEAD.size
            fixed = np.frombuffer(plain, '<u2', 2 * count, at).astype(np.float32) / _PARTS_PER_PX
            depth = np.frombuffer(plain, '<f4', count, at + 4 * count).astype(np.float32)
            if not (np.isfinite(depth).all() and (depth > 0.0).all()):
                raise ValueError('depth that is none')
            parts.append(
                SparseDepth(
                    fixed[:count].astype(np.float32),
                    fixed[count:].astype(np.float32),
                    depth,
                    sources[which],
                )
            )
            at += 8 * count
    except (zlib.error, struct.error, ValueError, IndexError) as error:
        raise RecordingError(
            'frame cache', 'damaged sparse depth', 'whole data', 'Delete the cache; make it again.'
        ) from error
    return tuple(parts)
