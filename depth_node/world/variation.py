"""The same scene in another light and other paint: training must not read depth from either.

Bright, hazy, saturated and finely patterned surfaces occur at every distance.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.world.light import color_of
from depth_node.world.materials import Materials
from depth_node.world.scene import Lamp
from depth_node.world.scene import Light
from depth_node.world.scene import Scene
from depth_node.world.scene import Surroundings
from depth_node.world.textures import texture_bank

Array = NDArray[np.float32]

_REFERENCES = ('collage', 'facade', 'cloud')


def varied(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return the scene with other light and other surfaces; its geometry stays.

    :param rng: source of all choices; equal generators give equal scenes.
    """
    return vary_light(vary_materials(scene, rng), rng)


def vary_light(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return the scene in another light, from dim and coloured to overexposed.

    The key light keeps its place and shadows; strength, colour, a pattern on its way, the
    scattered light, lamps without shadows, sky and haze are new.
    """
    outdoors = not np.isfinite(scene.shell.high_m[2])
    lit = replace(
        scene,
        light=_key(scene.light, rng),
        surroundings=_surroundings(scene.surroundings, rng, outdoors),
        lamps=_lamps(scene, rng, outdoors),
    )
    return _by_torch(lit, rng, outdoors) if rng.random() < 0.08 else lit


def _by_torch(scene: Scene, rng: np.random.Generator, outdoors: bool) -> Scene:
    """Return the scene lit from the camera alone, or nearly: what is far is dark."""
    rest = np.float32(np.exp(rng.uniform(math.log(0.01), math.log(0.2))))
    around = scene.surroundings
    dim = replace(
        around,
        ambient=around.ambient * rest,
        fill=around.fill * rest,
        horizon=around.horizon * rest,
        zenith=around.zenith * rest,
        headlight=float(np.exp(rng.uniform(math.log(0.3), math.log(6.0 if outdoors else 2.0)))),
        haze=around.haze * rest,
    )
    return replace(
        scene, light=replace(scene.light, color=scene.light.color * rest), surroundings=dim
    )


def _key(light: Light, rng: np.random.Generator) -> Light:
    hue = 0.45 if rng.random() < 0.12 else 0.12
    strength = float(light.color.mean() * np.exp(rng.normal(0.1, 0.6)))
    if rng.random() < 0.12:
        strength += rng.uniform(1.5, 5.0)  # burnt-out patches
    pattern = _pattern(light.shadow.size_px, rng) if rng.random() < 0.35 else None
    return replace(light, color=color_of(rng, strength, hue), pattern=pattern)


def _pattern(size: int, rng: np.random.Generator) -> Array:
    """Return what the key light passes through: blinds, panes, twigs or a slit."""
    kind = rng.random()
    row, column = np.mgrid[0:size, 0:size].astype(np.float32) / size
    turn = rng.uniform(0, math.pi)
    along = column * math.cos(turn) + row * math.sin(turn)
    across = row * math.cos(turn) - column * math.sin(turn)
    if kind < 0.3:
        open_ = np.sin(along * rng.uniform(15, 120)) > rng.uniform(-0.6, 0.6)
    elif kind < 0.55:
        wave, width = rng.uniform(8, 40), rng.uniform(-0.9, 0.2)
        open_ = (np.sin(along * wave) > width) & (np.sin(across * wave * 0.7) > width)
    elif kind < 0.8:
        cells = int(rng.integers(6, 60))
        noise = rng.normal(size=(cells, cells)).astype(np.float32)
        noise = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
        open_ = noise > rng.uniform(-0.5, 0.7)
    else:
        middle, half = rng.uniform(0.3, 0.7), rng.uniform(0.03, 0.2)
        open_ = np.abs(along - middle * (math.cos(turn) + math.sin(turn))) < half
    dim = np.float32(rng.uniform(0.0, 0.4))
    pattern = np.where(open_, np.float32(1.0), dim)
    return np.asarray(cv2.GaussianBlur(pattern, (0, 0), rng.uniform(0.4, 2.5)), np.float32)


def _surroundings(around: Surroundings, rng: np.random.Generator, outdoors: bool) -> Surroundings:
    ambient = color_of(rng, float(np.exp(rng.uniform(math.log(0.03), math.log(0.9)))), 0.15)
    changes: dict[str, object] = {
        'ambient': ambient,
        'fill': color_of(rng, float(rng.uniform(0.0, 0.6)), 0.35 * rng.random()),
        'mirror': float(rng.uniform(0.3, 1.5)) if rng.random() < 0.4 else 0.0,
        'mirror_texture': _any_texture(rng, _REFERENCES),
    }
    if rng.random() < (0.25 if outdoors else 0.2):
        changes['headlight'] = float(rng.uniform(0.2, 3.0))
    if rng.random() < (0.3 if outdoors else 0.1):
        dark = rng.random() < 0.6
        changes['haze'] = color_of(rng, rng.uniform(0, 0.15) if dark else rng.uniform(0.1, 1), 0.4)
        thick = (20.0, 150.0) if outdoors else (5.0, 30.0)
        changes['haze_m'] = float(rng.uniform(*thick))
    if outdoors and rng.random() < 0.6:
        changes |= _sky(rng)
    return replace(around, **changes)  # type: ignore[arg-type]


def _sky(rng: np.random.Generator) -> dict[str, object]:
    """Return a sky of any brightness: by day, at dusk, in storm, of any colour."""
    level = float(np.exp(rng.uniform(math.log(0.02), math.log(2.5))))
    blue = np.array([rng.uniform(0.2, 0.7), rng.uniform(0.5, 0.9), 1.0])
    zenith = level * blue if rng.random() < 0.5 else color_of(rng, level, 0.4)
    return {
        'horizon': color_of(rng, level * float(np.exp(rng.normal(0, 0.5))), 0.35),
        'zenith': np.asarray(zenith, np.float32),
        'clouds': float(rng.uniform(0.2, 0.99)) if rng.random() < 0.75 else 0.0,
    }


def _lamps(scene: Scene, rng: np.random.Generator, outdoors: bool) -> tuple[Lamp, ...]:
    """Draw lamps in the part where cameras are, so that what is near is often bright."""
    count = int(rng.choice([0, 1, 2, 3, 4], p=[0.5, 0.22, 0.14, 0.08, 0.06]))
    high = 6.0 if outdoors else float(scene.shell.high_m[2])
    lamps = []
    for _ in range(count):
        flat = rng.uniform(scene.walk_low_m, scene.walk_high_m)
        spot = np.array([flat[0], flat[1], rng.uniform(0.15, 0.97) * high], np.float32)
        strength = float(np.exp(rng.uniform(math.log(0.2), math.log(3.0))))
        lamps.append(Lamp(spot, color_of(rng, strength, 0.3), float(rng.uniform(0.5, 4.0))))
    return tuple(lamps)


def vary_materials(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return the scene in other paint: white, dark, plain, garish, glossy, oddly patterned."""
    materials = scene.materials
    count = len(materials.texture)
    tint = _tints(materials.tint, rng)
    shell = np.unique(scene.shell.material)
    paint = rng.random()
    if paint < 0.2 and np.isfinite(scene.shell.high_m[2]):
        tint[shell] = _pale(rng, len(shell), 0.6, 0.97)
    elif paint < 0.3:
        pale = rng.random(count) < 0.6
        tint[pale] = _pale(rng, int(pale.sum()), 0.55, 0.97)
    elif paint < 0.36:
        tint *= np.float32(rng.uniform(0.1, 0.4))
    contrast = materials.contrast * np.exp(rng.normal(0.1, 0.4, count))
    contrast[rng.random(count) < rng.uniform(0.0, 0.7)] *= 0.15
    shine = materials.shine.copy()
    if rng.random() < 0.35:
        shine[scene.shell.material[2, 0]] = rng.uniform(0.3, 1.0)
    glossy = rng.random(count) < 0.15
    shine[glossy] = np.maximum(shine[glossy], rng.uniform(0.3, 1.0, int(glossy.sum())))
    changed = replace(
        materials,
        tint=tint,
        contrast=np.clip(contrast, 0.0, 1.0).astype(np.float32),
        shine=shine.astype(np.float32),
    )
    return replace(scene, materials=_contradicted(changed, rng))


def _pale(rng: np.random.Generator, count: int, low: float, high: float) -> Array:
    value = rng.uniform(low, high, (count, 1))
    return np.asarray(value * rng.uniform(0.93, 1.0, (count, 3)), np.float32)


def _tints(tint: Array, rng: np.random.Generator) -> Array:
    """Return the colours, some stronger, some turned round the wheel."""
    strength = np.exp(rng.normal(0.25, 0.35))
    grey = tint.mean(axis=1, keepdims=True)
    stronger = grey + strength * (tint - grey)
    light = np.exp(rng.normal(0.0, 0.25, (len(tint), 1)))
    return np.asarray(np.clip(stronger * light, 0.005, 0.98), np.float32)


def _contradicted(materials: Materials, rng: np.random.Generator) -> Materials:
    """Give some surfaces textures that say nothing of their size or nature."""
    count = len(materials.texture)
    odd = rng.random(count) < (0.4 if rng.random() < 0.12 else 0.06)
    texture, scale = materials.texture.copy(), materials.scale.copy()
    texture[odd] = rng.integers(0, len(texture_bank().period_m), int(odd.sum()))
    scale[odd] *= np.exp(rng.normal(0.0, 0.7, int(odd.sum())))
    return replace(materials, texture=texture, scale=scale.astype(np.float32))


def _any_texture(rng: np.random.Generator, families: tuple[str, ...]) -> int:
    bank = texture_bank()
    name = families[int(rng.integers(len(families)))]
    return bank.first[name] + int(rng.integers(bank.count[name]))
