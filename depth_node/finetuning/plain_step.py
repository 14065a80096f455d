"""The loss of one batch in the straightforward way: what ``step`` is checked and timed against.

Every scale and source is back-projected, projected, sampled and compared on its own, autograd
remembers all of it, and the start model runs in every step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from depth_node.finetuning.depth_output import DepthMeaning
from depth_node.finetuning.objective import LossWeights
from depth_node.finetuning.objective import StepResult
from depth_node.finetuning.objective import guided_parts
from depth_node.finetuning.objective import share_of
from depth_node.finetuning.objective import unit
from depth_node.finetuning.objective import weighted
from depth_node.finetuning.photometric import mean_of
from depth_node.finetuning.photometric import photometric_error
from depth_node.finetuning.photometric import smallest_error
from depth_node.finetuning.pose import Poses
from depth_node.finetuning.regularizers import edge_aware_smoothness
from depth_node.finetuning.samples import Batch
from depth_node.finetuning.warp import NEAREST_RATIO
from depth_node.finetuning.warp import camera_matrix
from depth_node.networks.depth_network import DepthNetwork

_INFINITE = float('inf')


class PlainStep:
    """Computes the loss of batches.

    :param network: as in ``step``.
    :param meaning: what its output means.
    :param poses: where the poses come from.
    :param weights: of the parts of the loss; geometry is not supported.
    :param start: the start model, which runs in every step; None: the maps of the batch.
    """

    def __init__(
        self,
        network: DepthNetwork,
        meaning: DepthMeaning,
        poses: Poses,
        weights: LossWeights,
        start: DepthNetwork | None = None,
    ) -> None:
        self._network = network
        self._meaning = meaning
        self._poses = poses
        self._weights = weights
        self._start = start

    def __call__(self, batch: Batch) -> StepResult:
        """Return the loss of a batch."""
        target, view = unit(batch.target, batch), unit(batch.target_view, batch)
        fx = batch.intrinsics[:, 0]
        outputs = self._network(view)[: self._weights.scales]
        inverse = [self._meaning.inverse_depth(output, fx) for output in outputs]
        if self._start is not None:
            with torch.no_grad():
                self._meaning.inverse_depth(self._start(target)[0], fx)
        poses, penalty = self._poses(batch)
        size = target.shape[-2:]
        losses, smooth, firsts = [], [], []
        for scale, found in enumerate(inverse):
            depth = 1 / F.interpolate(found, size, mode='bilinear', align_corners=False)
            error, fits, still = self._photometric(depth, target, poses, batch)
            losses.append(mean_of(error, batch.valid))
            firsts.append((fits, mean_of(still, batch.valid)))
            image = F.interpolate(target, found.shape[-2:], mode='area')
            smooth.append(edge_aware_smoothness(found, image) / 2**scale)
        won, identity = firsts[0]
        parts = {
            'photometric': torch.stack(losses).mean(),
            'smoothness': torch.stack(smooth).mean(),
            **guided_parts(inverse[0], target, won, batch, self._weights),
        }
        if self._weights.residual and penalty.requires_grad:
            parts['residual'] = penalty
        return weighted(parts, self._weights, identity, share_of(won, batch.valid))

    def _photometric(
        self, depth: Tensor, target: Tensor, poses: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the smallest errors (B, H, W), where a warped source has them, and unwarped."""
        errors, standing = [], []
        for which in range(batch.present.shape[1]):
            there = batch.present[:, which, None, None, None]
            source = unit(batch.sources[:, which], batch)
            if batch.gain is not None:
                source = source * batch.gain[:, which, None, None, None].to(source.dtype)
            pixels, ahead = self._projected(depth, poses[:, which], batch.intrinsics)
            grid = _normalised(pixels, depth.shape[-2:])
            seen = F.grid_sample(source, grid, padding_mode='border', align_corners=True)
            inside = ahead & (grid.abs() <= 1).all(dim=-1)[:, None]
            if batch.source_valid is not None:
                mask = batch.source_valid[:, None].to(source.dtype)
                world = F.grid_sample(mask, grid, padding_mode='border', align_corners=True)
                inside = inside & (world > 0.999)
            error = photometric_error(seen, target)
            errors.append(error.masked_fill(~(inside & there), _INFINITE))
            standing.append(photometric_error(source, target).masked_fill(~there, _INFINITE))
        best, won = smallest_error(torch.cat(errors, dim=1), torch.cat(standing, dim=1))
        return best, won & batch.valid, torch.cat(standing, dim=1).min(dim=1).values

    def _projected(self, depth: Tensor, pose: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
        """Return pixels of the source, (B, H, W, 2), and whether they lie before its camera."""
        height, width = depth.shape[-2:]
        k = camera_matrix(intrinsics)
        v, u = torch.meshgrid(
            torch.arange(height, dtype=depth.dtype, device=depth.device),
            torch.arange(width, dtype=depth.dtype, device=depth.device),
            indexing='ij',
        )
        pixels = torch.stack((u, v, torch.ones_like(u))).flatten(1)
        points = torch.linalg.inv(k) @ pixels * depth.flatten(2)
        moved = k @ (pose[:, :3, :3] @ points + pose[:, :3, 3:])
        z = moved[:, 2:]
        ahead = z > NEAREST_RATIO * depth.flatten(2)
        found = moved[:, :2] / torch.maximum(z, NEAREST_RATIO * depth.flatten(2))
        return found.reshape(-1, 2, height, width).movedim(1, -1), ahead.reshape(depth.shape)


def _normalised(pixels: Tensor, size: torch.Size) -> Tensor:
    last = pixels.new_tensor((size[1] - 1, size[0] - 1))
    return 2 * pixels / last - 1
