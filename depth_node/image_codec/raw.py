"""Raw images: message fields and bytes become RGB or metres, or are refused."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.errors import ImageRejected
from depth_node.errors import quoted
from depth_node.frames import RawImage
from depth_node.image_codec.compressed_depth import meters_of_millimeters
from depth_node.image_codec.layout import IMAGE_ENCODING
from depth_node.image_codec.layout import MAX_PIXELS
from depth_node.image_codec.layout import NO_CONVERSION
from depth_node.image_codec.layout import Encoding
from depth_node.image_codec.layout import check_raw
from depth_node.image_codec.layout import luma_rows


def decode_raw(image: RawImage, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Turn a raw colour or grey image into RGB.

    - ``8UC1``, ``8UC3`` and ``8UC4`` are read as grey, BGR and BGRA, as OpenCV orders them;
      alpha is dropped; grey becomes three equal channels.
    - 16-bit samples are reduced to their high byte, Bayer mosaics before interpolation.
    - Bayer mosaics are interpolated bilinearly; the outermost pixels repeat their neighbours.
    - YUV follows BT.601 in studio range as OpenCV does: with y = max(Y - 16, 0), u = U - 128,
      v = V - 128: R = 1.164 y + 1.596 v, G = 1.164 y - 0.813 v - 0.391 u,
      B = 1.164 y + 2.018 u, rounded and cut to 0..255.  Subsampled chroma is repeated.

    :param image: the fields of the message; see :func:`check_raw` for what is refused.
    :param max_pixels: limit on ``width * height``.
    :returns: (H, W, 3) RGB.  For ``rgb8`` a read-only view of ``image.data`` whose rows may be
        strided, valid as long as the data are; for the others a new array.
    :raises ImageRejected: see :func:`check_raw`; 'image_encoding' for depth encodings.
    """
    encoding = check_raw(image, max_pixels)
    if encoding.family == 'depth':
        raise ImageRejected(
            IMAGE_ENCODING,
            'image',
            f'the depth encoding {quoted(image.encoding)}',
            'a colour or grey encoding',
            'Subscribe to the colour topic of the camera, not to its depth.',
        )
    if encoding.family == 'yuv420':
        return _decode_nv12(image, encoding)
    if encoding.family == 'yuv444':
        return _decode_nv24(image, encoding)
    pixels = _high_bytes(image, encoding)
    if encoding.conversion == NO_CONVERSION:
        return pixels
    return _converted(pixels, encoding.conversion)


def decode_depth(image: RawImage, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Turn a raw depth image into metres.

    ``16UC1`` holds millimetres with 0 for unknown, ``32FC1`` metres (REP-118).

    :param image: the fields of the message; see :func:`check_raw` for what is refused.
    :param max_pixels: limit on ``width * height``.
    :returns: (H, W) metres along z, a new array; NaN where nothing is known, which includes
        every value that is not above zero; +Inf stays (nothing within range).
    :raises ImageRejected: see :func:`check_raw`; 'image_encoding' for any other encoding.
    """
    encoding = check_raw(image, max_pixels)
    if encoding.family != 'depth':
        raise ImageRejected(
            IMAGE_ENCODING, 'depth image', f'encoding {quoted(image.encoding)}', '16UC1 or 32FC1'
        )
    order = '>' if image.is_bigendian else '<'
    kind = 'u' if encoding.item_bytes == 2 else 'f'
    samples: NDArray[np.generic] = np.ndarray(
        (image.height, image.width),
        np.dtype(f'{order}{kind}{encoding.item_bytes}'),
        image.data,
        strides=(image.step, encoding.item_bytes),
    )
    if encoding.item_bytes == 2:
        return meters_of_millimeters(samples.astype(np.uint16))
    depth_m = samples.astype(np.float32)
    depth_m[~(depth_m > 0)] = np.nan
    return depth_m


def _high_bytes(image: RawImage, encoding: Encoding) -> NDArray[np.uint8]:
    """View the most significant byte of each sample: (H, W, C), or (H, W) for one channel."""
    item = encoding.item_bytes
    shape: tuple[int, ...] = (image.height, image.width, encoding.channels)
    strides: tuple[int, ...] = (image.step, encoding.channels * item, item)
    if encoding.channels == 1:
        shape, strides = shape[:2], strides[:2]
    first = 0 if image.is_bigendian else item - 1
    view = _view(image, first, shape, strides)
    return view if item == 1 else np.ascontiguousarray(view)


def _decode_nv12(image: RawImage, encoding: Encoding) -> NDArray[np.uint8]:
    """Decode 4:2:0: a plane of luma, then one of interleaved chroma of half the height."""
    height, width, step = luma_rows(image, encoding), image.width, image.step
    luma = _view(image, 0, (height, width), (step, 1))
    chroma = _view(image, step * height, (height // 2, width // 2, 2), (step, 2, 1))
    rgb: NDArray[np.uint8] = cv2.cvtColorTwoPlane(luma, chroma, encoding.conversion)
    return rgb


def _decode_nv24(image: RawImage, encoding: Encoding) -> NDArray[np.uint8]:
    """Decode 4:4:4: a plane of luma, then one of interleaved chroma with rows of two steps."""
    height, width, step = luma_rows(image, encoding), image.width, image.step
    chroma = _view(image, step * height, (height, width, 2), (2 * step, 2, 1))
    # OpenCV knows no semi-planar 4:4:4.  As UYVY with every pixel twice, it goes through the
    # very arithmetic of the other YUV encodings.
    twice = np.empty((height, width, 4), np.uint8)
    twice[..., 0::2] = chroma
    twice[..., 1::2] = _view(image, 0, (height, width), (step, 1))[..., np.newaxis]
    rgb = _converted(twice.reshape(height, 2 * width, 2), encoding.conversion)
    return np.ascontiguousarray(rgb[:, ::2])


def _view(
    image: RawImage, offset_bytes: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Look at the data without copying; the view is read only."""
    view: NDArray[np.uint8] = np.ndarray(shape, np.uint8, image.data, offset_bytes, strides)
    view.flags.writeable = False
    return view


def _converted(pixels: NDArray[np.uint8], conversion: int) -> NDArray[np.uint8]:
    rgb: NDArray[np.uint8] = cv2.cvtColor(pixels, conversion)
    return rgb
