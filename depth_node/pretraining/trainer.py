"""The training loop: stages of growing input size, each of a number of images, resumable."""

from __future__ import annotations

import json
import math
import os
import pickle
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import torch
from torch import nn

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.files import sweep_orphans
from depth_node.files import write_atomically
from depth_node.files import write_text_atomically
from depth_node.pretraining.augmentation import AugmentationSettings
from depth_node.pretraining.batch import Batch
from depth_node.pretraining.batch import BatchSpec
from depth_node.pretraining.batches import batches
from depth_node.pretraining.losses import LossWeights
from depth_node.pretraining.machine import CPU
from depth_node.pretraining.machine import described
from depth_node.pretraining.machine import device_name
from depth_node.pretraining.stepping import Counted
from depth_node.pretraining.stepping import Stepper
from depth_node.pretraining.stepping import StepSettings

PLAN_NAME = 'plan.json'
CHECKPOINT_NAME = 'last.pt'
RECORD_NAME = 'training.json'
_FIXED = ('network', 'variant', 'options', 'depth_range_m', 'seed', 'start')
"""Parts of the plan that hold for the whole of a training."""
_BROKEN_STEPS = 10
_NO_CHECKPOINT = (
    *(OSError, EOFError, RuntimeError, pickle.UnpicklingError),
    *(LookupError, TypeError, ValueError, AttributeError),
)
"""What reading a file that is no checkpoint of a network ends with."""
_STEPS_WITHOUT_WAITING = 16


@dataclass(frozen=True)
class Stage:
    """One part of the training at one set of input sizes."""

    images: int
    """Images to show."""
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
    target_range_m: tuple[float, float] = (0.15, 80.0)
    """Nearest and farthest target, metres at the focal length of the card."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    """How views that are shown again are varied."""
    start: str = ''
    """Model folder whose weights it began with; '' for drawn ones."""
    workers: int = 1
    """Processes that render."""


@dataclass
class Progress:
    """Where a training stands."""

    stage: int = 0
    """Index of the running stage."""
    stage_images: int = 0
    """Images seen in it."""
    seconds: float = 0.0
    """Wall time of all steps, evaluation not counted."""
    steps: int = 0
    """Steps taken in all."""
    images: int = 0
    """Images seen in all."""
    restarts: int = 0
    """How often it was resumed; part of the seed, so that scenes do not repeat."""
    seconds_on: dict[str, float] = field(default_factory=dict)
    """``seconds`` by the name of the device."""


class Trainer:
    """Trains one network by a plan; its state lives in ``folder`` and survives any interruption.

    :param report: called about twice a minute with one line of text.
    :param evaluate: called about every ``evaluate_every_s`` with the averaged network, on
        ``device``, and the (height, width) that it is being trained at; its figures go to
        ``curve.jsonl``.
    :param device: where the network is trained and batches are rendered or brought.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: TrainingPlan,
        folder: Path,
        report: Callable[[str], None],
        evaluate: Callable[[nn.Module, Sequence[tuple[int, int]]], dict[str, float]],
        evaluate_every_s: float = 240.0,
        device: torch.device | str = 'cpu',
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._report = report
        self._evaluate = evaluate
        self._evaluate_every_s = evaluate_every_s
        self._device = torch.device(device)
        settings = StepSettings(
            depth_range_m=plan.depth_range_m,
            target_range_m=plan.target_range_m,
            weights=plan.weights,
            augmentation=plan.augmentation,
            seed=plan.seed,
            weight_decay=plan.weight_decay,
            clip=plan.clip,
            averaging=plan.averaging,
        )
        self._stepper = Stepper(network, settings, self._device)
        # a CPU has nothing to do while it would not wait
        self._unread_steps = 1 if self._device.type == 'cpu' else _STEPS_WITHOUT_WAITING
        self.progress = Progress()
        self._recent = Counted(0, 0, 0.0, 0.0)
        self._reported_images = 0

    def run(self) -> nn.Module:
        """Train to the end of the plan and return the averaged network.

        :raises ModelError: when the loss is no number ten times in a row, and when the
            folder holds a training of another plan or a checkpoint that is none of this network.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        sweep_orphans(self._folder)
        self._check_plan()
        self._resume()
        # not before: the plan that lies there belongs to the checkpoint beside it
        plan = json.dumps(asdict(self._plan), indent=2)
        write_text_atomically(self._folder / PLAN_NAME, plan)
        self._write_record()
        while self.progress.stage < len(self._plan.stages):
            self._run_stage(self._plan.stages[self.progress.stage])
            self.progress.stage += 1
            self.progress.stage_images = 0
            self._save()
        return self._stepper.averaged

    def _run_stage(self, stage: Stage) -> None:
        seed = self._plan.seed + 1000 * self.progress.stage + 100_000 * self.progress.restarts
        source = batches(stage.spec, seed, self._plan.workers, self._device)
        reported = evaluated = time.monotonic()
        while self.progress.stage_images < stage.images:
            began = time.monotonic()
            self._take_steps(stage, source)
            self._count_time(time.monotonic() - began)
            if time.monotonic() - reported > 30.0:
                self._report_line(time.monotonic() - reported)
                reported = time.monotonic()
                self._save()
            if time.monotonic() - evaluated > self._evaluate_every_s:
                self._record(stage)
                evaluated = time.monotonic()
        self._record(stage)

    def _take_steps(self, stage: Stage, source: Iterator[Batch]) -> None:
        """Take few steps and then see what became of them."""
        progress, size = self.progress, stage.spec.size
        left = -(-(stage.images - progress.stage_images) // size)
        for ahead in range(min(left, self._unread_steps)):
            share = (progress.stage_images + ahead * size) / stage.images
            number = progress.steps + ahead
            self._stepper.step(next(source), number, self._rate(stage, share, number))
        counted = self._stepper.counted()
        progress.steps += counted.taken
        progress.images += counted.taken * size
        progress.stage_images += counted.taken * size
        self._recent = _together(self._recent, counted)
        if counted.broken >= _BROKEN_STEPS:
            raise ModelError('training', 'a loss that is no number, ten times', 'a number')

    def _count_time(self, passed_s: float) -> None:
        progress, name = self.progress, device_name(self._device)
        progress.seconds += passed_s
        progress.seconds_on[name] = progress.seconds_on.get(name, 0.0) + passed_s

    def _rate(self, stage: Stage, share: float, number: int) -> float:
        bend = 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
        rate = stage.final_learning_rate + bend * (stage.learning_rate - stage.final_learning_rate)
        return rate * min(1.0, (number + 1) / self._plan.warm_up_steps)

    def _report_line(self, passed_s: float) -> None:
        progress, recent, taken = self.progress, self._recent, max(1, self._recent.taken)
        stages = self._plan.stages[progress.stage :]
        left = sum(stage.images for stage in stages) - progress.stage_images
        rate = (progress.images - self._reported_images) / passed_s
        self._reported_images = progress.images
        self._report(
            f'stage {progress.stage + 1}/{len(self._plan.stages)}  {progress.images:7d} images  '
            f'loss {recent.loss / taken:.4f}  log error {recent.error / taken:.3f}  '
            f'{rate:.0f} images/s  {left / max(rate, 1e-3) / 60.0:.0f} min left at this size'
        )
        self._recent = Counted(0, 0, 0.0, 0.0)

    def _record(self, stage: Stage) -> None:
        figures = self._evaluate(self._stepper.averaged, stage.spec.shapes)
        progress = self.progress
        line = {
            'images': progress.images,
            'steps': progress.steps,
            'seconds': round(progress.seconds, 1),
            'rows': stage.spec.shapes[0][0],
            **figures,
        }
        with (self._folder / 'curve.jsonl').open('a+b') as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                # a line that a power cut ended early must not take this one with it
                if stream.read(1) != b'\n':
                    stream.write(b'\n')
            stream.write(json.dumps(line).encode() + b'\n')
        self._report('  '.join(f'{name} {value:.3f}' for name, value in figures.items()))

    def _save(self) -> None:
        state = {**self._stepper.state(), 'progress': asdict(self.progress)}
        write_atomically(self._folder / CHECKPOINT_NAME, lambda stream: torch.save(state, stream))
        self._write_record()

    def _write_record(self) -> None:
        """Write how long the training has run so far, and where it runs now."""
        progress = self.progress
        record = {
            'images': progress.images,
            'steps': progress.steps,
            'seconds': round(progress.seconds, 1),
            'seconds_on': {name: round(s, 1) for name, s in progress.seconds_on.items()},
            'restarts': progress.restarts,
            **described(self._device),
        }
        write_text_atomically(self._folder / RECORD_NAME, json.dumps(record, indent=2) + '\n')

    def _check_plan(self) -> None:
        """Refuse to go on with a training that was begun otherwise; lengths may change."""
        path = self._folder / PLAN_NAME
        if not (self._folder / CHECKPOINT_NAME).exists() or not path.exists():
            return
        try:
            there = dict(json.loads(path.read_text(encoding='utf-8')))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(
                str(path), quoted(f'{type(error).__name__}: {error}'), 'the plan of a training'
            ) from error
        mine = json.loads(json.dumps(asdict(self._plan)))
        for name in _FIXED:
            if there.get(name, mine[name]) != mine[name]:
                raise ModelError(
                    f'the training in {self._folder}',
                    f'{name} {quoted(there[name])}',
                    f'{quoted(mine[name])}, as asked for',
                    'Train into another folder, or ask for what is there.',
                )

    def _resume(self) -> None:
        path = self._folder / CHECKPOINT_NAME
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
            self._stepper.load(state)
            # before devices were recorded, all trainings were on a CPU
            before = {CPU: state['progress']['seconds']}
            self.progress = Progress(**{'seconds_on': before, **state['progress']})
        except _NO_CHECKPOINT as error:
            raise ModelError(
                str(path),
                quoted(f'{type(error).__name__}: {error}'),
                f'a checkpoint of {self._plan.network} {self._plan.variant}',
                'Train into another folder, or take this one away.',
            ) from error
        self.progress.restarts += 1
        self._reported_images = self.progress.images
        self._report(f'resumed after {self.progress.images} images')


def _together(one: Counted, other: Counted) -> Counted:
    return Counted(
        one.taken + other.taken,
        max(one.broken, other.broken),
        one.loss + other.loss,
        one.error + other.error,
    )
