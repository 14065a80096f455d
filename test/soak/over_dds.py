"""The node for minutes over DDS while its camera and its listener are killed and come back."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soak.processes import end
from soak.processes import environment
from soak.processes import lines_of
from soak.processes import start_node
from soak.processes import start_peer
from soak.row import MIB
from soak.row import Row
from soak.row import rss_bytes

_NAMESPACE = '/d'
# input.max_age_s counts from the arrival; the way through DDS on both sides comes on top
_MAX_AGE_S = 0.5
_WAY_S = 0.5
_BACK_WITHIN_S = 1.0


class Stage:
    """Node, camera and listener; the two peers can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.surroundings = environment()
        self.node = start_node(self.surroundings, _NAMESPACE, log=folder / 'errors')
        self.logs: dict[str, list[Path]] = {'camera': [], 'listener': []}
        self.gone: dict[str, list[tuple[int, int]]] = {'camera': [], 'listener': []}
        self.peers: dict[str, subprocess.Popen[str]] = {}
        for role in self.logs:
            self.start(role)

    def start(self, role: str) -> None:
        log = self.folder / f'{role}_{len(self.logs[role])}'
        self.logs[role].append(log)
        self.peers[role] = start_peer(self.surroundings, role, _NAMESPACE, log)

    def restart(self, role: str, how: int, pause_s: float) -> None:
        began_ns = time.monotonic_ns()
        self.peers[role].send_signal(how)
        self.peers[role].wait(10)
        time.sleep(pause_s)
        self.start(role)
        self.gone[role].append((began_ns, time.monotonic_ns()))

    def close(self) -> tuple[int, str]:
        """End the node by SIGINT; return its exit code and what it said."""
        self.node.send_signal(signal.SIGINT)
        try:
            code = self.node.wait(20)
        except subprocess.TimeoutExpired:
            code = -1
        for process in (self.node, *self.peers.values()):
            end(process)
        return code, (self.folder / 'errors').read_text()


def over_dds(
    folder: Path, seconds: float = 200.0, tick: Callable[[int], None] = lambda _: None
) -> Row:
    """Run for some time and restart camera or listener every few seconds."""
    row = Row('over_dds')
    began_s = time.monotonic()
    draw = random.Random(13)
    stage = Stage(folder)
    memory = []
    try:
        time.sleep(min(5.0, seconds / 4))
        while (passed_s := time.monotonic() - began_s) < seconds:
            memory.append((int(passed_s), rss_bytes(stage.node.pid)))
            role = draw.choice(('camera', 'listener'))
            how = draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
            stage.restart(role, how, draw.random() * 2.0)
            time.sleep(4.0 + draw.random() * 3.0)
            tick(round(time.monotonic() - began_s - passed_s))
    finally:
        code, said = stage.close()
    row.seconds = time.monotonic() - began_s
    _judge(row, stage)
    half = memory[len(memory) // 2 :] or memory
    row.figures['memory_growth_mib'] = round((half[-1][1] - half[0][1]) / MIB, 2)
    row.figures['restarts'] = sum(map(len, stage.gone.values()))
    row.require(code == 0, f'the node ended with {code}')
    row.require('Traceback' not in said, said[-600:])
    return row


def _judge(row: Row, stage: Stage) -> None:
    """Hold what the listeners got to what the cameras sent."""
    sent = [entry for log in stage.logs['camera'] for entry in lines_of(log) if 'heard' in entry]
    stamps = {entry['stamp_ns'] for entry in sent}
    figures = dict.fromkeys(('received', 'stale', 'duplicate', 'out_of_order', 'unknown'), 0)
    outputs: list[int] = []
    counts: list[dict[str, Any]] = []
    ages: list[float] = []
    last_ns = 0
    seen: set[int] = set()
    for log in stage.logs['listener']:
        for entry in lines_of(log):
            if 'received' in entry:
                counts.append(entry)
            if 'stamp_ns' not in entry:
                continue
            stamp_ns = entry['stamp_ns']
            outputs.append(entry['at_ns'])
            ages.append(entry['age_s'])
            figures['received'] += 1
            figures['stale'] += entry['age_s'] > _MAX_AGE_S + _WAY_S
            figures['duplicate'] += stamp_ns in seen
            figures['out_of_order'] += stamp_ns < last_ns
            # a camera that is killed between sending and noting has sent one that is not noted
            figures['unknown'] += stamp_ns not in stamps
            seen.add(stamp_ns)
            last_ns = max(last_ns, stamp_ns)
    row.require(bool(outputs), 'no depth at all')
    for name in ('stale', 'duplicate', 'out_of_order'):
        row.require(figures[name] == 0, f'{name} is {figures[name]}, not 0')
    killed = len(stage.logs['camera'])
    row.require(figures['unknown'] <= killed, f'{figures["unknown"]} images nobody sent')
    waiting = [
        entry['received'] - entry['published'] - sum(entry['dropped'].values()) for entry in counts
    ]
    row.require(all(0 <= left <= 2 for left in waiting), f'images that wait: {set(waiting)}')
    backs_s = _times_back(stage, sorted(outputs))
    row.figures = {
        'sent': len(sent),
        **figures,
        'slowest_age_s': max(ages, default=0.0),
        'median_age_s': sorted(ages)[len(ages) // 2] if ages else 0.0,
        'camera_returns': len(backs_s),
        'slowest_output_after_return_s': round(max(backs_s, default=0.0), 3),
        'counted_by_node': counts[-1]['received'] if counts else 0,
        'drops': counts[-1]['dropped'] if counts else {},
    }
    row.require(
        max(backs_s, default=0.0) < _BACK_WITHIN_S,
        f'after the return of a camera depth took {max(backs_s, default=0.0):.2f} s',
    )


def _times_back(stage: Stage, outputs_ns: list[int]) -> list[float]:
    """Return the times from the first image that a returned camera could send to its depth.

    Returns that a listener missed because it was away itself are left out.
    """
    times_s = []
    for log in stage.logs['camera'][1:]:
        first = next((entry for entry in lines_of(log) if entry.get('heard')), None)
        if first is None:
            continue
        at = bisect_left(outputs_ns, first['at_ns'])
        if at < len(outputs_ns):
            reached_ns = outputs_ns[at]
            away = any(
                began_ns < reached_ns and first['at_ns'] < ended_ns + 3 * 10**9
                for began_ns, ended_ns in stage.gone['listener']
            )
            if not away:
                times_s.append((reached_ns - first['at_ns']) / 1e9)
    return times_s
