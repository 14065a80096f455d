"""The networks by name, found without importing torch until one of them is wanted.

Names are known at once; the file of a network, which needs torch, is imported when its
specification is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.errors import quoted

if TYPE_CHECKING:
    from torch import Tensor
    from torch import nn

Options = Mapping[str, object]
StateDicts = Mapping[str, Mapping[str, object]]
Identity = tuple[str, dict[str, object]]

_PACKAGE = 'depth_node.networks'
_FILES = {'lite-mono': 'lite_mono'}


@dataclass(frozen=True)
class PublishedAccuracy:
    """A line of the authors' own table; printed for comparison, never measured here."""

    variant: str
    """Variant of the network."""
    height: int
    """Rows of the network's input, pixels."""
    width: int
    """Columns of the network's input, pixels."""
    data: str
    """Test set and protocol, e.g. 'KITTI Eigen 697, median scaling'."""
    abs_rel: float
    """Mean of |d - d*| / d*."""
    sq_rel: float
    """Mean of (d - d*)^2 / d*, metres."""
    rmse_m: float
    """Root of the mean squared error, metres."""
    rmse_log: float
    """Root of the mean squared error of the natural logarithms."""
    a1: float
    """Share of pixels with max(d / d*, d* / d) < 1.25."""


@dataclass(frozen=True)
class NetworkSpec:
    """All that is known of a kind of network, and how to make one."""

    name: str
    """Name in the registry and in model cards."""
    paper: str
    """Title, venue and year of the paper."""
    origin: str
    """Repository and commit from which the facts were taken."""
    code_license: str
    """Licence of the authors' code; ours is written anew."""
    weights_license: str
    """What is known of the licence of the published weights, in words."""
    variants: tuple[str, ...]
    """Accepted variants, smallest first."""
    option_help: Mapping[str, str]
    """Accepted options of ``build`` and what they do."""
    output_kind: str
    """'disparity', 'metric' or 'relative'; see model_folder.OutputSpec."""
    mean: tuple[float, float, float]
    """Subtracted from RGB in [0, 1] inside the trained network, outside of exported graphs."""
    std: tuple[float, float, float]
    """Divides after the subtraction."""
    size_multiple: int
    """Height and width of the input must be multiples of this, pixels."""
    published: tuple[PublishedAccuracy, ...]
    """The authors' figures."""
    tolerance: float
    """Largest error against the conformance vectors, in standard deviations of each array."""
    modules: Mapping[str, str]
    """Released file (e.g. 'depth') -> attribute of the network that holds its weights."""
    build: Callable[[str, Options], nn.Module]
    """(variant, options) -> network in [0, 1] RGB, freshly initialised, in training mode."""
    infer: Callable[[StateDicts], Identity]
    """Released state dicts by file -> the variant and options that they were trained with."""
    load: Callable[[nn.Module, StateDicts], None]
    """Fill a network from released state dicts; entries that it does not know are ignored."""
    probe: Callable[[nn.Module, Tensor], dict[str, Tensor]]
    """Network and (B, 3, H, W) image -> every output by its name in the conformance vectors."""
    conformance_case: Callable[[str], Identity | None]
    """Name of a file of conformance vectors -> what to build; None: not this network."""
    linearize: Callable[..., nn.Module]
    """(network, height, width) -> plain module for inference; see rewrites.linearized."""


_specs: dict[str, NetworkSpec] = {}


def register(name: str) -> Callable[[Callable[[], NetworkSpec]], Callable[[], NetworkSpec]]:
    """Enter the specification that the decorated function returns.

    :param name: name in the registry; must be that of the specification.
    :raises ModelError: when the name is taken or differs from the specification's.
    """

    def enter(describe: Callable[[], NetworkSpec]) -> Callable[[], NetworkSpec]:
        described = describe()
        if described.name != name:
            raise ModelError(
                'network registry', f'{quoted(described.name)} as {quoted(name)}', 'one name'
            )
        if name in _specs:
            raise ModelError('network registry', f'{quoted(name)} a second time', 'a new name')
        _specs[name] = described
        return describe

    return enter


def names() -> tuple[str, ...]:
    """Return the names of all networks, sorted; imports nothing."""
    return tuple(sorted({*_FILES, *_specs}))


def spec(name: str) -> NetworkSpec:
    """Return the specification of a network; imports its file on the first call.

    :param name: one of :func:`names`.
    :raises ModelError: when there is no such network; the text names those that there are.
    :raises MissingPackage: when torch is not installed.
    """
    if name not in _specs and name in _FILES:
        _import_file(_FILES[name])
    if name not in _specs:
        raise ModelError('network', quoted(name), f'one of {", ".join(names())}')
    return _specs[name]


def _import_file(file: str) -> None:
    try:
        importlib.import_module(f'{_PACKAGE}.{file}')
    except ModuleNotFoundError as error:
        if error.name != 'torch':
            raise
        raise MissingPackage('torch', 'building a network', 'pip install torch') from error
