"""How far the depth of an int8 graph is from that of the float32 graph, and how much faster."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node import camera
from depth_node.engines import Engine
from depth_node.engines.openvino_engine import OpenVinoEngine
from depth_node.engines.parity import parity_error
from depth_node.engines.parity import read_golden
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder
from depth_node.model_folder import OutputSpec
from depth_node.quantization.pictures import Picture

_BIN_RATIO = 1.02
_SMALLEST_ERROR = 1e-6
_BIN_COUNT = math.ceil(math.log(1e9) / math.log(_BIN_RATIO))
_FIRST_CALLS = 3


@dataclass(frozen=True)
class Judgement:
    """What int8 costs and gains at one input size."""

    height: int
    """Rows of the network's input, pixels."""
    width: int
    """Columns of the network's input, pixels."""
    median_error: float
    """Median over all pixels of all held-out images; see :func:`relative_errors`."""
    p95_error: float
    """Error that 95 % of these pixels stay below."""
    max_error: float
    """Largest of them."""
    golden_error: float
    """Parity error of the golden image, standard deviations; see engines/parity.py."""
    f32_ms: float
    """Median time of an image in float32, milliseconds."""
    int8_ms: float
    """Median time of an image in int8, milliseconds."""
    added_bytes: int
    """Length of the files that int8 alone needs at this size."""

    @property
    def speed_ratio(self) -> float:
        """Return how many times faster int8 is."""
        return self.f32_ms / self.int8_ms

    def figures(self) -> dict[str, object]:
        """Return what the card tells, with three digits."""
        return {
            'median_relative_error': _short(self.median_error),
            'p95_relative_error': _short(self.p95_error),
            'max_relative_error': _short(self.max_error),
            'golden_parity': _short(self.golden_error),
            'speed_ratio': _short(self.speed_ratio),
            'added_mb': _short(self.added_bytes / 1e6),
        }


def judge(
    folder: ModelFolder,
    size: InputSpec,
    pictures: Sequence[Picture],
    *,
    added_bytes: int,
    threads: int,
    tick: Callable[[], None],
) -> Judgement:
    """Run held-out images through both graphs in OpenVINO, in turns.

    :param pictures: (h, w, 3) uint8 of the input size.
    :param added_bytes: length of the files that int8 alone needs.
    :param threads: CPU threads; 0 lets OpenVINO decide.
    :param tick: called after each image.
    :raises MissingPackage: when openvino is not installed.
    :raises EngineError: when it does not run the graphs, or not in int8.
    """
    card = folder.card
    golden = read_golden(folder, size)
    given = camera.NetworkInput(size.height, size.width, card.mean, card.std)
    engines: dict[str, Engine] = {}
    histogram = ErrorHistogram()
    times_s: dict[str, list[float]] = {'f32': [], 'int8': []}
    try:
        for precision in times_s:
            engines[precision] = OpenVinoEngine(folder, size, precision=precision, threads=threads)
            for _ in range(_FIRST_CALLS):
                engines[precision].warm_up()
        golden_error = parity_error(engines['int8'], golden)
        for index, picture in enumerate(pictures):
            given.normalize(picture)
            outputs = {}
            # the order is reversed each time, so that a machine that changes its speed hits both
            for precision in ('f32', 'int8') if index % 2 else ('int8', 'f32'):
                started = time.perf_counter()
                outputs[precision] = engines[precision].infer(given.array)
                times_s[precision].append(time.perf_counter() - started)
            histogram.add(relative_errors(card.output, outputs['f32'], outputs['int8']))
            tick()
    finally:
        for engine in engines.values():
            engine.close()
    return Judgement(
        height=size.height,
        width=size.width,
        median_error=histogram.quantile(0.5),
        p95_error=histogram.quantile(0.95),
        max_error=histogram.largest,
        golden_error=golden_error,
        f32_ms=1e3 * float(np.median(times_s['f32'])),
        int8_ms=1e3 * float(np.median(times_s['int8'])),
        added_bytes=added_bytes,
    )


def relative_errors(
    spec: OutputSpec, exact: NDArray[np.float32], rounded: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return |depth of int8 - depth of float32| / depth of float32 of every pixel, (H, W).

    Of relative inverse depth, which has no unit: the difference in units of the spread of the
    float32 image, from its 2nd to its 98th percentile.  What is no number or no depth in one of
    them counts as infinite.

    :param spec: what outputs mean.
    :param exact: (H, W) output of the float32 graph.
    :param rounded: (H, W) output of the int8 graph.
    """
    exact, rounded = exact.astype(np.float64), rounded.astype(np.float64)
    with np.errstate(divide='ignore', invalid='ignore'):
        if spec.kind == 'relative':
            low, high = np.percentile(exact, (2.0, 98.0))
            errors = np.abs(rounded - exact) / (high - low)
        elif spec.kind == 'metric':
            errors = np.where(rounded > 0.0, np.abs(rounded / exact - 1.0), np.inf)
        else:
            far, near = 1.0 / spec.max_depth_m, 1.0 / spec.min_depth_m
            inverse = far + (near - far) * rounded
            ratio = (far + (near - far) * exact) / inverse
            errors = np.where(inverse > 0.0, np.abs(ratio - 1.0), np.inf)
    return np.where(np.isnan(errors), np.inf, errors)


class ErrorHistogram:
    """Quantiles of the errors of many images in little memory, exact to 2 %."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BIN_COUNT + 1, np.int64)
        self.largest = 0.0
        """Largest error, exact."""

    def add(self, errors: NDArray[np.float64]) -> None:
        """Count the errors of one image.

        :param errors: of any shape, 0 to infinity.
        """
        self.largest = max(self.largest, float(errors.max()))
        with np.errstate(divide='ignore'):
            bins = np.log(errors.ravel() / _SMALLEST_ERROR) / math.log(_BIN_RATIO)
        bins = np.clip(bins, 0, _BIN_COUNT).astype(np.intp)
        self._counts += np.bincount(bins, minlength=_BIN_COUNT + 1)

    def quantile(self, share: float) -> float:
        """Return the error that a share of the pixels stays below; infinite beyond 1000.

        :param share: 0 to 1.
        """
        below = np.cumsum(self._counts)
        found = int(np.searchsorted(below, share * below[-1]))
        return math.inf if found >= _BIN_COUNT else _SMALLEST_ERROR * _BIN_RATIO ** (found + 1)


def _short(value: float) -> float | None:
    """Round to three digits; None where it is infinite, which a card cannot say."""
    return float(f'{value:.3g}') if math.isfinite(value) else None
