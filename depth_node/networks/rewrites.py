"""Exact rewrites that make a trained network faster to run; none changes the function.

Each takes trained layers and returns new ones.  The arithmetic on weights is done in float64, so
that what is left is the rounding of the network itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from typing import cast

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.errors import ModelError
from depth_node.networks.folding import EXACT
from depth_node.networks.folding import convolution
from depth_node.networks.folding import folded


@dataclass(frozen=True)
class Choices:
    """Rewrites that CPU engines gain from; without them there are fewer operations to launch."""

    split_concat: bool = True
    """Add convolutions of the parts, instead of convolving their concatenation."""
    resize_by_convolution: bool = True
    """Double the single-channel logits by a convolution and a depth-to-space."""
    gram_attention: bool = True
    """Let attention between channels see the pixels through their Gram matrix alone."""


class Linearizable(Protocol):
    """A network that knows how to make a plain module of itself."""

    def linearized(self, height: int, width: int, choices: Choices) -> nn.Module:
        """Return a module for inference at one size."""


def linearized(
    network: nn.Module,
    height: int,
    width: int,
    *,
    split_concat: bool = True,
    resize_by_convolution: bool = True,
    gram_attention: bool = True,
) -> nn.Module:
    """Make a plain module for inference at batch 1 out of a trained network.

    Batch normalisation, layer scale and the affine part of layer normalisation vanish into the
    neighbouring weights; linear layers become 1x1 convolutions; what depends on the size alone
    becomes a constant; heads that nobody reads are left out.

    :param network: trained network from the registry; it is not changed.
    :param height: rows of the input, pixels.
    :param width: columns of the input, pixels.
    :param split_concat: see :class:`Choices`.
    :param resize_by_convolution: see :class:`Choices`.
    :param gram_attention: see :class:`Choices`.
    :returns: module from the image (1, 3, H, W), already normalised with the mean and std of the
        network's variant, to its full-size output (1, 1, H, W); no gradients.  A network that has
        no faster form is run as it was trained, and shares its weights, but for the convolutions
        that take in a batch normalisation; see :func:`.folding.folded`.
    :raises ModelError: for a size that the network cannot take, or a network without rewrites.
    """
    if not hasattr(network, 'linearized'):
        raise ModelError('rewrites', f'a {type(network).__name__}', 'a network of the registry')
    choices = Choices(split_concat, resize_by_convolution, gram_attention)
    with torch.no_grad():
        plain = cast(Linearizable, network).linearized(height, width, choices)
        return folded(plain.eval()).requires_grad_(False)


def pointwise(
    linear: nn.Linear, *, norm: nn.LayerNorm | None = None, gain: Tensor | None = None
) -> nn.Conv2d:
    """Return the 1x1 convolution that does what a linear layer does, without any permutation.

    :param norm: layer normalisation before the layer, whose affine part (g, h) is taken in:
        W' = W diag(g), b' = b + W h; what stays outside is the normalisation alone.
    :param gain: (C_out,) factors on the result, such as a layer scale.
    """
    weight, bias = linear.weight.to(EXACT), linear.bias.to(EXACT)
    if norm is not None:
        bias = bias + weight @ norm.bias.to(EXACT)
        weight = weight * norm.weight.to(EXACT)
    if gain is not None:
        weight, bias = weight * gain.to(EXACT)[:, None], bias * gain.to(EXACT)
    like = nn.Conv2d(linear.in_features, linear.out_features, 1).to(linear.weight)
    return convolution(like, weight[:, :, None, None], bias)


def over_parts(
    conv: nn.Conv2d, channels: Sequence[int], *, split: bool, reflect: bool = False
) -> nn.Module:
    """Return a module that convolves several inputs as if they were concatenated.

    :param channels: channels of each input, in order.
    :param split: convolve each with its share of the weights and add the results, which saves the
        copy and the odd channel count of a concatenation.
    :param reflect: mirror the border by one pixel first.
    """
    if not split:
        return JoinedConv(_copied(conv), reflect)
    shares = conv.weight.to(EXACT).split(list(channels), dim=1)
    bias = None if conv.bias is None else conv.bias.to(EXACT)
    biases = [bias, *[None] * (len(channels) - 1)]
    parts = [convolution(conv, share, b) for share, b in zip(shares, biases, strict=True)]
    return SplitConv(parts, reflect)


def _copied(conv: nn.Conv2d) -> nn.Conv2d:
    return convolution(conv, conv.weight, conv.bias)


class JoinedConv(nn.Module):
    """Convolution of the concatenation of its inputs."""

    def __init__(self, conv: nn.Conv2d, reflect: bool) -> None:
        super().__init__()
        self.conv = conv
        self.reflect = reflect

    def forward(self, *parts: Tensor) -> Tensor:
        """Map parts (1, C_i, H, W) to (1, C_out, h, w)."""
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return self.conv(_mirrored(joined) if self.reflect else joined)


class SplitConv(nn.Module):
    """Sum of one convolution per input."""

    def __init__(self, convs: Sequence[nn.Conv2d], reflect: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.reflect = reflect

    def forward(self, *parts: Tensor) -> Tensor:
        """Map parts (1, C_i, H, W) to (1, C_out, h, w)."""
        padded = [_mirrored(part) for part in parts] if self.reflect else parts
        total = self.convs[0](padded[0])
        for conv, part in zip(self.convs[1:], padded[1:], strict=True):
            total = total + conv(part)
        return total


def gelu_in_place(x: Tensor) -> Tensor:
    """Overwrite ``x`` with its exact GELU and return it.

    A second tensor of the size of an expansion costs as many page faults as arithmetic.
    """
    return torch.ops.aten.gelu_(x)


def _mirrored(x: Tensor) -> Tensor:
    return F.pad(x, (1, 1, 1, 1), mode='reflect')


class DoublingConv(nn.Module):
    """Bilinear doubling of one channel as a convolution and a depth-to-space.

    Along an axis the even results are (1/4, 3/4, 0) and the odd ones (0, 3/4, 1/4) times the
    neighbours, edges repeated; the plane has the products of both.
    """

    def __init__(self) -> None:
        super().__init__()
        axis = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])
        kernels = torch.einsum('ay,bx->abyx', axis, axis).reshape(4, 1, 3, 3)
        self.register_buffer('kernels', kernels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, 1, H, W) to (1, 1, 2 H, 2 W)."""
        padded = F.pad(x, (1, 1, 1, 1), mode='replicate')
        return F.pixel_shuffle(F.conv2d(padded, self.kernels), 2)
