"""Training on procedural scenes: the loss, the batches, the loop and what it hands over."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from depth_node import model_folder  # noqa: E402
from depth_node.errors import ModelError  # noqa: E402
from depth_node.errors import RecordingError  # noqa: E402
from depth_node.errors import SettingsError  # noqa: E402
from depth_node.networks import registry  # noqa: E402
from depth_node.networks.specification import Identity  # noqa: E402
from depth_node.pretraining import batches as batches_room  # noqa: E402
from depth_node.pretraining.batches import BatchSpec  # noqa: E402
from depth_node.pretraining.batches import batches  # noqa: E402
from depth_node.pretraining.bundling import bundle  # noqa: E402
from depth_node.pretraining.losses import LossWeights  # noqa: E402
from depth_node.pretraining.losses import log_depth_loss  # noqa: E402
from depth_node.pretraining.losses import log_depth_of  # noqa: E402
from depth_node.pretraining.trainer import Progress  # noqa: E402
from depth_node.pretraining.trainer import Stage  # noqa: E402
from depth_node.pretraining.trainer import Trainer  # noqa: E402
from depth_node.pretraining.trainer import TrainingPlan  # noqa: E402
from depth_node.pretraining.views import JudgedView  # noqa: E402
from depth_node.pretraining.views import judged  # noqa: E402
from depth_node.pretraining.views import load_views  # noqa: E402
from depth_node.pretraining.views import predicted_depth  # noqa: E402
from depth_node.tools.pretrain import chosen_device  # noqa: E402
from depth_node.world import recording as world  # noqa: E402
from depth_node.world.samples import Sample  # noqa: E402

RANGE_M = (0.1, 100.0)
SPEC = BatchSpec(
    size=2,
    shapes=((32, 64),),
    shares=(1.0,),
    focal_per_height=1.0,
    range_m=(0.15, 80.0),
    reuse=1,
    pool=4,
    views_per_scene=2,
)


def disparity_of(depth: torch.Tensor) -> torch.Tensor:
    return (1.0 / depth - 0.01) / (10.0 - 0.01)


def true_depth(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.exp(torch.rand((2, 1, 16, 32), generator=generator) * 3.0 - 1.0)


def loss_of(predicted: torch.Tensor, truth: torch.Tensor, **changes: object) -> float:
    far = torch.zeros_like(truth, dtype=torch.bool)
    weights = replace(LossWeights(), heads=(1.0,), **changes)
    return float(log_depth_loss([disparity_of(predicted)], truth.log(), far, RANGE_M, weights))


def test_depth_of_a_disparity_is_the_inverse_of_the_disparity_of_a_depth() -> None:
    depth = torch.tensor([0.1, 0.5, 3.0, 99.0], dtype=torch.float64)
    found = log_depth_of(disparity_of(depth), RANGE_M).exp()
    torch.testing.assert_close(found, depth, rtol=1e-9, atol=0.0)


def test_a_perfect_prediction_costs_nothing() -> None:
    assert loss_of(true_depth(), true_depth()) < 1e-5


def test_a_wrong_scale_costs_only_the_absolute_part() -> None:
    cost = loss_of(1.5 * true_depth(), true_depth())
    assert cost == pytest.approx(0.25 * math.log(1.5), rel=1e-3)
    assert loss_of(1.5 * true_depth(), true_depth(), absolute=0.0) < 1e-5


def test_the_loss_is_that_of_a_float64_reference() -> None:
    truth, predicted = true_depth(1), true_depth(2)
    r = (predicted.double().log() - truth.double().log()).numpy()[:, 0]
    mean = r.mean(axis=(1, 2), keepdims=True)
    gradient = 0.0
    for stride in (1, 2, 4):  # eight pixels are too far for sixteen rows
        gradient += np.abs(r[:, stride:] - r[:, :-stride]).mean()
        gradient += np.abs(r[:, :, stride:] - r[:, :, :-stride]).mean()
    expected = 0.25 * np.abs(r).mean() + np.abs(r - mean).mean() + 0.25 * gradient / 4.0
    assert loss_of(predicted, truth) == pytest.approx(expected, rel=1e-4)


def test_the_sky_counts_less_than_what_has_a_depth() -> None:
    truth, predicted = true_depth(1), true_depth(1).clone()
    predicted[:, :, :8] *= 2.0
    far = torch.zeros_like(truth, dtype=torch.bool)
    far[:, :, :8] = True
    weights = replace(LossWeights(), heads=(1.0,), shape=0.0, gradient=0.0)
    arguments = ([disparity_of(predicted)], truth.log(), far, RANGE_M, weights)
    expected = 0.25 * math.log(2.0) * 0.15 / 1.15
    assert float(log_depth_loss(*arguments)) == pytest.approx(expected, rel=1e-3)


def test_depth_is_taken_to_the_focal_length_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(rng, height, width, views_per_scene, supersample):
        from depth_node.camera import from_horizontal_fov

        model = from_horizontal_fov(width, height, 1.0)
        depth = np.full((height, width), 4.0, np.float32)
        return [Sample(np.zeros((height, width, 3), np.uint8), depth, model, 'room')] * 2

    monkeypatch.setattr(batches_room.samples, 'draw', draw)
    batch = next(batches(SPEC, 0, 0))
    fx = 64 / 2 / math.tan(0.5)
    np.testing.assert_allclose(batch.log_depth.exp(), 4.0 * 32.0 / fx, rtol=1e-5)


def test_batches_are_the_same_for_the_same_seed_and_differ_for_another() -> None:
    first, again, other = (next(batches(SPEC, seed, 0)) for seed in (3, 3, 4))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.log_depth, again.log_depth)
    assert not torch.equal(first.image, other.image)
    assert first.image.shape == (2, 3, 32, 64) and first.image.dtype == torch.uint8
    assert torch.isfinite(first.log_depth).all()


def test_a_view_and_its_depth_are_mirrored_together() -> None:
    image = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (8, 1, 3))
    depth = np.tile(np.arange(64, dtype=np.float32)[None], (8, 1))
    flips = set()
    for seed in range(12):
        varied, turned = batches_room._varied((image, depth), np.random.default_rng(seed))
        rising = varied[0, -1, 0] > varied[0, 0, 0]
        assert rising == (turned[0, -1] > turned[0, 0])
        flips.add(bool(rising))
    assert flips == {True, False}


def plan(minutes: float) -> TrainingPlan:
    return TrainingPlan(
        network='lite-mono',
        variant='tiny',
        options={'dilations': '640x192'},
        depth_range_m=RANGE_M,
        stages=(Stage(minutes, SPEC, 1e-3, 1e-4),),
        workers=0,
    )


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    options = {'drop_path': 0.0, 'layer_scale': 0.1}
    return registry.build('lite-mono', Identity('tiny', options))


def trainer(folder: Path, minutes: float, lines: list[str]) -> Trainer:
    return Trainer(network(), plan(minutes), folder, lines.append, lambda averaged: {'x': 1.0})


def test_a_stopped_training_goes_on_where_it_was(tmp_path: Path) -> None:
    lines: list[str] = []
    first = trainer(tmp_path, 0.02, lines)
    averaged = first.run()
    assert first.progress.images >= 2
    second = trainer(tmp_path, 0.02, lines)
    again = second.run()
    assert second.progress.images == first.progress.images
    assert any('resumed' in line for line in lines)
    for name, value in averaged.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    curve = [json.loads(line) for line in (tmp_path / 'curve.jsonl').read_text().splitlines()]
    assert curve[0]['images'] == first.progress.images
    assert json.loads((tmp_path / 'plan.json').read_text())['variant'] == 'tiny'


def test_a_loss_that_is_no_number_changes_nothing_and_then_ends(tmp_path: Path) -> None:
    broken = trainer(tmp_path, 5.0, [])
    before = {name: value.clone() for name, value in broken._averaged.state_dict().items()}
    with torch.no_grad():
        for parameter in broken._network.decoder.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(ModelError, match='no number'):
        broken.run()
    assert broken.progress.images == 0
    for name, value in broken._averaged.state_dict().items():
        assert torch.equal(value, before[name])


def awake(variant: str) -> torch.nn.Module:
    """Return a fresh network all of whose blocks, biases and norms matter."""
    torch.manual_seed(0)
    options = {'drop_path': 0.0, 'layer_scale': 0.3}
    built = registry.build('lite-mono', Identity(variant, options))
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    return built


@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
def test_gradients_under_bfloat16_are_those_of_float32(training: bool) -> None:
    """torch 2.13 computes wrong ones for dilated depthwise convolutions; the network avoids it."""
    wide = awake('small').train(training).to(memory_format=torch.channels_last)
    image = torch.nn.functional.interpolate(torch.rand((4, 3, 12, 16)), (96, 128), mode='bilinear')
    image = image.to(memory_format=torch.channels_last)
    truth = torch.rand((4, 1, 6, 8)) * 2.0 - 1.0
    truth = torch.nn.functional.interpolate(truth, (96, 128), mode='bilinear')
    far = torch.zeros_like(truth, dtype=torch.bool)
    gradients = []
    for low in (False, True):
        wide.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=low):
            disparities = wide(image)
        log_depth_loss(disparities, truth, far, RANGE_M, LossWeights()).backward()
        gradients.append(
            {name: p.grad.clone() for name, p in wide.named_parameters() if p.grad is not None}
        )
    assert len(gradients[0]) > 150
    for name, exact in gradients[0].items():
        cosine = torch.cosine_similarity(exact.flatten(), gradients[1][name].flatten(), dim=0)
        assert cosine > 0.995, name


def test_a_gpu_that_is_missing_is_refused_and_auto_does_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert chosen_device('auto') == 'cpu'
    with pytest.raises(SettingsError, match='--device cpu'):
        chosen_device('cuda')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert chosen_device('auto') == 'cuda' and chosen_device('cpu') == 'cpu'


@pytest.mark.gpu
def test_a_training_on_a_gpu_takes_steps_and_goes_on(tmp_path: Path) -> None:
    def on_gpu() -> Trainer:
        lines: list[str] = []
        return Trainer(
            network(), plan(0.05), tmp_path, lines.append, lambda averaged: {}, device='cuda'
        )

    first, second = on_gpu(), on_gpu()
    assert all(value.is_cuda for value in first.run().state_dict().values())
    second.run()
    assert second.progress.images == first.progress.images > 0


def test_views_of_a_recording_carry_their_true_depth(tmp_path: Path) -> None:
    settings = world.RecordingSettings(seconds=0.4, rate_hz=10.0, width=128, height=96)
    world.write(tmp_path / 'bag', settings, workers=1)
    views = load_views(tmp_path / 'bag', [(96, 128), (96, 192)], 2)
    assert len(views) == 2
    for view in views:
        assert view.rgb.shape == (96, 128, 3) and view.depth_m.shape == (96, 128)
        assert view.fx == pytest.approx(128 / 2 / math.tan(settings.hfov_rad / 2), rel=1e-6)
        assert 0.05 < np.nanmedian(view.depth_m) < 20.0


def test_a_recording_without_depth_cannot_judge(tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    with pytest.raises(RecordingError):
        load_views(tmp_path / 'empty', [(96, 128)], 2)


def test_a_bundled_model_runs_and_tells_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exported_before import leave_out_float16

    leave_out_float16(monkeypatch)
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (64, 96, 3), np.uint8)
    views = [JudgedView(rgb, rng.uniform(1.0, 4.0, (64, 96)).astype(np.float32), 60.0)]
    trained = network().eval()
    progress = Progress(images=7)
    folder = bundle(
        trained, plan(1.0), progress, {'noise': views}, tmp_path / 'mine', [(64, 96)], 1.0
    )
    card = model_folder.read(tmp_path / 'mine').card
    assert card == folder.card
    assert card.weights_license == 'Apache-2.0' and card.focal_px == 64.0
    figures = card.metrics['noise']
    assert isinstance(figures, dict)
    expected = judged(trained, views, 1.0, RANGE_M)
    assert figures['abs_rel'] == pytest.approx(expected['abs_rel'], abs=1e-3)
    assert figures['abs_rel_best_constant'] > 0.1
    depth = predicted_depth(trained, rgb, 60.0, 1.0, RANGE_M)
    assert depth.shape == (64, 96) and (depth > 0.0).all()
