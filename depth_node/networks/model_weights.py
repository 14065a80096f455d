"""Weights of a model folder: written from a trained network, and back into one."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch import nn

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import ModelFolder
from depth_node.networks import registry
from depth_node.networks.checkpoint import check_entries
from depth_node.networks.checkpoint import is_finite
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.depth_network import sharing_copy
from depth_node.networks.initialization import WithoutDrawing
from depth_node.networks.initialization import adopt
from depth_node.networks.specification import Identity
from depth_node.networks.tensor_files import LazyArray
from depth_node.networks.tensor_files import write_tensors

_DTYPES = {'f32': torch.float32, 'f16': torch.float16}


def network_of(folder: ModelFolder) -> DepthNetwork:
    """Rebuild the trained network of a checked model folder.

    :returns: the network in evaluation mode, in float32 whatever the storage.
    :raises ModelError: when the card names an unknown network, variant or option, or the weights
        are not those of the network.
    """
    card = folder.card
    with WithoutDrawing():
        network = registry.build(card.network, Identity(card.variant, card.options))
    path = folder.file(WEIGHTS_NAME)
    try:
        stored = load_file(path)
    except (SafetensorError, KeyError, ValueError) as error:
        cause = quoted(' '.join(str(error).split()))
        raise ModelError(str(path), f'no safetensors file ({cause})', 'the weights') from error
    check_entries(stored, network.state_dict(), str(path))
    adopt(network, stored)
    return network.eval()


def rounded(network: DepthNetwork, storage: str) -> DepthNetwork:
    """Return a network on the CPU whose weights went through a storage.

    The network that is given stays as it is.

    :param storage: 'f32', which copies no weight that is float32 on the CPU already, or 'f16'.
    :returns: a float32 network in evaluation mode with exactly the weights that will be stored;
        no gradients.
    :raises ModelError: for another storage, or a weight that is not finite in it.
    """
    if storage not in _DTYPES:
        raise ModelError('storage of weights', quoted(storage), 'one of ' + ', '.join(_DTYPES))
    shared = sharing_copy(network).to('cpu').float().eval()
    state = shared.state_dict()
    for key, value in state.items():
        _check_finite(key, value, storage)
    if storage != 'f32':
        adopt(shared, {key: _through(value, storage) for key, value in state.items()})
    return shared.requires_grad_(False)


def save_weights(network: nn.Module, path: Path, storage: str) -> None:
    """Write all weights and statistics; integers keep their type.

    :param network: as :func:`rounded` returns it, so that nothing is rounded here.
    :param path: the safetensors file to make.
    :param storage: 'f32' or 'f16'.
    """
    write_tensors(
        path, {key: _stored(value, storage) for key, value in network.state_dict().items()}
    )


def _through(value: Tensor, storage: str) -> Tensor:
    """Return a float32 tensor as it comes back from a storage; others as they are."""
    return value.to(_DTYPES[storage]).float() if value.is_floating_point() else value


def _stored(value: Tensor, storage: str) -> LazyArray:
    """Return a weight in the type in which it is stored."""
    dtype = _DTYPES[storage] if value.is_floating_point() else value.dtype
    return LazyArray(
        str(dtype).removeprefix('torch.'),
        tuple(value.shape),
        lambda: value.detach().to(dtype).contiguous().numpy(),
    )


def _check_finite(key: str, value: Tensor, storage: str) -> None:
    if not is_finite(value.to(_DTYPES[storage]) if value.is_floating_point() else value):
        raise ModelError(
            f'weight {key}',
            f'a value that is not finite as {storage}',
            'finite values',
            'Look for a diverged training, or store the model as f32.',
        )
