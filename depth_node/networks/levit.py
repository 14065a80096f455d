"""LeViT-384: the encoder of the smallest MiDaS 3.1 network.

Passport
    Paper: Graham et al., "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference",
        ICCV 2021.
    Original: github.com/facebookresearch/LeViT; the weights follow the names of timm 0.6.12, which
        MiDaS was trained with.
    Licence of the original code: Apache-2.0, as timm's.  This file holds no code of either.
    Licence of the weights: those of MiDaS, see midas.py.
    Same as the original: arithmetic, names of all weights, initialisation.
    Different: it ends with the last block that MiDaS reads; the biases of attention are looked up
        in every pass and never kept, so that they cannot be those of other weights; no stochastic
        depth.
    Unused by design: blocks 22 to 27 and both classifiers of the released files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

_CHANNELS = (384, 512, 768)
_HEADS = (6, 9, 12)
_SIDES = (14, 7, 4)
_PAIRS = (4, 4, 1)
_HOOKS = (3, 11, 21)
_KEY_WIDTH = 32
_VALUE_RATIO = 2
_SHRINKING_VALUE_RATIO = 4
_EXPANSION = 2


class ConvNorm(nn.Module):
    """3x3 convolution of stride 2 and a batch normalisation."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(channels_in, channels_out, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / 2, W / 2)."""
        return self.bn(self.c(x))


class LinearNorm(nn.Module):
    """Linear layer and a batch normalisation over all tokens.

    :param gain: first value of the normalisation's weight; 0 lets a residual branch begin as
        nothing.
    """

    def __init__(self, channels_in: int, channels_out: int, gain: float = 1.0) -> None:
        super().__init__()
        self.c = nn.Linear(channels_in, channels_out, bias=False)
        self.bn = nn.BatchNorm1d(channels_out)
        nn.init.normal_(self.c.weight, std=0.02)
        nn.init.constant_(self.bn.weight, gain)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, C_in) to (B, N, C_out)."""
        y = self.c(tokens)
        return self.bn(y.flatten(0, 1)).reshape(y.shape)


def offsets(side: int, stride: int) -> Tensor:
    """Return which bias each pair of tokens takes.

    :param side: tokens along the grid of the keys.
    :param stride: of the queries on that grid.
    :returns: (queries, keys) int64: |dy| side + |dx|, in steps of the keys' grid.
    """
    keys = torch.arange(side)
    along = (keys[::stride, None] - keys[None, :]).abs()  # (query, key)
    index = along[:, None, :, None] * side + along[None, :, None, :]
    return index.flatten(2).flatten(0, 1)


class Attention(nn.Module):
    """Softmax attention with a bias by distance, a hard swish before the projection."""

    index: Tensor

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        value_width = _VALUE_RATIO * _KEY_WIDTH
        self.widths = (_KEY_WIDTH, _KEY_WIDTH, value_width)
        self.qkv = LinearNorm(channels, heads * sum(self.widths))
        self.proj = nn.Sequential(
            nn.Hardswish(), LinearNorm(heads * value_width, channels, gain=0.0)
        )
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))
        self.register_buffer('index', offsets(side, 1), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep the shape (B, N, C)."""
        joined = self.qkv(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        query, key, value = joined.split(self.widths, dim=-1)
        return self.proj(_mixed(query, key, value, self.attention_biases[:, self.index]))


class ShrinkingAttention(nn.Module):
    """Attention whose queries are every second token of every second row."""

    index: Tensor

    def __init__(self, channels_in: int, channels_out: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.heads = heads = channels_in // _KEY_WIDTH
        value_width = _SHRINKING_VALUE_RATIO * _KEY_WIDTH
        self.widths = (_KEY_WIDTH, value_width)
        self.kv = LinearNorm(channels_in, heads * sum(self.widths))
        self.q = nn.Sequential(Subsampling(side), LinearNorm(channels_in, heads * _KEY_WIDTH))
        self.proj = nn.Sequential(nn.Hardswish(), LinearNorm(heads * value_width, channels_out))
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))
        self.register_buffer('index', offsets(side, 2), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, side^2, C_in) to (B, ceil(side / 2)^2, C_out)."""
        joined = self.kv(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = joined.split(self.widths, dim=-1)
        query = self.q(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return self.proj(_mixed(query, key, value, self.attention_biases[:, self.index]))


def _mixed(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Map (B, heads, N, width) each, and a bias (heads, queries, keys), to (B, queries, C)."""
    mixed = F.scaled_dot_product_attention(query, key, value, bias[None])
    return mixed.transpose(1, 2).flatten(2)


class Subsampling(nn.Module):
    """Every second token of every second row, from the first on."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, side^2, C) to (B, ceil(side / 2)^2, C)."""
        return tokens.unflatten(1, (self.side, self.side))[:, ::2, ::2].flatten(1, 2)


class Residual(nn.Module):
    """A branch that is added to its input."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.m = branch

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep the shape (B, N, C)."""
        return tokens + self.m(tokens)


def _pointwise(channels: int) -> Residual:
    hidden = _EXPANSION * channels
    layers = (LinearNorm(channels, hidden), nn.Hardswish(), LinearNorm(hidden, channels, gain=0.0))
    return Residual(nn.Sequential(*layers))


def _blocks() -> Iterator[nn.Module]:
    """Make the blocks in the order in which the released files count them."""
    for stage, (channels, heads, side) in enumerate(zip(_CHANNELS, _HEADS, _SIDES, strict=True)):
        if stage > 0:
            before = stage - 1
            yield ShrinkingAttention(_CHANNELS[before], channels, _SIDES[before])
            yield _pointwise(channels)
        for _ in range(_PAIRS[stage]):
            yield Residual(Attention(channels, heads, side))
            yield _pointwise(channels)


class Levit(nn.Module):
    """Image of 224x224 pixels to three feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = _CHANNELS
        first = _CHANNELS[0]
        layers: list[nn.Module] = [ConvNorm(3, first // 8)]
        for divisor in (8, 4, 2):
            layers += (nn.Hardswish(), ConvNorm(first // divisor, 2 * first // divisor))
        self.patch_embed = nn.Sequential(*layers)
        self.blocks = nn.Sequential(*_blocks())

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, 3, 224, 224), normalised, to maps of 14x14, 7x7 and 4x4 tokens, (B, C, h, w)."""
        tokens = self.patch_embed(image).flatten(2).transpose(1, 2)
        features: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in _HOOKS:
                side = _SIDES[len(features)]
                features.append(tokens.transpose(1, 2).unflatten(2, (side, side)))
        return features


def levit_384() -> Levit:
    """Return LeViT-384 up to the last block that MiDaS reads."""
    return Levit()


_UNUSED = re.compile(r'head(_dist)?\..+|blocks\.2[2-7]\..+|blocks\.\d+\.(m\.)?attention_bias_idxs')


def translate(key: str) -> str | None:
    """Return our name of a released entry of the encoder, 'pretrained.model.' taken off.

    :returns: None where no forward pass reads it; what it does not know comes back as it is.
    """
    return None if _UNUSED.fullmatch(key) else key


def translator(keys: Collection[str]) -> Callable[[str], str | None]:
    """Return :func:`translate`; see :func:`.swin.translator`, which needs all names."""
    return translate
