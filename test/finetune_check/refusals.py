"""Recordings and models that must not lead to a new model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import altered_recordings as spoilt
import torch
from finetune_start import hashes
from finetune_start import scaled_start

from depth_node.dataset.caching import CacheSettings
from depth_node.dataset.caching import cache_recording
from depth_node.dataset.frame_cache import FrameCache
from depth_node.dataset.sparse_depth import DEPTH_IMAGE
from depth_node.finetuning.start_model import StartModel
from depth_node.networks.make_model import make_model
from finetune_check.row import Row
from finetune_check.runs import MIXED
from finetune_check.runs import Run
from finetune_check.runs import Setting
from finetune_check.runs import finetuned
from finetune_check.runs import rendered

UNUSABLE, NOT_IMPROVED = 2, 3
_LESSONS = 400
_AT_ONCE = 4
_RATE = 3e-4


def spoilt_recordings(setting: Setting) -> Row:
    """Standing, noise, a wrong focal length, poses in disorder: refused."""
    row = Row('spoilt_recordings')
    good = rendered(setting, MIXED)
    start = scaled_start(setting.folder / 'start', 1.0).path
    for name in ('standing', 'noise', 'wrong_focal_length', 'shuffled_poses'):
        path = spoilt.altered(good, setting.folder / name, getattr(spoilt, name))
        run = finetuned(setting, path, start, f'run-{name}', steps=setting.steps)
        row.exactly(f'exit code, {name}', run.code, UNUSABLE)
        _kept(row, name, run, start)
    return row


def perfect_model(setting: Setting) -> Row:
    """A model that was taught the true depth of the recording, held-out time included."""
    row = Row('perfect_model')
    recording = rendered(setting, replace(MIXED, stand_still=False, turn=False))
    start = StartModel.open(str(scaled_start(setting.folder / 'bundled', 1.0).path))
    cache = cache_recording(recording, CacheSettings(start.sizes), setting.folder / 'taught')
    left = _teach(start, cache, max(20, round(_LESSONS * setting.share)), setting)
    row.told('Abs Rel of the model on its lessons, about', left)
    start.network.eval()
    perfect = setting.folder / 'perfect'
    card = replace(start.folder.card, name='perfect', storage='f32')
    make_model(start.network, card, perfect, start.sizes, storage='f32')
    run = finetuned(setting, recording, perfect, 'run', steps=setting.steps)
    row.exactly('exit code', run.code, NOT_IMPROVED)
    row.told('metric Abs Rel before', run.mean('metric.abs_rel', 'before'))
    row.told('metric Abs Rel after', run.mean('metric.abs_rel'))
    _kept(row, 'perfect', run, perfect)
    same = (run.root / 'best').exists() and hashes(run.root / 'best') == hashes(perfect)
    row.exactly('best is the start model byte for byte', same, 1)
    return row


def _kept(row: Row, name: str, run: Run, start: Path) -> None:
    best = run.root / 'best'
    row.exactly(f'start model untouched, {name}', run.start_kept, 1)
    row.exactly(f'new model written, {name}', best.exists() and hashes(best) != hashes(start), 0)


def _teach(start: StartModel, cache: FrameCache, lessons: int, setting: Setting) -> float:
    """Train the start network on measured depth; return the last mean error of log depth."""
    network, meaning = start.network, start.meaning()
    network.requires_grad_(True)
    draw = torch.Generator().manual_seed(0)
    adam = torch.optim.Adam(network.parameters(), lr=_RATE)
    fx = torch.full((_AT_ONCE,), cache.camera.fx)
    last = 0.0
    for lesson in range(lessons):
        for group in adam.param_groups:
            group['lr'] = _RATE * (1.0 - 0.95 * lesson / lessons)
        chosen = torch.randint(len(cache), (_AT_ONCE,), generator=draw).tolist()
        image = torch.stack([torch.from_numpy(cache.rgb(k).copy()) for k in chosen])
        inverse = meaning.inverse_depth(network(image.permute(0, 3, 1, 2) / 255.0)[0], fx)
        loss = sum(_log_error(inverse[at, 0], cache, k) for at, k in enumerate(chosen)) / _AT_ONCE
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        last = 0.95 * last + 0.05 * float(loss) if lesson else float(loss)
        if lesson % 50 == 0:
            setting.say(f'lesson {lesson} of {lessons}: error {last:.3f}')
    return last


def _log_error(inverse: torch.Tensor, cache: FrameCache, index: int) -> torch.Tensor:
    (part,) = [item for item in cache.sparse_all(index) if item.source.kind == DEPTH_IMAGE]
    height, width = inverse.shape
    u = torch.from_numpy(part.u).round().long().clamp(0, width - 1)
    v = torch.from_numpy(part.v).round().long().clamp(0, height - 1)
    depth = torch.from_numpy(part.depth_m).float()
    return (inverse[v, u] * depth).clamp_min(1e-4).log().abs().mean()
