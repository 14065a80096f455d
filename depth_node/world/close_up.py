"""Table tops seen from near: what arms and small robots look at."""

from __future__ import annotations

import math

import numpy as np

from depth_node.world import clutter
from depth_node.world import furniture
from depth_node.world import light
from depth_node.world.builder import Builder
from depth_node.world.scene import Scene
from depth_node.world.scene import cover_view
from depth_node.world.solids import Floats
from depth_node.world.solids import Shell


def table_top(rng: np.random.Generator) -> Scene:
    """Return a table full of things in a room; its middle is the scene's centre."""
    build = Builder(rng)
    half = rng.uniform(1.6, 3.5, 2)
    high = float(rng.uniform(0.0, 0.15) if rng.random() < 0.2 else rng.uniform(0.65, 1.0))
    spot = build.spot(0, 0, 0, float(rng.uniform(-math.pi, math.pi)))
    wide, deep = float(rng.uniform(0.8, 2.0)), float(rng.uniform(0.6, 1.2))
    top = spot.some('wood' if spot.chance(0.5) else 'floor')
    if high > 0.3:
        spot.box(0, 0, high - 0.04, (wide, deep, 0.04), top)
        for x in (-wide / 2 + 0.05, wide / 2 - 0.05):
            for y in (-deep / 2 + 0.05, deep / 2 - 0.05):
                spot.box(x, y, 0, (0.06, 0.06, high - 0.04), spot.some('metal', 0.1))
    else:
        spot.box(0, 0, 0, (wide, deep, high + 0.01), top)
    place = spot.at(0, 0, max(high, 0.01))
    clutter.scatter(place, wide, deep, int(rng.integers(6, 34)))
    clutter.scatter_desk(place, wide, deep, int(rng.integers(0, 3)))
    _background(build, half)
    low, far = np.array([-half[0], -half[1], 0.0]), np.array([half[0], half[1], 2.6])
    palette = build.palette
    walls = [palette.some('wall' if rng.random() < 0.5 else 'wallpaper', 0.5) for _ in range(4)]
    floor = palette.new('floor')
    material = np.array([walls[:2], walls[2:], [floor, palette.new('ceiling')]], np.intp)
    solids = build.solids()
    strength = float(rng.uniform(0.3, 1.4))
    position = np.array([*rng.uniform(-0.7, 0.7, 2) * half, rng.uniform(1.7, 2.4)])
    return Scene(
        'closeup',
        solids,
        Shell(low, far, material),
        palette.table(),
        light.lamp(rng, solids, position, np.array([0.0, 0.0, high]), 1.3, strength),
        light.indoor_surroundings(rng, strength),
        cover_view(solids, np.zeros(3), 2.5),
        np.array([0.0, 0.0, high]),
        low[:2] + 0.2,
        far[:2] - 0.2,
    )


def _background(build: Builder, half: Floats) -> None:
    """Put something between the table and the walls."""
    rng = build.rng
    things = (
        furniture.shelf,
        furniture.cabinet,
        furniture.chair,
        furniture.person,
        furniture.sofa,
    )
    for number in range(4):
        if rng.random() < 0.7:
            yaw = number * math.pi / 2
            gap = float(half[1 - number % 2]) - 0.03
            x, y = (math.sin(yaw) * gap, -math.cos(yaw) * gap)
            item = things[int(rng.integers(len(things)))]
            item(build.spot(x, y, 0, yaw), float(rng.uniform(0.7, 1.5)), 0.4)
