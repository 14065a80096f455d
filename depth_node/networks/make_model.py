"""Turns a trained network into a model folder that every engine has agreed to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import nn

from depth_node import model_folder
from depth_node.engines.parity import SMALLEST_CONTRAST
from depth_node.engines.parity import contrast_of
from depth_node.engines.selection import ORDER
from depth_node.engines.selection import open_engine
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.networks import registry
from depth_node.networks.export import export_onnx
from depth_node.networks.model_weights import rounded
from depth_node.networks.model_weights import save_weights
from depth_node.networks.rewrites import linearized

_SHARED_WEIGHTS = 'graph_weights.safetensors'
_WAVES = 64


def make_model(
    network: nn.Module,
    card: ModelCard,
    out: Path,
    sizes: Sequence[tuple[int, int]],
    *,
    storage: str = 'f32',
    overwrite: bool = False,
) -> ModelFolder:
    """Write a model folder from a trained network, whole or not at all.

    The golden outputs come from the trained network itself, with its weights as they are stored;
    the graphs come from its rewritten form.  Before the folder takes its name, every engine that
    is installed must agree with them; what was measured goes into the card's metrics as 'parity'.

    :param network: trained network of the registry, images in [0, 1]; it is not changed.
    :param card: what is known of the model; ``inputs``, ``storage`` and ``files`` are filled in
        here, and ``mean`` and ``std`` must be those of the network's specification.
    :param out: folder to make.
    :param sizes: (height, width) of each input size, pixels, the preferred one first.
    :param storage: 'f32', or 'f16' for half the size on disk; the arithmetic is float32 with both.
    :param overwrite: whether an existing model folder may be replaced.
    :returns: the checked folder.
    :raises ModelError: when the card, a size or a weight is refused.
    :raises EngineError: when an engine disagrees with the network.
    :raises MissingPackage: when no engine but torch is installed to check the graphs.
    """
    _check_normalization(card)
    stored = rounded(network, storage)
    inputs = tuple(_input(*size) for size in sizes)
    full_card = replace(card, inputs=inputs, storage=storage, files={})

    def fill(folder: Path) -> None:
        save_weights(stored, folder / WEIGHTS_NAME, storage)
        shared = _SHARED_WEIGHTS if len(full_card.inputs) > 1 else None
        for size in full_card.inputs:
            plain = linearized(stored, size.height, size.width)
            target = folder / size.graph
            export_onnx(
                plain, size.height, size.width, target, weights_file=shared, storage=storage
            )
            _save_golden(stored, full_card, size, folder / size.golden)

    return model_folder.write(out, full_card, fill, inspect=_with_parity, overwrite=overwrite)


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
    spec = registry.spec(card.network)
    if (card.mean, card.std) != (spec.mean, spec.std):
        raise ModelError(
            f'card of {card.name}',
            f'mean {card.mean} and std {card.std}',
            f'those of {spec.name}, {spec.mean} and {spec.std}',
        )


def _save_golden(network: nn.Module, card: ModelCard, size: InputSpec, path: Path) -> None:
    """Write a picture and what the trained network makes of it."""
    picture = golden_image(size.height, size.width)
    with torch.inference_mode():
        outputs = network(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255.0)
    full_size = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
    output: NDArray[np.float32] = full_size[0, 0].contiguous().numpy()
    if not np.isfinite(output).all() or contrast_of(output) < SMALLEST_CONTRAST:
        raise ModelError(
            f'network {card.network}',
            'an output that is not finite or nearly the same everywhere',
            'the output of a trained network',
        )
    save_file({'image': picture, 'output': output}, path)


def _with_parity(folder: ModelFolder) -> ModelCard:
    """Run every installed engine and return the card with the errors that were measured."""
    card = folder.card
    parity = {f'{size.width}x{size.height}': _parity(folder, size) for size in card.inputs}
    return replace(card, metrics={**card.metrics, 'parity': parity})


def _parity(folder: ModelFolder, size: InputSpec) -> dict[str, float | None]:
    """Return the error of every installed engine at one size, in f32 and, where it works, bf16."""
    errors: dict[str, float | None] = {}
    for name in ORDER:
        try:
            errors[f'{name} f32'] = _measured(folder, size, name, 'f32')
        except MissingPackage:
            continue
    if set(errors) <= {'torch f32'}:
        raise MissingPackage('openvino', 'checking the exported graph', 'pip install openvino')
    try:
        errors['openvino bf16'] = _measured(folder, size, 'openvino', 'bf16')
    except (EngineError, MissingPackage):
        errors['openvino bf16'] = None
    return errors


def _measured(folder: ModelFolder, size: InputSpec, name: str, precision: str) -> float:
    """Return the error of one engine, rounded to three digits."""
    engine, _ = open_engine(folder, size, engine=name, precision=precision, threads=0)
    error = engine.info.parity_error
    engine.close()
    return float(f'{error:.3g}')
