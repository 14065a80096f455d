"""The figures that this project wants to reach, each beside what a run has given.

A figure that was not reached stays in the list as missed, one that nothing was measured for as not
measured, with the command that would.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from depth_node.benchmark.engines import EngineRow

SIZE = (640, 192)
"""(width, height) of the network's input for which ratios are wanted."""
Pair = tuple[float | None, float | None]
ON_A_GPU = 'python -m depth_node.tools.benchmark engines --device gpu'
_MB_PER_MIB = 1.048576
_BASE, _OTHER = 'lite-mono:base', 'monodepth2:resnet18'


@dataclass(frozen=True)
class Target:
    """One wanted figure and what was reached."""

    name: str
    """What is compared, in words."""
    bound: float
    """The wanted figure."""
    at_least: bool
    """Whether more is better."""
    unit: str
    """'times', '%', 'ms', 's', 'MB' or 'libraries'."""
    best: float | None
    """From the smallest times; None where the figure has none."""
    median: float | None
    """From medians, or the figure itself; None where nothing was measured."""
    note: str = ''
    """What has to be said beside it."""

    @property
    def verdict(self) -> str:
        """Return 'reached', 'missed', or which of the two reached it; 'not measured' of none."""
        better = operator.ge if self.at_least else operator.le
        found = {
            name: better(value, self.bound)
            for name, value in (('best times', self.best), ('medians', self.median))
            if value is not None
        }
        if not found:
            return 'not measured'
        if all(found.values()):
            return 'reached'
        reached = [name for name, good in found.items() if good]
        return f'reached by {reached[0]} only' if reached else 'missed'

    @property
    def sentence(self) -> str:
        """Return one line for a terminal."""
        values = ', '.join(
            f'{value:.2f} by {name}'
            for name, value in (('best times', self.best), ('medians', self.median))
            if value is not None
        )
        wanted = f'{"at least" if self.at_least else "at most"} {self.bound:g} {self.unit}'
        found = f': {values}' if values else ''
        return f'{self.verdict}: {self.name}, {wanted}{found}'


def targets_of_engines(rows: Sequence[EngineRow], device: str) -> list[Target]:
    """Return the figures of a run of engines.

    :param device: 'cpu' or 'gpu'.
    """
    return _on_gpu(rows) if device == 'gpu' else _on_cpu(rows)


def target_of_frame(rest: Mapping[str, float] | None) -> Target:
    """Return the figure of everything but the network.

    :param rest: a spread, milliseconds, as a mapping; None: not measured.
    """
    return Target(
        'everything but the network at 640x480 with a coloured cloud, one core',
        *(1.0, False, 'ms', *_best_and_median(rest)),
    )


def target_of_whole_frame(whole: Mapping[str, float] | None) -> Target:
    """Return the figure of a whole frame on a GPU; see :func:`target_of_frame`."""
    return Target(
        'GPU: image bytes in to cloud bytes out at 640x480',
        *(2.0, False, 'ms', *_best_and_median(whole)),
    )


def targets_of_node(row: Mapping[str, Any] | None) -> list[Target]:
    """Return the figures of a run of the node with clouds.

    :param row: of a result file; fields that older files lack count as not measured, and so does
        everything without a row.
    """
    known = row or {}
    start = known.get('first_depth_live_s')
    memory, torch = known.get('peak_rss_mib'), known.get('torch_loaded')
    note = ''
    if row is not None:
        note = f'with a camera that starts at the same time {row["first_depth_s"]:.2f} s'
    return [
        Target('depth at 30 Hz over DDS, p50 of its age less the network',
               2.5, False, 'ms', None, _over_network(known, 'depth_age_p50_ms')),
        Target('cloud at 30 Hz over DDS, p50 of its age less the network',
               6.0, False, 'ms', None, _over_network(known, 'cloud_age_p50_ms')),
        Target('start of the node to its first depth, the camera running already',
               1.0, False, 's', start and start['min_s'], start and start['median_s'], note),
        Target('most memory of the node, clouds included',
               250.0, False, 'MB', None, memory and memory * _MB_PER_MIB),
        Target('torch in the process of the node',
               0.0, False, 'libraries', None, None if torch is None else float(torch)),
    ]  # fmt: skip


def _over_network(row: Mapping[str, Any], age: str) -> float | None:
    value = row.get(age)
    return None if value is None else float(value) - float(row['network_ms'])


def _best_and_median(spread: Mapping[str, float] | None) -> Pair:
    return (None, None) if spread is None else (spread['min_ms'], spread['median_ms'])


def _on_cpu(rows: Sequence[EngineRow]) -> list[Target]:
    base, eager = _find(rows, _BASE, 'openvino', 'f32'), _find(rows, _BASE, 'eager', 'f32')
    bf16 = _find(rows, _BASE, 'openvino', 'bf16')
    share: Pair = (None, None)
    if base is not None and base.share_of_peak is not None:
        share = (100 * base.share_of_peak, 100 * (base.share_of_peak_median or 0.0))
    return [
        Target('Lite-Mono base, openvino f32, against its unrewritten network in PyTorch eager',
               2.9, True, 'times', *_ratios(eager, base)),
        Target('Lite-Mono base against our Monodepth2 ResNet-18, both openvino f32',
               1.35, True, 'times', *_ratios(_find(rows, _OTHER, 'openvino', 'f32'), base)),
        Target("Lite-Mono base, openvino f32, share of the processor's measured f32 peak",
               80.0, True, '%', *share),
        Target('Lite-Mono base, openvino bf16, against PyTorch eager in float32',
               4.9, True, 'times', *_ratios(eager, bf16), _depth_error(bf16, rows)),
    ]  # fmt: skip


def _on_gpu(rows: Sequence[EngineRow]) -> list[Target]:
    """Return the figures of a GPU; without rows, what is to be measured."""
    base = _fastest(rows, _BASE)
    eager = _find(rows, _BASE, 'eager-cuda', 'f32')
    time: Pair = (None, None)
    if base is not None and base.time is not None:
        time = (base.time.min_ms, base.time.median_ms)
    return [
        Target('GPU: Lite-Mono base in float16 against its unrewritten network in PyTorch eager',
               8.0, True, 'times', *_ratios(eager, base)),
        Target('GPU (H200 class): time of Lite-Mono base in float16',
               0.4, False, 'ms', *time),
        Target('GPU: Lite-Mono base against Monodepth2 ResNet-18 in PyTorch eager',
               1.0, True, 'times', *_ratios(_find(rows, _OTHER, 'eager-cuda', 'f32'), base)),
        Target('GPU: Lite-Mono base at batch 1 against its unrewritten network at batch 16, '
               'per image',
               1.0, True, 'times',
               *_ratios(_find(rows, _BASE, 'eager-cuda-batch16', 'f32'), base)),
    ]  # fmt: skip


def _find(rows: Sequence[EngineRow], model: str, engine: str, precision: str) -> EngineRow | None:
    """Return the row of a contestant at the size for which ratios are wanted."""
    for row in rows:
        if (row.model, row.engine, row.precision) == (model, engine, precision) and (
            (row.width, row.height) == SIZE and row.time is not None
        ):
            return row
    return None


def _fastest(rows: Sequence[EngineRow], model: str) -> EngineRow | None:
    """Return the faster of the GPU engines in float16."""
    found = [row for engine in ('cuda', 'tensorrt') if (row := _find(rows, model, engine, 'f16'))]
    return min(found, key=lambda row: row.time.min_ms if row.time else 0.0, default=None)


def _ratios(slower: EngineRow | None, faster: EngineRow | None) -> Pair:
    """Return how many times as fast, by the smallest times and by medians."""
    if slower is None or faster is None or slower.time is None or faster.time is None:
        return None, None
    return (
        slower.time.min_ms / faster.time.min_ms,
        slower.time.median_ms / faster.time.median_ms,
    )


def _depth_error(bf16: EngineRow | None, rows: Sequence[EngineRow]) -> str:
    """Say what bf16 costs in depth, with random weights and with those of trained models."""
    found = [bf16] if bf16 is not None else []
    found += [row for row in rows if row.precision == 'bf16' and not row.random_weights]
    said = [
        f'{row.model} ({"random" if row.random_weights else "trained"} weights) '
        f'{row.depth_error.p50:.2%} at the median pixel, {row.depth_error.max:.2%} at most'
        for row in found
        if row.depth_error is not None
    ]
    return f'depth error of bf16: {"; ".join(said)}' if said else ''
