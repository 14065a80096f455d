"""Metric models judged by a recording without a reference: by tracks, images and poses."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import CameraView
from depth_node.dataset.caching import CacheSettings
from depth_node.dataset.caching import cache_recording
from depth_node.dataset.frame_cache import FrameCache
from depth_node.dataset.pairs import plan_pairs
from depth_node.dataset.sparse_depth import SparseDepth
from depth_node.dataset.tracks import TrackLimits
from depth_node.dataset.tracks import measured_depth_m
from depth_node.dataset.tracks import tracked_depth
from depth_node.errors import RecordingError
from depth_node.frames import CameraImage
from depth_node.frames import DepthFrame
from depth_node.judging.judgement import Constants
from depth_node.judging.judgement import Judgement
from depth_node.judging.judgement import series_of
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.proxies import Ground
from depth_node.judging.proxies import Predict
from depth_node.judging.proxies import judge_by_proxies
from depth_node.judging.scenes import JudgeSettings
from depth_node.recording import open_recording

_MOST_TARGETS = 400
_UNCERTAINTY = 0.1  # of a track's depth, as a share of it: judging asks for more than learning


@dataclass(frozen=True)
class ProxySettings:
    """How much of a recording is judged."""

    targets: int = _MOST_TARGETS
    """Images that are judged at most, evenly spread."""


def judge_recording(
    models: Sequence[ModelUnderTest],
    path: Path,
    name: str,
    cache_settings: CacheSettings,
    root: Path,
    wanted: Callable[[int], bool] = lambda stamp_ns: True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Judgement, ...]:
    """Cache a recording and judge metric models by it; see :func:`judge_cache`.

    :param name: of the recording, for the series.
    :param root: folder for the cache.
    """
    cache = cache_recording(path, cache_settings, root)
    stamps = cache.stamps_ns.tolist()
    indices = [index for index, stamp_ns in enumerate(stamps) if wanted(stamp_ns)]
    return judge_cache(models, cache, indices, name, progress=progress)


def judge_cache(
    models: Sequence[ModelUnderTest],
    cache: FrameCache,
    indices: Sequence[int],
    name: str,
    *,
    settings: ProxySettings | None = None,
    ground: Ground | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Judgement, ...]:
    """Judge metric models by the frames of a cache.

    Every model runs through its pipeline on the images of the cache, as if a camera had sent them.

    :param indices: the frames to be judged, e.g. held-out ones.
    :raises RecordingError: when the frames have no poses with parallax, or all models are
        relative.
    """
    metric = [model for model in models if not model.relative]
    if not metric:
        raise RecordingError('evaluation', 'relative models only', 'reference depth for them')
    typical_m = measured_depth_m(cache, indices)
    if typical_m is None:
        raise RecordingError(
            f'recording {name}',
            'neither reference depth nor poses with parallax',
            'one of them',
            'Name a topic of recorded depth, or record odometry or TF.',
        )
    plan = plan_pairs(cache, indices, typical_m)
    chosen = sorted(plan.targets)
    most = (settings or ProxySettings()).targets
    at = np.unique(np.linspace(0, len(chosen) - 1, min(most, len(chosen))).round().astype(int))
    targets = {chosen[k]: plan.targets[chosen[k]] for k in at.tolist()}

    def tracks(index: int) -> SparseDepth:
        return tracked_depth(
            cache, targets[index], TrackLimits(max_uncertainty=_UNCERTAINTY)
        ).depth

    predict = {model.name: _predicting(model, cache) for model in metric}
    found = judge_by_proxies(
        name, cache, targets, predict, tracks=tracks, ground=ground, progress=progress
    )
    return tuple(
        Judgement(model.name, False, found[model.name], sha256=model.sha256) for model in metric
    )


def joined(judgements: Sequence[Judgement]) -> Judgement:
    """Return all that was measured of one model, on several recordings, as one judgement.

    :param judgements: of the same model, at least one.
    """
    rows: dict[str, list[tuple[str, int, float]]] = {}
    constants: dict[str, Constants] = {}
    notes: dict[str, None] = {}
    for item in judgements:
        constants |= item.constants
        notes |= dict.fromkeys(item.notes)
        for name, series in item.series.items():
            names = [series.recordings[k] for k in series.recording.tolist()]
            listed = zip(names, series.stamps_ns.tolist(), series.values.tolist(), strict=True)
            rows.setdefault(name, []).extend(listed)
    return replace(
        judgements[0],
        series={name: series_of(listed) for name, listed in rows.items()},
        constants=constants,
        notes=tuple(notes),
    )


def has_reference(path: Path, settings: JudgeSettings) -> bool:
    """Tell whether a recording has what :func:`depth_node.judging.judge.judge` compares with.

    :raises RecordingError: when it cannot be read or several topics would do.
    """
    if settings.reference is not None:
        return bool(settings.reference)
    with open_recording(path, salvage=settings.salvage) as recording:
        return recording.camera_topics(settings.image, settings.camera_info).depth is not None


def _predicting(model: ModelUnderTest, cache: FrameCache) -> Predict:
    """Return what runs a model on images of a cache."""
    return partial(_predicted, model, CameraView(cache.camera, None))


def _predicted(
    model: ModelUnderTest, view: CameraView, rgb: NDArray[np.uint8]
) -> NDArray[np.float32]:
    frame = model.process(CameraImage(rgb, 0, ''), view)
    if not isinstance(frame, DepthFrame):
        return np.full(rgb.shape[:2], np.nan, np.float32)
    return frame.depth_m
