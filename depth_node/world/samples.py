"""Training samples: a random scene through a random camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.frames import CameraModel
from depth_node.world.render import render
from depth_node.world.scene import Scene
from depth_node.world.scenes import KINDS
from depth_node.world.scenes import make
from depth_node.world.sensor import Sensor
from depth_node.world.sensor import random_sensor
from depth_node.world.solids import Floats
from depth_node.world.variation import varied
from depth_node.world.viewpoints import pinhole_slopes as pinhole_slopes
from depth_node.world.viewpoints import random_camera
from depth_node.world.viewpoints import rolled_shutter
from depth_node.world.viewpoints import worthwhile_pose

SHARES: Mapping[str, float] = {
    'room': 0.17,
    'home': 0.13,
    'tabletop': 0.15,
    'closeup': 0.09,
    'office': 0.05,
    'corridor': 0.04,
    'warehouse': 0.05,
    'workshop': 0.06,
    'street': 0.10,
    'underpass': 0.04,
    'yard': 0.05,
    'field': 0.03,
    'slope': 0.04,
}
"""Kinds that training draws, with their weights."""
HELD_OUT_SHARES: Mapping[str, float] = {
    'shop': 0.3,
    'stairwell': 0.2,
    'parking': 0.25,
    'park': 0.25,
}
"""Kinds that only evaluation draws, with their weights."""
HELD_OUT_KINDS = tuple(HELD_OUT_SHARES)
_LARGEST_PX = 8192


@dataclass(frozen=True)
class Sample:
    """A picture with its exact depth."""

    rgb: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    depth_m: NDArray[np.float32]
    """(H, W) metres along z, exact at the pixel centres; +inf is sky."""
    camera: CameraModel
    """Intrinsics of both."""
    kind: str
    """Kind of the scene."""


@dataclass(frozen=True)
class Shot:
    """A sample before it is rendered."""

    scene: Scene
    """In the light and paint of this view."""
    T_world_camera: Floats
    """(4, 4) pose of the optical frame in the world."""
    camera: CameraModel
    sensor: Sensor
    shear: float = 0.0
    """By which x/z moves from the first row to the last while a rolling shutter reads them."""


def draw(
    rng: np.random.Generator,
    height: int,
    width: int,
    views_per_scene: int = 1,
    supersample: float = 1.0,
    shares: Mapping[str, float] = SHARES,
) -> list[Sample]:
    """Draw a scene of a random kind and look at it from several places, each in another light.

    :param rng: source of all choices; equal generators give equal samples.
    :param height: rows, 2 to 8192.
    :param width: columns, 2 to 8192.
    :param views_per_scene: samples to return; building a scene takes about as long as one view.
    :param supersample: rays per pixel and axis for the colors; above 1 edges are smooth.
    :param shares: weights of the kinds of scenes; :data:`HELD_OUT_SHARES` for evaluation.
    :raises SettingsError: when a size, a count, a kind or a weight is out of range.
    """
    scene = _scene(rng, height, width, views_per_scene, shares)
    # noise is drawn view by view: what a seed gives must not hang on how views are made
    return [
        taken(_shot(scene, rng, height, width), rng, supersample) for _ in range(views_per_scene)
    ]


def shots(
    rng: np.random.Generator,
    height: int,
    width: int,
    views_per_scene: int = 1,
    shares: Mapping[str, float] = SHARES,
) -> list[Shot]:
    """Draw a scene of a random kind and cameras that look at it; nothing is rendered.

    Arguments and errors as of :func:`draw`.
    """
    scene = _scene(rng, height, width, views_per_scene, shares)
    return [_shot(scene, rng, height, width) for _ in range(views_per_scene)]


def taken(shot: Shot, rng: np.random.Generator | None, supersample: float = 1.0) -> Sample:
    """Render a shot.

    :param rng: noise of the sensor; none where None.
    :param supersample: rays per pixel and axis for the colors.
    """
    slopes = pinhole_slopes(shot.camera)
    if shot.shear:
        slopes = rolled_shutter(slopes, shot.shear)
    rendered = render(
        shot.scene,
        shot.T_world_camera,
        slopes,
        supersample=supersample,
        sensor=shot.sensor,
        rng=rng,
    )
    return Sample(rendered.rgb, rendered.depth_m, shot.camera, shot.scene.kind)


def _scene(
    rng: np.random.Generator,
    height: int,
    width: int,
    views_per_scene: int,
    shares: Mapping[str, float],
) -> Scene:
    if not (2 <= height <= _LARGEST_PX and 2 <= width <= _LARGEST_PX):
        raise SettingsError(
            'sample size', f'{width} x {height}', f'2 to {_LARGEST_PX} pixels each way'
        )
    if views_per_scene < 1:
        raise SettingsError('views_per_scene', str(views_per_scene), 'at least 1')
    return make(_kind(rng, shares), rng)


def _kind(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    for kind, weight in shares.items():
        if kind not in KINDS:
            raise SettingsError('kind of samples', quoted(kind), f'one of {", ".join(KINDS)}')
        if not 0 <= weight < np.inf:
            raise SettingsError(f'share of {kind}', str(weight), 'a weight of at least 0')
    total = sum(shares.values())
    if total <= 0:
        raise SettingsError('shares of samples', str(dict(shares)), 'a kind with a weight above 0')
    weights = np.array(list(shares.values())) / total
    return list(shares)[int(rng.choice(len(weights), p=weights))]


def _shot(scene: Scene, rng: np.random.Generator, height: int, width: int) -> Shot:
    camera = random_camera(rng, height, width)
    pose = worthwhile_pose(scene, rng, camera)
    shear = float(rng.normal(0.0, 0.06)) if rng.random() < 0.06 else 0.0
    return Shot(varied(scene, rng), pose, camera, random_sensor(rng), shear)
