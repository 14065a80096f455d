"""Turns a trained network into a model folder that engines have agreed to."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from depth_node import model_folder
from depth_node.engines.memory import give_back_freed_memory
from depth_node.engines.memory import let_go_of_files_at
from depth_node.engines.parity import SMALLEST_CONTRAST
from depth_node.engines.parity import TOLERANCES
from depth_node.engines.parity import Disagreement
from depth_node.engines.parity import Golden
from depth_node.engines.parity import contrast_of
from depth_node.engines.selection import ON_CPU
from depth_node.engines.selection import open_engine
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.networks import registry
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.export import export_onnx
from depth_node.networks.half_graph import HalfGraph
from depth_node.networks.half_graph import half_graph
from depth_node.networks.half_graph import in_half
from depth_node.networks.model_weights import network_of
from depth_node.networks.model_weights import rounded
from depth_node.networks.model_weights import save_weights
from depth_node.networks.rewrites import linearized

_WAVES = 64


def make_model(
    network: DepthNetwork,
    card: ModelCard,
    out: Path,
    sizes: Sequence[tuple[int, int]],
    *,
    storage: str = 'f32',
    overwrite: bool = False,
) -> ModelFolder:
    """Write a model folder from a trained network, whole or not at all.

    The golden outputs come from the trained network itself, with its weights as they are stored;
    the graphs come from its rewritten form.  Before the folder takes its name, the engines that
    are installed are held to them.  What was measured goes into the card's metrics as 'parity':
    per size and engine the error, or a sentence that says why the engine does not serve the model.
    An engine may be unable to load it, as long as one can.  It may disagree only if another one
    reads the same graph and agrees, and if the network is one whose output rounding alone can
    carry that far (Traits.tolerance).

    Weights are read where they lie and written one by one: those of a mapped file are in memory
    once, and not at all while the engines are checked.

    :param network: trained network of the registry, images in [0, 1]; it is not changed.
    :param card: what is known of the model; ``inputs``, ``storage`` and ``files`` are filled in
        here, and ``mean`` and ``std`` must be those of the network's specification.
    :param out: folder to make.
    :param sizes: (height, width) of each input size, pixels, the preferred one first.
    :param storage: 'f32', or 'f16' for half the size on disk; the arithmetic is float32 with both.
    :param overwrite: whether an existing model folder may be replaced.
    :returns: the checked folder.
    :raises ModelError: when the card, a size or a weight is refused, or ONNX lacks an operator of
        the network.
    :raises EngineError: when an engine disagrees that may not, or none can load the model.
    :raises MissingPackage: when no engine but torch is installed to check the graphs.
    """
    _check_normalization(card)
    inputs = tuple(_input(*size) for size in sizes)
    # what was measured of an int8 graph belonged to the graphs that are replaced
    metrics = {name: value for name, value in card.metrics.items() if name != 'int8'}
    full_card = replace(card, inputs=inputs, storage=storage, metrics=metrics, files={})
    halves: list[HalfGraph] = []

    def fill(folder: Path) -> None:
        halves.extend(_fill(folder, network, full_card))

    def inspect(folder: ModelFolder) -> ModelCard:
        _let_go(network)
        return _with_parity(folder, halves)

    return model_folder.write(out, full_card, fill, inspect=inspect, overwrite=overwrite)


def remake(folder: ModelFolder) -> ModelFolder:
    """Write a model folder anew from its own weights, with the rewrites of this version.

    :param folder: a checked model; it is replaced as a whole, or stays as it is.
    :returns: the new folder; of its card only the files and the measured parity differ.
    :raises ModelError: when the weights are not those of the network that the card names.
    :raises EngineError: when an engine disagrees that may not.
    """
    card = folder.card
    sizes = [(size.height, size.width) for size in card.inputs]
    network = network_of(folder)
    return make_model(network, card, folder.path, sizes, storage=card.storage, overwrite=True)


def _fill(folder: Path, network: DepthNetwork, card: ModelCard) -> Iterator[HalfGraph]:
    """Write every file of a model but its card; yield what came of float16 at each size."""
    stored = rounded(network, card.storage)
    if card.storage != 'f32':
        _let_go(network)
    save_weights(stored, folder / WEIGHTS_NAME, card.storage)
    written = [WEIGHTS_NAME]
    for size in card.inputs:
        graph = folder / size.graph
        files = export_onnx(
            linearized(stored, size.height, size.width),
            size.height,
            size.width,
            graph,
            weights_file=f'{graph.stem}.safetensors',
            stored_in=written,
            storage=card.storage,
        )
        written.extend(path.name for path in files if path != graph)
        golden = _save_golden(stored, card, size, folder / size.golden)
        half = half_graph(stored, size, folder, golden, written, card.storage)
        written.extend(half.weights)
        yield half


def _let_go(network: DepthNetwork) -> None:
    """Let weights that lie in a mapped file leave memory until they are read again."""
    let_go_of_files_at(value.data_ptr() for value in network.state_dict().values())
    give_back_freed_memory()


def golden_image(height: int, width: int) -> NDArray[np.uint8]:
    """Return the same smooth picture at any size: waves whose amplitude falls with frequency.

    :returns: (H, W, 3) RGB.
    """
    draw = np.random.Generator(np.random.PCG64(20))
    v, u = np.mgrid[0:height, 0:width] / height
    picture = np.zeros((3, height, width))
    for _ in range(_WAVES):
        frequency = np.exp(draw.uniform(np.log(0.4), np.log(24.0)))
        direction, phase = draw.uniform(0, 2 * np.pi, 2)
        wave = np.cos(
            2 * np.pi * frequency * (u * np.cos(direction) + v * np.sin(direction)) + phase
        )
        color = 1 + 0.4 * draw.standard_normal(3)
        picture += color[:, None, None] * wave / frequency
    low, high = picture.min(), picture.max()
    levels = np.rint(255.0 * (picture - low) / (high - low)).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(1, 2, 0))


def _input(height: int, width: int) -> InputSpec:
    """Name the files of one input size."""
    size = f'{width}x{height}'
    return InputSpec(height, width, f'graph_{size}.onnx', f'golden_{size}.safetensors')


def _check_normalization(card: ModelCard) -> None:
    """Refuse a card whose normalisation is not the one that the graphs leave out."""
    traits = registry.spec(card.network).variants[card.variant]
    if (card.mean, card.std) != (traits.mean, traits.std):
        raise ModelError(
            f'card of {card.name}',
            f'mean {card.mean} and std {card.std}',
            f'those of {card.network} {card.variant}, {traits.mean} and {traits.std}',
        )


def _save_golden(network: DepthNetwork, card: ModelCard, size: InputSpec, path: Path) -> Golden:
    """Write a picture and what the trained network makes of it; return both for the engines."""
    picture = golden_image(size.height, size.width)
    image = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255.0
    with torch.inference_mode():
        outputs = network(image)
    full_size = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
    output: NDArray[np.float32] = full_size[0, 0].contiguous().numpy()
    if not np.isfinite(output).all() or contrast_of(output) < SMALLEST_CONTRAST:
        raise ModelError(
            f'network {card.network}',
            'an output that is not finite or nearly the same everywhere',
            'the output of a trained network',
        )
    save_file({'image': picture, 'output': output}, path)
    return Golden(network.normalized(image).contiguous().numpy(), output)


def _with_parity(folder: ModelFolder, halves: Sequence[HalfGraph]) -> ModelCard:
    """Run every installed engine and return the card with the errors that were measured."""
    card = folder.card
    inputs = tuple(
        replace(size, graph_f16=half.name) for size, half in zip(card.inputs, halves, strict=True)
    )
    parity = {
        f'{size.width}x{size.height}': {**_parity(folder, size), **in_half(folder, size, half)}
        for size, half in zip(inputs, halves, strict=True)
    }
    return replace(card, inputs=inputs, metrics={**card.metrics, 'parity': parity})


def _parity(folder: ModelFolder, size: InputSpec) -> dict[str, float | str | None]:
    """Return the error of every installed engine at one size, or why it does not serve the model.

    :returns: by engine in f32, and for openvino in bf16: None where that does not work.
    :raises EngineError: as :func:`make_model` does.
    """
    found: dict[str, float | str | None] = {}
    disagreements: list[Disagreement] = []
    for name in ON_CPU:
        try:
            found[f'{name} f32'] = _measured(folder, size, name, 'f32')
        except MissingPackage:
            continue
        except EngineError as error:
            found[f'{name} f32'] = str(error).replace(f'{folder.path}/', '')
            if isinstance(error, Disagreement):
                disagreements.append(error.with_traceback(None))
    if set(found) <= {'torch f32'}:
        raise MissingPackage('openvino', 'checking the exported graph', 'pip install openvino')
    agreeing = {name for name, error in found.items() if isinstance(error, float)}
    if disagreements and (_is_strict(folder.card) or agreeing <= {'torch f32'}):
        raise disagreements[0]
    if not agreeing:
        reasons = ' '.join(str(reason) for reason in found.values())
        raise EngineError(f'model {folder.card.name}', f'no engine that works ({reasons})', 'one')
    try:
        found['openvino bf16'] = _measured(folder, size, 'openvino', 'bf16')
    except (EngineError, MissingPackage):
        found['openvino bf16'] = None
    return found


def _is_strict(card: ModelCard) -> bool:
    """Tell whether rounding alone keeps every engine far below the largest error that passes."""
    traits = registry.spec(card.network).variants[card.variant]
    return traits.tolerance <= TOLERANCES['f32', 'f32'] / 10


def _measured(folder: ModelFolder, size: InputSpec, name: str, precision: str) -> float:
    """Return the error of one engine, rounded to three digits, and free its memory."""
    try:
        engine, _ = open_engine(folder, size, engine=name, precision=precision, threads=0)
        error = engine.info.parity_error
        engine.close()
        del engine
    finally:
        give_back_freed_memory()
    return float(f'{error:.3g}')
