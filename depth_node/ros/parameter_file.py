"""The text of config/depth_node.yaml, made from settings.py.

Write it anew with ``python -m depth_node.ros.parameter_file > config/depth_node.yaml``.
"""

from __future__ import annotations

import sys
import textwrap

from depth_node.parameter import Parameter
from depth_node.parameter import Value
from depth_node.settings import parameters

_HEAD = """\
# Every parameter of depth_node with its default.
# Those marked (structural) need a cleanup and configure of the lifecycle node.

/**:
  ros__parameters:
"""
_LINE = 97


def text() -> str:
    """Return the file with every parameter, its description, unit, range and default."""
    lines = []
    concern = ''
    for parameter in parameters():
        name, dot, leaf = parameter.name.partition('.')
        if dot and name != concern:
            lines.append(f'    {name}:')
            concern = name
        indent = '      ' if dot else '    '
        lines += textwrap.wrap(
            _remark(parameter),
            _LINE,
            initial_indent=f'{indent}# ',
            subsequent_indent=f'{indent}# ',
        )
        # An empty list has no type in YAML: older ROS does not read it.
        off = '# ' if parameter.default == () else ''
        lines.append(f'{indent}{off}{leaf or name}: {_written(parameter.default)}')
    return _HEAD + '\n'.join(lines) + '\n'


def _remark(parameter: Parameter) -> str:
    """Return description and range in one sentence or two."""
    remark = parameter.description
    if parameter.choices:
        remark += f' {parameter.allowed[0].upper()}{parameter.allowed[1:]}.'
    if parameter.low is not None and parameter.high is not None:
        remark += f' {_number(parameter.low)} to {_number(parameter.high)}.'
    return f'{remark} (structural)' if parameter.structural else remark


def _number(value: float) -> str:
    """Return a limit in full digits."""
    return str(int(value)) if float(value).is_integer() else str(value)


def _written(value: Value) -> str:
    """Return YAML that ROS reads back in the same type: floats keep their point."""
    if isinstance(value, tuple):
        return repr(list(value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else repr(value)


if __name__ == '__main__':
    sys.stdout.write(text())
