"""Start models for fine-tunings in tests: the bundled one at one size, its scale changed."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from depth_node import model_folder
from depth_node.finetuning.learning import Learned
from depth_node.finetuning.preparation import Preparation
from depth_node.finetuning.settings import FineTuneSettings
from depth_node.finetuning.start_model import StartModel
from depth_node.model_folder import ModelFolder
from depth_node.networks.model_weights import rounded
from depth_node.networks.model_weights import save_weights

_BUNDLED = 'lite-mono-small-world'
_LEFT_OUT = '352x192'
_WEIGHTS = 'weights.safetensors'


def scaled_start(out: Path, factor: float) -> ModelFolder:
    """Write the bundled model with its depth multiplied by ``factor``; nothing is exported."""
    bundled = model_folder.read(model_folder.find(_BUNDLED))
    card = replace(
        bundled.card,
        name='start',
        inputs=bundled.card.inputs[:1],
        depth_scale=bundled.card.depth_scale * factor,
    )

    def fill(folder: Path) -> None:
        for name in bundled.card.files:
            if _LEFT_OUT not in name:
                shutil.copyfile(bundled.path / name, folder / name)

    return model_folder.write(out, card, fill)


def exported_without_graphs(
    start: StartModel,
    made: Learned,
    preparation: Preparation,
    settings: FineTuneSettings,
    out: Path,
) -> ModelFolder:
    """Stand in for ``learning.exported``, which takes ten seconds: the weights are those that were
    learned, the graphs are still those of the start, so that judging finds no difference."""
    network = rounded(made.made.network.to('cpu'), start.folder.card.storage)

    def fill(folder: Path) -> None:
        for name in start.folder.card.files:
            shutil.copyfile(start.folder.path / name, folder / name)
        (folder / _WEIGHTS).unlink()
        save_weights(network, folder / _WEIGHTS, start.folder.card.storage)

    return model_folder.write(out, start.folder.card, fill, overwrite=True)


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def command(recording: Path, out: Path, model: Path, **options: Any) -> list[str]:
    """Return the words of a command line; a list is an option with several words."""
    words = [str(recording), '--out', str(out), '--model', str(model)]
    for name, value in options.items():
        given = value if isinstance(value, list) else [value]
        words += [f'--{name.replace("_", "-")}', *map(str, given)]
    return words
