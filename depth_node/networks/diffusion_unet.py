"""The network of Stable Diffusion that removes noise, used once as a feature extractor.

Paper: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022.
Names of the weights are those of Stable Diffusion 1.5.  The head that predicts noise is not here.

The context is a single token.  The softmax over one token is 1 whatever the query, so the
cross-attention adds the same vector to every pixel, that of to_out(to_v(context)); its queries,
keys and the normalisation before them cannot matter and are not here either.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.networks.latent_encoder import LATENT_CHANNELS

MULTIPLES = (1, 2, 4, 4)
"""Channels of the levels from 1/8 to 1/64 of the image, in units of the width."""

_BLOCKS = 2
# stages of the way up whose results are features: the middle one of each level, then the last
_FEATURE_STAGES = (1, 4, 7, 11)
_TIME_STEP = 1.0
_LONGEST_PERIOD = 10000.0
_GROUPS = 32
_RESIDUAL_EPS = 1e-5
_TRANSFORMER_EPS = 1e-6
_EXPANSION = 4
_EXACT = torch.float64


class ResidualBlock(nn.Module):
    """Two convolutions with the time added between them, added to the input."""

    def __init__(self, channels_in: int, channels_out: int, time_channels: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels_in, eps=_RESIDUAL_EPS),
            nn.SiLU(),
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
        )
        self.emb_layers: nn.Sequential | None = nn.Sequential(
            nn.SiLU(), nn.Linear(time_channels, channels_out)
        )
        # the identity keeps the place of a dropout whose rate was 0
        self.out_layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels_out, eps=_RESIDUAL_EPS),
            nn.SiLU(),
            nn.Identity(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
        )
        if channels_in != channels_out:
            self.skip_connection: nn.Module = nn.Conv2d(channels_in, channels_out, 1)
        else:
            self.skip_connection = nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W).

        :param time: (1, T) embedding of the time step; None after :meth:`fold_time`.
        """
        y = self.in_layers(x)
        if self.emb_layers is not None:
            y = y + self.emb_layers(time)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(y)

    def fold_time(self, time: Tensor) -> None:
        """Add what this time step contributes to the bias of the first convolution, in place.

        :param time: (1, T) float64 embedding of the time step.
        """
        if self.emb_layers is None:
            return
        conv = self.in_layers[2]
        shift = _exactly(self.emb_layers[1], F.silu(time))[0]
        conv.bias = nn.Parameter((conv.bias.to(_EXACT) + shift).to(conv.bias))
        self.emb_layers = None


def _exactly(linear: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer in float64."""
    return F.linear(x, linear.weight.to(_EXACT), linear.bias.to(_EXACT))


class PixelAttention(nn.Module):
    """Softmax attention between all pixels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep the shape (B, N, C)."""
        query, key, value = (
            part(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q, self.to_k, self.to_v)
        )  # each (B, heads, N, C / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class ContextVector(nn.Module):
    """Cross-attention to a context of one token: the same vector for every pixel."""

    def __init__(self, channels: int, context_channels: int) -> None:
        super().__init__()
        self.to_v = nn.Linear(context_channels, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, context: Tensor) -> Tensor:
        """Map (B, 1, D) to (B, 1, C)."""
        return self.to_out(self.to_v(context))


class GatedGelu(nn.Module):
    """Linear layer whose second half, through a GELU, gates the first."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, hidden)."""
        values, gates = self.proj(tokens).chunk(2, dim=-1)
        return values * F.gelu(gates)


class FeedForward(nn.Module):
    """Gated expansion and projection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = _EXPANSION * channels
        self.net = nn.Sequential(
            GatedGelu(channels, hidden), nn.Identity(), nn.Linear(hidden, channels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep the shape (B, N, C)."""
        return self.net(tokens)


class ContextBlock(nn.Module):
    """Attention between pixels, the vector of the context, gated pointwise network."""

    def __init__(self, channels: int, heads: int, context_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = PixelAttention(channels, heads)
        self.attn2 = ContextVector(channels, context_channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Keep the shape (B, N, C) of the tokens; the context is (B, 1, D)."""
        tokens = tokens + self.attn1(self.norm1(tokens))
        tokens = tokens + self.attn2(context)
        return tokens + self.ff(self.norm3(tokens))


class SpatialTransformer(nn.Module):
    """A transformer block over all pixels of a feature, between two 1x1 convolutions."""

    def __init__(self, channels: int, heads: int, context_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels, eps=_TRANSFORMER_EPS)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([ContextBlock(channels, heads, context_channels)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Keep the shape (B, C, H, W) of the feature; the context is (B, 1, D)."""
        tokens = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.proj_out(tokens.transpose(1, 2).reshape(x.shape))


class Halving(nn.Module):
    """3x3 convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to half the size."""
        return self.op(x)


class Doubling(nn.Module):
    """Repetition of every pixel, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to twice the size."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode='nearest'))


class Stage(nn.ModuleList):
    """Layers in a row, each given what it needs of time and context."""

    def forward(self, x: Tensor, time: Tensor | None, context: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to what the last layer gives."""
        for layer in self:
            if isinstance(layer, ResidualBlock):
                x = layer(x, time)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


class DiffusionUNet(nn.Module):
    """Latents and a scene's context to features at 1/8, 1/16, 1/32 and 1/64 of the image.

    One pass at time step 1 for every image; nothing is drawn, nothing is repeated.

    :param width: channels at 1/8 of the image, a multiple of 32; 320 as published.
    :param heads: heads of all attentions.
    :param context_channels: length of the context.
    """

    def __init__(self, width: int, heads: int, context_channels: int) -> None:
        super().__init__()
        self.width = width
        time = 4 * width
        self.time_embed: nn.Sequential | None = nn.Sequential(
            nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time)
        )

        def stage(channels_in: int, channels_out: int, attends: bool) -> Stage:
            layers: list[nn.Module] = [ResidualBlock(channels_in, channels_out, time)]
            if attends:
                layers.append(SpatialTransformer(channels_out, heads, context_channels))
            return Stage(layers)

        last = len(MULTIPLES) - 1
        channels = width
        skipped = [width]
        self.input_blocks = nn.ModuleList([Stage([nn.Conv2d(LATENT_CHANNELS, width, 3, 1, 1)])])
        for level, multiple in enumerate(MULTIPLES):
            for _ in range(_BLOCKS):
                self.input_blocks.append(stage(channels, multiple * width, level < last))
                channels = multiple * width
                skipped.append(channels)
            if level < last:
                self.input_blocks.append(Stage([Halving(channels)]))
                skipped.append(channels)
        self.middle_block = Stage(
            [*stage(channels, channels, True), *stage(channels, channels, False)]
        )
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(last + 1)):
            for _ in range(_BLOCKS + 1):
                made = stage(channels + skipped.pop(), MULTIPLES[level] * width, level < last)
                channels = MULTIPLES[level] * width
                self.output_blocks.append(made)
            if level > 0:
                self.output_blocks[-1].append(Doubling(channels))

    def forward(self, latents: Tensor, context: Tensor) -> list[Tensor]:
        """Return the four features, the largest first.

        The three smaller ones are those before the last residual block of their level.

        :param latents: (B, 4, h, w), sides that are multiples of 8.
        :param context: (B, 1, D).
        """
        time = None if self.time_embed is None else self.time_embed(self._sines().to(latents))
        x = latents
        skipped = []
        for stage in self.input_blocks:
            x = stage(x, time, context)
            skipped.append(x)
        x = self.middle_block(x, time, context)
        features = []
        for index, stage in enumerate(self.output_blocks):
            x = stage(torch.cat((x, skipped.pop()), dim=1), time, context)
            if index in _FEATURE_STAGES:
                features.append(x)
        return features[::-1]

    def fold_time(self) -> None:
        """Put the only time step into the biases, in place; the layers that made it go."""
        if self.time_embed is None:
            return
        first, _, second = self.time_embed
        time = self._sines().to(first.weight.device)
        time = _exactly(second, F.silu(_exactly(first, time)))
        for block in self.modules():
            if isinstance(block, ResidualBlock):
                block.fold_time(time)
        self.time_embed = None

    def _sines(self) -> Tensor:
        """Return (1, width) float64: cosines, then sines, of the time step's phases."""
        half = self.width // 2
        step = -math.log(_LONGEST_PERIOD) / half
        phases = _TIME_STEP * torch.exp(torch.arange(half, dtype=_EXACT) * step)
        return torch.cat((phases.cos(), phases.sin()))[None]
