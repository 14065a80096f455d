"""One parameter: what is known of it besides its value, and what values it takes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Union
from typing import cast

from depth_node.errors import SettingsError
from depth_node.errors import quoted

Value = Union[bool, int, float, str, tuple[str, ...]]

MOST_CAMERAS = 16
_CAMERA_NAME = re.compile(r'[A-Za-z_]\w*', re.ASCII)


@dataclass(frozen=True)
class Parameter:
    """What is known of one parameter besides its value."""

    name: str
    """ROS name, dotted where it belongs to a concern, e.g. 'points.organized'."""
    default: Value
    """Value without any option; its type is the type of the parameter."""
    description: str
    """One sentence, with the unit."""
    low: float | None = None
    """Smallest allowed value of a number."""
    high: float | None = None
    """Largest allowed value of a number."""
    choices: tuple[str, ...] = ()
    """Allowed values of a string; empty where any text goes."""
    several: bool = False
    """True where choices but the first may be combined with commas, the preferred one first."""
    structural: bool = False
    """True where a change needs a cleanup and configure of the lifecycle node."""

    @property
    def allowed(self) -> str:
        """Return the choices in words; empty where any text goes."""
        if not self.choices:
            return ''
        alone = f'; several with commas between, but {self.choices[0]} alone'
        return f'one of {", ".join(self.choices)}{alone if self.several else ""}'


def parameter(
    default: Value,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    several: bool = False,
    structural: bool = False,
    compare: bool = True,
) -> Any:
    """Make a dataclass field that carries its range and description.

    :param compare: False where a change leaves what is made of the settings as it is.
    """
    return field(
        default=default,
        compare=compare,
        metadata={
            'description': description,
            'low': low,
            'high': high,
            'choices': choices,
            'several': several,
            'structural': structural,
        },
    )


def checked(parameter: Parameter, value: Value) -> Value:
    """Return ``value`` in the type of the parameter.

    :raises SettingsError: for another type, or what is not allowed.
    """
    who = f'parameter {parameter.name}'
    wanted = type(parameter.default)
    if wanted is tuple:
        return _checked_names(who, value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted:
        raise SettingsError(who, f'{quoted(value)} ({type(value).__name__})', wanted.__name__)
    if isinstance(value, str):
        if not value and parameter.default:
            raise SettingsError(who, 'an empty text', 'a value')
        return _checked_text(who, parameter, value)
    low = -math.inf if parameter.low is None else parameter.low
    high = math.inf if parameter.high is None else parameter.high
    if not low <= cast(float, value) <= high:
        raise SettingsError(who, quoted(value), f'{low:g} to {high:g}')
    return value


def _checked_names(who: str, value: object) -> tuple[str, ...]:
    """Return a list of names of cameras as a tuple, or refuse it."""
    names = tuple(value) if isinstance(value, (list, tuple)) else (None,)
    good = all(isinstance(name, str) and _CAMERA_NAME.fullmatch(name) for name in names)
    if not good or len(set(names)) < len(names) or len(names) > MOST_CAMERAS:
        raise SettingsError(
            who,
            quoted(value),
            f'a list of at most {MOST_CAMERAS} different names, each of letters, digits and _ '
            'that begins with no digit, or an empty list',
        )
    return cast(tuple[str, ...], names)


def _checked_text(who: str, parameter: Parameter, value: str) -> str:
    """Return a text without blanks round its commas, or refuse it."""
    names = [value]
    if parameter.several:
        names = [name.strip() for name in value.split(',')]
        combined = set(parameter.choices[1:])
        good = names == [parameter.choices[0]] or set(names) <= combined
    else:
        good = not parameter.choices or value in parameter.choices
    if not good or len(set(names)) < len(names):
        raise SettingsError(who, quoted(value), parameter.allowed)
    return ','.join(names)
