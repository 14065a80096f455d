"""Drawing the light of a scene: lamps, sun, sky, haze; bright is not allowed to mean far."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from depth_node.world.scene import Light
from depth_node.world.scene import Surroundings
from depth_node.world.scene import shadow_view
from depth_node.world.solids import Floats
from depth_node.world.solids import Solids

Array = NDArray[np.float32]

_SUN_M = 300.0
_NO_OPENINGS = np.zeros((0, 2, 3))


def color_of(rng: np.random.Generator, strength: float, spread: float = 0.12) -> Array:
    """Return a light of a mean strength, warm or cold."""
    warm = rng.normal(0.0, spread)
    tone = np.exp(np.array([warm, rng.normal(0.0, spread * 0.3), -warm]))
    return np.asarray(strength * tone / tone.mean(), np.float32)


def sun(
    rng: np.random.Generator,
    solids: Solids,
    target_m: Floats,
    radius_m: float,
    strength: float,
    openings_m: Floats = _NO_OPENINGS,
    direction: Floats | None = None,
) -> Light:
    """Return the sun, whose shadows are computed within ``radius_m`` of the target."""
    toward = _sun_direction(rng) if direction is None else direction
    position = target_m + _SUN_M * toward
    return Light(
        position,
        color_of(rng, strength),
        0.0,
        shadow_view(solids, position, target_m, radius_m),
        openings_m,
    )


def _sun_direction(rng: np.random.Generator) -> Floats:
    height, around = rng.uniform(0.2, 1.25), rng.uniform(0, 2 * math.pi)
    flat = math.cos(height)
    return np.array([flat * math.cos(around), flat * math.sin(around), math.sin(height)])


def lamp(
    rng: np.random.Generator,
    solids: Solids,
    position_m: Floats,
    target_m: Floats,
    radius_m: float,
    strength: float,
) -> Light:
    """Return a lamp, whose shadows are computed within ``radius_m`` of its target."""
    return Light(
        position_m,
        color_of(rng, strength, 0.2),
        float(rng.uniform(1.5, 5.0)),
        shadow_view(solids, position_m, target_m, radius_m),
        _NO_OPENINGS,
    )


def indoor_surroundings(rng: np.random.Generator, key_strength: float) -> Surroundings:
    """Return the scattered light of a room; smoke or a headlight now and then."""
    ambient = rng.uniform(0.08, 0.7) * (1.4 - 0.6 * key_strength)
    smoky = rng.random() < 0.07
    return Surroundings(
        color_of(rng, ambient),
        color_of(rng, rng.uniform(0.0, 0.5)),
        _unit(rng),
        float(rng.uniform(0.3, 2.0)) if rng.random() < 0.12 else 0.0,
        color_of(rng, 0.5),
        color_of(rng, 0.5),
        0.0,
        _haze_color(rng),
        float(rng.uniform(6, 30)) if smoky else float(rng.uniform(150, 2000)),
    )


def outdoor_surroundings(rng: np.random.Generator, night: bool) -> Surroundings:
    """Return sky, scattered light and haze of a day or a night."""
    if night:
        level = rng.uniform(0.01, 0.15)
    else:
        level = float(rng.choice([rng.uniform(0.05, 0.4), rng.uniform(0.3, 1.6)]))
    horizon = color_of(rng, level, 0.3)
    zenith = color_of(rng, level * rng.uniform(0.3, 1.3), 0.25)
    if not night and rng.random() < 0.5:
        blue = np.array([rng.uniform(0.3, 0.7), rng.uniform(0.6, 0.9), 1.0])
        zenith = np.asarray(level * blue, np.float32)
    ambient = rng.uniform(0.03, 0.2) if night else rng.uniform(0.15, 0.6)
    haze = horizon if rng.random() < 0.45 else _haze_color(rng)
    thin = float(np.exp(rng.uniform(math.log(150), math.log(4000))))
    return Surroundings(
        color_of(rng, ambient),
        color_of(rng, rng.uniform(0.0, 0.25)),
        _unit(rng),
        float(rng.uniform(0.5, 4.0)) if rng.random() < (0.5 if night else 0.05) else 0.0,
        horizon,
        zenith,
        float(rng.uniform(0.2, 0.95)) if rng.random() < 0.7 else 0.0,
        haze,
        float(rng.uniform(25, 120)) if rng.random() < 0.15 else thin,
    )


def _haze_color(rng: np.random.Generator) -> Array:
    return color_of(rng, float(rng.choice([0.02, 0.1, 0.3, 0.8])), 0.2)


def _unit(rng: np.random.Generator) -> Array:
    around, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 1.2)
    flat = math.cos(height)
    return np.array(
        [flat * math.cos(around), flat * math.sin(around), math.sin(height)], np.float32
    )
