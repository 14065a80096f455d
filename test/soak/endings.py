"""How the node's process ends, and how it comes back: signals at random moments, and kills."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from soak.processes import end
from soak.processes import environment
from soak.processes import lines_of
from soak.processes import start_node
from soak.processes import start_peer
from soak.processes import wait_until_signals_are_heeded
from soak.row import Row

_LATEST_S = 2.5
_READY = 'is ready after'
_ENDS_WITHIN_S = 20.0
_BAD_WORDS = ('Traceback', 'terminate called', 'Segmentation', 'Exception', 'Fatal')
# the default of `respawn_delay` in our launch file
RESPAWN_DELAY_S = 2.0
_BACK_WITHIN_S = 10.0


def signals(
    folder: Path, count: int = 200, tick: Callable[[int], None] = lambda _: None, seed: int = 11
) -> Row:
    """Send SIGINT or SIGTERM, one time in four twice, at random moments of start and work.

    The moments of the start begin when the process has told the kernel that it handles signals:
    what comes before that is the interpreter's own start.  Those of work begin when it is ready.
    """
    row = Row('signals')
    began_s = time.monotonic()
    draw = random.Random(seed)
    surroundings = environment()
    roles = ('camera', 'listener')
    peers = [start_peer(surroundings, role, '/s', folder / role) for role in roles]
    shots: list[Shot] = []
    try:
        for number in range(count):
            log = folder / f'errors_{number}'
            shots.append(Shot(surroundings, log, draw, at_work=number % 2 == 1))
            tick(1)
    finally:
        for peer in peers:
            end(peer)
    row.broken += [shot.told for shot in shots if not shot.clean]
    row.seconds = time.monotonic() - began_s
    row.figures = {
        'signals': count,
        'clean_exits': sum(shot.clean for shot in shots),
        'of_them_after_the_start': sum(shot.served for shot in shots),
        'median_exit_s': round(sorted(shot.exit_s for shot in shots)[count // 2], 3),
        'slowest_exit_s': round(max(shot.exit_s for shot in shots), 3),
        'slowest_until_heeded_s': round(max(shot.unheeded_s for shot in shots), 3),
    }
    return row


class Shot:
    """One process, from its start to its end by a signal."""

    def __init__(
        self, surroundings: dict[str, str], log: Path, draw: random.Random, at_work: bool
    ) -> None:
        began_s = time.monotonic()
        node = start_node(surroundings, '/s', log=log)
        try:
            wait_until_signals_are_heeded(node.pid)
            self.unheeded_s = time.monotonic() - began_s
            if at_work:
                _wait_until_said(log, _READY)
            after_s = draw.random() * _LATEST_S
            time.sleep(after_s)
            name = draw.choice((signal.SIGINT, signal.SIGTERM))
            sent_s = time.monotonic()
            node.send_signal(name)
            if draw.random() < 0.25:
                time.sleep(draw.random() * 0.05)
                node.send_signal(draw.choice((signal.SIGINT, signal.SIGTERM)))
            try:
                node.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                node.kill()
            code = node.wait()
            self.exit_s = time.monotonic() - sent_s
        finally:
            end(node)
        said = log.read_text()
        self.served = _READY in said
        self.clean = code == 0 and not any(word in said for word in _BAD_WORDS)
        self.told = f'{name.name} after {after_s:.3f} s: exit {code}, {said[-600:]!r}'


def _wait_until_said(log: Path, text: str, timeout_s: float = 60.0) -> None:
    limit_s = time.monotonic() + timeout_s
    while text not in log.read_text():
        if time.monotonic() > limit_s:
            raise TimeoutError(f'{text!r} is not said: {log.read_text()[-600:]}')
        time.sleep(0.02)


def respawns(folder: Path, count: int = 10, tick: Callable[[int], None] = lambda _: None) -> Row:
    """Kill the node at work and start it again as launch does; wait for its next output."""
    row = Row('respawns')
    began_s = time.monotonic()
    surroundings = environment()
    log, errors = folder / 'respawn_listener', folder / 'respawn_errors'
    peers = [
        start_peer(surroundings, 'camera', '/r', folder / 'respawn_camera'),
        start_peer(surroundings, 'listener', '/r', log),
    ]
    back_s: list[float] = []
    node = start_node(surroundings, '/r', log=errors)
    try:
        _next_output(log, time.monotonic_ns(), 60.0)
        for _ in range(count):
            time.sleep(1.0)
            end(node)
            killed_ns = time.monotonic_ns()
            time.sleep(RESPAWN_DELAY_S)
            node = start_node(surroundings, '/r', log=errors)
            back_s.append((_next_output(log, killed_ns + 500_000_000, 60.0) - killed_ns) / 1e9)
            tick(1)
    finally:
        for process in (node, *peers):
            end(process)
    row.seconds = time.monotonic() - began_s
    row.figures = {
        'kills': count,
        'median_next_output_s': round(sorted(back_s)[len(back_s) // 2], 2),
        'slowest_next_output_s': round(max(back_s), 2),
    }
    row.require(max(back_s) < _BACK_WITHIN_S, f'after a kill depth took {max(back_s):.1f} s')
    return row


def _next_output(log: Path, after_ns: int, timeout_s: float) -> int:
    """Wait for a depth image after a moment; return when it came, monotonic nanoseconds."""
    limit_s = time.monotonic() + timeout_s
    while time.monotonic() < limit_s:
        for entry in lines_of(log):
            if 'stamp_ns' in entry and entry['at_ns'] > after_ns:
                return int(entry['at_ns'])
        time.sleep(0.05)
    raise TimeoutError(f'no depth within {timeout_s} s')
