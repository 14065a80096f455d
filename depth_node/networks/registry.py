"""The networks by name, found without importing torch until one of them is wanted.

Names are known at once; the file of a network, which needs torch, is imported when its
specification is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.networks.specification import Identity
from depth_node.networks.specification import NetworkSpec

if TYPE_CHECKING:
    from depth_node.networks.depth_network import DepthNetwork

_PACKAGE = 'depth_node.networks'
_FILES = {
    'diffnet': 'diffnet',
    'ecodepth': 'ecodepth',
    'lite-mono': 'lite_mono',
    'midas': 'midas',
    'monodepth2': 'monodepth2',
    'sqldepth': 'sqldepth',
}

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


def build(name: str, identity: Identity) -> DepthNetwork:
    """Make a freshly initialised network in training mode.

    :param name: one of :func:`names`.
    :param identity: its variant, and options within their ranges.
    :raises ModelError: for an unknown network, variant or option, or a value out of range.
    :raises MissingPackage: when torch is not installed.
    """
    found = spec(name)
    if identity.variant not in found.variants:
        known = ', '.join(found.variants)
        raise ModelError(f'{name} variant', quoted(identity.variant), f'one of {known}')
    unknown = sorted(set(identity.options) - set(found.option_help))
    if unknown:
        known = ', '.join(found.option_help) or 'no option'
        raise ModelError(name, f'option {quoted(unknown[0])}', known)
    return found.build(identity)


def _import_file(file: str) -> None:
    try:
        importlib.import_module(f'{_PACKAGE}.{file}')
    except ModuleNotFoundError as error:
        if error.name != 'torch':
            raise
        raise MissingPackage('torch', 'building a network', 'pip install torch') from error
