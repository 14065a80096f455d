"""BEiT as a backbone of DPT: a vision transformer with relative positions.

Source: Bao et al., BEiT: BERT Pre-Training of Image Transformers, ICLR 2022.  Names of weights are
those of the released files below 'pretrained.model', but for the bias tables, which lie one module
deeper here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.networks import dpt_vit
from depth_node.networks.dpt_vit import Constant
from depth_node.networks.dpt_vit import PatchEmbedding
from depth_node.networks.vision_transformer import Mlp

_PATCH_PX = 16
_CLASS_ROWS = 3
_LAYER_NORM_EPS = 1e-6
_LAYER_SCALE = 0.1
_TABLE = '.relative_position_bias_table'
_INDEX = '.relative_position_index'
_LARGE_TAPS = {5: (1, 256), 11: (2, 512), 17: (3, 1024), 23: (4, 1024)}


def translate(key: str) -> str | None:
    """Return the name below the backbone of a released entry; see :func:`.dpt_vit.translate`.

    The indices into the bias tables are left out: they follow from the size of the image.
    """
    if key.endswith(_INDEX):
        return None
    if key.endswith(_TABLE):
        key = f'{key.removesuffix(_TABLE)}.positions{_TABLE}'
    return dpt_vit.translate(key)


def relative_rows(grid: tuple[int, int]) -> Tensor:
    """Return (1 + h w, 1 + h w) int64: the row of a bias table for each query (row) and key.

    Patches that lie (dy, dx) apart, query minus key, share the row
    (dy + h - 1) (2 w - 1) + dx + w - 1.
    Three rows follow: class token to patch, patch to class token, class token to itself.

    :param grid: (h, w) patches.
    """
    height, width = grid
    apart_y = torch.arange(height)[:, None] - torch.arange(height) + height - 1
    apart_x = torch.arange(width)[:, None] - torch.arange(width) + width - 1
    # (query row, query column, key row, key column)
    between = apart_y[:, None, :, None] * (2 * width - 1) + apart_x[None, :, None, :]
    rows = F.pad(between.reshape(height * width, height * width), (1, 0, 1, 0))
    first = (2 * height - 1) * (2 * width - 1)
    rows[0, 1:], rows[1:, 0], rows[0, 0] = first, first + 1, first + 2
    return rows


class RelativeRows(nn.Module):
    """:func:`relative_rows` as a module, which a constant can replace."""

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Return (1 + h w, 1 + h w) int64."""
        return relative_rows(grid)


class BiasTable(nn.Module):
    """Learned bias of the attention per distance; resized to other grids.

    :param side: patches along each side of the training image.
    """

    def __init__(self, side: int, heads: int) -> None:
        super().__init__()
        self.side = side
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * side - 1) ** 2 + _CLASS_ROWS, heads)
        )

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Return (heads, rows) for a grid of (h, w) patches; see :func:`relative_rows`."""
        table = self.relative_position_bias_table.t()
        if grid == (self.side, self.side):
            return table
        span = 2 * self.side - 1
        plane = table[:, :-_CLASS_ROWS].unflatten(1, (span, span))
        size = (2 * grid[0] - 1, 2 * grid[1] - 1)
        plane = F.interpolate(plane[None], size, mode='bilinear', align_corners=False)[0]
        return torch.cat((plane.flatten(1), table[:, -_CLASS_ROWS:]), dim=1)


class BeitAttention(nn.Module):
    """Softmax attention with a learned bias per distance and head; keys have no bias of their own.

    :param side: as for :class:`BiasTable`.
    """

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.positions = BiasTable(side, heads)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, grid: tuple[int, int], rows: Tensor) -> Tensor:
        """Keep the shape (B, N, C); see :class:`BeitBlock`."""
        batch, count, width = tokens.shape
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = F.linear(tokens, self.qkv.weight, bias)
        qkv = qkv.reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, C / heads)
        by_distance = self.positions(grid).index_select(1, rows.flatten())
        by_distance = by_distance.unflatten(1, (count, count)).to(query.dtype)[None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=by_distance)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, width))


class BeitBlock(nn.Module):
    """Attention and a pointwise network, each normalised before, scaled and added after."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.gamma_1 = nn.Parameter(torch.full((width,), _LAYER_SCALE))
        self.gamma_2 = nn.Parameter(torch.full((width,), _LAYER_SCALE))
        self.norm1 = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.attn = BeitAttention(width, heads, side)
        self.norm2 = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, tokens: Tensor, grid: tuple[int, int], rows: Tensor) -> Tensor:
        """Keep the shape (B, 1 + h w, C).

        :param grid: (h, w) patches.
        :param rows: what :func:`relative_rows` returns for them.
        """
        tokens = tokens + self.gamma_1 * self.attn(self.norm1(tokens), grid, rows)
        return tokens + self.gamma_2 * self.mlp(self.norm2(tokens))


class Beit(nn.Module):
    """Normalised image to four features at 1/4, 1/8, 1/16 and 1/32 of the size.

    :param width: channels of the tokens.
    :param depth: number of blocks.
    :param heads: heads of the attention.
    :param side: patches along each side of the training image.
    :param taps: as for :class:`.dpt_vit.VisionTransformer`.
    """

    def __init__(
        self, width: int, depth: int, heads: int, side: int, taps: Mapping[int, tuple[int, int]]
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.rows = RelativeRows()
        self.blocks = nn.ModuleList(BeitBlock(width, heads, side) for _ in range(depth))
        self.taps = dpt_vit.add_reassembly(self, width, taps)
        dpt_vit.initialize(self, self.blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of (B, 3, H, W), the largest first; sides are multiples of 32."""
        plane, features = self.patch_embed(x)
        grid = (plane.shape[-2], plane.shape[-1])
        rows = self.rows(grid).to(x.device)
        tokens = dpt_vit.with_class_token(plane, self.cls_token)
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, grid, rows)
            if index in self.taps:
                features.append(self.get_submodule(self.taps[index])(tokens, grid))
        return features

    def fix_size(self, height: int, width: int) -> None:
        """Replace by constants, in place, what depends on weights and size of the image alone.

        The bias of every pair of tokens is not among it: it would be a hundred times the table.
        """
        grid = (height // _PATCH_PX, width // _PATCH_PX)
        self.rows = Constant(self.rows(grid))
        for block in self.blocks:
            block.attn.positions = Constant(block.attn.positions(grid))


def beit_base_384() -> Beit:
    """Make BEiT-B/16 for 384x384 pixels with the taps of DPT."""
    return Beit(768, 12, 12, 24, {2: (1, 96), 5: (2, 192), 8: (3, 384), 11: (4, 768)})


def beit_large_384() -> Beit:
    """Make BEiT-L/16 for 384x384 pixels with the taps of DPT."""
    return Beit(1024, 24, 16, 24, _LARGE_TAPS)


def beit_large_512() -> Beit:
    """Make BEiT-L/16 for 512x512 pixels with the taps of DPT."""
    return Beit(1024, 24, 16, 32, _LARGE_TAPS)
