"""PyTorch on the CPU: needs no exported graph, runs wherever the network can be trained.

The exact rewrites of the exported graph are used here too: one by one executed operators cost more
than their arithmetic at batch 1.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from depth_node.engines import EngineInfo
from depth_node.engines import check_image
from depth_node.engines import check_precision
from depth_node.engines import library_failure
from depth_node.engines.memory import let_go_of_files
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder

if TYPE_CHECKING:
    from torch import nn

_NAME = 'torch'


class TorchEngine:
    """A network run operator by operator in PyTorch.

    :param folder: a checked model.
    :param size: one of the sizes of its card.
    :param precision: 'f32'.
    :param threads: CPU threads of PyTorch in the whole process; 0 leaves them as they are.
    :raises MissingPackage: when torch is not installed.
    :raises ModelError: when the weights are not those of the network that the card names.
    :raises EngineError: for another precision, or when PyTorch fails.
    """

    def __init__(
        self, folder: ModelFolder, size: InputSpec, *, precision: str, threads: int
    ) -> None:
        check_precision(precision, ('f32',), _NAME)
        try:
            import torch
        except ImportError as error:
            raise MissingPackage('torch', 'engine torch', 'pip install torch') from error
        if threads > 0:
            torch.set_num_threads(threads)
        self._torch = torch
        self._network: nn.Module | None = _linear_network(folder, size)
        self.info = EngineInfo(
            name=_NAME,
            version=str(torch.__version__),
            precision='f32',
            device=platform.processor() or platform.machine(),
            input_shape=(1, 3, size.height, size.width),
        )

    def warm_up(self) -> None:
        """Run once on zeros."""
        self.infer(np.zeros(self.info.input_shape, np.float32))

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network; see :meth:`depth_node.engines.Engine.infer`."""
        check_image(image, self.info.input_shape, _NAME)
        if self._network is None:
            raise EngineError(f'engine {_NAME}', 'an image after it was closed', 'an open engine')
        torch = self._torch
        try:
            with torch.inference_mode():
                tensor = torch.from_numpy(image).contiguous(memory_format=torch.channels_last)
                output: NDArray[np.float32] = self._network(tensor)[0, 0].contiguous().numpy()
        except RuntimeError as error:
            raise library_failure(_NAME, 'inference', error) from error
        return output

    def close(self) -> None:
        """Release the network."""
        self._network = None


def _linear_network(folder: ModelFolder, size: InputSpec) -> nn.Module:
    """Rebuild the trained network and rewrite it for one input size."""
    import torch

    from depth_node.networks.model_weights import network_of
    from depth_node.networks.rewrites import EAGER_CPU
    from depth_node.networks.rewrites import linearized

    network = linearized(network_of(folder), size.height, size.width, EAGER_CPU)
    channels_last: nn.Module = network.to(memory_format=torch.channels_last)
    # what was brought into another order is not read there again
    let_go_of_files([folder.file(WEIGHTS_NAME)])
    return channels_last
