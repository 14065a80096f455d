"""Small things that stand on tables, shelves and floors."""

from __future__ import annotations

import math
from collections.abc import Callable

from depth_node.world.builder import Spot

Thing = Callable[[Spot], None]


def cup(spot: Spot) -> None:
    """Add a mug with a handle."""
    material = spot.some('plastic', 0.6)
    radius, high = spot.uniform(0.033, 0.048), spot.uniform(0.08, 0.12)
    spot.tube(0, 0, 0, radius * 0.85, high, (material, material, spot.some('rubber')), 1.18)
    spot.box(radius, 0, high * 0.25, (0.03, 0.012, high * 0.5), material)


def bottle(spot: Spot) -> None:
    """Add a bottle with a label and a cap."""
    material = spot.some('glass', 0.5)
    radius, high = spot.uniform(0.03, 0.05), spot.uniform(0.18, 0.26)
    spot.tube(0, 0, 0, radius, high, material)
    spot.tube(0, 0, high * 0.3, radius * 1.02, high * 0.4, spot.new('goods'))
    spot.tube(0, 0, high, radius, 0.05, material, 0.4)
    spot.tube(0, 0, high + 0.05, radius * 0.42, 0.02, spot.some('plastic'))


def can(spot: Spot) -> None:
    """Add a tin."""
    radius = spot.uniform(0.033, 0.06)
    spot.tube(
        0, 0, 0, radius, spot.uniform(0.08, 0.16), (spot.new('goods'),) * 2 + (spot.some('metal'),)
    )


def book_pile(spot: Spot) -> None:
    """Add a few books upon each other."""
    z = 0.0
    for _ in range(int(spot.rng.integers(1, 5))):
        thick = spot.uniform(0.012, 0.05)
        size = (spot.uniform(0.12, 0.22), spot.uniform(0.17, 0.3), thick)
        spot.box(
            0,
            0,
            z,
            size,
            (spot.some('goods'),) * 2 + (spot.new('picture'),),
            spot.uniform(-0.3, 0.3),
        )
        z += thick


def book_row(spot: Spot) -> None:
    """Add standing books, some leaning."""
    x = 0.0
    for _ in range(int(spot.rng.integers(2, 6))):
        thick = spot.uniform(0.015, 0.05)
        spot.box(
            x,
            0,
            0,
            (thick, spot.uniform(0.12, 0.2), spot.uniform(0.16, 0.3)),
            spot.some('goods', 0.6),
        )
        x += thick + 0.002


def carton(spot: Spot) -> None:
    """Add a small box."""
    size = (spot.uniform(0.06, 0.35), spot.uniform(0.05, 0.25), spot.uniform(0.04, 0.28))
    spot.box(0, 0, 0, size, spot.some('carton' if spot.chance(0.4) else 'goods', 0.6))


def ball(spot: Spot) -> None:
    """Add a ball or a fruit."""
    radius = spot.uniform(0.03, 0.12)
    spot.ball(0, 0, radius, (radius, radius, radius), spot.some('plastic', 0.6))


def bowl(spot: Spot) -> None:
    """Add a bowl with fruit, or an empty one."""
    radius = spot.uniform(0.09, 0.16)
    spot.tube(0, 0, 0, radius * 0.5, 0.07, spot.some('plastic', 0.5), 2.0)
    for k in range(int(spot.rng.integers(0, 5))):
        size = spot.uniform(0.03, 0.045)
        x, y = 0.5 * radius * math.cos(k * 1.7), 0.5 * radius * math.sin(k * 1.7)
        spot.ball(x, y, 0.07 + size * 0.5, (size, size, size), spot.some('plastic', 0.4))


def paper(spot: Spot) -> None:
    """Add sheets or a magazine."""
    spot.box(0, 0, 0, (0.21, 0.297, spot.uniform(0.002, 0.01)), spot.new('paper'))


def laptop(spot: Spot) -> None:
    """Add an open laptop; its back points to the spot's -y."""
    body = spot.some('metal')
    spot.box(0, 0, 0, (0.33, 0.23, 0.018), (body, body, spot.new('goods')))
    lid = spot.at(0, -0.115, 0.018).leaned(spot.uniform(0.1, 0.5))
    screen = spot.new('picture', glow=spot.uniform(0, 1.2))
    lid.box(0, 0, 0, (0.33, 0.008, 0.22), body)
    lid.box(0, 0.006, 0.01, (0.31, 0.004, 0.195), screen)


def monitor(spot: Spot) -> None:
    """Add a screen on a stand."""
    wide, black = spot.uniform(0.45, 0.75), spot.some('rubber')
    high = wide * 0.58
    spot.box(0, 0, 0, (0.25, 0.18, 0.012), black)
    spot.tube(0, -0.03, 0, 0.022, 0.2, black)
    spot.box(0, 0, 0.12, (wide, 0.035, high), black)
    screen = spot.new('picture', glow=spot.uniform(0, 1.2))
    spot.box(0, 0.018, 0.135, (wide - 0.03, 0.006, high - 0.03), screen)


def keyboard(spot: Spot) -> None:
    """Add a keyboard and a mouse."""
    spot.box(0, 0, 0, (0.44, 0.14, 0.022), spot.new('goods'))
    spot.ball(0.32, 0, 0.015, (0.03, 0.055, 0.02), spot.some('rubber'))


def desk_lamp(spot: Spot) -> None:
    """Add a lamp with a shade."""
    metal, high = spot.some('metal'), spot.uniform(0.3, 0.5)
    spot.tube(0, 0, 0, 0.08, 0.02, metal)
    spot.tube(0, 0, 0, 0.01, high, metal)
    spot.tube(0, 0, high - 0.05, 0.13, 0.16, spot.new('fabric', glow=spot.uniform(0, 1.5)), 0.6)


def pot_plant(spot: Spot) -> None:
    """Add a plant in a pot, from 0.2 to 0.6 m high."""
    size = spot.uniform(0.6, 1.8)
    spot.tube(0, 0, 0, 0.06 * size, 0.12 * size, spot.some('plastic'), 1.3)
    leaves = spot.some('leaves')
    for _ in range(int(spot.rng.integers(2, 6))):
        x, y = spot.rng.normal(0, 0.05 * size, 2)
        radii = tuple(spot.uniform(0.03, 0.10) * size for _ in range(3))
        spot.ball(
            x, y, (0.17 + spot.uniform(0, 0.12)) * size, (radii[0], radii[1], radii[2]), leaves
        )


def tool_box(spot: Spot) -> None:
    """Add a case with a handle."""
    body = spot.some('plastic', 0.6)
    spot.box(0, 0, 0, (0.42, 0.2, 0.18), body)
    spot.tube(0, 0, 0.23, 0.012, 0.24, spot.some('rubber'), along='x')
    for x in (-0.11, 0.11):
        spot.box(x, 0, 0.18, (0.02, 0.02, 0.05), spot.some('rubber'))


def figure(spot: Spot) -> None:
    """Add a toy animal: a body, a head, four legs and a tail."""
    coat, size = spot.some('fabric', 0.6), spot.uniform(0.35, 1.0)
    spot.ball(0, 0, 0.17 * size, (0.08 * size, 0.17 * size, 0.08 * size), coat)
    spot.ball(0, 0.19 * size, 0.27 * size, (0.06 * size, 0.07 * size, 0.06 * size), coat)
    for x in (-0.05, 0.05):
        for y in (-0.11, 0.11):
            spot.tube(x * size, y * size, 0, 0.022 * size, 0.14 * size, coat)
    spot.tube(0, -0.2 * size, 0.2 * size, 0.015 * size, 0.15 * size, coat, along='y')


_SMALL: tuple[Thing, ...] = (
    cup, cup, bottle, can, can, book_pile, book_row, carton, carton, ball, bowl, paper, figure,
)  # fmt: skip
_DESK: tuple[Thing, ...] = (
    laptop, monitor, keyboard, desk_lamp, pot_plant, paper, cup, book_pile, tool_box,
)  # fmt: skip


def scatter(
    spot: Spot, wide_m: float, deep_m: float, count: int, things: tuple[Thing, ...] = _SMALL
) -> None:
    """Put things on a surface around the spot, apart from each other.

    :param wide_m: size of the surface along x.
    :param deep_m: size of the surface along y.
    :param count: how many are tried.
    """
    taken: list[tuple[float, float]] = []
    for _ in range(count):
        x = spot.uniform(-0.5, 0.5) * max(wide_m - 0.2, 0.02)
        y = spot.uniform(-0.5, 0.5) * max(deep_m - 0.16, 0.02)
        if any(math.hypot(x - a, y - b) < 0.2 for a, b in taken):
            continue
        taken.append((x, y))
        thing = things[int(spot.rng.integers(len(things)))]
        upright = thing in (monitor, laptop)
        yaw = spot.uniform(-0.4, 0.4) if upright else spot.uniform(-math.pi, math.pi)
        thing(spot.at(x, y, 0.0, yaw))


def scatter_desk(spot: Spot, wide_m: float, deep_m: float, count: int) -> None:
    """Put office things on a surface; see :func:`scatter`."""
    scatter(spot, wide_m, deep_m, count, _DESK + _SMALL[:4])
