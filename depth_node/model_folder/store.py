"""Where installed models lie, and how a name becomes a folder."""

from __future__ import annotations

import os
from pathlib import Path

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder.card import CARD_NAME
from depth_node.model_folder.card import is_plain_name
from depth_node.share import share_folders

_VARIABLE = 'DEPTH_NODE_MODELS'
_LIST_COMMAND = 'python -m depth_node.tools.models list'


def find(name_or_path: str) -> Path:
    """Return the folder of a model.

    :param name_or_path: a name, which is looked up in the places of :func:`installed` and never
        below the current folder, or a path, which contains a '/'.
    :raises ModelError: when there is none; the text lists the names that are there.
    """
    if '\0' in name_or_path:
        raise ModelError('model', quoted(name_or_path), 'a name or a path without NUL')
    if os.sep in name_or_path:
        path = _with_home(name_or_path)
        if path is not None and _has_card(path):
            return path
        raise ModelError(
            'model', quoted(name_or_path), f'a folder with a {CARD_NAME}', f'Try: {_LIST_COMMAND}'
        )
    there = installed()
    if name_or_path in there:
        return there[name_or_path]
    remedy = f'Run: {_LIST_COMMAND}'
    if is_plain_name(name_or_path) and _has_card(Path(name_or_path)):
        remedy = f'For the folder of that name here, give the path ./{name_or_path}'
    names = 'one of ' + ', '.join(sorted(there)) if there else 'a model, but none is installed'
    raise ModelError('model', quoted(name_or_path), names, remedy)


def installed() -> dict[str, Path]:
    """Return the installed model folders by name, unchecked: folders with a plain name and a card.

    Places, the first one wins: the folders of ``DEPTH_NODE_MODELS``, then ``models`` below each of
    :func:`depth_node.share.share_folders`.
    """
    there: dict[str, Path] = {}
    for place in _places():
        folders = sorted(place.iterdir()) if place.is_dir() else []
        for folder in folders:
            if is_plain_name(folder.name) and _has_card(folder):
                there.setdefault(folder.name, folder)
    return there


def _with_home(text: str) -> Path | None:
    """Return a path with '~' filled in; None where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return None


def _has_card(folder: Path) -> bool:
    """Tell whether a folder has a card; one that cannot be looked into has none."""
    try:
        return (folder / CARD_NAME).is_file()
    except OSError:  # a name that is too long, or a folder of somebody else
        return False


def _places() -> list[Path]:
    """List the folders in which models may be installed."""
    given = os.environ.get(_VARIABLE, '').split(os.pathsep)
    return [
        *(Path(place) for place in given if place),
        *(folder / 'models' for folder in share_folders()),
    ]
