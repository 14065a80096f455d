"""Finds the files that an ONNX graph refers to, so that no engine is led out of the model folder.

An ONNX file may keep its weights in other files, named by paths inside the graph.  The libraries
that run graphs follow such paths, each with checks of its own; here a graph may name plain files
of the card and nothing else, before any library sees it.  Only the few fields on the way to those
paths are read, straight from the protobuf encoding, since the onnx package is not there at run
time.  Field numbers: onnx.proto of the ONNX project, IR version 3 to 11.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder

# message -> field number -> message inside it; what is not listed holds no path
_INSIDE = {
    'Model': {7: 'Graph', 20: 'Training', 25: 'Function'},
    'Training': {1: 'Graph', 2: 'Graph'},
    'Function': {7: 'Node', 11: 'Attribute'},
    'Graph': {1: 'Node', 5: 'Tensor', 15: 'Sparse'},
    'Node': {5: 'Attribute'},
    'Attribute': {5: 'Tensor', 6: 'Graph', 10: 'Tensor', 11: 'Graph', 22: 'Sparse', 23: 'Sparse'},
    'Sparse': {1: 'Tensor', 2: 'Tensor'},
    'Tensor': {13: 'Entry'},
}
_WAY_TO = {
    'f16': 'Make it: python -m depth_node.tools.models remake MODEL',
    'int8': 'Make it: python -m depth_node.tools.models quantize MODEL RECORDING',
}
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 64


def checked_graph(folder: ModelFolder, size: InputSpec, precision: str = 'f32') -> Path:
    """Return the path of a graph that only refers to files of its own model folder.

    :param precision: of the arithmetic that the graph is for.
    :raises ModelError: when the model has no such graph, or it names another file or is no ONNX
        file.
    """
    name = size.graph_of(precision)
    if name is None:
        raise ModelError(
            f'model {folder.card.name}',
            f'no graph in {precision} for {size.width}x{size.height}',
            'one',
            _WAY_TO[precision],
        )
    path = folder.file(name)
    for location in external_files(path):
        if location not in folder.card.files:
            raise ModelError(
                str(path),
                f'a graph with data in {quoted(location)}',
                'data in files of the model folder that the card lists',
                'Do not use this model unless you know who made it.',
            )
    return path


def external_files(path: Path) -> frozenset[str]:
    """Return the names of the files in which an ONNX graph keeps data, as it spells them.

    :raises ModelError: when the file is no ONNX file.
    """
    try:
        with path.open('rb') as stream:
            # mapped: of tensors inside the graph, which are stepped over, nothing is read
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return frozenset(_locations(memoryview(content), 'Model', 0))
    except (IndexError, ValueError) as error:
        raise ModelError(str(path), f'no ONNX graph ({error})', 'an ONNX graph') from error


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    """Yield the locations of all external tensors below a message."""
    if depth > _DEEPEST:
        raise ValueError(f'nested deeper than {_DEEPEST} messages')
    for number, content in _fields(message):
        inside = _INSIDE[kind].get(number)
        if inside == 'Entry':
            entry = {key: bytes(value) for key, value in _fields(content)}
            if entry.get(_KEY) == b'location':
                yield entry.get(_VALUE, b'').decode()
        elif inside is not None:
            yield from _locations(content, inside, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the length-delimited fields of a protobuf message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == _BYTES:
            length, at = _varint(message, at)
            if length > len(message) - at:
                raise ValueError(f'a field of {length} bytes beyond the end')
            yield tag >> 3, message[at : at + length]
            at += length
        elif wire == _VARINT:
            _, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f'wire type {wire}')
    if at != len(message):
        raise ValueError('a field beyond the end')


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a variable-length number and the place behind it."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError('a number of more than 64 bits')
