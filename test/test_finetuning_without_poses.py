"""Recordings without poses, without camera_info or without use: what a run makes of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dataset_samples import IDLE
from dataset_samples import recorded

from depth_node.dataset.pairs import PairPlan
from depth_node.dataset.topics import TopicChoice
from depth_node.errors import RecordingError
from depth_node.finetuning.auditing import without_needed_poses
from depth_node.finetuning.kept_scale import kept_scale
from depth_node.finetuning.learning import learned
from depth_node.finetuning.pose import _mismatch
from depth_node.finetuning.proof import proven
from depth_node.finetuning.run_folder import RunFolder
from depth_node.finetuning.settings import FineTuneSettings
from depth_node.finetuning.stages import FineTuning
from depth_node.finetuning.stages import Voice
from depth_node.finetuning.start_model import depth_m_by
from depth_node.image_codec import decode_compressed
from depth_node.judging.gate import Outcome
from depth_node.judging.scenes import JudgeSettings
from depth_node.networks.pose import rotation_matrix
from depth_node.recording import open_recording
from depth_node.recording.writer import RecordingWriter
from depth_node.settings import CameraSettings
from depth_node.tools import finetune

BLIND = TopicChoice(odometry='', depth='', scan='')
DRIVE = replace(IDLE, seconds=10.0, rate_hz=5.0, stand_still=False, turn=False)


def run_of(folder: Path, said: list[str], *recordings: Path, **changes: object) -> FineTuning:
    settings = FineTuneSettings(recordings, choice=BLIND, **changes)  # type: ignore[arg-type]
    folder.mkdir(exist_ok=True)
    voice = Voice(said.append, lambda *_: None, lambda _: None)
    return FineTuning(settings, RunFolder(folder), voice)


@pytest.fixture(scope='module')
def blind(tmp_path_factory):
    """A run on a recording of which nothing but the images is used."""
    return run_of(
        tmp_path_factory.mktemp('blind'), [], recorded(DRIVE), steps=1, batch=1, workers=0
    )


def few_of(preparation):
    """Leave six targets: what is learned does not matter here."""
    (item,) = preparation.recordings
    few = dict(list(item.plan.targets.items())[:6])
    return replace(preparation, recordings=(replace(item, plan=PairPlan(few)),))


def images_alone(source: Path, path: Path) -> Path:
    with open_recording(source) as recording, RecordingWriter(path, 'mcap') as writer:
        for record in recording.records():
            if record.topic == '/camera/image_raw/compressed':
                rgb = decode_compressed(record.content)
                writer.image('/camera/image_raw', rgb, record.content.stamp_ns, 'camera')
    return path


def test_a_recording_without_poses_is_learned_from_by_a_pose_network(blind, tmp_path):
    preparation = blind.prepare()
    (item,) = preparation.recordings
    assert not preparation.posed and preparation.targets >= 20
    assert preparation.chosen is None and preparation.scale == 1.0
    made = learned(
        blind.start, few_of(preparation), blind.settings, blind.folder, tmp_path,
        lambda _: None,
    )  # fmt: skip
    assert made.made.state.step == 1 + 2 * 1, 'steps for the poses alone, then those of the depth'
    assert made.kept.source == 'start model'
    assert made.kept.factor == pytest.approx(1.0, abs=0.2)
    assert made.weights.sparse == 0.0
    assert not all(
        torch.equal(one, two)
        for one, two in zip(
            blind.start.network.parameters(), made.made.network.parameters(), strict=True
        )
    )
    assert item.held_out.targets


def test_depth_that_drifted_gets_the_scale_of_the_start_model_back(blind):
    start, preparation = blind.start, few_of(blind.prepare())
    (item,) = preparation.recordings
    drifted = copy.deepcopy(start.network)
    for module in reversed(list(drifted.modules())):
        if isinstance(module, torch.nn.Conv2d) and module.out_channels == 1:
            module.bias.data += 0.7
    kept = kept_scale(start, drifted, preparation)
    assert kept.source == 'start model' and not 0.8 < kept.factor < 1.25
    before = start.depth_m(item.cache.camera)
    after = depth_m_by(drifted, start.meaning(), item.cache.camera)
    shown = [item.cache.rgb(index) for index in item.plan.targets]
    ratios = [np.median(before(rgb) / (kept.factor * after(rgb))) for rgb in shown]
    assert np.median(ratios) == pytest.approx(1.0, abs=0.05)


def test_without_poses_and_depth_nothing_is_called_better(blind):
    folder = blind.start.folder.path
    proof = proven(folder, folder, blind.prepare().recordings, JudgeSettings(reference=''))
    assert proof.verdict.outcome is Outcome.UNUSABLE
    assert 'Record odometry' in proof.verdict.reasons[0]


def test_one_bad_recording_does_not_stop_the_others(tmp_path):
    bad = tmp_path / 'bad.mcap'
    bad.write_bytes(b'no recording')
    said: list[str] = []
    run = run_of(tmp_path / 'run', said, bad, recorded(DRIVE))
    assert [take.path for take, _ in run.audit()] == [recorded(DRIVE)]
    assert any(f'{bad} is not used' in line for line in said)
    with pytest.raises(RecordingError, match='no usable recording'):
        run_of(tmp_path / 'run', said, bad).audit()


def test_recorded_poses_that_are_not_there_are_refused(tmp_path):
    run = run_of(tmp_path, [], recorded(DRIVE), pose='recorded')
    with pytest.raises(RecordingError, match=r'no usable poses.*--pose is recorded'):
        run.audit()


def test_beside_recordings_with_poses_those_without_are_left_out():
    posed = SimpleNamespace(usable=True, motion=object())
    blind = SimpleNamespace(usable=True, motion=None)
    audits = {'a': posed, 'b': blind}
    assert list(without_needed_poses(audits, 'auto', {})) == ['b']
    assert not without_needed_poses(audits, 'network', {})
    assert not without_needed_poses({'b': blind}, 'auto', {})


def test_a_camera_that_is_described_replaces_camera_info(tmp_path):
    images = images_alone(recorded(DRIVE), tmp_path / 'images')
    with pytest.raises(RecordingError, match='camera_info'):
        run_of(tmp_path / 'a', [], images).audit()
    options = [str(images), '--intrinsics', '110 110 79.5 59.5', '--hfov', '60']
    settings = finetune.settings_of(finetune._parser().parse_args(options))
    assert settings.camera == CameraSettings('110 110 79.5 59.5', 60.0)
    run = run_of(tmp_path / 'b', [], images, camera=settings.camera)
    ((_, audit),) = run.audit()
    assert audit.camera.source == 'camera.intrinsics'
    ((_, cache),) = run.cache()
    assert audit.camera.used_k == (110.0, 110.0, 79.5, 59.5)
    narrow = run_of(tmp_path / 'b', [], images, camera=CameraSettings('', 40.0)).cache()[0][1]
    assert narrow.camera.fx / cache.camera.fx == pytest.approx(80 / np.tan(np.radians(20)) / 110)


def test_a_pose_network_is_drawn_to_the_poses_that_tracks_tell():
    poses = torch.eye(4).expand(1, 3, 4, 4).clone()
    poses[..., 0, 3] = 0.5
    wanted = poses.clone()
    wanted[0, 0, 0, 3] = 1.0  # half of the way is missing
    wanted[0, 1] = torch.nan  # not known
    present = torch.tensor([[True, True, True]])
    assert float(_mismatch(poses, wanted, present)) == pytest.approx(0.5 / 2, abs=1e-3)
    turned = poses.clone()
    turned[0, 0, :3, :3] = rotation_matrix(torch.tensor([0.0, np.radians(5.0), 0.0]))
    assert float(_mismatch(turned, poses, present)) == pytest.approx(1.0 / 3, abs=1e-2)
    poses.requires_grad_(True)
    _mismatch(poses, wanted, present).backward()
    assert torch.isfinite(poses.grad).all() and poses.grad[0, 0, 0, 3] < 0
    assert not poses.grad[0, 1].any()


def test_processes_that_share_a_batch_share_the_cost_of_its_poses():
    poses = torch.eye(4).expand(2, 3, 4, 4).clone()
    poses[..., 0, 3] = 0.5
    wanted = poses.clone()
    wanted[0, :, 0, 3] = 1.0
    present = torch.tensor([[True, True, True], [True, False, False]])
    parts = [_mismatch(poses[at], wanted[at], present[at]) for at in (slice(0, 1), slice(1, 2))]
    whole = float(_mismatch(poses, wanted, present))
    assert whole == pytest.approx(float(sum(parts)) / 2, abs=1e-6)
