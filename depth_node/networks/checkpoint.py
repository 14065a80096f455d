"""Reads checkpoints as their authors released them, without ever running what is inside.

A .pth file is a pickle, and a pickle is a program.  Only torch's restricted reader is used, and
only in versions in which it holds (CVE-2025-32434: before 2.6 it could be got round); a file that
needs more than tensors and plain values is refused.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder.integrity import check_regular
from depth_node.networks import registry
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.initialization import WithoutDrawing
from depth_node.networks.initialization import adopt
from depth_node.networks.specification import Identity
from depth_node.networks.specification import NetworkSpec

# a thousand million parameters with both moments of their optimiser
_LARGEST_BYTES = 16 << 30
_OLDEST_TORCH = (2, 6)
_WRAPPERS = ('state_dict', 'model')
_PARALLEL_PREFIX = 'module.'
_SHOWN = 10

# what training scripts and the profiler thop leave among the weights
_LEFTOVERS = re.compile(r'(.*\.)?(total_ops|total_params)|height|width|use_stereo')


@dataclass(frozen=True)
class Released:
    """A network with the weights of its authors."""

    network: DepthNetwork
    """In evaluation mode."""
    identity: Identity
    """Variant and options, as shapes and names tell."""
    entries: Mapping[str, Mapping[str, object]]
    """All entries by part, with what training left among them."""
    training_size: tuple[int, int] | None
    """(height, width) that the files carry, pixels; None where they carry none."""


def read_checkpoint(path: Path) -> dict[str, object]:
    """Read the entries of a released .pth file.

    Wrappers ('state_dict', 'model') are opened and the prefix 'module.' of parallel training is
    taken off; sizes and profiler leftovers stay in, for the network to infer its options from.

    :returns: name -> tensor or plain value.
    :raises ModelError: for what is no file, a Git LFS pointer or a web page, a damaged file, a
        pickle with code, or one that holds no named entries.
    :raises MissingPackage: when torch is older than 2.6.
    """
    _require_safe_torch()
    check_regular(path, _LARGEST_BYTES)
    entries = _unpickled(path)
    for wrapper in _WRAPPERS:
        if isinstance(entries, Mapping) and isinstance(entries.get(wrapper), Mapping):
            entries = entries[wrapper]
    if not isinstance(entries, Mapping) or not all(isinstance(key, str) for key in entries):
        raise ModelError(str(path), f'a {type(entries).__name__}', 'a mapping of names to tensors')
    if entries and all(key.startswith(_PARALLEL_PREFIX) or _leftover(key) for key in entries):
        entries = {key.removeprefix(_PARALLEL_PREFIX): value for key, value in entries.items()}
    return dict(entries)


def load_released(
    spec: NetworkSpec, files: Mapping[str, Path], variant: str | None = None
) -> Released:
    """Build the network that released files belong to and fill it with their weights.

    The weights of the network are those of the files, not copies, where the types agree.

    :param spec: the kind of network.
    :param files: released part (e.g. 'encoder', 'depth') -> file; exactly the parts of ``spec``.
    :param variant: what the user says it is; needed where shapes and names do not tell.
    :raises ModelError: when a file is refused, or its entries are not those of the network.
    """
    if set(files) != set(spec.parts):
        raise ModelError(spec.name, ', '.join(files) or 'no file', ', '.join(spec.parts))
    entries = {part: read_checkpoint(path) for part, path in files.items()}
    who = f'{spec.name} checkpoint {", ".join(str(path) for path in files.values())}'
    identity = spec.infer(entries, variant)
    with WithoutDrawing():
        network = registry.build(spec.name, identity)
    weights = {
        part: {key: value for key, value in given.items() if not _leftover(key)}
        for part, given in entries.items()
    }
    translated = spec.translate(weights, identity)
    check_entries(translated, network.state_dict(), who)
    adopt(network, cast('dict[str, Tensor]', translated))
    return Released(network.eval(), identity, entries, _training_size(entries))


def check_entries(given: Mapping[str, object], wanted: Mapping[str, Tensor], who: str) -> None:
    """Hold the entries of a file to those of a network.

    :param given: entries of the file.
    :param wanted: state of the network.
    :param who: the file, for the text of an error.
    :raises ModelError: when entries are missing, unexpected, of another shape or kind, or not
        finite; the text counts each and lists the first ten.
    """
    common = [key for key in wanted if key in given]
    troubles = {
        'missing': [key for key in wanted if key not in given],
        'unexpected': [key for key in given if key not in wanted],
        'of another shape': [
            f'{key} {_shape(given[key])} instead of {_shape(wanted[key])}'
            for key in common
            if _shape(given[key]) != _shape(wanted[key])
        ],
        'not finite': [key for key in common if not is_finite(given[key])],
    }
    if any(troubles.values()):
        raise ModelError(
            who,
            '; '.join(_listed(what, keys) for what, keys in troubles.items() if keys),
            f'exactly the {len(wanted)} entries of the network',
            'Check that the file is of this network and variant, and whole.',
        )


def is_finite(value: object) -> bool:
    """Tell whether all numbers of a tensor are finite, in one pass and without a copy of it."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
        return True
    # a NaN anywhere becomes the least and the greatest value
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(value.detach()))


def _unpickled(path: Path) -> object:
    """Load a file with torch's restricted reader."""
    try:
        # A mapped file is read when a weight is, and is not in memory twice; the format of before
        # torch 1.6 cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ModelError(
            str(path),
            f'a pickle that holds more than weights ({quoted(" ".join(str(error).split()))})',
            'tensors and plain values only',
            'It was not loaded, because loading it could run a program.',
        ) from error
    # A damaged archive surfaces as almost any exception of the pickle and zip readers.
    except Exception as error:
        raise ModelError(
            str(path),
            f'a file that torch cannot read ({quoted(" ".join(str(error).split()))})',
            'a whole .pth file',
            'Get it anew.',
        ) from error


def _require_safe_torch() -> None:
    """Refuse a torch whose restricted reader is known to leak."""
    version = tuple(int(part) for part in re.findall(r'\d+', torch.__version__)[:2])
    if version < _OLDEST_TORCH:
        raise MissingPackage('torch', 'reading .pth files safely', "pip install 'torch>=2.6'")


def _training_size(entries: Mapping[str, Mapping[str, object]]) -> tuple[int, int] | None:
    """Return the (height, width) that any of the files carries."""
    for part in entries.values():
        height, width = part.get('height'), part.get('width')
        if type(height) is int and type(width) is int:
            return height, width
    return None


def _leftover(key: str) -> bool:
    """Tell whether an entry is no weight but something that training left there."""
    return _LEFTOVERS.fullmatch(key.removeprefix(_PARALLEL_PREFIX)) is not None


def _shape(value: object) -> str:
    """Return the shape of a tensor, or the kind of anything else."""
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _listed(what: str, keys: list[str]) -> str:
    """Count keys and show the first ten."""
    more = ', ...' if len(keys) > _SHOWN else ''
    return f'{len(keys)} {what}: {", ".join(quoted(key) for key in keys[:_SHOWN])}{more}'
