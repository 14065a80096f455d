"""Measure, and write result files: python -m depth_node.tools.benchmark [KIND | MODEL ...].

``engines``, which is meant where models are given and no kind, times models on engines, all in
turns of one run.  ``frame`` times everything but the network.  ``node`` (or ``--node``) feeds the
whole node over DDS at a fixed rate.  ``rewriting`` shows what the exact rewrites gain.
``edges`` counts points between surfaces, without and with the mask.
``bundled`` judges the bundled model, or one that may take its place, by recordings and scenes that
it never saw, and writes docs/bundled-model.md.
``networks`` runs every network of the registry and writes docs/networks.md; it takes most of an
hour.  ``page`` writes docs/performance.md and docs/flying-points.md from the result files.
Without a kind: all of them but ``networks`` and ``bundled``.

The standard measurements go to benchmarks/results, all others to out/benchmark.  Run it on a
machine that does nothing else; the result files name machine, versions and commit.
"""

from __future__ import annotations

import argparse
import fnmatch
import signal
import sys
import tempfile
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tqdm import tqdm

from depth_node.benchmark import result
from depth_node.engines.selection import PRECISIONS
from depth_node.errors import DepthNodeError
from depth_node.files import write_atomically
from depth_node.files import write_text_atomically
from depth_node.settings import Settings

_STANDARD = Path('benchmarks', 'results')
_OTHER = Path('out', 'benchmark')
_SHOWN = 1
"""View that the picture of the page shows."""
_ALL = ('engines', 'rewriting', 'frame', 'node', 'edges', 'page')


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark that was asked for.

    :returns: exit status: 0, 1 with a sentence when one failed, 130 on Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser, kinds = _parser()
    try:
        if not words:
            return next((status for kind in _ALL if (status := _run(parser, [kind]))), 0)
        return _run(parser, _with_kind(words, kinds))
    except KeyboardInterrupt:
        return 130
    except DepthNodeError as error:
        print(f'benchmark: {error}', file=sys.stderr)
        return 1


def _with_kind(words: list[str], kinds: Sequence[str]) -> list[str]:
    """Put the kind first: it may be given as --node, or be meant by models alone."""
    if '--node' in words:
        return ['node', *(word for word in words if word != '--node')]
    if words[0] in (*kinds, '-h', '--help'):
        return words
    return ['engines', *words]


def _run(parser: argparse.ArgumentParser, words: list[str]) -> int:
    options = parser.parse_args(words)
    if hasattr(options, 'out') and options.out is None:
        standard = vars(parser.parse_args([words[0]]))
        # what the name of the result says may differ
        free = {'out', *options.in_name}
        same = all(vars(options)[key] == standard[key] for key in standard if key not in free)
        options.out = _STANDARD if same else _OTHER
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _parser() -> tuple[argparse.ArgumentParser, tuple[str, ...]]:
    """Describe the command line; also return the kinds."""
    parser = argparse.ArgumentParser(
        prog='python -m depth_node.tools.benchmark',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(metavar='KIND', required=True)
    for name, run, describe, in_name, text in (
        (
            'engines',
            _engines,
            _engine_options,
            ('device',),
            'models on engines, in turns of one run',
        ),
        ('frame', _frame, _frame_options, ('engine',), 'everything but the network, by stage'),
        ('node', _node, _node_options, (), 'the whole node over DDS'),
        ('rewriting', _rewriting, _rewriting_options, (), 'the gain of the exact rewrites'),
        (
            'edges',
            _edges,
            _edge_options,
            ('recordings',),
            'points between surfaces, and what the mask does',
        ),
        ('networks', _networks, _network_options, (), 'every network; most of an hour'),
        (
            'bundled',
            _bundled,
            _bundled_options,
            ('before', 'record', 'card', 'docs'),
            'the bundled model by what it never saw',
        ),
        ('page', _page, _page_options, (), 'write docs/performance.md'),
    ):
        kind = kinds.add_parser(name, help=text)
        kind.set_defaults(run=run, in_name=in_name)
        describe(kind.add_argument)
    return parser, tuple(kinds.choices)


def _out(add: Callable[..., object]) -> None:
    help_text = f'folder of the result; default: {_STANDARD}, {_OTHER} for other measurements'
    add('--out', type=Path, help=help_text)


def _engine_options(add: Callable[..., object]) -> None:
    _out(add)
    add('models', nargs='*', help='network:variant (random weights), or name or path of a model')
    add('--device', choices=('cpu', 'gpu'), default='cpu', help='chooses models and engines')
    add('--engines', nargs='+', help='engines, and eager, eager-channels-last, eager-cuda')
    add('--precisions', nargs='+', choices=PRECISIONS, default=(), help='default: what suits')
    add('--sizes', nargs='+', default=(), help="WIDTHxHEIGHT; default: each model's own")
    add('--threads', type=int, default=0, help='CPU threads; 0: all cores')
    add('--rounds', type=int, default=12, help='turns of each contestant')
    add('--calls', type=int, default=8, help='images per turn')
    add('--no-peak', action='store_true', help="leave the processor's peak out")
    add('--apart', action='store_true', help='one run per model: for what fills the memory')


def _frame_options(add: Callable[..., object]) -> None:
    _out(add)
    add('--model', default=Settings().model.name, help='model of depth')
    add('--engine', default='stand-in', help='a real one measures whole frames')
    add('--size', default='640x480', help='of the images, WIDTHxHEIGHT')
    add('--frames', type=int, default=500, help='frames that count')


def _node_options(add: Callable[..., object]) -> None:
    _out(add)
    add('--model', default=Settings().model.name, help='model of the node')
    add('--engine', default='openvino', help='engine of the node')
    add('--precision', default='auto', choices=PRECISIONS, help='arithmetic of the network')
    add('--rate', type=float, default=30.0, help='images per second into the node')
    add('--seconds', type=float, default=20.0, help='how long the node is fed')
    add('--size', default='640x480', help='of the images, WIDTHxHEIGHT')
    add('--starts', type=int, default=5, help='starts beside a camera that sends already')


def _rewriting_options(add: Callable[..., object]) -> None:
    _out(add)
    add('--variants', nargs='*', default=['small', 'base'], help='of Lite-Mono')
    add('--size', default='640x192', help='input of the network, WIDTHxHEIGHT')
    add('--rounds', type=int, default=8, help='turns of each contestant')
    add('--calls', type=int, default=8, help='images per turn')


def _edge_options(add: Callable[..., object]) -> None:
    _out(add)
    add('--recordings', type=Path, default=Path('..', 'shared', 'data', 'bags'),
        help='folder of recordings with depth; left out where there is none')  # fmt: skip
    add('--views', type=int, default=24, help='images of each kind')
    add('--model', default=Settings().model.name, help='model whose edges are looked at')


def _network_options(add: Callable[..., object]) -> None:
    add('--out', type=Path, default=_STANDARD, help='folder of the result')
    add('--only', default='*', metavar='PATTERN', help="releases, e.g. 'midas-*'")
    add('--anew', action='store_true', help='measure also what the file holds already')
    add('--page', type=Path, default=Path('docs', 'networks.md'), help='the page to write')


def _bundled_options(add: Callable[..., object]) -> None:
    bags = Path('..', 'shared', 'data', 'bags')
    _out(add)
    add('model', nargs='?', default=Settings().model.name, help='name or path of a model folder')
    add('--recordings', type=Path, nargs='*', default=[bags / 'livingroom', bags / 'box'],
        help='with depth, never trained on')  # fmt: skip
    add('--before', default='', help='model that it replaces, for before and after')
    add('--record', type=Path, help='folder of its training, for plan and curve')
    add('--frames', type=int, default=200, help='images of a recording at most')
    add('--views', type=int, default=96, help='rendered views per data set; 0: none')
    add('--timed', type=int, default=300, help='frames that are timed; 0: none')
    add('--card', action='store_true', help='put the figures into the card of the model, too')
    add('--docs', type=Path, help='folder of the page; default: docs for the standard result')


def _page_options(add: Callable[..., object]) -> None:
    add('--results', type=Path, default=_STANDARD, help='folder of the result files')
    add('--docs', type=Path, default=Path('docs'), help='folder of the page and its plots')


def _engines(options: argparse.Namespace) -> int:
    from depth_node.benchmark import engines
    from depth_node.benchmark.markdown import columns
    from depth_node.benchmark.subjects import size_from
    from depth_node.benchmark.targets import targets_of_engines

    plan = engines.Plan(
        models=tuple(options.models or engines.DEFAULT_MODELS[options.device]),
        engines=tuple(options.engines or engines.DEVICES[options.device]),
        precisions=tuple(options.precisions),
        sizes=tuple(size_from(text) for text in options.sizes) or (None,),
        rounds=options.rounds,
        calls=options.calls,
        threads=options.threads,
        peaks=not options.no_peak and options.device == 'cpu',
        apart=options.apart,
    )
    with tempfile.TemporaryDirectory() as folder, _bar() as note:
        measured = engines.measure(plan, Path(folder), note)
    targets = targets_of_engines(measured.rows, options.device)
    # what was cut short does not take the place of a whole result
    out = _OTHER if measured.interrupted and options.out == _STANDARD else options.out
    conditions: dict[str, object] = {
        'batch': 1,
        'rounds': plan.rounds,
        'calls': plan.calls,
        'threads': plan.threads,
        'apart': plan.apart,
        'interrupted': measured.interrupted,
    }
    further = {'peaks': measured.peaks, 'targets': targets}
    path = out / f'engines-{options.device}.json'
    result.write_result(
        path, 'engines', engines.PROTOCOL, conditions, measured.rows, further=further
    )
    print('\n'.join(columns(engines.COLUMNS, [engines.summary(row) for row in measured.rows])))
    for target in targets:
        if target.verdict != 'not measured':
            print(target.sentence)
    print(path)
    if measured.interrupted:
        return 130
    return 0 if any(row.time for row in measured.rows) else 1


def _frame(options: argparse.Namespace) -> int:
    from depth_node.benchmark import frame
    from depth_node.benchmark.markdown import columns
    from depth_node.benchmark.subjects import size_from

    height, width = size_from(options.size)
    rows = frame.measure(options.model, options.engine, width, height, options.frames)
    named = 'frame' if options.engine == frame.STAND_IN else f'frame-{options.engine}'
    conditions = {'image': options.size, 'frames': options.frames}
    path = options.out / f'{named}.json'
    result.write_result(path, 'frame', frame.protocol(options.engine), conditions, rows)
    for row in rows:
        print(f'{row.image} {row.encoding}, {row.engine}, cores: {row.cores}')
        print('\n'.join(columns(frame.COLUMNS, frame.summary(row))))
    return 0


def _node(options: argparse.Namespace) -> int:
    from depth_node.benchmark import serving
    from depth_node.benchmark.subjects import size_from

    height, width = size_from(options.size)
    wanted = serving.Serving(
        model=options.model,
        engine=options.engine,
        precision=options.precision,
        rate_hz=options.rate,
        seconds=options.seconds,
        width=width,
        height=height,
        starts=options.starts,
    )
    rows = [serving.measure(wanted, points=True)]
    if rows[0].kind != 'relative':
        rows.append(serving.measure(wanted, points=False))
    result.write_result(
        options.out / 'node.json',
        'node',
        serving.PROTOCOL,
        {
            'image': f'{options.size} rgb8',
            'rate_hz': options.rate,
            'seconds': options.seconds,
        },
        rows,
    )
    print('\n'.join(serving.sentence(row) for row in rows))
    return 0


def _rewriting(options: argparse.Namespace) -> int:
    from depth_node.benchmark import rewriting
    from depth_node.benchmark.subjects import size_from

    height, width = size_from(options.size)
    rows = []
    for variant in options.variants:
        with _bar() as note:
            rows += rewriting.measure(
                variant,
                height,
                width,
                options.rounds,
                options.calls,
                partial(note, variant),
                graphs=rewriting.ABLATION,
            )
    result.write_result(
        options.out / 'rewriting.json',
        'rewriting',
        rewriting.PROTOCOL,
        {'input': f'1x3x{height}x{width}', 'rounds': options.rounds, 'calls': options.calls},
        rows,
    )
    print(
        f'{"variant":8} {"engine":12} {"graph":29} {"min ms":>8} {"median":>8} {"x min":>6} error'
    )
    for row in rows:
        print(
            f'{row.variant:8} {row.engine:12} {row.graph:29} {row.time.min_ms:8.2f} '
            f'{row.time.median_ms:8.2f} {row.speed_up_min:6.2f} {row.error:.1e}'
        )
    return 0


def _networks(options: argparse.Namespace) -> int:
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
    return 0


def _bundled(options: argparse.Namespace) -> int:
    import json

    from depth_node import model_folder
    from depth_node.benchmark import bundled
    from depth_node.benchmark import bundled_files
    from depth_node.benchmark import bundled_page
    from depth_node.benchmark.training_record import read_record

    record = read_record(options.record) if options.record else None
    plan = bundled.Plan(
        model=options.model,
        recordings=tuple(options.recordings),
        before=options.before,
        frames=options.frames,
        views=options.views,
        timed=options.timed,
    )
    measured = bundled.measure(plan, lambda text: print(text, flush=True))
    path = options.out / bundled_files.NAME
    docs = options.docs or (Path('docs') if options.out == _STANDARD else options.out)
    bundled_files.write(path, docs, plan, measured, record)
    if options.card:
        bundled_files.write_card(model_folder.find(options.model), measured.rows)
    for figure in measured.figures:
        sign = 'kept' if figure.kept else 'MISSED'
        print(f'{sign:7}{figure.what} {figure.asked}: {figure.reached:.4g}')
    print(' '.join(bundled_page.verdict(json.loads(path.read_text(encoding='utf-8')))))
    print(f'{path}, {docs / bundled_page.PAGE}')
    return 0


def _edges(options: argparse.Namespace) -> int:
    from depth_node.benchmark import edge_page
    from depth_node.benchmark import edge_picture
    from depth_node.benchmark import edge_views
    from depth_node.benchmark import edges
    from depth_node.benchmark.markdown import columns

    step = Settings().depth.edge_step
    wide = edge_views.generated(1280, 384, options.views)
    rows = edges.exact_rows('world', wide, (640, 192))
    costs = [edges.cost(size, wide[0]) for size in edges.SIZES]
    room = edge_views.generated(640, 480, options.views)
    recordings = list(edge_views.recorded(options.recordings, options.views))
    if not recordings:
        print(f'no recordings with depth in {options.recordings}: depth_node.world alone')
    for scene, views in tqdm([('world', room), *recordings], desc='edges', disable=None):
        rows += edges.exact_rows(scene, views, (256, 192))
        rows += edges.predicted_rows(scene, views, options.model)
    conditions = {
        'edge_step': step,
        'views': options.views,
        'model': options.model,
        'recordings': [name for name, _ in recordings],
    }
    path = options.out / 'edges.json'
    result.write_result(path, 'edges', edges.PROTOCOL, conditions, rows, further={'costs': costs})
    drawn = edge_picture.picture(room[_SHOWN % len(room)], (256, 192), step)
    docs = Path('docs') if options.out == _STANDARD else options.out
    picture = docs / edge_page.PICTURE
    picture.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(picture, lambda file: file.write(edge_picture.png(drawn)))
    print('\n'.join(columns(edges.COLUMNS, [edges.summary(row, step) for row in rows])))
    print('\n'.join(f'{item.network_input}: {item.time.median_ms:.3f} ms' for item in costs))
    print(path)
    return 0


def _page(options: argparse.Namespace) -> int:
    from depth_node.benchmark import performance_page

    documents = performance_page.documents(performance_page.read_results(options.results))
    for name, text in documents.items():
        write_text_atomically(options.docs / name, text)
        print(options.docs / name)
    return 0


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show progress on a terminal."""
    with tqdm(leave=False, disable=None) as bar:

        def note(text: str, done: int, total: int) -> None:
            bar.set_description(text)
            bar.total = total
            bar.update(done - bar.n)

        yield note


if __name__ == '__main__':
    sys.exit(main())
