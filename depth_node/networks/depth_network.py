"""What all networks of the registry have in common: image in, outputs out, one form to serve."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch import nn

from depth_node.errors import ModelError
from depth_node.networks.rewrites import Choices
from depth_node.networks.specification import Traits


class DepthNetwork(nn.Module):
    """A network from RGB in [0, 1] to disparity, metric depth or relative inverse depth.

    A subclass implements :meth:`from_normalized`; one with a faster form for inference overrides
    :meth:`linearized`.

    :param name: name in the registry, for the text of errors.
    :param traits: normalisation and sizes of the variant.
    """

    def __init__(self, name: str, traits: Traits) -> None:
        super().__init__()
        self.name = name
        self.traits = traits

    def normalized(self, image: Tensor) -> Tensor:
        """Return (B, 3, H, W) RGB in [0, 1] as the layers expect it."""
        if not any(self.traits.mean) and set(self.traits.std) == {1.0}:
            return image
        mean = image.new_tensor(self.traits.mean)[:, None, None]
        std = image.new_tensor(self.traits.std)[:, None, None]
        return (image - mean) / std

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return all outputs, the first of them at full size, (B, 1, H, W).

        :param image: (B, 3, H, W) RGB in [0, 1].
        :raises ModelError: for a size that the network cannot take.
        """
        self.check_size(image.shape[-2], image.shape[-1])
        return self.from_normalized(self.normalized(image))

    def from_normalized(self, x: Tensor) -> list[Tensor]:
        """Return what :meth:`forward` returns, of an image that is normalised already."""
        raise NotImplementedError

    def linearized(self, height: int, width: int, choices: Choices) -> nn.Module:
        """Return the first output as a plain module; see :func:`.rewrites.linearized`."""
        self.check_size(height, width)
        return FirstOutput(self)

    def check_size(self, height: int, width: int) -> None:
        """Refuse an input size that the network cannot take.

        :raises ModelError: naming the sizes that it takes.
        """
        fixed, multiple = self.traits.fixed_size, self.traits.size_multiple
        if fixed is not None:
            fits, expected = (height, width) == fixed, f'{fixed[1]}x{fixed[0]} pixels only'
        else:
            sides = (height, width)
            fits = min(sides) >= multiple and not any(side % multiple for side in sides)
            expected = f'sides that are multiples of {multiple}'
        if not fits:
            raise ModelError(self.name, f'an input of {width}x{height} pixels', expected)


class FirstOutput(nn.Module):
    """Normalised image to the full-size output: a network as it was trained, weights shared."""

    def __init__(self, network: DepthNetwork) -> None:
        super().__init__()
        self.network = sharing_copy(network)

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 3, H, W), normalised, to (1, 1, H, W)."""
        return self.network.from_normalized(image)[0]


def sharing_copy(network: DepthNetwork) -> DepthNetwork:
    """Return a copy of the module tree whose tensors are those of ``network``, not copies.

    Modules can then be replaced and frozen without a second set of weights in memory.
    """
    memo: dict[int, object] = {
        id(value): nn.Parameter(value.detach(), requires_grad=False)
        for value in network.parameters()
    }
    memo.update({id(value): value for value in network.buffers()})
    with torch.no_grad():
        return copy.deepcopy(network, memo)
