"""EfficientNet with the padding of TensorFlow: the encoder of SQLDepth and small MiDaS v2.1.

Sources: Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML
2019; the 'Lite' variant, without squeeze-excite and with ReLU6, is that of TensorFlow's release of
2020.  Names of weights are those of the common PyTorch checkpoints that were converted from
TensorFlow, without the classifier.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch import nn
from torch.nn import functional as F

Activation = Callable[[Tensor], Tensor]

_ACTIVATIONS: dict[str, Activation] = {'silu': F.silu, 'relu6': F.relu6}
_SQUEEZE = 4

# TensorFlow's momentum of 0.99 counts the other share of the mean
_BATCH_NORM_EPS = 1e-3
_BATCH_NORM_MOMENTUM = 0.01


@dataclass(frozen=True)
class BlockLayout:
    """What tells the stages apart."""

    kind: str
    """'ds' (depthwise, then pointwise) or 'ir' (inverted residual: expansion before them)."""
    kernel: int
    """Side of the depthwise kernel, odd."""
    stride: int
    """Stride of the stage's first block."""
    expansion: int
    """Factor of the expansion of an inverted residual; 1 for 'ds'."""
    channels: int
    """Channels of the result."""
    repeats: int
    """Blocks in the stage."""
    squeeze_excite: bool
    """Whether channels are weighted by their means."""


@dataclass(frozen=True)
class EfficientNetLayout:
    """What tells the sizes apart."""

    stem: int
    """Channels of the first convolution's result."""
    blocks: tuple[BlockLayout, ...]
    """The seven stages."""
    activation: str
    """'silu' or 'relu6'."""
    head: int | None = None
    """Channels of the 1x1 convolution after the last stage; None: there is none."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Return the channels of all features: stem, stages and, if there is one, head."""
        stages = (self.stem, *(block.channels for block in self.blocks))
        return stages if self.head is None else (*stages, self.head)


def _stages(
    channels: tuple[int, ...], repeats: tuple[int, ...], *, squeeze_excite: bool
) -> tuple[BlockLayout, ...]:
    """Return the seven stages, whose kernels, strides and expansions all sizes share."""
    shared = (
        ('ds', 3, 1, 1),
        ('ir', 3, 2, 6),
        ('ir', 5, 2, 6),
        ('ir', 3, 2, 6),
        ('ir', 5, 1, 6),
        ('ir', 5, 2, 6),
        ('ir', 3, 1, 6),
    )
    return tuple(
        BlockLayout(*common, width, count, squeeze_excite)
        for common, width, count in zip(shared, channels, repeats, strict=True)
    )


EFFICIENTNET_B5 = EfficientNetLayout(
    stem=48,
    blocks=_stages((24, 40, 64, 128, 176, 304, 512), (3, 5, 5, 7, 7, 9, 3), squeeze_excite=True),
    activation='silu',
)
EFFICIENTNET_B5_WITH_HEAD = dataclasses.replace(EFFICIENTNET_B5, head=2048)
EFFICIENTNET_LITE3 = EfficientNetLayout(
    stem=32,
    blocks=_stages((24, 32, 48, 96, 136, 232, 384), (1, 3, 3, 5, 5, 6, 1), squeeze_excite=False),
    activation='relu6',
)


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after an axis that TensorFlow calls 'SAME'.

    The result of the convolution has ceil(side / stride) elements; of an odd number of zeros the
    larger half comes last, which differs from a symmetric padding wherever the stride is 2 and
    the side is even.

    :param side: length of the axis, pixels.
    """
    result = -(-side // stride)
    total = max((result - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


class SameConv(nn.Conv2d):
    """Convolution whose zeros follow from the size of its input; see :func:`same_padding`."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, ceil(H / stride), ceil(W / stride))."""
        top, bottom = same_padding(x.shape[-2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(x.shape[-1], self.kernel_size[1], self.stride[1])
        if (top, left) != (bottom, right):
            x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
        return F.conv2d(x, self.weight, None, self.stride, (top, left), 1, self.groups)


class SqueezeExcite(nn.Module):
    """Weights in (0, 1) for channels, from their means over the image.

    :param inner: channels between the two layers.
    """

    def __init__(self, channels: int, inner: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.conv_reduce = nn.Conv2d(channels, inner, 1)
        self.conv_expand = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (B, C, H, W)."""
        mean = x.mean((2, 3), keepdim=True)
        return x * self.conv_expand(self.activation(self.conv_reduce(mean))).sigmoid()


class DepthwiseSeparable(nn.Module):
    """Depthwise and pointwise convolution, added to the input where shapes allow."""

    def __init__(
        self, channels_in: int, layout: BlockLayout, stride: int, activation: Activation
    ) -> None:
        super().__init__()
        self.activation = activation
        self.is_residual = stride == 1 and channels_in == layout.channels
        self.conv_dw = SameConv(channels_in, channels_in, layout.kernel, stride, channels_in)
        self.bn1 = _batch_norm(channels_in)
        self.se = _squeeze_excite(layout, channels_in, channels_in, activation)
        self.conv_pw = SameConv(channels_in, layout.channels, 1)
        self.bn2 = _batch_norm(layout.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C, ceil(H / stride), ceil(W / stride))."""
        y = self.activation(self.bn1(self.conv_dw(x)))
        y = self.bn2(self.conv_pw(y if self.se is None else self.se(y)))
        return x + y if self.is_residual else y


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, added to the input where shapes allow."""

    def __init__(
        self, channels_in: int, layout: BlockLayout, stride: int, activation: Activation
    ) -> None:
        super().__init__()
        inner = layout.expansion * channels_in
        self.activation = activation
        self.is_residual = stride == 1 and channels_in == layout.channels
        self.conv_pw = SameConv(channels_in, inner, 1)
        self.bn1 = _batch_norm(inner)
        self.conv_dw = SameConv(inner, inner, layout.kernel, stride, inner)
        self.bn2 = _batch_norm(inner)
        self.se = _squeeze_excite(layout, channels_in, inner, activation)
        self.conv_pwl = SameConv(inner, layout.channels, 1)
        self.bn3 = _batch_norm(layout.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C, ceil(H / stride), ceil(W / stride))."""
        y = self.activation(self.bn1(self.conv_pw(x)))
        y = self.activation(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y if self.se is None else self.se(y)))
        return x + y if self.is_residual else y


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_BATCH_NORM_EPS, momentum=_BATCH_NORM_MOMENTUM)


def _squeeze_excite(
    layout: BlockLayout, channels_in: int, channels: int, activation: Activation
) -> SqueezeExcite | None:
    # the squeezed width is a share of the block's input, not of its expansion
    if not layout.squeeze_excite:
        return None
    return SqueezeExcite(channels, channels_in // _SQUEEZE, activation)


class EfficientNet(nn.Module):
    """Image to the features of all stages; no classifier."""

    def __init__(self, layout: EfficientNetLayout) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[layout.activation]
        self.conv_stem = SameConv(3, layout.stem, 3, 2)
        self.bn1 = _batch_norm(layout.stem)
        before = (layout.stem, *(block.channels for block in layout.blocks))
        self.blocks = nn.ModuleList(
            _stage(width, block, self.activation)
            for width, block in zip(before, layout.blocks, strict=False)
        )
        self.conv_head = None
        if layout.head is not None:
            self.conv_head = SameConv(before[-1], layout.head, 1)
        self.apply(_initialize)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to the features of the stem, of the seven stages and of the head.

        Stem and first stage are at 1/2, the next two at 1/4 and 1/8, the fourth and fifth at
        1/16, the last two at 1/32, sides rounded up.  The stem's feature is taken after its
        activation.  The head's comes last, if there is a head, and is the bare convolution:
        the batch normalisation that follows it in the classifier is left out.
        """
        features = [self.activation(self.bn1(self.conv_stem(x)))]
        for stage in self.blocks:
            features.append(stage(features[-1]))
        if self.conv_head is not None:
            features.append(self.conv_head(features[-1]))
        return features


def _stage(channels_in: int, layout: BlockLayout, activation: Activation) -> nn.Sequential:
    block = DepthwiseSeparable if layout.kind == 'ds' else InvertedResidual
    blocks = [block(channels_in, layout, layout.stride, activation)]
    for _ in range(layout.repeats - 1):
        blocks.append(block(layout.channels, layout, 1, activation))
    return nn.Sequential(*blocks)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
