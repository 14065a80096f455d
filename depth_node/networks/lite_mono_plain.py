"""Lite-Mono for inference at one size: plain convolutions, made from the trained network.

Everything stays in (1, C, H, W).  The three sizes of disparity become one, and the positional
encoding, the image pyramid and the attention take the fewest operations that give the same result.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.networks.blocks import doubled
from depth_node.networks.blocks import image_pyramid
from depth_node.networks.folding import folded_batch_norm
from depth_node.networks.half import KeepsFloat32
from depth_node.networks.rewrites import Choices
from depth_node.networks.rewrites import DoublingConv
from depth_node.networks.rewrites import gelu_in_place
from depth_node.networks.rewrites import over_parts
from depth_node.networks.rewrites import pointwise

if TYPE_CHECKING:
    from depth_node.networks.lite_mono import AttentionBlock
    from depth_node.networks.lite_mono import CrossCovarianceAttention
    from depth_node.networks.lite_mono import DilatedBlock
    from depth_node.networks.lite_mono import LiteMono

_NORMALIZE_EPS = 1e-12


class PlainMlp(nn.Module):
    """Expansion, GELU, projection."""

    def __init__(self, expand: nn.Conv2d, project: nn.Conv2d) -> None:
        super().__init__()
        self.expand = expand
        self.project = project

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (1, C, H, W)."""
        return self.project(gelu_in_place(self.expand(x)))


class PlainDilated(nn.Module):
    """A dilated block as three convolutions."""

    def __init__(self, block: DilatedBlock) -> None:
        super().__init__()
        self.depthwise = folded_batch_norm(block.ddwconv.conv, block.bn1)
        self.mlp = PlainMlp(pointwise(block.pwconv1), pointwise(block.pwconv2, gain=block.gamma))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (1, C, H, W)."""
        return x + self.mlp(self.depthwise(x))


class ChannelCosines(KeepsFloat32):
    """Cosines between the channels of queries and keys: sums over all pixels."""

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Map twice (heads, C / heads, N) to (heads, C / heads, C / heads)."""
        rows = query.norm(dim=-1, keepdim=True).clamp_min(_NORMALIZE_EPS)
        columns = key.norm(dim=-1).clamp_min(_NORMALIZE_EPS)[:, None, :]
        return (query @ key.transpose(-2, -1)) / rows / columns


class PlainAttention(nn.Module):
    """Cross-covariance attention whose projection acts on the small matrix, not on the pixels.

    :param attention: trained attention.
    :param norm: layer normalisation before it.
    :param gain: (C,) layer scale after it.
    """

    def __init__(
        self, attention: CrossCovarianceAttention, norm: nn.LayerNorm, gain: Tensor
    ) -> None:
        super().__init__()
        channels = gain.numel()
        self.heads = attention.temperature.shape[0]
        self.qkv = pointwise(attention.qkv, norm=norm)
        self.cosines = ChannelCosines()
        projection = pointwise(attention.proj, gain=gain)
        self.projection = nn.Parameter(_by_head(projection.weight, self.heads))
        self.bias = nn.Parameter(projection.bias.reshape(1, channels, 1, 1).clone())
        self.temperature = nn.Parameter(attention.temperature.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (1, C, H, W) of the normalised tokens."""
        _, channels, height, width = x.shape
        per_head = channels // self.heads
        stacked = self.qkv(x).reshape(3 * self.heads, per_head, height * width)
        query, key, value = stacked.split(self.heads)
        weights = torch.softmax(self.cosines(query, key) * self.temperature, dim=-1)
        mixing = (self.projection @ weights).permute(1, 0, 2).reshape(channels, channels)
        mixed = mixing @ value.reshape(channels, height * width)
        return mixed.reshape(1, channels, height, width) + self.bias


class GramAttention(KeepsFloat32):
    """Cross-covariance attention that sees the pixels only through their Gram matrix.

    With the normalised tokens x as columns, each with a 1 appended, the queries are W x and the
    keys V x.  All that the attention asks of them are sums over the pixels: W G V^T with the Gram
    matrix G = x x^T, and the diagonals of W G W^T and V G V^T.  Its result is one matrix and a
    shift on the tokens, so that queries, keys and values never exist.

    The tokens come divided by about the root of their number, and the weights of every query and
    key have the length 1, which no cosine sees: all numbers are of the order of 1, and even in
    float16 no sum could leave its range.

    :param attention: trained attention.
    :param norm: layer normalisation before it.
    :param gain: (C,) layer scale after it.
    :param scale: factor on the tokens, see :func:`token_scale`.
    """

    def __init__(
        self, attention: CrossCovarianceAttention, norm: nn.LayerNorm, gain: Tensor, scale: float
    ) -> None:
        super().__init__()
        channels = gain.numel()
        self.heads = attention.temperature.shape[0]
        self.scale = scale
        qkv = pointwise(attention.qkv, norm=norm)
        augmented = torch.cat((qkv.weight[:, :, 0, 0], qkv.bias[:, None]), dim=1)
        query_key, value = augmented.split((2 * channels, channels))
        self.query_key = nn.Parameter(F.normalize(query_key, dim=1))
        unscaled = torch.ones(channels + 1).to(gain)
        unscaled[:channels] = 1 / scale
        self.value = nn.Parameter(value * unscaled)
        projection = pointwise(attention.proj, gain=gain)
        self.projection = nn.Parameter(_by_head(projection.weight, self.heads))
        self.bias = nn.Parameter(projection.bias[:, None].clone())
        self.temperature = nn.Parameter(attention.temperature.clone())

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep the shape (N, C) of tokens that are normalised and then scaled."""
        channels = tokens.shape[1]
        weights = torch.softmax(self._cosines(self._gram(tokens)) * self.temperature, dim=-1)
        mixing = (self.projection @ weights).permute(1, 0, 2).reshape(channels, channels)
        matrix, shift = (mixing @ self.value).split((channels, 1), dim=1)
        return F.linear(tokens, matrix, (shift + self.bias)[:, 0])

    def _gram(self, tokens: Tensor) -> Tensor:
        """Return (C + 1, C + 1), where the 1 of every token is scaled too."""
        count = tokens.shape[0]
        sums = tokens.sum(dim=0, keepdim=True) * self.scale
        corner = sums.new_full((1, 1), count * self.scale**2)
        above = torch.cat((tokens.transpose(0, 1) @ tokens, sums.transpose(0, 1)), dim=1)
        return torch.cat((above, torch.cat((sums, corner), dim=1)))

    def _cosines(self, gram: Tensor) -> Tensor:
        """Return (heads, C / heads, C / heads)."""
        products = self.query_key @ gram
        squares = (products * self.query_key).sum(dim=1, keepdim=True)
        smallest = max(_NORMALIZE_EPS**2, torch.finfo(gram.dtype).tiny)
        inverse = squares.clamp_min(smallest).rsqrt()
        query = (products * inverse)[: len(products) // 2]
        key = (self.query_key * inverse)[len(products) // 2 :]
        query, key = (half.unflatten(0, (self.heads, -1)) for half in (query, key))
        return query @ key.transpose(-2, -1)


def token_scale(count: int) -> float:
    """Return the power of two next to 1 / sqrt(count): multiplying by it is exact."""
    return 2.0 ** -round(math.log2(count) / 2)


def _by_head(weight: Tensor, heads: int) -> Tensor:
    """Return the columns (heads, C, C / heads) of the 1x1 convolution after an attention."""
    return weight.reshape(len(weight), heads, -1).permute(1, 0, 2).contiguous()


class PlainAttentionBlock(nn.Module):
    """An attention block without permutations other than those of the layer normalisation."""

    def __init__(self, block: AttentionBlock, height: int, width: int) -> None:
        super().__init__()
        encoding = None if block.pos_embd is None else block.pos_embd(height, width)
        self.register_buffer('encoding', encoding)
        self.attention = self._attention_of(block, height * width)
        expand = pointwise(block.pwconv1, norm=block.norm)
        self.mlp = PlainMlp(expand, pointwise(block.pwconv2, gain=block.gamma))
        self.eps = block.norm.eps

    def _attention_of(self, block: AttentionBlock, count: int) -> nn.Module:
        """Return the attention of ``count`` tokens."""
        return PlainAttention(block.xca, block.norm_xca, block.gamma_xca)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (1, C, H, W)."""
        tokens = self._encoded(x)
        tokens = tokens + self.attention(self._normalized(tokens))
        return x + self.mlp(self._normalized(tokens))

    def _encoded(self, x: Tensor) -> Tensor:
        return x if self.encoding is None else x + self.encoding

    def _normalized(self, x: Tensor) -> Tensor:
        channels_last = x.permute(0, 2, 3, 1)
        return F.layer_norm(channels_last, x.shape[1:2], eps=self.eps).permute(0, 3, 1, 2)


class GramAttentionBlock(PlainAttentionBlock):
    """The same with :class:`GramAttention`, channels last from one normalisation to the other."""

    def _attention_of(self, block: AttentionBlock, count: int) -> nn.Module:
        """Return the attention of ``count`` tokens, which come scaled."""
        scale = token_scale(count)
        self.register_buffer('scale', torch.full_like(block.gamma_xca, scale))
        return GramAttention(block.xca, block.norm_xca, block.gamma_xca, scale)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (1, C, H, W)."""
        _, channels, height, width = x.shape
        tokens = self._encoded(x).permute(0, 2, 3, 1).reshape(height * width, channels)
        scaled = F.layer_norm(tokens, (channels,), self.scale, eps=self.eps)
        tokens = F.layer_norm(tokens + self.attention(scaled), (channels,), eps=self.eps)
        tokens = tokens.reshape(1, height, width, channels).permute(0, 3, 1, 2)
        return x + self.mlp(tokens)


class PlainStem(nn.Module):
    """The three convolutions at half size."""

    def __init__(self, stem: nn.Sequential) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [folded_batch_norm(layer.conv, layer.bn_gelu.bn) for layer in stem]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, 3, H, W) to (1, C, H / 2, W / 2)."""
        for conv in self.convs:
            x = gelu_in_place(conv(x))
        return x


class PlainLiteMono(nn.Module):
    """Normalised image to full-size disparity."""

    def __init__(self, network: LiteMono, height: int, width: int, choices: Choices) -> None:
        super().__init__()
        encoder, split = network.encoder, choices.split_concat
        self.stem = PlainStem(encoder.downsample_layers[0])
        widths = [stage[-1].gamma.numel() for stage in encoder.stages]
        entrances = [(encoder.stem2[0].conv, [widths[0], 3])]
        for index, channels in enumerate(widths[:-1], start=1):
            conv = encoder.downsample_layers[index][0].conv
            entrances.append((conv, [channels, channels, 3]))
        self.entrances = nn.ModuleList(
            [over_parts(conv, parts, split=split) for conv, parts in entrances]
        )
        self.stages = nn.ModuleList(
            [
                _plain_stage(stage, height >> index, width >> index, choices)
                for index, stage in enumerate(encoder.stages, start=2)
            ]
        )
        self.decoder = PlainDecoder(network.decoder.decoder, widths, choices)

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 3, H, W), normalised, to (1, 1, H, W) in (0, 1)."""
        parts, features = [self.stem(image)], []
        pyramid = image_pyramid(image, len(self.stages))
        for entrance, stage, level in zip(self.entrances, self.stages, pyramid, strict=True):
            ahead = entrance(*parts, level)
            features.append(stage(ahead))
            parts = [ahead, features[-1]]
        return self.decoder(features)


def _plain_stage(stage: nn.Sequential, height: int, width: int, choices: Choices) -> nn.Sequential:
    blocks: list[nn.Module] = [PlainDilated(block) for block in stage[:-1]]
    last = GramAttentionBlock if choices.gram_attention else PlainAttentionBlock
    return nn.Sequential(*blocks, last(stage[-1], height, width))


class PlainDecoder(nn.Module):
    """Features to the disparity at full size; the coarser heads are left out."""

    def __init__(self, layers: nn.ModuleList, widths: list[int], choices: Choices) -> None:
        super().__init__()
        scales = len(widths)
        convs = [layer.conv.conv for layer in layers[: 2 * scales]]
        skips = [*reversed(widths[:-1]), 0]
        self.before = nn.ModuleList([_mirroring(conv) for conv in convs[::2]])
        self.after = nn.ModuleList()
        for conv, skip in zip(convs[1::2], skips, strict=True):
            own = conv.in_channels - skip
            parts = [own, skip] if skip else [own]
            self.after.append(over_parts(conv, parts, split=choices.split_concat, reflect=True))
        self.head = _mirroring(layers[2 * scales].conv)
        self.resize = DoublingConv() if choices.resize_by_convolution else None

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map features at 1/4, 1/8 and 1/16 to (1, 1, H, W)."""
        x, skips = features[-1], features[-2::-1]
        for index, (before, after) in enumerate(zip(self.before, self.after, strict=True)):
            x = doubled(F.elu(before(x), inplace=True))
            x = F.elu(after(x, *skips[index : index + 1]), inplace=True)
        logit = self.head(x)
        return torch.sigmoid(doubled(logit) if self.resize is None else self.resize(logit))


def _mirroring(conv: nn.Conv2d) -> nn.Module:
    return over_parts(conv, [conv.in_channels], split=False, reflect=True)


def plain_lite_mono(network: LiteMono, height: int, width: int, choices: Choices) -> PlainLiteMono:
    """Return the plain form of a trained network; see :func:`.rewrites.linearized`."""
    made = PlainLiteMono(network, height, width, choices)
    return made.to(network.encoder.stages[0][0].gamma)
