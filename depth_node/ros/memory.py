"""Lets glibc keep large buffers that were freed, instead of giving them back to the kernel.

A coloured 640x480 cloud is 10 MB.  By default glibc maps such a buffer afresh for every message,
and the kernel clears each page when it is first touched: 18 to 20 ms a cloud where keeping the
pages takes 5 (measured on two cores of an EPYC server).  The price is that the memory of the
process stays at its peak.  One arena for all threads keeps that peak low: else every thread that
ever built a message keeps buffers of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

# Parameters of mallopt(3) and the environment variables that say the same.
_LIMITS = (
    (-3, 'MALLOC_MMAP_THRESHOLD_', 32 << 20),
    (-1, 'MALLOC_TRIM_THRESHOLD_', 2_000_000_000),
    (-2, 'MALLOC_TOP_PAD_', 64 << 20),
    (-8, 'MALLOC_ARENA_MAX', 1),
)


def keep_large_buffers(environment: Mapping[str, str]) -> bool:
    """Tune the allocator of this process.

    :param environment: where a user may have chosen limits (os.environ); those stay in force.
    :returns: True when all limits were set; False with another C library or the user's choice.
    """
    if any(name in environment for _, name, _ in _LIMITS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(parameter, limit) == 1 for parameter, _, limit in _LIMITS)
