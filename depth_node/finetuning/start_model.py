"""The model that a fine-tuning starts from, as a network and as a predictor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from depth_node import model_folder
from depth_node.files import sha256_of
from depth_node.finetuning.depth_output import DepthMeaning
from depth_node.finetuning.depth_output import meaning_of
from depth_node.frames import CameraModel
from depth_node.model_folder import CARD_NAME
from depth_node.model_folder import ModelFolder
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.model_weights import network_of

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StartModel:
    """A checked model folder and its network."""

    folder: ModelFolder
    """Where it lies; never written to."""
    network: DepthNetwork
    """In evaluation mode, float32."""
    sha256: str
    """Of its card, which names the hashes of all other files."""

    @classmethod
    def open(cls, name: str) -> StartModel:
        """Read a model that can be fine-tuned.

        :param name: of an installed model, or a model folder.
        :raises ModelError: when there is no such model, it is damaged, or it cannot be fine-tuned.
        """
        folder = model_folder.read(model_folder.find(name))
        meaning_of(folder.card)
        return cls(folder, network_of(folder), sha256_of(folder.path / CARD_NAME))

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Return (height, width) of its inputs, pixels."""
        return tuple((size.height, size.width) for size in self.folder.card.inputs)

    def meaning(self, scale: float = 1.0) -> DepthMeaning:
        """Return what its output means when its depth is multiplied by ``scale``."""
        return meaning_of(self.folder.card, scale)

    def inverse_depth(
        self, camera: CameraModel, scale: float = 1.0
    ) -> Callable[[NDArray[np.uint8]], Floats]:
        """Return what maps (h, w, 3) RGB at network size to (h, w) inverse depth, 1 / metres."""
        return inverse_depth_by(self.network, self.meaning(scale), camera)

    def depth_m(
        self, camera: CameraModel, scale: float = 1.0
    ) -> Callable[[NDArray[np.uint8]], Floats]:
        """Return what maps (h, w, 3) RGB at network size to (h, w) metres."""
        return depth_m_by(self.network, self.meaning(scale), camera)


def inverse_depth_by(
    network: DepthNetwork, meaning: DepthMeaning, camera: CameraModel
) -> Callable[[NDArray[np.uint8]], Floats]:
    """Return what maps (h, w, 3) RGB to (h, w) inverse depth, 1 / metres.

    :param camera: intrinsics at the size of the images.
    """
    device = next(network.parameters()).device
    fx = torch.tensor([camera.fx], dtype=torch.float32, device=device)

    def predict(rgb: NDArray[np.uint8]) -> Floats:
        image = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))[None]).to(device)
        with torch.inference_mode():
            output = network(image.float() / 255.0)[0]
            inverse = meaning.inverse_depth(output, fx)
        return np.asarray(inverse[0, 0].cpu().numpy(), np.float32)

    return predict


def depth_m_by(
    network: DepthNetwork, meaning: DepthMeaning, camera: CameraModel
) -> Callable[[NDArray[np.uint8]], Floats]:
    """Return what maps (h, w, 3) RGB to (h, w) metres; see :func:`inverse_depth_by`."""
    inverse = inverse_depth_by(network, meaning, camera)
    return lambda rgb: np.asarray(1.0 / np.maximum(inverse(rgb), 1e-6), np.float32)
