"""Fair timing: every contestant lives in a process of its own, and they take turns.

The order is reversed each round, so that a machine that speeds up or slows down, or a neighbour
that comes and goes, hits all alike; compare contestants of one run only.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from depth_node.benchmark.own_process import start_deaf
from depth_node.errors import DepthNodeError
from depth_node.errors import EngineError

Opened = tuple[Callable[[], object], dict[str, Any]]
Progress = Callable[[int, int], None]

_STATUS = Path('/proc/self/status')


@dataclass(frozen=True)
class Contestant:
    """Something that can be timed."""

    name: str
    """Unique within a run."""
    opener: Callable[..., Opened]
    """Module-level function, called in the process of the contestant; returns what to time and
    what is known beforehand, such as its error: plain values."""
    arguments: tuple[Any, ...] = ()
    """Of ``opener``; picklable."""


@dataclass(frozen=True)
class Timed:
    """What one contestant did."""

    name: str
    """Of the contestant."""
    times_ns: tuple[int, ...]
    """One per call, nanoseconds, all rounds together."""
    figures: dict[str, Any]
    """What ``opener`` returned; empty where it failed."""
    start_s: float
    """From the start of its process until it was ready, seconds."""
    peak_mib: float
    """Most memory that its process ever had, MiB; NaN where the system does not tell."""
    failure: str = ''
    """Why it did not run to the end; empty where it did."""


def take_turns(
    contestants: Sequence[Contestant],
    rounds: int,
    calls: int,
    progress: Progress = lambda done, total: None,
) -> list[Timed]:
    """Time all contestants in turns.

    :param rounds: how often each has its turn.
    :param calls: calls per turn, after one that is not counted.
    :param progress: called with steps done and in all; a step is a start or a round.
    :raises EngineError: when a contestant fails; the text names it.
    """
    timed, interrupted = take_patient_turns(contestants, rounds, calls, progress)
    if interrupted:
        raise KeyboardInterrupt
    for item in timed:
        if item.failure:
            raise EngineError(f'contestant {item.name}', item.failure, 'a contestant that runs')
    return timed


def take_patient_turns(
    contestants: Sequence[Contestant],
    rounds: int,
    calls: int,
    progress: Progress = lambda done, total: None,
) -> tuple[list[Timed], bool]:
    """Time all contestants in turns; what fails is named, the others go on.

    :param rounds: as for :func:`take_turns`, and so are ``calls`` and ``progress``.
    :returns: one entry per contestant in their order, and whether Ctrl-C ended the turns early;
        what was timed until then is there.
    """
    context = multiprocessing.get_context('spawn')
    total = len(contestants) + rounds
    players = [_Player(contestant, context) for contestant in contestants]
    interrupted = False
    try:
        for done, player in enumerate(players):
            player.start()
            progress(done + 1, total)
        for done in range(rounds):
            for player in players if done % 2 == 0 else reversed(players):
                player.turn(calls)
            progress(len(players) + done + 1, total)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        for player in players:
            player.close()
    return [player.timed() for player in players], interrupted


class _Player:
    """A contestant's process, seen from the coordinator."""

    def __init__(self, contestant: Contestant, context: Any) -> None:
        self._contestant = contestant
        self._context = context
        self._times_ns: list[int] = []
        self._figures: dict[str, Any] = {}
        self._start_s = self._peak_mib = float('nan')
        self._failure = 'it was stopped before it had started'
        self._process: Any = None

    def start(self) -> None:
        """Start the process and wait until the contestant is open."""
        self._connection, theirs = self._context.Pipe()
        started = time.monotonic()
        self._process = self._context.Process(
            target=_serve, args=(self._contestant, theirs), daemon=True
        )
        start_deaf(self._process)
        theirs.close()
        answer = self._answer()
        self._start_s = time.monotonic() - started
        if answer is not None:
            self._figures, self._peak_mib = answer

    def turn(self, calls: int) -> None:
        """Let it run, unless it has failed."""
        if self._failure:
            return
        # where the process has ended between two turns, what it sent last says why
        with suppress(ConnectionError):
            self._connection.send(calls)
        answer = self._answer()
        if answer is not None:
            times_ns, self._peak_mib = answer
            self._times_ns.extend(times_ns)

    def timed(self) -> Timed:
        """Return what was measured."""
        return Timed(
            self._contestant.name,
            tuple(self._times_ns),
            self._figures,
            self._start_s,
            self._peak_mib,
            self._failure,
        )

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.terminate()
            self._process.join()

    def _answer(self) -> Any:
        """Return what the process sends next; None when it failed."""
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            answer = 'its process ended'
        self._failure = answer if isinstance(answer, str) else ''
        return None if self._failure else answer


def _serve(contestant: Contestant, connection: Connection) -> None:
    """Open the contestant and run it whenever it is told to."""
    try:
        call, figures = contestant.opener(*contestant.arguments)
        connection.send((figures, peak_mib()))
        while True:
            calls = connection.recv()
            call()
            times_ns = []
            for _ in range(calls):
                started = time.perf_counter_ns()
                call()
                times_ns.append(time.perf_counter_ns() - started)
            connection.send((times_ns, peak_mib()))
    except EOFError:
        return
    except DepthNodeError as error:
        connection.send(str(error))
    except Exception as error:
        connection.send(f'{type(error).__name__}: {error}')


def peak_mib() -> float:
    """Return the most memory that this process ever had, MiB; NaN where the system is silent."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return float('nan')
    found = [line.split()[1] for line in lines if line.startswith('VmHWM:')]
    return int(found[0]) / 1024.0 if found else float('nan')
