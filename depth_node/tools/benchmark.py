"""Measure, and write result files: python -m depth_node.tools.benchmark [rewriting|node|networks].

``rewriting`` times the network with and without the exact rewrites in every engine, in turns of
one run.  ``node`` feeds the whole node over DDS at 30 Hz and measures the age of its output.
``networks`` runs every network of the registry on every engine and writes docs/networks.md; it
takes most of an hour and is not among the default ones.
Run it on a machine that does nothing else; the result files name machine, versions and commit.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from depth_node.benchmark import result
from depth_node.errors import DepthNodeError
from depth_node.files import write_text_atomically
from depth_node.settings import Settings

_KINDS = ('rewriting', 'node', 'networks')
_DEFAULT_KINDS = ('rewriting', 'node')


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that were asked for.

    :returns: exit status: 0, 1 with a sentence when one failed, 130 on Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        for kind in options.kinds or _DEFAULT_KINDS:
            {'rewriting': _rewriting, 'node': _node, 'networks': _networks}[kind](options)
    except KeyboardInterrupt:
        return 130
    except DepthNodeError as error:
        print(f'benchmark: {error}', file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m depth_node.tools.benchmark')
    add = parser.add_argument
    add('kinds', nargs='*', choices=(*_KINDS, []), help='default: rewriting and node')
    add('--out', type=Path, default=Path('benchmarks', 'results'), help='folder of result files')
    add('--variants', nargs='*', default=['small', 'base'], help='of Lite-Mono')
    add('--size', default='640x192', help='input of the network, width x height')
    add('--rounds', type=int, default=8, help='turns of each contestant')
    add('--calls', type=int, default=8, help='images per turn')
    add('--model', default=Settings().model.name, help='model of the node')
    add('--engine', default='openvino', help='engine of the node')
    add('--rate', type=float, default=30.0, help='images per second into the node')
    add('--only', default='*', metavar='PATTERN', help="releases of networks, e.g. 'midas-*'")
    add('--anew', action='store_true', help='networks: measure also what the file holds already')
    add('--page', type=Path, default=Path('docs', 'networks.md'), help='page of networks')
    add('--seconds', type=float, default=20.0, help='how long the node is fed')
    return parser


def _rewriting(options: argparse.Namespace) -> None:
    from depth_node.benchmark import rewriting

    width, height = (int(part) for part in options.size.split('x'))
    rows = []
    for variant in options.variants:
        with tqdm(total=options.rounds, desc=variant, leave=False, disable=None) as bar:

            def progress(done: int, _: int, bar: tqdm = bar) -> None:
                bar.update(done - bar.n)

            rows += rewriting.measure(
                variant, height, width, options.rounds, options.calls, progress
            )
    result.write_result(
        options.out / 'rewriting.json',
        'rewriting',
        rewriting.PROTOCOL,
        {'input': f'1x3x{height}x{width}', 'rounds': options.rounds, 'calls': options.calls},
        rows,
    )
    print(
        f'{"variant":8} {"engine":12} {"graph":10} {"min ms":>8} {"median":>8} {"x min":>6} error'
    )
    for row in rows:
        print(
            f'{row.variant:8} {row.engine:12} {row.graph:10} {row.time.min_ms:8.2f} '
            f'{row.time.median_ms:8.2f} {row.speed_up_min:6.2f} {row.error:.1e}'
        )


def _networks(options: argparse.Namespace) -> None:
    from depth_node.benchmark import networks
    from depth_node.benchmark.network_page import written_page

    wanted = list(networks.configurations(lambda name: fnmatch.fnmatch(name, options.only)))
    path = options.out / 'networks.json'
    rows = {} if options.anew else {r['releases'][0]: r for r in result.rows_of_this_machine(path)}
    for name, releases in tqdm(wanted, desc='networks', disable=None):
        if releases[0].name in rows:
            continue
        measured = networks.measure(name, releases)
        print(networks.summary(measured), flush=True)
        rows[releases[0].name] = asdict(measured)
        # what is measured is kept when a run of an hour is interrupted
        ordered = [rows[name] for name in sorted(rows)]
        result.write_result(path, 'networks', networks.PROTOCOL, {'batch': 1}, ordered)
    write_text_atomically(options.page, written_page(path))


def _node(options: argparse.Namespace) -> None:
    from depth_node.benchmark import serving

    rows = [
        serving.measure(
            options.model, options.engine, options.rate, options.seconds, points=points
        )
        for points in (True, False)
    ]
    result.write_result(
        options.out / 'node.json',
        'node',
        serving.PROTOCOL,
        {'image': '640x480 rgb8', 'rate_hz': options.rate, 'seconds': options.seconds},
        rows,
    )
    for row in rows:
        print(
            f'{row.engine}, network input {row.network_input}: {row.played} images at '
            f'{row.input_rate_hz:.1f} Hz, {row.depths} depth images and {row.clouds} clouds; '
            f'age of depth p50/p95/p99 {row.depth_age_p50_ms:.1f}/{row.depth_age_p95_ms:.1f}/'
            f'{row.depth_age_p99_ms:.1f} ms (network {row.network_ms:.1f} ms), first depth '
            f'after {row.first_depth_s:.2f} s, {row.peak_rss_mib:.0f} MiB, '
            f'{row.cpu_percent:.0f} % of a core'
        )


if __name__ == '__main__':
    sys.exit(main())
