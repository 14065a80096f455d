"""The encoder of Stable Diffusion's autoencoder: an image to its latents at 1/8 of the size.

Paper: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022.
Names of the weights are those of the first stage of Stable Diffusion 1.5.  The decoder is not
here, nor is anything that only sampling needs.
"""

from __future__ import annotations

from torch import Tensor
from torch import nn
from torch.nn import functional as F

LATENT_CHANNELS = 4
LATENT_SCALE = 0.18215
"""Factor on the latents that gives them about unit variance; the diffusion network expects it."""

_MULTIPLES = (1, 2, 4, 4)
_BLOCKS = 2
_GROUPS = 32
_EPS = 1e-6


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels, eps=_EPS)


class ResidualBlock(nn.Module):
    """Twice normalisation, SiLU and 3x3 convolution, added to the input."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = _norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.nin_shortcut: nn.Module = nn.Conv2d(channels_in, channels_out, 1)
        else:
            self.nin_shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        y = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class PixelAttention(nn.Module):
    """Softmax attention between all pixels, a single head, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (B, C, H, W)."""
        normed = self.norm(x)
        query, key, value = (
            part(normed).flatten(2).transpose(1, 2)[:, None] for part in (self.q, self.k, self.v)
        )  # each (B, 1, H W, C)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(mixed[:, 0].transpose(1, 2).reshape(x.shape))


class Halving(nn.Module):
    """3x3 convolution of stride 2 with zeros at the bottom and right only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W), even sides, to half the size."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """The residual blocks of one size, and the step to the next where there is one."""

    def __init__(self, channels_in: int, channels_out: int, *, is_last: bool) -> None:
        super().__init__()
        inputs = (channels_in, *[channels_out] * (_BLOCKS - 1))
        self.block = nn.ModuleList(ResidualBlock(width, channels_out) for width in inputs)
        self.downsample = nn.Identity() if is_last else Halving(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / 2, W / 2), or to the same size at the last."""
        for block in self.block:
            x = block(x)
        return self.downsample(x)


class Middle(nn.Module):
    """Residual block, attention, residual block at 1/8 of the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = PixelAttention(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Pyramid(nn.Module):
    """RGB in [-1, 1] to mean and log-variance of the latents, before the last 1x1 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        channels = [width, *(width * multiple for multiple in _MULTIPLES)]
        last = len(_MULTIPLES) - 1
        self.down = nn.ModuleList(
            Level(channels[i], channels[i + 1], is_last=i == last) for i in range(last + 1)
        )
        self.mid = Middle(channels[-1])
        self.norm_out = _norm(channels[-1])
        self.conv_out = nn.Conv2d(channels[-1], 2 * LATENT_CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, 8, H / 8, W / 8)."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class LatentEncoder(nn.Module):
    """RGB in [-1, 1] to the mean of its latents, in the scale of the diffusion network.

    The log-variance, which only sampling needs, is computed by the same weights and left alone.

    :param width: channels at full size, a multiple of 32; 128 as published.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = Pyramid(width)
        self.quant_conv = nn.Conv2d(2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W), sides that are multiples of 8, to (B, 4, H / 8, W / 8)."""
        return self.quant_conv(self.encoder(x))[:, :LATENT_CHANNELS] * LATENT_SCALE
