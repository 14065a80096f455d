"""Scenes and shots as padded tensors, so that one upload carries all that a batch is made of."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depth_node.frames import CameraModel
from depth_node.world.samples import Shot
from depth_node.world.scene import Scene
from depth_node.world.scene import cover_blur_px
from depth_node.world.scene import stands
from depth_node.world.sensor import Sensor
from depth_node.world.solids import Solids

NOTHING = 255
"""Kind of the rows that fill up a table."""
_NO_JPEG = 0


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
    """S scenes; P solids, M materials and N openings of the richest of them; world as in world/.

    float64 where positions are subtracted, float32 elsewhere.
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
    materials: Tensor
    """(S, M, 10): texture, scale, tint of 3, contrast, stain, staining, shine, glow."""
    shell_low_m: Tensor
    """(S, 3) float64."""
    shell_high_m: Tensor
    """(S, 3) float64."""
    light_m: Tensor
    """(S, 3) position of the key light."""
    light_color: Tensor
    """(S, 3)."""
    reach_m: Tensor
    """(S,) 0 for the sun."""
    openings_m: Tensor
    """(S, N, 2, 3); low above high in rows without an opening."""
    has_openings: Tensor
    """(S,) bool."""
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
    surroundings: Tensor
    """(S, 21): ambient, fill, its direction, horizon, zenith, haze of 3 each; headlight, clouds,
    distance of the haze."""


@dataclass(frozen=True)
class PackedShots(_Sent):
    """B views of S scenes, all of one size."""

    scenes: PackedScenes
    scene: Tensor
    """(B,) int64 number of the scene of each view."""
    pose: Tensor
    """(B, 4, 4) float64, of the optical frame in the world."""
    x: Tensor
    """(B, W) slopes x/z of the columns' centres."""
    y: Tensor
    """(B, H) slopes y/z of the rows' centres."""
    fx: Tensor
    """(B,) pixels."""
    sensor: Tensor
    """(B, 12): exposure, metering, white balance of 3, gamma, shoulder, saturation, vignette,
    blur_px, noise, jpeg_quality (0 for none)."""

    def to(self, device: torch.device) -> PackedShots:
        """Return the same on another device."""
        return _moved(self, device)


def pack(shots: Sequence[Shot]) -> PackedShots:
    """Return shots as tensors on the CPU.

    :param shots: B of them; their cameras are of one size; a scene is packed once.
    """
    scenes: list[Scene] = []
    numbers: list[int] = []
    for shot in shots:
        if not scenes or scenes[-1] is not shot.scene:
            scenes.append(shot.scene)
        numbers.append(len(scenes) - 1)
    columns, rows = zip(*(_slopes(shot.camera) for shot in shots), strict=True)
    return PackedShots(
        scenes=pack_scenes(scenes),
        scene=torch.tensor(numbers),
        pose=torch.from_numpy(np.stack([shot.T_world_camera for shot in shots])),
        x=_float32(np.stack(columns)),
        y=_float32(np.stack(rows)),
        fx=_float32([shot.camera.fx for shot in shots]),
        sensor=_float32([_sensor_row(shot.sensor) for shot in shots]),
    )


def pack_scenes(scenes: Sequence[Scene]) -> PackedScenes:
    """Return scenes as tensors on the CPU."""
    solids = [scene.solids for scene in scenes]
    lights = [scene.light for scene in scenes]
    openings = [light.openings_m for light in lights]
    return PackedScenes(
        kind=_padded([item.kind for item in solids], NOTHING),
        center_m=_padded([item.center_m for item in solids], 0.0),
        rotation=_padded([item.rotation for item in solids], 0.0),
        half_m=_padded([item.half_m for item in solids], 1.0),
        taper=_padded([item.taper for item in solids], 1.0),
        stands=_padded([stands(item) for item in solids], False),
        face_material=_face_materials(scenes),
        materials=_padded([_material_rows(scene) for scene in scenes], 0.0),
        shell_low_m=torch.from_numpy(np.stack([scene.shell.low_m for scene in scenes])),
        shell_high_m=torch.from_numpy(np.stack([scene.shell.high_m for scene in scenes])),
        light_m=_float32([light.position_m for light in lights]),
        light_color=_float32([light.color for light in lights]),
        reach_m=_float32([light.reach_m for light in lights]),
        openings_m=_padded([_or_none(item) for item in openings], 0.0).float(),
        has_openings=torch.tensor([len(item) > 0 for item in openings]),
        shadow_pose=torch.from_numpy(np.stack([light.shadow.T_world_view for light in lights])),
        shadow_tangent=torch.tensor([light.shadow.tangent for light in lights]).double(),
        cover_pose=torch.from_numpy(np.stack([scene.cover.T_world_view for scene in scenes])),
        cover_tangent=torch.tensor([scene.cover.tangent for scene in scenes]).double(),
        cover_blur_px=_float32([cover_blur_px(scene.cover.tangent) for scene in scenes]),
        surroundings=_float32([_surroundings_row(scene) for scene in scenes]),
    )


def pinned(packed: PackedShots) -> PackedShots:
    """Return the same in page-locked memory, from which a GPU can copy beside other work."""
    moved = {
        item.name: getattr(packed, item.name).pin_memory()
        for item in fields(packed)
        if item.name != 'scenes'
    }
    scenes = {
        item.name: getattr(packed.scenes, item.name).pin_memory() for item in fields(PackedScenes)
    }
    return PackedShots(scenes=PackedScenes(**scenes), **moved)


def _moved(packed: PackedShots, device: torch.device) -> PackedShots:
    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    scenes = {item.name: move(getattr(packed.scenes, item.name)) for item in fields(PackedScenes)}
    others = {
        item.name: move(getattr(packed, item.name))
        for item in fields(packed)
        if item.name != 'scenes'
    }
    return PackedShots(scenes=PackedScenes(**scenes), **others)


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


def _slopes(camera: CameraModel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = (np.arange(camera.width, dtype=np.float64) - camera.cx) / camera.fx
    y = (np.arange(camera.height, dtype=np.float64) - camera.cy) / camera.fy
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


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
    last = (around.headlight, around.clouds, around.haze_m)
    return np.concatenate([*vectors, last]).astype(np.float32)


def _sensor_row(sensor: Sensor) -> tuple[float, ...]:
    return (
        sensor.exposure,
        sensor.metering,
        *sensor.white_balance,
        sensor.gamma,
        sensor.shoulder,
        sensor.saturation,
        sensor.vignette,
        sensor.blur_px,
        sensor.noise,
        float(_NO_JPEG if sensor.jpeg_quality is None else sensor.jpeg_quality),
    )
