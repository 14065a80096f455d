"""Plays a recording or a video as a live camera: ``python -m depth_node.ros.player RECORDING``.

A process of its own, as a camera driver is, so that what is measured at the other end includes
the way through DDS.  Pictures get the time of their publishing as stamp; a log in JSON lines says
which picture got which stamp.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import ExitStack
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import TextIO

import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage as CompressedImageMessage
from sensor_msgs.msg import Image

from depth_node.errors import DepthNodeError
from depth_node.errors import RecordingError
from depth_node.errors import SettingsError
from depth_node.recording import open_recording
from depth_node.ros import serialized
from depth_node.ros.camera_messages import camera_message
from depth_node.ros.camera_messages import picture_message
from depth_node.ros.camera_messages import time_message
from depth_node.ros.footage import Shot
from depth_node.ros.footage import as_raw
from depth_node.ros.footage import filmed_shots
from depth_node.ros.footage import recorded_shots
from depth_node.ros.memory import keep_large_buffers

_LOG = logging.getLogger(__name__)
_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
_MATCH_POLL_S = 0.02
_CAMERA_MATCH_S = 2.0
_ACKNOWLEDGE_S = 2.0


@dataclass(frozen=True)
class Playing:
    """How a recording is played."""

    image_topic: str
    """Raw pictures go here, compressed ones on ``image_topic + '/compressed'``."""
    camera_info_topic: str
    """Where the camera_info goes."""
    compressed: bool
    """Publish the compressed files as recorded instead of raw images."""
    rate: float
    """Speed: 1 is that of the recording, 2 is twice as fast."""
    recorded_stamps: bool
    """Keep the stamps of the recording instead of the time of publishing."""
    loop: bool
    """Begin again at the end."""
    seconds: float
    """Stop after this time of playing, seconds; infinity for the whole recording."""
    wait_s: float
    """How long to wait for somebody to subscribe to the pictures, seconds."""
    settle_s: float
    """Pause between the first subscription and the first picture, seconds."""


class Player:
    """Publishes shots at their times.

    :param node: made and destroyed by the caller; needs no spinning.
    :param log: gets one JSON line per published picture; None for no log.
    """

    def __init__(self, node: Node, playing: Playing, log: TextIO | None = None) -> None:
        self._playing = playing
        self._log = log
        self._began_ns: int | None = None
        self._camera_sent = False
        self._camera = node.create_publisher(CameraInfo, playing.camera_info_topic, _QOS)
        if playing.compressed:
            topic = f'{playing.image_topic}/compressed'
            self._image = node.create_publisher(CompressedImageMessage, topic, _QOS)
        else:
            self._image = node.create_publisher(Image, playing.image_topic, _QOS)

    def wait_for_listener(self) -> None:
        """Return when somebody has subscribed to the pictures.

        :raises SettingsError: when nobody has after ``wait_s``.
        """
        limit_s = time.monotonic() + self._playing.wait_s
        while not self._image.get_subscription_count():
            if time.monotonic() > limit_s:
                raise SettingsError(
                    f'topic {self._image.topic_name}',
                    f'no subscription within {self._playing.wait_s:g} s',
                    'a node that listens',
                    'Check topic names, ROS_DOMAIN_ID and, for compressed pictures, transports.',
                )
            time.sleep(_MATCH_POLL_S)
        # The camera_info is matched on its own; a listener without need of it must not block us.
        limit_s = time.monotonic() + _CAMERA_MATCH_S
        while not self._camera.get_subscription_count() and time.monotonic() < limit_s:
            time.sleep(_MATCH_POLL_S)
        time.sleep(self._playing.settle_s)

    def play(self, shots: Callable[[], Iterator[Shot]]) -> int:
        """Publish each picture when it is due.

        :param shots: makes the pictures, once per round.
        :returns: number of pictures published.
        :raises DepthNodeError: when the pictures cannot be read or decoded.
        """
        count, offset_s = 0, 0.0
        for played in itertools.count():
            before_s, due_s = 0.0, 0.0
            for shot in shots():
                before_s, due_s = due_s, shot.due_s
                after_s = (offset_s + due_s) / self._playing.rate
                if after_s >= self._playing.seconds:
                    return count
                self._publish(shot, round(after_s * 1e9))
                count += 1
            if not count:
                raise RecordingError('player', 'no pictures', 'at least one')
            if not self._playing.loop:
                return count
            # The step from the last picture to the first is as long as the one before it.
            offset_s += due_s + max(due_s - before_s, 0.01)
            _LOG.debug('round %d ended', played)
        return count

    def drain(self) -> None:
        """Wait until the last picture has been taken by those who listen."""
        self._image.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGE_S))

    def _publish(self, shot: Shot, after_ns: int) -> None:
        """Prepare both messages, wait until they are due, stamp and send them."""
        picture = shot.picture if self._playing.compressed else as_raw(shot.picture)
        # What takes longest is done before the picture is due, as a driver of a camera would.
        message = serialize_message(picture_message(picture))
        camera = None if shot.camera is None else camera_message(shot.camera)
        # The clock starts when the first picture is ready, so that decoding it delays nothing.
        if self._began_ns is None:
            self._began_ns = time.monotonic_ns()
        late_ns = _sleep_until(self._began_ns + after_ns)
        stamp_ns = picture.stamp_ns if self._playing.recorded_stamps else time.time_ns()
        ready: list[tuple[Any, Any]] = [(self._image, serialized.with_stamp(message, stamp_ns))]
        if camera is not None:
            camera.header.stamp = time_message(stamp_ns)
            # As drivers do, but the first image is of use only to those who know the camera.
            ready.insert(1 if self._camera_sent else 0, (self._camera, camera))
            self._camera_sent = True
        for publisher, item in ready:
            publisher.publish(item)
        if self._log is not None:
            entry = {
                'index': shot.index,
                'stamp_ns': stamp_ns,
                'recorded_stamp_ns': picture.stamp_ns,
                'late_ms': round(late_ns / 1e6, 3),
            }
            self._log.write(json.dumps(entry) + '\n')


def main(arguments: Sequence[str] | None = None) -> int:
    """Play until the end or a signal.

    :returns: exit status: 0 at the end and on SIGINT or SIGTERM, 1 for what cannot be played.
    """
    logging.basicConfig(level=logging.INFO, format='[player] %(levelname)s %(message)s')
    words = list(sys.argv if arguments is None else ['player', *arguments])
    options = _parser().parse_args(remove_ros_args(words)[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    keep_large_buffers(os.environ)
    rclpy.init(args=words, signal_handler_options=SignalHandlerOptions.NO)
    try:
        _run(options)
    except KeyboardInterrupt:
        _LOG.info('stopped by a signal')
    except (DepthNodeError, NameValidationException, OSError) as error:
        _LOG.error('%s', error)
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        rclpy.try_shutdown()
    return 0


def _run(options: argparse.Namespace) -> None:
    """Open the footage and play it."""
    if not (math.isfinite(options.rate) and options.rate > 0.0):
        raise SettingsError('option --rate', f'{options.rate}', 'a number above 0')
    with ExitStack() as stack:
        shots, compressed = stack.enter_context(_footage(options))
        log = stack.enter_context(options.log.open('w', buffering=1)) if options.log else None
        playing = Playing(
            image_topic=options.image_topic,
            camera_info_topic=options.camera_info_topic,
            compressed=compressed,
            rate=options.rate,
            recorded_stamps=options.stamps == 'recorded',
            loop=options.loop,
            seconds=options.seconds,
            wait_s=options.wait_s,
            settle_s=options.settle_s,
        )
        player = Player(Node('player'), playing, log)
        player.wait_for_listener()
        began_s = time.monotonic()
        count = player.play(shots)
        _LOG.info('published %d pictures in %.2f s', count, time.monotonic() - began_s)
        player.drain()


@contextmanager
def _footage(options: argparse.Namespace) -> Iterator[tuple[Callable[[], Iterator[Shot]], bool]]:
    """Yield what makes the shots, and whether they are to be sent compressed."""
    if options.video:
        if options.transport == 'compressed':
            raise SettingsError('option --transport', "'compressed'", "'raw' for a video")
        yield lambda: filmed_shots(options.source, math.radians(options.hfov_deg)), False
        return
    with open_recording(options.source) as recording:
        topics = recording.camera_topics(
            options.recorded_image, options.recorded_camera_info, depth=''
        )
        is_compressed = topics.image.kind.endswith('CompressedImage')
        if options.transport == 'compressed' and not is_compressed:
            raise SettingsError(
                'option --transport', "'compressed'", "'raw', as the recording holds raw images"
            )
        compressed = is_compressed and options.transport != 'raw'
        yield lambda: recorded_shots(recording, topics), compressed


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m depth_node.ros.player', description='Play a recording as a live camera.'
    )
    add = parser.add_argument
    add('source', type=Path, help='rosbag2 folder, .mcap, .db3, ROS 1 .bag, or a video file')
    add('--video', action='store_true', help='the source is a video file')
    add('--hfov-deg', type=float, default=65.0, help='horizontal field of view of a video')
    add('--image-topic', default='image', help='topic to publish on')
    add('--camera-info-topic', default='camera_info', help='topic to publish on')
    add('--transport', choices=('raw', 'compressed', 'recorded'), default='raw')
    add('--rate', type=float, default=1.0, help='speed; 1 is that of the recording')
    add('--stamps', choices=('now', 'recorded'), default='now')
    add('--loop', action='store_true', help='begin again at the end')
    add('--seconds', type=float, default=math.inf, help='stop after this time of playing')
    add('--wait-s', type=float, default=30.0, help='how long to wait for a subscription')
    add('--settle-s', type=float, default=0.0, help='pause after the subscription')
    add('--log', type=Path, help='file for one JSON line per picture')
    add('--recorded-image', help='image topic of the recording, where it has several')
    add('--recorded-camera-info', help='camera_info topic of the recording')
    return parser


def _sleep_until(due_ns: int) -> int:
    """Sleep until a time of the monotonic clock; return by how much it is over, nanoseconds."""
    while (left_ns := due_ns - time.monotonic_ns()) > 0:
        time.sleep(left_ns / 1e9)
    return -left_ns


if __name__ == '__main__':
    sys.exit(main())
