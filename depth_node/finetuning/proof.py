"""Whether the fine-tuned model is better, by held-out time; and the model that the node gets.

Both models are judged as the node would run them, from their folders.  Where depth was recorded it
is the reference, also when nothing was learned from it; beside it, and without it, triangulated
tracks, photometric error under recorded poses, and consistency over time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node import camera
from depth_node.dataset.tracks import tracked_depth
from depth_node.errors import DepthNodeError
from depth_node.errors import RecordingError
from depth_node.files import sync
from depth_node.finetuning.preparation import Prepared
from depth_node.frames import CameraImage
from depth_node.frames import CameraModel
from depth_node.frames import DepthFrame
from depth_node.judging.bootstrap import SMALLEST_BLOCKS
from depth_node.judging.bootstrap import BlockSettings
from depth_node.judging.comparison import Comparison
from depth_node.judging.comparison import compare
from depth_node.judging.gate import Verdict
from depth_node.judging.gate import gate
from depth_node.judging.judge import JudgeSettings
from depth_node.judging.judge import judge
from depth_node.judging.judgement import Judgement
from depth_node.judging.judgement import Series
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.models import opened_models
from depth_node.judging.proxies import judge_by_proxies
from depth_node.recording import open_recording

Progress = Callable[[str, int, int], None]
"""Told what is judged, how many of it are done, and of how many."""

_USUAL_BLOCK_S = 1.0
_SHORTEST_BLOCK_S = 0.1
_BLOCKS_WANTED = SMALLEST_BLOCKS + 2
_MOST_TARGETS = 400


@dataclass(frozen=True, eq=False)
class Proof:
    """What was measured of both models, and what follows."""

    before: Judgement
    """The start model."""
    after: Judgement
    """The fine-tuned one."""
    comparison: Comparison
    """Of the two, moment by moment."""
    verdict: Verdict
    """Of the gate."""
    block_s: float
    """Length of the blocks of time behind the intervals, seconds."""

    def to_json(self) -> dict[str, Any]:
        """Return the measurements and the verdict as plain JSON values."""
        return {
            'outcome': int(self.verdict.outcome),
            'reasons': list(self.verdict.reasons),
            'block_s': self.block_s,
            'before': self.before.to_json(),
            'after': self.after.to_json(),
            'comparison': self.comparison.to_json(),
        }


def proof_from_json(value: Mapping[str, Any]) -> Proof:
    """Compare anew what :meth:`Proof.to_json` has kept.

    :raises DepthNodeError: for anything else.
    """
    before = Judgement.from_json(value.get('before'))
    after = Judgement.from_json(value.get('after'))
    return _compared(before, after, float(value['block_s']))


def proven(
    before: Path,
    after: Path,
    recordings: Sequence[Prepared],
    settings: JudgeSettings,
    progress: Progress = lambda what, done, total: None,
) -> Proof:
    """Judge two model folders on the held-out time of recordings.

    :param before: folder of the start model.
    :param after: folder of the fine-tuned model.
    :raises RecordingError: when a recording cannot be read.
    :raises EngineError: when no engine runs a model.
    """
    with opened_models([str(before), str(after)]) as models:
        judgements = _by_reference(models, recordings, settings, progress)
        judgements = _with_proxies(judgements, models, recordings, progress)
    return _compared(*judgements, _block_s(recordings))


def publish(folder: Path, best: Path) -> None:
    """Put a copy of a model folder, byte for byte, in the place of ``best``.

    :raises DepthNodeError: when the disk refuses; what was there before is then untouched.
    """
    temporary, old = best.with_name(f'.{best.name}.new'), best.with_name(f'.{best.name}.old')
    try:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(folder, temporary)
        for path in temporary.rglob('*'):
            sync(path)
        if best.exists():
            os.replace(best, old)
        os.replace(temporary, best)
        sync(best.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise DepthNodeError(
            f'model folder {best}',
            f'a disk that refuses it ({error.strerror})',
            'room to write',
            'Make room and run the same command again: it goes on from here.',
        ) from error


def has_reference(path: Path, settings: JudgeSettings) -> bool:
    """Tell whether a recording has depth images to judge by.

    :raises RecordingError: when it cannot be read.
    """
    with open_recording(path, salvage=True) as recording:
        try:
            topics = recording.camera_topics(
                settings.image, settings.camera_info, settings.reference
            )
        except RecordingError:
            return False  # several depth topics, of which none was named
        return topics.depth is not None


def _compared(before: Judgement, after: Judgement, block_s: float) -> Proof:
    comparison = compare(before, after, BlockSettings(block_s=block_s))
    return Proof(before, after, comparison, gate(comparison), block_s)


def _by_reference(
    models: Sequence[ModelUnderTest],
    recordings: Sequence[Prepared],
    settings: JudgeSettings,
    progress: Progress,
) -> tuple[Judgement, Judgement]:
    """Judge by recorded depth where there is any."""
    spans = {item.path: _span(item) for item in recordings}
    paths = [path for path in spans if has_reference(path, settings)]

    def wanted(path: Path, stamp_ns: int) -> bool:
        low, high = spans[path]
        return low <= stamp_ns <= high

    if not paths:
        bare = [Judgement(model.name, model.relative, {}, sha256=model.sha256) for model in models]
        return bare[0], bare[1]
    judged = judge(
        models, paths, settings, lambda done, total: progress('images', done, total), wanted
    )
    return judged.judgements[0], judged.judgements[1]


def _with_proxies(
    judgements: tuple[Judgement, Judgement],
    models: Sequence[ModelUnderTest],
    recordings: Sequence[Prepared],
    progress: Progress,
) -> tuple[Judgement, Judgement]:
    """Add what needs no reference."""
    found: list[dict[str, list[Series]]] = [{} for _ in judgements]
    for item in recordings:
        targets = _thinned(item.held_out.targets, _MOST_TARGETS)
        if not targets:
            continue
        predictors = {
            str(place): _at_network_size(model, item.cache.camera)
            for place, model in enumerate(models)
        }
        by_model = judge_by_proxies(
            item.name,
            item.cache,
            targets,
            predictors,
            tracks=lambda index, item=item: (
                tracked_depth(  # type: ignore[misc]
                    item.cache, item.held_out.targets[index]
                ).depth
            ),
            progress=lambda done, total: progress('pairs', done, total),
        )
        for place in range(len(found)):
            for measure, series in by_model[str(place)].items():
                found[place].setdefault(measure, []).append(series)
    first, second = (
        replace(
            judgement,
            series={
                **judgement.series,
                **{measure: _joined(listed) for measure, listed in extra.items()},
            },
        )
        for judgement, extra in zip(judgements, found, strict=True)
    )
    return first, second


def _at_network_size(
    model: ModelUnderTest, shown: CameraModel
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return what maps an image at network size to the model's metres."""
    view = camera.CameraView(shown, None)

    def predict(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        frame = model.process(CameraImage(rgb, 0, ''), view)
        if not isinstance(frame, DepthFrame):
            raise DepthNodeError('proxies', 'a model of relative depth', 'one of metres')
        return frame.depth_m.copy()

    return predict


def _joined(listed: Sequence[Series]) -> Series:
    """Return the same measure of several recordings as one."""
    names = tuple(dict.fromkeys(name for series in listed for name in series.recordings))
    places = [
        np.array([names.index(name) for name in series.recordings], np.int64)[series.recording]
        for series in listed
    ]
    return Series(
        recordings=names,
        recording=np.concatenate(places),
        stamps_ns=np.concatenate([series.stamps_ns for series in listed]),
        values=np.concatenate([series.values for series in listed]),
    )


def _span(item: Prepared) -> tuple[int, int]:
    """Return the first and the last stamp of the held-out time; an empty span for none."""
    stamps = item.cache.stamps_ns
    held = item.split.held_out
    return (int(stamps[held[0]]), int(stamps[held[-1]])) if held else (1, 0)


def _block_s(recordings: Sequence[Prepared]) -> float:
    """Return a block length that leaves blocks enough.

    A second is more than one frame tells of the next; a recording of a few seconds cannot afford
    it, and its shorter blocks say less about other places.
    """
    held_s = sum((high - low) * 1e-9 for low, high in map(_span, recordings) if high > low)
    return float(np.clip(held_s / _BLOCKS_WANTED, _SHORTEST_BLOCK_S, _USUAL_BLOCK_S))


def _thinned(targets: Mapping[int, tuple[object, ...]], most: int) -> dict[int, tuple]:  # type: ignore[type-arg]
    """Return at most so many targets, evenly spread."""
    keys = sorted(targets)
    at = np.linspace(0, len(keys) - 1, min(most, len(keys))).round().astype(int)
    return {keys[k]: targets[keys[k]] for k in at}
