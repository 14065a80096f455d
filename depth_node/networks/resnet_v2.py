"""The ResNet inside DPT-Hybrid: group normalisation and standardised weights.

Sources: Kolesnikov et al., Big Transfer, ECCV 2020; Qiao et al., Weight Standardization, 2019.
Unlike in the former, a block normalises after each convolution.  All padding is TensorFlow's, see
:func:`.efficientnet.same_padding`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.networks.efficientnet import SameConv
from depth_node.networks.efficientnet import same_padding

_GROUPS = 32
_STEM_WIDTH = 64
_EXPANSION = 4
_WEIGHT_EPS = 1e-8


class StandardizedConv(SameConv):
    """Convolution each of whose filters is first brought to mean 0 and variance 1."""

    def standardized(self) -> Tensor:
        """Return the weight that is convolved with; the variance is that of all numbers."""
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        return (self.weight - mean) * torch.rsqrt(variance + _WEIGHT_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, ceil(H / stride), ceil(W / stride))."""
        padded = _padded(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(padded, self.standardized(), None, self.stride)

    def fixed(self) -> SameConv:
        """Return a convolution with the standardised weight."""
        conv = SameConv(
            self.in_channels, self.out_channels, self.kernel_size[0], self.stride[0]
        ).to(self.weight)
        conv.weight = nn.Parameter(self.standardized().detach(), requires_grad=False)
        return conv


def _padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    top, bottom = same_padding(x.shape[-2], kernel, stride)
    left, right = same_padding(x.shape[-1], kernel, stride)
    return F.pad(x, (left, right, top, bottom))


class ConvNorm(nn.Module):
    """Standardised convolution and group normalisation."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = StandardizedConv(channels_in, channels_out, kernel, stride)
        self.norm = nn.GroupNorm(_GROUPS, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, ceil(H / stride), ceil(W / stride))."""
        return self.norm(self.conv(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution around a shortcut; the last ReLU follows the sum."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        width = channels_out // _EXPANSION
        self.downsample = None
        if channels_in != channels_out or stride != 1:
            self.downsample = ConvNorm(channels_in, channels_out, 1, stride)
        self.conv1 = StandardizedConv(channels_in, width, 1)
        self.norm1 = nn.GroupNorm(_GROUPS, width)
        self.conv2 = StandardizedConv(width, width, 3, stride)
        self.norm2 = nn.GroupNorm(_GROUPS, width)
        self.conv3 = StandardizedConv(width, channels_out, 1)
        self.norm3 = nn.GroupNorm(_GROUPS, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, ceil(H / stride), ceil(W / stride))."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Stage(nn.Module):
    """Bottlenecks of one width; the first has the stride."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int, stride: int) -> None:
        super().__init__()
        rest = [Bottleneck(channels_out, channels_out, 1) for _ in range(blocks - 1)]
        self.blocks = nn.Sequential(Bottleneck(channels_in, channels_out, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, ceil(H / stride), ceil(W / stride))."""
        return self.blocks(x)


class ResNetV2(nn.Module):
    """Normalised image to three features at 1/4, 1/8 and 1/16 of the size.

    A ResNet-50 without its last stage, and with three more blocks in the one before.
    """

    channels = (256, 512, 1024)
    """Channels of the features."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = self.channels
        self.stem = ConvNorm(3, _STEM_WIDTH, 7, 2)
        self.stages = nn.ModuleList(
            (
                Stage(_STEM_WIDTH, first, 3, 1),
                Stage(first, second, 4, 2),
                Stage(second, third, 9, 2),
            )
        )
        self.apply(_initialize)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of (B, 3, H, W), the largest first."""
        x = F.relu(self.stem(x))
        # zeros pad like -inf here, because nothing is negative after a ReLU
        x = F.max_pool2d(_padded(x, 3, 2), 3, 2)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def fix_weights(self) -> None:
        """Standardise all weights once, in place, for inference."""
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, StandardizedConv):
                    setattr(module, name, child.fixed())


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
