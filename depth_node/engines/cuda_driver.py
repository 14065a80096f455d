"""One NVIDIA GPU through the library of its driver: memory, a stream, graphs.

``libcuda.so.1`` comes with every driver, on a Jetson too, so that neither torch nor a CUDA toolkit
of the right version is needed beside the engine library.  The primary context is the one that the
CUDA runtime inside such a library uses.  Signatures and numbers: cuda.h, the same since CUDA 11.4.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depth_node.engines import DeviceLost
from depth_node.engines import OutOfMemory
from depth_node.errors import EngineError

_LIBRARY = 'libcuda.so.1'
_WHO = 'CUDA'
_OUT_OF_MEMORY = 2
_NO_DEVICE = (100, 101)
# after these every call of the process fails: ECC and NVLink errors, illegal addresses and
# instructions, time-outs, failed launches, and errors that the driver has no name for
_STICKY = frozenset((214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999))
# where a machine shows that it has an NVIDIA GPU even if the driver's library is missing
_SIGNS_OF_A_GPU = (Path('/proc/driver/nvidia/gpus'), Path('/etc/nv_tegra_release'))
_MULTIPROCESSORS, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 16, 75, 76
_NON_BLOCKING_STREAM = 1
# other threads may use CUDA while this one captures
_CAPTURE_THREAD_LOCAL = 1
_MIB = 1 << 20

_P = ctypes.c_void_p
_INT = ctypes.c_int
_UINT = ctypes.c_uint
_SIZE = ctypes.c_size_t
_DEVICE_POINTER = ctypes.c_uint64
_ARGUMENTS = {
    'cuInit': (_UINT,),
    'cuDriverGetVersion': (_P,),
    'cuDeviceGet': (_P, _INT),
    'cuDeviceGetName': (_P, _INT, _INT),
    'cuDeviceGetAttribute': (_P, _INT, _INT),
    'cuDevicePrimaryCtxRetain': (_P, _INT),
    'cuCtxSetCurrent': (_P,),
    'cuGetErrorName': (_INT, _P),
    'cuGetErrorString': (_INT, _P),
    'cuMemGetInfo_v2': (_P, _P),
    'cuMemAlloc_v2': (_P, _SIZE),
    'cuMemFree_v2': (_DEVICE_POINTER,),
    'cuMemHostAlloc': (_P, _SIZE, _UINT),
    'cuMemFreeHost': (_P,),
    'cuMemcpyHtoDAsync_v2': (_DEVICE_POINTER, _P, _SIZE, _P),
    'cuMemcpyDtoHAsync_v2': (_P, _DEVICE_POINTER, _SIZE, _P),
    'cuStreamCreate': (_P, _UINT),
    'cuStreamDestroy_v2': (_P,),
    'cuStreamSynchronize': (_P,),
    'cuStreamBeginCapture_v2': (_P, _INT),
    'cuStreamEndCapture': (_P, _P),
    'cuGraphInstantiateWithFlags': (_P, _P, ctypes.c_ulonglong),
    'cuGraphLaunch': (_P, _P),
    'cuGraphExecDestroy': (_P,),
    'cuGraphDestroy': (_P,),
}


class CudaError(EngineError):
    """A call that the driver refused, or that an earlier fault on the GPU made fail."""


class CudaLost(CudaError, DeviceLost):
    """A fault after which the GPU answers nothing but this error to this process."""


class CudaOutOfMemory(CudaError, OutOfMemory):
    """Memory of the GPU, or memory that it can read, that could not be had."""


@dataclass(frozen=True)
class Probe:
    """Whether a GPU is there, found out without making use of it."""

    usable: bool
    problem: str = ''
    """Why a GPU that is there cannot be used; empty where there is none."""


@dataclass(frozen=True)
class Gpu:
    """What distinguishes one GPU and its driver from others."""

    name: str
    compute_capability: tuple[int, int]
    sm_count: int
    """Number of multiprocessors."""
    cuda: str
    """CUDA version of the driver, e.g. '13.0'."""


class Cuda:
    """The first GPU that the process sees; ``CUDA_VISIBLE_DEVICES`` says which that is.

    Addresses, streams and graphs are plain integers, as the engine libraries take them.  Every
    thread calls :meth:`use` before it calls anything else.

    :raises CudaError: when there is no driver or no GPU that it can use.
    """

    def __init__(self) -> None:
        self._library = _library()
        self._call('cuInit', 0)
        device = self._integer('cuDeviceGet', 0)
        self._context = self._pointer('cuDevicePrimaryCtxRetain', device)
        name = ctypes.create_string_buffer(256)
        self._call('cuDeviceGetName', name, len(name), device)
        version = self._integer('cuDriverGetVersion')
        major, minor, sm_count = (
            self._integer('cuDeviceGetAttribute', attribute, device)
            for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _MULTIPROCESSORS)
        )
        self.gpu = Gpu(
            name=name.value.decode(errors='replace'),
            compute_capability=(major, minor),
            sm_count=sm_count,
            cuda=f'{version // 1000}.{version % 1000 // 10}',
        )

    def use(self) -> None:
        """Let this thread work on the GPU."""
        self._call('cuCtxSetCurrent', self._context)

    def memory_bytes(self) -> tuple[int, int]:
        """Return how much memory of the GPU is free, and how much there is."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call('cuMemGetInfo_v2', ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory on the GPU."""
        return self._pointer('cuMemAlloc_v2', size_bytes)

    def release(self, address: int) -> None:
        """Free memory on the GPU."""
        self._call('cuMemFree_v2', address)

    def host_array(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return zeros in memory that the GPU can copy from and to without the processor.

        It is freed with the last array that looks into it, even after the engine was closed.
        """
        count = int(np.prod(shape))
        address = self._pointer('cuMemHostAlloc', 4 * count, 0)
        memory = (ctypes.c_float * count).from_address(address)
        free = weakref.finalize(memory, self._library.cuMemFreeHost, address)
        free.atexit = False  # the driver may be gone before Python is
        array: NDArray[np.float32] = np.ctypeslib.as_array(memory).reshape(shape)
        array.fill(0.0)
        return array

    def create_stream(self) -> int:
        """Return a new stream that waits for no other."""
        return self._pointer('cuStreamCreate', _NON_BLOCKING_STREAM)

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""
        self._call('cuStreamDestroy_v2', stream)

    def copy_in(self, address: int, array: NDArray[np.float32], stream: int) -> None:
        """Enqueue the copy of an array to the GPU."""
        self._call('cuMemcpyHtoDAsync_v2', address, array.ctypes.data, array.nbytes, stream)

    def copy_out(self, array: NDArray[np.float32], address: int, stream: int) -> None:
        """Enqueue the copy of memory on the GPU into an array."""
        self._call('cuMemcpyDtoHAsync_v2', array.ctypes.data, address, array.nbytes, stream)

    def synchronize(self, stream: int) -> None:
        """Wait for all that was enqueued; faults on the GPU come out here."""
        self._call('cuStreamSynchronize', stream)

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        """Return a graph of the work that ``enqueue`` puts on a stream; nothing of it runs.

        :raises CudaError: when some of that work cannot be captured.
        """
        self._call('cuStreamBeginCapture_v2', stream, _CAPTURE_THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            # a stream that captures is good for nothing else
            with suppress(CudaError):
                self._destroy_graph(self._pointer('cuStreamEndCapture', stream, last=True))
            raise
        graph = self._pointer('cuStreamEndCapture', stream, last=True)
        try:
            return self._pointer('cuGraphInstantiateWithFlags', graph, 0)
        finally:
            self._destroy_graph(graph)

    def launch(self, graph: int, stream: int) -> None:
        """Enqueue a captured graph."""
        self._call('cuGraphLaunch', graph, stream)

    def destroy_captured(self, graph: int) -> None:
        """Destroy what :meth:`capture` returned."""
        self._call('cuGraphExecDestroy', graph)

    def _destroy_graph(self, graph: int) -> None:
        if graph:
            self._call('cuGraphDestroy', graph)

    def _call(self, name: str, *arguments: object) -> None:
        """Call the driver.

        :raises CudaError: when it does not answer with success.
        """
        code = int(getattr(self._library, name)(*arguments))
        if code:
            raise _error(self._library, name, code, arguments)

    def _pointer(self, name: str, *arguments: object, last: bool = False) -> int:
        """Call the driver and return the pointer that it writes to its first or last argument."""
        result = ctypes.c_uint64()
        place = ctypes.byref(result)
        self._call(name, *((*arguments, place) if last else (place, *arguments)))
        return result.value

    def _integer(self, name: str, *arguments: object) -> int:
        result = ctypes.c_int()
        self._call(name, ctypes.byref(result), *arguments)
        return result.value


@cache
def cuda() -> Cuda:
    """Return the GPU of this process; its context is kept until the process ends.

    :raises CudaError: when there is none; the next call tries again.
    """
    return Cuda()


def probe() -> Probe:
    """Tell whether there is a GPU; costs next to nothing where there is no driver.

    A GPU that ``CUDA_VISIBLE_DEVICES`` hides is not there.
    """
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError as error:
        there = any(sign.is_file() or list(sign.glob('*')) for sign in _SIGNS_OF_A_GPU)
        return Probe(False, f'this machine has an NVIDIA GPU but {error}.' if there else '')
    try:
        library = _library()
    except CudaError as error:
        return Probe(False, str(error))
    device = ctypes.c_int()
    for name, arguments in (('cuInit', (0,)), ('cuDeviceGet', (ctypes.byref(device), 0))):
        code = int(getattr(library, name)(*arguments))
        if code:
            return Probe(
                False, '' if code in _NO_DEVICE else str(_error(library, name, code, arguments))
            )
    return Probe(True)


def _library() -> ctypes.CDLL:
    """Load the driver's library with the types of all that is called."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        for name, arguments in _ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = ctypes.c_int
    except (OSError, AttributeError) as error:
        raise CudaError(
            _WHO,
            f'no usable NVIDIA driver ({error})',
            'a driver for CUDA 11.4 or later',
            'Install or update the driver until nvidia-smi works; start a container with '
            '--gpus all (on a Jetson: --runtime nvidia).',
        ) from error
    return library


def _error(library: ctypes.CDLL, name: str, code: int, arguments: tuple[object, ...]) -> CudaError:
    """Make an error of what a call returned, with the driver's own words."""
    words = []
    for describe in (library.cuGetErrorName, library.cuGetErrorString):
        text = ctypes.c_char_p()
        describe(code, ctypes.byref(text))
        words.append(text.value.decode(errors='replace') if text.value else f'error {code}')
    received = f'{words[0]} from {name} ({words[1]})'
    if code in _STICKY:
        return CudaLost(_WHO, received, 'success', 'Start a new process; see dmesg for an Xid.')
    if code == _OUT_OF_MEMORY:
        # the second argument of cuMemAlloc and cuMemHostAlloc is the size
        if name.startswith('cuMem') and len(arguments) > 1 and isinstance(arguments[1], int):
            received += f' for {-(-arguments[1] // _MIB)} MiB'
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        if not library.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)):
            received += f' with {free.value // _MIB} of {total.value // _MIB} MiB free'
        return CudaOutOfMemory(
            _WHO, received, 'memory', 'Close other programs on the GPU or take a smaller model.'
        )
    remedy = {
        'cuInit': 'Check that nvidia-smi shows a GPU, in this container too.',
        'cuDeviceGet': 'Check CUDA_VISIBLE_DEVICES.',
    }.get(name, '')
    return CudaError(_WHO, received, 'success', remedy)
