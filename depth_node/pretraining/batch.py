"""What a batch is and what batches are made of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from depth_node.errors import SettingsError


@dataclass(frozen=True)
class BatchSpec:
    """What batches are made of."""

    size: int
    """Images per batch."""
    shapes: tuple[tuple[int, int], ...]
    """(height, width) of the batches, pixels; each batch has one, drawn with ``shares``."""
    shares: tuple[float, ...]
    """Probability of each shape; sums to 1."""
    focal_per_height: float
    """Focal length of the card over the height of the network's input; depth is taken to it."""
    reuse: int = 4
    """How often a rendered view is shown; each time the trainer varies it."""
    pool: int = 512
    """Views kept per shape and worker to draw batches from."""
    views_per_scene: int = 2
    """Views rendered of one scene, each in another light and paint."""
    supersample: int = 1
    """Rays per pixel and axis for the colors."""

    def __post_init__(self) -> None:
        if self.pool < self.size:
            raise SettingsError('pool of views', str(self.pool), f'at least a batch, {self.size}')


@dataclass(frozen=True)
class Batch:
    """One batch; all tensors on the device that :func:`batches` was given."""

    image: Tensor
    """(B, 3, H, W) uint8 RGB."""
    depth: Tensor
    """(B, 1, H, W) float32 metres at the focal length of the card; +inf is sky."""
