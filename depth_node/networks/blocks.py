"""Parts that several networks share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F


class DropPath(nn.Module):
    """Leave out a whole residual branch of some samples while training (stochastic depth).

    What is kept is divided by the share that is kept, so that the mean stays; the identity in
    evaluation.  Source: Huang et al., Deep Networks with Stochastic Depth, ECCV 2016.

    :param rate: probability of leaving a sample's branch out, 0 <= rate < 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Return ``branch`` (B, ...) with some samples zeroed."""
        if not self.training or self.rate == 0.0:
            return branch
        kept = 1.0 - self.rate
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        mask = torch.empty(shape, dtype=branch.dtype, device=branch.device).bernoulli_(kept)
        return branch * mask.div_(kept)

    def extra_repr(self) -> str:
        """Show the rate in the printed module tree."""
        return f'rate={self.rate:.3f}'


class ReflectConv(nn.Module):
    """3x3 convolution with bias whose border is mirrored without repeating the edge pixel."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        return self.conv(F.pad(x, (1, 1, 1, 1), mode='reflect'))


class ReflectConvElu(nn.Module):
    """:class:`ReflectConv` followed by an ELU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = ReflectConv(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        return F.elu(self.conv(x))


def doubled(x: Tensor) -> Tensor:
    """Return (B, C, H, W) at twice the size, bilinear between pixel centres."""
    return F.interpolate(x, scale_factor=2.0, mode='bilinear', align_corners=False)


def image_pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """Return (B, C, H, W) at 1/2, 1/4, 1/8, ..., each a mean of the one before.

    Zeros beyond the border count in the means.
    """
    pyramid = []
    for _ in range(levels):
        x = F.avg_pool2d(x, 3, 2, 1)
        pyramid.append(x)
    return pyramid
