"""JPEG and PNG of a sensor_msgs/CompressedImage: checked by their own structure, then decoded.

The decoders behind OpenCV allocate what a header says and, depending on their version, return
half-grey pictures for truncated files.  So the size is read and the structure is walked here
first, over the file's bytes alone.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.errors import ImageRejected
from depth_node.errors import quoted
from depth_node.frames import CompressedImage
from depth_node.image_codec.layout import ENCODINGS
from depth_node.image_codec.layout import IMAGE_COMPRESSED
from depth_node.image_codec.layout import IMAGE_ENCODING
from depth_node.image_codec.layout import IMAGE_TOO_LARGE
from depth_node.image_codec.layout import MAX_PIXELS
from depth_node.image_codec.layout import check_size
from depth_node.image_codec.layout import check_subsampling

PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
JPEG_MAGIC = b'\xff\xd8\xff'

_WHO = 'compressed image'
_MAX_BYTES_PER_PIXEL = 8  # a PNG of four 16-bit channels that does not compress
_MAX_OVERHEAD_BYTES = 1 << 16
_MAX_PARTS = 1 << 16  # segments or chunks; bounds the walk over a file made of empty ones
# Encoders write about ten; each costs the decoder a walk over the whole picture, and 26 bytes.
_MAX_SCANS = 64
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # by colour type, without alpha
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended sequential, progressive
_JPEG_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_JPEG_FIRST_SEGMENT = 0xC0
_JPEG_BARE = range(0xD0, 0xD9)  # restarts and the start of an image: markers without content
_JPEG_SCAN = 0xDA
_JPEG_END = 0xD9
_MARKER = re.compile(rb'\xff+[^\xff]')
# Inside a scan FF 00 is a data byte, FF D0..D7 a restart and FF FF filling; all else ends it.
_END_OF_SCAN = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')


@dataclass(frozen=True)
class FileHeader:
    """What a JPEG or PNG says of itself before its pixels."""

    width: int
    """Columns, pixels."""
    height: int
    """Rows, pixels."""
    channels: int
    """1 for grey, 3 for colour; alpha does not count."""


def decode_compressed(image: CompressedImage, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Turn a JPEG or PNG into RGB.

    The kind of file is told by its first bytes, since ``format`` is free text; of ``format`` only
    the part before ';' is used, where image_transport puts the encoding of the source: depth is
    refused, and a grey picture of a Bayer source is a mosaic, which is interpolated.  The colours
    are those of the file.  An EXIF orientation is ignored: it would turn the image away from its
    camera_info.  16-bit samples are reduced to their high byte.

    What is detected: an empty or foreign file; a size above the limit, before any memory is taken
    for it; for PNG every changed, missing or surplus byte up to its end chunk (lengths and CRC
    of all chunks); for JPEG a broken segment structure and a missing end marker, so every
    truncation.  What cannot be: changed bytes inside a JPEG's scan, for which the format has no
    check sum.  Bytes behind the end of the picture are ignored, as some cameras pad there.  A JPEG
    of more than 64 scans is refused: a small one of thousands would keep the decoder busy for
    minutes.

    :param image: the fields of the message.
    :param max_pixels: limit on width times height; also bounds the number of bytes taken.
    :returns: (H, W, 3) RGB, a new array.
    :raises ImageRejected: reason 'image_compressed', 'image_encoding', 'image_size' or
        'image_too_large'.
    """
    source = source_encoding(image.format)
    encoding = ENCODINGS.get(source)
    if encoding is not None and encoding.family == 'depth':
        raise ImageRejected(
            IMAGE_ENCODING,
            _WHO,
            f'the depth format {quoted(image.format)}',
            'a picture in colour or grey',
            'Subscribe to the colour topic of the camera, not to its depth.',
        )
    header = read_header(image.data, max_pixels)
    is_mosaic = header.channels == 1 and source.startswith('bayer_')
    mosaic = encoding if is_mosaic else None
    if mosaic is not None:
        check_subsampling(header.width, header.height, source, mosaic)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    bgr = decode_file(image.data, header, flags)
    if mosaic is not None:
        gray = np.ascontiguousarray(bgr[..., 0])
        return np.asarray(cv2.cvtColor(gray, mosaic.conversion), np.uint8)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def encode_jpeg(rgb: NDArray[np.uint8], quality: int) -> bytes:
    """Write a JPEG.

    :param rgb: (H, W, 3) RGB.
    :param quality: 1 (small) to 100 (good).
    :returns: the bytes of the file.
    :raises ImageRejected: reason 'image_compressed' where a JPEG cannot hold the image.
    """
    return encode_file('.jpg', _bgr(rgb), [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """Write a PNG.

    :param rgb: (H, W, 3) RGB.
    :returns: the bytes of the file; decoding gives the same pixels.
    :raises ImageRejected: reason 'image_compressed' where a PNG cannot hold the image.
    """
    return encode_file('.png', _bgr(rgb), [])


def source_encoding(image_format: str) -> str:
    """Give the encoding of the source as image_transport writes it: what comes before ';'.

    :param image_format: ``format`` of the message, e.g. 'rgb8; jpeg compressed bgr8'.
    :returns: e.g. 'rgb8'; for a bare format such as 'jpeg', that word.
    """
    return image_format.partition(';')[0].strip()


def read_header(data: bytes | bytearray | memoryview, max_pixels: int) -> FileHeader:
    """Check the structure and the size of a JPEG or PNG; nothing is decompressed.

    :param data: the file.
    :param max_pixels: limit on width times height.
    :returns: what the file holds.
    :raises ImageRejected: reason 'image_compressed', 'image_size' or 'image_too_large'.
    """
    view = memoryview(data).cast('B')
    most = max_pixels * _MAX_BYTES_PER_PIXEL + _MAX_OVERHEAD_BYTES
    if len(view) > most:
        raise ImageRejected(
            IMAGE_TOO_LARGE, _WHO, f'{len(view)} bytes', f'at most {most} for {max_pixels} pixels'
        )
    if view[: len(PNG_MAGIC)] == PNG_MAGIC:
        return _read_png(view, max_pixels)
    if view[: len(JPEG_MAGIC)] == JPEG_MAGIC:
        return _read_jpeg(view, max_pixels)
    raise ImageRejected(
        IMAGE_COMPRESSED,
        _WHO,
        f'{len(view)} bytes that begin with {quoted(bytes(view[:8]))}',
        'a JPEG or PNG file',
    )


def decode_file(
    data: bytes | bytearray | memoryview, header: FileHeader, flags: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode a file whose header was read.

    :param data: the file.
    :param header: what :func:`read_header` said of it.
    :param flags: of cv2.imdecode.
    :returns: (H, W) or (H, W, C) in OpenCV's order of channels.
    :raises ImageRejected: reason 'image_compressed' where the decoder gives up or disagrees with
        the header.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise _corrupt(f'a file on which the decoder fails with {quoted(str(error))}') from error
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise _corrupt('a file that the decoder does not accept')
    return np.asarray(pixels)


def encode_file(
    extension: str, pixels: NDArray[np.uint8] | NDArray[np.uint16], options: list[int]
) -> bytes:
    """Encode an image by OpenCV.

    :param extension: '.jpg' or '.png'.
    :param pixels: (H, W) or (H, W, 3) in OpenCV's order of channels.
    :param options: of cv2.imencode.
    :returns: the bytes of the file.
    :raises ImageRejected: reason 'image_compressed' where the format cannot hold the image.
    """
    try:
        done, file = cv2.imencode(extension, pixels, options)
    except cv2.error:
        done = False
    if not done:
        raise ImageRejected(
            IMAGE_COMPRESSED,
            'encoder',
            f'an image of shape {pixels.shape}',
            f'one for {extension}',
        )
    return bytes(file)


def _bgr(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8)


def _corrupt(received: str) -> ImageRejected:
    return ImageRejected(
        IMAGE_COMPRESSED,
        _WHO,
        received,
        'a whole JPEG or PNG',
        'Check the camera driver and the link for lost data.',
    )


def _read_png(view: memoryview, max_pixels: int) -> FileHeader:
    """Walk the chunks of a PNG: length, type, data, CRC of type and data."""
    header: FileHeader | None = None
    position = len(PNG_MAGIC)
    for _ in range(_MAX_PARTS):
        if position + 12 > len(view):
            raise _corrupt(f'a PNG that is cut after {len(view)} bytes')
        length, kind = struct.unpack_from('>I4s', view, position)
        end = position + 12 + length
        if end > len(view):
            raise _corrupt(f'a PNG that is cut in its {quoted(kind)} chunk')
        (crc,) = struct.unpack_from('>I', view, end - 4)
        if crc != zlib.crc32(view[position + 4 : end - 4]):
            raise _corrupt(f'a PNG with a wrong check sum in its {quoted(kind)} chunk')
        if header is None:
            header = _png_header(kind, view[position + 8 : end - 4])
            check_size(header.width, header.height, max_pixels, 'PNG')
        elif kind == b'IEND':
            return header
        position = end
    raise _corrupt(f'a PNG of more than {_MAX_PARTS} chunks')


def _png_header(kind: bytes, content: memoryview) -> FileHeader:
    if kind != b'IHDR' or len(content) != 13:
        raise _corrupt(f'a PNG that begins with a {quoted(kind)} chunk of {len(content)} bytes')
    width, height, _, color_type = struct.unpack_from('>IIBB', content)
    if color_type not in _PNG_CHANNELS:
        raise _corrupt(f'a PNG of colour type {color_type}')
    return FileHeader(width, height, _PNG_CHANNELS[color_type])


def _read_jpeg(view: memoryview, max_pixels: int) -> FileHeader:
    """Walk the segments of a JPEG, jumping over the data of its scans, up to the end marker."""
    header: FileHeader | None = None
    position, scans = 2, 0
    for _ in range(_MAX_PARTS):
        position, marker = _jpeg_marker(view, position)
        if marker == _JPEG_END:
            if header is None:
                raise _corrupt('a JPEG without a frame')
            return header
        if marker < _JPEG_FIRST_SEGMENT or marker in _JPEG_BARE:
            raise _corrupt(f'a JPEG with the marker {marker:#x} out of place')
        content = _jpeg_segment(view, position)
        if marker in _JPEG_FRAMES and header is None:
            header = _jpeg_header(content)
            check_size(header.width, header.height, max_pixels, 'JPEG')
        elif marker in _JPEG_FRAMES or marker in _JPEG_OTHER_FRAMES:
            raise _corrupt(f'a JPEG with a second or unusual frame (marker {marker:#x})')
        position += 2 + len(content)
        if marker == _JPEG_SCAN:
            scans += 1
            if scans > _MAX_SCANS:
                raise _corrupt(f'a JPEG of more than {_MAX_SCANS} scans')
            position = _end_of_scan(view, position)
    raise _corrupt(f'a JPEG of more than {_MAX_PARTS} segments')


def _jpeg_marker(view: memoryview, position: int) -> tuple[int, int]:
    """Read a marker, which may be preceded by FF filling: position behind it, and its code."""
    if position < len(view) and view[position] != 0xFF:
        raise _corrupt(f'a JPEG with no marker at byte {position}')
    found = _MARKER.match(view, position)
    if found is None:
        raise _corrupt(f'a JPEG that is cut after {len(view)} bytes, without its end marker')
    return found.end(), view[found.end() - 1]


def _jpeg_segment(view: memoryview, position: int) -> memoryview:
    """Give the content of the segment whose length field is at ``position``."""
    if position + 2 > len(view):
        raise _corrupt(f'a JPEG that is cut after {len(view)} bytes')
    (length,) = struct.unpack_from('>H', view, position)
    if length < 2 or position + length > len(view):
        raise _corrupt(f'a JPEG with a segment of {length} bytes at byte {position}')
    return view[position + 2 : position + length]


def _jpeg_header(content: memoryview) -> FileHeader:
    if len(content) < 6:
        raise _corrupt(f'a JPEG with a frame header of {len(content)} bytes')
    bits, height, width, channels = struct.unpack_from('>BHHB', content)
    if channels not in (1, 3) or bits != 8:
        raise _corrupt(f'a JPEG of {channels} components of {bits} bits')
    return FileHeader(width, height, channels)


def _end_of_scan(view: memoryview, position: int) -> int:
    """Find the marker that ends the entropy-coded data."""
    found = _END_OF_SCAN.search(view, position)
    if found is None:
        raise _corrupt(f'a JPEG that is cut after {len(view)} bytes, without its end marker')
    return found.start()
