"""Opens the engine that was asked for, or the first that works, and says why others did not.

An engine is chosen once, when it is opened; nothing falls back later in silence.
"""

from __future__ import annotations

from depth_node.engines import Engine
from depth_node.engines.parity import Golden
from depth_node.engines.parity import check_parity
from depth_node.engines.parity import read_golden
from depth_node.errors import DepthNodeError
from depth_node.errors import EngineError
from depth_node.errors import quoted
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder

ORDER = ('openvino', 'onnxruntime', 'torch')
"""Engines in the order in which 'auto' tries them."""
BY_NAME_ONLY = ('tensorrt', 'cuda')
"""Engines that 'auto' leaves alone: what they need a GPU for has never run yet."""
PRECISIONS = ('auto', 'f32', 'f16', 'bf16', 'int8')
_ON_GPU = ('tensorrt', 'cuda')


def open_engine(
    folder: ModelFolder, size: InputSpec, *, engine: str, precision: str, threads: int
) -> tuple[Engine, tuple[str, ...]]:
    """Open an engine whose output agrees with the model's golden output.

    :param folder: a checked model.
    :param size: one of the sizes of its card.
    :param engine: 'auto', or one of :data:`ORDER` or :data:`BY_NAME_ONLY`.
    :param precision: one of :data:`PRECISIONS`; never changed to make an engine work.
    :param threads: CPU threads; 0 lets the engine decide.
    :returns: the engine, and per engine that 'auto' passed over a sentence that says why; also
        what the engine has to say of itself.
    :raises EngineError: when the engine, or with 'auto' every engine, fails or disagrees.
    :raises MissingPackage: when the engine that was named is not installed.
    :raises ModelError: when the golden file or the graph cannot be used.
    """
    named = (*ORDER, *BY_NAME_ONLY)
    if engine != 'auto' and engine not in named:
        raise EngineError('engine', quoted(engine), f'auto or one of {", ".join(named)}')
    if precision not in PRECISIONS:
        raise EngineError('precision', quoted(precision), f'one of {", ".join(PRECISIONS)}')
    golden = read_golden(folder, size)
    if engine != 'auto':
        opened = _open_checked(engine, folder, size, precision, threads, golden)
        return opened, tuple(getattr(opened, 'notes', ()))
    notes: list[str] = []
    for name in ORDER:
        try:
            opened = _open_checked(name, folder, size, precision, threads, golden)
        except DepthNodeError as error:
            notes.append(f'{name} is passed over: {error}')
        else:
            return opened, tuple(notes)
    raise EngineError(
        f'engine auto for model {folder.card.name}',
        'no engine that works (' + ' '.join(notes) + ')',
        f'one of {", ".join(ORDER)}',
    )


def precision_for(name: str, size: InputSpec, precision: str) -> str:
    """Return the precision that an engine is opened with.

    :param name: of the engine.
    :param size: what the model offers.
    :param precision: one of :data:`PRECISIONS`; 'auto' is f32 on a processor and, where the model
        has a graph for it, f16 on a GPU.
    """
    if precision != 'auto':
        return precision
    return 'f16' if name in _ON_GPU and size.graph_f16 is not None else 'f32'


def _open_checked(
    name: str, folder: ModelFolder, size: InputSpec, precision: str, threads: int, golden: Golden
) -> Engine:
    """Open one engine and hold it to the golden output."""
    engine = _load(name, folder, size, precision_for(name, size, precision), threads)
    try:
        check_parity(engine, golden, folder.card.storage)
    except DepthNodeError:
        engine.close()
        raise
    return engine


def _load(name: str, folder: ModelFolder, size: InputSpec, precision: str, threads: int) -> Engine:
    """Load one engine; its module, and with it its library, is imported only here."""
    if name == 'openvino':
        from depth_node.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(folder, size, precision=precision, threads=threads)
    if name == 'onnxruntime':
        from depth_node.engines.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(folder, size, precision=precision, threads=threads)
    if name == 'tensorrt':
        from depth_node.engines.tensorrt_engine import TensorRtEngine

        return TensorRtEngine(folder, size, precision=precision, threads=threads)
    if name == 'cuda':
        from depth_node.engines.cuda_engine import CudaEngine

        return CudaEngine(folder, size, precision=precision, threads=threads)
    from depth_node.engines.torch_engine import TorchEngine

    return TorchEngine(folder, size, precision=precision, threads=threads)
