"""A training that is interrupted, spread over processes or fed nonsense ends as it should."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rendered_footage import footage
from rendered_footage import rendered

from depth_node.errors import DepthNodeError
from depth_node.errors import ModelError
from depth_node.finetuning import trainer
from depth_node.finetuning.depth_output import DepthMeaning
from depth_node.finetuning.objective import LossWeights
from depth_node.finetuning.pose import BoundedResidual
from depth_node.finetuning.pose import NetworkPoses
from depth_node.finetuning.pose import RecordedPoses
from depth_node.finetuning.samples import BatchSettings
from depth_node.finetuning.samples import Samples
from depth_node.finetuning.schedule import Schedule
from depth_node.finetuning.schedule import in_encoder
from depth_node.finetuning.schedule import parameter_groups
from depth_node.finetuning.schedule import steps_for
from depth_node.networks import registry
from depth_node.networks.conformance import fill
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.initialization import WithoutDrawing
from depth_node.networks.pose import PoseCnn
from depth_node.networks.specification import Identity

MEANING = DepthMeaning('disparity', 0.5, 20.0, 1.0, 80.0)


def network_of() -> DepthNetwork:
    network = registry.build('lite-mono', Identity('tiny', {'drop_path': 0.3}))
    fill(network)
    return network


def training(
    folder: Path, steps: int = 6, poses: object = None, size: int = 2, **changes: object
) -> trainer.Trainer:
    taken = Samples(
        [footage(rendered(), start=True)],
        BatchSettings(size=size, source_views=isinstance(poses, NetworkPoses)),
    )
    settings = trainer.TrainingSettings(
        Schedule(steps=steps, warm_up=2, averaging=0.5, pose_steps=2),
        LossWeights(sparse=0.2),
        precision='float32',  # the same on every processor: these tests are about the loop
    )
    judge = changes.pop('judge', None)
    progress = changes.pop('progress', None)
    settings = replace(settings, **{'record_every': 2, 'save_every': 3, **changes})
    return trainer.Trainer(
        network_of(), MEANING, taken, poses or BoundedResidual(taken.pairs), folder, settings,
        progress, judge,
    )  # fmt: skip


def weights_of(network: torch.nn.Module) -> list[torch.Tensor]:
    return list(network.state_dict().values())


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(map(torch.equal, weights_of(first), weights_of(second)))


class Killed(Exception):
    pass


def test_a_training_that_was_killed_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = training(tmp_path / 'whole').run()

    def kill(progress: trainer.Progress) -> None:
        if progress.step == 5:  # two steps after the checkpoint
            raise Killed

    with pytest.raises(Killed):
        training(tmp_path / 'parts', progress=kill).run()
    parts = training(tmp_path / 'parts', workers=3).run()
    assert same(whole.network, parts.network)
    assert parts.state == whole.state
    assert not same(whole.network, network_of())
    assert whole.stopped == ''


def test_frozen_statistics_stay_and_everything_else_learns(tmp_path: Path) -> None:
    before = dict(network_of().state_dict())
    made = training(tmp_path, steps=2).run().network
    assert not made.training
    changed = {k for k, v in made.state_dict().items() if not torch.equal(v, before[k])}
    normal = {
        f'{name}.{key}'
        for name, module in made.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for key in module.state_dict()
    }
    assert not changed & normal
    assert any(k.startswith('encoder.') for k in changed)
    assert any(k.startswith('decoder.') for k in changed)


def test_what_was_frozen_before_stays_frozen(tmp_path: Path) -> None:
    started = training(tmp_path, steps=2, workers=0)
    network = network_of()
    for name, value in network.named_parameters():
        value.requires_grad_(not in_encoder(name))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    made = trainer.fine_tuned(
        network, MEANING, started._samples, RecordedPoses(), tmp_path, started._settings
    ).network
    changed = {k for k, v in made.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert not any(map(in_encoder, changed))


def test_the_loss_falls_on_footage_whose_depth_was_squeezed(tmp_path: Path) -> None:
    done = training(tmp_path, steps=24, workers=0, record_every=6).run()
    curve = done.state.curve
    assert [line['step'] for line in curve] == [6, 12, 18, 24]
    assert curve[-1]['sparse'] < 0.9 * curve[0]['sparse']
    assert all(line['ratio'] > 0 for line in curve)


def test_a_loss_that_is_no_number_is_left_out_and_slows_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trainer.FastStep.__call__, []

    def broken(self: object, batch: object) -> object:
        result = real(self, batch)
        calls.append(0)
        return replace(result, loss=result.loss * math.nan) if len(calls) in (2, 4) else result

    monkeypatch.setattr(trainer.FastStep, '__call__', broken)
    done = training(tmp_path).run()
    assert done.state.strikes == 2
    assert done.state.slowdown == 0.25
    assert done.stopped == ''
    assert all(torch.isfinite(value).all() for value in weights_of(done.network))


def test_the_third_loss_that_is_no_number_ends_with_the_last_good_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.FastStep.__call__
    calls = []

    def broken(self: object, batch: object) -> object:
        result = real(self, batch)
        calls.append(0)
        return replace(result, loss=result.loss * math.nan) if len(calls) > 2 else result

    monkeypatch.setattr(trainer.FastStep, '__call__', broken)
    done = training(tmp_path, steps=9).run()
    assert 'no number' in done.stopped and 'kept' in done.stopped
    assert len(calls) == 5
    assert all(torch.isfinite(value).all() for value in weights_of(done.network))
    assert not same(done.network, network_of())


def test_a_training_that_has_ended_early_stays_ended_when_the_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.FastStep.__call__

    def broken(self: object, batch: object) -> object:
        result = real(self, batch)
        return replace(result, loss=result.loss * math.nan)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.FastStep, '__call__', broken)
        done = training(tmp_path, steps=9).run()
    again = training(tmp_path, steps=9).run()  # as after a kill before the model was written
    assert 'no number' in again.stopped
    assert (again.stopped, again.state.step) == (done.stopped, done.state.step)
    assert same(again.network, done.network)


def test_a_full_disk_ends_with_the_last_good_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, write: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(trainer, 'write_atomically', full)
    done = training(tmp_path).run()
    assert 'No space left' in done.stopped and str(tmp_path) in done.stopped
    assert done.state.step == 3
    assert not same(done.network, network_of())


def test_a_checkpoint_of_another_training_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    training(tmp_path, steps=3).run()
    with pytest.raises(ModelError, match='another training'):
        training(tmp_path, steps=4).run()
    path = tmp_path / trainer.CHECKPOINT_NAME
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match='Delete it'):
        training(tmp_path, steps=3).run()


def test_the_best_judged_weights_are_kept_and_patience_ends(tmp_path: Path) -> None:
    scores = iter([0.5, 0.3, 0.4, 0.4, 0.4, 0.4])
    seen = []

    def judge(network: DepthNetwork) -> float:
        seen.append([value.clone() for value in weights_of(network)])
        return next(scores)

    done = training(tmp_path, steps=9, judge=judge, judge_every=1, patience=3).run()
    assert len(seen) == 5
    assert all(map(torch.equal, weights_of(done.network), seen[1]))
    assert 'no improvement' in done.stopped and 'step 2' in done.stopped


def test_progress_tells_the_time_left_and_the_ratio_to_standing_still(tmp_path: Path) -> None:
    told: list[trainer.Progress] = []
    training(tmp_path, steps=4, progress=told.append).run()
    assert [one.step for one in told] == [1, 2, 3, 4]
    assert told[-1].seconds_left == 0
    assert told[2].seconds_left > 0
    assert all(one.ratio > 0 and math.isfinite(one.loss) for one in told)


def test_a_pose_network_warms_up_while_the_depth_is_frozen(tmp_path: Path) -> None:
    poses = NetworkPoses(PoseCnn())
    before = [value.clone() for value in poses.state_dict().values()]
    seen = []

    def look(progress: trainer.Progress) -> None:
        seen.append(weights_of(started._network)[0].clone())

    started = training(tmp_path, steps=3, poses=poses, progress=look)
    first = weights_of(started._network)[0].clone()
    started.run()
    assert torch.equal(seen[1], first)
    assert not torch.equal(seen[4], first)
    after = poses.state_dict().values()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_pairs_without_poses_need_a_pose_network(tmp_path: Path) -> None:
    item = footage(rendered(), start=True)
    for pairs in item.targets.values():
        for one in pairs:
            one.T_source_target = one.T_source_target * math.nan
    taken = Samples([item], BatchSettings(size=2))
    settings = trainer.TrainingSettings()
    for poses, expected in (
        (RecordedPoses(), 'Record odometry'),
        (NetworkPoses(PoseCnn()), 'source_views'),
    ):
        with pytest.raises(DepthNodeError, match=expected):
            trainer.fine_tuned(network_of(), MEANING, taken, poses, tmp_path, settings)


@pytest.mark.parametrize('name', ['lite-mono', 'monodepth2', 'diffnet', 'sqldepth'])
def test_norms_and_biases_do_not_decay_and_the_encoder_learns_more_slowly(name: str) -> None:
    with WithoutDrawing():
        network = registry.build(name, Identity(next(iter(registry.spec(name).variants))))
    groups = parameter_groups(network, BoundedResidual(3), Schedule())
    rates = {(group['peak'], group['weight_decay']) for group in groups}
    assert rates == {(3e-5, 1e-2), (3e-5, 0.0), (1e-4, 1e-2), (1e-4, 0.0)}
    for group in groups:
        if group['weight_decay']:
            assert all(value.ndim > 1 for value in group['params'])


def test_the_rate_rises_and_falls_to_a_twentieth() -> None:
    schedule = Schedule(steps=1000)
    assert schedule.rate(0) == pytest.approx(0.01, rel=0.01)
    assert schedule.rate(99) == pytest.approx(1.0, rel=0.03)
    assert schedule.rate(1000) == pytest.approx(0.05)
    assert [steps_for(n, 8) for n in (10, 2000, 10**6)] == [500, 2000, 8000]


_WORKER = """
import sys, torch
sys.path[:0] = [sys.argv[1]]
from pathlib import Path
torch.set_num_threads(1)
torch.distributed.init_process_group('gloo')
from test_finetuning_trainer import training
done = training(Path(sys.argv[2]), steps=3, size=4).run()
if torch.distributed.get_rank() == 0:
    torch.save([done.network.state_dict(), done.state.curve, done.state.recent], sys.argv[3])
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    alone = training(tmp_path / 'alone', steps=3, size=4).run()
    script, result = tmp_path / 'worker.py', tmp_path / 'result.pt'
    script.write_text(_WORKER)
    here = Path(__file__).parent
    root = {'PYTHONPATH': f'{here.parent}:{os.environ.get("PYTHONPATH", "")}'}
    subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
         str(script), str(here), str(tmp_path / 'two'), str(result)],
        check=True, timeout=120, env={**os.environ, **root, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    weights, curve, recent = torch.load(result, weights_only=True)
    for name, value in alone.state.curve[0].items():
        assert curve[0][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert recent[0]['loss'] == pytest.approx(alone.state.recent[0]['loss'], rel=1e-3)
    for key, value in alone.network.state_dict().items():
        torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=2e-4)
