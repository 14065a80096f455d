"""The robot in its own image: pixels of which nothing is learned and by which nothing is judged.

What moves along with the camera, a bumper or an arm, looks infinitely far to a network that learns
from motion.  The mask joins what no pixel of the camera saw, and so reaches wherever that does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import CameraView
from depth_node.errors import DepthNodeError
from depth_node.errors import ImageRejected
from depth_node.errors import SettingsError
from depth_node.files import regular_file
from depth_node.frames import CompressedImage
from depth_node.image_codec import decode_compressed

OPTION = 'option --ego-mask'

_WHITE = 127
_LARGEST_BYTES = 64 << 20
_LARGEST_SHARE = 0.9
_DRAW = 'Draw a PNG of the size of the images, white where the robot itself is seen, else black.'


@dataclass(frozen=True, eq=False)
class EgoMask:
    """Where a camera sees its own robot."""

    robot: NDArray[np.bool_]
    """(H, W) True where it does, at the pixels of the raw images."""
    sha256: str
    """Of size and content, whatever the file is called."""

    @classmethod
    def read(cls, path: Path) -> EgoMask:
        """Read a PNG at the size of the images, white where the robot is.

        :raises SettingsError: for anything else, and for one that is white all over.
        :raises DepthNodeError: when the file cannot be read.
        """
        try:
            data = regular_file(path, OPTION, _LARGEST_BYTES).read_bytes()
        except OSError as error:
            said = f'{path} ({error.strerror})'
            raise DepthNodeError(OPTION, said, 'a readable file', 'Check the path.') from error
        try:
            rgb = decode_compressed(CompressedImage('png', data))
        except ImageRejected as error:
            raise SettingsError(OPTION, f'{path} ({error})', 'a PNG image', _DRAW) from error
        robot = rgb.min(axis=2) > _WHITE
        if robot.mean() > _LARGEST_SHARE:
            raise SettingsError(
                OPTION,
                f'{path}, {100 * robot.mean():.0f} % of which is white',
                f'at most {100 * _LARGEST_SHARE:.0f} %: white is the robot, not the view',
                _DRAW,
            )
        height, width = robot.shape
        packed = f'{width}x{height}'.encode() + np.packbits(robot).tobytes()
        return cls(robot, hashlib.sha256(packed).hexdigest())

    def kept(self, view: CameraView) -> NDArray[np.bool_]:
        """Return (H, W) True where a rectified image does not show the robot, nearest pixel.

        :param view: how an image of the camera is looked at.
        :raises SettingsError: when the images have another size than the mask.
        """
        height, width = self.robot.shape
        model = view.model
        if (width, height) != (model.width, model.height):
            raise SettingsError(
                OPTION,
                f'{width} x {height} pixels',
                f'the size of the images, {model.width} x {model.height}',
                _DRAW,
            )
        if view.rectifier is None:
            return ~self.robot
        return ~view.rectifier.apply_nearest(self.robot, np.bool_(False))
