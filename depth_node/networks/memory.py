"""Gives memory back that a network of a gigabyte would otherwise hold while nobody reads it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

_MAPPINGS = Path('/proc/self/maps')
# madvise(2), Linux 5.4: write nothing, lose nothing, let the pages go; they come back when read
_PAGEOUT = 21


def give_back_freed_memory() -> None:
    """Collect what only cycles keep, and return free memory to the kernel where glibc can."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)


def let_go_of_files(tensors: Iterable[Tensor]) -> None:
    """Let the mapped files in which tensors lie leave memory; they are read again when needed.

    Nothing happens to tensors that lie in ordinary memory, nor on systems without this service.
    """
    try:
        advise = ctypes.CDLL(None).madvise
        mappings = _mapped_files()
    except (OSError, AttributeError, ValueError):
        return
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    wanted = set()
    for tensor in tensors:
        at = tensor.data_ptr()
        wanted.update((start, end) for start, end in mappings if start <= at < end)
    for start, end in wanted:
        advise(start, end - start, _PAGEOUT)


def _mapped_files() -> list[tuple[int, int]]:
    """Return the first address and the end of every part of a file that is mapped for data."""
    found = []
    for line in _MAPPINGS.read_text().splitlines():
        addresses, mode, _, _, inode = line.split(maxsplit=5)[:5]
        if inode != '0' and 'x' not in mode:
            start, end = (int(address, 16) for address in addresses.split('-'))
            found.append((start, end))
    return found
