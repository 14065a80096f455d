"""HRNet-W18 without its classifier: the encoder of DIFFNet.

Sources: Wang et al., Deep High-Resolution Representation Learning for Visual Recognition, TPAMI
2020; the features that are handed on are those of Zhou et al. (DIFFNet), BMVC 2021.  Names of
weights are those of HRNet's ImageNet checkpoints.

Branches of 18, 36, 72 and 144 channels at 1/4, 1/8, 1/16 and 1/32 of the size run side by side and
exchange their features after every module.  Every layer is used: all modules, the last one too,
give all their scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.networks.resnet import BasicBlock
from depth_node.networks.resnet import Bottleneck

STEM_WIDTH = 64
BRANCH_WIDTHS = (18, 36, 72, 144)

_LAYER1_WIDTH = 256
_LAYER1_BLOCKS = 4
_BLOCKS_PER_BRANCH = 4
_MODULES = {2: 1, 3: 4, 4: 3}


@dataclass(frozen=True)
class HrnetFeatures:
    """What the encoder hands to a decoder; every feature has passed a ReLU."""

    stem: Tensor
    """First convolution, (B, 64, H / 2, W / 2)."""
    quarter: Tensor
    """Second convolution, (B, 64, H / 4, W / 4)."""
    stages: tuple[tuple[Tensor, ...], ...]
    """Outputs of stages 2, 3 and 4; branch b of each is (B, 18 << b, H / (4 << b), W / (4 << b)),
    and a stage has as many branches as its number says."""

    def of_branch(self, branch: int) -> tuple[Tensor, ...]:
        """Return the outputs of one branch, 0 to 3, in the order of the stages that have it."""
        return tuple(stage[branch] for stage in self.stages if branch < len(stage))


class ParallelModule(nn.Module):
    """Four residual blocks in every branch, then the sum of all branches at the scale of each.

    From a coarser branch: 1x1 convolution, then bilinear upsampling in which the centres of the
    corner pixels fall on each other (align_corners).  From a finer one: as many 3x3 convolutions
    of stride 2 as there are halvings between, the last without activation.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width, 1) for _ in range(_BLOCKS_PER_BRANCH)))
            for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_path(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Keep the shapes of all branches."""
        pairs = zip(self.branches, features, strict=True)
        refined = [branch(feature) for branch, feature in pairs]
        return [F.relu(self._sum_at(target, refined)) for target in range(len(refined))]

    def _sum_at(self, target: int, features: Sequence[Tensor]) -> Tensor:
        total = features[target]
        for source, layer in enumerate(self.fuse_layers[target]):
            if source == target:
                continue
            part = layer(features[source])
            if source > target:
                size = total.shape[-2:]
                part = F.interpolate(part, size=size, mode='bilinear', align_corners=True)
            total = total + part
        return total


def _path(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """Return the layers from one branch to the scale of another, but for the upsampling."""
    if source == target:
        return nn.Identity()
    if source > target:
        return conv_norm(widths[source], widths[target], kernel=1)
    narrow = widths[source]
    halvings = range(source, target - 1)
    return nn.Sequential(
        *(conv_norm(narrow, narrow, stride=2, relu=True) for _ in halvings),
        conv_norm(narrow, widths[target], stride=2),
    )


class Hrnet(nn.Module):
    """Image, not normalised, to the features of every stage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM_WIDTH, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_WIDTH)
        self.conv2 = nn.Conv2d(STEM_WIDTH, STEM_WIDTH, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM_WIDTH)
        before = (STEM_WIDTH, *[_LAYER1_WIDTH] * (_LAYER1_BLOCKS - 1))
        self.layer1 = nn.Sequential(
            *(Bottleneck(width, STEM_WIDTH, _LAYER1_WIDTH, 1, 1) for width in before)
        )
        self.transition1 = nn.ModuleList(
            (
                conv_norm(_LAYER1_WIDTH, BRANCH_WIDTHS[0], relu=True),
                _new_branch(_LAYER1_WIDTH, BRANCH_WIDTHS[1]),
            )
        )
        self.stage2 = _stage(2)
        self.transition2 = _one_branch_more(2)
        self.stage3 = _stage(3)
        self.transition3 = _one_branch_more(3)
        self.stage4 = _stage(4)
        self.apply(_initialize)

    def forward(self, x: Tensor) -> HrnetFeatures:
        """Map (B, 3, H, W) RGB in [0, 1], sides multiples of 32, to all features."""
        stem = F.relu(self.bn1(self.conv1(x)))
        quarter = F.relu(self.bn2(self.conv2(stem)))
        features: Sequence[Tensor] = [self.layer1(quarter)]
        stages = []
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            last = len(features) - 1
            features = [layer(features[min(i, last)]) for i, layer in enumerate(transition)]
            for module in stage:
                features = module(features)
            stages.append(tuple(features))
        return HrnetFeatures(stem, quarter, tuple(stages))


def conv_norm(
    channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1, relu: bool = False
) -> nn.Sequential:
    """Return a convolution without bias, zeros beyond the border, and a batch normalisation."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(channels_out)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def _new_branch(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return the start of a branch at half the size; nested once, as its released names are."""
    return nn.Sequential(conv_norm(channels_in, channels_out, stride=2, relu=True))


def _one_branch_more(branches: int) -> nn.ModuleList:
    """Return what leaves ``branches`` features as they are and makes one more from the last."""
    kept = [nn.Identity() for _ in range(branches)]
    return nn.ModuleList((*kept, _new_branch(*BRANCH_WIDTHS[branches - 1 : branches + 1])))


def _stage(number: int) -> nn.Sequential:
    """Return the modules of a stage, 2 to 4, which has as many branches as its number says."""
    return nn.Sequential(
        *(ParallelModule(BRANCH_WIDTHS[:number]) for _ in range(_MODULES[number]))
    )


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
