"""The images of a recording, each with its camera and the recorded depth of its pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import CameraView
from depth_node.camera import check_fields
from depth_node.camera import chosen_view
from depth_node.camera import is_named_rectified
from depth_node.camera.assumed import AssumedCamera
from depth_node.camera.assumed import source_of
from depth_node.dataset.ego_mask import EgoMask
from depth_node.dataset.takes import Take
from depth_node.errors import CameraRejected
from depth_node.errors import RecordingError
from depth_node.errors import Rejected
from depth_node.frames import CameraFields
from depth_node.frames import CameraImage
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.image_codec import decode_image
from depth_node.judging.crops import cropped_truth
from depth_node.judging.references import Measured
from depth_node.judging.references import Moment
from depth_node.judging.references import Picture
from depth_node.judging.references import Projector
from depth_node.judging.references import check_registered
from depth_node.judging.references import matched
from depth_node.judging.references import truth_of
from depth_node.recording import CameraTopics
from depth_node.recording import Recording
from depth_node.recording import Topic
from depth_node.recording import open_recording
from depth_node.recording.reader import Record
from depth_node.settings import CameraSettings

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
    camera: CameraSettings = field(default_factory=CameraSettings)
    """The camera, for recordings without a usable camera_info."""
    ego_mask: EgoMask | None = None
    """Where images show the robot itself: nothing counts there."""
    salvage: bool = False
    """Judge what is left of a damaged recording, for callers that have told of the damage."""

    def of(self, take: Take) -> JudgeSettings:
        """Return the settings for one take: its topics, and its own depth as reference."""
        reference = self.reference
        if take.reference is not None and reference != '':
            reference = take.reference
        return replace(
            self,
            image=take.choice.image,
            camera_info=take.choice.camera_info,
            reference=reference,
        )


Projecting = Callable[[Recording, CameraTopics, Topic], Projector]
"""An open recording, the topics of its camera, and a topic of scans or clouds -> what projects
them."""

_PROJECTED = ('sensor_msgs/msg/LaserScan', 'sensor_msgs/msg/PointCloud2')


@dataclass(frozen=True, eq=False)
class Scene:
    """What there is of one image."""

    image: CameraImage
    """As the camera sent it."""
    view: CameraView
    """How it is looked at."""
    truth_m: NDArray[np.float32]
    """(H, W) metres at the pixels of the published depth; NaN unknown, or outside the crop."""


def scenes(
    path: Path,
    settings: JudgeSettings,
    wanted: Callable[[int], bool],
    progress: Progress,
    dropped: dict[str, int],
    projecting: Projecting | None = None,
) -> Iterator[Scene]:
    """Yield the images that can be judged; the recording is read once.

    :param wanted: tells by the stamp whether an image is to be judged.
    :param dropped: counts by reason what was wanted and cannot be judged.
    :param projecting: makes what projects a reference that is a scan or a cloud; None refuses
        such references.
    :raises RecordingError: when it cannot be read or has no depth that fits its images.
    """
    with open_recording(path, salvage=settings.salvage) as recording:
        reader = _Reader(recording, settings, projecting)
        for place, moment in enumerate(reader.moments()):
            progress(place + 1, reader.count)
            if place % reader.every or not wanted(moment.image.stamp_ns):
                continue
            try:
                scene = reader.scene(moment)
            except Rejected as error:
                dropped[error.reason] = dropped.get(error.reason, 0) + 1
                continue
            if isinstance(scene, Scene):
                yield scene
            else:
                dropped[scene] = dropped.get(scene, 0) + 1


class _Reader:
    """One recording with its topics chosen."""

    def __init__(
        self, recording: Recording, settings: JudgeSettings, projecting: Projecting | None
    ) -> None:
        self._recording, self._settings = recording, settings
        self._views: dict[tuple[CameraFields, int, int], CameraView] = {}
        self._registered = False
        self._assumed = AssumedCamera()
        measured = _named(recording, settings.reference)
        self._topics: CameraTopics = recording.camera_topics(
            settings.image, settings.camera_info, '' if measured else settings.reference
        )
        reference = measured or self._topics.depth
        if reference is None:
            raise self._unusable('no depth images', 'recorded depth to compare with')
        if self._topics.camera_info is None and not source_of(settings.camera):
            raise self._unusable('no camera_info', 'the camera of the images')
        self._reference, self._info = reference, self._topics.camera_info
        self._project: Projector | None = None
        if measured is not None:
            if projecting is None:
                raise self._unusable(
                    f'{measured.name} of {measured.kind} as reference', 'a topic of depth images'
                )
            self._project = projecting(recording, self._topics, measured)
        self.count = self._topics.image.count
        self.every = max(1, math.ceil(self.count / settings.frames))

    def moments(self) -> Iterator[Moment]:
        """Yield every image with what belongs to it."""
        recording = self._recording
        first = None if self._info is None else recording.first(self._info)
        camera = first if isinstance(first, CameraFields) else None
        period_ns = (recording.end_ns - recording.start_ns) / max(self.count - 1, 1)
        wanted = [self._topics.image, self._reference, self._info]
        records = recording.records([topic for topic in wanted if topic is not None])
        if self._settings.salvage:
            records = _before_damage(records)
        return matched(records, self._reference.name, camera, round(period_ns / 2))

    def scene(self, moment: Moment) -> Scene | str:
        """Decode one moment, or say why it cannot be judged.

        :raises Rejected: when a message cannot be used.
        :raises RecordingError: when the recorded depth does not belong to the images.
        """
        if moment.reference is None:
            return 'without reference'
        picture = moment.image
        rgb = decode_image(picture)
        image = CameraImage(rgb, picture.stamp_ns, picture.frame_id)
        view = self._view(moment, *rgb.shape[:2])
        truth = cropped_truth(self._truth(moment.reference, picture, view), self._settings.crop)
        if self._settings.ego_mask is not None:
            truth = np.where(self._settings.ego_mask.kept(view), truth, np.float32(np.nan))
        if not counted_truth(truth, self._settings).any():
            return 'no pixel with a true depth within the limits'
        return Scene(image, view, truth)

    def _truth(
        self, measured: Measured, picture: Picture, view: CameraView
    ) -> NDArray[np.float32]:
        """Return the reference at the pixels of the published depth, (H, W) metres."""
        if self._project is not None:
            return self._project(measured, view, picture.stamp_ns)
        if not isinstance(measured, (RawImage, CompressedImage)):
            raise self._unusable(f'{self._reference.kind} as reference', 'depth images')
        if not self._registered:
            check_registered(picture, measured, self._reference.name)
            self._registered = True
        return truth_of(measured, view, self._reference.name)

    def _view(self, moment: Moment, height: int, width: int) -> CameraView:
        """Return how the image is looked at, as the node would."""
        fields = self._fields(moment.camera, height, width)
        if fields is None:
            raise self._unusable('no usable camera_info', 'the camera of the images')
        key = (replace(fields, stamp_ns=0), width, height)
        if key not in self._views:
            named = is_named_rectified(self._topics.image.name)
            view = chosen_view(key[0], width, height, self._settings.rectify, named)
            self._views = {key: view}
        return self._views[key]

    def _fields(self, heard: CameraFields | None, height: int, width: int) -> CameraFields | None:
        """Return the camera as recorded or, where that is unusable, as described."""
        settings = self._settings.camera
        if not source_of(settings):
            return heard
        try:
            if heard is not None:
                check_fields(heard)
                return heard
        except CameraRejected:
            pass  # as expected: it is described for this
        return self._assumed.fields(settings, width, height, '')

    def _unusable(self, received: str, expected: str) -> RecordingError:
        return RecordingError(f'recording {self._recording.path}', received, expected)


def _before_damage(records: Iterator[Record]) -> Iterator[Record]:
    """Yield what can be read; frames were cached up to the same place."""
    try:
        yield from records
    except RecordingError:
        return


def _named(recording: Recording, name: str | None) -> Topic | None:
    """Return the topic of scans or clouds of this name, or None where it is no such."""
    for topic in recording.of_type(*_PROJECTED):
        if name is not None and topic.name.lstrip('/') == name.lstrip('/'):
            return topic
    return None


def counted_truth(truth: NDArray[np.float32], settings: JudgeSettings) -> NDArray[np.bool_]:
    """Return where the truth is known and within the limits, (H, W)."""
    with np.errstate(invalid='ignore'):
        inside: NDArray[np.bool_] = (truth >= settings.min_m) & (truth <= settings.max_m)
    return inside & np.isfinite(truth) & (truth > 0.0)
