"""What the report of a run says, gathered from its records."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from typing import TYPE_CHECKING
from typing import Any

from depth_node import __version__
from depth_node.files import sha256_of
from depth_node.finetuning.pooled_scale import contradictions
from depth_node.finetuning.proof import Proof
from depth_node.judging.bootstrap import BlockSettings
from depth_node.judging.by_take import worsened
from depth_node.judging.exhibits import evenly_spread
from depth_node.judging.exhibits import frames_shown
from depth_node.judging.exhibits import worst_places
from depth_node.judging.judgement import Judgement
from depth_node.judging.judgement import Series
from depth_node.judging.models import opened_models
from depth_node.judging.report import FrameShown
from depth_node.judging.report import ModelRecord
from depth_node.judging.report import Plot
from depth_node.judging.report import RunReport
from depth_node.judging.report import ScaleRow
from depth_node.judging.unreferenced import has_reference
from depth_node.model_folder import ModelFolder
from depth_node.model_folder import read

if TYPE_CHECKING:
    from depth_node.finetuning.stages import FineTuning

_SHOWN = 12
_WORST = 6
_PACKAGES = ('torch', 'numpy', 'opencv-python-headless', 'rosbags', 'openvino', 'onnxruntime')
_FEW_SECONDS = 'The held-out time is short, so that blocks of {block:.2g} s stand behind the '
_FEW_SECONDS += 'intervals: they say little about other places.'


def run_report(run: FineTuning, proof: Proof) -> RunReport:
    """Gather what a run has found.

    :raises RecordingError: when images cannot be read again.
    """
    record = run.train()
    frames, worst = _exhibits(run, proof)
    return RunReport(
        title=f'Fine-tuning of {run.start.folder.card.name}',
        command=run.command,
        verdict=proof.verdict,
        judgements=(proof.before, proof.after),
        comparison=proof.comparison,
        parts=proof.parts,
        audits={take.name: _as_json(audit) for take, audit in run.audit()},
        dropped={name: item['dropped'] for name, item in record['recordings'].items()},
        plots=_plots(record['curve']),
        scales=_scales(record),
        frames=frames,
        worst=worst,
        models=(
            _model_record('before', run.start.folder),
            _model_record('after', read(run.folder.candidate)),
        ),
        versions=versions(),
        blocks=BlockSettings(block_s=proof.block_s),
        notes=_notes(run, proof, record),
    )


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    found = {'depth_node': __version__, 'Python': platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _exhibits(
    run: FineTuning, proof: Proof
) -> tuple[tuple[FrameShown, ...], tuple[FrameShown, ...]]:
    """Return held-out images by both models: evenly spread, and the worst of the new one."""
    series = _decisive(proof.after)
    if series is None:
        return (), ()
    spread, worst = evenly_spread(series, _SHOWN), worst_places(series, _WORST)
    shown: dict[bool, list[FrameShown]] = {False: [], True: []}
    folders = [str(run.start.folder.path), str(run.folder.candidate)]
    with opened_models(folders) as (before, after):
        for item in run.prepare().recordings:
            judging = run.judging.of(item.take)
            if has_reference(item.path, judging):
                for bad, places in ((False, spread), (True, worst)):
                    shown[bad] += frames_shown(
                        before, after, item.path, item.name, places, judging
                    )
    return tuple(shown[False]), tuple(shown[True])


def _decisive(judgement: Judgement) -> Series | None:
    """Return the measure that images are chosen by."""
    return judgement.series.get('metric.abs_rel')


def _plots(curve: list[dict[str, float]]) -> tuple[Plot, ...]:
    """Return the curves of a training."""
    if not curve:
        return ()

    def points(name: str) -> list[tuple[float, float]]:
        return [(row['step'], row[name]) for row in curve if row.get(name) is not None]

    parts = [name for name in curve[-1] if name not in ('step', 'ratio', 'won', 'identity')]
    return (
        Plot(
            'Photometric error, as a share of that of standing still',
            'step',
            {'photometric / standing still': points('ratio')},
        ),
        Plot('Parts of the loss', 'step', {name: points(name) for name in parts}),
    )


def _scales(record: Mapping[str, Any]) -> tuple[ScaleRow, ...]:
    rows = [('', item) for item in record['estimates']]
    if len(record['by_take']) > 1:
        rows = [('all: ', item) for _, item in rows]
        rows += [(f'{name}: ', item) for name, of in record['by_take'].items() for item in of]
    return tuple(
        ScaleRow(
            source=whose + item['source'],
            scale=_number(item['scale']),
            spread=_number(item['spread']),
            samples=item['samples'],
            slope=_number(item['slope']),
            usable=item['usable'],
            remark=item['remark'],
            chosen=whose in ('', 'all: ') and item['source'] == record['chosen'],
        )
        for whose, item in rows
    )


def _notes(run: FineTuning, proof: Proof, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what a reader should know beside the figures."""
    notes = [record['stopped']] if record['stopped'] else []
    if proof.block_s < 1.0:
        notes.append(_FEW_SECONDS.format(block=proof.block_s))
    notes += run.left_out
    notes += contradictions(run.prepare().by_take)
    notes += worsened(proof.parts, proof.verdict.primary)
    if run.settings.hidden:
        notes.append(f'Hidden from the training: {", ".join(run.settings.hidden)}.')
    return tuple(notes)


def _model_record(role: str, folder: ModelFolder) -> ModelRecord:
    hashes = {name: item.sha256 for name, item in folder.card.files.items()}
    return ModelRecord(role, folder.card.name, {**hashes, 'card.yaml': _card_hash(folder)})


def _card_hash(folder: ModelFolder) -> str:
    return sha256_of(folder.path / 'card.yaml')


def _as_json(audit: Any) -> Mapping[str, Any]:
    import json

    value = json.loads(audit.to_json())
    return value if isinstance(value, dict) else {}


def _number(value: float | None) -> float:
    return float('nan') if value is None else value
