"""Models as they are judged: through the pipeline, so that what is measured is what is published.

The one difference to the node: ``depth.edge_step`` is 0.  The node forgets pixels that may hang
between two surfaces; here every pixel has to stand for itself, or a model could hide its worst.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from depth_node import model_folder
from depth_node.camera import CameraView
from depth_node.files import sha256_of
from depth_node.frames import CameraImage
from depth_node.frames import OutputFrame
from depth_node.model_folder import CARD_NAME
from depth_node.pipeline import Pipeline
from depth_node.settings import Settings
from depth_node.settings import settings_from

EDGE_STEP_NOTE = (
    'Depth is what the node publishes, but for depth.edge_step = 0: no pixel is left out at edges.'
)


@dataclass(frozen=True, eq=False)
class ModelUnderTest:
    """A model that turns one image after the other into depth."""

    name: str
    """What it is called beside the others."""
    relative: bool
    """Whether it gives relative inverse depth."""
    process: Callable[[CameraImage, CameraView], OutputFrame]
    """The arrays of the result are valid until the next call."""
    sha256: str = ''
    """Of its card; empty: unknown."""
    engine: str = ''
    """What runs it."""


@contextmanager
def opened_models(
    names: Sequence[str], *, engine: str = '', precision: str = ''
) -> Iterator[tuple[ModelUnderTest, ...]]:
    """Open several models at once; they are closed with the ``with`` block.

    :param names: of installed models, or paths of model folders.
    :param engine: parameter model.engine; empty for its default.
    :param precision: parameter model.precision; empty for its default.
    :raises ModelError: when one is missing or damaged.
    :raises EngineError: when no engine runs it.
    """
    pipelines: list[Pipeline] = []
    try:
        models = []
        for name, shown in zip(names, _shown(names), strict=True):
            settings = _settings(name, engine, precision)
            folder = model_folder.read(model_folder.find(settings.model.name))
            pipelines.append(Pipeline(folder, settings))
            models.append(_under_test(shown, folder.path, pipelines[-1], settings))
        yield tuple(models)
    finally:
        for pipeline in pipelines:
            pipeline.close()


def is_model_folder(path: str) -> bool:
    """Tell whether a path leads to a folder with a card."""
    return (Path(path) / CARD_NAME).is_file()


def _under_test(name: str, path: Path, pipeline: Pipeline, settings: Settings) -> ModelUnderTest:
    info = pipeline.engine_info
    return ModelUnderTest(
        name=name,
        relative=pipeline.card.output.kind == 'relative',
        process=lambda image, view: pipeline.process(image, view, settings),
        sha256=sha256_of(path / CARD_NAME),
        engine=f'{info.name} {info.precision}',
    )


def _settings(name: str, engine: str, precision: str) -> Settings:
    path = name if os.sep in name or not is_model_folder(name) else f'.{os.sep}{name}'
    values: dict[str, str | float] = {'model.name': path, 'depth.edge_step': 0.0}
    values |= {'model.engine': engine} if engine else {}
    values |= {'model.precision': precision} if precision else {}
    return settings_from(values)


def _shown(names: Sequence[str]) -> list[str]:
    """Return the last parts of the paths, or the paths where these are not distinct."""
    short = [Path(name).name or name for name in names]
    if len(set(short)) == len(names):
        return short
    return [f'{name} ({number})' for number, name in enumerate(names, start=1)]
