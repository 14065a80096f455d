"""The part of MiDaS after the backbone: features to relative inverse depth.

Sources: Lin et al., RefineNet, CVPR 2017, for the fusion; Ranftl et al., MiDaS, TPAMI 2022; Ranftl
et al., Vision Transformers for Dense Prediction, ICCV 2021.  Names of weights are those of the
released files below 'scratch'; see midas.py for licences.

The 1x1 convolution of a fusion comes before the doubling here and after it in the original.  The
two commute, because the weights of a bilinear resize add up to 1, and before it there is a quarter
of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class DecoderLayout:
    """What tells the decoders apart."""

    skips: tuple[int, ...]
    """Channels of the backbone's features, the largest feature first."""
    widths: tuple[int, ...]
    """Channels of each level of the decoder, the finest first."""
    head: tuple[int, int]
    """Channels after the first and the second convolution of the head."""
    adds_rectified: bool = False
    """Whether a residual unit adds what its first ReLU left of its input, not the input."""
    projects: bool = True
    """Whether a fusion ends in a 1x1 convolution, to the channels of the next finer level."""
    aligned_head: bool = True
    """Whether the head's doubling keeps the centres of the corner pixels in place."""
    transposed: tuple[int, int] | None = None
    """Channels of two doubling transposed convolutions before the head; None: there are none."""


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, around a shortcut.

    :param adds_rectified: see :class:`DecoderLayout`.  In the v2.1 network the ReLU overwrites its
        input, so that the shortcut is relu(x); its weights were trained that way.
    """

    def __init__(self, channels: int, *, adds_rectified: bool) -> None:
        super().__init__()
        self.adds_rectified = adds_rectified
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (B, C, H, W)."""
        rectified = F.relu(x)
        y = self.conv2(F.relu(self.conv1(rectified)))
        return y + (rectified if self.adds_rectified else x)


class Fusion(nn.Module):
    """Sum of the coarser level and a skip, refined and resized to the next finer level.

    :param channels: of the inputs.
    :param channels_out: of the result; None: no 1x1 convolution, channels as they come.
    :param has_skip: False for the coarsest level, which nothing comes to from below.
    :param adds_rectified: see :class:`DecoderLayout`.
    """

    def __init__(
        self, channels: int, channels_out: int | None, *, has_skip: bool, adds_rectified: bool
    ) -> None:
        super().__init__()
        self.resConfUnit1 = None
        if has_skip:
            self.resConfUnit1 = ResidualUnit(channels, adds_rectified=adds_rectified)
        self.resConfUnit2 = ResidualUnit(channels, adds_rectified=adds_rectified)
        self.out_conv = None if channels_out is None else nn.Conv2d(channels, channels_out, 1)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Map (B, C, h, w) and a skip of the same shape to (B, C_out, *size)."""
        if self.resConfUnit1 is not None and skip is not None:
            x = x + self.resConfUnit1(skip)
        x = self.resConfUnit2(x)
        if self.out_conv is not None:
            x = self.out_conv(x)
        return F.interpolate(x, size, mode='bilinear', align_corners=True)


class Doubling(nn.Module):
    """Bilinear doubling.

    :param aligned: True: the centres of the corner pixels stay in place; False: the corners do.
    """

    def __init__(self, *, aligned: bool) -> None:
        super().__init__()
        self.aligned = aligned

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2 H, 2 W)."""
        size = (2 * x.shape[-2], 2 * x.shape[-1])
        return F.interpolate(x, size, mode='bilinear', align_corners=self.aligned)


class TransposedConvNorm(nn.Module):
    """3x3 transposed convolution of stride 2 without bias, then batch normalisation."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.c = nn.ConvTranspose2d(
            channels_in, channels_out, 3, stride=2, padding=1, output_padding=1, bias=False
        )
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, 2 H, 2 W)."""
        return self.bn(self.c(x))


class DptDecoder(nn.Module):
    """Features of a backbone to relative inverse depth at full size.

    Level N, counted from 1 at the finest, has the weights ``layerN_rn`` and ``refinenetN``.
    """

    def __init__(self, layout: DecoderLayout) -> None:
        super().__init__()
        self.levels = len(layout.skips)
        for level, (skip, width) in enumerate(zip(layout.skips, layout.widths, strict=True), 1):
            finer = layout.widths[max(level - 2, 0)]
            fusion = Fusion(
                width,
                finer if layout.projects else None,
                has_skip=level < self.levels,
                adds_rectified=layout.adds_rectified,
            )
            self.add_module(f'layer{level}_rn', nn.Conv2d(skip, width, 3, 1, 1, bias=False))
            self.add_module(f'refinenet{level}', fusion)
        channels = layout.widths[0]
        self.stem_transpose = None
        if layout.transposed is not None:
            first, second = layout.transposed
            self.stem_transpose = nn.Sequential(
                TransposedConvNorm(channels, first),
                nn.Hardswish(),
                TransposedConvNorm(first, second),
                nn.Hardswish(),
            )
            channels = second
        self.output_conv = _head(channels, layout)
        self.apply(_initialize)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the inverse depth (B, 1, H, W), 0 or more.

        :param features: of the channels in DecoderLayout.skips, the largest at 1/4 of the size, or
            at 1/16 before transposed convolutions.
        """
        return F.relu(self.stages(features)['pre_relu'])

    def stages(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return every layer's result by the name of the layer; 'pre_relu' is the last."""
        named = {
            f'layer{level}_rn': self.get_submodule(f'layer{level}_rn')(feature)
            for level, feature in enumerate(features, 1)
        }
        skips = [named[f'layer{level}_rn'] for level in range(1, self.levels + 1)]
        x, skip = skips[-1], None
        for level in range(self.levels, 0, -1):
            if level < self.levels:
                skip = skips[level - 1]
            size = _size(skips[level - 2]) if level > 1 else _doubled_size(x)
            x = self.get_submodule(f'refinenet{level}')(x, skip, size)
            named[f'refinenet{level}'] = x
        if self.stem_transpose is not None:
            x = self.stem_transpose(x)
        named['pre_relu'] = self.output_conv(x)
        return named


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]


def _doubled_size(x: Tensor) -> tuple[int, int]:
    return 2 * x.shape[-2], 2 * x.shape[-1]


def _head(channels: int, layout: DecoderLayout) -> nn.Sequential:
    first, second = layout.head
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, 1, 1),
        Doubling(aligned=layout.aligned_head),
        nn.Conv2d(first, second, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(second, 1, 1),
    )


def _initialize(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.kaiming_normal_(module.weight, mode='fan_in', nonlinearity='relu')
        if module.bias is not None:
            nn.init.zeros_(module.bias)
