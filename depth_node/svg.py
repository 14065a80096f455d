"""Three kinds of plots as SVG text: stacked bars, numbered points and lines.

Written directly, with no plotting library: the same figures give the same bytes everywhere, so
that a test can hold the plots in docs/ to the result files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 900
_LEFT = 190
_RIGHT = 80
_ROW = 34
_BAR = 20
_HEAD = 62
_LEGEND_PER_ROW = 5
_PALETTE = (
    *('#4477aa', '#66ccee', '#228833', '#ccbb44', '#ee6677', '#aa3377', '#bbbbbb', '#dd8844'),
    *('#777777', '#223355'),
)
_FONT = 'font-family="sans-serif" font-size="13"'


@dataclass(frozen=True)
class Point:
    """One thing in a plot of points."""

    label: str
    """For the list beside the plot."""
    group: str
    """Things of one group have one colour."""
    x: float
    """Above 0; the axis is logarithmic."""
    y: float


def stacked_bars(title: str, unit: str, bars: Mapping[str, Mapping[str, float]]) -> str:
    """Draw one bar of parts per name.

    :param title: above the plot.
    :param unit: of the numbers, written at the ends of the bars.
    :param bars: name of a bar -> name of a part -> its length; parts have one colour each.
    :returns: the SVG document.
    """
    parts = list(dict.fromkeys(part for lengths in bars.values() for part in lengths))
    colors = dict(zip(parts, _colors(len(parts)), strict=True))
    longest = max((sum(lengths.values()) for lengths in bars.values()), default=1.0) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    legend_rows = -(-len(parts) // _LEGEND_PER_ROW)
    top = _HEAD + 20 * legend_rows
    body = [_text(12, 24, title, bold=True)]
    for index, part in enumerate(parts):
        column, line = index % _LEGEND_PER_ROW, index // _LEGEND_PER_ROW
        x, y = 12.0 + column * (_WIDTH - 24) / _LEGEND_PER_ROW, 48.0 + 20 * line
        body += [_box(x, y - 11, 12, 12, colors[part]), _text(x + 18, y, part)]
    for row, (name, lengths) in enumerate(bars.items()):
        y = float(top + row * _ROW)
        body.append(_text(_LEFT - 10, y + 15, name, anchor='end'))
        x = float(_LEFT)
        for part, length in lengths.items():
            body.append(_box(x, y, length * scale, _BAR, colors[part]))
            x += length * scale
        body.append(_text(x + 6, y + 15, f'{sum(lengths.values()):.1f} {unit}'))
    return _document(top + len(bars) * _ROW + 10, body)


def numbered_points(title: str, x_title: str, y_title: str, points: Sequence[Point]) -> str:
    """Draw points with numbers, and beside them what the numbers stand for.

    :param x_title: of the logarithmic axis.
    :param points: at least one.
    :returns: the SVG document.
    """
    ordered = sorted(points, key=lambda point: (point.x, point.y, point.label))
    groups = list(dict.fromkeys(sorted(point.group for point in points)))
    colors = dict(zip(groups, _colors(len(groups)), strict=True))
    height = max(420, 80 + 18 * len(ordered))
    left, right, top, bottom = 70, 570, 66, height - 60
    low, high = _decades([point.x for point in ordered])
    floor, ceiling = _margins([point.y for point in ordered])

    def place(point: Point) -> tuple[float, float]:
        along = math.log10(point.x / low) / math.log10(high / low)
        up = (point.y - floor) / (ceiling - floor)
        return left + along * (right - left), bottom - up * (bottom - top)

    body = [
        _text(12, 24, title, bold=True),
        _text((left + right) / 2, height - 16, x_title, anchor='middle'),
        _text(12, 44, y_title),
        _line(left, bottom, right, bottom),
        _line(left, top, left, bottom),
    ]
    for x in _ticks(low, high):
        at = left + math.log10(x / low) / math.log10(high / low) * (right - left)
        body += [_line(at, bottom, at, bottom + 5)]
        body += [_text(at, bottom + 20, f'{x:g}', anchor='middle')]
    for step in range(6):
        y = floor + (ceiling - floor) * step / 5
        at = bottom - (bottom - top) * step / 5
        body += [_line(left - 5, at, left, at)]
        body += [_text(left - 8, at + 4, f'{y:.3f}', anchor='end')]
    for number, point in enumerate(ordered, start=1):
        x, y = place(point)
        color = colors[point.group]
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>')
        body.append(_text(x + 6, y - 4, str(number), small=True))
        line = 60 + 18 * (number - 1)
        body.append(f'<circle cx="{right + 32}" cy="{line - 4}" r="4" fill="{color}"/>')
        body.append(_text(right + 42, line, f'{number}  {point.label}'))
    return _document(height, body)


def lines(title: str, x_title: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Draw curves over one linear axis; a number that is not finite breaks its curve.

    :param title: above the plot.
    :param curves: name -> points (x, y) in the order of x.
    :returns: the SVG document; it says so where there is no point.
    """
    known = [point for curve in curves.values() for point in curve if _is_finite(point)]
    body = [_text(12, 24, title, bold=True)]
    if not known:
        return _document(70, [*body, _text(12, 52, 'no figures')])
    left, right, top, bottom = 70.0, _WIDTH - 20.0, 66.0, 280.0
    low, high = min(x for x, _ in known), max(x for x, _ in known)
    high = high if high > low else low + 1.0
    floor, ceiling = _margins([y for _, y in known])
    for step in range(6):
        x, y = low + (high - low) * step / 5, floor + (ceiling - floor) * step / 5
        across, up = left + (right - left) * step / 5, bottom - (bottom - top) * step / 5
        body += [_line(across, bottom, across, bottom + 5), _line(left - 5, up, left, up)]
        body += [_text(across, bottom + 20, f'{x:.4g}', anchor='middle')]
        body += [_text(left - 8, up + 4, f'{y:.3g}', anchor='end')]
    body += [_line(left, bottom, right, bottom), _line(left, top, left, bottom)]
    body.append(_text((left + right) / 2, bottom + 40, x_title, anchor='middle'))
    for place, (name, curve) in enumerate(curves.items()):
        color = _PALETTE[place % len(_PALETTE)]
        path = ''.join(
            f'{verb}{left + (x - low) / (high - low) * (right - left):.1f} '
            f'{bottom - (y - floor) / (ceiling - floor) * (bottom - top):.1f}'
            for verb, (x, y) in _strokes(_thinned(curve))
        )
        body.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        across = 12.0 + place % _LEGEND_PER_ROW * (_WIDTH - 24) / _LEGEND_PER_ROW
        body += [_box(across, 37, 12, 12, color), _text(across + 18, 48, name)]
    return _document(round(bottom) + 56, body)


def _strokes(
    curve: Sequence[tuple[float, float]],
) -> list[tuple[str, tuple[float, float]]]:
    """Return the points of a curve with what leads to them: M lifts the pen, L draws."""
    strokes, drawing = [], False
    for point in curve:
        if _is_finite(point):
            strokes.append(('L' if drawing else 'M', point))
        drawing = _is_finite(point)
    return strokes


def _thinned(curve: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Return at most about 800 points, the last one among them."""
    step = max(1, len(curve) // 800)
    return curve if step == 1 else [*curve[:-1:step], curve[-1]]


def _is_finite(point: tuple[float, float]) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _colors(count: int) -> list[str]:
    return [_PALETTE[index % len(_PALETTE)] for index in range(count)]


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Return limits of a logarithmic axis with room at both ends."""
    return min(values) / 1.25, max(values) * 1.25


def _ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between two limits."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [mark for mark in marks if low <= mark <= high]


def _margins(values: Sequence[float]) -> tuple[float, float]:
    """Return limits of a linear axis with room at both ends."""
    room = 0.1 * (max(values) - min(values)) or 0.01
    return min(values) - room, max(values) + room


def _document(height: int, body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" {_FONT}>'
    )
    paper = _box(0, 0, _WIDTH, height, '#ffffff')
    return '\n'.join([head, paper, *body, '</svg>']) + '\n'


def _box(x: float, y: float, width: float, height: float, color: str) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{color}"/>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#333333"/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = 'start',
    bold: bool = False,
    small: bool = False,
) -> str:
    extra = ' font-weight="bold"' if bold else ' font-size="10"' if small else ''
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra} fill="#111111">'
        f'{escape(text)}</text>'
    )
