"""A recording of a procedural scene: frames, exact depth, poses, and a laser scan.

Frames: ``odom`` -> ``base_link`` on /odom, ``base_link`` -> ``camera_optical_frame`` and, on a
robot, ``base_link`` -> ``laser`` on /tf_static, with an IMU also ``imu_link``.  Depth belongs to
the pixels of the image, through the same lens.  Further cameras (``rig.py``) take their images at
the same moments.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from depth_node.camera import undistorted_slopes
from depth_node.errors import RecordingError
from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.frames import CameraFields
from depth_node.recording.messages import ImuFields
from depth_node.recording.writer import RecordingWriter
from depth_node.world import inertial
from depth_node.world import laser
from depth_node.world import paths
from depth_node.world import scenes
from depth_node.world.render import Rendered
from depth_node.world.render import render
from depth_node.world.rig import FIRST_NAME
from depth_node.world.rig import LENSES
from depth_node.world.rig import CameraMount
from depth_node.world.rig import check_mounts
from depth_node.world.rig import fields_of
from depth_node.world.rig import rig_fields
from depth_node.world.scene import Scene
from depth_node.world.scene import sharpened
from depth_node.world.sensor import Sensor
from depth_node.world.solids import Floats

VERSION = 2
"""Of what :func:`write` renders by default; rises when the same settings give other pictures."""

IMAGE_TOPIC = '/camera/image_raw'
DEPTH_TOPIC = '/camera/depth/image_rect'
BENT_DEPTH_TOPIC = '/camera/depth/image_raw'
"""Of depth that is seen through a lens with distortion."""
ODOMETRY_TOPIC = '/odom'
SCAN_TOPIC = '/scan'
IMU_TOPIC = '/imu'
CAMERA_FRAME = 'camera_optical_frame'
BASE_FRAME = 'base_link'
ODOMETRY_FRAME = 'odom'
LASER_FRAME = 'laser'

_START_NS = 1_700_000_000_000_000_000
_LASER_HEIGHT_M = 0.22
_QUEUED_PER_WORKER = 4
_MID_GREY = 0.25
_SHADOW_PX = 1200


@dataclass(frozen=True)
class RecordingSettings:
    """What is recorded."""

    kind: str = 'room'
    """Kind of the scene."""
    seed: int = 13
    """Of scene, path and noise; 0 to 2**32 - 1."""
    carrier: str = paths.ROBOT
    """'robot' or 'handheld'."""
    seconds: float = 10.0
    """Duration."""
    rate_hz: float = 15.0
    """Frames per second."""
    width: int = 640
    """Columns, 16 to 4096."""
    height: int = 480
    """Rows, 16 to 4096."""
    hfov_rad: float = math.radians(72.0)
    """Horizontal field of view before distortion (20 to 150 degrees)."""
    lens: str = 'none'
    """'none', 'plumb_bob', 'rational_polynomial' or 'equidistant'."""
    storage: Literal['mcap', 'sqlite3'] = 'mcap'
    """File format of the recording."""
    jpeg_quality: int | None = 90
    """1 to 100; raw rgb8 images where None."""
    raw_depth: bool = False
    """32FC1 depth instead of compressed 16UC1 millimetres, which end at 65.535 m."""
    stand_still: bool = False
    """Begin with a fifth of the time without motion."""
    turn: bool = False
    """End with 30 % of the time turning on the spot."""
    exposure_drift: bool = False
    """The exposure wanders by a factor of up to 1.6."""
    noise: float = 1.0
    """Standard deviation of the noise, of 255."""
    extra_cameras: tuple[CameraMount, ...] = ()
    """Further cameras, like the first one but for where they are."""
    imu_hz: float = 0.0
    """Measurements of an IMU per second, 0 for none; 20 to 1000."""


def write(
    path: Path,
    settings: RecordingSettings | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Render a recording; the result does not depend on the number of workers.

    :param path: rosbag2 folder to make.
    :param settings: what is recorded; a room seen from a robot by default.
    :param workers: processes that render; as many as there are processors by default, 1 renders
        in this process.
    :param progress: called with frames done and all frames after each frame.
    :raises SettingsError: for settings out of range.
    :raises RecordingError: when ``path`` exists or cannot be written.
    """
    settings = settings or RecordingSettings()
    _check(settings)
    stage = _Stage(settings)
    workers = _processors() if workers is None else workers
    total = len(stage.path.stamps_s)
    with RecordingWriter(path, settings.storage) as writer:
        writer.static_transform(_mounts(stage, settings), _START_NS)
        for measurement in _inertial(stage, settings):
            writer.imu(IMU_TOPIC, measurement)
        for index, frames in enumerate(_frames(stage, settings, min(workers, total))):
            _write_moment(writer, stage, settings, index, frames)
            if progress is not None:
                progress(index + 1, total)


class _Stage:
    """Everything that is the same for all frames; equal settings give equal stages."""

    def __init__(self, settings: RecordingSettings) -> None:
        scene = scenes.make(settings.kind, np.random.default_rng(settings.seed))
        self.scene: Scene = sharpened(scene, _SHADOW_PX)
        self.path = paths.make(
            self.scene,
            np.random.default_rng((settings.seed, 1)),
            paths.PathSettings(
                settings.carrier,
                settings.seconds,
                settings.rate_hz,
                settings.stand_still,
                settings.turn,
            ),
        )
        self.fields = rig_fields(camera_fields(settings), settings.extra_cameras, settings.lens)
        self.slopes: Floats = undistorted_slopes(self.fields[0])
        if not np.isfinite(self.slopes).all():
            raise SettingsError(
                'hfov',
                f'{math.degrees(settings.hfov_rad):.0f} degrees with lens {settings.lens}',
                'pixels that all have a ray',
                'Choose a narrower field of view.',
            )
        self._exposure = self._metered()
        self._settings = settings

    def _metered(self) -> float:
        """Return the exposure that suits the middle of the recording."""
        thin = self.slopes[::8, ::8]
        pose = self.path.T_world_camera(len(self.path.stamps_s) // 2)
        linear = Sensor(metering=0.0, gamma=1.0, shoulder=0.0)
        mean = float(render(self.scene, pose, thin, sensor=linear).rgb.mean()) / 255.0
        return _MID_GREY / max(mean, 0.01)

    def frames(self, index: int) -> tuple[Rendered, ...]:
        """Render what all cameras see at one moment, the first camera's frame first."""
        settings = self._settings
        share = index / len(self.path.stamps_s)
        drift = 1.6 ** math.sin(2 * math.pi * share) if settings.exposure_drift else 1.0
        sensor = Sensor(
            exposure=self._exposure * drift, metering=0.0, noise=settings.noise, blur_px=0.45
        )
        pose = self.path.T_world_camera(index)
        poses = [pose, *(pose @ mount.T_first_camera for mount in settings.extra_cameras)]
        return tuple(
            render(
                self.scene,
                pose,
                self.slopes,
                sensor=sensor,
                # 1 is the path's
                rng=np.random.default_rng((settings.seed, 2 + k, index)),
            )
            for k, pose in enumerate(poses)
        )


def camera_fields(settings: RecordingSettings) -> CameraFields:
    """Return the camera_info of the first camera, were it alone."""
    return fields_of(
        settings.width, settings.height, settings.hfov_rad, settings.lens, CAMERA_FRAME
    )


def _check(settings: RecordingSettings) -> None:
    who = 'world recording'
    if not (16 <= settings.width <= 4096 and 16 <= settings.height <= 4096):
        size = f'{settings.width} x {settings.height} pixels'
        raise SettingsError(who, size, '16 to 4096 pixels each way')
    if settings.lens not in LENSES:
        raise SettingsError(who, f'lens {quoted(settings.lens)}', f'one of {", ".join(LENSES)}')
    if not math.radians(20) <= settings.hfov_rad <= math.radians(150):
        degrees = math.degrees(settings.hfov_rad)
        raise SettingsError(who, f'a field of view of {degrees:g} degrees', '20 to 150 degrees')
    if not 0 <= settings.seed < 2**32:
        raise SettingsError(who, f'seed {settings.seed}', '0 to 2**32 - 1')
    if settings.jpeg_quality is not None and not 1 <= settings.jpeg_quality <= 100:
        raise SettingsError(who, f'JPEG quality {settings.jpeg_quality}', '1 to 100')
    if settings.imu_hz and not 20.0 <= settings.imu_hz <= 1000.0:
        raise SettingsError(who, f'an IMU at {settings.imu_hz:g} Hz', '0, or 20 to 1000 Hz')
    if not 0.0 <= settings.noise <= 50.0:
        raise SettingsError(who, f'noise of {settings.noise}', '0 to 50 grey values')
    check_mounts(settings.extra_cameras)


def _mounts(stage: _Stage, settings: RecordingSettings) -> list[tuple[str, str, Floats]]:
    mounts = [(BASE_FRAME, CAMERA_FRAME, stage.path.T_base_camera)]
    for mount in settings.extra_cameras:
        pose = stage.path.T_base_camera @ mount.T_first_camera
        mounts.append((BASE_FRAME, mount.frame_id, pose))
    if settings.carrier == paths.ROBOT:
        mounts.append((BASE_FRAME, LASER_FRAME, _laser_mount()))
    if settings.imu_hz:
        mounts.append((BASE_FRAME, inertial.FRAME, inertial.mounted().T_base_imu))
    return mounts


def _inertial(stage: _Stage, settings: RecordingSettings) -> list[ImuFields]:
    """Return all that the IMU measures; nothing where there is none."""
    if not settings.imu_hz:
        return []
    rng = np.random.default_rng((settings.seed, 3))
    return inertial.measured(
        stage.path, inertial.mounted(), settings.imu_hz, rng, _START_NS, inertial.FRAME
    )


def _laser_mount() -> Floats:
    pose = np.eye(4)
    pose[2, 3] = _LASER_HEIGHT_M
    return pose


def _write_moment(
    writer: RecordingWriter,
    stage: _Stage,
    settings: RecordingSettings,
    index: int,
    frames: tuple[Rendered, ...],
) -> None:
    stamp_ns = _START_NS + round(float(stage.path.stamps_s[index]) * 1e9)
    start, base = stage.path.T_world_base[0], stage.path.T_world_base[index]
    in_odom = np.linalg.inv(start) @ base
    writer.odometry(ODOMETRY_TOPIC, stamp_ns, ODOMETRY_FRAME, BASE_FRAME, in_odom)
    if settings.carrier == paths.ROBOT:
        scan = laser.scan(stage.scene, base @ _laser_mount(), stamp_ns, LASER_FRAME)
        writer.scan(SCAN_TOPIC, scan)
    first = CameraMount(FIRST_NAME, depth=True)
    mounts = (first, *settings.extra_cameras)
    for mount, fields, frame in zip(mounts, stage.fields, frames, strict=True):
        writer.camera_info(mount.camera_info_topic, replace(fields, stamp_ns=stamp_ns))
        writer.image(mount.image_topic, frame.rgb, stamp_ns, mount.frame_id, settings.jpeg_quality)
        if mount.depth:
            topic = DEPTH_TOPIC if settings.lens == 'none' else BENT_DEPTH_TOPIC
            topic = topic.replace(f'/{FIRST_NAME}/', f'/{mount.name}/', 1)
            compressed = not settings.raw_depth
            writer.depth(topic, frame.depth_m, stamp_ns, mount.frame_id, compressed)


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _frames(
    stage: _Stage, settings: RecordingSettings, workers: int
) -> Iterator[tuple[Rendered, ...]]:
    """Yield the frames in order; at most a few per worker wait in memory."""
    count = len(stage.path.stamps_s)
    if workers <= 1:
        for index in range(count):
            yield stage.frames(index)
        return
    context = multiprocessing.get_context('spawn')
    try:
        with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
            waiting: deque[Future[tuple[Rendered, ...]]] = deque()
            for index in range(count):
                waiting.append(pool.submit(_frames_in_worker, settings, index))
                if len(waiting) >= workers * _QUEUED_PER_WORKER:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RecordingError(
            'world recording',
            'a worker process that ended early',
            'memory for every worker',
            'Try fewer workers or a smaller picture.',
        ) from error


@lru_cache(maxsize=1)
def _stage_of(settings: RecordingSettings) -> _Stage:
    return _Stage(settings)


def _frames_in_worker(settings: RecordingSettings, index: int) -> tuple[Rendered, ...]:
    return _stage_of(settings).frames(index)
