"""Recorded images with true depth at network size: what a training on other data is judged by.

The cheap figures of a curve, at the size of the network.  What the card of a finished model and
docs/bundled-model.md hold is measured through the whole pipeline, by the room benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from depth_node import camera
from depth_node import image_codec
from depth_node.errors import ImageRejected
from depth_node.errors import RecordingError
from depth_node.evaluation import Evaluation
from depth_node.evaluation import nearest
from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.recording import CameraTopics
from depth_node.recording import Recording
from depth_node.recording import Topic
from depth_node.recording import open_recording
from depth_node.row_prior import RowPrior

_NEAREST_M, _FARTHEST_M = 0.05, 80.0  # those of Evaluation
Picture = RawImage | CompressedImage


@dataclass(frozen=True)
class JudgedView:
    """One image of a recording as the network sees it."""

    rgb: NDArray[np.uint8]
    """(h, w, 3) RGB at network input."""
    depth_m: NDArray[np.float32]
    """(h, w) true metres, NaN unknown."""
    fx: float
    """Focal length at network input, pixels."""


def load_views(path: Path, sizes: list[tuple[int, int]], count: int) -> list[JudgedView]:
    """Take ``count`` evenly spaced images that have depth of the same stamp.

    Image and depth are rectified as the node rectifies: where the lens bends the image and the
    name of its topic does not say that its sender has done so.  The recording is read twice, first
    for stamps alone, so that no more than the images that are used are in memory.  One that cannot
    be decoded is left out: it must not end a training of hours.

    :param sizes: (height, width) of the network's inputs; the nearest aspect is used.
    :raises RecordingError: when the recording has no images, camera_info or depth.
    :raises CameraRejected: when its camera_info cannot be used.
    """
    with open_recording(path) as recording:
        topics = recording.camera_topics()
        if topics.depth is None or topics.camera_info is None:
            raise RecordingError(
                f'recording {path}', 'no depth or no camera_info', 'both, to judge a model by'
            )
        fields = recording.first(topics.camera_info)
        if not isinstance(fields, CameraFields):
            raise RecordingError(f'recording {path}', 'no camera_info', 'one message at least')
        both = (topics.image, topics.depth)
        picked = _evenly(_common_stamps(recording, *both), count)
        viewer = _Viewer(fields, topics, sizes)
        halves: dict[int, dict[str, Picture]] = {stamp: {} for stamp in picked}
        views: dict[int, JudgedView] = {}
        for record in recording.records(both):
            content = record.content
            if not isinstance(content, (RawImage, CompressedImage)):
                continue
            half = halves.get(content.stamp_ns)
            if half is None:
                continue
            half[record.topic] = content
            if len(half) == len(both):
                image, depth = (half[topic.name] for topic in both)
                del halves[content.stamp_ns]
                with suppress(ImageRejected):
                    views[content.stamp_ns] = viewer.view(image, depth)
    return [views[stamp] for stamp in picked if stamp in views]


def _common_stamps(recording: Recording, image: Topic, depth: Topic) -> list[int]:
    """Return the stamps that images and depth share, in order."""
    stamps: dict[str, set[int]] = {image.name: set(), depth.name: set()}
    for record in recording.records((image, depth)):
        if isinstance(record.content, (RawImage, CompressedImage)):
            stamps[record.topic].add(record.content.stamp_ns)
    return sorted(stamps[image.name] & stamps[depth.name])


def _evenly(stamps: list[int], count: int) -> list[int]:
    places = np.linspace(0, len(stamps) - 1, min(count, len(stamps))).round().astype(int)
    return [stamps[place] for place in places]


class _Viewer:
    """Looks at the images of one camera as the node does."""

    def __init__(
        self, fields: CameraFields, topics: CameraTopics, sizes: list[tuple[int, int]]
    ) -> None:
        self._fields, self._sizes = fields, sizes
        self._rectified = camera.is_named_rectified(topics.image.name)
        depth = '' if topics.depth is None else topics.depth.name
        self._depth_rectified = camera.is_named_rectified(depth.removesuffix('/compressedDepth'))
        self._views: dict[tuple[int, int], camera.CameraView] = {}

    def view(self, image: Picture, depth: Picture) -> JudgedView:
        """Decode, rectify, cut and shrink one image and its depth.

        :raises ImageRejected: when one of them cannot be used.
        :raises CameraRejected: when the camera cannot.
        """
        rgb = image_codec.decode_image(image)
        seen = self._seen(rgb.shape[1], rgb.shape[0])
        metres = nearest(image_codec.decode_depth_image(depth), rgb.shape[0], rgb.shape[1])
        if seen.rectifier is not None:
            rgb = seen.rectifier.apply(rgb)
            if not self._depth_rectified:
                metres = seen.rectifier.apply_nearest(metres, np.float32(np.nan))
        fit = camera.fit(seen.model, self._sizes, 'native')
        rows, columns = slice(fit.top, fit.top + fit.height), slice(fit.left, fit.left + fit.width)
        size = (fit.camera.width, fit.camera.height)
        return JudgedView(
            rgb=camera.resampled(rgb, fit),
            depth_m=cv2.resize(metres[rows, columns], size, interpolation=cv2.INTER_NEAREST_EXACT),
            fx=fit.camera.fx,
        )

    def _seen(self, width: int, height: int) -> camera.CameraView:
        size = (width, height)
        if size not in self._views:
            self._views[size] = camera.chosen_view(self._fields, *size, 'auto', self._rectified)
        return self._views[size]


def predicted_depth(
    network: nn.Module,
    rgb: NDArray[np.uint8],
    fx: float,
    focal_per_height: float,
    depth_range_m: tuple[float, float],
) -> NDArray[np.float32]:
    """Run a trained network on one image.

    :param rgb: (h, w, 3) at network input.
    :param fx: focal length at network input, pixels.
    :returns: (h, w) metres.
    """
    image = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))[None]).float() / 255.0
    device = next(network.parameters()).device
    with torch.inference_mode():
        disparity = network(image.to(device))[0][0, 0].cpu().numpy()
    high, low = 1.0 / depth_range_m[0], 1.0 / depth_range_m[1]
    depth = fx / (focal_per_height * rgb.shape[0]) / (low + (high - low) * disparity)
    return np.asarray(depth, np.float32)


def judged(
    network: nn.Module,
    views: Sequence[JudgedView],
    focal_per_height: float,
    depth_range_m: tuple[float, float],
) -> dict[str, float]:
    """Return the mean errors over views, beside those of guesses that look at no pixel.

    ``image_median`` gives each image its own median true depth: what median scaling makes of a
    network that sees nothing.  ``best_constant`` is one depth for all, known in hindsight.
    ``rows`` is one depth per row for all, and ``rows_median_scaled`` one share of each image's own
    median per row, both known in hindsight.

    :raises RecordingError: when no view has a true depth within the range.
    """
    evaluation = Evaluation(_NEAREST_M, _FARTHEST_M)
    rows, scaled_rows = RowPrior(), RowPrior(scaled=True)
    for view in views:
        predicted = predicted_depth(network, view.rgb, view.fx, focal_per_height, depth_range_m)
        evaluation.add(predicted, view.depth_m)
        with np.errstate(invalid='ignore'):
            counted = (view.depth_m >= _NEAREST_M) & (view.depth_m <= _FARTHEST_M)
        rows.add(view.depth_m, counted)
        scaled_rows.add(view.depth_m, counted)
    report = evaluation.report()
    if report is None:
        raise RecordingError('evaluation', 'no pixel with true depth', 'depth within the range')
    return {
        'abs_rel': report.metric.abs_rel,
        'abs_rel_median_scaled': report.scaled.abs_rel,
        'a1_median_scaled': report.scaled.a1,
        'abs_rel_image_median': report.baseline.median_abs_rel,
        'abs_rel_best_constant': report.baseline.abs_rel,
        'abs_rel_rows': rows.best()[0],
        'abs_rel_rows_median_scaled': scaled_rows.best()[0],
        'views': float(report.frames),
    }
