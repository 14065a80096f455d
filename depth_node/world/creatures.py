"""Animals and riders: compounds of round parts.

A spot is the middle of the creature on the ground, x along its length.
"""

from __future__ import annotations

import math

from depth_node.world import vehicles
from depth_node.world.builder import Spot


def animal(spot: Spot) -> None:
    """Add a four-legged animal from the size of a cat to that of a cow."""
    size = math.exp(spot.uniform(math.log(0.3), math.log(1.5)))
    coat = spot.new(('fabric', 'earth', 'skin')[int(spot.rng.integers(3))])
    body, leg = 0.55 * size, spot.uniform(0.3, 0.65) * size
    thick = spot.uniform(0.14, 0.26) * size
    high = leg + thick
    spot.ball(0, 0, high, (body, thick, thick), coat)
    spot.ball(body * 0.55, 0, high + 0.02 * size, (body * 0.45, thick, thick * 1.1), coat)
    for x in (-0.7 * body, 0.65 * body):
        for y in (-0.55 * thick, 0.55 * thick):
            limb = spot.at(x, y, high, math.pi / 2).leaned(math.pi + spot.uniform(-0.3, 0.3))
            limb.tube(0, 0, 0, 0.055 * size, high * 1.02, coat, 0.6)
    lift = spot.uniform(-0.1, 0.4) * size
    neck = spot.at(body * 0.85, 0, high + 0.05 * size, -math.pi / 2).leaned(-0.9)
    neck.tube(0, 0, 0, 0.1 * size, 0.3 * size + lift * 0.5, coat, 0.8)
    head = (body * 0.85 + 0.28 * size, high + 0.2 * size + lift * 0.4)
    spot.ball(head[0], 0, head[1], (0.17 * size, 0.09 * size, 0.1 * size), coat)
    for y in (-0.06 * size, 0.06 * size):
        spot.ball(
            head[0] - 0.08 * size,
            y,
            head[1] + 0.1 * size,
            (0.03 * size, 0.02 * size, 0.06 * size),
            coat,
        )
    tail = spot.at(-body, 0, high, math.pi / 2).leaned(spot.uniform(0.3, 2.4))
    tail.tube(0, 0, 0, 0.025 * size, 0.4 * size, coat, 0.5)


def rider(spot: Spot) -> None:
    """Add a bicycle with somebody on it."""
    vehicles.bicycle(spot)
    shirt, trousers, skin = spot.new('fabric'), spot.new('fabric'), spot.new('skin')
    lean = spot.uniform(0.1, 0.7)
    trunk = spot.at(-0.22, 0, 0.95, -math.pi / 2).leaned(-lean)
    trunk.tube(0, 0, 0, 0.14, 0.55, shirt, 1.2)
    trunk.ball(0, 0, 0.55, (0.2, 0.11, 0.09), shirt)
    trunk.ball(0, 0.02, 0.8, (0.085, 0.1, 0.125), skin)
    for x, knee in ((-0.1, spot.uniform(0.2, 0.9)), (0.1, spot.uniform(0.2, 0.9))):
        thigh = spot.at(-0.2, x, 0.95, -math.pi / 2).leaned(-math.pi + knee)
        thigh.tube(0, 0, 0, 0.08, 0.45, trousers, 0.75)
        shin = thigh.at(0, 0, 0.45).leaned(-knee)
        shin.tube(0, 0, 0, 0.055, 0.42, trousers, 0.7)
    for x in (-0.2, 0.2):
        arm = trunk.at(x, 0, 0.5).leaned(-1.2)
        arm.tube(0, 0, 0, 0.045, 0.6, shirt, 0.7)
