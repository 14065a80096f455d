"""Compare our networks with a folder of conformance vectors."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path

from depth_node.errors import DepthNodeError
from depth_node.networks import conformance
from depth_node.networks.conformance import Outcome

_OK = 0
_FAILED = 1
_UNUSABLE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print one line per file.

    :returns: 0 when every selected file passes, 1 when one does not, 2 when nothing was compared.
    """
    options = _parser().parse_args(arguments)
    try:
        found = conformance.find(options.folder)
        selected = fnmatch.filter(found, options.only)
        outcomes = [_checked(options.folder, name) for name in selected]
    except DepthNodeError as error:
        print(error, file=sys.stderr)
        return _UNUSABLE
    compared = [outcome for outcome in outcomes if outcome.status != 'no network']
    if not compared:
        print(
            f'conformance: {options.only!r} selects no network of the {len(found)} files in '
            f'{options.folder}.',
            file=sys.stderr,
        )
        return _UNUSABLE
    passed = sum(outcome.status == 'pass' for outcome in compared)
    print(f'{passed} of {len(compared)} pass')
    return _OK if passed == len(compared) else _FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='conformance', description=__doc__)
    parser.add_argument('folder', type=Path, help='folder of <name>.json and <name>.npz')
    parser.add_argument('--only', default='*', metavar='PATTERN', help="names, e.g. 'litemono*'")
    return parser


def _checked(folder: Path, name: str) -> Outcome:
    outcome = conformance.check(folder, name)
    print(_line(outcome), flush=True)
    return outcome


def _line(outcome: Outcome) -> str:
    if not outcome.arrays:
        return f'{outcome.name:32} {outcome.status}: {outcome.reason}'
    return (
        f'{outcome.name:32} {outcome.status}  worst {outcome.worst_error:.2e} '
        f'({outcome.worst_array}) of {outcome.tolerance:.0e}, {outcome.arrays} arrays'
    )


if __name__ == '__main__':
    sys.exit(main())
