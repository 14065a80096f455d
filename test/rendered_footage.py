"""Frames of a procedural room with exact poses and depth, in memory, with a cache's methods."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from functools import lru_cache
from types import SimpleNamespace

import numpy as np

from depth_node.camera.fitting import from_horizontal_fov
from depth_node.finetuning.samples import Footage
from depth_node.frames import CameraModel
from depth_node.world import paths
from depth_node.world import scenes
from depth_node.world.render import render
from depth_node.world.samples import pinhole_slopes


@dataclass
class MemoryCache:
    """What dataset.frame_cache.FrameCache offers to training."""

    camera: CameraModel
    images: list[np.ndarray]
    depths: list[np.ndarray]
    poses: list[np.ndarray]
    beams: int = 40
    seen: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.seen = np.ones((self.camera.height, self.camera.width), bool)

    def rgb(self, index: int) -> np.ndarray:
        return self.images[index]

    def sparse(self, index: int) -> SimpleNamespace | None:
        if not self.beams:
            return None
        u = np.linspace(0, self.camera.width - 1, self.beams).round().astype(np.float32)
        v = np.full(self.beams, self.camera.height // 2, np.float32)
        depth = self.depths[index][v.astype(int), u.astype(int)]
        known = np.isfinite(depth)
        return SimpleNamespace(u=u[known], v=v[known], depth_m=depth[known])


@lru_cache(maxsize=4)
def rendered(height: int = 64, width: int = 96, frames: int = 12, seed: int = 13) -> MemoryCache:
    """Render a drive through a room; do not change what is returned."""
    scene = scenes.make('room', np.random.default_rng(seed))
    settings = paths.PathSettings(paths.ROBOT, frames / 5.0, 5.0, False, False)
    path = paths.make(scene, np.random.default_rng((seed, 1)), settings)
    camera = from_horizontal_fov(width, height, 1.2)
    camera = CameraModel(width, height, camera.fx, camera.fy, camera.cx + 3.0, camera.cy - 2.0)
    poses = [path.T_world_camera(index) for index in range(frames)]
    views = [render(scene, pose, pinhole_slopes(camera), supersample=2.0) for pose in poses]
    return MemoryCache(
        camera, [view.rgb for view in views], [view.depth_m for view in views], poses
    )


def pair(cache: MemoryCache, target: int, source: int) -> SimpleNamespace:
    """Return what dataset.pairs.Pair offers to training."""
    motion = np.linalg.inv(cache.poses[source]) @ cache.poses[target]
    return SimpleNamespace(target=target, source=source, T_source_target=motion)


def footage(cache: MemoryCache, *, start: bool = False, reach: int = 2) -> Footage:
    """Return all inner frames with the frames before and behind; the true depth as start."""
    count = len(cache.images)
    targets = {
        at: [pair(cache, at, at - reach), pair(cache, at, at + reach)]
        for at in range(reach, count - reach)
    }
    targets[0] = [pair(cache, 0, reach)]
    maps = {at: 1 / depth for at, depth in enumerate(cache.depths)} if start else None
    return Footage(cache, targets, start=maps)
