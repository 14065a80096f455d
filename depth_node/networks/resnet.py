"""ResNet and ResNeXt: the encoder of Monodepth2, SQLDepth and MiDaS v2.1.

Sources: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; Xie et al., Aggregated
Residual Transformations for Deep Neural Networks, CVPR 2017.  Names of weights are those of the
common ImageNet checkpoints, without the classifier.  The stride of a bottleneck lies in its 3x3
convolution, as in those checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch import nn
from torch.nn import functional as F

_STEM_WIDTH = 64


@dataclass(frozen=True)
class ResNetLayout:
    """What tells the sizes apart."""

    blocks: tuple[int, int, int, int]
    """Residual blocks in each stage."""
    bottleneck: bool
    """Whether a block is 1x1, 3x3, 1x1 (output four times as wide as the stage) or twice 3x3."""
    groups: int = 1
    """Groups of the 3x3 convolution of a bottleneck."""
    width_per_group: int = 64
    """Channels of each group in the first stage."""

    @property
    def channels(self) -> tuple[int, int, int, int, int]:
        """Return the channels of the features at 1/2, 1/4, 1/8, 1/16 and 1/32."""
        expansion = 4 if self.bottleneck else 1
        first, second, third, fourth = (_STEM_WIDTH << stage for stage in range(4))
        return (
            _STEM_WIDTH,
            first * expansion,
            second * expansion,
            third * expansion,
            fourth * expansion,
        )


RESNET_18 = ResNetLayout((2, 2, 2, 2), bottleneck=False)
RESNET_50 = ResNetLayout((3, 4, 6, 3), bottleneck=True)
RESNEXT_101_32X8D = ResNetLayout((3, 4, 23, 3), bottleneck=True, groups=32, width_per_group=8)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution around a shortcut.

    :param width: channels of the 3x3 convolution.
    :param channels_out: channels of the result.
    """

    def __init__(
        self, channels_in: int, width: int, channels_out: int, stride: int, groups: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample = _shortcut(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    if channels_in == channels_out and stride == 1:
        return None
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
    )


class ResNet(nn.Module):
    """Image to five features; no classifier.

    :param channels_in: channels of the input: 3, or 6 for two images.
    """

    def __init__(self, layout: ResNetLayout, channels_in: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, _STEM_WIDTH, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM_WIDTH)
        before = layout.channels[:-1]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(layout, stage, before[stage]) for stage in range(4)
        )
        self.apply(_initialize)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C_in, H, W), normalised, to features at 1/2, 1/4, 1/8, 1/16 and 1/32."""
        features = [F.relu(self.bn1(self.conv1(x)))]
        x = self.layer1(F.max_pool2d(features[0], 3, 2, 1))
        features.append(x)
        for stage in (self.layer2, self.layer3, self.layer4):
            features.append(stage(features[-1]))
        return features


def _stage(layout: ResNetLayout, stage: int, channels_in: int) -> nn.Sequential:
    channels_out = layout.channels[stage + 1]
    blocks: list[nn.Module] = []
    for index in range(layout.blocks[stage]):
        stride = 2 if index == 0 and stage > 0 else 1
        if layout.bottleneck:
            width = layout.width_per_group * layout.groups << stage
            blocks.append(Bottleneck(channels_in, width, channels_out, stride, layout.groups))
        else:
            blocks.append(BasicBlock(channels_in, channels_out, stride))
        channels_in = channels_out
    return nn.Sequential(*blocks)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
