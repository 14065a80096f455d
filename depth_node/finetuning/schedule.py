"""The groups of parameters that learn at different rates, and the rates over time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from depth_node.finetuning.pose import Poses
from depth_node.networks.depth_network import DepthNetwork

_ENCODERS = ('encoder', 'backbone')


@dataclass(frozen=True)
class Schedule:
    """Everything the optimiser needs to know."""

    steps: int = 2000
    """Batches."""
    encoder_rate: float = 3e-5
    """Learning rate of the encoder at its largest."""
    decoder_rate: float = 1e-4
    """Learning rate of everything else of the network."""
    pose_rate: float = 1e-4
    """Learning rate of the pose residual, or of the pose network after its warm-up."""
    pose_warm_up_rate: float = 1e-3
    """Learning rate of the pose network while the depth is frozen."""
    weight_decay: float = 1e-2
    """Of AdamW; not of norms, biases and poses."""
    warm_up: int = 100
    """Steps over which the learning rate grows from nothing."""
    last_rate: float = 0.05
    """Learning rate at the end, as a share of the largest."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    averaging: float = 0.995
    """Decay of the moving average of the weights, per step."""
    pose_steps: int = 500
    """Steps for a pose network alone, before the others."""

    def rate(self, step: int) -> float:
        """Return the share of the largest learning rate at a step: a ramp, then half a cosine."""
        ramp = min(1.0, (step + 1) / max(1, min(self.warm_up, self.steps // 4)))
        bend = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self.steps))))
        return ramp * (self.last_rate + (1 - self.last_rate) * bend)


def in_encoder(name: str) -> bool:
    """Tell whether a parameter of a network, by its name, belongs to the encoder."""
    return name.split('.')[0] in _ENCODERS


def steps_for(targets: int, batch: int, epochs: float = 8.0) -> int:
    """Return the number of steps for so many targets: eight rounds, 500 to 8000."""
    return int(min(8000, max(500, math.ceil(epochs * targets / batch))))


def parameter_groups(
    network: DepthNetwork, poses: Poses, schedule: Schedule
) -> list[dict[str, object]]:
    """Return the groups of AdamW, each with its largest rate as ``peak``."""
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in network.named_parameters():
        if value.requires_grad:
            inside = in_encoder(name)
            rate = schedule.encoder_rate if inside else schedule.decoder_rate
            decay = schedule.weight_decay if value.ndim > 1 else 0.0
            found.setdefault((rate, decay), []).append(value)
    groups: list[dict[str, object]] = [
        {'params': values, 'peak': rate, 'weight_decay': decay}
        for (rate, decay), values in found.items()
    ]
    free = [value for value in poses.parameters() if value.requires_grad]
    if free:
        groups.append({'params': free, 'peak': schedule.pose_rate, 'weight_decay': 0.0})
    return groups
