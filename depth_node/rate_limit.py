"""A lower rate by stamps: which frames of a stream are due."""

from __future__ import annotations

import time


class RateLimit:
    """Lets frames through at a rate of at most so many a second, on average.

    Due times lie on a grid, so that frames that come a little before or after theirs do not halve
    the rate, as they would if each had to be a whole period after the last.
    """

    def __init__(self) -> None:
        self._next_ns: int | None = None

    def take(self, stamp_ns: int, max_hz: float) -> bool:
        """Tell whether a frame is due; if so, the next one is a period later.

        A clock that jumps, in either direction, delays a frame by two periods at most.

        :param stamp_ns: of the frame, nanoseconds; 0 where the sender has no clock: then this
            machine's counts.
        :param max_hz: 0 lets every frame through.
        """
        if max_hz <= 0.0:
            self._next_ns = None
            return True
        stamp_ns = stamp_ns or time.monotonic_ns()
        period_ns = round(1e9 / max_hz)
        wait_ns = 0 if self._next_ns is None else self._next_ns - stamp_ns
        if 0 < wait_ns <= 2 * period_ns:
            return False
        on_time = self._next_ns is not None and -period_ns < wait_ns <= 0
        self._next_ns = (stamp_ns + wait_ns if on_time else stamp_ns) + period_ns
        return True
