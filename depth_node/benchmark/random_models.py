"""Networks of the registry with random weights that hide nothing, as model folders."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder import ModelFolder
from depth_node.networks import conformance
from depth_node.networks import registry
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.importing import card_of
from depth_node.networks.initialization import WithoutDrawing
from depth_node.networks.make_model import make_model
from depth_node.networks.specification import Identity

_ABOVE_RELU = 10.0


def random_network(name: str, identity: Identity) -> DepthNetwork:
    """Build a network whose every layer matters: fresh layer scales would hide all errors."""
    with WithoutDrawing():
        network = registry.build(name, identity).eval()
    conformance.fill(network, conformance.PooledNumbers)
    if registry.spec(name).variants[identity.variant].output_kind == 'relative':
        _lift(network)
    return network


def folder_of(
    network: DepthNetwork, name: str, identity: Identity, size: tuple[int, int], out: Path
) -> ModelFolder:
    """Make a model folder by the same code that imports released checkpoints.

    :param size: (height, width) of the input, pixels.
    :raises DepthNodeError: when the network cannot be exported or no engine agrees with it.
    """
    card = card_of(registry.spec(name), identity, {}, out.name, size)
    return make_model(network, card, out, [size])


def random_model(name: str, variant: str, size: tuple[int, int] | None, out: Path) -> ModelFolder:
    """Build a variant and make its model folder.

    :param size: (height, width); None: that of the first published checkpoint of the variant.
    :raises DepthNodeError: for an unknown network, variant or size, or as :func:`folder_of`.
    """
    spec = registry.spec(name)
    known = [item for item in spec.releases if item.identity.variant == variant]
    if variant not in spec.variants:
        raise ModelError(f'{name} variant', quoted(variant), f'one of {", ".join(spec.variants)}')
    if size is None and not known:
        raise ModelError(f'{name} {variant}', 'no size', 'a size', 'Give --sizes.')
    wanted = size or (known[0].height, known[0].width)
    fitting = [item.identity for item in known if (item.height, item.width) == wanted]
    identity = fitting[0] if fitting else Identity(variant)
    return folder_of(random_network(name, identity), name, identity, wanted, out)


def _lift(network: nn.Module) -> None:
    """Raise the output above the last ReLU, which would cut random numbers to a flat zero."""
    last = [module for module in network.modules() if getattr(module, 'out_channels', 0) == 1][-1]
    with torch.no_grad():
        last.bias += _ABOVE_RELU
