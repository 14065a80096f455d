"""Run the long checks, each in a process of its own: ``python -m soak [NAME ...]``.

Writes benchmarks/results/soak.json when all of them ran, out/soak.json otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from depth_node.benchmark import result
from depth_node.ros.memory import keep_large_buffers
from soak import cycles
from soak import endings
from soak import over_dds
from soak import overload
from soak import storm
from soak.processes import ROOT
from soak.processes import die_with_parent
from soak.processes import environment
from soak.row import Row

Check = Callable[[Path, float, Callable[[int], None]], Row]
# name: check, its size, and the unit of both its size and its progress bar
CHECKS: dict[str, tuple[Check, int, str]] = {
    'storm': (lambda path, size, tick: storm.storm(path, int(size), tick), 100_000, 'images'),
    'overload': (lambda path, size, tick: overload.overload(path, size, tick), 60, 's'),
    'pause': (lambda path, size, tick: overload.pause(path, size), 10, 's'),
    'over_dds': (lambda path, size, tick: over_dds.over_dds(path, size, tick), 200, 's'),
    'signals': (lambda path, size, tick: endings.signals(path, int(size), tick), 200, 'signals'),
    'respawns': (lambda path, size, tick: endings.respawns(path, int(size), tick), 10, 'kills'),
    'cycles': (
        lambda path, size, tick: cycles.scripted_cycles(path, int(size), tick), 1000, 'cycles',
    ),
    'bundled_cycles': (
        lambda path, size, tick: cycles.bundled_cycles(int(size), tick), 30, 'cycles',
    ),
}  # fmt: skip
_OTHER = ROOT / 'out' / 'soak.json'
_LATEST_S = 3600.0
"""A check that takes longer hangs."""
PROTOCOL = (
    'Each check in a process of its own. storm: images with gaps, bursts, duplicate and late '
    'stamps, clock jumps, bad messages, changing sizes, encodings and transports, and an engine '
    'that fails by chance, through the stream, worker and pipeline of the node without DDS; what '
    'is published is judged by what was sent. overload: ten times the rate that the engine can '
    'take. over_dds: the node with the bundled model and a 30 Hz camera; camera and listener are '
    'killed every few seconds. signals: SIGINT or SIGTERM, sometimes two, at random moments '
    'within 2.5 s from when the process handles signals or, every other time, is ready. respawns: '
    'SIGKILL, 2 s of waiting, a new start. cycles: configure, activate, deactivate, cleanup.'
)


def main(words: list[str] | None = None) -> int:
    """Run the checks; return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog='python -m soak', description=__doc__)
    parser.add_argument('names', nargs='*', help=f'of {", ".join(CHECKS)}; default: all')
    parser.add_argument('--share', type=float, default=1.0, help='a part of the usual size')
    parser.add_argument('--out', type=Path, help='file for the results')
    parser.add_argument('--row', type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    unknown = set(options.names) - set(CHECKS)
    if unknown:
        parser.error(f'no such check: {", ".join(sorted(unknown))}')
    if options.row:
        return _run_here(options.names[0], options.share, options.row)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        rows = _all_rows(options.names or list(CHECKS), options.share)
    except KeyboardInterrupt:
        return 130
    whole = not options.names and options.share == 1.0
    standard = ROOT / 'benchmarks/results/soak.json' if whole else _OTHER
    _write(options.out or standard, options.share, rows)
    for row in rows:
        sys.stdout.write(f'{row["name"]:15} {"kept" if not row["broken"] else "BROKEN"}\n')
        sys.stdout.writelines(f'    {sentence}\n' for sentence in row['broken'])
    return int(any(row['broken'] for row in rows))


def _all_rows(names: list[str], share: float) -> list[dict[str, Any]]:
    """Run checks one after the other; what is done is kept when a later one is interrupted."""
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(names, start=1):
        sys.stdout.write(f'{number} of {len(names)}: {name}\n')
        sys.stdout.flush()
        rows.append(_run_apart(name, share))
        _write(_OTHER, share, rows)
    return rows


def _write(path: Path, share: float, rows: list[dict[str, Any]]) -> None:
    result.write_result(path, 'soak', PROTOCOL, {'share': share}, rows)


def _run_apart(name: str, share: float) -> dict[str, Any]:
    """Run one check in a process of its own, which nothing before it has filled."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'row.json')
        words = [sys.executable, '-m', 'soak', name, '--share', str(share), '--row', str(path)]
        try:
            code = subprocess.run(
                words,
                env=environment(),
                check=False,
                timeout=_LATEST_S,
                preexec_fn=die_with_parent,
            ).returncode
            said = f'the check itself ended with {code}'
        except subprocess.TimeoutExpired:
            said = f'the check itself took longer than {_LATEST_S:.0f} s and was killed'
        if not path.exists():
            return asdict(Row(name, broken=[said]))
        row: dict[str, Any] = json.loads(path.read_text())
        return row


def _run_here(name: str, share: float, path: Path) -> int:
    """Run one check in this process and write its row."""
    keep_large_buffers(os.environ)
    check, size, unit = CHECKS[name]
    size = max(1, round(size * share))
    with tempfile.TemporaryDirectory() as folder, tqdm(total=size, unit=unit, desc=name) as bar:
        row = check(Path(folder), size, bar.update)
    path.write_text(json.dumps(asdict(row)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
