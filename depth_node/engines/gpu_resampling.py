"""Resizing in PyTorch that gives the pixels of OpenCV, on a GPU as well as on a CPU.

Few operations, no shape that depends on data, no wait for the host: all of it can be captured in
a CUDA graph.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.camera import resampling
from depth_node.camera.fitting import Fit
from depth_node.engines import frame_tables
from depth_node.engines.frame_tables import Taps


class Shrink(nn.Module):
    """The resizes of :func:`depth_node.camera.resampled`, on the rectangle that was cut out.

    :param fit: from which rectangle to which size.
    """

    def __init__(self, fit: Fit) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        rows, columns = fit.height, fit.width
        for step in resampling.steps_of(fit):
            if step.filter == resampling.HALVE:
                layers.append(_Halve())
            elif step.filter == resampling.AREA and rows >= step.height and columns >= step.width:
                layers.append(_Area((rows, columns), (step.height, step.width)))
            else:
                taps = (
                    frame_tables.cell_taps
                    if step.filter == resampling.AREA
                    else frame_tables.linear_taps
                )
                layers.append(_FixedPoint(taps(rows, step.height), taps(columns, step.width)))
            rows, columns = step.height, step.width
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Map (3, H, W) to (3, h, w), both float32 that are whole numbers from 0 to 255."""
        shrunk: Tensor = self.layers(image)
        return shrunk


class _Halve(nn.Module):
    """(a + b + c + d + 2) // 4."""

    def forward(self, image: Tensor) -> Tensor:
        return F.avg_pool2d(image, 2).add_(0.5).floor_()


class _Area(nn.Module):
    """The average of what a pixel covers, rounded; a matrix along each axis."""

    def __init__(self, size: tuple[int, int], wanted: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = (
            torch.from_numpy(frame_tables.area_matrix(*axis))
            for axis in zip(size, wanted, strict=True)
        )
        self.register_buffer('rows', rows.expand(3, -1, -1).contiguous())
        self.register_buffer('columns', columns.T.contiguous())

    def forward(self, image: Tensor) -> Tensor:
        return torch.bmm(self.rows, image @ self.columns).round_()


class _FixedPoint(nn.Module):
    """Bilinear between bytes as OpenCV does it, with the bits that it drops on the way.

    Along a row ``s = a0 p0 + a1 p1`` with weights that are integers (2048 is 1), then
    ``(b0 (s0 >> 4) >> 16) + (b1 (s1 >> 4) >> 16) + 2 >> 2``.  In float32 all of it is exact but
    the products with b, which have up to 26 bits: one pixel in 10 000 may come out one lower or
    higher.
    """

    def __init__(self, rows: Taps, columns: Taps) -> None:
        super().__init__()
        self.register_buffer('rows', _both(rows))
        self.register_buffer('columns', _both(columns))
        along, down = frame_tables.fixed_point(columns), frame_tables.fixed_point(rows)
        self.register_buffer('along', torch.from_numpy(along / np.float32(1 << 4)))
        down = down[:, :, np.newaxis] / np.float32(1 << 16)
        self.register_buffer('down', torch.from_numpy(down))

    def forward(self, image: Tensor) -> Tensor:
        taps = image.index_select(-1, self.columns).unflatten(-1, (2, -1)).mul_(self.along)
        sums = (taps[..., 0, :] + taps[..., 1, :]).floor_()
        taps = sums.index_select(-2, self.rows).unflatten(-2, (2, -1)).mul_(self.down).floor_()
        return (taps[:, 0] + taps[:, 1]).mul_(0.25).add_(0.5).floor_()


class Enlarge(nn.Module):
    """Bilinear resize of one float32 plane, as cv2.resize does it; NaN spreads to neighbours.

    :param size: rows and columns of what comes.
    :param wanted: rows and columns of what is wanted.
    """

    def __init__(self, size: tuple[int, int], wanted: tuple[int, int]) -> None:
        super().__init__()
        self.same = size == wanted
        for name, axis in (('row', 0), ('column', 1)):
            taps = frame_tables.linear_taps(size[axis], wanted[axis])
            self.register_buffer(f'{name}_first', torch.from_numpy(taps.first))
            self.register_buffer(f'{name}_second', torch.from_numpy(taps.second))
            fraction = taps.fraction[:, np.newaxis] if axis == 0 else taps.fraction
            self.register_buffer(f'{name}_fraction', torch.from_numpy(fraction))

    def forward(self, plane: Tensor) -> Tensor:
        """Map (h, w) to (H, W)."""
        if self.same:
            return plane
        wide = torch.lerp(
            plane.index_select(1, self.column_first),
            plane.index_select(1, self.column_second),
            self.column_fraction,
        )
        return torch.lerp(
            wide.index_select(0, self.row_first),
            wide.index_select(0, self.row_second),
            self.row_fraction,
        )


def _both(taps: Taps) -> Tensor:
    """Return (2 n,) the first taps, then the second ones."""
    indices: NDArray[np.int64] = np.concatenate((taps.first, taps.second))
    return torch.from_numpy(indices)
