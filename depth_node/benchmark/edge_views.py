"""Images with true depth: of generated scenes, and of recordings where there are some."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import view_of
from depth_node.errors import DepthNodeError
from depth_node.frames import CameraModel
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.image_codec import decode_depth_image
from depth_node.image_codec import decode_raw
from depth_node.recording import Recording
from depth_node.recording import open_recording
from depth_node.ros.footage import as_raw
from depth_node.ros.footage import recorded_shots
from depth_node.world import samples

_SEED = 11


class View(Protocol):
    """What is looked at."""

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""

    @property
    def depth_m(self) -> NDArray[np.float32]:
        """(H, W) metres along z; NaN unknown, +Inf none."""

    @property
    def camera(self) -> CameraModel:
        """Intrinsics of both."""


@dataclass(frozen=True)
class RecordedView:
    """An image of a recording; see :class:`View`."""

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    camera: CameraModel


def generated(width: int, height: int, count: int) -> list[samples.Sample]:
    """Draw views of depth_node.world, the same ones every time.

    :param width: columns, pixels.
    :param height: rows, pixels.
    """
    rng = np.random.default_rng(_SEED)
    return [samples.draw(rng, height, width)[0] for _ in range(count)]


def recorded(folder: Path, most: int) -> Iterator[tuple[str, list[RecordedView]]]:
    """Yield the recordings of a folder that have depth, by name, with some of their images.

    :param folder: of recordings; none where there is no such folder.
    :param most: images per recording, spread over it.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            with open_recording(path) as recording:
                views = _views(recording, most)
        except DepthNodeError:
            continue
        if views:
            yield path.name, views


def _views(recording: Recording, most: int) -> list[RecordedView]:
    topics = recording.camera_topics()
    if topics.depth is None:
        return []
    count = topics.depth.count
    chosen = set(np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist())
    true_m: dict[int, NDArray[np.float32]] = {}
    for index, record in enumerate(recording.records([topics.depth])):
        content = record.content
        if index in chosen and isinstance(content, (RawImage, CompressedImage)):
            true_m[content.stamp_ns] = decode_depth_image(content)
    views = []
    for shot in recorded_shots(recording, topics):
        depth_m = true_m.get(shot.picture.stamp_ns)
        if depth_m is None or shot.camera is None:
            continue
        rgb = decode_raw(as_raw(shot.picture))
        height, width = rgb.shape[:2]
        view = view_of(shot.camera, width, height, rectify=False, rectified_input=False)
        if depth_m.shape == (height, width):
            views.append(RecordedView(rgb, depth_m, view.model))
    return views
