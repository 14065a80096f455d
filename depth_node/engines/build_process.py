"""A process that builds or tries an engine, so that whatever happens there spares the node.

The process says plain lines on its output; the last one tells why it failed.  It is in a process
group of its own, which is killed at once when it is not wanted any more, and its standard input is
a pipe that nobody writes to: when the node is gone, however it ended, that pipe closes and the
process leaves.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import depth_node

_PRIORITY = 10
_POLL_S = 0.5
# A builder reports every few seconds; single steps of the largest networks take a minute.
_LONGEST_SILENCE_S = 300.0
_LONGEST_S = 3600.0
_ENDS_WITHIN_S = 2.0
_LONGEST_LINE = 300
_READ_BYTES = 1 << 16


class BuildProcess:
    """One process, from its start to its end; :meth:`kill` may be called from any thread.

    :param words: program and arguments.
    :raises OSError: when it cannot be started.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
            env=_environment(),
        )
        self._rest = b''
        self._last = ''

    def follow(self, heard: Callable[[str], None]) -> str:
        """Wait until the process has ended.

        :param heard: called with every line, and with '' at least every half second.
        :returns: '' when it succeeded, otherwise why it did not, without a full stop.
        """
        problem = self._listen(heard)
        if problem:
            self.kill()
        try:
            code = self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            problem = problem or 'its process does not end'
            self.kill()
        if problem:
            return problem
        if code == 0:
            return ''
        said = f' after saying {self._last!r}' if self._last else ' without a word'
        if code < 0:
            return f'its process was ended by {_signal_name(-code)}{said}'
        return self._last or f'its process ended with {code}{said}'

    def kill(self) -> None:
        """End the process and all that it has started, at once; twice is harmless."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDS_WITHIN_S)

    def close(self) -> None:
        """Kill the process and close the pipes."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _listen(self, heard: Callable[[str], None]) -> str:
        """Read until the output closes; return '' or why no more is read."""
        output = self._process.stdout
        assert output is not None  # noqa: S101 (a pipe was asked for)
        began_s = said_s = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while True:
                lines: list[str] = []
                if selector.select(_POLL_S):
                    data = os.read(output.fileno(), _READ_BYTES)
                    if not data:
                        self._split(b'\n')
                        return ''
                    said_s = time.monotonic()
                    lines = self._split(data)
                for line in lines or ['']:
                    heard(line)
                now_s = time.monotonic()
                if now_s - said_s > _LONGEST_SILENCE_S:
                    return f'its process said nothing for {_LONGEST_SILENCE_S:.0f} s'
                if now_s - began_s > _LONGEST_S:
                    return f'its process took more than {_LONGEST_S:.0f} s'

    def _split(self, data: bytes) -> list[str]:
        """Return the lines that are complete, printable and not too long."""
        *whole, rest = (self._rest + data).split(b'\n')
        self._rest = rest[-_READ_BYTES:]
        lines = [_shown(line) for line in whole if line.strip()]
        if lines:
            self._last = lines[-1]
        return lines


def serve_the_node() -> None:
    """Let this process, which a node has started, give way to others and end with the node."""
    os.nice(_PRIORITY)
    threading.Thread(target=_leave_with_the_node, name='end of the node', daemon=True).start()


def _leave_with_the_node() -> None:
    """Wait until standard input closes."""
    with suppress(OSError):
        while os.read(sys.stdin.fileno(), 1):
            pass
    os._exit(1)


def _environment() -> dict[str, str]:
    """Return an environment in which the process finds the package that this one runs."""
    home = str(Path(depth_node.__file__).resolve().parents[1])
    others = os.environ.get('PYTHONPATH')
    return {**os.environ, 'PYTHONPATH': f'{home}{os.pathsep}{others}' if others else home}


def _shown(line: bytes) -> str:
    """Return what a library or a driver has printed as text that cannot forge log lines."""
    return repr(line.decode(errors='replace').strip())[1:-1][:_LONGEST_LINE]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'
