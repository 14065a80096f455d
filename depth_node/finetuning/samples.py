"""Frame caches and plans of pairs -> batches, the same whatever reads them.

A batch is a function of the seed and its number alone, so that a training that was interrupted
goes on with the batches that it would have seen, however many threads read ahead and however many
processes share a batch.  Threads are enough: decoding JPEG and resampling leave Python.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import lru_cache
from typing import Any
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depth_node.dataset.exposure import brightness_gain
from depth_node.errors import RecordingError
from depth_node.finetuning.augmentation import AugmentationSettings
from depth_node.finetuning.augmentation import View
from depth_node.finetuning.augmentation import drawn_colors
from depth_node.finetuning.augmentation import drawn_view
from depth_node.frames import CameraModel

Floats = NDArray[np.float32]


class SparseDepthLike(Protocol):
    """Depth at some pixels, such as dataset.sparse_depth.SparseDepth."""

    @property
    def u(self) -> Floats:
        """Return (N,) columns, network pixels."""

    @property
    def v(self) -> Floats:
        """Return (N,) rows, network pixels."""

    @property
    def depth_m(self) -> Floats:
        """Return (N,) metres."""


class PairLike(Protocol):
    """A target and a source, such as dataset.pairs.Pair."""

    @property
    def target(self) -> int:
        """Return the index of the target."""

    @property
    def source(self) -> int:
        """Return the index of the source."""

    @property
    def T_source_target(self) -> NDArray[np.float64]:  # noqa: N802
        """Return (4, 4), metres."""


class CacheLike(Protocol):
    """Frames as the network sees them, such as dataset.frame_cache.FrameCache."""

    @property
    def camera(self) -> CameraModel:
        """Return the intrinsics at network size."""

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Return (h, w) bool: False where the frames show nothing."""

    def rgb(self, index: int) -> NDArray[np.uint8]:
        """Return (h, w, 3) RGB."""

    def sparse(self, index: int) -> SparseDepthLike | None:
        """Return known depths of a frame."""


@dataclass(frozen=True, eq=False)
class Footage:
    """One take to learn from."""

    cache: CacheLike
    """Its frames."""
    targets: Mapping[int, Sequence[PairLike]]
    """Frame -> its pairs; those of dataset.pairs.PairPlan.targets that belong to the training."""
    ignored: NDArray[np.bool_] | None = None
    """(h, w), True where the robot sees itself; None: nowhere."""
    start: Mapping[int, Floats] | None = None
    """Frame -> (h, w) inverse depth of the start model, 1 / metres; see ``reference_maps``."""
    teacher: Mapping[int, Floats] | None = None
    """Frame -> (h, w) inverse depth of a teacher, of any scale and shift."""


@dataclass(frozen=True)
class BatchSettings:
    """What batches are made of."""

    size: int = 8
    """Samples per batch, of all processes together."""
    sources: int = 2
    """Sources per sample, at most; drawn anew each time where there are more."""
    sparse_points: int = 1024
    """Known depths per sample, at most."""
    seed: int = 0
    """Of order and augmentation."""
    source_views: bool = False
    """Also give the sources in the colours that the networks see: for a pose network or geometry
    consistency."""
    same_brightness: bool = False
    """Give the gain that makes each source as bright as its target."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    """How samples are varied."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one step; N is the largest number of sources."""

    target: Tensor
    """(B, 3, H, W) uint8 RGB."""
    target_view: Tensor
    """(B, 3, H, W) uint8 RGB, in the colours that the networks see."""
    sources: Tensor
    """(B, N, 3, H, W) uint8 RGB."""
    source_views: Tensor | None
    """(B, N, 3, H, W) uint8 RGB in the colours that the networks see; None: not asked for."""
    present: Tensor
    """(B, N) bool; False fills up samples with fewer sources."""
    source_later: Tensor
    """(B, N) bool: the source was taken after the target."""
    pair: Tensor
    """(B, N) int64: number of the pair over all recordings; see :meth:`Samples.pairs`."""
    T_source_target: Tensor
    """(B, N, 4, 4) float32, metres, of the frames as they are, not flipped; NaN: not recorded."""
    flipped: Tensor
    """(B,) bool; the poses of these samples are S T S."""
    intrinsics: Tensor
    """(B, 4) float32 fx, fy, cx, cy of the samples, pixels."""
    valid: Tensor
    """(B, H, W) bool: pixels of the target that show the world."""
    source_valid: Tensor | None
    """(B, H, W) bool, the same of the sources; None: all pixels."""
    start: Tensor | None
    """(B, 1, H, W) float32 inverse depth of the start model, 1 / metres."""
    teacher: Tensor | None
    """(B, 1, H, W) float32 inverse depth of the teacher."""
    sparse_pixels: Tensor
    """(B, K, 2) float32, u and v."""
    sparse_depth: Tensor
    """(B, K) float32, metres; NaN fills up."""
    gain: Tensor | None = None
    """(B, N) float32: by which sources are multiplied to be as bright as their target; None: 1."""

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


class Samples:
    """All samples of some takes.

    A batch has one size; where cameras of different aspects have different network sizes, batches
    of each size take turns, in proportion to the targets of that size.

    :param footage: takes.
    :param settings: what batches are made of.
    :raises RecordingError: when there is no pair.
    """

    def __init__(self, footage: Sequence[Footage], settings: BatchSettings) -> None:
        self._footage = tuple(footage)
        self.settings = settings
        self._targets = [sorted(item.targets) for item in self._footage]
        if not len(self):
            raise RecordingError(
                'fine-tuning', 'no pair of frames', 'frames with parallax',
                'Record while the camera moves.',
            )  # fmt: skip
        self.sizes = self._grouped()
        self._turns = _turns(
            [self._count(members) for members in self.sizes.values()], settings.size
        )
        self._pair_number: dict[tuple[int, int, int], int] = {}
        for which, item in enumerate(self._footage):
            for target in self._targets[which]:
                for pair in item.targets[target]:
                    key = (which, pair.target, pair.source)
                    self._pair_number.setdefault(key, len(self._pair_number))
        self._order = lru_cache(maxsize=16)(self._order_of)

    def __len__(self) -> int:
        """Return the number of targets."""
        return sum(map(len, self._targets))

    @property
    def pairs(self) -> int:
        """Return the number of pairs over all recordings."""
        return len(self._pair_number)

    @property
    def posed(self) -> bool:
        """Tell whether every pair has a recorded pose."""
        return all(
            np.isfinite(pair.T_source_target).all()
            for item in self._footage
            for pairs in item.targets.values()
            for pair in pairs
        )

    @property
    def started(self) -> bool:
        """Tell whether every recording has the maps of the start model."""
        return all(item.start is not None for item in self._footage)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return the part of batch ``step`` that belongs to one of several processes.

        :raises RecordingError: when a frame cannot be read.
        """
        size = self.settings.size
        mine = range(rank * size // world_size, (rank + 1) * size // world_size)
        group, number = self._turn(step)
        return _collated(
            [self._sample(group, number * size + at, step * size + at) for at in mine]
        )

    @property
    def largest(self) -> tuple[int, int]:
        """Return the largest (height, width) of batches, pixels."""
        return max(self.sizes, key=lambda size: size[0] * size[1])

    def _grouped(self) -> dict[tuple[int, int], tuple[int, ...]]:
        """Return (height, width) -> the takes of that network size that have targets."""
        groups: dict[tuple[int, int], tuple[int, ...]] = {}
        for which, item in enumerate(self._footage):
            if self._targets[which]:
                size = (item.cache.camera.height, item.cache.camera.width)
                groups[size] = (*groups.get(size, ()), which)
        return groups

    def _count(self, members: Sequence[int]) -> int:
        return sum(len(self._targets[which]) for which in members)

    def _turn(self, step: int) -> tuple[tuple[int, int], int]:
        """Return of which size a batch is, and how many of that size come before it."""
        cycle, at = divmod(step, len(self._turns))
        group, before = self._turns[at]
        each = sum(one == group for one, _ in self._turns)
        return list(self.sizes)[group], cycle * each + before

    def batches(
        self, first: int, last: int, *, workers: int = 1, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Yield batches ``first`` to ``last - 1``; threads read ahead.

        :param workers: threads; 0 reads when asked.
        """
        if workers == 0:
            for step in range(first, last):
                yield self.batch(step, rank, world_size)
            return
        with ThreadPoolExecutor(workers, 'samples') as pool:
            waiting: deque[Future[Batch]] = deque()
            try:
                for step in range(first, last):
                    waiting.append(pool.submit(self.batch, step, rank, world_size))
                    if len(waiting) > workers + 1:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _order_of(self, epoch: int, size: tuple[int, int] | None = None) -> list[tuple[int, int]]:
        """Return (take, target) of an epoch: each once, takes spread evenly.

        :param size: of the network input; None: the only one.
        """
        placed = []
        for which in self.sizes[size or self.largest]:
            targets = self._targets[which]
            rng = np.random.default_rng((self.settings.seed, 0, epoch, which))
            shuffled = rng.permutation(len(targets))
            places = (np.arange(len(targets)) + rng.random()) / max(1, len(targets))
            placed += [
                (float(place), which, targets[at])
                for place, at in zip(places, shuffled, strict=True)
            ]
        return [(which, target) for _, which, target in sorted(placed)]

    def _sample(
        self, size: tuple[int, int], place: int, position: int
    ) -> dict[str, NDArray[np.generic] | None]:
        """Return a sample.

        :param size: (height, width).
        :param place: in the endless sequence of samples of that size.
        :param position: in that of all samples.
        """
        epoch, at = divmod(place, self._count(self.sizes[size]))
        which, target = self._order(epoch, size)[at]
        item, settings = self._footage[which], self.settings
        rng = np.random.default_rng((settings.seed, 1, position))
        view = drawn_view(rng, *size, settings.augmentation)
        colors = drawn_colors(rng, settings.augmentation)
        pairs = _chosen(item.targets[target], settings.sources, rng)
        image = _image(item.cache, target, view)
        sources = [_image(item.cache, pair.source, view) for pair in pairs]
        shown = [image, *(sources if settings.source_views else [])]
        if colors is not None:
            shown = [colors.image(one) for one in shown]
        seen = item.cache.seen if item.ignored is None else item.cache.seen & ~item.ignored
        valid = view.image(seen.astype(np.uint8), nearest=True).astype(bool)
        model = view.camera(item.cache.camera)
        points = _points(item.cache.sparse(target), view, valid, settings.sparse_points, rng)
        numbers = [self._pair_number[which, pair.target, pair.source] for pair in pairs]
        return {
            'target': image,
            'target_view': shown[0],
            'sources': np.stack(sources),
            'source_views': np.stack(shown[1:]) if settings.source_views else None,
            'pair': np.array(numbers, np.int64),
            'source_later': np.array([pair.source > pair.target for pair in pairs]),
            'T_source_target': np.stack([p.T_source_target for p in pairs]).astype(np.float32),
            'flipped': np.array(view.flipped),
            'intrinsics': np.array([model.fx, model.fy, model.cx, model.cy], np.float32),
            'valid': valid,
            'start': _map(item.start, target, view),
            'teacher': _map(item.teacher, target, view),
            'points': points,
            'gain': _gains(image, sources, valid) if settings.same_brightness else None,
        }


def _turns(counts: Sequence[int], size: int) -> list[tuple[int, int]]:
    """Return the cycle in which batches of several sizes take turns: (size, number of it).

    :param counts: targets of each size.
    :param size: samples per batch.
    """
    if len(counts) == 1:
        return [(0, 0)]
    batches = [max(1, round(count / size)) for count in counts]
    placed = [
        ((number + 0.5) / each, group, number)
        for group, each in enumerate(batches)
        for number in range(each)
    ]
    return [(group, number) for _, group, number in sorted(placed)]


def _chosen(pairs: Sequence[PairLike], count: int, rng: np.random.Generator) -> Sequence[PairLike]:
    """Draw some pairs of a target; with two, one of each side in time where there is one."""
    if len(pairs) <= count:
        return pairs
    shuffled = [pairs[at] for at in rng.permutation(len(pairs))]
    sides = [[p for p in shuffled if (p.source > p.target) == later] for later in (False, True)]
    ordered = [p for both in _zipped(*sides) for p in both]
    return ordered[:count]


def _zipped(a: list[PairLike], b: list[PairLike]) -> Iterator[list[PairLike]]:
    for at in range(max(len(a), len(b))):
        yield [side[at] for side in (a, b) if at < len(side)]


def _gains(
    target: NDArray[np.uint8], sources: Sequence[NDArray[np.uint8]], valid: NDArray[np.bool_]
) -> Floats:
    return np.array([brightness_gain(target, one, valid) for one in sources], np.float32)


def _image(cache: CacheLike, index: int, view: View) -> NDArray[np.uint8]:
    return np.asarray(view.image(cache.rgb(index)), np.uint8)


def _map(maps: Mapping[int, Floats] | None, index: int, view: View) -> Floats | None:
    if maps is None:
        return None
    return np.asarray(view.image(np.asarray(maps[index], np.float32)), np.float32)


def _points(
    known: SparseDepthLike | None,
    view: View,
    valid: NDArray[np.bool_],
    count: int,
    rng: np.random.Generator,
) -> Floats:
    """Return (K, 3) u, v, metres of known depths that the sample shows."""
    if known is None or not len(known.depth_m):
        return np.zeros((0, 3), np.float32)
    height, width = valid.shape
    u, v = view.pixels(known.u, known.v, width)
    columns, rows = np.rint(u).astype(int), np.rint(v).astype(int)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    inside[inside] = valid[rows[inside], columns[inside]]
    at = np.flatnonzero(inside)
    if len(at) > count:
        at = np.sort(rng.choice(at, count, replace=False))
    return np.stack((u[at], v[at], known.depth_m[at]), axis=1).astype(np.float32)


def _collated(samples: Sequence[Mapping[str, NDArray[Any] | None]]) -> Batch:
    """Stack samples; sources and points are filled up to the longest."""

    def values_of(name: str) -> list[NDArray[Any]]:
        return [value for sample in samples if (value := sample[name]) is not None]

    def stacked(name: str) -> Any:
        values = values_of(name)
        return torch.from_numpy(np.stack(values)) if len(values) == len(samples) else None

    def filled(name: str, fill: object) -> Any:
        values = values_of(name)
        if len(values) < len(samples):
            return None
        longest = max(len(value) for value in values)
        made = np.full((len(values), longest, *values[0].shape[1:]), fill, values[0].dtype)
        for row, value in zip(made, values, strict=True):
            row[: len(value)] = value
            if name == 'T_source_target':
                row[len(value) :] = np.eye(4)
        return torch.from_numpy(made)

    def planes(images: Any) -> Any:
        return None if images is None else images.movedim(-1, -3).contiguous()

    counts = torch.tensor([len(value) for value in values_of('pair')])
    valid, points = stacked('valid'), filled('points', np.nan)
    starts, teachers = stacked('start'), stacked('teacher')
    return Batch(
        target=planes(stacked('target')),
        target_view=planes(stacked('target_view')),
        sources=planes(filled('sources', 0)),
        source_views=planes(filled('source_views', 0)),
        present=torch.arange(int(counts.max()))[None] < counts[:, None],
        source_later=filled('source_later', False),
        pair=filled('pair', 0),
        T_source_target=filled('T_source_target', 0.0),
        flipped=stacked('flipped'),
        intrinsics=stacked('intrinsics'),
        valid=valid,
        source_valid=None if bool(valid.all()) else valid,
        start=None if starts is None else starts[:, None],
        teacher=None if teachers is None else teachers[:, None],
        sparse_pixels=points[..., :2].contiguous(),
        sparse_depth=points[..., 2].contiguous(),
        gain=filled('gain', 1.0),
    )
