"""Work on an NVIDIA GPU that is recorded once and then enqueued with one call, in PyTorch."""

from __future__ import annotations

import time
import weakref
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.engines.cuda_driver import Cuda

# cuDNN measures its algorithms in the first, and libraries make their workspaces in the others
_WARM_UPS = 3


class PinnedMemory:
    """Memory that the GPU copies from and to without the processor.

    It is freed with the last array that looks into it, even after the engine was closed, and never
    by PyTorch, whose own pinned memory ends the process when it is freed after a fault of the GPU.
    """

    def __init__(self, driver: Cuda, torch: Any) -> None:
        self._driver = driver
        self._runtime = torch.cuda.cudart()

    def zeros(self, size_bytes: int) -> NDArray[np.uint8]:
        """Return zeros."""
        self._driver.use()
        self._driver.use()
        floats = self._driver.host_array((-(-size_bytes // 4),))
        return floats.view(np.uint8)[:size_bytes]

    def message_zeros(self, size_bytes: int) -> array[int] | None:
        """Return zeros of type code 'B'; None where the driver does not pin such memory."""
        data = array('B', bytes(size_bytes))
        address = data.buffer_info()[0]
        if int(self._runtime.cudaHostRegister(address, size_bytes, 0)):
            return None
        # runs before the memory is freed
        unpin = weakref.finalize(data, self._runtime.cudaHostUnregister, address)
        unpin.atexit = False
        return data


class Stream:
    """A stream of its own, and the memory that the graphs recorded on it share."""

    def __init__(self, torch: Any, *, exact: bool) -> None:
        """Make it.

        :param torch: the module.
        :param exact: let convolutions in float32 be float32; otherwise they may use TF32.
        """
        self.torch = torch
        self.stream = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()
        self._exact = exact
        self._began, self._ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def recorded(self, enqueue: Callable[[], None]) -> tuple[Any, str]:
        """Run work some times, then record it.

        :param enqueue: puts the work on the current stream; the same addresses at every call.
        :returns: the graph, or None and the reason why the work cannot be recorded.
        """
        torch = self.torch
        self.stream.wait_stream(torch.cuda.current_stream())
        kinds = torch.backends.cudnn.flags(
            enabled=True, benchmark=True, allow_tf32=not self._exact
        )
        with torch.inference_mode(), kinds:
            with torch.cuda.stream(self.stream):
                for _ in range(_WARM_UPS):
                    enqueue()
            self.stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(
                    graph, pool=self._pool, stream=self.stream, capture_error_mode='thread_local'
                ):
                    enqueue()
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                reason = ' '.join(str(error).split())[:200]
            else:
                return graph, ''
        self.stream.synchronize()  # a fault of the GPU comes out here and is none of the capture
        return None, reason

    def run(self, graph: Any, enqueue: Callable[[], None]) -> tuple[int, int]:
        """Do the work and wait for its end.

        :param graph: as :meth:`recorded` returned it; None: enqueue piece by piece.
        :returns: time on the GPU and time that was waited besides, nanoseconds.
        """
        torch = self.torch
        start_ns = time.perf_counter_ns()
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            self._began.record(self.stream)
            if graph is None:
                enqueue()
            else:
                graph.replay()
            self._ended.record(self.stream)
        self._ended.synchronize()
        gpu_ns = round(1e6 * self._began.elapsed_time(self._ended))
        return gpu_ns, max(0, time.perf_counter_ns() - start_ns - gpu_ns)
