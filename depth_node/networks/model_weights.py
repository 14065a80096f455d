"""Weights of a model folder: written from a trained network, and back into one."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save_file
from torch import Tensor
from torch import nn

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import ModelFolder
from depth_node.networks import registry
from depth_node.networks.checkpoint import check_entries

_DTYPES = {'f32': torch.float32, 'f16': torch.float16}


def network_of(folder: ModelFolder) -> nn.Module:
    """Rebuild the trained network of a checked model folder.

    :returns: the network in evaluation mode, in float32 whatever the storage.
    :raises ModelError: when the card names an unknown network, variant or option, or the weights
        are not those of the network.
    """
    card = folder.card
    network = registry.spec(card.network).build(card.variant, card.options)
    path = folder.file(WEIGHTS_NAME)
    try:
        stored = load_file(path)
    except (SafetensorError, KeyError, ValueError) as error:
        cause = quoted(' '.join(str(error).split()))
        raise ModelError(str(path), f'no safetensors file ({cause})', 'the weights') from error
    check_entries(stored, network.state_dict(), str(path))
    network.load_state_dict(stored)
    return network.eval()


def rounded(network: nn.Module, storage: str) -> nn.Module:
    """Return a copy of a network on the CPU whose weights went through a storage.

    :param storage: 'f32' or 'f16'.
    :returns: a float32 network in evaluation mode with exactly the weights that will be stored.
    :raises ModelError: for another storage, or a weight that is not finite in it.
    """
    if storage not in _DTYPES:
        raise ModelError('storage of weights', quoted(storage), 'one of ' + ', '.join(_DTYPES))
    copied = copy.deepcopy(network).to('cpu').float().eval()
    state = {key: _stored(key, value, storage).float() if value.is_floating_point() else value
             for key, value in copied.state_dict().items()}  # fmt: skip
    copied.load_state_dict(state)
    return copied


def save_weights(network: nn.Module, path: Path, storage: str) -> None:
    """Write all weights and statistics; integers keep their type.

    :param network: as :func:`rounded` returns it, so that nothing is rounded here.
    :param path: the safetensors file to make.
    :param storage: 'f32' or 'f16'.
    :raises ModelError: for a weight that is not finite.
    """
    state = network.state_dict()
    save_file({key: _stored(key, value, storage) for key, value in state.items()}, path)


def _stored(key: str, value: Tensor, storage: str) -> Tensor:
    """Return a weight in the type in which it is stored."""
    if not value.is_floating_point():
        return value.contiguous().clone()
    stored = value.to(_DTYPES[storage]).contiguous().clone()
    if not torch.isfinite(stored).all():
        raise ModelError(
            f'weight {key}',
            f'a value that is not finite as {storage}',
            'finite values',
            'Look for a diverged training, or store the model as f32.',
        )
    return stored
