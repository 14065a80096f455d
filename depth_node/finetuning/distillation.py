"""Losses against depth that is known up to scale and shift: MiDaS's, and ours made of them.

d is the prediction and d* the target, both inverse depth; M is the number of pixels of an image
that count.  Source: Ranftl et al., "Towards Robust Monocular Depth Estimation", TPAMI 2022,
equations 4 to 11; the authors published no code of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-6


def least_squares_fit(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return s and t, (B,) each, that minimise sum (s d + t - d*)^2 over the pixels that count.

    :param prediction: (B, H, W), d.
    :param target: (B, H, W), d*.
    :param mask: (B, H, W), 1 or True where a pixel counts.
    """
    weight = mask.to(prediction.dtype)
    count = weight.sum(dim=(1, 2)).clamp_min(1)
    mean_p = (weight * prediction).sum(dim=(1, 2)) / count
    mean_t = (weight * target).sum(dim=(1, 2)) / count
    p, t = prediction - mean_p[:, None, None], target - mean_t[:, None, None]
    scale = (weight * p * t).sum(dim=(1, 2)) / (weight * p * p).sum(dim=(1, 2)).clamp_min(_EPS)
    return scale, mean_t - scale * mean_p


def scale_shift_invariant_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return (B,) sum (s d + t - d*)^2 / (2 M) with the best s and t; image-based reduction."""
    scale, shift = least_squares_fit(prediction, target, mask)
    residual = scale[:, None, None] * prediction + shift[:, None, None] - target
    weight = mask.to(prediction.dtype)
    return (weight * residual**2).sum(dim=(1, 2)) / (2 * weight.sum(dim=(1, 2)).clamp_min(1))


def masked_median(values: Tensor, mask: Tensor) -> Tensor:
    """Return (B,) the median over the pixels that count; of an even number the mean of two.

    :param values: (B, H, W).
    :param mask: (B, H, W); an image without a pixel gives 0.
    """
    counted = mask.flatten(1) > 0
    empty = ~counted.any(dim=1, keepdim=True)
    known = values.flatten(1).masked_fill(~counted, float('nan')).masked_fill(empty, 0.0)
    # nanmedian is the lower of the two middle values, and takes far less time than sorting
    return 0.5 * (known.nanmedian(dim=1).values - (-known).nanmedian(dim=1).values)


def aligned(values: Tensor, mask: Tensor) -> Tensor:
    """Return (d - t) / s, (B, H, W), with t = median(d) and s = mean |d - t|."""
    weight = mask.to(values.dtype)
    apart = values - masked_median(values, mask)[:, None, None]
    count = weight.sum(dim=(1, 2)).clamp_min(1)
    spread = (weight * apart.abs()).sum(dim=(1, 2)) / count
    return apart / spread.clamp_min(_EPS)[:, None, None]


def trimmed_mae(prediction: Tensor, target: Tensor, mask: Tensor, kept: float = 0.8) -> Tensor:
    """Return (B,) the sum of the smallest floor(0.8 M) of |d' - d*'| over 2 M, both aligned.

    :param kept: share of the residuals that stay; the largest are outliers of the target.
    """
    residual = (aligned(prediction, mask) - aligned(target, mask)).abs()
    counted = mask.flatten(1) > 0
    count = counted.sum(dim=1)
    ordered = residual.flatten(1).masked_fill(~counted, float('inf')).sort(dim=1).values
    rank = torch.arange(ordered.shape[1], device=ordered.device)
    keep = rank < (kept * count.double()).floor()[:, None]
    return ordered.masked_fill(~keep, 0.0).sum(dim=1) / (2 * count.clamp_min(1))


def gradient_matching_by_scale(residual: Tensor, mask: Tensor, scales: int = 4) -> Tensor:
    """Return (scales, B): sum (|dR/dx| + |dR/dy|) / M of the residual R at each scale.

    Scale k sees every 2^k-th pixel, M counts the pixels that count there, and a difference counts
    where both of its pixels do.

    :param residual: (B, H, W), R = d - d*, both aligned.
    """
    found = []
    for scale in range(scales):
        r, m = residual[:, :: 2**scale, :: 2**scale], mask[:, :: 2**scale, :: 2**scale] > 0
        total = residual.new_zeros(residual.shape[0])
        for dim in (1, 2):
            size = m.shape[dim] - 1
            both = m.narrow(dim, 0, size) & m.narrow(dim, 1, size)
            total = total + (r.diff(dim=dim).abs() * both).sum(dim=(1, 2))
        found.append(total / m.sum(dim=(1, 2)).clamp_min(1))
    return torch.stack(found)


def distillation_loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return how far the shape of a disparity is from that of another network's, a scalar.

        R = (d - median d) / mean |d - median d|  -  the same of d*
        L = mean over the images of ( mean |R| + 0.5 sum over 4 scales of gradient matching of R )

    over the pixels that count; scale and shift of both are free.

    :param prediction: (B, H, W) inverse depth.
    :param target: (B, H, W) inverse depth of a teacher, or of the start model.
    :param mask: (B, H, W) bool; an image without such a pixel gives 0.
    """
    weight = mask.to(prediction.dtype)
    residual = aligned(prediction, mask) - aligned(target, mask)
    mean = (residual.abs() * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp_min(1)
    return (mean + 0.5 * gradient_matching_by_scale(residual, mask).sum(dim=0)).mean()


def sparse_log_depth(
    inverse_depth: Tensor, pixels: Tensor, depth_m: Tensor, trimmed: float = 0.1
) -> Tensor:
    """Return (B,) the mean of |log D - log D*| at known depths, the largest 10 % left out.

    :param inverse_depth: (B, 1, H, W), 1 / D, 1 / metres.
    :param pixels: (B, K, 2), u and v, pixels; the nearest pixel is compared.
    :param depth_m: (B, K), D*, metres; NaN fills up.  An image without any gives 0.
    :param trimmed: share of the residuals that are left out: beams that hit something else.
    """
    height, width = inverse_depth.shape[-2:]
    known = torch.isfinite(depth_m) & (depth_m > 0)
    count = known.sum(dim=1)
    at = torch.where(known[..., None], pixels, torch.zeros_like(pixels)).round().long()
    flat = at[..., 1].clamp(0, height - 1) * width + at[..., 0].clamp(0, width - 1)
    found = inverse_depth.flatten(1).gather(1, flat).clamp_min(_EPS)
    truth = torch.where(known, depth_m, torch.ones_like(depth_m))
    residual = (torch.log(found) + torch.log(truth)).abs()
    ordered = residual.masked_fill(~known, float('inf')).sort(dim=1).values
    keep = (count - (trimmed * count.double()).floor().long())[:, None]
    kept = torch.arange(ordered.shape[1], device=ordered.device) < keep
    return ordered.masked_fill(~kept, 0.0).sum(dim=1) / keep[:, 0].clamp_min(1)
