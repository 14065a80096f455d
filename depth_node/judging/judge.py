"""Several models judged by recorded depth: every recording is read once, for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import CameraView
from depth_node.camera import chosen_view
from depth_node.camera import is_named_rectified
from depth_node.errors import RecordingError
from depth_node.errors import Rejected
from depth_node.evaluation import ConstantBaseline
from depth_node.evaluation import DepthMetrics
from depth_node.evaluation import aligned_depth
from depth_node.evaluation import alignment_of
from depth_node.evaluation import counted_pixels
from depth_node.evaluation import errors_of
from depth_node.frames import CameraFields
from depth_node.frames import CameraImage
from depth_node.frames import DepthFrame
from depth_node.frames import RawImage
from depth_node.frames import RelativeFrame
from depth_node.image_codec import decode_compressed
from depth_node.image_codec import decode_raw
from depth_node.judging.crops import cropped_truth
from depth_node.judging.crops import range_errors
from depth_node.judging.judgement import Constants
from depth_node.judging.judgement import Judgement
from depth_node.judging.judgement import series_of
from depth_node.judging.models import EDGE_STEP_NOTE
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.references import Moment
from depth_node.judging.references import check_registered
from depth_node.judging.references import matched
from depth_node.judging.references import truth_of
from depth_node.judging.rescaled import RatioSketch
from depth_node.judging.rescaled import sketch_of
from depth_node.judging.row_prior import RowPrior
from depth_node.recording import CameraTopics
from depth_node.recording import Recording
from depth_node.recording import open_recording

Progress = Callable[[int, int], None]
"""Told how many images are judged, and of how many."""


@dataclass(frozen=True)
class JudgeSettings:
    """What is compared, and how much of it."""

    image: str | None = None
    """Image topic, where a recording has several."""
    camera_info: str | None = None
    """Its camera_info topic, where it is not the neighbour."""
    reference: str | None = None
    """Topic of the recorded depth, where there are several."""
    crop: str = ''
    """'eigen', 'garg' or '' for the whole image.  With a crop, depth is also cut to the limits,
    as the papers do that use it, so that figures can be compared with theirs."""
    min_m: float = 0.05
    """True depth below does not count, metres."""
    max_m: float = 80.0
    """True depth above does not count, metres."""
    frames: int = 2000
    """Images of a recording that are judged at most, evenly spread: bounds time and memory."""
    rectify: str = 'auto'
    """Parameter input.rectify of the node."""


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
) -> Judged:
    """Compare the depth of models with the depth that was recorded.

    :param wanted: tells whether the image of a recording with this stamp is to be judged, e.g.
        because it is held out of training.
    :raises RecordingError: when a recording cannot be read, has no depth that fits its images, or
        nothing of it could be compared.
    :raises EngineError: when a model fails.
    """
    scorers = [_Scorer(model, settings) for model in models]
    names = _names(recordings)
    dropped: dict[str, int] = {}
    frames = 0
    for path, name in zip(recordings, names, strict=True):
        with open_recording(path) as recording:
            run = _Run(recording, name, settings, scorers, dropped)
            run.go(progress, lambda stamp_ns, path=path: wanted(path, stamp_ns))  # type: ignore[misc]
            frames += run.frames
    return Judged(tuple(scorer.judgement() for scorer in scorers), frames, dropped)


class _Run:
    """One recording on its way through all models."""

    def __init__(
        self,
        recording: Recording,
        name: str,
        settings: JudgeSettings,
        scorers: Sequence[_Scorer],
        dropped: dict[str, int],
    ) -> None:
        self.frames = 0
        self._recording, self._name, self._settings = recording, name, settings
        self._scorers, self._dropped = scorers, dropped
        self._views: dict[tuple[CameraFields, int, int], CameraView] = {}
        self._constant, self._rows = ConstantBaseline(), RowPrior()
        self._registered = False
        self._topics: CameraTopics = recording.camera_topics(
            settings.image, settings.camera_info, settings.reference
        )
        if self._topics.depth is None:
            raise self._unusable('no depth images', 'recorded depth to compare with')
        if self._topics.camera_info is None:
            raise self._unusable('no camera_info', 'the camera of the images')

    def go(self, progress: Progress, wanted: Callable[[int], bool]) -> None:
        """Judge the images of the recording."""
        topics, recording = self._topics, self._recording
        depth, info = topics.depth, topics.camera_info
        if depth is None or info is None:
            return
        first = recording.first(info)
        count = topics.image.count
        every = max(1, math.ceil(count / self._settings.frames))
        period_ns = (recording.end_ns - recording.start_ns) / max(count - 1, 1)
        records = recording.records([topics.image, depth, info])
        camera = first if isinstance(first, CameraFields) else None
        for place, moment in enumerate(matched(records, topics, camera, round(period_ns / 2))):
            progress(place + 1, count)
            if place % every == 0 and wanted(moment.image.stamp_ns):
                self._judge(moment)
        if not self.frames:
            reasons = ', '.join(f'{n} {reason}' for reason, n in sorted(self._dropped.items()))
            raise self._unusable(
                f'nothing that could be compared ({reasons or "no image was wanted"})',
                'images with recorded depth of the same moment',
            )
        constants = _constants(self._constant, self._rows)
        for scorer in self._scorers:
            scorer.end_recording(self._name, constants)

    def _judge(self, moment: Moment) -> None:
        """Judge one image; what cannot be used is counted."""
        if moment.reference is None:
            return self._drop('without reference')
        try:
            if not self._registered:
                check_registered(moment.image, moment.reference, self._topics)
                self._registered = True
            image = _decoded(moment)
            view = self._view(moment, image)
            topic = self._topics.depth.name if self._topics.depth else ''
            truth = truth_of(moment.reference, view, topic)
        except Rejected as error:
            return self._drop(error.reason)
        truth = cropped_truth(truth, self._settings.crop)
        counted = _counted(truth, self._settings)
        if not counted.any():
            return self._drop('no pixel with a true depth within the limits')
        for scorer in self._scorers:
            scorer.add(self._name, image, view, truth)
        self._constant.add(truth[counted])
        self._rows.add(truth, counted)
        self.frames += 1
        return None

    def _view(self, moment: Moment, image: CameraImage) -> CameraView:
        """Return how the image is looked at, as the node would."""
        height, width = image.rgb.shape[:2]
        if moment.camera is None:
            raise self._unusable('no usable camera_info', 'the camera of the images')
        key = (replace(moment.camera, stamp_ns=0), width, height)
        if key not in self._views:
            named = is_named_rectified(self._topics.image.name)
            view = chosen_view(key[0], width, height, self._settings.rectify, named)
            self._views = {key: view}
        return self._views[key]

    def _drop(self, reason: str) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + 1

    def _unusable(self, received: str, expected: str) -> RecordingError:
        return RecordingError(f'recording {self._recording.path}', received, expected)


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


def _decoded(moment: Moment) -> CameraImage:
    picture = moment.image
    rgb = decode_raw(picture) if isinstance(picture, RawImage) else decode_compressed(picture)
    return CameraImage(rgb, picture.stamp_ns, picture.frame_id)


def _counted(truth: NDArray[np.float32], settings: JudgeSettings) -> NDArray[np.bool_]:
    """Return where the truth is known and within the limits, (H, W)."""
    with np.errstate(invalid='ignore'):
        inside: NDArray[np.bool_] = (truth >= settings.min_m) & (truth <= settings.max_m)
    return inside & np.isfinite(truth) & (truth > 0.0)


def _named(prefix: str, errors: DepthMetrics) -> dict[str, float]:
    return {f'{prefix}.{item.name}': getattr(errors, item.name) for item in fields(errors)}


def _constants(constant: ConstantBaseline, rows: RowPrior) -> Constants:
    best, (rows_abs_rel, rows_a1) = constant.best(), rows.best()
    return Constants(
        depth_m=best.depth_m,
        abs_rel=best.abs_rel,
        a1=best.a1,
        median_abs_rel=best.median_abs_rel,
        rows_abs_rel=rows_abs_rel,
        rows_a1=rows_a1,
    )


def _names(recordings: Sequence[Path]) -> list[str]:
    """Return short names of recordings, distinct ones."""
    short = [path.resolve().name for path in recordings]
    return short if len(set(short)) == len(short) else [str(path) for path in recordings]
