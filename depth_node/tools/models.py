"""Lists, shows, imports, quantises and builds models: ``... depth_node.tools.models list``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from depth_node import model_folder
from depth_node.engines.build_process import serve_the_node
from depth_node.engines.rehearsal import rehearse
from depth_node.engines.rehearsal import usual_plan
from depth_node.engines.selection import ORDER
from depth_node.engines.selection import PRECISIONS
from depth_node.engines.selection import open_engine
from depth_node.engines.selection import precision_for
from depth_node.errors import DepthNodeError
from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.model_folder.card import FITS
from depth_node.model_folder.card import STORAGES
from depth_node.quantization.judging import Judgement
from depth_node.quantization.quantize import QuantizeSettings
from depth_node.quantization.quantize import quantize

_HEADINGS = ('NAME', 'NETWORK', 'SIZES', 'PRECISIONS', 'METRIC', 'LICENCE OF WEIGHTS')
_INT8_HEADINGS = (
    'SIZE', 'MEDIAN ERROR', '95 % BELOW', 'LARGEST', 'GOLDEN', 'F32', 'INT8', 'FASTER BY', 'ADDED',
)  # fmt: skip
_WIDEST_CELL = 48


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :returns: exit status: 0, 1 with a sentence on the error stream, 130 on Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == 'list':
            print(_installed_table(_rows()))
        elif options.command == 'show':
            print(_description(options.model))
        elif options.command == 'sources':
            print(_sources())
        elif options.command == 'remake':
            print(_remade(options.model))
        elif options.command == 'quantize':
            print(_quantized(options))
        elif options.command == 'build':
            print(_built(options))
        else:
            print(_imported(options))
    except KeyboardInterrupt:
        print('models: stopped', file=sys.stderr)
        return 130
    except DepthNodeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    parser = argparse.ArgumentParser(prog='python -m depth_node.tools.models', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('list', help='show the installed models')
    show = commands.add_parser('show', help='describe a model and check its files')
    show.add_argument('model', help='name of an installed model, or a path with a /')
    take = commands.add_parser(
        'import', help='make a model folder from files as the authors released them'
    )
    take.add_argument('network', help='kind of network, e.g. lite-mono')
    take.add_argument(
        'path',
        type=Path,
        help='the file, or the folder with the files (encoder.pth, depth.pth), as released',
    )
    take.add_argument('-o', '--out', type=Path, required=True, help='model folder to make')
    take.add_argument('--variant', help='where the file does not tell, e.g. v2-outdoor')
    take.add_argument('--height', type=int, help='rows of the input; default: as trained')
    take.add_argument('--width', type=int, help='columns of the input; default: as trained')
    take.add_argument('--fit', choices=FITS, help='how images are fitted; default: as trained')
    take.add_argument('--storage', choices=STORAGES, default='f32', help='type on disk')
    take.add_argument('--overwrite', action='store_true', help='replace a model of that name')
    again = commands.add_parser(
        'remake', help='make the graphs of a model again from its weights, after an update'
    )
    again.add_argument('model', help='name of an installed model, or a path with a /')
    _add_quantize(commands)
    build = commands.add_parser(
        'build', help='build an engine for this machine into the cache, and check it'
    )
    build.add_argument('model', help='name of an installed model, or a path with a /')
    build.add_argument('--engine', default='tensorrt', choices=ORDER, help='default: tensorrt')
    build.add_argument('--precision', default='auto', choices=PRECISIONS, help='default: auto')
    build.add_argument('--size', help='WIDTHxHEIGHT of the input; default: the first of the model')
    build.add_argument('--threads', type=int, default=0, help='0 (default): the engine decides')
    build.add_argument('--target', help='compute capability of another GPU (tensorrt-rtx only)')
    build.add_argument('--for-node', action='store_true', help=argparse.SUPPRESS)
    commands.add_parser('sources', help='say where authors publish their checkpoints')
    return parser


def _add_quantize(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command that quantises."""
    small = commands.add_parser(
        'quantize',
        help='experimental: make a copy of a model that also runs in int8, judged by a recording',
    )
    small.add_argument('model', help='name of an installed model, or a path with a /')
    small.add_argument('recording', type=Path, help='rosbag2 folder, .mcap, .db3 or .bag file')
    small.add_argument('--name', help='of the copy, or its path with a /; default: MODEL-int8')
    default = QuantizeSettings()
    small.add_argument('--images', type=int, default=default.images, help='taken in all')
    small.add_argument('--topic', help='of the images, where there are several cameras')
    small.add_argument(
        '--limit',
        type=float,
        default=default.limit,
        help=f'largest median relative depth error; default: {default.limit:g}',
    )
    small.add_argument(
        '--weight-bits',
        type=int,
        default=default.weight_bits,
        help='7 (default), or 8 for processors with VNNI alone: the sums of others overflow',
    )
    small.add_argument('--threads', type=int, default=default.threads, help='of the processor')


def _rows() -> list[tuple[str, ...]]:
    """Return one row per installed model; a broken card becomes a row that says so."""
    rows: list[tuple[str, ...]] = []
    for name, path in sorted(model_folder.installed().items()):
        try:
            card = model_folder.read_card(path)
        except ModelError as error:
            rows.append((name, '-', '-', '-', '-', f'refused: {error}'))
            continue
        sizes = ' '.join(f'{size.width}x{size.height}' for size in card.inputs)
        metric = 'yes' if card.is_metric else 'no'
        network = f'{card.network} {card.variant}'
        rows.append((name, network, sizes, _precisions(card), metric, card.weights_license))
    return rows


def _precisions(card: ModelCard) -> str:
    """Name the precisions for which every size of a model has a graph."""
    return ' '.join(
        name
        for name in card.inputs[0].precisions
        if all(name in size.precisions for size in card.inputs)
    )


def _installed_table(rows: list[tuple[str, ...]]) -> str:
    """Lay out the installed models."""
    if not rows:
        return 'No models are installed. Point DEPTH_NODE_MODELS to a folder of model folders.'
    return _table(_HEADINGS, rows)


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Lay rows out under headings."""
    lines = [headings, *(tuple(_cut(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cut(cell: str) -> str:
    """Shorten a cell of the table to one line."""
    line = ' '.join(cell.split())
    return line if len(line) <= _WIDEST_CELL else line[: _WIDEST_CELL - 3] + '...'


def _description(name_or_path: str) -> str:
    """Describe a model in plain words, after its files have been checked."""
    folder = model_folder.read(model_folder.find(name_or_path))
    card = folder.card
    total_mb = sum(record.size_bytes for record in card.files.values()) / 1e6
    lines = [
        f'{card.name}: {card.network}, variant {card.variant}',
        f'Folder: {folder.path}',
        f'Files: {len(card.files)}, {total_mb:.1f} MB, all as the card records them.',
        'Input sizes: ' + ', '.join(f'{size.width}x{size.height}' for size in card.inputs),
        f'Precisions: {_precisions(card)}, and bf16 where the processor has it',
        f'Images are fitted by: {card.fit}',
        _meaning(card),
        f'Licence of the weights: {card.weights_license}',
    ]
    for label, text in (
        ('Source', card.source),
        ('Made from', card.parent),
        ('Trained on', card.training_data),
        ('Notes', card.notes),
    ):
        if text:
            lines.append(f'{label}: {text.strip()}')
    return '\n'.join([*lines, *_figures(card.metrics, 'Measured')])


def _meaning(card: ModelCard) -> str:
    """Say what a user may do with the output."""
    if card.output.kind == 'relative':
        return 'Output: relative inverse depth; it has no metres until it is given a scale.'
    if card.focal_px is None:
        return (
            'Output: depth without a known scale; metres only after the scale has been measured '
            '(depth.scale).'
        )
    return (
        f'Output: metres, up to {card.output.max_depth_m * card.depth_scale:g} m, '
        f'for cameras of any focal length (trained at {card.focal_px:g} px).'
    )


def _figures(value: object, label: str, depth: int = 0) -> list[str]:
    """Write nested figures as indented lines."""
    indent = '  ' * depth
    if not isinstance(value, dict):
        return [f'{indent}{label}: {value}']
    if not value:
        return []
    inner = [line for key, item in value.items() for line in _figures(item, key, depth + 1)]
    return [f'{indent}{label}:', *inner]


def _imported(options: argparse.Namespace) -> str:
    """Make a model folder from released files."""
    # torch and the networks are needed for this command alone
    from depth_node.networks.importing import import_released

    size = (options.height, options.width)
    if (size[0] is None) != (size[1] is None):
        raise ModelError('import', 'one of --height and --width', 'both or none')
    folder = import_released(
        options.network,
        options.path,
        options.out,
        variant=options.variant,
        size=None if size[0] is None else size,
        fit=options.fit,
        storage=options.storage,
        overwrite=options.overwrite,
    )
    card = folder.card
    sizes = ', '.join(f'{size.width}x{size.height}' for size in card.inputs)
    return (
        f'{folder.path}: {card.network} {card.variant} at {sizes}, all engines agree.\n'
        f'Licence of the weights: {card.weights_license}'
    )


def _remade(name_or_path: str) -> str:
    """Make the graphs of a model again."""
    from depth_node.networks.make_model import remake

    before = model_folder.read(model_folder.find(name_or_path))
    folder = remake(before)
    done = f'{folder.path}: made again from its weights, all engines agree.'
    if all(size.graph_int8 is None for size in before.card.inputs):
        return done
    return (
        f'{done}\nIts graphs in int8 belonged to the old ones and are gone; make them anew: '
        'python -m depth_node.tools.models quantize MODEL RECORDING'
    )


def _quantized(options: argparse.Namespace) -> str:
    """Make a copy of a model that also runs in int8."""
    from tqdm import tqdm

    source = model_folder.find(options.model)
    folder = model_folder.read(source)
    name = options.name or f'{folder.card.name}-int8'
    out = Path(name).expanduser() if os.sep in name else source.parent / name
    settings = QuantizeSettings(
        images=options.images,
        topic=options.topic,
        limit=options.limit,
        weight_bits=options.weight_bits,
        threads=options.threads,
    )
    with tqdm(unit='image', disable=None, leave=False) as bar:

        def show(step: str, done: int, total: int) -> None:
            bar.desc, bar.total = step, total
            bar.update(done - bar.n)

        def report(judgements: Sequence[Judgement]) -> None:
            bar.clear()
            print(_table(_INT8_HEADINGS, [_int8_row(found) for found in judgements]), flush=True)

        made = quantize(folder, options.recording, out, settings, report=report, progress=show)
    return (
        f'{made.path}: made. int8 is experimental; it is used where model.name is '
        f'{made.card.name} and model.precision is int8.'
    )


def _int8_row(found: Judgement) -> tuple[str, ...]:
    """Return the figures of one input size."""
    errors = (found.median_error, found.p95_error, found.max_error)
    return (
        f'{found.width}x{found.height}',
        *(f'{100 * error:.2g} %' for error in errors),
        f'{found.golden_error:.2g}',
        f'{found.f32_ms:.1f} ms',
        f'{found.int8_ms:.1f} ms',
        f'{found.speed_ratio:.2f}',
        f'{found.added_bytes / 1e6:.2f} MB',
    )


def _built(options: argparse.Namespace) -> str:
    """Build an engine, open it and hold it to the golden output; say how it goes."""
    if options.for_node:
        serve_the_node()
    logging.basicConfig(stream=sys.stdout, format='%(message)s')
    logging.getLogger('depth_node').setLevel(logging.INFO)
    began_s = time.monotonic()
    folder = model_folder.read(model_folder.find(options.model))
    size = _size_of(folder.card, options.size)
    if options.target is not None:
        return _built_for(options, folder, size)
    engine, notes = open_engine(
        folder,
        size,
        engine=options.engine,
        precision=options.precision,
        threads=options.threads,
    )
    rehearse(engine, usual_plan(folder.card, size))
    info = engine.info
    engine.close()
    return '\n'.join([
        *notes,
        f'{info.name} {info.version} {info.precision} on {info.device}: differs by '
        f'{info.parity_error:.2g} standard deviations from the trained network; '
        f'{time.monotonic() - began_s:.1f} s',
    ])  # fmt: skip


def _built_for(options: argparse.Namespace, folder: ModelFolder, size: InputSpec) -> str:
    """Build the plan for a GPU that this machine need not have."""
    from depth_node.engines.tensorrt_engine import build_only

    precision = precision_for(options.engine, size, options.precision)
    loaded = build_only(
        folder, size, target=options.target, precision=precision, threads=options.threads
    )
    words = f'tensorrt {precision} for {options.target}: {len(loaded.plan) / 1e6:.1f} MB'
    return '\n'.join([*loaded.notes, f'{words}, {loaded.origin}'])


def _size_of(card: ModelCard, wanted: str | None) -> InputSpec:
    """Return the input size that was asked for."""
    if wanted is None:
        return card.inputs[0]
    sizes = {f'{size.width}x{size.height}': size for size in card.inputs}
    if wanted not in sizes:
        raise ModelError(
            f'model {card.name}', f'size {quoted(wanted)}', f'one of {", ".join(sizes)}'
        )
    return sizes[wanted]


def _sources() -> str:
    """Say where each known checkpoint is published, under which licence, with which figures."""
    from depth_node.networks import registry

    lines = []
    for name in registry.names():
        spec = registry.spec(name)
        lines += [f'{name}: {spec.paper}', f'  licence of the weights: {spec.weights_license}']
        for release in spec.releases:
            figures = ', '.join(f'{key} {value:g}' for key, value in release.figures.items())
            lines.append(f'  {release.name} ({release.identity.variant})')
            lines.append(f'    from: {release.source or "never released"}')
            if figures:
                lines.append(f'    published: {figures} ({release.protocol})')
        lines.append('')
    lines.append(
        'Fetch a file yourself, then: python -m depth_node.tools.models import NETWORK FILE'
    )
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
