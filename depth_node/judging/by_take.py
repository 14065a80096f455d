"""What was measured, apart for every recording and camera: pooled figures can hide one of them."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace

from depth_node.judging.bootstrap import DEFAULTS
from depth_node.judging.bootstrap import BlockSettings
from depth_node.judging.comparison import Comparison
from depth_node.judging.comparison import compare
from depth_node.judging.judgement import Judgement
from depth_node.judging.judgement import Series
from depth_node.judging.proxies import TRACKS
from depth_node.judging.table import Row
from depth_node.judging.table import shown

MEASURES = (
    ('metric.abs_rel', 'Abs Rel in metres'),
    ('median.abs_rel', 'Abs Rel, median-scaled'),
    ('aligned.abs_rel', 'Abs Rel, aligned'),
    (TRACKS, 'Abs Rel at tracks'),
)
"""What is shown of every take, with its label."""


def takes_in(judgements: Sequence[Judgement]) -> list[str]:
    """Return the names of all takes of which something was measured, in order."""
    return list(
        dict.fromkeys(
            name
            for item in judgements
            for series in item.series.values()
            for name in series.recordings
        )
    )


def part_of(judgement: Judgement, take: str) -> Judgement:
    """Return what was measured of a model on one take alone."""
    series = {name: _part(series, take) for name, series in judgement.series.items()}
    return replace(
        judgement,
        series={name: part for name, part in series.items() if part.stamps_ns.size},
        constants={name: c for name, c in judgement.constants.items() if name == take},
    )


def compared_by_take(
    before: Judgement, after: Judgement, settings: BlockSettings = DEFAULTS
) -> dict[str, Comparison]:
    """Compare two models on every take alone; nothing where there is one take."""
    takes = takes_in((before, after))
    if len(takes) < 2:
        return {}
    return {take: compare(part_of(before, take), part_of(after, take), settings) for take in takes}


def worsened(parts: Mapping[str, Comparison], primary: str) -> list[str]:
    """Say on which takes a model that may be better in all is worse, more than by chance."""
    return [
        f'On {take} alone the new model is worse: {shown(primary, change.before)} before, '
        f'{shown(primary, change.after)} after.'
        for take, comparison in parts.items()
        if (change := comparison.changes.get(primary)) is not None and change.worse
    ]


def rows_by_take(judgements: Sequence[Judgement]) -> list[Row]:
    """Return a table of several models on every take alone; nothing where there is one take."""
    takes = takes_in(judgements)
    rows: list[Row] = []
    for take in takes if len(takes) > 1 else ():
        parts = [part_of(item, take) for item in judgements]
        found = [
            Row(name, label, tuple(shown(name, part.mean(name)) for part in parts))
            for name, label in MEASURES
            if any(part.series[name].count for part in parts if name in part.series)
        ]
        rows += [Row('', take, ()), *found]
    return rows


def _part(series: Series, take: str) -> Series:
    if take not in series.recordings:
        return replace(
            series,
            recordings=(),
            recording=series.recording[:0],
            stamps_ns=series.stamps_ns[:0],
            values=series.values[:0],
        )
    chosen = series.recording == series.recordings.index(take)
    return Series(
        (take,),
        series.recording[chosen] * 0,
        series.stamps_ns[chosen],
        series.values[chosen],
    )
