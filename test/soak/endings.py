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

_LATEST_S = 4.0
_ENDS_WITHIN_S = 20.0
_BAD_WORDS = ('Traceback', 'terminate called', 'Segmentation', 'Exception', 'Fatal')
# the default of `respawn_delay` in our launch file
RESPAWN_DELAY_S = 2.0
_BACK_WITHIN_S = 10.0


def signals(
    folder: Path, count: int = 200, tick: Callable[[int], None] = lambda _: None, seed: int = 11
) -> Row:
    """Send SIGINT or SIGTERM, one time in four twice, at random moments of start and work.

    The moments begin when the process has told the kernel that it handles signals: what comes
    before that is the interpreter's own start.
    """
    row = Row('signals')
    began_s = time.monotonic()
    draw = random.Random(seed)
    surroundings = environment()
    peers = [
        start_peer(surroundings, role, '/s', folder / role) for role in ('camera', 'listener')
    ]
    endings: list[float] = []
    unheeded: list[float] = []
    clean = serving = 0
    try:
        for _ in range(count):
            started_s = time.monotonic()
            node = start_node(surroundings, '/s')
            try:
                wait_until_signals_are_heeded(node.pid)
                unheeded.append(time.monotonic() - started_s)
                after_s = draw.random() * _LATEST_S
                time.sleep(after_s)
                number = draw.choice((signal.SIGINT, signal.SIGTERM))
                sent_s = time.monotonic()
                node.send_signal(number)
                if draw.random() < 0.25:
                    time.sleep(draw.random() * 0.05)
                    node.send_signal(draw.choice((signal.SIGINT, signal.SIGTERM)))
                _, said = _ended(node)
                endings.append(time.monotonic() - sent_s)
                wrong = [word for word in _BAD_WORDS if word in said]
                clean += node.returncode == 0 and not wrong
                serving += 'is ready after' in said
                if node.returncode or wrong:
                    row.broken.append(
                        f'{number.name} after {after_s:.3f} s: exit {node.returncode}, '
                        f'{said[-600:]!r}'
                    )
            finally:
                end(node)
            tick(1)
    finally:
        for peer in peers:
            end(peer)
    row.seconds = time.monotonic() - began_s
    row.figures = {
        'signals': count,
        'clean_exits': clean,
        'of_them_after_the_start': serving,
        'slowest_exit_s': round(max(endings), 3),
        'slowest_until_heeded_s': round(max(unheeded), 3),
    }
    return row


def _ended(node: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return node.communicate(timeout=_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        node.kill()
        return node.communicate()


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
