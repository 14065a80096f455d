"""A module for inference -> an ONNX graph of fixed size that every engine reads.

The weights lie in the graph, or beside it in a safetensors file that ONNX addresses as external
data; graphs of several input sizes then share one file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.files import regular_file
from depth_node.files import write_atomically

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnx import TensorProto

INPUT_NAME = 'image'
OUTPUT_NAME = 'output'
OPSETS = (18, 20)
STORAGES = ('f32', 'f16')

_LARGEST_SIDE_PX = 8192
_LARGEST_WEIGHTS_BYTES = 8 << 30
_LARGEST_HEADER_BYTES = 16 << 20
_LENGTH_BYTES = 8
# below this a Cast node costs more than the halved numbers save
_SMALLEST_HALVED = 256


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in a file."""

    offset: int
    length: int


def export_onnx(
    module: nn.Module,
    height: int,
    width: int,
    path: Path,
    *,
    weights_file: str | None = None,
    storage: str = 'f32',
    opset: int = 20,
) -> tuple[Path, ...]:
    """Write a module as an ONNX graph with static shapes; prints nothing.

    Input 'image' (1, 3, height, width) float32; output 'output' (1, 1, height, width) or (height,
    width) float32.  Arithmetic is float32 whatever the storage.

    :param module: module for inference, float32, in evaluation mode; see rewrites.linearized.
    :param height: rows of the input, pixels.
    :param width: columns of the input, pixels.
    :param path: file to write; its folder must exist.
    :param weights_file: name of a safetensors file in the same folder for the parameters.  If it
        exists it must hold every parameter already, bit for bit, and is left as it is; buffers
        and other constants, which may depend on the size, always lie in the graph.
    :param storage: 'f32', or 'f16': larger tensors are stored as float16 and cast when loaded.
    :param opset: version of the ONNX operators; below 20 a GELU is written out.
    :returns: the files of the graph: its own, then the weights' if there is one.
    :raises ModelError: for arguments out of range, a module of another kind, weights that float16
        cannot hold, or a weights file that holds others.
    :raises MissingPackage: when onnx or onnxscript is not installed.
    """
    _check_arguments(module, height, width, weights_file, storage, opset)
    model = _traced(module, height, width, opset)
    _check_interface(model, height, width)
    _forget_origin(model)
    if storage == 'f16':
        _halve(model)
    _check_graph(model)
    if weights_file is None:
        write_atomically(path, lambda stream: stream.write(model.SerializeToString()))
        return (path,)
    weights_path = path.with_name(weights_file)
    _move_out(model, {name for name, _ in module.named_parameters()}, weights_path)
    write_atomically(path, lambda stream: stream.write(model.SerializeToString()))
    return path, weights_path


def _check_arguments(
    module: nn.Module,
    height: int,
    width: int,
    weights_file: str | None,
    storage: str,
    opset: int,
) -> None:
    if not (0 < height <= _LARGEST_SIDE_PX and 0 < width <= _LARGEST_SIDE_PX):
        raise ModelError('export', f'{width}x{height} pixels', f'sides of 1 to {_LARGEST_SIDE_PX}')
    if storage not in STORAGES:
        raise ModelError('export storage', quoted(storage), f'one of {", ".join(STORAGES)}')
    if opset not in OPSETS:
        raise ModelError('export opset', quoted(opset), f'one of {OPSETS}')
    if weights_file is not None and Path(weights_file).name != weights_file:
        raise ModelError('export weights file', quoted(weights_file), 'a name without a folder')
    kinds = {value.dtype for value in module.parameters()}
    if module.training or kinds - {torch.float32}:
        raise ModelError(
            'export',
            f'a module in training mode: {module.training}, of types {sorted(map(str, kinds))}',
            'a float32 module in evaluation mode',
            'Use rewrites.linearized(network, height, width).',
        )


def _traced(module: nn.Module, height: int, width: int, opset: int) -> ModelProto:
    """Return the graph of a module as torch's exporter gives it."""
    example = torch.zeros(1, 3, height, width)
    for package in ('onnx', 'onnxscript'):
        with _needing(package):
            __import__(package)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            verbose=False,
        )
    return program.model_proto


@contextlib.contextmanager
def _needing(package: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackage(package, 'writing ONNX', 'pip install onnx onnxscript') from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about packages that are not used here from the user."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


def _check_interface(model: ModelProto, height: int, width: int) -> None:
    inputs, outputs = list(model.graph.input), list(model.graph.output)
    if (len(inputs), len(outputs)) != (1, 1):
        found = f'a module with {len(inputs)} inputs and {len(outputs)} outputs'
        raise ModelError('export', found, 'one input and one output')
    given, made = (1, 3, height, width), ((1, 1, height, width), (height, width))
    if _shape(inputs[0]) != given or _shape(outputs[0]) not in made:
        raise ModelError(
            'export',
            f'a module from {_shape(inputs[0])} to {_shape(outputs[0])}',
            f'the shapes {given} to {made[0]} or {made[1]}',
        )


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(side.dim_value for side in value.type.tensor_type.shape.dim)


def _forget_origin(model: ModelProto) -> None:
    """Remove what names files and lines of the machine that exports."""
    model.ClearField('metadata_props')
    model.ClearField('functions')
    graph = model.graph
    graph.ClearField('metadata_props')
    graph.ClearField('value_info')
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField('metadata_props')
        part.ClearField('doc_string')


def _check_graph(model: ModelProto) -> None:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError('export', quoted(str(error)), 'a graph that onnx accepts') from error


def _halve(model: ModelProto) -> None:
    """Store larger float32 tensors as float16, each with a cast back to float32 behind it."""
    import onnx

    casts = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALLEST_HALVED:
            continue
        half = _as_half(tensor.name, values)
        wide, stored = tensor.name, f'{tensor.name}.f16'
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, stored))
        casts.append(
            onnx.helper.make_node(
                'Cast', [stored], [wide], f'{wide}.cast', to=onnx.TensorProto.FLOAT
            )
        )
    nodes = list(model.graph.node)
    model.graph.ClearField('node')
    model.graph.node.extend((*casts, *nodes))


def _as_half(name: str, values: NDArray[np.float32]) -> NDArray[np.float16]:
    largest = float(np.abs(values).max())
    if not largest <= float(np.finfo(np.float16).max):
        raise ModelError(
            'export with storage f16',
            f'{largest:g} in {quoted(name)}',
            f'numbers up to {np.finfo(np.float16).max:g}',
            'Use storage f32.',
        )
    return values.astype(np.float16)


def _move_out(model: ModelProto, parameters: set[str], weights: Path) -> None:
    """Let the tensors of parameters refer to a safetensors file, which is made if need be."""
    moved = [
        tensor
        for tensor in model.graph.initializer
        if tensor.name.removesuffix('.f16') in parameters
    ]
    if not weights.exists():
        _write_weights(moved, weights)
    places = _places_by_digest(weights)
    for tensor in moved:
        place = places.get(_digest(tensor.raw_data))
        if place is None:
            raise ModelError(
                f'weights file {weights}',
                f'no tensor equal to {quoted(tensor.name)}',
                'the weights of this very module and storage',
                'Remove the file and export every size again.',
            )
        _refer(tensor, weights.name, place)


def _write_weights(tensors: list[TensorProto], weights: Path) -> None:
    import onnx
    from safetensors.numpy import save

    content = save({tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors})
    write_atomically(weights, lambda stream: stream.write(content))


def _places_by_digest(weights: Path) -> dict[str, _Place]:
    """Return where in a safetensors file each tensor lies, by the hash of its bytes.

    :raises ModelError: when the file is damaged.
    """
    regular_file(weights, 'weights file', _LARGEST_WEIGHTS_BYTES)
    content = weights.read_bytes()
    try:
        header, start = _header(content)
        places = [_Place(start + begin, end - begin) for begin, end in _spans(header)]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f'weights file {weights}', quoted(str(error)), 'safetensors') from error
    return {_digest(content[p.offset : p.offset + p.length]): p for p in places}


def _header(content: bytes) -> tuple[Mapping[str, Any], int]:
    length = int.from_bytes(content[:_LENGTH_BYTES], 'little')
    if length > min(_LARGEST_HEADER_BYTES, len(content)):
        raise ValueError(f'a header of {length} bytes')
    header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
    return header, _LENGTH_BYTES + length


def _spans(header: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    for name, entry in header.items():
        if name != '__metadata__':
            begin, end = entry['data_offsets']
            yield int(begin), int(end)


def _refer(tensor: TensorProto, file: str, place: _Place) -> None:
    import onnx

    tensor.ClearField('raw_data')
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (('location', file), ('offset', place.offset), ('length', place.length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
