"""The training loop: stages of growing input size, each with a budget of wall time, resumable."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import torch
from torch import Tensor
from torch import nn

from depth_node.errors import ModelError
from depth_node.files import sweep_orphans
from depth_node.files import write_atomically
from depth_node.files import write_text_atomically
from depth_node.pretraining.batch import Batch
from depth_node.pretraining.batch import BatchSpec
from depth_node.pretraining.batches import batches
from depth_node.pretraining.losses import LossWeights
from depth_node.pretraining.losses import log_depth_loss
from depth_node.pretraining.losses import log_depth_of

CHECKPOINT_NAME = 'last.pt'


@dataclass(frozen=True)
class Stage:
    """One part of the training at one set of input sizes."""

    minutes: float
    """Wall time, minutes."""
    spec: BatchSpec
    """What its batches are made of."""
    learning_rate: float
    """Of AdamW at the beginning of the stage."""
    final_learning_rate: float
    """At its end; in between it follows half a cosine."""


@dataclass(frozen=True)
class TrainingPlan:
    """All that defines a training; kept beside its result."""

    network: str
    """Registry name."""
    variant: str
    """Variant of the network."""
    options: dict[str, object]
    """Options of the registry's ``build``."""
    depth_range_m: tuple[float, float]
    """Depth at disparity 1 and at disparity 0, metres at the focal length of the card."""
    stages: tuple[Stage, ...]
    """One after the other."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Parts of the loss."""
    seed: int = 0
    """Of initialisation and scenes."""
    weight_decay: float = 0.02
    """Of AdamW, not on norms and biases."""
    warm_up_steps: int = 200
    """Steps with growing learning rate at the start of the training."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    averaging: float = 0.998
    """Decay of the exponential moving average of weights and BN statistics, per step."""
    workers: int = 1
    """Processes that render."""


@dataclass
class Progress:
    """Where a training stands."""

    stage: int = 0
    """Index of the running stage."""
    stage_s: float = 0.0
    """Time spent in it, seconds."""
    steps: int = 0
    """Steps taken in all."""
    images: int = 0
    """Images seen in all."""
    restarts: int = 0
    """How often it was resumed; part of the seed, so that scenes do not repeat."""


class Trainer:
    """Trains one network by a plan; its state lives in ``folder`` and survives any interruption.

    :param report: called about twice a minute with one line of text.
    :param evaluate: called with the averaged network about every ``evaluate_every_s``; its
        figures go to ``curve.jsonl``.  It gets a network on ``device``.
    :param device: where the network is trained and batches are rendered or brought.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: TrainingPlan,
        folder: Path,
        report: Callable[[str], None],
        evaluate: Callable[[nn.Module], dict[str, float]],
        evaluate_every_s: float = 240.0,
        device: torch.device | str = 'cpu',
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._report = report
        self._evaluate = evaluate
        self._evaluate_every_s = evaluate_every_s
        self._device = torch.device(device)
        self._network = network.to(self._device, memory_format=torch.channels_last)
        self._averaged = copy.deepcopy(network).eval().requires_grad_(False)
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(network, plan.weight_decay), betas=(0.9, 0.98)
        )
        self.progress = Progress()
        self._losses: list[float] = []
        self._errors: list[float] = []

    def run(self) -> nn.Module:
        """Train to the end of the plan and return the averaged network.

        :raises ModelError: when the loss is no number ten times in a row.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        sweep_orphans(self._folder)
        write_text_atomically(self._folder / 'plan.json', json.dumps(asdict(self._plan), indent=2))
        self._resume()
        while self.progress.stage < len(self._plan.stages):
            self._run_stage(self._plan.stages[self.progress.stage])
            self.progress.stage += 1
            self.progress.stage_s = 0.0
            self._save()
        return self._averaged

    def _run_stage(self, stage: Stage) -> None:
        seed = self._plan.seed + 1000 * self.progress.stage + 100_000 * self.progress.restarts
        source = batches(stage.spec, seed, self._plan.workers, self._device)
        budget_s = 60.0 * stage.minutes
        started = time.monotonic() - self.progress.stage_s
        reported = evaluated = time.monotonic()
        broken = 0
        while self.progress.stage_s < budget_s:
            self._set_rate(stage, self.progress.stage_s / budget_s)
            broken = 0 if self._step(next(source)) else broken + 1
            if broken >= 10:
                raise ModelError('training', 'a loss that is no number, ten times', 'a number')
            self.progress.stage_s = time.monotonic() - started
            if time.monotonic() - reported > 30.0:
                reported = time.monotonic()
                self._report_line(budget_s)
                self._save()
            if time.monotonic() - evaluated > self._evaluate_every_s:
                self._record()
                evaluated = time.monotonic()
        self._record()

    def _step(self, batch: Batch) -> bool:
        """Take one step; return False, with nothing changed, when the loss is no number."""
        self._network.train()
        image = batch.image.to(memory_format=torch.channels_last).float() / 255.0
        with torch.autocast(self._device.type, torch.bfloat16):
            disparities = self._network(image)
        loss = log_depth_loss(
            disparities, batch.log_depth, batch.far, self._plan.depth_range_m, self._plan.weights
        )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._network.parameters(), self._plan.clip)
        if not math.isfinite(float(norm)):
            return False
        self._optimizer.step()
        self.progress.steps += 1
        self.progress.images += image.shape[0]
        self._average()
        self._losses.append(float(loss.detach()))
        self._errors.append(self._log_error(disparities[0].detach().float(), batch))
        return True

    def _log_error(self, disparity: Tensor, batch: Batch) -> float:
        error = log_depth_of(disparity, self._plan.depth_range_m) - batch.log_depth
        return float(error.abs()[~batch.far].mean())

    def _average(self) -> None:
        # a short memory at first, or the random start would stay in the average for long
        decay = min(self._plan.averaging, self.progress.steps / (self.progress.steps + 10.0))
        with torch.no_grad():
            mine, theirs = self._averaged.state_dict(), self._network.state_dict()
            for name, value in mine.items():
                if value.is_floating_point():
                    value.lerp_(theirs[name], 1.0 - decay)
                else:
                    value.copy_(theirs[name])

    def _set_rate(self, stage: Stage, share: float) -> None:
        bend = 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
        rate = stage.final_learning_rate + bend * (stage.learning_rate - stage.final_learning_rate)
        rate *= min(1.0, (self.progress.steps + 1) / self._plan.warm_up_steps)
        for group in self._optimizer.param_groups:
            group['lr'] = rate

    def _report_line(self, budget_s: float) -> None:
        progress, recent = self.progress, max(1, len(self._losses))
        left_s = budget_s - progress.stage_s
        left_s += sum(60.0 * stage.minutes for stage in self._plan.stages[progress.stage + 1 :])
        self._report(
            f'stage {progress.stage + 1}/{len(self._plan.stages)}  {progress.images:7d} images  '
            f'loss {sum(self._losses) / recent:.4f}  log error {sum(self._errors) / recent:.3f}  '
            f'{left_s / 60.0:5.1f} min left'
        )
        self._losses.clear()
        self._errors.clear()

    def _record(self) -> None:
        figures = self._evaluate(self._averaged)
        line = {'images': self.progress.images, 'steps': self.progress.steps, **figures}
        with (self._folder / 'curve.jsonl').open('a') as stream:
            stream.write(json.dumps(line) + '\n')
        self._report('  '.join(f'{name} {value:.3f}' for name, value in figures.items()))

    def _save(self) -> None:
        state = {
            'network': self._network.state_dict(),
            'averaged': self._averaged.state_dict(),
            'optimizer': self._optimizer.state_dict(),
            'progress': asdict(self.progress),
        }
        write_atomically(self._folder / CHECKPOINT_NAME, lambda stream: torch.save(state, stream))

    def _resume(self) -> None:
        path = self._folder / CHECKPOINT_NAME
        if not path.exists():
            return
        state = torch.load(path, map_location=self._device, weights_only=True)
        self._network.load_state_dict(state['network'])
        self._averaged.load_state_dict(state['averaged'])
        self._optimizer.load_state_dict(state['optimizer'])
        self.progress = Progress(**state['progress'])
        self.progress.restarts += 1
        self._report(f'resumed after {self.progress.images} images')


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Keep weight decay off norms, biases and layer scales."""
    named = [item for item in network.parameters() if item.requires_grad]
    return [
        {'params': [item for item in named if item.ndim > 1], 'weight_decay': weight_decay},
        {'params': [item for item in named if item.ndim <= 1], 'weight_decay': 0.0},
    ]
