"""Lite-Mono for inference at one size: plain convolutions, made from the trained network.

Everything stays in (1, C, H, W).  The three sizes of disparity become one, and the positional
encoding, the image pyramid and the attention take the fewest operations that give the same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.networks.blocks import doubled
from depth_node.networks.rewrites import Choices
from depth_node.networks.rewrites import DoublingConv
from depth_node.networks.rewrites import folded_batch_norm
from depth_node.networks.rewrites import gelu_in_place
from depth_node.networks.rewrites import over_parts
from depth_node.networks.rewrites import pointwise

if TYPE_CHECKING:
    from depth_node.networks.lite_mono import AttentionBlock
    from depth_node.networks.lite_mono import CrossCovarianceAttention
    from depth_node.networks.lite_mono import DilatedBlock
    from depth_node.networks.lite_mono import LiteMono

_NORMALIZE_EPS = 1e-12
# a cosine does not see it, and sums over 20 000 pixels then fit float16; a power of two is exact
_QUERY_KEY_GAIN = 2.0**-6


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
        scale = torch.ones(3 * channels).to(gain)
        scale[: 2 * channels] = _QUERY_KEY_GAIN
        self.qkv = pointwise(attention.qkv, norm=norm, gain=scale)
        projection = pointwise(attention.proj, gain=gain)
        by_head = projection.weight.reshape(channels, self.heads, channels // self.heads)
        self.projection = nn.Parameter(by_head.permute(1, 0, 2).contiguous())
        self.bias = nn.Parameter(projection.bias.reshape(1, channels, 1, 1).clone())
        self.temperature = nn.Parameter(attention.temperature.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (1, C, H, W) of the normalised tokens."""
        _, channels, height, width = x.shape
        per_head = channels // self.heads
        stacked = self.qkv(x).reshape(3 * self.heads, per_head, height * width)
        query, key, value = stacked.split(self.heads)
        weights = torch.softmax(self._cosines(query, key) * self.temperature, dim=-1)
        mixing = (self.projection @ weights).permute(1, 0, 2).reshape(channels, channels)
        mixed = mixing @ value.reshape(channels, height * width)
        return mixed.reshape(1, channels, height, width) + self.bias

    def _cosines(self, query: Tensor, key: Tensor) -> Tensor:
        """Return (heads, C / heads, C / heads) from (heads, C / heads, N)."""
        smallest = max(_NORMALIZE_EPS * _QUERY_KEY_GAIN, torch.finfo(query.dtype).tiny)
        rows = query.norm(dim=-1, keepdim=True).clamp_min(smallest)
        columns = key.norm(dim=-1).clamp_min(smallest)[:, None, :]
        return (query @ key.transpose(-2, -1)) / rows / columns


class PlainAttentionBlock(nn.Module):
    """An attention block without permutations other than those of the layer normalisation."""

    def __init__(self, block: AttentionBlock, height: int, width: int) -> None:
        super().__init__()
        encoding = (None, None) if block.pos_embd is None else block.pos_embd.axes(height, width)
        self.register_buffer('encoding_of_rows', encoding[0])
        self.register_buffer('encoding_of_columns', encoding[1])
        self.attention = PlainAttention(block.xca, block.norm_xca, block.gamma_xca)
        expand = pointwise(block.pwconv1, norm=block.norm)
        self.mlp = PlainMlp(expand, pointwise(block.pwconv2, gain=block.gamma))
        self.eps = block.norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (1, C, H, W)."""
        tokens = x
        if self.encoding_of_rows is not None:
            tokens = x + (self.encoding_of_rows + self.encoding_of_columns)
        tokens = tokens + self.attention(self._normalized(tokens))
        return x + self.mlp(self._normalized(tokens))

    def _normalized(self, x: Tensor) -> Tensor:
        channels_last = x.permute(0, 2, 3, 1)
        return F.layer_norm(channels_last, x.shape[1:2], eps=self.eps).permute(0, 3, 1, 2)


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
                _plain_stage(stage, height >> index, width >> index)
                for index, stage in enumerate(encoder.stages, start=2)
            ]
        )
        self.decoder = PlainDecoder(network.decoder.decoder, widths, choices)

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 3, H, W), normalised, to (1, 1, H, W) in (0, 1)."""
        parts, features = [self.stem(image)], []
        for entrance, stage in zip(self.entrances, self.stages, strict=True):
            image = F.avg_pool2d(image, 3, 2, 1)
            ahead = entrance(*parts, image)
            features.append(stage(ahead))
            parts = [ahead, features[-1]]
        return self.decoder(features)


def _plain_stage(stage: nn.Sequential, height: int, width: int) -> nn.Sequential:
    blocks: list[nn.Module] = [PlainDilated(block) for block in stage[:-1]]
    return nn.Sequential(*blocks, PlainAttentionBlock(stage[-1], height, width))


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
