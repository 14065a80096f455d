"""How many points fly about edges, how many of them the mask removes, and what it costs.

Two questions.  What does enlarging alone invent, when a network is right?  The true depth is
brought to the size of the network, masked or not, enlarged as the pipeline does it, and compared
with the true depth.  And what of the edges that the bundled network draws?  Its depth is wrong by
more than 5 % almost everywhere, so that beside the truth nearly all of its points fly; so the
points about true edges are compared with the surfaces as the network itself draws them, clear of
any edge.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.benchmark.edge_views import View
from depth_node.benchmark.flying import FARTHEST_M
from depth_node.benchmark.flying import NEAR_M
from depth_node.benchmark.flying import NEAR_SHARE
from depth_node.benchmark.flying import REACH_PX
from depth_node.benchmark.flying import Count
from depth_node.benchmark.flying import Depth
from depth_node.benchmark.flying import Mask
from depth_node.benchmark.flying import edges_of
from depth_node.benchmark.flying import flying_points
from depth_node.benchmark.own_process import in_own_process
from depth_node.benchmark.result import Spread
from depth_node.benchmark.result import spread_of
from depth_node.camera import CameraView
from depth_node.errors import EngineError
from depth_node.evaluation import nearest
from depth_node.flying_pixels import FlyingPixels
from depth_node.frames import CameraImage
from depth_node.frames import RelativeFrame
from depth_node.pipeline import Pipeline
from depth_node.settings import Settings
from depth_node.settings import settings_from

STEPS = (0.05, 0.08, 0.1, Settings().depth.edge_step, 0.15, 0.2, 0.3, 0.5)
"""Values of depth.edge_step that are tried."""
SEEN = {
    'exact': 'the true depth in the middle of each pixel of the network',
    'averaged': 'the mean of true inverse depth over each pixel of the network',
    'blurred': 'the same, blurred with a sigma of 0.8 pixels, as a network draws edges',
}
"""How true depth comes to the size of a network."""
PREDICTED, OWN = 'predicted, true surfaces', 'predicted, own surfaces'
SIZES = ((640, 192), (352, 192), (256, 192))
"""Columns and rows of the networks for which the cost is told."""
PROTOCOL = (
    f'A point flies when no surface within {REACH_PX} pixels of it is nearer to it in space than '
    f'{100 * NEAR_M:.0f} cm or {100 * NEAR_SHARE:.0f} % of its depth, whichever is more. Points '
    f'are what lies within {FARTHEST_M:.0f} m where the true depth is known. '
    + ' '.join(f'{name}: {text}.' for name, text in SEEN.items())
    + f' {PREDICTED}: depth of the bundled model through the pipeline, scaled to the median of '
    f'the truth image by image. {OWN}: the same; what lies within two network pixels of a true '
    'edge is compared with the depth that the network gives to what lies clear of edges, and '
    'things too thin to have such depth do not count; all other points count as good. Cost: one '
    'core, the buffers are those of the call before.'
)

_BLUR_PX = 0.8
_BAND = 2.0
"""Network pixels about a true edge over which a network may blur it."""
_CALLS = 400


@dataclass(frozen=True)
class StepFigures:
    """What one value of depth.edge_step does."""

    step: float
    """The value."""
    removed_share: float
    """Share of the flying points that go; NaN where none flies."""
    lost_share: float
    """Share of the other points that go."""
    flying_after: float
    """Share of flying points among those that stay."""


@dataclass(frozen=True)
class EdgeRow:
    """Some views, brought to one size of network in one way."""

    scene: str
    """'world', or the name of a recording."""
    image: str
    """Size of the images."""
    network_input: str
    """Size of the network's output."""
    seen: str
    """Of :data:`SEEN`, :data:`PREDICTED` or :data:`OWN`."""
    views: int
    """Number of images."""
    points: int
    """Number of points that were judged."""
    flying_before: float
    """Share of them that fly without a mask."""
    steps: tuple[StepFigures, ...]
    """By ascending value."""


@dataclass(frozen=True)
class EdgeCost:
    """Time of the mask."""

    network_input: str
    """Size of the network's output."""
    time: Spread
    """Per image."""


COLUMNS = ('scene', 'network', 'depth', 'fly %', 'after', 'removed', 'lost')
"""Of :func:`summary`."""


def summary(row: EdgeRow, step: float) -> tuple[str, ...]:
    """Return a line of a table for the terminal, in percent."""
    found = next(item for item in row.steps if item.step == step)
    shares = (row.flying_before, found.flying_after, found.removed_share, found.lost_share)
    shown = (f'{100 * share:.2f}' for share in shares)
    return (row.scene, row.network_input, row.seen, *shown)


def exact_rows(scene: str, views: Sequence[View], size: tuple[int, int]) -> list[EdgeRow]:
    """Measure what enlarging alone invents.

    :param size: columns and rows of the network.
    """
    return [_row(scene, views, size, seen, counted(views, size, seen, STEPS)) for seen in SEEN]


def counted(
    views: Iterable[View], size: tuple[int, int], seen: str, steps: Sequence[float]
) -> list[Count]:
    """Count points of true depth that was brought to a size and enlarged again, by step.

    :param size: columns and rows of the network.
    :param seen: of :data:`SEEN`.
    """
    counts = [Count() for _ in steps]
    flying_pixels = FlyingPixels()
    for view in views:
        small = shrunk(view.depth_m, size, seen)
        depth_m = enlarged(small, view.depth_m.shape)
        flies = flying_points(depth_m, view.depth_m, view.camera, REACH_PX)
        judged = np.isfinite(depth_m) & ~np.isnan(view.depth_m)
        for step, count in zip(steps, counts, strict=True):
            masked = small.copy()
            flying_pixels.forget(masked, step)
            count.add(flies, judged, np.isnan(enlarged(masked, view.depth_m.shape)))
    return counts


def predicted_rows(scene: str, views: Sequence[View], model: str) -> list[EdgeRow]:
    """Measure the edges that a model draws.

    :param views: of which the network sees the whole image.
    :param model: name or path of a model of metric depth.
    """
    beside_truth, beside_own = ([Count() for _ in STEPS] for _ in range(2))
    settings = [
        settings_from(
            {'model.name': model, 'depth.edge_step': step, 'depth.max_m': 1000.0,
             'depth.min_m': 0.001}
        )
        for step in (0.0, *STEPS)
    ]  # fmt: skip
    pipeline = Pipeline.open(settings[0])
    try:
        for view in views:
            plain, *masked = (_made(pipeline, view, wanted) for wanted in settings)
            rows, columns = pipeline.engine_info.input_shape[2:]
            removed = [np.isnan(depth_m) for depth_m in masked]
            _judge(view, plain, removed, columns, beside_truth, beside_own)
    finally:
        pipeline.close()
    size = (columns, rows)
    return [
        _row(scene, views, size, PREDICTED, beside_truth),
        _row(scene, views, size, OWN, beside_own),
    ]


def _judge(
    view: View,
    plain_m: Depth,
    removed: Sequence[Mask],
    columns: int,
    beside_truth: Sequence[Count],
    beside_own: Sequence[Count],
) -> None:
    """Count the points of one predicted depth image.

    :param plain_m: (H, W) metres without a mask.
    :param removed: by step, what is unknown with a mask.
    :param columns: of the network.
    """
    true_m = view.depth_m
    known = np.isfinite(true_m) & (true_m < FARTHEST_M) & np.isfinite(plain_m)
    depth_m = plain_m * np.float32(np.median(true_m[known] / plain_m[known]))
    flies = flying_points(depth_m, true_m, view.camera, REACH_PX)
    band_px = round(_BAND * true_m.shape[1] / columns)
    about = np.ones((2 * band_px + 1, 2 * band_px + 1), np.uint8)
    near_edge = cv2.dilate(edges_of(true_m).astype(np.uint8), about) > 0
    # what has no part that is clear of edges has no depth of its own to compare with
    clear_true_m = np.where(near_edge, np.float32(np.nan), true_m)
    thin = flying_points(true_m, clear_true_m, view.camera, 2 * band_px)
    about_thin = cv2.dilate(thin.astype(np.uint8), about) > 0
    own_m = np.where(near_edge, np.float32(np.nan), depth_m)
    strays = near_edge & flying_points(depth_m, own_m, view.camera, 2 * band_px)
    judged = np.isfinite(depth_m) & ~np.isnan(true_m)
    for gone, by_truth, by_own in zip(removed, beside_truth, beside_own, strict=True):
        by_truth.add(flies, judged, gone)
        by_own.add(strays, judged & ~about_thin, gone)


def cost(size: tuple[int, int], view: View) -> EdgeCost:
    """Time the mask on one core, in a process of its own.

    :param size: columns and rows of the network.
    """
    small = shrunk(view.depth_m, size, 'averaged')
    step = Settings().depth.edge_step
    times = in_own_process('edge mask', _times, small, step)
    return EdgeCost(f'{size[0]}x{size[1]}', spread_of(times))


def _times(small: Depth, step: float) -> list[int]:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    flying_pixels, inverse, times = FlyingPixels(), small.copy(), []
    for _ in range(_CALLS):
        np.copyto(inverse, small)
        began = time.perf_counter_ns()
        flying_pixels.forget(inverse, step)
        times.append(time.perf_counter_ns() - began)
    return times[_CALLS // 10 :]


def _row(
    scene: str, views: Sequence[View], size: tuple[int, int], seen: str, counts: Sequence[Count]
) -> EdgeRow:
    height, width = views[0].depth_m.shape
    return EdgeRow(
        scene=scene,
        image=f'{width}x{height}',
        network_input=f'{size[0]}x{size[1]}',
        seen=seen,
        views=len(views),
        points=counts[0].flying + counts[0].good,
        flying_before=counts[0].before_share,
        steps=tuple(
            StepFigures(step, count.removed_share, count.lost_share, count.after_share)
            for step, count in zip(STEPS, counts, strict=True)
        ),
    )


def shrunk(depth_m: Depth, size: tuple[int, int], seen: str) -> Depth:
    """Return inverse depth at the size of a network, NaN where the depth is."""
    inverse = np.reciprocal(np.maximum(depth_m, np.float32(1e-6)))
    if seen == 'exact':
        return nearest(inverse, size[1], size[0])
    known = ~np.isnan(inverse)
    planes = [
        cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
        for plane in (np.where(known, inverse, np.float32(0.0)), known.astype(np.float32))
    ]
    if seen == 'blurred':
        planes = [cv2.GaussianBlur(plane, (0, 0), _BLUR_PX) for plane in planes]
    total, share = planes
    # the mean of what is known, where that is most
    return np.where(share > 0.5, total / np.maximum(share, 0.5), np.nan).astype(np.float32)


def enlarged(inverse: Depth, shape: tuple[int, ...]) -> Depth:
    """Return metres at the size of the image, as the pipeline makes them; +Inf is too far."""
    size = (shape[1], shape[0])
    large: NDArray[np.float32] = np.asarray(
        cv2.resize(inverse, size, interpolation=cv2.INTER_LINEAR), np.float32
    )
    with np.errstate(divide='ignore'):
        depth_m = np.reciprocal(large)
    depth_m[depth_m > FARTHEST_M] = np.inf
    return depth_m


def _made(pipeline: Pipeline, view: View, settings: Settings) -> Depth:
    """Return the depth of the pipeline, metres."""
    image = CameraImage(view.rgb, 0, 'camera')
    made = pipeline.process(image, CameraView(view.camera, None), settings)
    if isinstance(made, RelativeFrame):
        raise EngineError('edge benchmark', 'relative inverse depth', 'a model of metric depth')
    return made.depth_m.copy()
