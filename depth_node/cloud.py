"""Depth and camera -> packed points, ready to be put into a sensor_msgs/PointCloud2.

Layout of a point, little endian float32: x at byte 0, y at 4, z at 8; with color, rgb at 12, or
padded, as PCL and depth_image_proc lay it out, at 16.  A point is 16 bytes, padded and colored 32;
rows are not padded.  Points are in the optical frame of the camera, x right, y down, z forward,
metres.  The bytes of rgb are B, G, R, 0: a zero in the last one keeps the float a number, so that
readers that skip NaN do not lose the bright reds.
"""

from __future__ import annotations

from array import array
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera import ray_slopes
from depth_node.errors import Rejected
from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.frames import CameraModel
from depth_node.frames import PackedCloud
from depth_node.frames import PointField
from depth_node.voxels import first_in_each

_RGB_MASK = np.uint32(0x00FFFFFF)
# four planes of float32 and the points of a band are 2.5 MB, what a core's caches hold
_BAND_POINTS = 76_800


XYZ_FIELDS = (PointField('x', 0), PointField('y', 4), PointField('z', 8))
XYZRGB_FIELDS = (*XYZ_FIELDS, PointField('rgb', 12))
PADDED_XYZRGB_FIELDS = (*XYZ_FIELDS, PointField('rgb', 16))
STEP_BYTES = 16
PADDED_XYZRGB_STEP_BYTES = 32


class CloudPacker:
    """Packs clouds of one camera into buffers that it keeps.

    To be used by one thread at a time.  The data of a cloud is overwritten by the next call.

    :param camera: intrinsics of the depth images.
    :param organized: keep rows and columns, with NaN where depth is not finite; otherwise only
        points with finite depth, in one row.
    :param color: add rgb to every point.
    :param stride: take every n-th row and column, from the first, pixels.
    :param padded: give a point with color 32 bytes instead of 16.
    :param voxel_m: keep one point of each cube of this edge, metres; 0 keeps all.
    :raises SettingsError: for a stride below 1, or voxels of an organized cloud.
    """

    def __init__(
        self,
        camera: CameraModel,
        *,
        organized: bool,
        color: bool,
        stride: int,
        padded: bool = False,
        voxel_m: float = 0.0,
    ) -> None:
        if stride < 1:
            raise SettingsError('points.stride', quoted(stride), '1 or more')
        if voxel_m and organized:
            raise SettingsError('points.voxel_m', quoted(voxel_m), '0 for an organized cloud')
        self._voxel_m = voxel_m
        self._depth_shape = (camera.height, camera.width)
        self._organized = organized
        self._color = color
        self._stride = stride
        slopes_x, slopes_y = ray_slopes(camera)
        self._slopes_x = slopes_x[::stride]
        self._slopes_y = slopes_y[::stride, np.newaxis]
        self._padded = padded and color
        self._step_bytes = PADDED_XYZRGB_STEP_BYTES if self._padded else STEP_BYTES
        self._make_buffers(len(self._slopes_y), len(self._slopes_x))

    def pack(self, depth_m: NDArray[np.float32], rgb: NDArray[np.uint8] | None) -> PackedCloud:
        """Pack one depth image.

        :param depth_m: (H, W) float32 of the camera's size, metres along z; NaN and Inf become
            points of NaN, or no points.
        :param rgb: (H, W, 3) uint8 of the same size; not looked at without color.
        :raises Rejected: with the reason 'cloud_size' for arrays of another size or type.
        """
        self.check(depth_m, rgb)
        depth_m = depth_m[:: self._stride, :: self._stride]
        rgb = None if rgb is None else rgb[:: self._stride]
        for top in range(0, len(depth_m), self._band_rows):
            rows = slice(top, top + self._band_rows)
            self._pack_band(depth_m[rows], None if rgb is None else rgb[rows], rows)
        return self._whole() if self._organized else self._only_finite()

    def check(self, depth_m: NDArray[np.float32], rgb: NDArray[np.uint8] | None) -> None:
        """Refuse what :meth:`pack` would refuse, without packing it.

        :raises Rejected: with the reason 'cloud_size' for arrays of another size or type.
        """
        _check('depth', depth_m, self._depth_shape, np.dtype(np.float32))
        if self._color:
            _check('color', rgb, (*self._depth_shape, 3), np.dtype(np.uint8))

    def _make_buffers(self, height: int, width: int) -> None:
        """Take all memory that frames need."""
        self._band_rows = band = min(height, max(1, _BAND_POINTS // width))
        self._xyz = [np.empty((band, width), np.float32) for _ in range(3)]
        self._finite = np.empty((height, width), np.bool_)
        if self._color:
            self._bgra = np.empty((band, self._depth_shape[1], 4), np.uint8)
            in_place = self._bgra.view(np.float32)[..., 0]
            self._packed_rgb = in_place if self._stride == 1 else np.empty_like(self._xyz[0])
        else:
            self._packed_rgb = np.zeros_like(self._xyz[0])
        size_bytes = height * width * self._step_bytes
        self._zeros = memoryview(bytes(0 if self._organized else size_bytes))
        self._data = array('B', bytes(size_bytes if self._organized else 0))
        backing = self._data if self._organized else bytearray(size_bytes)
        self._points = np.frombuffer(backing, np.float32).reshape(height, width, -1)

    def _pack_band(
        self, depth_m: NDArray[np.float32], rgb: NDArray[np.uint8] | None, rows: slice
    ) -> None:
        """Pack some rows of the cloud, so few that all intermediate values stay in the cache."""
        count = len(depth_m)
        x, y, z = (plane[:count] for plane in self._xyz)
        finite, fourth = self._finite[rows], self._packed_rgb[:count]
        if self._color and rgb is not None:
            self._pack_color(rgb, count)
        np.isfinite(depth_m, out=finite)
        if finite.all():
            z = np.ascontiguousarray(depth_m)  # no copy without a stride
        else:
            with np.errstate(invalid='ignore'):
                # Inf - Inf is NaN, so that this copy of the depth has no Inf.
                np.subtract(depth_m, depth_m, out=z)
                np.add(depth_m, z, out=z)
        np.multiply(z, self._slopes_x, out=x)
        np.multiply(z, self._slopes_y[rows], out=y)
        planes = [x, y, z, fourth]
        if self._padded:
            cv2.mixChannels(planes, [self._points[rows]], [0, 0, 1, 1, 2, 2, 3, 4])
        else:
            cv2.merge(planes, dst=self._points[rows])

    def _pack_color(self, rgb: NDArray[np.uint8], count: int) -> None:
        """Write B, G, R, 0 for every point of a band.

        :param rgb: (count, W, 3), all columns of the image.
        """
        bgra = self._bgra[:count]
        cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA, dst=bgra)
        words = bgra.view(np.uint32)[:, :: self._stride, 0]
        np.bitwise_and(words, _RGB_MASK, out=self._packed_rgb[:count].view(np.uint32))

    def _whole(self) -> PackedCloud:
        """Return all points, in the rows and columns of the image."""
        height, width = self._finite.shape
        return self._cloud(width, height, is_dense=bool(self._finite.all()))

    def _only_finite(self) -> PackedCloud:
        """Copy the finite points to the front of a buffer of exactly their length."""
        kept = np.flatnonzero(self._finite)
        rows = self._points.reshape(self._finite.size, -1)
        if self._voxel_m:
            kept = kept[first_in_each(np.take(rows, kept, axis=0), self._voxel_m)]
        self._resize_data(len(kept) * self._step_bytes)
        if len(kept):
            target = np.frombuffer(self._data, np.float32).reshape(len(kept), -1)
            # The indices are in range; any other mode copies through a temporary.
            np.take(rows, kept, axis=0, out=target, mode='clip')
        return self._cloud(len(kept), 1, is_dense=True)

    def _resize_data(self, size_bytes: int) -> None:
        """Give the data a length; only the difference costs, and no page is faulted in twice."""
        excess = len(self._data) - size_bytes
        try:
            if excess > 0:
                del self._data[size_bytes:]
            else:
                self._data.frombytes(self._zeros[:-excess])
        except BufferError:
            # Somebody still looks at the last cloud: it stays as it is, and this one is new.
            self._data = array('B', self._zeros[:size_bytes])

    def _cloud(self, width: int, height: int, *, is_dense: bool) -> PackedCloud:
        """Describe the points in the data buffer."""
        colored = PADDED_XYZRGB_FIELDS if self._padded else XYZRGB_FIELDS
        fields = colored if self._color else XYZ_FIELDS
        return PackedCloud(self._data, width, height, self._step_bytes, fields, is_dense)


def _check(
    name: str, values: NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    """Refuse an array that is not of the size and type that the camera asks for."""
    if values is None or values.shape != shape or values.dtype != dtype:
        received = 'nothing' if values is None else f'{values.shape} {values.dtype}'
        raise Rejected(
            'cloud_size', f'cloud: {name}', received, f'{shape} {dtype}, the size of its camera'
        )
