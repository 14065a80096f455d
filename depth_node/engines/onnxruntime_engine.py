"""ONNX Runtime on the CPU: a small package that runs nearly everywhere, in float32."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.engines import EngineInfo
from depth_node.engines import check_image
from depth_node.engines import check_precision
from depth_node.engines import library_failure
from depth_node.engines.graph_files import checked_graph
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder

_NAME = 'onnxruntime'
_PROVIDER = 'CPUExecutionProvider'
_ERRORS_ONLY = 3


class OnnxRuntimeEngine:
    """A network in an ONNX Runtime session; input and output memory is bound, not copied.

    :param folder: a checked model.
    :param size: one of the sizes of its card.
    :param precision: 'f32'.
    :param threads: CPU threads; 0 lets ONNX Runtime decide.
    :raises MissingPackage: when onnxruntime is not installed.
    :raises EngineError: for another precision, or when ONNX Runtime refuses the graph.
    """

    def __init__(
        self, folder: ModelFolder, size: InputSpec, *, precision: str, threads: int
    ) -> None:
        check_precision(precision, ('f32',), _NAME)
        onnxruntime = _library()
        graph = checked_graph(folder, size)
        shape = (1, 3, size.height, size.width)
        self._output: NDArray[np.float32] = np.empty((1, 1, *shape[2:]), np.float32)
        # The library's exceptions share no base class but Exception.
        try:
            self._session = onnxruntime.InferenceSession(
                str(graph), _options(onnxruntime, threads), providers=[_PROVIDER]
            )
        except Exception as error:
            raise library_failure(_NAME, 'loading', error) from error
        self._input_name = _checked_input(self._session, shape, self._output.shape)
        self._binding = self._session.io_binding()
        self._bind(self._binding.bind_output, self._session.get_outputs()[0].name, self._output)
        self.info = EngineInfo(
            name=_NAME,
            version=str(onnxruntime.__version__),
            precision='f32',
            device=platform.processor() or platform.machine(),
            input_shape=shape,
        )

    def warm_up(self) -> None:
        """Run once on zeros."""
        self.infer(np.zeros(self.info.input_shape, np.float32))

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network; see :meth:`depth_node.engines.Engine.infer`."""
        check_image(image, self.info.input_shape, _NAME)
        if self._session is None:
            raise EngineError(f'engine {_NAME}', 'an image after it was closed', 'an open engine')
        try:
            self._bind(self._binding.bind_input, self._input_name, image)
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise library_failure(_NAME, 'inference', error) from error
        output: NDArray[np.float32] = self._output[0, 0]
        return output

    def close(self) -> None:
        """Release the session."""
        self._binding = None
        self._session = None

    @staticmethod
    def _bind(bind: Any, name: str, array: NDArray[np.float32]) -> None:
        """Let the session read or write the memory of an array."""
        bind(name, 'cpu', 0, np.float32, array.shape, array.ctypes.data)


def _library() -> Any:
    """Import onnxruntime, or say how to get it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage(
            'onnxruntime', 'engine onnxruntime', 'pip install onnxruntime'
        ) from error
    return onnxruntime


def _options(onnxruntime: Any, threads: int) -> Any:
    """Return the options of the session."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if threads > 0:
        options.intra_op_num_threads = threads
    return options


def _checked_input(session: Any, image: tuple[int, ...], output: tuple[int, ...]) -> str:
    """Return the name of the input; refuse a graph of another size than the card says."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found = ([tuple(port.shape) for port in inputs], [tuple(port.shape) for port in outputs])
    types = {port.type for port in (*inputs, *outputs)}
    if found != ([image], [output]) or types != {'tensor(float)'}:
        raise EngineError(
            f'engine {_NAME}',
            f'a graph from {found[0]} to {found[1]} in {", ".join(sorted(types))}',
            f'{[image]} to {[output]} in float',
        )
    return str(inputs[0].name)
