"""What the demo shows at its end: a table, a picture, a cloud file, and the figures as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.demo.truth import AnyExhibit
from depth_node.demo.truth import Quality
from depth_node.demo.truth import RelativeExhibit
from depth_node.evaluation import AlignedReport
from depth_node.files import write_atomically
from depth_node.files import write_text_atomically
from depth_node.health import Percentiles
from depth_node.ros.collector import Cloud

_PANEL_WIDTH_PX = 480
_LEGEND_HEIGHT_PX = 56
_BAR_HEIGHT_PX = 10
_TEXT_SCALE = 0.5
_UNKNOWN_RGB = (48, 48, 48)
_LARGEST_ERROR = 0.5
_MODEL_FACTS = ('engine', 'precision', 'network input')

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Figures:
    """What one run of the demo measured."""

    source: str
    """What was played."""
    model: str
    """Model of the node."""
    relative: bool
    """Whether it gives relative inverse depth, and so neither metres nor clouds."""
    facts: dict[str, str]
    """Keys and values of the node's diagnostics at the end."""
    played: int
    """Pictures that the player published."""
    received: int | None
    """Pictures that reached the node; None where its diagnostics did not say."""
    depths: int
    """Images of depth, or of relative inverse depth, that came."""
    clouds: int
    """Clouds that came."""
    drops: dict[str, int]
    """Reason to number of pictures, as the node counts them."""
    input_rate_hz: float
    """Mean rate of the player."""
    output_rate_hz: float
    """Mean rate of the depth images."""
    depth_age: Percentiles | None
    """From the stamp of a picture to the arrival of its depth."""
    cloud_age: Percentiles | None
    """From the stamp of a picture to the arrival of its cloud."""
    first_depth_s: float | None
    """From the start of the node's process to the arrival of the first depth image."""
    rss_mib: float
    """Memory of the node at the end, MiB."""
    peak_rss_mib: float
    """Most memory of the node, MiB."""
    cpu_percent: float
    """Processor time of the node while pictures were played; 100 is one core."""
    torch_loaded: bool
    """Whether torch's library was in the node's memory; it serves without."""
    quality: Quality | None
    """Against the recording's own depth; of relative inverse depth after an alignment to it."""
    quality_note: str
    """Why there is none; empty where there is one."""
    node_status: int | None
    """Exit status of the node after it was asked to stop."""


def table(figures: Figures) -> str:
    """Return the figures as lines of text with two columns."""
    received = 'unknown' if figures.received is None else str(figures.received)
    dropped = ', '.join(f'{count} {name}' for name, count in sorted(figures.drops.items()))
    first = 'none' if figures.first_depth_s is None else f'{figures.first_depth_s:.2f} s'
    rows = [
        ('played', figures.source),
        ('model', _model(figures)),
        ('pictures played / received', f'{figures.played} / {received}'),
        *_output_rows(figures),
        ('dropped', dropped or 'none'),
        ('rate in / out', f'{figures.input_rate_hz:.1f} / {figures.output_rate_hz:.1f} Hz'),
        *_age_rows(figures),
        ('start to first depth', first),
        ('memory of the node', f'{figures.rss_mib:.0f} MiB (peak {figures.peak_rss_mib:.0f} MiB)'),
        ('processor use of the node', f'{figures.cpu_percent:.0f} % of one core'),
        *_quality_rows(figures.quality, figures.quality_note),
    ]
    if figures.node_status:
        rows.append(('attention', f'the node ended with status {figures.node_status}'))
    width = max(len(name) for name, _ in rows)
    return '\n'.join(f'{name:<{width}}  {value}' for name, value in rows)


def write_figures(path: Path, figures: Figures) -> None:
    """Write the figures as JSON; numbers that are not finite become null."""
    text = json.dumps(_plain(dataclasses.asdict(figures)), indent=2, allow_nan=False)
    write_text_atomically(path, text + '\n')


def write_ply(path: Path, cloud: Cloud) -> None:
    """Write points as a binary little-endian PLY file with colours."""
    layout = [('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('r', 'u1'), ('g', 'u1'), ('b', 'u1')]
    vertices = np.empty(len(cloud.xyz_m), dtype=layout)
    for column, name in enumerate('xyz'):
        vertices[name] = cloud.xyz_m[:, column]
    for column, name in enumerate('rgb'):
        vertices[name] = cloud.rgb[:, column]
    header = (
        'ply\nformat binary_little_endian 1.0\n'
        'comment metres; x right, y down, z forward\n'
        f'element vertex {len(vertices)}\n'
        'property float x\nproperty float y\nproperty float z\n'
        'property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n'
    )
    write_atomically(path, lambda stream: stream.write(header.encode() + vertices.tobytes()))


def write_picture(path: Path, exhibit: AnyExhibit) -> None:
    """Write image, depth and, where there is one, truth and error side by side as a PNG."""
    picture = cv2.cvtColor(render(exhibit), cv2.COLOR_RGB2BGR)
    data = cv2.imencode('.png', picture)[1].tobytes()
    write_atomically(path, lambda stream: stream.write(data))


def render(exhibit: AnyExhibit) -> Picture:
    """Draw the panels of an exhibit.

    :returns: (h, w, 3) RGB; what is unknown is dark grey, what is near has the same colours in
        metres and in relative inverse depth.
    """
    panels = [_panel(exhibit.rgb, 'image', None, '', '')]
    if isinstance(exhibit, RelativeExhibit):
        panels.append(_relative_panel(exhibit.inverse))
        if exhibit.aligned_m is not None and exhibit.truth_m is not None:
            panels += _depth_panels(exhibit.aligned_m, exhibit.truth_m, ', aligned to the truth')
    else:
        panels += _depth_panels(exhibit.depth_m, exhibit.truth_m, '')
    height = max(panel.shape[0] for panel in panels)
    return np.hstack(
        [np.pad(panel, ((0, height - panel.shape[0]), (0, 0), (0, 0))) for panel in panels]
    )


def _depth_panels(
    depth_m: NDArray[np.float32], truth_m: NDArray[np.float32] | None, suffix: str
) -> list[Picture]:
    """Draw depth and, where there is one, truth and error, on one scale.

    :param suffix: how the depth came to be, for the captions.
    """
    limits = _limits([depth_m] if truth_m is None else [depth_m, truth_m])
    near, far = (f'{limit:.2f} m' for limit in limits)
    colors = _depth_colors(depth_m, limits)
    panels = [_panel(colors, f'depth{suffix}', cv2.COLORMAP_TURBO, near, far)]
    if truth_m is not None:
        truth = _depth_colors(truth_m, limits)
        panels.append(_panel(truth, 'recorded depth', cv2.COLORMAP_TURBO, near, far))
        with np.errstate(invalid='ignore', divide='ignore'):
            error = np.abs(depth_m - truth_m) / truth_m
        colors = _colors(error / _LARGEST_ERROR, cv2.COLORMAP_INFERNO)
        last = f'{_LARGEST_ERROR * 100:.0f} % or more'
        panels.append(_panel(colors, f'relative error{suffix}', cv2.COLORMAP_INFERNO, '0 %', last))
    return panels


def _relative_panel(inverse: NDArray[np.float32]) -> Picture:
    """Draw relative inverse depth, linearly between all but its outermost two percent."""
    values = inverse[np.isfinite(inverse)]
    low, high = np.percentile(values, (2, 98)) if values.size else (0.0, 1.0)
    share = (high - inverse) / max(high - low, 1e-6)
    return _panel(
        _colors(share, cv2.COLORMAP_TURBO),
        'relative inverse depth, no unit',
        cv2.COLORMAP_TURBO,
        f'near {high:.3g}',
        f'far {low:.3g}',
    )


def _panel(rgb: Picture, caption: str, colormap: int | None, low: str, high: str) -> Picture:
    """Bring a picture to the width of a panel and put its legend below."""
    height = max(1, round(rgb.shape[0] * _PANEL_WIDTH_PX / rgb.shape[1]))
    scaled = cv2.resize(rgb, (_PANEL_WIDTH_PX, height), interpolation=cv2.INTER_NEAREST)
    legend = np.full((_LEGEND_HEIGHT_PX, _PANEL_WIDTH_PX, 3), 255, dtype=np.uint8)
    _write(legend, caption, 6, 18)
    if colormap is not None:
        ramp = np.linspace(0.0, 1.0, _PANEL_WIDTH_PX, dtype=np.float32)[None]
        legend[-_BAR_HEIGHT_PX:] = np.repeat(_colors(ramp, colormap), _BAR_HEIGHT_PX, axis=0)
        _write(legend, low, 6, 40)
        width = cv2.getTextSize(high, cv2.FONT_HERSHEY_SIMPLEX, _TEXT_SCALE, 1)[0][0]
        _write(legend, high, _PANEL_WIDTH_PX - width - 6, 40)
    return np.vstack([scaled, legend])


def _write(canvas: Picture, text: str, left: int, bottom: int) -> None:
    """Draw black text."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(canvas, text, (left, bottom), font, _TEXT_SCALE, (0, 0, 0), 1, cv2.LINE_AA)


def _depth_colors(depth_m: NDArray[np.float32], limits: tuple[float, float]) -> Picture:
    """Colour depth on a logarithmic scale."""
    near, far = limits
    with np.errstate(invalid='ignore', divide='ignore'):
        share = np.log(depth_m / near) / math.log(far / near)
    return _colors(share, cv2.COLORMAP_TURBO)


def _colors(share: NDArray[np.floating[Any]], colormap: int) -> Picture:
    """Colour values between 0 and 1; what is not a number is dark grey."""
    unknown = np.isnan(share)
    level = np.clip(np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    bgr = cv2.applyColorMap(np.round(level * 255.0).astype(np.uint8), colormap)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    rgb[unknown] = _UNKNOWN_RGB
    return rgb


def _limits(images: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Return the depths between which colours run: all but the outermost two percent."""
    values = np.concatenate([image[np.isfinite(image) & (image > 0.0)] for image in images])
    if not values.size:
        return 1.0, 10.0
    near, far = (float(value) for value in np.percentile(values, (2, 98)))
    return near, max(far, near * 1.05)


def _model(figures: Figures) -> str:
    """Word what ran, as far as the node told."""
    details = [figures.facts[key] for key in _MODEL_FACTS if figures.facts.get(key)]
    return ', '.join([figures.model, *details])


def _ages(ages: Percentiles | None) -> str:
    """Word three percentiles."""
    if ages is None:
        return 'none'
    return f'{ages.p50_ms:.1f} / {ages.p95_ms:.1f} / {ages.p99_ms:.1f} ms'


def _output_rows(figures: Figures) -> list[tuple[str, str]]:
    """Word what was published, and what a relative model cannot give."""
    if not figures.relative:
        return [('depth images / clouds out', f'{figures.depths} / {figures.clouds}')]
    return [
        ('relative images out', f'{figures.depths}'),
        ('attention', 'the model gives relative inverse depth: no metres and no clouds'),
    ]


def _age_rows(figures: Figures) -> list[tuple[str, str]]:
    """Word how old results were when they came."""
    what = 'relative image' if figures.relative else 'depth'
    rows = [(f'age of {what} p50 / p95 / p99', _ages(figures.depth_age))]
    if not figures.relative:
        rows.append(('age of cloud p50 / p95 / p99', _ages(figures.cloud_age)))
    return rows


def _quality_rows(report: Quality | None, note: str) -> list[tuple[str, str]]:
    """Word the errors, each beside what a constant reaches."""
    if report is None:
        return [('against recorded depth', f'not compared: {note}')]
    if isinstance(report, AlignedReport):
        return _aligned_rows(report)
    constant = report.baseline
    return [
        ('compared with recorded depth', f'{report.frames} frames'),
        (
            'Abs Rel',
            f'{report.metric.abs_rel:.3f}   (best constant, {constant.depth_m:.2f} m: '
            f'{constant.abs_rel:.3f})',
        ),
        (
            'Abs Rel, median scaled',
            f"{report.scaled.abs_rel:.3f}   (each frame's true median: "
            f'{constant.median_abs_rel:.3f}), median factor {report.scale:.2f}',
        ),
        ('within 25 % (a1)', f'{report.metric.a1:.1%}   (best constant: {constant.a1:.1%})'),
        ('pixels with depth', f'{report.metric.coverage:.1%}'),
    ]


def _aligned_rows(report: AlignedReport) -> list[tuple[str, str]]:
    """Word errors that the truth itself has helped to make smaller."""
    aligned, constant = report.aligned, report.constant
    rows = [
        ('compared with recorded depth', f'{report.frames} frames, not in metres of its own:'),
        ('', 'each image was given the scale and shift that fit it best to the truth'),
        (
            'Abs Rel, aligned',
            f'{aligned.abs_rel:.3f}   (a constant, aligned: {constant.abs_rel:.3f})',
        ),
        (
            'within 25 % (a1), aligned',
            f'{aligned.a1:.1%}   (a constant, aligned: {constant.a1:.1%})',
        ),
        ('pixels with a value', f'{aligned.coverage:.1%}'),
    ]
    if report.reversed_frames:
        rows.append(('attention', f'in {report.reversed_frames} frames larger was farther'))
    return rows


def _plain(value: object) -> object:
    """Replace numbers that JSON does not know by None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
