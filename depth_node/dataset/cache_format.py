"""The files of a frame cache: header, rows of the index, names of shards."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import zlib
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import Fit
from depth_node.camera.info import MAX_SIDE_PX
from depth_node.dataset.sparse_depth import KINDS
from depth_node.dataset.sparse_depth import SparseSource
from depth_node.errors import RecordingError
from depth_node.files import write_text_atomically
from depth_node.frames import CameraModel

VERSION = 1
"""Of the files and of how frames are made; part of the key."""

HEADER, INDEX = 'cache.json', 'index.bin'

UNDECODABLE, STAMP, OTHER_CAMERA, RATE = 'undecodable', 'stamp', 'other_camera', 'rate'
DROP_REASONS = (UNDECODABLE, STAMP, OTHER_CAMERA, RATE)
"""Why an image is not cached: it cannot be decoded; its stamp is not later than the one before;
its camera is not that of the first image; there are more per second than wanted."""

ROW = np.dtype(
    [
        ('stamp_ns', '<i8'),
        ('pose', '<f8', (3, 4)),  # NaN where it is unknown
        ('segment', '<u4'),  # of the trajectory: poses of different ones are not comparable
        ('sharpness', '<f4'),
        ('brightness', '<f4'),
        ('ordinal', '<u4'),  # among the images of the topic
        ('dropped', '<u4', (len(DROP_REASONS),)),  # before this image
        ('shard', '<u4'),
        ('at', '<u8'),
        ('image_bytes', '<u4'),
        ('image_crc', '<u4'),
        ('sparse_bytes', '<u4'),
        ('sparse_crc', '<u4'),
        ('crc', '<u4'),  # of all the bytes before it
    ]
)
_CRC_BYTES = 4


@dataclass(frozen=True, eq=False)
class Header:
    """What ``cache.json`` says."""

    key: str
    """Hash of everything that the frames depend on."""
    recording: str
    """Path of the recording, for people."""
    fit: Fit
    """Part of the rectified image that the network sees, and its camera there."""
    seen: NDArray[np.bool_]
    """(h, w) False where rectification found no pixel."""
    sources: tuple[SparseSource, ...] = ()
    """Of sparse depth."""
    pose_source: str = ''
    """Where the poses come from; empty where there are none."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Images that are not in the cache, by reason."""
    remarks: tuple[str, ...] = ()
    """Sentences about what could not be used."""
    complete: bool = False
    """Whether the whole recording is in."""
    index_crc: int = 0
    """CRC-32 of index.bin, once complete."""


def shard_name(shard: int) -> str:
    """Return the name of the file that holds a shard."""
    return f'frames-{shard:05d}.bin'


def write_header(root: Path, header: Header) -> None:
    """Write ``cache.json`` whole or not at all.

    :raises OSError: when the disk refuses.
    """
    packed = zlib.compress(np.packbits(header.seen).tobytes())
    plain: dict[str, Any] = {
        'version': VERSION,
        'key': header.key,
        'recording': header.recording,
        'fit': dataclasses.asdict(header.fit),
        'seen': base64.b64encode(packed).decode(),
        'sources': [dataclasses.asdict(source) for source in header.sources],
        'pose_source': header.pose_source,
        'dropped': header.dropped,
        'remarks': list(header.remarks),
        'complete': header.complete,
        'index_crc': header.index_crc,
    }
    write_text_atomically(root / HEADER, json.dumps(plain, indent=1) + '\n')


def read_header(root: Path) -> Header | None:
    """Read ``cache.json``; None where there is none.

    :raises RecordingError: when it is damaged or of another version.
    """
    path = root / HEADER
    try:
        plain = json.loads(path.read_text(encoding='utf-8'))
        version = plain['version']
        if version != VERSION:
            raise RecordingError(
                f'frame cache {root}', f'version {version!r}', f'version {VERSION}',
                'Run the cache stage again.',
            )  # fmt: skip
        return _header_of(plain)
    except FileNotFoundError:
        return None
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        zlib.error,
        binascii.Error,
    ) as error:
        raise RecordingError(
            f'frame cache {root}', f'a {HEADER} that cannot be read', 'what was written',
            'Delete the folder and run the cache stage again.',
        ) from error  # fmt: skip


def _header_of(plain: dict[str, Any]) -> Header:
    fit = plain['fit']
    model = CameraModel(**fit['camera'])
    if not (1 <= model.width <= MAX_SIDE_PX and 1 <= model.height <= MAX_SIDE_PX):
        raise ValueError('a size that no image has')
    sources = tuple(SparseSource(**source) for source in plain['sources'])
    if any(source.kind not in KINDS for source in sources):
        raise ValueError('a source that is not known')
    packed = base64.b64decode(plain['seen'])
    # not more than is needed: a few bytes could fill the memory
    whole = zlib.decompressobj().decompress(packed, -(-model.width * model.height // 8))
    bits = np.frombuffer(whole, np.uint8)
    seen = np.unpackbits(bits, count=model.width * model.height).astype(bool)
    return Header(
        key=str(plain['key']),
        recording=str(plain['recording']),
        fit=Fit(**{**fit, 'camera': model}),
        seen=seen.reshape(model.height, model.width),
        sources=sources,
        pose_source=str(plain['pose_source']),
        dropped={str(name): int(count) for name, count in plain['dropped'].items()},
        remarks=tuple(str(remark) for remark in plain['remarks']),
        complete=bool(plain['complete']),
        index_crc=int(plain['index_crc']),
    )


def sealed(row: NDArray[np.void]) -> NDArray[np.void]:
    """Return a row, (1,) of :data:`ROW`, with its checksum filled in."""
    row['crc'] = zlib.crc32(row.tobytes()[:-_CRC_BYTES])
    return row


def whole_rows(root: Path) -> NDArray[np.void]:
    """Return the rows up to the first that is torn or whose bytes are not all there."""
    path = root / INDEX
    data = path.read_bytes() if path.is_file() else b''
    size = ROW.itemsize
    rows = np.frombuffer(data[: len(data) // size * size], ROW)
    lengths: dict[int, int] = {}
    for at, row in enumerate(rows):
        shard = int(row['shard'])
        if shard not in lengths:
            file = root / shard_name(shard)
            lengths[shard] = file.stat().st_size if file.is_file() else 0
        torn = zlib.crc32(data[at * size : (at + 1) * size - _CRC_BYTES]) != row['crc']
        if torn or end_of(row) > lengths[shard]:
            return rows[:at]
    return rows


def end_of(row: np.void) -> int:
    """Return where the bytes of a row end in its shard."""
    return int(row['at']) + int(row['image_bytes']) + int(row['sparse_bytes'])


def shard_ends(rows: NDArray[np.void]) -> dict[int, int]:
    """Return how long each shard has to be, bytes."""
    ends = rows['at'] + rows['image_bytes'] + rows['sparse_bytes']
    return {int(k): int(ends[rows['shard'] == k].max()) for k in np.unique(rows['shard'])}


def index_crc(root: Path) -> int:
    """Return the CRC-32 of index.bin; 0 where it is empty or missing."""
    crc = 0
    path = root / INDEX
    if path.is_file():
        with path.open('rb') as stream:
            while chunk := stream.read(1 << 20):
                crc = zlib.crc32(chunk, crc)
    return crc


def mapped_rows(root: Path) -> NDArray[np.void]:
    """Map the index into memory, (N,) of :data:`ROW`, read only."""
    path = root / INDEX
    if not path.is_file() or path.stat().st_size < ROW.itemsize:
        return np.zeros(0, ROW)
    return np.memmap(path, ROW, 'r', shape=(path.stat().st_size // ROW.itemsize,))


def pose_of(row: np.void) -> NDArray[np.float64] | None:
    """Return the (4, 4) pose of a row, or None where it is unknown."""
    top = np.asarray(row['pose'], np.float64)
    if not np.isfinite(top).all():
        return None
    return np.vstack((top, (0.0, 0.0, 0.0, 1.0)))


def poses_of(rows: NDArray[np.void]) -> NDArray[np.float64]:
    """Return (N, 4, 4) poses, NaN where unknown."""
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows['pose']
    return poses
