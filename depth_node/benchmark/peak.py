"""The arithmetic that a processor reaches: what the time of a network is held against.

Large convolutions and matrix products in OpenVINO, which brings the fastest kernels of the CPU
engines, as contestants of the same interleaved run as the networks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from depth_node.benchmark.libraries import imported
from depth_node.benchmark.turns import Opened

KINDS = ('convolution', 'matrix product')
PRECISIONS = ('f32', 'bf16')

_CHANNELS, _SIDE_PX = 256, 56
_ORDER = 1536
# several in a row, so that bringing the input into the order of the kernels costs next to nothing
_LAYERS = 4


def open_peak(kind: str, precision: str, threads: int) -> Opened:
    """Compile one kind of arithmetic; runs in the process of a contestant.

    :param kind: one of :data:`KINDS`.
    :param precision: one of :data:`PRECISIONS`.
    :param threads: CPU threads; 0 lets OpenVINO decide.
    :returns: the call, and 'macs': multiply-accumulates of one call.
    """
    openvino = imported('openvino')
    core = openvino.Core()
    if precision == 'bf16' and 'BF16' not in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        raise ValueError('the processor has no bfloat16 instructions')
    model, shape, macs = _convolutions() if kind == KINDS[0] else _products()
    options = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': precision}
    if threads > 0:
        options['INFERENCE_NUM_THREADS'] = str(threads)
    request = core.compile_model(model, 'CPU', options).create_infer_request()
    values = _random(np.random.default_rng(1), shape, 1)
    version = str(openvino.__version__).split('-')[0]
    return lambda: request.infer([values], share_inputs=True), {'macs': macs, 'version': version}


def _convolutions() -> tuple[Any, tuple[int, ...], int]:
    """Return 3x3 convolutions in a row, the shape of their input, and what they multiply."""
    import openvino
    import openvino.opset13 as operators

    draw = np.random.default_rng(2)
    shape = (1, _CHANNELS, _SIDE_PX, _SIDE_PX)
    fan = 9 * _CHANNELS
    image = last = operators.parameter(shape, np.float32)
    for _ in range(_LAYERS):
        kernel = operators.constant(_random(draw, (_CHANNELS, _CHANNELS, 3, 3), fan))
        last = operators.convolution(last, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    macs = _LAYERS * fan * _CHANNELS * _SIDE_PX**2
    return openvino.Model([last], [image], 'convolutions'), shape, macs


def _products() -> tuple[Any, tuple[int, ...], int]:
    """Return matrix products in a row, the shape of their input, and what they multiply."""
    import openvino
    import openvino.opset13 as operators

    draw = np.random.default_rng(2)
    shape = (_ORDER, _ORDER)
    matrix = last = operators.parameter(shape, np.float32)
    for _ in range(_LAYERS):
        last = operators.matmul(
            last, operators.constant(_random(draw, shape, _ORDER)), False, False
        )
    return openvino.Model([last], [matrix], 'products'), shape, _LAYERS * _ORDER**3


def _random(draw: np.random.Generator, shape: tuple[int, ...], fan: int) -> Any:
    """Return numbers that keep the size of what goes through: nothing overflows or vanishes."""
    return (draw.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)
