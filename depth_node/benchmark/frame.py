"""Everything that a frame costs but the network, stage by stage, on one core.

The stages are the node's own: its decoder, its pipeline, its packer and its messages.  A stand-in
takes the place of the engine, so that a network does not sweep the caches between two
measurements; with a real engine the whole frame is measured, from image bytes to cloud bytes.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node import model_folder
from depth_node.benchmark.own_process import in_own_process
from depth_node.benchmark.result import Spread
from depth_node.benchmark.result import spread_of
from depth_node.engines import EngineInfo
from depth_node.engines import selection
from depth_node.engines.parity import read_golden
from depth_node.engines.selection import ON_CPU
from depth_node.errors import EngineError
from depth_node.frames import RawImage
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder
from depth_node.settings import Settings
from depth_node.settings import settings_from

STAND_IN = 'stand-in'
_PROTOCOL = (
    "One process: the fields of an Image in, the node's decoder, pipeline, cloud packer and "
    'messages (depth, camera_info and PointCloud2 with colour, 16 bytes a point, full size), '
    'serialisation and DDS not included. The sum is the time of the whole frame less that of the '
    'network. Some frames before the first that counts are left out.'
)
_ON_ONE_CORE = (
    'All of it on one core; in place of an engine stands one that returns the stored output of '
    'the model at once.'
)
_WARM_UP = 20
_ENCODINGS = ('rgb8', 'bgr8')
_HFOV_RAD = 1.2


def protocol(engine: str) -> str:
    """Say how a measurement with this engine is done."""
    return f'{_PROTOCOL} {_ON_ONE_CORE}' if engine == STAND_IN else _PROTOCOL


@dataclass(frozen=True)
class FrameRow:
    """One kind of image through one model."""

    model: str
    engine: str
    """'stand-in', or an engine with its version."""
    network_input: str
    """Size of the network's input."""
    encoding: str
    """Of the image."""
    image: str
    """Size of the image."""
    cores: int
    """Cores that the process could use."""
    stages: dict[str, Spread]
    """By name in order, the network's left out where it is a stand-in."""
    rest: Spread
    """The whole frame less the network."""
    whole: Spread | None
    """The whole frame with its network; None with a stand-in."""


def measure(
    model: str,
    engine: str,
    width: int,
    height: int,
    frames: int,
    precision: str = 'auto',
    threads: int = 0,
) -> list[FrameRow]:
    """Measure frames in a process of its own, for each usual encoding.

    :param model: name or path of a model of metric depth.
    :param engine: 'stand-in', or as for selection.open_engine; then all cores are used.
    :param width: columns of the image, pixels.
    :param height: rows of the image, pixels.
    :param frames: how many count, per encoding.
    :param precision: parameter model.precision.
    :param threads: of the engine, and cores that the process keeps to; 0: all.
    :raises EngineError: when a frame fails.
    """
    who = f'frames of {model}'
    return in_own_process(who, _rows, model, engine, width, height, frames, precision, threads)


COLUMNS = ('stage', 'min ms', 'median', 'p95', 'p99')
"""Of :func:`summary`."""


def summary(row: FrameRow) -> list[tuple[str, ...]]:
    """Return the lines of a table for the terminal."""
    spreads = {**row.stages, 'sum without the network': row.rest}
    if row.whole is not None:
        spreads['whole frame'] = row.whole
    return [
        (
            name,
            *(
                f'{value:.3f}'
                for value in (spread.min_ms, spread.median_ms, spread.p95_ms, spread.p99_ms)
            ),
        )
        for name, spread in spreads.items()
    ]


class StandIn:
    """An engine that returns what the trained network made of one picture."""

    def __init__(self, folder: ModelFolder, size: InputSpec) -> None:
        shape = (1, 3, size.height, size.width)
        self.info = EngineInfo(STAND_IN, '1', 'f32', 'none', shape)
        self._output = read_golden(folder, size).output

    def warm_up(self) -> None:
        """Do nothing."""

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the stored output, (H, W); what the caller does to it does not last."""
        return self._output

    def close(self) -> None:
        """Do nothing."""


def _open_stand_in(
    folder: ModelFolder, size: InputSpec, **_: object
) -> tuple[StandIn, tuple[str, ...]]:
    """Take the place of selection.open_engine."""
    return StandIn(folder, size), ()


def _rows(
    model: str,
    engine: str,
    width: int,
    height: int,
    frames: int,
    precision: str = 'auto',
    threads: int = 0,
) -> list[FrameRow]:
    """Measure; runs in a process of its own."""
    if engine == STAND_IN:
        _keep_to_cores(1)
        selection.open_engine = _open_stand_in
    from depth_node.pipeline import Pipeline

    if threads:
        _keep_to_cores(threads)
    settings = settings_from(
        {
            'model.name': model,
            'model.engine': ON_CPU[0] if engine == STAND_IN else engine,
            'model.precision': precision,
            'model.threads': threads,
        }
    )
    pipeline = Pipeline(model_folder.read(model_folder.find(model)), settings)
    info = pipeline.engine_info
    if (info.name == STAND_IN) != (engine == STAND_IN):
        raise EngineError('frame benchmark', f'the engine {info.name}', f'the {engine}')
    if pipeline.card.output.kind == 'relative':
        raise EngineError(
            f'frame benchmark of {model}',
            'a model of relative inverse depth, which makes no clouds',
            'a model of metric depth, or of depth of unknown scale',
        )
    rows = []
    for encoding in _ENCODINGS:
        frame = _frame_maker(pipeline, settings, encoding, width, height)
        times = [frame() for _ in range(_WARM_UP + frames)][_WARM_UP:]
        shown = info.input_shape
        rows.append(
            _row(
                times,
                model=model,
                engine=info.name if engine == STAND_IN else f'{info.name} {info.version}',
                network_input=f'{shown[3]}x{shown[2]}',
                encoding=encoding,
                image=f'{width}x{height}',
                cores=len(os.sched_getaffinity(0)),
            )
        )
    return rows


def _keep_to_cores(count: int) -> None:
    """Stay on the first cores that this process may use."""
    import cv2

    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:count]))
    cv2.setNumThreads(count)


def _frame_maker(
    pipeline: Any, settings: Settings, encoding: str, width: int, height: int
) -> Callable[[], dict[str, int]]:
    """Return a function that makes all of one frame, and tells nanoseconds by stage."""
    from depth_node.camera import CameraView
    from depth_node.camera.fitting import from_horizontal_fov
    from depth_node.cloud import CloudPacker
    from depth_node.frames import CameraImage
    from depth_node.image_codec import decode_raw
    from depth_node.ros import messages

    image = _image(encoding, width, height)
    view = CameraView(from_horizontal_fov(width, height, _HFOV_RAD), None)
    packer = CloudPacker(
        view.model,
        organized=settings.points.organized,
        color=settings.points.color,
        stride=settings.points.stride,
        padded=settings.points.padded,
    )
    clock = time.perf_counter_ns

    def frame() -> dict[str, int]:
        began = clock()
        rgb = decode_raw(image, settings.input.max_pixels)
        decoded = clock()
        made = pipeline.process(CameraImage(rgb, image.stamp_ns, image.frame_id), view, settings)
        ready = clock()
        messages.depth_message(made)
        messages.camera_info_message(made)
        told = clock()
        packed = packer.pack(made.depth_m, made.rgb)
        filled = clock()
        messages.cloud_message(packed, made)
        ended = clock()
        return {
            'decode': decoded - began,
            **made.stage_ns,
            'depth message': told - ready,
            'cloud': filled - told,
            'cloud message': ended - filled,
            'whole': ended - began,
        }

    return frame


def _image(encoding: str, width: int, height: int) -> RawImage:
    """Return noise as the fields of a sensor_msgs/Image, in the memory that a message has."""
    draw = np.random.default_rng(5)
    pixels = array('B', draw.integers(0, 256, 3 * width * height, np.uint8).tobytes())
    return RawImage(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=3 * width,
        data=memoryview(pixels),
        stamp_ns=1_700_000_000_000_000_000,
        frame_id='camera',
    )


def _row(times: list[dict[str, int]], **known: Any) -> FrameRow:
    """Sum up the frames of one kind."""
    stand_in = known['engine'] == STAND_IN
    left_out = {'whole', 'network'} if stand_in else {'whole'}
    names = [name for name in times[0] if name not in left_out]
    return FrameRow(
        **known,
        stages={name: spread_of([frame[name] for frame in times]) for name in names},
        rest=spread_of([frame['whole'] - frame['network'] for frame in times]),
        whole=None if stand_in else spread_of([frame['whole'] for frame in times]),
    )
