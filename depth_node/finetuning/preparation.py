"""From recordings to what is learned from: frames, time to hold out, scale, and pairs.

Which frames make a pair depends on how far things are.  That is triangulated with the recorded
poses and owes nothing to the model, whose scale may be wrong by any factor.  Without poses the
parallax is measured in the images.
"""

from __future__ import annotations

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
from depth_node.dataset.tracks import measured_depth_m
from depth_node.finetuning.settings import HoldOut
from depth_node.finetuning.start_model import StartModel

_LOOKED_AT = 40


@dataclass(frozen=True, eq=False)
class Prepared:
    """One recording, ready to be learned from."""

    path: Path
    """The recording."""
    name: str
    """Short name of it."""
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


@dataclass(frozen=True, eq=False)
class Preparation:
    """All recordings and the scale of the start model."""

    recordings: tuple[Prepared, ...]
    """In the order in which they were named."""
    estimates: tuple[ScaleEstimate, ...]
    """What every source says, in units of the start model; several recordings are averaged."""
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
    caches: Sequence[tuple[Path, str, FrameCache]],
    *,
    height_m: float | None,
    rescale: bool,
    limits: PairLimits | None = None,
) -> Preparation:
    """Divide the time of each recording, and find scale and pairs in turns.

    :param caches: path, short name and frames of each recording.
    :param height_m: of the camera over level ground, metres; None where it is not known.
    :param rescale: False leaves the scale of the start model as it is.
    """
    limits = limits or PairLimits()
    recordings = tuple(_planned(start, *item, limits) for item in caches)
    estimates = combined_estimates(
        [
            estimate_scales(item.cache, item.plan, start.depth_m(item.cache.camera), height_m)
            for item in recordings
        ]
    )
    return Preparation(recordings, estimates, chosen_scale(estimates) if rescale else None)


def _planned(
    start: StartModel, path: Path, name: str, cache: FrameCache, limits: PairLimits
) -> Prepared:
    """Divide the time of one recording and find its pairs."""
    split = _split(cache)
    if not has_poses(cache):
        return Prepared(
            path=path,
            name=name,
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
        path=path,
        name=name,
        cache=cache,
        split=split,
        plan=plan_pairs(cache, split.train, typical_m, limits),
        held_out=plan_pairs(cache, split.held_out, typical_m, limits),
        typical_m=typical_m,
    )


def _split(cache: FrameCache) -> Split:
    """Hold out the last part of a recording."""
    stamps = cache.stamps_ns
    division = HoldOut.of(float(stamps[-1] - stamps[0]) * 1e-9)
    return split_by_time(cache.frames, division.blocks, division.guard_s)


def _median_depth(start: StartModel, cache: FrameCache, split: Split) -> float:
    """Return the median of the start model's median depths, in its metres."""
    predict = start.depth_m(cache.camera)
    at = np.linspace(0, len(split.train) - 1, min(_LOOKED_AT, len(split.train)))
    seen = cache.seen
    medians = [
        float(np.median(predict(cache.rgb(split.train[k]))[seen])) for k in at.round().astype(int)
    ]
    return float(np.median(medians)) if medians else 1.0


def combined_estimates(found: Sequence[Sequence[ScaleEstimate]]) -> tuple[ScaleEstimate, ...]:
    """Return one estimate per kind and topic over all recordings.

    The recordings of one robot share its camera and its model, so they share the factor: the
    median over the recordings, weighted with their samples, of those that are usable.
    """
    if len(found) == 1:
        return tuple(found[0])
    names = dict.fromkeys(item.source for estimates in found for item in estimates)
    combined = []
    for name in names:
        same = [item for estimates in found for item in estimates if item.source == name]
        usable = [item for item in same if item.usable] or same
        order = sorted(usable, key=lambda item: item.scale)
        heap = np.cumsum([max(item.samples, 1) for item in order])
        middle = order[int(np.searchsorted(heap, heap[-1] / 2.0))]
        samples = sum(item.samples for item in usable)
        combined.append(
            ScaleEstimate(
                source=name,
                scale=middle.scale,
                spread=float(np.median([item.spread for item in usable])),
                samples=samples,
                slope=middle.slope,
                usable=middle.usable,
                remark=middle.remark,
                frames=sum(item.frames for item in usable),
            )
        )
    return tuple(combined)
