"""Any models on any engines in any precision at any size, in turns of one run.

Every contestant has a process of its own.  What cannot run is a row with its reason.  In the same
run large convolutions and matrix products show what the processor can do at most.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from depth_node.benchmark import peak
from depth_node.benchmark.contestants import EAGER
from depth_node.benchmark.contestants import KEEP_COMPILED
from depth_node.benchmark.contestants import first_load_s
from depth_node.benchmark.contestants import open_contestant
from depth_node.benchmark.own_process import in_own_process
from depth_node.benchmark.own_process import own_cache
from depth_node.benchmark.result import Spread
from depth_node.benchmark.result import spread_of
from depth_node.benchmark.subjects import Size
from depth_node.benchmark.subjects import Subject
from depth_node.benchmark.subjects import prepared
from depth_node.benchmark.turns import Contestant
from depth_node.benchmark.turns import Timed
from depth_node.benchmark.turns import take_patient_turns
from depth_node.errors import DepthNodeError

PROTOCOL = (
    'Each model on each engine in a process of its own; all take turns in one run, the order is '
    'reversed each round, the first call of a turn is not counted. One image at batch 1 through '
    'the network alone, except where the name says batch. eager: the trained network, nothing '
    "rewritten, in PyTorch's inference mode, float32. Networks named network:variant have random "
    'weights that hide nothing. Error: largest difference from the float64 result of the trained '
    'network for one smooth picture, as the network counts, and in standard deviations; depth '
    'error: |depth / exact depth - 1|. Start: import of the library; load: files checked, '
    'network compiled or found compiled by an earlier start, one image held to the stored '
    'output; first: the next image. Peak: the faster of '
    '3x3 convolutions and matrix products in OpenVINO as contestants of the same run; share of '
    'it: 2 * multiply-accumulates / time, counted in the network as trained.'
)
DEVICES = {
    'cpu': ('eager', 'eager-channels-last', 'torch', 'onnxruntime', 'openvino'),
    'gpu': ('eager-cuda', 'eager-cuda-batch16', 'cuda', 'tensorrt'),
}
"""Kind of device -> engines that are measured by default."""
DEFAULT_MODELS = {
    'cpu': (
        'lite-mono:tiny',
        'lite-mono:small',
        'lite-mono:base',
        'lite-mono:8m',
        'monodepth2:resnet18',
        'lite-mono-small-world',
    ),
    'gpu': ('lite-mono:base', 'monodepth2:resnet18', 'lite-mono-small-world'),
}
_PRECISIONS = {
    'openvino': ('f32', 'bf16'),
    'cuda': ('f16', 'f32'),
    'tensorrt': ('f16', 'f32'),
}
Note = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long."""

    models: tuple[str, ...]
    """'network:variant' of the registry with random weights, or names or paths of folders."""
    engines: tuple[str, ...]
    """Engines, and names of :data:`.contestants.EAGER`."""
    precisions: tuple[str, ...] = ()
    """Empty: those that suit the engine."""
    sizes: tuple[Size | None, ...] = (None,)
    """(height, width); None: as each model prefers it."""
    rounds: int = 12
    """Turns of each contestant."""
    calls: int = 8
    """Images per turn."""
    threads: int = 0
    """CPU threads of each; 0 lets the engine decide."""
    peaks: bool = True
    """Whether the processor's peak is measured too."""
    apart: bool = False
    """One run per model, for what does not fit into memory together; the peak is in the first."""


@dataclass(frozen=True)
class DepthError:
    """|depth / exact depth - 1| over the pixels of one picture."""

    p50: float
    max: float


@dataclass(frozen=True)
class Start:
    """What a start costs."""

    import_s: float
    """Import of the library, seconds."""
    first_load_s: float | None
    """The very first load, nothing compiled yet, seconds; None: engines that keep nothing."""
    load_s: float
    """Files checked, network compiled or found compiled, one image held to the stored output;
    seconds."""
    first_ms: float
    """The first image after that, milliseconds."""


@dataclass(frozen=True)
class EngineRow:
    """One model on one engine."""

    model: str
    """As it was asked for."""
    network: str
    variant: str
    width: int
    """Columns of the input, pixels; 0: the model could not be made."""
    height: int
    """Rows of the input, pixels."""
    parameters: int | None
    """Trained numbers."""
    macs: int | None
    """Multiply-accumulates of one image, as trained."""
    random_weights: bool
    """Whether its errors are those of an untrained network."""
    engine: str
    """Name of the engine or of a way to run the trained network."""
    precision: str
    """Of the arithmetic; where it did not run, what was asked for."""
    batch: int
    """Images per call; all times are per image."""
    reason: str
    """Why it did not run; empty where it did."""
    version: str = ''
    """Of the library."""
    device: str = ''
    """In words of the library."""
    notes: str = ''
    """What the engine had to say of itself, and why there is no error."""
    time: Spread | None = None
    """Of one image."""
    error: float | None = None
    """Largest difference from float64, as the network counts."""
    error_std: float | None = None
    """The same in standard deviations of the exact output."""
    depth_error: DepthError | None = None
    """None: no depth, or no float64."""
    start: Start | None = None
    peak_mib: float | None = None
    """Most memory of its process."""
    share_of_peak: float | None = None
    """Of the processor in this precision, by the smallest times."""
    share_of_peak_median: float | None = None
    """The same by medians."""


@dataclass(frozen=True)
class PeakRow:
    """What the processor reaches in one kind of arithmetic."""

    kind: str
    """One of peak.KINDS."""
    precision: str
    time: Spread | None
    """Of one call; None where it did not run."""
    gflops: float
    """By the smallest time, 1e9 operations a second, two per multiply-accumulate; 0: none."""
    gflops_median: float
    """By the median."""
    reason: str
    """Why it did not run; empty where it did."""


@dataclass(frozen=True)
class Measured:
    """What a run of engines gave."""

    rows: tuple[EngineRow, ...]
    peaks: tuple[PeakRow, ...]
    interrupted: bool
    """Whether Ctrl-C ended it early; what was timed until then counts."""


def measure(plan: Plan, folder: Path, note: Note = lambda text, done, total: None) -> Measured:
    """Prepare all models and time all contestants.

    :param folder: an empty folder to work in.
    :param note: called with what is done, steps done, and steps in all.
    """
    subjects = list(_subjects(plan, folder, note))
    with own_cache(folder / 'cache'):
        return _timed(plan, subjects, note)


def _timed(plan: Plan, subjects: Sequence[Subject], note: Note) -> Measured:
    """Time all contestants of prepared subjects."""
    groups = [[subject] for subject in subjects] if plan.apart else [list(subjects)]
    rows: list[EngineRow] = []
    peaks: list[PeakRow] = []
    interrupted = False
    for index, group in enumerate(groups):
        wanted = [
            (subject, engine, precision)
            for subject in group
            for engine in plan.engines
            for precision in precisions_of(plan, engine, subject)
        ]
        able = [item for item in wanted if not item[0].failure]
        named = _peak_contestants(plan) if index == 0 and plan.peaks else []
        contestants = [_contestant(*item, plan.threads) for item in able]
        first_s = {item: _first_load_s(*item, plan.threads) for item in able}
        timed, interrupted = take_patient_turns(
            [*contestants, *named],
            plan.rounds,
            plan.calls,
            lambda done, total: note('timing', done, total),
        )
        peaks += [_peak_row(item) for item in timed[len(able) :]]
        found = dict(zip(able, timed, strict=False))
        for item in wanted:
            result = found.get(item, _unmade(item[0]))
            rows.append(_row(*item, result, first_s.get(item), peaks))
        if interrupted:
            break
    return Measured(tuple(rows), tuple(peaks), interrupted)


def precisions_of(plan: Plan, engine: str, subject: Subject) -> tuple[str, ...]:
    """Return the precisions in which an engine is tried."""
    if engine in EAGER:
        return ('f32',)
    if plan.precisions:
        return plan.precisions
    usual = _PRECISIONS.get(engine, ('f32',))
    if engine == 'openvino' and subject.has_int8:
        return (*usual, 'int8')
    return usual


def summary(row: EngineRow) -> tuple[str, ...]:
    """Return the cells of one line for the terminal."""
    named = (row.model, f'{row.width}x{row.height}', row.engine, row.precision)
    if row.time is None:
        return (*named, row.reason)
    share = '' if row.share_of_peak is None else f'{100 * row.share_of_peak:.0f} %'
    return (
        *named,
        *(f'{value:.2f}' for value in (row.time.min_ms, row.time.median_ms)),
        *(f'{value:.2f}' for value in (row.time.p95_ms, row.time.p99_ms)),
        share,
        '' if row.error is None else f'{row.error:.1e}',
        '' if row.peak_mib is None else f'{row.peak_mib:.0f}',
    )


COLUMNS = (
    *('model', 'input', 'engine', 'arithmetic'),
    *('min ms', 'median', 'p95', 'p99', 'of peak', 'error', 'MiB'),
)
"""Of :func:`summary`."""


def _subjects(plan: Plan, folder: Path, note: Note) -> Iterator[Subject]:
    """Make all models, each in a process of its own; one that fails is named."""
    wanted = [(model, size) for model in plan.models for size in plan.sizes]
    for index, (model, size) in enumerate(wanted):
        note(f'making {model}', index, len(wanted))
        place = folder / str(index)
        place.mkdir()
        try:
            # what the engines compile here must not be found by the first start that is timed
            with own_cache(place / 'cache'):
                subject = in_own_process(model, prepared, model, size, place)
            yield subject
        except DepthNodeError as error:
            height, width = size or (0, 0)
            yield Subject(model, height=height, width=width, failure=str(error))


def _first_load_s(subject: Subject, engine: str, precision: str, threads: int) -> float | None:
    """Load once with an empty cache; why that fails is left to the contestant to say."""
    if engine not in KEEP_COMPILED:
        return None
    try:
        return in_own_process(subject.model, first_load_s, subject, engine, precision, threads)
    except DepthNodeError:
        return None


def _contestant(subject: Subject, engine: str, precision: str, threads: int) -> Contestant:
    name = f'{subject.model} {subject.width}x{subject.height} {engine} {precision}'
    return Contestant(name, open_contestant, (subject, engine, precision, threads))


def _peak_contestants(plan: Plan) -> list[Contestant]:
    return [
        Contestant(f'{kind}/{precision}', peak.open_peak, (kind, precision, plan.threads))
        for kind in peak.KINDS
        for precision in peak.PRECISIONS
    ]


def _peak_row(timed: Timed) -> PeakRow:
    kind, _, precision = timed.name.partition('/')
    if not timed.times_ns:
        return PeakRow(kind, precision, None, 0.0, 0.0, timed.failure or 'it had no turn')
    time, operations = spread_of(timed.times_ns), 2 * timed.figures['macs']
    return PeakRow(
        kind=kind,
        precision=precision,
        time=time,
        gflops=operations / time.min_ms / 1e6,
        gflops_median=operations / time.median_ms / 1e6,
        reason=timed.failure,
    )


def _unmade(subject: Subject) -> Timed:
    return Timed(subject.model, (), {}, 0.0, 0.0, subject.failure)


def _row(
    subject: Subject,
    engine: str,
    precision: str,
    timed: Timed,
    first_s: float | None,
    peaks: Sequence[PeakRow],
) -> EngineRow:
    """Put together what is known of one model on one engine."""
    batch = EAGER[engine].batch if engine in EAGER else 1
    row = EngineRow(
        model=subject.model,
        network=subject.network,
        variant=subject.variant,
        width=subject.width,
        height=subject.height,
        parameters=subject.parameters,
        macs=subject.macs,
        random_weights=subject.random_weights,
        engine=engine,
        precision=precision,
        batch=batch,
        reason=timed.failure or ('' if timed.times_ns else 'it had no turn'),
    )
    if not timed.times_ns:
        return row
    known = timed.figures
    time = spread_of([spent // batch for spent in timed.times_ns])
    row = replace(
        row,
        precision=known['precision'],
        version=known['version'],
        device=known['device'],
        notes='; '.join(text for text in (known['notes'], subject.note) if text),
        time=time,
        error=known.get('error'),
        error_std=known.get('error_std'),
        depth_error=_depth_error(known),
        start=Start(known['import_s'], first_s, known['load_s'], known['first_ms']),
        peak_mib=timed.peak_mib,
    )
    if 'cuda' in engine or engine == 'tensorrt' or subject.macs is None:
        return row
    return _held_to_peak(row, subject.macs, time, peaks)


def _depth_error(known: dict[str, float]) -> DepthError | None:
    if 'depth_error_p50' not in known:
        return None
    return DepthError(known['depth_error_p50'], known['depth_error_max'])


def _held_to_peak(row: EngineRow, macs: int, time: Spread, peaks: Sequence[PeakRow]) -> EngineRow:
    same = [item for item in peaks if item.precision == row.precision and item.time is not None]
    if not same:
        return row
    gflop = 2e-9 * macs
    return replace(
        row,
        share_of_peak=gflop / (time.min_ms / 1e3) / max(item.gflops for item in same),
        share_of_peak_median=gflop
        / (time.median_ms / 1e3)
        / max(item.gflops_median for item in same),
    )
