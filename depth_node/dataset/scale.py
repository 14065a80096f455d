"""By what a model's depth has to be multiplied to be metres: every source's answer, compared.

Closed form: the median of D_ref / D_hat over points of many frames; a frame weighs as much as the
root of its number of points, so that a few with many points do not outvote all others.
Its spread says how well one factor explains the model, and the slope of log D_ref over log D_hat
whether one factor is enough.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera import ray_slopes
from depth_node.dataset import sparse_depth
from depth_node.dataset.frame_cache import FrameCache
from depth_node.dataset.pairs import Pair
from depth_node.dataset.pairs import PairPlan
from depth_node.dataset.sparse_depth import SparseDepth
from depth_node.dataset.tracks import SOURCE as TRACKS
from depth_node.dataset.tracks import tracked_depth
from depth_node.frames import CameraModel

Floats = NDArray[np.float64]
Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""The model: (h, w, 3) RGB at network size -> (h, w) metres, or what it takes for metres."""

RANKING = sparse_depth.KINDS
"""Which kind of source is believed first."""

FEWEST_SAMPLES = 50
FEWEST_FRAMES = 5
DIFFERENT = 0.05

_MOST_FRAMES = 40
_PER_FRAME = 400
_WIDEST_SPREAD = 0.5
_SLOPES = (0.75, 1.33)
_LEAST_RANGE = 0.15
_TELLING = 3.0
_LEVEL = np.cos(np.radians(8.0))
_GRID_PX = 2
_PLACE_PX = 3
_LEAST_FLOOR = 0.03


@dataclass(frozen=True)
class ScaleEstimate:
    """What one source says."""

    source: str
    """Kind and topic, e.g. 'scan /scan'."""
    scale: float
    """Metres per what the model takes for a metre; NaN where there is nothing to say."""
    spread: float
    """Median absolute deviation of the ratios as a share of their median."""
    samples: int
    """Points."""
    slope: float
    """Of log D_ref over log D_hat, 1 where one factor is enough; NaN where all points are at
    about one depth."""
    usable: bool
    """Whether the scale may be set by it."""
    remark: str
    """Sentence about what is wrong or odd; empty where nothing is."""
    frames: int = 0
    """Frames that the points come from."""
    direct: float = float('nan')
    """By what this source's depth has to be multiplied to be that of the chosen one, where both
    have measured the same places: without any model.  NaN where there are too few."""

    @property
    def kind(self) -> str:
        """Return the kind of the source, one of :data:`RANKING`."""
        return self.source.partition(' ')[0]


def estimate_scales(
    cache: FrameCache, plan: PairPlan, predict: Predict, height_m: float | None = None
) -> tuple[ScaleEstimate, ...]:
    """Ask every source that the recording has, in the order of :data:`RANKING`.

    :param plan: of the frames that may be looked at: not of those held out.
    :param predict: the model.
    :param height_m: of the camera over level ground, metres; None where it is not known.  Needs
        poses whose z axis points upwards (REP-103).
    :raises RecordingError: when an image of the cache cannot be read.
    """
    found: dict[str, list[tuple[Floats, Floats]]] = defaultdict(list)
    places: dict[str, dict[int, float]] = defaultdict(dict)
    for index in _spread(list(plan.targets), _MOST_FRAMES):
        predicted = predict(cache.rgb(index))
        parts = [*cache.sparse_all(index), *tracked(cache, plan.targets[index])]
        for part in parts:
            _collect(found[_name(part.source)], part.depth_m, part.sampled(predicted))
            places[_name(part.source)].update(_by_place(part, index))
        pose = cache.frames[index].pose
        if height_m is not None and pose is not None:
            heights = _floor_heights(predicted, cache.camera, cache.seen, pose)
            given = f'{sparse_depth.HEIGHT} {height_m:g} m'
            _collect(found[given], np.full(len(heights), height_m), heights)
    found.setdefault(_name(TRACKS), [])
    if height_m is not None:
        found.setdefault(f'{sparse_depth.HEIGHT} {height_m:g} m', [])
    estimates = [_estimate(name, samples) for name, samples in found.items()]
    return _compared(sorted(estimates, key=_rank), places)


def chosen_scale(estimates: Sequence[ScaleEstimate]) -> ScaleEstimate | None:
    """Return the usable estimate of the best kind of source, or None."""
    usable = [estimate for estimate in estimates if estimate.usable]
    return min(usable, key=_rank, default=None)


def disagreements(estimates: Sequence[ScaleEstimate]) -> tuple[str, ...]:
    """Return a sentence for every usable source that differs from the chosen one by over 5 %.

    Compared directly where both measured the same places.  Elsewhere only the model connects them,
    and a model that errs differently where each of them looks makes them differ too.
    """
    chosen = chosen_scale(estimates)
    if chosen is None:
        return ()
    said = []
    for other in estimates:
        if other is chosen or not other.usable:
            continue
        if np.isfinite(other.direct):
            if abs(np.log(other.direct)) > np.log1p(DIFFERENT):
                said.append(
                    f'{other.source} measures {100 * (1 / other.direct - 1):+.0f} % against '
                    f'{chosen.source} at the same places: check wheel radius, mounting and '
                    'calibration.'
                )
        elif abs(np.log(other.scale / chosen.scale)) > np.log1p(DIFFERENT):
            said.append(
                f'{other.source} says {other.scale:.3g}, '
                f'{100 * (other.scale / chosen.scale - 1):+.0f} % from the {chosen.scale:.3g} of '
                f'{chosen.source}, but not about the same places: check mounting and calibration, '
                'or the model errs differently there.'
            )
    return tuple(said)


def _by_place(part: sparse_depth.SparseDepth, frame: int) -> dict[int, float]:
    """Return the median depth of every few pixels of a frame, metres."""
    cells = (part.v // _PLACE_PX).astype(np.int64) * 10_000 + (part.u // _PLACE_PX).astype(
        np.int64
    )
    order = np.argsort(cells, kind='stable')
    names, first = np.unique(cells[order], return_index=True)
    groups = np.split(part.depth_m[order], first[1:])
    base = frame * 100_000_000
    return {
        base + int(name): float(np.median(group))
        for name, group in zip(names, groups, strict=True)
        if len(group)
    }


def _compared(
    estimates: Sequence[ScaleEstimate], places: dict[str, dict[int, float]]
) -> tuple[ScaleEstimate, ...]:
    """Compare every source with the chosen one where both measured."""
    chosen = chosen_scale(estimates)
    best = places[chosen.source] if chosen else {}
    compared = []
    for estimate in estimates:
        own = places[estimate.source]
        ratios = [best[place] / depth_m for place, depth_m in own.items() if place in best]
        if len(ratios) >= FEWEST_SAMPLES and estimate is not chosen:
            estimate = replace(estimate, direct=float(np.median(ratios)))
        compared.append(estimate)
    return tuple(compared)


def _name(source: sparse_depth.SparseSource) -> str:
    return f'{source.kind} {source.topic}'


def tracked(cache: FrameCache, pairs: Sequence[Pair]) -> list[SparseDepth]:
    """Return what is triangulated of a frame; nothing where its pairs have no poses."""
    posed = [pair for pair in pairs if np.isfinite(pair.T_source_target).all()]
    return [tracked_depth(cache, posed).depth] if posed else []


def _rank(estimate: ScaleEstimate) -> int:
    return RANKING.index(estimate.kind)


def _spread(items: list[int], most: int) -> list[int]:
    """Return at most so many of the items, evenly spaced."""
    at = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[k] for k in at]


def _collect(
    samples: list[tuple[Floats, Floats]],
    reference: NDArray[np.floating],
    predicted: NDArray[np.floating],
) -> None:
    """Append what is finite and positive in both, thinned out to an equal number per frame."""
    there = np.isfinite(reference) & np.isfinite(predicted) & (reference > 0) & (predicted > 0)
    ours, theirs = (values[there].astype(np.float64) for values in (reference, predicted))
    if len(ours) > _PER_FRAME:
        thin = np.random.default_rng(len(ours)).permutation(len(ours))[:_PER_FRAME]
        ours, theirs = ours[thin], theirs[thin]
    if len(ours):
        samples.append((ours, theirs))


def _estimate(name: str, samples: list[tuple[Floats, Floats]]) -> ScaleEstimate:
    """Turn the samples of a source, per frame (reference, predicted), into what it says."""
    if not samples:
        return ScaleEstimate(name, np.nan, np.nan, 0, np.nan, False, 'No point to compare with.')
    ours, theirs = (np.concatenate([frame[k] for frame in samples]) for k in (0, 1))
    weights = np.concatenate([np.full(len(a), 1.0 / len(a) ** 0.5) for a, _ in samples])
    ratios = ours / theirs
    scale = weighted_median(ratios, weights)
    spread = weighted_median(np.abs(ratios - scale), weights) / scale
    slope = np.nan if name.startswith(sparse_depth.HEIGHT) else _slope(theirs, ours)
    refused = _refusal(len(ratios), len(samples), spread)
    odd = ''
    if _is_telling(slope, theirs, ours):
        odd = f'Depth grows with power {slope:.2f} of the model: one factor is not enough.'
    return ScaleEstimate(
        name, scale, spread, len(ratios), slope, not refused, refused or odd, len(samples)
    )


def _is_telling(slope: float, theirs: Floats, ours: Floats) -> bool:
    """Tell whether a slope is off by more than what the scatter about its line could do."""
    if not np.isfinite(slope) or _SLOPES[0] <= slope <= _SLOPES[1]:
        return False
    x, y = np.log(theirs), np.log(ours)
    left = y - slope * x
    scatter = float(np.median(np.abs(left - np.median(left))))
    across = float(np.subtract(*np.quantile(x, (0.9, 0.1))))
    return abs(slope - 1.0) * across > _TELLING * scatter


def _refusal(samples: int, frames: int, spread: float) -> str:
    """Say why the scale may not be set by a source, or ''."""
    if samples < FEWEST_SAMPLES:
        return f'{samples} points are too few, {FEWEST_SAMPLES} are needed.'
    if frames < FEWEST_FRAMES:
        return f'Points in {frames} frames are too few, {FEWEST_FRAMES} frames are needed.'
    if not spread <= _WIDEST_SPREAD:
        return f'The ratios scatter by {100 * spread:.0f} %: they say nothing about one factor.'
    return ''


def weighted_median(values: Floats, weights: Floats) -> float:
    """Return the smallest value that has at least half of the weight at or below it.

    :param values: (N,), N at least 1.
    :param weights: (N,), not negative, not all 0.
    """
    order = np.argsort(values)
    heap = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(heap, 0.5 * heap[-1])])


def _slope(theirs: Floats, ours: Floats) -> float:
    """Return the power by which the reference grows with the model: the line of medians.

    Medians of three groups by depth (after Tukey's resistant line); groups are made by the sum of
    both logarithms, so that noise in neither flattens the line.
    """
    x, y = np.log(theirs), np.log(ours)
    if len(x) < FEWEST_SAMPLES or min(np.std(x), np.std(y)) < _LEAST_RANGE:
        return float('nan')
    order = np.argsort(x + y)
    third = len(x) // 3
    low, high = order[:third], order[-third:]
    across = float(np.median(x[high]) - np.median(x[low]))
    return float(np.median(y[high]) - np.median(y[low])) / across if across > 0 else float('nan')


def _floor_heights(
    predicted: NDArray[np.float32],
    model: CameraModel,
    seen: NDArray[np.bool_],
    pose: Floats,
) -> Floats:
    """Return how far below the camera the ground is, by the model, at pixels of the ground.

    Ground is level (its normal is that of gravity), below the camera, and the lowest such thing:
    tables are level too.

    :returns: (N,) in the model's metres; empty where too little ground is seen.
    """
    depth = cv2.GaussianBlur(predicted, (0, 0), 1.5)[::_GRID_PX, ::_GRID_PX].astype(np.float64)
    x, y = (axis[::_GRID_PX].astype(np.float64) for axis in ray_slopes(model))
    points = np.stack([x * depth, y[:, None] * depth, depth], axis=2)
    with np.errstate(invalid='ignore', divide='ignore'):
        normal = np.cross(points[:-1, 1:] - points[:-1, :-1], points[1:, :-1] - points[:-1, :-1])
        normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    down = -pose[2, :3]
    below = points[:-1, :-1] @ down
    level = np.abs(normal @ down) >= _LEVEL
    level &= np.isfinite(below) & (below > 0.0) & seen[::_GRID_PX, ::_GRID_PX][:-1, :-1]
    heights = below[level]
    if len(heights) < _LEAST_FLOOR * level.size:
        return np.zeros(0)
    lowest = float(np.quantile(heights, 0.8))
    return np.asarray(heights[(heights > 0.8 * lowest) & (heights < 1.25 * lowest)])
