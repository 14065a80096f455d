"""What keeps depth smooth and consistent between frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from depth_node.finetuning.warp import pixel_motion
from depth_node.finetuning.warp import projected
from depth_node.finetuning.warp import sampled

_EPS = 1e-7


def edge_aware_smoothness(disparity: Tensor, image: Tensor) -> Tensor:
    """Return the smoothness of a disparity, a scalar; less is asked where the image has edges.

        n = disparity / (mean(disparity) + 1e-7)
        L = mean(|dn/dx| exp(-|dI/dx|)) + mean(|dn/dy| exp(-|dI/dy|))

    with differences of neighbours, and |dI| the mean over the channels.  Dividing by the mean
    keeps the loss from shrinking all disparities.  Source: Godard et al., ICCV 2019.

    :param disparity: (B, 1, h, w), positive.
    :param image: (B, 3, h, w) in [0, 1], of the same size.
    """
    normal = disparity / (disparity.mean(dim=(2, 3), keepdim=True) + _EPS)
    total = disparity.new_zeros(())
    for dim in (-1, -2):
        edge = image.diff(dim=dim).abs().mean(dim=1, keepdim=True)
        total = total + (normal.diff(dim=dim).abs() * torch.exp(-edge)).mean()
    return total


def geometry_consistency(
    inverse_depth: Tensor,
    source_inverse_depth: Tensor,
    intrinsics: Tensor,
    T_source_target: Tensor,  # noqa: N803
    valid: Tensor,
    present: Tensor,
) -> Tensor:
    """Return how far the depths of two frames contradict each other, a scalar in [0, 1].

        L = mean |D' - D| / (D' + D)

    over the pixels of the target that are valid and in view, where D' is the depth that a point of
    the target has in the source camera and D what the network says there.  Source: Bian et al.,
    NeurIPS 2019.

    :param inverse_depth: (B, 1, H, W) of the target, 1 / metres.
    :param source_inverse_depth: (B, N, H, W) of the sources, 1 / metres.
    :param intrinsics: (B, 4) fx, fy, cx, cy, pixels.
    :param T_source_target: (B, N, 4, 4), metres.
    :param valid: (B, H, W) bool, pixels of the target that count.
    :param present: (B, N) bool, sources that are there.
    """
    pixels, depth, in_view = projected(inverse_depth, *pixel_motion(intrinsics, T_source_target))
    found = sampled(source_inverse_depth.flatten(0, 1)[:, None], pixels.flatten(0, 1))
    # |D' - D| / (D' + D) is the same of inverse depths
    expected, found = 1 / depth, found.reshape(depth.shape)
    apart = (expected - found).abs() / (expected + found).clamp_min(_EPS)
    counted = in_view & valid[:, None] & present[:, :, None, None]
    total = (apart * counted).sum(dim=(1, 2, 3)) / counted.sum(dim=(1, 2, 3)).clamp_min(1)
    return total.mean()


def image_at(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (B, C, H, W) at a smaller size, means over areas."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image, size=size, mode='area')


def untextured(image: Tensor, threshold: float) -> Tensor:
    """Return (B, H, W) bool: where grey values hardly differ between neighbours.

    Nothing can be matched there.  The largest difference to the pixels around is compared.

    :param image: (B, 3, H, W) in [0, 1].
    :param threshold: of the grey value, 0 to 1.
    """
    grey = image.mean(dim=1, keepdim=True)
    padded = F.pad(grey, (1, 1, 1, 1), mode='replicate')
    # separably: pooling over 3x3 pixels at once takes several times as long on a CPU
    high = torch.maximum(padded[..., :-2, :], padded[..., 2:, :])
    high = torch.maximum(high, padded[..., 1:-1, :])
    high = torch.maximum(torch.maximum(high[..., :-2], high[..., 2:]), high[..., 1:-1])
    low = torch.minimum(padded[..., :-2, :], padded[..., 2:, :])
    low = torch.minimum(low, padded[..., 1:-1, :])
    low = torch.minimum(torch.minimum(low[..., :-2], low[..., 2:]), low[..., 1:-1])
    return (high - low)[:, 0] < threshold
