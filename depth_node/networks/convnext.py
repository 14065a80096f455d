"""ConvNeXt: an encoder of SQLDepth.

Source: Liu et al., A ConvNet for the 2020s, CVPR 2022.  Names of weights are those of the common
PyTorch checkpoints, without the classifier and the normalisation before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch import nn

from depth_node.networks.vision_transformer import Mlp

_EPS = 1e-6
_KERNEL = 7
_EXPANSION = 4
_LAYER_SCALE = 1e-6


@dataclass(frozen=True)
class ConvNeXtLayout:
    """What tells the sizes apart."""

    channels: tuple[int, int, int, int]
    """Channels of the features at 1/4, 1/8, 1/16 and 1/32."""
    blocks: tuple[int, int, int, int]
    """Blocks in each stage."""


CONVNEXT_LARGE = ConvNeXtLayout((192, 384, 768, 1536), (3, 3, 27, 3))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (B, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution and a pointwise network, scaled and added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, _KERNEL, 1, _KERNEL // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=_EPS)
        self.mlp = Mlp(channels, _EXPANSION * channels)
        self.gamma = nn.Parameter(torch.full((channels,), _LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (B, C, H, W)."""
        y = self.conv_dw(x).permute(0, 2, 3, 1)
        y = self.gamma * self.mlp(self.norm(y))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXtStage(nn.Module):
    """Blocks at one size; all stages but the first halve the size before."""

    def __init__(self, channels_in: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if channels_in != channels:
            self.downsample = nn.Sequential(
                ChannelNorm(channels_in), nn.Conv2d(channels_in, channels, 2, 2)
            )
        self.blocks = nn.Sequential(*(ConvNeXtBlock(channels) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C, H / 2, W / 2), or keep the shape."""
        return self.blocks(self.downsample(x))


class ConvNeXt(nn.Module):
    """Image to four features; no classifier."""

    def __init__(self, layout: ConvNeXtLayout) -> None:
        super().__init__()
        first = layout.channels[0]
        self.stem = nn.Sequential(nn.Conv2d(3, first, 4, 4), ChannelNorm(first))
        before = (first, *layout.channels[:-1])
        self.stages = nn.ModuleList(
            ConvNeXtStage(*shape)
            for shape in zip(before, layout.channels, layout.blocks, strict=True)
        )
        self.apply(_initialize)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to features at 1/4, 1/8, 1/16 and 1/32, sides rounded down."""
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def _initialize(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
