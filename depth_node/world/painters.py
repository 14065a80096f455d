"""Painters of procedural textures: (256, 256) or (256, 256, 3) modulations around 1 that wrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE_PX = 256

Array = NDArray[np.float32]
Painter = Callable[[np.random.Generator], Array]


@dataclass(frozen=True)
class Family:
    """Textures of one kind."""

    name: str
    """By which materials ask for it."""
    paint: Painter
    """Makes a texture."""
    count: int
    """How many are made."""
    period_m: float
    """Metres of surface that a texture covers."""
    period_spread: float = 0.15
    """Deviation of the logarithm of the period."""


def _grid() -> tuple[Array, Array]:
    axis = (np.arange(SIZE_PX, dtype=np.float32) + np.float32(0.5)) / np.float32(SIZE_PX)
    return np.meshgrid(axis, axis)


def _noise(rng: np.random.Generator, cells_x: int, cells_y: int | None = None) -> Array:
    """Return smooth periodic noise of mean 0 and deviation of about 1."""
    cells_y = cells_x if cells_y is None else cells_y
    seeds = rng.normal(size=(cells_y, cells_x)).astype(np.float32)
    pad = 3
    wrapped = np.pad(seeds, pad, mode='wrap')
    fx, fy = SIZE_PX / cells_x, SIZE_PX / cells_y
    shape = (round(wrapped.shape[1] * fx), round(wrapped.shape[0] * fy))
    wide = np.asarray(cv2.resize(wrapped, shape, interpolation=cv2.INTER_CUBIC))
    left, top = round(pad * fx), round(pad * fy)
    return np.asarray(wide[top : top + SIZE_PX, left : left + SIZE_PX], np.float32)


def _octaves(rng: np.random.Generator, first: int, levels: int, fade: float = 0.6) -> Array:
    total = np.zeros((SIZE_PX, SIZE_PX), np.float32)
    for level in range(levels):
        cells = min(first << level, SIZE_PX)
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
    board = np.where(gap, 0.45, 1 + shade + grain)[..., None]
    return np.asarray(board * np.array([1.0, 0.99, 0.97]), np.float32)


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
    band = (base + 0.04 * _octaves(rng, 32, 3))[..., None]
    return np.asarray(band * _colored(rng, 0.1), np.float32)


def _corrugated(rng: np.random.Generator) -> Array:
    x, y = _grid()
    waves = int(rng.integers(8, 28))
    along = x if rng.random() < 0.5 else y
    ridge = np.sin(2 * np.pi * waves * along).astype(np.float32)
    return np.asarray(1 + 0.22 * ridge + 0.07 * _octaves(rng, 3, 5), np.float32)


def _weave(rng: np.random.Generator) -> Array:
    x, y = _grid()
    threads = int(rng.integers(20, 60))
    pattern = np.sin(2 * np.pi * threads * x) * np.sin(2 * np.pi * threads * y)
    motif = 0.25 * np.sign(_noise(rng, int(rng.integers(3, 9)))) * (rng.random() < 0.5)
    cloth = (1 + 0.12 * pattern + motif + 0.05 * _octaves(rng, 8, 4))[..., None]
    return np.asarray(cloth * _colored(rng, 0.1), np.float32)


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
    rough = 0.25 * np.tanh(2 * stones)
    return np.asarray(1 + rough + 0.08 * _octaves(rng, 2, 4), np.float32)


def _facade(rng: np.random.Generator) -> Array:
    """Paint three storeys by four windows; the glass is lit, dark or curtained."""
    rows, columns = 3, 4
    picture = np.ones((SIZE_PX, SIZE_PX, 3), np.float32)
    picture *= (1 + 0.05 * _octaves(rng, 4, 5))[..., None]
    wide, high = rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.75)
    for row in range(rows):
        for column in range(columns):
            left = int((column + 0.5 - wide / 2) * SIZE_PX / columns)
            top = int((row + 0.45 - high / 2) * SIZE_PX / rows)
            right = left + int(wide * SIZE_PX / columns)
            bottom = top + int(high * SIZE_PX / rows)
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
    picture = np.full((SIZE_PX, SIZE_PX, 3), 0.25, np.float32)
    left = 0
    while left < SIZE_PX:
        width = int(rng.integers(8, 26))
        top = int(rng.integers(6, 90))
        color = (_colored(rng, 0.45) * rng.uniform(0.4, 1.5)).tolist()
        cv2.rectangle(picture, (left, top), (left + width - 2, SIZE_PX), color, -1)
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
    picture = np.full((SIZE_PX, SIZE_PX, 3), paper, np.float32) * _colored(rng, 0.15)
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
    y = _grid()[1]
    a, b = _colored(rng, 0.5), _colored(rng, 0.5)
    picture = np.ascontiguousarray(y[..., None] * a + (1 - y[..., None]) * b, np.float32)
    for _ in range(int(rng.integers(4, 14))):
        center = tuple(int(value) for value in rng.integers(0, SIZE_PX, 2))
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
    picture = np.ones((SIZE_PX, SIZE_PX, 3), np.float32)
    picture *= (1 + 0.05 * _octaves(rng, 5, 5))[..., None]
    tape = int(rng.integers(90, 150))
    cv2.rectangle(picture, (0, tape), (SIZE_PX, tape + 18), (1.25, 1.2, 1.1), -1)
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


FAMILIES = (
    Family('plaster', _plaster, 8, 2.5),
    Family('grain', _grain, 6, 0.5),
    Family('cloud', _cloud, 6, 1.2),
    Family('wood', _wood, 8, 0.9),
    Family('brick', _brick, 5, 1.3, 0.06),
    Family('tile', _tile, 8, 1.6, 0.35),
    Family('stripes', _stripes, 5, 1.0, 0.4),
    Family('corrugated', _corrugated, 4, 1.4, 0.3),
    Family('weave', _weave, 7, 0.5, 0.3),
    Family('leaves', _leaves, 6, 1.6, 0.3),
    Family('grass', _grass, 4, 1.8, 0.3),
    Family('gravel', _gravel, 5, 0.9, 0.3),
    Family('facade', _facade, 9, 10.0, 0.12),
    Family('books', _books, 5, 0.36, 0.1),
    Family('text', _text, 7, 0.45, 0.3),
    Family('collage', _collage, 10, 0.7, 0.35),
    Family('carton', _carton, 5, 0.6, 0.2),
    Family('panel', _panel, 5, 0.9, 0.2),
    Family('metal', _metal, 4, 0.8, 0.2),
)
