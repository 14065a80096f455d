"""Progress of long work: bars on a terminal, a line now and then in a log."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING
from typing import TextIO

from tqdm import tqdm

if TYPE_CHECKING:
    from depth_node.finetuning.trainer import Progress

LINE_EVERY_S = 30.0
"""Seconds between two lines where there is no terminal."""


class Bars:
    """One bar at a time with lines above it; without a terminal, a line every half a minute.

    :param stream: where progress goes; standard error by default.  What is said goes to standard
        output.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._bar: tqdm[None] | None = None
        self._what, self._total = '', -1
        self._began_s = self._told_s = 0.0
        self._began_at = 0

    def say(self, text: str) -> None:
        """Print a line above the bar, at once also where the output is a file."""
        tqdm.write(text)
        sys.stdout.flush()

    def counted(self, what: str, done: int, total: int) -> None:
        """Show how much of something is done."""
        self._show(what, done, total)

    def trained(self, progress: Progress) -> None:
        """Show a training: its time left, and its loss as a share of that of standing still."""
        remark = f'photometric {progress.ratio:.2f} of standing still'
        self._show('training', progress.step, progress.steps, remark, progress.seconds_left)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(
        self, what: str, done: int, total: int, remark: str = '', left_s: float = math.nan
    ) -> None:
        if (what, total) != (self._what, self._total):
            self.close()
            self._what, self._total = what, total
            self._began_s = self._told_s = time.monotonic()
            self._began_at = done
            if self._terminal:
                self._bar = tqdm(total=total, desc=what, leave=False, file=self._stream)
        if self._bar is not None:
            self._bar.set_postfix_str(remark, refresh=False)
            self._bar.update(done - self._bar.n)
        elif not self._terminal:
            self._tell(done, remark, left_s)

    def _tell(self, done: int, remark: str, left_s: float) -> None:
        """Print a line if the last one is long ago."""
        now_s = time.monotonic()
        if now_s - self._told_s < LINE_EVERY_S:
            return
        self._told_s = now_s
        if math.isnan(left_s) and done > self._began_at:
            left_s = (now_s - self._began_s) / (done - self._began_at) * (self._total - done)
        parts = [f'{self._what}: {done} of {self._total}']
        if self._total:
            parts[0] += f' ({100 * done // self._total} %)'
        if math.isfinite(left_s):
            parts.append(f'{_clock(left_s)} left')
        print(', '.join([*parts, *filter(None, [remark])]), file=self._stream, flush=True)


def _clock(seconds: float) -> str:
    """Return a duration as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'
