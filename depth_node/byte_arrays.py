"""Images whose memory is an array of bytes, which a ROS message can hold without a copy."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray


def float_image(height: int, width: int) -> NDArray[np.float32]:
    """Return a new (H, W) float32 image of zeros that lies in an array of bytes of its own."""
    memory = array('B', bytes(4 * height * width))
    return np.frombuffer(memory, np.float32).reshape(height, width)


def bytes_of(image: NDArray[np.float32]) -> array[int]:
    """Return the bytes of an image.

    :returns: type code 'B': the array that an image of :func:`float_image` lies in, so that later
        changes of the image show; a copy for any other image, also for a part of such a one.
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
