"""What tells of depth without a reference: tracks, photometric error, consistency, the ground.

All models are judged on the same pairs of frames, under the same recorded poses and on the same
pixels: those that every model has in view.  A model that chose its own pixels or poses could look
good by leaving out what is hard.  Even so a blurred depth image lowers the photometric error, and
a constant one is consistent: the gate therefore decides by the tracks and only watches the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.evaluation import errors_of
from depth_node.frames import CameraModel
from depth_node.judging.judgement import Series
from depth_node.judging.judgement import series_of
from depth_node.judging.warping import height_above_ground_m
from depth_node.judging.warping import inconsistency
from depth_node.judging.warping import photometric_difference
from depth_node.judging.warping import projected
from depth_node.judging.warping import sampled

TRACKS = 'proxy.tracks_abs_rel'
TRACKS_SCALED = 'proxy.tracks_scaled_abs_rel'
TRACKS_SCALE = 'tracks.scale'
PHOTOMETRIC = 'proxy.photometric'
STANDING_STILL = 'still.photometric'
CONSISTENCY = 'proxy.consistency'
COVERAGE = 'proxy.coverage'
GROUND = 'proxy.ground_height'

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(h, w, 3) RGB at network size -> (h, w) metres; what is not finite is unknown."""

_KEPT = 96
_FEWEST_TRACKS = 8
_SMALLEST_SHARE = 0.05


class KnownDepth(Protocol):
    """Depth that is known at some pixels; as ``dataset.sparse_depth.SparseDepth``."""

    @property
    def u(self) -> NDArray[np.float32]:
        """(N,) columns, pixels."""
        ...

    @property
    def v(self) -> NDArray[np.float32]:
        """(N,) rows, pixels."""
        ...

    @property
    def depth_m(self) -> NDArray[np.float32]:
        """(N,) metres."""
        ...


class PosedPair(Protocol):
    """A source of a target; as ``dataset.pairs.Pair``."""

    @property
    def source(self) -> int:
        """Index of the source."""
        ...

    @property
    def T_source_target(self) -> NDArray[np.float64]:  # noqa: N802
        """(4, 4) maps points of the target to the source."""
        ...


class Frames(Protocol):
    """Frames at network size; as ``dataset.frame_cache.FrameCache``."""

    @property
    def camera(self) -> CameraModel:
        """Intrinsics at network size."""
        ...

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(h, w) False where rectification found no pixel."""
        ...

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """(N,) nanoseconds."""
        ...

    def rgb(self, index: int) -> NDArray[np.uint8]:
        """Return an image, (h, w, 3) RGB."""
        ...


@dataclass(frozen=True, eq=False)
class Ground:
    """A camera whose height above a level floor is known."""

    height_m: float
    """Of the camera above the floor, metres."""
    down: NDArray[np.float64]
    """(3,) unit vector towards the floor in the camera's frame."""


def judge_by_proxies(
    recording: str,
    frames: Frames,
    targets: Mapping[int, Sequence[PosedPair]],
    models: Mapping[str, Predict],
    *,
    tracks: Callable[[int], KnownDepth | None] = lambda index: None,
    ground: Ground | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, Series]]:
    """Judge metric models without a reference.

    :param recording: its name, for the series.
    :param targets: index of a frame -> its sources, held-out ones only.
    :param models: name -> what gives depth.
    :param tracks: index of a frame -> triangulated depth, independent of every model.
    :param ground: None where the height of the camera is not known.
    :returns: name of a model -> measure -> its numbers.
    """
    rows: dict[str, dict[str, list[tuple[str, int, float]]]] = {name: {} for name in models}
    recent = _Recent(frames, models)
    for done, target in enumerate(sorted(targets), start=1):
        found = _of_target(frames, target, targets[target], recent)
        depths = recent.depths(target)
        at_tracks = _by_tracks(depths, tracks(target))
        for name, depth in depths.items():
            values = found[name] | at_tracks[name] | _by_ground(depth, frames, ground)
            for measure, value in values.items():
                row = (recording, int(frames.stamps_ns[target]), value)
                rows[name].setdefault(measure, []).append(row)
        progress(done, len(targets))
    return {
        name: {measure: series_of(listed) for measure, listed in measures.items()}
        for name, measures in rows.items()
    }


class _Recent:
    """Images and depths of the last frames that were asked for: sources are shared by targets."""

    def __init__(self, frames: Frames, models: Mapping[str, Predict]) -> None:
        self._frames, self._models = frames, models
        self._kept: dict[int, tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]] = {}

    def image(self, index: int) -> NDArray[np.float32]:
        """Return (h, w, 3) RGB, 0 to 1."""
        return self._of(index)[0]

    def depths(self, index: int) -> dict[str, NDArray[np.float32]]:
        """Return (h, w) metres per model."""
        return self._of(index)[1]

    def _of(self, index: int) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        if index not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            rgb = self._frames.rgb(index)
            # copies: a model may reuse its arrays
            depths = {name: predict(rgb).copy() for name, predict in self._models.items()}
            self._kept[index] = (rgb.astype(np.float32) / np.float32(255.0), depths)
        return self._kept[index]


def _of_target(
    frames: Frames, target: int, pairs: Sequence[PosedPair], recent: _Recent
) -> dict[str, dict[str, float]]:
    """Return the measures that need pairs: means over the sources of a target."""
    image, depths = recent.image(target), recent.depths(target)
    seen = int(np.count_nonzero(frames.seen))
    found: dict[str, dict[str, float]] = {}
    for name, depth in depths.items():
        with np.errstate(invalid='ignore'):
            usable = np.isfinite(depth) & (depth > 0.0) & frames.seen
        found[name] = {COVERAGE: int(np.count_nonzero(usable)) / max(seen, 1)}
    sums: dict[str, dict[str, list[float]]] = {name: {} for name in depths}
    for pair in pairs:
        for name, values in _of_pair(frames, image, depths, pair, recent).items():
            for measure, value in values.items():
                sums[name].setdefault(measure, []).append(value)
    for name, lists in sums.items():
        for measure in (PHOTOMETRIC, STANDING_STILL, CONSISTENCY):
            values_of = [value for value in lists.get(measure, ()) if math.isfinite(value)]
            found[name][measure] = float(np.mean(values_of)) if values_of else math.nan
    return found


def _of_pair(
    frames: Frames,
    image: NDArray[np.float32],
    depths: Mapping[str, NDArray[np.float32]],
    pair: PosedPair,
    recent: _Recent,
) -> dict[str, dict[str, float]]:
    """Return the measures of one pair, all models on the same pixels."""
    pose = pair.T_source_target
    places = {name: projected(depth, frames.camera, pose) for name, depth in depths.items()}
    source, seen = recent.image(pair.source), frames.seen.astype(np.float32)
    mask = frames.seen.copy()
    for place in places.values():
        mask &= place.in_view & (sampled(seen, place) > 0.999)
    # a window of SSIM must not reach beyond
    inner = cv2.erode(
        mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0
    ).astype(bool)  # fmt: skip
    if np.count_nonzero(inner) < _SMALLEST_SHARE * inner.size:
        return {}
    still = float(photometric_difference(image, source)[inner].mean())
    unlike = {
        name: inconsistency(place, recent.depths(pair.source)[name])
        for name, place in places.items()
    }
    both = inner & np.all([np.isfinite(item) for item in unlike.values()], axis=0)
    return {
        name: {
            PHOTOMETRIC: float(
                photometric_difference(image, sampled(source, place))[inner].mean()
            ),
            STANDING_STILL: still,
            CONSISTENCY: float(unlike[name][both].mean()) if both.any() else math.nan,
        }
        for name, place in places.items()
    }


def _by_tracks(
    depths: Mapping[str, NDArray[np.float32]], known: KnownDepth | None
) -> dict[str, dict[str, float]]:
    """Return Abs Rel at the tracks of a frame, as it is and median-scaled, and that scale.

    Only tracks count at which every model has depth.
    """
    nothing = {TRACKS: math.nan, TRACKS_SCALED: math.nan, TRACKS_SCALE: math.nan}
    found = dict.fromkeys(depths, nothing)
    if known is None or len(known.depth_m) < _FEWEST_TRACKS or not depths:
        return found
    there = {name: _at_pixels(depth, known) for name, depth in depths.items()}
    with np.errstate(invalid='ignore'):
        usable = np.isfinite(known.depth_m) & (known.depth_m > 0.0)
        for values in there.values():
            usable &= np.isfinite(values) & (values > 0.0)
    if np.count_nonzero(usable) < _FEWEST_TRACKS:
        return found
    truth, share = known.depth_m[usable].astype(np.float64), float(usable.mean())
    for name, values in there.items():
        prediction = values[usable].astype(np.float64)
        scale = float(np.median(truth) / np.median(prediction))
        found[name] = {
            TRACKS: errors_of(prediction, truth, share).abs_rel,
            TRACKS_SCALED: errors_of(prediction * scale, truth, share).abs_rel,
            TRACKS_SCALE: scale,
        }
    return found


def _at_pixels(depth_m: NDArray[np.float32], known: KnownDepth) -> NDArray[np.float32]:
    """Return (N,) the depth at the nearest pixels."""
    height, width = depth_m.shape
    rows = np.clip(np.rint(known.v), 0, height - 1).astype(np.intp)
    columns = np.clip(np.rint(known.u), 0, width - 1).astype(np.intp)
    return depth_m[rows, columns]


def _by_ground(
    depth_m: NDArray[np.float32], frames: Frames, ground: Ground | None
) -> dict[str, float]:
    """Return by which share the height above the ground is wrong."""
    if ground is None:
        return {}
    seen = np.where(frames.seen, depth_m, np.nan).astype(np.float32)
    height_m = height_above_ground_m(seen, frames.camera, ground.down)
    return {GROUND: abs(height_m - ground.height_m) / ground.height_m}
