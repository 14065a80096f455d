"""Where the figures of the bundled model go: result file, page, pictures and card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from depth_node import model_folder
from depth_node.benchmark import bundled_page
from depth_node.benchmark import result
from depth_node.benchmark.bundled import PROTOCOL
from depth_node.benchmark.bundled import DataRow
from depth_node.benchmark.bundled import Measured
from depth_node.benchmark.bundled import Plan
from depth_node.benchmark.bundled_picture import jpeg
from depth_node.benchmark.bundled_picture import sheet
from depth_node.benchmark.flicker import NOISE
from depth_node.files import write_atomically
from depth_node.files import write_text_atomically
from depth_node.pretraining.notes import notes_of

NAME = 'bundled.json'
_NO_DATA = ('parity', 'int8')
"""What stands in the metrics of a card and is no data set."""


def write(
    path: Path, docs: Path, plan: Plan, measured: Measured, record: Mapping[str, Any] | None
) -> None:
    """Write result file, page, plot and pictures.

    :param path: of the result file; where it is of the same weights and no record is given, its
        record of the training stays.
    :param docs: folder of the page; what was written by hand in the page that is there stays.
    """
    known = _known_record(path, measured) if record is None else [record]
    further: dict[str, Sequence[object]] = {
        'model': [measured.model],
        'figures': measured.figures,
        'speed': measured.speed,
        'training': known,
    }
    result.write_result(
        path, 'bundled', PROTOCOL, _conditions(plan, measured), measured.rows, further
    )
    docs.mkdir(parents=True, exist_ok=True)
    if measured.shown:
        data = jpeg(sheet(measured.shown))
        write_atomically(docs / bundled_page.PICTURE, lambda stream: stream.write(data))
    write_page(path, docs)


def write_page(path: Path, docs: Path) -> None:
    """Write the page and its plot from the result file, and the verdict into the README beside."""
    page = docs / bundled_page.PAGE
    there = page.read_text(encoding='utf-8') if page.is_file() else ''
    content = json.loads(path.read_text(encoding='utf-8'))
    for name, text in bundled_page.documents(content, there).items():
        write_text_atomically(docs / name, text)
    readme = docs.parent / 'README.md'
    if readme.is_file():
        there = readme.read_text(encoding='utf-8')
        told = bundled_page.in_readme(content, there)
        if told != there:
            write_text_atomically(readme, told)


def write_card(folder: Path, rows: Sequence[DataRow]) -> None:
    """Put the figures into the card of a model; its other files stay as they are.

    :raises ModelError: when the folder is no checked model.
    """
    there = model_folder.read(folder)
    found = {row.data: _for_card(row) for row in rows}
    kept = {name: value for name, value in there.card.metrics.items() if name in _NO_DATA}
    card = replace(there.card, metrics={**found, **kept}, notes=notes_of(found))

    def fill(new: Path) -> None:
        for name in there.card.files:
            shutil.copyfile(there.path / name, new / name)

    model_folder.write(there.path, card, fill, overwrite=True)


def _for_card(row: DataRow) -> dict[str, float]:
    known = row.constants
    figures = {
        'abs_rel': row.metric['abs_rel'],
        'abs_rel_median_scaled': row.scaled['abs_rel'],
        'a1_median_scaled': row.scaled['a1'],
        'abs_rel_image_median': known['median_abs_rel'],
        'abs_rel_best_constant': known['abs_rel'],
        'abs_rel_rows': known['rows_abs_rel'],
        'abs_rel_rows_median_scaled': known['rows_scaled_abs_rel'],
        'flicker': row.flicker.typical,
        'views': float(row.frames),
    }
    return {name: round(value, 4) for name, value in figures.items()}


def _conditions(plan: Plan, measured: Measured) -> dict[str, object]:
    return {
        'before': Path(plan.before).name,
        'frames': plan.frames,
        'views': plan.views,
        'rendered': f'{plan.size[1]}x{plan.size[0]}',
        'seed': plan.seed,
        'noise': NOISE,
        'still': plan.still,
        'picture': bool(measured.shown),
    }


def _known_record(path: Path, measured: Measured) -> list[dict[str, Any]]:
    """Return the record of the training that an earlier result of the same weights holds."""
    if not path.is_file():
        return []
    there = json.loads(path.read_text(encoding='utf-8'))
    same = there['model'][0]['weights_sha256'] == measured.model['weights_sha256']
    return list(there['training']) if same else []
