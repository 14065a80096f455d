"""The page of docs about points between surfaces, written from a result file alone."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from depth_node.benchmark.edges import OWN
from depth_node.benchmark.edges import PREDICTED
from depth_node.benchmark.edges import SEEN
from depth_node.benchmark.markdown import table

PAGE = 'flying-points.md'
PICTURE = 'images/flying-points.png'
LEAST_REMOVED, MOST_LOST, MOST_MS = 0.80, 0.05, 0.3
"""What is wanted: shares of flying points removed and of others lost, milliseconds."""

_TIMES = ('min_ms', 'median_ms', 'p95_ms', 'p99_ms')
_HEAD = f"""# Points between surfaces

Made by `python -m depth_node.tools.benchmark edges` and `page`; do not edit.

Enlarging depth to the image draws points between a foreground and its background that lie on
neither. `depth.edge_step` forgets the pixels of the network on the far side of such edges.

![the cloud of a generated room seen from above, without and with the mask]({PICTURE})

True depth at the size of the network, enlarged without and with the mask, seen from above; points
that fly are red. Over all rows of true depth, those of the next table:

"""
_ABOUT_PREDICTIONS = """## What the bundled model draws

Beside the truth (first rows) most points "fly" because the depth itself is wrong; a mask cannot
mend that. The rows with its own surfaces say what the mask does to the ramps that this network
draws at true edges; what stays are those that are blurred over more pixels than the mask looks at.
"""


def page(result: Mapping[str, Any]) -> str:
    """Return the page as Markdown.

    :param result: what ``benchmarks/results/edges.json`` holds.
    """
    default = result['conditions']['edge_step']
    exact = [row for row in result['rows'] if row['seen'] in SEEN]
    predicted = [row for row in result['rows'] if row['seen'] in (PREDICTED, OWN)]
    lines = [
        *_verdict(result, exact, default),
        '## What enlarging alone invents',
        '',
        f'With `depth.edge_step` {default:g}, the default:',
        '',
        *_at(exact, default),
        '',
        _ABOUT_PREDICTIONS,
        *_at(predicted, default),
        '',
        '## Other values',
        '',
        'Flying points removed / other points lost, percent.',
        '',
        *_sweep(result['rows']),
        '',
        *_costs(result),
        '## How this was measured',
        '',
        _where(result),
    ]
    return _HEAD + '\n'.join(lines).rstrip('\n') + '\n'


def _verdict(
    result: Mapping[str, Any], exact: list[Mapping[str, Any]], default: float
) -> Iterator[str]:
    """Yield whether the wanted figures are reached, at worst over all rows of true depth."""
    figures = [_figures(row, default) for row in exact]
    removed = min(item['removed_share'] for item in figures if item['removed_share'] is not None)
    lost = max(item['lost_share'] for item in figures)
    slowest = max(cost['time']['median_ms'] for cost in result['costs'])
    yield from table(
        ('figure', 'wanted', 'worst row', ''),
        [
            ('flying points removed', f'at least {100 * LEAST_REMOVED:.0f} %',
             f'{100 * removed:.1f} %', _said(removed >= LEAST_REMOVED)),
            ('other points lost', f'at most {100 * MOST_LOST:.0f} %',
             f'{100 * lost:.1f} %', _said(lost <= MOST_LOST)),
            ('time, median', f'under {MOST_MS:g} ms', f'{slowest:.2f} ms',
             _said(slowest < MOST_MS)),
        ],
    )  # fmt: skip
    yield ''


def _said(reached: bool) -> str:
    return 'reached' if reached else '**missed**'


def _figures(row: Mapping[str, Any], step: float) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(item for item in row['steps'] if item['step'] == step)
    return found


def _percent(share: float | None) -> str:
    return '-' if share is None else f'{100 * share:.2f} %'


def _at(rows: list[Mapping[str, Any]], step: float) -> Iterator[str]:
    yield from table(
        ('scene', 'image, network', 'depth', 'fly before', 'fly after', 'removed', 'others lost'),
        [
            (
                row['scene'],
                f'{row["image"]}, {row["network_input"]}',
                row['seen'],
                *(_percent(share) for share in (
                    row['flying_before'], figures['flying_after'], figures['removed_share'],
                    figures['lost_share'],
                )),
            )
            for row in rows
            for figures in [_figures(row, step)]
        ],
    )  # fmt: skip


def _sweep(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    steps = [item['step'] for item in rows[0]['steps']]
    yield from table(
        ('scene, network', 'depth', *(f'{step:g}' for step in steps)),
        [
            (f'{row["scene"]}, {row["network_input"]}', row['seen'],
             *(_pair(item) for item in row['steps']))
            for row in rows
            if row['seen'] != PREDICTED
        ],
    )  # fmt: skip


def _pair(item: Mapping[str, Any]) -> str:
    removed = item['removed_share']
    shown = '-' if removed is None else f'{100 * removed:.0f}'
    return f'{shown} / {100 * item["lost_share"]:.1f}'


def _costs(result: Mapping[str, Any]) -> Iterator[str]:
    yield '## What it costs'
    yield ''
    yield from table(
        ('network', 'min ms', 'median', 'p95', 'p99'),
        [
            (
                cost['network_input'],
                *(
                    f'{cost["time"][key]:.3f}'
                    for key in ('min_ms', 'median_ms', 'p95_ms', 'p99_ms')
                ),
            )
            for cost in result['costs']
        ],
    )
    yield ''


def _where(result: Mapping[str, Any]) -> str:
    machine = result['machine']
    names = result['conditions']['recordings']
    recordings = ', '.join(names) or 'none were there'
    return (
        f'{result["protocol"]} Recordings: {recordings}; they are not part of this project. '
        f'{machine["processor"]}, {machine["cores"]} cores; commit {machine["commit"]}.'
    )
