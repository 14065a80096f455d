"""Rooms, corridors and halls."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from depth_node.world import clutter
from depth_node.world import furniture
from depth_node.world import hall_parts
from depth_node.world import outdoors
from depth_node.world import vehicles
from depth_node.world.builder import Builder
from depth_node.world.builder import Spot
from depth_node.world.hall_parts import Hall
from depth_node.world.scene import Scene

Range = tuple[float, float]
Item = tuple[Callable[[Spot, float, float], None], Range, Range]
"""What builds it, and the ranges of its width and depth in metres."""

_ALONG_WALLS: tuple[Item, ...] = (
    (furniture.table, (0.9, 1.8), (0.5, 0.9)),
    (furniture.desk_place, (1.2, 1.8), (0.6, 0.8)),
    (furniture.cabinet, (0.6, 1.8), (0.4, 0.65)),
    (furniture.cabinet, (0.6, 1.8), (0.4, 0.65)),
    (furniture.shelf, (0.6, 1.6), (0.25, 0.4)),
    (furniture.shelf, (0.6, 1.6), (0.25, 0.4)),
    (furniture.sofa, (0.9, 2.2), (0.8, 1.0)),
    (furniture.bed, (0.9, 1.8), (1.9, 2.1)),
    (furniture.kitchen, (1.2, 3.0), (0.6, 0.65)),
    (furniture.chair, (0.42, 0.5), (0.44, 0.5)),
    (furniture.floor_lamp, (0.4, 0.4), (0.4, 0.4)),
    (furniture.big_plant, (0.6, 0.6), (0.6, 0.6)),
    (furniture.box_stack, (0.4, 0.8), (0.4, 0.6)),
    (furniture.bin_, (0.35, 0.35), (0.35, 0.35)),
)
_FREE_STANDING: tuple[Item, ...] = (
    (furniture.dining, (1.2, 2.0), (0.8, 1.0)),
    (furniture.table, (0.8, 1.6), (0.5, 0.9)),
    (furniture.sofa, (0.9, 2.0), (0.8, 1.0)),
    (furniture.chair, (0.42, 0.5), (0.44, 0.5)),
    (furniture.chair, (0.42, 0.5), (0.44, 0.5)),
    (furniture.person, (0.6, 0.6), (0.5, 0.5)),
    (furniture.box_stack, (0.4, 0.7), (0.4, 0.6)),
    (furniture.desk_place, (1.2, 1.8), (0.6, 0.8)),
)


def room(rng: np.random.Generator) -> Scene:
    """Return a furnished room of 3 to 9 m."""
    build = Builder(rng)
    size = (
        float(rng.uniform(3.0, 9.0)),
        float(rng.uniform(3.0, 7.5)),
        float(rng.uniform(2.3, 3.3)),
    )
    hall = Hall(build, size)
    sunny = rng.random() < 0.35
    for number in range(4):
        _furnish_wall(hall, number)
        _hang_on_wall(hall, number, sunny)
    if rng.random() < 0.25:
        _partition(hall)
    for _ in range(int(size[0] * size[1] * rng.uniform(0.0, 0.22))):
        _stand_free(hall, _FREE_STANDING)
    _litter(hall, int(rng.integers(0, 7)))
    if rng.random() < 0.5:
        rug = build.spot(
            float(rng.normal(0, 0.5)), float(rng.normal(0, 0.5)), 0, float(rng.normal(0, 0.2))
        )
        rug.box(0, 0, 0, (rng.uniform(1.2, 2.6), rng.uniform(0.9, 1.8), 0.012), rug.new('fabric'))
    _ceiling(hall)
    return hall_parts.finish('room', hall, sunny)


def corridor(rng: np.random.Generator) -> Scene:
    """Return a corridor of 8 to 35 m with doors, lamps, cupboards and people."""
    build = Builder(rng)
    size = (float(rng.uniform(8, 35)), float(rng.uniform(1.5, 3.2)), float(rng.uniform(2.3, 3.2)))
    hall = Hall(build, size)
    for number in (0, 2):
        spot, long = hall.wall(number)
        x = spot.uniform(0.8, 2.5)
        while x < long - 1:
            _corridor_thing(spot.at(x, 0), size[1])
            x += spot.uniform(1.4, 4.0)
        if spot.chance(0.5):
            spot.box(long / 2, 0.01, 0, (long, 0.02, spot.uniform(0.1, 1.1)), spot.some('paint'))
    for number in (1, 3):
        spot, long = hall.wall(number)
        hall_parts.door(spot.at(long / 2, 0))
    for _ in range(int(rng.integers(0, 4))):
        _stand_free(
            hall,
            (
                (furniture.person, (0.5, 0.5), (0.4, 0.4)),
                (furniture.box_stack, (0.4, 0.6), (0.4, 0.5)),
            ),
        )
    pipes = build.spot()
    for _ in range(int(rng.integers(0, 4))):
        y = pipes.uniform(-0.5, 0.5) * (size[1] - 0.3)
        pipes.tube(
            0, y, size[2] - 0.15, pipes.uniform(0.02, 0.1), size[0], pipes.some('metal'), along='x'
        )
    hall_parts.lamp_rows(hall, 1, rng.uniform(2, 5))
    return hall_parts.finish('corridor', hall, False)


def warehouse(rng: np.random.Generator) -> Scene:
    """Return a hall with rows of pallet racks, pallets, drums, columns and trucks."""
    build = Builder(rng)
    aisles = int(rng.integers(1, 4))
    aisle = float(rng.uniform(2.2, 4.2))
    long = float(rng.uniform(14, 40))
    size = (long, aisles * (aisle + 2.1) + float(rng.uniform(1, 5)), float(rng.uniform(4.5, 9)))
    hall = Hall(build, size)
    bays = min(int(rng.integers(2, 6)), int((long - 5) // 2.7))
    for k in range(aisles + 1):
        y = (k - aisles / 2) * (aisle + 2.1)
        for side in (0, 1):
            if abs(y) + 1.05 < size[1] / 2 and rng.random() < 0.85:
                shift = float(rng.uniform(-1, 1) * (long - bays * 2.7 - 4) / 2)
                outdoors.rack(build.spot(shift, y, 0, side * math.pi), bays)
    for _ in range(int(rng.integers(4, 14))):
        x, y = rng.uniform(-0.5, 0.5, 2) * (size[0] - 2, size[1] - 2)
        _hall_thing(build.spot(x, y, 0, float(rng.choice([0, math.pi / 2]) + rng.normal(0, 0.1))))
    steel = build.spot()
    for k in range(int(long // 5)):
        steel.box(
            k * 5 - long / 2 + 2.5,
            0,
            size[2] - 0.5,
            (0.25, size[1], 0.4),
            steel.some('metal', 0.0),
        )
    for number in range(4):
        spot, length = hall.wall(number)
        if spot.chance(0.6):
            spot.box(
                spot.uniform(0.25, 0.75) * length,
                0.05,
                0,
                (3.5, 0.1, 3.8),
                spot.some('sheet', 0.5),
            )
    hall_parts.lamp_rows(hall, aisles, rng.uniform(3, 7))
    return hall_parts.finish('warehouse', hall, False)


def _hall_thing(spot: Spot) -> None:
    kind = spot.rng.random()
    if kind < 0.45:
        outdoors.pallet(spot)
    elif kind < 0.55:
        vehicles.forklift(spot)
    elif kind < 0.68:
        furniture.person(spot)
    elif kind < 0.8:
        spot.tube(0, 0, 0, 0.29, 0.88, spot.some('plastic'))
    elif kind < 0.9:
        furniture.box_stack(spot, 1.0, 0.8)
    else:
        outdoors.bollards(spot)


def _furnish_wall(hall: Hall, number: int) -> None:
    spot, long = hall.wall(number)
    x = spot.uniform(0.3, 1.2)
    while x < long - 0.9:
        item, wides, deeps = _ALONG_WALLS[int(spot.rng.integers(len(_ALONG_WALLS)))]
        wide, deep = spot.uniform(*wides), spot.uniform(*deeps)
        if spot.chance(0.72) and x + wide < long - 0.3 and deep < hall.size_m[1 - number % 2] / 3:
            item(spot.at(x + wide / 2, spot.uniform(0.02, 0.06)), wide, deep)
            x += wide
        x += spot.uniform(0.05, 1.2)


def _hang_on_wall(hall: Hall, number: int, sunny: bool) -> None:
    spot, long = hall.wall(number)
    x = spot.uniform(0.4, 1.2)
    while x < long - 0.6:
        kind = spot.rng.random()
        if kind < 0.2:
            hall_parts.door(spot.at(x + 0.3, 0))
            x += 1.0
        elif kind < 0.45:
            x += hall_parts.window(hall, spot, x, long, sunny)
        elif kind < 0.75:
            hall_parts.picture(spot.at(x + 0.2, 0))
            x += 0.5
        elif kind < 0.85:
            hall_parts.wall_shelf(spot.at(x + 0.3, 0))
            x += 0.6
        x += spot.uniform(0.3, 1.6)
    if spot.chance(0.6):
        spot.box(long / 2, 0.006, 0, (long, 0.012, 0.08), spot.some('paint'))


def _corridor_thing(spot: Spot, across: float) -> None:
    kind = spot.rng.random()
    if kind < 0.55:
        hall_parts.door(spot)
    elif kind < 0.75:
        hall_parts.picture(spot)
    elif across < 1.8 or kind < 0.8:
        spot.tube(0, 0.12, 0.6, 0.08, 0.5, spot.some('sign'))
    elif kind < 0.88:
        furniture.cabinet(spot, spot.uniform(0.5, 1.2), 0.4)
    elif kind < 0.94:
        furniture.chair(spot)
    else:
        furniture.big_plant(spot)


def _partition(hall: Hall) -> None:
    """Add a wall that reaches into the room, or a column."""
    spot, long = hall.wall(int(hall.build.rng.integers(4)))
    material, high = spot.new('wall'), hall.size_m[2]
    x = spot.uniform(0.25, 0.75) * long
    if spot.chance(0.3):
        spot.box(x, 0.2, 0, (0.4, 0.4, high), material)
    else:
        spot.box(x, 0.6, 0, (0.12, spot.uniform(0.8, 1.4), high), material)


def _stand_free(hall: Hall, things: tuple[Item, ...]) -> None:
    rng = hall.build.rng
    item, wides, deeps = things[int(rng.integers(len(things)))]
    wide, deep = float(rng.uniform(*wides)), float(rng.uniform(*deeps))
    margin = min(1.2, hall.size_m[1] / 3)
    x, y = rng.uniform(-0.5, 0.5, 2) * (hall.size_m[0] - 2 * margin, hall.size_m[1] - 2 * margin)
    if hall.build.claim(x, y, 0.5 * max(wide, deep)):
        item(hall.build.spot(x, y, 0, float(rng.uniform(-math.pi, math.pi))), wide, deep)


def _litter(hall: Hall, count: int) -> None:
    """Put small things on the floor."""
    spot = hall.build.spot()
    clutter.scatter(spot, hall.size_m[0] - 1, hall.size_m[1] - 1, count)


def _ceiling(hall: Hall) -> None:
    spot, top = hall.build.spot(), hall.size_m[2]
    kind = spot.rng.random()
    glow = float(spot.rng.choice([0.0, 1.0, 3.0]))
    if kind < 0.4:
        hall_parts.lamp_rows(hall, int(spot.rng.integers(1, 3)), spot.uniform(1.5, 3))
    elif kind < 0.7:
        drop = spot.uniform(0.3, 0.8)
        spot.tube(0, 0, top - drop, 0.008, drop, spot.some('rubber'))
        spot.tube(0, 0, top - drop - 0.2, 0.22, 0.22, spot.new('fabric', glow=glow), 0.4)
    elif kind < 0.85:
        for k in range(int(hall.size_m[0] / 1.2)):
            spot.box(
                (k + 0.5) * 1.2 - hall.size_m[0] / 2,
                0,
                top - 0.18,
                (0.14, hall.size_m[1], 0.18),
                spot.some('wood', 0.0),
            )
