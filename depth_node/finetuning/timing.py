"""How many images per second a step takes, beside the plain one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from depth_node.finetuning.objective import StepResult
from depth_node.finetuning.samples import Batch

Step = Callable[[Batch], StepResult]


@dataclass(frozen=True)
class StepTimes:
    """Times of one contestant; a step is the loss and its gradient, without the optimiser."""

    best_s: float
    """The shortest, seconds per batch."""
    median_s: float
    """The median, seconds per batch."""
    images_per_s: float
    """Images of the batch per second at the median."""
    rounds: int
    """How often it was measured."""


def compared(
    steps: Mapping[str, Step],
    parameters: Iterable[torch.nn.Parameter],
    batch: Batch,
    rounds: int = 5,
) -> dict[str, StepTimes]:
    """Time steps on the same batch in turns, so that what else runs disturbs all alike.

    :param steps: contestants by name; each runs once before it is timed.
    :param parameters: those whose gradients are computed; cleared between steps.
    :param batch: on the device.
    :param rounds: of timing.
    """
    known = list(parameters)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            for parameter in known:
                parameter.grad = None
            _wait(batch)
            start = time.perf_counter()
            step(batch).loss.backward()
            _wait(batch)
            if turn:
                times[name].append(time.perf_counter() - start)
    size = batch.target.shape[0]
    return {
        name: StepTimes(
            min(found), statistics.median(found), size / statistics.median(found), rounds
        )
        for name, found in times.items()
    }


def _wait(batch: Batch) -> None:
    if batch.target.device.type == 'cuda':
        torch.cuda.synchronize(batch.target.device)
