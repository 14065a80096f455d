"""Newest wins: a slot of one between two threads, and the order of the stamps that leave."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic
from typing import TypeVar

T = TypeVar('T')

_RESTART_NS = 1_000_000_000
_REMEMBERED_FRAME_IDS = 16


class Newest(Generic[T]):
    """A slot of one: a new item pushes out one that nobody has taken yet.

    One thread puts, another takes.  A consumer that is too slow therefore always works on the
    newest item, and nothing grows.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._items: list[T] = []
        self._closed = False

    def put(self, item: T) -> bool:
        """Offer an item and wake the taker; never blocks.

        :returns: True when an item got lost by this: the one that ``item`` replaced or, after
            :meth:`close`, ``item`` itself.
        """
        with self._condition:
            if self._closed:
                return True
            replaced = bool(self._items)
            self._items = [item]
            self._condition.notify()
            return replaced

    def take(self, timeout_s: float | None = None) -> T | None:
        """Wait for an item on the monotonic clock and take it out.

        :param timeout_s: longest wait, seconds; None waits until an item comes or the slot closes.
        :returns: the item, or None after the timeout or once the slot is closed.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._items or self._closed, timeout_s)
            return self._items.pop() if self._items else None

    def close(self) -> bool:
        """Refuse further items and release the taker; calling it twice is harmless.

        :returns: True when an item lay in the slot, which now nobody will take.
        """
        with self._condition:
            self._closed = True
            left = bool(self._items)
            self._items = []
            self._condition.notify_all()
            return left

    @property
    def closed(self) -> bool:
        """Tell whether :meth:`close` was called."""
        with self._condition:
            return self._closed


class StampOrder:
    """Sees to it that stamps of one frame_id leave in rising order, each once.

    A stamp of 0 says that the sender has no clock: such frames pass.  A stamp more than a second
    before the last one means that the source was started again (a recording that loops), and the
    order begins anew.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ns: OrderedDict[str, int] = OrderedDict()

    def objection(self, frame_id: str, stamp_ns: int) -> str:
        """Say why a frame of this stamp must not leave.

        :returns: 'duplicate', 'out_of_order', or '' when it may.
        """
        with self._lock:
            last_ns = self._last_ns.get(frame_id)
            if stamp_ns == 0 or last_ns is None or stamp_ns > last_ns:
                return ''
            if stamp_ns == last_ns:
                return 'duplicate'
            return 'out_of_order' if last_ns - stamp_ns <= _RESTART_NS else ''

    def note(self, frame_id: str, stamp_ns: int) -> None:
        """Remember that a frame of this stamp has left."""
        if stamp_ns == 0:
            return
        with self._lock:
            self._last_ns[frame_id] = stamp_ns
            self._last_ns.move_to_end(frame_id)
            # The text comes from outside; a sender that invents names must not fill the memory.
            if len(self._last_ns) > _REMEMBERED_FRAME_IDS:
                self._last_ns.popitem(last=False)

    def reset(self) -> None:
        """Forget all stamps, as after a jump of the clock."""
        with self._lock:
            self._last_ns.clear()
