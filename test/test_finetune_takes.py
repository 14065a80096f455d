"""Two cameras of one recording in one run: what each of them gets, and what they share."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import altered_recordings as spoilt
import numpy as np
import pytest
import torch
from finetune_start import command
from finetune_start import exported_without_graphs
from finetune_start import hashes
from finetune_start import scaled_start

from depth_node.dataset import cache_writer
from depth_node.dataset import scale
from depth_node.dataset.scale import ScaleEstimate
from depth_node.dataset.takes import Take
from depth_node.dataset.topics import TopicChoice
from depth_node.errors import DepthNodeError
from depth_node.errors import SettingsError
from depth_node.finetuning import auditing
from depth_node.finetuning import learning
from depth_node.finetuning import preparation
from depth_node.finetuning import proof
from depth_node.finetuning import stages
from depth_node.finetuning import telling
from depth_node.finetuning.kept_scale import KeptScale
from depth_node.finetuning.pooled_scale import APART
from depth_node.finetuning.pooled_scale import contradictions
from depth_node.finetuning.pooled_scale import pooled
from depth_node.finetuning.run_folder import RunFolder
from depth_node.finetuning.samples import BatchSettings
from depth_node.finetuning.samples import Footage
from depth_node.finetuning.samples import Samples
from depth_node.finetuning.settings import FineTuneSettings
from depth_node.finetuning.stages import FineTuning
from depth_node.finetuning.stages import Voice
from depth_node.judging.judgement import Judgement
from depth_node.model_folder.card import LARGEST_CARD_BYTES
from depth_node.model_folder.card import card_from_yaml
from depth_node.model_folder.card import card_to_yaml
from depth_node.tools import evaluate
from depth_node.tools import finetune
from depth_node.world.recording import RecordingSettings
from depth_node.world.recording import write
from depth_node.world.rig import CameraMount

LEFT = CameraMount('left', right_m=-0.1, yaw_rad=-0.7, depth=True)
RECORDED = RecordingSettings(
    seconds=6.0, rate_hz=4.0, width=160, height=120, extra_cameras=(LEFT,)
)
SECOND = 1_000_000_000
NOT_IMPROVED = 3
FRONT_IMAGE, LEFT_IMAGE = '/camera/image_raw/compressed', '/left/image_raw/compressed'
NAMES = [f'drive {FRONT_IMAGE}', f'drive {LEFT_IMAGE}']


@pytest.fixture(scope='session')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a recording of two cameras and a start model three times too near."""
    path = tmp_path_factory.mktemp('takes')
    write(path / 'drive', RECORDED, workers=1)
    scaled_start(path / 'near', 1 / 3)
    return path


@pytest.fixture(autouse=True)
def few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, '_MOST_FRAMES', 6)
    torch.set_num_threads(1)


def run(place: Path, out: Path, *verb: str, bag: Path | None = None, **options: Any) -> int:
    before = signal.getsignal(signal.SIGTERM)
    options = {'steps': 2, 'batch': 2, 'workers': 1, **options}
    try:
        words = command(bag or place / 'drive', out, place / 'near', **options)
        return finetune.main([*verb, *words])
    finally:
        signal.signal(signal.SIGTERM, before)


def run_of(place: Path, out: Path, said: list[str], **changes: Any) -> FineTuning:
    settings = FineTuneSettings((place / 'drive',), str(place / 'near'), **changes)
    out.mkdir(exist_ok=True)
    return FineTuning(settings, RunFolder(out, place / 'frames'), Voice(said.append))


@pytest.fixture(scope='session')
def prepared(place: Path) -> FineTuning:
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale, '_MOST_FRAMES', 6)
        made = run_of(place, place / 'run', said)
        made._tell_preparation(made.prepare())
    made.said = said  # type: ignore[attr-defined]
    return made


def test_both_cameras_are_audited_cached_and_learned_from(prepared):
    audits = {take.name: audit for take, audit in prepared.audit()}
    assert list(audits) == NAMES and all(audit.usable for audit in audits.values())
    assert {audit.camera_frame for audit in audits.values()} == {
        'camera_optical_frame', 'left_optical_frame',
    }  # fmt: skip
    folders = {cache.root for _, cache in prepared.cache()}
    assert len(folders) == 2
    one, other = prepared.prepare().recordings
    assert len(one.plan.targets) > 5 and len(other.plan.targets) > 5
    assert one.held_out.targets.keys() and other.held_out.targets.keys()
    apart = one.cache.frames[3].pose[:3, 3] - other.cache.frames[3].pose[:3, 3]
    assert np.linalg.norm(apart) == pytest.approx(0.1, abs=1e-3)


def test_no_camera_learns_from_time_that_another_one_is_judged_by(prepared):
    spans = [
        [item.cache.stamps_ns[list(part)] for part in (item.split.train, item.split.held_out)]
        for item in prepared.prepare().recordings
    ]
    assert max(train.max() for train, _ in spans) < min(held.min() for _, held in spans)


def test_a_camera_that_starts_late_is_held_out_by_the_same_clock():
    path = Path('drive')
    whole, late = (stamped(first, 100) for first in (0, 50))
    caches = [(Take(path, name, TopicChoice()), c) for name, c in (('a', whole), ('b', late))]
    other = (Take(Path('x'), 'x', TopicChoice()), stamped(-900, 900))
    splits = [
        preparation._split(cache, preparation._span_ns(take, [*caches, other]))
        for take, cache in caches
    ]
    for (_, cache), split in zip(caches, splits, strict=True):
        assert cache.stamps_ns[split.held_out[0]] == 80 * SECOND
        assert cache.stamps_ns[split.train[-1]] < 78 * SECOND


def stamped(first: int, end: int) -> Any:
    stamps = np.arange(first, end) * SECOND
    frames = [SimpleNamespace(index=k, stamp_ns=int(at)) for k, at in enumerate(stamps)]
    return SimpleNamespace(stamps_ns=stamps, frames=frames)


def test_every_camera_and_source_says_its_scale_and_one_factor_is_chosen(prepared):
    found = prepared.prepare()
    assert list(found.by_take) == NAMES
    depths = [estimates[0] for estimates in found.by_take.values()]
    assert [item.source for item in depths] == [
        'depth /camera/depth/image_rect/compressedDepth',
        'depth /left/depth/image_rect/compressedDepth',
    ]
    assert found.chosen.kind == 'depth'
    low, high = sorted(item.scale for item in depths)
    assert low <= found.scale <= high
    told = '\n'.join(prepared.said)
    assert f'on {NAMES[1]}: ' in told
    assert ' of all: ' in told


def test_batches_show_both_cameras_evenly(prepared):
    items = prepared.prepare().recordings
    samples = Samples(
        [Footage(item.cache, item.plan.targets) for item in items], BatchSettings(size=4)
    )
    counts = [len(item.plan.targets) for item in items]
    (size,) = samples.sizes
    shown = Counter(which for which, _ in samples._order(0, size)[:8])
    for which in range(2):
        assert shown[which] == pytest.approx(8 * counts[which] / sum(counts), abs=1.01)


def test_one_run_learns_from_both_and_reports_each(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stages, 'exported', exported_without_graphs)
    monkeypatch.setattr(telling, '_SHOWN', 4)
    monkeypatch.setattr(telling, '_WORST', 1)
    taught: list[int] = []
    real = learning.Samples

    def seen(footage: Any, settings: Any) -> Samples:
        taught.extend(len(item.targets) for item in footage)
        return real(footage, settings)

    monkeypatch.setattr(learning, 'Samples', seen)
    out = tmp_path / 'run'
    assert run(place, out, frames=place / 'frames') in (0, 3)
    assert len(taught) == 2 and min(taught) > 5
    told = json.loads((out / 'report.json').read_text())['result']
    assert list(told['audits']) == NAMES and list(told['parts']) == NAMES
    pooled_frames = told['comparison']['changes']['metric.abs_rel']['frames']
    each = [part['changes']['metric.abs_rel']['frames'] for part in told['parts'].values()]
    assert sum(each) == pooled_frames and min(each) > 2
    rows = [row['source'] for row in told['scales']]
    assert rows[0].startswith('all: depth') and any(row.startswith(NAMES[1]) for row in rows)
    page = (out / 'report.html').read_text()
    assert 'Each recording and camera' in page and all(name in page for name in NAMES)
    assert {caption.partition(', ')[0] for caption in told['shown']} == set(NAMES)
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    assert run(place, out, frames=place / 'frames') in (0, 3)
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*')} == before
    capsys.readouterr()


def test_a_second_camera_is_added_without_repeating_the_first(
    place, tmp_path, monkeypatch, capsys
):
    out = tmp_path / 'run'
    assert run(place, out, 'cache', image=FRONT_IMAGE) == 0
    (first,) = (out / 'frames').iterdir()
    before = hashes(first)
    audited: list[str | None] = []
    real = auditing.audit_recording
    monkeypatch.setattr(
        auditing,
        'audit_recording',
        lambda path, choice, camera: audited.append(choice.image) or real(path, choice, camera),
    )
    added: list[Path] = []
    add = cache_writer.CacheWriter.add
    monkeypatch.setattr(
        cache_writer.CacheWriter,
        'add',
        lambda self, *given, **named: added.append(self.root) or add(self, *given, **named),
    )
    assert run(place, out, 'cache') == 0
    assert audited[-1] == LEFT_IMAGE
    assert hashes(first) == before and added and first not in added
    assert len(list((out / 'frames').iterdir())) == 2
    assert f'looking through {NAMES[1]}' in capsys.readouterr().out


def test_a_camera_that_cannot_be_used_does_not_stop_the_other(place, tmp_path, capsys):
    bag = spoilt.altered(place / 'drive', tmp_path / 'drive', spoilt.without('/left/camera_info'))
    assert run(place, tmp_path / 'a', 'audit', bag=bag) == 0
    told = capsys.readouterr()
    assert f'{LEFT_IMAGE} is left out: it has no camera_info of its own' in told.out + told.err
    record = json.loads((tmp_path / 'a' / 'audit.json').read_text())['result']
    assert [item['take']['name'] for item in record['takes']] == ['drive']

    def unplaced(topic: str, at: int, message: Any, all_of_it: list[Any]) -> Any:
        if topic == spoilt.STATIC:
            message.transforms = [t for t in message.transforms if 'left' not in t.child_frame_id]
        return message

    bag = spoilt.altered(place / 'drive', tmp_path / 'unplaced', unplaced)
    assert run(place, tmp_path / 'b', 'cache', bag=bag) == 0
    told = capsys.readouterr()
    assert f'unplaced {LEFT_IMAGE} is not used' in told.out + told.err
    assert len(list((tmp_path / 'b' / 'frames').iterdir())) == 1


def test_a_recording_that_was_cut_short_is_judged_as_far_as_it_can_be_read(
    place, tmp_path, monkeypatch, capsys
):
    bag = shutil.copytree(place / 'drive', tmp_path / 'drive')
    (file,) = bag.glob('*.mcap')
    os.truncate(file, int(0.9 * file.stat().st_size))
    monkeypatch.setattr(stages, 'exported', exported_without_graphs)
    assert run(place, tmp_path / 'run', bag=bag) == NOT_IMPROVED  # the graphs are the same
    told = json.loads((tmp_path / 'run' / 'evaluate.json').read_text())['result']
    assert told['after']['means']['metric.abs_rel'] > 0
    assert (tmp_path / 'run' / 'report.html').exists()


def test_a_record_with_damaged_content_only_costs_its_stage(place, tmp_path):
    out, said = tmp_path / 'run', []
    whole = run_of(place, out, said)
    names = [take.name for take, _ in whole.audit()]
    path = out / 'audit.json'
    record = json.loads(path.read_text())
    kept = record['result']['takes'][1]['audit']
    for damaged in ('{}', None, kept.replace('"version": ', '"version": 9')):
        record['result']['takes'][0]['audit'] = damaged
        path.write_text(json.dumps(record))
        said.clear()
        assert [take.name for take, _ in run_of(place, out, said).audit()] == names
        assert sum('looking through' in line for line in said) == 1  # the other is taken over
    del record['result']['takes'][0]['key']
    path.write_text(json.dumps(record))
    assert [take.name for take, _ in run_of(place, out, said).audit()] == names


def test_another_teacher_under_the_same_name_begins_a_training_of_its_own(place, tmp_path):
    teacher = shutil.copytree(place / 'near', tmp_path / 'teacher')

    def key() -> str:
        return run_of(place, tmp_path / 'run', [], teacher=str(teacher))._keyed()

    first = key()
    assert key() == first
    shutil.rmtree(teacher)
    scaled_start(teacher, 2.0)
    assert key() != first


@pytest.mark.parametrize(('name', 'takes'), [('m' * 100, 2), ('m' * 90 + '-finetuned', 20_000)])
def test_the_card_of_a_fleet_and_of_a_long_name_can_be_read_again(prepared, name, takes):
    folder = prepared.start.folder
    start = replace(prepared.start, folder=replace(folder, card=replace(folder.card, name=name)))
    first = prepared.prepare()
    recordings = first.recordings * (takes // 2)
    made = SimpleNamespace(kept=KeptScale(), made=SimpleNamespace(state=SimpleNamespace(step=3)))
    card = learning._card(start, made, replace(first, recordings=recordings), prepared.settings)
    text = card_to_yaml(card)
    assert len(text) < LARGEST_CARD_BYTES and card_from_yaml(text, 'card').name == card.name
    assert card.name.endswith('-finetuned') and NAMES[1] in card.training_data


def test_a_seed_that_torch_cannot_take_is_refused_at_the_door():
    FineTuneSettings((Path('.'),), seed=2**63 - 1)
    with pytest.raises(SettingsError, match='--seed'):
        FineTuneSettings((Path('.'),), seed=2**64)


def test_a_proof_that_lacks_something_is_refused_with_a_sentence():
    empty = Judgement('m', False, {}).to_json()
    for more in ({}, {'block_s': None}):
        with pytest.raises(DepthNodeError, match='proof'):
            proof.proof_from_json({'before': empty, 'after': empty, **more})


@pytest.mark.parametrize('name', ['best', 'candidate'])
def test_a_run_does_not_start_from_a_model_that_it_replaces(place, tmp_path, monkeypatch, name):
    """Else the start model is lost, and the report compares the new model with itself."""
    out = tmp_path / 'run'
    shutil.copytree(place / 'near', out / name)
    before = hashes(out / name)
    monkeypatch.setattr(auditing, 'audit_recording', lambda *_: pytest.fail('it went on'))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match='which this run replaces'):
        settings = FineTuneSettings((place / 'drive',), f'run/{name}')
        FineTuning(settings, RunFolder(out), Voice()).audit()
    assert hashes(out / name) == before


def test_camera_infos_are_given_one_for_each_camera():
    with pytest.raises(SettingsError, match='one for each camera'):
        FineTuneSettings((Path('.'),), images=('/a', '/b'), camera_infos=('/a/camera_info',))


def estimate(kind: str, factor: float, frames: int = 20, usable: bool = True) -> ScaleEstimate:
    return ScaleEstimate(f'{kind} /x', factor, 0.05, 10 * frames, 1.0, usable, '', frames)


def test_the_factor_of_two_equal_cameras_lies_between_and_an_odd_one_of_many_has_no_say():
    (both,) = pooled([[estimate('tracks', 2.0)], [estimate('tracks', 8.0)]])
    assert both.scale == pytest.approx(4.0) and both.frames == 40 and both.spread > 0.4
    many = [[estimate('tracks', value)] for value in (2.0, 2.0, 2.1, 2.0, 50.0)]
    assert pooled(many)[0].scale == pytest.approx(2.0, rel=0.05)
    (good,) = pooled([[estimate('depth', 2.0)], [estimate('depth', 9.0, usable=False)]])
    assert good.scale == 2.0
    one = (estimate('depth', 3.0), estimate('tracks', 2.9))
    assert pooled([one]) == one


def test_cameras_that_want_different_factors_are_named():
    agreed = {'a': [estimate('tracks', 2.0)], 'b': [estimate('tracks', 2.2)]}
    assert not contradictions(agreed)
    said = contradictions({**agreed, 'b': [estimate('tracks', 3.0)]})
    assert len(said) == 2 and 'By tracks, b wants the scale 3' in said[1]
    assert 'its focal length in the first place' in said[0]
    alone = {
        'a': [estimate('depth', 2.0), estimate('tracks', 2.0)],
        'b': [estimate('tracks', 2.1)],
    }
    assert not contradictions(alone)


def test_a_wrong_focal_length_of_one_camera_shows_in_its_scale(prepared, monkeypatch):
    """The frames are the same, the camera says that it is longer: its tracks lie elsewhere."""
    start, caches = prepared.start, prepared.cache()
    _, cache = caches[1]
    right = cache.camera
    wrong = replace(right, fx=1.4 * right.fx, fy=1.4 * right.fy)
    monkeypatch.setattr(type(cache), 'camera', property(
        lambda self: wrong if self is cache else self.header.fit.camera))  # fmt: skip
    made = stages.prepared(start, caches[1:], height_m=None, rescale=True)
    before = prepared.prepare().by_take[NAMES[1]]
    shift = scales(made.estimates)['tracks'] / scales(before)['tracks']
    assert abs(np.log(shift)) > np.log1p(APART)


def scales(estimates: tuple[ScaleEstimate, ...]) -> dict[str, float]:
    return {item.kind: item.scale for item in estimates}


def test_evaluate_judges_every_camera(place, tmp_path, capsys):
    out = tmp_path / 'all.json'
    assert evaluate.main([str(place / 'near'), str(place / 'drive'), '--json', str(out)]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in NAMES)
    (judged,) = json.loads(out.read_text())['models']
    assert judged['series']['metric.abs_rel']['recordings'] == NAMES
    words = [str(place / 'near'), str(place / 'drive'), '--image-topic', LEFT_IMAGE, '--frames']
    assert evaluate.main([*words, '5']) == 0
    assert NAMES[0] not in capsys.readouterr().out
