"""Closed spaces of several parts: rooms with doorways, offices, shops, workshops, stairs."""

from __future__ import annotations

import math

import numpy as np

from depth_node.world import clutter
from depth_node.world import fittings
from depth_node.world import furniture
from depth_node.world import hall_parts
from depth_node.world.builder import Builder
from depth_node.world.builder import Spot
from depth_node.world.hall_parts import Hall
from depth_node.world.scene import Scene


def home(rng: np.random.Generator) -> Scene:
    """Return rooms one behind another, parted by walls with doorways, niches and openings."""
    build = Builder(rng)
    size = (
        float(rng.uniform(6, 13)),
        float(rng.uniform(3.2, 8)),
        float(rng.uniform(2.3, 3.4)),
    )
    hall = Hall(build, size)
    sunny = rng.random() < 0.5
    for number in range(4):
        _along_wall(hall, number, _LIVING)
        _windows(hall, number, sunny)
    x = -size[0] / 2 + float(rng.uniform(2.2, 4.5))
    while x < size[0] / 2 - 2.0:
        _parting_wall(build.spot(x, 0, 0, math.pi / 2), size[1], size[2])
        x += float(rng.uniform(2.5, 5.0))
    for _ in range(int(rng.integers(2, 8))):
        _free(hall, _LIVING)
    if rng.random() < 0.3:
        stairs(build.spot(0, size[1] / 2 - 0.6, 0, float(rng.choice([0.0, math.pi]))), 0.9)
    _overhead(hall)
    return hall_parts.finish('home', hall, sunny)


def office(rng: np.random.Generator) -> Scene:
    """Return an office of desks in rows, screens between them, office chairs, plants."""
    build = Builder(rng)
    size = (float(rng.uniform(6, 18)), float(rng.uniform(5, 11)), float(rng.uniform(2.4, 3.3)))
    hall = Hall(build, size)
    sunny = rng.random() < 0.3
    for number in range(4):
        _windows(hall, number, sunny)
        if rng.random() < 0.5:
            _along_wall(hall, number, (furniture.shelf, furniture.cabinet, fittings.potted_palm))
    pitch = float(rng.uniform(1.5, 2.2))
    screens = rng.random() < 0.4
    for row in range(max(1, int((size[1] - 1.5) // 3.6))):
        y = -size[1] / 2 + 1.8 + row * 3.6
        for k in range(int((size[0] - 2) // pitch)):
            x = -size[0] / 2 + 1.2 + (k + 0.5) * pitch
            if rng.random() < 0.8:
                _double_desk(build.spot(x, y, 0), pitch - 0.15, screens)
    for _ in range(int(rng.integers(0, 5))):
        _free(hall, (furniture.person, fittings.office_chair, fittings.potted_palm))
    hall_parts.lamp_rows(hall, 2, float(rng.uniform(1.8, 3.5)))
    return hall_parts.finish('office', hall, sunny)


def _double_desk(spot: Spot, wide: float, screens: bool) -> None:
    for turn in (0.0, math.pi):
        side = spot.at(0, 0.02, 0, turn)
        top = spot.some('wood' if spot.chance(0.4) else 'paint', 0.1)
        side.box(0, 0.38, 0.71, (wide, 0.75, 0.03), top)
        for x in (-wide / 2 + 0.04, wide / 2 - 0.04):
            side.box(x, 0.38, 0, (0.05, 0.7, 0.71), spot.some('metal', 0.05))
        if spot.chance(0.8):
            clutter.monitor(side.at(spot.uniform(-0.2, 0.2), 0.2, 0.74))
        clutter.scatter_desk(side.at(0, 0.5, 0.74), wide, 0.4, int(spot.rng.integers(0, 4)))
        if spot.chance(0.8):
            fittings.office_chair(
                side.at(spot.uniform(-0.3, 0.3), spot.uniform(0.9, 1.3), 0, spot.uniform(1.5, 4.7))
            )
    if screens:
        spot.box(0, 0, 0.5, (wide, 0.03, spot.uniform(0.6, 1.1)), spot.some('fabric', 0.1))


def shop(rng: np.random.Generator) -> Scene:
    """Return a shop of aisles between shelves full of goods, with a counter and trolleys."""
    build = Builder(rng)
    aisles, aisle = int(rng.integers(2, 6)), float(rng.uniform(1.2, 2.4))
    size = (
        float(rng.uniform(7, 22)),
        aisles * (aisle + 0.9) + float(rng.uniform(0, 2)),
        float(rng.uniform(2.5, 4.5)),
    )
    hall = Hall(build, size)
    high = float(rng.uniform(1.2, 2.2))
    for k in range(aisles + 1):
        y = (k - aisles / 2) * (aisle + 0.9)
        for side in (0.0, math.pi):
            place = build.spot(float(rng.normal(0, 0.6)), y, 0, side)
            if abs(y) + 0.4 < size[1] / 2:
                fittings.gondola(place, (size[0] - 4) * float(rng.uniform(0.6, 1.0)), high)
    for _ in range(int(rng.integers(2, 8))):
        _free(
            hall,
            (furniture.person, fittings.trolley, furniture.box_stack, fittings.a_board),
        )
    hall_parts.lamp_rows(hall, aisles, float(rng.uniform(2, 4)))
    return hall_parts.finish('shop', hall, False)


def workshop(rng: np.random.Generator) -> Scene:
    """Return a workshop: benches, machines, pipes, cables, ladders, drums."""
    build = Builder(rng)
    size = (float(rng.uniform(5, 16)), float(rng.uniform(4, 11)), float(rng.uniform(2.6, 6)))
    hall = Hall(build, size)
    for number in range(4):
        _along_wall(
            hall,
            number,
            (fittings.work_bench, fittings.machine, furniture.shelf, fittings.ladder),
        )
        _windows(hall, number, False)
    for _ in range(int(rng.integers(3, 11))):
        _free(
            hall,
            (
                fittings.machine,
                fittings.work_bench,
                fittings.drum,
                furniture.person,
                fittings.trolley,
                furniture.box_stack,
                fittings.ladder,
            ),
        )
    pipes = build.spot()
    for _ in range(int(rng.integers(0, 8))):
        along = 'x' if pipes.chance(0.6) else 'y'
        spare = size[1 if along == 'x' else 0] - 0.4
        offset = pipes.uniform(-0.5, 0.5) * spare
        x, y = (0.0, offset) if along == 'x' else (offset, 0.0)
        pipes.tube(
            x,
            y,
            size[2] - pipes.uniform(0.15, 0.8),
            pipes.uniform(0.02, 0.2),
            size[0 if along == 'x' else 1],
            pipes.some('metal'),
            along=along,
        )
    for _ in range(int(rng.integers(0, 6))):
        fittings.cable(build.spot(*rng.uniform(-0.4, 0.4, 2) * size[:2]), float(rng.uniform(1, 3)))
    hall_parts.lamp_rows(hall, 1, float(rng.uniform(2, 5)))
    return hall_parts.finish('workshop', hall, False)


def stairwell(rng: np.random.Generator) -> Scene:
    """Return a hall of steps, ramps, landings and railings."""
    build = Builder(rng)
    size = (float(rng.uniform(5, 12)), float(rng.uniform(3, 8)), float(rng.uniform(3, 7)))
    hall = Hall(build, size)
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-0.4, 0.4, 2) * size[:2]
        spot = build.spot(float(x), float(y), 0, float(rng.choice([0, 1, 2, 3])) * math.pi / 2)
        (stairs if rng.random() < 0.7 else ramp)(spot, float(rng.uniform(0.9, 2.0)))
    for number in range(4):
        spot, long = hall.wall(number)
        if spot.chance(0.6):
            hall_parts.door(spot.at(spot.uniform(0.2, 0.8) * long, 0))
        _windows(hall, number, False)
    for _ in range(int(rng.integers(0, 5))):
        _free(hall, (furniture.person, fittings.potted_palm, furniture.bin_))
    hall_parts.lamp_rows(hall, 1, float(rng.uniform(1.5, 3)))
    return hall_parts.finish('stairwell', hall, False)


def stairs(spot: Spot, wide: float) -> None:
    """Add a flight of steps with railings, rising along x, and a landing."""
    steps, rise, tread = int(spot.rng.integers(4, 14)), 0.175, spot.uniform(0.25, 0.32)
    material, edge = spot.some('concrete' if spot.chance(0.5) else 'wood'), spot.some('paint')
    full = spot.chance(0.6)
    for k in range(steps):
        foot = 0.0 if full else k * rise + rise - 0.06
        spot.box(k * tread, 0, foot, (tread, wide, (k + 1) * rise - foot), (material, edge, edge))
    top, far = steps * rise, steps * tread
    landing = spot.uniform(0.9, 2.0)
    spot.box(far + landing / 2 - tread / 2, 0, top - 0.18, (landing, wide, 0.18), material)
    if spot.chance(0.7):
        slope = math.atan2(rise, tread)
        for y in (-wide / 2, wide / 2):
            for k in range(0, steps, 2):
                spot.tube(k * tread, y, (k + 1) * rise, 0.015, 0.9, spot.some('metal', 0.05))
            rail = spot.at(0, y, 0.9 + rise, math.pi / 2).leaned(math.pi / 2 - slope)
            # the rail's z axis now points up the stairs
            rail.tube(0, 0, 0, 0.025, math.hypot(far, top), spot.some('metal', 0.05))


def ramp(spot: Spot, wide: float) -> None:
    """Add a ramp with kerbs, rising along x."""
    long, slope = spot.uniform(2, 5), spot.uniform(0.08, 0.35)
    board = spot.at(0, 0, 0.02, -math.pi / 2).leaned(slope)
    material = spot.some('concrete')
    board.box(0, long / 2, -0.05, (wide, long, 0.08), material)
    for x in (-wide / 2, wide / 2):
        board.box(x, long / 2, 0, (0.08, long, spot.uniform(0.1, 1.0)), spot.some('metal'))


_LIVING = (
    furniture.sofa,
    furniture.table,
    furniture.cabinet,
    furniture.shelf,
    furniture.dining,
    furniture.chair,
    furniture.bed,
    furniture.kitchen,
    furniture.floor_lamp,
    fittings.armchair,
    fittings.armchair,
    fittings.round_table,
    fittings.potted_palm,
    fittings.drawers,
)


def _along_wall(hall: Hall, number: int, things: tuple[fittings.Piece, ...]) -> None:
    spot, long = hall.wall(number)
    x = spot.uniform(0.3, 1.5)
    while x < long - 1.0:
        item = things[int(spot.rng.integers(len(things)))]
        wide, deep = spot.uniform(0.6, 1.9), spot.uniform(0.4, 0.9)
        if spot.chance(0.7) and x + wide < long - 0.3:
            item(spot.at(x + wide / 2, spot.uniform(0.02, 0.1)), wide, deep)
            x += wide
        x += spot.uniform(0.1, 2.0)


def _free(hall: Hall, things: tuple[fittings.Piece, ...]) -> None:
    rng = hall.build.rng
    wide, deep = float(rng.uniform(0.6, 1.7)), float(rng.uniform(0.5, 0.9))
    x, y = rng.uniform(-0.5, 0.5, 2) * (hall.size_m[0] - 1.6, hall.size_m[1] - 1.6)
    if hall.build.claim(x, y, 0.5 * max(wide, deep)):
        item = things[int(rng.integers(len(things)))]
        item(hall.build.spot(x, y, 0, float(rng.uniform(-math.pi, math.pi))), wide, deep)


def _windows(hall: Hall, number: int, sunny: bool) -> None:
    spot, long = hall.wall(number)
    x = spot.uniform(0.4, 1.5)
    while x < long - 0.8:
        kind = spot.rng.random()
        if kind < 0.4:
            x += hall_parts.window(hall, spot, x, long, sunny)
        elif kind < 0.55:
            fittings.curtain(spot.at(x + 0.7, 0.1), spot.uniform(0.8, 2.2), hall.size_m[2] - 0.1)
            x += 1.8
        elif kind < 0.75:
            hall_parts.picture(spot.at(x + 0.3, 0))
        elif kind < 0.85:
            hall_parts.door(spot.at(x + 0.5, 0))
            x += 1.0
        x += spot.uniform(0.4, 2.0)
    if spot.chance(0.5):
        spot.box(long / 2, 0.006, 0, (long, 0.012, spot.uniform(0.06, 0.14)), spot.some('paint'))


def _parting_wall(spot: Spot, long: float, high: float) -> None:
    """Add a wall across with a doorway, an open side or a hatch."""
    wall, thick = spot.some('wall', 0.7), spot.uniform(0.08, 0.25)
    kind, gap = spot.rng.random(), spot.uniform(0.8, 2.2)
    if kind < 0.2:  # a short wall: the room becomes an L
        part = long * spot.uniform(0.3, 0.65)
        side = 1 if spot.chance(0.5) else -1
        spot.box(side * (long - part) / 2, 0, 0, (part, thick, high), wall)
        return
    at = spot.uniform(-0.35, 0.35) * (long - gap)
    for low, far in ((-long / 2, at - gap / 2), (at + gap / 2, long / 2)):
        if far - low > 0.05:
            spot.box((low + far) / 2, 0, 0, (far - low, thick, high), wall)
    top = min(spot.uniform(2.0, 2.3), high - 0.05)
    spot.box(at, 0, top, (gap, thick, high - top), wall)
    if kind < 0.4:
        spot.box(at, 0, 0, (gap, thick, spot.uniform(0.8, 1.1)), wall)
    elif spot.chance(0.5):
        frame = spot.some('paint')
        for x in (at - gap / 2, at + gap / 2):
            spot.box(x, 0, 0, (0.06, thick + 0.04, top), frame)


def _overhead(hall: Hall) -> None:
    spot, top = hall.build.spot(), hall.size_m[2]
    if spot.chance(0.5):
        hall_parts.lamp_rows(hall, 1, spot.uniform(1.5, 3))
    for _ in range(int(spot.rng.integers(0, 4))):
        x, y = spot.rng.uniform(-0.4, 0.4, 2) * hall.size_m[:2]
        drop = spot.uniform(0.2, 0.9)
        spot.tube(x, y, top - drop, 0.008, drop, spot.some('rubber'))
        radius = spot.uniform(0.1, 0.25)
        shade = spot.new('plastic', glow=float(spot.rng.choice([0.0, 1.0, 3.0])))
        spot.ball(x, y, top - drop - radius * 0.7, (radius, radius, radius * 0.8), shade)
