"""What a JPEG compression leaves of pictures, without the entropy coding, which loses nothing.

Source: ITU-T T.81, Annex K (tables of quantisation); scaling by quality as in the IJG library;
ITU-T T.871 (conversion of colors).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
_BLOCK = 8


def compressed(rgb: Tensor, quality: Tensor) -> Tensor:
    """Return pictures as they come back from a baseline JPEG with halved chrominance.

    :param rgb: (B, 3, H, W) float, whole numbers from 0 to 255.
    :param quality: (B,) 1 to 100.
    """
    height, width = rgb.shape[-2:]
    padding = (0, -width % (2 * _BLOCK), 0, -height % (2 * _BLOCK))
    ycc = torch.einsum('ij,bjhw->bihw', _matrix(_TO_YCC, rgb), F.pad(rgb, padding, 'replicate'))
    ycc = ycc.round()  # colors are coded as whole numbers
    scale = torch.where(quality < 50, torch.floor(5000 / quality.clamp_min(1)), 200 - 2 * quality)
    luminance = _coded(ycc[:, :1] - 128.0, _table(_LUMINANCE, scale)).round() + 128.0
    chrominance = _coded(F.avg_pool2d(ycc[:, 1:], 2).round(), _table(_CHROMINANCE, scale))
    chrominance = F.interpolate(chrominance, scale_factor=2, mode='bilinear', align_corners=False)
    whole = torch.cat((luminance, chrominance), dim=1)[..., :height, :width]
    back = torch.einsum('ij,bjhw->bihw', _matrix(_TO_RGB, rgb), whole)
    return back.round().clamp(0.0, 255.0)


def _matrix(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    return torch.tensor(rows, device=like.device, dtype=like.dtype)


def _table(base: tuple[tuple[int, ...], ...], scale: Tensor) -> Tensor:
    """Return (B, 8, 8) steps of quantisation."""
    table = torch.tensor(base, device=scale.device, dtype=scale.dtype)
    return torch.floor((table * scale[:, None, None] + 50) / 100).clamp(1, 255)


def _coded(plane: Tensor, table: Tensor) -> Tensor:
    """Quantise the cosine transform of the 8 x 8 blocks of (B, C, H, W)."""
    batch, channels, height, width = plane.shape
    basis = _cosines(plane)
    grid = (batch, channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    blocks = plane.reshape(grid).transpose(3, 4)  # (B, C, down, across, 8, 8)
    steps = table[:, None, None, None]
    kept = ((basis @ blocks @ basis.T) / steps).round() * steps
    return (basis.T @ kept @ basis).transpose(3, 4).reshape(plane.shape)


def _cosines(like: Tensor) -> Tensor:
    """Return the orthonormal (8, 8) cosine basis, one frequency per row."""
    k = torch.arange(_BLOCK, device=like.device, dtype=like.dtype)
    basis = torch.cos((2 * k + 1) * k[:, None] * (math.pi / (2 * _BLOCK))) / 2.0
    basis[0] /= math.sqrt(2.0)
    return basis
