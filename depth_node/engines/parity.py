"""Comparison of an engine with the stored outputs of the trained network, whenever one is opened.

A library, a driver or a processor that computes something else is found before the first frame.
The error is max |engine - golden| / std(golden), over all pixels of one natural-looking image.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.engines import Engine
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder

TOLERANCES = {
    ('f32', 'f32'): 1e-3,
    ('f32', 'f16'): 1e-2,
    ('f16', 'f32'): 0.1,
    ('f16', 'f16'): 0.1,
    ('bf16', 'f32'): 0.15,
    ('bf16', 'f16'): 0.15,
}
"""Largest error that passes, by precision of the arithmetic and storage of the weights.

f16: the bundled model is off by 3e-3, networks with drawn weights by 6e-3 (Monodepth2) to 6e-2
(BEiT-B at 384x384), and what overflows by infinity; a network that exceeds it (DPT-Hybrid with
drawn weights: 0.4) is too delicate for float16 and gets no such graph.  bf16 has three bits less.
"""

_INT8_MARGIN = 1.5
"""How much larger than when it was made the error of an int8 graph may be.  What quantising costs
depends on the network, so no one figure would do.  Other instructions change it by up to a tenth,
16-bit sums that overflow (x86 without VNNI, weights of 8 bits) by up to nine tenths."""

SMALLEST_CONTRAST = 1e-4
"""Least standard deviation of a golden output, in units of its largest magnitude."""
_RELIABLE_CONTRAST = 1e-2

_REMEDIES = {
    'int8': 'Set model.precision to f32, or quantise the model for this processor: '
    'python -m depth_node.tools.models quantize MODEL RECORDING --weight-bits 7',
}


class Disagreement(EngineError):
    """An engine that runs a model and gives something else than the trained network."""


@dataclass(frozen=True)
class Golden:
    """An image and what the trained network makes of it."""

    image: NDArray[np.float32]
    """(1, 3, H, W), normalised as the card says."""
    output: NDArray[np.float32]
    """(H, W), the network's own output."""
    int8_error: float | None = None
    """Error of the int8 graph when it was made, as this file's head defines it; None: no graph."""


def read_golden(folder: ModelFolder, size: InputSpec) -> Golden:
    """Read the stored pair of one input size.

    :raises ModelError: when it has other names, shapes or dtypes, values that are not finite, or
        an output without any contrast, which no engine could be compared with.
    :raises MissingPackage: when safetensors is not installed.
    """
    path = folder.file(size.golden)
    arrays = _read_arrays(folder, size)
    wanted = {
        'image': ((size.height, size.width, 3), 'uint8'),
        'output': ((size.height, size.width), 'float32'),
    }
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    if found != wanted:
        raise ModelError(str(path), quoted(found), f'arrays {wanted}')
    if not np.isfinite(arrays['output']).all():
        raise ModelError(str(path), 'values that are not finite', 'finite values')
    golden = Golden(
        _normalized(arrays['image'], folder), arrays['output'], int8_error=size.int8_error
    )
    if contrast_of(golden.output) < SMALLEST_CONTRAST:
        raise ModelError(
            str(path),
            'an output that is nearly the same everywhere',
            'the output of a trained network',
        )
    return golden


def _normalized(image: NDArray[Any], folder: ModelFolder) -> NDArray[np.float32]:
    """Return (H, W, 3) RGB bytes as (1, 3, H, W), normalised as the card says."""
    mean = np.array(folder.card.mean, np.float32)
    std = np.array(folder.card.std, np.float32)
    normalized = (image.astype(np.float32) / np.float32(255.0) - mean) / std
    return np.ascontiguousarray(normalized.transpose(2, 0, 1)[np.newaxis])


def contrast_of(output: NDArray[np.float32]) -> float:
    """Return the standard deviation of an output in units of its largest magnitude."""
    largest = float(np.abs(output).max())
    return float(output.std(dtype=np.float64)) / largest if largest > 0 else 0.0


def parity_error(engine: Engine, golden: Golden) -> float:
    """Return the error of an engine; see :func:`error_of`."""
    return error_of(engine.infer(golden.image), golden)


def error_of(output: NDArray[np.float32], golden: Golden) -> float:
    """Return the error of an output as this file's head defines it; infinite where it is NaN.

    The deviation counts as at least one percent of the largest magnitude: the output of a hardly
    trained network is nearly flat, and float32 rounding would be all that is compared.
    """
    deviation = float(np.abs(golden.output).max()) * max(
        contrast_of(golden.output), _RELIABLE_CONTRAST
    )
    error = float(np.abs(output - golden.output).max()) / deviation
    return error if np.isfinite(error) else float('inf')


def tolerance_of(precision: str, storage: str, golden: Golden) -> float:
    """Return the largest error that passes, standard deviations.

    :param precision: of the arithmetic.
    :param storage: that of the model's card.
    :raises ModelError: for an int8 graph whose error was not measured when it was made.
    """
    if precision != 'int8':
        return TOLERANCES[precision, storage]
    if golden.int8_error is None:
        raise ModelError(
            'model card', 'no int8_error', 'one for each int8 graph', _REMEDIES['int8']
        )
    return _INT8_MARGIN * golden.int8_error


def check_parity(engine: Engine, golden: Golden, storage: str) -> None:
    """Compare an engine with the golden pair and note the error in its info.

    :param storage: that of the model's card; graphs of f16 models are rounded once more than the
        network that gave the golden output.
    :raises Disagreement: when they differ by more than the tolerance.
    :raises EngineError: when the engine fails.
    """
    tolerance = tolerance_of(engine.info.precision, storage, golden)
    error = parity_error(engine, golden)
    if error > tolerance:
        raise Disagreement(
            f'engine {engine.info.name} {engine.info.version} ({engine.info.precision})',
            f'an output that is off by {error:.2g} standard deviations from the stored one',
            f'at most {tolerance:.3g}',
            _REMEDIES.get(engine.info.precision, 'Use another engine for this model.'),
        )
    engine.info = replace(engine.info, parity_error=error)


def _read_arrays(folder: ModelFolder, size: InputSpec) -> dict[str, NDArray[Any]]:
    """Read a safetensors file with numpy alone."""
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise MissingPackage(
            'safetensors', 'reading golden outputs', 'pip install safetensors'
        ) from error
    path = folder.file(size.golden)
    try:
        arrays: dict[str, NDArray[Any]] = safetensors.numpy.load(path.read_bytes())
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ModelError(
            str(path), f'no safetensors file ({quoted(str(error))})', "'image' and 'output'"
        ) from error
    return arrays
