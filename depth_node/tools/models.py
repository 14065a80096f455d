"""Lists, shows and imports models: ``python -m depth_node.tools.models list``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from depth_node import model_folder
from depth_node.errors import DepthNodeError
from depth_node.errors import ModelError
from depth_node.model_folder import ModelCard
from depth_node.model_folder import OutputSpec
from depth_node.model_folder.card import FITS
from depth_node.model_folder.card import STORAGES

_HEADINGS = ('NAME', 'NETWORK', 'SIZES', 'METRIC', 'LICENCE OF WEIGHTS')
_WIDEST_CELL = 48


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0, or 1 with a sentence on the error stream."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == 'list':
            print(_table(_rows()))
        elif options.command == 'show':
            print(_description(options.model))
        else:
            print(_imported(options))
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
    take.add_argument('--encoder', type=Path, required=True, help='encoder.pth')
    take.add_argument('--depth', type=Path, required=True, help='depth.pth')
    take.add_argument('-o', '--out', type=Path, required=True, help='model folder to make')
    take.add_argument('--height', type=int, help='rows of the input; default: as trained')
    take.add_argument('--width', type=int, help='columns of the input; default: as trained')
    take.add_argument('--fit', choices=FITS, default='native', help='how images are fitted')
    take.add_argument('--storage', choices=STORAGES, default='f32', help='type on disk')
    take.add_argument('--overwrite', action='store_true', help='replace a model of that name')
    return parser


def _rows() -> list[tuple[str, ...]]:
    """Return one row per installed model; a broken card becomes a row that says so."""
    rows: list[tuple[str, ...]] = []
    for name, path in sorted(model_folder.installed().items()):
        try:
            card = model_folder.read_card(path)
        except ModelError as error:
            rows.append((name, '-', '-', '-', f'refused: {error}'))
            continue
        sizes = ' '.join(f'{size.width}x{size.height}' for size in card.inputs)
        metric = 'yes' if card.is_metric else 'no'
        network = f'{card.network} {card.variant}'
        rows.append((name, network, sizes, metric, card.weights_license))
    return rows


def _table(rows: list[tuple[str, ...]]) -> str:
    """Lay rows out under the headings."""
    if not rows:
        return 'No models are installed. Point DEPTH_NODE_MODELS to a folder of model folders.'
    lines = [_HEADINGS, *(tuple(_cut(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
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
    from depth_node.networks import registry
    from depth_node.networks.checkpoint import load_released
    from depth_node.networks.make_model import make_model

    spec = registry.spec(options.network)
    released = load_released(spec, {'encoder': options.encoder, 'depth': options.depth})
    height, width = _size(options, released.training_size)
    published = [
        dataclasses.asdict(figures)
        for figures in spec.published
        if (figures.variant, figures.height, figures.width) == (released.variant, height, width)
    ]
    card = ModelCard(
        name=options.out.name,
        network=spec.name,
        variant=released.variant,
        output=OutputSpec(spec.output_kind),
        inputs=(),
        fit=options.fit,
        mean=spec.mean,
        std=spec.std,
        options=released.options,
        weights_license=spec.weights_license,
        source=f'{spec.paper}; weights as released by the authors ({spec.origin})',
        metrics={'published by the authors, not measured here': published[0]} if published else {},
        notes=_IMPORT_NOTES,
    )
    folder = make_model(
        released.network,
        card,
        options.out,
        [(height, width)],
        storage=options.storage,
        overwrite=options.overwrite,
    )
    return f'{folder.path}: {spec.name} {released.variant} at {width}x{height}, all engines agree.'


_IMPORT_NOTES = (
    'Trained without a metric scale: the authors scale every image by its true median before they '
    'measure. The images of training had nearly the aspect of the network, so images of another '
    'aspect are cropped rather than squeezed.'
)


def _size(options: argparse.Namespace, trained: tuple[int, int] | None) -> tuple[int, int]:
    """Return (height, width) as asked for, or as trained."""
    height, width = trained or (None, None)
    height, width = options.height or height, options.width or width
    if height is None or width is None:
        raise ModelError(
            'import', 'files that do not carry their training size', 'a size',
            'Give --height and --width.',
        )  # fmt: skip
    return height, width


if __name__ == '__main__':
    sys.exit(main())
