"""Judgements side by side, as rows of text: what the command prints and the report shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from depth_node.judging.bootstrap import DEFAULTS
from depth_node.judging.bootstrap import BlockSettings
from depth_node.judging.bootstrap import interval_of
from depth_node.judging.crops import RANGES_M
from depth_node.judging.crops import range_name
from depth_node.judging.judgement import Constants
from depth_node.judging.judgement import Judgement

_METRICS = (
    ('abs_rel', 'Abs Rel'),
    ('sq_rel', 'Sq Rel, m'),
    ('rmse_m', 'RMSE, m'),
    ('rmse_log', 'RMSE log'),
    ('silog', 'SILog'),
    ('a1', 'within 25 % (a1)'),
    ('a2', 'within 56 % (a2)'),
    ('a3', 'within 95 % (a3)'),
)
_GROUPS = (
    ('metric', 'in metres, as published'),
    ('global', 'one scale per recording'),
    ('median', 'each image median-scaled'),
    ('aligned', 'scale and shift fitted per image (not metric)'),
)
_PROXIES = (
    ('proxy.tracks_abs_rel', 'Abs Rel at tracks'),
    ('proxy.tracks_scaled_abs_rel', 'Abs Rel at tracks, scaled'),
    ('tracks.scale', 'scale at tracks'),
    ('proxy.photometric', 'photometric error'),
    ('still.photometric', '... of standing still'),
    ('proxy.consistency', 'inconsistency over time'),
    ('proxy.ground_height', 'error of camera height'),
    ('proxy.coverage', 'pixels with depth'),
)
_PERCENT = ('a1', 'a2', 'a3', 'coverage')


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    """Of the measure, as in the series; empty for a heading."""
    label: str
    """What it is called."""
    cells: tuple[str, ...]
    """One per model; empty for a heading."""


def rows_of(
    judgements: Sequence[Judgement],
    *,
    intervals: bool = True,
    settings: BlockSettings = DEFAULTS,
) -> list[Row]:
    """Return the table of several models; measures that none of them has are left out.

    :param intervals: whether 95 % intervals are shown with Abs Rel and the proxies.
    """
    rows = [Row('frames', 'images compared', tuple(str(_frames(item)) for item in judgements))]
    for prefix, heading in _GROUPS:
        measures = [(f'{prefix}.{name}', label) for name, label in _METRICS]
        rows += _group(heading, measures, judgements, intervals, settings)
    ranges = [(range_name(limits), f'{limits[0]:g} to {limits[1]:g} m') for limits in RANGES_M]
    rows += _group('Abs Rel in metres, by true depth', ranges, judgements, False, settings)
    scale = (('scale', 'reference / depth, median'), ('metric.coverage', 'pixels with depth'))
    rows += _group('scale and coverage', scale, judgements, False, settings)
    rows += _group('without reference', _PROXIES, judgements, intervals, settings)
    return rows


def constant_rows(constants: Mapping[str, Constants]) -> list[tuple[str, str]]:
    """Say what guesses that look at no pixel reach, as label and text per recording."""
    rows = []
    for recording, found in constants.items():
        rows += [
            (
                f'{recording}: best constant, {found.depth_m:.2f} m',
                f'Abs Rel {found.abs_rel:.3f}, a1 {found.a1:.1%}',
            ),
            (
                f"{recording}: each image's true median",
                f'Abs Rel {found.median_abs_rel:.3f}',
            ),
            (
                f'{recording}: best depth per row',
                f'Abs Rel {found.rows_abs_rel:.3f}, a1 {found.rows_a1:.1%}',
            ),
        ]
    return rows


def text_table(
    judgements: Sequence[Judgement],
    settings: BlockSettings = DEFAULTS,
    further: Sequence[Row] = (),
) -> str:
    """Return the table as lines of text, the constants and what is to be known below.

    :param further: rows below those of all recordings together.
    """
    rows = [
        Row('', '', tuple(item.name for item in judgements)),
        *rows_of(judgements, settings=settings),
        *further,
    ]
    labels = [row.label if not row.name else f'  {row.label}' for row in rows]
    width = max(len(label) for label in labels)
    columns = [
        max(len(row.cells[at]) for row in rows if row.cells) for at in range(len(judgements))
    ]
    lines = [
        '  '.join(
            [
                f'{label:<{width}}',
                *(f'{cell:<{size}}' for cell, size in zip(row.cells, columns, strict=False)),
            ]
        ).rstrip()
        for row, label in zip(rows, labels, strict=True)
    ]
    constants = {name: item for judged in judgements for name, item in judged.constants.items()}
    known = constant_rows(constants)
    if known:
        lines += ['', 'guesses that look at no pixel, but know the truth:']
        wide = max(len(label) for label, _ in known)
        lines += [f'  {label:<{wide}}  {text}' for label, text in known]
    lines += ['', *remarks(judgements, settings)]
    return '\n'.join(lines)


def remarks(judgements: Sequence[Judgement], settings: BlockSettings = DEFAULTS) -> list[str]:
    """Say what the reader of the figures should know, each sentence once."""
    said: dict[str, None] = {}
    for item in judgements:
        alone = len(judgements) == 1
        relative = f'{item.name}: ' if item.relative and not alone else ''
        for note in item.notes:
            said[f'{relative}{note}'] = None
        for name in ('metric.abs_rel', 'aligned.abs_rel', 'proxy.tracks_abs_rel'):
            if name in item.series:
                remark = interval_of(item.series[name], settings).remark
                if remark:
                    said[f'Intervals in brackets are too narrow: {remark}.'] = None
                break
    return list(said)


def shown(name: str, value: float) -> str:
    """Return the text of a number of a measure; '-' for NaN."""
    if not math.isfinite(value):
        return '-'
    if name.rpartition('.')[2] in _PERCENT:
        return f'{value:.1%}'
    return f'{value:.2f}' if name.endswith('silog') else f'{value:.3f}'


def _group(
    heading: str,
    measures: Sequence[tuple[str, str]],
    judgements: Sequence[Judgement],
    intervals: bool,
    settings: BlockSettings,
) -> list[Row]:
    """Return a heading and its rows; nothing where no model has any of them."""
    rows = []
    for name, label in measures:
        if any(item.series[name].count for item in judgements if name in item.series):
            wide = intervals and (name.endswith('abs_rel') or name.startswith('proxy.'))
            cells = tuple(_cell(item, name, wide, settings) for item in judgements)
            rows.append(Row(name, label, cells))
    return [Row('', heading, ()), *rows] if rows else []


def _cell(item: Judgement, name: str, interval: bool, settings: BlockSettings) -> str:
    series = item.series.get(name)
    if series is None or not series.count:
        return '-'
    if name in ('scale', 'tracks.scale'):
        return shown(name, series.median)
    text = shown(name, series.mean)
    if not interval:
        return text
    found = interval_of(series, settings)
    if not math.isfinite(found.low):
        return text
    return f'{text} [{shown(name, found.low)}, {shown(name, found.high)}]'


def _frames(item: Judgement) -> int:
    names = ('metric.abs_rel', 'aligned.abs_rel', 'proxy.coverage')
    return max((item.series[name].count for name in names if name in item.series), default=0)
