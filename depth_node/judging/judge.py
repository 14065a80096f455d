"""Several models judged by recorded depth: every recording is read once, for all of them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import CameraView
from depth_node.evaluation import ConstantBaseline
from depth_node.evaluation import DepthMetrics
from depth_node.evaluation import aligned_depth
from depth_node.evaluation import alignment_of
from depth_node.evaluation import counted_pixels
from depth_node.evaluation import errors_of
from depth_node.frames import CameraImage
from depth_node.frames import DepthFrame
from depth_node.frames import RelativeFrame
from depth_node.judging.crops import range_errors
from depth_node.judging.judgement import Constants
from depth_node.judging.judgement import Judgement
from depth_node.judging.judgement import series_of
from depth_node.judging.models import EDGE_STEP_NOTE
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.references import NoReference
from depth_node.judging.rescaled import RatioSketch
from depth_node.judging.rescaled import sketch_of
from depth_node.judging.scenes import JudgeSettings
from depth_node.judging.scenes import Progress
from depth_node.judging.scenes import Projecting
from depth_node.judging.scenes import Scene
from depth_node.judging.scenes import counted_truth
from depth_node.judging.scenes import scenes
from depth_node.row_prior import RowPrior


@dataclass(frozen=True)
class Judged:
    """What a recording gave."""

    judgements: tuple[Judgement, ...]
    """One per model, in their order."""
    frames: int
    """Images that were compared."""
    dropped: dict[str, int]
    """Reason -> images that were not."""


def judge(
    models: Sequence[ModelUnderTest],
    recordings: Sequence[Path],
    settings: JudgeSettings,
    progress: Progress = lambda done, total: None,
    wanted: Callable[[Path, int], bool] = lambda path, stamp_ns: True,
    projecting: Projecting | None = None,
    names: Sequence[str] = (),
) -> Judged:
    """Compare the depth of models with the depth that was recorded.

    :param wanted: tells whether the image of a recording with this stamp is to be judged, e.g.
        because it is held out of training.
    :param projecting: see :func:`depth_node.judging.scenes.scenes`.
    :param names: of the recordings in the series; empty for short names of them.
    :raises RecordingError: when a recording cannot be read, has no depth that fits its images, or
        nothing of it could be compared; of the latter two, ``NoReference``.
    :raises EngineError: when a model fails.
    """
    dropped: dict[str, int] = {}

    def sources() -> Iterator[tuple[str, str, Iterable[Scene]]]:
        for path, name in zip(recordings, names or recording_names(recordings), strict=True):
            of_it = partial(wanted, path)
            found = scenes(path, settings, of_it, progress, dropped, projecting)
            yield name, f'recording {path}', found

    return _judged(models, sources(), settings, dropped)


def judge_scenes(
    models: Sequence[ModelUnderTest], name: str, images: Iterable[Scene], settings: JudgeSettings
) -> Judged:
    """Compare the depth of models with the true depth of images from anywhere.

    :param name: of the images; it stands where :func:`judge` has that of a recording.
    :raises RecordingError: when there are no images.
    :raises EngineError: when a model fails.
    """
    return _judged(models, [(name, name, images)], settings, {})


def _judged(
    models: Sequence[ModelUnderTest],
    sources: Iterable[tuple[str, str, Iterable[Scene]]],
    settings: JudgeSettings,
    dropped: dict[str, int],
) -> Judged:
    """Judge sources one after the other.

    :param sources: short name, name for errors, and images of each.
    """
    scorers = [_Scorer(model, settings) for model in models]
    frames = 0
    for name, who, images in sources:
        constant, here = ConstantBaseline(), 0
        rows, scaled_rows = RowPrior(), RowPrior(scaled=True)
        for scene in images:
            counted = counted_truth(scene.truth_m, settings)
            for scorer in scorers:
                scorer.add(name, scene.image, scene.view, scene.truth_m)
            constant.add(scene.truth_m[counted])
            rows.add(scene.truth_m, counted)
            scaled_rows.add(scene.truth_m, counted)
            here += 1
        if not here:
            raise _nothing(who, dropped)
        constants = _constants(constant, rows, scaled_rows)
        for scorer in scorers:
            scorer.end_recording(name, constants)
        frames += here
    return Judged(tuple(scorer.judgement() for scorer in scorers), frames, dropped)


def _nothing(who: str, dropped: dict[str, int]) -> NoReference:
    reasons = ', '.join(f'{count} {reason}' for reason, count in sorted(dropped.items()))
    return NoReference(
        who,
        f'nothing that could be compared ({reasons or "no image was wanted"})',
        'images with recorded depth of the same moment',
    )


class _Scorer:
    """Collects the errors of one model."""

    def __init__(self, model: ModelUnderTest, settings: JudgeSettings) -> None:
        self._model, self._settings = model, settings
        self._rows: dict[str, list[tuple[str, int, float]]] = {}
        self._sketches: list[tuple[int, float, RatioSketch]] = []
        self._constants: dict[str, Constants] = {}

    def add(
        self, recording: str, image: CameraImage, view: CameraView, truth: NDArray[np.float32]
    ) -> None:
        """Judge one image."""
        frame = self._model.process(image, view)
        if isinstance(frame, RelativeFrame):
            self._add_relative(recording, frame, truth)
        else:
            self._add_metric(recording, frame, truth)

    def _add_metric(self, recording: str, frame: DepthFrame, truth: NDArray[np.float32]) -> None:
        settings, stamp_ns = self._settings, frame.stamp_ns
        depth_m = self._limited(frame.depth_m.astype(np.float64))
        pair = counted_pixels(depth_m, truth, settings.min_m, settings.max_m)
        if pair is None:
            self._note(recording, stamp_ns, {'metric.coverage': 0.0})
            return
        prediction, known, coverage = pair
        scale = float(np.median(known) / np.median(prediction))
        values = _named('metric', errors_of(prediction, known, coverage))
        scaled = self._limited(prediction * scale)
        values |= _named('median', errors_of(scaled, known, coverage))
        values |= {'scale': scale, **range_errors(prediction, known)}
        self._note(recording, stamp_ns, values)
        self._sketches.append((stamp_ns, scale, sketch_of(prediction, known, coverage)))

    def _add_relative(
        self, recording: str, frame: RelativeFrame, truth: NDArray[np.float32]
    ) -> None:
        settings = self._settings
        alignment = alignment_of(frame.inverse, truth, settings.min_m, settings.max_m)
        if alignment is None:
            return
        depth_m = aligned_depth(frame.inverse, alignment, settings.max_m)
        pair = counted_pixels(depth_m, truth, settings.min_m, settings.max_m)
        if pair is not None:
            self._note(recording, frame.stamp_ns, _named('aligned', errors_of(*pair)))

    def _limited(self, depth_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cut depth to the limits where a crop of the papers is asked for; NaN stays NaN."""
        if not self._settings.crop:
            return depth_m
        limited: NDArray[np.float64] = np.clip(depth_m, self._settings.min_m, self._settings.max_m)
        return limited

    def _note(self, recording: str, stamp_ns: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._rows.setdefault(name, []).append((recording, stamp_ns, value))

    def end_recording(self, recording: str, constants: Constants) -> None:
        """Judge the frames of the recording under one scale; forget what that took."""
        self._constants[recording] = constants
        if self._sketches:
            common = float(np.median([scale for _, scale, _ in self._sketches]))
            for stamp_ns, _, sketch in self._sketches:
                self._note(recording, stamp_ns, _named('global', sketch.errors(common)))
        self._sketches = []

    def judgement(self) -> Judgement:
        """Return what was found."""
        notes = [EDGE_STEP_NOTE]
        if self._model.relative:
            notes = [
                'Relative inverse depth, given the scale and shift that fit each image best to '
                'the reference: not comparable with metric figures.'
            ]
        return Judgement(
            name=self._model.name,
            relative=self._model.relative,
            series={name: series_of(rows) for name, rows in self._rows.items()},
            constants=dict(self._constants),
            sha256=self._model.sha256,
            notes=tuple(notes),
        )


def _named(prefix: str, errors: DepthMetrics) -> dict[str, float]:
    return {f'{prefix}.{item.name}': getattr(errors, item.name) for item in fields(errors)}


def _constants(constant: ConstantBaseline, rows: RowPrior, scaled_rows: RowPrior) -> Constants:
    best, (rows_abs_rel, rows_a1) = constant.best(), rows.best()
    return Constants(
        depth_m=best.depth_m,
        abs_rel=best.abs_rel,
        a1=best.a1,
        median_abs_rel=best.median_abs_rel,
        rows_abs_rel=rows_abs_rel,
        rows_a1=rows_a1,
        rows_scaled_abs_rel=scaled_rows.best()[0],
    )


def recording_names(recordings: Sequence[Path]) -> list[str]:
    """Return short names of recordings, distinct ones."""
    short = [path.resolve().name for path in recordings]
    return short if len(set(short)) == len(short) else [str(path) for path in recordings]
