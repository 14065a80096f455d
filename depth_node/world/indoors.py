"""Rooms, corridors and halls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import field

import numpy as np

from depth_node.world import clutter
from depth_node.world import furniture
from depth_node.world import light
from depth_node.world import outdoors
from depth_node.world.builder import Builder
from depth_node.world.builder import Spot
from depth_node.world.scene import Scene
from depth_node.world.scene import cover_view
from depth_node.world.solids import Floats
from depth_node.world.solids import Shell


@dataclass
class _Hall:
    """A closed space while it is being furnished."""

    build: Builder
    size_m: tuple[float, float, float]
    openings_m: list[Floats] = field(default_factory=list)

    @property
    def low_m(self) -> Floats:
        return np.array([-self.size_m[0] / 2, -self.size_m[1] / 2, 0.0])

    @property
    def high_m(self) -> Floats:
        return np.array([self.size_m[0] / 2, self.size_m[1] / 2, self.size_m[2]])

    def wall(self, number: int) -> tuple[Spot, float]:
        """Return a frame at the left end of a wall (x along it, y inward) and its length."""
        half_x, half_y = self.size_m[0] / 2, self.size_m[1] / 2
        corners = ((-half_x, -half_y), (half_x, -half_y), (half_x, half_y), (-half_x, half_y))
        x, y = corners[number]
        return self.build.spot(x, y, 0, number * math.pi / 2), self.size_m[number % 2]


_ALONG_WALLS = (
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
_FREE_STANDING = (
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
    hall = _Hall(build, size)
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
    return _finish('room', hall, sunny)


def corridor(rng: np.random.Generator) -> Scene:
    """Return a corridor of 8 to 35 m with doors, lamps, cupboards and people."""
    build = Builder(rng)
    size = (float(rng.uniform(8, 35)), float(rng.uniform(1.5, 3.2)), float(rng.uniform(2.3, 3.2)))
    hall = _Hall(build, size)
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
        _door(spot.at(long / 2, 0))
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
    _lamp_rows(hall, 1, rng.uniform(2, 5))
    return _finish('corridor', hall, False)


def warehouse(rng: np.random.Generator) -> Scene:
    """Return a hall with rows of pallet racks, pallets, drums, columns and trucks."""
    build = Builder(rng)
    aisles = int(rng.integers(1, 4))
    aisle = float(rng.uniform(2.2, 4.2))
    long = float(rng.uniform(14, 40))
    size = (long, aisles * (aisle + 2.1) + float(rng.uniform(1, 5)), float(rng.uniform(4.5, 9)))
    hall = _Hall(build, size)
    bays = int(min(rng.integers(2, 6), (long - 5) // 2.7))
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
    _lamp_rows(hall, aisles, rng.uniform(3, 7))
    return _finish('warehouse', hall, False)


def _hall_thing(spot: Spot) -> None:
    kind = spot.rng.random()
    if kind < 0.45:
        outdoors.pallet(spot)
    elif kind < 0.55:
        outdoors.forklift(spot)
    elif kind < 0.68:
        furniture.person(spot)
    elif kind < 0.8:
        spot.tube(0, 0, 0, 0.29, 0.88, spot.some('plastic'))
    elif kind < 0.9:
        furniture.box_stack(spot, 1.0, 0.8)
    else:
        outdoors.bollards(spot)


def _furnish_wall(hall: _Hall, number: int) -> None:
    spot, long = hall.wall(number)
    x = spot.uniform(0.3, 1.2)
    while x < long - 0.9:
        item, wides, deeps = _ALONG_WALLS[int(spot.rng.integers(len(_ALONG_WALLS)))]
        wide, deep = spot.uniform(*wides), spot.uniform(*deeps)
        if spot.chance(0.72) and x + wide < long - 0.3 and deep < hall.size_m[1 - number % 2] / 3:
            item(spot.at(x + wide / 2, spot.uniform(0.02, 0.06)), wide, deep)
            x += wide
        x += spot.uniform(0.05, 1.2)


def _hang_on_wall(hall: _Hall, number: int, sunny: bool) -> None:
    spot, long = hall.wall(number)
    x = spot.uniform(0.4, 1.2)
    while x < long - 0.6:
        kind = spot.rng.random()
        if kind < 0.2:
            _door(spot.at(x + 0.3, 0))
            x += 1.0
        elif kind < 0.45:
            x += _window(hall, spot, x, long, sunny)
        elif kind < 0.75:
            _picture(spot.at(x + 0.2, 0))
            x += 0.5
        elif kind < 0.85:
            _wall_shelf(spot.at(x + 0.3, 0))
            x += 0.6
        x += spot.uniform(0.3, 1.6)
    if spot.chance(0.6):
        spot.box(long / 2, 0.006, 0, (long, 0.012, 0.08), spot.some('paint'))


def _door(spot: Spot) -> None:
    leaf, frame = spot.some('wood' if spot.chance(0.5) else 'paint'), spot.some('paint')
    wide = spot.uniform(0.8, 1.0)
    for x in (-wide / 2 - 0.04, wide / 2 + 0.04):
        spot.box(x, 0.02, 0, (0.09, 0.06, 2.08), frame)
    spot.box(0, 0.02, 2.03, (wide + 0.16, 0.06, 0.09), frame)
    if spot.chance(0.25):
        hinge = spot.at(-wide / 2, 0.03, 0, spot.uniform(0.3, 1.5))
        spot.box(
            0, 0.004, 0, (wide, 0.008, 2.03), spot.new('glass', value=spot.uniform(0.01, 0.6))
        )
        hinge.box(wide / 2, 0, 0.01, (wide, 0.04, 2.0), leaf)
        return
    spot.box(0, 0.015, 0, (wide, 0.03, 2.03), leaf)
    spot.box(wide / 2 - 0.1, 0.06, 1.02, (0.12, 0.03, 0.02), spot.some('metal', 0.1))


def _window(hall: _Hall, spot: Spot, x: float, long: float, sunny: bool) -> float:
    """Add a window whose panes shine or are dark; return its width."""
    wide = min(spot.uniform(0.7, 2.2), long - x - 0.2)
    if wide < 0.5:
        return 0.3
    low, high = spot.uniform(0.05, 1.1), min(spot.uniform(1.9, 2.4), hall.size_m[2] - 0.1)
    middle, tall = x + wide / 2, high - low
    glow = float(spot.rng.choice([0.0, 0.05, spot.uniform(0.3, 3.0)]))
    spot.box(
        middle,
        0.01,
        low,
        (wide, 0.02, tall),
        spot.new('outlook' if spot.chance(0.75) else 'glass', glow=glow),
    )
    frame = spot.some('paint', 0.1)
    bars = max(2, round(wide / 0.7) + 1)
    for k in range(bars):
        spot.box(x + k * wide / (bars - 1), 0.03, low, (0.06, 0.06, tall), frame)
    for z in (low - 0.03, high - 0.03):
        spot.box(middle, 0.03, z, (wide + 0.06, 0.07, 0.06), frame)
    spot.box(middle, 0.09, low - 0.05, (wide + 0.2, 0.18, 0.03), spot.some('paint', 0.1))
    if spot.chance(0.4):
        cloth = spot.some('fabric', 0.4)
        for side in (-1, 1):
            for k in range(3):
                at = middle + side * (wide / 2 + 0.05 - 0.11 * k)
                spot.tube(
                    at, 0.14, max(low - 0.4, 0.02), 0.055, high - max(low - 0.4, 0.02) + 0.1, cloth
                )
    if sunny:
        a, b = spot.at(x, 0, low).origin, spot.at(x + wide, 0, high).origin
        hall.openings_m.append(np.stack([np.minimum(a, b), np.maximum(a, b)]))
    return wide + 0.3


def _picture(spot: Spot) -> None:
    wide, high = spot.uniform(0.2, 1.1), spot.uniform(0.2, 0.9)
    z = spot.uniform(1.2, 1.7) - high / 2
    spot.box(0, 0.012, z, (wide + 0.06, 0.025, high + 0.06), spot.some('wood'))
    spot.box(
        0, 0.02, z + 0.03, (wide, 0.02, high), spot.new('picture', glow=0.8 * spot.chance(0.1))
    )


def _wall_shelf(spot: Spot) -> None:
    wide, z = spot.uniform(0.5, 1.2), spot.uniform(1.2, 1.8)
    spot.box(0, 0.12, z, (wide, 0.24, 0.025), spot.some('wood'))
    clutter.scatter(spot.at(0, 0.12, z + 0.025), wide, 0.24, int(spot.rng.integers(1, 6)))


def _corridor_thing(spot: Spot, across: float) -> None:
    kind = spot.rng.random()
    if kind < 0.55:
        _door(spot)
    elif kind < 0.75:
        _picture(spot)
    elif across < 1.8 or kind < 0.8:
        spot.tube(0, 0.12, 0.6, 0.08, 0.5, spot.some('sign'))
    elif kind < 0.88:
        furniture.cabinet(spot, spot.uniform(0.5, 1.2), 0.4)
    elif kind < 0.94:
        furniture.chair(spot)
    else:
        furniture.big_plant(spot)


def _partition(hall: _Hall) -> None:
    """Add a wall that reaches into the room, or a column."""
    spot, long = hall.wall(int(hall.build.rng.integers(4)))
    material, high = spot.new('wall'), hall.size_m[2]
    x = spot.uniform(0.25, 0.75) * long
    if spot.chance(0.3):
        spot.box(x, 0.2, 0, (0.4, 0.4, high), material)
    else:
        spot.box(x, 0.6, 0, (0.12, spot.uniform(0.8, 1.4), high), material)


def _stand_free(hall: _Hall, things: tuple) -> None:  # type: ignore[type-arg]
    rng = hall.build.rng
    item, wides, deeps = things[int(rng.integers(len(things)))]
    wide, deep = float(rng.uniform(*wides)), float(rng.uniform(*deeps))
    margin = min(1.2, hall.size_m[1] / 3)
    x, y = rng.uniform(-0.5, 0.5, 2) * (hall.size_m[0] - 2 * margin, hall.size_m[1] - 2 * margin)
    if hall.build.claim(x, y, 0.5 * max(wide, deep)):
        item(hall.build.spot(x, y, 0, float(rng.uniform(-math.pi, math.pi))), wide, deep)


def _litter(hall: _Hall, count: int) -> None:
    """Put small things on the floor."""
    spot = hall.build.spot()
    clutter.scatter(spot, hall.size_m[0] - 1, hall.size_m[1] - 1, count)


def _ceiling(hall: _Hall) -> None:
    spot, top = hall.build.spot(), hall.size_m[2]
    kind = spot.rng.random()
    glow = float(spot.rng.choice([0.0, 1.0, 3.0]))
    if kind < 0.4:
        _lamp_rows(hall, int(spot.rng.integers(1, 3)), spot.uniform(1.5, 3))
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


def _lamp_rows(hall: _Hall, rows: int, pitch: float) -> None:
    spot = hall.build.spot()
    lamp = spot.new('paint', glow=float(spot.rng.choice([0.0, 1.0, 2.5])), value=0.9)
    round_ = spot.chance(0.3)
    for row in range(rows):
        y = ((row + 0.5) / rows - 0.5) * hall.size_m[1]
        for k in range(int(hall.size_m[0] / pitch)):
            x = (k + 0.5) * pitch - hall.size_m[0] / 2
            if round_:
                spot.tube(x, y, hall.size_m[2] - 0.06, 0.18, 0.06, lamp)
            else:
                spot.box(x, y, hall.size_m[2] - 0.08, (1.2, 0.25, 0.08), lamp)


def _finish(kind: str, hall: _Hall, sunny: bool) -> Scene:
    rng, build = hall.build.rng, hall.build
    shell = Shell(hall.low_m, hall.high_m, _shell_materials(build, kind))
    solids = build.solids()
    middle = np.array([0.0, 0.0, 0.8])
    reach = 0.6 * float(np.hypot(hall.size_m[0], hall.size_m[1]))
    if sunny and hall.openings_m:
        strength = float(rng.uniform(1.0, 3.5))
        openings = np.array(hall.openings_m)
        outward = openings[int(rng.integers(len(openings)))].mean(axis=0)
        direction = np.array([outward[0], outward[1], 0.0])
        direction /= np.linalg.norm(direction)
        direction[2] = rng.uniform(0.25, 1.0)
        direction /= np.linalg.norm(direction)
        key = light.sun(rng, solids, middle, reach, strength, openings, direction)
        around = light.indoor_surroundings(rng, 0.3)
    else:
        strength = float(rng.uniform(0.2, 1.2))
        place = rng.uniform(-0.3, 0.3, 2) * hall.size_m[:2]
        drop = 0.9 if kind == 'warehouse' else float(rng.choice([0.12, 0.4, 0.9]))
        position = np.array([place[0], place[1], hall.size_m[2] - drop])
        below = position - np.array([0.0, 0.0, 1.0])
        key = light.lamp(rng, solids, position, below, 3.0, strength)
        around = light.indoor_surroundings(rng, strength)
    margin = min(0.3, hall.size_m[1] / 8)
    return Scene(
        kind,
        solids,
        shell,
        build.palette.table(),
        key,
        around,
        cover_view(solids, middle, reach),
        middle,
        hall.low_m[:2] + margin,
        hall.high_m[:2] - margin,
    )


def _shell_materials(build: Builder, kind: str) -> np.ndarray:  # type: ignore[type-arg]
    palette, rng = build.palette, build.rng
    plain = palette.new('wall' if rng.random() < 0.65 else 'wallpaper')
    walls = [plain if rng.random() < 0.75 else palette.new('wallpaper') for _ in range(4)]
    if kind == 'warehouse':
        walls = [palette.some('sheet' if rng.random() < 0.6 else 'masonry', 0.2)] * 4
    floor = palette.new('concrete' if kind == 'warehouse' else 'floor')
    ceiling = palette.new('sheet' if kind == 'warehouse' else 'ceiling')
    return np.array([[walls[0], walls[1]], [walls[2], walls[3]], [floor, ceiling]], np.intp)
