"""Batches that are rendered and kept on one device."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from depth_node.pretraining.batch import Batch
from depth_node.pretraining.batch import BatchSpec
from depth_node.pretraining.rendering import renderer
from depth_node.pretraining.rendering.packing import PackedShots
from depth_node.pretraining.rendering.packing import pack
from depth_node.pretraining.rendering.packing import pinned
from depth_node.world import samples


class SceneShots(IterableDataset[tuple[int, PackedShots]]):
    """Shots for whole batches of one shape each: cheap to draw, quick to send, not rendered.

    The same seed, worker number and count of workers give the same shots.
    """

    def __init__(self, spec: BatchSpec, seed: int) -> None:
        super().__init__()
        self._spec = spec
        self._seed = seed

    def __iter__(self) -> Iterator[tuple[int, PackedShots]]:
        """Yield the number of a shape and as many shots of it as a batch has images, for ever."""
        info = torch.utils.data.get_worker_info()
        cv2.setNumThreads(1)
        rng = np.random.default_rng((self._seed, info.id if info else 0))
        spec = self._spec
        while True:
            index = int(rng.choice(len(spec.shapes), p=spec.shares))
            height, width = spec.shapes[index]
            shots: list[samples.Shot] = []
            while len(shots) < spec.size:
                shots += samples.shots(rng, height, width, spec.views_per_scene)
            yield index, pack(shots[: spec.size])


class Pool:
    """The last views of one shape, on the device; the newest replace the oldest."""

    def __init__(self, spec: BatchSpec, shape: tuple[int, int], device: torch.device) -> None:
        self._spec = spec
        self._image = torch.empty((spec.pool, 3, *shape), dtype=torch.uint8, device=device)
        self._depth = torch.empty((spec.pool, 1, *shape), device=device)
        self._next = 0
        self._filled = 0

    def add(self, image: Tensor, depth_m: Tensor) -> None:
        """Take in views.

        :param image: (B, 3, H, W) uint8; :param depth_m: (B, 1, H, W) at the card's focal length.
        """
        count = image.shape[0]
        places = (torch.arange(count) + self._next) % self._spec.pool
        places = places.to(image.device)
        self._image[places] = image
        self._depth[places] = depth_m
        self._next = (self._next + count) % self._spec.pool
        self._filled = min(self._filled + count, self._spec.pool)

    def drawn(self, rng: np.random.Generator) -> Batch:
        """Return a batch of different views."""
        chosen = torch.from_numpy(rng.choice(self._filled, self._spec.size, replace=False))
        chosen = chosen.to(self._image.device)
        return Batch(self._image[chosen], self._depth[chosen])


def device_batches(
    spec: BatchSpec,
    seed: int,
    shots: Iterable[tuple[int, PackedShots]],
    device: torch.device,
) -> Iterator[Batch]:
    """Render shots on a device and draw every view ``spec.reuse`` times on average.

    :param shots: as :class:`SceneShots` yields them.
    """
    rng = np.random.default_rng((seed, 1 << 20))
    noise = torch.Generator(device).manual_seed(seed)
    pools: list[Pool | None] = [None] * len(spec.shapes)
    for index, drawn in shots:
        packed = pinned(drawn) if device.type == 'cuda' else drawn
        pool = pools[index] or Pool(spec, spec.shapes[index], device)
        pools[index] = pool
        there = packed.to(device)
        views = renderer.render(there, noise, spec.supersample)
        focal_at_input = spec.focal_per_height * spec.shapes[index][0]
        pool.add(views.rgb, views.depth_m * (focal_at_input / there.fx)[:, None, None, None])
        for _ in range(spec.reuse):
            yield pool.drawn(rng)
