"""Messages that a camera may send, good and bad, made once and stamped when they are sent."""

from __future__ import annotations

import random
from array import array
from functools import cache

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from node_rig import camera_message
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

SIZES = ((64, 48), (96, 48), (80, 60))
BYTES = {'rgb8': 3, 'bgr8': 3, 'mono8': 1, 'rgba8': 4, 'mono16': 2, 'bayer_rggb8': 1, 'yuv422': 2}
FORMATS = ('jpeg', 'png')
BAD_RAW = {
    'step': {'step': 1},
    'length': {'data': array('B', b'too short')},
    'encoding': {'encoding': '8UC7'},
    'size': {'width': 0},
    'endianness': {'is_bigendian': 7},
    'pixels': {'width': 2**31, 'height': 2**31},
}
BAD_COMPRESSED = (
    b'',
    b'no image',
    b'\xff\xd8\xff\xe0 a JPEG that ends here',
    b'\x89PNG\r\n\x1a\n',
)


def _pixels(count: int) -> bytes:
    return np.random.default_rng(3).integers(0, 256, count, np.uint8).tobytes()


@cache
def raw(size: tuple[int, int], encoding: str) -> Image:
    width, height = size
    step = width * BYTES[encoding]
    message = Image(width=width, height=height, encoding=encoding, step=step)
    message.data = array('B', _pixels(step * height))
    return message


@cache
def compressed(size: tuple[int, int], file_format: str) -> CompressedImage:
    width, height = size
    pixels = np.frombuffer(_pixels(width * height * 3), np.uint8).reshape(height, width, 3)
    done, data = cv2.imencode(f'.{file_format}', pixels)
    assert done
    return CompressedImage(format=f'rgb8; {file_format} compressed bgr8', data=array('B', data))


@cache
def bad_raw(name: str) -> Image:
    message = raw.__wrapped__(SIZES[0], 'rgb8')
    for field, value in BAD_RAW[name].items():
        setattr(message, field, value)
    return message


@cache
def bad_compressed(number: int) -> CompressedImage:
    data = array('B', BAD_COMPRESSED[number])
    return CompressedImage(format='rgb8; jpeg compressed bgr8', data=data)


def bad(draw: random.Random, is_compressed: bool) -> Image | CompressedImage:
    if is_compressed:
        return bad_compressed(draw.randrange(len(BAD_COMPRESSED)))
    return bad_raw(draw.choice(list(BAD_RAW)))


@cache
def camera(size: tuple[int, int]) -> CameraInfo:
    return camera_message(width=size[0], height=size[1])


@cache
def bad_camera() -> CameraInfo:
    return camera_message(k=[0.0] * 9, p=[0.0] * 12)


def stamped(message: Image | CompressedImage, stamp_ns: int, frame_id: str) -> None:
    """Stamp a message that the node has not kept: it copies stamp and frame_id at once."""
    message.header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    message.header.frame_id = frame_id
