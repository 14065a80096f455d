"""Steps of a training that never wait for the device: what they did is counted there."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import nn

from depth_node.pretraining.augmentation import AugmentationSettings
from depth_node.pretraining.augmentation import reframed
from depth_node.pretraining.augmentation import relit
from depth_node.pretraining.batch import Batch
from depth_node.pretraining.losses import LossWeights
from depth_node.pretraining.losses import log_depth_loss
from depth_node.pretraining.losses import log_depth_of


@dataclass(frozen=True)
class StepSettings:
    """What every step of a training has in common."""

    depth_range_m: tuple[float, float]
    """Depth at disparity 1 and at disparity 0, metres at the focal length of the card."""
    target_range_m: tuple[float, float]
    """Nearest and farthest target, metres at the focal length of the card."""
    weights: LossWeights
    """Parts of the loss."""
    augmentation: AugmentationSettings
    """How views are varied."""
    seed: int
    """Of the variations."""
    weight_decay: float
    """Of AdamW, not on norms and biases."""
    clip: float
    """Largest norm of the gradient."""
    averaging: float
    """Decay of the moving average, per step."""


@dataclass(frozen=True)
class Counted:
    """What the steps since the last count did."""

    taken: int
    """Steps that changed the weights."""
    broken: int
    """Most steps in a row whose loss or gradient was no number, earlier counts included."""
    loss: float
    """Sum over the steps taken."""
    error: float
    """Sum of the mean absolute errors of the logarithm of depth over the steps taken."""


class Stepper:
    """A network, its moving average and its optimiser on one device."""

    def __init__(self, network: nn.Module, settings: StepSettings, device: torch.device) -> None:
        self._settings = settings
        self._device = device
        self.network = network.to(device, memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False)
        # only the fused one can leave a step out without asking the host
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(network, settings.weight_decay), betas=(0.9, 0.98), fused=True
        )
        self._sums = torch.zeros(3, device=device)  # steps taken, their losses, their errors
        self._run = torch.zeros((), device=device)  # broken steps in a row
        self._longest = torch.zeros((), device=device)

    def step(self, batch: Batch, number: int, rate: float) -> None:
        """Take one step; a loss or gradient that is no number leaves everything as it is.

        :param number: of the step, from 0; another one varies the views otherwise.
        :param rate: learning rate.
        """
        self.network.train()
        statistics = list(self.network.buffers())
        before = [item.clone() for item in statistics]
        image, log_depth, far = self._varied(batch, number)
        with torch.autocast(self._device.type, torch.bfloat16):
            disparities = self.network(image)
        settings = self._settings
        loss = log_depth_loss(
            disparities, log_depth, far, settings.depth_range_m, settings.weights
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        good = norm.isfinite() & loss.detach().isfinite()
        for now, then in zip(statistics, before, strict=True):
            now.copy_(torch.where(good, now, then))
        for group in self.optimizer.param_groups:
            group['lr'] = rate
        # as torch.amp.GradScaler tells it
        self.optimizer.found_inf = (~good).float()
        self.optimizer.step()
        self._average(number + 1, good)
        error = self._log_error(disparities[0].detach().float(), log_depth, far)
        self._count(good, loss.detach(), error)

    def counted(self) -> Counted:
        """Return what the steps since the last call did; waits for the device."""
        taken, loss, error = (float(item) for item in self._sums.cpu())
        broken = float(self._longest)
        self._sums.zero_()
        self._longest = self._run
        return Counted(round(taken), round(broken), loss, error)

    def load(self, state: dict[str, dict[str, object]]) -> None:
        """Go on from :meth:`state`; also from that of an optimiser that was not fused."""
        self.network.load_state_dict(state['network'])
        self.averaged.load_state_dict(state['averaged'])
        groups = [{**group, 'fused': True} for group in state['optimizer']['param_groups']]  # type: ignore[attr-defined]
        self.optimizer.load_state_dict({**state['optimizer'], 'param_groups': groups})

    def state(self) -> dict[str, dict[str, object]]:
        """Return all that the next steps depend on."""
        return {
            'network': self.network.state_dict(),
            'averaged': self.averaged.state_dict(),
            'optimizer': self.optimizer.state_dict(),
        }

    def _varied(self, batch: Batch, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return image, log depth and where it is far; another variation at every step."""
        settings, device = self._settings, batch.image.device
        generator = torch.Generator(device).manual_seed(settings.seed * 1_000_003 + number)
        image = batch.image.float() / 255.0
        image, depth = reframed(image, batch.depth, settings.augmentation, generator)
        image = relit(image, settings.augmentation, generator)
        near, far = settings.target_range_m
        image = image.contiguous(memory_format=torch.channels_last)
        return image, depth.clamp(near, far).log(), depth >= far

    def _log_error(self, disparity: Tensor, log_depth: Tensor, far: Tensor) -> Tensor:
        error = log_depth_of(disparity, self._settings.depth_range_m) - log_depth
        known = (~far).float()
        return (error.abs() * known).sum() / known.sum().clamp_min(1.0)

    def _average(self, steps: int, good: Tensor) -> None:
        # a short memory at first, or the random start would stay in the average for long
        decay = min(self._settings.averaging, steps / (steps + 10.0))
        with torch.no_grad():
            mine, theirs = self.averaged.state_dict(), self.network.state_dict()
            for name, value in mine.items():
                new = torch.where(good, theirs[name], value)
                if value.is_floating_point():
                    value.lerp_(new, 1.0 - decay)
                else:
                    value.copy_(new)

    def _count(self, good: Tensor, loss: Tensor, error: Tensor) -> None:
        one = torch.stack((torch.ones_like(loss), loss, error))
        self._sums += torch.where(good, one, 0.0)
        self._run = torch.where(good, 0.0, self._run + 1.0)
        self._longest = torch.maximum(self._longest, self._run)


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Keep weight decay off norms, biases and layer scales."""
    named = [item for item in network.parameters() if item.requires_grad]
    return [
        {'params': [item for item in named if item.ndim > 1], 'weight_decay': weight_decay},
        {'params': [item for item in named if item.ndim <= 1], 'weight_decay': 0.0},
    ]
