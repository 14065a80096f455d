"""Small recordings of procedural scenes, made once per test run, and what is true of them."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores
from rosbags.typesys import get_typestore

from depth_node import camera
from depth_node.dataset.caching import CacheSettings
from depth_node.dataset.caching import cache_recording
from depth_node.dataset.frame_cache import FrameCache
from depth_node.frames import CameraFields
from depth_node.image_codec import decode_depth_image
from depth_node.recording import open_recording
from depth_node.world.recording import RecordingSettings
from depth_node.world.recording import write

SIZE = (120, 160)
HIDDEN = ('/camera/depth/image_rect', '/camera/depth/image_raw', '/scan')
BENT = RecordingSettings(seconds=4.0, rate_hz=10.0, width=160, height=120, lens='plumb_bob')
IDLE = RecordingSettings(
    seconds=6.0, rate_hz=10.0, width=160, height=120, stand_still=True, turn=True
)

_FOLDER = tempfile.TemporaryDirectory(prefix='dataset_samples.')


@functools.cache
def recorded(settings: RecordingSettings) -> Path:
    """Render a recording, once; SQLite holds the messages of the MCAP."""
    path = Path(_FOLDER.name) / f'r{abs(hash(settings)):x}'
    if settings.storage == 'mcap':
        write(path, settings, workers=1)
        return path
    plugin = StoragePlugin.SQLITE3
    with (
        AnyReader([recorded(replace(settings, storage='mcap'))]) as reader,
        Writer(path, version=9, storage_plugin=plugin) as writer,
    ):
        store = get_typestore(Stores.ROS2_JAZZY)
        connections = {
            item.id: writer.add_connection(item.topic, item.msgtype, typestore=store)
            for item in reader.connections
        }
        for item, stamp_ns, data in reader.messages():
            writer.write(connections[item.id], stamp_ns, data)
    return path


@functools.cache
def cached(settings: RecordingSettings, hidden: tuple[str, ...] = ()) -> FrameCache:
    """Cache a rendered recording, once."""
    cache_settings = CacheSettings((SIZE,), hidden=hidden)
    return cache_recording(recorded(settings), cache_settings, Path(_FOLDER.name) / 'caches')


@functools.cache
def true_depth(settings: RecordingSettings) -> dict[int, np.ndarray]:
    """Return the depth of every frame by its stamp, (h, w) at network pixels, lens undone.

    The recorder renders depth through the lens of the image, whatever its topic is called.
    """
    made: dict[int, np.ndarray] = {}
    with open_recording(recorded(settings)) as recording:
        topics = recording.camera_topics()
        fields = recording.first(topics.camera_info)
        assert isinstance(fields, CameraFields)
        fields = replace(fields, stamp_ns=0)
        model = cached(settings, HIDDEN).camera
        slopes = np.stack(np.meshgrid(*camera.ray_slopes(model)), axis=2).astype(np.float64)
        u, v = np.moveaxis(camera.distort_slopes(slopes, fields), 2, 0).astype(np.float32)
        for record in recording.records([topics.depth]):
            depth = decode_depth_image(record.content)
            made[record.content.stamp_ns] = cv2.remap(
                depth, u, v, cv2.INTER_NEAREST, borderValue=float('nan')
            )
    return made


class TrueModel:
    """A network that knows the depth of a recording, but for a factor and some noise.

    :param settings: the recording.
    :param factor: of its depth to the true one.
    :param power: of its depth over the true one.
    """

    def __init__(
        self,
        settings: RecordingSettings,
        cache: FrameCache,
        factor: float = 1 / 3,
        power: float = 1.0,
    ) -> None:
        truth = true_depth(settings)
        self._truth = {
            cache.rgb(k).tobytes(): truth[cache.frames[k].stamp_ns] for k in range(len(cache))
        }
        self._factor, self._power = factor, power
        self._rng = np.random.default_rng(1)

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        depth = self._truth[rgb.tobytes()]
        noise = np.exp(self._rng.normal(0.0, 0.08, depth.shape))
        return (self._factor * depth**self._power * noise).astype(np.float32)
