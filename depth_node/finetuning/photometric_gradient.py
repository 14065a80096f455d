"""The loss of ``photometric`` with its gradient in the same pass, in blocks that stay in cache.

The gradient of the photometric loss needs only one number per pixel, that of the inverse depth.
Autograd keeps some sixty image-sized arrays per source and scale to get there, and each of them
travels to memory and back; here a block of samples is warped, compared, and differentiated by hand
at once, and only the gradient of the inverse depth is kept.  The statistics of the target, the
errors of the unwarped sources and A [u, v, 1] are computed once for all scales, and the 3x3 means
are sums of shifted arrays (torch's pooling takes 18 times as long on a CPU).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from depth_node.finetuning.photometric import C1
from depth_node.finetuning.photometric import C2
from depth_node.finetuning.photometric import SSIM_SHARE
from depth_node.finetuning.warp import NEAREST_RATIO
from depth_node.finetuning.warp import far_points

_WHOLE = 0.999


@dataclass(frozen=True)
class Frames:
    """What a batch shows."""

    target: Tensor
    """(B, 3, H, W) in [0, 1]."""
    sources: Tensor
    """(B, N, 3, H, W) in [0, 1]."""
    present: Tensor
    """(B, N) bool; False fills up samples with fewer sources."""
    valid: Tensor
    """(B, H, W) bool: pixels of the target that count."""
    source_valid: Tensor | None = None
    """(B, H, W) bool: pixels of the sources that show the world; None: all."""


@dataclass(frozen=True)
class PhotometricLoss:
    """What :func:`photometric_loss` returns."""

    per_scale: Tensor
    """(S,) loss of each scale."""
    won: Tensor
    """(B, H, W) bool: where a warped source has the smallest error, at the first scale."""
    identity: Tensor
    """Scalar: the loss of standing still, the mean of the smallest error of unwarped sources."""


def box_mean(x: Tensor) -> Tensor:
    """Return the mean over 3x3 pixels, (..., H, W), mirrored at the border."""
    planes = x.reshape(-1, *x.shape[-2:])
    p = F.pad(planes, (1, 1, 1, 1), mode='reflect')
    rows = p[..., :-2, :] + p[..., 2:, :]
    rows += p[..., 1:-1, :]
    total = rows[..., :-2] + rows[..., 2:]
    total += rows[..., 1:-1]
    return total.mul_(1 / 9).reshape(x.shape)


def box_mean_adjoint(g: Tensor) -> Tensor:
    """Return what the gradient ``g`` of :func:`box_mean` is at its argument."""
    for dim in (-2, -1):
        size = g.shape[dim]
        total = g.clone()
        total.narrow(dim, 1, size - 1).add_(g.narrow(dim, 0, size - 1))
        total.narrow(dim, 0, size - 1).add_(g.narrow(dim, 1, size - 1))
        total.narrow(dim, 1, 1).add_(g.narrow(dim, 0, 1))
        total.narrow(dim, size - 2, 1).add_(g.narrow(dim, size - 1, 1))
        g = total
    return g.mul_(1 / 9)


def photometric_loss(
    inverse_depths: Tensor,
    turned: Tensor,
    shift: Tensor,
    frames: Frames,
    *,
    auto_mask: bool = True,
    in_view_only: bool = True,
    block: int | None = None,
) -> PhotometricLoss:
    """Return the loss of ``photometric``, differentiable in its first three arguments.

    :param inverse_depths: (S, B, H, W) of all scales at full size, 1 / metres.
    :param turned: (B, N, 3, 3), A of :func:`.warp.pixel_motion`.
    :param shift: (B, N, 3), its k.
    :param auto_mask: let the unwarped sources take part in the minimum.
    :param in_view_only: +inf out of view; False lets the border vote, as Monodepth2 does.
    :param block: samples at a time; None: 1 on a CPU, all on a GPU.
    """
    if block is None:
        block = 1 if inverse_depths.device.type == 'cpu' else inverse_depths.shape[1]
    options = _Options(auto_mask, in_view_only, block)
    sums, counts, won, identity = _Photometric.apply(
        inverse_depths, turned, shift, frames, options
    )
    return PhotometricLoss((sums / counts.clamp_min(1)).mean(dim=1), won, identity)


@dataclass(frozen=True)
class _Options:
    auto_mask: bool
    in_view_only: bool
    block: int


class _Photometric(torch.autograd.Function):
    """Sums (S, B) of the smallest errors; the gradient is ready when the forward pass ends."""

    @staticmethod
    def forward(
        ctx: Any,
        inverse_depths: Tensor,
        turned: Tensor,
        shift: Tensor,
        frames: Frames,
        options: _Options,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wants_pose = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        wanted = ctx.needs_input_grad[0] or wants_pose
        scales, batch, height, width = inverse_depths.shape
        sums, counts = inverse_depths.new_zeros(2, scales, batch)
        gradient = torch.zeros_like(inverse_depths) if wanted else None
        of_turned = turned.new_zeros(scales, *turned.shape) if wants_pose else None
        of_shift = shift.new_zeros(scales, *shift.shape) if wants_pose else None
        won = torch.zeros(batch, height, width, dtype=torch.bool, device=inverse_depths.device)
        identity = []
        for part in _slices(batch, options.block):
            piece = _Block(frames, turned[part], shift[part], part, options)
            identity.append(piece.identity_loss())
            for scale in range(scales):
                d = inverse_depths[scale, part]
                found = piece.errors(d)
                sums[scale, part], counts[scale, part] = found.total, found.count
                if scale == 0:
                    won[part] = found.best_source >= 0
                if gradient is not None:
                    gradient[scale, part], of_q = piece.gradient(d, found)
                    if of_turned is not None and of_shift is not None:
                        of_turned[scale, part], of_shift[scale, part] = _of_pose(of_q, d)
        ctx.save_for_backward(gradient, of_turned, of_shift)
        ctx.mark_non_differentiable(counts, won)
        standing = torch.cat(identity).mean()
        ctx.mark_non_differentiable(standing)
        return sums, counts, won, standing

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, of_sums: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradient, of_turned, of_shift = ctx.saved_tensors
        depth = gradient * of_sums[..., None, None] if ctx.needs_input_grad[0] else None
        if of_turned is None:
            return depth, None, None, None, None
        weights = of_sums[:, :, None, None]
        moved = (of_shift * weights).sum(dim=0)
        return depth, (of_turned * weights[..., None]).sum(dim=0), moved, None, None


def _slices(batch: int, block: int) -> Iterator[slice]:
    return (slice(at, min(at + block, batch)) for at in range(0, batch, block))


def _of_pose(parts_of_q: tuple[Tensor, ...], d: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of A, (b, N, 3, 3), and k, (b, N, 3), of those of A [u, v, 1] + d k."""
    of_q = torch.stack(parts_of_q, dim=2)
    height, width = d.shape[-2:]
    u = torch.arange(width, dtype=d.dtype, device=d.device)
    v = torch.arange(height, dtype=d.dtype, device=d.device)
    columns = of_q.sum(dim=-2)
    parts = ((columns * u).sum(dim=-1), (of_q.sum(dim=-1) * v).sum(dim=-1), columns.sum(dim=-1))
    return torch.stack(parts, dim=-1), (of_q * d[:, None, None]).sum(dim=(-2, -1))


@dataclass(frozen=True)
class _Found:
    """What the forward pass over one block and scale leaves for its gradient."""

    total: Tensor  # (b,)
    count: Tensor  # (b,)
    best_source: Tensor  # (b, H, W) index of the winning source; -1: an unwarped one, or none
    warped: Tensor  # (b, N, 3, H, W)
    grid: Tensor  # (b N, H, W, 2), normalised to [-1, 1]
    pixels: tuple[Tensor, Tensor]  # u, v: (b, N, H, W)
    per_ahead: Tensor  # (b, N, H, W) one over q_z, 0 behind the camera
    statistics: _Statistics


@dataclass(frozen=True)
class _Statistics:
    mean: Tensor  # of x, (b, N, 3, H, W)
    above_mean: Tensor  # 2 mx my + C1
    above_cov: Tensor  # 2 sxy + C2
    below_mean: Tensor  # mx^2 + my^2 + C1
    below_var: Tensor  # sx + sy + C2
    per_below: Tensor  # 1 / (below_mean below_var)
    ssim: Tensor


class _Block:
    """Some samples of a batch, with what is the same at all scales."""

    def __init__(
        self, frames: Frames, turned: Tensor, shift: Tensor, part: slice, options: _Options
    ) -> None:
        self._options = options
        self._target = frames.target[part, None]  # (b, 1, 3, H, W)
        self._sources = frames.sources[part]
        self._present = frames.present[part, :, None, None]
        self._valid = frames.valid[part]
        self._source_valid = None if frames.source_valid is None else frames.source_valid[part]
        self._far = far_points(turned, *self._target.shape[-2:])
        self._shift = shift[..., None, None]
        both = box_mean(torch.stack((self._target, self._target * self._target)))
        self._mean = both[0]
        self._var_c2 = both[1] - both[0] * both[0] + C2
        self._mean2_c1 = both[0] * both[0] + C1
        standing = self._masked(self._error(self._sources, self._compare(self._sources)), None)
        self._standing = standing.min(dim=1).values

    def identity_loss(self) -> Tensor:
        """Return (b,) the mean of the smallest error of the unwarped sources."""
        counted = self._valid & torch.isfinite(self._standing)
        total = self._standing.masked_fill(~counted, 0.0).sum(dim=(1, 2))
        return total / counted.sum(dim=(1, 2)).clamp_min(1)

    def errors(self, d: Tensor) -> _Found:
        """Warp by inverse depth (b, H, W) and find the smallest error of every pixel."""
        height, width = d.shape[-2:]
        q = self._far + d[:, None, None] * self._shift
        ahead = q[:, :, 2] > NEAREST_RATIO
        per_ahead = q[:, :, 2].clamp_min(NEAREST_RATIO).reciprocal_()
        u, v = q[:, :, 0] * per_ahead, q[:, :, 1] * per_ahead
        grid = d.new_empty(*u.shape, 2)
        torch.sub(u * (2 / (width - 1)), 1, out=grid[..., 0])
        torch.sub(v * (2 / (height - 1)), 1, out=grid[..., 1])
        grid = grid.flatten(0, 1)
        warped = _sampled(self._sources.flatten(0, 1), grid).reshape(self._sources.shape)
        statistics = self._compare(warped)
        seen = self._seen(u, v, ahead, grid) if self._options.in_view_only else None
        errors = self._masked(self._error(warped, statistics), seen)
        smallest, which = errors.min(dim=1)
        if self._options.auto_mask:
            which = which.masked_fill_(smallest >= self._standing, -1)
            smallest = torch.minimum(smallest, self._standing)
        counted = self._valid & torch.isfinite(smallest)
        which = which.masked_fill_(~counted, -1)
        return _Found(
            total=smallest.masked_fill_(~counted, 0.0).sum(dim=(1, 2)),
            count=counted.sum(dim=(1, 2)).to(d.dtype),
            best_source=which,
            warped=warped,
            grid=grid,
            pixels=(u, v),
            per_ahead=per_ahead.mul_(ahead),
            statistics=statistics,
        )

    def gradient(self, d: Tensor, found: _Found) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the gradient of the total by d, (b, H, W), and by q, three (b, N, H, W)."""
        height, width = d.shape[-2:]
        index = torch.arange(self._sources.shape[1], device=d.device)[None, :, None, None]
        of_error = (found.best_source[:, None] == index).to(d.dtype)
        of_warped = self._of_warped(of_error, found)
        of_grid = torch.ops.aten.grid_sampler_2d_backward(
            of_warped.flatten(0, 1),
            self._sources.flatten(0, 1),
            found.grid,
            0,  # bilinear
            1,  # border
            True,
            (False, True),
        )[1].reshape(*found.per_ahead.shape, 2)
        of_u = of_grid[..., 0] * found.per_ahead * (2 / (width - 1))
        of_v = of_grid[..., 1] * found.per_ahead * (2 / (height - 1))
        u, v = found.pixels
        # behind the camera the divisor is a constant, and what is sampled is the border anyway
        of_z = (of_u * u).addcmul_(of_v, v).neg_()
        k = self._shift
        of_d = (of_u * k[:, :, 0]).addcmul_(of_v, k[:, :, 1]).addcmul_(of_z, k[:, :, 2])
        return of_d.sum(dim=1), (of_u, of_v, of_z)

    def _compare(self, x: Tensor) -> _Statistics:
        """Return the statistics of SSIM between x, (b, N, 3, H, W), and the target."""
        stacked = x.new_empty(3, *x.shape)
        stacked[0] = x
        torch.mul(x, x, out=stacked[1])
        torch.mul(x, self._target, out=stacked[2])
        mean, square, product = box_mean(stacked)
        both = mean * self._mean
        mean2 = mean * mean
        above_cov = product.sub_(both).mul_(2).add_(C2)
        above_mean = both.mul_(2).add_(C1)
        below_var = square.sub_(mean2).add_(self._var_c2)
        below_mean = mean2.add_(self._mean2_c1)
        per_below = (below_mean * below_var).reciprocal_()
        ssim = (above_mean * above_cov).mul_(per_below)
        return _Statistics(mean, above_mean, above_cov, below_mean, below_var, per_below, ssim)

    def _error(self, x: Tensor, statistics: _Statistics) -> Tensor:
        """Return pe, (b, N, H, W), of x, (b, N, 3, H, W)."""
        apart = (1 - statistics.ssim).mul_(0.5).clamp_(0, 1).mul_(SSIM_SHARE / 3)
        apart.add_((x - self._target).abs_(), alpha=(1 - SSIM_SHARE) / 3)
        return apart.sum(dim=2)

    def _masked(self, errors: Tensor, seen: Tensor | None) -> Tensor:
        keep = self._present if seen is None else self._present & seen
        return errors.masked_fill_(~keep, float('inf'))

    def _seen(self, u: Tensor, v: Tensor, ahead: Tensor, grid: Tensor) -> Tensor:
        """Return (b, N, H, W) bool: in front of the source camera and within its image."""
        height, width = u.shape[-2:]
        seen = ahead & (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
        if self._source_valid is None:
            return seen
        mask = self._source_valid[:, None, None].to(u.dtype)
        mask = mask.expand(-1, u.shape[1], -1, -1, -1).flatten(0, 1)
        return seen & (_sampled(mask, grid).reshape(u.shape) > _WHOLE)

    def _of_warped(self, of_error: Tensor, found: _Found) -> Tensor:
        """Return the gradient by the warped sources of that by their errors, (b, N, H, W)."""
        s, x = found.statistics, found.warped
        of_error = of_error[:, :, None]
        scaled = (of_error * (-SSIM_SHARE / 6)) * s.per_below
        stacked = x.new_empty(3, *x.shape)
        by_mean = (s.above_cov - s.above_mean).mul_(self._mean)
        by_mean.addcmul_(s.ssim * s.mean, s.below_mean - s.below_var)
        torch.mul(by_mean, scaled, out=stacked[0]).mul_(2)
        torch.mul(s.ssim * s.below_mean, scaled, out=stacked[1]).mul_(-2)
        torch.mul(s.above_mean, scaled, out=stacked[2]).mul_(2)
        mean, square, product = box_mean_adjoint(stacked)
        mean.addcmul_(square, x).addcmul_(product, self._target)
        sign = torch.sign(x - self._target).mul_(of_error)
        return mean.add_(sign, alpha=(1 - SSIM_SHARE) / 3)


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, mode='bilinear', padding_mode='border', align_corners=True)
