"""The model that is bundled, judged by what it never saw, beside what is asked of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from depth_node import model_folder
from depth_node.benchmark import frame
from depth_node.benchmark.bundled_data import SEED
from depth_node.benchmark.bundled_data import DataSet
from depth_node.benchmark.bundled_data import recorded
from depth_node.benchmark.bundled_data import rendered
from depth_node.benchmark.bundled_picture import Shown
from depth_node.benchmark.bundled_picture import shown_images
from depth_node.benchmark.flicker import NOISE
from depth_node.benchmark.flicker import SHOTS
from depth_node.benchmark.flicker import Flicker
from depth_node.benchmark.flicker import flicker
from depth_node.errors import ModelError
from depth_node.judging.bootstrap import BlockSettings
from depth_node.judging.bootstrap import interval_of
from depth_node.judging.comparison import compare
from depth_node.judging.exhibits import evenly_spread
from depth_node.judging.judge import judge_scenes
from depth_node.judging.judgement import Judgement
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.models import opened_models
from depth_node.judging.scenes import JudgeSettings
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import ModelFolder

METRICS = ('abs_rel', 'sq_rel', 'rmse_m', 'rmse_log', 'a1', 'a2', 'a3', 'silog', 'coverage')
"""The seven usual ones, SILog, and the share of the pixels with truth that have a depth."""
COMPARED = ('metric.abs_rel', 'median.abs_rel', 'median.a1')
PROTOCOL = (
    'Recordings and scenes on which nothing was trained, through the pipeline of the node with '
    'OpenVINO in float32, depth.edge_step 0. metric: as published. scaled: each image times '
    "median(truth) / median(depth). Constants know the truth: best for all images, each image's "
    "own median, best per row of the image, and best per row in units of each image's own "
    'median. Figures are means over images; intervals of 95 % by a bootstrap of blocks of one '
    f'second. Flicker: {SHOTS} times the same picture with fresh noise of {NOISE:g} of 255; '
    'robust standard deviation of depth over time as a share of depth, at the median pixel. '
    'Speed: image bytes to bytes of depth and coloured cloud at 640x480, without DDS.'
)
_ENGINE, _PRECISION = 'openvino', 'f32'
_ONE_SECOND = BlockSettings()


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    model: str
    """Name or path of a model folder."""
    recordings: tuple[Path, ...]
    """With depth; on none of them anything was trained."""
    before: str = ''
    """Name or path of the model that it replaces; empty: none."""
    frames: int = 200
    """Images of a recording at most, evenly spread."""
    views: int = 96
    """Rendered views of trained kinds, and of kinds held out."""
    size: tuple[int, int] = (240, 320)
    """(height, width) of the rendered views, pixels."""
    seed: int = SEED
    """Of the rendered scenes."""
    still: int = 6
    """Still pictures per data set."""
    timed: int = 300
    """Frames that are timed; 0 leaves the speed out."""
    threads: int = 2
    """Threads of the engine, and cores of the process, while it is timed."""


@dataclass(frozen=True)
class Before:
    """One measure of the replaced model on the same images."""

    measure: str
    before: float
    after: float
    low: float
    """Of the paired difference after - before, 95 %."""
    high: float
    """Of the paired difference after - before, 95 %."""


@dataclass(frozen=True)
class DataRow:
    """One data set."""

    data: str
    kind: str
    frames: int
    metric: dict[str, float]
    """Mean of each of :data:`METRICS`, depth as published."""
    scaled: dict[str, float]
    """The same after median scaling."""
    scale: float
    """Median over the images of median(truth) / median(depth)."""
    interval: tuple[float, float]
    """95 % interval of the median-scaled Abs Rel."""
    constants: dict[str, float]
    """What guesses reach that look at no pixel."""
    flicker: Flicker
    before: tuple[Before, ...]
    """The replaced model; empty where none was given."""


@dataclass(frozen=True)
class Speed:
    """The whole frame path of the node."""

    image: str
    encoding: str
    engine: str
    precision: str
    threads: int
    median_ms: float
    p95_ms: float
    hz: float
    """1000 / median."""


@dataclass(frozen=True)
class Asked:
    """One figure, what is asked of it, and what was reached."""

    what: str
    asked: str
    reached: float
    kept: bool


@dataclass(frozen=True)
class Measured:
    """All of it."""

    model: dict[str, Any]
    """From the card, with the hash of the weights and the size of the folder."""
    rows: tuple[DataRow, ...]
    speed: tuple[Speed, ...]
    figures: tuple[Asked, ...]
    shown: tuple[Shown, ...]
    """Worst and median images."""


def measure(plan: Plan, note: Callable[[str], None] = lambda text: None) -> Measured:
    """Judge a model.

    :param note: told what is being done.
    :raises ModelError: when a model is missing or damaged, or gives relative inverse depth.
    :raises RecordingError: when a recording cannot judge it.
    :raises EngineError: when an engine fails.
    """
    folder = model_folder.read(model_folder.find(plan.model))
    if folder.card.output.kind == 'relative':
        raise ModelError(
            f'model {folder.card.name}', 'relative inverse depth', 'a model of depth in metres'
        )
    rows, shown = [], []
    given = [name for name in (plan.model, plan.before) if name]
    # as paths: elsewhere a name may also mean a folder in the current one
    paths = [str(model_folder.find(name).absolute()) for name in given]
    settings = JudgeSettings(frames=plan.frames)
    with opened_models(paths, engine=_ENGINE, precision=_PRECISION) as opened:
        models = [
            replace(model, name=name) for model, name in zip(opened, _told(given), strict=True)
        ]
        sets = recorded(plan.recordings, settings)
        if plan.views:
            note('rendering')
            sets += rendered(plan.views, plan.size[1], plan.size[0], plan.seed)
        for data in sets:
            note(data.name)
            row, pictures = _judged(models, data, settings, plan)
            rows.append(row)
            shown += pictures
    note('speed')
    speed = _speed(plan)
    model = _described(folder)
    figures = asked_of(rows, speed, model['size_mb'])
    return Measured(model, tuple(rows), speed, figures, tuple(shown))


def _told(given: Sequence[str]) -> list[str]:
    """Return what models are called in the pictures: without their place on this machine."""
    names = [Path(name).name for name in given]
    return names if len(set(names)) == len(names) else [names[0], f'{names[1]} before']


def _judged(
    models: Sequence[ModelUnderTest], data: DataSet, settings: JudgeSettings, plan: Plan
) -> tuple[DataRow, list[Shown]]:
    every = data.scenes(lambda stamp_ns: True)
    judgements = judge_scenes(models, data.name, every, settings).judgements
    first, series = judgements[0], judgements[0].series['median.abs_rel']
    still = {stamp_ns for _, stamp_ns in evenly_spread(series, plan.still)}
    interval = interval_of(series, _ONE_SECOND)
    constants = first.constants[data.name]
    row = DataRow(
        data=data.name,
        kind=data.kind,
        frames=series.count,
        metric=_means(first, 'metric'),
        scaled=_means(first, 'median'),
        scale=first.series['scale'].median,
        interval=(interval.low, interval.high),
        constants=asdict(constants),
        flicker=flicker(models[0], data.scenes(still.__contains__)),
        before=_before(judgements[1], first) if len(judgements) > 1 else (),
    )
    return row, shown_images(models, data, series)


def _means(judgement: Judgement, treatment: str) -> dict[str, float]:
    return {name: judgement.mean(f'{treatment}.{name}') for name in METRICS}


def _before(before: Judgement, after: Judgement) -> tuple[Before, ...]:
    changes = compare(before, after).changes
    return tuple(
        Before(name, change.before, change.after, change.difference.low, change.difference.high)
        for name in COMPARED
        if (change := changes.get(name)) is not None and change.difference.frames
    )


def _speed(plan: Plan) -> tuple[Speed, ...]:
    if not plan.timed:
        return ()
    rows = frame.measure(plan.model, _ENGINE, 640, 480, plan.timed, _PRECISION, plan.threads)
    return tuple(
        Speed(
            image=row.image,
            encoding=row.encoding,
            engine=row.engine,
            precision=_PRECISION,
            threads=plan.threads,
            median_ms=row.whole.median_ms,
            p95_ms=row.whole.p95_ms,
            hz=1e3 / row.whole.median_ms,
        )
        for row in rows
        if row.whole is not None
    )


def _described(folder: ModelFolder) -> dict[str, Any]:
    card = folder.card
    size = sum(path.stat().st_size for path in folder.path.rglob('*') if path.is_file())
    return {
        'name': card.name,
        'network': card.network,
        'variant': card.variant,
        'inputs': [f'{size.width}x{size.height}' for size in card.inputs],
        'license': card.weights_license,
        'training_data': card.training_data,
        'source': card.source,
        'weights_sha256': card.files[WEIGHTS_NAME].sha256,
        'size_mb': size / 1e6,
    }


def asked_of(rows: Sequence[DataRow], speed: Sequence[Speed], size_mb: float) -> tuple[Asked, ...]:
    """Hold what was measured to what is asked; a figure that was not measured is missed."""
    recordings = [row for row in rows if row.kind == 'recording']
    figures = []
    for row in recordings:
        what = f'{row.data}: median-scaled Abs Rel'
        reached, known = row.scaled['abs_rel'], row.constants
        figures += [
            _below(f"{what}, below each image's own median", reached, known['median_abs_rel']),
            _below(f'{what}, below the best depth per row', reached, _best_rows(known)),
        ]
        if row.data == 'livingroom':
            figures.append(_at_most(what, reached, 0.15))
            figures.append(_at_most(f'{row.data}: metric Abs Rel', row.metric['abs_rel'], 0.30))
    ratios = [row.scaled['abs_rel'] / row.constants['median_abs_rel'] for row in recordings]
    mean = sum(ratios) / len(ratios) if ratios else math.nan
    still = [row.flicker.typical for row in rows if row.kind != 'recording']
    # not max(), which forgets NaN unless it comes first
    worst = float(np.max(still)) if still else math.nan
    return (
        *figures,
        _at_most("recordings: mean of Abs Rel over that of each image's own median", mean, 0.75),
        _at_most('still camera in rendered scenes: flicker, share of depth', worst, 0.02),
        _at_most('size of the folder, MB', size_mb, 12.0),
        _at_least(
            'frames per second, 640x480, OpenVINO f32, 2 threads',
            min((item.hz for item in speed), default=math.nan), 30.0,
        ),
    )  # fmt: skip


def _best_rows(constants: dict[str, float]) -> float:
    return min(constants['rows_abs_rel'], constants['rows_scaled_abs_rel'])


def _below(what: str, reached: float, bound: float) -> Asked:
    return Asked(what, f'< {bound:.4g}', reached, reached < bound)


def _at_most(what: str, reached: float, bound: float) -> Asked:
    return Asked(what, f'<= {bound:.4g}', reached, reached <= bound)


def _at_least(what: str, reached: float, bound: float) -> Asked:
    return Asked(what, f'>= {bound:.4g}', reached, reached >= bound)
