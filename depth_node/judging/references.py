"""The recorded depth that belongs to an image: which topic, and as an image of its pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol
from typing import Union

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import CameraView
from depth_node.camera import is_named_rectified
from depth_node.errors import RecordingError
from depth_node.errors import quoted
from depth_node.evaluation import nearest
from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.image_codec import decode_depth_image
from depth_node.recording.messages import TransformsFields
from depth_node.recording.reader import Record

Picture = Union[RawImage, CompressedImage]


class NoReference(RecordingError):
    """Recorded depth that says nothing of these images; the recording itself can be read."""


class Measured(Protocol):
    """A message of measured metres."""

    @property
    def stamp_ns(self) -> int:
        """Nanoseconds."""
        ...

    @property
    def frame_id(self) -> str:
        """Frame of the sensor."""
        ...


Projector = Callable[[Measured, CameraView, int], NDArray[np.float32]]
"""A scan or cloud, the view of an image and the stamp of that image -> (H, W) metres at the pixels
of the published depth, NaN where nothing was measured that the camera sees."""

_WAITING = 24
_SAME_ASPECT = 0.01


@dataclass(frozen=True)
class Moment:
    """An image, its camera, and the recorded depth of the same moment."""

    image: Picture
    """As recorded."""
    camera: CameraFields | None
    """The last camera_info before the image, or the first of the recording."""
    reference: Measured | None
    """Depth image, scan or cloud, as recorded; None where there is none within reach."""


def matched(
    records: Iterable[Record],
    reference: str,
    camera: CameraFields | None,
    reach_ns: int,
) -> Iterator[Moment]:
    """Join images with the depth nearest in time; memory is bounded to a few messages.

    :param records: images, camera_info and reference, in the order of the recording.
    :param reference: name of the topic of the reference.
    :param camera: the first camera_info.
    :param reach_ns: how far the stamps of an image and its depth may be apart, nanoseconds.
    """
    images: deque[tuple[Picture, CameraFields | None]] = deque()
    depths: deque[Measured] = deque(maxlen=_WAITING)
    for record in records:
        content = record.content
        if record.topic == reference:
            if not isinstance(content, TransformsFields):
                depths.append(content)
        elif isinstance(content, CameraFields):
            camera = content
        elif isinstance(content, (RawImage, CompressedImage)):
            images.append((content, camera))
        newest_ns = max((depth.stamp_ns for depth in depths), default=None)
        while images and (
            len(images) > _WAITING
            or (newest_ns is not None and newest_ns >= images[0][0].stamp_ns + reach_ns)
        ):
            yield _joined(*images.popleft(), depths, reach_ns)
    while images:
        yield _joined(*images.popleft(), depths, reach_ns)


def check_registered(image: Picture, depth: Measured, topic: str) -> None:
    """Refuse depth that is not of the pixels of the image.

    :raises NoReference: when the two are of different frames.
    """
    if image.frame_id != depth.frame_id:
        raise NoReference(
            f'reference {quoted(topic)}',
            f'depth of the frame {quoted(depth.frame_id)}',
            f'that of the image, {quoted(image.frame_id)}',
            'Record depth that is registered to the colour image (aligned_depth_to_color).',
        )


def truth_of(depth: Picture, view: CameraView, topic: str) -> NDArray[np.float32]:
    """Return a recorded depth image at the pixels of the published depth.

    :param depth: as recorded.
    :param view: how the image is looked at; where it is rectified, so is the depth, unless the
        name of its topic says that its sender has done so.
    :param topic: of the depth.
    :returns: (H, W) metres, NaN unknown; nothing is interpolated.
    :raises ImageRejected: when it cannot be decoded.
    :raises NoReference: when it has another aspect than the image.
    """
    metres = decode_depth_image(depth)
    height, width = view.model.height, view.model.width
    ratio = metres.shape[1] * height / (metres.shape[0] * width)
    if abs(ratio - 1.0) > _SAME_ASPECT:
        raise NoReference(
            f'reference {quoted(topic)}',
            f'{metres.shape[1]} x {metres.shape[0]} pixels',
            f'the aspect of the image, {width} x {height}',
        )
    sampled = nearest(metres, height, width)
    if view.rectifier is None or is_named_rectified(topic.removesuffix('/compressedDepth')):
        return sampled
    return view.rectifier.apply_nearest(sampled, np.float32(np.nan))


def _joined(
    image: Picture, camera: CameraFields | None, depths: Iterable[Measured], reach_ns: int
) -> Moment:
    best = min(depths, key=lambda depth: abs(depth.stamp_ns - image.stamp_ns), default=None)
    if best is not None and abs(best.stamp_ns - image.stamp_ns) > reach_ns:
        best = None
    return Moment(image, camera, best)
