"""Cars, lorries, bicycles and fork-lifts: compounds of real sizes.

A spot is the middle of the vehicle on the ground, x along its length.
"""

from __future__ import annotations

from depth_node.world.builder import Spot


def car(spot: Spot) -> None:
    """Add a car of 3.6 to 4.9 m, or a van of 5 to 6 m."""
    van = spot.chance(0.22)
    long = spot.uniform(5.0, 6.0) if van else spot.uniform(3.6, 4.9)
    wide, high = (
        spot.uniform(1.7, 1.95),
        spot.uniform(2.0, 2.6) if van else spot.uniform(1.4, 1.65),
    )
    paint, glass, dark = spot.new('car'), spot.some('glass', 0.1), spot.some('rubber', 0.1)
    waist = spot.uniform(0.8, 0.95)
    spot.box(0, 0, 0.22, (long, wide, waist - 0.22), paint)
    if van:
        spot.box(-0.35, 0, waist, (long - 0.9, wide * 0.97, high - waist), paint)
        spot.box(long / 2 - 0.98, 0, waist + 0.1, (0.5, wide * 0.98, high - waist - 0.35), glass)
    else:
        cabin = long * spot.uniform(0.45, 0.62)
        spot.box(-0.12, 0, waist, (cabin, wide * 0.88, high - waist - 0.05), glass)
        spot.box(-0.12, 0, high - 0.06, (cabin * 0.9, wide * 0.86, 0.06), paint)
        for x in (-0.12 - cabin * 0.18, -0.12 + cabin * 0.2):
            spot.box(x, 0, waist, (0.08, wide * 0.89, high - waist), paint)
    radius = spot.uniform(0.29, 0.36)
    for x in (-long * 0.31, long * 0.31):
        for y in (-wide / 2 + 0.09, wide / 2 - 0.09):
            spot.tube(x, y, radius, radius, 0.22, dark, along='y')
            spot.tube(
                x, y * 1.01, radius, radius * 0.6, 0.225, spot.some('metal', 0.05), along='y'
            )
    for y in (-wide * 0.36, wide * 0.36):
        spot.box(
            long / 2, y, 0.55, (0.04, 0.32, 0.14), spot.new('plastic', glow=0.4 * spot.chance(0.3))
        )
        spot.box(-long / 2, y, 0.6, (0.04, 0.26, 0.16), spot.some('sign', 0.2))
    spot.box(long / 2, 0, 0.35, (0.05, 0.52, 0.11), spot.some('paper', 0.1))
    spot.box(-long / 2, 0, 0.35, (0.05, 0.52, 0.11), spot.some('paper', 0.1))


def truck(spot: Spot) -> None:
    """Add a lorry or a bus of 7 to 11 m."""
    long, high, paint = spot.uniform(7, 11), spot.uniform(2.9, 3.7), spot.new('car')
    if spot.chance(0.4):
        spot.box(0, 0, 0.35, (long, 2.5, high - 0.35), paint)
        spot.box(0, 0, 1.4, (long * 0.95, 2.53, 1.0), spot.some('glass'))
        spot.box(long / 2, 0, 1.2, (0.04, 2.3, 1.5), spot.some('glass'))
    else:
        spot.box(
            -1.1,
            0,
            1.0,
            (long - 2.2, 2.5, high - 1.0),
            spot.new('goods' if spot.chance(0.4) else 'sheet'),
        )
        spot.box(long / 2 - 1.0, 0, 0.5, (1.9, 2.4, 2.3), paint)
        spot.box(long / 2 - 0.05, 0, 1.5, (0.06, 2.2, 0.9), spot.some('glass'))
        spot.box(0, 0, 0.7, (long, 1.0, 0.3), spot.some('rubber'))
    for x in (-long * 0.36, -long * 0.22, long * 0.37):
        for y in (-1.08, 1.08):
            spot.tube(x, y, 0.5, 0.5, 0.3, spot.some('rubber', 0.1), along='y')


def bicycle(spot: Spot) -> None:
    """Add a standing bicycle, sometimes with a rider."""
    dark, frame = spot.some('rubber', 0.1), spot.new('car')
    for x in (-0.52, 0.52):
        spot.tube(x, 0, 0.34, 0.34, 0.04, dark, along='y')
        spot.tube(x, 0, 0.34, 0.3, 0.044, spot.some('metal', 0.1), along='y')
    spot.box(0.0, 0, 0.32, (0.5, 0.035, 0.04), frame)
    spot.box(-0.02, 0, 0.78, (0.56, 0.035, 0.04), frame)
    for x in (-0.25, 0.05, 0.35):
        spot.box(x, 0, 0.32, (0.04, 0.035, 0.55), frame)
    spot.box(-0.25, 0, 0.92, (0.25, 0.13, 0.06), dark)
    spot.box(0.4, 0, 1.0, (0.04, 0.55, 0.03), dark)


def forklift(spot: Spot) -> None:
    """Add a fork-lift truck."""
    paint, dark = spot.new('sign'), spot.some('rubber')
    spot.box(-0.3, 0, 0.2, (1.6, 1.1, 0.8), paint)
    spot.box(-0.9, 0, 1.0, (0.5, 1.0, 0.25), dark)
    for x in (-0.9, 0.35):
        for y in (-0.48, 0.48):
            spot.box(x, y, 1.0, (0.06, 0.06, 1.1), dark)
    spot.box(-0.28, 0, 2.08, (1.35, 1.05, 0.06), dark)
    for y in (-0.35, 0.35):
        spot.box(0.62, y, 0.1, (0.12, 0.1, 2.1), dark)
        spot.box(1.2, y * 0.7, 0.08, (1.1, 0.12, 0.05), dark)
        for x in (-0.8, 0.25):
            spot.tube(x, y * 1.5, 0.28, 0.28, 0.2, dark, along='y')
