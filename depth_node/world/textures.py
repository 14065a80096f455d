"""A bank of procedural textures of real sizes, in one mip-mapped atlas that a single remap reads.

Every texture wraps around at its edges and covers ``period_m`` metres of surface.  Colors are
modulations around 128, so that a material's tint decides how bright a surface is on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.world.painters import FAMILIES
from depth_node.world.painters import SIZE_PX

_LEVELS = 7
_BANK_SEED = 20240229

Array = NDArray[np.float32]


@dataclass(frozen=True)
class TextureBank:
    """All textures, below each other, mip levels side by side; each padded by one wrapped texel.

    The textures of one family are neighbors: ``first[name]`` to ``first[name] + count[name]``.
    """

    atlas: NDArray[np.uint8]
    """(rows, columns, 3) RGB around 128."""
    period_m: NDArray[np.float32]
    """(T,) metres that each texture covers before it repeats."""
    first: dict[str, int]
    """Number of the first texture of a family."""
    count: dict[str, int]
    """Textures in a family."""

    def lookup(
        self,
        texture: NDArray[np.intp],
        u_m: Array,
        v_m: Array,
        footprint_m: Array,
        scale: Array | float = 1.0,
    ) -> NDArray[np.uint8]:
        """Sample the atlas, filtered for the size of a pixel.

        :param texture: (H, W) texture numbers.
        :param u_m: (H, W) surface coordinate, metres.
        :param v_m: (H, W) surface coordinate, metres; textures stand upright along it.
        :param footprint_m: (H, W) width of a pixel on the surface, metres.
        :param scale: multiplies the period of the textures.
        :returns: (H, W, 3) RGB modulation, 128 is neutral.
        """
        per_m = np.float32(1.0) / (self.period_m.take(texture) * scale)
        _, level = np.frexp(footprint_m * (per_m * np.float32(SIZE_PX)))
        level = np.clip(level, 0, _LEVELS - 1)
        size = np.ldexp(np.float32(SIZE_PX), -level)
        left = _LEFT.take(level)
        x = u_m * per_m
        y = v_m * per_m
        x -= np.floor(x)
        y = np.ceil(y) - y
        x = np.minimum(x * size, size) + left
        y = np.minimum(y * size, size) + (texture * (SIZE_PX + 1)).astype(np.float32)
        return np.asarray(
            cv2.remap(self.atlas, x.astype(np.float32, copy=False), y, cv2.INTER_LINEAR),
            dtype=np.uint8,
        )


_LEFT = np.cumsum([0] + [(SIZE_PX >> level) + 1 for level in range(_LEVELS - 1)]).astype(
    np.float32
)


@lru_cache(maxsize=1)
def texture_bank() -> TextureBank:
    """Return the bank, which is made on the first call; the same in every process."""
    rng = np.random.default_rng(_BANK_SEED)
    columns = int(_LEFT[-1]) + (SIZE_PX >> (_LEVELS - 1)) + 1
    total = sum(family.count for family in FAMILIES)
    atlas = np.zeros((total * (SIZE_PX + 1), columns, 3), np.uint8)
    periods: list[float] = []
    first: dict[str, int] = {}
    for family in FAMILIES:
        first[family.name] = len(periods)
        for _ in range(family.count):
            _store(atlas, len(periods), family.paint(rng))
            periods.append(family.period_m * math.exp(rng.normal(0.0, family.period_spread)))
    count = {family.name: family.count for family in FAMILIES}
    return TextureBank(atlas, np.array(periods, np.float32), first, count)


def _store(atlas: NDArray[np.uint8], row: int, picture: Array) -> None:
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    picture = np.clip(picture, 0.0, 2.0) * np.float32(127.5)
    for level in range(_LEVELS):
        size = SIZE_PX >> level
        if level:
            picture = np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA))
        padded = np.pad(picture, ((0, 1), (0, 1), (0, 0)), mode='wrap')
        top, left = row * (SIZE_PX + 1), int(_LEFT[level])
        atlas[top : top + size + 1, left : left + size + 1] = padded.round()
