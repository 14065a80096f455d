"""What int8 needs to know of a network: ranges of its tensors, and what rounding shifts."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node import camera
from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.quantization.pictures import Picture
from depth_node.quantization.qdq import FloatGraph
from depth_node.quantization.qdq import Range
from depth_node.quantization.qdq import write_model

if TYPE_CHECKING:
    from onnx import ModelProto

_PROBE = 'probe.onnx'
_ERRORS_ONLY = 3


class Calibration:
    """Runs graphs on the calibration images of one input size.

    :param folder: folder with the files that graphs of the model refer to; while a graph runs, it
        lies there too.
    :param pictures: (h, w, 3) uint8 of the input size.
    :param threads: CPU threads; 0 lets ONNX Runtime decide.
    :param tick: called after each image.
    """

    def __init__(
        self,
        folder: Path,
        card: ModelCard,
        size: InputSpec,
        pictures: Sequence[Picture],
        *,
        threads: int,
        tick: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._input = camera.NetworkInput(size.height, size.width, card.mean, card.std)
        self._pictures = pictures
        self._threads = threads
        self._tick = tick

    def ranges(self, graph: FloatGraph) -> dict[str, Range]:
        """Return what values the tensors to be quantised have over all images.

        Nothing is cut off: on held-out images this was better than means and percentiles.

        :raises ModelError: when the network gives values that are not finite.
        """
        runs = np.array([np.ravel(run) for run in self._run(graph.with_extremes())])
        if not np.isfinite(runs).all():
            raise ModelError(f'{self._folder}', 'values that are not finite', 'a sound network')
        low, high = runs[:, 0::2].min(axis=0), runs[:, 1::2].max(axis=0)
        return {
            name: Range(float(low[index]), float(high[index]))
            for index, name in enumerate(graph.given)
        }

    def shifts(
        self, graph: FloatGraph, ranges: dict[str, Range]
    ) -> dict[str, NDArray[np.float32]]:
        """Return per quantised convolution by how much rounding lowers its channels, (O,)."""
        total: list[NDArray[np.float64]] = []
        for run in self._run(graph.with_both(ranges)):
            exact, rounded = run[0::2], run[1::2]
            lacking = [
                np.asarray(a[0], np.float64) - b[0] for a, b in zip(exact, rounded, strict=True)
            ]
            total = [a + b for a, b in zip(total, lacking, strict=True)] if total else lacking
        count = len(self._pictures)
        return {
            name: (lack / count).astype(np.float32)
            for name, lack in zip(graph.convolutions, total, strict=True)
        }

    def _run(self, model: ModelProto) -> Any:
        """Yield the outputs of a graph, image by image."""
        path = self._folder / _PROBE
        try:
            write_model(model, path)
            session = _session(path, self._threads)
        finally:
            path.unlink(missing_ok=True)
        name = session.get_inputs()[0].name
        for picture in self._pictures:
            self._input.normalize(picture)
            yield session.run(None, {name: self._input.array})
            self._tick()


def _session(path: Path, threads: int) -> Any:
    """Load a graph with ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage(
            'onnxruntime', 'calibrating a model', 'pip install onnxruntime'
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if threads > 0:
        options.intra_op_num_threads = threads
    # The library's exceptions share no base class but Exception.
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:
        cause = repr(' '.join(str(error).split()))[:300]
        raise ModelError(
            str(path), f'a graph that cannot run ({cause})', 'one that can'
        ) from error
