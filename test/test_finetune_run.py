"""The whole command on a small recording: what it leaves, what it never touches, how it ends."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import altered_recordings as spoilt
import cv2
import numpy as np
import pytest
import torch
from finetune_start import command
from finetune_start import exported_without_graphs
from finetune_start import hashes
from finetune_start import scaled_start
from safetensors.torch import load_file

from depth_node import model_folder
from depth_node.dataset import cache_writer
from depth_node.dataset import even_scale
from depth_node.dataset import scale
from depth_node.dataset.frame_cache import open_cache
from depth_node.finetuning import auditing
from depth_node.finetuning import learning
from depth_node.finetuning import progress
from depth_node.finetuning import stages
from depth_node.finetuning import trainer
from depth_node.finetuning.run_folder import STAGES
from depth_node.finetuning.run_folder import RunFolder
from depth_node.tools import finetune
from depth_node.world.recording import RecordingSettings
from depth_node.world.recording import write

ROOT = Path(__file__).parents[1]
RECORDED = RecordingSettings(seconds=10.0, rate_hz=5.0, width=160, height=120)
STEPS = 4
SAVE_EVERY = 2
KILLED_AT = 3
REFUSED, UNUSABLE, NOT_IMPROVED, STOPPED = 1, 2, 3, 130
FIRST = ('.lock', 'audit.json', 'cache.json', 'frames')


@pytest.fixture(scope='session')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a recording, a start model four times too near, and a right one."""
    path = tmp_path_factory.mktemp('finetune')
    write(path / 'drive', RECORDED, workers=1)
    scaled_start(path / 'near', 1 / 4)
    scaled_start(path / 'right', 1.0)
    return path


@pytest.fixture(scope='session')
def first(place: Path) -> SimpleNamespace:
    """Run the command once, to its end, with the real export."""
    before = hashes(place / 'near')
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        save_often(patch)
        code = run(place, place / 'run', 'near')
    return SimpleNamespace(code=code, root=place / 'run', before=before)


@pytest.fixture(autouse=True)
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    save_often(monkeypatch)


def save_often(patch: pytest.MonkeyPatch) -> None:
    """Save every second step: a checkpoint of the usual hundred would come after the end."""
    patch.setattr(scale, '_MOST_FRAMES', 6)
    patch.setattr(even_scale, '_MOST_FRAMES', 6)
    patch.setattr(
        learning,
        'TrainingSettings',
        lambda **given: replace(
            trainer.TrainingSettings(**given), save_every=SAVE_EVERY, record_every=1
        ),
    )


@pytest.fixture
def quick_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, 'exported', exported_without_graphs)


def run(place: Path, out: Path, model: str, *verb: str, **options: Any) -> int:
    before = signal.getsignal(signal.SIGTERM)
    options = {'steps': STEPS, 'batch': 2, 'workers': 1, **options}
    try:
        return finetune.main(
            [*verb, *command(place / options.pop('bag', 'drive'), out, place / model, **options)]
        )
    finally:
        signal.signal(signal.SIGTERM, before)


def copied(first: SimpleNamespace, out: Path, *names: str) -> Path:
    """Return a run folder that has got as far as some files of a finished one."""
    out.mkdir()
    for name in names or [path.name for path in first.root.iterdir()]:
        source = first.root / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, out / name)
    return out


def on_step(patch: pytest.MonkeyPatch, act: Callable[[trainer.Progress], None]) -> None:
    """Call something after every training step."""
    patch.setattr(progress.Bars, 'trained', lambda self, told: act(told))


def averaged(out: Path) -> dict[str, torch.Tensor]:
    """Return what the only checkpoint of a run holds of the averaged network."""
    (path,) = (out / 'training').glob('*/last.pt')
    held: dict[str, torch.Tensor] = torch.load(path, weights_only=True)['averaged']
    return held


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob('.*') if path.name != '.lock']


def test_a_run_leaves_a_better_model_a_record_per_stage_and_a_report(place, first):
    assert first.code == 0
    for stage in STAGES:
        record = json.loads((first.root / f'{stage}.json').read_text())
        assert record['stage'] == stage and record['result'] and record['took_s'] >= 0
    assert hashes(first.root / 'best') == hashes(first.root / 'candidate')
    made = model_folder.read(first.root / 'best').card
    start = model_folder.read(place / 'near').card
    assert made.depth_scale > 1.5 * start.depth_scale
    assert made.parent.startswith('start ') and made.metrics['fine-tuning']['steps'] == STEPS
    told = json.loads((first.root / 'report.json').read_text())['result']
    assert told['verdict']['outcome'] == 'improved' and told['verdict']['exit_code'] == 0
    assert 'drive' in told['command'] and len(told['plots']) == 2
    page = (first.root / 'report.html').read_text()
    assert page.startswith('<!doctype html>') and 'src="http' not in page
    assert not leftovers(first.root)


def test_the_start_model_is_never_touched(place, first):
    assert hashes(place / 'near') == first.before


def test_the_same_command_again_does_nothing_and_says_the_same(place, first, monkeypatch):
    monkeypatch.setattr(auditing, 'audit_recording', forbidden('audit_recording'))
    for name in ('prepared', 'learned', 'exported', 'proven', 'publish'):
        monkeypatch.setattr(stages, name, forbidden(name))
    monkeypatch.setattr(stages, 'run_report', forbidden('run_report'))
    monkeypatch.setattr(cache_writer.CacheWriter, 'add', forbidden('CacheWriter.add'))
    before = {path: path.stat().st_mtime_ns for path in first.root.rglob('*')}
    assert run(place, first.root, 'near') == 0
    assert {path: path.stat().st_mtime_ns for path in first.root.rglob('*')} == before


def forbidden(name: str) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise AssertionError(f'{name} ran again')

    return call


def test_a_changed_option_redoes_only_what_follows(
    place, first, tmp_path, monkeypatch, quick_export
):
    out = copied(first, tmp_path / 'run')
    monkeypatch.setattr(auditing, 'audit_recording', forbidden('audit_recording'))
    monkeypatch.setattr(cache_writer.CacheWriter, 'add', forbidden('CacheWriter.add'))
    assert run(place, out, 'near', 'train', seed=1) == 0
    kept, made = hashes(first.root), hashes(out)
    for name in ('audit.json', 'cache.json', 'evaluate.json', 'report.json'):
        assert made[name] == kept[name]
    assert made['train.json'] != kept['train.json']
    assert made['candidate/weights.safetensors'] != kept['candidate/weights.safetensors']
    # the proof on record is of the other candidate: it does not count, and ``best`` waits for one
    monkeypatch.setattr(stages, 'proven', forbidden('proven'))
    with pytest.raises(AssertionError, match='proven ran again'):
        run(place, out, 'near', seed=1)


def test_a_run_that_was_killed_goes_on_to_the_same_weights(
    place, first, tmp_path, monkeypatch, quick_export
):
    parts = copied(first, tmp_path / 'parts', *FIRST)
    words = ['train', *command(place / 'drive', parts, place / 'near', steps=STEPS, batch=2)]
    code = (
        'import os, signal, sys\n'
        'from dataclasses import replace\n'
        'from depth_node.finetuning import learning, progress, trainer\n'
        'from depth_node.tools import finetune\n'
        'made = learning.TrainingSettings\n'
        'from depth_node.dataset import even_scale, scale\n'
        'scale._MOST_FRAMES = even_scale._MOST_FRAMES = 6\n'
        f'few = dict(save_every={SAVE_EVERY}, record_every=1)\n'
        'learning.TrainingSettings = lambda **given: replace(made(**given), **few)\n'
        'def die(bars, told):\n'
        f'    if told.step == {KILLED_AT}:\n'
        '        os.kill(os.getpid(), signal.SIGKILL)\n'
        'progress.Bars.trained = die\n'
        f'finetune.main({words!r})\n'
    )
    died = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    assert not (parts / 'train.json').exists() and not (parts / 'candidate').exists()
    steps = []
    on_step(monkeypatch, lambda told: steps.append(told.step))
    assert run(place, parts, 'near', 'train', workers=0) == 0
    assert steps == list(range(SAVE_EVERY + 1, STEPS + 1))
    mine, theirs = averaged(parts), averaged(first.root)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    weights = [
        hashes(folder)['weights.safetensors']
        for folder in (parts / 'candidate', first.root / 'candidate', place / 'near')
    ]
    assert weights[0] == weights[1] != weights[2]


def test_ctrl_c_ends_the_training_with_130_and_a_sentence(
    place, first, tmp_path, monkeypatch, capsys
):
    out = copied(first, tmp_path / 'run', *FIRST)

    def interrupt(told: trainer.Progress) -> None:
        if told.step == KILLED_AT:
            signal.raise_signal(signal.SIGINT)

    on_step(monkeypatch, interrupt)
    assert run(place, out, 'near') == STOPPED
    assert 'the same command goes on from here' in capsys.readouterr().err
    assert not (out / 'candidate').exists() and not (out / 'best').exists()
    assert averaged(out) and not leftovers(out)


def test_sigterm_is_as_ctrl_c(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        auditing, 'audit_recording', lambda *_: signal.raise_signal(signal.SIGTERM)
    )
    assert run(place, tmp_path / 'run', 'near') == STOPPED
    assert 'the same command goes on from here' in capsys.readouterr().err


def small_files(limit_bytes: int) -> None:
    """Let the system refuse larger files, as a full disk refuses all."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, most))


@pytest.mark.parametrize(
    ('stage', 'limit_bytes', 'reached'),
    [
        ('audit_recording', 500, ()),
        ('cache_recording', 20_000, ()),
        ('learned', 8_000_000, FIRST),
        ('exported', 100_000, (*FIRST, 'training')),
        ('publish', 100_000, (*FIRST, 'train.json', 'candidate', 'evaluate.json')),
    ],
)
def test_a_full_disk_ends_any_stage_with_a_sentence_and_without_half_folders(
    place, first, tmp_path, monkeypatch, capsys, quick_export, stage, limit_bytes, reached
):
    out = copied(first, tmp_path / 'run', *(reached or ['.lock']))
    room = auditing if stage == 'audit_recording' else stages
    real = getattr(room, stage)

    def from_here_on(*given: Any, **named: Any) -> Any:
        small_files(limit_bytes)
        return real(*given, **named)

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(room, stage, from_here_on)
    try:
        code = run(place, out, 'near')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    said = capsys.readouterr().err
    assert code == REFUSED
    assert 'disk' in said and 'run the same command again' in said
    assert 'Traceback' not in said
    assert not leftovers(out)
    for name in ('candidate', 'best'):
        if (out / name).exists():
            model_folder.read(out / name)


def test_what_is_not_better_leaves_the_start_model_byte_for_byte(
    place, first, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        stages, 'exported', lambda start, *_: shutil.copytree(start.folder.path, _[-1])
    )
    before = hashes(place / 'right')
    out = tmp_path / 'run'
    assert run(place, out, 'right', scale='none', steps=2) == NOT_IMPROVED
    assert hashes(out / 'best') == before == hashes(place / 'right')
    assert 'not improved' in capsys.readouterr().out
    assert json.loads((out / 'report.json').read_text())['result']['verdict']['exit_code'] == 3
    assert run(place, out, 'right', scale='none', steps=2) == NOT_IMPROVED


def test_a_damaged_weight_in_best_or_candidate_is_put_right_when_the_command_runs_again(
    place, first, tmp_path, monkeypatch
):
    out = copied(first, tmp_path / 'run')
    monkeypatch.setattr(stages, 'proven', forbidden('proven'))
    before = hashes(out / 'best')
    for spoil in (flipped, cut, Path.unlink):
        spoil(out / 'best' / 'weights.safetensors')
        assert run(place, out, 'near') == 0
        assert hashes(out / 'best') == before
    # without a whole candidate nothing may be handed out as proven: it is written again
    flipped(out / 'candidate' / 'weights.safetensors')
    flipped(out / 'best' / 'weights.safetensors')
    monkeypatch.setattr(stages, 'learned', forbidden('learned'))
    with pytest.raises(AssertionError, match='learned ran again'):
        run(place, out, 'near')


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_of_the_states_of_older_trainings_the_last_one_is_kept_and_none_that_is_held(tmp_path):
    folder, other = RunFolder(tmp_path), RunFolder(tmp_path)
    for age, key in enumerate(('first', 'held', 'third', 'last', 'now')):
        (folder.checkpoint / key).mkdir(parents=True)
        state = folder.checkpoint / key / 'last.pt'
        state.write_bytes(b'state')
        os.utime(state, ns=(age * 10**9, age * 10**9))
        os.utime(folder.checkpoint / key, ns=(0, 0))
    with RunFolder(tmp_path, leads=False).training('held'), folder.training('now') as current:
        assert current == folder.checkpoint / 'now'
        kept = {path.name for path in folder.checkpoint.iterdir()}
        assert kept == {'held', 'last', 'now'}
        assert folder.removed_trainings == ['first', 'third']
    with other.training('last'):
        pass
    assert {path.name for path in folder.checkpoint.iterdir()} == {'last', 'now'}


def test_a_mask_of_the_robot_reaches_the_frames_and_a_bad_one_stops_at_the_door(
    place, tmp_path, capsys
):
    out, mask, bad = tmp_path / 'run', tmp_path / 'mask.png', tmp_path / 'bad.png'
    drawn = np.zeros((120, 160), np.uint8)
    drawn[90:] = 255
    cv2.imwrite(str(mask), drawn)
    cv2.imwrite(str(bad), 255 - 0 * drawn)
    assert run(place, tmp_path / 'none', 'near', 'cache', ego_mask=bad) == REFUSED
    assert 'white is the robot' in capsys.readouterr().err and not (tmp_path / 'none').exists()
    assert run(place, out, 'near', 'cache', ego_mask=mask) == 0
    (frames,) = (out / 'frames').iterdir()
    seen = open_cache(frames).seen
    lowest = round(0.75 * len(seen))
    assert seen[: lowest - 1].all() and not seen[lowest + 1 :].any()


def test_a_folder_in_which_another_run_works_is_left_alone(place, tmp_path, capsys):
    with RunFolder(tmp_path).locked():
        assert run(place, tmp_path, 'near') == REFUSED
    assert 'another process works' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['.lock']


def test_frames_that_another_run_has_cached_are_not_decoded_again(
    place, tmp_path, monkeypatch, capsys
):
    shared = tmp_path / 'frames'
    assert run(place, tmp_path / 'one', 'near', 'cache', frames=shared) == 0
    before = hashes(shared)
    assert before and not (tmp_path / 'one' / 'frames').exists()
    monkeypatch.setattr(cache_writer.CacheWriter, 'add', lambda *_, **__: pytest.fail('decoded'))
    assert run(place, tmp_path / 'two', 'near', 'cache', frames=shared) == 0
    assert hashes(shared) == before
    capsys.readouterr()


@pytest.mark.slow
def test_two_processes_of_torchrun_learn_what_one_learns(place, tmp_path):
    given = {'steps': STEPS, 'batch': 2, 'precision': 'float32', 'frames': tmp_path / 'frames'}
    made = {}
    for name, launcher in (
        ('one', [sys.executable]),
        ('two', [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2']),
    ):
        out = tmp_path / name
        words = command(place / 'drive', out, place / 'near', **given)
        subprocess.run(
            [*launcher, '-m', 'depth_node.tools.finetune', 'train', *words],
            cwd=ROOT,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=300,
        )
        made[name] = load_file(out / 'candidate' / 'weights.safetensors')
    start = load_file(place / 'near' / 'weights.safetensors')
    moved = apart = 0.0
    for key, value in made['one'].items():
        if value.is_floating_point():
            moved += float((value.float() - start[key].float()).abs().sum())
            apart += float((value.float() - made['two'][key].float()).abs().sum())
    assert apart < 0.02 * moved


def test_processes_that_train_along_are_told_once_whatever_asks_for_the_training(
    place, first, tmp_path, monkeypatch
):
    told = []
    monkeypatch.setattr(stages.torchrun, 'tell', told.append)
    monkeypatch.setattr(stages, 'page', lambda report: 'page')
    out = copied(first, tmp_path / 'run')
    (out / 'report.json').unlink()
    assert run(place, out, 'near') == 0  # the report asks for the training again
    assert told == [False]
    for verb, bag, status in (('audit', 'drive', 0), ('', 'missing', UNUSABLE)):
        told.clear()
        assert run(place, tmp_path / 'other', 'near', *filter(None, [verb]), bag=bag) == status
        assert told == [False]


@pytest.mark.slow
def test_torchrun_ends_with_the_report(place, first, tmp_path):
    out = copied(first, tmp_path / 'run')
    (out / 'report.json').unlink()
    words = command(place / 'drive', out, place / 'near', steps=STEPS, batch=2, workers=1)
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2']
    subprocess.run(
        [*launcher, '-m', 'depth_node.tools.finetune', *words],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=300,
    )
    assert (out / 'report.json').exists()


def test_a_verb_ends_the_run_after_its_stage(place, first, tmp_path, capsys):
    def made(out: Path) -> set[str]:
        return {path.stem for path in out.glob('*.json')}

    out = tmp_path / 'run'
    assert run(place, out, 'near', 'audit') == 0
    assert made(out) == {'audit'} and 'verdict' in capsys.readouterr().out
    assert run(place, out, 'near', 'cache') == 0
    assert made(out) == {'audit', 'cache'} and not (out / 'training').exists()
    out = copied(first, tmp_path / 'trained', *FIRST, 'train.json', 'candidate', 'evaluate.json')
    assert run(place, out, 'near', 'train') == 0
    assert made(out) == {'audit', 'cache', 'train', 'evaluate'} and not (out / 'best').exists()
    assert run(place, out, 'near', 'evaluate') == 0
    assert made(out) == {'audit', 'cache', 'train', 'evaluate'}
    assert hashes(out / 'best') == hashes(first.root / 'best')
    assert run(place, out, 'near', 'report') == 0
    assert made(out) == set(STAGES)


@pytest.mark.parametrize(
    ('alter', 'reason'),
    [(spoilt.standing, 'standing still'), (spoilt.noise, 'images are noise')],
)
def test_unusable_recordings_end_with_2_and_the_reason(place, tmp_path, capsys, alter, reason):
    before = hashes(place / 'near')
    spoilt.altered(place / 'drive', tmp_path / 'bad', alter)
    assert run(tmp_path, tmp_path / 'run', place / 'near', bag='bad') == UNUSABLE
    assert reason in capsys.readouterr().err
    assert not (tmp_path / 'run' / 'best').exists()
    assert hashes(place / 'near') == before


def test_a_recording_that_teaches_too_little_ends_with_2_and_counts_the_frames(
    place, tmp_path, capsys
):
    spoilt.altered(place / 'drive', tmp_path / 'short', spoilt.first_messages(24))
    assert run(tmp_path, tmp_path / 'run', place / 'near', bag='short') == UNUSABLE
    assert 'frames that can be learned from' in capsys.readouterr().err
    assert run(tmp_path, tmp_path / 'run', place / 'near', bag='missing') == UNUSABLE
