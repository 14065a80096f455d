"""Supervised losses on the logarithm of depth.

Everything is measured on r = log(predicted) - log(true).  Scale errors of single images (a
close-up of a plain wall tells nothing of its distance) would drown the shape, therefore the part
of r that is free of the image's mean weighs more than r itself.  The same is asked of parts of the
image, or the layout of the room would drown a chair that stands in it.  Source of the parts: Eigen
et al., NeurIPS 2014 (scale-invariant log error); Li and Snavely, CVPR 2018 (gradient matching);
Zhang et al., NeurIPS 2022 (hierarchical normalisation: parts of the image).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class LossWeights:
    """How much each part of the loss counts."""

    absolute: float = 0.25
    """Mean of |r|: metres."""
    shape: float = 1.0
    """Mean of |r - mean(r)| per image: shape without scale."""
    local: float = 1.0
    """Mean of |r - mean(r)| per part of the image: things before what is behind them."""
    gradient: float = 1.0
    """Mean of the differences of r between neighbours at several strides: edges and flatness."""
    heads: tuple[float, ...] = (1.0, 0.4, 0.2)
    """Weight of the network's outputs, full size first."""
    far: float = 0.15
    """Weight of pixels beyond the range, whose target is only a bound."""


_STRIDES = (1, 2, 4, 8)
_PARTS = (4, 8)  # per side of the image


def log_depth_loss(
    disparities: Sequence[Tensor],
    log_depth: Tensor,
    far: Tensor,
    depth_range_m: tuple[float, float],
    weights: LossWeights,
) -> Tensor:
    """Return the loss of one batch.

    :param disparities: outputs of the network, full size first, each (B, 1, h, w) in (0, 1).
    :param log_depth: (B, 1, H, W) natural logarithm of the true depth, metres at the focal length
        of the card; finite.
    :param far: (B, 1, H, W) bool, where the true depth is beyond the range.
    :param depth_range_m: depth at disparity 1 and at disparity 0, metres.
    :returns: scalar, float32.
    """
    total = log_depth.new_zeros(())
    for disparity, head_weight in zip(disparities, weights.heads, strict=False):
        size = disparity.shape[-2:]
        # the nearest pixel, not a mean: a depth between foreground and background is nobody's
        target = F.interpolate(log_depth, size, mode='nearest-exact')
        weight = 1.0 - (1.0 - weights.far) * F.interpolate(far.float(), size, mode='nearest-exact')
        error = log_depth_of(disparity.float(), depth_range_m) - target
        total = total + head_weight * _of_error(error, weight, weights)
    return total


def log_depth_of(disparity: Tensor, depth_range_m: tuple[float, float]) -> Tensor:
    """Return log(1 / (lo + (hi - lo) disparity)) with hi, lo = 1 / nearest, 1 / farthest."""
    high, low = 1.0 / depth_range_m[0], 1.0 / depth_range_m[1]
    return -torch.log(low + (high - low) * disparity)


def _of_error(error: Tensor, weight: Tensor, weights: LossWeights) -> Tensor:
    mass = weight.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1.0)
    mean = (error * weight).sum(dim=(1, 2, 3), keepdim=True) / mass
    absolute = ((error.abs() * weight).sum(dim=(1, 2, 3), keepdim=True) / mass).mean()
    shape = (((error - mean).abs() * weight).sum(dim=(1, 2, 3), keepdim=True) / mass).mean()
    return (
        weights.absolute * absolute
        + weights.shape * shape
        + weights.local * _local(error, weight)
        + weights.gradient * _gradient(error, weight)
    )


def _local(error: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of |r - mean of r over the part of the image that holds the pixel|."""
    total = error.new_zeros(())
    counted = 0
    for parts in _PARTS:
        if error.shape[-2] % parts or error.shape[-1] % parts or min(error.shape[-2:]) < 2 * parts:
            continue
        values, masses = (_in_parts(item, parts) for item in (error, weight))
        mass = masses.sum(-1, keepdim=True).clamp_min(1.0)
        mean = (values * masses).sum(-1, keepdim=True) / mass
        total = total + ((values - mean).abs() * masses).sum() / masses.sum().clamp_min(1.0)
        counted += 1
    return total / max(counted, 1)


def _in_parts(image: Tensor, parts: int) -> Tensor:
    """Return (B, parts, parts, pixels of one part) of a (B, 1, H, W) image."""
    count, _, height, width = image.shape
    image = image.reshape(count, parts, height // parts, parts, width // parts)
    return image.transpose(2, 3).reshape(count, parts, parts, -1)


def _gradient(error: Tensor, weight: Tensor) -> Tensor:
    total = error.new_zeros(())
    for stride in _STRIDES:
        if min(error.shape[-2:]) <= 2 * stride:
            break
        for dim in (-2, -1):
            length = error.shape[dim] - stride
            first, second = error.narrow(dim, 0, length), error.narrow(dim, stride, length)
            pair = weight.narrow(dim, 0, length) * weight.narrow(dim, stride, length)
            total = total + ((second - first).abs() * pair).sum() / pair.sum().clamp_min(1.0)
    return total / len(_STRIDES)
