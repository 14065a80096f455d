"""Run the checks of fine-tuning, each in a process of its own: ``make finetune-check``.

``python -m finetune_check [NAME ...]`` writes benchmarks/results/finetuning.json when all of them
ran at their usual size, out/finetuning.json otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from depth_node.benchmark import result
from depth_node.errors import DepthNodeError
from depth_node.ros.memory import keep_large_buffers
from finetune_check import gyro_checks
from finetune_check import learning_checks
from finetune_check import measures
from finetune_check import refusals
from finetune_check import start_checks
from finetune_check.row import Row
from finetune_check.runs import ROOT
from finetune_check.runs import Setting

CHECKS: dict[str, Callable[[Setting], Row]] = {
    'idle_stretches': measures.idle_stretches,
    'image_delay': measures.image_delay,
    'gyro': gyro_checks.gyro,
    'measured_scale': measures.measured_scale,
    'stereo': measures.stereo,
    'throughput': measures.throughput,
    'node_output': measures.node_output,
    'spoilt_recordings': refusals.spoilt_recordings,
    'perfect_model': refusals.perfect_model,
    'wrong_scale': learning_checks.wrong_scale,
    'several_cameras': learning_checks.several_cameras,
    'livingroom': learning_checks.livingroom,
    'start': start_checks.start,
}
STANDARD = ROOT / 'benchmarks' / 'results' / 'finetuning.json'
_OTHER = ROOT / 'out' / 'finetuning.json'
_LIVINGROOM = ROOT.parent / 'shared' / 'data' / 'bags' / 'livingroom'
_LATEST_S = 4 * 3600.0
"""A check that takes longer hangs."""
PROTOCOL = ' '.join(
    (
        'Each check in a process of its own.',
        'idle_stretches, image_delay, gyro, throughput, node_output and the refusals: rendered '
        'rooms, 160x120, plumb_bob lens.',
        'gyro: an IMU at 100 Hz with bias and noise; for the delays the odometry has no heading.',
        'stereo: 8 s, 320x240, a second camera 10 cm to the right that looks 2 degrees inwards, '
        'its pose in /tf_static.',
        'throughput: loss and gradient of the same batch of 4 by both steps in turns.',
        'node_output: stream, worker, pipeline and outputs of the node without DDS, beside the '
        'pipeline that judges.',
        'perfect_model: taught the true depth of the whole recording first.',
        'wrong_scale: 24 s of a rendered room, 320x240, the bundled model with its depth divided '
        'by three, its depth topic hidden from the training.',
        'several_cameras: the same without a lens, with a second camera that looks 52 degrees to '
        'the left.',
        'livingroom: a ray-traced room filmed by hand, its depth hidden from the training.',
        'start: that room with the same steps and seed, once from the bundled model, once from '
        'fresh weights of its card; paired differences of held-out images.',
        'Held-out time is the last fifth; changes are of means over its images.',
    )
)


def main(words: list[str] | None = None) -> int:
    """Run the checks; return 1 when a figure was missed or a check failed."""
    parser = argparse.ArgumentParser(prog='python -m finetune_check', description=__doc__)
    parser.add_argument('names', nargs='*', help=f'of {", ".join(CHECKS)}; default: all')
    parser.add_argument('--share', type=float, default=1.0, help='a part of the usual steps')
    parser.add_argument('--livingroom', type=Path, default=None, help='the real recording')
    parser.add_argument('--out', type=Path, help='file for the results')
    parser.add_argument(
        '--replace', action='store_true', help='replace the rows of these checks in the results'
    )
    parser.add_argument('--row', type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    unknown = set(options.names) - set(CHECKS)
    if unknown:
        parser.error(f'no such check: {", ".join(sorted(unknown))}')
    if options.livingroom is None:
        options.livingroom = Path(os.environ.get('LIVINGROOM') or _LIVINGROOM)
    if options.row:
        return _run_here(options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        rows = _all_rows(options)
    except KeyboardInterrupt:
        sys.stderr.write('finetune_check: stopped\n')
        return 130
    if options.replace:
        _replace(rows)
        return int(any(not _passed(row) for row in rows))
    whole = not options.names and options.share == 1.0
    _write(options.out or (STANDARD if whole else _OTHER), options.share, rows)
    return int(any(not _passed(row) for row in rows))


def _all_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run checks one after the other; what is done is kept when a later one is interrupted."""
    names = options.names or list(CHECKS)
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(names, start=1):
        _put(f'{number} of {len(names)}: {name}')
        rows.append(_run_apart(name, options))
        _write(options.out or _OTHER, options.share, rows)
        _tell(rows[-1])
    return rows


def _tell(row: dict[str, Any]) -> None:
    for figure in row['figures']:
        sign = '' if not figure['asked'] else 'kept' if figure['kept'] else 'MISSED'
        asked = f' {figure["asked"]}' if figure['asked'] else ''
        reached = 'nan' if figure['reached'] is None else f'{figure["reached"]:.4g}'
        _put(f'    {sign:7}{figure["what"]}{asked}: {reached}')
    for sentence in filter(None, (row['skipped'], row['failed'])):
        _put(f'    {sentence}')
    _put(f'    {row["seconds"]:.0f} s')


def _put(line: str) -> None:
    sys.stdout.write(f'{line}\n')
    sys.stdout.flush()


def _passed(row: dict[str, Any]) -> bool:
    return not row['failed'] and all(figure['kept'] for figure in row['figures'])


def _write(path: Path, share: float, rows: list[dict[str, Any]]) -> None:
    result.write_result(path, 'finetuning', PROTOCOL, {'share': share}, rows)


def _replace(rows: list[dict[str, Any]]) -> None:
    """Put rows in the place of those of the same checks, and say that they are later ones."""
    there = json.loads(STANDARD.read_text())
    fresh = {row['name']: row for row in rows}
    known = {row['name']: row for row in there['rows']} | fresh
    later = sorted({*there['conditions'].get('measured_later', []), *fresh})
    kept = [known[name] for name in CHECKS if name in known]
    conditions = {**there['conditions'], 'measured_later': later}
    result.write_result(STANDARD, 'finetuning', PROTOCOL, conditions, kept)


def _run_apart(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one check in a process of its own."""
    with tempfile.TemporaryDirectory(prefix='finetune_check.') as folder:
        path = Path(folder, 'row.json')
        words = [sys.executable, '-m', 'finetune_check', name, '--row', str(path)]
        words += ['--share', str(options.share), '--livingroom', str(options.livingroom)]
        try:
            code = subprocess.run(words, check=False, timeout=_LATEST_S).returncode
            said = f'The check itself ended with {code}.'
        except subprocess.TimeoutExpired:
            said = f'The check itself took longer than {_LATEST_S:.0f} s and was killed.'
        if not path.exists():
            return asdict(Row(name, failed=said))
        row: dict[str, Any] = json.loads(path.read_text())
        return row


def _run_here(options: argparse.Namespace) -> int:
    """Run one check in this process and write its row."""
    keep_large_buffers(os.environ)
    (name,) = options.names
    began_s = time.monotonic()

    def say(text: str) -> None:
        _put(f'    {time.monotonic() - began_s:5.0f} s  {text}')

    with tempfile.TemporaryDirectory(prefix=f'finetune_check.{name}.') as folder:
        setting = Setting(Path(folder), options.share, say, options.livingroom)
        try:
            row = CHECKS[name](setting)
        except (DepthNodeError, RuntimeError, AssertionError, KeyError) as error:
            row = Row(name, failed=f'{type(error).__name__}: {error}')
    row.seconds = round(time.monotonic() - began_s, 1)
    options.row.write_text(json.dumps(asdict(row)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
