"""Which frames explain which, where no poses were recorded: by the parallax that images show.

Corners of every frame are followed into later frames, farther and farther ahead; what a turn does
not explain of their movement is the parallax (:mod:`.view_change`).  The limits and the reasons
are those of pairs with poses, and so is the choice of sources.
"""

from __future__ import annotations

from collections import Counter
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.frame_cache import FrameCache
from depth_node.dataset.pairs import FAST
from depth_node.dataset.pairs import LITTLE_PARALLAX
from depth_node.dataset.pairs import LONELY
from depth_node.dataset.pairs import UNFOLLOWED
from depth_node.dataset.pairs import Candidate
from depth_node.dataset.pairs import Pair
from depth_node.dataset.pairs import PairLimits
from depth_node.dataset.pairs import PairPlan
from depth_node.dataset.pairs import idle_motion
from depth_node.dataset.pairs import picked
from depth_node.dataset.poses import Floats
from depth_node.dataset.scale import Predict
from depth_node.dataset.tracks import Grey
from depth_node.dataset.tracks import TrackLimits
from depth_node.dataset.tracks import corners_in
from depth_node.dataset.tracks import flow_of
from depth_node.dataset.tracks import grey_of
from depth_node.dataset.tracks import triangulated
from depth_node.dataset.view_change import FEWEST_TRACKS
from depth_node.dataset.view_change import ViewChange
from depth_node.dataset.view_change import view_change

_AHEAD = (1, 2, 3, 4, 6, 8, 11, 15, 20, 27)
_CORNERS = TrackLimits(most_corners=160, apart_px=7.0)
_RETURN_PX = 0.5
_LOST = 0.3
_WINDOW_NS = 600_000_000
_IMAGES_KEPT = 64
_FEWEST_DEPTHS = 10

Changes = dict[tuple[int, int], ViewChange]
"""(earlier, later), places among the frames in question -> how the view changed."""


def has_poses(cache: FrameCache) -> bool:
    """Tell whether any frame of a cache has a pose."""
    return bool(np.isfinite(cache.poses[:, 0, 0]).any())


def plan_pairs_by_flow(
    cache: FrameCache, indices: Sequence[int], limits: PairLimits | None = None
) -> PairPlan:
    """Find the sources of every frame without poses.

    :param cache: frames.
    :param indices: which frames may be targets and sources, in the order of time.
    :returns: pairs whose ``T_source_target`` is NaN.
    :raises RecordingError: when an image of the cache cannot be read.
    """
    limits = limits or PairLimits()
    chosen = np.asarray(sorted(indices), np.int64)
    stamps = cache.stamps_ns[chosen]
    changes = _changes(cache, chosen, stamps, limits)
    around: dict[int, dict[int, ViewChange]] = defaultdict(dict)
    for (one, two), change in changes.items():
        around[one][two] = around[two][one] = change
    idle = _idle(changes, stamps, limits)
    targets: dict[int, tuple[Pair, ...]] = {}
    dropped: Counter[str] = Counter()
    for at, index in enumerate(chosen.tolist()):
        near = {other: change for other, change in around[at].items() if not idle[other]}
        good = [] if idle[at] else _good(near, limits)
        if good:
            targets[index] = tuple(
                Pair(index, int(chosen[other]), pose, parallax)
                for other, pose, parallax in picked(good, at, limits)
            )
        else:
            dropped[idle[at] or _reason(near, at, stamps, limits)] += 1
    return PairPlan(targets, dict(dropped))


def posed_by_depth(cache: FrameCache, plan: PairPlan, predict: Predict) -> PairPlan:
    """Return the pairs with poses whose length is in the unit of a model's depth.

    The images give turn and direction.  Corners triangulated with a way of 1 then are as much
    nearer than the model says as the way is longer: the median over them.

    :param predict: the model.
    :returns: pairs for which that was possible; targets without any are counted as dropped.
    :raises RecordingError: when an image of the cache cannot be read.
    """
    targets: dict[int, tuple[Pair, ...]] = {}
    dropped = Counter(plan.dropped)
    for index, pairs in plan.targets.items():
        depth_m = predict(cache.rgb(index))
        target = grey_of(cache.rgb(index))
        corners = corners_in(target, cache.seen, _CORNERS)
        found = [
            posed
            for pair in pairs
            if (posed := _posed(cache, pair, depth_m, target, corners)) is not None
        ]
        if found:
            targets[index] = tuple(found)
        else:
            dropped[UNFOLLOWED] += 1
    return PairPlan(targets, dict(dropped))


def _posed(
    cache: FrameCache, pair: Pair, depth_m: NDArray[np.float32], target: Grey, corners: Floats
) -> Pair | None:
    """Return a pair with its pose, in the unit of ``depth_m``; None where that fails."""
    source = grey_of(cache.rgb(pair.source))
    there, good = _followed(target, source, corners, corners)
    change = view_change(corners[good], there[good], cache.camera)
    if change is None or not np.isfinite(change.T_second_first).all():
        return None
    pose = change.T_second_first.copy()
    known = triangulated(target, [(source, pose)], cache.camera, cache.seen, _CORNERS).depth
    with np.errstate(divide='ignore', invalid='ignore'):
        ratios = known.sampled(depth_m) / known.depth_m
    ratios = ratios[np.isfinite(ratios)]
    if len(ratios) < _FEWEST_DEPTHS:
        return None
    pose[:3, 3] *= float(np.median(ratios))
    return replace(pair, T_source_target=pose)


def _changes(
    cache: FrameCache, chosen: NDArray[np.int64], stamps: NDArray[np.int64], limits: PairLimits
) -> Changes:
    """Follow the corners of every frame ahead, until it is far enough."""

    @lru_cache(_IMAGES_KEPT)
    def grey(at: int) -> Grey:
        return grey_of(cache.rgb(int(chosen[at])))

    found: Changes = {}
    for at in range(len(chosen)):
        corners = corners_in(grey(at), cache.seen, _CORNERS)
        if len(corners) < FEWEST_TRACKS:
            continue
        start, before_ns = corners, 0
        for step in _AHEAD:
            other = at + step
            if other >= len(chosen) or stamps[other] - stamps[at] > limits.max_time_s * 1e9:
                break
            # what moved so far in this time will go on as it did
            after_ns = int(stamps[other] - stamps[at])
            pace = after_ns / before_ns if before_ns else 1.0
            guess = corners + (start - corners) * pace
            there, good = _followed(grey(at), grey(other), corners, guess)
            if good.sum() < max(FEWEST_TRACKS, _LOST * len(corners)):
                break
            change = view_change(corners[good], there[good], cache.camera)
            if change is not None:
                found[at, other] = change
                if change.parallax_px > limits.max_parallax_px:
                    break
                if change.angle_rad > 1.5 * limits.max_rotation_rad:
                    break
            typical = np.median(there[good] - corners[good], axis=0)
            start = np.where(good[:, None], there, corners + typical)
            before_ns = after_ns
    return found


def _followed(
    one: Grey, two: Grey, corners: Floats, guess: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """Follow corners there and back again."""
    there, good = flow_of(one, two, corners, guess)
    size = np.array((one.shape[1], one.shape[0])) - 1.0
    good &= ((there >= 0.0) & (there <= size)).all(axis=1)
    if good.any():
        # back from a place of its own, so that standing still is no success
        begin = there[good] + (corners - guess)[good]
        back, returned = flow_of(two, one, there[good], begin)
        good[good] = returned & (np.linalg.norm(back - corners[good], axis=1) <= _RETURN_PX)
    return there, good


def _idle(changes: Changes, stamps: NDArray[np.int64], limits: PairLimits) -> list[str]:
    """Return for every frame why its motion teaches nothing, or ''.

    Judged by the change over a fraction of a second around it, as pairs with poses are.
    """
    best: dict[int, tuple[float, str]] = {}
    for (one, two), change in changes.items():
        duration_ns = int(stamps[two] - stamps[one])
        if duration_ns <= 0:
            continue
        reason = idle_motion(change.parallax_px, change.angle_rad, duration_ns * 1e-9, limits)
        for at in range(one, two + 1):
            # centred on the frame, and of about the length that is wanted
            off = abs(duration_ns - _WINDOW_NS) + abs(
                int(stamps[one]) + int(stamps[two]) - 2 * int(stamps[at])
            )
            if at not in best or off < best[at][0]:
                best[at] = off, reason
    return [best[at][1] if at in best else '' for at in range(len(stamps))]


def _good(near: dict[int, ViewChange], limits: PairLimits) -> list[Candidate]:
    """Return the frames that explain one."""
    unknown = np.full((4, 4), np.nan)
    return [
        (other, unknown, change.parallax_px)
        for other, change in sorted(near.items())
        if limits.min_parallax_px <= change.parallax_px <= limits.max_parallax_px
        and change.angle_rad <= limits.max_rotation_rad
        and change.overlap >= limits.min_overlap
    ]


def _reason(
    near: dict[int, ViewChange], at: int, stamps: NDArray[np.int64], limits: PairLimits
) -> str:
    """Say why a frame that moves has no source."""
    if near:
        wide = any(c.parallax_px >= limits.min_parallax_px for c in near.values())
        return FAST if wide else LITTLE_PARALLAX
    apart = np.abs(np.delete(stamps, at) - stamps[at])
    alone = not len(apart) or int(apart.min()) > limits.max_time_s * 1e9
    return LONELY if alone else UNFOLLOWED
