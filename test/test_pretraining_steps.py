"""Steps of a training: what is no number leaves no trace, and nothing waits to find out."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip('torch')

from depth_node.networks import registry  # noqa: E402
from depth_node.networks.specification import Identity  # noqa: E402
from depth_node.pretraining.augmentation import AugmentationSettings  # noqa: E402
from depth_node.pretraining.batch import Batch  # noqa: E402
from depth_node.pretraining.losses import LossWeights  # noqa: E402
from depth_node.pretraining.stepping import Stepper  # noqa: E402
from depth_node.pretraining.stepping import StepSettings  # noqa: E402

SETTINGS = StepSettings(
    depth_range_m=(0.1, 100.0),
    target_range_m=(0.15, 80.0),
    weights=LossWeights(),
    augmentation=AugmentationSettings(),
    seed=0,
    weight_decay=0.02,
    clip=1.0,
    averaging=0.998,
)


def stepper(device: str = 'cpu') -> Stepper:
    torch.manual_seed(0)
    options = {'drop_path': 0.0, 'layer_scale': 0.1}
    network = registry.build('lite-mono', Identity('tiny', options))
    return Stepper(network, SETTINGS, torch.device(device))


def batch_of(value: float) -> Batch:
    generator = torch.Generator().manual_seed(6)
    image = torch.randint(0, 256, (2, 3, 32, 64), generator=generator).to(torch.uint8)
    return Batch(image, torch.full((2, 1, 32, 64), value))


def flat(state: object) -> list[torch.Tensor]:
    if isinstance(state, dict):
        return [item for value in state.values() for item in flat(value)]
    return [state] if isinstance(state, torch.Tensor) else []


@pytest.mark.parametrize('where', [0, 1, 3], ids=['first', 'second', 'last'])
def test_a_broken_step_leaves_no_trace_in_weights_statistics_and_optimiser(where: int) -> None:
    clean, hit = stepper(), stepper()
    for number in range(3):
        if number == where:
            hit.step(batch_of(math.nan), number, 1e-3)
        clean.step(batch_of(2.0), number, 1e-3)
        hit.step(batch_of(2.0), number, 1e-3)
    if where == 3:
        hit.step(batch_of(math.nan), 3, 1e-3)
    found = hit.counted()
    assert found.taken == 3 and found.broken == 1
    assert found.loss == pytest.approx(clean.counted().loss) and found.loss > 0.0
    states = flat(clean.state()), flat(hit.state())
    assert len(states[0]) == len(states[1]) > 300
    assert all(torch.equal(one, two) for one, two in zip(*states, strict=True))
    fresh = stepper().network.state_dict()
    trained = clean.network.state_dict()
    assert not all(torch.equal(fresh[name], value) for name, value in trained.items())


def test_broken_steps_in_a_row_are_counted_over_several_readings() -> None:
    there = stepper()
    for number, value in enumerate((math.nan, math.nan, 2.0, math.nan)):
        there.step(batch_of(value), number, 1e-3)
    assert there.counted().broken == 2
    there.step(batch_of(math.nan), 4, 1e-3)
    found = there.counted()
    assert found.broken == 2 and found.taken == 0 and found.loss == 0.0


def test_a_checkpoint_of_an_optimiser_that_was_not_fused_goes_on() -> None:
    """Trainings that began before steps could be left out on the device must not lose them."""
    there = stepper()
    there.step(batch_of(2.0), 0, 1e-3)
    state = there.state()
    old = torch.optim.AdamW(there.network.parameters())
    groups = [
        {**own, 'params': theirs['params'], 'weight_decay': theirs['weight_decay']}
        for own, theirs in zip(
            old.state_dict()['param_groups'] * 2, state['optimizer']['param_groups'], strict=True
        )
    ]
    assert not groups[0]['fused']
    again = stepper()
    again.load({**state, 'optimizer': {**state['optimizer'], 'param_groups': groups}})
    before = [item.clone() for item in flat(again.state())]
    again.step(batch_of(math.nan), 1, 1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, flat(again.state()), strict=True))
    again.step(batch_of(2.0), 1, 1e-3)
    assert again.counted().taken == 1


@pytest.mark.gpu
def test_a_broken_step_leaves_no_trace_on_a_gpu() -> None:
    there = stepper('cuda')
    for number, value in enumerate((2.0, math.nan)):
        before = [item.clone() for item in flat(there.state())]
        batch = batch_of(value)
        there.step(Batch(batch.image.cuda(), batch.depth.cuda()), number, 1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, flat(there.state()), strict=True))
    assert there.counted().taken == 1
