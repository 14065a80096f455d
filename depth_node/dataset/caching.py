"""From a recording to a frame cache: one pass over its images, prepared as the node prepares them.

Poses and transforms, which are small, are read before.  Images wait, at network size, until what
was measured shortly after them has been read too; so memory does not grow with the recording.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from depth_node import camera
from depth_node import image_codec
from depth_node.dataset import cache_format
from depth_node.dataset.audit import GyroUse
from depth_node.dataset.cache_writer import CacheWriter
from depth_node.dataset.ego_mask import EgoMask
from depth_node.dataset.frame_cache import FrameCache
from depth_node.dataset.frame_cache import open_cache
from depth_node.dataset.gyro_rotation import steadied_poses
from depth_node.dataset.pose_source import read_transforms
from depth_node.dataset.projection import Target
from depth_node.dataset.sensors import Sensor
from depth_node.dataset.sensors import sensors_of
from depth_node.dataset.sparse_depth import SparseSource
from depth_node.dataset.stereo_partner import stereo_of
from depth_node.dataset.stereo_sensor import StereoSensor
from depth_node.dataset.topics import RecordingTopics
from depth_node.dataset.topics import TopicChoice
from depth_node.dataset.topics import camera_frame_of
from depth_node.dataset.topics import topics_of
from depth_node.dataset.trajectory import Trajectory
from depth_node.errors import CameraRejected
from depth_node.errors import ImageRejected
from depth_node.errors import RecordingError
from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.recording import Recording
from depth_node.recording import open_recording
from depth_node.recording.reader import Record

Progress = Callable[[int, int], None]
"""Called with how many images have been looked at, and how many there are."""

_WAIT_NS = 200_000_000
_MOST_WAITING = 32  # where record times stand still or go back
_EARLIER = 0.9
_LEAP_NS = 5_000_000_000
_LEAPS_DOUBTED = 5
_SUFFIXES = ('.mcap', '.db3', '.bag')


@dataclass(frozen=True)
class CacheSettings:
    """What decides about the content of a cache, beside the recording."""

    sizes: tuple[tuple[int, int], ...]
    """(height, width) that the network can be given, pixels; one is taken as the node does."""
    policy: str = 'native'
    """``fit`` of the model's card."""
    choice: TopicChoice = field(default_factory=TopicChoice)
    """Topics."""
    hidden: tuple[str, ...] = ()
    """Topics of metres that nothing is to be learned from."""
    image_delay_ns: int = 0
    """By which the images are stamped late against the poses, nanoseconds."""
    gyro: GyroUse | None = None
    """How a gyroscope steadies the poses."""
    max_rate_hz: float = 15.0
    """Images beyond this rate are passed over, 1/s."""
    rectify: str = 'auto'
    """The node's input.rectify."""
    assumed: CameraFields | None = None
    """The camera, where the recording has no usable camera_info: then none of it counts."""
    ego_mask: EgoMask | None = None
    """Where images show the robot itself: it counts as not seen."""

    @classmethod
    def of(
        cls,
        audit: Audited,
        sizes: Sequence[tuple[int, int]],
        policy: str,
        hidden: Sequence[str] = (),
    ) -> CacheSettings:
        """Return the settings for a recording that was audited.

        :param audit: a :class:`depth_node.dataset.audit.Audit`.
        :param sizes: (height, width) of the card's inputs, pixels.
        :param policy: ``fit`` of the card.
        :param hidden: topics of metres that nothing is to be learned from.
        """
        return cls(
            tuple(sizes),
            policy,
            audit.choice,
            tuple(hidden),
            image_delay_ns=audit.applied_offset_ns,
            gyro=audit.gyro_use,
        )


class Audited(Protocol):
    """What an audit decides for the cache."""

    @property
    def choice(self) -> TopicChoice:
        """Topics."""

    @property
    def applied_offset_ns(self) -> int:
        """By which the images are stamped late, nanoseconds; 0 where that is not sure."""

    @property
    def gyro_use(self) -> GyroUse | None:
        """How a gyroscope steadies the poses; None where it does not."""


def cache_recording(
    path: Path | str,
    settings: CacheSettings,
    root: Path | str,
    *,
    progress: Progress | None = None,
) -> FrameCache:
    """Cache the images of one camera of a recording; a finished cache is merely opened.

    Killed at any moment, it goes on where it stopped.  Of a recording that is damaged, what is
    readable is cached, and the header's remarks say so.

    :param path: recording.
    :param root: folder for caches; this one gets a folder in it, named after recording and key.
    :raises RecordingError: when the recording cannot be opened, topics are unclear, or there is no
        usable image.
    :raises DepthNodeError: when the disk refuses.
    :raises CameraRejected: when the first camera_info describes no camera of the images.
    """
    path = Path(path)
    with open_recording(path, salvage=True) as recording:
        topics = topics_of(recording, settings.choice)
        footage = _Footage(recording, topics, settings)
        key = _key(path, settings, topics, footage)
        folder = Path(root) / f'{path.stem}-{key[:12]}'
        there = cache_format.read_header(folder)
        if there is not None and there.key == key and there.complete:
            return open_cache(folder)
        header = cache_format.Header(
            key=key,
            recording=str(path),
            fit=footage.fit,
            seen=footage.target.seen,
            sources=footage.sources,
            pose_source=footage.trajectory.source if footage.trajectory else '',
        )
        with CacheWriter(folder, header) as writer:
            for frame in footage.frames(writer.last_ordinal, writer, progress):
                _add(writer, footage, frame)
            if not writer.count:
                raise RecordingError(
                    f'recording {path}', f'no usable image ({footage.told()})', 'images'
                )
            unusable = [sensor.told() for sensor in footage.sensors]
            remarks = [
                *footage.remarks,
                *footage.late_remarks(),
                *filter(None, [*unusable, recording.damage]),
            ]
            writer.header = replace(writer.header, remarks=tuple(remarks))
            return writer.finish(footage.dropped)


@dataclass(frozen=True, eq=False)
class _Frame:
    """An image on its way into the cache."""

    rgb: NDArray[np.uint8]
    stamp_ns: int
    ordinal: int
    record_ns: int
    dropped: NDArray[np.int64]
    message: RawImage | CompressedImage | None
    """The image as it was sent, where a stereo partner is to be matched with it."""


def _add(writer: CacheWriter, footage: _Footage, frame: _Frame) -> None:
    """Append a frame with its pose and what was measured around it."""
    trajectory = footage.trajectory
    moment = frame.stamp_ns - footage.delay_ns
    pose = None if trajectory is None else trajectory.at(moment)
    segment = 0
    if trajectory is not None and pose is not None:
        at = int(np.searchsorted(trajectory.stamps_ns, moment, side='right')) - 1
        segment = int(trajectory.segments[at])
    measured = [
        depth
        for sensor in footage.sensors
        if (depth := sensor.depth_at(moment, footage.target, trajectory)) is not None
    ]
    if footage.stereo is not None and frame.message is not None:
        depth = footage.stereo.depth_of(frame.message, footage.target, footage.rectified)
        measured += [] if depth is None else [depth]
    writer.add(
        frame.rgb,
        frame.stamp_ns,
        pose,
        measured,
        segment=segment,
        ordinal=frame.ordinal,
        dropped=frame.dropped,
    )


class _Footage:
    """The images of a recording, prepared for the network, and what was measured beside them."""

    def __init__(
        self, recording: Recording, topics: RecordingTopics, settings: CacheSettings
    ) -> None:
        self._recording = recording
        self._topics = topics
        self._settings = settings
        self.delay_ns = settings.image_delay_ns
        self._fields = self._first_fields()
        self._views: dict[tuple[CameraFields, int, int], camera.CameraView | None] = {}
        first, width, height = self._first_image()
        view = self._view_of(width, height)
        self._model = view.model
        self.fit = camera.fit(view.model, settings.sizes, settings.policy)
        self.rectified = view.rectifier is not None
        whole = np.ones((view.model.height, view.model.width), bool)
        valid = view.rectifier.valid if view.rectifier else whole
        if settings.ego_mask is not None:
            valid = valid & settings.ego_mask.kept(view)
        self.target = Target(self.fit.camera, camera.resampled_mask(valid, self.fit))
        self._last_record_ns = 0
        self._leaps = 0
        frame_id = camera_frame_of(recording, first, topics.camera_info)
        self.trajectory: Trajectory | None = steadied_poses(
            recording, topics, frame_id, settings.gyro
        )
        tree = read_transforms(recording, topics)
        self.sensors: list[Sensor]
        self.sensors, self.remarks = sensors_of(recording, topics, tree, frame_id, settings.hidden)
        for sensor in self.sensors:
            if sensor.source.kind == 'depth':  # the driver of the camera stamps both
                sensor.delay_ns = self.delay_ns
        search = stereo_of(recording, topics, tree, frame_id, self._fields, settings.hidden)
        self.stereo: StereoSensor | None = search.sensor
        self.remarks += search.remarks()
        self.dropped = np.zeros(len(cache_format.DROP_REASONS), np.int64)

    @property
    def sources(self) -> tuple[SparseSource, ...]:
        """Return what sparse depth comes from."""
        stereo = () if self.stereo is None else (self.stereo.source,)
        return (*(sensor.source for sensor in self.sensors), *stereo)

    def late_remarks(self) -> list[str]:
        """Return what is to be said once all frames are made."""
        return list(filter(None, [self.stereo.remark()])) if self.stereo else []

    def told(self) -> str:
        """Say how many images were left out, and why."""
        counts = zip(cache_format.DROP_REASONS, self.dropped.tolist(), strict=True)
        return ', '.join(f'{count} {reason}' for reason, count in counts if count) or 'none there'

    def frames(
        self, done: int, writer: CacheWriter, progress: Progress | None
    ) -> Iterator[_Frame]:
        """Yield the images behind an ordinal, each when what was measured around it is known."""
        self.dropped = writer.dropped.copy()
        by_topic: dict[str, Sensor | StereoSensor] = {
            sensor.source.topic: sensor for sensor in self.sensors
        }
        if self.stereo is not None:
            by_topic[self.stereo.partner.name] = self.stereo
        waiting: deque[_Frame] = deque()
        ordinal, last_ns = -1, writer.last_stamp_ns
        for record in self._records():
            content = record.content
            if record.topic in by_topic:
                by_topic[record.topic].hear(content)
            elif isinstance(content, CameraFields):
                if self._settings.assumed is None:
                    self._fields = replace(content, stamp_ns=0)
            elif isinstance(content, (RawImage, CompressedImage)):
                ordinal += 1
                if progress is not None:
                    progress(ordinal + 1, self._topics.image.count)
                rgb = self._prepared(record, content, last_ns) if ordinal > done else None
                if ordinal == done:  # or the first stamp after a stop would be believed blindly
                    self._last_record_ns = record.time_ns
                if rgb is not None:
                    last_ns, self._last_record_ns = content.stamp_ns, record.time_ns
                    counted = self.dropped.copy()
                    sent = content if self.stereo is not None else None
                    waiting.append(_Frame(rgb, last_ns, ordinal, record.time_ns, counted, sent))
            while waiting and (
                record.time_ns - waiting[0].record_ns > _WAIT_NS or len(waiting) > _MOST_WAITING
            ):
                yield waiting.popleft()
        yield from waiting

    def _records(self) -> Iterator[Record]:
        """Yield what is readable; damage ends it with a remark."""
        topics = self._topics
        sensors = {sensor.source.topic for sensor in self.sensors}
        wanted = [topics.image, topics.camera_info, topics.depth, topics.cloud, topics.scan]
        chosen = [
            topic
            for topic in wanted[:2] + [t for t in wanted[2:] if t and t.name in sensors]
            if topic is not None
        ]
        chosen += [] if self.stereo is None else [self.stereo.partner]
        try:
            yield from self._recording.records(chosen)
        except RecordingError as error:
            self.remarks.append(f'Only what comes before the damage is used: {error}')

    def _prepared(
        self, record: Record, image: RawImage | CompressedImage, last_ns: int | None
    ) -> NDArray[np.uint8] | None:
        """Return an image at network size; None, and counted, where it is left out."""
        reason = self._reason_by_stamp(image.stamp_ns, record.time_ns, last_ns)
        if reason:
            self._drop(reason)
            return None
        try:
            rgb = image_codec.decode_image(image)
        except ImageRejected:
            self._drop(cache_format.UNDECODABLE)
            return None
        view = self._view(rgb.shape[1], rgb.shape[0])
        if view is None or view.model != self._model:
            self._drop(cache_format.OTHER_CAMERA)
            return None
        rgb = view.rectifier.apply(rgb) if view.rectifier else rgb
        # a copy: a view would keep the whole image in memory
        return camera.resampled(rgb, self.fit).copy()

    def _reason_by_stamp(self, stamp_ns: int, record_ns: int, last_ns: int | None) -> str:
        """Say why an image is left out by its stamp, or ''.

        A leap into the future would make all later stamps look old; it is believed only when the
        next images have leapt too.
        """
        if last_ns is None:
            return ''
        if stamp_ns <= last_ns:
            return cache_format.STAMP
        step_ns = stamp_ns - last_ns
        waited_ns = record_ns - self._last_record_ns
        if self._last_record_ns and step_ns > _LEAP_NS and step_ns > 2 * waited_ns:
            self._leaps += 1
            if self._leaps <= _LEAPS_DOUBTED:
                return cache_format.STAMP
        self._leaps = 0
        period_ns = _EARLIER * 1e9 / self._settings.max_rate_hz
        return cache_format.RATE if step_ns < period_ns else ''

    def _drop(self, reason: str) -> None:
        self.dropped[cache_format.DROP_REASONS.index(reason)] += 1

    def _view(self, width: int, height: int) -> camera.CameraView | None:
        """Return how an image is looked at; None where its camera_info is unusable."""
        key = (self._fields, width, height)
        if key not in self._views:
            if len(self._views) > 8:
                self._views.clear()
            try:
                self._views[key] = self._view_of(width, height)
            except CameraRejected:
                self._views[key] = None
        return self._views[key]

    def _view_of(self, width: int, height: int) -> camera.CameraView:
        named = camera.is_named_rectified(self._topics.image.name)
        return camera.chosen_view(self._fields, width, height, self._settings.rectify, named)

    def _first_fields(self) -> CameraFields:
        info = self._topics.camera_info
        found: object = self._settings.assumed
        if found is None and info is not None:
            found = self._recording.first(info)
        if not isinstance(found, CameraFields):
            raise RecordingError(
                f'recording {self._recording.path}',
                'no camera_info',
                'one message at least',
                'Give the intrinsics of the camera or its field of view.',
            )
        return replace(found, stamp_ns=0)

    def _first_image(self) -> tuple[RawImage | CompressedImage, int, int]:
        """Return the first image that can be decoded, its width and its height."""
        for record in self._recording.records([self._topics.image]):
            content = record.content
            if isinstance(content, (RawImage, CompressedImage)):
                try:
                    height, width = image_codec.decode_image(content).shape[:2]
                except ImageRejected:
                    continue
                return content, width, height
        raise RecordingError(
            f'recording {self._recording.path}',
            f'no image of {self._topics.image.name} that can be decoded',
            'images',
        )


def _key(path: Path, settings: CacheSettings, topics: RecordingTopics, footage: _Footage) -> str:
    """Return the hash of everything that the frames depend on."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    storage = [file for file in files if file.suffix in _SUFFIXES or '.zstd' in file.suffixes]
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in storage]
    trajectory = footage.trajectory
    told = {
        'version': cache_format.VERSION,
        'files': stats,
        'settings': _settings_key(settings),
        'topics': [
            topic.name
            for topic in (topics.image, topics.camera_info, topics.odometry)
            if topic is not None
        ],
        'sources': [asdict(source) for source in footage.sources],
        'fit': asdict(footage.fit),
        'poses': [trajectory.source, len(trajectory.stamps_ns)] if trajectory else None,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _settings_key(settings: CacheSettings) -> dict[str, object]:
    told = asdict(replace(settings, ego_mask=None))
    del told['ego_mask']
    if settings.ego_mask is not None:
        told['ego_mask'] = settings.ego_mask.sha256
    return told
