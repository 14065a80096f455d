"""OpenVINO on the CPU: the fastest engine, in float32, in int8, and in bf16 where there is such.

Without a hint OpenVINO computes in bf16 on processors that have it, so the precision is always
set.  int8 is a matter of the graph: what it does not quantise is computed in float32.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any
from typing import cast

import numpy as np
from numpy.typing import NDArray

from depth_node.engines import EngineInfo
from depth_node.engines import check_image
from depth_node.engines import library_failure
from depth_node.engines.graph_files import checked_graph
from depth_node.engines.memory import let_go_of_files
from depth_node.engines.openvino_compiled import compiled_network
from depth_node.engines.signal_stack import signal_stack_kept
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.errors import quoted
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder

_NAME = 'openvino'
_KINDS = {'bf16': ('bf16',), 'int8': ('i8', 'u8')}
_PRODUCTS = ('Convolution', 'FullyConnected', 'MatMul')
_PRECISIONS = {'f32': 'f32', 'bf16': 'bf16', 'float32': 'f32', 'bfloat16': 'bf16'}


class OpenVinoEngine:
    """A network compiled by OpenVINO; input and output memory is shared, not copied.

    :param folder: a checked model.
    :param size: one of the sizes of its card.
    :param precision: 'f32', 'bf16' or 'int8'.
    :param threads: CPU threads; 0 lets OpenVINO decide.
    :raises MissingPackage: when openvino is not installed.
    :raises ModelError: for int8 when the model has no such graph.
    :raises EngineError: for another precision, when the processor has no bf16, when OpenVINO
        computes in another precision than asked for or refuses the graph.
    """

    @signal_stack_kept()
    def __init__(
        self, folder: ModelFolder, size: InputSpec, *, precision: str, threads: int
    ) -> None:
        _check_known(precision)
        self._openvino = openvino = _library()
        graph = checked_graph(folder, size, precision)
        shape = (1, 3, size.height, size.width)
        self._output: NDArray[np.float32] = np.empty((1, 1, *shape[2:]), np.float32)
        try:
            core = openvino.Core()
            _check_precision(core, precision)
            compiled = compiled_network(
                openvino, core, folder, size, graph, _options(precision, threads)
            )
            self._compiled: object = compiled
            network = compiled.network
            # the compiled network has weights of its own, in the order of the processor
            let_go_of_files(folder.path / name for name in folder.card.files)
            computed = _precision_of(network, precision)
            _check_shapes(network, shape, self._output.shape)
            self._request = network.create_infer_request()
            self._request.set_output_tensor(openvino.Tensor(self._output, shared_memory=True))
        except RuntimeError as error:
            raise library_failure(_NAME, 'loading', error) from error
        self.info = EngineInfo(
            name=_NAME,
            version=str(openvino.__version__).split('-')[0],
            precision=computed,
            device=str(core.get_property('CPU', 'FULL_DEVICE_NAME')).strip(),
            input_shape=shape,
        )

    def warm_up(self) -> None:
        """Run once on zeros."""
        self.infer(np.zeros(self.info.input_shape, np.float32))

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network; see :meth:`depth_node.engines.Engine.infer`."""
        check_image(image, self.info.input_shape, _NAME)
        if self._request is None:
            raise EngineError(f'engine {_NAME}', 'an image after it was closed', 'an open engine')
        try:
            self._request.set_input_tensor(self._openvino.Tensor(image, shared_memory=True))
            self._request.infer()
        except RuntimeError as error:
            raise library_failure(_NAME, 'inference', error) from error
        output: NDArray[np.float32] = self._output[0, 0]
        return output

    def close(self) -> None:
        """Release the compiled network."""
        self._request = None
        self._compiled = None


def _library() -> Any:
    """Import openvino, or say how to get it."""
    # Otherwise each start of the node would report itself over the network, from a child process.
    sys.modules.setdefault('openvino_telemetry', cast(ModuleType, None))
    try:
        import openvino
    except ImportError as error:
        raise MissingPackage('openvino', 'engine openvino', 'pip install openvino') from error
    return openvino


def _hint(precision: str) -> str:
    """Return the arithmetic of all that an int8 graph does not quantise, or of all."""
    return 'f32' if precision == 'int8' else precision


def _options(precision: str, threads: int) -> dict[str, str]:
    """Return the properties with which the network is compiled."""
    options = {
        'PERFORMANCE_HINT': 'LATENCY',
        'INFERENCE_PRECISION_HINT': _hint(precision),
    }
    if threads > 0:
        options['INFERENCE_NUM_THREADS'] = str(threads)
    return options


def _check_known(precision: str) -> None:
    """Refuse a precision that this engine does not know."""
    if precision not in (*_PRECISIONS.values(), 'int8'):
        raise EngineError(
            f'engine {_NAME}',
            f'precision {quoted(precision)}',
            'f32, bf16 or int8',
            'f16 needs a GPU.',
        )


def _check_precision(core: Any, precision: str) -> None:
    """Refuse bf16 on a processor that would only emulate it."""
    if precision == 'bf16' and 'BF16' not in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        raise EngineError(
            f'engine {_NAME}',
            'precision bf16 on a processor without bfloat16 instructions',
            'one that has them (AVX512-BF16, AMX or Arm BF16)',
            'Set model.precision to f32.',
        )


def _check_shapes(compiled: Any, image: tuple[int, ...], output: tuple[int, ...]) -> None:
    """Refuse a graph of another size than the card says."""
    found = ([tuple(port.shape) for port in compiled.inputs],
             [tuple(port.shape) for port in compiled.outputs])  # fmt: skip
    if found != ([image], [output]):
        raise EngineError(
            f'engine {_NAME}', f'a graph from {found[0]} to {found[1]}', f'{[image]} to {[output]}'
        )


def _precision_of(compiled: Any, precision: str) -> str:
    """Return the precision in which the compiled network really computes.

    :param precision: what was asked for.
    :raises EngineError: when OpenVINO computes in another one.
    """
    reported = str(compiled.get_property('INFERENCE_PRECISION_HINT').to_string())
    computed = _PRECISIONS.get(reported, reported)
    if computed == _hint(precision) and (precision == 'f32' or _runs_in(compiled, precision)):
        return precision
    raise EngineError(
        f'engine {_NAME}',
        f'arithmetic in {computed}' if computed != precision else f'no operator in {precision}',
        precision,
        'OpenVINO has none for this processor and graph. Set model.precision to f32.',
    )


def _runs_in(compiled: Any, precision: str) -> bool:
    """Tell whether a convolution or matrix product of the network runs in bf16 or int8."""
    for step in compiled.get_runtime_model().get_ops():
        facts = step.get_rt_info()
        layer, kind = (str(facts[key].value) for key in ('layerType', 'runtimePrecision'))
        if layer in _PRODUCTS and kind in _KINDS[precision]:
            return True
    return False
