"""What the numbers of a network mean while it is trained: inverse depth in 1 / metres."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder import ModelCard

_NEAREST = 1e-3
_REFUSED = {
    'ecodepth': 'Its backbone is a frozen diffusion model, and only depth that was measured '
    'can train its head.',
    'midas': 'Its output has an unknown scale and shift in every image, and no pose can be fitted '
    'to that.',
}


@dataclass(frozen=True)
class DepthMeaning:
    """How the output of a network becomes inverse depth, as ``pipeline`` has it."""

    kind: str
    """'disparity' or 'metric'."""
    min_depth_m: float
    """Depth where a disparity is 1, metres at the focal length of the card."""
    max_depth_m: float
    """Depth where a disparity is 0, metres at the focal length of the card."""
    depth_scale: float
    """Factor on the network's depth."""
    focal_px: float | None
    """Focal length for which the depth is right, pixels; None: any."""

    def inverse_depth(self, output: Tensor, fx: Tensor) -> Tensor:
        """Return 1 / (network depth * depth_scale * fx / focal_px), 1 / metres, float32 or wider.

        :param output: (B, 1, h, w), a network's output.
        :param fx: (B,) focal length at the network's input, pixels.
        """
        output = output.to(fx.dtype)
        if self.kind == 'metric':
            inverse = 1 / output.clamp_min(_NEAREST)
        else:
            low, high = 1 / self.max_depth_m, 1 / self.min_depth_m
            inverse = low + (high - low) * output
        zoom = fx / self.focal_px if self.focal_px else fx / fx
        return inverse / (self.depth_scale * zoom)[:, None, None, None]


def meaning_of(card: ModelCard, scale: float = 1.0) -> DepthMeaning:
    """Return what the output of a model means; refuses those that cannot be fine-tuned here.

    :param scale: measured factor on the model's depth, folded into ``depth_scale``.
    :raises ModelError: for relative depth and for ECoDepth, with the reason.
    """
    output = card.output
    if card.network in _REFUSED or output.kind not in ('disparity', 'metric'):
        reason = _REFUSED.get(card.network, _REFUSED['midas'])
        raise ModelError(
            f'fine-tuning of {quoted(card.name)}',
            f'a {card.network} network of {output.kind} depth',
            'lite-mono, monodepth2, diffnet or sqldepth',
            reason,
        )
    return DepthMeaning(
        output.kind,
        output.min_depth_m,
        output.max_depth_m,
        card.depth_scale * scale,
        card.focal_px,
    )
