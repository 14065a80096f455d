"""What a result file holds: the machine, the versions, the commit, and rows of figures."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depth_node import __version__
from depth_node.files import write_text_atomically

_PACKAGES = (
    *('numpy', 'opencv-python-headless', 'torch', 'onnxruntime', 'openvino', 'ros-rclpy'),
    *('tensorrt', 'tensorrt-rtx'),
)
_CPU_INFO = Path('/proc/cpuinfo')


@dataclass(frozen=True)
class Spread:
    """A distribution of times."""

    count: int
    """Number of measurements."""
    min_ms: float
    """Smallest, milliseconds."""
    median_ms: float
    """Middle one, milliseconds."""
    p95_ms: float
    """95 percent are below, milliseconds."""
    p99_ms: float
    """99 percent are below, milliseconds."""


def spread_of(times_ns: Sequence[int]) -> Spread:
    """Summarise times in nanoseconds; at least one is needed."""
    times_ms = np.asarray(times_ns, np.float64) / 1e6
    median, p95, p99 = np.percentile(times_ms, (50, 95, 99))
    return Spread(len(times_ns), float(times_ms.min()), float(median), float(p95), float(p99))


@dataclass(frozen=True)
class StartSpread:
    """A few durations of starts."""

    count: int
    """Number of measurements."""
    min_s: float
    """Smallest, seconds."""
    median_s: float
    """Middle one, seconds."""
    max_s: float
    """Largest, seconds."""


def start_spread_of(times_s: Sequence[float]) -> StartSpread:
    """Summarise durations in seconds; at least one is needed."""
    median = float(np.median(times_s))
    return StartSpread(len(times_s), min(times_s), median, max(times_s))


@dataclass(frozen=True)
class Machine:
    """Where a benchmark ran."""

    processor: str
    """Model name of the CPU."""
    cores: int
    """Cores that this process may use."""
    system: str
    """Kernel and architecture."""
    python: str
    """Version of the interpreter."""
    packages: dict[str, str]
    """Versions of the libraries that matter."""
    commit: str
    """Commit of the source, with '+' where the working tree differs; '' outside a checkout."""
    depth_node: str
    """Version of this package."""


def this_machine() -> Machine:
    """Describe the machine of this process."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        system=f'{platform.system()} {platform.release()} {platform.machine()}',
        python=platform.python_version(),
        packages={name: version for name in _PACKAGES if (version := _version(name))},
        commit=_commit(),
        depth_node=__version__,
    )


def write_result(
    path: Path,
    benchmark: str,
    protocol: str,
    conditions: dict[str, object],
    rows: Sequence[object],
    further: Mapping[str, Sequence[object]] | None = None,
) -> None:
    """Write a result file, whole or not at all.

    :param benchmark: short name of what was measured.
    :param protocol: how, in words: what a reader needs to trust or repeat it.
    :param conditions: sizes, rates, counts.
    :param rows: dataclasses, or what an earlier file held of them; one a line of the table.
    :param further: name -> other dataclasses, such as the figures that are wanted.
    """
    content = {
        'benchmark': benchmark,
        'protocol': protocol,
        'conditions': conditions,
        'machine': asdict(this_machine()),
        'rows': [_plain(row) for row in rows],
        **{name: [_plain(item) for item in items] for name, items in (further or {}).items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(_finite(content), indent=2, allow_nan=False) + '\n')


def _plain(row: object) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    return asdict(row)  # type: ignore[call-overload]


def _finite(value: object) -> object:
    """Replace numbers that JSON does not know by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows_of_this_machine(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an earlier run with this machine and these versions, else none.

    The commit may differ: a long benchmark that was interrupted goes on.
    """
    if not path.is_file():
        return []
    content = json.loads(path.read_text(encoding='utf-8'))
    here = asdict(this_machine())
    same = all(content['machine'][key] == here[key] for key in here if key != 'commit')
    return list(content['rows']) if same else []


def _processor() -> str:
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or 'unknown'


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ''


def _commit() -> str:
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ['git', 'describe', '--always', '--abbrev=12', '--dirty=+'],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ''
    return described.stdout.strip()
