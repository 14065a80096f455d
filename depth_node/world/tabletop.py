"""One object or a few on a table, a floor or a plinth before a plain background, from near."""

from __future__ import annotations

import math

import numpy as np

from depth_node.world import clutter
from depth_node.world import light
from depth_node.world.builder import Builder
from depth_node.world.builder import Spot
from depth_node.world.furniture import table
from depth_node.world.scene import Scene
from depth_node.world.scene import cover_view
from depth_node.world.solids import Shell


def tabletop(rng: np.random.Generator) -> Scene:
    """Return a scan of things: mostly one in the middle, of 0.05 to 0.6 m, little around."""
    build = Builder(rng)
    high = float(rng.uniform(0.0, 0.03) if rng.random() < 0.3 else rng.uniform(0.4, 1.0))
    wide, deep = float(rng.uniform(0.6, 2.2)), float(rng.uniform(0.5, 1.2))
    spot = build.spot(0, 0, 0, float(rng.uniform(-math.pi, math.pi)))
    top = spot.new(('paint', 'wood', 'fabric', 'floor', 'metal')[int(rng.integers(5))])
    if high > 0.3:
        spot.box(0, 0, high - 0.04, (wide, deep, 0.04), top)
        for x in (-wide / 2 + 0.05, wide / 2 - 0.05):
            for y in (-deep / 2 + 0.05, deep / 2 - 0.05):
                spot.box(x, y, 0, (0.06, 0.06, high - 0.04), spot.some('metal', 0.1))
    else:
        spot.box(0, 0, 0, (wide, deep, max(high, 0.004)), top)
    place = spot.at(0, 0, max(high, 0.004))
    _subject(place)
    if place.chance(0.6):
        _ring(place, wide, deep)
    if place.chance(0.5):
        _background(place)
    half = rng.uniform(1.2, 4.0, 2)
    low, far = np.array([-half[0], -half[1], 0.0]), np.array([half[0], half[1], 2.6])
    palette = build.palette
    walls = [palette.some('wall', 0.4) for _ in range(4)]
    material = np.array(
        [walls[:2], walls[2:], [palette.new('floor'), palette.new('ceiling')]], np.intp
    )
    solids = build.solids()
    middle = np.array([0.0, 0.0, high + 0.12])
    strength = float(rng.uniform(0.3, 1.6))
    position = np.array([*rng.uniform(-0.9, 0.9, 2) * half, rng.uniform(high + 0.6, 2.5)])
    return Scene(
        'tabletop',
        solids,
        Shell(low, far, material),
        palette.table(),
        light.lamp(rng, solids, position, middle, 1.2, strength),
        light.indoor_surroundings(rng, strength),
        cover_view(solids, np.zeros(3), 2.0),
        middle,
        low[:2] + 0.2,
        far[:2] - 0.2,
    )


def _subject(spot: Spot) -> None:
    kind = spot.rng.random()
    if kind < 0.3:
        open_box(spot)
    elif kind < 0.5:
        heap(spot)
    elif kind < 0.65:
        for _ in range(int(spot.rng.integers(1, 4))):
            size = spot.uniform(1.0, 2.0)
            vase(spot.at(spot.uniform(-0.15, 0.15), spot.uniform(-0.15, 0.15)), size)
    elif kind < 0.75:
        blob(spot, spot.uniform(0.08, 0.2))
    else:
        clutter.scatter(spot, 0.6, 0.5, int(spot.rng.integers(3, 14)))


def _ring(spot: Spot, wide: float, deep: float) -> None:
    """Put small things near the edges, where they do not hide the middle."""
    for _ in range(int(spot.rng.integers(1, 9))):
        angle = spot.uniform(-math.pi, math.pi)
        x, y = 0.42 * wide * math.cos(angle), 0.42 * deep * math.sin(angle)
        clutter.scatter(spot.at(x, y, 0, angle), 0.2, 0.2, 1)


def _background(spot: Spot) -> None:
    """Put a second table, a screen or cloth behind."""
    behind = spot.at(0, 0, 0, spot.uniform(-math.pi, math.pi)).at(0, spot.uniform(0.6, 1.4))
    kind = spot.rng.random()
    floor = behind.at(0, 0, -behind.origin[2])
    if kind < 0.4:
        folds(floor, spot.uniform(0.8, 2.5), spot.uniform(1.2, 2.4))
    elif kind < 0.7:
        table(floor, spot.uniform(0.8, 1.8), spot.uniform(0.5, 0.9))
    else:
        size = (spot.uniform(0.5, 1.6), 0.04, spot.uniform(0.5, 1.8))
        floor.box(0, 0, 0, size, spot.new('paint'))


def open_box(spot: Spot) -> None:
    """Add a box without a side or without a lid, upright or fallen, with things in it."""
    wide, deep, high = spot.uniform(0.25, 0.6), spot.uniform(0.2, 0.45), spot.uniform(0.2, 0.5)
    outer = spot.new('carton' if spot.chance(0.6) else 'plastic')
    inner = spot.new('paint', value=spot.uniform(0.01, 0.6))
    wall = spot.uniform(0.004, 0.02)
    spot.box(0, 0, 0, (wide, deep, wall), (outer, outer, inner))
    for x in (-wide / 2, wide / 2):
        spot.box(x, 0, 0, (wall, deep, high), (inner if spot.chance(0.5) else outer, outer, outer))
    spot.box(0, -deep / 2, 0, (wide, wall, high), (outer, inner, outer))
    if spot.chance(0.6):
        spot.box(0, 0, high, (wide, deep, wall), outer)
        lip = high * spot.uniform(0.05, 0.35)
    else:
        lip = high
    spot.box(0, deep / 2, 0, (wide, wall, lip), (outer, outer, outer))
    if spot.chance(0.4):
        spot.at(0, deep / 2, lip).leaned(spot.uniform(-2.6, -0.4)).box(
            0, 0, 0, (wide, wall, min(high, deep) * 0.5), outer
        )
    clutter.scatter(spot.at(0, 0, wall), wide * 0.95, deep * 0.95, int(spot.rng.integers(2, 9)))


def heap(spot: Spot) -> None:
    """Add a heap of shapes in every attitude."""
    reach = spot.uniform(0.08, 0.3)
    for _ in range(int(spot.rng.integers(4, 22))):
        x, y = spot.rng.normal(0, reach, 2)
        rise = spot.uniform(0, 1.2) * max(reach - 0.5 * math.hypot(x, y), 0.02)
        place = spot.at(x, y, rise, spot.uniform(-3, 3)).leaned(
            spot.uniform(-0.8, 0.8) * spot.chance(0.6)
        )
        look = ('plastic', 'goods', 'fabric', 'paint', 'metal', 'wood')[int(spot.rng.integers(6))]
        a, b, c = (spot.uniform(0.2, 1.0) * reach * 0.7 for _ in range(3))
        kind = spot.rng.random()
        if kind < 0.35:
            place.box(0, 0, 0, (a, b, c), spot.some(look, 0.7))
        elif kind < 0.65:
            place.tube(0, 0, 0, a / 2, c, spot.some(look, 0.7), spot.uniform(0.1, 1.4))
        else:
            place.ball(0, 0, c / 2, (a / 2, b / 2, c / 2), spot.some(look, 0.7))


def vase(spot: Spot, size: float = 1.0) -> None:
    """Add a turned thing: stacked slices of a varying radius; a vase, a bottle, a glass."""
    slices = int(spot.rng.integers(4, 9))
    radius, z = spot.uniform(0.02, 0.05) * size, 0.0
    material = spot.new(('plastic', 'glass', 'metal', 'paint')[int(spot.rng.integers(4))])
    for _ in range(slices):
        long = spot.uniform(0.012, 0.045) * size
        taper = float(np.clip(math.exp(spot.rng.normal(0, 0.35)), 0.4, 1.9))
        if not 0.008 * size < radius * taper < 0.09 * size:
            taper = 1 / taper
        spot.tube(0, 0, z, radius, long, material, taper)
        radius, z = radius * taper, z + long


def blob(spot: Spot, size: float) -> None:
    """Add a soft thing of many round parts: a toy, a plant, a cloth that was dropped."""
    look = ('fabric', 'leaves', 'plastic', 'paint')[int(spot.rng.integers(4))]
    material = spot.new(look)
    for _ in range(int(spot.rng.integers(5, 16))):
        x, y = spot.rng.normal(0, 0.45 * size, 2)
        radii = (
            size * spot.uniform(0.15, 0.6),
            size * spot.uniform(0.15, 0.6),
            size * spot.uniform(0.15, 0.6),
        )
        fresh = material if spot.chance(0.75) else spot.some(look, 0.5)
        spot.ball(x, y, size * spot.uniform(0.1, 1.1), radii, fresh)


def folds(spot: Spot, wide: float, high: float) -> None:
    """Add hanging cloth: upright folds side by side."""
    cloth = spot.new('fabric', value=spot.uniform(0.5, 0.97) if spot.chance(0.5) else None)
    radius = spot.uniform(0.025, 0.08)
    count = max(3, min(24, int(wide / (1.5 * radius))))
    for k in range(count):
        x = ((k + 0.5) / count - 0.5) * wide
        spot.tube(x, spot.uniform(-0.4, 0.4) * radius, 0.01, radius, high, cloth)
