"""From recordings to what is learned from: frames, time to hold out, scale, and pairs.

Which frames make a pair depends on how far things are.  That is triangulated with the recorded
poses and owes nothing to the model, whose scale may be wrong by any factor.  Without poses the
parallax is measured in the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from depth_node.dataset.frame_cache import FrameCache
from depth_node.dataset.pairs import PairLimits
from depth_node.dataset.pairs import PairPlan
from depth_node.dataset.pairs import Split
from depth_node.dataset.pairs import plan_pairs
from depth_node.dataset.pairs import split_by_time
from depth_node.dataset.pairs_by_flow import has_poses
from depth_node.dataset.pairs_by_flow import plan_pairs_by_flow
from depth_node.dataset.scale import ScaleEstimate
from depth_node.dataset.scale import chosen_scale
from depth_node.dataset.scale import estimate_scales
from depth_node.dataset.takes import Take
from depth_node.dataset.tracks import measured_depth_m
from depth_node.finetuning.pooled_scale import pooled
from depth_node.finetuning.settings import HoldOut
from depth_node.finetuning.start_model import StartModel

_LOOKED_AT = 40


@dataclass(frozen=True, eq=False)
class Prepared:
    """One take, ready to be learned from."""

    take: Take
    """A camera of a recording."""
    cache: FrameCache
    """Its frames."""
    split: Split
    """Frames to learn from and frames to judge by."""
    plan: PairPlan
    """Pairs of the former."""
    held_out: PairPlan
    """Pairs of the latter."""
    typical_m: float
    """Median depth of what the camera sees, metres, triangulated; by the start model where the
    recording allows no triangulation."""

    @property
    def path(self) -> Path:
        """Return the recording."""
        return self.take.path

    @property
    def name(self) -> str:
        """Return the name of the take."""
        return self.take.name


@dataclass(frozen=True, eq=False)
class Preparation:
    """All takes and the scale of the start model."""

    recordings: tuple[Prepared, ...]
    """One per take, in the order in which the recordings were named."""
    estimates: tuple[ScaleEstimate, ...]
    """What every kind of source says, in units of the start model; several takes are pooled."""
    by_take: Mapping[str, tuple[ScaleEstimate, ...]]
    """Name of a take -> what its own sources say."""
    chosen: ScaleEstimate | None
    """The one that is believed; None: the scale stays."""

    @property
    def posed(self) -> bool:
        """Tell whether the recordings say where the camera was."""
        return all(has_poses(item.cache) for item in self.recordings)

    @property
    def scale(self) -> float:
        """Return the factor on the start model's depth."""
        return self.chosen.scale if self.chosen is not None else 1.0

    @property
    def targets(self) -> int:
        """Return how many frames can be learned from."""
        return sum(len(item.plan.targets) for item in self.recordings)


def prepared(
    start: StartModel,
    caches: Sequence[tuple[Take, FrameCache]],
    *,
    height_m: float | None,
    rescale: bool,
    limits: PairLimits | None = None,
) -> Preparation:
    """Divide the time of each take, and find scale and pairs in turns.

    :param caches: the frames of each take.
    :param height_m: of the camera over level ground, metres; None where it is not known.
    :param rescale: False leaves the scale of the start model as it is.
    """
    limits = limits or PairLimits()
    recordings = tuple(
        _planned(start, take, cache, _span_ns(take, caches), limits) for take, cache in caches
    )
    by_take = {
        item.name: estimate_scales(
            item.cache, item.plan, start.depth_m(item.cache.camera), height_m
        )
        for item in recordings
    }
    estimates = pooled(list(by_take.values()))
    chosen = chosen_scale(estimates) if rescale else None
    return Preparation(recordings, estimates, by_take, chosen)


def _planned(
    start: StartModel,
    take: Take,
    cache: FrameCache,
    span_ns: tuple[int, int],
    limits: PairLimits,
) -> Prepared:
    """Divide the time of one take and find its pairs."""
    split = _split(cache, span_ns)
    if not has_poses(cache):
        return Prepared(
            take=take,
            cache=cache,
            split=split,
            plan=plan_pairs_by_flow(cache, split.train, limits),
            held_out=plan_pairs_by_flow(cache, split.held_out, limits),
            typical_m=_median_depth(start, cache, split),
        )
    typical_m = measured_depth_m(cache, split.train)
    if typical_m is None:  # nothing to triangulate: whoever asks for pairs will find few or none
        typical_m = _median_depth(start, cache, split)
    return Prepared(
        take=take,
        cache=cache,
        split=split,
        plan=plan_pairs(cache, split.train, typical_m, limits),
        held_out=plan_pairs(cache, split.held_out, typical_m, limits),
        typical_m=typical_m,
    )


def _span_ns(take: Take, caches: Sequence[tuple[Take, FrameCache]]) -> tuple[int, int]:
    """Return the first and the last stamp of all cameras of the recording of a take.

    What one camera is judged by no other one may have learned from: they see the same places.
    """
    stamps = [cache.stamps_ns for other, cache in caches if other.path == take.path]
    return min(int(one[0]) for one in stamps), max(int(one[-1]) for one in stamps)


def _split(cache: FrameCache, span_ns: tuple[int, int]) -> Split:
    """Hold out the last part of a recording."""
    division = HoldOut.of((span_ns[1] - span_ns[0]) * 1e-9)
    return split_by_time(cache.frames, division.blocks, division.guard_s, span_ns=span_ns)


def _median_depth(start: StartModel, cache: FrameCache, split: Split) -> float:
    """Return the median of the start model's median depths, in its metres."""
    predict = start.depth_m(cache.camera)
    at = np.linspace(0, len(split.train) - 1, min(_LOOKED_AT, len(split.train)))
    seen = cache.seen
    medians = [
        float(np.median(predict(cache.rgb(split.train[k]))[seen])) for k in at.round().astype(int)
    ]
    return float(np.median(medians)) if medians else 1.0
