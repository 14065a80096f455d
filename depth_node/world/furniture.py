"""Furniture and people: compounds of real sizes.

A spot is the middle of the object's back on the floor; x to its right, y to its front.
"""

from __future__ import annotations

import math

from depth_node.world.builder import Spot
from depth_node.world.clutter import monitor
from depth_node.world.clutter import scatter
from depth_node.world.clutter import scatter_desk


def table(spot: Spot, wide: float, deep: float) -> None:
    """Add a table, desk or low table: four legs, side panels or a pedestal; things on it."""
    high = spot.uniform(0.38, 0.5) if spot.chance(0.2) else spot.uniform(0.7, 0.78)
    top, leg = spot.some('wood' if spot.chance(0.6) else 'paint'), spot.some('metal')
    y, thick = deep / 2, spot.uniform(0.02, 0.06)
    if wide < 1.3 and spot.chance(0.3):
        spot.tube(0, y, high - thick, min(wide, deep) / 2, thick, top)
        spot.tube(0, y, 0, 0.04, high - thick, leg)
        spot.tube(0, y, 0, 0.25, 0.03, leg)
    else:
        spot.box(0, y, high - thick, (wide, deep, thick), top)
        _supports(spot, wide, deep, high - thick, leg if spot.chance(0.5) else top)
    place = spot.at(0, y, high)
    (scatter_desk if spot.chance(0.5) else scatter)(
        place, wide * 0.85, deep * 0.85, int(spot.rng.integers(0, 8))
    )


def _supports(spot: Spot, wide: float, deep: float, high: float, material: int) -> None:
    if spot.chance(0.3):
        for x in (-wide / 2 + 0.02, wide / 2 - 0.02):
            spot.box(x, deep / 2, 0, (0.03, deep * 0.9, high), material)
        return
    thick = spot.uniform(0.03, 0.07)
    for x in (-wide / 2 + thick, wide / 2 - thick):
        for y in (thick, deep - thick):
            spot.box(x, y, 0, (thick, thick, high), material)


def chair(spot: Spot, wide: float = 0.44, deep: float = 0.46) -> None:
    """Add a chair; people sit looking to +y."""
    seat, frame = spot.some('fabric' if spot.chance(0.5) else 'wood'), spot.some('metal')
    high = spot.uniform(0.43, 0.5)
    spot.box(0, deep / 2, high - 0.04, (wide, deep, 0.05), seat)
    back = spot.at(0, 0.03, high).leaned(spot.uniform(0.0, 0.2))
    if spot.chance(0.6):
        back.box(0, 0, 0.1, (wide * 0.95, 0.03, spot.uniform(0.25, 0.4)), seat)
        for x in (-wide * 0.4, wide * 0.4):
            back.box(x, -0.01, 0, (0.03, 0.02, 0.35), frame)
    else:
        for z in (0.15, 0.3, 0.42):
            back.box(0, 0, z, (wide, 0.02, 0.06), frame)
        for x in (-wide * 0.46, wide * 0.46):
            back.box(x, 0, 0, (0.03, 0.03, 0.5), frame)
    if spot.chance(0.25):
        spot.tube(0, deep / 2, 0.05, 0.03, high - 0.08, frame)
        spot.tube(0, deep / 2, 0.03, 0.28, 0.06, frame, 0.3)
        return
    for x in (-wide / 2 + 0.025, wide / 2 - 0.025):
        for y in (0.025, deep - 0.025):
            spot.tube(x, y, 0, 0.016, high - 0.04, frame)


def sofa(spot: Spot, wide: float, deep: float) -> None:
    """Add a sofa or an armchair with cushions."""
    cloth = spot.some('fabric', 0.6)
    seat, arm = spot.uniform(0.38, 0.45), spot.uniform(0.12, 0.25)
    spot.box(0, deep / 2, 0.08, (wide, deep, seat - 0.08), cloth)
    spot.box(0, 0.12, 0.08, (wide, 0.24, spot.uniform(0.65, 0.85)), cloth)
    for x in (-wide / 2 + arm / 2, wide / 2 - arm / 2):
        spot.box(x, deep / 2, 0.08, (arm, deep, seat + 0.12), cloth)
    for _ in range(int(spot.rng.integers(0, 4))):
        x = spot.uniform(-0.35, 0.35) * wide
        spot.ball(x, 0.34, seat + 0.2, (0.22, 0.09, 0.2), spot.some('fabric', 0.6))


def bed(spot: Spot, wide: float, deep: float) -> None:
    """Add a bed, its head at the back."""
    frame, cloth = spot.some('wood'), spot.some('fabric', 0.6)
    spot.box(0, deep / 2, 0.1, (wide, deep, 0.2), frame)
    spot.box(0, deep / 2, 0.3, (wide * 0.97, deep * 0.98, 0.2), spot.new('fabric'))
    spot.box(0, deep * 0.62, 0.32, (wide * 1.0, deep * 0.72, 0.22), cloth)
    spot.box(0, 0.02, 0, (wide, 0.05, spot.uniform(0.7, 1.1)), frame)
    for x in (-wide / 4, wide / 4):
        spot.ball(x, 0.3, 0.54, (wide * 0.2, 0.2, 0.09), spot.some('fabric', 0.5))


def cabinet(spot: Spot, wide: float, deep: float) -> None:
    """Add a wardrobe, sideboard or fridge: a body with doors or drawers that stand out."""
    high = spot.uniform(1.6, 2.2) if spot.chance(0.4) else spot.uniform(0.5, 1.1)
    body, front = spot.some('front'), spot.some('front')
    spot.box(0, deep / 2, 0.06, (wide, deep, high - 0.06), body)
    columns, rows = max(1, round(wide / 0.5)), int(spot.rng.integers(1, 4))
    cell_w, cell_h = wide / columns, (high - 0.1) / rows
    for i in range(columns):
        for j in range(rows):
            x, z = (i + 0.5) * cell_w - wide / 2, 0.08 + j * cell_h
            spot.box(x, deep + 0.008, z, (cell_w - 0.012, 0.018, cell_h - 0.012), front)
            spot.box(
                x, deep + 0.03, z + cell_h * 0.7, (0.12, 0.02, 0.015), spot.some('metal', 0.1)
            )
    if high < 1.4:
        scatter(spot.at(0, deep / 2, high), wide, deep, int(spot.rng.integers(0, 6)))


def shelf(spot: Spot, wide: float, deep: float) -> None:
    """Add an open shelf with books and goods."""
    high, wood = spot.uniform(0.9, 2.2), spot.some('wood' if spot.chance(0.6) else 'paint')
    deep = min(deep, 0.45)
    for x in (-wide / 2, wide / 2):
        spot.box(x, deep / 2, 0, (0.025, deep, high), wood)
    if spot.chance(0.6):
        spot.box(0, 0.006, 0, (wide, 0.01, high), spot.some('wood'))
    boards = max(2, round(high / 0.37))
    for k in range(boards + 1):
        z = k * (high - 0.025) / boards
        spot.box(0, deep / 2, z, (wide, deep, 0.022), wood)
        if k == boards:
            break
        gap = (high - 0.025) / boards - 0.03
        if spot.chance(0.55):
            long = spot.uniform(0.4, 0.95) * wide
            size = (long, deep * 0.6, gap * spot.uniform(0.7, 0.95))
            spot.box(
                spot.uniform(-0.5, 0.5) * (wide - long),
                deep * 0.4,
                z + 0.022,
                size,
                spot.some('books', 0.5),
            )
        elif spot.chance(0.7):
            _goods(spot.at(0, deep / 2, z + 0.022), wide - 0.05, deep, gap)


def _goods(spot: Spot, wide: float, deep: float, high: float) -> None:
    """Add a row of boxes and tins of different sizes."""
    x = -wide / 2
    while x < wide / 2 - 0.08:
        size = spot.uniform(0.07, 0.3)
        tall = high * spot.uniform(0.3, 0.95)
        if x + size > wide / 2:
            return
        if spot.chance(0.25):
            spot.tube(x + size / 2, 0, 0, min(size, deep) * 0.45, tall, spot.some('goods', 0.5))
        else:
            spot.box(
                x + size / 2,
                0,
                0,
                (size * 0.95, deep * spot.uniform(0.4, 0.9), tall),
                spot.some('goods', 0.5),
            )
        x += size + spot.uniform(0, 0.12)


def desk_place(spot: Spot, wide: float, deep: float) -> None:
    """Add a desk with a screen and a chair in front of it."""
    top, high = spot.some('wood' if spot.chance(0.5) else 'paint'), spot.uniform(0.7, 0.76)
    spot.box(0, deep / 2, high - 0.03, (wide, deep, 0.03), top)
    _supports(spot, wide, deep, high - 0.03, spot.some('metal'))
    for _ in range(int(spot.rng.integers(1, 3))):
        monitor(spot.at(spot.uniform(-0.3, 0.3) * wide, 0.22, high, spot.uniform(-0.3, 0.3)))
    scatter_desk(spot.at(0, deep * 0.65, high), wide, deep * 0.5, 4)
    chair(
        spot.at(
            spot.uniform(-0.2, 0.2),
            deep + spot.uniform(0.5, 0.9),
            0,
            math.pi + spot.uniform(-0.6, 0.6),
        )
    )


def dining(spot: Spot, wide: float, deep: float) -> None:
    """Add a table with chairs around."""
    table(spot, wide, deep)
    for k in range(max(1, int(wide / 0.7))):
        x = (k + 0.5) * wide / max(1, int(wide / 0.7)) - wide / 2
        if spot.chance(0.8):
            chair(spot.at(x, deep + spot.uniform(0.1, 0.45), 0, math.pi + spot.uniform(-0.3, 0.3)))
        if spot.chance(0.6):
            chair(spot.at(x, -spot.uniform(0.1, 0.45), 0, spot.uniform(-0.3, 0.3)))


def kitchen(spot: Spot, wide: float, deep: float) -> None:
    """Add kitchen units with a worktop, and cupboards above."""
    front, top = spot.some('front'), spot.some('floor')
    spot.box(0, deep / 2, 0.1, (wide, deep - 0.04, 0.76), front)
    spot.box(0, deep / 2, 0.87, (wide, deep + 0.02, 0.04), top)
    cells = max(1, round(wide / 0.6))
    for i in range(cells):
        x = (i + 0.5) * wide / cells - wide / 2
        spot.box(x, deep, 0.12, (wide / cells - 0.01, 0.02, 0.73), front)
        spot.box(x, deep + 0.025, 0.76, (0.16, 0.02, 0.015), spot.some('metal', 0.1))
        if spot.chance(0.7):
            spot.box(x, 0.17, 1.45, (wide / cells - 0.01, 0.34, 0.65), spot.some('front', 0.05))
    scatter(spot.at(0, deep / 2, 0.91), wide, deep, int(spot.rng.integers(1, 6)))


def floor_lamp(spot: Spot, wide: float = 0.4, deep: float = 0.4) -> None:
    """Add a standing lamp."""
    high, metal = spot.uniform(1.3, 1.8), spot.some('metal')
    spot.tube(0, 0.2, 0, 0.14, 0.025, metal)
    spot.tube(0, 0.2, 0, 0.014, high, metal)
    spot.tube(0, 0.2, high - 0.15, 0.2, 0.28, spot.new('fabric', glow=spot.uniform(0, 2)), 0.6)


def big_plant(spot: Spot, wide: float = 0.6, deep: float = 0.6) -> None:
    """Add a plant of 0.8 to 1.8 m in a tub."""
    high, leaves = spot.uniform(0.8, 1.8), spot.some('leaves')
    spot.tube(0, 0.3, 0, 0.14, 0.3, spot.some('plastic'), 1.3)
    spot.tube(0, 0.3, 0.3, 0.02, high * 0.5, spot.some('wood'))
    for _ in range(int(spot.rng.integers(4, 10))):
        x, y = spot.rng.normal(0, 0.15, 2)
        z = spot.uniform(0.45, 1.0) * high
        spot.ball(
            x,
            0.3 + y,
            z,
            (spot.uniform(0.06, 0.2), spot.uniform(0.06, 0.2), spot.uniform(0.05, 0.16)),
            leaves,
        )


def box_stack(spot: Spot, wide: float = 0.6, deep: float = 0.5) -> None:
    """Add cartons or crates upon each other."""
    z = 0.0
    for _ in range(int(spot.rng.integers(1, 5))):
        size = (
            spot.uniform(0.5, 1.0) * wide,
            spot.uniform(0.5, 1.0) * deep,
            spot.uniform(0.15, 0.45),
        )
        look = 'carton' if spot.chance(0.6) else 'plastic'
        spot.box(0, deep / 2, z, size, spot.some(look, 0.4), spot.uniform(-0.25, 0.25))
        z += size[2]


def bin_(spot: Spot, wide: float = 0.35, deep: float = 0.35) -> None:
    """Add a waste bin."""
    material = spot.some('plastic')
    spot.tube(
        0,
        deep / 2,
        0,
        0.11,
        spot.uniform(0.25, 0.6),
        (material, material, spot.some('rubber')),
        1.25,
    )


def person(spot: Spot, wide: float = 0.6, deep: float = 0.5) -> None:
    """Add a standing or walking person of 1.5 to 1.95 m."""
    size = spot.uniform(1.5, 1.95) / 1.75
    shirt, trousers, skin = spot.new('fabric'), spot.new('fabric'), spot.new('skin')
    body = spot.at(0, deep / 2, 0, spot.uniform(-math.pi, math.pi))
    stride = spot.uniform(0, 0.4)
    for side, x in ((1, -0.1), (-1, 0.1)):
        leg = body.at(x * size, 0, 0.86 * size).leaned(math.pi + side * stride)
        leg.tube(0, 0, 0, 0.085 * size, 0.82 * size, trousers, 0.65)
        foot = 0.8 * size * math.sin(stride) * side
        body.box(x * size, foot + 0.05, 0, (0.09, 0.25, 0.08), spot.some('rubber'))
        arm = body.at(2.2 * x * size, 0, 1.4 * size).leaned(
            math.pi - side * stride * spot.uniform(0, 1.5)
        )
        arm.tube(0, 0, 0, 0.055 * size, 0.42 * size, shirt, 0.8)
        arm.tube(0, 0, 0.42 * size, 0.04 * size, 0.25 * size, skin, 0.8)
    body.tube(0, 0, 0.82 * size, 0.16 * size, 0.55 * size, shirt, 1.15)
    body.ball(0, 0, 1.38 * size, (0.21 * size, 0.13 * size, 0.1 * size), shirt)
    body.tube(0, 0, 1.4 * size, 0.055 * size, 0.12 * size, skin)
    body.ball(0, 0, 1.61 * size, (0.08 * size, 0.1 * size, 0.125 * size), skin)
    body.ball(0, -0.02, 1.65 * size, (0.085 * size, 0.1 * size, 0.105 * size), spot.new('fabric'))
