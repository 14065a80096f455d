"""Scenes and shots as padded tensors, so that one upload carries all that a batch is made of."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depth_node.errors import SettingsError
from depth_node.world.samples import Shot
from depth_node.world.scene import SHADOW_PX
from depth_node.world.scene import Light
from depth_node.world.scene import Scene
from depth_node.world.scene import cover_blur_px
from depth_node.world.scene import stands
from depth_node.world.sensor import Sensor
from depth_node.world.solids import Solids

NOTHING = 255
"""Kind of the rows that fill up a table."""
SENSOR_FIELDS = tuple(item.name for item in fields(Sensor))
"""Names of the columns of ``PackedShots.sensor``."""
_NONE: dict[str, float | tuple[float, ...]] = {'jpeg_quality': 0.0, 'mono': (0.0, 0.0, 0.0)}


class _Sent:
    """Travels between processes as bytes: each shared tensor would hold an open file."""

    def __reduce__(self) -> tuple[object, ...]:
        values = (getattr(self, item.name) for item in fields(self))  # type: ignore[arg-type]
        arrays = [value.numpy() if isinstance(value, Tensor) else value for value in values]
        return _received, (type(self), arrays)


def _received(kind: Callable[..., object], values: Sequence[object]) -> object:
    return kind(
        *(torch.from_numpy(item) if isinstance(item, np.ndarray) else item for item in values)
    )


@dataclass(frozen=True)
class PackedScenes(_Sent):
    """What S scenes are made of, P solids in the richest; float64 where positions are subtracted.

    Views of one scene share it, and with it the pictures of the lights, which cost the most.
    """

    kind: Tensor
    """(S, P) uint8; NOTHING in rows without a solid."""
    center_m: Tensor
    """(S, P, 3) float64."""
    rotation: Tensor
    """(S, P, 3, 3) float64."""
    half_m: Tensor
    """(S, P, 3) float64, 1 in rows without a solid."""
    taper: Tensor
    """(S, P) float64."""
    stands: Tensor
    """(S, P) bool, what dims the light of the surroundings."""
    face_material: Tensor
    """(S, 3 P + 6) int64: of the faces of the solids, then of the planes of the shell."""
    shell_low_m: Tensor
    """(S, 3) float64."""
    shell_high_m: Tensor
    """(S, 3) float64."""
    shadow_pose: Tensor
    """(S, 4, 4) float64."""
    shadow_tangent: Tensor
    """(S,) float64."""
    cover_pose: Tensor
    """(S, 4, 4) float64."""
    cover_tangent: Tensor
    """(S,) float64."""
    cover_blur_px: Tensor
    """(S,)."""


@dataclass(frozen=True)
class PackedLooks(_Sent):
    """Light and paint of B views; M materials, N openings and L lamps in the richest of them."""

    materials: Tensor
    """(B, M, 10): texture, scale, tint of 3, contrast, stain, staining, shine, glow."""
    light_m: Tensor
    """(B, 3) position of the key light."""
    light_color: Tensor
    """(B, 3)."""
    reach_m: Tensor
    """(B,) 0 for the sun."""
    openings_m: Tensor
    """(B, N, 2, 3); low above high in rows without an opening."""
    has_openings: Tensor
    """(B,) bool."""
    patterns: Tensor
    """(1 + patterns, SHADOW_PX, SHADOW_PX) float16 share of the key light that passes; the first
    one lets all pass."""
    pattern: Tensor
    """(B,) int64 number of the view's pattern."""
    lamps: Tensor
    """(B, L, 7): position of 3, color of 3, reach; black in rows without a lamp."""
    surroundings: Tensor
    """(B, 23): ambient, fill, its direction, horizon, zenith, haze of 3 each; headlight, clouds,
    distance of the haze, mirror, its texture."""


@dataclass(frozen=True)
class PackedShots(_Sent):
    """B views of S scenes, all of one size."""

    scenes: PackedScenes
    looks: PackedLooks
    scene: Tensor
    """(B,) int64 number of the scene of each view."""
    pose: Tensor
    """(B, 4, 4) float64, of the optical frame in the world; behind a rolling shutter sheared, so
    that it takes depth * (x, y, 1) into the world all the same."""
    x: Tensor
    """(B, W) slopes x/z of the columns' centres."""
    y: Tensor
    """(B, H) slopes y/z of the rows' centres."""
    fx: Tensor
    """(B,) pixels."""
    sensor: Tensor
    """(B, 25): the fields of ``world.sensor.Sensor`` in their order; 0 stands for no JPEG and for
    no sensor without colours."""

    def to(self, device: torch.device) -> PackedShots:
        """Return the same on another device."""
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=True))


def pack(shots: Sequence[Shot]) -> PackedShots:
    """Return shots as tensors on the CPU.

    :param shots: B of them; their cameras are of one size; a scene is packed once.
    """
    scenes: list[Scene] = []
    numbers: list[int] = []
    for shot in shots:
        if not scenes or not _same_place(scenes[-1], shot.scene):
            scenes.append(shot.scene)
        numbers.append(len(scenes) - 1)
    axes = [_slopes(shot) for shot in shots]
    return PackedShots(
        scenes=_packed_scenes(scenes),
        looks=_packed_looks([shot.scene for shot in shots]),
        scene=torch.tensor(numbers),
        pose=torch.from_numpy(np.stack([_sheared_pose(shot) for shot in shots])),
        x=_float32(np.stack([x for x, _ in axes])),
        y=_float32(np.stack([y for _, y in axes])),
        fx=_float32([shot.camera.fx for shot in shots]),
        sensor=_float32([sensor_row(shot.sensor) for shot in shots]),
    )


def _same_place(one: Scene, other: Scene) -> bool:
    """Tell whether two views' scenes differ in light and paint at most."""
    return (
        one.solids is other.solids
        and one.shell is other.shell
        and one.cover is other.cover
        and one.light.shadow is other.light.shadow
    )


def _packed_scenes(scenes: Sequence[Scene]) -> PackedScenes:
    solids = [scene.solids for scene in scenes]
    shadows = [scene.light.shadow for scene in scenes]
    covers = [scene.cover for scene in scenes]
    return PackedScenes(
        kind=_padded([item.kind for item in solids], NOTHING),
        center_m=_padded([item.center_m for item in solids], 0.0),
        rotation=_padded([item.rotation for item in solids], 0.0),
        half_m=_padded([item.half_m for item in solids], 1.0),
        taper=_padded([item.taper for item in solids], 1.0),
        stands=_padded([stands(item) for item in solids], False),
        face_material=_face_materials(scenes),
        shell_low_m=torch.from_numpy(np.stack([scene.shell.low_m for scene in scenes])),
        shell_high_m=torch.from_numpy(np.stack([scene.shell.high_m for scene in scenes])),
        shadow_pose=torch.from_numpy(np.stack([view.T_world_view for view in shadows])),
        shadow_tangent=torch.tensor([view.tangent for view in shadows]).double(),
        cover_pose=torch.from_numpy(np.stack([view.T_world_view for view in covers])),
        cover_tangent=torch.tensor([view.tangent for view in covers]).double(),
        cover_blur_px=_float32([cover_blur_px(view.tangent) for view in covers]),
    )


def _packed_looks(scenes: Sequence[Scene]) -> PackedLooks:
    lights = [scene.light for scene in scenes]
    openings = [light.openings_m for light in lights]
    patterns, pattern = _patterns(lights)
    return PackedLooks(
        materials=_padded([_material_rows(scene) for scene in scenes], 0.0),
        light_m=_float32([light.position_m for light in lights]),
        light_color=_float32([light.color for light in lights]),
        reach_m=_float32([light.reach_m for light in lights]),
        openings_m=_padded([_or_none(item) for item in openings], 0.0).float(),
        has_openings=torch.tensor([len(item) > 0 for item in openings]),
        patterns=patterns,
        pattern=pattern,
        lamps=_padded([_lamp_rows(scene) for scene in scenes], 0.0),
        surroundings=_float32([_surroundings_row(scene) for scene in scenes]),
    )


def _patterns(lights: Sequence[Light]) -> tuple[Tensor, Tensor]:
    """Return the different patterns and the number of each light's own.

    :raises SettingsError: for a pattern of another size than the shadows of batches.
    """
    shape = (SHADOW_PX, SHADOW_PX)
    made = [np.ones(shape, np.float16)]
    numbers = []
    for light in lights:
        numbers.append(0 if light.pattern is None else len(made))
        if light.pattern is None:
            continue
        if light.pattern.shape != shape:
            raise SettingsError('pattern of a light', str(light.pattern.shape), f'{shape}')
        made.append(light.pattern.astype(np.float16))
    return torch.from_numpy(np.stack(made)), torch.tensor(numbers)


def _lamp_rows(scene: Scene) -> NDArray[np.float32]:
    rows = [(*lamp.position_m, *lamp.color, lamp.reach_m) for lamp in scene.lamps]
    return np.array(rows, np.float32).reshape(-1, 7)


def pinned(packed: PackedShots) -> PackedShots:
    """Return the same in page-locked memory, from which a GPU can copy beside other work."""
    return _mapped(packed, Tensor.pin_memory)


Packed = TypeVar('Packed', PackedScenes, PackedLooks, PackedShots)


def _mapped(packed: Packed, change: Callable[[Tensor], Tensor]) -> Packed:
    """Return the same with all its tensors changed."""
    changed = {}
    for item in fields(packed):
        value = getattr(packed, item.name)
        changed[item.name] = change(value) if isinstance(value, Tensor) else _mapped(value, change)
    return type(packed)(**changed)


def _padded(arrays: Sequence[NDArray[np.generic]], filling: float) -> Tensor:
    """Stack arrays of unequal length along their first axis."""
    longest = max(1, *(len(item) for item in arrays))
    shape = (len(arrays), longest, *arrays[0].shape[1:])
    result = np.full(shape, filling, arrays[0].dtype)
    for row, item in zip(result, arrays, strict=True):
        row[: len(item)] = item
    return torch.from_numpy(result)


def _float32(values: object) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))


def _slopes(shot: Shot) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    camera = shot.camera
    x = (np.arange(camera.width, dtype=np.float64) - camera.cx) / camera.fx
    y = (np.arange(camera.height, dtype=np.float64) - camera.cy) / camera.fy
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def _sheared_pose(shot: Shot) -> NDArray[np.float64]:
    """Return the pose times the shear of x/z, which grows evenly from row to row as y/z does."""
    camera, shear = shot.camera, np.eye(4)
    per_row = shot.shear / (camera.height - 1)
    shear[0, 1] = per_row * camera.fy
    shear[0, 2] = per_row * camera.cy - shot.shear / 2
    return np.asarray(shot.T_world_camera @ shear, np.float64)


def _face_materials(scenes: Sequence[Scene]) -> Tensor:
    longest = max(1, *(len(scene.solids.kind) for scene in scenes))
    result = np.zeros((len(scenes), 3 * longest + 6), np.int64)
    for row, scene in zip(result, scenes, strict=True):
        own = _faces(scene.solids)
        row[: len(own)] = own
        row[3 * longest :] = scene.shell.material.ravel()
    return torch.from_numpy(result)


def _faces(solids: Solids) -> NDArray[np.intp]:
    return np.asarray(solids.material.ravel(), np.intp)


def _material_rows(scene: Scene) -> NDArray[np.float32]:
    look = scene.materials
    columns = (look.texture, look.scale, *look.tint.T, look.contrast, look.stain, look.staining)
    return np.stack([*columns, look.shine, look.glow], axis=1).astype(np.float32)


def _or_none(openings: NDArray[np.float64]) -> NDArray[np.float64]:
    return openings if len(openings) else np.zeros((0, 2, 3))


def _surroundings_row(scene: Scene) -> NDArray[np.float32]:
    around = scene.surroundings
    vectors = (
        around.ambient,
        around.fill,
        around.fill_direction,
        around.horizon,
        around.zenith,
        around.haze,
    )
    last = (
        around.headlight,
        around.clouds,
        around.haze_m,
        around.mirror,
        around.mirror_texture,
    )
    return np.concatenate([*vectors, last]).astype(np.float32)


def sensor_row(sensor: Sensor) -> tuple[float, ...]:
    """Return a sensor as a row of ``PackedShots.sensor``."""
    row: list[float] = []
    for name in SENSOR_FIELDS:
        value = getattr(sensor, name)
        if value is None:
            value = _NONE[name]
        row += value if isinstance(value, tuple) else (value,)
    return tuple(float(item) for item in row)
