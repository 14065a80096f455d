"""Swin Transformer, versions 1 and 2: encoders of four MiDaS 3.1 networks.

Passport
    Papers: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
        ICCV 2021; Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", CVPR
        2022.
    Original: github.com/microsoft/Swin-Transformer; the weights follow the names of timm 0.6.12,
        which MiDaS was trained with.
    Licence of the original code: MIT; of timm: Apache-2.0.  This file holds no code of either.
    Licence of the weights: those of MiDaS, see midas.py.
    Same as the original: arithmetic, names of all weights, initialisation.
    Different: features are taken before each patch merging and not normalised, as MiDaS takes
        them; tokens stay on their grid, (B, H, W, C); what follows from sizes alone (indices of
        relative positions, masks, logarithmic coordinates) is computed and not loaded; no
        stochastic depth.
    Unused by design: the last normalisation and the classifier of the released files.
    Half precision: not to be used; MiDaS's authors report numbers that are not finite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.networks.vision_transformer import Mlp

_PATCH = 4
_STAGES = 4
_EXPANSION = 4
_LAYER_NORM_EPS = 1e-5
_MASKED = -100.0
_CPB_HIDDEN = 512
_CPB_RANGE = 16.0
_LOG_SPAN = 8.0
_LARGEST_LOGIT_SCALE = math.log(100.0)
_FIRST_LOGIT_SCALE = math.log(10.0)


@dataclass(frozen=True)
class SwinLayout:
    """What tells the sizes apart."""

    side: int
    """Height and width of the input, pixels."""
    width: int
    """Channels of the first stage; each further stage has twice as many."""
    depths: tuple[int, int, int, int]
    """Blocks per stage."""
    heads: tuple[int, int, int, int]
    """Attention heads per stage."""
    window: int
    """Side of a window, tokens; a grid that is smaller is one window."""
    version: int
    """1 or 2."""
    trained_windows: tuple[int, ...] | None = None
    """Version 2: windows of the training at a lower resolution, whose offsets scale the
    coordinates of the position bias; None: the window itself."""


SWIN_LARGE_384 = SwinLayout(384, 192, (2, 2, 18, 2), (6, 12, 24, 48), 12, 1)
SWIN2_TINY_256 = SwinLayout(256, 96, (2, 2, 6, 2), (3, 6, 12, 24), 16, 2)
SWIN2_BASE_384 = SwinLayout(384, 128, (2, 2, 18, 2), (4, 8, 16, 32), 24, 2, (12, 12, 12, 6))
SWIN2_LARGE_384 = SwinLayout(384, 192, (2, 2, 18, 2), (6, 12, 24, 48), 24, 2, (12, 12, 12, 6))


def relative_positions(window: int) -> Tensor:
    """Return which entry of a table of relative positions each pair of tokens takes.

    :returns: (N * N,) int64, N = window^2 row-major tokens: for query q and key k the entry at
        q N + k is (dy + window - 1) (2 window - 1) + dx + window - 1, (dy, dx) from k to q.
    """
    steps = torch.arange(window)
    along = steps[:, None] - steps[None, :] + window - 1  # (query, key)
    index = along[:, None, :, None] * (2 * window - 1) + along[None, :, None, :]
    return index.reshape(-1)


def shift_mask(side: int, window: int, shift: int) -> Tensor:
    """Return what keeps tokens apart that only a cyclic shift has made neighbours.

    :param side: tokens along the grid.
    :param window: tokens along a window.
    :param shift: tokens by which the grid was rolled up and left.
    :returns: (windows, N, N) float32: 0 for tokens of one region, -100 for others.
    """
    position = torch.arange(side)
    band = (position >= side - window).long() + (position >= side - shift).long()
    region = (3 * band[:, None] + band[None, :]).float()
    region = windows_of(region[None, :, :, None], window)[0, :, :, 0]
    apart = region[:, :, None] != region[:, None, :]
    return torch.zeros(apart.shape).masked_fill_(apart, _MASKED)


def log_coordinates(window: int, trained_window: int) -> Tensor:
    """Return the relative positions of a window on a logarithmic scale.

    An offset d becomes sign(d) log2(1 + 8 |d| / (trained_window - 1)) / log2(8).

    :returns: ((2 window - 1)^2, 2) float32, (dy, dx) in the order of :func:`relative_positions`.
    """
    offset = torch.arange(1 - window, window, dtype=torch.float32)
    scaled = offset * (_LOG_SPAN / (trained_window - 1))
    axis = scaled.sign() * torch.log2(1 + scaled.abs()) / math.log2(_LOG_SPAN)
    return torch.stack(torch.meshgrid(axis, axis, indexing='ij'), dim=-1).reshape(-1, 2)


def windows_of(x: Tensor, window: int) -> Tensor:
    """Cut (B, H, W, C) into (B, windows, window^2, C), both row by row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(batch, -1, window * window, channels)


def grid_of(windows: Tensor, side: int, window: int) -> Tensor:
    """Put (B, windows, window^2, C) together again to (B, side, side, C)."""
    batch, count, channels = windows.shape[0], side // window, windows.shape[-1]
    x = windows.reshape(batch, count, count, window, window, channels)
    return x.transpose(2, 3).reshape(batch, side, side, channels)


def _attended(
    parts: tuple[Tensor, Tensor, Tensor],
    bias: Tensor,
    mask: Tensor | None,
    scale: float | None = None,
) -> Tensor:
    """Return the softmax attention of every window, heads joined.

    Windows go with the batch, or, where their masks differ, with the heads: scores are then never
    more than four-dimensional, which the fused kernels of torch need.

    :param parts: queries, keys and values, each (B, windows, heads, N, C / heads).
    :param bias: (heads, N, N), added to the scores.
    :param mask: (windows, N, N), added to the scores; None: nothing to keep apart.
    :param scale: factor on the scores; None: (C / heads)^-1/2.
    :returns: (B, windows, N, C).
    """
    if mask is None:
        query, key, value = (part.flatten(0, 1) for part in parts)
        added = bias[None]
    else:
        query, key, value = (part.flatten(1, 2) for part in parts)
        added = (bias + mask[:, None]).flatten(0, 1)[None]
    mixed = F.scaled_dot_product_attention(query, key, value, added, scale=scale)
    return mixed.reshape(parts[0].shape).transpose(2, 3).flatten(3)


class WindowAttention(nn.Module):
    """Attention inside windows with a table of biases by relative position: version 1."""

    index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.tokens = window * window
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer('index', relative_positions(window), persistent=False)

    def position_bias(self) -> Tensor:
        """Return (heads, N, N)."""
        return _expanded(self.relative_position_bias_table, self.index, self.tokens)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Keep the shape (B, windows, N, C); see :func:`shift_mask` for the mask."""
        parts = _split(self.qkv(windows), self.heads)
        return self.proj(_attended(parts, self.position_bias(), mask))


class CosineWindowAttention(nn.Module):
    """Attention by cosines with biases from a small network of the position: version 2.

    The scores of a head are cosines times exp(logit_scale), at most 100, plus 16 times the sigmoid
    of the network.  Keys have no bias.
    """

    index: Tensor
    coordinates: Tensor

    def __init__(self, width: int, heads: int, window: int, trained_window: int) -> None:
        super().__init__()
        self.heads = heads
        self.tokens = window * window
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), _FIRST_LOGIT_SCALE))
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, _CPB_HIDDEN), nn.ReLU(), nn.Linear(_CPB_HIDDEN, heads, bias=False)
        )
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        coordinates = log_coordinates(window, trained_window)
        self.register_buffer('coordinates', coordinates, persistent=False)
        self.register_buffer('index', relative_positions(window), persistent=False)

    def position_bias(self) -> Tensor:
        """Return (heads, N, N) in (0, 16)."""
        table = _CPB_RANGE * torch.sigmoid(self.cpb_mlp(self.coordinates))
        return _expanded(table, self.index, self.tokens)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Keep the shape (B, windows, N, C); see :func:`shift_mask` for the mask."""
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        query, key, value = _split(F.linear(windows, self.qkv.weight, bias), self.heads)
        gain = self.logit_scale.clamp(max=_LARGEST_LOGIT_SCALE).exp()
        parts = (F.normalize(query, dim=-1) * gain, F.normalize(key, dim=-1), value)
        return self.proj(_attended(parts, self.position_bias(), mask, scale=1.0))


def _split(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Map (B, windows, N, 3 C) to queries, keys and values (B, windows, heads, N, C / heads)."""
    query, key, value = qkv.unflatten(-1, (3, heads, -1)).permute(3, 0, 1, 4, 2, 5)
    return query, key, value


def _expanded(table: Tensor, index: Tensor, tokens: int) -> Tensor:
    """Map a table (entries, heads) and the entry of each pair of tokens to (heads, N, N)."""
    return table.t()[:, index].unflatten(1, (tokens, tokens))


class SwinBlock(nn.Module):
    """Attention inside windows and a pointwise network, each with a residual.

    :param side: tokens along the grid.
    :param window: tokens along a window.
    :param shift: tokens by which the windows are moved down and right, cyclically.
    :param attention: module from (windows, mask) to windows.
    :param norm_first: normalise what enters a branch (version 1), or what leaves it (version 2).
    """

    mask: Tensor | None

    def __init__(
        self,
        width: int,
        side: int,
        window: int,
        shift: int,
        attention: nn.Module,
        *,
        norm_first: bool,
    ) -> None:
        super().__init__()
        self.side = side
        self.window = window
        self.shift = shift
        self.norm_first = norm_first
        self.norm1 = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.mlp = Mlp(width, _EXPANSION * width)
        mask = shift_mask(side, window, shift) if shift else None
        self.register_buffer('mask', mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (B, H, W, C)."""
        if self.norm_first:
            x = x + self._in_windows(self.norm1(x))
            return x + self.mlp(self.norm2(x))
        x = x + self.norm1(self._in_windows(x))
        return x + self.norm2(self.mlp(x))

    def _in_windows(self, x: Tensor) -> Tensor:
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = self.attn(windows_of(x, self.window), self.mask)
        x = grid_of(x, self.side, self.window)
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x


class PatchEmbedding(nn.Module):
    """Patches of 4x4 pixels to normalised tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, _PATCH, _PATCH)
        self.norm = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, H / 4, W / 4, C)."""
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Four neighbours to one token of twice the channels.

    The neighbours lie column by column: top left, bottom left, top right, bottom right.

    :param norm_first: normalise the joined neighbours (version 1), or the result (version 2).
    """

    def __init__(self, width: int, *, norm_first: bool) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm = nn.LayerNorm((4 if norm_first else 2) * width, eps=_LAYER_NORM_EPS)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H / 2, W / 2, 2 C)."""
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x)) if self.norm_first else self.norm(self.reduction(x))


class SwinStage(nn.Module):
    """The blocks of one resolution, and what leads to the next."""

    def __init__(self, layout: SwinLayout, stage: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*_blocks(layout, stage))
        last = stage == _STAGES - 1
        self.downsample = (
            None if last else PatchMerging(layout.width << stage, norm_first=layout.version == 1)
        )


def _blocks(layout: SwinLayout, stage: int) -> Iterator[SwinBlock]:
    """Make the blocks of a stage; every second one has its windows moved by half of one.

    Windows that cover the whole grid stay where they are.
    """
    width, heads = layout.width << stage, layout.heads[stage]
    side = layout.side // _PATCH >> stage
    window = min(layout.window, side)
    trained = layout.trained_windows[stage] if layout.trained_windows else window
    for index in range(layout.depths[stage]):
        shift = window // 2 if index % 2 and window < side else 0
        attention = (
            WindowAttention(width, heads, window)
            if layout.version == 1
            else CosineWindowAttention(width, heads, window, trained)
        )
        yield SwinBlock(width, side, window, shift, attention, norm_first=layout.version == 1)


class Swin(nn.Module):
    """Image of one fixed size to four feature maps.

    :param layout: one of the constants of this file.
    """

    def __init__(self, layout: SwinLayout) -> None:
        super().__init__()
        self.channels = tuple(layout.width << stage for stage in range(_STAGES))
        self.patch_embed = PatchEmbedding(layout.width)
        self.layers = nn.ModuleList(SwinStage(layout, stage) for stage in range(_STAGES))
        self.apply(_initialize)
        if layout.version == 2:
            self.apply(_silence)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, 3, S, S), normalised, to maps (B, C, h, w) at 1/4, 1/8, 1/16 and 1/32."""
        x = self.patch_embed(image)
        features: list[Tensor] = []
        for stage in self.layers:
            x = stage.blocks(x)
            features.append(x.permute(0, 3, 1, 2))
            if stage.downsample is not None:
                x = stage.downsample(x)
        return features


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _silence(module: nn.Module) -> None:
    """Let every residual branch begin as nothing, as the second paper does."""
    if isinstance(module, SwinBlock):
        nn.init.zeros_(module.norm1.weight)
        nn.init.zeros_(module.norm2.weight)


def swin_large_384() -> Swin:
    """Return Swin-L with windows of 12 for 384x384 pixels."""
    return Swin(SWIN_LARGE_384)


def swin2_tiny_256() -> Swin:
    """Return Swin V2-T with windows of 16 for 256x256 pixels."""
    return Swin(SWIN2_TINY_256)


def swin2_base_384() -> Swin:
    """Return Swin V2-B with windows of 24 for 384x384 pixels, 12 for 192x192 before."""
    return Swin(SWIN2_BASE_384)


def swin2_large_384() -> Swin:
    """Return Swin V2-L with windows of 24 for 384x384 pixels, 12 for 192x192 before."""
    return Swin(SWIN2_LARGE_384)


_UNUSED = re.compile(
    r'head\..+|norm\.(weight|bias)|layers\.\d+\.blocks\.\d+\.(attn_mask'
    r'|attn\.(relative_position_index|relative_coords_table))'
)
_MERGING = re.compile(r'layers\.(\d+)(\.downsample\..+)')
_LATE_MERGING = f'layers.{_STAGES - 1}.downsample.'


def translator(keys: Collection[str]) -> Callable[[str], str | None]:
    """Return the way from a released name to that of :class:`Swin`.

    timm up to 0.6 counts a patch merging to the stage before it, later versions to the stage
    behind it: 'layers.1.downsample' is another layer in each, and only all the names together tell
    which.

    :param keys: all released names of the encoder, 'pretrained.model.' taken off.
    :returns: released name -> our name; None where no forward pass reads it; what it does not
        know comes back as it is.
    """
    moved = 1 if any(key.startswith(_LATE_MERGING) for key in keys) else 0

    def translate(key: str) -> str | None:
        if _UNUSED.fullmatch(key):
            return None
        match = _MERGING.fullmatch(key)
        return f'layers.{int(match[1]) - moved}{match[2]}' if match else key

    return translate
