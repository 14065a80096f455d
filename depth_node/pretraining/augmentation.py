"""A rendered view shown again must not be the same view: other framing, light, colours.

Framing (zoom, roll, shift, mirror) keeps depth exact: a turn about the optical axis leaves z as it
is, a zoom multiplies the focal length, and a shift moves the principal point, of which the network
knows nothing.  Light and colours are changed so much that no brightness can stand for a distance:
the light of a place, a curve for all values, and now and then a negative.  Works on the device of
its tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class AugmentationSettings:
    """How much views are varied."""

    flip: float = 0.5
    """Probability of a mirror image."""
    roll_rad: float = 0.06
    """Standard deviation of the turn about the optical axis."""
    largest_roll_rad: float = 0.3
    """Turns end there."""
    zoom: float = 1.4
    """Largest enlargement beyond what the turn needs to stay inside the view."""
    light: float = 0.25
    """Standard deviation of the logarithm of a smooth field of light over the image."""
    gamma: float = 0.2
    """Standard deviation of the logarithm of the exponent of all values."""
    gain: float = 0.2
    """Standard deviation of the logarithm of the brightness."""
    tint: float = 0.08
    """Standard deviation of the logarithm of the brightness of each colour."""
    contrast: float = 0.15
    """Standard deviation of the logarithm of the contrast about the mean."""
    grey: float = 0.08
    """Probability of an image without colours."""
    negative: float = 0.03
    """Probability of a negative."""
    noise: float = 0.03
    """Largest standard deviation of added noise, of 1."""


_FIELD_CELLS = (3, 4)


def reframed(
    image: Tensor, depth: Tensor, settings: AugmentationSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return other sections of the views, with the depth that their focal length asks for.

    :param image: (B, 3, H, W) float32 in 0 to 1.
    :param depth: (B, 1, H, W) float32 metres at the focal length of the card; +inf is sky.
    :returns: image, bilinear, and depth of the nearest pixel; both of the same shape as before.
    """
    count, _, height, width = image.shape
    uniform = _draw(torch.rand, (5, count), image, generator)
    limit = settings.largest_roll_rad
    roll = settings.roll_rad * _draw(torch.randn, (count,), image, generator)
    roll = roll.clamp(-limit, limit)
    mirror = torch.where(uniform[0] < settings.flip, -1.0, 1.0)
    cosine, sine = roll.cos(), roll.sin()
    half_width, half_height = (width - 1) / 2.0, (height - 1) / 2.0
    across = cosine + sine.abs() * (half_height / half_width)
    down = cosine + sine.abs() * (half_width / half_height)
    zoom = torch.maximum(across, down) * settings.zoom ** (uniform[1] ** 2)
    shift_x = (1.0 - across / zoom) * (2.0 * uniform[2] - 1.0)
    shift_y = (1.0 - down / zoom) * (2.0 * uniform[3] - 1.0)
    # from a place in the new image to one in the old, both -1 to 1 between corner pixels' centres
    matrix = torch.stack(
        (
            torch.stack((mirror * cosine, -sine * (half_height / half_width), shift_x), dim=1),
            torch.stack((mirror * sine * (half_width / half_height), cosine, shift_y), dim=1),
        ),
        dim=1,
    )
    matrix[:, :, :2] /= zoom[:, None, None]
    grid = F.affine_grid(matrix, list(image.shape), align_corners=True)
    seen = F.grid_sample(image, grid, 'bilinear', 'border', align_corners=True)
    near = F.grid_sample(depth, grid, 'nearest', 'border', align_corners=True)
    return seen, near / zoom[:, None, None, None]


def relit(image: Tensor, settings: AugmentationSettings, generator: torch.Generator) -> Tensor:
    """Return the images in another light, through another sensor.

    :param image: (B, 3, H, W) float32 in 0 to 1.
    :returns: the same shape and range.
    """
    count = image.shape[0]

    def normal(spread: float, *shape: int) -> Tensor:
        return spread * _draw(torch.randn, (count, *shape), image, generator)

    chance = _draw(torch.rand, (4, count, 1, 1, 1), image, generator)
    field = F.interpolate(
        normal(settings.light, 1, *_FIELD_CELLS),
        image.shape[-2:],
        mode='bilinear',
        align_corners=True,
    )
    strength = chance[3] * chance[3]
    brightness = normal(settings.gain, 1, 1, 1) + normal(settings.tint, 3, 1, 1)
    found = image * torch.exp(strength * 2.0 * field + brightness)
    found = found.clamp(1e-4, 1.0) ** torch.exp(normal(settings.gamma, 1, 1, 1))
    mean = found.mean(dim=(1, 2, 3), keepdim=True)
    found = mean + (found - mean) * torch.exp(normal(settings.contrast, 1, 1, 1))
    luma = (found * found.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    found = torch.where(chance[0] < settings.grey, luma, found)
    found = torch.where(chance[1] < settings.negative, 1.0 - found, found)
    found = found + settings.noise * chance[2] ** 3 * normal(1.0, *image.shape[1:])
    return found.clamp(0.0, 1.0)


def _draw(
    source: object, shape: tuple[int, ...], like: Tensor, generator: torch.Generator
) -> Tensor:
    made: Tensor = source(shape, generator=generator, device=generator.device)  # type: ignore[operator]
    return made.to(like.device)
