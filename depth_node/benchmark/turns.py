"""Fair timing: every contestant lives in a process of its own, and they take turns.

The order is reversed each round, so that a machine that speeds up or slows down, or a neighbour
that comes and goes, hits all alike; compare contestants of one run only.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from depth_node.errors import EngineError

Opened = tuple[Callable[[], object], dict[str, float]]


@dataclass(frozen=True)
class Contestant:
    """Something that can be timed."""

    name: str
    """Unique within a run."""
    opener: Callable[..., Opened]
    """Module-level function, called in the process of the contestant; returns what to time and
    figures that are known beforehand, such as its error."""
    arguments: tuple[Any, ...] = ()
    """Of ``opener``; picklable."""


@dataclass(frozen=True)
class Timed:
    """What one contestant did."""

    name: str
    """Of the contestant."""
    times_ns: tuple[int, ...]
    """One per call, nanoseconds, all rounds together."""
    figures: dict[str, float]
    """What ``opener`` returned."""
    start_s: float
    """From the start of its process until it was ready, seconds."""


def take_turns(
    contestants: Sequence[Contestant],
    rounds: int,
    calls: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Timed]:
    """Time all contestants in turns.

    :param rounds: how often each has its turn.
    :param calls: calls per turn, after one that is not counted.
    :param progress: called with rounds done and in all.
    :raises EngineError: when a contestant fails; the text names it.
    """
    context = multiprocessing.get_context('spawn')
    opened: list[_Player] = []
    try:
        for contestant in contestants:
            opened.append(_Player(contestant, context))
        for done in range(rounds):
            for player in opened if done % 2 == 0 else reversed(opened):
                player.turn(calls)
            progress(done + 1, rounds)
        return [player.timed() for player in opened]
    finally:
        for player in opened:
            player.close()


class _Player:
    """A contestant's process, seen from the coordinator."""

    def __init__(self, contestant: Contestant, context: Any) -> None:
        self._name = contestant.name
        self._times_ns: list[int] = []
        self._connection, theirs = context.Pipe()
        started = time.monotonic()
        self._process = context.Process(target=_serve, args=(contestant, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._figures: dict[str, float] = self._answer()
        self._start_s = time.monotonic() - started

    def turn(self, calls: int) -> None:
        """Let it run."""
        self._connection.send(calls)
        self._times_ns.extend(self._answer())

    def timed(self) -> Timed:
        """Return what was measured."""
        return Timed(self._name, tuple(self._times_ns), self._figures, self._start_s)

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            answer = 'its process ended'
        if isinstance(answer, str):
            raise EngineError(f'contestant {self._name}', answer, 'a contestant that runs')
        return answer


def _serve(contestant: Contestant, connection: Connection) -> None:
    """Open the contestant and run it whenever it is told to."""
    try:
        call, figures = contestant.opener(*contestant.arguments)
        connection.send(figures)
        while True:
            calls = connection.recv()
            call()
            times_ns = []
            for _ in range(calls):
                started = time.perf_counter_ns()
                call()
                times_ns.append(time.perf_counter_ns() - started)
            connection.send(times_ns)
    except EOFError:
        return
    except Exception as error:
        connection.send(f'{type(error).__name__}: {error}')
