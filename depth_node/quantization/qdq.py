"""An ONNX graph in float32 -> the same graph with convolutions in int8.

A quantised convolution reads numbers of 8 bits through a pair of QuantizeLinear and
DequantizeLinear, with one scale and zero point for the whole tensor, and its weights, symmetric,
with one scale per output channel, through a DequantizeLinear.  Libraries fuse these pairs into
integer arithmetic.  All else stays as it is, above all what was measured not to pay: attention,
normalisation, the convolution that reads the image (its few weights carry the brightness of the
whole picture), and those into a channel or two, at the end.

Rounding a tensor whose values crowd at one spot, as those behind an ELU do at -1, shifts all of
them the same way; so each convolution has its mean error per output channel taken off its bias.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.files import write_atomically
from depth_node.networks.tensor_files import LazyArray
from depth_node.networks.tensor_files import Place
from depth_node.networks.tensor_files import StoredTensors
from depth_node.networks.tensor_files import write_tensors

if TYPE_CHECKING:
    from onnx import GraphProto
    from onnx import ModelProto
    from onnx import NodeProto
    from onnx import TensorProto

WEIGHT_BITS = (7, 8)
"""With 8 the sums of pairs of products overflow on x86 processors without VNNI, which then compute
something else: three times the error was measured.  With 7 they fit, all processors agree within a
few percent, and the error is at most a quarter larger."""

_FEWEST_CHANNELS = 8
# a smaller tensor is not worth the entry that refers to it
_SMALLEST_MOVED_BYTES = 1 << 10
_SPATIAL_AXES = 'quantization.axes'


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value that a tensor was seen to have."""

    low: float
    high: float

    @property
    def scale(self) -> np.float32:
        """Return the width of one of 255 steps; 0 is always one of their borders."""
        width = (max(self.high, 0.0) - min(self.low, 0.0)) / 255.0
        return np.float32(width if width > 0.0 else 1.0)

    @property
    def zero_point(self) -> np.uint8:
        """Return the step that stands for 0."""
        return np.uint8(np.clip(round(-min(self.low, 0.0) / float(self.scale)), 0, 255))


@dataclass(frozen=True)
class Kernel:
    """The weights of a convolution in int8."""

    values: NDArray[np.int8]
    """(O, I, ...) as in the float graph."""
    scales: NDArray[np.float32]
    """(O,) weight = value * scale."""


def kernel_of(weights: NDArray[np.float32], bits: int) -> Kernel:
    """Round weights symmetrically, one scale per output channel.

    :param weights: (O, I, ...).
    :param bits: of :data:`WEIGHT_BITS`.
    """
    largest = (1 << (bits - 1)) - 1
    top = np.abs(weights.reshape(len(weights), -1)).max(axis=1)
    scales = np.where(top > 0.0, top / np.float32(largest), np.float32(1.0)).astype(np.float32)
    steps = np.rint(weights / scales.reshape(-1, *[1] * (weights.ndim - 1)))
    return Kernel(np.clip(steps, -largest, largest).astype(np.int8), scales)


class FloatGraph:
    """A graph of a model, and its convolutions that are worth quantising.

    :param path: ONNX file; tensors that lie in other files are read when they are needed.
    :param bits: of the int8 weights, one of :data:`WEIGHT_BITS`.
    :raises ModelError: when no convolution is worth it.
    :raises MissingPackage: when onnx is not installed.
    """

    def __init__(self, path: Path, bits: int) -> None:
        onnx = _onnx()
        self._folder = path.parent
        self._model: ModelProto = onnx.load(str(path), load_external_data=False)
        graph = self._model.graph
        self._stored: dict[str, TensorProto] = {item.name: item for item in graph.initializer}
        self._makers: dict[str, NodeProto] = {o: node for node in graph.node for o in node.output}
        self._kernels: dict[str, Kernel] = {}
        self.convolutions: tuple[str, ...] = tuple(
            node.output[0] for node in graph.node if self._is_worth_it(node, bits)
        )
        """Names of what the quantised convolutions give."""
        if not self.convolutions:
            raise ModelError(
                str(path), 'no convolution that is worth quantising', 'a convolutional network'
            )
        givers = [self._makers[name].input[0] for name in self.convolutions]
        self.given: tuple[str, ...] = tuple(dict.fromkeys(givers))
        """Names of the tensors that they read, each once."""

    def with_extremes(self) -> ModelProto:
        """Return a graph whose outputs are the extremes of each of ``given``: low, high, ..."""
        return self._probe(
            [], [(kind, name) for name in self.given for kind in ('ReduceMin', 'ReduceMax')]
        )

    def with_both(self, ranges: Mapping[str, Range]) -> ModelProto:
        """Return a graph that computes each convolution of float32 inputs in both ways.

        Its outputs are the means per channel, (1, O), in the order of ``convolutions``: of what
        float32 gives, then of what int8 gives.
        """
        nodes: list[NodeProto] = []
        for name in self.given:
            nodes += self._rounding(name, ranges[name])
        means = []
        for name in self.convolutions:
            nodes.append(self._convolution(name, made=f'{name}.int8'))
            means += [('ReduceMean', name), ('ReduceMean', f'{name}.int8')]
        return self._probe([*self._kernel_nodes(), *nodes], means)

    def quantized(
        self, ranges: Mapping[str, Range], shifts: Mapping[str, NDArray[np.float32]]
    ) -> ModelProto:
        """Return the graph in int8.

        :param ranges: of each of ``given``.
        :param shifts: (O,) added to the bias of each of ``convolutions``.
        """
        model = self._copy()
        rounded: set[str] = set()
        nodes = self._kernel_nodes()
        for node in self._model.graph.node:
            name = node.output[0]
            if name not in shifts:
                nodes.append(node)
                continue
            if node.input[0] not in rounded:
                rounded.add(node.input[0])
                nodes += self._rounding(node.input[0], ranges[node.input[0]])
            nodes += self._shifted(name, shifts[name])
        _fill(model.graph, nodes)
        return model

    def _is_worth_it(self, node: NodeProto, bits: int) -> bool:
        """Tell whether a node is a convolution to quantise; its weights are rounded then."""
        if node.op_type != 'Conv':
            return False
        weights = self._constant(node.input[1])
        groups = next((item.i for item in node.attribute if item.name == 'group'), 1)
        if weights is None or min(len(weights), groups * weights.shape[1]) < _FEWEST_CHANNELS:
            return False
        if len(node.input) > 2 and self._constant(node.input[2]) is None:
            return False
        self._kernels.setdefault(node.input[1], kernel_of(weights, bits))
        return True

    def _constant(self, name: str) -> NDArray[np.float32] | None:
        """Return a tensor that the graph holds, also one that is cast from float16."""
        maker = self._makers.get(name)
        if maker is not None and maker.op_type == 'Cast':
            name = maker.input[0]
        stored = self._stored.get(name)
        if stored is None:
            return None
        from onnx import numpy_helper

        array = numpy_helper.to_array(stored, base_dir=str(self._folder))
        return np.asarray(array, np.float32)

    def _copy(self) -> ModelProto:
        """Return a model without nodes."""
        model = copy.deepcopy(self._model)
        model.graph.ClearField('node')
        model.graph.ClearField('value_info')
        return model

    def _probe(
        self, nodes: Sequence[NodeProto], reductions: Sequence[tuple[str, str]]
    ) -> ModelProto:
        """Return the float graph with more nodes, and reductions of its tensors as outputs."""
        from onnx import helper

        model = self._copy()
        graph = model.graph
        graph.ClearField('output')
        reduced = [_constant_node(_SPATIAL_AXES, np.array([2, 3], np.int64))]
        for kind, name in reductions:
            # over everything, or over rows and columns
            given = [name] if kind != 'ReduceMean' else [name, _SPATIAL_AXES]
            made = f'{name}.{kind}'
            reduced.append(helper.make_node(kind, given, [made], keepdims=0))
            graph.output.append(helper.make_empty_tensor_value_info(made))
        _fill(graph, [*self._model.graph.node, *nodes, *reduced])
        return model

    def _kernel_nodes(self) -> list[NodeProto]:
        """Return the constants of all int8 weights, turned back into numbers."""
        from onnx import helper

        nodes = []
        for name, kernel in self._kernels.items():
            parts = (f'{name}.int8', f'{name}.scales')
            nodes += [
                _constant_node(parts[0], kernel.values),
                _constant_node(parts[1], kernel.scales),
            ]
            nodes.append(helper.make_node('DequantizeLinear', parts, [f'{name}.rounded'], axis=0))
        return nodes

    def _rounding(self, name: str, limits: Range) -> list[NodeProto]:
        """Return the nodes that bring a tensor to 8 bits and back."""
        from onnx import helper

        scale, zero = f'{name}.scale', f'{name}.zero_point'
        return [
            _constant_node(scale, np.array(limits.scale)),
            _constant_node(zero, np.array(limits.zero_point)),
            helper.make_node('QuantizeLinear', [name, scale, zero], [f'{name}.uint8']),
            helper.make_node(
                'DequantizeLinear', [f'{name}.uint8', scale, zero], [f'{name}.rounded']
            ),
        ]

    def _convolution(self, name: str, made: str) -> NodeProto:
        """Return a convolution that reads rounded numbers.

        :param made: name of what it gives.
        """
        node = copy.deepcopy(self._makers[name])
        node.name, node.output[0] = made, made
        node.input[0], node.input[1] = f'{node.input[0]}.rounded', f'{node.input[1]}.rounded'
        return node

    def _shifted(self, name: str, shift: NDArray[np.float32]) -> list[NodeProto]:
        """Return a convolution in int8 with another bias."""
        node = self._convolution(name, name)
        bias = self._constant(node.input[2]) if len(node.input) > 2 else None
        whole = shift if bias is None else shift + bias
        place = f'{name}.bias'
        del node.input[2:]
        node.input.append(place)
        return [_constant_node(place, whole.astype(np.float32)), node]


def write_graph(
    model: ModelProto, path: Path, weights_file: str, stored_in: Sequence[str]
) -> tuple[Path, ...]:
    """Write a quantised graph; onnx checks it where it lies.

    :param path: file to make, in the folder of the graph that it came from.
    :param weights_file: name of a new safetensors file beside it, for tensors of a kilobyte or
        more that no file of ``stored_in`` holds; not made when there are none.
    :param stored_in: names of safetensors files beside it.
    :returns: the files that were written.
    :raises ModelError: when onnx refuses the graph.
    """
    import onnx

    written = _move_out(model, StoredTensors([path.with_name(name) for name in stored_in]),
                        path.with_name(weights_file))  # fmt: skip
    write_model(model, path)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(str(path), repr(str(error))[:300], 'a graph that onnx accepts') from error
    return (path, *written)


def write_model(model: ModelProto, path: Path) -> None:
    """Write a graph as it is."""
    content = model.SerializeToString()
    write_atomically(path, lambda stream: stream.write(content))


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingPackage('onnx', 'quantising a model', 'pip install onnx') from error
    return onnx


def _constant_node(name: str, array: NDArray[Any]) -> NodeProto:
    """Return a node that gives a constant; :func:`_fill` makes an initializer of it."""
    from onnx import helper
    from onnx import numpy_helper

    return helper.make_node('Constant', [], [name], value=numpy_helper.from_array(array, name))


def _fill(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    """Give a graph its nodes, constants as initializers, without what no output depends on."""
    constants = [node for node in nodes if node.op_type == 'Constant' and node.attribute[0].t.name]
    held = {node.output[0] for node in constants}
    graph.initializer.extend(node.attribute[0].t for node in constants)
    needed = {item.name for item in graph.output}
    kept = []
    for node in reversed([node for node in nodes if node.output[0] not in held]):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    graph.node.extend(reversed(kept))
    initializers = [item for item in graph.initializer if item.name in needed]
    graph.ClearField('initializer')
    graph.initializer.extend(initializers)


def _move_out(model: ModelProto, stored: StoredTensors, weights: Path) -> tuple[Path, ...]:
    """Let large tensors refer to safetensors files; return the file that was made, if any."""
    from onnx import TensorProto
    from onnx import numpy_helper

    places: dict[str, Place] = {}
    new: dict[str, LazyArray] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            continue
        array = np.ascontiguousarray(numpy_helper.to_array(tensor))
        if array.nbytes < _SMALLEST_MOVED_BYTES:
            continue
        place = stored.find(array)
        if place is None:
            new[tensor.name] = LazyArray(array.dtype.name, array.shape, array.view)
        else:
            places[tensor.name] = place
    if new:
        places.update(write_tensors(weights, new))
    for tensor in model.graph.initializer:
        if tensor.name in places:
            _refer(tensor, places[tensor.name])
    return (weights,) if new else ()


def _refer(tensor: TensorProto, place: Place) -> None:
    """Let a tensor lie in a file beside the graph."""
    from onnx import TensorProto

    tensor.ClearField('raw_data')
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (
        ('location', place.path.name),
        ('offset', str(place.offset)),
        ('length', str(place.length)),
    ):
        tensor.external_data.add(key=key, value=value)
