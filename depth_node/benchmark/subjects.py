"""What is measured: a model folder, or a network of the registry with random weights.

Random weights hide nothing where every layer matters (``conformance.fill``), and the time of a
network does not depend on them; so no checkpoint is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from depth_node import model_folder
from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder import ModelFolder

Size = tuple[int, int]
_ROUNDED = (
    'weights stored in float16: exported graphs have those that rewrites change rounded twice'
)
_LARGEST_EXACT = 300_000_000
"""Parameters up to which a network is also computed in float64, which takes twice its memory."""


@dataclass(frozen=True)
class Subject:
    """A model that is ready to be opened, and what is known of it."""

    model: str
    """As it was asked for: 'network:variant', or name or path of a model folder."""
    network: str = ''
    """Name in the registry."""
    variant: str = ''
    """Of the network."""
    height: int = 0
    """Rows of the input, pixels; 0 where it could not be made."""
    width: int = 0
    """Columns of the input, pixels."""
    parameters: int | None = None
    """Trained numbers; None where torch is missing."""
    macs: int | None = None
    """Multiply-accumulates of one image, as trained; None where torch is missing."""
    random_weights: bool = False
    """Whether the weights are random, so that errors are those of an untrained network."""
    folder: str = ''
    """The model folder."""
    input_index: int = 0
    """Of the size in the card."""
    has_int8: bool = False
    """Whether it has a graph in int8."""
    exact: str = ''
    """.npy file of the float64 output for the golden picture; empty: none."""
    note: str = ''
    """What has to be said of its errors, such as why there are none; empty: nothing."""
    failure: str = ''
    """Why there is nothing to measure; empty where there is."""

    def opened(self) -> ModelFolder:
        """Read the model folder."""
        return model_folder.read(Path(self.folder))


def size_from(text: str) -> Size:
    """Read 'WIDTHxHEIGHT' as (height, width).

    :raises ModelError: for anything else.
    """
    width, _, height = text.partition('x')
    if not (width.isdigit() and height.isdigit()):
        raise ModelError('option --size', quoted(text), 'WIDTHxHEIGHT, e.g. 640x192')
    return int(height), int(width)


def prepared(model: str, size: Size | None, out: Path) -> Subject:
    """Make a subject: find or build the model folder, compute it in float64, count its cost.

    Imports torch where it is installed: to be called in a process of its own.

    :param model: 'network:variant' of the registry, or name or path of a model folder.
    :param size: (height, width) of the input; None: as the model prefers it.
    :param out: folder to work in; it must stay as long as the subject is used.
    :raises DepthNodeError: when there is no such model or size, or it cannot be made.
    """
    network, colon, variant = model.partition(':')
    if colon and '/' not in model:
        from depth_node.benchmark.random_models import random_model

        made = random_model(network, variant, size, out / 'model')
        return _described(model, made, 0, out, random_weights=True)
    found = model_folder.read(model_folder.find(model))
    return _described(model, found, _index_of(found, size), out, random_weights=False)


def _index_of(folder: ModelFolder, size: Size | None) -> int:
    """Return which input of a card has a size."""
    sizes = [(item.height, item.width) for item in folder.card.inputs]
    if size is None:
        return 0
    if size not in sizes:
        listed = ', '.join(f'{width}x{height}' for height, width in sizes)
        raise ModelError(
            f'model {folder.card.name}', f'a request for {size[1]}x{size[0]}', f'one of {listed}'
        )
    return sizes.index(size)


def _described(
    model: str, folder: ModelFolder, index: int, out: Path, *, random_weights: bool
) -> Subject:
    """Add cost and float64 output where torch is there to compute them."""
    card = folder.card
    size = card.inputs[index]
    parameters: int | None = None
    macs: int | None = None
    exact, note = '', _ROUNDED if card.storage == 'f16' else ''
    try:
        from depth_node.benchmark import exactness

        parameters, macs = exactness.cost_of(folder, size)
        if parameters <= _LARGEST_EXACT:
            exactness.write_exact(folder, size, out / 'exact.npy')
            exact = str(out / 'exact.npy')
        else:
            note = f'float64 was left out: {parameters} parameters'
    except ModuleNotFoundError as error:
        note = f'float64 needs the package {error.name}'
    except (MissingPackage, ModelError) as error:
        note = str(error)
    return Subject(
        model=model,
        network=card.network,
        variant=card.variant,
        height=size.height,
        width=size.width,
        parameters=parameters,
        macs=macs,
        random_weights=random_weights,
        folder=str(folder.path),
        input_index=index,
        has_int8=size.graph_int8 is not None,
        exact=exact,
        note=note,
    )
