"""Recorded images with true depth at network size: what a training on other data is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from depth_node import camera
from depth_node import image_codec
from depth_node.errors import RecordingError
from depth_node.evaluation import Evaluation
from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.recording import open_recording


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

    :param sizes: (height, width) of the network's inputs; the nearest aspect is used.
    :raises RecordingError: when the recording has no images, camera_info or depth.
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
        images: dict[int, RawImage | CompressedImage] = {}
        depths: dict[int, RawImage | CompressedImage] = {}
        for record in recording.records([topics.image, topics.depth]):
            if isinstance(record.content, (RawImage, CompressedImage)):
                chosen = images if record.topic == topics.image.name else depths
                chosen[record.content.stamp_ns] = record.content
    stamps = sorted(images.keys() & depths.keys())
    picked = stamps[:: max(1, len(stamps) // count)][:count]
    return [_view(images[stamp], depths[stamp], fields, sizes) for stamp in picked]


def _view(
    image: RawImage | CompressedImage,
    depth: RawImage | CompressedImage,
    fields: CameraFields,
    sizes: list[tuple[int, int]],
) -> JudgedView:
    if isinstance(image, RawImage):
        rgb = image_codec.decode_raw(image)
    else:
        rgb = image_codec.decode_compressed(image)
    if isinstance(depth, RawImage):
        depth_m = image_codec.decode_depth(depth)
    else:
        depth_m = image_codec.decode_compressed_depth(depth)
    view = camera.view_of(fields, rgb.shape[1], rgb.shape[0], rectify=False, rectified_input=False)
    fit = camera.fit(view.model, sizes, 'native')
    rows, columns = slice(fit.top, fit.top + fit.height), slice(fit.left, fit.left + fit.width)
    size = (fit.camera.width, fit.camera.height)
    return JudgedView(
        rgb=camera.resampled(rgb, fit),
        depth_m=cv2.resize(depth_m[rows, columns], size, interpolation=cv2.INTER_NEAREST_EXACT),
        fx=fit.camera.fx,
    )


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
    """Return the mean errors over views, beside those of the best constants.

    ``image_median`` gives each image its own median true depth: what median scaling makes of a
    network that sees nothing.  ``best_constant`` is one depth for all, known in hindsight.

    :raises RecordingError: when no view has a true depth within the range.
    """
    evaluation = Evaluation()
    for view in views:
        predicted = predicted_depth(network, view.rgb, view.fx, focal_per_height, depth_range_m)
        evaluation.add(predicted, view.depth_m)
    report = evaluation.report()
    if report is None:
        raise RecordingError('evaluation', 'no pixel with true depth', 'depth within the range')
    return {
        'abs_rel': report.metric.abs_rel,
        'abs_rel_median_scaled': report.scaled.abs_rel,
        'a1_median_scaled': report.scaled.a1,
        'abs_rel_image_median': report.baseline.median_abs_rel,
        'abs_rel_best_constant': report.baseline.abs_rel,
        'views': float(report.frames),
    }
