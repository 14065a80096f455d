"""Thinning of points: one of all that lie in a voxel, a cube of a grid about the camera.

Exact: no voxel with a point becomes empty, as it could where only hashes are compared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.settings import SMALLEST_VOXEL_M

_AXIS_BITS = 21
_AXIS_MASK = np.int64((1 << _AXIS_BITS) - 1)
_SPREAD = 0x9E3779B97F4A7C15
_WORD_MASK = (1 << 64) - 1
_LARGEST_TABLE_BITS = 20


def first_in_each(points_m: NDArray[np.float32], voxel_m: float) -> NDArray[np.intp]:
    """Choose one point of every voxel that has any.

    :param points_m: (N, 3) or more columns, x, y and z first, finite, within 1 km of the camera.
    :param voxel_m: edge of a voxel, ``SMALLEST_VOXEL_M`` or more.
    :returns: (M,) indices, ascending: of each voxel the first of its points.
    :raises SettingsError: for a smaller voxel, of which the grid would have too many.
    """
    if not voxel_m >= SMALLEST_VOXEL_M:
        raise SettingsError('points.voxel_m', quoted(voxel_m), f'{SMALLEST_VOXEL_M:g} or more')
    keys = _keys(points_m, voxel_m)
    # neighbours in a row mostly share a voxel, and this is far cheaper than what follows
    begins = np.empty(len(keys), np.bool_)
    begins[:1] = True
    np.not_equal(keys[1:], keys[:-1], out=begins[1:])
    left = np.flatnonzero(begins)
    keys = keys[left]
    chosen = []
    spread = _SPREAD
    while len(left):
        first, lost = _round(keys, spread)
        chosen.append(left[first])
        left, keys = left[lost], keys[lost]
        # another spread, so that those that met in this round part in the next
        spread = spread * _SPREAD & _WORD_MASK
    return np.sort(np.concatenate(chosen)) if chosen else left


def _keys(points_m: NDArray[np.float32], voxel_m: float) -> NDArray[np.int64]:
    """Return the number of the voxel of every point."""
    keys = np.zeros(len(points_m), np.int64)
    cell = np.empty(len(points_m), np.float32)
    for axis in range(3):
        np.multiply(points_m[:, axis], np.float32(1.0 / voxel_m), out=cell)
        np.floor(cell, out=cell)
        keys <<= _AXIS_BITS
        keys |= cell.astype(np.int64) & _AXIS_MASK
    return keys


def _round(keys: NDArray[np.int64], spread: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Let the keys compete for the places of a table.

    :param spread: odd, 64 bits.
    :returns: the first of each key that won a place, and all of the keys that won none; a key that
        won is in the first alone.
    """
    bits = min(_LARGEST_TABLE_BITS, max(8, len(keys).bit_length() + 1))
    # the product of arrays wraps round silently
    hashes = keys.view(np.uint64) * np.uint64(spread)
    places = (hashes >> np.uint64(64 - bits)).astype(np.int32)
    table = np.empty(1 << bits, np.int32)
    numbers = np.arange(len(keys), dtype=np.int32)
    # backwards, because of several that are written to one place the last stays
    table[places[::-1]] = numbers[::-1]
    winners = table[places]
    first = np.flatnonzero(winners == numbers)
    lost = np.flatnonzero(keys[winners] != keys)
    return first, lost
