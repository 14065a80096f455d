"""The page of docs that compares the networks, written from a result file and the registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depth_node.benchmark.networks import configurations
from depth_node.networks import registry

_HEAD = """# The networks

Made by `python -m depth_node.tools.benchmark networks`; do not edit. Every network was written
anew from published facts and gives the numbers of its authors' code (`make conformance`).

"""


def page(result: Mapping[str, Any]) -> str:
    """Return the page as Markdown.

    :param result: what ``benchmarks/results/networks.json`` holds.
    """
    machine = result['machine']
    rows = result['rows']
    lines = [
        '## Size, cost and time at batch 1',
        '',
        f'{machine["processor"]}, {machine["cores"]} cores, no GPU; milliseconds are the minimum '
        'and the median of one interleaved run, float32.',
        '',
        '| network | input | parameters | MACs | openvino | onnxruntime | torch |',
        '|---|---|---|---|---|---|---|',
        *(_cost(row) for row in rows),
        '',
        *_missing(rows),
        '## Do the engines agree?',
        '',
        'Largest difference from the trained network in PyTorch, in standard deviations of its '
        'output; at most 1e-3 is accepted.',
        '',
        '| network | openvino | onnxruntime | torch |',
        '|---|---|---|---|',
        *(_agreement(row) for row in rows),
        '',
        *_licences(),
        '## Published accuracy',
        '',
        "The authors' own figures, for comparison; nothing here was measured by depth_node.",
        '',
        *_accuracy(),
        '## How this was measured',
        '',
        str(result['protocol']),
        '',
        ', '.join(f'{name} {version}' for name, version in machine['packages'].items())
        + f'; commit {machine["commit"]}.',
    ]
    return _HEAD + '\n'.join(lines) + '\n'


def written_page(result: Path) -> str:
    """Return the page of a result file."""
    return page(json.loads(result.read_text(encoding='utf-8')))


def _cost(row: Mapping[str, Any]) -> str:
    cells = [_name(row), f'{row["width"]}x{row["height"]}', _millions(row['parameters'])]
    cells.append(f'{_short(row["macs"] / 1e9)} G')
    cells += [_time(engine) for engine in row['engines']] or ['-'] * 3
    return f'| {" | ".join(cells)} |'


def _missing(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Name the configurations that were not measured."""
    measured = {name for row in rows for name in row['releases']}
    missing = [
        f'{name} {releases[0].identity.variant} at {releases[0].width}x{releases[0].height}'
        for name, releases in configurations(lambda _: True)
        if releases[0].name not in measured
    ]
    if missing:
        yield f'Not measured: {", ".join(missing)}.'
        yield ''


def _name(row: Mapping[str, Any]) -> str:
    return f'{row["network"]} {row["variant"]}'


def _millions(count: int) -> str:
    return f'{_short(count / 1e6)} M'


def _short(value: float) -> str:
    """Write three digits, or all of a larger number."""
    return f'{value:.3g}' if value < 1000 else f'{value:.0f}'


def _time(engine: Mapping[str, Any]) -> str:
    time = engine['time']
    return '-' if time is None else f'{_short(time["min_ms"])} / {_short(time["median_ms"])}'


def _agreement(row: Mapping[str, Any]) -> str:
    if row['failure']:
        return f'| {_name(row)} | {row["failure"]} | | |'
    cells = [
        engine['reason'] if engine['error'] is None else f'{engine["error"]:.0e}'
        for engine in row['engines']
    ]
    return f'| {_name(row)}, {row["width"]}x{row["height"]} | {" | ".join(cells)} |'


def _licences() -> Iterator[str]:
    yield '## Licences'
    yield ''
    yield "Our code is Apache-2.0. The weights are their authors', and so are their terms."
    yield ''
    yield "| network | paper | authors' code | weights |"
    yield '|---|---|---|---|'
    for name in registry.names():
        spec = registry.spec(name)
        yield f'| {name} | {spec.paper} | {spec.code_license} | {spec.weights_license} |'
    yield ''


def _accuracy() -> Iterator[str]:
    for name in registry.names():
        releases = [known for known in registry.spec(name).releases if known.figures]
        if not releases:
            continue
        columns = list(dict.fromkeys(key for known in releases for key in known.figures))
        yield f'### {name}'
        yield ''
        yield f'| checkpoint | {" | ".join(columns)} | protocol |'
        yield '|---' * (len(columns) + 2) + '|'
        for known in releases:
            figures = (known.figures.get(column) for column in columns)
            cells = ('' if value is None else f'{value:.3f}' for value in figures)
            yield f'| {known.name} | {" | ".join(cells)} | {known.protocol} |'
        yield ''
