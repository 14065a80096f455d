"""Closed spaces and what is fixed to them: doors, windows, pictures, lamps, light."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from depth_node.world import clutter
from depth_node.world import light
from depth_node.world.builder import Builder
from depth_node.world.builder import Spot
from depth_node.world.scene import Scene
from depth_node.world.scene import cover_view
from depth_node.world.solids import Floats
from depth_node.world.solids import Shell


@dataclass(frozen=True)
class Hall:
    """A closed space while it is being furnished; its middle is the origin."""

    build: Builder
    """Takes everything that is added."""
    size_m: tuple[float, float, float]
    """Length along x, width along y, height."""
    openings_m: list[Floats] = field(default_factory=list)
    """(2, 3) low and high corner of each window that lets the sun in."""

    @property
    def low_m(self) -> Floats:
        """Return the lowest corner, metres."""
        return np.array([-self.size_m[0] / 2, -self.size_m[1] / 2, 0.0])

    @property
    def high_m(self) -> Floats:
        """Return the highest corner, metres."""
        return np.array([self.size_m[0] / 2, self.size_m[1] / 2, self.size_m[2]])

    def wall(self, number: int) -> tuple[Spot, float]:
        """Return a frame at the left end of a wall (x along it, y inward) and its length."""
        half_x, half_y = self.size_m[0] / 2, self.size_m[1] / 2
        corners = ((-half_x, -half_y), (half_x, -half_y), (half_x, half_y), (-half_x, half_y))
        x, y = corners[number]
        return self.build.spot(x, y, 0, number * math.pi / 2), self.size_m[number % 2]


def door(spot: Spot) -> None:
    """Add a door in a wall: shut, or open before darkness or light."""
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


def window(hall: Hall, spot: Spot, x: float, long: float, sunny: bool) -> float:
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


def picture(spot: Spot) -> None:
    """Add a framed picture or a screen."""
    wide, high = spot.uniform(0.2, 1.1), spot.uniform(0.2, 0.9)
    z = spot.uniform(1.2, 1.7) - high / 2
    spot.box(0, 0.012, z, (wide + 0.06, 0.025, high + 0.06), spot.some('wood'))
    spot.box(
        0, 0.02, z + 0.03, (wide, 0.02, high), spot.new('picture', glow=0.8 * spot.chance(0.1))
    )


def wall_shelf(spot: Spot) -> None:
    """Add a board with things on it."""
    wide, z = spot.uniform(0.5, 1.2), spot.uniform(1.2, 1.8)
    spot.box(0, 0.12, z, (wide, 0.24, 0.025), spot.some('wood'))
    clutter.scatter(spot.at(0, 0.12, z + 0.025), wide, 0.24, int(spot.rng.integers(1, 6)))


def lamp_rows(hall: Hall, rows: int, pitch: float) -> None:
    """Add lamps under the ceiling, ``pitch`` metres apart."""
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


def finish(kind: str, hall: Hall, sunny: bool) -> Scene:
    """Give the space its light and return the scene.

    :param sunny: the sun shines through the windows, if there are any.
    """
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


def _shell_materials(build: Builder, kind: str) -> NDArray[np.intp]:
    palette, rng = build.palette, build.rng
    plain = palette.new('wall' if rng.random() < 0.65 else 'wallpaper')
    walls = [plain if rng.random() < 0.75 else palette.new('wallpaper') for _ in range(4)]
    if kind == 'warehouse':
        walls = [palette.some('sheet' if rng.random() < 0.6 else 'masonry', 0.2)] * 4
    floor = palette.new('concrete' if kind == 'warehouse' else 'floor')
    ceiling = palette.new('sheet' if kind == 'warehouse' else 'ceiling')
    return np.array([[walls[0], walls[1]], [walls[2], walls[3]], [floor, ceiling]], np.intp)
