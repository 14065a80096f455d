"""Blur of a batch, each image with a width of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def blurred(images: Tensor, deviation_px: Tensor, largest_px: float) -> Tensor:
    """Blur as ``cv2.GaussianBlur`` does float images of kernel size 0, mirrored at the edges.

    :param images: (B, C, H, W) float32; no side may be shorter than four deviations.
    :param deviation_px: (B,) 0 leaves an image as it is.
    :param largest_px: bound of the deviations, known to the host.
    """
    reach = min(round(largest_px * 8 + 1) // 2, min(images.shape[-2:]) - 1)
    if reach == 0:
        return images
    return _filtered(images, _kernels(deviation_px, reach))


def box_blurred(images: Tensor, reach_px: Tensor, largest_px: int) -> Tensor:
    """Return means over squares of ``2 reach_px + 1`` pixels, mirrored at the edges.

    :param images: (B, C, H, W) float32.
    :param reach_px: (B,) whole numbers.
    :param largest_px: bound of them, known to the host; squares end at the size of the image.
    """
    reach = min(largest_px, min(images.shape[-2:]) - 1)
    steps = torch.arange(-reach, reach + 1, device=images.device)
    weights = (steps.abs() <= reach_px[:, None]).float()
    return _filtered(images, weights / weights.sum(dim=1, keepdim=True))


def _filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Apply (B, 2 n + 1) kernels along both axes."""
    reach = kernels.shape[1] // 2
    batch, channels, height, width = images.shape
    flat = images.reshape(1, batch * channels, height, width)
    kernels = kernels.repeat_interleave(channels, dim=0)[:, None]
    padded = F.pad(flat, (reach, reach, reach, reach), mode='reflect')
    across = F.conv2d(padded, kernels[:, :, None, :], groups=batch * channels)
    down = F.conv2d(across, kernels[:, :, :, None], groups=batch * channels)
    return down.view_as(images)


def _kernels(deviation_px: Tensor, reach: int) -> Tensor:
    """Return (B, 2 reach + 1) kernels, each cut where its own deviation ends it."""
    steps = torch.arange(-reach, reach + 1, device=deviation_px.device, dtype=torch.float64)
    deviation = deviation_px.double()[:, None]
    own_reach = ((deviation * 8 + 1).round() // 2).where(deviation > 0, 0.0)
    weights = torch.exp(-0.5 * (steps / deviation.clamp_min(1e-3)) ** 2)
    weights = weights * (steps.abs() <= own_reach)
    return (weights / weights.sum(dim=1, keepdim=True)).float()
