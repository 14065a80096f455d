"""Writes a model folder of relative inverse depth around a graph of one convolution.

As a program, ``PYTHONPATH=. python test/relative_model.py FOLDER [WIDTH HEIGHT]`` makes one to try
the node with.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import safetensors.numpy
from onnx import TensorProto
from onnx import helper
from onnx import numpy_helper

from depth_node import model_folder
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.model_folder import OutputSpec

GAINS = (900.0, 300.0, -200.0)
OFFSET = -250.0


def expected(rgb: np.ndarray) -> np.ndarray:
    """Return what the network makes of (H, W, 3) RGB: (H, W), 0 where dark."""
    return np.maximum(rgb.astype(np.float32) / 255.0 @ np.float32(GAINS) + OFFSET, 0.0)


def write(folder: Path, width: int = 96, height: int = 64) -> ModelFolder:
    """Write a model whose output is that of :func:`expected`, unlimited like that of MiDaS."""
    size = InputSpec(height, width, 'graph.onnx', 'golden.safetensors')
    kernel = np.array(GAINS, np.float32).reshape(1, 3, 1, 1)
    bias = np.array([OFFSET], np.float32)
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)

    def fill(target: Path) -> None:
        onnx.save(_graph(width, height, kernel, bias), target / size.graph)
        safetensors.numpy.save_file({'kernel': kernel, 'bias': bias}, target / WEIGHTS_NAME)
        golden = {'image': picture, 'output': expected(picture)}
        safetensors.numpy.save_file(golden, target / size.golden)

    card = ModelCard(
        name=folder.name,
        network='one-convolution',
        variant='plain',
        output=OutputSpec('relative'),
        inputs=(size,),
        fit='native',
        weights_license='CC0-1.0',
    )
    return model_folder.write(folder, card, fill)


def _graph(width: int, height: int, kernel: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """Return the graph: a 1x1 convolution and a ReLU."""
    graph = helper.make_graph(
        [
            helper.make_node('Conv', ['image', 'kernel', 'bias'], ['sum']),
            helper.make_node('Relu', ['sum'], ['output']),
        ],
        'relative',
        [helper.make_tensor_value_info('image', TensorProto.FLOAT, (1, 3, height, width))],
        [helper.make_tensor_value_info('output', TensorProto.FLOAT, (1, 1, height, width))],
        [numpy_helper.from_array(kernel, 'kernel'), numpy_helper.from_array(bias, 'bias')],
    )
    opset = helper.make_opsetid('', 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


if __name__ == '__main__':
    print(write(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:4])).path)  # noqa: T201
