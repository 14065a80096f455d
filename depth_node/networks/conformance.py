"""Comparison of our networks with numbers that the authors' own code gave.

A folder of conformance vectors holds ``<name>.json`` (input, statistics, state-dict keys) and
``<name>.npz`` (arrays, thinned by a stride) per network.  Weights and images are drawn by a rule
from the names of the weights, so that neither travels.
"""

from __future__ import annotations

import functools
import json
import math
import zipfile
import zlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Protocol
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import nn

from depth_node.errors import DepthNodeError
from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.files import regular_file
from depth_node.networks import registry
from depth_node.networks.checkpoint import check_entries
from depth_node.networks.initialization import WithoutDrawing
from depth_node.networks.initialization import adopt
from depth_node.networks.specification import Case

_LARGEST_JSON_BYTES = 4 << 20
_LARGEST_NPZ_BYTES = 64 << 20
_LARGEST_SIDE_PX = 4096
_DTYPES = frozenset({'float32', 'int64', 'bool'})
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
class Entry:
    """An entry of a released file."""

    key: str
    """Its name there."""
    shape: tuple[int, ...]
    """Its shape."""
    dtype: str
    """Its type as torch names it, e.g. 'float32'."""
    is_drawn: bool
    """Whether the rule gives it a value; integers and constants are left alone."""
    alias_of: str = ''
    """Earlier name of the same tensor; empty: none."""


@dataclass(frozen=True)
class Vectors:
    """One file of vectors, read and checked."""

    name: str
    seeds: tuple[int, ...]
    """Seeds of the images, in the order of the input's channels."""
    height: int
    width: int
    entries: Mapping[str, tuple[Entry, ...]]
    """Released file -> its entries in order."""
    arrays: Mapping[str, NDArray[np.float32]]
    strides: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    deviations: Mapping[str, float]


class Numbers(Protocol):
    """A source of random numbers, as numpy.random.Generator is one."""

    def random(self, size: tuple[int, ...]) -> NDArray[Any]:
        """Return numbers that are uniform in [0, 1)."""

    def standard_normal(self, size: tuple[int, ...]) -> NDArray[Any]:
        """Return numbers of mean 0 and deviation 1."""


def numbers_of(key: str) -> Numbers:
    """Return the generator of the rule: its seed is the CRC-32 of the name."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))


class PooledNumbers:
    """A source that is a hundred times as fast: cut out of a pool of a prime length.

    A billion weights are there in seconds; which numbers a weight gets still depends on its name.

    :param key: name of the weight.
    """

    _NORMAL_LENGTH = 4_194_301
    _UNIFORM_LENGTH = 65_521

    def __init__(self, key: str) -> None:
        self._start = zlib.crc32(key.encode())

    def random(self, size: tuple[int, ...]) -> NDArray[Any]:
        """Return numbers that are uniform in [0, 1)."""
        return self._cut(_pools(self._NORMAL_LENGTH, self._UNIFORM_LENGTH)[1], size)

    def standard_normal(self, size: tuple[int, ...]) -> NDArray[Any]:
        """Return numbers of mean 0 and deviation 1."""
        return self._cut(_pools(self._NORMAL_LENGTH, self._UNIFORM_LENGTH)[0], size)

    def _cut(self, pool: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[Any]:
        start, wanted = self._start % pool.size, math.prod(size)
        if start + wanted <= pool.size:
            return pool[start : start + wanted].reshape(size)
        return np.resize(np.concatenate((pool[start:], pool[:start])), size)


@functools.cache
def _pools(normal: int, uniform: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    g = np.random.Generator(np.random.PCG64(11))
    return g.standard_normal(normal, np.float32), g.random(uniform, np.float32)


def draw(
    key: str, shape: tuple[int, ...], numbers: Callable[[str], Numbers] = numbers_of
) -> NDArray[np.float32]:
    """Return the value that the rule gives to a weight.

    :param key: name inside its released file, e.g. 'stages.0.0.gamma'.
    :param shape: shape of the weight.
    :param numbers: name -> where its random numbers come from.
    :returns: float32 array of that shape; scales near 1, biases near 0, statistics positive.
    """
    g = numbers(key)
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


def fill(network: nn.Module, numbers: Callable[[str], Numbers] = numbers_of) -> None:
    """Give every weight of a network its value by the rule, in place, from its own names.

    :param numbers: as for :func:`draw`.
    """
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    with torch.no_grad():
        for key, value in network.state_dict().items():
            drawn = key in parameters or key.endswith(('running_mean', 'running_var'))
            if value.is_floating_point() and drawn:
                value.copy_(torch.from_numpy(draw(key, tuple(value.shape), numbers)))


def image(seeds: Sequence[int], height: int, width: int) -> NDArray[np.float32]:
    """Return the images of the rule side by side in the channels.

    :returns: (1, 3 * len(seeds), height, width) float32 RGB in [0, 1).
    """
    shape = (1, 3, height, width)
    drawn = [np.random.Generator(np.random.PCG64(seed)).random(shape) for seed in seeds]
    return np.concatenate(drawn, axis=1).astype(np.float32)


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
    with WithoutDrawing():
        case = claimed(name)
    if case is None:
        return Outcome(name, 'not implemented', reason='no network of ours claims this name')
    vectors = read(folder, name)
    try:
        _adopt_drawn(case, vectors)
    except ModelError as error:
        return Outcome(name, 'fail', tolerance=case.tolerance, reason=str(error))
    return _compare(case, vectors)


def claimed(name: str) -> Case | None:
    """Return the network that a file of vectors is about; None where no network claims it."""
    for known in registry.names():
        case = registry.spec(known).conformance_case(name)
        if case is not None:
            return case
    return None


def _adopt_drawn(case: Case, vectors: Vectors) -> None:
    """Give the network the weights of the rule, by the way that a released checkpoint takes."""
    files = {part: drawn_entries(entries) for part, entries in vectors.entries.items()}
    given = case.translate(files)
    check_entries(given, case.network.state_dict(), f'keys of {vectors.name}')
    adopt(case.network, cast('dict[str, Tensor]', given))


def drawn_entries(entries: Sequence[Entry]) -> dict[str, object]:
    """Return a released file's entries with the values of the rule.

    Integers and constants, which the rule leaves alone, are zeros of their type.  Where two names
    stand for one tensor both get the value that was drawn last.
    """
    drawn: dict[str, object] = {}
    for entry in entries:
        if entry.is_drawn:
            drawn[entry.key] = torch.from_numpy(draw(entry.key, entry.shape))
        else:
            drawn[entry.key] = torch.zeros(entry.shape, dtype=getattr(torch, entry.dtype))
    for entry in entries:
        if entry.alias_of:
            drawn[entry.alias_of] = drawn[entry.key]
    return drawn


def _compare(case: Case, vectors: Vectors) -> Outcome:
    picture = torch.from_numpy(image(vectors.seeds, vectors.height, vectors.width))
    with torch.no_grad():
        outputs = case.probe(case.network, picture)
    missing = sorted(set(vectors.arrays) - set(outputs))
    if missing:
        reason = f'{missing[0]} is stored and ours has no such output'
        return Outcome(vectors.name, 'fail', tolerance=case.tolerance, reason=reason)
    worst, where = max(_errors(outputs, vectors))
    status = 'pass' if worst <= case.tolerance else 'fail'
    return Outcome(vectors.name, status, worst, where, case.tolerance, len(vectors.arrays))


def _errors(outputs: Mapping[str, Tensor], vectors: Vectors) -> Iterator[tuple[float, str]]:
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
    seeds, height, width = _input(text['input'])
    vectors = Vectors(
        name=name,
        seeds=seeds,
        height=height,
        width=width,
        entries={file: _entries(module) for file, module in text['modules'].items()},
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


def _input(text: Mapping[str, Any]) -> tuple[tuple[int, ...], int, int]:
    """Return the seeds of the images and their height and width."""
    given = text['seed']
    seeds = tuple(int(seed) for seed in given) if isinstance(given, list) else (int(given),)
    batch, channels, height, width = (int(side) for side in text['shape'])
    if (batch, channels) != (1, 3 * len(seeds)) or not 0 < max(height, width) <= _LARGEST_SIDE_PX:
        raise ValueError(f'input shape {text["shape"]} for {len(seeds)} images')
    return seeds, height, width


def _entries(module: Mapping[str, Any]) -> tuple[Entry, ...]:
    aliases = dict(module.get('aliases') or {})
    return tuple(
        Entry(key, tuple(shape), _dtype(dtype), treatment == 'set', aliases.get(key, ''))
        for key, shape, dtype, _, treatment in module['keys']
    )


def _dtype(name: str) -> str:
    if name not in _DTYPES:
        raise ValueError(f'type {name}')
    return name


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
