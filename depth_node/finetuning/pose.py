"""Where the poses of the warp come from: the recording, a bounded residual on it, or a network."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch import nn

from depth_node.finetuning.objective import unit
from depth_node.finetuning.samples import Batch
from depth_node.finetuning.warp import mirrored
from depth_node.networks.pose import inverse_pose_matrix
from depth_node.networks.pose import pose_matrix
from depth_node.networks.pose import rotation_matrix

LARGEST_SHIFT = 0.1
"""Of the residual, as a share of the recorded translation."""
LARGEST_TURN_RAD = math.radians(5.0)
"""Of the residual."""
_EPS = 1e-12
_TURN_EPS = 1e-8


class Poses(nn.Module):
    """Gives the poses of a batch as it shows the world, and what their parameters cost."""

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return T_source_target, (B, N, 4, 4), metres, and the penalty, a scalar."""
        raise NotImplementedError


class RecordedPoses(Poses):
    """The poses as they were recorded; a flip mirrors them."""

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the recorded poses and no penalty."""
        poses = mirrored(batch.T_source_target, batch.flipped)
        return poses, poses.new_zeros(())


class BoundedResidual(Poses):
    """Recorded poses with a small correction of every pair that is learned.

        R' = exp(r) R,   t' = t + s,   |s| <= 0.1 |t|,   |r| <= 5 degrees

    Both are a free vector v whose length goes through tanh; the penalty is the mean of
    |s|^2 / (0.1 |t|)^2 + |r|^2 / (5 degrees)^2.  The bound keeps the metres of the recording.

    :param pairs: number of pairs; see :meth:`.samples.Samples.pairs`.
    """

    def __init__(self, pairs: int) -> None:
        super().__init__()
        self.free = nn.Parameter(torch.zeros(pairs, 6))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the corrected poses and the penalty."""
        free = self.free[batch.pair]  # (B, N, 6)
        shift, turn = _within_one(free[..., :3]), _within_one(free[..., 3:])
        recorded = batch.T_source_target
        length = recorded[..., :3, 3].norm(dim=-1, keepdim=True)
        # the tiny offset keeps the derivative of the angle finite where nothing is learned yet
        turned = rotation_matrix(LARGEST_TURN_RAD * turn + _TURN_EPS) @ recorded[..., :3, :3]
        moved = recorded[..., :3, 3] + LARGEST_SHIFT * length * shift
        top = torch.cat((turned, moved[..., None]), dim=-1)
        poses = torch.cat((top, recorded[..., 3:, :]), dim=-2)
        cost = (shift.square().sum(dim=-1) + turn.square().sum(dim=-1)) * batch.present
        return mirrored(poses, batch.flipped), cost.sum(dim=1).div(
            batch.present.sum(dim=1).clamp_min(1)
        ).mean()


class NetworkPoses(Poses):
    """Poses that a network sees in the images, where none were recorded.

    The unit of the translations is that of the depth it was trained with.  Where the batch has
    poses all the same, reckoned from tracks and the depth of the start model, being away from them
    costs |t - t0| / |t0| + angle / 5 degrees: without that a fresh network finds nothing that
    fits better than standing still, and learns nothing.

    :param network: one of networks.pose; takes the earlier image first.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the poses and what it costs that they differ from those of the batch."""
        if batch.source_views is None:
            raise ValueError('a pose network needs BatchSettings.source_views')
        source = unit(batch.source_views, batch)
        target = unit(batch.target_view, batch)[:, None].expand_as(source)
        later = batch.source_later[:, :, None, None, None]
        earlier = torch.where(later, target, source)
        images = torch.cat((earlier, torch.where(later, source, target)), dim=2)
        turn, shift = self.network(images.flatten(0, 1))
        turn = turn[:, 0].reshape(*batch.present.shape, 3)
        shift = shift[:, 0].reshape(*batch.present.shape, 3)
        # forward in time: the network's motion itself; backward: its inverse
        forward, backward = pose_matrix(turn, shift), inverse_pose_matrix(turn, shift)
        poses = torch.where(batch.source_later[:, :, None, None], forward, backward)
        return poses, _mismatch(
            poses, mirrored(batch.T_source_target, batch.flipped), batch.present
        )


def _mismatch(poses: Tensor, wanted: Tensor, present: Tensor) -> Tensor:
    """Return the mean of |t - t0| / |t0| + angle / 5 degrees over pairs that have both.

    Per image first, so that any number of processes shares a batch; one without any gives 0.
    """
    known = torch.isfinite(wanted).flatten(2).all(dim=2) & present
    wanted = torch.where(known[..., None, None], wanted, poses.detach())
    length = wanted[..., :3, 3].norm(dim=-1).clamp_min(_EPS)
    off = (poses - wanted)[..., :3, :].square()
    shift = (off[..., 3].sum(dim=-1) + _EPS).sqrt() / length
    # the Frobenius norm of the difference of two rotations is sqrt(2) times a small angle
    turn = (0.5 * off[..., :3].sum(dim=(-2, -1)) + _EPS).sqrt() / LARGEST_TURN_RAD
    return (((shift + turn) * known).sum(dim=1) / known.sum(dim=1).clamp_min(1)).mean()


def _within_one(free: Tensor) -> Tensor:
    """Return vectors in the same directions with lengths tanh |v|."""
    length = (free.square().sum(dim=-1, keepdim=True) + _EPS).sqrt()
    return free * (torch.tanh(length) / length)
