"""Which frames explain which: sources of a target by parallax, and blocks of time to hold out.

A pair teaches depth when the camera has moved across the line of sight.  For a turn-free motion t
a point at depth z moves by ``f |t_xy - x t_z| / z`` pixels, x being its slope; the median over a
grid of slopes, at the depth that is typical, is the parallax.  What turning does to the image is
known and teaches nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Union

import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.frame_cache import CachedFrame
from depth_node.dataset.frame_cache import FrameCache
from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.frames import CameraModel

Floats = NDArray[np.float64]
TypicalDepth = Union[float, Callable[[int], float]]
"""Metres, for all frames or by the index of the frame."""

NO_POSE, STANDING, TURNING, LITTLE_PARALLAX, FAST, LONELY, UNFOLLOWED = (
    'no_pose', 'standing', 'turning', 'little_parallax', 'too_fast', 'no_neighbour',
    'not_followed',
)  # fmt: skip
DROP_REASONS = {
    NO_POSE: 'the recording does not say where the camera was',
    STANDING: 'the camera stood still',
    TURNING: 'the camera turned on the spot',
    LITTLE_PARALLAX: 'the camera moved too little, or straight along the line of sight',
    FAST: 'the camera moved or turned too far from one frame to the next',
    LONELY: 'no other frame near in time',
    UNFOLLOWED: 'without poses: too few corners could be followed to its neighbours',
}
"""Why a frame is no target."""

_GRID = (9, 7)
_STILL_RAD_S = 0.03
_WINDOW_NS = 400_000_000


@dataclass(frozen=True)
class PairLimits:
    """What a pair has to be."""

    min_parallax_px: float = 4.0
    """At network width, pixels."""
    max_parallax_px: float = 20.0
    """At network width, pixels."""
    max_rotation_rad: float = np.deg2rad(10.0)
    """Between the two, radians."""
    max_time_s: float = 2.0
    """Between the two, seconds."""
    min_overlap: float = 0.6
    """Share of the target's pixels that the source sees at the typical depth."""
    max_sources: int = 4
    """Candidates per target, evenly on both sides in time where possible."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two frames of which one is explained by the other."""

    target: int
    """Index in the cache."""
    source: int
    """Index in the cache."""
    T_source_target: Floats
    """(4, 4) maps points of the target's camera to the source's, metres; NaN: not recorded."""
    parallax_px: float
    """Median movement that is not due to turning, at the typical depth, pixels."""


@dataclass(frozen=True, eq=False)
class PairPlan:
    """What is learned from."""

    targets: dict[int, tuple[Pair, ...]]
    """Per target its candidates, the parallax nearest to the middle of the limits first."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Frames that are no target, by the reasons of :data:`DROP_REASONS`."""


@dataclass(frozen=True)
class Split:
    """Frames to learn from and frames to judge by, apart in time."""

    train: tuple[int, ...]
    """Indices in the cache."""
    held_out: tuple[int, ...]
    """Indices in the cache."""


def plan_pairs(
    cache: FrameCache,
    indices: Sequence[int],
    typical_depth_m: TypicalDepth,
    limits: PairLimits | None = None,
) -> PairPlan:
    """Find the sources of every frame.

    :param cache: frames with poses.
    :param indices: which frames may be targets and sources, in the order of time.
    :param typical_depth_m: median depth of what the frames show, metres.
    """
    limits = limits or PairLimits()
    chosen = np.asarray(sorted(indices), np.int64)
    poses, stamps = cache.poses[chosen], cache.stamps_ns[chosen]
    segments = cache.segments[chosen]
    depths = np.array([_typical(typical_depth_m, int(index)) for index in chosen])
    idle = _idle(poses, stamps, segments, depths, cache.camera, limits)
    usable = np.array([not reason for reason in idle], bool)
    slopes = _slopes(cache.camera)
    targets: dict[int, tuple[Pair, ...]] = {}
    dropped: Counter[str] = Counter()
    for at, index in enumerate(chosen.tolist()):
        if idle[at]:
            dropped[idle[at]] += 1
            continue
        near = _near(stamps, usable & (segments == segments[at]), at, limits)
        good, reason = _candidates(
            poses, at, near, float(depths[at]), cache.camera, slopes, limits
        )
        if not good:
            dropped[reason] += 1
            continue
        targets[index] = tuple(
            Pair(index, int(chosen[other]), pose, parallax)
            for other, pose, parallax in picked(good, at, limits)
        )
    return PairPlan(targets, dict(dropped))


def parallax_px(T_source_target: Floats, model: CameraModel, depth_m: float) -> float:  # noqa: N803
    """Return the median movement in the image that is not due to turning, pixels.

    :param T_source_target: (4, 4), metres.
    :param depth_m: of all points, metres.
    """
    return float(_parallaxes(T_source_target[None], model, depth_m, _slopes(model))[0])


def split_by_time(
    frames: Sequence[CachedFrame],
    blocks: int = 5,
    guard_s: float = 2.0,
    held_out: int = -1,
    span_ns: tuple[int, int] | None = None,
) -> Split:
    """Hold out one of several blocks of equal duration, with a gap before and after it.

    :param frames: of one cache.
    :param blocks: how many, 2 or more.
    :param guard_s: frames nearer than this to the held-out block are in neither part, seconds;
        not less than the time between the frames of a pair.
    :param held_out: which block; negative ones count from the end.
    :param span_ns: first and last stamp of the time that is divided, nanoseconds; None: of these
        frames.
    :raises SettingsError: for fewer than two blocks or no such block.
    """
    if blocks < 2 or not -blocks <= held_out < blocks:
        raise SettingsError(
            'split', f'block {quoted(held_out)} of {quoted(blocks)}', 'one of 2 blocks or more'
        )
    if not len(frames):
        return Split((), ())
    stamps = np.array([frame.stamp_ns for frame in frames], np.int64)
    at = np.array([frame.index for frame in frames], np.int64)
    start, end = span_ns or (int(stamps.min()), int(stamps.max()))
    length = end - start + 1
    block = held_out % blocks
    low, high = start + length * block // blocks, start + length * (block + 1) // blocks
    guard_ns = round(guard_s * 1e9)
    out = (stamps >= low) & (stamps < high)
    train = (stamps < low - guard_ns) | (stamps >= high + guard_ns)
    return Split(tuple(at[train].tolist()), tuple(at[out].tolist()))


def _typical(depth_m: TypicalDepth, index: int) -> float:
    return float(depth_m(index) if callable(depth_m) else depth_m)


def _slopes(model: CameraModel) -> Floats:
    """Return (K, 3) rays of a grid of pixels."""
    u = np.linspace(0, model.width - 1, _GRID[0] + 2)[1:-1]
    v = np.linspace(0, model.height - 1, _GRID[1] + 2)[1:-1]
    x, y = np.meshgrid((u - model.cx) / model.fx, (v - model.cy) / model.fy)
    return np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1)


def _idle(
    poses: Floats,
    stamps: NDArray[np.int64],
    segments: NDArray[np.int64],
    depths_m: Floats,
    model: CameraModel,
    limits: PairLimits,
) -> list[str]:
    """Return for every frame why its motion teaches nothing, or ''.

    Judged by the motion over a fraction of a second around it: at that pace, would there be enough
    parallax before the pair is too far apart in time, or has turned too far?
    """
    low = np.searchsorted(stamps, stamps - _WINDOW_NS // 2)
    high = np.searchsorted(stamps, stamps + _WINDOW_NS // 2, side='right') - 1
    slopes = _slopes(model)
    reasons = []
    for at in range(len(poses)):
        first, last = int(low[at]), int(high[at])
        if first == last:
            first, last = max(0, at - 1), min(len(poses) - 1, at + 1)
        seconds = float(stamps[last] - stamps[first]) * 1e-9
        if not np.isfinite(poses[at]).all():
            reasons.append(NO_POSE)
        elif (
            seconds <= 0.0
            or segments[first] != segments[last]
            or not np.isfinite(poses[[first, last]]).all()
        ):
            reasons.append('')
        else:
            moved = np.linalg.inv(poses[first]) @ poses[last]
            parallax = float(_parallaxes(moved[None], model, depths_m[at], slopes)[0])
            reasons.append(idle_motion(parallax, angle_rad(moved), seconds, limits))
    return reasons


def idle_motion(parallax: float, angle: float, seconds: float, limits: PairLimits) -> str:
    """Return why a motion teaches nothing, or ''; pixels, radians and seconds."""
    if parallax * limits.max_time_s < limits.min_parallax_px * seconds:
        return STANDING if angle < _STILL_RAD_S * seconds else TURNING
    if parallax * limits.max_rotation_rad < limits.min_parallax_px * angle:
        return TURNING
    return ''


def angle_rad(pose: Floats) -> float:
    """Return by how much a (4, 4) pose turns, radians."""
    trace = float(np.trace(pose[:3, :3]))
    axis = pose[:3, :3] - pose[:3, :3].T
    sine = 0.5 * float(np.linalg.norm((axis[2, 1], axis[0, 2], axis[1, 0])))
    return float(np.arctan2(sine, 0.5 * (trace - 1.0)))


def _near(
    stamps: NDArray[np.int64], usable: NDArray[np.bool_], at: int, limits: PairLimits
) -> NDArray[np.intp]:
    """Return the usable frames near in time, but for the frame itself."""
    reach = round(limits.max_time_s * 1e9)
    low = np.searchsorted(stamps, stamps[at] - reach)
    high = np.searchsorted(stamps, stamps[at] + reach, side='right')
    near = np.arange(low, high)
    return np.asarray(near[usable[near] & (near != at)], np.intp)


Candidate = tuple[int, Floats, float]


def _candidates(
    poses: Floats,
    at: int,
    near: NDArray[np.intp],
    depth_m: float,
    model: CameraModel,
    slopes: Floats,
    limits: PairLimits,
) -> tuple[list[Candidate], str]:
    """Return the frames that explain one, or why there are none."""
    if not len(near):
        return [], LONELY
    relative = np.linalg.inv(poses[near]) @ poses[at]
    angles = np.array([angle_rad(pose) for pose in relative])
    parallax = _parallaxes(relative, model, depth_m, slopes)
    gentle = (angles <= limits.max_rotation_rad) & (parallax <= limits.max_parallax_px)
    wide = parallax >= limits.min_parallax_px
    good = gentle & wide
    good[good] = _overlaps(relative[good], model, depth_m, slopes) >= limits.min_overlap
    found = [
        (int(near[k]), np.asarray(relative[k]), float(parallax[k])) for k in np.flatnonzero(good)
    ]
    reason = FAST if wide.any() else LITTLE_PARALLAX
    return found, reason


def _parallaxes(relative: Floats, model: CameraModel, depth_m: float, slopes: Floats) -> Floats:
    """Return (N,) median movements, pixels."""
    turned = slopes @ np.swapaxes(relative[:, :3, :3], 1, 2)
    moved = turned + relative[:, None, :3, 3] / depth_m
    with np.errstate(divide='ignore', invalid='ignore'):
        before = turned[..., :2] / turned[..., 2:]
        after = moved[..., :2] / moved[..., 2:]
    steps = (after - before) * (model.fx, model.fy)
    ahead = (turned[..., 2] > 0.0) & (moved[..., 2] > 0.0)
    return np.asarray(np.median(np.where(ahead, np.linalg.norm(steps, axis=2), np.inf), axis=1))


def _overlaps(relative: Floats, model: CameraModel, depth_m: float, slopes: Floats) -> Floats:
    """Return (N,) the share of the grid that the source sees."""
    moved = slopes @ np.swapaxes(relative[:, :3, :3], 1, 2) + relative[:, None, :3, 3] / depth_m
    with np.errstate(divide='ignore', invalid='ignore'):
        u = model.fx * moved[..., 0] / moved[..., 2] + model.cx
        v = model.fy * moved[..., 1] / moved[..., 2] + model.cy
    inside = (moved[..., 2] > 0.0) & (u >= -0.5) & (u <= model.width - 0.5)
    inside &= (v >= -0.5) & (v <= model.height - 0.5)
    return np.asarray(inside.mean(axis=1))


def picked(good: list[Candidate], at: int, limits: PairLimits) -> list[Candidate]:
    """Choose sources on both sides in time, whose parallaxes differ where there is a choice."""
    middle = np.sqrt(limits.min_parallax_px * limits.max_parallax_px)

    def badness(item: Candidate) -> float:
        return abs(float(np.log(item[2] / middle)))

    sides = [
        sorted((item for item in good if (item[0] < at) is before), key=badness)
        for before in (True, False)
    ]
    half = limits.max_sources // 2
    counts = [
        min(len(sides[0]), max(half, limits.max_sources - len(sides[1]))),
        min(len(sides[1]), max(limits.max_sources - half, limits.max_sources - len(sides[0]))),
    ]
    chosen = [
        item for side, count in zip(sides, counts, strict=True) for item in _spread(side, count)
    ]
    return sorted(chosen, key=badness)


def _spread(side: list[Candidate], count: int) -> list[Candidate]:
    """Return ``count`` of the candidates of one side: the best, and others away from it."""
    if len(side) <= count:
        return side
    at = np.linspace(0, len(side) - 1, count).round().astype(int)
    return [side[k] for k in at]
