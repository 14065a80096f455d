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
from depth_node.pretraining import views as views_room  # noqa: E402
from depth_node.pretraining.augmentation import AugmentationSettings  # noqa: E402
from depth_node.pretraining.augmentation import reframed  # noqa: E402
from depth_node.pretraining.augmentation import relit  # noqa: E402
from depth_node.pretraining.batch import BatchSpec  # noqa: E402
from depth_node.pretraining.batches import batches  # noqa: E402
from depth_node.pretraining.bundling import bundle  # noqa: E402
from depth_node.pretraining.losses import LossWeights  # noqa: E402
from depth_node.pretraining.losses import log_depth_loss  # noqa: E402
from depth_node.pretraining.losses import log_depth_of  # noqa: E402
from depth_node.pretraining.notes import notes_of  # noqa: E402
from depth_node.pretraining.trainer import Progress  # noqa: E402
from depth_node.pretraining.trainer import Stage  # noqa: E402
from depth_node.pretraining.trainer import Trainer  # noqa: E402
from depth_node.pretraining.trainer import TrainingPlan  # noqa: E402
from depth_node.pretraining.views import JudgedView  # noqa: E402
from depth_node.pretraining.views import judged  # noqa: E402
from depth_node.pretraining.views import load_views  # noqa: E402
from depth_node.pretraining.views import predicted_depth  # noqa: E402
from depth_node.tools import pretrain  # noqa: E402
from depth_node.tools.pretrain import chosen_device  # noqa: E402
from depth_node.world import recording as world  # noqa: E402
from depth_node.world import samples  # noqa: E402
from depth_node.world.samples import Sample  # noqa: E402

RANGE_M = (0.1, 100.0)
SPEC = BatchSpec(
    size=2,
    shapes=((32, 64),),
    shares=(1.0,),
    focal_per_height=1.0,
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
    local = np.mean([np.abs(r - means_of_parts(r, parts)).mean() for parts in (4, 8)])
    expected = 0.25 * np.abs(r).mean() + np.abs(r - mean).mean() + local + gradient / 4.0
    assert loss_of(predicted, truth) == pytest.approx(expected, rel=1e-4)


def means_of_parts(r: np.ndarray, parts: int) -> np.ndarray:
    """Return, at every pixel, the mean of the part of its image."""
    means = np.empty_like(r)
    height, width = r.shape[1] // parts, r.shape[2] // parts
    for top in range(0, r.shape[1], height):
        for left in range(0, r.shape[2], width):
            part = np.s_[:, top : top + height, left : left + width]
            means[part] = r[part].mean(axis=(1, 2), keepdims=True)
    return means


def test_the_local_part_sees_what_is_wrong_within_a_part_of_the_image() -> None:
    truth = true_depth(1)
    whole, shifted = truth.clone(), truth.clone()
    whole[:, :, 4:8, 8:16] *= 1.5  # one part of four by four, four of eight by eight
    shifted[:, :, 3:7, 7:15] *= 1.5
    only_local = {'absolute': 0.0, 'shape': 0.0, 'gradient': 0.0}
    assert loss_of(whole, truth, **only_local) < 1e-5
    assert loss_of(shifted, truth, **only_local) > 1e-3


def test_images_that_no_grid_divides_have_no_local_part() -> None:
    truth, predicted = true_depth(1)[..., :15, :31], true_depth(2)[..., :15, :31]
    assert loss_of(predicted, truth, absolute=0.0, shape=0.0, gradient=0.0) == 0.0


def test_the_sky_counts_less_than_what_has_a_depth() -> None:
    truth, predicted = true_depth(1), true_depth(1).clone()
    predicted[:, :, :8] *= 2.0
    far = torch.zeros_like(truth, dtype=torch.bool)
    far[:, :, :8] = True
    weights = replace(LossWeights(), heads=(1.0,), shape=0.0, local=0.0, gradient=0.0)
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
    np.testing.assert_allclose(batch.depth, 4.0 * 32.0 / fx, rtol=1e-5)


def test_batches_are_the_same_for_the_same_seed_and_differ_for_another() -> None:
    first, again, other = (next(batches(SPEC, seed, 0)) for seed in (3, 3, 4))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.depth, again.depth)
    assert not torch.equal(first.image, other.image)
    assert first.image.shape == (2, 3, 32, 64) and first.image.dtype == torch.uint8
    assert (first.depth > 0.0).all()


def reframed_coordinates(
    settings: AugmentationSettings,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reframe images whose first two colours are column and row, and their depth 1 + row + column.

    :returns: (8, 2, 48, 64) columns and rows of the view, and (8, 48, 64) depth, as reframed.
    """
    row, column = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing='ij')
    image = torch.stack((column / 64.0, row / 64.0, 0.0 * row)).expand(8, 3, 48, 64)
    depth = (1.0 + row + column).expand(8, 1, 48, 64)
    generator = torch.Generator().manual_seed(5)
    seen, far = reframed(image, depth, settings, generator)
    return seen[:, :2] * 64.0, far[:, 0]


def test_a_reframed_view_shows_no_pixel_from_outside_and_keeps_its_shape() -> None:
    places, _ = reframed_coordinates(AugmentationSettings(roll_rad=0.2))
    along = places[:, :, :, 1:] - places[:, :, :, :-1]
    down = places[:, :, 1:] - places[:, :, :-1]
    # equally long steps at right angles everywhere: a turn and a zoom, and nothing was repeated
    steps = along.norm(dim=1)[:, :-1], down.norm(dim=1)[:, :, :-1]
    reference = steps[0][:, :1, :1]
    for step in steps:
        torch.testing.assert_close(step, reference.expand_as(step), rtol=1e-3, atol=1e-4)
    assert (along[:, :, :-1] * down[:, :, :, :-1]).sum(1).abs().max() < 1e-3
    turns = torch.atan2(along[:, 1, 0, 0], along[:, 0, 0, 0].abs())
    assert turns.abs().max() > 0.05


def test_a_reframed_view_keeps_its_depth_but_for_the_longer_focal_length() -> None:
    places, depth = reframed_coordinates(AugmentationSettings(roll_rad=0.2, zoom=2.0))
    step = (places[:, :, :, 1:] - places[:, :, :, :-1]).norm(dim=1).mean(dim=(1, 2))
    zoom = (1.0 / step)[:, None, None]
    assert zoom.min() >= 1.0 and zoom.max() > 1.2
    expected = (1.0 + places.sum(1)) / zoom
    # the nearest pixel: up to half of one away, each way
    assert ((depth - expected) * zoom).abs().max() <= 1.0 + 1e-3


def test_views_are_mirrored_as_often_as_asked() -> None:
    for flip, sign in ((0.0, 1.0), (1.0, -1.0)):
        places, _ = reframed_coordinates(AugmentationSettings(flip=flip))
        assert (sign * (places[:, 0, :, -1] - places[:, 0, :, 0]) > 0.0).all()


def test_sky_stays_sky_in_another_frame() -> None:
    depth = torch.full((2, 1, 16, 24), torch.inf)
    _, found = reframed(torch.rand(2, 3, 16, 24), depth, AugmentationSettings(), torch.Generator())
    assert torch.isinf(found).all()


def test_another_light_keeps_values_in_range_and_is_drawn_anew() -> None:
    image = torch.rand((6, 3, 24, 32), generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    first = relit(image, AugmentationSettings(), generator)
    second = relit(image, AugmentationSettings(), generator)
    assert first.shape == image.shape and not torch.equal(first, second)
    assert first.min() >= 0.0 and first.max() <= 1.0
    again = relit(image, AugmentationSettings(), torch.Generator().manual_seed(2))
    assert torch.equal(first, again)


def test_brightness_can_stand_for_no_distance() -> None:
    """The same grey wall must come out anywhere between dark and bright, and unevenly lit."""
    wall = torch.full((256, 3, 24, 32), 0.4)
    found = relit(wall, AugmentationSettings(), torch.Generator().manual_seed(3)).mean(1)
    means = found.mean(dim=(1, 2))
    assert means.quantile(0.05) < 0.25 and means.quantile(0.95) > 0.55
    sides = found[:, :, 24:].mean(dim=(1, 2)) - found[:, :, :8].mean(dim=(1, 2))
    assert sides.std() > 0.04 and abs(float(sides.mean())) < 0.03


def plan(images: int) -> TrainingPlan:
    return TrainingPlan(
        network='lite-mono',
        variant='tiny',
        options={'dilations': '640x192'},
        depth_range_m=RANGE_M,
        stages=(Stage(images, SPEC, 1e-3, 1e-4),),
        workers=0,
    )


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    options = {'drop_path': 0.0, 'layer_scale': 0.1}
    return registry.build('lite-mono', Identity('tiny', options))


def trainer(folder: Path, images: int, lines: list[str]) -> Trainer:
    return Trainer(network(), plan(images), folder, lines.append, lambda *_: {'x': 1.0})


def test_a_stopped_training_goes_on_where_it_was(tmp_path: Path) -> None:
    lines: list[str] = []
    first = trainer(tmp_path, 6, lines)
    averaged = first.run()
    assert first.progress.images == 6
    second = trainer(tmp_path, 6, lines)
    again = second.run()
    assert second.progress.images == first.progress.images
    assert any('resumed' in line for line in lines)
    assert second._reported_images == 6  # the rate of what follows counts from here
    for name, value in averaged.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    curve = [json.loads(line) for line in (tmp_path / 'curve.jsonl').read_text().splitlines()]
    assert curve[0]['images'] == 6 and curve[0]['seconds'] > 0.0
    assert json.loads((tmp_path / 'plan.json').read_text())['variant'] == 'tiny'
    record = json.loads((tmp_path / 'training.json').read_text())
    assert record['images'] == 6 and record['restarts'] == 1 and record['device'] == 'CPU'
    assert record['seconds'] == record['seconds_on']['CPU'] > 0.0
    assert record['torch'] == torch.__version__ and record['processor']


def test_a_line_that_a_power_cut_ended_early_takes_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / 'curve.jsonl'
    path.write_text('{"images": 1, "x')
    trainer(tmp_path, 2, []).run()
    cut, whole = path.read_text().splitlines()
    assert cut == '{"images": 1, "x' and json.loads(whole)['images'] == 2


def test_steps_that_are_counted_late_are_the_same_steps(tmp_path: Path) -> None:
    """A GPU is not waited for after every step; neither the plan nor the result may change."""
    eager, late = trainer(tmp_path / 'eager', 10, []), trainer(tmp_path / 'late', 10, [])
    late._unread_steps = 3
    weights = [each.run().state_dict() for each in (eager, late)]
    assert eager.progress.images == late.progress.images == 10
    assert eager.progress.steps == late.progress.steps == 5
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_curve_judges_trained_kinds_and_kinds_held_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[str] = []
    inner = samples.draw

    def noted(*arguments: object, **others: object) -> list[Sample]:
        found = inner(*arguments, **others)
        drawn.extend(sample.kind for sample in found)
        return found

    monkeypatch.setattr('depth_node.world.samples.draw', noted)
    monkeypatch.setattr(pretrain, '_HELD_OUT_VIEWS', 4)
    data = pretrain._judged_data(((24, 32),), ())
    assert list(data) == ['world (held-out scenes)', 'world (kinds held out)']
    assert all(len(views) == 4 for views in data.values())
    assert set(drawn[:4]) <= set(samples.SHARES)
    assert set(drawn[4:]) <= set(samples.HELD_OUT_SHARES)


def test_a_loss_that_is_no_number_changes_nothing_and_then_ends(tmp_path: Path) -> None:
    broken = trainer(tmp_path, 100, [])
    averaged = broken._stepper.averaged.state_dict()
    before = {name: value.clone() for name, value in averaged.items()}
    with torch.no_grad():
        for parameter in broken._stepper.network.decoder.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(ModelError, match='no number'):
        broken.run()
    assert broken.progress.images == 0
    for name, value in averaged.items():
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
        return Trainer(
            network(), plan(80), tmp_path, lambda line: None, lambda *_: {}, device='cuda'
        )

    first, second = on_gpu(), on_gpu()
    assert all(value.is_cuda for value in first.run().state_dict().values())
    second.run()
    assert second.progress.images == first.progress.images == 80
    record = json.loads((tmp_path / 'training.json').read_text())
    assert record['device'] == torch.cuda.get_device_name() in record['seconds_on']


def test_views_of_a_recording_carry_their_true_depth(tmp_path: Path) -> None:
    settings = world.RecordingSettings(seconds=0.4, rate_hz=10.0, width=128, height=96)
    world.write(tmp_path / 'bag', settings, workers=1)
    views = load_views(tmp_path / 'bag', [(96, 128), (96, 192)], 2)
    assert len(views) == 2
    for view in views:
        assert view.rgb.shape == (96, 128, 3) and view.depth_m.shape == (96, 128)
        assert view.fx == pytest.approx(128 / 2 / math.tan(settings.hfov_rad / 2), rel=1e-6)
        assert 0.05 < np.nanmedian(view.depth_m) < 20.0


def test_views_through_a_bent_lens_are_rectified_with_their_depth(tmp_path: Path) -> None:
    """A plane is a plane only where image and depth are straight: the same path, two lenses."""
    views = {}
    for lens in ('none', 'plumb_bob'):
        settings = world.RecordingSettings(
            seconds=0.4, rate_hz=10.0, width=128, height=96, lens=lens, seed=4
        )
        world.write(tmp_path / lens, settings, workers=1)
        (views[lens],) = load_views(tmp_path / lens, [(96, 128)], 1)
    straight, bent = views['none'], views['plumb_bob']
    known = np.isfinite(bent.depth_m) & np.isfinite(straight.depth_m)
    assert known.mean() > 0.7
    apart = np.abs(bent.depth_m / straight.depth_m - 1.0)[known]
    # nearest pixels differ at edges alone; unrectified a tenth of the pixels is off by 5 percent
    assert np.percentile(apart, 90) < 0.02


def test_a_whole_recording_is_never_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = world.RecordingSettings(seconds=1.0, rate_hz=10.0, width=64, height=48)
    world.write(tmp_path / 'bag', settings, workers=1)
    decoded = []
    inner = views_room.image_codec.decode_image
    monkeypatch.setattr(
        views_room.image_codec,
        'decode_image',
        lambda image: decoded.append(image.stamp_ns) or inner(image),
    )
    found = load_views(tmp_path / 'bag', [(32, 64)], 3)
    assert len(found) == 3 == len(set(decoded))
    # from its first image to its last, also where it has less than twice as many as are wanted
    decoded.clear()
    assert len(load_views(tmp_path / 'bag', [(32, 64)], 6)) == 6
    assert max(decoded) - min(decoded) == 900_000_000


def figures(scaled: float) -> dict[str, float]:
    return {
        'abs_rel': 0.5,
        'abs_rel_median_scaled': scaled,
        'abs_rel_image_median': 0.15,
        'abs_rel_rows_median_scaled': 0.12,
    }


def test_the_notes_of_a_card_say_first_what_is_worse_than_a_constant() -> None:
    notes = notes_of({'hall': figures(0.10), 'kitchen': figures(0.20), 'yard': figures(0.13)})
    first, second = notes.split('. ')[:2]
    assert first.startswith('Worse than the constant depth') and first.endswith('on kitchen')
    assert second.startswith('Worse than the best depth per row')
    assert second.endswith('on kitchen and yard')
    assert 'kitchen: Abs Rel 0.500, after median scaling 0.200' in notes
    assert notes_of({'hall': figures(0.10)}).startswith('Better than a constant depth')
    assert 'etter' not in notes_of({})


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
    progress = Progress(images=7, seconds=9e3, seconds_on={'CPU': 1800.0, 'NVIDIA Q': 7200.0})
    folder = bundle(
        trained, plan(7), progress, {'noise': views}, tmp_path / 'mine', [(64, 96)], 1.0
    )
    card = model_folder.read(tmp_path / 'mine').card
    assert card == folder.card
    assert '7 images, 0.5 hours on a CPU and 2.0 hours on NVIDIA Q, seed 0' in card.source
    assert card.weights_license == 'Apache-2.0' and card.focal_px == 64.0
    figures = card.metrics['noise']
    assert isinstance(figures, dict)
    expected = judged(trained, views, 1.0, RANGE_M)
    assert figures['abs_rel'] == pytest.approx(expected['abs_rel'], abs=1e-3)
    assert figures['abs_rel_best_constant'] > 0.1
    depth = predicted_depth(trained, rgb, 60.0, 1.0, RANGE_M)
    assert depth.shape == (64, 96) and (depth > 0.0).all()
