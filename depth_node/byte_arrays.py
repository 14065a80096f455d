"""Images whose memory is an array of bytes, which a ROS message can hold without a copy."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray


def float_image(height: int, width: int) -> NDArray[np.float32]:
    """Return a new (H, W) float32 image of zeros that lies in an array of bytes of its own."""
    image: NDArray[np.float32] = message_image((height, width), np.dtype(np.float32))
    return image


def message_image(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a new image of zeros that lies in an array of bytes of its own.

    :param shape: (H, W) or (H, W, C).
    """
    memory = array('B', bytes(math.prod(shape) * dtype.itemsize))
    return np.frombuffer(memory, dtype).reshape(shape)


def bytes_of(image: NDArray[Any]) -> array[int]:
    """Return the bytes of an image.

    :returns: type code 'B': the array that an image of :func:`message_image` lies in, so that
        later changes of the image show; a copy for any other image, also for a part of such a one.
    """
    memory: object = image
    while isinstance(memory, np.ndarray):
        memory = memory.base
    if isinstance(memory, memoryview):  # through which numpy reaches an array
        memory = memory.obj
    whole = isinstance(memory, array) and len(memory) == image.nbytes
    if isinstance(memory, array) and whole and image.flags.c_contiguous:
        return memory
    copied = array('B')
    copied.frombytes(np.ascontiguousarray(image).data.cast('B'))
    return copied
