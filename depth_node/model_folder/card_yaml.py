"""Strict YAML: plain data only, and frozen dataclasses out of it with exactly their keys.

``yaml.safe_load`` runs no code, but it takes repeated keys (the last one wins in silence) and
aliases (a kilobyte of them is a terabyte when walked); here both are refused.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Hashable
from collections.abc import Mapping
from typing import Any
from typing import TypeVar
from typing import cast

import yaml

from depth_node.errors import ModelError
from depth_node.errors import quoted

_T = TypeVar('_T')
_LONGEST_KEY = 100
_LARGEST_INTEGER = 2**63


def may_be_missing(default: _T) -> _T:
    """Return a dataclass field whose key cards of earlier releases do not have.

    :param default: its value then.
    """
    return dataclasses.field(default=default, metadata={'may_be_missing': True})


def parsed(text: str, who: str) -> object:
    """Parse one YAML document to plain data.

    :param who: where the text comes from, for the text of an error.
    :raises ModelError: when it is no YAML, or has tags, aliases or repeated keys.
    """
    try:
        # A SafeLoader underneath: no tag makes an object of anything.
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        cause = ' '.join(str(error).split())
        raise ModelError(
            who,
            f'YAML that cannot be used ({quoted(cause)})',
            'plain YAML without tags, aliases or repeated keys',
        ) from error


def dumped(mapping: Mapping[str, object]) -> str:
    """Write plain data, in which tuples count as lists, as YAML text without aliases."""
    return yaml.dump(
        _with_lists(mapping), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=96
    )


def dataclass_from(value: object, wanted: type[_T], prefix: str) -> _T:
    """Make a dataclass from a mapping that has exactly its keys.

    :param prefix: what to put before a key in the text of an error, e.g. 'card.yaml: '.
    :raises ModelError: for an unknown or missing key or a value of another type; a whole number
        is taken where a float is wanted.
    """
    mapping = mapping_from(value, prefix.rstrip(' .:'))
    hints = typing.get_type_hints(wanted)
    for key in mapping:
        if key not in hints:
            raise ModelError(f'{prefix}{key}', 'an unknown key', 'one of ' + ', '.join(hints))
    needed = [item.name for item in dataclasses.fields(cast('Any', wanted)) if not item.metadata]
    for key in needed:
        if key not in mapping:
            raise ModelError(f'{prefix}{key}', 'no such key', 'each of ' + ', '.join(needed))
    return wanted(
        **{key: _converted(value, hints[key], f'{prefix}{key}') for key, value in mapping.items()}
    )


def mapping_from(value: object, who: str) -> Mapping[str, object]:
    """Return ``value`` if it is a mapping whose keys are short printable text.

    :raises ModelError: when it is not.
    """
    if not isinstance(value, dict):
        raise ModelError(who, f'{quoted(value)} ({type(value).__name__})', 'a mapping of keys')
    for key in value:
        if not (isinstance(key, str) and 0 < len(key) <= _LONGEST_KEY and key.isprintable()):
            raise ModelError(who, f'the key {quoted(key)}', 'short printable text as a key')
    return value


def check_plain_data(value: object, who: str) -> None:
    """Accept nested mappings with text keys, lists, text, finite numbers, booleans and null.

    :raises ModelError: naming the place of anything else.
    """
    if isinstance(value, dict):
        for key, item in mapping_from(value, who).items():
            check_plain_data(item, f'{who}.{key}')
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            check_plain_data(item, f'{who}[{index}]')
    elif type(value) is float and not math.isfinite(value):
        raise ModelError(who, str(value), 'a finite number, or null where there is none')
    elif value is not None and type(value) not in (str, bool, int, float):
        raise ModelError(who, type(value).__name__, 'text, a number, true, false or null')


def _converted(value: object, wanted: Any, who: str) -> Any:
    """Return ``value`` as an instance of the annotation ``wanted``, or refuse it."""
    if dataclasses.is_dataclass(wanted):
        return dataclass_from(value, cast('type[Any]', wanted), f'{who}.')
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _converted(value, arguments[0], who)
    if origin is tuple:
        return _tuple_from(value, arguments, who)
    if origin is dict:
        items = mapping_from(value, who).items()
        return {key: _converted(item, arguments[1], f'{who}.{key}') for key, item in items}
    if wanted is object:
        check_plain_data(value, who)
        return value
    return _scalar_from(value, wanted, who)


def _scalar_from(value: object, wanted: type, who: str) -> object:
    """Return text, a whole number, a finite float or a boolean of exactly the wanted type."""
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        raise ModelError(who, f'{quoted(value)} ({type(value).__name__})', wanted.__name__)
    check_plain_data(value, who)
    return value


def _tuple_from(value: object, hints: tuple[Any, ...], who: str) -> tuple[Any, ...]:
    """Make a tuple of fixed length, or of any length where the hints end in an ellipsis."""
    if not isinstance(value, list):
        raise ModelError(who, f'{quoted(value)} ({type(value).__name__})', 'a list')
    wanted = [hints[0]] * len(value) if hints[-1] is Ellipsis else list(hints)
    if len(value) != len(wanted):
        raise ModelError(who, f'{len(value)} values', f'{len(wanted)} values')
    pairs = enumerate(zip(value, wanted, strict=True))
    return tuple(_converted(item, hint, f'{who}[{index}]') for index, (item, hint) in pairs)


def _with_lists(value: Any) -> Any:
    """Turn tuples into lists, which YAML knows."""
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return [_with_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses aliases, repeated keys and integers that no card needs."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError('an alias')
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.MarkedYAMLError(problem='a repeated key', problem_mark=node.start_mark)
        return mapping

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value: int = super().construct_yaml_int(node)
        # one of thousands of digits can become neither a float nor the text of an error
        if abs(value) > _LARGEST_INTEGER:
            raise yaml.MarkedYAMLError(
                problem='an integer of over 64 bits', problem_mark=node.start_mark
            )
        return value


_StrictLoader.add_constructor('tag:yaml.org,2002:int', _StrictLoader.construct_yaml_int)


class _PlainDumper(yaml.SafeDumper):
    """SafeDumper that writes shared values out in full, since aliases are refused on reading."""

    def ignore_aliases(self, data: object) -> bool:
        return True
