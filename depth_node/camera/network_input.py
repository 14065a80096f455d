"""The array that a network is given: resized, normalised, one plane per channel."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera.fitting import Fit
from depth_node.camera.resampling import resampled

Triple = tuple[float, float, float]


class NetworkInput:
    """The input buffer of one network size, filled anew with each image.

    :param height: rows, pixels.
    :param width: columns, pixels.
    :param mean: subtracted from RGB in [0, 1].
    :param std: divides after the subtraction.
    """

    def __init__(self, height: int, width: int, mean: Triple, std: Triple) -> None:
        self.array: NDArray[np.float32] = np.zeros((1, 3, height, width), np.float32)
        """(1, 3, H, W), normalised RGB of the last image."""
        self._channels = [np.empty((height, width), np.uint8) for _ in range(3)]
        self._mean_255 = [np.float32(255.0 * value) for value in mean]
        self._gain = [np.float32(1.0 / (255.0 * value)) for value in std]

    def fill(self, rgb: NDArray[np.uint8], fit: Fit) -> NDArray[np.uint8]:
        """Cut out, resize and normalise an image.

        :param rgb: (H, W, 3) of the camera that was fitted, rectified.
        :param fit: its size is that of the buffer.
        :returns: (h, w, 3) the resized RGB.
        """
        small = resampled(rgb, fit)
        self.normalize(small)
        return small

    def normalize(self, small: NDArray[np.uint8]) -> None:
        """Normalise an image that has the size of the buffer already.

        :param small: (h, w, 3) RGB.
        """
        # twice as fast as reading every third byte while calculating
        cv2.split(small, self._channels)
        for channel, plane in enumerate(self.array[0]):
            np.copyto(plane, self._channels[channel])
            plane -= self._mean_255[channel]
            plane *= self._gain[channel]
