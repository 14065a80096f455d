"""From light to pixel values for a batch: the steps of ``world.sensor.develop`` in its order.

A new field of ``world.sensor.Sensor`` needs an entry in :data:`COLUMNS` and, where it is an effect
of its own, a function in :func:`develop`; tests hold the two to each other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from depth_node.pretraining.rendering.blurring import blurred
from depth_node.pretraining.rendering.jpeg import compressed
from depth_node.pretraining.rendering.lens import through_lens

COLUMNS = {
    'exposure': slice(0, 1),
    'metering': slice(1, 2),
    'white_balance': slice(2, 5),
    'gamma': slice(5, 6),
    'shoulder': slice(6, 7),
    'saturation': slice(7, 8),
    'vignette': slice(8, 9),
    'blur_px': slice(9, 10),
    'noise': slice(10, 11),
    'jpeg_quality': slice(11, 12),
    'black': slice(12, 13),
    'veil': slice(13, 14),
    'motion_px': slice(14, 16),
    'defocus_px': slice(16, 17),
    'focus_m': slice(17, 18),
    'aberration': slice(18, 19),
    'shot_noise': slice(19, 20),
    'noise_grain_px': slice(20, 21),
    'sharpening': slice(21, 22),
    'mono': slice(22, 25),
}
"""Columns of ``PackedShots.sensor`` by the field of ``world.sensor.Sensor`` that they hold."""
_ENTRIES = 4096
_BRIGHTEST = 4.0
_LARGEST_GRAIN_PX = 1.5
_HALO_PX = 0.9

Column = Callable[[str], Tensor]


def develop(
    light: Tensor,
    sensor: Tensor,
    generator: torch.Generator | None,
    depth_m: Tensor | None = None,
) -> Tensor:
    """Turn light into pictures.

    :param light: (B, 3, H, W) linear RGB, 1 is white paper.
    :param sensor: (B, 25); see :data:`COLUMNS`.
    :param generator: source of the noise on the device of the light; none is added where None.
    :param depth_m: (B, H, W) for the defocus, +inf is sky; all is sharp where None.
    :returns: (B, 3, H, W) uint8 RGB.
    """

    def column(name: str) -> Tensor:
        return sensor[:, COLUMNS[name], None, None]

    light = through_lens(light, column, depth_m)
    light = light * _gains(light, column)
    light = _vignetted(light, column('vignette'))
    value = _toned(_tinted(light, column), column)
    if generator is not None:
        value = value + _noise(value, column, generator)
    value = _sharpened(value, column('sharpening')).clamp(0.0, 255.0)
    value = torch.floor(value + 0.5)
    quality = column('jpeg_quality')
    value = torch.where(quality > 0, compressed(value, quality.flatten()), value)
    return value.to(torch.uint8)


def _gains(light: Tensor, column: Column) -> Tensor:
    mean = light.clamp_max(2.0).mean(dim=(1, 2, 3), keepdim=True)
    gain = column('exposure') * (0.25 / mean.clamp_min(0.01)) ** column('metering')
    return column('white_balance') * gain


def _vignetted(light: Tensor, loss: Tensor) -> Tensor:
    height, width = light.shape[-2:]
    x = torch.linspace(-1, 1, width, device=light.device)
    y = torch.linspace(-1, 1, height, device=light.device)
    return light * (1.0 - loss / 2 * (x[None, :] ** 2 + y[:, None] ** 2))


def _is_mono(column: Column) -> Tensor:
    """Mark (B, 1, 1, 1) the sensors without colours."""
    return column('mono').sum(dim=1, keepdim=True) > 0


def _tinted(light: Tensor, column: Column) -> Tensor:
    grey = light.mean(dim=1, keepdim=True)
    coloured = grey + column('saturation') * (light - grey)
    mono = (light * column('mono')).sum(dim=1, keepdim=True)
    return torch.where(_is_mono(column), mono, coloured)


def _toned(light: Tensor, column: Column) -> Tensor:
    """Return values from 0 to 255; in the steps of the table that world/ uses, dark ones count."""
    shoulder, black = column('shoulder'), column('black')
    level = (light * (_ENTRIES / _BRIGHTEST)).clamp(0, _ENTRIES - 1).floor()
    x = level * (_BRIGHTEST / _ENTRIES)
    x = (x - black).clamp_min(0.0) / (1.0 - black)
    soft = x * (1 + x * shoulder / 4) / (1 + x * shoulder)
    return 255.0 * soft.clamp(0.0, 1.0) ** (1.0 / column('gamma'))


def _noise(value: Tensor, column: Column, generator: torch.Generator) -> Tensor:
    """Return the noise of the values; the same in all channels of sensors without colours."""
    noise = torch.randn(value.shape, generator=generator, device=value.device)
    noise = torch.where(_is_mono(column), noise[:, :1], noise)
    grain = column('noise_grain_px')
    soft = blurred(noise, grain.flatten().clamp_max(_LARGEST_GRAIN_PX), _LARGEST_GRAIN_PX)
    noise = soft * (1 + 2.5 * grain**2)
    variance = column('noise') ** 2 + value * (column('shot_noise') ** 2 / 255)
    return noise * torch.sqrt(variance)


def _sharpened(value: Tensor, strength: Tensor) -> Tensor:
    halo = torch.full_like(strength.flatten(), _HALO_PX).where(strength.flatten() > 0, 0.0)
    return value + strength * (value - blurred(value, halo, _HALO_PX))
