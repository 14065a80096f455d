"""What a run of fine-tuning leaves for people and for programs: a page and a JSON value.

The page is one file: styles and pictures are in it, it asks the network for nothing and runs no
script.  Everything that comes from outside (names, topics, notes of others) is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.judging import html_parts as html
from depth_node.judging import pictures
from depth_node.judging.bootstrap import DEFAULTS
from depth_node.judging.bootstrap import BlockSettings
from depth_node.judging.by_take import MEASURES
from depth_node.judging.comparison import Change
from depth_node.judging.comparison import Comparison
from depth_node.judging.gate import Outcome
from depth_node.judging.gate import Verdict
from depth_node.judging.judgement import Judgement
from depth_node.judging.table import constant_rows
from depth_node.judging.table import remarks
from depth_node.judging.table import rows_of
from depth_node.judging.table import shown
from depth_node.svg import lines

FORMAT = 1

_HEADLINES = (
    ('metric.abs_rel', 'Abs Rel in metres'),
    ('median.abs_rel', 'Abs Rel, each image median-scaled'),
    ('aligned.abs_rel', 'Abs Rel, aligned'),
    ('proxy.tracks_abs_rel', 'Abs Rel at tracks'),
)
_HEADLINE_COUNT = 3
_VERDICTS = {
    Outcome.IMPROVED: ('good', 'Improved: the new model was written'),
    Outcome.NOT_IMPROVED: ('bad', 'Not improved: the start model was kept'),
    Outcome.UNUSABLE: ('bad', 'Unusable data: the start model was kept'),
}


@dataclass(frozen=True)
class Plot:
    """Curves of the training over one axis."""

    title: str
    """What is shown."""
    x_title: str
    """What the axis counts, e.g. 'step'."""
    curves: Mapping[str, Sequence[tuple[float, float]]]
    """Name -> points (x, y)."""


@dataclass(frozen=True)
class ScaleRow:
    """What one source says of the scale; as ``dataset.scale.ScaleEstimate``."""

    source: str
    """Where it comes from."""
    scale: float
    """Factor on the start model's depth."""
    spread: float
    """MAD / median of the samples."""
    samples: int
    """How many."""
    slope: float
    """Of log depth over log depth of the model; 1 where a factor explains all."""
    usable: bool
    """Whether it may be believed."""
    remark: str = ''
    """Why not, or what else is to be known."""
    chosen: bool = False
    """Whether it went into the card."""


@dataclass(frozen=True, eq=False)
class FrameShown:
    """One held-out image with what both models made of it."""

    caption: str
    """Recording and time."""
    rgb: NDArray[np.uint8]
    """(h, w, 3) RGB."""
    before_m: NDArray[np.float32]
    """(h, w) metres of the start model."""
    after_m: NDArray[np.float32]
    """(h, w) metres of the new model."""
    reference_m: NDArray[np.float32] | None = None
    """(h, w) metres of the reference, NaN unknown; None where there is none."""


@dataclass(frozen=True)
class ModelRecord:
    """A model folder as it was."""

    role: str
    """'before' or 'after'."""
    name: str
    """Of the model."""
    sha256: Mapping[str, str]
    """File -> hexadecimal SHA-256."""


@dataclass(frozen=True, eq=False)
class RunReport:
    """All that a report tells."""

    title: str
    """Of the page."""
    command: str
    """That made the run."""
    verdict: Verdict
    """Of the gate."""
    judgements: tuple[Judgement, ...] = ()
    """Before and after, or what there is of them."""
    comparison: Comparison | None = None
    """None where there was nothing to compare."""
    parts: Mapping[str, Comparison] = field(default_factory=dict)
    """Name of a take -> the comparison on it alone; empty where there is one take."""
    audits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Recording -> its audit, as JSON."""
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Recording -> reason -> frames that were not used."""
    plots: tuple[Plot, ...] = ()
    """Of the training."""
    scales: tuple[ScaleRow, ...] = ()
    """Scale by source."""
    frames: tuple[FrameShown, ...] = ()
    """Held-out images, evenly spread."""
    worst: tuple[FrameShown, ...] = ()
    """Held-out images on which the new model is worst."""
    models: tuple[ModelRecord, ...] = ()
    """With their hashes."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> version."""
    blocks: BlockSettings = DEFAULTS
    """Blocks of time behind the intervals."""
    notes: tuple[str, ...] = ()
    """What else is to be known, in plain words."""

    def to_json(self) -> dict[str, Any]:
        """Return everything but the pictures, for :func:`json.dumps` with ``allow_nan=False``."""
        value = {
            'format': FORMAT,
            'title': self.title,
            'command': self.command,
            'verdict': {
                'outcome': self.verdict.outcome.name.lower(),
                'exit_code': int(self.verdict.outcome),
                'primary': self.verdict.primary,
                'reasons': list(self.verdict.reasons),
            },
            'comparison': None if self.comparison is None else self.comparison.to_json(),
            'parts': {name: part.to_json() for name, part in self.parts.items()},
            'judgements': [item.to_json() for item in self.judgements],
            'audits': dict(self.audits),
            'dropped': {name: dict(reasons) for name, reasons in self.dropped.items()},
            'plots': [vars(plot) for plot in self.plots],
            'scales': [vars(row) for row in self.scales],
            'shown': [frame.caption for frame in self.frames],
            'worst': [frame.caption for frame in self.worst],
            'models': [vars(model) for model in self.models],
            'versions': dict(self.versions),
            'notes': list(self.notes),
        }
        plain: dict[str, Any] = _plain(value)
        return plain


def page(report: RunReport) -> str:
    """Return the page as HTML."""
    kind, sentence = _VERDICTS[report.verdict.outcome]
    sections = [
        html.banner(kind, sentence, report.verdict.reasons),
        html.cards(_headlines(report)),
        html.section('Before and after', _changes(report)),
        html.section('Each recording and camera', _parts(report.parts)),
        html.section('Held-out images', _frames(report.frames)),
        html.section('Worst images of the new model', _frames(report.worst)),
        html.section('Scale by source', _scales(report.scales)),
        html.section(
            'Training',
            ''.join(html.svg(lines(p.title, p.x_title, p.curves)) for p in report.plots),
        ),
        html.section('What was not used, and why', _dropped(report.dropped)),
        html.section('The recordings', _audits(report.audits)),
        html.section('How this was made', _making(report)),
    ]
    return html.document(report.title, sections)


def _headlines(report: RunReport) -> list[tuple[str, str, str, str]]:
    """Return (label, figure, words below, class) of what matters most."""
    if report.comparison is None:
        return []
    found = []
    for name, label in _HEADLINES:
        change = report.comparison.changes.get(name)
        if change is None or not math.isfinite(change.relative.value):
            continue
        kind = 'good' if change.better else 'bad' if change.worse else ''
        words = f'{shown(name, change.before)} before, {shown(name, change.after)} after'
        figure = 'the same' if change.same else f'{100.0 * change.relative.value:+.0f} %'
        found.append((label, figure, words, kind))
    return found[:_HEADLINE_COUNT]


def _changes(report: RunReport) -> str:
    """Return the table of all measures before and after."""
    if not report.judgements:
        return ''
    names = [item.name for item in report.judgements]
    compared = report.comparison.changes if report.comparison is not None else {}
    body = []
    for row in rows_of(report.judgements, settings=report.blocks):
        if not row.cells:
            body.append(html.heading_row(row.label, len(names) + 2))
            continue
        change = compared.get(row.name)
        kind = '' if change is None else 'good' if change.better else 'bad' if change.worse else ''
        body.append(html.row([row.label, *row.cells, _difference(change)], kind))
    table = html.table(['', *names, 'change, with 95 % interval'], body)
    constants = {key: c for item in report.judgements for key, c in item.constants.items()}
    known = [html.row([label, text]) for label, text in constant_rows(constants)]
    guesses = html.table(['guesses that look at no pixel, but know the truth', ''], known)
    said = html.listed(remarks(report.judgements, report.blocks))
    return table + (guesses if known else '') + said


def _parts(parts: Mapping[str, Comparison]) -> str:
    """Return the table of what matters most, apart for every take."""
    body = []
    for take, comparison in parts.items():
        for name, label in MEASURES:
            change = comparison.changes.get(name)
            if change is None or not math.isfinite(change.before):
                continue
            kind = 'good' if change.better else 'bad' if change.worse else ''
            figures = [shown(name, change.before), shown(name, change.after)]
            images = str(change.difference.frames)
            body.append(html.row([take, label, images, *figures, _difference(change)], kind))
    heads = ['', '', 'images', 'before', 'after', 'change, with 95 % interval']
    return html.table(heads, body) if body else ''


def _difference(change: Change | None) -> str:
    """Word by how much a measure changed."""
    if change is None or change.neutral or not math.isfinite(change.relative.value):
        return ''
    if change.same:
        return 'none'
    text = f'{100.0 * change.relative.value:+.1f} %'
    low, high = change.relative.low, change.relative.high
    if math.isfinite(low) and math.isfinite(high):
        text += f' [{100.0 * low:+.1f}, {100.0 * high:+.1f}]'
    return text


def _frames(frames: Sequence[FrameShown]) -> str:
    """Return one row of pictures per image."""
    return ''.join(_frame(frame) for frame in frames)


def _frame(frame: FrameShown) -> str:
    depths = [frame.before_m, frame.after_m]
    depths += [frame.reference_m] if frame.reference_m is not None else []
    limits = pictures.depth_limits(depths)
    scale = f'{limits[0]:.2g} m blue to {limits[1]:.2g} m red'
    shown_now = [
        (frame.rgb, 'image'),
        (pictures.depth_picture(frame.before_m, limits), f'before, {scale}'),
        (pictures.depth_picture(frame.after_m, limits), f'after, {scale}'),
        (
            pictures.change_picture(frame.before_m, frame.after_m),
            'change: blue nearer, red farther, full at a factor of 2',
        ),
    ]
    if frame.reference_m is not None:
        worst = f'{100.0 * pictures.LARGEST_ERROR:.0f} %'
        shown_now += [
            (pictures.depth_picture(frame.reference_m, limits), f'reference, {scale}'),
            (
                pictures.error_picture(frame.before_m, frame.reference_m),
                f'error before{_error(frame.before_m, frame.reference_m)}, yellow is {worst}',
            ),
            (
                pictures.error_picture(frame.after_m, frame.reference_m),
                f'error after{_error(frame.after_m, frame.reference_m)}, yellow is {worst}',
            ),
        ]
    tiles = [(pictures.data_uri(picture), words) for picture, words in shown_now]
    return html.gallery(frame.caption, tiles)


def _error(depth_m: NDArray[np.float32], reference_m: NDArray[np.float32]) -> str:
    """Word the mean relative error of an image."""
    with np.errstate(invalid='ignore', divide='ignore'):
        error = np.abs(depth_m - reference_m) / reference_m
    known = error[np.isfinite(error)]
    return f' {100.0 * float(known.mean()):.0f} %' if known.size else ''


def _scales(scales: Sequence[ScaleRow]) -> str:
    if not scales:
        return ''
    body = [
        html.row(
            [
                row.source + (' (chosen)' if row.chosen else ''),
                _number(row.scale),
                f'{100.0 * row.spread:.1f} %' if math.isfinite(row.spread) else '-',
                str(row.samples),
                _number(row.slope),
                'yes' if row.usable else 'no',
                row.remark,
            ],
            'good' if row.chosen else '',
        )
        for row in scales
    ]
    heads = ['source', 'scale', 'spread', 'samples', 'log-log slope', 'usable', 'remark']
    return html.table(heads, body)


def _dropped(dropped: Mapping[str, Mapping[str, int]]) -> str:
    body = [
        html.row([recording, reason, str(count)])
        for recording, reasons in dropped.items()
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
    ]
    return html.table(['recording', 'reason', 'frames'], body) if body else ''


def _audits(audits: Mapping[str, Mapping[str, Any]]) -> str:
    return ''.join(html.folded(name, html.nested(_plain(audit))) for name, audit in audits.items())


def _making(report: RunReport) -> str:
    parts = [html.listed(report.notes), html.code(report.command)]
    if report.versions:
        body = [html.row([name, version]) for name, version in sorted(report.versions.items())]
        parts.append(html.table(['package', 'version'], body))
    for model in report.models:
        body = [html.row([name, digest]) for name, digest in sorted(model.sha256.items())]
        parts.append(html.table([f'{model.role}: {model.name}', 'SHA-256'], body, mono=True))
    return ''.join(parts)


def _number(value: float) -> str:
    return f'{value:.3f}' if math.isfinite(value) else '-'


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it: numbers that are not finite are None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
