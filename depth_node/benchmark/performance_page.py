"""The page of docs about speed, with its plots: written from committed result files alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depth_node.benchmark import edge_page
from depth_node.benchmark import plots
from depth_node.benchmark.markdown import table
from depth_node.benchmark.targets import ON_A_GPU
from depth_node.benchmark.targets import Target
from depth_node.benchmark.targets import target_of_frame
from depth_node.benchmark.targets import target_of_whole_frame
from depth_node.benchmark.targets import targets_of_engines
from depth_node.benchmark.targets import targets_of_node

PAGE = 'performance.md'
STAGES_PLOT = 'performance-stages.svg'
ACCURACY_PLOT = 'performance-accuracy.svg'
RESULTS = (
    *('engines-cpu', 'engines-gpu', 'rewriting', 'frame', 'frame-openvino', 'frame-cuda'),
    *('node', 'edges', 'networks'),
)
"""Names of the result files that the page knows, without their ending."""

_COMMAND = 'python -m depth_node.tools.benchmark'
_HEAD = f"""# Performance

Made by `{_COMMAND} page` from the files in `benchmarks/results`; do not edit. Everything is at
batch 1. Compare figures of one table only: each is one interleaved run on one machine.

"""
Result = Mapping[str, Any]
Results = Mapping[str, Result]


def read_results(folder: Path) -> dict[str, Result]:
    """Read the result files that are there."""
    paths = {name: folder / f'{name}.json' for name in RESULTS}
    return {
        name: json.loads(path.read_text(encoding='utf-8'))
        for name, path in paths.items()
        if path.is_file()
    }


def documents(results: Results) -> dict[str, str]:
    """Return the page and its plots, by the name of their file.

    :param results: by the names of :data:`RESULTS`; what is missing is named as not measured.
    """
    made: dict[str, str] = {}
    if 'edges' in results:
        made[edge_page.PAGE] = edge_page.page(results['edges'])
    if 'engines-cpu' in results and 'frame' in results:
        made[STAGES_PLOT] = plots.latency_bars(
            results['engines-cpu'], results['frame'], results.get('node')
        )
    points = plots.accuracy_points(results)
    if points:
        made[ACCURACY_PLOT] = plots.latency_against_accuracy(points)
    sections = [
        _headline(results),
        *(_engines(results[name], name) for name in ('engines-cpu', 'engines-gpu')
          if name in results),
        _plot(STAGES_PLOT, 'Where the time of a frame goes', _STAGES_CAPTION, made),
        _plot(ACCURACY_PLOT, 'Time and accuracy', _ACCURACY_CAPTION, made),
        *(_frame(result) for name, result in results.items() if name.startswith('frame')),
        *([_node(results['node'])] if 'node' in results else []),
        *([_rewriting(results['rewriting'])] if 'rewriting' in results else []),
        _not_measured(results),
        _protocols(results),
    ]  # fmt: skip
    text = _HEAD + '\n'.join(line for section in sections for line in section)
    return {PAGE: text.rstrip('\n') + '\n', **made}


_STAGES_CAPTION = (
    'The network from the run of engines, the stages around it from the run of frames, and what '
    'the age of a depth image has beyond its stages from the run of the node: three runs, put '
    'together.'
)
_ACCURACY_CAPTION = (
    'Times are ours, medians of OpenVINO in float32; accuracy is what the authors published and '
    'was not measured here. Shown are the checkpoints with the same protocol. Networks were timed '
    'in several runs on one machine.'
)


def figures(results: Results) -> list[Target]:
    """Return every figure that is wanted, those of missing results as not measured."""
    frame, whole, node = (results.get(name) for name in ('frame', 'frame-cuda', 'node'))
    return [
        *_of_engines(results, 'cpu'),
        target_of_frame(frame['rows'][0]['rest'] if frame else None),
        *targets_of_node(node['rows'][0] if node else None),
        *_of_engines(results, 'gpu'),
        target_of_whole_frame(whole['rows'][0]['whole'] if whole else None),
    ]


def _of_engines(results: Results, device: str) -> list[Target]:
    result = results.get(f'engines-{device}')
    if result is None:
        return targets_of_engines([], device)
    return [Target(**item) for item in result['targets']]


def _headline(results: Results) -> Iterator[str]:
    """Yield every wanted figure beside what was reached."""
    listed = figures(results)
    yield '## What was wanted and what was reached'
    yield ''
    yield from table(
        ('figure', 'wanted', 'by best times', 'by medians', ''),
        [
            (
                target.name,
                f'{"at least" if target.at_least else "at most"} {_value(target.bound, target)}',
                _value(target.best, target),
                _value(target.median, target),
                target.verdict if target.verdict == 'reached' else f'**{target.verdict}**',
            )
            for target in listed
        ],
    )
    yield ''
    for target in listed:
        if target.note:
            yield f'* {target.name}: {target.note}.'
    missed = [target.name for target in listed if 'missed' in target.verdict]
    partly = [target.name for target in listed if 'only' in target.verdict]
    yield f'* Missed: {"; ".join(missed) or "none of what was measured"}.'
    if partly:
        yield f'* Reached in part: {"; ".join(partly)}.'
    yield ''


def _value(value: float | None, target: Target) -> str:
    if value is None:
        return ''
    digits = {'times': '.2f', 'ms': '.2f', 's': '.2f'}.get(target.unit, '.0f')
    return f'{value:{digits}} {target.unit}'


def _engines(result: Result, name: str) -> Iterator[str]:
    """Yield the tables of a run of engines."""
    kind = 'GPU' if name.endswith('gpu') else 'CPU'
    rows = result['rows']
    ran = [row for row in rows if row['time'] is not None]
    yield f'## Engines on the {kind}'
    yield ''
    yield f'{_machine(result)} {_conditions(result)}'
    yield ''
    for subject in dict.fromkeys((row['model'], row['width'], row['height']) for row in ran):
        same = [row for row in ran if (row['model'], row['width'], row['height']) == subject]
        yield from _subject(same)
    yield from _peaks(result['peaks'])
    idle = [row for row in rows if row['time'] is None]
    if idle:
        yield '### What did not run'
        yield ''
        cells = [(row['model'], row['engine'], row['precision'], row['reason']) for row in idle]
        yield from table(('model', 'engine', 'arithmetic', 'reason'), cells)
        yield ''


def _subject(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the table of one model at one size."""
    first = rows[0]
    cost = ''
    if first['macs'] is not None:
        cost = f', {first["parameters"] / 1e6:.2f} M parameters, {first["macs"] / 1e9:.2f} GMAC'
    yield f'### {first["model"]} at {first["width"]}x{first["height"]}{cost}'
    yield ''
    yield from table(
        ('engine', 'arithmetic', 'min / median ms', 'p95 / p99 ms', 'of peak', 'error',
         'error, std', 'depth error p50 / max', 'import s', 'first load / load s',
         'first ms', 'peak MiB'),
        [_engine_cells(row) for row in rows],
    )  # fmt: skip
    yield ''
    for note in dict.fromkeys(row['notes'] for row in rows if row['notes']):
        yield f'{note[0].upper()}{note[1:]}.'
        yield ''


def _engine_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    time, start, depth = row['time'], row['start'], row['depth_error']
    return (
        row['engine'],
        row['precision'],
        f'{time["min_ms"]:.2f} / {time["median_ms"]:.2f}',
        f'{time["p95_ms"]:.2f} / {time["p99_ms"]:.2f}',
        '' if row['share_of_peak'] is None else f'{row["share_of_peak"]:.0%}',
        '' if row['error'] is None else f'{row["error"]:.1e}',
        '' if row['error_std'] is None else f'{row["error_std"]:.1e}',
        '' if depth is None else f'{depth["p50"]:.1e} / {depth["max"]:.1e}',
        '' if start is None else f'{start["import_s"]:.2f}',
        '' if start is None else _loads(start),
        '' if start is None else f'{start["first_ms"]:.1f}',
        '' if row['peak_mib'] is None else f'{row["peak_mib"]:.0f}',
    )


def _loads(start: Mapping[str, Any]) -> str:
    first = start['first_load_s']
    return f'{start["load_s"]:.2f}' if first is None else f'{first:.2f} / {start["load_s"]:.2f}'


def _peaks(peaks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what the processor reaches."""
    if not peaks:
        return
    yield '### What the processor reaches at most'
    yield ''
    yield from table(
        ('arithmetic', 'kind', 'GFLOP/s at best', 'at the median', ''),
        [
            (item['precision'], item['kind'], f'{item["gflops"]:.0f}',
             f'{item["gflops_median"]:.0f}', item['reason'])
            for item in peaks
        ],
    )  # fmt: skip
    yield ''


def _plot(name: str, title: str, caption: str, made: Mapping[str, str]) -> Iterator[str]:
    if name in made:
        yield f'## {title}'
        yield ''
        yield f'![{title}]({name})'
        yield ''
        yield caption
        yield ''


def _frame(result: Result) -> Iterator[str]:
    """Yield the stages of a frame."""
    stand_in = result['rows'][0]['whole'] is None
    yield f'## {"Everything but the network" if stand_in else "The whole frame"}'
    yield ''
    yield _machine(result)
    yield ''
    for row in result['rows']:
        yield (
            f'{row["image"]} {row["encoding"]}, network input {row["network_input"]}, engine '
            f'{row["engine"]}, {row["cores"]} {"core" if row["cores"] == 1 else "cores"}, '
            f'{row["rest"]["count"]} frames:'
        )
        yield ''
        spreads = {**row['stages'], '**sum without the network**': row['rest']}
        if row['whole'] is not None:
            spreads['**whole frame**'] = row['whole']
        yield from table(
            ('stage', 'min ms', 'median', 'p95', 'p99'),
            [
                (stage, *(f'{spread[key]:.3f}' for key in _SPREAD))
                for stage, spread in spreads.items()
            ],
        )
        yield ''


_SPREAD = ('min_ms', 'median_ms', 'p95_ms', 'p99_ms')


def _node(result: Result) -> Iterator[str]:
    """Yield what the whole node does at a fixed rate."""
    yield f'## The node at {result["conditions"]["rate_hz"]:g} Hz over DDS'
    yield ''
    yield _machine(result)
    yield ''
    yield from table(
        ('', *(_listener(row) for row in result['rows'])),
        _transposed([_node_cells(row) for row in result['rows']]),
    )
    yield ''


def _listener(row: Mapping[str, Any]) -> str:
    if row.get('kind', 'depth') == 'relative':
        return 'relative depth'
    return 'depth and clouds' if row['clouds'] else 'depth alone'


def _transposed(columns: Sequence[Mapping[str, str]]) -> list[tuple[str, ...]]:
    return [(name, *(column[name] for column in columns)) for name in columns[0]]


def _node_cells(row: Mapping[str, Any]) -> dict[str, str]:
    live = row.get('first_depth_live_s')
    stages = row.get('stages_ms') or {'network': row['network_ms']}
    dropped = ', '.join(f'{count} {name}' for name, count in sorted(row['drops'].items()))
    return {
        'model, engine': f'{row["model"]}, {row["engine"]} {row.get("precision", "")}'.strip(),
        'network input': row['network_input'],
        'images sent / received / answered': f'{row["played"]} / {row["received"]} / '
        f'{row["depths"]}',
        'dropped': dropped or 'none',
        'rate in / out': f'{row["input_rate_hz"]:.1f} / {row["output_rate_hz"]:.1f} Hz',
        'age of depth p50 / p95 / p99': _ages(row, 'depth'),
        'age of cloud p50 / p95 / p99': _ages(row, 'cloud'),
        'median stages, ms': ', '.join(f'{name} {spent:.2f}' for name, spent in stages.items()),
        'age of depth over the network, p50': f'{row["overhead_p50_ms"]:.1f} ms',
        'start to first depth': f'{row["first_depth_s"]:.2f} s',
        'the same, camera running already': f'{live["median_s"]:.2f} s' if live else '',
        'most memory': f'{row["peak_rss_mib"]:.0f} MiB',
        'processor': f'{row["cpu_percent"]:.0f} % of a core',
        'torch in the process': 'yes' if row['torch_loaded'] else 'no',
    }


def _ages(row: Mapping[str, Any], of: str) -> str:
    ages = [row[f'{of}_age_p{rank}_ms'] for rank in (50, 95, 99)]
    return '' if ages[0] is None else ' / '.join(f'{age:.1f}' for age in ages) + ' ms'


def _rewriting(result: Result) -> Iterator[str]:
    """Yield what the exact rewrites gain in each engine."""
    yield '## What the exact rewrites gain'
    yield ''
    yield f'{_machine(result)} Input {result["conditions"]["input"]}, float32.'
    yield ''
    yield from table(
        ('Lite-Mono', 'engine', 'graph', 'min / median ms', 'times as fast', 'error'),
        [
            (row['variant'], row['engine'], row['graph'],
             f'{row["time"]["min_ms"]:.2f} / {row["time"]["median_ms"]:.2f}',
             f'{row["speed_up_min"]:.2f}', f'{row["error"]:.1e}')
            for row in result['rows']
        ],
    )  # fmt: skip
    yield ''


def _not_measured(results: Results) -> Iterator[str]:
    """Yield what nobody has measured, and the command that would."""
    yield '## Not measured'
    yield ''
    commands = {
        'engines-cpu': ('engines on a CPU in one interleaved run', f'{_COMMAND} engines'),
        'frame': ('everything but the network, by stage', f'{_COMMAND} frame'),
        'node': ('the node over DDS', f'{_COMMAND} node'),
        'rewriting': ('the gain of the exact rewrites', f'{_COMMAND} rewriting'),
        'edges': ('points between surfaces', f'{_COMMAND} edges'),
        'networks': ('all networks', f'{_COMMAND} networks'),
        'engines-gpu': ('anything on a GPU', ON_A_GPU),
        'frame-cuda': ('image bytes to cloud bytes on a GPU', f'{_COMMAND} frame --engine cuda'),
    }
    for name, (what, command) in commands.items():
        if name not in results:
            yield f'* {what}: `{command}`'
    yield from _ALWAYS
    yield ''


_ALWAYS = (
    f'* Jetson and other Arm boards: `{_COMMAND}` there; on a Jetson also `{ON_A_GPU}`',
    '* weights of the authors, whose bf16 error is not that of random ones: '
    '`python -m depth_node.tools.models import lite-mono FOLDER -o models/lite-mono`, then '
    f'`{_COMMAND} engines ./models/lite-mono`',
    '* int8: `python -m depth_node.tools.models quantize MODEL RECORDING`, then '
    f'`{_COMMAND} engines MODEL --engines openvino --precisions f32 int8`',
    '* whether TensorRT-RTX runs: `pip install tensorrt-rtx`, then '
    f'`{ON_A_GPU} --engines tensorrt`',
    '* two machines with a network between them, other DDS implementations, C++ listeners',
)


def _protocols(results: Results) -> Iterator[str]:
    yield '## How this was measured'
    yield ''
    for name, result in results.items():
        if name in ('edges', 'networks'):
            continue
        machine = result['machine']
        versions = ', '.join(f'{key} {value}' for key, value in machine['packages'].items())
        yield (
            f'**{name}**: {result["protocol"]} {machine["system"]}, Python {machine["python"]}, '
            f'{versions}; commit {machine["commit"]}.'
        )
        yield ''


def _machine(result: Result) -> str:
    machine = result['machine']
    return f'{machine["processor"]}, {machine["cores"]} cores.'


def _conditions(result: Result) -> str:
    given = result['conditions']
    threads = given['threads'] or 'all'
    return f'{given["rounds"]} turns of {given["calls"]} images each, threads: {threads}.' + (
        ' Ended early by Ctrl-C.' if given['interrupted'] else ''
    )
