"""Pictures and hand-made image files for the tests of the codecs."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from depth_node.errors import ImageRejected


def reason_of(call, *arguments):
    with pytest.raises(ImageRejected) as refused:
        call(*arguments)
    return refused.value.reason


def picture():
    """A smooth picture of 48x32 pixels with all three channels different."""
    small = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (48, 32))


def patched_size(jpeg, width, height):
    """Write another size into the frame header of a JPEG."""
    at = next(
        jpeg.index(bytes([0xFF, code])) for code in (0xC0, 0xC2) if bytes([0xFF, code]) in jpeg
    )
    return jpeg[: at + 5] + struct.pack('>HH', height, width) + jpeg[at + 9 :]


def chunk(kind, content):
    body = kind + content
    return struct.pack('>I', len(content)) + body + struct.pack('>I', zlib.crc32(body))


def png_of(width, height, bits=8, color_type=2, pixels=b'\0'):
    """Write a PNG by hand, so that its header may say anything."""
    header = struct.pack('>IIBBBBB', width, height, bits, color_type, 0, 0, 0)
    chunks = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(pixels)) + chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + chunks


def with_segment(jpeg, marker, content):
    """Insert a segment behind the start of a JPEG."""
    segment = bytes([0xFF, marker]) + struct.pack('>H', len(content) + 2) + content
    return jpeg[:2] + segment + jpeg[2:]
