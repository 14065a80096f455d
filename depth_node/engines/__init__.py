"""Engines: each runs one exported network at batch 1 behind the protocol of this file."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from typing import Protocol
from typing import runtime_checkable

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import CameraView
from depth_node.camera import Fit
from depth_node.errors import EngineError
from depth_node.errors import quoted
from depth_node.frames import PackedCloud
from depth_node.settings import PointsSettings

_SHOWN_CHARACTERS = 300


class DeviceLost(EngineError):
    """The GPU is gone or its memory is corrupt; nothing in this process can use it any more."""


class OutOfMemory(EngineError):
    """Memory that could not be had; an engine that says so on a frame may be used again."""


class NotFinite(EngineError):
    """An output of mostly NaN or infinity, which is not a picture of anything."""


@dataclass(frozen=True)
class EngineInfo:
    """What an engine says of itself, for logs, diagnostics and result files."""

    name: str
    """'tensorrt', 'cuda', 'openvino', 'onnxruntime' or 'torch'."""
    version: str
    """Version of the library behind it."""
    precision: str
    """'f32', 'f16', 'bf16' or 'int8' (float32 where nothing is quantised): what the arithmetic
    really is, not what was asked for."""
    device: str
    """Processor it runs on, in words."""
    input_shape: tuple[int, int, int, int]
    """(1, 3, H, W)."""
    parity_error: float = float('nan')
    """Largest difference from the golden outputs, in their standard deviations; NaN: unchecked."""


class Engine(Protocol):
    """One loaded network of fixed input size, owned by one thread at a time.

    Two things an engine may have besides: ``notes``, sentences that are to be logged once, and a
    static method ``ready(folder, size, *, precision, threads)``, which returns whether opening it
    takes no build, and notes.
    """

    info: EngineInfo

    def warm_up(self) -> None:
        """Run once on zeros, so that the first real frame is as fast as the others."""

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network.

        :param image: (1, 3, H, W) float32, C-contiguous, RGB, normalised as the model's card says.
        :returns: (H, W) float32, the network's output; valid until the next call.
        :raises EngineError: when the library fails; the engine is then not to be used again.
        :raises OutOfMemory: when there is not enough memory for this image.
        :raises DeviceLost: when only a new process can use the device.
        """

    def close(self) -> None:
        """Release memory and threads; calling it twice is harmless."""


@dataclass(frozen=True)
class FramePlan:
    """What stays the same from frame to frame, so that an engine can prepare for it."""

    view: CameraView
    """The camera of the image, and what its rectifier could not see; the rectifier itself has
    been applied."""
    fit: Fit
    """Which part of the image the network sees, and at which size."""
    full_size: bool
    """Depth at the size of the image (True) or of the network (False)."""
    points: PointsSettings
    """The cloud that would be welcome with the depth."""
    smooths: bool = False
    """The past of the plan's frames is to be kept: :attr:`FrameLimits.smoothing` is in use."""
    camera: str = field(default='', compare=False)
    """Name of the camera among several that take turns: what is prepared for one is worth keeping
    until that one has another plan."""


@dataclass(frozen=True)
class FrameLimits:
    """What may change from one frame to the next; relative inverse depth heeds none of it."""

    scale_m: float
    """Metres times inverse depth of the network."""
    min_m: float
    """Nearer becomes NaN, metres."""
    max_m: float
    """Farther becomes +Inf, metres."""
    edge_step: float
    """See :func:`depth_node.flying_pixels.FlyingPixels.forget`; 0 keeps all."""
    smoothing: float = 0.0
    """Share of the last inverse depth that is kept, see :mod:`depth_node.temporal_smoothing`; 0
    where this frame does not follow on the last one of its plan."""


@dataclass(frozen=True, eq=False)
class MadeFrame:
    """A frame as an engine made it; the arrays are valid until the engine is used again."""

    values: NDArray[np.float32]
    """(H, W) metres within the limits, or relative inverse depth where the model is relative."""
    known_share: float
    """Share of the network's output that is a number, 0 to 1."""
    rgb: NDArray[np.uint8] | None
    """(h, w, 3) what the network saw, where the frame has its size; None at full size."""
    cloud: PackedCloud | None
    """The points that the plan asks for; None where the engine does not pack such a cloud."""
    stage_ns: dict[str, int]
    """Time spent per stage, nanoseconds, in the order in which they ran."""


@runtime_checkable
class WholeFrame(Protocol):
    """An engine that makes depth and points of an image itself, where the network runs."""

    def frame(self, rgb: NDArray[np.uint8], plan: FramePlan, limits: FrameLimits) -> MadeFrame:
        """Make depth, and the cloud where it can, of one image.

        A plan that differs from the last one of its camera costs some tenths of a second.

        :param rgb: (H, W, 3) of the camera of the plan, rectified; rows may be strided.
        :raises EngineError: when the library fails; the engine is then not to be used again.
        :raises OutOfMemory: when there is not enough memory for this frame.
        :raises DeviceLost: when only a new process can use the device.
        """


def check_image(image: NDArray[np.float32], shape: tuple[int, int, int, int], who: str) -> None:
    """Refuse an input that an engine would misread: engines hand its memory over as it is.

    :param image: what :meth:`Engine.infer` was given.
    :param shape: (1, 3, H, W) of the engine.
    :param who: name of the engine.
    :raises EngineError: for another shape or dtype, or memory that is not C-contiguous.
    """
    if image.shape != shape or image.dtype != np.float32 or not image.flags.c_contiguous:
        order = 'contiguous' if image.flags.c_contiguous else 'strided'
        raise EngineError(
            f'engine {who}',
            f'{order} {image.dtype} of shape {image.shape}',
            f'C-contiguous float32 of shape {shape}',
        )


def check_precision(precision: str, offered: tuple[str, ...], who: str) -> None:
    """Refuse a precision in which an engine does not compute.

    :param precision: what was asked for.
    :param offered: what there is.
    :param who: name of the engine.
    :raises EngineError: saying which engine has the others.
    """
    if precision not in offered:
        raise EngineError(
            f'engine {who}',
            f'precision {quoted(precision)}',
            ' or '.join(offered),
            'bf16 and int8 need openvino, f16 a GPU; or set model.precision to auto.',
        )


def library_failure(who: str, doing: str, error: Exception) -> EngineError:
    """Make an error of what the library behind an engine raised.

    :param who: name of the engine.
    :param doing: what it was doing, e.g. 'inference'.
    :param error: shown on one line, escaped, cut to 300 characters.
    """
    cause = repr(' '.join(str(error).split()))[:_SHOWN_CHARACTERS]
    return EngineError(f'engine {who}', f'a failure in {doing} ({cause})', 'a result')
