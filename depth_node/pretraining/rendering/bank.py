"""The texture bank of world/ on a device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from depth_node.world.painters import SIZE_PX
from depth_node.world.textures import texture_bank

_NEUTRAL = 1.0 / 127.5


class DeviceBank:
    """All textures and their mip levels as one table of texels, four bytes each; about 60 MB."""

    def __init__(self, device: torch.device) -> None:
        bank = texture_bank()
        rows, self._columns, _ = bank.atlas.shape
        texels = torch.zeros((rows * self._columns, 4), dtype=torch.uint8)
        texels[:, :3] = torch.from_numpy(bank.atlas).view(-1, 3)
        self._texels = texels.to(device)
        self._period_m = torch.from_numpy(bank.period_m).to(device)
        self._levels = 1 + _last_level(self._columns)
        sides = [(SIZE_PX >> level) + 1 for level in range(self._levels - 1)]
        self._left = torch.tensor([0, *sides]).cumsum(0).float().to(device)
        self.first_cloud = bank.first['cloud']

    def lookup(
        self, texture: Tensor, u_m: Tensor, v_m: Tensor, footprint_m: Tensor, scale: Tensor | float
    ) -> Tensor:
        """Sample the bank, filtered for the size of a pixel.

        :param texture: int64 numbers; all tensors have one shape.
        :param u_m: surface coordinate, metres; :param v_m: the other one, upwards.
        :param footprint_m: width of a pixel on the surface, metres.
        :param scale: multiplies the period of the textures.
        :returns: (..., 3) factors; 1 is neutral.
        """
        per_m = 1.0 / (self._period_m[texture] * scale)
        # where nothing is seen, coordinates may be no numbers, and an index must be one
        _, level = torch.frexp(torch.nan_to_num(footprint_m * (per_m * float(SIZE_PX))))
        level = level.clamp(0, self._levels - 1)
        size = torch.ldexp(torch.full_like(per_m, float(SIZE_PX)), -level)
        x, y = torch.nan_to_num(u_m * per_m), torch.nan_to_num(v_m * per_m)
        x, y = (x - x.floor()) * size, (y.ceil() - y) * size
        left, top = torch.minimum(x.floor(), size - 1), torch.minimum(y.floor(), size - 1)
        right, down = (x - left)[..., None], (y - top)[..., None]
        row = texture * (SIZE_PX + 1) + top.long()
        corner = row * self._columns + (left + self._left[level.long()]).long()
        upper = torch.lerp(self._at(corner), self._at(corner + 1), right)
        corner = corner + self._columns
        lower = torch.lerp(self._at(corner), self._at(corner + 1), right)
        return torch.lerp(upper, lower, down)[..., :3] * _NEUTRAL

    def _at(self, texel: Tensor) -> Tensor:
        return self._texels[texel].float()


def _last_level(columns: int) -> int:
    """Return the number of the smallest level in an atlas of so many columns."""
    level, filled = 0, SIZE_PX + 1
    while filled < columns:
        level += 1
        filled += (SIZE_PX >> level) + 1
    return level


@lru_cache(maxsize=2)
def device_bank(device: torch.device) -> DeviceBank:
    """Return the bank of a device, made on the first call."""
    return DeviceBank(device)
