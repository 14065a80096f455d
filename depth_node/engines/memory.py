"""Gives memory back that a model of a gigabyte would otherwise hold while nobody reads it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_MAPPINGS = Path('/proc/self/maps')
# madvise(2), Linux 5.4: the pages leave memory; none is lost, they are read again when needed
_PAGEOUT = 21
# less is not worth reading again when the next process starts
_SMALLEST_BYTES = 32 << 20


@dataclass(frozen=True)
class _Mapping:
    """A part of a file that is mapped into memory as data."""

    start: int
    end: int
    path: str


def give_back_freed_memory() -> None:
    """Collect what only cycles keep, and return free memory to the kernel where glibc can."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)


def let_go_of_files(paths: Iterable[Path]) -> None:
    """Let mapped files of 32 MiB or more leave memory; they are read again when needed.

    On systems without this service nothing happens.
    """
    wanted = {str(path.resolve()) for path in paths}
    _page_out(mapping for mapping in _mappings() if mapping.path in wanted)


def let_go_of_files_at(addresses: Iterable[int]) -> None:
    """Do as :func:`let_go_of_files` with the files that are mapped at these addresses.

    Addresses in ordinary memory are left alone.
    """
    given = sorted(addresses)
    _page_out(
        mapping
        for mapping in _mappings()
        if any(mapping.start <= address < mapping.end for address in given)
    )


def _mappings() -> list[_Mapping]:
    try:
        lines = _MAPPINGS.read_text(errors='replace').splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        # address range, mode, offset, device, inode, path; code and memory without a file differ
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[4] != '0' and 'x' not in fields[1]:
            start, end = (int(address, 16) for address in fields[0].split('-'))
            found.append(_Mapping(start, end, fields[5]))
    return found


def _page_out(mappings: Iterable[_Mapping]) -> None:
    try:
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for mapping in mappings:
        if mapping.end - mapping.start >= _SMALLEST_BYTES:
            advise(mapping.start, mapping.end - mapping.start, _PAGEOUT)
