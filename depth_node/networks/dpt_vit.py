"""Vision transformers as backbones of DPT: ViT-L/16, and ViT-B behind a small ResNet ('hybrid').

Sources: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; Ranftl et al., Vision
Transformers for Dense Prediction, ICCV 2021.  Names of weights are those of the released files
below 'pretrained.model'; see :func:`translate` for the few that differ.

The readout is one matrix over the concatenation of a token and the class token in the original.
Here each gets its half of the matrix, which gives the same sum with half the work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.networks.resnet_v2 import ResNetV2
from depth_node.networks.vision_transformer import TransformerBlock

_PATCH_PX = 16
_TRAINING_GRID = 24
_INITIAL_STD = 0.02
_UNUSED = re.compile(r'model\.(norm|fc_norm|head)\.(weight|bias)')
_REASSEMBLY = re.compile(r'(act_postprocess\d)\.(0\.project\.0|3|4)\.(weight|bias)')
_REASSEMBLY_NAMES = {'0.project.0': 'project', '3': 'conv', '4': 'resample'}


def translate(key: str) -> str | None:
    """Return the name below the backbone of an entry of a ViT or BEiT release.

    :param key: released name without 'pretrained.'.
    :returns: None for classifiers and the last normalisation, which no depth map needs; the name
        itself where it is unknown.
    """
    if _UNUSED.fullmatch(key):
        return None
    match = _REASSEMBLY.fullmatch(key)
    if match:
        return f'{match[1]}.{_REASSEMBLY_NAMES[match[2]]}.{match[3]}'
    key = key.removeprefix('model.')
    return 'positions.pos_embed' if key == 'pos_embed' else key


class Reassembly(nn.Module):
    """Tokens to a feature map at one of four sizes.

    :param width: channels of the tokens.
    :param channels: channels of the map.
    :param level: 1 to 4: the map has 4, 2, 1 or 1/2 times the size of the grid of tokens.
    """

    def __init__(self, width: int, channels: int, level: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * width, width)
        self.conv = nn.Conv2d(width, channels, 1)
        self.resample = _resample(channels, level)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map (B, 1 + h w, width), the class token first, to (B, channels, H, W).

        :param grid: (h, w).
        """
        of_patches, of_class = self.project.weight.chunk(2, dim=1)
        summary = F.linear(tokens[:, :1], of_class, self.project.bias)
        patches = F.gelu(F.linear(tokens[:, 1:], of_patches) + summary)
        plane = self.conv(patches.transpose(1, 2).unflatten(2, grid))
        return plane if self.resample is None else self.resample(plane)


def _resample(channels: int, level: int) -> nn.Module | None:
    if level == 3:
        return None
    if level == 4:
        return nn.Conv2d(channels, channels, 3, 2, 1)
    factor = 4 if level == 1 else 2
    return nn.ConvTranspose2d(channels, channels, factor, factor)


class PatchEmbedding(nn.Module):
    """Patches of 16x16 pixels to tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, _PATCH_PX, _PATCH_PX)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (B, 3, H, W) to (B, width, H / 16, W / 16) and no early features."""
        return self.proj(x), []


class HybridEmbedding(nn.Module):
    """Features of a ResNet to tokens; the ResNet's finer features go to the decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = ResNetV2()
        self.proj = nn.Conv2d(self.backbone.channels[-1], width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (B, 3, H, W) to (B, width, H / 16, W / 16) and the features at 1/4 and 1/8."""
        *early, last = self.backbone(x)
        return self.proj(last), early


class PositionTable(nn.Module):
    """Learned vector per token, the class token's first; resized to other grids."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _TRAINING_GRID**2, width))
        nn.init.normal_(self.pos_embed, std=_INITIAL_STD)

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Return (1, 1 + h w, width) for a grid of (h, w) tokens."""
        if grid == (_TRAINING_GRID, _TRAINING_GRID):
            return self.pos_embed
        of_class, of_patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        plane = of_patches.transpose(1, 2).unflatten(2, (_TRAINING_GRID, _TRAINING_GRID))
        plane = F.interpolate(plane, grid, mode='bilinear', align_corners=False)
        return torch.cat((of_class, plane.flatten(2).transpose(1, 2)), dim=1)


class Constant(nn.Module):
    """A tensor in the place of a module that computes it from the size of the input alone."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer('value', value.detach().contiguous())

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Return the tensor; ``grid`` must be that of the size it was made for."""
        return self.value


class VisionTransformer(nn.Module):
    """Normalised image to four features at 1/4, 1/8, 1/16 and 1/32 of the size.

    :param embedding: image to a grid of tokens, and early features.
    :param width: channels of the tokens.
    :param depth: number of blocks.
    :param heads: heads of the attention.
    :param taps: index of a block -> (level, channels) of the feature that is made of its tokens.
    """

    def __init__(
        self,
        embedding: PatchEmbedding | HybridEmbedding,
        width: int,
        depth: int,
        heads: int,
        taps: Mapping[int, tuple[int, int]],
    ) -> None:
        super().__init__()
        self.patch_embed = embedding
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = PositionTable(width)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.taps = add_reassembly(self, width, taps)
        initialize(self, self.blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of (B, 3, H, W), the largest first; sides are multiples of 32."""
        plane, features = self.patch_embed(x)
        grid = (plane.shape[-2], plane.shape[-1])
        tokens = with_class_token(plane, self.cls_token) + self.positions(grid)
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.taps:
                features.append(self.get_submodule(self.taps[index])(tokens, grid))
        return features

    def fix_size(self, height: int, width: int) -> None:
        """Replace by constants, in place, what depends on weights and size of the image alone."""
        grid = (height // _PATCH_PX, width // _PATCH_PX)
        self.positions = Constant(self.positions(grid))
        if isinstance(self.patch_embed, HybridEmbedding):
            self.patch_embed.backbone.fix_weights()


def with_class_token(plane: Tensor, cls_token: Tensor) -> Tensor:
    """Return (B, 1 + h w, C) tokens of (B, C, h, w), the class token (1, 1, C) first."""
    return torch.cat((cls_token.expand(plane.shape[0], -1, -1), plane.flatten(2).mT), dim=1)


def add_reassembly(
    network: nn.Module, width: int, taps: Mapping[int, tuple[int, int]]
) -> dict[int, str]:
    """Give a transformer the modules that make features of its tokens.

    :param taps: as for :class:`VisionTransformer`.
    :returns: index of a block -> name of the module that takes its tokens.
    """
    for level, channels in taps.values():
        network.add_module(f'act_postprocess{level}', Reassembly(width, channels, level))
    return {index: f'act_postprocess{level}' for index, (level, _) in taps.items()}


def initialize(network: nn.Module, blocks: nn.ModuleList) -> None:
    """Give a transformer the usual first weights."""
    nn.init.normal_(network.cls_token, std=_INITIAL_STD)
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=_INITIAL_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def vit_large() -> VisionTransformer:
    """Make ViT-L/16 with the taps of DPT-Large."""
    taps = {5: (1, 256), 11: (2, 512), 17: (3, 1024), 23: (4, 1024)}
    return VisionTransformer(PatchEmbedding(1024), 1024, 24, 16, taps)


def vit_hybrid() -> VisionTransformer:
    """Make ResNetV2-50 and ViT-B with the taps of DPT-Hybrid."""
    return VisionTransformer(HybridEmbedding(768), 768, 12, 12, {8: (3, 768), 11: (4, 768)})
