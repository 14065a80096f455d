"""Endless batches of procedural scenes, made while the network trains.

For a CPU, worker processes make whole batches.  For a GPU they only draw scenes and cameras; the
pictures are rendered on the GPU into a pool that stays there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import IterableDataset

from depth_node.pretraining.batch import Batch
from depth_node.pretraining.batch import BatchSpec
from depth_node.pretraining.device_batches import SceneShots
from depth_node.pretraining.device_batches import device_batches
from depth_node.world import samples

T = TypeVar('T')


View = tuple[NDArray[np.uint8], NDArray[np.float32]]


class SceneBatches(IterableDataset[Batch]):
    """The same seed, worker number and count of workers give the same batches."""

    def __init__(self, spec: BatchSpec, seed: int) -> None:
        super().__init__()
        self._spec = spec
        self._seed = seed

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches for ever."""
        info = torch.utils.data.get_worker_info()
        worker = info.id if info else 0
        cv2.setNumThreads(1)
        rng = np.random.default_rng((self._seed, worker))
        spec = self._spec
        pools: list[list[View]] = [[] for _ in spec.shapes]
        while True:
            index = int(rng.choice(len(spec.shapes), p=spec.shares))
            self._refresh(pools[index], spec.shapes[index], rng)
            yield self._drawn(pools[index], rng)

    def _refresh(self, pool: list[View], shape: tuple[int, int], rng: np.random.Generator) -> None:
        """Render as many new views as one batch uses up; fill a young pool faster."""
        spec = self._spec
        wanted = max(1, round(spec.size / spec.reuse))
        fresh = 0
        while fresh < wanted or len(pool) < spec.size:
            for sample in samples.draw(
                rng, shape[0], shape[1], spec.views_per_scene, float(spec.supersample)
            ):
                focal_at_input = spec.focal_per_height * shape[0]
                pool.append((sample.rgb, sample.depth_m * (focal_at_input / sample.camera.fx)))
                fresh += 1
        del pool[: max(0, len(pool) - spec.pool)]

    def _drawn(self, pool: list[View], rng: np.random.Generator) -> Batch:
        chosen = rng.choice(len(pool), self._spec.size, replace=False)
        views = [pool[index] for index in chosen]
        images = np.stack([image for image, _ in views])
        return Batch(
            image=torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
            depth=torch.from_numpy(np.stack([depth for _, depth in views])[:, None]),
        )


def batches(
    spec: BatchSpec, seed: int, workers: int, device: torch.device | str = 'cpu'
) -> Iterator[Batch]:
    """Start worker processes and return endless batches on a device.

    Equal specs, seeds and numbers of workers give equal scenes and cameras, on each device equal
    batches too.

    :param seed: another seed gives other scenes; a resumed training takes a new one.
    :param workers: processes that draw scenes, and on a CPU render them; 0 does it in this one.
    """
    device = torch.device(device)
    if device.type == 'cpu':
        return iter(_loader(SceneBatches(spec, seed), workers))
    return device_batches(spec, seed, iter(_loader(SceneShots(spec, seed), workers)), device)


def _loader(source: IterableDataset[T], workers: int) -> DataLoader[T]:
    return DataLoader(
        source,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # a fork would copy the locked thread pools of OpenCV and torch and wait for them for ever
        multiprocessing_context='spawn' if workers else None,
    )
