"""Keeps libraries from giving a thread a stack for signals that they free later.

OpenVINO 2026.4 does: of two networks that are closed in the order in which they were opened, the
second puts the freed stack of the first in place again, and the next Ctrl-C is a segmentation
fault.  Its stack is only needed where the one before is too small, which Python's is not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (
        ('address', ctypes.c_void_p),
        ('flags', ctypes.c_int),
        ('size', ctypes.c_size_t),
    )


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Put this thread's stack for signals back at the end; without such a service do nothing."""
    try:
        exchange = ctypes.CDLL(None).sigaltstack
    except (OSError, AttributeError):
        yield
        return
    before = _Stack()
    known = exchange(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            exchange(ctypes.byref(before), None)
