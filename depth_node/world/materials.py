"""What surfaces look like: a table of materials, and how a random one of a family is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.world.textures import texture_bank

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Materials:
    """M materials as arrays."""

    texture: NDArray[np.intp]
    """(M,) number in the texture bank."""
    scale: Array
    """(M,) multiplies the real size of the texture."""
    tint: Array
    """(M, 3) mean linear reflectance."""
    contrast: Array
    """(M,) strength of the texture, 0 to 1."""
    stain: NDArray[np.intp]
    """(M,) second texture, several times larger, for dirt and wear."""
    staining: Array
    """(M,) strength of the second texture."""
    shine: Array
    """(M,) strength of highlights."""
    glow: Array
    """(M,) light that the surface sends out itself; 1 is white paper under the key light."""


@dataclass(frozen=True)
class _Look:
    """Ranges from which a material of one kind is drawn."""

    families: tuple[str, ...]
    contrast: tuple[float, float]
    value: tuple[float, float]
    saturation: float = 0.25
    hue: float | None = None
    shine: float = 0.1
    scale_spread: float = 0.15


_GREEN = 0.28
_ORANGE = 0.08
_RED = 0.02

_LOOKS = {
    'wall': _Look(('plaster',), (0.2, 1.0), (0.2, 0.95), 0.35),
    'wallpaper': _Look(
        ('weave', 'stripes', 'brick', 'wood', 'tile', 'plaster', 'collage'),
        (0.15, 0.8),
        (0.1, 0.9),
        0.5,
    ),
    'ceiling': _Look(('plaster', 'tile', 'wood', 'plaster'), (0.1, 0.7), (0.2, 0.95), 0.1),
    'floor': _Look(('wood', 'tile', 'weave', 'grain', 'cloud'), (0.2, 0.9), (0.05, 0.75), 0.5),
    'concrete': _Look(('cloud', 'plaster', 'grain', 'gravel'), (0.15, 0.4), (0.1, 0.6), 0.08),
    'paint': _Look(('plaster', 'plaster', 'metal'), (0.05, 0.7), (0.02, 0.95), 0.9),
    'wood': _Look(('wood',), (0.4, 1.0), (0.06, 0.7), 0.85, _ORANGE, 0.2, 0.3),
    'fabric': _Look(('weave', 'stripes', 'grain'), (0.2, 1.0), (0.03, 0.85), 0.9, None, 0.0),
    'metal': _Look(('metal', 'plaster'), (0.3, 1.0), (0.05, 0.85), 0.1, None, 0.9),
    'plastic': _Look(('plaster', 'collage', 'plaster'), (0.05, 0.4), (0.02, 0.95), 1.0, None, 0.5),
    'goods': _Look(
        ('collage', 'text', 'carton', 'plaster', 'stripes'), (0.3, 1.0), (0.05, 0.9), 0.8
    ),
    'carton': _Look(('carton',), (0.5, 1.0), (0.15, 0.6), 0.7, _ORANGE, 0.0),
    'books': _Look(('books',), (0.7, 1.0), (0.2, 0.8), 0.15),
    'picture': _Look(
        ('collage', 'text', 'collage', 'leaves', 'cloud'), (0.6, 1.0), (0.15, 0.8), 0.3, None, 0.3
    ),
    'outlook': _Look(('leaves', 'facade', 'cloud', 'plaster'), (0.2, 0.8), (0.3, 0.9), 0.4),
    'paper': _Look(('text',), (0.7, 1.0), (0.3, 0.95), 0.1),
    'front': _Look(('panel', 'wood', 'plaster'), (0.3, 1.0), (0.03, 0.92), 0.6, None, 0.3),
    'leaves': _Look(('leaves',), (0.6, 1.0), (0.05, 0.4), 0.9, _GREEN, 0.0),
    'grass': _Look(('grass',), (0.5, 1.0), (0.08, 0.45), 0.85, _GREEN, 0.0),
    'earth': _Look(('gravel', 'grass', 'grain'), (0.4, 1.0), (0.06, 0.6), 0.7, _ORANGE, 0.0),
    'asphalt': _Look(('gravel', 'grain', 'cloud'), (0.1, 0.5), (0.03, 0.45), 0.06),
    'paving': _Look(('tile', 'brick', 'gravel'), (0.2, 0.9), (0.08, 0.6), 0.2),
    'facade': _Look(('facade',), (0.6, 1.0), (0.06, 0.9), 0.5),
    'masonry': _Look(('brick', 'plaster', 'stripes'), (0.3, 1.0), (0.06, 0.85), 0.6, _ORANGE),
    'sheet': _Look(('corrugated', 'metal'), (0.3, 0.9), (0.06, 0.8), 0.5, None, 0.3),
    'car': _Look(('plaster', 'metal'), (0.05, 0.3), (0.01, 0.95), 0.95, None, 1.2),
    'glass': _Look(('cloud', 'plaster', 'collage'), (0.1, 0.5), (0.01, 0.3), 0.2, None, 1.5),
    'rubber': _Look(('grain', 'plaster'), (0.1, 0.5), (0.01, 0.1), 0.05),
    'skin': _Look(('plaster',), (0.05, 0.3), (0.05, 0.6), 0.6, _ORANGE, 0.05),
    'sign': _Look(('text', 'collage', 'stripes', 'plaster'), (0.4, 1.0), (0.2, 0.95), 1.0, _RED),
}


class Palette:
    """Collects the materials of one scene while it is built."""

    def __init__(self, rng: np.random.Generator) -> None:
        """:param rng: source of all choices."""
        self._rng = rng
        self._rows: list[tuple[int, float, list[float], float, int, float, float, float]] = []
        self._known: dict[str, list[int]] = {}

    def new(self, look: str, glow: float = 0.0, value: float | None = None) -> int:
        """Draw a new material.

        :param look: a key of the table of looks.
        :param glow: light that it sends out.
        :param value: mean reflectance of its brightest channel; drawn where None.
        :returns: its number.
        """
        rng, bank, ranges = self._rng, texture_bank(), _LOOKS[look]
        family = ranges.families[int(rng.integers(len(ranges.families)))]
        texture = bank.first[family] + int(rng.integers(bank.count[family]))
        stain = bank.first['cloud'] + int(rng.integers(bank.count['cloud']))
        brightness = rng.uniform(*ranges.value) if value is None else value
        self._rows.append(
            (
                texture,
                float(np.exp(rng.normal(0.0, ranges.scale_spread))),
                _tint(rng, brightness, ranges.saturation, ranges.hue),
                float(rng.uniform(*ranges.contrast)),
                stain,
                float(rng.uniform(0.0, 0.35) * (rng.random() < 0.6)),
                float(ranges.shine * rng.random() ** 2),
                glow,
            )
        )
        number = len(self._rows) - 1
        self._known.setdefault(look, []).append(number)
        return number

    def some(self, look: str, fresh: float = 0.3) -> int:
        """Return a material of a look that the scene has already, or a new one.

        :param fresh: probability of a new one even where there are others.
        """
        known = self._known.get(look)
        if not known or self._rng.random() < fresh:
            return self.new(look)
        return known[int(self._rng.integers(len(known)))]

    def table(self) -> Materials:
        """Return everything drawn so far."""
        columns = list(zip(*self._rows, strict=True))
        texture, scale, tint, contrast, stain, staining, shine, glow = columns
        return Materials(
            np.array(texture, np.intp),
            np.array(scale, np.float32),
            np.array(tint, np.float32),
            np.array(contrast, np.float32),
            np.array(stain, np.intp),
            np.array(staining, np.float32),
            np.array(shine, np.float32),
            np.array(glow, np.float32),
        )


def _tint(
    rng: np.random.Generator, value: float, saturation: float, hue: float | None
) -> list[float]:
    """Return linear RGB whose largest channel is ``value``."""
    angle = rng.random() if hue is None else hue + rng.normal(0.0, 0.05)
    strength = saturation * rng.random() ** (0.6 if hue is not None else 1.3)
    wheel = np.abs((angle * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    tint = value * (1 - strength + strength * np.clip(wheel, 0, 1))
    return [float(channel) for channel in tint]
