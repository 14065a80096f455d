"""A network alone in PyTorch, from memory of the host and back to it, at fixed addresses."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from depth_node.engines.gpu_frame import HostMemory


class GpuInference:
    """Buffers of one input size; :meth:`enqueue` is what is recorded.

    :param network: normalised float32 image (1, 3, H, W) to float32 output (1, 1, H, W), on
        ``device``.
    :param shape: (1, 3, H, W).
    :param device: where the network is.
    :param memory: for the ends on the host.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, int, int, int],
        device: torch.device | str,
        memory: HostMemory,
    ) -> None:
        self.network = network
        self.image: NDArray[np.float32] = _floats(memory, shape)
        """(1, 3, H, W), to be filled before the work is done."""
        self.output: NDArray[np.float32] = _floats(memory, shape[2:])
        """(H, W), filled by the work."""
        # copied as it lies, sorted there
        self._received = torch.zeros(shape, device=device)
        self._sorted = self._received.to(memory_format=torch.channels_last)

    def enqueue(self) -> None:
        """Put the network on the stream, with the copies to it and back."""
        self._received.copy_(torch.from_numpy(self.image), non_blocking=True)
        self._sorted.copy_(self._received)
        output = self.network(self._sorted)[0, 0].contiguous()
        torch.from_numpy(self.output).copy_(output, non_blocking=True)


def _floats(memory: HostMemory, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return memory.zeros(4 * int(np.prod(shape))).view(np.float32).reshape(shape)
