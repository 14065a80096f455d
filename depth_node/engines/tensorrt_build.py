"""Finding TensorRT, and building the plan of a graph for a GPU.

Networks are strongly typed: they compute in the types that the graph names, so float16 is another
graph and no flag.  TF32, which TensorRT uses for float32 unless told otherwise, is switched off.
One code path serves ``tensorrt`` from 10.3 to 11 and ``tensorrt_rtx``: flags that later versions
lack are looked up before they are used.
"""

from __future__ import annotations

import importlib
import logging
import platform
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from depth_node.engines import check_precision
from depth_node.engines.cuda_driver import Gpu
from depth_node.engines.engine_cache import DeviceKey
from depth_node.engines.engine_cache import EngineCache
from depth_node.engines.engine_cache import Loaded
from depth_node.engines.engine_cache import PlanKey
from depth_node.engines.engine_cache import TimingKey
from depth_node.engines.graph_files import checked_graph
from depth_node.engines.graph_files import external_files
from depth_node.engines.memory import give_back_freed_memory
from depth_node.engines.memory import let_go_of_files
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.errors import quoted
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder

NAME = 'tensorrt'
WHO = f'engine {NAME}'
RTX = 'tensorrt_rtx'
PRECISIONS = ('f32', 'f16')
"""Types of arithmetic; each is a graph of its own."""

_OLDEST = {NAME: (10, 3), RTX: (1, 4)}
_OPTIONS = ('TF32 off',)
_NATIVE = re.compile(r'/((?:libnvinfer|libtensorrt_rtx)\.so[.\d]*)$')
_TEGRA = (Path('/etc/nv_tegra_release'), Path('/proc/device-tree/compatible'))
_SHOWN_ERRORS = 3
_SHOWN_CHARACTERS = 300
_REPORT_S = 5.0

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Library:
    """TensorRT as it was found."""

    module: Any
    name: str
    """'tensorrt' or 'tensorrt_rtx'."""
    version: str
    log: Any
    """An ILogger that keeps the last errors; TensorRT accepts one per process."""

    def failure(self, received: str, expected: str) -> EngineError:
        """Make an error with what TensorRT has logged of it, and forget that."""
        lines = list(dict.fromkeys(self.log.errors))[:_SHOWN_ERRORS]
        self.log.errors.clear()
        cause = '; '.join(' '.join(line.split()) for line in lines) or 'no reason given'
        return EngineError(
            WHO,
            f'{received} ({repr(cause)[1:-1][:_SHOWN_CHARACTERS]})',
            expected,
            _remedy(f'{received} {cause}'.lower()),
        )


@dataclass(frozen=True)
class PlanRequest:
    """A plan that is asked for."""

    library: Library
    graph: Path
    key: PlanKey
    target: str
    """Name in ComputeCapability of tensorrt_rtx; '' for tensorrt, which builds for this GPU."""
    threads: int

    def loaded(self, store: EngineCache) -> Loaded:
        """Return the plan from the cache, or build it."""
        return store.get_or_build(self.key, lambda: _built(self, store))


@cache
def library_of(*names: str) -> Library:
    """Import the first of some libraries that is there and new enough, or say how to get it.

    :raises MissingPackage: when none is installed.
    :raises EngineError: when those that are installed are broken or too old.
    """
    problems: list[str] = []
    for name in names:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                problems.append(f'{name} without {error.name}')
            continue
        # their packages look for native libraries while they are imported
        except (ImportError, OSError, RuntimeError) as error:
            problems.append(f'{name} that cannot be imported ({quoted(str(error))})')
            continue
        version = str(module.__version__)
        if tuple(int(part) for part in re.findall(r'\d+', version)[:2]) >= _OLDEST[name]:
            return Library(module, name, version, _log_of(module))
        problems.append(f'{name} {version}')
    if not problems:
        raise MissingPackage(names[0], WHO, install_command())
    oldest = ' or '.join(f'{name} {_OLDEST[name][0]}.{_OLDEST[name][1]}' for name in names)
    raise EngineError(WHO, ', '.join(problems), f'{oldest} or later', f'Run: {install_command()}')


def install_command() -> str:
    """Return the command that installs TensorRT; pip's does not run on a Jetson."""
    for path in _TEGRA:
        with suppress(OSError):
            if b'tegra' in path.read_bytes().lower() or path == _TEGRA[0]:
                return (
                    'sudo apt install python3-libnvinfer (TensorRT of JetPack 6.2 or later, never '
                    'that of pip; a virtual environment needs --system-site-packages)'
                )
    return 'pip install tensorrt-rtx (GeForce and RTX GPUs), or: pip install tensorrt (all GPUs)'


@cache
def _log_of(trt: Any) -> Any:
    """Return the logger for TensorRT; its base class exists only once TensorRT is imported."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.errors.append(text)
            elif severity <= trt.ILogger.WARNING:
                _LOG.debug('%s', text)

    return Log()


def _progress_of(trt: Any) -> Any:
    """Return a monitor that reports a long build and lets Ctrl-C end it."""

    class Progress(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupt: BaseException | None = None
            self._start_s = self._report_s = time.monotonic()

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            pass

        def phase_finish(self, phase: str) -> None:
            pass

        def step_complete(self, phase: str, step: int) -> bool:
            # an exception must not pass through TensorRT: the build is ended first
            try:
                now_s = time.monotonic()
                if now_s - self._report_s >= _REPORT_S:
                    self._report_s = now_s
                    _LOG.info('building the engine: %s, %.0f s', phase, now_s - self._start_s)
            except BaseException as error:
                self.interrupt = error
            return self.interrupt is None

    return Progress()


def plan_request(
    library: Library,
    folder: ModelFolder,
    size: InputSpec,
    precision: str,
    gpu: Gpu,
    threads: int,
) -> PlanRequest:
    """Say which plan is needed for a GPU.

    :raises EngineError: for another precision.
    :raises ModelError: when the model has no graph of this precision, or it names files that are
        not in the card.
    """
    check_precision(precision, PRECISIONS, NAME)
    # strongly typed networks compute in the types of the graph
    graph = checked_graph(folder, size, precision)
    major, minor = gpu.compute_capability
    target = ''
    if library.name == RTX:
        target = f'SM{major}{minor}'
        if not hasattr(library.module.ComputeCapability, target):
            target = 'CURRENT'
    # such a plan is compiled for the GPU when it is loaded, and the same on all of its kind
    portable = target.startswith('SM')
    device = DeviceKey(
        library=library.name,
        library_version=library.version,
        library_build=_native_build(),
        cuda='' if portable else gpu.cuda,
        gpu='' if portable else gpu.name,
        compute_capability=f'{major}.{minor}',
        sm_count=0 if portable else gpu.sm_count,
        platform=f'{sys.platform} {platform.machine()}',
    )
    recorded = folder.card.files  # of checked files
    key = PlanKey(
        device=device,
        graph_sha256=recorded[graph.name].sha256,
        data_sha256=tuple(recorded[name].sha256 for name in sorted(external_files(graph))),
        input_shape=(1, 3, size.height, size.width),
        precision=precision,
        options=_OPTIONS,
    )
    return PlanRequest(library, graph, key, target, threads)


def _native_build() -> str:
    """Return name and size of the native library that is loaded; '' where it cannot be found."""
    with suppress(OSError):
        for line in Path('/proc/self/maps').read_text(errors='replace').splitlines():
            if found := _NATIVE.search(line):
                path = Path(line.split(maxsplit=5)[5])
                return f'{found[1]} of {path.stat().st_size} bytes'
    return ''


def _built(wanted: PlanRequest, store: EngineCache) -> bytes:
    """Build a plan.

    :raises EngineError: when TensorRT refuses the graph or cannot build it.
    """
    library, trt = wanted.library, wanted.library.module
    library.log.errors.clear()
    _LOG.info('building the engine with %s %s', library.name, library.version)
    # TypeError: how the bindings say that a constructor got nothing from the library
    try:
        builder = trt.Builder(library.log)
        network = _parsed(library, builder, wanted)
        config = _configured(trt, builder, wanted)
        timing = _with_timing(config, wanted, store)
        config.progress_monitor = progress = _progress_of(trt)
        plan = builder.build_serialized_network(network, config)
    except (RuntimeError, TypeError, ValueError) as error:
        library.log.errors.append(str(error))
        raise library.failure('a failure in building', 'a plan') from error
    if progress.interrupt is not None:
        raise progress.interrupt
    if plan is None:
        raise library.failure('no plan', 'one')
    built = bytes(plan)
    if timing is not None and (measured := config.get_timing_cache()) is not None:
        store.store(timing, bytes(measured.serialize()))
    del plan, network, config, builder
    give_back_freed_memory()
    let_go_of_files(wanted.graph.parent.iterdir())
    return built


def _parsed(library: Library, builder: Any, wanted: PlanRequest) -> Any:
    """Return the network of a graph; refuse one of another size than the card says."""
    trt = library.module
    # TensorRT 11 knows no other networks and ignores the flag
    typed = getattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED', None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, library.log)
    # by path, because the weights lie in a file beside it
    if not parser.parse_from_file(str(wanted.graph)):
        found = [parser.get_error(index) for index in range(parser.num_errors)]
        library.log.errors[:] = [
            ' '.join(filter(None, (error.node_operator(), error.node_name(), error.desc())))
            for error in found
        ]
        raise library.failure(f'{wanted.graph}, which cannot be read', 'a graph that can')
    shape = wanted.key.input_shape
    wanted_ports = ([(shape, trt.float32)], [((1, 1, *shape[2:]), trt.float32)])
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    found_ports = tuple([(tuple(port.shape), port.dtype) for port in side]
                        for side in (inputs, outputs))  # fmt: skip
    if found_ports != wanted_ports:
        raise EngineError(
            WHO, f'a graph from {found_ports[0]} to {found_ports[1]}', f'{wanted_ports}'
        )
    return network


def _configured(trt: Any, builder: Any, wanted: PlanRequest) -> Any:
    """Return the options of the builder; :data:`_OPTIONS` names them for the key."""
    if wanted.threads > 0:
        builder.max_threads = wanted.threads
    config = builder.create_builder_config()
    tf32 = getattr(trt.BuilderFlag, 'TF32', None)
    if tf32 is not None:
        config.clear_flag(tf32)
    if wanted.target:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, wanted.target), 0)
    return config


def _with_timing(config: Any, wanted: PlanRequest, store: EngineCache) -> TimingKey | None:
    """Give the builder what was measured before on this GPU; return under which key it is kept.

    TensorRT-RTX measures nothing.
    """
    if wanted.library.name == RTX:
        return None
    key = TimingKey(wanted.key.device)
    known, _ = store.load(key)
    if not config.set_timing_cache(config.create_timing_cache(known or b''), False):
        config.set_timing_cache(config.create_timing_cache(b''), False)
    return key


def _remedy(words: str) -> str:
    """Say what to do about an error, as far as TensorRT's words tell."""
    if 'driver' in words:
        return 'Update the NVIDIA driver, or take a TensorRT for the CUDA version of the driver.'
    if 'memory' in words:
        return 'Close other programs on the GPU, or take a smaller model or input size.'
    return ''
