"""What lenses and motion do to the light of a batch: the steps of ``world.lens`` in their order.

Most views have few of the effects: each works on the views that have it, for which the host waits
once per effect.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from depth_node.pretraining.rendering.blurring import blurred
from depth_node.pretraining.rendering.blurring import box_blurred
from depth_node.world.lens import motion_kernel

_LARGEST_BLUR_PX = 4.0
_LEAST_BLUR_PX = 0.1
_LEAST_DEFOCUS_PX = 0.3
_LEAST_MOTION_PX = 0.5


def through_lens(light: Tensor, column: Callable[[str], Tensor], depth_m: Tensor | None) -> Tensor:
    """Return the light (B, 3, H, W) behind the lenses.

    :param column: name of a field of the sensor -> (B, n, 1, 1).
    :param depth_m: (B, H, W); all is sharp where None.
    """
    light = light.clone()
    chosen = _marked(column('aberration') != 0)
    if len(chosen):
        light[chosen] = _aberrated(light[chosen], column('aberration')[chosen])
    chosen = _marked(column('defocus_px') > _LEAST_DEFOCUS_PX)
    if depth_m is not None and len(chosen):
        radius, focus = column('defocus_px')[chosen], column('focus_m')[chosen]
        light[chosen] = _defocused(light[chosen], depth_m[chosen, None], radius, focus)
    chosen = _marked(column('motion_px').abs().amax(dim=1) > _LEAST_MOTION_PX)
    if len(chosen):
        light[chosen] = _smeared(light[chosen], column('motion_px')[chosen])
    deviation = column('blur_px').flatten().clamp_max(_LARGEST_BLUR_PX)
    deviation = deviation.where(deviation > _LEAST_BLUR_PX, 0.0)
    light = blurred(light, deviation, _LARGEST_BLUR_PX)
    veil, scattered = column('veil'), light.clamp_max(2.0).mean(dim=(2, 3), keepdim=True)
    return light * (1 - veil) + veil * scattered


def _marked(mask: Tensor) -> Tensor:
    return mask.flatten().nonzero()[:, 0]


def _aberrated(light: Tensor, difference: Tensor) -> Tensor:
    """Return the pictures with red larger by a share and blue smaller by as much."""
    zoom = torch.cat((1 + difference, 1 - difference), dim=1).flatten(1)  # (n, 2)
    matrix = light.new_zeros((zoom.numel(), 2, 3))
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / zoom.flatten()
    ends = light[:, ::2].reshape(-1, 1, *light.shape[2:])
    grid = F.affine_grid(matrix, list(ends.shape), align_corners=True)
    seen = F.grid_sample(ends, grid, 'bilinear', 'border', align_corners=True)
    seen = seen.view(light.shape[0], 2, *light.shape[2:])
    return torch.stack((seen[:, 0], light[:, 1], seen[:, 1]), dim=1)


def _defocused(light: Tensor, depth_m: Tensor, radius_px: Tensor, focus_m: Tensor) -> Tensor:
    """Return the pictures blurred by their distance from the focus, in reciprocal metres."""
    reach = radius_px.flatten().round().clamp_min(1.0)
    largest = int(reach.max())
    soft = box_blurred(box_blurred(light, reach, largest), reach, largest)
    amount = ((1 / depth_m - 1 / focus_m).abs() * 1.5).clamp_max(1.0)
    return light + box_blurred(amount, reach, largest) * (soft - light)


def _smeared(light: Tensor, way_px: Tensor) -> Tensor:
    """Return the pictures moved along straight ways while they were taken."""
    ways = way_px.flatten(1).tolist()
    kernels = [torch.from_numpy(motion_kernel((across, down))) for across, down in ways]
    reach = max(len(kernel) // 2 for kernel in kernels)
    same = [F.pad(kernel, (reach - len(kernel) // 2,) * 4) for kernel in kernels]
    weight = torch.stack(same).to(light.device).repeat_interleave(3, dim=0)[:, None]
    height, width = light.shape[2:]
    padded = F.pad(light.flatten(0, 1)[None], (reach,) * 4, mode='replicate')
    return F.conv2d(padded, weight, groups=len(weight)).view(-1, 3, height, width)
