"""Endless batches of procedural scenes, made by worker processes while the network trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import IterableDataset

from depth_node.world import samples


@dataclass(frozen=True)
class BatchSpec:
    """What batches are made of."""

    size: int
    """Images per batch."""
    shapes: tuple[tuple[int, int], ...]
    """(height, width) of the batches, pixels; each batch has one, drawn with ``shares``."""
    shares: tuple[float, ...]
    """Probability of each shape; sums to 1."""
    focal_per_height: float
    """Focal length of the card over the height of the network's input; depth is taken to it."""
    reuse: int = 4
    """How often a rendered view is shown; each time the trainer varies it."""
    pool: int = 512
    """Views kept per shape and worker to draw batches from."""
    views_per_scene: int = 2
    """Views rendered of one scene."""


@dataclass(frozen=True)
class Batch:
    """One batch; all tensors on the CPU."""

    image: Tensor
    """(B, 3, H, W) uint8 RGB."""
    depth: Tensor
    """(B, 1, H, W) float32 metres at the focal length of the card; +inf is sky."""


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
            for sample in samples.draw(rng, shape[0], shape[1], spec.views_per_scene):
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


def batches(spec: BatchSpec, seed: int, workers: int) -> Iterator[Batch]:
    """Start worker processes and return their endless batches.

    :param seed: another seed gives other scenes; a resumed training takes a new one.
    :param workers: processes that render; 0 renders in this one.
    """
    loader = DataLoader(
        SceneBatches(spec, seed),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # a fork would copy the locked thread pools of OpenCV and torch and wait for them for ever
        multiprocessing_context='spawn' if workers else None,
    )
    return iter(loader)
