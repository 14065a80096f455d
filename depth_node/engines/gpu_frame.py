"""A whole frame in PyTorch: bytes of an image in, depth and the bytes of a cloud out.

The same operations as in :mod:`depth_node.pipeline` and :mod:`depth_node.cloud`, on any device,
with fixed addresses and without a wait for the host, so that a GPU can record them as one graph:
one copy in, the network and some forty small operations, and copies out for the depth, the cloud
and two figures.
"""

from __future__ import annotations

from array import array
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import nn

from depth_node.camera import ray_slopes
from depth_node.camera.resampling import resampled_mask
from depth_node.cloud import STEP_BYTES
from depth_node.cloud import XYZ_FIELDS
from depth_node.cloud import XYZRGB_FIELDS
from depth_node.engines import FrameLimits
from depth_node.engines import FramePlan
from depth_node.engines import MadeFrame
from depth_node.engines.gpu_resampling import Enlarge
from depth_node.engines.gpu_resampling import Shrink
from depth_node.engines.gpu_smoothing import Smoothing
from depth_node.flying_pixels import PLANE
from depth_node.frames import CameraModel
from depth_node.frames import PackedCloud
from depth_node.model_folder import ModelCard
from depth_node.model_folder import OutputSpec
from depth_node.settings import PointsSettings

# the limits travel ahead of the image in one copy
_HEAD_BYTES = 32
_FIGURES = 2
_NAN = float('nan')


class HostMemory(Protocol):
    """Where memory comes from that the device copies from and to."""

    def zeros(self, size_bytes: int) -> NDArray[np.uint8]:
        """Return zeros."""

    def message_zeros(self, size_bytes: int) -> array[int] | None:
        """Return zeros of type code 'B', as messages hold bytes.

        None where the device cannot write to such memory.
        """


class OrdinaryMemory:
    """Memory for a device that is the processor itself."""

    def zeros(self, size_bytes: int) -> NDArray[np.uint8]:
        """Return zeros."""
        return np.zeros(size_bytes, np.uint8)

    def message_zeros(self, size_bytes: int) -> array[int] | None:
        """Return zeros."""
        return array('B', bytes(size_bytes))


class GpuFrame(nn.Module):
    """Buffers and operations for the frames of one plan; :meth:`enqueue` is what is recorded.

    :param network: normalised float32 image (1, 3, h, w) to float32 output (1, 1, h, w), on
        ``device``.
    :param card: what the input and the output mean.
    :param device: where all of it happens.
    :param memory: for the ends on the host.
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        plan: FramePlan,
        device: torch.device | str,
        memory: HostMemory,
    ) -> None:
        super().__init__()
        image, fit = plan.view.model, plan.fit
        self.plan = plan
        self.network = network
        self._has_past = False  # what is run while a graph is recorded is none
        self.eye = _Eye(card, plan)
        self.depth = _Depth(card.output, plan)
        shown = image if plan.full_size else fit.camera
        self._on_host = _HostEnds(image, shown, plan, memory, relative=self.depth.relative)
        self.cloud = _Cloud(shown, plan.points) if self._on_host.cloud is not None else None
        self.to(device)
        with torch.device(device):
            self._received = torch.zeros(self._on_host.sent.shape, dtype=torch.uint8)
            self._values = torch.full(self._on_host.depth.shape, _NAN)
            self._figures = torch.zeros(_FIGURES)
            self._small = torch.zeros((shown.height, shown.width, 3), dtype=torch.uint8)

    def put(self, rgb: NDArray[np.uint8], limits: FrameLimits) -> None:
        """Write what the next frame is made of.

        :param rgb: (H, W, 3) of the plan's camera.
        """
        ends = self._on_host
        nearest = limits.scale_m / max(limits.min_m, 1e-9)
        # a step of 0 keeps all
        most = limits.edge_step if limits.edge_step > 0.0 else np.inf
        ends.limits[:5] = (
            *(limits.scale_m, limits.scale_m / limits.max_m, nearest, most),
            limits.smoothing if self._has_past else 0.0,
        )
        self._has_past = True
        np.copyto(ends.image, rgb)

    def enqueue(self) -> None:
        """Put one frame on the stream: copy in, compute, copy out."""
        ends = self._on_host
        self._received.copy_(torch.from_numpy(ends.sent), non_blocking=True)
        limits = self._received[:_HEAD_BYTES].view(torch.float32)
        rgb = self._received[_HEAD_BYTES:].view(ends.image.shape)
        small = self.eye.small(rgb)
        output = self.network(self.eye.normalized(small))[0, 0]
        self.depth(output, small, limits, self._figures, self._values)
        if ends.small is not None:
            self._small.copy_(small.permute(1, 2, 0))
            torch.from_numpy(ends.small).copy_(self._small, non_blocking=True)
            rgb = self._small
        if self.cloud is not None and ends.cloud is not None:
            points = self.cloud(self._values, rgb, self._figures)
            target = torch.frombuffer(ends.cloud, dtype=torch.float32)
            target.copy_(points.view(-1), non_blocking=True)
        torch.from_numpy(ends.depth).copy_(self._values, non_blocking=True)
        torch.from_numpy(ends.figures).copy_(self._figures, non_blocking=True)

    def made(self, stage_ns: dict[str, int]) -> MadeFrame:
        """Return what the last frame became, after it is complete."""
        ends = self._on_host
        camera = self.plan.fit.camera
        return MadeFrame(
            values=ends.depth,
            known_share=float(ends.figures[0]) / (camera.width * camera.height),
            rgb=ends.small,
            cloud=ends.packed(is_dense=not np.isnan(ends.figures[1])),
            stage_ns=stage_ns,
        )


class _HostEnds:
    """The ends of a frame that lie in memory of the host, and views of their parts."""

    def __init__(
        self,
        image: CameraModel,
        shown: CameraModel,
        plan: FramePlan,
        memory: HostMemory,
        *,
        relative: bool,
    ) -> None:
        count = image.height * image.width * 3
        self.sent = memory.zeros(_HEAD_BYTES + count)
        self.limits = self.sent[:_HEAD_BYTES].view(np.float32)
        self.image = self.sent[_HEAD_BYTES:].reshape(image.height, image.width, 3)
        count = shown.height * shown.width
        # a message takes such memory without a copy; see depth_node.byte_arrays
        held = memory.message_zeros(4 * count)
        floats = memory.zeros(4 * count) if held is None else np.frombuffer(held, np.uint8)
        self.depth = floats.view(np.float32).reshape(shown.height, shown.width)
        self.figures = memory.zeros(4 * _FIGURES).view(np.float32)
        self.small: NDArray[np.uint8] | None = None
        if not plan.full_size:
            self.small = memory.zeros(3 * count).reshape(shown.height, shown.width, 3)
        self.cloud: array[int] | None = None
        self._points = plan.points
        stride = plan.points.stride
        self._rows, self._columns = -(-shown.height // stride), -(-shown.width // stride)
        if packs(plan.points) and shown.is_known and not relative:
            self.cloud = memory.message_zeros(self._rows * self._columns * STEP_BYTES)

    def packed(self, *, is_dense: bool) -> PackedCloud | None:
        """Describe the cloud, if there is one."""
        if self.cloud is None:
            return None
        fields = XYZRGB_FIELDS if self._points.color else XYZ_FIELDS
        return PackedCloud(self.cloud, self._columns, self._rows, STEP_BYTES, fields, is_dense)


def packs(points: PointsSettings) -> bool:
    """Tell whether a cloud of this kind is packed here: organized, 16 bytes a point."""
    return points.organized and not (points.color and points.padded)


class _Eye(nn.Module):
    """Bytes of an image to what the network takes."""

    def __init__(self, card: ModelCard, plan: FramePlan) -> None:
        super().__init__()
        fit = plan.fit
        self.rows = slice(fit.top, fit.top + fit.height)
        self.columns = slice(fit.left, fit.left + fit.width)
        self.shrink = Shrink(fit)
        mean, std = (np.array(values)[:, None, None] for values in (card.mean, card.std))
        self.register_buffer('gain', torch.from_numpy(1.0 / (255.0 * std)).float()[None])
        self.register_buffer('shift', torch.from_numpy(-mean / std).float()[None])

    def small(self, rgb: Tensor) -> Tensor:
        """Map (H, W, 3) uint8 to (3, h, w) float32, whole numbers from 0 to 255."""
        seen = rgb[self.rows, self.columns].permute(2, 0, 1)
        planes = seen.to(torch.float32, memory_format=torch.contiguous_format)
        small: Tensor = self.shrink(planes)
        return small

    def normalized(self, small: Tensor) -> Tensor:
        """Map (3, h, w) to (1, 3, h, w), channels last in memory."""
        shape = (1, *small.shape)
        image = torch.empty(shape, device=small.device, memory_format=torch.channels_last)
        return torch.addcmul(self.shift, small[None], self.gain, out=image)


class _Depth(nn.Module):
    """Output of the network to metres within limits, or to relative inverse depth."""

    def __init__(self, output: OutputSpec, plan: FramePlan) -> None:
        super().__init__()
        fit = plan.fit
        size = (fit.camera.height, fit.camera.width)
        self.output = output
        self.relative = output.kind == 'relative'
        wanted = (fit.height, fit.width) if plan.full_size else size
        self.enlarge = Enlarge(size, wanted)
        top, left = (fit.top, fit.left) if plan.full_size else (0, 0)
        self.inside = (slice(top, top + wanted[0]), slice(left, left + wanted[1]))
        self.smoothing = None if self.relative or not plan.smooths else Smoothing(*size)
        unseen = None
        if plan.view.rectifier is not None:
            seen = plan.view.rectifier.valid
            unseen = torch.from_numpy(~(seen if plan.full_size else resampled_mask(seen, fit)))
        self.register_buffer('unseen', unseen)

    def forward(
        self, output: Tensor, small: Tensor, limits: Tensor, figures: Tensor, values: Tensor
    ) -> None:
        """Fill the values of a frame.

        :param output: (h, w) float32 of the network.
        :param small: (3, h, w) float32, 0 to 255, what the network saw.
        :param limits: metres times inverse depth, then the inverse depths that are the farthest
            and the nearest that is wanted, then the share by which neighbours may be apart, then
            the share of the last inverse depth that is kept.
        :param figures: the first becomes the number of known pixels of the output.
        :param values: (H, W) float32, NaN where nothing is ever written.
        """
        inverse = self._inverse(output)
        torch.sum(inverse == inverse, dim=(0, 1), dtype=torch.float32, out=figures[0])
        if self.smoothing is not None:
            inverse = self.smoothing(inverse, small, limits[4])
        inside = values[self.inside]
        if self.relative:
            inside.copy_(self.enlarge(inverse))
        else:
            scale_m, farthest, nearest, step = limits[:4].unbind()
            enlarged = self.enlarge(inverse.masked_fill(_flying(inverse, step), _NAN))
            torch.div(scale_m, enlarged, out=inside)
            inside.masked_fill_(enlarged < farthest, float('inf'))
            inside.masked_fill_(enlarged > nearest, _NAN)
        if self.unseen is not None:
            values.masked_fill_(self.unseen, _NAN)

    def _inverse(self, output: Tensor) -> Tensor:
        """Return the inverse depth per unit of the network's depth, NaN where it is unknown."""
        if self.output.kind == 'metric':
            inverse = output.reciprocal().masked_fill_(output <= 0.0, _NAN)
        elif self.output.kind == 'disparity':
            low, high = 1.0 / self.output.max_depth_m, 1.0 / self.output.min_depth_m
            inverse = (output * (high - low)).add_(low)
        else:
            inverse = output
        return torch.nan_to_num(inverse, nan=_NAN, posinf=_NAN, neginf=_NAN)


def _flying(inverse: Tensor, step: Tensor) -> Tensor:
    """Tell which pixels are on the far side of an edge; see :mod:`depth_node.flying_pixels`.

    :param step: share by which a pixel may be farther than one beside it; infinite: any.
    """
    known = torch.nan_to_num(inverse).clamp_min_(0.0)
    nearest = nn.functional.max_pool2d(known[None], 3, stride=1, padding=1)
    first = nearest[0] - known
    both = nn.functional.max_pool2d(nearest, 3, stride=1, padding=1)[0] - known
    limit = known * step
    bent = (both - first - first).abs() > first * PLANE
    return (first > limit) | ((both > limit) & (first > limit * 0.5) & bent)


class _Cloud(nn.Module):
    """Depth and colours to points of 16 bytes, as :class:`depth_node.cloud.CloudPacker` does."""

    def __init__(self, camera: CameraModel, points: PointsSettings) -> None:
        super().__init__()
        step = points.stride
        self.color = points.color
        self.every = (slice(None, None, step), slice(None, None, step))
        slopes_x, slopes_y = ray_slopes(camera)
        self.register_buffer('slopes_x', torch.from_numpy(slopes_x[::step].copy()))
        self.register_buffer('slopes_y', torch.from_numpy(slopes_y[::step, np.newaxis].copy()))
        shape = (len(self.slopes_y), len(self.slopes_x), STEP_BYTES // 4)
        self.register_buffer('points', torch.zeros(shape))

    def forward(self, depth_m: Tensor, rgb: Tensor, figures: Tensor) -> Tensor:
        """Return (h, w, 4) float32, whose last is the bytes B, G, R, 0 or nothing.

        :param figures: the second becomes NaN where a point is NaN.
        """
        x, y, z, _ = self.points.unbind(-1)
        torch.nan_to_num(depth_m[self.every], nan=_NAN, posinf=_NAN, neginf=_NAN, out=z)
        torch.mul(z, self.slopes_x, out=x)
        torch.mul(z, self.slopes_y, out=y)
        torch.sum(z, dim=(0, 1), out=figures[1])
        if self.color:
            self.points.view(torch.uint8)[..., 12:15] = rgb[self.every].flip(-1)
        points: Tensor = self.points
        return points
