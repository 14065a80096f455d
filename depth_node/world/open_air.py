"""Streets and fields."""

from __future__ import annotations

import math

import numpy as np

from depth_node.world import furniture
from depth_node.world import light
from depth_node.world import outdoors
from depth_node.world import vehicles
from depth_node.world.builder import Builder
from depth_node.world.builder import Spot
from depth_node.world.scene import Scene
from depth_node.world.scene import cover_view
from depth_node.world.solids import Shell

_STREET_M = 75.0


def street(rng: np.random.Generator) -> Scene:
    """Return a street along x: lanes, kerbs, houses, cars, trees, poles, people."""
    build = Builder(rng)
    spot = build.spot()
    road = float(rng.uniform(5.5, 15))
    walk = float(rng.uniform(1.5, 4.5))
    paving = build.palette.new('paving')
    for side in (-1, 1):
        spot.box(0, side * (road / 2 + walk / 2 + 10), 0, (260, walk + 20, 0.13), paving)
        _row_of_houses(build, side, road / 2 + walk)
        _pavement(build, side, road / 2, walk)
    _lanes(spot, road)
    _traffic(build, road)
    if rng.random() < 0.12:
        _bridge(spot, road)
    outdoors.skyline(spot, 110)
    return finish('street', build, 'asphalt', 45.0, (30.0, road / 2 + walk * 0.7))


def field(rng: np.random.Generator) -> Scene:
    """Return open country: hills, trees, bushes, rocks, fences, bales, barns."""
    build = Builder(rng)
    spot = build.spot()
    for _ in range(int(rng.integers(0, 5))):
        angle, far = rng.uniform(0, 6.28), rng.uniform(40, 200)
        wide = far * rng.uniform(0.3, 0.7)
        hill = spot.at(far * math.cos(angle), far * math.sin(angle))
        hill.ball(0, 0, -1, (wide, wide * 0.8, rng.uniform(2, 18)), spot.some('grass', 0.5))
    if rng.random() < 0.6:
        path = spot.at(0, 0, 0, float(rng.uniform(0, 6.28)))
        path.box(0, 0, 0, (400, rng.uniform(1.5, 4), 0.02), spot.new('earth'))
    density = rng.uniform(0.3, 1.0)
    for _ in range(int(70 * density)):
        far = 2.5 + 45 * rng.random() ** 1.5
        angle = rng.uniform(0, 6.28)
        place = spot.at(
            far * math.cos(angle), far * math.sin(angle), 0, float(rng.uniform(0, 6.28))
        )
        _country_thing(place)
    if rng.random() < 0.5:
        barn = spot.at(
            float(rng.uniform(10, 40)), float(rng.uniform(-30, 30)), 0, float(rng.uniform(0, 6.28))
        )
        outdoors.house(barn, 14, 9, 1)
    outdoors.skyline(spot, 90)
    return finish('field', build, 'grass' if rng.random() < 0.6 else 'earth', 35.0, (12.0, 12.0))


def _country_thing(spot: Spot) -> None:
    kind = spot.rng.random()
    if kind < 0.35:
        outdoors.tree(spot)
    elif kind < 0.6:
        outdoors.bush(spot)
    elif kind < 0.8:
        outdoors.rock(spot)
    elif kind < 0.87:
        outdoors.fence(spot, spot.uniform(5, 25))
    elif kind < 0.93:
        outdoors.bale(spot)
    elif kind < 0.97:
        furniture.person(spot)
    else:
        vehicles.car(spot)


def _row_of_houses(build: Builder, side: int, from_axis: float) -> None:
    spot = build.spot(0, 0, 0, 0.0 if side < 0 else math.pi)
    x = -_STREET_M - 10
    gaps = spot.uniform(0, 0.5)
    setback = spot.uniform(0, 3) * spot.chance(0.4)
    while x < _STREET_M + 10:
        wide = spot.uniform(7, 22)
        if spot.chance(gaps):
            garden = spot.at(x + wide / 2, -from_axis - 1)
            _garden(garden, wide)
        else:
            place = spot.at(x + wide / 2, -from_axis - setback)
            outdoors.house(place, wide, spot.uniform(8, 14), int(spot.rng.integers(1, 6)))
        x += wide + spot.uniform(0, 1) * spot.chance(0.3)


def _garden(spot: Spot, wide: float) -> None:
    if spot.chance(0.6):
        outdoors.fence(spot, wide)
    for _ in range(2):
        thing = outdoors.tree if spot.chance(0.6) else outdoors.bush
        thing(spot.at(spot.uniform(-0.4, 0.4) * wide, -spot.uniform(2, 8)))


_BY_THE_ROAD = (
    outdoors.lamp_post,
    outdoors.sign_post,
    outdoors.tree,
    outdoors.tree,
    outdoors.bollards,
    outdoors.big_bin,
    outdoors.bush,
    outdoors.bench,
    vehicles.bicycle,
    furniture.person,
    furniture.person,
)


def _pavement(build: Builder, side: int, kerb: float, walk: float) -> None:
    spot = build.spot(0, 0, 0.13, 0.0 if side < 0 else math.pi)
    material = spot.some('concrete')
    spot.box(0, -kerb, -0.13, (200, 0.2, 0.15), material)
    x = -35 + spot.uniform(0, 4)
    while x < 45:
        thing = _BY_THE_ROAD[int(spot.rng.integers(len(_BY_THE_ROAD)))]
        lying = thing in (vehicles.bicycle,)
        yaw = (
            spot.uniform(-0.3, 0.3)
            if lying
            else float(spot.rng.choice([0, 1, 2, 3])) * math.pi / 2
        )
        thing(spot.at(x, -kerb - spot.uniform(0.35, max(walk - 0.6, 0.5)), 0, yaw))
        x += spot.uniform(1.2, 7)


def _lanes(spot: Spot, road: float) -> None:
    paint = spot.new('paint', value=spot.uniform(0.3, 0.9))
    if spot.chance(0.8):
        for k in range(-9, 10):
            spot.box(k * 6, 0, 0, (3, 0.14, 0.004), paint)
    if spot.chance(0.4):
        for y in (-road / 2 + 0.4, road / 2 - 0.4):
            spot.box(0, y, 0, (150, 0.12, 0.004), paint)
    if spot.chance(0.4):
        x = spot.uniform(-20, 20)
        for k in range(int(road)):
            spot.box(x, k - road / 2 + 0.5, 0, (3.5, 0.5, 0.005), paint)


def _traffic(build: Builder, road: float) -> None:
    spot, rng = build.spot(), build.rng
    for side in (-1, 1):
        parked = rng.random() * 0.9
        x = -45 + float(rng.uniform(0, 6))
        while x < 50:
            if rng.random() < parked:
                vehicles.car(
                    spot.at(x, side * (road / 2 - 1.15), 0, float(rng.choice([0, math.pi])))
                )
            x += float(rng.uniform(5.3, 8))
    for _ in range(int(rng.integers(0, 6))):
        x, lane = float(rng.uniform(-45, 45)), float(rng.uniform(-0.2, 0.2)) * road
        if not build.claim(x, lane * 0.2, 6):
            continue
        thing = vehicles.truck if rng.random() < 0.15 else vehicles.car
        if rng.random() < 0.15:
            thing = vehicles.bicycle
        thing(spot.at(x, lane, 0, math.pi * (lane > 0)))
    for _ in range(int(rng.integers(0, 4))):
        furniture.person(
            spot.at(float(rng.uniform(-20, 20)), float(rng.uniform(-0.4, 0.4)) * road)
        )


def _bridge(spot: Spot, road: float) -> None:
    x, wide, material = spot.uniform(-25, 25), spot.uniform(5, 16), spot.new('concrete')
    spot.box(x, 0, spot.uniform(4.5, 6), (wide, 90, 1.4), material)
    for y in (-road / 2 - 1, road / 2 + 1):
        spot.box(x, y, 0, (wide * 0.8, 0.9, 5), material)


def finish(
    kind: str, build: Builder, ground: str, radius: float, walk: tuple[float, float]
) -> Scene:
    """Give open country its ground and light and return the scene.

    :param ground: look of the ground.
    :param radius: metres around the origin within which the sun casts shadows.
    :param walk: half sizes along x and y of the part where cameras are, metres.
    """
    rng = build.rng
    low = np.array([-np.inf, -np.inf, 0.0])
    shell = Shell(low, np.full(3, np.inf), np.full((3, 2), build.palette.new(ground), np.intp))
    solids = build.solids()
    night = rng.random() < 0.15
    middle = np.zeros(3)
    strength = (
        rng.uniform(0.02, 0.15)
        if night
        else float(rng.choice([rng.uniform(0, 0.3), rng.uniform(0.7, 1.8)]))
    )
    if night and rng.random() < 0.7:
        lamp_at = np.array([rng.uniform(-8, 8), rng.uniform(-2, 2), rng.uniform(4, 7)])
        below = lamp_at * (1.0, 1.0, 0.0)
        key = light.lamp(rng, solids, lamp_at, below, 18.0, float(rng.uniform(0.5, 1.5)))
    else:
        key = light.sun(rng, solids, middle, radius, strength)
    return Scene(
        kind,
        solids,
        shell,
        build.palette.table(),
        key,
        light.outdoor_surroundings(rng, night),
        cover_view(solids, middle, 25.0),
        np.array([0.0, 0.0, 1.0]),
        np.array([-walk[0], -walk[1]]),
        np.array([walk[0], walk[1]]),
    )
