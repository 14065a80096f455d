"""The loss of one batch, fast.

Against ``plain_step``, which computes the same: the network runs with channels-last memory, the
photometric loss and its gradient come from ``photometric_gradient``, and the start model ran once
per frame (``reference_maps``) and not once per step.  Geometry is float32 whatever the precision
of the network.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.finetuning.depth_output import DepthMeaning
from depth_node.finetuning.objective import LossWeights
from depth_node.finetuning.objective import StepResult
from depth_node.finetuning.objective import guided_parts
from depth_node.finetuning.objective import share_of
from depth_node.finetuning.objective import sources_of
from depth_node.finetuning.objective import unit
from depth_node.finetuning.objective import weighted
from depth_node.finetuning.photometric_gradient import Frames
from depth_node.finetuning.photometric_gradient import photometric_loss
from depth_node.finetuning.pose import Poses
from depth_node.finetuning.regularizers import edge_aware_smoothness
from depth_node.finetuning.regularizers import geometry_consistency
from depth_node.finetuning.regularizers import image_at
from depth_node.finetuning.samples import Batch
from depth_node.finetuning.warp import pixel_motion
from depth_node.networks.depth_network import DepthNetwork

PRECISIONS = ('auto', 'float32', 'bfloat16')


class FastStep:
    """Computes the loss of batches.

    :param network: in evaluation mode; see ``trainable``.
    :param meaning: what its output means.
    :param poses: where the poses come from.
    :param weights: of the parts of the loss.
    :param precision: of the network, 'float32' or 'bfloat16'; see :func:`chosen_precision`.
    """

    def __init__(
        self,
        network: DepthNetwork,
        meaning: DepthMeaning,
        poses: Poses,
        weights: LossWeights,
        precision: str = 'float32',
    ) -> None:
        self._network = network.to(memory_format=torch.channels_last)
        self._meaning = meaning
        self._poses = poses
        self._weights = weights
        self._bfloat16 = precision == 'bfloat16'

    def __call__(self, batch: Batch) -> StepResult:
        """Return the loss of a batch that is on the device of the network."""
        weights = self._weights
        target, sources = unit(batch.target, batch), sources_of(batch)
        outputs = self._inverse_depths(unit(batch.target_view, batch), batch.intrinsics[:, 0])
        poses, penalty = self._poses(batch)
        full = [enlarged(inverse, target.shape[-2:]) for inverse in outputs]
        frames = Frames(target, sources, batch.present, batch.valid, batch.source_valid)
        motion = pixel_motion(batch.intrinsics, poses)
        found = photometric_loss(torch.cat(full, dim=1).movedim(1, 0), *motion, frames)
        parts = {
            'photometric': found.per_scale.mean(),
            'smoothness': smoothness_of(outputs, target),
            **guided_parts(full[0], target, found.won, batch, weights),
        }
        if weights.residual and penalty.requires_grad:
            parts['residual'] = penalty
        if weights.geometry and batch.source_views is not None:
            parts['geometry'] = self._geometry(full[0], poses, batch.source_views, batch)
        return weighted(parts, weights, found.identity, share_of(found.won, batch.valid))

    def warm_up(self, batch: Batch) -> StepResult:
        """Return the photometric loss with the depth of the start model: trains poses alone."""
        if batch.start is None:
            raise ValueError('warming up poses needs the maps of the start model')
        target, sources = unit(batch.target, batch), sources_of(batch)
        poses, penalty = self._poses(batch)
        frames = Frames(target, sources, batch.present, batch.valid, batch.source_valid)
        motion = pixel_motion(batch.intrinsics, poses)
        found = photometric_loss(batch.start.movedim(1, 0), *motion, frames)
        parts = {'photometric': found.per_scale.mean()}
        if self._weights.residual and penalty.requires_grad:
            parts['residual'] = penalty
        return weighted(parts, self._weights, found.identity, share_of(found.won, batch.valid))

    def _inverse_depths(self, images: Tensor, fx: Tensor) -> list[Tensor]:
        """Return the inverse depths of (B, 3, H, W) images in [0, 1], full size first."""
        x = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._bfloat16):
            outputs = self._network(x)
        used = outputs[: self._weights.scales]
        return [self._meaning.inverse_depth(output, fx) for output in used]

    def _geometry(self, inverse: Tensor, poses: Tensor, views: Tensor, batch: Batch) -> Tensor:
        count = batch.present.shape[1]
        fx = batch.intrinsics[:, :1].expand(-1, count).flatten()
        found = self._inverse_depths(unit(views, batch).flatten(0, 1), fx)[0]
        found = found.reshape(*batch.present.shape, *inverse.shape[-2:])
        return geometry_consistency(
            inverse, found, batch.intrinsics, poses, batch.valid, batch.present
        )


def enlarged(inverse: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Return (B, 1, H, W) inverse depth at full size, bilinear."""
    if tuple(inverse.shape[-2:]) == tuple(size):
        return inverse
    return F.interpolate(inverse, tuple(size), mode='bilinear', align_corners=False)


def smoothness_of(outputs: list[Tensor], target: Tensor) -> Tensor:
    """Return the mean over the scales s of the smoothness divided by 2^s, a scalar."""
    losses = [
        edge_aware_smoothness(inverse, image_at(target, tuple(inverse.shape[-2:]))) / 2**scale
        for scale, inverse in enumerate(outputs)
    ]
    return torch.stack(losses).mean()


def trainable(network: DepthNetwork) -> DepthNetwork:
    """Put a network into the mode in which it is fine-tuned, and return it.

    Evaluation mode, so that no path is dropped and batch normalisation keeps its statistics; and
    its factors are frozen: a batch of eight says less of them than the training did.  What the
    caller has frozen besides stays frozen.
    """
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.requires_grad_(False)
    return network


def chosen_precision(network: DepthNetwork, wanted: str, size: tuple[int, int]) -> str:
    """Return 'float32' or 'bfloat16' for a network on its device.

    'auto' takes bfloat16 where the GPU or the processor has it and the gradients of a random image
    prove right, and float32 otherwise: torch computes some bfloat16 gradients wrong on some
    processors.  Where it is asked for and wrong, it is refused.

    :param wanted: one of :data:`PRECISIONS`.
    :param size: (height, width) of the network's input, pixels.
    :raises SettingsError: for another name, or bfloat16 where it is wrong.
    """
    if wanted not in PRECISIONS:
        raise SettingsError('precision', quoted(wanted), 'one of ' + ', '.join(PRECISIONS))
    device = next(network.parameters()).device
    if wanted == 'float32' or (wanted == 'auto' and not _has_bfloat16(device)):
        return 'float32'
    agreement = bfloat16_agreement(network, size)
    if agreement >= _AGREEMENT:
        return 'bfloat16'
    if wanted == 'auto':
        return 'float32'
    raise SettingsError(
        'precision bfloat16',
        f'gradients that agree by a cosine of {agreement:.3f} with float32',
        f'at least {_AGREEMENT}',
        'Use float32.',
    )


_AGREEMENT = 0.98


def _has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16 itself, and does not only imitate it."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported()
    # torch says it of processors in private functions only, of which versions may lack some
    asked = ('_is_avx512_bf16_supported', '_is_amx_tile_supported')
    return any(getattr(torch.cpu, name, bool)() for name in asked)


def bfloat16_agreement(network: DepthNetwork, size: tuple[int, int]) -> float:
    """Return the smallest cosine, over layers, of bfloat16 gradients with those of float32."""
    device = next(network.parameters()).device
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, *size, generator=draw).to(device)
    image = image.contiguous(memory_format=torch.channels_last)
    weights = [item for item in network.parameters() if item.requires_grad and item.ndim > 1]
    found = []
    for enabled in (False, True):
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            outputs = network(image)
        loss = sum((output.float().log() * _ramp(output)).mean() for output in outputs)
        grads = torch.autograd.grad(loss, weights, allow_unused=True)
        found.append([None if g is None else g.float().flatten() for g in grads])
    cosines = [
        float(F.cosine_similarity(exact, rough, dim=0))
        for exact, rough in zip(*found, strict=True)
        if exact is not None and rough is not None and float(exact.norm()) > 0
    ]
    # nan is no agreement
    return min((value if value == value else -1.0 for value in cosines), default=1.0)


def _ramp(output: Tensor) -> Tensor:
    """Return weights that differ from pixel to pixel: a mean alone hides many errors."""
    height, width = output.shape[-2:]
    rows = torch.linspace(0.5, 1.5, height, device=output.device)[:, None]
    return rows * torch.linspace(-1.0, 2.0, width, device=output.device)
