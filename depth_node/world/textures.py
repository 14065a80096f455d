"""A bank of procedural textures of real sizes, in one mip-mapped atlas that a single remap reads.

Every texture wraps around at its edges and covers ``period_m`` metres of surface.  Colors are
modulations around 128, so that a material's tint decides how bright a surface is on average.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

_SIZE_PX = 256
_LEVELS = 7
_BANK_SEED = 20240229

Array = NDArray[np.float32]
Painter = Callable[[np.random.Generator], Array]


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
        _, level = np.frexp(footprint_m * (per_m * np.float32(_SIZE_PX)))
        level = np.clip(level, 0, _LEVELS - 1)
        size = np.ldexp(np.float32(_SIZE_PX), -level)
        left = _LEFT.take(level)
        x = u_m * per_m
        y = v_m * per_m
        x -= np.floor(x)
        y = np.ceil(y) - y
        x = np.minimum(x * size, size) + left
        y = np.minimum(y * size, size) + (texture * (_SIZE_PX + 1)).astype(np.float32)
        return np.asarray(
            cv2.remap(self.atlas, x.astype(np.float32, copy=False), y, cv2.INTER_LINEAR),
            dtype=np.uint8,
        )


_LEFT = np.cumsum([0] + [(_SIZE_PX >> level) + 1 for level in range(_LEVELS - 1)]).astype(
    np.float32
)


@lru_cache(maxsize=1)
def texture_bank() -> TextureBank:
    """Return the bank, which is made on the first call; the same in every process."""
    rng = np.random.default_rng(_BANK_SEED)
    columns = int(_LEFT[-1]) + (_SIZE_PX >> (_LEVELS - 1)) + 1
    total = sum(family.count for family in _FAMILIES)
    atlas = np.zeros((total * (_SIZE_PX + 1), columns, 3), np.uint8)
    periods: list[float] = []
    first: dict[str, int] = {}
    for family in _FAMILIES:
        first[family.name] = len(periods)
        for _ in range(family.count):
            _store(atlas, len(periods), family.paint(rng))
            periods.append(family.period_m * math.exp(rng.normal(0.0, family.period_spread)))
    count = {family.name: family.count for family in _FAMILIES}
    return TextureBank(atlas, np.array(periods, np.float32), first, count)


def _store(atlas: NDArray[np.uint8], row: int, picture: Array) -> None:
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    picture = np.clip(picture, 0.0, 2.0) * np.float32(127.5)
    for level in range(_LEVELS):
        size = _SIZE_PX >> level
        if level:
            picture = np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA))
        padded = np.pad(picture, ((0, 1), (0, 1), (0, 0)), mode='wrap')
        top, left = row * (_SIZE_PX + 1), int(_LEFT[level])
        atlas[top : top + size + 1, left : left + size + 1] = padded.round()


@dataclass(frozen=True)
class _Family:
    name: str
    paint: Painter
    count: int
    period_m: float
    period_spread: float = 0.15


def _grid() -> tuple[Array, Array]:
    axis = (np.arange(_SIZE_PX, dtype=np.float32) + np.float32(0.5)) / np.float32(_SIZE_PX)
    return np.meshgrid(axis, axis)


def _noise(rng: np.random.Generator, cells_x: int, cells_y: int | None = None) -> Array:
    """Return smooth periodic noise of mean 0 and deviation of about 1."""
    cells_y = cells_x if cells_y is None else cells_y
    seeds = rng.normal(size=(cells_y, cells_x)).astype(np.float32)
    pad = 3
    wrapped = np.pad(seeds, pad, mode='wrap')
    fx, fy = _SIZE_PX / cells_x, _SIZE_PX / cells_y
    shape = (round(wrapped.shape[1] * fx), round(wrapped.shape[0] * fy))
    wide = np.asarray(cv2.resize(wrapped, shape, interpolation=cv2.INTER_CUBIC))
    left, top = round(pad * fx), round(pad * fy)
    return np.asarray(wide[top : top + _SIZE_PX, left : left + _SIZE_PX], np.float32)


def _octaves(rng: np.random.Generator, first: int, levels: int, fade: float = 0.6) -> Array:
    total = np.zeros((_SIZE_PX, _SIZE_PX), np.float32)
    for level in range(levels):
        cells = min(first << level, _SIZE_PX)
        total += _noise(rng, cells) * np.float32(fade**level)
    return total / max(float(total.std()), 1e-6)


def _colored(rng: np.random.Generator, spread: float) -> Array:
    return np.exp(rng.normal(0.0, spread, 3)).astype(np.float32)


def _plaster(rng: np.random.Generator) -> Array:
    return 1 + 0.05 * _octaves(rng, 3, 3) + 0.03 * _octaves(rng, 64, 3, 0.9)


def _grain(rng: np.random.Generator) -> Array:
    return 1 + 0.22 * _octaves(rng, 32, 4, 1.0) + 0.08 * _octaves(rng, 2, 3)


def _cloud(rng: np.random.Generator) -> Array:
    return 1 + 0.28 * _octaves(rng, int(rng.integers(2, 5)), 6, 0.6)


def _wood(rng: np.random.Generator) -> Array:
    planks = int(rng.integers(3, 9))
    x, y = _grid()
    row = np.floor(y * planks)
    shade = rng.normal(0, 0.12, planks).astype(np.float32)[row.astype(int)]
    start = rng.random(planks).astype(np.float32)[row.astype(int)]
    grain = 0.10 * _noise(rng, 4, 96) + 0.06 * _noise(rng, 8, 192)
    gap = (np.abs(y * planks - np.round(y * planks)) < 0.03) | (
        np.abs((x + start) % 1 - 0.5) < 0.004
    )
    return np.where(gap, 0.45, 1 + shade + grain)[..., None] * np.array([1.0, 0.99, 0.97])


def _brick(rng: np.random.Generator) -> Array:
    rows, columns = 16, 6
    x, y = _grid()
    row = np.floor(y * rows).astype(int)
    across = x * columns + 0.5 * (row % 2)
    column = np.floor(across).astype(int) % columns
    joint = (np.abs(across - np.round(across)) < 0.03) | (
        np.abs(y * rows - np.round(y * rows)) < 0.08
    )
    shade = rng.normal(1, 0.16, (rows, columns)).astype(np.float32)[row, column]
    mortar = rng.uniform(0.6, 1.7)
    body = (shade + 0.08 * _octaves(rng, 64, 2))[..., None] * _colored(rng, 0.06)
    return np.where(joint[..., None], mortar, body)


def _tile(rng: np.random.Generator) -> Array:
    tiles = int(rng.choice([4, 5, 6]))
    x, y = _grid()
    cell = (np.floor(x * tiles).astype(int), np.floor(y * tiles).astype(int))
    joint = np.minimum(
        np.abs(x * tiles - np.round(x * tiles)), np.abs(y * tiles - np.round(y * tiles))
    )
    shade = rng.normal(1, rng.choice([0.02, 0.08]), (tiles, tiles)).astype(np.float32)[cell]
    if rng.random() < 0.35:
        shade = shade * np.where((cell[0] + cell[1]) % 2 == 0, rng.uniform(0.4, 0.8), 1.3)
    face = shade + 0.06 * _octaves(rng, 6, 4)
    return np.where(joint < 0.025, rng.uniform(0.5, 1.4), face)


def _stripes(rng: np.random.Generator) -> Array:
    x, y = _grid()
    stripes = int(rng.integers(4, 24))
    along = x if rng.random() < 0.6 else y
    level = rng.normal(1, 0.35, stripes).astype(np.float32)
    base = level[np.floor(along * stripes).astype(int) % stripes]
    return (base + 0.04 * _octaves(rng, 32, 3))[..., None] * _colored(rng, 0.1)


def _corrugated(rng: np.random.Generator) -> Array:
    x, y = _grid()
    waves = int(rng.integers(8, 28))
    along = x if rng.random() < 0.5 else y
    ridge = np.sin(2 * np.pi * waves * along).astype(np.float32)
    return 1 + 0.22 * ridge + 0.07 * _octaves(rng, 3, 5)


def _weave(rng: np.random.Generator) -> Array:
    x, y = _grid()
    threads = int(rng.integers(20, 60))
    pattern = np.sin(2 * np.pi * threads * x) * np.sin(2 * np.pi * threads * y)
    motif = 0.25 * np.sign(_noise(rng, int(rng.integers(3, 9)))) * (rng.random() < 0.5)
    return (1 + 0.12 * pattern + motif + 0.05 * _octaves(rng, 8, 4))[..., None] * _colored(
        rng, 0.1
    )


def _leaves(rng: np.random.Generator) -> Array:
    clumps = _octaves(rng, 14, 4, 0.8)
    lit = np.clip(0.95 + 0.42 * clumps, 0.15, 2.0)
    hue = 1 + 0.1 * _noise(rng, 10)
    return np.stack([lit * hue, lit, lit * (2 - hue) * 0.9], axis=2)


def _grass(rng: np.random.Generator) -> Array:
    blades = 0.25 * _octaves(rng, 64, 3, 1.0) + 0.18 * _octaves(rng, 3, 4)
    hue = 1 + 0.12 * _noise(rng, 4)
    lit = 1 + blades
    return np.stack([lit * hue, lit, lit * (2 - hue)], axis=2)


def _gravel(rng: np.random.Generator) -> Array:
    stones = _noise(rng, 48) + 0.8 * _noise(rng, 96)
    return 1 + 0.25 * np.tanh(2 * stones) + 0.08 * _octaves(rng, 2, 4)


def _facade(rng: np.random.Generator) -> Array:
    """Paint three storeys by four windows; the glass is lit, dark or curtained."""
    rows, columns = 3, 4
    picture = np.ones((_SIZE_PX, _SIZE_PX, 3), np.float32)
    picture *= (1 + 0.05 * _octaves(rng, 4, 5))[..., None]
    wide, high = rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.75)
    for row in range(rows):
        for column in range(columns):
            left = int((column + 0.5 - wide / 2) * _SIZE_PX / columns)
            top = int((row + 0.45 - high / 2) * _SIZE_PX / rows)
            right = left + int(wide * _SIZE_PX / columns)
            bottom = top + int(high * _SIZE_PX / rows)
            frame = rng.uniform(0.3, 1.9)
            cv2.rectangle(picture, (left, top), (right, bottom), (frame,) * 3, -1)
            glass = (rng.uniform(0.1, 0.7) if rng.random() < 0.75 else 1.5) * _colored(rng, 0.15)
            middle = (left + right) // 2
            for a, b in ((left + 2, middle - 1), (middle + 1, right - 2)):
                cv2.rectangle(picture, (a, top + 2), (b, bottom - 2), glass.tolist(), -1)
            if rng.random() < 0.3:
                half = int(top + 2 + (bottom - top) * rng.uniform(0.2, 0.7))
                cv2.rectangle(picture, (left + 2, top + 2), (right - 2, half), (1.4,) * 3, -1)
    return picture


def _books(rng: np.random.Generator) -> Array:
    """Paint one row of spines with titles, below a strip of shadow."""
    picture = np.full((_SIZE_PX, _SIZE_PX, 3), 0.25, np.float32)
    left = 0
    while left < _SIZE_PX:
        width = int(rng.integers(8, 26))
        top = int(rng.integers(6, 90))
        color = (_colored(rng, 0.45) * rng.uniform(0.4, 1.5)).tolist()
        cv2.rectangle(picture, (left, top), (left + width - 2, _SIZE_PX), color, -1)
        if rng.random() < 0.7:
            y = int(rng.integers(top + 10, 200))
            title = (rng.uniform(0.2, 2.0),) * 3
            cv2.rectangle(picture, (left + 3, y), (left + width - 5, y + 35), title, -1)
        left += width
    return picture


def _text(rng: np.random.Generator) -> Array:
    """Paint a page or a poster: a heading, lines of words, sometimes a picture."""
    paper, ink = (rng.uniform(1.4, 2.0), rng.uniform(0.0, 0.5))
    if rng.random() < 0.3:
        paper, ink = ink, paper
    picture = np.full((_SIZE_PX, _SIZE_PX, 3), paper, np.float32) * _colored(rng, 0.15)
    y = 14
    while y < 240:
        high = 16 if y < 30 else 5
        x = 14
        while x < 235:
            word = int(rng.integers(8, 42))
            cv2.rectangle(picture, (x, y), (min(x + word, 242), y + high), (ink,) * 3, -1)
            x += word + 7
        y += high + int(rng.integers(6, 14))
        if rng.random() < 0.08:
            y += 30
    if rng.random() < 0.6:
        x, y = rng.integers(14, 120, 2)
        color = _colored(rng, 0.6).tolist()
        cv2.rectangle(picture, (int(x), int(y)), (int(x) + 100, int(y) + 90), color, -1)
    return picture


def _collage(rng: np.random.Generator) -> Array:
    """Paint something like a picture: a gradient, blobs, lines in any colors."""
    x, y = _grid()
    a, b = _colored(rng, 0.5), _colored(rng, 0.5)
    picture = np.ascontiguousarray(y[..., None] * a + (1 - y[..., None]) * b, np.float32)
    for _ in range(int(rng.integers(4, 14))):
        center = tuple(int(value) for value in rng.integers(0, _SIZE_PX, 2))
        axes = tuple(int(value) for value in rng.integers(8, 80, 2))
        color = (_colored(rng, 0.6) * rng.uniform(0.2, 1.6)).tolist()
        if rng.random() < 0.6:
            cv2.ellipse(picture, center, axes, float(rng.uniform(0, 180)), 0, 360, color, -1)
        else:
            corner = (center[0] + axes[0], center[1] + axes[1])
            cv2.rectangle(picture, center, corner, color, -1)
    return picture * (1 + 0.08 * _octaves(rng, 8, 5))[..., None]


def _carton(rng: np.random.Generator) -> Array:
    """Paint cardboard with tape and a label."""
    picture = np.ones((_SIZE_PX, _SIZE_PX, 3), np.float32)
    picture *= (1 + 0.05 * _octaves(rng, 5, 5))[..., None]
    tape = int(rng.integers(90, 150))
    cv2.rectangle(picture, (0, tape), (_SIZE_PX, tape + 18), (1.25, 1.2, 1.1), -1)
    for _ in range(int(rng.integers(1, 4))):
        x, y = (int(value) for value in rng.integers(10, 180, 2))
        size = int(rng.integers(25, 65))
        cv2.rectangle(picture, (x, y), (x + size, y + size * 2 // 3), (1.95, 1.95, 1.9), -1)
        for line in range(y + 6, y + size * 2 // 3 - 4, 8):
            cv2.line(picture, (x + 4, line), (x + size - 6, line), (0.2, 0.2, 0.2), 2)
    return picture


def _panel(rng: np.random.Generator) -> Array:
    """Paint a cabinet front: door seams and handles."""
    picture = 1 + 0.04 * _octaves(rng, 6, 5)
    rows, columns = int(rng.integers(1, 5)), int(rng.integers(1, 3))
    for row in range(rows):
        for column in range(columns):
            left, right = column * 256 // columns, (column + 1) * 256 // columns
            top, bottom = row * 256 // rows, (row + 1) * 256 // rows
            cv2.rectangle(picture, (left, top), (right, bottom), 0.35, 2)
            x, y = (left + right) // 2, top + (bottom - top) // 4
            cv2.rectangle(picture, (x - 14, y), (x + 14, y + 5), float(rng.uniform(0, 2)), -1)
    return np.asarray(picture, np.float32)


def _metal(rng: np.random.Generator) -> Array:
    return 1 + 0.07 * _noise(rng, 3, 128) + 0.10 * _octaves(rng, 2, 4)


_FAMILIES = (
    _Family('plaster', _plaster, 8, 2.5),
    _Family('grain', _grain, 6, 0.5),
    _Family('cloud', _cloud, 6, 1.2),
    _Family('wood', _wood, 8, 0.9),
    _Family('brick', _brick, 5, 1.3, 0.06),
    _Family('tile', _tile, 8, 1.6, 0.35),
    _Family('stripes', _stripes, 5, 1.0, 0.4),
    _Family('corrugated', _corrugated, 4, 1.4, 0.3),
    _Family('weave', _weave, 7, 0.5, 0.3),
    _Family('leaves', _leaves, 6, 1.6, 0.3),
    _Family('grass', _grass, 4, 1.8, 0.3),
    _Family('gravel', _gravel, 5, 0.9, 0.3),
    _Family('facade', _facade, 9, 10.0, 0.12),
    _Family('books', _books, 5, 0.36, 0.1),
    _Family('text', _text, 7, 0.45, 0.3),
    _Family('collage', _collage, 10, 0.7, 0.35),
    _Family('carton', _carton, 5, 0.6, 0.2),
    _Family('panel', _panel, 5, 0.9, 0.2),
    _Family('metal', _metal, 4, 0.8, 0.2),
)
