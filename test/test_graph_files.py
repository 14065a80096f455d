"""A graph reads files of its own model folder and no others."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto
from onnx import helper

from depth_node import model_folder
from depth_node.engines.graph_files import checked_graph
from depth_node.engines.graph_files import external_files
from depth_node.engines.onnxruntime_engine import OnnxRuntimeEngine
from depth_node.engines.openvino_engine import OpenVinoEngine
from depth_node.errors import ModelError
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.model_folder import OutputSpec

SIZE = InputSpec(64, 96, 'graph.onnx', 'golden.safetensors')
PLACES = ['initializer', 'constant', 'subgraph', 'function', 'sparse']


def model_with(graph: bytes, out: Path) -> ModelFolder:
    def fill(folder: Path) -> None:
        (folder / SIZE.graph).write_bytes(graph)
        for name in (WEIGHTS_NAME, SIZE.golden):
            (folder / name).write_bytes(b'not read here')

    card = ModelCard('m', 'lite-mono', 'tiny', OutputSpec('disparity'), (SIZE,), 'native')
    return model_folder.write(out, card, fill)


def reference(location: str) -> TensorProto:
    tensor = TensorProto(name='w', data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (('offset', '0'), ('location', location), ('length', '4')):
        tensor.external_data.add(key=key, value=value)
    return tensor


def graph_with(place: str, location: str) -> onnx.ModelProto:
    """Make a graph that keeps a tensor elsewhere, in one of the places where tensors may be."""
    tensor = reference(location)
    constant = helper.make_node('Constant', [], ['w'], value=tensor)
    inner = helper.make_graph([constant], 'inner', [], [])
    if place == 'initializer':
        return helper.make_model(helper.make_graph([], 'g', [], [], [tensor]))
    if place == 'constant':
        return helper.make_model(inner)
    if place == 'subgraph':
        loop = helper.make_node('Loop', ['n', 'c'], ['w'], body=inner)
        return helper.make_model(helper.make_graph([loop], 'g', [], []))
    if place == 'function':
        function = helper.make_function('own', 'f', [], ['w'], [constant], [])
        return helper.make_model(helper.make_graph([], 'g', [], []), functions=[function])
    sparse = onnx.SparseTensorProto(values=tensor)
    return helper.make_model(helper.make_graph([], 'g', [], [], sparse_initializer=[sparse]))


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('location', ['../secret', '/etc/passwd', 'unlisted.bin', ''])
def test_a_graph_that_reads_other_files_is_refused_before_a_library_sees_it(
    tmp_path: Path, place: str, location: str
) -> None:
    hostile = model_with(graph_with(place, location).SerializeToString(), tmp_path / 'h')
    with pytest.raises(ModelError, match='a graph with data in'):
        checked_graph(hostile, SIZE)
    for engine in (OpenVinoEngine, OnnxRuntimeEngine):
        with pytest.raises(ModelError, match='a graph with data in'):
            engine(hostile, SIZE, precision='f32', threads=1)


@pytest.mark.parametrize('place', PLACES)
def test_a_graph_may_keep_data_in_a_file_of_the_card(tmp_path: Path, place: str) -> None:
    content = graph_with(place, WEIGHTS_NAME).SerializeToString()
    model = model_with(content, tmp_path / 'm')
    assert external_files(checked_graph(model, SIZE)) == {WEIGHTS_NAME}


@pytest.mark.parametrize(
    'content',
    [
        b'\x3a\x7fshort',  # a graph of 127 bytes of which 5 are there
        b'\x3a',
        b'\x0b',  # a group, which protobuf gave up long ago
        b'\x09' + b'\0' * 5,
        b'\xff' * 12,
    ],
)
def test_a_damaged_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelError, match='no ONNX graph'):
        checked_graph(model_with(content, tmp_path / 'm'), SIZE)


def test_a_graph_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    content = b''
    for _ in range(500):
        content = _message(6, content)  # Attribute.g
        content = _message(5, content)  # Node.attribute
        content = _message(1, content)  # Graph.node
    with pytest.raises(ModelError, match='nested deeper'):
        checked_graph(model_with(_message(7, content), tmp_path / 'm'), SIZE)


def _message(number: int, content: bytes) -> bytes:
    """Encode a length-delimited protobuf field."""
    length, encoded = len(content), bytearray([number << 3 | 2])
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*encoded, length]) + content


def test_a_graph_of_another_precision_that_is_missing_says_how_to_make_it(tmp_path: Path) -> None:
    model = model_with(graph_with('initializer', WEIGHTS_NAME).SerializeToString(), tmp_path / 'm')
    assert checked_graph(model, SIZE, 'bf16') == checked_graph(model, SIZE)
    with pytest.raises(ModelError, match=r'no graph in f16 for 96x64.*remake MODEL'):
        checked_graph(model, SIZE, 'f16')
    with pytest.raises(ModelError, match=r'no graph in int8.*quantize MODEL RECORDING'):
        checked_graph(model, SIZE, 'int8')
