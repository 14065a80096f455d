"""docs/bundled-model.md: what the bundled model is worth, written from its result file alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from depth_node.benchmark.markdown import table
from depth_node.benchmark.power_law import fitted
from depth_node.benchmark.training_record import curves_of
from depth_node.svg import lines

PAGE, PICTURE, CURVE = 'bundled-model.md', 'bundled-model.jpg', 'bundled-model-curve.svg'
BEGIN, END = '<!-- written by hand: begin -->', '<!-- written by hand: end -->'
README_BEGIN, README_END = '<!-- bundled model: begin -->', '<!-- bundled model: end -->'
_COMMAND = 'python -m depth_node.tools.benchmark bundled'
_BY_HAND = '## What was tried\n\nNothing is noted yet.'
_FACTORS = (2, 4, 10)
Result = Mapping[str, Any]


def documents(result: Result, page: str = '') -> dict[str, str]:
    """Return the page and its plot, by the name of their file.

    :param result: what ``benchmarks/results/bundled.json`` holds.
    :param page: the page as it is; what was written by hand between its marks stays.
    """
    record = result['training'][0] if result['training'] else None
    curve = _curve(record) if record else ''
    sections = [
        ['# The bundled model', '', f'Made by `{_COMMAND}`; do not edit outside the marks.', ''],
        [' '.join(verdict(result)), ''],
        _about(result),
        _asked(result),
        _figures(result),
        _before(result),
        _pictures(result),
        [BEGIN, *_by_hand(page), END, ''],
        _training(record),
        _promises(record),
        _protocol(result),
    ]
    text = '\n'.join(line for section in sections for line in section)
    made = {PAGE: text.rstrip('\n') + '\n'}
    return {**made, CURVE: curve} if curve else made


def verdict(result: Result) -> list[str]:
    """Return the sentences that card and page begin with: what is missed comes first."""
    return [
        *summary(result),
        *(
            f'{row["data"]}: Abs Rel {_number(row["metric"]["abs_rel"])}, median-scaled '
            f'{_number(row["scaled"]["abs_rel"])} (that constant: '
            f'{_number(row["constants"]["median_abs_rel"])}).'
            for row in result['rows']
        ),
    ]


def summary(result: Result) -> list[str]:
    """Return how many figures are missed, and where a constant would have done better."""
    figures = result['figures']
    missed = [figure for figure in figures if not figure['kept']]
    said = [f'**{len(missed)} of {len(figures)} figures that are asked of it are missed.**']
    if not missed:
        said = [f'All {len(figures)} figures that are asked of it are reached.']
    lost = [
        row for row in result['rows']
        if not _less(row['scaled']['abs_rel'], row['constants']['median_abs_rel'])
    ]  # fmt: skip
    if lost:
        names = ', '.join(row['data'] for row in lost)
        said.append(f"It is worse than a constant, each image's own median depth, on {names}.")
    return said


def in_readme(result: Result, readme: str) -> str:
    """Return a README with the verdict between its marks; unchanged where it has no marks."""
    head, found, rest = readme.partition(README_BEGIN)
    _, ended, tail = rest.partition(README_END)
    if not (found and ended):
        return readme
    rows = [
        (
            row['data'],
            _number(row['metric']['abs_rel']),
            _number(row['constants']['abs_rel']),
            _number(row['scaled']['abs_rel']),
            _number(row['constants']['median_abs_rel']),
        )
        for row in result['rows']
    ]
    columns = ('model, metres', 'best constant', 'model, median-scaled', "image's own median")
    lines = [README_BEGIN, ' '.join(summary(result)), '']
    lines += [*table(('Abs Rel on', *columns), rows), README_END]
    return head + '\n'.join(lines) + tail


def _about(result: Result) -> Iterator[str]:
    model = result['model'][0]
    yield from table(
        ('', ''),
        [
            ('model', str(model['name'])),
            (
                'network',
                f'{model["network"]} {model["variant"]}, inputs {_joined(model["inputs"])}',
            ),
            ('trained on', str(model['training_data'])),
            ('made by', str(model['source'])),
            ('licence of the weights', str(model['license'])),
            ('size of the folder', f'{model["size_mb"]:.1f} MB'),
        ],
    )
    yield ''


def _asked(result: Result) -> Iterator[str]:
    yield from ('## What is asked of it', '')
    rows = [
        (
            figure['what'],
            figure['asked'],
            'not measured' if figure['reached'] is None else _number(figure['reached']),
            'kept' if figure['kept'] else '**missed**',
        )
        for figure in sorted(result['figures'], key=lambda figure: bool(figure['kept']))
    ]
    yield from table(('figure', 'asked', 'reached', ''), rows)
    yield ''


def _figures(result: Result) -> Iterator[str]:
    yield from ('## Figures', '', 'None of these images was trained on.', '')
    errors = {
        'abs_rel': 'Abs Rel', 'sq_rel': 'Sq Rel', 'rmse_m': 'RMSE m', 'rmse_log': 'RMSE log',
        'a1': 'a1', 'a2': 'a2', 'a3': 'a3',
    }  # fmt: skip
    rows = [
        (row['data'], row['kind'], str(row['frames']), name,
         *(_number(row[treatment][key]) for key in errors))
        for row in result['rows']
        for name, treatment in (('as published', 'metric'), ('median-scaled', 'scaled'))
    ]  # fmt: skip
    yield from table(('data', 'kind', 'images', 'depth', *errors.values()), rows)
    yield from ('', 'Beside guesses that look at no pixel but know the truth (Abs Rel):', '')
    yield from _guesses(result)
    yield ''
    for item in result['speed']:
        yield (
            f'{item["image"]} {item["encoding"]}, {item["engine"]} {item["precision"]}, '
            f'{item["threads"]} threads: {item["median_ms"]:.1f} ms a frame (95 %: '
            f'{item["p95_ms"]:.1f} ms), {item["hz"]:.1f} Hz.'
        )
        yield ''


def _guesses(result: Result) -> Iterator[str]:
    guesses = {
        'abs_rel': 'best constant',
        'median_abs_rel': "image's own median",
        'rows_abs_rel': 'best rows',
        'rows_scaled_abs_rel': 'best rows of the median',
    }
    rows = [
        (
            row['data'],
            f'{_number(row["scaled"]["abs_rel"])} [{_ends(row["interval"])}]',
            *(_number(row['constants'][name]) for name in guesses),
            _number(row['scale']),
            _percent(row['flicker']['typical']),
            _percent(row['flicker']['p95']),
        )
        for row in result['rows']
    ]
    head = ('data', 'model, median-scaled [95 %]', *guesses.values())
    yield from table((*head, 'truth / model', 'flicker', 'flicker p95'), rows)


def _before(result: Result) -> Iterator[str]:
    rows = [
        (row['data'], item['measure'], _number(item['before']), _number(item['after']),
         f'[{_ends((item["low"], item["high"]))}]')
        for row in result['rows'] for item in row['before']
    ]  # fmt: skip
    if rows:
        name = result['conditions']['before']
        yield from ('## Before and after', '', f'Against {name}, on the same images.', '')
        yield from table(('data', 'measure', 'before', 'after', 'difference, 95 %'), rows)
        yield ''


def _pictures(result: Result) -> Iterator[str]:
    if result['conditions']['picture']:
        yield from ('## Where it fails', '')
        yield (
            'The median and the worst image of each data set by median-scaled Abs Rel: image, '
            'truth, this model and, where one was given, the one it replaces; depth after median '
            'scaling, near is blue, colours span the truth.'
        )
        yield from ('', f'![Median and worst images]({PICTURE})', '')


def _by_hand(page: str) -> list[str]:
    """Return what stands between the marks of a page."""
    _, found, rest = page.partition(BEGIN)
    text, ended, _ = rest.partition(END)
    return (text.strip() if found and ended else _BY_HAND).splitlines()


def _training(record: Result | None) -> Iterator[str]:
    yield from ('## The training', '')
    if record is None:
        yield from ('Its record was not given.', '')
        return
    plan, curve = record['plan'], record['curve']
    rows = [(name, _told(value)) for name, value in plan.items() if name != 'stages']
    for number, stage in enumerate(plan.get('stages', ()), start=1):
        rows.append((f'stage {number}', _told(stage)))
    if curve:
        last = curve[-1]
        known = (name for name in ('images', 'steps', 'seconds') if name in last)
        rows += [(name, f'{last[name]:,.0f}') for name in known]
    rows += [(name, _told(value)) for name, value in record['further'].items()]
    yield from table(('', ''), rows)
    yield ''


def _promises(record: Result | None) -> Iterator[str]:
    if record is None or not record['curve']:
        return
    yield from ('## What the curve promises', '', f'![Curve]({CURVE})', '')
    most = max(point['images'] for point in record['curve'])
    rows = []
    for name, curve in _errors(record).items():
        law = fitted(curve)
        if law is None:
            rows.append((name, 'too few points', *('-' for _ in _FACTORS)))
            continue
        told = f'n^{law.exponent:.3f} [{_ends((law.low, law.high))}]'
        ahead = [law.at(factor * most) for factor in _FACTORS]
        rows.append((name, told, *(f'{v:.3f} [{_ends((a, b))}]' for v, a, b in ahead)))
    head = (
        'Abs Rel',
        'falls as [95 %]',
        *(f'at {factor} times the images' for factor in _FACTORS),
    )
    yield from table(head, rows)
    yield ''
    yield (
        'Lines through the logarithms by least squares, from 5 % of the images on, one training; '
        'an exponent whose interval holds 0 promises nothing. Within one training the learning '
        'rate falls too, so that the fit flatters; a floor would make it worse.'
    )
    yield ''


def _curve(record: Result) -> str:
    curves = {
        name: [(math.log10(n), error) for n, error in curve if n > 0]
        for name, curve in _errors(record).items()
    }
    return lines('Abs Rel over images seen', 'log10 of the images', curves)


def _errors(record: Result) -> dict[str, list[tuple[float, float]]]:
    return {
        f'{name}, {what}': curve
        for kind, what in (('scaled', 'median-scaled'), ('metric', 'as published'))
        for name, curve in curves_of(record, kind).items()
    }


def _protocol(result: Result) -> Iterator[str]:
    machine = result['machine']
    yield from ('## How this was measured', '', str(result['protocol']), '')
    packages = ', '.join(f'{name} {version}' for name, version in machine['packages'].items())
    yield (
        f'{machine["processor"]}, {machine["cores"]} cores, Python {machine["python"]}; '
        f'{packages}; commit {machine["commit"]}. Weights {result["model"][0]["weights_sha256"]}.'
    )


def _less(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and one < other


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}' if abs(value) < 100.0 else f'{value:.0f}'


def _percent(value: float | None) -> str:
    return '-' if value is None else f'{100.0 * value:.2f} %'


def _ends(ends: Sequence[float | None]) -> str:
    return ', '.join(_number(end) for end in ends)


def _joined(items: Sequence[object]) -> str:
    return ', '.join(str(item) for item in items)


def _told(value: object) -> str:
    """Say a value of a plan in one line."""
    if isinstance(value, Mapping):
        return ', '.join(f'{name} {_told(item)}' for name, item in value.items())
    if isinstance(value, (list, tuple)):
        nested = any(isinstance(item, (list, tuple, Mapping)) for item in value)
        return ' '.join(f'({_told(item)})' if nested else _told(item) for item in value)
    return f'{value:g}' if isinstance(value, float) else str(value)
