"""Frames of a recording as the network sees them, on disk: read at random, written in one pass.

A folder holds ``cache.json`` (camera, fit, sources, key), ``index.bin`` (rows of fixed length,
mapped into memory, so that processes share it) and ``frames-00000.bin`` and so on (JPEG files and
packed sparse depth, one after the other).  A row enters the index after its bytes are on disk:
what a killed process leaves is a whole prefix, on which the next one builds.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera import Fit
from depth_node.dataset import cache_format
from depth_node.dataset import sparse_depth
from depth_node.dataset.sparse_depth import SparseDepth
from depth_node.dataset.sparse_depth import SparseSource
from depth_node.errors import RecordingError
from depth_node.frames import CameraModel

_AGAIN = 'Delete the folder and run the cache stage again.'


@dataclass(frozen=True, eq=False)
class CachedFrame:
    """One frame of a cache, without its pixels."""

    index: int
    """Position in the cache."""
    stamp_ns: int
    """Stamp of the image as it was sent, nanoseconds."""
    pose: NDArray[np.float64] | None
    """(4, 4) T_world_camera, metres; None where the recording does not say."""
    sharpness: float
    """Variance of the Laplacian of the grey image at network size, grey values squared."""
    brightness: float
    """Mean of the grey image, 0 to 1."""
    segment: int = 0
    """Piece of the trajectory; poses of different pieces are not comparable."""


class CachedFrames(Sequence[CachedFrame]):
    """The frames of a cache in the order of their stamps; made when they are asked for."""

    def __init__(self, rows: NDArray[np.void]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> CachedFrame: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[CachedFrame, ...]: ...

    def __getitem__(self, index: int | slice) -> CachedFrame | tuple[CachedFrame, ...]:
        if isinstance(index, slice):
            return tuple(self[at] for at in range(*index.indices(len(self))))
        at = range(len(self))[index]
        row = self._rows[at]
        pose = cache_format.pose_of(row)
        return CachedFrame(
            index=at,
            stamp_ns=int(row['stamp_ns']),
            pose=pose,
            sharpness=float(row['sharpness']),
            brightness=float(row['brightness']),
            segment=int(row['segment']),
        )

    def __iter__(self) -> Iterator[CachedFrame]:
        return (self[at] for at in range(len(self)))


class FrameCache:
    """A finished cache, opened by :func:`open_cache`; can be sent to other processes.

    :param root: its folder.
    :param header: what ``cache.json`` says.
    """

    def __init__(self, root: Path, header: cache_format.Header) -> None:
        self.root = root
        self.header = header
        self._rows = cache_format.mapped_rows(root)
        self.frames = CachedFrames(self._rows)

    def __reduce__(self) -> tuple[type[FrameCache], tuple[Path, cache_format.Header]]:
        return FrameCache, (self.root, self.header)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def camera(self) -> CameraModel:
        """Return the intrinsics at network size."""
        return self.header.fit.camera

    @property
    def fit(self) -> Fit:
        """Return which part of the rectified image the network sees."""
        return self.header.fit

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Return (h, w): False where rectification found no pixel and the frames are black."""
        return self.header.seen

    @property
    def sources(self) -> tuple[SparseSource, ...]:
        """Return the sources of sparse depth."""
        return self.header.sources

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """Return (N,) the stamps of all frames, rising."""
        return np.asarray(self._rows['stamp_ns'], np.int64)

    @property
    def poses(self) -> NDArray[np.float64]:
        """Return (N, 4, 4) T_world_camera of all frames, metres; NaN where it is unknown."""
        return cache_format.poses_of(self._rows)

    @property
    def segments(self) -> NDArray[np.int64]:
        """Return (N,) the piece of the trajectory of every frame; see :class:`CachedFrame`."""
        return np.asarray(self._rows['segment'], np.int64)

    @property
    def dropped(self) -> dict[str, int]:
        """Return how many images of the recording are not in the cache, by reason."""
        return dict(self.header.dropped)

    @property
    def stored_bytes(self) -> int:
        """Return how many bytes the frames take on disk, sparse depth included."""
        rows = self._rows
        return int(rows['image_bytes'].sum(dtype=np.int64) + rows['sparse_bytes'].sum(dtype=int))

    def rgb(self, index: int) -> NDArray[np.uint8]:
        """Return an image, (h, w, 3) RGB, as the network sees it but for JPEG of quality 95.

        :raises RecordingError: when its bytes are damaged or cannot be read.
        """
        row = self._rows[range(len(self))[index]]
        data = self._read(row, int(row['at']), int(row['image_bytes']), int(row['image_crc']))
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        shape = (self.camera.height, self.camera.width, 3)
        if decoded is None or decoded.shape != shape:
            raise self._damaged(index)
        return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)

    def sparse_all(self, index: int) -> tuple[SparseDepth, ...]:
        """Return the sparse depth of every source that saw the frame.

        :raises RecordingError: as :meth:`rgb`.
        """
        row = self._rows[range(len(self))[index]]
        size = int(row['sparse_bytes'])
        if not size:
            return ()
        at = int(row['at']) + int(row['image_bytes'])
        return sparse_depth.unpack(
            self._read(row, at, size, int(row['sparse_crc'])), self.header.sources
        )

    def sparse(self, index: int) -> SparseDepth | None:
        """Return the sparse depth of the best source that saw the frame, or None.

        Best is the first in the order depth image, lidar, stereo, scan.

        :raises RecordingError: as :meth:`rgb`.
        """
        parts = self.sparse_all(index)
        order = sparse_depth.KINDS
        return min(parts, key=lambda part: order.index(part.source.kind), default=None)

    def _read(self, row: np.void, at: int, size: int, crc: int) -> bytes:
        """Return bytes of a shard; opened each time, so that processes never share a position."""
        path = self.root / cache_format.shard_name(int(row['shard']))
        try:
            with path.open('rb', buffering=0) as stream:
                stream.seek(at)
                data = stream.read(size)
        except OSError as error:
            raise RecordingError(
                f'frame cache {self.root}', f'{path.name} ({error.strerror})', 'a file', _AGAIN
            ) from error
        except OverflowError as error:  # a place that no file has
            raise self._damaged(int(row['ordinal'])) from error
        if data is None or len(data) != size or zlib.crc32(data) != crc:
            raise self._damaged(int(row['ordinal']))
        return data

    def _damaged(self, index: int) -> RecordingError:
        return RecordingError(
            f'frame cache {self.root}', f'damaged bytes of image {index}', 'what was written',
            _AGAIN,
        )  # fmt: skip


def open_cache(root: Path | str) -> FrameCache:
    """Open a finished cache.

    :param root: its folder.
    :raises RecordingError: when it is missing, unfinished, damaged or of another version.
    """
    root = Path(root)
    header = cache_format.read_header(root)
    who = f'frame cache {root}'
    if header is None:
        raise RecordingError(who, 'no cache.json', 'a folder that the cache stage has made')
    if not header.complete:
        raise RecordingError(
            who, 'a cache that is not finished', 'a finished one',
            'Run the cache stage again; it goes on where it stopped.',
        )  # fmt: skip
    if cache_format.index_crc(root) != header.index_crc:
        raise RecordingError(who, 'a damaged index.bin', 'what was written', _AGAIN)
    cache = FrameCache(root, header)
    for shard, end in cache_format.shard_ends(cache._rows).items():
        path = root / cache_format.shard_name(shard)
        there = path.stat().st_size if path.is_file() else 0
        if there < end:
            raise RecordingError(
                who, f'{path.name} of {there} bytes', f'{end} bytes or more', _AGAIN
            )
    return cache
