"""Which held-out images a report shows, and what both models make of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from depth_node.frames import DepthFrame
from depth_node.judging.judgement import Series
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.report import FrameShown
from depth_node.judging.scenes import JudgeSettings
from depth_node.judging.scenes import Projecting
from depth_node.judging.scenes import scenes

_APART_NS = 1_000_000_000

Place = tuple[str, int]
"""Name of a recording and stamp of an image, nanoseconds."""


def evenly_spread(series: Series, count: int) -> tuple[Place, ...]:
    """Return ``count`` of the judged moments, or all where there are fewer."""
    known = np.flatnonzero(np.isfinite(series.values))
    if not known.size:
        return ()
    at = np.unique(np.linspace(0, known.size - 1, min(count, known.size)).round().astype(int))
    return tuple(_place(series, int(known[k])) for k in at)


def worst_places(series: Series, count: int) -> tuple[Place, ...]:
    """Return the moments with the largest values, at least a second apart from each other."""
    order = np.argsort(np.where(np.isfinite(series.values), -series.values, np.inf))
    found: list[Place] = []
    for k in order.tolist():
        if len(found) == count or not np.isfinite(series.values[k]):
            break
        name, stamp_ns = _place(series, k)
        if all(name != other or abs(stamp_ns - at) >= _APART_NS for other, at in found):
            found.append((name, stamp_ns))
    return tuple(found)


def frames_shown(
    before: ModelUnderTest,
    after: ModelUnderTest,
    path: Path,
    name: str,
    places: Collection[Place],
    settings: JudgeSettings,
    projecting: Projecting | None = None,
) -> tuple[FrameShown, ...]:
    """Show images of one recording with the depth of two metric models.

    :param name: of the recording in ``places``.
    :param projecting: see :func:`depth_node.judging.scenes.scenes`.
    :returns: in the order of ``places``; relative models give none.
    :raises RecordingError: as :func:`depth_node.judging.judge.judge`.
    """
    stamps = [stamp_ns for recording, stamp_ns in places if recording == name]
    found: dict[int, FrameShown] = {}
    if not stamps:
        return ()
    first_ns: list[int] = []

    def wanted(stamp_ns: int) -> bool:
        first_ns.append(stamp_ns)
        del first_ns[1:]
        return stamp_ns in stamps

    for scene in scenes(path, settings, wanted, _ignore, {}, projecting):
        depths = []
        for model in (before, after):
            frame = model.process(scene.image, scene.view)
            if isinstance(frame, DepthFrame):
                # copies: the arrays are reused by the next image
                depths.append((frame.rgb.copy(), frame.depth_m.copy()))
        stamp_ns = scene.image.stamp_ns
        if len(depths) == 2:
            since_s = (stamp_ns - first_ns[0]) / 1e9
            found[stamp_ns] = FrameShown(
                caption=f'{name}, {since_s:.1f} s',
                rgb=depths[0][0],
                before_m=depths[0][1],
                after_m=depths[1][1],
                reference_m=scene.truth_m,
            )
    return tuple(found[stamp_ns] for stamp_ns in stamps if stamp_ns in found)


def _ignore(done: int, total: int) -> None:
    """Take no notice of progress."""


def _place(series: Series, at: int) -> Place:
    return series.recordings[int(series.recording[at])], int(series.stamps_ns[at])
