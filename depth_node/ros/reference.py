"""Writes the tables of docs/node.md from the code: ``python -m depth_node.ros.reference``.

The words between the tables are written by hand and stay.  A table stands between the comments
``<!-- made: NAME -->`` and ``<!-- end -->``.  ``make docs`` runs this, and writes
config/depth_node.yaml anew.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

from depth_node.files import write_text_atomically
from depth_node.parameter import Parameter
from depth_node.parameter import Value
from depth_node.ros import interface
from depth_node.ros import parameter_file
from depth_node.settings import parameters

_ROOT = Path(__file__).parents[2]
PAGE = _ROOT / 'docs' / 'node.md'
PARAMETER_FILE = _ROOT / 'config' / 'depth_node.yaml'

_TYPES: dict[type, str] = {
    bool: 'bool',
    int: 'integer',
    float: 'double',
    str: 'string',
    tuple: 'string array',
}
# What a name ends with is its unit; other numbers have none.
_UNITS = {
    's': 's', 'm': 'm', 'rad': 'rad', 'deg': 'deg', 'hz': 'Hz', 'pixels': 'px', 'px': 'px',
    'mib': 'MiB', 'stride': 'px',
}  # fmt: skip
_BLOCK = re.compile(r'<!-- made: ([a-z ]+) -->\n.*?<!-- end -->', re.DOTALL)


def page(before: str) -> str:
    """Return the page with every table written anew.

    :param before: the page as it is.
    :raises KeyError: for a table that nobody makes, or one that the page lacks.
    """
    missing = set(TABLES) - set(_BLOCK.findall(before))
    if missing:
        raise KeyError(f'no place in the page for: {", ".join(sorted(missing))}')
    return _BLOCK.sub(lambda found: _block(found[1]), before)


def _block(name: str) -> str:
    """Return one table between its comments."""
    table = '\n'.join(TABLES[name]())
    return f'<!-- made: {name} -->\n{table}\n<!-- end -->'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    for row in (head, ['---'] * len(head), *rows):
        yield f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in row)} |'


def _parameter_tables() -> Iterator[str]:
    """Yield one table per concern."""
    concerns: dict[str, list[Parameter]] = {}
    for parameter in parameters():
        concerns.setdefault(parameter.name.partition('.')[0], []).append(parameter)
    for concern, listed in concerns.items():
        yield f'### {concern}'
        yield ''
        head = ('parameter', 'type', 'default', 'unit', 'allowed', 'changes', 'meaning')
        yield from _table(head, [_parameter_row(parameter) for parameter in listed])
        yield ''


def _parameter_row(parameter: Parameter) -> list[str]:
    """Return the cells of one parameter."""
    number = isinstance(parameter.default, (int, float)) and not isinstance(
        parameter.default, bool
    )
    unit = _UNITS.get(re.split(r'[._]', parameter.name)[-1], '') if number else ''
    return [
        f'`{parameter.name}`',
        _TYPES[type(parameter.default)],
        f'`{_value(parameter.default)}`',
        unit,
        _allowed(parameter),
        'unconfigured' if parameter.structural else 'any time',
        parameter.description,
    ]


def _allowed(parameter: Parameter) -> str:
    """Return range or choices; empty where anything of the type goes."""
    if parameter.choices:
        return parameter.allowed
    if parameter.low is None or parameter.high is None:
        return ''
    return f'{_limit(parameter.low)} to {_limit(parameter.high)}'


def _value(value: Value) -> str:
    """Return a default as it is written in YAML."""
    if isinstance(value, tuple):
        return str(list(value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != '' else "''"


def _limit(value: float) -> str:
    """Return a limit in full digits."""
    return str(int(value)) if float(value).is_integer() else str(value)


def _topics(topics: Sequence[interface.Topic]) -> Iterator[str]:
    """Yield a table of topics."""
    head = ('topic', 'type', 'QoS', 'when')
    yield from _table(head, [(f'`{t.name}`', t.kind, t.qos, t.when) for t in topics])


def _launch_tables() -> Iterator[str]:
    """Yield the arguments of each launch file, read without running it."""
    for path in sorted((_ROOT / 'launch').glob('*.launch.py')):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        purpose = (ast.get_docstring(tree) or '').partition('\n')[0]
        yield f'### {path.name}'
        yield ''
        yield purpose
        yield ''
        rows = [(f'`{name}`', default, text) for name, default, text in _launch_arguments(tree)]
        yield from _table(('argument', 'default', 'meaning'), rows)
        yield ''


def _launch_arguments(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Yield name, default and meaning from the tuples of a launch file."""
    for item in tree.body:
        if (
            isinstance(item, ast.Assign)
            and isinstance(item.targets[0], ast.Name)
            and item.targets[0].id in ('ARGUMENTS', 'OWN_ARGUMENTS', 'NODE_ARGUMENTS')
            and not any(isinstance(part, ast.Starred) for part in ast.walk(item.value))
        ):
            for name, default, text in ast.literal_eval(item.value):
                shown = 'has to be given' if default is None else f'`{default}`' if default else ''
                yield name, shown, text


def _meanings(what: str, listed: Mapping[str, str]) -> Iterator[str]:
    """Yield a table of names and what they mean."""
    yield from _table((what, 'meaning'), [(f'`{name}`', text) for name, text in listed.items()])


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    'parameters': _parameter_tables,
    'launch files': _launch_tables,
    'inputs': lambda: _topics(interface.INPUTS),
    'outputs': lambda: _topics(interface.OUTPUTS),
    'diagnostics': lambda: _meanings('key', interface.DIAGNOSTICS),
    'reasons': lambda: _meanings('reason', interface.REASONS),
    'exit codes': lambda: _meanings(
        'code', {str(code): text for code, text in interface.EXIT_CODES.items()}
    ),
}


def main() -> int:
    """Write the page and the parameter file where they stand in a checkout.

    :returns: exit status: 1 where there is no checkout.
    """
    if not PAGE.is_file():
        sys.stderr.write(f'{PAGE}: no such file; run this in a checkout of the source\n')
        return 1
    for path, text in (
        (PAGE, page(PAGE.read_text(encoding='utf-8'))),
        (PARAMETER_FILE, parameter_file.text()),
    ):
        if not path.is_file() or path.read_text(encoding='utf-8') != text:
            write_text_atomically(path, text)
            sys.stdout.write(f'{path} written\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
