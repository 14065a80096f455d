"""The photometric loss as its formulas say, differentiated by autograd.

For a target y, sources warped into its view x_n, and the sources as they are i_n:

    SSIM(x, y) = (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx + sy + C2))
    pe(x, y)   = mean over channels of 0.85 clamp((1 - SSIM) / 2, 0, 1) + 0.15 |x - y|
    L          = mean over pixels of min over n of { pe(x_n, y), pe(i_n, y) }

with means m and (co)variances s over 3x3 pixels, mirrored at the border, C1 = 0.01^2 and
C2 = 0.03^2.  Where a warped pixel is out of view its pe is +inf before the minimum.  A pixel whose
unwarped source fits better than every warped one (auto-mask) adds a constant: no gradient.
Sources: Wang et al., TIP 2004 (SSIM); Godard et al., ICCV 2019 (minimum, auto-mask).

``photometric_gradient`` computes the same several times faster; this file is what it is held to.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

C1 = 0.01**2
C2 = 0.03**2
SSIM_SHARE = 0.85


def dissimilarity(x: Tensor, y: Tensor) -> Tensor:
    """Return clamp((1 - SSIM) / 2, 0, 1) per pixel and channel, (N, C, H, W), of two images."""
    x, y = (F.pad(image, (1, 1, 1, 1), mode='reflect') for image in (x, y))
    mean_x, mean_y = F.avg_pool2d(x, 3, 1), F.avg_pool2d(y, 3, 1)
    var_x = F.avg_pool2d(x * x, 3, 1) - mean_x * mean_x
    var_y = F.avg_pool2d(y * y, 3, 1) - mean_y * mean_y
    cov = F.avg_pool2d(x * y, 3, 1) - mean_x * mean_y
    above = (2 * mean_x * mean_y + C1) * (2 * cov + C2)
    below = (mean_x * mean_x + mean_y * mean_y + C1) * (var_x + var_y + C2)
    return ((1 - above / below) / 2).clamp(0, 1)


def photometric_error(x: Tensor, y: Tensor) -> Tensor:
    """Return pe(x, y), (N, 1, H, W), of two images (N, C, H, W) in [0, 1]."""
    structure = dissimilarity(x, y).mean(dim=1, keepdim=True)
    return SSIM_SHARE * structure + (1 - SSIM_SHARE) * (x - y).abs().mean(dim=1, keepdim=True)


def smallest_error(errors: Tensor, identity: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the smallest error of each pixel, and where a warped source has it.

    :param errors: (B, N, H, W) of the warped sources, +inf where out of view.
    :param identity: (B, M, H, W) of the unwarped ones, or None: no auto-mask.
    :returns: (B, H, W), +inf where nothing is in view, and bool (B, H, W).
    """
    best = errors.min(dim=1).values
    if identity is None:
        return best, torch.isfinite(best)
    standing = identity.min(dim=1).values
    return torch.minimum(best, standing), best < standing


def mean_of(error: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over the images of the mean over the pixels that count.

    Per image first, so that the loss of a batch is the mean of the losses of its parts, however
    the batch is spread over processes.

    :param error: (B, H, W), +inf where nothing was in view.
    :param valid: (B, H, W) bool.
    """
    counted = valid & torch.isfinite(error)
    total = torch.where(counted, error, torch.zeros_like(error)).sum(dim=(1, 2))
    return (total / counted.sum(dim=(1, 2)).clamp_min(1)).mean()
