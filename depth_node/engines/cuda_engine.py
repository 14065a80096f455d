"""PyTorch on an NVIDIA GPU at batch 1: one CUDA graph per frame, and the whole frame on the GPU.

Needs no exported graph and no compiler: the trained network in its plain form with the fewest
operations, because at batch 1 it is launches that cost, in float16 or float32, channels last.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from depth_node.engines import DeviceLost
from depth_node.engines import EngineInfo
from depth_node.engines import FrameLimits
from depth_node.engines import FramePlan
from depth_node.engines import MadeFrame
from depth_node.engines import OutOfMemory
from depth_node.engines import check_image
from depth_node.engines import check_precision
from depth_node.engines import library_failure
from depth_node.engines.cuda_driver import Gpu
from depth_node.engines.cuda_driver import cuda
from depth_node.engines.cuda_graph import PinnedMemory
from depth_node.engines.cuda_graph import Stream
from depth_node.engines.memory import let_go_of_files
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder

if TYPE_CHECKING:
    from torch import nn

    from depth_node.engines.gpu_frame import GpuFrame
    from depth_node.engines.gpu_inference import GpuInference

NAME = 'cuda'
PRECISIONS = ('f32', 'f16')

_WHO = f'engine {NAME}'
_DEVICE = 'cuda'
INSTALL = (
    'pip install --force-reinstall torch (wheels of PyPI have CUDA; on a Jetson take the wheel '
    'for its JetPack)'
)
_MIB = 1 << 20
_WANTED = re.compile(r'Tried to allocate ([0-9.]+ [KMGT]iB)')
T = TypeVar('T')


class CudaEngine:
    """A network, and the frame around it, on the first GPU that the process sees.

    :param folder: a checked model.
    :param size: one of the sizes of its card.
    :param precision: 'f32' or 'f16'.
    :param threads: without meaning here: nothing is computed on the processor.
    :raises MissingPackage: when torch is not installed.
    :raises ModelError: when the weights are not those of the network that the card names.
    :raises OutOfMemory: when the memory of the GPU does not suffice.
    :raises EngineError: for another precision, without a GPU or a driver, when torch was built
        without CUDA, or when PyTorch fails.
    """

    def __init__(
        self, folder: ModelFolder, size: InputSpec, *, precision: str, threads: int
    ) -> None:
        check_precision(precision, PRECISIONS, NAME)
        self._driver = cuda()  # before torch, whose import takes a second and memory
        self._driver.use()
        self._torch = torch_with_cuda(self._driver.gpu)
        self._card = folder.card
        self._alone: tuple[GpuInference, Any] | None = None
        self._frames: dict[str, tuple[GpuFrame, Any]] = {}  # by the name of the camera
        self.notes: tuple[str, ...] = ()
        """What is to be said of the CUDA graph."""
        self.info = EngineInfo(
            name=NAME,
            version=str(self._torch.__version__),
            precision=precision,
            device=self._driver.gpu.name,
            input_shape=(1, 3, size.height, size.width),
        )
        self._alone = self._guarded('loading', lambda: self._load(folder, size, precision))

    def warm_up(self) -> None:
        """Run once on zeros."""
        self.infer(np.zeros(self.info.input_shape, np.float32))

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network; see :meth:`depth_node.engines.Engine.infer`."""
        check_image(image, self.info.input_shape, NAME)
        alone, graph = self._open_one()
        np.copyto(alone.image, image)
        self._guarded('inference', lambda: self._stream.run(graph, alone.enqueue))
        return alone.output

    def frame(self, rgb: NDArray[np.uint8], plan: FramePlan, limits: FrameLimits) -> MadeFrame:
        """Make a whole frame; see :meth:`depth_node.engines.WholeFrame.frame`."""
        network = self._open_one()[0].network
        prepared = self._frames.get(plan.camera)
        if prepared is None or prepared[0].plan != plan:
            prepared = None
            self._frames.pop(plan.camera, None)  # its memory first
            prepared = self._guarded('preparing', lambda: self._prepared(network, plan))
            self._frames[plan.camera] = prepared
        frame, graph = prepared
        start_ns = time.perf_counter_ns()
        frame.put(rgb, limits)
        upload_ns = time.perf_counter_ns() - start_ns
        gpu_ns, waited_ns = self._guarded(
            'a frame', lambda: self._stream.run(graph, frame.enqueue)
        )
        return frame.made({'upload': upload_ns, 'gpu': gpu_ns, 'wait': waited_ns})

    def close(self) -> None:
        """Release everything on the GPU; calling it twice is harmless."""
        if self._alone is not None:
            self._alone = None
            self._frames.clear()
            self._empty_cache()

    def _load(
        self, folder: ModelFolder, size: InputSpec, precision: str
    ) -> tuple[GpuInference, Any]:
        """Bring the network to the GPU and record it."""
        from depth_node.engines.gpu_inference import GpuInference

        self._memory = PinnedMemory(self._driver, self._torch)
        self._stream = Stream(self._torch, exact=precision == 'f32')
        network = network_for(folder, size, precision).to(_DEVICE)
        alone = GpuInference(network, self.info.input_shape, _DEVICE, self._memory)
        graph, reason = self._stream.recorded(alone.enqueue)
        if graph is None:
            self.notes += (f'The engine runs without a CUDA graph: {reason}',)
        return alone, graph

    def _prepared(self, network: nn.Module, plan: FramePlan) -> tuple[GpuFrame, Any]:
        """Make the frame of a plan and record it."""
        from depth_node.engines.gpu_frame import GpuFrame

        frame = GpuFrame(network, self._card, plan, _DEVICE, self._memory)
        return frame, self._stream.recorded(frame.enqueue)[0]

    def _open_one(self) -> tuple[GpuInference, Any]:
        if self._alone is None:
            raise EngineError(_WHO, 'an image after it was closed', 'an open engine')
        return self._alone

    def _guarded(self, doing: str, work: Callable[[], T]) -> T:
        """Do work on the GPU and make sentences of what PyTorch raises.

        :raises DeviceLost: when the GPU answers nothing any more.
        :raises OutOfMemory: when its memory does not suffice.
        :raises EngineError: for any other failure.
        """
        try:
            return work()
        except RuntimeError as error:
            failure = self._failure(doing, error)
        # out here nothing holds the exception any more, nor the tensors in its traceback
        if not isinstance(failure, DeviceLost):
            self._empty_cache()
        raise failure

    def _failure(self, doing: str, error: RuntimeError) -> EngineError:
        """Say what failed, and find out whether the GPU still answers."""
        torch = self._torch
        try:
            torch.cuda.synchronize()
        except RuntimeError as lasting:
            said = library_failure(NAME, doing, lasting)
            return DeviceLost(
                _WHO, said.received, said.expected, 'The process has to be started anew.'
            )
        if not isinstance(error, torch.cuda.OutOfMemoryError):
            return library_failure(NAME, doing, error)
        wanted = _WANTED.search(str(error))
        taken = torch.cuda.memory_allocated() // _MIB
        free, total = (size // _MIB for size in self._driver.memory_bytes())
        more = wanted[1] if wanted else 'an unknown amount'
        return OutOfMemory(
            _WHO,
            f'{free} of {total} MiB of memory free in {doing}, with {taken} MiB taken and {more} '
            'more needed',
            'enough memory on the GPU',
            'Close other programs on it or take a smaller model.',
        )

    def _empty_cache(self) -> None:
        """Give memory back; after a fault of the GPU nothing can be, nor need be."""
        try:
            self._torch.cuda.empty_cache()
        except RuntimeError:
            return


def torch_with_cuda(gpu: Gpu) -> Any:
    """Import torch and refuse one that cannot use the GPU that the driver shows.

    :raises MissingPackage: when torch is not installed.
    :raises EngineError: when it was built without CUDA or for a CUDA that the driver lacks.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingPackage('torch', _WHO, INSTALL) from error
    if torch.version.cuda is None:
        raise EngineError(
            _WHO,
            f'torch {torch.__version__}, built without CUDA',
            'torch with CUDA',
            f'Run: {INSTALL}',
        )
    if not torch.cuda.is_available():
        raise EngineError(
            _WHO,
            f'torch {torch.__version__} for CUDA {torch.version.cuda}, which finds no GPU, and a '
            f'driver for CUDA {gpu.cuda}',
            'a driver for that CUDA or a later one',
            'Update the driver, or install torch for an older CUDA.',
        )
    return torch


def network_for(folder: ModelFolder, size: InputSpec, precision: str) -> nn.Module:
    """Return the trained network in the form that this engine runs, on the processor still.

    :param precision: 'f32', or 'f16' for a float16 body.
    :returns: module from a normalised float32 image (1, 3, H, W) to (1, 1, H, W) float32.
    """
    from depth_node.networks.model_weights import network_of

    network = served(network_of(folder), size.height, size.width, precision)
    # what was brought into another order is not read there again
    let_go_of_files([folder.file(WEIGHTS_NAME)])
    return network


def served(network: nn.Module, height: int, width: int, precision: str) -> nn.Module:
    """Return a trained network in the form that this engine runs; see :func:`network_for`.

    :param network: of the registry, on the processor.
    :param height: rows of the input, pixels.
    :param width: columns of the input, pixels.
    """
    import torch

    from depth_node.networks.half import halved
    from depth_node.networks.rewrites import GPU
    from depth_node.networks.rewrites import linearized

    plain = linearized(network, height, width, GPU).eval()
    if precision == 'f16':
        plain = halved(plain).eval()
    channels_last: nn.Module = plain.to(memory_format=torch.channels_last)
    return channels_last
