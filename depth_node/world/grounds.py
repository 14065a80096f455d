"""Yards, parks, car parks, slopes and ways under roofs and bridges."""

from __future__ import annotations

import math

import numpy as np

from depth_node.world import creatures
from depth_node.world import fittings
from depth_node.world import furniture
from depth_node.world import outdoors
from depth_node.world import vehicles
from depth_node.world.builder import Builder
from depth_node.world.builder import Spot
from depth_node.world.builder import tilted
from depth_node.world.open_air import finish
from depth_node.world.open_plan import ramp
from depth_node.world.open_plan import stairs
from depth_node.world.scene import Scene
from depth_node.world.solids import BOX


def yard(rng: np.random.Generator) -> Scene:
    """Return a yard or garden closed in by houses, walls and fences on some sides."""
    build = Builder(rng)
    half = rng.uniform(4, 13, 2)
    for number in range(4):
        spot = build.spot(0, 0, 0, number * math.pi / 2).at(0, -float(half[1 - number % 2]))
        long = 2 * float(half[number % 2])
        kind = rng.random()
        if kind < 0.35:
            outdoors.house(spot, long, 9, int(rng.integers(1, 4)))
        elif kind < 0.6:
            high = float(rng.uniform(0.8, 2.6))
            spot.box(0, 0, 0, (long, 0.25, high), spot.some('masonry'))
        elif kind < 0.9:
            outdoors.fence(spot, long)
    spot = build.spot()
    if rng.random() < 0.6:
        terrace = (float(half[0]) * 1.2, float(half[1]) * 1.0, 0.06)
        spot.box(0, -half[1] * 0.4, 0, terrace, spot.some('paving'))
    things = (*_GARDEN, *_YARD)
    for _ in range(int(half[0] * half[1] * rng.uniform(0.12, 0.35))):
        x, y = rng.uniform(-0.95, 0.95, 2) * half
        if build.claim(float(x), float(y), 0.6):
            thing = things[int(rng.integers(len(things)))]
            thing(build.spot(float(x), float(y), 0, float(rng.uniform(0, 6.28))))
    outdoors.skyline(spot, 60)
    ground = ('grass', 'paving', 'earth', 'concrete')[int(rng.integers(4))]
    return finish('yard', build, ground, 18.0, (float(half[0]) - 0.7, float(half[1]) - 0.7))


def park(rng: np.random.Generator) -> Scene:
    """Return a park: winding paths, beds, benches, lamps, ponds, trees and people."""
    build = Builder(rng)
    spot = build.spot()
    for _ in range(int(rng.integers(1, 4))):
        _winding_path(build)
    for _ in range(int(rng.integers(0, 3))):
        x, y = rng.uniform(-25, 25, 2)
        pond = spot.at(float(x), float(y))
        radius = pond.uniform(2, 9)
        pond.tube(0, 0, 0, radius, 0.04, pond.new('glass'))
        pond.tube(0, 0, 0, radius + 0.4, 0.03, pond.some('concrete'))
    for _ in range(int(rng.uniform(25, 75))):
        far, angle = 2.0 + 40 * rng.random() ** 1.4, rng.uniform(0, 6.28)
        thing = _PARK[int(rng.integers(len(_PARK)))]
        place = build.spot(far * math.cos(angle), far * math.sin(angle))
        thing(place.at(0, 0, 0, float(rng.uniform(0, 6.28))))
    outdoors.skyline(spot, 70)
    return finish('park', build, 'grass' if rng.random() < 0.75 else 'earth', 28.0, (14.0, 14.0))


def _winding_path(build: Builder) -> None:
    rng = build.rng
    heading, wide = float(rng.uniform(0, 6.28)), float(rng.uniform(1.2, 3.5))
    look = ('earth', 'paving', 'asphalt', 'concrete')[int(rng.integers(4))]
    material, x, y = build.palette.new(look), 0.0, 0.0
    x, y = (float(value) for value in rng.normal(0, 4, 2))
    for direction in (1.0, -1.0):
        px, py, angle = x, y, heading if direction > 0 else heading + math.pi
        for k in range(9):
            angle += float(rng.normal(0, 0.3))
            place = build.spot(px, py, 0, angle)
            # Tops at one height would be drawn in an order that depends on the camera.
            lift = 0.004 + 0.0017 * k + 0.0007 * (direction > 0) + 0.0003 * float(rng.random())
            place.box(2.0, 0, 0, (4.6, wide, lift), material)
            px, py = px + 4.0 * math.cos(angle), py + 4.0 * math.sin(angle)


def parking(rng: np.random.Generator) -> Scene:
    """Return a car park: rows of bays, cars, lamps, trees, trolleys, a deck above some."""
    build = Builder(rng)
    spot = build.spot()
    paint = spot.new('paint', value=spot.uniform(0.3, 0.95))
    rows = int(rng.integers(2, 5))
    for row in range(rows):
        y = (row - (rows - 1) / 2) * 11.5
        full = float(rng.uniform(0.2, 0.9))
        for k in range(-9, 10):
            x = k * 2.6
            spot.box(x, y, 0, (0.1, 9.6, 0.004), paint)
            for side in (-1, 1):
                if rng.random() < full:
                    turn = side * math.pi / 2 + math.pi * float(rng.random() < 0.3)
                    vehicles.car(spot.at(x + 1.3, y + side * 2.5, 0, turn))
        if rng.random() < 0.7:
            for k in range(-2, 3):
                thing = outdoors.lamp_post if rng.random() < 0.5 else outdoors.tree
                thing(spot.at(k * 10.4, y))
    if rng.random() < 0.35:
        deck = float(rng.uniform(2.6, 3.4))
        spot.box(0, 0, deck, (44, rows * 11.5, 0.5), spot.new('concrete'))
        for k in range(-4, 5):
            for row in range(rows + 1):
                x, y = k * 5.2, (row - rows / 2) * 11.5
                spot.box(x, y, 0, (0.4, 0.4, deck), spot.some('concrete', 0.0))
    for _ in range(int(rng.integers(2, 12))):
        x, y = rng.uniform(-18, 18), rng.uniform(-0.5, 0.5) * rows * 11.5
        thing = _LOT[int(rng.integers(len(_LOT)))]
        thing(spot.at(float(x), float(y), 0, float(rng.uniform(0, 6.28))))
    outdoors.skyline(spot, 80)
    return finish('parking', build, 'asphalt', 32.0, (18.0, rows * 5.0))


def underpass(rng: np.random.Generator) -> Scene:
    """Return a road or a walk under bridges, canopies, arcades or through a tunnel."""
    build = Builder(rng)
    spot = build.spot()
    road, high = float(rng.uniform(3, 14)), float(rng.uniform(2.6, 6))
    material, wall = spot.new('concrete'), spot.new('masonry')
    x = -40.0 + float(rng.uniform(0, 15))
    while x < 40:
        long = float(rng.uniform(3, 30))
        spot.box(x + long / 2, 0, high, (long, road + 30, spot.uniform(0.4, 2)), material)
        kind = rng.random()
        for side in (-1, 1):
            y = side * (road / 2 + 0.5)
            if kind < 0.5:
                spot.box(x + long / 2, y, 0, (long, 0.8, high), wall)
            else:
                for k in range(int(long / 4) + 1):
                    spot.tube(x + 0.5 + 4 * k, y, 0, 0.3, high, wall)
        if spot.chance(0.5):
            lamp = spot.new('paint', glow=float(rng.choice([0.0, 1.5, 4.0])), value=0.9)
            for k in range(int(long / 4)):
                spot.box(x + 2 + 4 * k, 0, high - 0.12, (1.2, 0.3, 0.12), lamp)
        x += long + float(rng.uniform(2, 25))
    for side in (-1, 1):
        y = side * (road / 2 + 4.0)
        spot.box(0, y, 0, (120, 5.5, 0.14), spot.some('paving'))
        front = build.spot(0, 0, 0, 0.0 if side < 0 else math.pi).at(0, -road / 2 - 7)
        for k in range(-3, 4):
            if spot.chance(0.7):
                outdoors.house(front.at(k * 16.0, 0), 15, 8, int(rng.integers(1, 6)))
    things = (*_LOT, vehicles.car, vehicles.car, vehicles.truck, outdoors.bollards)
    for _ in range(int(rng.integers(4, 14))):
        place = spot.at(spot.uniform(-30, 30), spot.uniform(-0.5, 0.5) * road)
        if build.claim(float(place.origin[0]), float(place.origin[1]), 1.5):
            things[int(rng.integers(len(things)))](place)
    return finish('underpass', build, 'asphalt', 40.0, (25.0, road / 2))


def slope(rng: np.random.Generator) -> Scene:
    """Return sloping ground of tilted sheets and mounds, with steps, ramps, walls and growth."""
    build = Builder(rng)
    spot = build.spot()
    look = ('grass', 'earth', 'concrete', 'asphalt')[int(rng.integers(4))]
    for _ in range(int(rng.integers(2, 7))):
        yaw, lean = rng.uniform(0, 6.28), rng.uniform(0.06, 0.5)
        long, wide = float(rng.uniform(8, 40)), float(rng.uniform(8, 50))
        far = rng.uniform(2, 25)
        place = build.spot(
            float(far * math.sin(yaw)), float(-far * math.cos(yaw)), 0, float(yaw) + math.pi
        )
        _sheet(build, place, long, wide, lean, spot.some(look, 0.4))
    for _ in range(int(rng.integers(1, 6))):
        x, y = rng.normal(0, 16, 2)
        mound = spot.at(float(x), float(y))
        wide, high = mound.uniform(4, 16), mound.uniform(0.4, 3.5)
        mound.ball(0, 0, -0.2, (wide, wide * mound.uniform(0.5, 1), high), mound.some(look, 0.3))
    if rng.random() < 0.4:
        place = build.spot(float(rng.normal(0, 4)), float(rng.normal(0, 4)), 0, rng.uniform(0, 6))
        (stairs if rng.random() < 0.6 else ramp)(place, float(rng.uniform(1, 4)))
    for _ in range(int(rng.uniform(15, 45))):
        far, angle = 2.5 + 35 * rng.random() ** 1.3, rng.uniform(0, 6.28)
        thing = _WILD[int(rng.integers(len(_WILD)))]
        place = build.spot(far * math.cos(angle), far * math.sin(angle))
        thing(place.at(0, 0, 0, float(rng.uniform(0, 6.28))))
    outdoors.skyline(spot, 80)
    return finish('slope', build, look, 28.0, (10.0, 10.0))


def _sheet(
    build: Builder, spot: Spot, long: float, wide: float, lean: float, material: int
) -> None:
    """Add a board of ground whose foot is at the spot and which rises along its y."""
    rotation = spot.rotation @ tilted(lean)
    center = spot.origin + rotation @ np.array([0.0, long / 2, -1.0])
    build.add(BOX, center, rotation, (wide / 2, long / 2, 1.0), material)


def _table_set(spot: Spot) -> None:
    furniture.dining(spot, spot.uniform(1.0, 1.8), 0.8)


def _round_set(spot: Spot) -> None:
    fittings.round_table(spot, spot.uniform(0.6, 1.2))


def _wood_pile(spot: Spot) -> None:
    """Add logs upon each other."""
    wood, radius = spot.some('wood'), spot.uniform(0.06, 0.2)
    for row in range(int(spot.rng.integers(1, 5))):
        for k in range(6 - row):
            x, z = (k + row / 2) * 2 * radius - 5 * radius, radius * (1 + 1.75 * row)
            spot.tube(x, 0, z, radius * spot.uniform(0.8, 1), 1.2, wood, along='y')


def _arch(spot: Spot) -> None:
    """Add a pergola or an arch over the way."""
    wood, high = spot.some('wood'), spot.uniform(1.9, 2.8)
    for x in (-1, 1):
        for y in (0.0, 1.5):
            spot.box(x, y, 0, (0.1, 0.1, high), wood)
    if spot.chance(0.5):
        fittings.arc(spot.at(0, 0, high, math.pi / 2), 1.0, 0.0, math.pi, 0.05, wood)
    for k in range(5):
        spot.box(0, -0.1 + k * 0.42, high, (2.6, 0.06, 0.12), wood)


def _swing(spot: Spot) -> None:
    """Add a frame with a swing, or a slide."""
    steel = spot.some('sign')
    for x in (-1.3, 1.3):
        for lean in (-0.3, 0.3):
            spot.at(x, 0, 2.2).leaned(math.pi + lean).tube(0, 0, 0, 0.04, 2.3, steel)
    spot.tube(0, 0, 2.2, 0.04, 2.7, steel, along='x')
    for x in (-0.55, 0.15):
        for side in (0.0, 0.4):
            spot.tube(x + side, 0, 0.5, 0.01, 1.7, spot.some('metal'))
        spot.box(x + 0.2, 0, 0.48, (0.45, 0.2, 0.04), spot.some('wood'))


_GARDEN = (
    outdoors.tree,
    outdoors.bush,
    outdoors.bush,
    outdoors.bench,
    fittings.potted_palm,
    _table_set,
    _round_set,
    _wood_pile,
    _arch,
    creatures.animal,
)
_YARD = (
    vehicles.car,
    vehicles.bicycle,
    outdoors.big_bin,
    outdoors.pallet,
    fittings.drum,
    fittings.ladder,
    fittings.trolley,
    furniture.person,
    furniture.box_stack,
    outdoors.rock,
)
_PARK = (
    outdoors.tree,
    outdoors.tree,
    outdoors.tree,
    outdoors.bush,
    outdoors.bush,
    outdoors.bench,
    outdoors.lamp_post,
    outdoors.big_bin,
    furniture.person,
    furniture.person,
    creatures.animal,
    creatures.rider,
    _arch,
    _swing,
    outdoors.rock,
)
_LOT = (
    furniture.person,
    furniture.person,
    fittings.trolley,
    creatures.rider,
    outdoors.sign_post,
    outdoors.bollards,
    fittings.a_board,
    outdoors.big_bin,
)
_WILD = (
    outdoors.tree,
    outdoors.bush,
    outdoors.bush,
    outdoors.rock,
    outdoors.rock,
    outdoors.lamp_post,
    furniture.person,
    creatures.animal,
    _wood_pile,
)
