"""Raw or compressed: the one place that chooses the decoder of a message."""

from __future__ import annotations

from typing import Union

import numpy as np
from numpy.typing import NDArray

from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.image_codec.compressed import decode_compressed
from depth_node.image_codec.compressed_depth import decode_compressed_depth
from depth_node.image_codec.layout import MAX_PIXELS
from depth_node.image_codec.raw import decode_depth
from depth_node.image_codec.raw import decode_raw


def decode_image(
    image: Union[RawImage, CompressedImage], max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Turn a colour or grey image, raw or compressed, into RGB.

    :param max_pixels: limit on ``width * height``.
    :returns: (H, W, 3) RGB; see :func:`decode_raw` and :func:`decode_compressed`.
    :raises ImageRejected: when it cannot be decoded.
    """
    if isinstance(image, RawImage):
        return decode_raw(image, max_pixels)
    return decode_compressed(image, max_pixels)


def decode_depth_image(
    image: Union[RawImage, CompressedImage], max_pixels: int = MAX_PIXELS
) -> NDArray[np.float32]:
    """Turn a depth image, raw or compressedDepth, into metres.

    :param max_pixels: limit on ``width * height``.
    :returns: (H, W) metres, NaN unknown; see :func:`decode_depth` and
        :func:`decode_compressed_depth`.
    :raises ImageRejected: when it cannot be decoded.
    """
    if isinstance(image, RawImage):
        return decode_depth(image, max_pixels)
    return decode_compressed_depth(image, max_pixels)
