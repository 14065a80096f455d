"""Compression inside recordings: zstd, lz4 and bz2, also of data whose end is missing.

The packages are those that ``rosbags`` itself needs.
"""

from __future__ import annotations

import bz2
from importlib import import_module
from pathlib import Path
from typing import Any

from depth_node.errors import MissingPackage
from depth_node.recording.stored import Damage

MAX_CHUNK_BYTES = 1 << 30
"""Chunks that claim to be larger are taken for damage."""

_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
_BLOCK_BYTES = 1 << 20


def decompressed(data: bytes, compression: str, size: int) -> bytes:
    """Return the first ``size`` bytes of compressed data, or fewer where its end is missing.

    :param compression: '', 'none', 'zstd', 'lz4' or 'bz2'.
    :raises ValueError: for data that is not of that compression, an unknown one, or a size beyond
        :data:`MAX_CHUNK_BYTES`.
    :raises MissingPackage: without the package of that compression.
    """
    if not 0 <= size <= MAX_CHUNK_BYTES:
        raise ValueError(f'a chunk of {size} bytes')
    if compression in ('', 'none'):
        return data[:size]
    if size == 0:
        return b''
    try:
        return bytes(_decompressor(compression).decompress(data, max_length=size))
    except MissingPackage:
        raise
    except Exception as error:
        # Each package raises classes of its own.
        raise ValueError(f'{compression} data that is damaged ({error})') from error


def whole_message(data: bytes) -> bytes:
    """Return a message that may have been compressed on its own, as rosbag2 can do.

    Serialized messages begin with 0, so that the first bytes tell.

    :raises ValueError: when it is damaged.
    """
    if not data.startswith(_ZSTD_MAGIC):
        return data
    return decompressed(data, 'zstd', MAX_CHUNK_BYTES)


def decompressed_file(path: Path, plain: Path, damage: Damage) -> None:
    """Unpack a zstd file as far as it goes; what stops it is noted.

    :raises OSError: when a file cannot be read or written.
    """
    unpack = _decompressor('zstd')
    with path.open('rb') as packed, plain.open('wb') as out:
        while block := packed.read(_BLOCK_BYTES):
            try:
                # piece by piece: a block of zeros becomes tens of thousands of times as long
                out.write(unpack.decompress(block, max_length=_BLOCK_BYTES))
                while not (unpack.needs_input or unpack.eof):
                    out.write(unpack.decompress(b'', max_length=_BLOCK_BYTES))
            except Exception as error:
                damage.stopped(f'compressed file: {error}')
                return
    if not unpack.eof:
        damage.stopped('the end of the compressed file is missing')


def _decompressor(compression: str) -> Any:
    """Return an object that decompresses piece by piece."""
    if compression == 'bz2':
        return bz2.BZ2Decompressor()
    modules = {
        'zstd': ('backports.zstd', 'ZstdDecompressor'),
        'lz4': ('lz4.frame', 'LZ4FrameDecompressor'),
    }
    if compression not in modules:
        raise ValueError(f'unknown compression {compression!r}')
    module, name = modules[compression]
    try:
        return getattr(import_module(module), name)()
    except ImportError as error:
        purpose = f'reading {compression} recordings'
        raise MissingPackage(module, purpose, 'pip install rosbags') from error
