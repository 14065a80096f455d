"""The training loop: interrupted anywhere, it goes on bit for bit; alone or in several processes.

A loss that is no number costs a strike: the step is left out and all learning rates are halved.
Three strikes, a full disk, or an early stop end the training with the last good weights and a
sentence.  Training never makes weights that are no numbers.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import nn

from depth_node.errors import ModelError
from depth_node.errors import RecordingError
from depth_node.errors import SettingsError
from depth_node.files import sweep_orphans
from depth_node.files import write_atomically
from depth_node.finetuning.depth_output import DepthMeaning
from depth_node.finetuning.objective import LossWeights
from depth_node.finetuning.objective import StepResult
from depth_node.finetuning.pose import NetworkPoses
from depth_node.finetuning.pose import Poses
from depth_node.finetuning.processes import average_
from depth_node.finetuning.processes import rank_and_size
from depth_node.finetuning.processes import wait_for_all
from depth_node.finetuning.samples import Samples
from depth_node.finetuning.schedule import Schedule
from depth_node.finetuning.schedule import parameter_groups
from depth_node.finetuning.step import FastStep
from depth_node.finetuning.step import chosen_precision
from depth_node.finetuning.step import trainable
from depth_node.networks.depth_network import DepthNetwork

CHECKPOINT_NAME = 'last.pt'
STRIKES = 3

_PARTS = (
    'photometric', 'smoothness', 'anchor', 'teacher', 'sparse', 'geometry', 'residual',
)  # fmt: skip
_MEMORY = 0.9
"""Of the running mean of the time of a step."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands."""

    step: int
    """Steps done, those of the pose network included."""
    steps: int
    """All steps."""
    seconds_left: float
    """Estimate; NaN before the first two steps."""
    loss: float
    """Of the last step."""
    ratio: float
    """Photometric loss as a share of that of standing still: below 1 the images explain each
    other."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a training runs, besides its schedule."""

    schedule: Schedule = field(default_factory=Schedule)
    """Rates and steps."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Parts of the loss."""
    precision: str = 'auto'
    """'auto', 'float32' or 'bfloat16', of the network; see step.chosen_precision."""
    workers: int = 1
    """Threads that read ahead; 0: none."""
    save_every: int = 100
    """Steps between two checkpoints."""
    record_every: int = 10
    """Steps that one line of the curve is the mean of."""
    judge_every: int = 0
    """Steps between two calls of ``judge``; 0: a tenth of all."""
    patience: int = 4
    """Calls of ``judge`` without an improvement that end the training."""


@dataclass
class State:
    """All that a checkpoint holds besides tensors."""

    step: int = 0
    """Steps done."""
    strikes: int = 0
    """Steps that were left out."""
    slowdown: float = 1.0
    """Factor on all learning rates."""
    best_score: float = math.inf
    """Smallest figure of ``judge``."""
    best_step: int = -1
    """Step at which it was found; -1: none."""
    unimproved: int = 0
    """Calls of ``judge`` since."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """Means over ``record_every`` steps."""
    recent: list[dict[str, float]] = field(default_factory=list)
    """Steps that are not in the curve yet."""


@dataclass(frozen=True)
class FineTuned:
    """What a training has made."""

    network: DepthNetwork
    """The averaged network, in evaluation mode; the best one where it was judged."""
    state: State
    """How it went."""
    stopped: str
    """Why it ended early, a sentence; empty: it ran to its end."""
    unsaved: str = ''
    """Why the disk refused a checkpoint; the last one that it took is still there."""


class Trainer:
    """Trains one network.

    :param network: the start; it is trained in place, on the device where it is.
    :param meaning: what its output means.
    :param samples: what it learns from.
    :param poses: where poses come from.
    :param folder: of checkpoints; only the first process writes.
    :param settings: how.
    :param progress: called after every step.
    :param judge: averaged network -> figure, smaller is better; called now and then in the first
        process, and must leave the network as it is.
    """

    def __init__(
        self,
        network: DepthNetwork,
        meaning: DepthMeaning,
        samples: Samples,
        poses: Poses,
        folder: Path,
        settings: TrainingSettings,
        progress: Callable[[Progress], None] | None = None,
        judge: Callable[[DepthNetwork], float] | None = None,
    ) -> None:
        self._device = next(network.parameters()).device
        self._network = trainable(network)
        self._averaged = copy.deepcopy(network).requires_grad_(False)
        self._best: dict[str, Tensor] | None = None
        self._poses = poses.to(self._device)
        self._samples, self._settings, self._folder = samples, settings, folder
        self._progress, self._judge = progress, judge
        self._rank, self._world = rank_and_size()
        _check(samples, poses, self._world)
        self._precision = chosen_precision(network, settings.precision, samples.largest)
        self._step = FastStep(network, meaning, poses, settings.weights, self._precision)
        groups = parameter_groups(network, poses, settings.schedule)
        self._optimizer = torch.optim.AdamW(groups, lr=0.0)
        self._parameters = [
            item for group in self._optimizer.param_groups for item in group['params']
        ]
        self._pose_steps = settings.schedule.pose_steps if isinstance(poses, NetworkPoses) else 0
        self.state = State()

    def run(self) -> FineTuned:
        """Train to the end, from the last checkpoint where there is one.

        :raises ModelError: when the checkpoint in the folder is damaged or of another training.
        """
        stopped, unsaved = '', ''
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._rank == 0:
                sweep_orphans(self._folder)
            self._resume()
            wait_for_all()
            stopped = self._train()
            self._save()
        except OSError as error:
            unsaved = str(error.strerror or error)
            stopped = (
                f'Training ended after step {self.state.step} because the disk refused: '
                f'{unsaved}. The weights of that step are kept in memory; free '
                f'some space in {self._folder}.'
            )
        made = self._averaged
        if self._best is not None:
            made.load_state_dict(self._best)
        return FineTuned(made.eval(), self.state, stopped, unsaved)

    def _train(self) -> str:
        state, total = self.state, self._pose_steps + self._settings.schedule.steps
        stopped = self._ended(total)  # a training that has ended stays so, if it is called again
        if stopped:
            return stopped
        source = self._samples.batches(
            state.step,
            total,
            workers=self._settings.workers,
            rank=self._rank,
            world_size=self._world,
        )
        pace_s = math.nan
        began = time.monotonic()
        for batch in source:
            self._advance(batch.to(self._device))
            state.step += 1
            now = time.monotonic()
            took, began = now - began, now
            pace_s = took if math.isnan(pace_s) else _MEMORY * pace_s + (1 - _MEMORY) * took
            self._tell(total, pace_s)
            self._judge_now(total)
            stopped = self._ended(total)
            if stopped:
                return stopped
            if state.step % self._settings.save_every == 0 and state.step < total:
                self._save()
        return ''

    def _ended(self, total: int) -> str:
        """Return a sentence where the training must end before its last step."""
        state = self.state
        if state.strikes >= STRIKES:
            return (
                f'Training ended at step {state.step}: for the {STRIKES}rd time the loss was no '
                'number, although the learning rate had been halved each time. The last good '
                'weights are kept; look for frames without content, or wrong poses.'
            )
        if self._judge is not None and state.unimproved >= self._settings.patience:
            return (
                f'Training ended at step {state.step} of {total}: no improvement in '
                f'{state.unimproved} judgements; the weights of step {state.best_step} are kept.'
            )
        return ''

    def _advance(self, batch: Any) -> None:
        """Take one step, or leave it out where the loss is no number."""
        state, warming = self.state, self.state.step < self._pose_steps
        self._set_rates(warming)
        self._optimizer.zero_grad(set_to_none=True)
        result = (self._step.warm_up if warming else self._step)(batch)
        result.loss.backward()
        grads = [item.grad for item in self._parameters if item.grad is not None]
        figures = _figures(result, self._settings.weights)
        average_([*grads, *figures.values()])
        norm = nn.utils.clip_grad_norm_(self._parameters, self._settings.schedule.clip)
        if not (math.isfinite(float(norm)) and math.isfinite(float(figures['loss']))):
            state.strikes += 1
            state.slowdown *= 0.5
            return
        self._optimizer.step()
        if not warming:
            self._average()
        self._note({name: float(value) for name, value in figures.items()})

    def _set_rates(self, warming: bool) -> None:
        schedule, state = self._settings.schedule, self.state
        share = 1.0 if warming else schedule.rate(state.step - self._pose_steps)
        for group in self._optimizer.param_groups:
            peak = schedule.pose_warm_up_rate if warming else group['peak']
            group['lr'] = state.slowdown * share * peak

    def _average(self) -> None:
        decay = self._settings.schedule.averaging
        theirs = dict(self._network.named_parameters())
        with torch.no_grad():
            for name, value in self._averaged.named_parameters():
                value.lerp_(theirs[name], 1 - decay)

    def _note(self, figures: dict[str, float]) -> None:
        state = self.state
        state.recent.append(figures)
        if len(state.recent) < self._settings.record_every:
            return
        count = len(state.recent)
        means = {
            name: sum(one.get(name, 0.0) for one in state.recent) / count
            for name in state.recent[-1]
        }
        means['ratio'] = means['photometric'] / max(means['identity'], 1e-12)
        state.curve.append({'step': float(state.step + 1), **means})
        state.recent.clear()

    def _tell(self, total: int, pace_s: float) -> None:
        if self._progress is None or self._rank:
            return
        last = self.state.recent[-1] if self.state.recent else None
        last = last or (self.state.curve[-1] if self.state.curve else {})
        still = last.get('identity', math.nan)
        ratio = last.get('photometric', math.nan) / still if still else math.nan
        left = (total - self.state.step) * pace_s if self.state.step > 1 else math.nan
        self._progress(Progress(self.state.step, total, left, last.get('loss', math.nan), ratio))

    def _judge_now(self, total: int) -> None:
        """Judge where it is time, and keep the best."""
        if self._judge is None:
            return
        state, settings = self.state, self._settings
        every = settings.judge_every or max(1, settings.schedule.steps // 10)
        done = state.step - self._pose_steps
        if done <= 0 or (done % every and state.step != total):
            return
        score = torch.full((), math.nan, dtype=torch.float64)
        if self._rank == 0:
            score.fill_(self._judge(self._averaged))
        if self._world > 1:
            score = score.to(self._device)
            torch.distributed.broadcast(score, 0)
        if float(score) < state.best_score:
            state.best_score, state.best_step, state.unimproved = float(score), state.step, 0
            self._best = {k: v.clone() for k, v in self._averaged.state_dict().items()}
        else:
            state.unimproved += 1

    def _save(self) -> None:
        """Write a checkpoint; OSError when the disk refuses, which leaves the old one."""
        if self._rank:
            return
        held = {
            'identity': self._identity(),
            'network': self._network.state_dict(),
            'averaged': self._averaged.state_dict(),
            'poses': self._poses.state_dict(),
            'optimizer': self._optimizer.state_dict(),
            'best': self._best,
            'state': asdict(self.state),
        }
        path = self._folder / CHECKPOINT_NAME
        try:
            write_atomically(path, lambda stream: torch.save(held, stream))
        except RuntimeError as error:
            # torch's writer says of a full disk only that its own sums do not fit
            raise OSError(f'{path.name} could not be written ({error})') from error

    def _resume(self) -> None:
        path = self._folder / CHECKPOINT_NAME
        if not path.exists():
            return
        try:
            held = torch.load(path, map_location='cpu', weights_only=True)
            if held['identity'] != self._identity():
                raise ValueError('another training')
            self._network.load_state_dict(held['network'])
            self._averaged.load_state_dict(held['averaged'])
            self._poses.load_state_dict(held['poses'])
            self._optimizer.load_state_dict(held['optimizer'])
            self._best = held['best']
            self.state = State(**held['state'])
        # a damaged archive may make torch raise anything
        except Exception as error:
            raise ModelError(
                f'checkpoint {path}',
                ' '.join(str(error).split())[:80] or type(error).__name__,
                'one of this training',
                'Delete it to start anew.',
            ) from error

    def _identity(self) -> dict[str, Any]:
        """Return what must be the same for a checkpoint to go on from."""
        return {
            'network': self._network.name,
            'schedule': asdict(self._settings.schedule),
            'weights': asdict(self._settings.weights),
            'batches': asdict(self._samples.settings),
            'targets': len(self._samples),
            'pairs': self._samples.pairs,
            'precision': self._precision,
        }


def fine_tuned(
    network: DepthNetwork,
    meaning: DepthMeaning,
    samples: Samples,
    poses: Poses,
    folder: Path,
    settings: TrainingSettings | None = None,
    progress: Callable[[Progress], None] | None = None,
    judge: Callable[[DepthNetwork], float] | None = None,
) -> FineTuned:
    """Fine-tune a network and return its moving average; see :class:`Trainer`.

    :raises ModelError: when the folder holds a checkpoint that is damaged or of another training.
    """
    settings = settings or TrainingSettings()
    return Trainer(network, meaning, samples, poses, folder, settings, progress, judge).run()


def _check(samples: Samples, poses: Poses, processes: int) -> None:
    """Refuse what would end in losses that are no numbers, or differ between processes."""
    if isinstance(poses, NetworkPoses):
        if not (samples.started and samples.settings.source_views):
            raise SettingsError(
                'fine-tuning with a pose network',
                'samples without the depth of the start model, or without views of the sources',
                'both',
                'Give Footage.start and BatchSettings.source_views.',
            )
    elif not samples.posed:
        raise RecordingError(
            'fine-tuning', 'pairs of frames without poses', 'poses of all',
            'Record odometry or TF, or train with a pose network.',
        )  # fmt: skip
    if samples.settings.size % processes:
        raise SettingsError(
            'batch size',
            f'{samples.settings.size} samples for {processes} processes',
            'a multiple of the number of processes',
        )


def _figures(result: StepResult, weights: LossWeights) -> dict[str, Tensor]:
    """Return what a step found as tensors of one element, which processes can average.

    Every process must name the same ones, whatever its part of the batch holds.
    """
    found = {'loss': result.loss.detach(), 'identity': result.identity, 'won': result.won}
    for name in _PARTS:
        if getattr(weights, name):
            found[name] = result.parts.get(name, torch.zeros_like(result.identity))
    return {name: value.detach().clone().float() for name, value in found.items()}
