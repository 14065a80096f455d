"""Opens the engine that was asked for, or the first that works, and says why others did not.

An engine is chosen when it is opened; nothing falls back later in silence.  Engines that must be
built or tried first come through upgrade.py while another one serves.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depth_node.engines import Engine
from depth_node.engines import OutOfMemory
from depth_node.engines import library_failure
from depth_node.engines.parity import Golden
from depth_node.engines.parity import check_parity
from depth_node.engines.parity import read_golden
from depth_node.errors import DepthNodeError
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.errors import quoted
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder

ON_GPU = ('tensorrt', 'cuda')
ON_CPU = ('openvino', 'onnxruntime', 'torch')
ORDER = (*ON_GPU, *ON_CPU)
"""Engines in the order in which 'auto' prefers them."""
PRECISIONS = ('auto', 'f32', 'f16', 'bf16', 'int8')
ENGINES = {
    'tensorrt': 'depth_node.engines.tensorrt_engine:TensorRtEngine',
    'cuda': 'depth_node.engines.cuda_engine:CudaEngine',
    'openvino': 'depth_node.engines.openvino_engine:OpenVinoEngine',
    'onnxruntime': 'depth_node.engines.onnxruntime_engine:OnnxRuntimeEngine',
    'torch': 'depth_node.engines.torch_engine:TorchEngine',
}
"""Module and class of each engine; the module, and with it the library, is imported when used."""
PACKAGES = {
    'tensorrt': ('tensorrt', 'tensorrt_rtx'),
    'cuda': ('torch',),
}
"""Packages of which a GPU engine needs one."""

_MEMORY = Path('/proc/meminfo')


def names_of(engine: str) -> tuple[str, ...]:
    """Return the engines of a setting, the preferred one first.

    :param engine: 'auto', or names of :data:`ORDER` with commas between them.
    :raises EngineError: for an unknown name, one that comes twice, or none.
    """
    if engine == 'auto':
        return ORDER
    names = tuple(name.strip() for name in engine.split(','))
    if not set(names) <= set(ORDER) or len(set(names)) < len(names):
        raise EngineError(
            'engine', quoted(engine), f'auto, or some of {", ".join(ORDER)} with commas between'
        )
    return names


def open_engine(
    folder: ModelFolder, size: InputSpec, *, engine: str, precision: str, threads: int
) -> tuple[Engine, tuple[str, ...]]:
    """Open an engine in this process whose output agrees with the model's golden output.

    :param folder: a checked model.
    :param size: one of the sizes of its card.
    :param engine: names as :func:`names_of` takes them, tried in turn; 'auto' stands for
        :data:`ON_CPU` here, because GPU engines are to be tried in another process first.
    :param precision: one of :data:`PRECISIONS`; never changed to make an engine work.
    :param threads: CPU threads; 0 lets the engine decide.
    :returns: the engine, and per engine that was passed over a sentence that says why; also
        what the engine has to say of itself.
    :raises EngineError: when every engine fails or disagrees.
    :raises MissingPackage: when the one engine that was named is not installed.
    :raises ModelError: when the golden file or the graph cannot be used.
    """
    names = names_of(engine) if engine != 'auto' else ON_CPU
    if precision not in PRECISIONS:
        raise EngineError('precision', quoted(precision), f'one of {", ".join(PRECISIONS)}')
    golden = read_golden(folder, size)
    notes: list[str] = []
    for name in names:
        try:
            opened = _open_checked(name, folder, size, precision, threads, golden)
        except DepthNodeError as error:
            if len(names) == 1:
                raise
            notes.append(passed_over(name, error))
        else:
            return opened, (*notes, *getattr(opened, 'notes', ()))
    raise none_works(engine, folder, notes)


def precision_for(name: str, size: InputSpec, precision: str) -> str:
    """Return the precision that an engine is opened with.

    :param name: of the engine.
    :param size: what the model offers.
    :param precision: one of :data:`PRECISIONS`; 'auto' is f32 on a processor and, where the model
        has a graph for it, f16 on a GPU.
    """
    if precision != 'auto':
        return precision
    return 'f16' if name in ON_GPU and size.graph_f16 is not None else 'f32'


def is_ready(
    name: str, folder: ModelFolder, size: InputSpec, *, precision: str, threads: int
) -> tuple[bool, tuple[str, ...]]:
    """Tell whether an engine can be opened without being built first.

    :returns: the answer, and notes, e.g. on a stored plan that was refused.
    :raises EngineError: when the engine cannot work at all.
    :raises MissingPackage: when its library is not installed.
    """
    ready = getattr(_class_of(name), 'ready', None)
    if ready is None:
        return True, ()
    precision = precision_for(name, size, precision)
    answer: tuple[bool, tuple[str, ...]] = ready(
        folder, size, precision=precision, threads=threads
    )
    return answer


def missing(name: str) -> MissingPackage | None:
    """Return the error of a GPU engine whose library is not installed; nothing is imported."""
    packages = PACKAGES[name]
    if any(importlib.util.find_spec(package) for package in packages):
        return None
    if name == 'tensorrt':
        from depth_node.engines.tensorrt_build import install_command

        command = install_command()
    else:
        from depth_node.engines.cuda_engine import INSTALL

        command = INSTALL
    return MissingPackage(packages[0], f'engine {name}', command)


def passed_over(name: str, reason: object) -> str:
    """Return the sentence that says why an engine was passed over."""
    return f'{name} is passed over: {reason}'


def none_works(engine: str, folder: ModelFolder, notes: Sequence[str]) -> EngineError:
    """Make the error for when every engine of a setting was passed over."""
    return EngineError(
        f'engine {engine} for model {folder.card.name}',
        'no engine that works (' + ' '.join(notes) + ')',
        f'one of {", ".join(names_of(engine))}',
    )


def _open_checked(
    name: str, folder: ModelFolder, size: InputSpec, precision: str, threads: int, golden: Golden
) -> Engine:
    """Open one engine and hold it to the golden output.

    :raises OutOfMemory: when the process, not the GPU, has too little memory.
    """
    engine: Engine | None = None
    try:
        precision = precision_for(name, size, precision)
        engine = _class_of(name)(folder, size, precision=precision, threads=threads)
        check_parity(engine, golden, folder.card.storage)
    except DepthNodeError:
        if engine is not None:
            engine.close()
        raise
    except MemoryError as error:
        if engine is not None:
            engine.close()
        raise _too_little_memory(name, folder) from error
    return engine


def _class_of(name: str) -> Any:
    """Import the class of an engine.

    :raises EngineError: when its module cannot be imported.
    """
    module, _, attribute = ENGINES[name].partition(':')
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise library_failure(name, f'importing {module}', error) from error


def _too_little_memory(name: str, folder: ModelFolder) -> OutOfMemory:
    """Make the error of an allocation that failed: what is needed at least, and what is free."""
    least = sum(record.size_bytes for record in folder.card.files.values()) >> 20
    free = 'an unknown number of'
    try:
        found = [line.split() for line in _MEMORY.read_text().splitlines()]
        free = next(str(int(line[1]) >> 10) for line in found if line[0] == 'MemAvailable:')
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    return OutOfMemory(
        f'engine {name}',
        f'too little memory: the files of the model alone take {least} MiB, {free} MiB are free',
        'memory for the network',
        'Take a smaller model or end other programs.',
    )
