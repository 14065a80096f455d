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
from depth_node.networks.half import KeepsFloat32


@dataclass(frozen=True)
class Choices:
    """Rewrites of which it depends on the engine whether they gain; see the constants below."""

    split_concat: bool = True
    """Add convolutions of the parts, instead of convolving their concatenation."""
    resize_by_convolution: bool = True
    """Double the single-channel logits by a convolution and a depth-to-space."""
    gram_attention: bool = True
    """Let attention between channels see the pixels through their Gram matrix alone."""


CPU_GRAPH = Choices()
"""For engines that read the float32 graph on a CPU: in OpenVINO Lite-Mono base takes 22 percent
longer without the first and 9 without the third; the second shows in small alone (medians of
benchmarks/results/rewriting.json, 640x192)."""
EAGER_CPU = Choices(split_concat=False)
"""For PyTorch on a CPU: by best times 2 to 5 percent faster without the first, and slower without
either other."""
GPU = Choices(split_concat=False, resize_by_convolution=False, gram_attention=False)
"""For engines on a GPU, where at batch 1 every operation costs a launch: the fewest operations, as
counted (190 instead of 227, and 310 before the rewrites), not timed, because no GPU was at hand.
benchmark/rewriting.py measures all three."""


class Linearizable(Protocol):
    """A network that knows how to make a plain module of itself."""

    def linearized(self, height: int, width: int, choices: Choices) -> nn.Module:
        """Return a module for inference at one size."""


def linearized(
    network: nn.Module, height: int, width: int, choices: Choices = CPU_GRAPH
) -> nn.Module:
    """Make a plain module for inference at batch 1 out of a trained network.

    Batch normalisation, layer scale and the affine part of layer normalisation vanish into the
    neighbouring weights; linear layers become 1x1 convolutions; what depends on the size alone
    becomes a constant; heads that nobody reads are left out.

    :param network: trained network from the registry; it is not changed.
    :param height: rows of the input, pixels.
    :param width: columns of the input, pixels.
    :param choices: those of the engine that is to run it.
    :returns: module from the image (1, 3, H, W), already normalised with the mean and std of the
        network's variant, to its full-size output (1, 1, H, W); no gradients.  A network that has
        no faster form is run as it was trained, and shares its weights, but for the convolutions
        that take in a batch normalisation; see :func:`.folding.folded`.
    :raises ModelError: for a size that the network cannot take, or a network without rewrites.
    """
    if not hasattr(network, 'linearized'):
        raise ModelError('rewrites', f'a {type(network).__name__}', 'a network of the registry')
    with torch.no_grad():
        plain = cast(Linearizable, network).linearized(height, width, choices)
        return folded(plain.eval()).requires_grad_(False)


def pointwise(
    linear: nn.Linear, *, norm: nn.LayerNorm | None = None, gain: Tensor | None = None
) -> nn.Conv2d:
    """Return the 1x1 convolution that does what a linear layer and its neighbours do.

    :param norm: layer normalisation before the layer, see :func:`with_affine`.
    :param gain: (C_out,) factors on the result, see :func:`with_gain`.
    """
    made = linear if norm is None else with_affine(linear, norm)
    return as_convolution(made if gain is None else with_gain(made, gain), linear.weight.dtype)


def as_convolution(linear: nn.Linear, dtype: torch.dtype) -> nn.Conv2d:
    """Return the 1x1 convolution that is a linear layer on (B, C, H, W), without permutations."""
    like = nn.Conv2d(linear.in_features, linear.out_features, 1)
    like.to(linear.weight.device, dtype)
    return convolution(like, linear.weight[:, :, None, None], linear.bias)


def with_affine(linear: nn.Linear, norm: nn.LayerNorm) -> nn.Linear:
    """Return a linear layer in float64 that takes in the affine part of a normalisation before it.

    With the factors g and summands h of the normalisation, W' = W diag(g) and b' = b + W h; what
    stays outside is the normalisation alone.
    """
    weight, bias = linear.weight.to(EXACT), linear.bias.to(EXACT)
    return _linear(weight * norm.weight.to(EXACT), bias + weight @ norm.bias.to(EXACT))


def with_gain(linear: nn.Linear, gain: Tensor) -> nn.Linear:
    """Return a linear layer in float64 that takes in factors on its result, (C_out,).

    Such as a layer scale.
    """
    factors = gain.to(EXACT)
    return _linear(linear.weight.to(EXACT) * factors[:, None], linear.bias.to(EXACT) * factors)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    rows, columns = weight.shape
    made = nn.utils.skip_init(nn.Linear, columns, rows, device=weight.device, dtype=EXACT)
    made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias)
    return made


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


class DoublingConv(KeepsFloat32):
    """Bilinear doubling of one channel as a convolution and a depth-to-space.

    Along an axis the even results are (1/4, 3/4, 0) and the odd ones (0, 3/4, 1/4) times the
    neighbours, edges repeated; the plane has the products of both.
    """

    returns_float32 = True

    def __init__(self) -> None:
        super().__init__()
        axis = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])
        kernels = torch.einsum('ay,bx->abyx', axis, axis).reshape(4, 1, 3, 3)
        self.register_buffer('kernels', kernels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, 1, H, W) to (1, 1, 2 H, 2 W)."""
        padded = F.pad(x, (1, 1, 1, 1), mode='replicate')
        return F.pixel_shuffle(F.conv2d(padded, self.kernels), 2)
