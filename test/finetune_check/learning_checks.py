"""What a fine-tuning gains: on a procedural scene, and in a room that is none of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import altered_recordings as spoilt
import numpy as np
from finetune_start import scaled_start

from depth_node import model_folder
from depth_node.dataset.audit_recording import audit_recording
from depth_node.dataset.sparse_depth import TRACKS
from finetune_check.row import Row
from finetune_check.runs import BENT_DEPTH
from finetune_check.runs import COMPRESSED
from finetune_check.runs import DRIVE
from finetune_check.runs import RIG
from finetune_check.runs import Run
from finetune_check.runs import Setting
from finetune_check.runs import finetuned
from finetune_check.runs import rendered

_WRONG = 1 / 3
_SEEDS = (0, 1, 2)
_BUNDLED = 'lite-mono-small-world'


def wrong_scale(setting: Setting) -> Row:
    """A bent lens and a model whose metres are wrong three times; MCAP and SQLite alike."""
    row = Row('wrong_scale')
    mcap = rendered(setting, DRIVE)
    sqlite = spoilt.altered(mcap, setting.folder / 'sqlite', storage='sqlite3')
    start = scaled_start(setting.folder / 'start', _WRONG).path
    runs = {
        name: finetuned(
            setting, path, start, f'run-{name}', steps=setting.steps,
            hide=[BENT_DEPTH + COMPRESSED], rate=10,
        )
        for name, path in (('mcap', mcap), ('sqlite', sqlite))
    }  # fmt: skip
    first, second = runs.values()
    row.exactly('exit code', first.code, 0)
    row.exactly('start model untouched', first.start_kept and second.start_kept, 1)
    row.told('scale found, of 3 by construction', first.record('train')['scale'])
    row.at_most('error of the scale after, held-out', abs(_scale(first) - 1.0), 0.03)
    row.at_most('metric Abs Rel, change', first.change('metric.abs_rel'), -0.5)
    row.at_most('median-scaled Abs Rel, change', first.change('median.abs_rel'), -0.1)
    for name in ('metric.abs_rel', 'median.abs_rel'):
        row.told(f'{name} before', first.mean(name, 'before'))
        row.told(f'{name} after', first.mean(name))
        apart = abs(first.mean(name) / second.mean(name) - 1.0)
        row.at_most(f'{name}, MCAP against SQLite', apart, 0.02)
    row.told('seconds of one run', first.seconds)
    return row


def several_cameras(setting: Setting) -> Row:
    """Two cameras of one recording in one run, their depth hidden: each must gain by itself."""
    row = Row('several_cameras')
    path = rendered(setting, RIG)
    start = scaled_start(setting.folder / 'start', _WRONG).path
    hidden = [f'/{name}/depth/image_rect{COMPRESSED}' for name in ('camera', 'left')]
    run = finetuned(setting, path, start, 'run', steps=setting.steps, hide=hidden, rate=10)
    row.exactly('exit code', run.code, 0)
    row.exactly('start model untouched', run.start_kept, 1)
    parts = run.record('evaluate')['parts']
    row.exactly('cameras judged', len(parts), 2)
    targets = {name: item['targets'] for name, item in run.record('train')['recordings'].items()}
    for take, comparison in parts.items():
        camera = take.partition(' ')[2]
        row.at_least(f'frames learned from, {camera}', targets[take], 20)
        for name, asked in (('metric.abs_rel', -0.5), ('median.abs_rel', 0.0)):
            change = comparison['changes'][name]
            row.at_most(
                f'{name}, change, {camera}', change['after'] / change['before'] - 1.0, asked
            )
            row.told(f'{name} after, {camera}', change['after'])
    scales = [
        item['scale']
        for estimates in run.record('train')['by_take'].values()
        for item in estimates
        if item['source'].startswith(TRACKS)
    ]
    row.told('scale by tracks, one camera over the other', scales[0] / scales[1])
    row.told('seconds', run.seconds)
    return row


def _scale(run: Run) -> float:
    """Return the factor by which the new model's held-out depth is wrong, median over frames."""
    series = run.record('evaluate')['after']['series']['scale']['values']
    return float(np.median([value for value in series if value is not None]))


def livingroom(setting: Setting) -> Row:
    """A room that is not ours, its depth hidden from the training, with three seeds."""
    row = Row('livingroom')
    path = setting.livingroom
    if path is None or not path.exists():
        row.skipped = f'The recording {path} is not here; name it with LIVINGROOM=path.'
        return row
    hidden = audit_recording(path).choice.depth
    start = Path(shutil.copytree(model_folder.find(_BUNDLED), setting.folder / 'start'))
    for seed in _SEEDS:
        given = {} if setting.share == 1.0 else {'steps': setting.steps}
        run = finetuned(setting, path, start, f'run-{seed}', hide=[hidden], seed=seed, **given)
        row.at_most(
            f'median-scaled Abs Rel, change, seed {seed}', run.change('median.abs_rel'), -0.15
        )
        row.at_most(f'metric Abs Rel, change, seed {seed}', run.change('metric.abs_rel'), -0.3)
        row.exactly(f'exit code, seed {seed}', run.code, 0)
        row.at_most(f'minutes, seed {seed}', run.seconds / 60.0, 30.0)
        row.exactly(f'start model untouched, seed {seed}', run.start_kept, 1)
    return row
