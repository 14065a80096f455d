"""More furniture and fittings, many of them round: office chairs, curtains, machines, trolleys.

A spot is the middle of the object's back on the floor; x to its right, y to its front.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from depth_node.world import clutter
from depth_node.world.builder import Spot

Piece = Callable[[Spot, float, float], None]
"""What builds it, given its width and depth in metres."""


def arc(
    spot: Spot,
    radius: float,
    from_rad: float,
    to_rad: float,
    thick: float,
    material: int,
    pieces: int = 6,
) -> None:
    """Add a bent rod in the spot's y-z plane: straight pieces on a circle around its origin."""
    step = (to_rad - from_rad) / pieces
    long = 2 * radius * math.tan(abs(step) / 2) * 1.05
    for k in range(pieces):
        angle = from_rad + (k + 0.5) * step
        place = spot.at(0, radius * math.cos(angle), radius * math.sin(angle)).leaned(angle)
        place.tube(0, 0, -long / 2, thick, long, material)


def office_chair(spot: Spot, wide: float = 0.5, deep: float = 0.5) -> None:
    """Add a swivel chair: a star of five legs on castors, a column, seat, back and arms."""
    dark, cloth = spot.some('rubber', 0.3), spot.some('fabric', 0.4)
    middle, high = spot.at(0, 0.28), spot.uniform(0.42, 0.55)
    for k in range(5):
        leg = middle.at(0, 0, 0, k * 2 * math.pi / 5)
        leg.box(0, 0.15, 0.08, (0.04, 0.3, 0.03), dark)
        leg.ball(0, 0.29, 0.04, (0.02, 0.035, 0.035), dark)
    middle.tube(0, 0, 0.08, 0.028, high - 0.1, dark)
    middle.ball(0, 0, high, (0.25, 0.25, 0.06), cloth)
    back = middle.at(0, -0.22, high).leaned(spot.uniform(0.0, 0.25))
    back.box(0, 0, 0, (0.05, 0.02, 0.3), dark)
    tall = spot.uniform(0.35, 0.7)
    back.box(0, 0, 0.12, (0.44, 0.06, tall), cloth)
    back.ball(0, 0, 0.12 + tall, (0.22, 0.04, 0.06), cloth)
    if spot.chance(0.6):
        for x in (-0.27, 0.27):
            middle.box(x, 0, high + 0.18, (0.05, 0.25, 0.03), dark)
            middle.box(x, 0, high - 0.02, (0.03, 0.04, 0.2), dark)


def armchair(spot: Spot, wide: float = 0.7, deep: float = 0.8) -> None:
    """Add a reclined chair on a bent tube frame, like a cantilever or a rocking chair."""
    cloth, steel = spot.some('fabric', 0.5), spot.some('metal', 0.3)
    wide = min(max(wide, 0.5), 0.75)
    pitch = spot.uniform(0.05, 0.25)
    seat = spot.at(0, 0.25, spot.uniform(0.32, 0.45)).leaned(pitch)
    pieces = 5
    for k in range(pieces):  # the shell bends from the seat into the back
        y = 0.5 - k * 0.5 / (pieces - 1)
        seat.box(0, y, 0.02 * (k - 2) ** 2 / 4, (wide - 0.12, 0.15, 0.05), cloth)
    back = seat.at(0, 0, 0).leaned(spot.uniform(0.1, 0.5))
    for k in range(4):
        back.box(0, -0.015 * k * (3 - k), 0.15 * k, (wide - 0.12, 0.05, 0.17), cloth)
    for x in (-wide / 2, wide / 2):
        side = spot.at(x, 0.35, 0.32)
        arc(side, 0.29, -0.5 * math.pi, 0.6 * math.pi, 0.017, steel, 7)
        side.tube(0, 0, -0.29, 0.017, 0.6, steel, along='y')
        side.tube(0, -0.2, 0.29, 0.022, 0.5, steel, along='y')


def round_table(spot: Spot, wide: float = 0.9, deep: float = 0.9) -> None:
    """Add a round or oval table on a turned foot, chairs or stools around it."""
    radius, high = min(max(wide, 0.5), 1.5) / 2, spot.uniform(0.4, 0.78)
    middle = spot.at(0, radius)
    top, leg = spot.some('wood' if spot.chance(0.5) else 'paint', 0.5), spot.some('metal')
    middle.tube(0, 0, high - 0.03, radius, 0.03, top)
    middle.tube(0, 0, 0.03, 0.1, high * 0.5, leg, 0.3)
    middle.tube(0, 0, high * 0.5, 0.03, high * 0.5 - 0.02, leg, 2.0)
    middle.tube(0, 0, 0, radius * 0.6, 0.03, leg, 0.6)
    things = int(spot.rng.integers(0, 6))
    clutter.scatter(middle.at(0, 0, high), radius * 1.3, radius * 1.3, things)
    for k in range(int(spot.rng.integers(0, 5))):
        stool(middle.at(0, 0, 0, k * 1.4).at(0, radius + 0.25))


def stool(spot: Spot, wide: float = 0.35, deep: float = 0.35) -> None:
    """Add a stool of three or four splayed legs."""
    high, wood = spot.uniform(0.4, 0.75), spot.some('wood')
    spot.tube(0, 0, high, 0.17, 0.04, wood)
    for k in range(4):
        leg = spot.at(0, 0, high, k * math.pi / 2 + 0.5).at(0, 0.1).leaned(math.pi + 0.15)
        leg.tube(0, 0, 0, 0.016, high * 1.01, wood)


def curtain(spot: Spot, wide: float, high: float) -> None:
    """Add a curtain of many folds, gathered or drawn, on a rod."""
    cloth = spot.new('fabric', value=spot.uniform(0.5, 0.97) if spot.chance(0.6) else None)
    count = int(spot.rng.integers(6, 18))
    low = 0.02 if spot.chance(0.7) else spot.uniform(0.3, 0.9)
    for k in range(count):
        x = ((k + 0.5) / count - 0.5) * wide
        radius = 0.6 * wide / count * spot.uniform(0.8, 1.5)
        flare = spot.uniform(0.8, 1.1)
        spot.tube(x, spot.uniform(-0.02, 0.04), low, radius, high - low, cloth, flare)
    spot.tube(0, 0, high, 0.015, wide * 1.2, spot.some('metal'), along='x')


def drawers(spot: Spot, wide: float = 0.8, deep: float = 0.45) -> None:
    """Add a low chest of drawers with knobs, some open."""
    high, rows = spot.uniform(0.5, 1.1), int(spot.rng.integers(2, 5))
    body, knob = spot.some('wood', 0.4), spot.some('metal', 0.2)
    spot.box(0, deep / 2, 0.05, (wide, deep, high - 0.05), body)
    for k in range(rows):
        z, pull = 0.08 + k * (high - 0.1) / rows, spot.uniform(0.02, 0.3) * spot.chance(0.15)
        spot.box(0, deep / 2 + pull, z, (wide * 0.94, deep + 0.02, (high - 0.14) / rows), body)
        for x in (-wide / 4, wide / 4):
            radius = 0.014
            spot.ball(x, deep + pull + 0.03, z + 0.09, (radius, radius, radius), knob)
    clutter.scatter(spot.at(0, deep / 2, high), wide, deep, int(spot.rng.integers(0, 6)))


def potted_palm(spot: Spot, wide: float = 0.6, deep: float = 0.6) -> None:
    """Add a plant of long bent leaves, each of two thin ellipsoids."""
    leaf, high = spot.some('leaves', 0.5), spot.uniform(0.6, 1.9)
    middle = spot.at(0, 0.3)
    middle.tube(0, 0, 0, 0.11, 0.26, spot.some('plastic', 0.5), 1.35)
    middle.tube(0, 0, 0.2, 0.02, high * 0.35, spot.some('wood'))
    for _ in range(int(spot.rng.integers(6, 15))):
        stem = middle.at(0, 0, spot.uniform(0.2, 0.55) * high, spot.uniform(0, 6.28))
        lean, long = spot.uniform(0.2, 1.1), spot.uniform(0.15, 0.32) * high
        half = stem.leaned(-lean)
        half.ball(0, 0, long, (0.045, 0.008, long), leaf)
        tip = half.at(0, 0, 1.8 * long).leaned(-spot.uniform(0.4, 1.1))
        tip.ball(0, 0, 0.7 * long, (0.035, 0.008, 0.7 * long), leaf)


def gondola(spot: Spot, long: float, high: float) -> None:
    """Add one side of a shop shelf: a back, boards and rows of goods of one sort each."""
    deep, boards = spot.uniform(0.35, 0.5), max(2, round(high / 0.45))
    metal = spot.some('paint', 0.1)
    spot.box(0, 0.01, 0, (long, 0.02, high), metal)
    for level in range(boards):
        z = 0.1 + level * (high - 0.1) / boards
        spot.box(0, deep / 2, z, (long, deep, 0.03), (metal, spot.some('sign', 0.2), metal))
        x = -long / 2 + 0.1
        while x < long / 2 - 0.5:
            wide = spot.uniform(0.4, 1.3)
            if spot.chance(0.88):
                _goods_row(spot.at(x, deep * 0.45, z + 0.03), wide, deep, (high - 0.2) / boards)
            x += wide + 0.02


def _goods_row(spot: Spot, wide: float, deep: float, space: float) -> None:
    """Add equal things side by side; far along as one box with the look of goods."""
    tall, material = space * spot.uniform(0.4, 0.85), spot.some('goods', 0.5)
    kind = spot.rng.random()
    if kind < 0.5:
        spot.box(wide / 2, 0, 0, (wide - 0.03, deep * 0.8, tall), material)
        return
    each = wide / int(spot.rng.integers(3, 6))
    for k in range(round(wide / each)):
        x = (k + 0.5) * each
        if kind < 0.8:
            spot.tube(x, 0.05, 0, each * 0.42, tall, material)
        else:
            spot.box(x, 0.05, 0, (each * 0.85, deep * 0.7, tall * spot.uniform(0.9, 1)), material)


def trolley(spot: Spot, wide: float = 0.5, deep: float = 0.9) -> None:
    """Add a trolley or a shopping cart of rods on castors."""
    steel, dark = spot.some('metal'), spot.some('rubber')
    wide, deep = min(wide, 0.6), min(max(deep, 0.7), 1.0)
    for x in (-wide / 2, wide / 2):
        for y in (0.1, deep - 0.1):
            spot.tube(x, y, 0.06, 0.06, 0.03, dark, along='x')
        spot.box(x, deep / 2, 0.5, (0.015, deep, 0.02), steel)
        spot.box(x, deep / 2, 0.9, (0.015, deep, 0.02), steel)
        for k in range(5):
            spot.box(x, (k + 0.5) * deep / 5, 0.5, (0.008, 0.008, 0.4), steel)
    spot.box(0, deep / 2, 0.15, (wide, deep, 0.03), steel)
    spot.box(0, deep / 2, 0.5, (wide, deep, 0.015), steel)
    spot.tube(0, -0.05, 1.0, 0.015, wide, dark, along='x')
    clutter.scatter(spot.at(0, deep / 2, 0.52), wide, deep, int(spot.rng.integers(0, 6)))


def a_board(spot: Spot, wide: float = 0.6, deep: float = 0.5) -> None:
    """Add a sign of two leaning boards."""
    sign, high = spot.new('sign'), spot.uniform(0.6, 1.1)
    for side in (1, -1):
        board = spot.at(0, side * 0.2).leaned(side * 0.2)
        board.box(0, 0, 0, (0.55, 0.02, high), sign)


def work_bench(spot: Spot, wide: float = 1.6, deep: float = 0.7) -> None:
    """Add a bench with a vice, drawers below and tools on it."""
    high, top = spot.uniform(0.8, 0.95), spot.some('wood')
    spot.box(0, deep / 2, high - 0.07, (wide, deep, 0.07), top)
    for x in (-wide / 2 + 0.06, wide / 2 - 0.06):
        for y in (0.06, deep - 0.06):
            spot.box(x, y, 0, (0.09, 0.09, high - 0.07), top)
    spot.box(0, deep / 2, 0.15, (wide, deep * 0.9, 0.03), top)
    if spot.chance(0.5):
        drawers(spot.at(wide * 0.2, 0.05), wide * 0.4, deep * 0.8)
    metal = spot.some('metal')
    spot.box(-wide * 0.3, deep, high, (0.14, 0.25, 0.12), metal)
    spot.tube(-wide * 0.3, deep + 0.2, high + 0.05, 0.012, 0.25, metal, along='x')
    clutter.scatter(spot.at(0, deep / 2, high), wide, deep, int(spot.rng.integers(2, 10)))
    if spot.chance(0.5):
        clutter.scatter(spot.at(0, deep / 2, 0.18), wide, deep, 5)


def machine(spot: Spot, wide: float = 1.0, deep: float = 0.8) -> None:
    """Add a machine: housings, a column, a wheel, pipes and a panel."""
    paint, metal = spot.new('car'), spot.some('metal')
    high = spot.uniform(0.7, 1.6)
    spot.box(0, deep / 2, 0, (wide, deep, high * 0.6), paint)
    x = spot.uniform(-0.2, 0.2) * wide
    spot.box(x, deep * 0.4, high * 0.6, (wide * 0.5, deep * 0.6, 0.3), paint)
    spot.tube(wide * 0.3, deep * 0.3, high * 0.6, 0.09, high * 0.6, metal)
    spot.tube(-wide * 0.35, deep + 0.03, high * 0.4, 0.16, 0.05, metal, along='y')
    spot.box(wide * 0.3, deep, high * 0.5, (0.25, 0.06, 0.35), spot.some('sign'))
    for _ in range(int(spot.rng.integers(0, 4))):
        x = spot.uniform(-0.5, 0.5) * wide
        spot.tube(x, deep / 2, spot.uniform(0.2, 0.9) * high, 0.04, wide, metal, along='x')
    arc(spot.at(0, deep * 0.5, high * 0.9), 0.3, 0.0, math.pi, 0.035, metal, 5)


def drum(spot: Spot, wide: float = 0.6, deep: float = 0.6) -> None:
    """Add a drum with hoops, a gas bottle or a tank."""
    paint = spot.some('plastic', 0.6)
    if spot.chance(0.6):
        spot.tube(0, 0.3, 0, 0.29, 0.88, paint)
        for z in (0.28, 0.58):
            spot.tube(0, 0.3, z, 0.3, 0.025, paint)
    else:
        high = spot.uniform(0.8, 1.4)
        spot.tube(0, 0.3, 0, 0.12, high, paint)
        spot.ball(0, 0.3, high, (0.12, 0.12, 0.1), paint)
        spot.tube(0, 0.3, high, 0.03, 0.16, spot.some('metal'))


def ladder(spot: Spot, wide: float = 0.45, deep: float = 0.3) -> None:
    """Add a ladder that leans, or steps."""
    metal, high = spot.some('metal' if spot.chance(0.5) else 'wood'), spot.uniform(1.4, 3.0)
    for side in (1, -1) if spot.chance(0.5) else (1,):
        rails = spot.at(0, 0.3 * side + 0.4).leaned(side * 0.22)
        for x in (-0.2, 0.2):
            rails.box(x, 0, 0, (0.03, 0.07, high), metal)
        for k in range(int(high / 0.28)):
            rails.box(0, 0, 0.2 + 0.28 * k, (0.4, 0.05, 0.03), metal)


def cable(spot: Spot, long: float) -> None:
    """Add a cable that lies on the floor in bends."""
    black, heading, place = spot.some('rubber'), spot.uniform(0, 6.28), spot
    for _ in range(int(long / 0.2)):
        heading += spot.rng.normal(0, 0.5)
        place.at(0, 0, 0.012, heading).tube(0.11, 0, 0, 0.011, 0.23, black, along='x')
        place = place.at(0.2 * math.cos(heading), 0.2 * math.sin(heading))
