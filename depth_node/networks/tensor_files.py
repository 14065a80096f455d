"""Safetensors files of any size, written and searched with one tensor in memory at a time.

Format: eight bytes with the length of a JSON header, the header, then the bytes of all tensors
without gaps; little-endian.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.files import regular_file
from depth_node.files import write_atomically
from depth_node.model_folder.card import LARGEST_FILE_BYTES

_CODES = {
    'float64': 'F64',
    'float32': 'F32',
    'float16': 'F16',
    'int64': 'I64',
    'int32': 'I32',
    'int16': 'I16',
    'int8': 'I8',
    'uint8': 'U8',
    'bool': 'BOOL',
}
_LENGTH_BYTES = 8
_ALIGNMENT_BYTES = 64
_LARGEST_HEADER_BYTES = 16 << 20
_CHUNK_BYTES = 8 << 20
_HEAD_BYTES = 64


@dataclass(frozen=True)
class LazyArray:
    """An array that is made when it is written, and let go right after."""

    dtype: str
    """Name of its numpy type, e.g. 'float32'."""
    shape: tuple[int, ...]
    make: Callable[[], NDArray[Any]]
    """Returns the array; called once."""

    @property
    def size_bytes(self) -> int:
        """Length of its content, bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Place:
    """Where a tensor lies."""

    path: Path
    """The safetensors file."""
    offset: int
    """First byte, from the start of the file."""
    length: int
    """Length, bytes."""


def write_tensors(path: Path, arrays: Mapping[str, LazyArray]) -> dict[str, Place]:
    """Write a safetensors file whole or not at all.

    :param path: file to make or replace; its folder must exist.
    :param arrays: contents by name; types with the widest numbers come first in the file, so that
        every tensor is aligned to its type.
    :returns: where each of them lies.
    :raises ModelError: for a type that the format lacks.
    """
    unknown = sorted({array.dtype for array in arrays.values()} - set(_CODES))
    if unknown:
        raise ModelError(str(path), f'numbers of type {unknown[0]}', f'one of {", ".join(_CODES)}')
    names = sorted(arrays, key=lambda name: (-np.dtype(arrays[name].dtype).itemsize, name))
    header: dict[str, dict[str, Any]] = {}
    at = 0
    for name in names:
        array, end = arrays[name], at + arrays[name].size_bytes
        header[name] = {
            'dtype': _CODES[array.dtype],
            'shape': list(array.shape),
            'data_offsets': [at, end],
        }
        at = end
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-(_LENGTH_BYTES + len(text)) % _ALIGNMENT_BYTES)

    def write(stream: BinaryIO) -> None:
        stream.write(len(text).to_bytes(_LENGTH_BYTES, 'little') + text)
        for name in names:
            _write_array(stream, arrays[name])

    write_atomically(path, write)
    start = _LENGTH_BYTES + len(text)
    return {
        name: Place(path, start + header[name]['data_offsets'][0], arrays[name].size_bytes)
        for name in names
    }


def _write_array(stream: BinaryIO, announced: LazyArray) -> None:
    array = np.ascontiguousarray(announced.make())
    if (array.dtype.name, array.nbytes) != (announced.dtype, announced.size_bytes):
        raise AssertionError(f'{array.dtype} {array.shape} instead of {announced}')
    stream.write(_bytes_of(array).data)


class StoredTensors:
    """The tensors of several safetensors files, found by their content.

    :param paths: files that this package has written.
    :raises ModelError: when one is damaged.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._by_start: dict[tuple[int, bytes], list[Place]] = {}
        for path in paths:
            places = _places(path)
            with path.open('rb') as stream:
                for place in places:
                    start = os.pread(stream.fileno(), min(place.length, _HEAD_BYTES), place.offset)
                    self._by_start.setdefault((place.length, start), []).append(place)

    def find(self, array: NDArray[Any]) -> Place | None:
        """Return where a tensor of exactly these bytes lies; None: nowhere.

        :param array: C-contiguous.
        """
        content = _bytes_of(array)
        candidates = self._by_start.get((content.size, content[:_HEAD_BYTES].tobytes()), [])
        return next((place for place in candidates if _holds(place, content)), None)


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8)


def _holds(place: Place, content: NDArray[np.uint8]) -> bool:
    """Tell whether a place holds these bytes, reading it piece by piece."""
    with place.path.open('rb') as stream:
        for at in range(0, place.length, _CHUNK_BYTES):
            length = min(_CHUNK_BYTES, place.length - at)
            piece = np.frombuffer(os.pread(stream.fileno(), length, place.offset + at), np.uint8)
            if not np.array_equal(piece, content[at : at + length]):
                return False
    return True


def _places(path: Path) -> list[Place]:
    """Return where all tensors of a file lie.

    :raises ModelError: when its header is damaged or leads out of the file.
    """
    regular_file(path, 'weights file', LARGEST_FILE_BYTES)
    try:
        return _parsed_places(path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f'weights file {path}', quoted(str(error)), 'safetensors') from error


def _parsed_places(path: Path) -> list[Place]:
    size_bytes = path.stat().st_size
    with path.open('rb') as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), 'little')
        if length > min(_LARGEST_HEADER_BYTES, size_bytes - _LENGTH_BYTES):
            raise ValueError(f'a header of {length} bytes in a file of {size_bytes}')
        header = json.loads(stream.read(length))
    start = _LENGTH_BYTES + length
    places = []
    for name, entry in header.items():
        if name != '__metadata__':
            begin, end = (int(offset) for offset in entry['data_offsets'])
            if not 0 <= begin <= end <= size_bytes - start:
                raise ValueError(f'{name} from {begin} to {end} of {size_bytes - start} bytes')
            places.append(Place(path, start + begin, end - begin))
    return places
