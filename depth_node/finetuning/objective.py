"""What a step minimises, and what it says about it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depth_node.finetuning.distillation import distillation_loss
from depth_node.finetuning.distillation import sparse_log_depth
from depth_node.finetuning.regularizers import untextured
from depth_node.finetuning.samples import Batch


@dataclass(frozen=True)
class LossWeights:
    """How much each part counts; a part of weight 0 is not computed."""

    photometric: float = 1.0
    """``photometric``: the images must explain each other."""
    smoothness: float = 1e-3
    """``regularizers.edge_aware_smoothness``, halved from scale to scale."""
    anchor: float = 0.005
    """``distillation.distillation_loss`` against the start model, where the images say nothing:
    pixels that fit better unwarped, and those without texture.  More would hold on to its
    errors."""
    teacher: float = 0.0
    """The same against a teacher, on all pixels; 0.1 where there is one."""
    sparse: float = 0.0
    """``distillation.sparse_log_depth``; 0.2 for lidar and depth images, 0.1 for a scan."""
    geometry: float = 0.0
    """``regularizers.geometry_consistency``; 0.05 on a GPU.  It needs the depth of all sources,
    so that a step takes about three times as long."""
    residual: float = 1e-2
    """Penalty of the pose residual."""
    scales: int = 4
    """Outputs of the network that are used, from full size on, at most."""
    texture: float = 0.02
    """Differences of grey below this, of 1, are no texture."""


@dataclass(frozen=True)
class StepResult:
    """What a step found; everything but ``loss`` is detached."""

    loss: Tensor
    """Scalar to minimise."""
    parts: dict[str, Tensor]
    """Parts of the loss, unweighted, by name."""
    identity: Tensor
    """Scalar: photometric loss of standing still."""
    won: Tensor
    """Scalar: share of the pixels at which a warped source fits best."""


def weighted(
    parts: dict[str, Tensor], weights: LossWeights, identity: Tensor, won: Tensor
) -> StepResult:
    """Add up the parts of a loss by the weights of the same names."""
    loss = sum(
        (getattr(weights, name) * value for name, value in parts.items()),
        start=identity.new_zeros(()),
    )
    known = {name: value.detach() for name, value in parts.items()}
    return StepResult(loss, known, identity.detach(), won.detach())


def guided_parts(
    inverse: Tensor,
    target: Tensor,
    won: Tensor,
    batch: Batch,
    weights: LossWeights,
) -> dict[str, Tensor]:
    """Return the parts that compare depth with depth, at full size.

    :param inverse: (B, 1, H, W), 1 / metres.
    :param target: (B, 3, H, W) in [0, 1].
    :param won: (B, H, W) bool, where a warped source fits best.
    """
    parts: dict[str, Tensor] = {}
    if weights.anchor and batch.start is not None:
        unreliable = batch.valid & (~won | untextured(target, weights.texture))
        parts['anchor'] = distillation_loss(inverse[:, 0], batch.start[:, 0], unreliable)
    if weights.teacher and batch.teacher is not None:
        parts['teacher'] = distillation_loss(inverse[:, 0], batch.teacher[:, 0], batch.valid)
    if weights.sparse and batch.sparse_depth.shape[1]:
        sparse = sparse_log_depth(inverse, batch.sparse_pixels, batch.sparse_depth)
        parts['sparse'] = sparse.mean()
    return parts


def unit(images: Tensor, batch: Batch) -> Tensor:
    """Return uint8 images as numbers in [0, 1] of the type in which the batch has its cameras."""
    return images.to(batch.intrinsics.dtype) / 255.0


def sources_of(batch: Batch) -> Tensor:
    """Return the sources as :func:`unit` does, each as bright as its target, (B, N, 3, H, W)."""
    sources = unit(batch.sources, batch)
    if batch.gain is None:
        return sources
    return sources * batch.gain.to(sources.dtype)[:, :, None, None, None]


def share_of(won: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over the images of the share of valid pixels that were won, a scalar."""
    inside = (won & valid).sum(dim=(1, 2))
    return (inside / valid.sum(dim=(1, 2)).clamp_min(1)).to(torch.float32).mean()
