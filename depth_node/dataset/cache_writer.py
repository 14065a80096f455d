"""Writes a frame cache, frame after frame; killed at any moment, it goes on where it stopped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera import Fit
from depth_node.dataset import cache_format
from depth_node.dataset import sparse_depth
from depth_node.dataset.cache_format import Header
from depth_node.dataset.frame_cache import FrameCache
from depth_node.dataset.frame_cache import open_cache
from depth_node.dataset.sparse_depth import SparseDepth
from depth_node.errors import DepthNodeError
from depth_node.errors import RecordingError
from depth_node.files import sweep_orphans
from depth_node.files import sync
from depth_node.frames import CameraModel
from depth_node.image_codec.compressed import encode_file

ROW = cache_format.ROW

_SHARD_BYTES = 64 << 20
_FLUSH_FRAMES = 64
_QUALITY = [
    cv2.IMWRITE_JPEG_QUALITY, 95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]  # fmt: skip


class CacheWriter:
    """A context manager that fills, or goes on filling, the folder of a cache.

    What was flushed before an exception, a full disk or ``kill -9`` stays and is built upon when
    the same key is written again; a folder of another key is refused.

    :param root: folder of the cache; made if needed.
    :param header: of what will be written.
    :param shard_bytes: a shard is closed when it is longer than this.
    :raises RecordingError: when another process writes there, or when the folder holds a cache of
        another key.
    :raises DepthNodeError: when the disk refuses.
    """

    def __init__(self, root: Path, header: Header, shard_bytes: int = _SHARD_BYTES) -> None:
        self.root = Path(root)
        self.header = header
        self.count = 0
        """Frames in the cache, those of earlier runs included."""
        self.last_ordinal = -1
        """Last image of the topic that is in the cache."""
        self.last_stamp_ns: int | None = None
        """Its stamp, nanoseconds."""
        self.dropped = np.zeros(len(cache_format.DROP_REASONS), np.int64)
        """Images that were left out up to it, in the order of the reasons."""
        self._shard_bytes = shard_bytes
        self._lock: BinaryIO | None = None
        self._stream: BinaryIO | None = None
        self._waiting: list[NDArray[np.void]] = []

    def __enter__(self) -> CacheWriter:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._resume()
        except OSError as error:
            self._release()
            raise self._refused(error) from error
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None or issubclass(kind, (KeyboardInterrupt, RecordingError)):
                self._flush()
        except OSError as failure:
            if kind is None:
                raise self._refused(failure) from failure
        finally:
            self._release()

    def add(
        self,
        rgb: NDArray[np.uint8],
        stamp_ns: int,
        pose: NDArray[np.float64] | None = None,
        sparse: Sequence[SparseDepth] = (),
        *,
        segment: int = 0,
        ordinal: int | None = None,
        dropped: NDArray[np.int64] | None = None,
    ) -> None:
        """Append a frame.

        :param rgb: (h, w, 3) RGB at network size.
        :param stamp_ns: later than that of the frame before, nanoseconds.
        :param pose: (4, 4) T_world_camera, metres; None where it is unknown.
        :param sparse: depth at some pixels; its sources are those of the header.
        :param segment: piece of the trajectory that the pose belongs to.
        :param ordinal: of the image in its topic; counted where it is not given.
        :param dropped: images left out before this one, by reason.
        :raises RecordingError: when the image or its stamp does not fit.
        :raises DepthNodeError: when the disk refuses.
        """
        self._check(rgb, stamp_ns)
        image = encode_file('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _QUALITY)
        extra = sparse_depth.pack(sparse, self.header.sources)
        self.last_ordinal = self.last_ordinal + 1 if ordinal is None else ordinal
        self.last_stamp_ns = stamp_ns
        if dropped is not None:
            self.dropped = dropped.copy()
        try:
            row = self._append(image, extra)
            _describe(row, rgb, pose)
            row['segment'] = segment
            row['stamp_ns'], row['ordinal'], row['dropped'] = (
                stamp_ns,
                self.last_ordinal,
                (self.dropped),
            )
            self._waiting.append(cache_format.sealed(row))
            self.count += 1
            if len(self._waiting) >= _FLUSH_FRAMES:
                self._flush()
        except OSError as error:
            raise self._refused(error) from error

    def finish(self, dropped: NDArray[np.int64] | None = None) -> FrameCache:
        """Say that nothing is missing any more, and open the cache.

        :param dropped: images left out in the whole recording, by reason.
        :raises DepthNodeError: when the disk refuses.
        """
        counts = self.dropped if dropped is None else dropped
        reasons = zip(cache_format.DROP_REASONS, counts.tolist(), strict=True)
        try:
            self._flush()
            self.header = replace(
                self.header,
                complete=True,
                index_crc=cache_format.index_crc(self.root),
                dropped={reason: count for reason, count in reasons if count},
            )
            cache_format.write_header(self.root, self.header)
        except OSError as error:
            raise self._refused(error) from error
        return open_cache(self.root)

    def _take_lock(self) -> None:
        self._lock = (self.root / '.lock').open('wb')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecordingError(
                f'frame cache {self.root}', 'another process that writes it', 'to be alone',
                'Wait until it is done.',
            ) from error  # fmt: skip

    def _resume(self) -> None:
        """Cut off what is torn and go on behind the last whole frame."""
        sweep_orphans(self.root)
        there = cache_format.read_header(self.root)
        if there is not None and there.key != self.header.key:
            raise RecordingError(
                f'frame cache {self.root}', 'a cache made from something else', 'an empty folder',
                'Choose another folder, or delete this one.',
            )  # fmt: skip
        rows = cache_format.whole_rows(self.root) if there is not None else np.zeros(0, ROW)
        ends = cache_format.shard_ends(rows)
        for path in self.root.glob('frames-*.bin'):
            if path.name not in {cache_format.shard_name(shard) for shard in ends}:
                path.unlink()
        for shard, end in ends.items():
            os.truncate(self.root / cache_format.shard_name(shard), end)
        index = self.root / cache_format.INDEX
        index.touch()
        os.truncate(index, len(rows) * ROW.itemsize)
        cache_format.write_header(self.root, replace(self.header, complete=False))
        self._shard = max(ends, default=0)
        self._at = ends.get(self._shard, 0)
        self.count = len(rows)
        if len(rows):
            self.last_ordinal = int(rows[-1]['ordinal'])
            self.last_stamp_ns = int(rows[-1]['stamp_ns'])
            self.dropped = rows[-1]['dropped'].astype(np.int64)

    def _append(self, image: bytes, extra: bytes) -> NDArray[np.void]:
        """Write the bytes of a frame; return its row, (1,), without what is known elsewhere."""
        if self._stream is not None and self._at >= self._shard_bytes:
            self._flush()
            self._stream.close()
            self._stream = None
        if self._at >= self._shard_bytes:
            self._shard, self._at = self._shard + 1, 0
        if self._stream is None:
            self._stream = (self.root / cache_format.shard_name(self._shard)).open('ab')
        self._stream.write(image)
        self._stream.write(extra)
        row = np.zeros(1, ROW)
        row['shard'], row['at'] = self._shard, self._at
        row['image_bytes'], row['image_crc'] = len(image), zlib.crc32(image)
        row['sparse_bytes'], row['sparse_crc'] = len(extra), zlib.crc32(extra)
        self._at += len(image) + len(extra)
        return row

    def _flush(self) -> None:
        """Bring frames to disk, then the rows that speak of them."""
        if self._stream is not None:
            self._stream.flush()
            os.fsync(self._stream.fileno())
        if not self._waiting:
            return
        with (self.root / cache_format.INDEX).open('ab') as index:
            index.write(np.concatenate(self._waiting).tobytes())
            index.flush()
            os.fsync(index.fileno())
        sync(self.root)
        self._waiting.clear()

    def _release(self) -> None:
        for stream in (self._stream, self._lock):
            if stream is not None:
                with contextlib.suppress(OSError):  # a full disk has been told of already
                    stream.close()
        self._stream = self._lock = None

    def _check(self, rgb: NDArray[np.uint8], stamp_ns: int) -> None:
        model = self.header.fit.camera
        who = f'frame cache {self.root}'
        if rgb.shape != (model.height, model.width, 3) or rgb.dtype != np.uint8:
            raise RecordingError(
                who, f'an image of shape {rgb.shape}', f'({model.height}, {model.width}, 3) uint8'
            )
        if self.last_stamp_ns is not None and stamp_ns <= self.last_stamp_ns:
            raise RecordingError(who, f'stamp {stamp_ns} ns', f'one after {self.last_stamp_ns} ns')

    def _refused(self, error: OSError) -> DepthNodeError:
        # no RecordingError: nothing is wrong with the recording
        return DepthNodeError(
            f'frame cache {self.root}',
            f'{error.strerror or error} after {self.count} frames',
            'a disk that can be written',
            'Make room and run the same command again: it goes on where it stopped.',
        )


def _describe(
    row: NDArray[np.void], rgb: NDArray[np.uint8], pose: NDArray[np.float64] | None
) -> None:
    """Fill in the pose and what can be measured on the image."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    row['sharpness'] = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    row['brightness'] = float(grey.mean()) / 255.0
    row['pose'] = np.nan if pose is None else pose[:3]


def cache_arrays(
    root: Path,
    model: CameraModel,
    images: Iterable[NDArray[np.uint8]],
    stamps_ns: Sequence[int],
    poses: Sequence[NDArray[np.float64] | None],
    sparse: Sequence[Sequence[SparseDepth]] | None = None,
    seen: NDArray[np.bool_] | None = None,
) -> FrameCache:
    """Make a cache from frames in memory.

    :param root: its folder.
    :param model: camera of the images.
    :param images: (h, w, 3) RGB each.
    :param stamps_ns: rising, nanoseconds.
    :param poses: (4, 4) T_world_camera each, metres, or None.
    :param sparse: depths of each frame.
    :param seen: (h, w); all by default.
    :raises RecordingError: as :class:`CacheWriter`.
    """
    parts = sparse if sparse is not None else [()] * len(stamps_ns)
    sources = dict.fromkeys(part.source for frame in parts for part in frame)
    whole = np.ones((model.height, model.width), bool)
    header = Header(
        key='arrays',
        recording='',
        fit=Fit(0, 0, model.width, model.height, model),
        seen=whole if seen is None else seen,
        sources=tuple(sources),
        pose_source='given',
    )
    with CacheWriter(root, header) as writer:
        for rgb, stamp_ns, pose, part in zip(images, stamps_ns, poses, parts, strict=True):
            writer.add(rgb, stamp_ns, pose, part)
        return writer.finish()
