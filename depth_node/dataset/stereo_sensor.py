"""A stereo pair as a sensor of metres: the last images of both cameras, matched by stamp."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from depth_node import image_codec
from depth_node.camera import is_named_rectified
from depth_node.camera.rectifier import rotation_of
from depth_node.dataset import sparse_depth
from depth_node.dataset.projection import Target
from depth_node.dataset.projection import projected
from depth_node.dataset.sparse_depth import SparseDepth
from depth_node.dataset.sparse_depth import SparseSource
from depth_node.dataset.stereo import StereoMatch
from depth_node.dataset.stereo import StereoMatcher
from depth_node.dataset.stereo_rig import Eye
from depth_node.dataset.stereo_rig import Floats
from depth_node.dataset.stereo_rig import StereoRig
from depth_node.errors import CameraRejected
from depth_node.errors import ImageRejected
from depth_node.errors import RecordingError
from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.recording import Recording
from depth_node.recording import Topic
from depth_node.recording.reader import Record

Image = RawImage | CompressedImage

TOGETHER_NS = 3_000_000
"""Images stamped farther apart are not of one moment.  At 1 rad/s a camera turns by a third of a
pixel (of 120 per radian) in that time; cameras that are triggered together are within 0.1 ms."""

_KEPT = 32
_KEPT_NS = 1_000_000_000
_WAIT_NS = 200_000_000
_LOOKED_AT = 150
_EVERY = 10
_BETTER = 0.6
_TRIED = 5
_LEAST_TOGETHER = 0.2


class StereoSensor:
    """Depth of a camera's images by those of its partner.

    :param image: topic of the camera.
    :param partner: topic of its partner.
    :param fields: camera_info of the camera.
    :param partner_fields: camera_info of its partner.
    :param T_camera_partner: (4, 4) pose of the partner's optical frame in the camera's, metres.
    """

    def __init__(
        self,
        image: Topic,
        partner: Topic,
        fields: CameraFields,
        partner_fields: CameraFields,
        T_camera_partner: Floats,  # noqa: N803
    ) -> None:
        self.image = image
        self.partner = partner
        self.source = SparseSource(sparse_depth.STEREO, partner.name)
        self.unusable = 0
        """Pairs of images that gave nothing."""
        self.used = 0
        """Pairs of images that gave depth."""
        self._fields = fields, partner_fields
        self._pose = T_camera_partner
        self._recent: deque[Image] = deque(maxlen=_KEPT)
        self._matchers: dict[tuple[int, ...], StereoMatcher] = {}

    def hear(self, message: object) -> None:
        """Keep an image of the partner for the camera's images around it."""
        if not isinstance(message, Image):
            return
        self._recent.append(message)
        while abs(message.stamp_ns - self._recent[0].stamp_ns) > _KEPT_NS:
            self._recent.popleft()

    def together(self, stamp_ns: int) -> Image | None:
        """Return the partner's image of that moment; None where there is none."""
        if self.apart_ns(stamp_ns) > TOGETHER_NS:
            return None
        return min(self._recent, key=lambda message: abs(message.stamp_ns - stamp_ns))

    def apart_ns(self, stamp_ns: int) -> int:
        """Return how far the partner's nearest image is stamped from that moment, nanoseconds."""
        apart = (abs(message.stamp_ns - stamp_ns) for message in self._recent)
        return min(apart, default=_KEPT_NS)

    def exchanged(self) -> StereoSensor:
        """Return a sensor of the same images whose cameras have changed places."""
        other = StereoSensor(
            self.image, self.partner, *self._fields, np.asarray(np.linalg.inv(self._pose))
        )
        other._recent = self._recent
        return other

    def forget(self) -> None:
        """Begin with another part of the recording."""
        self._recent.clear()

    def match(self, image: Image) -> StereoMatch | None:
        """Match an image of the camera; None where its partner is missing or cannot be decoded.

        :raises CameraRejected: where a camera_info describes no camera of the images.
        """
        other = self.together(image.stamp_ns)
        if other is None:
            return None
        try:
            rgb, partner_rgb = (image_codec.decode_image(one) for one in (image, other))
            return self._matcher(rgb, partner_rgb).match(rgb, partner_rgb)
        except ImageRejected:
            return None

    def depth_of(self, image: Image, target: Target, rectified: bool) -> SparseDepth | None:
        """Return the depth of an image of the camera at pixels of the network's input.

        :param rectified: whether the network sees images that were rectified by camera_info.
        :returns: None where nothing can be believed.
        """
        try:
            found = self.match(image)
        except CameraRejected:
            found = None
        if found is None:
            return None
        if found.refusal:
            self.unusable += 1
            return None
        pose = np.eye(4)
        if rectified:
            pose[:3, :3] = rotation_of(self._fields[0])
        depth = projected(found.points, pose, target, self.source)
        self.used += bool(len(depth))
        return depth if len(depth) else None

    def remark(self) -> str:
        """Say in a sentence that pairs gave nothing; '' where most did."""
        if self.unusable <= self.used:
            return ''
        return (
            f'{self.partner.name}: {self.unusable} of {self.unusable + self.used} stereo pairs '
            'gave no depth that can be believed; check the calibration of the pair.'
        )

    def _matcher(self, rgb: NDArray[np.uint8], partner_rgb: NDArray[np.uint8]) -> StereoMatcher:
        key = (*rgb.shape[:2], *partner_rgb.shape[:2])
        if key not in self._matchers:
            topics = self.image, self.partner
            eyes = [
                Eye(fields, size[1], size[0], is_named_rectified(topic.name))
                for fields, size, topic in zip(
                    self._fields, (key[:2], key[2:]), topics, strict=True
                )
            ]
            self._matchers.clear()
            self._matchers[key] = StereoMatcher(StereoRig(eyes[0], eyes[1], self._pose))
        return self._matchers[key]


def tried(recording: Recording, sensor: StereoSensor) -> str:
    """Match a few pairs of a recording and say in words why they are no stereo, or ''.

    :raises CameraRejected: where a camera_info describes no camera of the images.
    """
    pairs: list[StereoMatch] = []
    mirrored: list[StereoMatch] = []
    exchanged = sensor.exchanged()
    apart_ns: list[int] = []
    together = 0
    for image in _images(recording, sensor):
        apart_ns.append(sensor.apart_ns(image.stamp_ns))
        if apart_ns[-1] > TOGETHER_NS:
            continue
        if together % _EVERY == 0 and len(pairs) < _TRIED:
            found, other = sensor.match(image), exchanged.match(image)
            if found is not None and other is not None:
                pairs.append(found)
                mirrored.append(other)
        together += 1
    sensor.forget()
    if together < _LEAST_TOGETHER * len(apart_ns) or not together:
        return (
            f'the cameras are not synchronous: {together} of {len(apart_ns)} images have one '
            f'within {TOGETHER_NS / 1e6:g} ms, the nearest is usually '
            f'{np.median(apart_ns) / 1e6:.0f} ms apart; trigger both together'
        )
    if not pairs:
        return 'no pair of images could be decoded'
    # cameras that look inwards match either way, but then the rows are off
    better = [m for p, m in zip(pairs, mirrored, strict=True) if _is_better(m, p)]
    if len(better) > len(pairs) / 2:
        return 'left and right are exchanged: the images match better the other way round'
    refusals = [pair.refusal for pair in pairs if np.isfinite(pair.agreed)]
    bad = [refusal for refusal in refusals if refusal]
    return bad[len(bad) // 2] if len(bad) > len(refusals) / 2 else ''


def _is_better(match: StereoMatch, than: StereoMatch) -> bool:
    worse_rows = not than.row_px <= match.row_px / _BETTER
    return not match.refusal and (worse_rows or bool(than.refusal))


def _images(recording: Recording, sensor: StereoSensor) -> Iterator[Image]:
    """Yield the first images of the camera, each once its partner would have been heard."""
    waiting: deque[tuple[int, Image]] = deque()
    seen = 0
    for record in _readable(recording, sensor):
        if record.topic == sensor.partner.name:
            sensor.hear(record.content)
        elif isinstance(record.content, Image):
            waiting.append((record.time_ns, record.content))
            seen += 1
        while waiting and record.time_ns - waiting[0][0] > _WAIT_NS:
            yield waiting.popleft()[1]
        if seen >= _LOOKED_AT:
            break
    for _, image in waiting:
        yield image


def _readable(recording: Recording, sensor: StereoSensor) -> Iterator[Record]:
    """Yield the messages of both cameras up to any damage, which others tell of."""
    with contextlib.suppress(RecordingError):
        yield from recording.records([sensor.image, sensor.partner])
