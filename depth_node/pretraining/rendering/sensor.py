"""From light to pixel values for a batch: the steps of ``world.sensor.develop`` in its order.

A new field of ``world.sensor.Sensor`` needs a column in ``packing``, an entry in :data:`COLUMNS`
and, where it is an effect of its own, a function in :func:`develop`; a test holds the two to each
other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from depth_node.pretraining.rendering.blurring import blurred
from depth_node.pretraining.rendering.jpeg import compressed

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
}
"""Columns of ``PackedShots.sensor`` by the field of ``world.sensor.Sensor`` that they hold."""
_LARGEST_BLUR_PX = 4.0
_LEAST_BLUR_PX = 0.1
_ENTRIES = 4096
_BRIGHTEST = 4.0


def develop(light: Tensor, sensor: Tensor, generator: torch.Generator | None) -> Tensor:
    """Turn light into pictures.

    :param light: (B, 3, H, W) linear RGB, 1 is white paper.
    :param sensor: (B, 12); see :data:`COLUMNS`.
    :param generator: source of the noise on the device of the light; none is added where None.
    :returns: (B, 3, H, W) uint8 RGB.
    """

    def column(name: str) -> Tensor:
        return sensor[:, COLUMNS[name], None, None]

    light = _softened(light, column('blur_px'))
    light = light * _gains(light, column)
    light = _vignetted(light, column('vignette'))
    grey = light.mean(dim=1, keepdim=True)
    light = grey + column('saturation') * (light - grey)
    value = _toned(light, column('shoulder'), column('gamma'))
    if generator is not None:
        noise = torch.randn(value.shape, generator=generator, device=value.device)
        value = (value + noise * column('noise')).clamp(0.0, 255.0)
    value = torch.floor(value + 0.5)
    quality = column('jpeg_quality')
    value = torch.where(quality > 0, compressed(value, quality.flatten()), value)
    return value.to(torch.uint8)


def _softened(light: Tensor, blur_px: Tensor) -> Tensor:
    deviation = blur_px.flatten().clamp_max(_LARGEST_BLUR_PX)
    deviation = deviation.where(deviation > _LEAST_BLUR_PX, 0.0)
    return blurred(light, deviation, _LARGEST_BLUR_PX)


def _gains(light: Tensor, column: Callable[[str], Tensor]) -> Tensor:
    mean = light.clamp_max(2.0).mean(dim=(1, 2, 3), keepdim=True)
    gain = column('exposure') * (0.25 / mean.clamp_min(0.01)) ** column('metering')
    return column('white_balance') * gain


def _vignetted(light: Tensor, loss: Tensor) -> Tensor:
    height, width = light.shape[-2:]
    x = torch.linspace(-1, 1, width, device=light.device)
    y = torch.linspace(-1, 1, height, device=light.device)
    return light * (1.0 - loss / 2 * (x[None, :] ** 2 + y[:, None] ** 2))


def _toned(light: Tensor, shoulder: Tensor, gamma: Tensor) -> Tensor:
    """Return values from 0 to 255; in the steps of the table that world/ uses, dark ones count."""
    level = (light * (_ENTRIES / _BRIGHTEST)).clamp(0, _ENTRIES - 1).floor()
    x = level * (_BRIGHTEST / _ENTRIES)
    soft = x * (1 + x * shoulder / 4) / (1 + x * shoulder)
    return 255.0 * soft.clamp(0.0, 1.0) ** (1.0 / gamma)
