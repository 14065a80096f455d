"""A model on disk: card.yaml, weights.safetensors, one ONNX graph per input size, golden outputs.

Every file is named in the card with its SHA-256 and size and is checked before anything parses it;
a file that the card does not name, or a link that leads out of the folder, is refused.  So an ONNX
graph can only reach data that was checked too: external data lies beside the graph, under a name
of the card (engines/graph_files.py holds graphs to that).

A model is trusted as far as its card is: the hashes find damage and mixed-up files, they do not
say who made the model.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.files import sha256_of
from depth_node.files import sync
from depth_node.files import write_text_atomically
from depth_node.model_folder.card import CARD_NAME
from depth_node.model_folder.card import LARGEST_CARD_BYTES
from depth_node.model_folder.card import FileRecord
from depth_node.model_folder.card import ModelCard
from depth_node.model_folder.card import card_from_yaml
from depth_node.model_folder.card import card_to_yaml
from depth_node.model_folder.card import check_card
from depth_node.model_folder.card import check_files
from depth_node.model_folder.card import is_plain_name
from depth_node.model_folder.integrity import check_recorded
from depth_node.model_folder.integrity import check_regular

_ORPHAN_AGE_S = 3600.0


@dataclass(frozen=True)
class ModelFolder:
    """A model whose files have been checked against its card."""

    path: Path
    """The folder in which the files really lie."""
    card: ModelCard
    """What is known of the model."""

    def file(self, name: str) -> Path:
        """Return the path of one of the checked files.

        :raises ModelError: when the card does not name it.
        """
        if name not in self.card.files:
            names = ', '.join(sorted(self.card.files))
            raise ModelError(str(self.path), f'a request for {quoted(name)}', f'one of {names}')
        return self.path / name


def read(path: Path) -> ModelFolder:
    """Read a model's card and check every file of the folder against it.

    :param path: the model folder, or links to its files as a symlinked install makes them: the
        folder that counts is the one in which the card really lies.
    :raises ModelError: when the card is refused, or a file is missing, empty, damaged, truncated,
        a link, a Git LFS pointer, a web page, or not named in the card.
    """
    root = _real_folder(path)
    card = read_card(root)
    _check_listing(root, card)
    for name, record in card.files.items():
        check_recorded(root / name, record)
    return ModelFolder(root, card)


def read_card(path: Path) -> ModelCard:
    """Read and check the card of a model folder, and none of the other files.

    :raises ModelError: when there is no card or it is refused.
    """
    place = _real_folder(path) / CARD_NAME
    check_regular(place, LARGEST_CARD_BYTES)
    try:
        text = place.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ModelError(str(place), f'no UTF-8 text ({error.reason})', 'a card') from error
    card = card_from_yaml(text, str(place))
    check_files(card, str(place))
    return card


def write(
    folder: Path,
    card: ModelCard,
    fill: Callable[[Path], None],
    *,
    inspect: Callable[[ModelFolder], ModelCard] | None = None,
    overwrite: bool = False,
) -> ModelFolder:
    """Write a model folder whole or not at all.

    Everything happens in a hidden folder beside the target, which takes the target's name in one
    step at the end; a failure leaves nothing behind and the target as it was.  Replacing a folder
    takes two steps: a machine that stops between them leaves the old one as ``.NAME.*.old``.

    :param folder: the folder to make; its parent is made where needed.
    :param card: the card; its ``files`` are replaced by what ``fill`` has made.
    :param fill: makes every file but the card in the folder that it is given.
    :param inspect: looks at the finished folder, still under its temporary name, and returns the
        final card (e.g. with measured figures); the files must stay as they are.
    :param overwrite: whether an existing model folder may be replaced.
    :raises ModelError: when the target is there and may not be replaced, is no model folder, or
        the card is refused.
    """
    _check_target(folder, overwrite)
    check_card(card, str(folder / CARD_NAME))
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep_orphans(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', suffix='.tmp', dir=folder.parent))
    try:
        fill(temporary)
        for path in temporary.iterdir():
            path.chmod(0o644)  # some libraries write for their own user alone
        records = _records(temporary)
        _write_card(temporary, replace(card, files=records))
        if inspect is not None:
            _write_card(temporary, replace(inspect(read(temporary)), files=records))
        checked = read(temporary)
        temporary.chmod(0o755)
        _put_in_place(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return replace(checked, path=folder.resolve())


def _real_folder(path: Path) -> Path:
    """Return the folder in which the card of ``path`` really lies."""
    try:
        return (path / CARD_NAME).resolve(strict=True).parent
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            str(path), f'no {CARD_NAME}', f'a model folder with a {CARD_NAME}'
        ) from error


def _check_listing(root: Path, card: ModelCard) -> None:
    """Refuse a folder with other files than the card names."""
    present = {entry.name for entry in root.iterdir()} - {CARD_NAME}
    for trouble, names in (
        ('no file', sorted(set(card.files) - present)),
        ('the unlisted file', sorted(present - set(card.files))),
    ):
        if names:
            shown = ', '.join(quoted(name) for name in names[:10])
            raise ModelError(
                str(root),
                f'{trouble} {shown}',
                f'exactly the files that {CARD_NAME} lists',
                'Get the whole model anew, into a folder of its own.',
            )


def _check_target(folder: Path, overwrite: bool) -> None:
    """Refuse a target that may not be made or replaced."""
    if not is_plain_name(folder.name):
        raise ModelError('model folder', quoted(folder.name), 'letters, digits and . _ + -')
    if not folder.is_symlink() and not folder.exists():
        return
    if not overwrite:
        raise ModelError(
            str(folder), 'a folder that is already there', 'a new one', 'Take another name.'
        )
    if folder.is_symlink() or not (folder / CARD_NAME).is_file():
        raise ModelError(str(folder), 'something that is no model folder', 'a model to replace')


def _sweep_orphans(folder: Path) -> None:
    """Remove what killed writers of the same name left behind; a living one is younger."""
    for orphan in folder.parent.glob(f'.{folder.name}.*.tmp'):
        if time.time() - orphan.stat().st_mtime > _ORPHAN_AGE_S:
            shutil.rmtree(orphan, ignore_errors=True)


def _records(folder: Path) -> dict[str, FileRecord]:
    """Record every file of a folder that has no card yet."""
    entries = sorted(folder.iterdir())
    return {entry.name: FileRecord(sha256_of(entry), entry.stat().st_size) for entry in entries}


def _write_card(folder: Path, card: ModelCard) -> None:
    """Write a card that :func:`read_card` will accept."""
    check_card(card, str(folder / CARD_NAME))
    check_files(card, str(folder / CARD_NAME))
    write_text_atomically(folder / CARD_NAME, card_to_yaml(card))


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Give the finished folder its name; an old one steps aside first and back on failure."""
    for entry in temporary.iterdir():
        sync(entry)
    sync(temporary)
    if folder.exists():
        aside = Path(f'{temporary}.old')
        os.rename(folder, aside)
        try:
            os.rename(temporary, folder)
        except OSError:
            os.rename(aside, folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(temporary, folder)
    sync(folder.parent)
