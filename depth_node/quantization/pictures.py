"""Images spread over a recording, as the node would give them to a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import numpy as np
from numpy.typing import NDArray

from depth_node import camera
from depth_node import image_codec
from depth_node.errors import ImageRejected
from depth_node.errors import RecordingError
from depth_node.frames import CameraFields
from depth_node.frames import CameraModel
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.model_folder import ModelCard
from depth_node.recording import CameraTopics
from depth_node.recording import Recording
from depth_node.recording import open_recording

Picture = NDArray[np.uint8]
Progress = Callable[[str, int, int], None]
"""Called with the name of a step, how much of it is done, and all of it."""

FEWEST = 10
"""Images below which nothing can be said of a network."""
CALIBRATION_SHARE = 0.7
"""Of the images, from the beginning of the recording; the others are held out."""


@dataclass(frozen=True)
class Pictures:
    """Resized RGB images in the order of the recording."""

    by_size: tuple[tuple[Picture, ...], ...]
    """Per input size of the card the images, (h, w, 3) uint8 each; not normalised yet."""
    camera_size: int
    """Which input size the node uses for this camera."""
    stamps_ns: tuple[int, ...]
    """When the images were taken, nanoseconds."""
    unusable: int
    """Images that were passed over because they could not be decoded."""

    @property
    def calibration_count(self) -> int:
        """Return how many images, the first ones, are for calibration."""
        return round(CALIBRATION_SHARE * len(self.stamps_ns))

    def calibration(self, size_index: int) -> tuple[Picture, ...]:
        """Return the images of one input size to calibrate with."""
        return self.by_size[size_index][: self.calibration_count]

    def held_out(self, size_index: int) -> tuple[Picture, ...]:
        """Return the images of one input size to judge by, all later than the other ones."""
        return self.by_size[size_index][self.calibration_count :]


def read_pictures(
    path: Path, card: ModelCard, count: int, topic: str | None, progress: Progress
) -> Pictures:
    """Read images, evenly spread over a recording, rectified and fitted as the node does.

    The sizes that the node does not use for this camera get the part of the image that a network
    of this size alone would be given.

    :param count: images to take; all where there are fewer.
    :param topic: of the images; None where the recording has one camera.
    :raises RecordingError: when the recording cannot be read, has no images or no camera_info,
        several cameras, or fewer than :data:`FEWEST` images that can be decoded.
    :raises CameraRejected: when its camera_info describes no camera of these images.
    """
    with open_recording(path) as recording:
        topics = recording.camera_topics(image=topic, depth='')
        preparation = _Preparation(card, camera.is_named_rectified(topics.image.name))
        found: list[tuple[int, list[Picture]]] = []
        wanted = _spread(topics.image.count, count)
        for done, (image, fields) in enumerate(_shots(recording, topics, wanted)):
            progress('read', done + 1, len(wanted))
            try:
                found.append((image.stamp_ns, preparation.prepared(image, fields)))
            except ImageRejected:
                continue
    if len(found) < FEWEST:
        raise RecordingError(
            f'recording {path}',
            f'{len(found)} images of {topics.image.name} that can be used',
            f'{FEWEST} or more',
            'A minute of driving where the robot works is a good length.',
        )
    by_size = tuple(tuple(sizes) for sizes in zip(*(item[1] for item in found), strict=True))
    stamps_ns = tuple(item[0] for item in found)
    return Pictures(by_size, preparation.camera_size, stamps_ns, len(wanted) - len(found))


def _spread(there: int, count: int) -> frozenset[int]:
    """Return at most ``count`` evenly spaced indices below ``there``."""
    return frozenset(np.linspace(0, there - 1, min(count, there)).round().astype(int).tolist())


def _shots(
    recording: Recording, topics: CameraTopics, wanted: frozenset[int]
) -> Iterator[tuple[Union[RawImage, CompressedImage], CameraFields]]:
    """Yield the images of some indices with the camera_info that was valid then."""
    info = topics.camera_info
    fields = None if info is None else recording.first(info)
    if info is None or not isinstance(fields, CameraFields):
        raise RecordingError(
            f'recording {recording.path}', 'no camera_info', 'one message at least'
        )
    index = 0
    for record in recording.records([topics.image, info]):
        content = record.content
        if isinstance(content, CameraFields):
            fields = content
        elif isinstance(content, (RawImage, CompressedImage)):
            if index in wanted:
                yield content, dataclasses.replace(fields, stamp_ns=0)
            index += 1


class _Preparation:
    """Turns messages into what the input sizes of a card are given."""

    def __init__(self, card: ModelCard, rectified_input: bool) -> None:
        self._card = card
        self._rectified_input = rectified_input
        self._views: dict[tuple[CameraFields, int, int], camera.CameraView] = {}
        self._fits: dict[CameraModel, tuple[camera.Fit, ...]] = {}
        self.camera_size = 0

    def prepared(
        self, image: Union[RawImage, CompressedImage], fields: CameraFields
    ) -> list[Picture]:
        """Return an image at every input size.

        :raises ImageRejected: when it cannot be decoded.
        :raises CameraRejected: when the camera is not that of the image.
        """
        rgb = image_codec.decode_image(image)
        height, width = rgb.shape[:2]
        key = (fields, width, height)
        if key not in self._views:
            # as the node does with its default settings
            self._views[key] = camera.chosen_view(
                fields, width, height, 'auto', self._rectified_input
            )
        view = self._views[key]
        rgb = view.rectifier.apply(rgb) if view.rectifier else rgb
        return [camera.resampled(rgb, fit).copy() for fit in self._fits_of(view.model)]

    def _fits_of(self, model: CameraModel) -> Sequence[camera.Fit]:
        """Return how images of a camera are fitted to each input size."""
        if model not in self._fits:
            sizes = [(size.height, size.width) for size in self._card.inputs]
            fit = camera.fit(model, sizes, self._card.fit)
            self.camera_size = fit.size_index
            fits = [camera.fit(model, [size], self._card.fit) for size in sizes]
            fits[fit.size_index] = fit
            self._fits[model] = tuple(fits)
        return self._fits[model]
