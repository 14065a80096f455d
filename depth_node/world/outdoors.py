"""Things of streets, halls and fields: trees, poles, houses, racks; compounds of real sizes.

A spot is the middle of the object on the ground, x along its length; y to its front for things
that stand along a wall.
"""

from __future__ import annotations

import math

from depth_node.world.builder import Spot


def tree(spot: Spot) -> None:
    """Add a broad-leaved or a needle tree of 3 to 12 m, or a bare one."""
    high, bark, leaves = spot.uniform(3, 12), spot.some('earth'), spot.some('leaves', 0.4)
    spot.tube(0, 0, 0, high * spot.uniform(0.015, 0.035) + 0.04, high * 0.7, bark, 0.6)
    kind = spot.rng.random()
    if kind < 0.25:
        for k in range(3):
            foot = high * (0.15 + 0.26 * k)
            spot.tube(0, 0, foot, high * (0.2 - 0.045 * k), high * 0.36, leaves, 0.05)
        return
    if kind < 0.4:
        for _ in range(8):
            limb = spot.at(0, 0, high * spot.uniform(0.35, 0.65), spot.uniform(0, 6.28))
            limb.leaned(spot.uniform(0.3, 1.1)).tube(0, 0, 0, 0.05, high * 0.4, bark, 0.3)
        return
    crown = high * spot.uniform(0.2, 0.32)
    for _ in range(int(spot.rng.integers(3, 8))):
        x, y = spot.rng.normal(0, crown * 0.45, 2)
        radii = tuple(crown * spot.uniform(0.45, 0.95) for _ in range(3))
        spot.ball(
            x, y, high * spot.uniform(0.58, 0.95), (radii[0], radii[1], radii[2] * 0.8), leaves
        )


def bush(spot: Spot) -> None:
    """Add a bush or a piece of hedge."""
    leaves = spot.some('leaves', 0.4)
    if spot.chance(0.3):
        spot.box(
            0, 0, 0, (spot.uniform(1.5, 5), spot.uniform(0.5, 0.9), spot.uniform(0.6, 1.8)), leaves
        )
        return
    for _ in range(int(spot.rng.integers(2, 6))):
        x, y = spot.rng.normal(0, 0.4, 2)
        radius = spot.uniform(0.25, 0.75)
        spot.ball(x, y, radius * 0.7, (radius, radius * spot.uniform(0.7, 1.2), radius), leaves)


def lamp_post(spot: Spot) -> None:
    """Add a street lamp of 4 to 8 m."""
    high, metal = spot.uniform(4, 8), spot.some('metal')
    spot.tube(0, 0, 0, 0.09, high, metal, 0.6)
    spot.tube(0.5, 0, high - 0.05, 0.04, 1.1, metal, along='x')
    spot.box(0.95, 0, high - 0.15, (0.5, 0.2, 0.1), spot.new('paint', glow=2.0 * spot.chance(0.3)))


def sign_post(spot: Spot) -> None:
    """Add a traffic sign or a traffic light."""
    metal, high = spot.some('metal'), spot.uniform(2.2, 3.2)
    spot.tube(0, 0, 0, 0.035, high, metal)
    if spot.chance(0.3):
        spot.box(0, 0.08, high - 0.9, (0.3, 0.22, 0.85), spot.some('rubber'))
        for k, z in enumerate((0.75, 0.5, 0.25)):
            spot.ball(
                0, 0.2, high - z, (0.09, 0.04, 0.09), spot.new('plastic', glow=1.5 * (k == 1))
            )
    elif spot.chance(0.5):
        spot.tube(0, 0.05, high - 0.32, 0.32, 0.02, spot.new('sign'), along='y')
    else:
        spot.box(0, 0.05, high - 0.6, (spot.uniform(0.4, 0.9), 0.02, 0.55), spot.new('sign'))


def bollards(spot: Spot) -> None:
    """Add bollards in a row, or traffic cones."""
    cones, material = spot.chance(0.35), spot.some('sign' if spot.chance(0.5) else 'metal')
    for k in range(int(spot.rng.integers(2, 7))):
        if cones:
            spot.box(k * 1.5, 0, 0, (0.38, 0.38, 0.03), spot.some('rubber'))
            spot.tube(k * 1.5, 0, 0.03, 0.14, 0.6, material, 0.2)
        else:
            spot.tube(k * 1.5, 0, 0, 0.07, 0.95, material)


def bench(spot: Spot) -> None:
    """Add a bench."""
    wood, metal = spot.some('wood'), spot.some('metal')
    for y in (0.1, 0.22, 0.34):
        spot.box(0, y, 0.42, (1.6, 0.09, 0.04), wood)
    for z in (0.55, 0.7):
        spot.box(0, 0.03, z, (1.6, 0.03, 0.1), wood)
    for x in (-0.65, 0.65):
        spot.box(x, 0.2, 0, (0.06, 0.4, 0.42), metal)
        spot.box(x, 0.02, 0.4, (0.06, 0.04, 0.42), metal)


def big_bin(spot: Spot) -> None:
    """Add a wheeled bin or a container."""
    material = spot.some('plastic')
    wide = spot.uniform(0.55, 1.3)
    spot.box(0, 0, 0.08, (wide, 0.6, 0.9), material)
    spot.box(0, 0, 0.98, (wide + 0.05, 0.68, 0.08), spot.some('plastic'))
    for x in (-wide / 2 + 0.08, wide / 2 - 0.08):
        spot.tube(x, -0.25, 0.1, 0.1, 0.06, spot.some('rubber', 0.1), along='y')


def fence(spot: Spot, long: float) -> None:
    """Add a fence of posts and rails, or of boards."""
    material, high = spot.some('wood' if spot.chance(0.6) else 'metal'), spot.uniform(0.8, 1.8)
    if spot.chance(0.3):
        spot.box(0, 0, 0, (long, 0.06, high), spot.some('sheet'))
        return
    posts = max(2, min(14, int(long / 1.8)))
    for k in range(posts + 1):
        spot.box(-long / 2 + k * long / posts, 0, 0, (0.1, 0.1, high), material)
    for z in (0.35, 0.6, 0.9):
        spot.box(0, 0, z * high, (long, 0.04, 0.09), material)


def pallet(spot: Spot) -> None:
    """Add a pallet of 1.2 by 0.8 m with cartons, sacks, drums or nothing."""
    wood = spot.some('wood')
    for y in (-0.35, 0, 0.35):
        spot.box(0, y, 0, (1.2, 0.1, 0.1), wood)
    spot.box(0, 0, 0.1, (1.2, 0.8, 0.03), wood)
    load(spot.at(0, 0, 0.13), 1.15, 0.78, spot.uniform(0.3, 1.3))


def load(spot: Spot, wide: float, deep: float, high: float) -> None:
    """Add goods as they stand on pallets and in racks."""
    kind = spot.rng.random()
    if kind < 0.35:
        spot.box(
            0,
            0,
            0,
            (wide * 0.95, deep * 0.95, high),
            spot.some('carton' if spot.chance(0.5) else 'goods'),
        )
    elif kind < 0.6:
        for x in (-0.25, 0.25):
            for y in (-0.25, 0.25):
                size = (wide * 0.48, deep * 0.48, high * spot.uniform(0.4, 1.0))
                spot.box(x * wide, y * deep, 0, size, spot.some('carton', 0.3))
    elif kind < 0.75:
        radius = min(0.29, wide / 4, deep / 3)
        for x in (-0.25, 0.25):
            spot.tube(x * wide, 0, 0, radius, min(high, 0.88), spot.some('plastic'))
    elif kind < 0.9:
        size = (
            wide * spot.uniform(0.5, 0.9),
            deep * spot.uniform(0.5, 0.9),
            high * spot.uniform(0.3, 0.9),
        )
        spot.box(0, 0, 0, size, spot.some('plastic', 0.3), spot.uniform(-0.1, 0.1))


def rack(spot: Spot, bays: int) -> None:
    """Add a pallet rack, its back at the spot: uprights, beams, three or four levels of goods."""
    steel, beam = spot.some('paint', 0.1), spot.some('sign', 0.1)
    bay, deep, levels = 2.7, 1.0, int(spot.rng.integers(2, 5))
    rise = spot.uniform(1.2, 1.7)
    high = rise * (levels - 1) + 1.2
    for k in range(bays + 1):
        for y in (0.05, deep - 0.05):
            spot.box((k - bays / 2) * bay, y, 0, (0.09, 0.09, high), steel)
    for level in range(levels):
        z = level * rise
        if level:
            for y in (0.05, deep - 0.05):
                spot.box(0, y, z - 0.12, (bays * bay, 0.05, 0.12), beam)
        for k in range(bays * 2):
            if spot.chance(0.72):
                x = (k + 0.5 - bays) * bay / 2
                load(spot.at(x, deep / 2, z), 1.2, 0.95, spot.uniform(0.5, rise - 0.35))


def rock(spot: Spot) -> None:
    """Add a boulder."""
    size = spot.uniform(0.15, 0.9)
    for _ in range(int(spot.rng.integers(1, 4))):
        x, y = spot.rng.normal(0, size * 0.4, 2)
        radii = tuple(size * spot.uniform(0.5, 1.2) for _ in range(3))
        spot.ball(x, y, size * 0.3, (radii[0], radii[1], radii[2]), spot.some('concrete', 0.1))


def bale(spot: Spot) -> None:
    """Add a straw bale, round or square."""
    straw = spot.some('earth')
    if spot.chance(0.5):
        spot.tube(0, 0, 0.65, 0.65, 1.25, straw, along='x')
    else:
        spot.box(0, 0, 0, (2.2, 1.0, 0.9), straw)


def house(spot: Spot, wide: float, deep: float, storeys: int) -> None:
    """Add a house, its front at the spot's y = 0 and its body behind it (towards -y)."""
    high = storeys * 3.1 + spot.uniform(0.2, 1.0)
    wall = spot.new('facade' if spot.chance(0.7) else 'masonry')
    spot.box(0, -deep / 2, 0, (wide, deep, high), wall)
    if spot.chance(0.6):
        spot.box(0, 0.06, 0, (wide, 0.14, spot.uniform(0.4, 3.2)), spot.some('masonry'))
    if spot.chance(0.5):
        spot.box(0, 0.1, high, (wide + 0.1, 0.5, 0.3), spot.some('concrete'))
    _ground_floor(spot, wide)
    for storey in range(1, storeys):
        if spot.chance(0.25):
            for k in range(max(1, int(wide / 4))):
                x = (k + 0.5) * 4 - wide / 2
                spot.box(x, 0.5, storey * 3.1, (2.4, 1.0, 0.15), spot.some('concrete'))
                spot.box(x, 0.97, storey * 3.1 + 0.1, (2.4, 0.05, 0.9), spot.some('metal'))
    if spot.chance(0.4) and storeys <= 3:
        roof = spot.some('sheet')
        for side in (1, -1):
            slope = spot.at(0, -deep / 2 + side * deep * 0.25, high + deep * 0.2)
            slope.leaned(side * -0.7).box(0, 0, 0, (wide, deep * 0.68, 0.2), roof)


def _ground_floor(spot: Spot, wide: float) -> None:
    """Add doors, windows or shop fronts that stand out of the wall."""
    x = -wide / 2 + spot.uniform(0.8, 1.6)
    while x < wide / 2 - 1.2:
        kind = spot.rng.random()
        if kind < 0.25:
            spot.box(x, 0.1, 0, (1.1, 0.12, 2.2), spot.some('wood', 0.4))
        elif kind < 0.65:
            spot.box(x, 0.08, 0.9, (1.3, 0.2, 1.5), spot.some('paint'))
            spot.box(
                x, 0.12, 1.0, (1.1, 0.16, 1.3), spot.new('glass', glow=0.8 * spot.chance(0.2))
            )
        elif kind < 0.85:
            spot.box(
                x + 0.6,
                0.1,
                0.4,
                (2.4, 0.12, 2.2),
                spot.new('picture', glow=0.6 * spot.chance(0.3)),
            )
            spot.box(x + 0.6, 0.5, 2.7, (2.6, 0.9, 0.12), spot.some('fabric', 0.6))
            x += 1.6
        x += spot.uniform(1.5, 3.2)


def skyline(spot: Spot, radius: float) -> None:
    """Add far buildings or woods around the spot, so that a scene does not end in a bare plane."""
    woods = spot.chance(0.5)
    for _ in range(int(spot.rng.integers(4, 11))):
        angle, far = spot.uniform(0, 2 * math.pi), radius * spot.uniform(1.0, 3.0)
        place = spot.at(far * math.cos(angle), far * math.sin(angle), 0, angle + math.pi / 2)
        size = spot.uniform(10, 40)
        if woods:
            place.ball(0, 0, 0, (size, 6, spot.uniform(4, 14)), spot.some('leaves'))
        else:
            place.box(0, 0, 0, (size, 12, spot.uniform(5, 35)), spot.some('facade'))
