"""Depth images as image_transport's compressedDepth writes them: PNG or RVL behind 12 bytes.

The 12 bytes are little-endian: int32 form, float32 A, float32 B.  A ``16UC1`` payload is
millimetres.  A ``32FC1`` payload v is quantised inverse depth: ``depth_m = A / (v - B)``.  In both
0 is unknown.  RVL is the run-length and variable-length code of A. D. Wilson, "Fast Lossless Depth
Image Compression", ISS 2017, here behind the columns and rows as two uint32.
"""

from __future__ import annotations

import math
import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.errors import ImageRejected
from depth_node.errors import quoted
from depth_node.frames import CompressedImage
from depth_node.image_codec.compressed import PNG_MAGIC
from depth_node.image_codec.compressed import decode_file
from depth_node.image_codec.compressed import encode_file
from depth_node.image_codec.compressed import read_header
from depth_node.image_codec.compressed import source_encoding
from depth_node.image_codec.layout import IMAGE_COMPRESSED
from depth_node.image_codec.layout import IMAGE_ENCODING
from depth_node.image_codec.layout import MAX_PIXELS
from depth_node.image_codec.layout import check_size

FORMAT_16UC1_PNG = '16UC1; compressedDepth png'
"""``format`` of what :func:`encode_compressed_depth` writes."""

_CONFIG = struct.Struct('<iff')
_RVL_SIZE = struct.Struct('<II')
_WHO = 'compressed depth image'
_MM_PER_M = 1000.0
_MAX_VALUE_NIBBLES = 10  # of 3 bits each: a run of 2**30 pixels


def decode_compressed_depth(
    image: CompressedImage, max_pixels: int = MAX_PIXELS
) -> NDArray[np.float32]:
    """Turn a compressed depth image into metres.

    Read are the formats '16UC1; compressedDepth' and '32FC1; compressedDepth', each followed by
    'png', 'rvl' or nothing (PNG), and a bare 16-bit PNG of a 16UC1 source in millimetres.

    :param image: the fields of the message.
    :param max_pixels: limit on width times height; also bounds the number of bytes taken.
    :returns: (H, W) metres along z, a new array; NaN where nothing is known.
    :raises ImageRejected: reason 'image_encoding' for other formats; 'image_compressed' for a
        truncated or corrupt stream; 'image_size' or 'image_too_large'.
    """
    source = source_encoding(image.format)
    words = image.format.partition(';')[2].split()
    data = memoryview(image.data).cast('B')
    if source == '16UC1' and data[: len(PNG_MAGIC)] == PNG_MAGIC:
        return meters_of_millimeters(_decode_png(data, max_pixels))
    if source not in ('16UC1', '32FC1') or 'compressedDepth' not in words:
        raise ImageRejected(
            IMAGE_ENCODING,
            _WHO,
            f'format {quoted(image.format)}',
            "'16UC1; compressedDepth' or '32FC1; compressedDepth', of png or rvl",
        )
    if len(data) < _CONFIG.size:
        raise _corrupt(f'{len(data)} bytes', f'a header of {_CONFIG.size} bytes')
    payload = data[_CONFIG.size :]
    decode = _decode_rvl if 'rvl' in words else _decode_png
    values = decode(payload, max_pixels)
    if source == '16UC1':
        return meters_of_millimeters(values)
    _, quant_a, quant_b = _CONFIG.unpack_from(data)
    return _meters_of_inverse(values, quant_a, quant_b)


def encode_compressed_depth(depth_m: NDArray[np.float32]) -> tuple[str, bytes]:
    """Write a depth image as image_transport's compressedDepth, in whole millimetres.

    :param depth_m: (H, W) metres; what is NaN, not above zero, infinite or beyond 65.535 m is
        written as unknown.
    :returns: ``format`` and ``data`` of a sensor_msgs/CompressedImage; decoding gives depths that
        differ by at most 0.5 mm.
    :raises ImageRejected: reason 'image_compressed' where a PNG cannot hold the image.
    """
    depth_mm = np.rint(np.asarray(depth_m, np.float64) * _MM_PER_M)
    known = (depth_mm > 0) & (depth_mm <= np.iinfo(np.uint16).max)
    png = encode_file('.png', np.where(known, depth_mm, 0).astype(np.uint16), [])
    return FORMAT_16UC1_PNG, _CONFIG.pack(0, 0.0, 0.0) + png


def meters_of_millimeters(depth_mm: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Turn millimetres with 0 for unknown into metres.

    :param depth_mm: of any shape.
    :returns: metres, of the same shape, a new array; NaN where unknown.
    """
    depth_m = np.divide(depth_mm, np.float32(_MM_PER_M), dtype=np.float32)
    depth_m[depth_mm == 0] = np.nan
    return depth_m


def _meters_of_inverse(
    values: NDArray[np.uint16], quant_a: float, quant_b: float
) -> NDArray[np.float32]:
    if not (math.isfinite(quant_a) and math.isfinite(quant_b) and quant_a > 0):
        raise _corrupt(f'quantisation A {quant_a:g}, B {quant_b:g}', 'A above 0 and both finite')
    inverse = values.astype(np.float32) - np.float32(quant_b)
    depth_m = np.full(values.shape, np.nan, np.float32)
    np.divide(np.float32(quant_a), inverse, out=depth_m, where=(values > 0) & (inverse > 0))
    return depth_m


def _decode_png(payload: memoryview, max_pixels: int) -> NDArray[np.uint16]:
    header = read_header(payload, max_pixels)
    values = decode_file(payload, header, cv2.IMREAD_UNCHANGED)
    if values.ndim != 2 or values.dtype != np.uint16:
        raise _corrupt(f'{values.dtype} of shape {values.shape}', 'a 16-bit grey PNG')
    return np.asarray(values, np.uint16)


def _decode_rvl(payload: memoryview, max_pixels: int) -> NDArray[np.uint16]:
    """Decode columns, rows, then a stream of numbers in groups.

    A group is: how many zeros, how many known pixels n, then n differences from the known pixel
    before, zigzag coded (0, -1, 1, -2, ...).
    """
    if len(payload) < _RVL_SIZE.size:
        raise _corrupt(f'an RVL stream of {len(payload)} bytes', 'columns and rows')
    width, height = _RVL_SIZE.unpack_from(payload)
    check_size(width, height, max_pixels, _WHO)
    pixels = width * height
    if len(payload) > 3 * pixels + 16:
        raise _corrupt(f'{len(payload)} bytes of RVL for {pixels} pixels', 'a stream of that size')
    numbers = _rvl_numbers(payload[_RVL_SIZE.size :])
    known, picked = _rvl_runs(numbers, pixels)
    zigzag = numbers[picked]
    values = np.zeros(pixels, np.uint16)
    # Sums of differences may leave 16 bits on the way only if the stream is corrupt.
    depths = np.cumsum((zigzag >> 1) ^ -(zigzag & 1))
    if depths.size and (depths.min() < 0 or depths.max() > np.iinfo(np.uint16).max):
        raise _corrupt('an RVL stream with depths beyond 16 bits', 'a whole stream')
    values[known] = depths
    return values.reshape(height, width)


def _rvl_numbers(stream: memoryview) -> NDArray[np.int64]:
    """Decode all variable-length numbers of an RVL stream.

    A number is a row of nibbles, least significant first, 3 bits each; the fourth says that more
    follow.  Nibbles fill little-endian 32-bit words from the top.
    """
    words = np.frombuffer(stream, np.uint8, len(stream) // 4 * 4).reshape(-1, 4)[:, ::-1]
    nibbles = np.stack([words >> 4, words & 15], axis=-1).ravel()
    ends = np.flatnonzero(nibbles < 8)
    starts = np.concatenate([[0], ends[:-1] + 1])[: ends.size]
    lengths = ends - starts + 1
    if ends.size == 0 or lengths.max() > _MAX_VALUE_NIBBLES:
        raise _corrupt('an RVL stream with an endless number', 'a whole stream')
    place = np.arange(ends[-1] + 1) - np.repeat(starts, lengths)
    parts = (nibbles[: ends[-1] + 1] & 7).astype(np.int64) << (3 * place)
    return np.add.reduceat(parts, starts)


def _rvl_runs(
    numbers: NDArray[np.int64], pixels: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Follow the groups: which pixels are known, and which numbers are their differences."""
    known = np.zeros(pixels, np.bool_)
    picked = np.zeros(numbers.size, np.bool_)
    pixel = at = 0
    while pixel < pixels:
        if at + 2 > numbers.size:
            raise _corrupt(f'an RVL stream that ends at pixel {pixel} of {pixels}', 'all of them')
        zeros, count = int(numbers[at]), int(numbers[at + 1])
        first, at = pixel + zeros, at + 2
        pixel = first + count
        if pixel > pixels or at + count > numbers.size:
            raise _corrupt('an RVL stream with a run of impossible length', 'a whole stream')
        known[first:pixel] = True
        picked[at : at + count] = True
        at += count
    return known, picked


def _corrupt(received: str, expected: str) -> ImageRejected:
    return ImageRejected(IMAGE_COMPRESSED, _WHO, received, expected)
