"""TensorRT on an NVIDIA GPU, in float32 or float16: ``tensorrt`` 10.3 or later, ``tensorrt_rtx``.

The plan is built on the robot (minutes with TensorRT on a small board, a second with TensorRT-RTX)
and kept in the engine cache; it is never shipped.  A frame is one CUDA graph: copy in, network,
copy out.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.engines import EngineInfo
from depth_node.engines import check_image
from depth_node.engines import check_precision
from depth_node.engines.cuda_driver import Cuda
from depth_node.engines.cuda_driver import CudaError
from depth_node.engines.cuda_driver import Gpu
from depth_node.engines.cuda_driver import cuda
from depth_node.engines.engine_cache import EngineCache
from depth_node.engines.engine_cache import Loaded
from depth_node.engines.tensorrt_build import NAME
from depth_node.engines.tensorrt_build import PRECISIONS
from depth_node.engines.tensorrt_build import RTX
from depth_node.engines.tensorrt_build import WHO
from depth_node.engines.tensorrt_build import PlanRequest
from depth_node.engines.tensorrt_build import library_of
from depth_node.engines.tensorrt_build import plan_request
from depth_node.errors import EngineError
from depth_node.errors import quoted
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder

_MIB = 1 << 20


class TensorRtEngine:
    """A network on the GPU; images are copied to it and back within one CUDA graph.

    :param folder: a checked model.
    :param size: one of the sizes of its card.
    :param precision: 'f32', or 'f16' for a model that has a graph for it.
    :param threads: CPU threads of the builder; 0 lets TensorRT decide.  Inference needs none.
    :raises MissingPackage: when neither tensorrt nor tensorrt_rtx is installed.
    :raises EngineError: for another precision, without a GPU or memory on it, when the library is
        too old, or when TensorRT refuses the graph.
    """

    def __init__(
        self, folder: ModelFolder, size: InputSpec, *, precision: str, threads: int
    ) -> None:
        check_precision(precision, PRECISIONS, NAME)
        self._library = library_of(NAME, RTX)
        self._cuda: Cuda = cuda()
        self._cuda.use()
        wanted = plan_request(self._library, folder, size, precision, self._cuda.gpu, threads)
        shape = wanted.key.input_shape
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._captured = self._stream = 0
        self._memory: list[int] = []
        self.notes: tuple[str, ...] = ()
        """What is to be said of the cache and of the CUDA graph."""
        try:
            self._load(wanted, EngineCache.of_user())
            self._bind(shape, (1, 1, *shape[2:]))
            self._capture()
        except BaseException:
            self.close()
            raise
        self.info = EngineInfo(
            name=NAME,
            version=('rtx ' if self._library.name == RTX else '') + self._library.version,
            precision=precision,
            device=self._cuda.gpu.name,
            input_shape=shape,
        )

    @staticmethod
    def ready(
        folder: ModelFolder, size: InputSpec, *, precision: str, threads: int
    ) -> tuple[bool, tuple[str, ...]]:
        """Tell whether the plan lies in the cache; also why one that lay there was refused.

        :raises MissingPackage: as the class does, and so for the other errors.
        """
        check_precision(precision, PRECISIONS, NAME)
        wanted = plan_request(library_of(NAME, RTX), folder, size, precision, cuda().gpu, threads)
        plan, refused = EngineCache.of_user().load(wanted.key)
        return plan is not None, (refused,) if refused else ()

    def warm_up(self) -> None:
        """Run once on zeros."""
        self.infer(np.zeros(self.info.input_shape, np.float32))

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network; see :meth:`depth_node.engines.Engine.infer`."""
        check_image(image, self.info.input_shape, NAME)
        if self._context is None:
            raise EngineError(WHO, 'an image after it was closed', 'an open engine')
        self._cuda.use()
        self._input[...] = image
        if self._captured:
            self._cuda.launch(self._captured, self._stream)
        else:
            self._enqueue()
        self._cuda.synchronize(self._stream)
        output: NDArray[np.float32] = self._output[0, 0]
        return output

    def close(self) -> None:
        """Release everything on the GPU."""
        with suppress(CudaError):  # after a fault of the GPU nothing can be released, nor need be
            self._cuda.use()
            if self._captured:
                self._cuda.destroy_captured(self._captured)
            self._captured = 0
            # TensorRT wants a context gone before its engine, and that before its runtime
            self._context = None
            self._engine = None
            self._runtime = None
            while self._memory:
                self._cuda.release(self._memory.pop())
            if self._stream:
                self._cuda.destroy_stream(self._stream)
            self._stream = 0
        self._context = self._engine = self._runtime = None

    def _load(self, wanted: PlanRequest, store: EngineCache) -> None:
        """Get the plan and make an engine of it; a stored plan that is refused is built again."""
        loaded = wanted.loaded(store)
        self.notes += loaded.notes
        trt = self._library.module
        self._runtime = trt.Runtime(self._library.log)
        self._engine = self._runtime.deserialize_cuda_engine(loaded.plan)
        if self._engine is None and loaded.origin == 'cache':
            error = self._library.failure('a stored plan that cannot be loaded', 'a plan')
            self.notes += (f'The engine is built again: {error}',)
            store.remove(wanted.key)
            loaded = wanted.loaded(store)
            self._engine = self._runtime.deserialize_cuda_engine(loaded.plan)
        if self._engine is None:
            raise self._library.failure('a plan that cannot be loaded' + self._free(), 'an engine')
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._library.failure('no execution context' + self._free(), 'one')

    def _free(self) -> str:
        """Say how much memory is free, for errors of which memory is the likeliest cause."""
        free, total = self._cuda.memory_bytes()
        return f' with {free // _MIB} of {total // _MIB} MiB of memory free'

    def _bind(self, image: tuple[int, ...], output: tuple[int, ...]) -> None:
        """Give the tensors of the engine memory; refuse one of another size than the card says."""
        self._stream = self._cuda.create_stream()
        engine, trt = self._engine, self._library.module
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        # the input first
        names.sort(key=lambda name: engine.get_tensor_mode(name) != trt.TensorIOMode.INPUT)
        ports = [(tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name))
                 for name in names]  # fmt: skip
        wanted = [(image, trt.float32), (output, trt.float32)]
        if ports != wanted:
            raise EngineError(WHO, f'a plan from and to {ports}', f'one from and to {wanted}')
        self._input = self._cuda.host_array(image)
        self._output = self._cuda.host_array(output)
        for name, array in zip(names, (self._input, self._output), strict=True):
            address = self._cuda.allocate(array.nbytes)
            self._memory.append(address)
            self._context.set_tensor_address(name, address)

    def _enqueue(self) -> None:
        """Put one frame on the stream."""
        self._cuda.copy_in(self._memory[0], self._input, self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise self._library.failure('a failure in inference', 'a result')
        self._cuda.copy_out(self._output, self._memory[1], self._stream)

    def _capture(self) -> None:
        """Record a frame as a CUDA graph, so that it costs one call; without it if need be."""
        self._enqueue()  # what TensorRT does once, at the first run, must not be recorded
        self._cuda.synchronize(self._stream)
        try:
            self._captured = self._cuda.capture(self._stream, self._enqueue)
        except EngineError as error:
            self.notes += (f'The engine runs without a CUDA graph: {error}',)


def build_only(
    folder: ModelFolder, size: InputSpec, *, target: str, precision: str = 'f32', threads: int = 0
) -> Loaded:
    """Put the plan for a kind of GPU into the cache of this machine, which needs no GPU itself.

    TensorRT-RTX alone can do so; TensorRT builds on the GPU that it builds for.

    :param target: compute capability, e.g. '8.6'; :func:`targets` lists those that are offered.
    :param precision: 'f32', or 'f16' for a model that has a graph for it.
    :returns: the plan, which is the one that :class:`TensorRtEngine` takes on such a GPU.
    :raises MissingPackage: when tensorrt_rtx is not installed.
    :raises EngineError: for a target that is not offered, or when the build fails.
    """
    check_precision(precision, PRECISIONS, NAME)
    library = library_of(RTX)
    if target not in targets():
        raise EngineError(WHO, f'target {quoted(target)}', f'one of {", ".join(targets())}')
    major, minor = target.split('.')
    gpu = Gpu(name='', compute_capability=(int(major), int(minor)), sm_count=0, cuda='')
    store = EngineCache.of_user()
    return plan_request(library, folder, size, precision, gpu, threads).loaded(store)


def targets() -> tuple[str, ...]:
    """Return the compute capabilities for which :func:`build_only` can build, e.g. '8.6'.

    :raises MissingPackage: when tensorrt_rtx is not installed.
    """
    names = dir(library_of(RTX).module.ComputeCapability)
    return tuple(f'{name[2:-1]}.{name[-1]}' for name in names if re.match(r'SM\d{2,}$', name))
