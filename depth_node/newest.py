"""Newest wins: slots of one between two threads, and the order of the stamps that leave."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Generic
from typing import TypeVar

T = TypeVar('T')

_RESTART_NS = 1_000_000_000
_REMEMBERED_FRAME_IDS = 16


class NewestOfEach(Generic[T]):
    """Slots of one: in each a new item pushes out one that nobody has taken yet.

    Any thread puts, one takes, from the slots that hold something in turn.  A taker that is too
    slow therefore always works on the newest items, serves all slots alike, and nothing grows.

    :param count: number of slots; each is named by its index.
    """

    def __init__(self, count: int = 1) -> None:
        self._condition = threading.Condition()
        self._items: list[list[T]] = [[] for _ in range(count)]
        self._held_until_s = [0.0] * count
        self._next = 0
        self._closed = False

    def put(self, item: T, slot: int = 0) -> bool:
        """Offer an item and wake the taker; never blocks.

        :returns: True when an item got lost by this: the one that ``item`` replaced or, after
            :meth:`close`, ``item`` itself.
        """
        with self._condition:
            if self._closed:
                return True
            replaced = bool(self._items[slot])
            self._items[slot] = [item]
            self._condition.notify()
            return replaced

    def hold(self, slot: int, seconds: float) -> None:
        """Let nobody take from a slot until this time has passed or :meth:`release`."""
        with self._condition:
            self._held_until_s[slot] = time.monotonic() + seconds

    def release(self, slot: int) -> None:
        """End :meth:`hold`; harmless where there was none."""
        with self._condition:
            self._held_until_s[slot] = 0.0
            self._condition.notify()

    def take(self, timeout_s: float | None = None) -> tuple[int, T] | None:
        """Wait for an item on the monotonic clock and take it out.

        :param timeout_s: longest wait, seconds; None waits until an item comes or all closes.
        :returns: the slot, whose turn comes last now, and its item; None after the timeout or
            once all is closed.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._condition:
            while not self._closed:
                now_s = time.monotonic()
                full = [slot for slot, items in enumerate(self._items) if items]
                ready = [slot for slot in full if self._held_until_s[slot] <= now_s]
                if ready:
                    return self._taken(ready)
                if end_s is not None and now_s >= end_s:
                    break
                ends_s = [self._held_until_s[slot] for slot in full]
                ends_s += [end_s] if end_s is not None else []
                self._condition.wait(min(ends_s) - now_s if ends_s else None)
            return None

    def close(self) -> tuple[int, ...]:
        """Refuse further items and release the taker; calling it twice is harmless.

        :returns: the slots in which an item lay, which now nobody will take.
        """
        with self._condition:
            self._closed = True
            left = tuple(slot for slot, items in enumerate(self._items) if items)
            for items in self._items:
                items.clear()
            self._condition.notify_all()
            return left

    @property
    def closed(self) -> bool:
        """Tell whether :meth:`close` was called."""
        with self._condition:
            return self._closed

    def _taken(self, ready: list[int]) -> tuple[int, T]:
        """Take from the first slot, of those that are ready, from the one whose turn it is."""
        slot = min(ready, key=lambda index: (index - self._next) % len(self._items))
        self._next = slot + 1
        return slot, self._items[slot].pop()


class StampOrder:
    """Sees to it that stamps of one frame_id leave in rising order, each once.

    A stamp of 0 says that the sender has no clock: such frames pass.  A stamp more than a second
    before the last one means that the source was started again (a recording that loops), and the
    order begins anew.

    So it does with :meth:`reset`.  A frame that came before that and leaves after it belongs to
    the order of its own ``era``: its stamp, larger than those that follow, must not stop them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ns: OrderedDict[tuple[int, str], int] = OrderedDict()
        self._era = 0

    @property
    def era(self) -> int:
        """Return the number of calls of :meth:`reset`."""
        with self._lock:
            return self._era

    def objection(self, frame_id: str, stamp_ns: int, era: int | None = None) -> str:
        """Say why a frame of this stamp must not leave.

        :param era: as it was when the frame came; None: as it is now.
        :returns: 'duplicate', 'out_of_order', or '' when it may.
        """
        with self._lock:
            last_ns = self._last_ns.get((self._era if era is None else era, frame_id))
            if stamp_ns == 0 or last_ns is None or stamp_ns > last_ns:
                return ''
            if stamp_ns == last_ns:
                return 'duplicate'
            return 'out_of_order' if last_ns - stamp_ns <= _RESTART_NS else ''

    def note(self, frame_id: str, stamp_ns: int, era: int | None = None) -> None:
        """Remember that a frame of this stamp has left.

        :param era: see :meth:`objection`.
        """
        if stamp_ns == 0:
            return
        with self._lock:
            key = (self._era if era is None else era, frame_id)
            self._last_ns[key] = stamp_ns
            self._last_ns.move_to_end(key)
            # The text comes from outside; a sender that invents names must not fill the memory.
            if len(self._last_ns) > _REMEMBERED_FRAME_IDS:
                self._last_ns.popitem(last=False)

    def reset(self) -> None:
        """Forget all stamps, as after a jump of the clock."""
        with self._lock:
            self._era += 1
