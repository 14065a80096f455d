"""What a well-formed raw image is: the known encodings, and the checks on fields and length.

Only integers of the message are looked at here, never a pixel, so that a message that lies about
itself is refused before any memory is taken for it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import cv2

from depth_node.errors import ImageRejected
from depth_node.errors import quoted
from depth_node.frames import RawImage
from depth_node.settings import InputSettings

MAX_PIXELS: int = InputSettings.max_pixels
"""Limit on width * height where a caller names none."""

IMAGE_ENCODING = 'image_encoding'
"""Encoding or format unknown, or not one of colour where colour is asked for."""
IMAGE_ENDIANNESS = 'image_endianness'
"""``is_bigendian`` is neither 0 nor 1."""
IMAGE_SIZE = 'image_size'
"""Width or height is not positive, or impossible for the encoding."""
IMAGE_TOO_LARGE = 'image_too_large'
"""More pixels, or more compressed bytes, than the limit."""
IMAGE_STEP = 'image_step'
"""Rows are shorter than their pixels, or samples straddle them."""
IMAGE_DATA_LENGTH = 'image_data_length'
"""The data are shorter or longer than the fields say."""
IMAGE_COMPRESSED = 'image_compressed'
"""A JPEG, PNG or RVL stream that is truncated, corrupt or of a kind that is not read."""

IMAGE_REASONS = (
    IMAGE_ENCODING,
    IMAGE_ENDIANNESS,
    IMAGE_SIZE,
    IMAGE_TOO_LARGE,
    IMAGE_STEP,
    IMAGE_DATA_LENGTH,
    IMAGE_COMPRESSED,
)
"""Every ``reason`` of an ImageRejected that the codecs raise."""

NO_CONVERSION = -1
"""In the place of an OpenCV conversion code: the samples are RGB, or no colours at all."""

Family = Literal['color', 'bayer', 'yuv422', 'yuv420', 'yuv444', 'depth']

_SHOWN_LIST_CHARACTERS = 160
_SMALLEST_BAYER_PX = 3


@dataclass(frozen=True)
class Encoding:
    """How the pixels of one ``encoding`` lie in memory."""

    family: Family
    """'color' is packed colour or grey; 'yuv420' and 'yuv444' are semi-planar."""
    channels: int
    """Samples per pixel in a row; for the semi-planar ones, of the luma plane."""
    item_bytes: int = 1
    """Bytes per sample."""
    conversion: int = NO_CONVERSION
    """OpenCV's colour conversion code to RGB for 8-bit samples."""


# OpenCV names a mosaic by the second row from its second column on, ROS by the first row: what
# ROS calls rggb is BayerBG there.
ENCODINGS: Mapping[str, Encoding] = MappingProxyType(
    {
        'rgb8': Encoding('color', 3),
        'bgr8': Encoding('color', 3, 1, cv2.COLOR_BGR2RGB),
        'mono8': Encoding('color', 1, 1, cv2.COLOR_GRAY2RGB),
        'rgba8': Encoding('color', 4, 1, cv2.COLOR_RGBA2RGB),
        'bgra8': Encoding('color', 4, 1, cv2.COLOR_BGRA2RGB),
        'uyvy': Encoding('yuv422', 2, 1, cv2.COLOR_YUV2RGB_UYVY),
        'yuyv': Encoding('yuv422', 2, 1, cv2.COLOR_YUV2RGB_YUY2),
        'yuv422': Encoding('yuv422', 2, 1, cv2.COLOR_YUV2RGB_UYVY),
        'yuv422_yuy2': Encoding('yuv422', 2, 1, cv2.COLOR_YUV2RGB_YUY2),
        'nv12': Encoding('yuv420', 1, 1, cv2.COLOR_YUV2RGB_NV12),
        'nv21': Encoding('yuv420', 1, 1, cv2.COLOR_YUV2RGB_NV21),
        'nv24': Encoding('yuv444', 1, 1, cv2.COLOR_YUV2RGB_UYVY),
        'bayer_rggb8': Encoding('bayer', 1, 1, cv2.COLOR_BayerBG2RGB),
        'bayer_bggr8': Encoding('bayer', 1, 1, cv2.COLOR_BayerRG2RGB),
        'bayer_gbrg8': Encoding('bayer', 1, 1, cv2.COLOR_BayerGR2RGB),
        'bayer_grbg8': Encoding('bayer', 1, 1, cv2.COLOR_BayerGB2RGB),
        'mono16': Encoding('color', 1, 2, cv2.COLOR_GRAY2RGB),
        'rgb16': Encoding('color', 3, 2),
        'bgr16': Encoding('color', 3, 2, cv2.COLOR_BGR2RGB),
        'rgba16': Encoding('color', 4, 2, cv2.COLOR_RGBA2RGB),
        'bgra16': Encoding('color', 4, 2, cv2.COLOR_BGRA2RGB),
        'bayer_rggb16': Encoding('bayer', 1, 2, cv2.COLOR_BayerBG2RGB),
        'bayer_bggr16': Encoding('bayer', 1, 2, cv2.COLOR_BayerRG2RGB),
        'bayer_gbrg16': Encoding('bayer', 1, 2, cv2.COLOR_BayerGR2RGB),
        'bayer_grbg16': Encoding('bayer', 1, 2, cv2.COLOR_BayerGB2RGB),
        '8UC1': Encoding('color', 1, 1, cv2.COLOR_GRAY2RGB),
        '8UC3': Encoding('color', 3, 1, cv2.COLOR_BGR2RGB),
        '8UC4': Encoding('color', 4, 1, cv2.COLOR_BGRA2RGB),
        '16UC1': Encoding('depth', 1, 2),
        '32FC1': Encoding('depth', 1, 4),
    }
)


def check_raw(image: RawImage, max_pixels: int = MAX_PIXELS) -> Encoding:
    """Refuse an image whose fields contradict each other; nothing is allocated or decoded.

    The rules: a known encoding (case counts); ``is_bigendian`` 0 or 1; positive width and height
    whose product is at most ``max_pixels``; an even width for 4:2:2; even width and height for
    4:2:0; at least 3x3 pixels for a Bayer mosaic; ``step`` at least one row of pixels and a
    multiple of the sample size; and exactly ``step * height`` bytes of data.  Semi-planar YUV
    has its own rule of length: :func:`luma_rows`.

    :param image: the fields of the message.
    :param max_pixels: limit on ``width * height`` as the message gives them.
    :returns: the layout of the encoding.
    :raises ImageRejected: with one of :data:`IMAGE_REASONS` as its reason.
    """
    encoding = _known_encoding(image.encoding)
    if image.is_bigendian not in (0, 1):
        raise ImageRejected(
            IMAGE_ENDIANNESS, 'image', f'is_bigendian {quoted(image.is_bigendian)}', '0 or 1'
        )
    check_size(image.width, image.height, max_pixels)
    _check_step(image, encoding)
    if encoding.family in ('yuv420', 'yuv444'):
        luma_rows(image, encoding)
    else:
        _check_length(image)
    check_subsampling(image.width, image.height, image.encoding, encoding)
    return encoding


def check_size(width: int, height: int, max_pixels: int, who: str = 'image') -> None:
    """Refuse a size that is not positive or has too many pixels.

    :param width: columns, pixels.
    :param height: rows, pixels.
    :param max_pixels: limit on the product.
    :param who: what the size was read from, for the sentence.
    :raises ImageRejected: reason 'image_size' or 'image_too_large'.
    """
    if width <= 0 or height <= 0:
        raise ImageRejected(
            IMAGE_SIZE, who, f'{width}x{height} pixels', 'a positive width and height'
        )
    if width * height > max_pixels:
        raise ImageRejected(
            IMAGE_TOO_LARGE,
            who,
            f'{width}x{height} pixels',
            f'at most {max_pixels} pixels',
            'Raise max_pixels if the camera is really that large.',
        )


def check_subsampling(width: int, height: int, name: str, encoding: Encoding) -> None:
    """Refuse sizes that packed subsampled colour cannot have.

    :param width: columns, pixels.
    :param height: rows, pixels.
    :param name: the encoding as sent.
    :param encoding: its layout.
    :raises ImageRejected: reason 'image_size'.
    """
    if encoding.family == 'yuv422' and width % 2:
        raise _impossible_size(width, height, name, 'an even width')
    if encoding.family == 'bayer' and min(width, height) < _SMALLEST_BAYER_PX:
        raise _impossible_size(width, height, name, 'at least 3x3 pixels')


def luma_rows(image: RawImage, encoding: Encoding) -> int:
    """Say how many rows the picture of a semi-planar YUV image has, from the amount of data.

    Drivers disagree on ``height``: it is the rows of the picture, and the data have 3/2 (4:2:0)
    or 3 (4:4:4) times as many rows of ``step`` bytes; or it counts the rows of chroma too, and
    the data have ``height`` rows.  The amount of data decides.  Two things are refused as
    ambiguous: a second reading that does not give a whole (4:2:0: even) number of rows, and one
    with ``step >= 2 * width``, which is also what drivers send that wrongly count two samples
    a pixel.

    :param image: fields with a size and step that were checked.
    :param encoding: layout of 'yuv420' or 'yuv444'.
    :returns: rows of the picture, pixels; even for 4:2:0.
    :raises ImageRejected: reason 'image_data_length', 'image_step' or 'image_size'.
    """
    twice = 3 if encoding.family == 'yuv420' else 6  # rows of data per two rows of picture
    length = memoryview(image.data).nbytes
    if 2 * length == image.step * image.height * twice:
        rows = image.height
    elif length == image.step * image.height and (2 * image.height) % twice == 0:
        rows = 2 * image.height // twice
        _check_not_two_samples(image)
    else:
        raise ImageRejected(
            IMAGE_DATA_LENGTH,
            'image',
            f'{length} bytes of {quoted(image.encoding)}',
            f'{twice / 2:g} or 1 times step {image.step} * height {image.height}',
            'The driver sends a truncated or overlong image, or only the luma plane.',
        )
    if encoding.family == 'yuv420' and (rows % 2 or image.width % 2):
        raise _impossible_size(image.width, rows, image.encoding, 'an even width and height')
    return rows


def _known_encoding(name: str) -> Encoding:
    encoding = ENCODINGS.get(name)
    if encoding is None:
        names = textwrap.shorten(' '.join(ENCODINGS), _SHOWN_LIST_CHARACTERS, placeholder=' ...')
        raise ImageRejected(
            IMAGE_ENCODING,
            'image',
            f'encoding {quoted(name)}',
            f'one of {names}',
            'Set the camera driver to one of these; case counts.',
        )
    return encoding


def _check_step(image: RawImage, encoding: Encoding) -> None:
    row_bytes = image.width * encoding.channels * encoding.item_bytes
    if image.step < row_bytes:
        raise ImageRejected(
            IMAGE_STEP,
            'image',
            f'step {image.step} for {image.width} pixels of {quoted(image.encoding)}',
            f'at least {row_bytes} bytes',
        )
    if image.step % encoding.item_bytes:
        raise ImageRejected(
            IMAGE_STEP,
            'image',
            f'step {image.step}',
            f'a multiple of the {encoding.item_bytes} bytes of a sample',
        )


def _check_length(image: RawImage) -> None:
    length = memoryview(image.data).nbytes
    if length != image.step * image.height:
        raise ImageRejected(
            IMAGE_DATA_LENGTH,
            'image',
            f'{length} bytes of data',
            f'step {image.step} * height {image.height} = {image.step * image.height}',
            'The driver or the transport cut or padded the image.',
        )


def _check_not_two_samples(image: RawImage) -> None:
    if image.step >= 2 * image.width:
        raise ImageRejected(
            IMAGE_STEP,
            'image',
            f'step {image.step} for {image.width} pixels of {quoted(image.encoding)}, '
            'with as many rows of data as height',
            'less than two bytes a pixel',
            'Whether height counts the rows of chroma cannot be told.',
        )


def _impossible_size(width: int, rows: int, encoding: str, expected: str) -> ImageRejected:
    return ImageRejected(
        IMAGE_SIZE, 'image', f'{width}x{rows} pixels of {quoted(encoding)}', expected
    )
