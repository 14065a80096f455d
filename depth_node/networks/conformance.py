"""Comparison of our networks with numbers that the authors' own code gave.

A folder of conformance vectors holds ``<name>.json`` (input, statistics, state-dict keys) and
``<name>.npz`` (arrays, thinned by a stride) per network.  Weights and images are drawn by a rule
from the names of the weights, so that neither travels.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from depth_node.errors import DepthNodeError
from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.files import regular_file
from depth_node.networks import registry
from depth_node.networks.registry import NetworkSpec

_LARGEST_JSON_BYTES = 4 << 20
_LARGEST_NPZ_BYTES = 64 << 20
_LARGEST_SIDE_PX = 4096
_SCALES = frozenset({'temperature', 'logit_scale'})
_TABLES = frozenset(
    {
        'pos_embed',
        'cls_token',
        'dist_token',
        'positional_encodings',
        'relative_position_bias_table',
        'attention_biases',
        'position_embeddings',
        'embeddings',
    }
)


@dataclass(frozen=True)
class Outcome:
    """What became of one file of vectors."""

    name: str
    """Name of the file, without its ending."""
    status: str
    """'pass', 'fail', 'not implemented' or 'no network'."""
    worst_error: float = math.nan
    """Largest difference of all arrays, in standard deviations of the array; NaN: not compared."""
    worst_array: str = ''
    """The array in which it is."""
    tolerance: float = math.nan
    """Largest difference that passes."""
    arrays: int = 0
    """Arrays compared."""
    reason: str = ''
    """Why it failed, where no number says it."""


@dataclass(frozen=True)
class Vectors:
    """One file of vectors, read and checked."""

    name: str
    seed: int
    shape: tuple[int, int, int, int]
    keys: Mapping[str, tuple[tuple[str, tuple[int, ...]], ...]]
    """Released file -> its keys and shapes in order."""
    arrays: Mapping[str, NDArray[np.float32]]
    strides: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    deviations: Mapping[str, float]


def draw(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the value that the rule gives to a weight.

    :param key: name inside its released file, e.g. 'stages.0.0.gamma'.
    :param shape: shape of the weight.
    :returns: float32 array of that shape; scales near 1, biases near 0, statistics positive.
    """
    g = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    last = key.rsplit('.', 1)[-1]
    flat = len(shape) == 1
    if last == 'running_var':
        value = 0.5 + g.random(shape)
    elif last == 'running_mean':
        value = 0.1 * g.standard_normal(shape)
    elif last in _SCALES or 'gamma' in last or (flat and last == 'weight'):
        gain = 0.4 if 'fuse_layers' in key or 'branches' in key else 1.0
        value = gain * (1 + 0.1 * g.standard_normal(shape))
    elif flat and 'bias' in last:
        value = 0.05 * g.standard_normal(shape)
    elif last in _TABLES:
        value = 0.5 * g.standard_normal(shape)
    else:
        value = g.standard_normal(shape) * math.sqrt(1 / _fan(shape))
    return np.asarray(value, dtype=np.float32)


def _fan(shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:]) if len(shape) > 1 else (shape[-1] if shape else 1)


def fill(network: nn.Module, spec: NetworkSpec) -> None:
    """Give every weight of a network its value by the rule, in place."""
    for attribute in spec.modules.values():
        _fill_module(getattr(network, attribute))


def _fill_module(module: nn.Module) -> None:
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    with torch.no_grad():
        for key, value in module.state_dict().items():
            drawn = key in parameters or key.endswith(('running_mean', 'running_var'))
            if value.is_floating_point() and drawn:
                value.copy_(torch.from_numpy(draw(key, tuple(value.shape))))


def image(seed: int, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Return the image of the rule: (1, 3, H, W) float32 RGB in [0, 1)."""
    return np.random.Generator(np.random.PCG64(seed)).random(shape).astype(np.float32)


def find(folder: Path) -> list[str]:
    """Return the names of all files of vectors in a folder, sorted.

    :raises DepthNodeError: when it is no folder.
    """
    if not folder.is_dir():
        raise DepthNodeError('conformance', f'{folder}', 'a folder of .json and .npz files')
    return sorted(path.stem for path in folder.glob('*.json'))


def check(folder: Path, name: str) -> Outcome:
    """Build the network of one file of vectors and compare all that is stored.

    :raises ModelError: when the file is damaged.
    """
    description = _read_json(folder / f'{name}.json')
    if 'modules' not in description:
        return Outcome(name, 'no network', reason='holds no network')
    claimed = _claimed_by(name)
    if claimed is None:
        return Outcome(name, 'not implemented', reason='no network of ours claims this name')
    spec, variant, options = claimed
    vectors = read(folder, name)
    network = spec.build(variant, options).eval()
    difference = _key_difference(network, spec, vectors)
    if difference:
        return Outcome(name, 'fail', tolerance=spec.tolerance, reason=difference)
    fill(network, spec)
    return _compare(network, spec, vectors)


def _claimed_by(name: str) -> tuple[NetworkSpec, str, dict[str, object]] | None:
    for known in registry.names():
        spec = registry.spec(known)
        case = spec.conformance_case(name)
        if case is not None:
            return spec, *case
    return None


def _key_difference(network: nn.Module, spec: NetworkSpec, vectors: Vectors) -> str:
    """Say where our keys or shapes leave the stored ones; empty where they agree in order."""
    for file, attribute in spec.modules.items():
        state = getattr(network, attribute).state_dict()
        ours = [(key, tuple(value.shape)) for key, value in state.items()]
        theirs = list(vectors.keys.get(file, ()))
        if ours != theirs:
            return f'{file}: {_first_difference(ours, theirs)}'
    extra = sorted(set(vectors.keys) - set(spec.modules))
    return f'{extra[0]}: not a part of ours' if extra else ''


def _first_difference(ours: list[Any], theirs: list[Any]) -> str:
    for index, (mine, stored) in enumerate(zip(ours, theirs, strict=False)):
        if mine != stored:
            return f'key {index} is {mine}, stored is {stored}'
    return f'{len(ours)} keys, stored are {len(theirs)}'


def _compare(network: nn.Module, spec: NetworkSpec, vectors: Vectors) -> Outcome:
    with torch.no_grad():
        outputs = spec.probe(network, torch.from_numpy(image(vectors.seed, vectors.shape)))
    missing = sorted(set(vectors.arrays) - set(outputs))
    if missing:
        reason = f'{missing[0]} is stored and ours has no such output'
        return Outcome(vectors.name, 'fail', tolerance=spec.tolerance, reason=reason)
    worst, where = max(_errors(outputs, vectors))
    status = 'pass' if worst <= spec.tolerance else 'fail'
    return Outcome(vectors.name, status, worst, where, spec.tolerance, len(vectors.arrays))


def _errors(outputs: Mapping[str, torch.Tensor], vectors: Vectors) -> Iterator[tuple[float, str]]:
    for name, stored in vectors.arrays.items():
        ours = outputs[name].numpy()
        if ours.shape != vectors.shapes[name]:
            yield math.inf, name
            continue
        thinned = ours.reshape(-1)[:: vectors.strides[name]]
        error = float(np.abs(thinned - stored.reshape(-1)).max()) / vectors.deviations[name]
        yield (error if math.isfinite(error) else math.inf), name


def read(folder: Path, name: str) -> Vectors:
    """Read one file of vectors.

    :raises ModelError: when an entry is missing, of the wrong type or contradicts another.
    """
    try:
        return _parse(name, _read_json(folder / f'{name}.json'), _read_npz(folder / f'{name}.npz'))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / name, f'{type(error).__name__} {quoted(str(error))}') from error


def _parse(name: str, text: dict[str, Any], arrays: dict[str, NDArray[np.float32]]) -> Vectors:
    outputs = text['outputs']
    vectors = Vectors(
        name=name,
        seed=int(text['input']['seed']),
        shape=_image_shape(text['input']['shape']),
        keys={
            file: tuple((key, tuple(shape)) for key, shape, *_ in module['keys'])
            for file, module in text['modules'].items()
        },
        arrays=arrays,
        strides={key: int(entry['stride']) for key, entry in outputs.items()},
        shapes={key: tuple(entry['shape']) for key, entry in outputs.items()},
        deviations={key: float(entry['std']) for key, entry in outputs.items()},
    )
    if set(arrays) != set(outputs) or not arrays:
        raise ValueError('arrays and their descriptions differ')
    for key, array in arrays.items():
        expected = -(-math.prod(vectors.shapes[key]) // vectors.strides[key])
        if array.size != expected or not vectors.deviations[key] > 0:
            raise ValueError(f'{key} has {array.size} numbers, {expected} were announced')
    return vectors


def _image_shape(shape: list[int]) -> tuple[int, int, int, int]:
    batch, channels, height, width = (int(side) for side in shape)
    if (batch, channels) != (1, 3) or not 0 < max(height, width) <= _LARGEST_SIDE_PX:
        raise ValueError(f'input shape {shape}')
    return batch, channels, height, width


def _read_json(path: Path) -> dict[str, Any]:
    regular_file(path, 'conformance', _LARGEST_JSON_BYTES)
    try:
        text = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise _damaged(path, quoted(str(error))) from error
    if not isinstance(text, dict):
        raise _damaged(path, f'a {type(text).__name__}')
    return text


def _read_npz(path: Path) -> dict[str, NDArray[np.float32]]:
    regular_file(path, 'conformance', _LARGEST_NPZ_BYTES)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: np.asarray(stored[key], dtype=np.float32) for key in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(path, quoted(str(error))) from error


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(
        f'conformance vectors {path}', what, 'a file of the documented format', 'Fetch it again.'
    )
