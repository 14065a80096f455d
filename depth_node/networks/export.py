"""A module for inference -> an ONNX graph of fixed size that every engine reads.

An ONNX file is a protobuf message and ends at 2 GiB.  So the numbers of a network lie beside the
graph, in safetensors files that ONNX addresses as external data: in files that are there already
where they hold the very same bytes, otherwise in a file of the graph's own.  No tensor is copied
on the way but the one that is being written.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import nn

from depth_node.errors import DepthNodeError
from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.files import write_atomically
from depth_node.networks.tensor_files import LazyArray
from depth_node.networks.tensor_files import Place
from depth_node.networks.tensor_files import StoredTensors
from depth_node.networks.tensor_files import write_tensors

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT_NAME = 'image'
OUTPUT_NAME = 'output'
OPSETS = (18, 20)
STORAGES = ('f32', 'f16')

_LARGEST_SIDE_PX = 8192
_LARGEST_EMBEDDED_BYTES = 1 << 30
# a smaller tensor is not worth the entry that refers to it
_SMALLEST_MOVED_BYTES = 1 << 10
# below this a Cast node costs more than the halved numbers save
_SMALLEST_HALVED = 256
_SHOWN_CHARACTERS = 300


def export_onnx(
    module: nn.Module,
    height: int,
    width: int,
    path: Path,
    *,
    weights_file: str | None = None,
    stored_in: Sequence[str] = (),
    storage: str = 'f32',
    rounded_from: Mapping[str, Tensor] | None = None,
    opset: int = 20,
) -> tuple[Path, ...]:
    """Write a module as an ONNX graph with static shapes; prints nothing.

    Input 'image' (1, 3, height, width) float32; output 'output' (1, 1, height, width) or (height,
    width) float32.  Arithmetic is that of the module whatever the storage.

    :param module: module for inference in evaluation mode; see rewrites.linearized and
        half.halved.
    :param height: rows of the input, pixels.
    :param width: columns of the input, pixels.
    :param path: file to write; its folder must exist.
    :param weights_file: name of a new safetensors file in the same folder for the tensors of a
        kilobyte or more that lie in no file of ``stored_in``; not made when there are none.
        Without it all tensors lie in the graph, and may have 1 GiB.
    :param stored_in: names of safetensors files in the same folder; what they hold already, bit
        for bit, is read from there.
    :param storage: 'f32', or 'f16': larger tensors are stored as float16 and cast when loaded.
    :param rounded_from: the float32 numbers that float16 weights of the module were rounded from,
        by their names there: stored instead of them and rounded when loaded, so that a graph in
        float16 can share them with one in float32.
    :param opset: version of the ONNX operators; below 20 a GELU is written out.
    :returns: the files that were written: the graph, then its weights if there is a file of them.
    :raises ModelError: for arguments out of range, a module of another kind or with operators that
        ONNX lacks, or weights that float16 cannot hold.
    :raises MissingPackage: when onnx or onnxscript is not installed.
    """
    _check_arguments(module, height, width, storage, opset)
    _check_names(path, weights_file, stored_in)
    model = _traced(module, height, width, opset)
    _store_wide(model, rounded_from or {})
    if storage == 'f16':
        _halve(model)
    written: tuple[Path, ...] = ()
    if weights_file is None:
        _check_embedded(model)
    else:
        stored = StoredTensors([path.with_name(name) for name in stored_in])
        written = _move_out(model, stored, path.with_name(weights_file))
    try:
        _write_graph(model, height, width, path)
    except BaseException:
        for made in (path, *written):
            made.unlink(missing_ok=True)
        raise
    return (path, *written)


def _check_arguments(module: nn.Module, height: int, width: int, storage: str, opset: int) -> None:
    if not (0 < height <= _LARGEST_SIDE_PX and 0 < width <= _LARGEST_SIDE_PX):
        raise ModelError('export', f'{width}x{height} pixels', f'sides of 1 to {_LARGEST_SIDE_PX}')
    if storage not in STORAGES:
        raise ModelError('export storage', quoted(storage), f'one of {", ".join(STORAGES)}')
    if opset not in OPSETS:
        raise ModelError('export opset', quoted(opset), f'one of {OPSETS}')
    kinds = {value.dtype for value in module.parameters()}
    if module.training or kinds - {torch.float32, torch.float16}:
        raise ModelError(
            'export',
            f'a module in training mode: {module.training}, of types {sorted(map(str, kinds))}',
            'a module of float32 and float16 in evaluation mode',
            'Use rewrites.linearized(network, height, width).',
        )


def _check_names(path: Path, weights_file: str | None, stored_in: Sequence[str]) -> None:
    for name in (*([] if weights_file is None else [weights_file]), *stored_in):
        if Path(name).name != name:
            raise ModelError('export weights file', quoted(name), 'a name without a folder')
    if weights_file is not None and path.with_name(weights_file).exists():
        raise ModelError(
            'export weights file',
            f'{quoted(weights_file)}, which is there already',
            'a new name',
            'Other graphs may read it.',
        )


def _traced(module: nn.Module, height: int, width: int, opset: int) -> Any:
    """Return the graph of a module as an onnxscript.ir.Model whose tensors are the module's."""
    example = torch.zeros(1, 3, height, width)
    for package in ('onnx', 'onnxscript'):
        with _needing(package):
            __import__(package)
    from onnxscript import optimizer

    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                verbose=False,
                optimize=False,
            )
            optimizer.optimize_ir(program.model, should_fold=_may_fold)
    # The exporter runs the module and meets every operator of it: anything may come out.
    except Exception as error:
        raise _export_failure(error) from error
    return program.model


def _may_fold(node: Any) -> bool | None:
    """Keep the transposition of a matrix, which engines undo for nothing, from being carried out.

    The matrix then is the one of the weights file.  None leaves the choice to the optimiser.
    """
    if node.op_type != 'Transpose':
        return None
    given = node.inputs[0].const_value
    return False if given is not None and given.nbytes >= _SMALLEST_MOVED_BYTES else None


def _export_failure(error: BaseException) -> DepthNodeError:
    """Return what the module itself raised, or the exporter's innermost reason on one line."""
    while error.__cause__ is not None and not isinstance(error, DepthNodeError):
        error = error.__cause__
    if isinstance(error, DepthNodeError):
        return error
    cause = repr(' '.join(str(error).split()))[:_SHOWN_CHARACTERS]
    return ModelError('export', f'a failure ({cause})', 'a network of operators that ONNX has')


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


def _halve(model: Any) -> None:
    """Store larger float32 tensors as float16, each with a cast back to float32 behind it."""
    from onnxscript import ir

    first = next(iter(model.graph))
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor.dtype != ir.DataType.FLOAT or tensor.size < _SMALLEST_HALVED:
            continue
        _check_half(name, tensor.numpy())
        _read_through_cast(model, value, _half_of(name, tensor), first)


def _store_wide(model: Any, originals: Mapping[str, Tensor]) -> None:
    """Store the float32 numbers of larger float16 tensors, each with a cast behind it."""
    from onnxscript import ir

    first = next(iter(model.graph))
    for name, value in list(model.graph.initializers.items()):
        tensor, original = value.const_value, originals.get(name)
        is_half = tensor.dtype == ir.DataType.FLOAT16
        if original is None or not is_half or tensor.size < _SMALLEST_HALVED:
            continue
        array = original.detach().numpy()
        if not np.array_equal(array.astype(np.float16), tensor.numpy()):
            raise AssertionError(f'{name} was not rounded from what is given')
        stored = ir.Value(
            name=f'{name}.f32', shape=tensor.shape, type=ir.TensorType(ir.DataType.FLOAT)
        )
        stored.const_value = ir.Tensor(array, name=stored.name)
        _read_through_cast(model, value, stored, first)


def _read_through_cast(model: Any, value: Any, stored: Any, first: Any) -> None:
    """Let a graph read an initializer as a cast of another one, before its ``first`` node."""
    from onnxscript import ir

    name, kind = value.name, value.const_value.dtype
    cast = ir.node('Cast', [stored], {'to': kind}, name=f'{name}.cast')
    result = cast.outputs[0]
    result.shape, result.type = value.shape, value.type
    value.replace_all_uses_with(result)
    value.const_value = None
    del model.graph.initializers[name]
    result.name = name
    model.graph.initializers.add(stored)
    model.graph.insert_before(first, cast)


def _half_of(name: str, tensor: Any) -> Any:
    """Return an initializer that rounds a tensor when it is written."""
    from onnxscript import ir

    half = ir.DataType.FLOAT16
    stored = ir.Value(name=f'{name}.f16', shape=tensor.shape, type=ir.TensorType(half))
    stored.const_value = ir.LazyTensor(
        lambda: ir.Tensor(tensor.numpy().astype(np.float16)), half, tensor.shape, name=stored.name
    )
    return stored


def _check_half(name: str, values: NDArray[np.float32]) -> None:
    largest = float(max(values.max(), -values.min()))
    if not largest <= float(np.finfo(np.float16).max):
        raise ModelError(
            'export with storage f16',
            f'{largest:g} in {quoted(name)}',
            f'numbers up to {np.finfo(np.float16).max:g}',
            'Use storage f32.',
        )


def _check_embedded(model: Any) -> None:
    total = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    if total > _LARGEST_EMBEDDED_BYTES:
        raise ModelError(
            'export',
            f'{total} bytes of weights inside the graph',
            f'at most {_LARGEST_EMBEDDED_BYTES}',
            'Give a weights_file.',
        )


def _move_out(model: Any, stored: StoredTensors, weights: Path) -> tuple[Path, ...]:
    """Let large tensors refer to safetensors files; return the file that was made, if any."""
    places: dict[str, Place] = {}
    new: dict[str, LazyArray] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor.nbytes < _SMALLEST_MOVED_BYTES:
            continue
        array = np.ascontiguousarray(tensor.numpy())
        place = stored.find(array)
        if place is None:
            new[name] = LazyArray(array.dtype.name, array.shape, tensor.numpy)
        else:
            places[name] = place
    if new:
        places.update(write_tensors(weights, new))
    for name, place in places.items():
        _refer(model.graph.initializers[name], place)
    return (weights,) if new else ()


def _refer(value: Any, place: Place) -> None:
    """Let an initializer refer to a tensor of a file in the folder of the graph."""
    from onnxscript import ir

    tensor = value.const_value
    value.const_value = ir.ExternalTensor(
        place.path.name,
        place.offset,
        place.length,
        tensor.dtype,
        shape=tensor.shape,
        name=value.name,
        base_dir=place.path.parent,
    )


def _write_graph(model: Any, height: int, width: int, path: Path) -> None:
    """Write a graph, and let onnx check it where it lies, its weights beside it."""
    from onnxscript import ir

    proto = ir.to_proto(model)
    for value in model.graph.initializers.values():
        # the optimiser's rules remember the last graph that they saw
        value.const_value = None
    _check_interface(proto, height, width)
    _forget_origin(proto)
    content = proto.SerializeToString()
    del proto
    write_atomically(path, lambda stream: stream.write(content))
    _check_graph(path)


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


def _check_graph(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError('export', quoted(str(error)), 'a graph that onnx accepts') from error
