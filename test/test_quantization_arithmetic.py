"""int8 arithmetic: a graph computes what was designed, and its errors are those of the depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx import helper
from onnx import numpy_helper

from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import OutputSpec
from depth_node.quantization import judging
from depth_node.quantization import qdq
from depth_node.quantization.calibration import Calibration


@pytest.mark.parametrize('bits', qdq.WEIGHT_BITS)
def test_weights_are_rounded_to_the_nearest_step_and_stay_in_range(bits: int) -> None:
    weights = np.random.default_rng(1).standard_normal((9, 5, 3, 3)).astype(np.float32)
    weights[4] = 0.0
    kernel = qdq.kernel_of(weights, bits)
    largest = 2 ** (bits - 1) - 1
    assert np.abs(kernel.values.astype(int)).max() == largest
    scales = kernel.scales.astype(np.float64).reshape(-1, 1, 1, 1)
    assert (np.abs(kernel.values * scales - weights) <= 0.5001 * scales).all()
    assert not kernel.values[4].any()


@pytest.mark.parametrize(
    'limits', [(-1.0, 3.0), (0.2, 3.0), (-3.0, -0.5), (0.0, 0.0), (-1e-9, 2e-9)]
)
def test_a_range_holds_its_ends_and_zero_exactly(limits: tuple[float, float]) -> None:
    chosen = qdq.Range(*limits)
    for value in (*limits, 0.0):
        step = np.clip(np.rint(value / chosen.scale) + chosen.zero_point, 0, 255)
        error = abs((step - float(chosen.zero_point)) * chosen.scale - value)
        assert error == 0.0 if value == 0.0 else error <= 0.51 * chosen.scale


class OneConvolution:
    """A 1x1 convolution in float64, whose rounded form can be written down."""

    def __init__(self, folder: Path) -> None:
        draw = np.random.default_rng(5)
        self.weights = draw.standard_normal((8, 9)).astype(np.float32)
        self.bias = draw.standard_normal(8).astype(np.float32)
        self.mix = draw.standard_normal((9, 3)).astype(np.float32)
        self.images = [draw.integers(0, 256, (8, 12, 3), np.uint8) for _ in range(4)]
        nodes = [
            helper.make_node('Conv', ['image', 'mix'], ['mixed']),
            helper.make_node('Elu', ['mixed'], ['bent']),
            helper.make_node('Conv', ['bent', 'weights', 'bias'], ['output']),
        ]
        held = [
            numpy_helper.from_array(self.mix[:, :, None, None], 'mix'),
            numpy_helper.from_array(self.weights[:, :, None, None], 'weights'),
            numpy_helper.from_array(self.bias, 'bias'),
        ]
        ports = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 8, 12])
            for name, channels in (('image', 3), ('output', 8))
        ]
        graph = helper.make_graph(nodes, 'g', ports[:1], ports[1:], held)
        whole = helper.make_model(
            graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10
        )
        self.path = folder / 'graph.onnx'
        onnx.save(whole, self.path)
        self.size = InputSpec(8, 12, 'graph.onnx', 'golden')
        self.card = ModelCard('m', 'n', 'v', OutputSpec('disparity'), (self.size,), 'native')

    def bent(self, image: np.ndarray) -> np.ndarray:
        """Return what the second convolution is given, (pixels, 9) float64."""
        mixed = (image.reshape(-1, 3) / 255.0) @ self.mix.T.astype(np.float64)
        return np.where(mixed > 0, mixed, np.expm1(mixed))

    def rounded(self, values: np.ndarray, low: float, high: float) -> np.ndarray:
        """Return the second convolution of 8-bit numbers, without its bias."""
        scale = (max(high, 0.0) - min(low, 0.0)) / 255.0
        zero = np.rint(-min(low, 0.0) / scale)
        steps = np.clip(np.rint(values / scale) + zero, 0, 255)
        top = np.abs(self.weights.astype(np.float64)).max(axis=1, keepdims=True) / 63.0
        weights = np.rint(self.weights / top) * top
        return (steps - zero) * scale @ weights.T


def test_the_graph_in_int8_computes_what_was_designed(tmp_path: Path) -> None:
    one = OneConvolution(tmp_path)
    graph = qdq.FloatGraph(one.path, 7)
    # the one that reads the image keeps its numbers
    assert (graph.convolutions, graph.given) == (('output',), ('bent',))
    calibration = Calibration(
        tmp_path, one.card, one.size, one.images, threads=1, tick=lambda: None
    )
    ranges = calibration.ranges(graph)
    given = [one.bent(image) for image in one.images]
    low, high = min(g.min() for g in given), max(g.max() for g in given)
    assert ranges['bent'].low == pytest.approx(low, rel=1e-5)
    assert ranges['bent'].high == pytest.approx(high, rel=1e-5)
    shifts = calibration.shifts(graph, ranges)
    lack = np.mean(
        [
            (g @ one.weights.T.astype(np.float64) - one.rounded(g, low, high)).mean(0)
            for g in given
        ],
        axis=0,
    )
    assert np.abs(lack).max() > 1e-3
    # single pixels at the border of two steps may fall to either side
    assert np.abs(shifts['output'] - lack).max() < 0.05 * np.abs(lack).max()
    out = tmp_path / 'int8.onnx'
    qdq.write_graph(graph.quantized(ranges, shifts), out, 'int8.safetensors', ())
    session = onnxruntime.InferenceSession(str(out), providers=['CPUExecutionProvider'])
    image = one.images[0].transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255.0)
    got = session.run(None, {'image': image})[0][0].reshape(8, -1).T
    wanted = one.rounded(given[0], low, high) + one.bias + lack
    assert np.median(np.abs(got - wanted)) < 1e-4
    kinds = {node.op_type for node in onnx.load(str(out)).graph.node}
    assert {'QuantizeLinear', 'DequantizeLinear'} <= kinds
    assert sorted(path.name for path in tmp_path.iterdir()) == ['graph.onnx', 'int8.onnx']


def test_errors_are_those_of_the_depth() -> None:
    exact = np.array([[0.5, 0.1, 0.0, 0.2]], np.float32)
    rounded = np.array([[0.4, 0.1, np.nan, -1.0]], np.float32)
    inverse = 0.01 + 9.99 * exact[0, 0].astype(np.float64)
    other = 0.01 + 9.99 * rounded[0, 0].astype(np.float64)
    errors = judging.relative_errors(OutputSpec('disparity'), exact, rounded)
    assert errors[0, 0] == pytest.approx((1 / other - 1 / inverse) * inverse)
    assert errors[0, 1:].tolist() == [0.0, np.inf, np.inf]
    metric = judging.relative_errors(OutputSpec('metric'), exact[:, :2], rounded[:, :2])
    assert metric[0].tolist() == pytest.approx([0.2, 0.0])
    spread = np.linspace(0, 100, 101, dtype=np.float32)[None]
    relative = judging.relative_errors(OutputSpec('relative'), spread, spread + np.float32(9.6))
    assert relative == pytest.approx(0.1, rel=1e-4)


def test_quantiles_need_no_list_of_all_errors() -> None:
    draw = np.random.default_rng(2)
    images = [np.exp(draw.normal(-4, 1, (30, 40))) for _ in range(5)]
    histogram = judging.ErrorHistogram()
    for image in images:
        histogram.add(image)
    for share in (0.05, 0.5, 0.95):
        assert histogram.quantile(share) == pytest.approx(np.quantile(images, share), rel=0.03)
    assert histogram.largest == np.max(images)
    histogram.add(np.full(100_000, np.inf))
    assert histogram.quantile(0.5) == np.inf
