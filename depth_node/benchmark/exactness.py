"""A trained network in float64, and its cost: what engines are held against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from depth_node.engines.parity import read_golden
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder
from depth_node.networks import registry
from depth_node.networks.initialization import WithoutDrawing
from depth_node.networks.model_weights import network_of
from depth_node.networks.specification import Identity


def write_exact(folder: ModelFolder, size: InputSpec, path: Path) -> None:
    """Write the float64 output of the unrewritten network for the golden picture, (H, W)."""
    image = torch.from_numpy(read_golden(folder, size).image).double()
    with torch.inference_mode():
        output = network_of(folder).double().from_normalized(image)[0]
    np.save(path, output[0, 0].numpy())


def cost_of(folder: ModelFolder, size: InputSpec) -> tuple[int, int]:
    """Return the trained numbers and the multiply-accumulates of one image."""
    card = folder.card
    identity = Identity(card.variant, card.options)
    with WithoutDrawing():
        network = registry.build(card.network, identity)
    parameters = sum(value.numel() for value in network.parameters())
    return parameters, macs_of(card.network, identity, size.height, size.width)


def macs_of(name: str, identity: Identity, height: int, width: int) -> int:
    """Count the multiply-accumulates of one image without computing anything.

    Convolutions and matrix products of the network as it was trained count.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn.attention import SDPBackend
    from torch.nn.attention import sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with WithoutDrawing():
        network = registry.build(name, identity).eval()
    counter = FlopCounterMode(display=False)
    # as matrix products: the fused attention of a CPU is not counted
    plain = sdpa_kernel(SDPBackend.MATH)
    with torch.no_grad(), plain, FakeTensorMode(allow_non_fake_inputs=True), counter:
        network.from_normalized(torch.zeros(1, 3, height, width))
    return int(counter.get_total_flops()) // 2
