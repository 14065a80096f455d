"""Child processes that leave a log, tell what they use, and never outlive us."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 65_536
_STOPS = ((signal.SIGINT, 8.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0))


@dataclass(frozen=True)
class Usage:
    """What a process uses, as /proc tells."""

    rss_mib: float
    """Memory in use, MiB."""
    peak_rss_mib: float
    """Most memory that was ever in use, MiB."""
    cpu_s: float
    """Processor time since the start, seconds, all threads."""
    steady_s: float
    """When this was read, seconds of the monotonic clock."""


class Child:
    """A context manager around one child process in a session of its own.

    Its own session keeps Ctrl-C in a terminal from reaching it directly: the parent stops its
    children in the order that it wants.  When the parent is killed, the kernel ends the child.

    :param name: what it is called in messages.
    :param words: command and arguments.
    :param environment: all environment variables of the child.
    :param log: file that takes its output and errors.
    """

    def __init__(
        self, name: str, words: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        self._words = list(words)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self.started_ns = 0
        """When it was started, nanoseconds of the wall clock."""

    def __enter__(self) -> Child:
        libc = ctypes.CDLL(None)
        with self.log.open('wb') as stream:
            self.started_ns = time.time_ns()
            self._process = subprocess.Popen(
                self._words,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _begin_child(libc),
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs or before its start."""
        return None if self._process is None else self._process.poll()

    def stop(self) -> int | None:
        """End the process: ask, then insist; return its exit status."""
        process = self._process
        if process is None:
            return None
        for number, patience_s in _STOPS:
            if process.poll() is not None:
                break
            os.killpg(process.pid, number)
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
        return process.poll()

    def usage(self) -> Usage | None:
        """Read what it uses; None when it has ended."""
        if self._process is None or self._process.poll() is not None:
            return None
        folder = Path('/proc') / str(self._process.pid)
        try:
            status = (folder / 'status').read_text()
            # The command, in parentheses, may hold blanks; the figures follow the last one.
            counters = (folder / 'stat').read_text().rpartition(')')[2].split()
        except OSError:
            return None
        sizes = {
            name: float(rest.split()[0]) / 1024.0
            for name, _, rest in (line.partition(':') for line in status.splitlines())
            if name in ('VmRSS', 'VmHWM')
        }
        ticks = int(counters[11]) + int(counters[12])
        return Usage(
            rss_mib=sizes.get('VmRSS', 0.0),
            peak_rss_mib=sizes.get('VmHWM', 0.0),
            cpu_s=ticks / os.sysconf('SC_CLK_TCK'),
            steady_s=time.monotonic(),
        )

    def has_loaded(self, library: str) -> bool:
        """Tell whether a shared library with this text in its path is in its memory."""
        if self._process is None or self._process.poll() is not None:
            return False
        try:
            return library in (Path('/proc') / str(self._process.pid) / 'maps').read_text()
        except OSError:
            return False

    def last_lines(self, count: int = 12) -> str:
        """Return the end of its log, for a message about its failure."""
        try:
            with self.log.open('rb') as stream:
                stream.seek(max(0, self.log.stat().st_size - _LOG_BYTES))
                text = stream.read().decode(errors='replace')
        except OSError:
            return ''
        return '\n'.join(text.splitlines()[-count:])


def _begin_child(libc: ctypes.CDLL) -> None:
    """Let a child end with its parent, and take SIGINT in a shell's background too."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
