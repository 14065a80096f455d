"""The fast step is the plain one: the same loss, the same gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rendered_footage import footage
from rendered_footage import rendered

from depth_node.errors import ModelError
from depth_node.errors import SettingsError
from depth_node.finetuning import step as fast
from depth_node.finetuning.depth_output import DepthMeaning
from depth_node.finetuning.depth_output import meaning_of
from depth_node.finetuning.objective import LossWeights
from depth_node.finetuning.plain_step import PlainStep
from depth_node.finetuning.pose import BoundedResidual
from depth_node.finetuning.pose import RecordedPoses
from depth_node.finetuning.samples import BatchSettings
from depth_node.finetuning.samples import Samples
from depth_node.model_folder import ModelCard
from depth_node.model_folder import OutputSpec
from depth_node.networks import registry
from depth_node.networks.conformance import fill
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.specification import Identity

MEANING = DepthMeaning('disparity', 0.5, 20.0, 1.3, 80.0)


def network_of(name: str, variant: str) -> DepthNetwork:
    network = registry.build(name, Identity(variant))
    fill(network)
    return fast.trainable(network)


def samples(**changes: object) -> Samples:
    return Samples([footage(rendered(), start=True)], BatchSettings(size=3, **changes))


def is_float32(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


@pytest.mark.parametrize('same_brightness', [False, True])
def test_the_fast_step_is_the_plain_one(same_brightness: bool) -> None:
    # in float64, so that no pixel is decided by rounding
    network, taken = network_of('lite-mono', 'tiny'), samples()
    weights = LossWeights(sparse=0.2, teacher=0.1)
    batch = taken.batch(0)
    batch = replace(batch, teacher=batch.start)
    if same_brightness:
        drawn = torch.rand(batch.present.shape, generator=torch.Generator().manual_seed(2))
        batch = replace(batch, gain=0.6 + drawn)
    batch = replace(
        batch, **{name: v.double() for name, v in vars(batch).items() if is_float32(v)}
    )
    network.double()
    poses = BoundedResidual(taken.pairs).double()
    with torch.no_grad():
        poses.free.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    found = []
    for step in (PlainStep, fast.FastStep):
        made = step(network, MEANING, poses, weights)(batch)
        parameters = [p for p in (*network.parameters(), poses.free) if p.requires_grad]
        grads = torch.autograd.grad(made.loss, parameters, allow_unused=True)
        found.append((made, grads))
    (plain, plain_grads), (quick, quick_grads) = found
    assert set(plain.parts) == set(quick.parts) >= {'photometric', 'anchor', 'sparse', 'residual'}
    for name, value in plain.parts.items():
        torch.testing.assert_close(quick.parts[name], value, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(quick.loss, plain.loss, rtol=1e-8, atol=0)
    torch.testing.assert_close(quick.identity, plain.identity, rtol=1e-8, atol=0)
    assert torch.equal(quick.won, plain.won)
    largest = max(float(g.norm()) for g in plain_grads if g is not None)
    for mine, theirs in zip(quick_grads, plain_grads, strict=True):
        if theirs is not None:
            assert float((mine - theirs).norm()) < 1e-7 * max(float(theirs.norm()), 1e-3 * largest)


def test_sources_that_are_darker_cost_nothing_once_they_are_as_bright_as_the_target() -> None:
    network, batch = network_of('lite-mono', 'tiny'), samples().batch(0)
    dark = replace(batch, sources=(batch.sources.float() * 0.7).round().to(torch.uint8))
    step = fast.FastStep(network, MEANING, RecordedPoses(), LossWeights(anchor=0.0))
    even, uneven, mended = (
        float(step(one).parts['photometric'])
        for one in (batch, dark, replace(dark, gain=torch.full(batch.present.shape, 1 / 0.7)))
    )
    assert uneven > 1.05 * even and abs(mended / even - 1) < 0.01


def test_samples_measure_the_gain_of_their_own_images() -> None:
    given = samples(same_brightness=True).batch(0).gain
    assert given is not None and given.shape == samples().batch(0).present.shape
    assert samples().batch(0).gain is None
    assert float((given - 1).abs().max()) < 0.1, 'the exposure of these frames is constant'


def test_the_fast_step_is_the_plain_one_in_single_precision() -> None:
    network, batch = network_of('lite-mono', 'tiny'), samples().batch(0)
    weights = LossWeights(anchor=0.0)
    plain, quick = (
        step(network, MEANING, RecordedPoses(), weights)(batch)
        for step in (PlainStep, fast.FastStep)
    )
    for name, value in plain.parts.items():
        torch.testing.assert_close(quick.parts[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ('name', 'variant', 'kind'),
    [
        ('lite-mono', 'tiny', 'disparity'),
        ('monodepth2', 'resnet18', 'disparity'),
        ('diffnet', None, 'disparity'),
    ],
)
def test_networks_learn_from_a_batch(name: str, variant: str | None, kind: str) -> None:
    variant = variant or next(iter(registry.spec(name).variants))
    network = network_of(name, variant)
    batch = samples().batch(0)
    made = fast.FastStep(network, MEANING, RecordedPoses(), LossWeights(sparse=0.2))(batch)
    made.loss.backward()
    assert torch.isfinite(made.loss)
    first = next(p for p in network.parameters() if p.requires_grad)
    assert first.grad is not None and float(first.grad.norm()) > 0
    assert not any(
        p.requires_grad
        for m in network.modules()
        if isinstance(m, torch.nn.BatchNorm2d)
        for p in m.parameters()
    )


def test_metric_networks_are_read_as_the_pipeline_reads_them() -> None:
    meaning = DepthMeaning('metric', 0.1, 100.0, 2.0, 50.0)
    inverse = meaning.inverse_depth(torch.full((1, 1, 2, 2), 3.0), torch.tensor([75.0]))
    torch.testing.assert_close(1 / inverse, torch.full((1, 1, 2, 2), 3.0 * 2.0 * 75.0 / 50.0))
    unknown = DepthMeaning('disparity', 0.1, 100.0, 1.0, None)
    inverse = unknown.inverse_depth(torch.ones(1, 1, 2, 2), torch.tensor([75.0]))
    torch.testing.assert_close(inverse, torch.full((1, 1, 2, 2), 10.0))


@pytest.mark.parametrize(('network', 'kind'), [('midas', 'relative'), ('ecodepth', 'metric')])
def test_what_cannot_be_fine_tuned_is_refused_with_the_reason(network: str, kind: str) -> None:
    card = ModelCard('m', network, 'v', OutputSpec(kind), (), 'native')
    with pytest.raises(ModelError, match=r'lite-mono, monodepth2.*(scale and shift|diffusion)'):
        meaning_of(card)


def test_geometry_consistency_needs_the_sources_and_gives_a_gradient() -> None:
    network = network_of('lite-mono', 'tiny')
    batch = samples(source_views=True).batch(0)
    step = fast.FastStep(network, MEANING, RecordedPoses(), LossWeights(geometry=0.05))
    made = step(batch)
    assert 0 < float(made.parts['geometry']) < 1


def test_half_precision_is_taken_only_where_it_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of('lite-mono', 'tiny')

    def chosen(wanted: str, agreement: float, has: bool = True) -> str:
        monkeypatch.setattr(fast, 'bfloat16_agreement', lambda *_: agreement)
        monkeypatch.setattr(fast, '_has_bfloat16', lambda _: has)
        return fast.chosen_precision(network, wanted, (64, 96))

    with pytest.raises(SettingsError, match=r'cosine of 0\.500'):
        chosen('bfloat16', 0.5)
    assert chosen('bfloat16', 0.999, has=False) == 'bfloat16'
    assert chosen('auto', 0.999) == 'bfloat16'
    assert chosen('auto', 0.5) == 'float32'
    assert chosen('auto', 0.999, has=False) == 'float32'
    assert chosen('float32', 0.999) == 'float32'


@pytest.mark.gpu
@pytest.mark.parametrize('precision', ['float32', 'auto'])
def test_a_gpu_finds_the_same_loss(precision: str) -> None:
    network, batch = network_of('lite-mono', 'tiny'), samples().batch(0)
    there = fast.FastStep(network, MEANING, RecordedPoses(), LossWeights(sparse=0.2))(batch)
    network.to('cuda')
    chosen = fast.chosen_precision(network, precision, (64, 96))
    step = fast.FastStep(network, MEANING, RecordedPoses(), LossWeights(sparse=0.2), chosen)
    made = step(batch.to('cuda'))
    made.loss.backward()
    assert float(made.loss) == pytest.approx(float(there.loss), rel=0.03)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
