"""What :mod:`depth_node.temporal_smoothing` does, in PyTorch, with the past on the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import nn

from depth_node.temporal_smoothing import LARGEST_CHANGE
from depth_node.temporal_smoothing import LARGEST_STEP

_LUMINANCE = (0.299, 0.587, 0.114)  # as OpenCV weighs red, green and blue


class Smoothing(nn.Module):
    """Keeps the past of one camera.

    :param height: rows of the network, pixels.
    :param width: columns of the network, pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.register_buffer('weights', torch.tensor(_LUMINANCE)[:, None, None])
        self.register_buffer('inverse', torch.full((height, width), float('nan')))
        self.register_buffer('luminance', torch.zeros(height, width))

    def forward(self, inverse: Tensor, small: Tensor, kept: Tensor) -> Tensor:
        """Return inverse depth into which part of the last one is taken over.

        :param inverse: (h, w), NaN unknown.
        :param small: (3, h, w), RGB from 0 to 255.
        :param kept: share of the last inverse depth; 0 for a frame that follows on nothing.
        """
        luminance = (small * self.weights).sum(dim=0).round_()
        change = (luminance - self.luminance).abs_()
        around = nn.functional.max_pool2d(change[None], 3, stride=1, padding=1)[0]
        difference = self.inverse - inverse
        # comparisons with NaN are false
        keeps = (difference.abs() <= LARGEST_STEP * inverse) & (around <= LARGEST_CHANGE)
        mixed = torch.where(keeps, torch.addcmul(inverse, difference, kept), inverse)
        self.luminance.copy_(luminance)
        self.inverse.copy_(mixed)
        return mixed
