"""What measured metres beside the camera, and what it measured around the time of an image."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from depth_node import camera
from depth_node import image_codec
from depth_node.dataset import sparse_depth
from depth_node.dataset.pose_source import TransformTree
from depth_node.dataset.pose_source import as_optical
from depth_node.dataset.projection import DepthRays
from depth_node.dataset.projection import ProjectionLimits
from depth_node.dataset.projection import Target
from depth_node.dataset.projection import depth_rays
from depth_node.dataset.projection import projected
from depth_node.dataset.projection import scan_points_and_times
from depth_node.dataset.sparse_depth import SparseDepth
from depth_node.dataset.sparse_depth import SparseSource
from depth_node.dataset.sweep import at_one_moment
from depth_node.dataset.topics import RecordingTopics
from depth_node.dataset.trajectory import Trajectory
from depth_node.errors import CameraRejected
from depth_node.errors import ImageRejected
from depth_node.errors import RecordingError
from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.recording import Recording
from depth_node.recording import Topic
from depth_node.recording.messages import Content
from depth_node.recording.messages import LaserScanFields
from depth_node.recording.messages import PointCloudFields
from depth_node.recording.points import points_and_times

Floats = NDArray[np.float64]
Measurement = RawImage | CompressedImage | LaserScanFields | PointCloudFields

_NEAR_NS = 100_000_000
_SAME_NS = 20_000_000
_KEPT, _MOST_KEPT = 16, 64
_KEPT_NS = 1_000_000_000


@dataclass(eq=False)
class Sensor:
    """One topic of metres, with its last few messages."""

    source: SparseSource
    """Its kind and topic."""
    mount: Floats
    """(4, 4) T_camera_sensor, metres."""
    fields: CameraFields | None = None
    """Of a depth image: its camera_info."""
    rectified: bool = False
    """Of a depth image: its pixels are without distortion."""
    delay_ns: int = 0
    """By which its stamps are late, nanoseconds."""
    unusable: int = 0
    """Messages that could not be read."""
    trouble: str = ''
    """What was wrong with the first of them."""
    _recent: deque[Measurement] = field(default_factory=lambda: deque(maxlen=_MOST_KEPT))
    _rays: DepthRays | None = None

    def hear(self, message: Content) -> None:
        """Keep a message for the images around it."""
        if isinstance(message, (RawImage, CompressedImage, LaserScanFields, PointCloudFields)):
            self._recent.append(message)
            # of a fast sensor more: images are asked about only when what follows has been read
            while (
                len(self._recent) > _KEPT
                and abs(message.stamp_ns - self._recent[0].stamp_ns) > _KEPT_NS
            ):
                self._recent.popleft()

    def told(self) -> str:
        """Say in a sentence how many messages could not be used; '' where all could."""
        if not self.unusable:
            return ''
        return f'{self.unusable} uses of {self.source.topic} failed, first: {self.trouble}'

    def depth_at(
        self,
        stamp_ns: int,
        target: Target,
        trajectory: Trajectory | None,
        limits: ProjectionLimits | None = None,
    ) -> SparseDepth | None:
        """Return what was measured nearest to a time, at pixels of the image of that time.

        Where a message says when each of its points was measured and poses are known, each is
        brought to the time of the image by itself.

        :param stamp_ns: of the image by the clock of the trajectory, nanoseconds.
        :returns: None where nothing was measured within a tenth of a second, or, where poses are
            not known, within 20 ms.
        """
        times = [message.stamp_ns - self.delay_ns for message in self._recent]
        if not times:
            return None
        at = min(range(len(times)), key=lambda k: abs(times[k] - stamp_ns))
        moved = _moved(trajectory, stamp_ns, times[at])
        if moved is None:
            return None
        try:
            points, times_s = self._points(self._recent[at])
        except (ImageRejected, CameraRejected, RecordingError) as error:
            self.unusable += 1
            self.trouble = self.trouble or str(error)
            return None
        if times_s is not None and trajectory is not None:
            points = at_one_moment(points, times_s, times[at], trajectory, self.mount)
        found = projected(points, moved @ self.mount, target, self.source, limits)
        return found if len(found) else None

    def _points(self, message: Measurement) -> tuple[Floats, Floats | None]:
        """Return the points of a message, (N, 3) in the sensor's frame, metres, and their times.

        Times are (N,) seconds after its stamp; None where all are of one moment.
        """
        if isinstance(message, LaserScanFields):
            return scan_points_and_times(message)
        if isinstance(message, PointCloudFields):
            points, times_s = points_and_times(message)
            return points.astype(np.float64), times_s
        depth_m = image_codec.decode_depth_image(message)
        height, width = depth_m.shape
        rays = self._rays
        if rays is None or (rays.height, rays.width) != (height, width):
            if self.fields is None:
                raise RecordingError(self.source.topic, 'no camera_info', 'one for its pixels')
            rays = self._rays = depth_rays(self.fields, height, width, self.rectified)
        return rays.points(depth_m), None


def sensors_of(
    recording: Recording,
    topics: RecordingTopics,
    tree: TransformTree,
    camera_frame: str,
    hidden: Collection[str] = (),
) -> tuple[list[Sensor], list[str]]:
    """Return the sensors of metres that can be placed beside a camera.

    :param tree: transforms of the recording.
    :param camera_frame: frame_id of the images.
    :param hidden: topics that are not to be used.
    :returns: the sensors, and a sentence for each that cannot be placed.
    """
    said: list[str] = []
    sensors: list[Sensor] = []
    kinds = (
        (topics.depth, sparse_depth.DEPTH_IMAGE),
        (topics.cloud, sparse_depth.LIDAR),
        (topics.scan, sparse_depth.SCAN),
    )
    bare = {name.lstrip('/') for name in hidden}
    for topic, kind in kinds:
        if topic is None or bare & {topic.name.lstrip('/'), topic.base}:
            continue
        frame = getattr(recording.first(topic), 'frame_id', '')
        mount = mount_beside(tree, camera_frame.lstrip('/'), frame.lstrip('/'))
        if mount is None:
            said.append(
                f'{topic.name} is not used: no static transforms lead from {camera_frame} to its '
                f'frame {frame}.'
            )
            continue
        sensor = Sensor(SparseSource(kind, topic.name), mount)
        if kind == sparse_depth.DEPTH_IMAGE:
            sensor.fields = _camera_info_of(recording, topics, topic)
            sensor.rectified = camera.is_named_rectified('/' + topic.base)
        sensors.append(sensor)
    return sensors, said


def trouble_with_times(message: Content | None) -> str:
    """Say what is wrong with the times of a scan's rays or a cloud's points; '' for nothing."""
    try:
        if isinstance(message, LaserScanFields):
            scan_points_and_times(message)
        elif isinstance(message, PointCloudFields):
            points_and_times(message)
    except RecordingError as error:
        return str(error)
    return ''


def _moved(trajectory: Trajectory | None, image_ns: int, sensor_ns: int) -> Floats | None:
    """Return T_camera(image)_camera(sensor), or None where it is not known well enough."""
    apart = abs(image_ns - sensor_ns)
    if apart > _NEAR_NS:
        return None
    if trajectory is None or not trajectory.connected(image_ns, sensor_ns):
        return np.eye(4) if apart <= _SAME_NS else None
    one, two = trajectory.at(image_ns), trajectory.at(sensor_ns)
    if one is None or two is None:
        return None
    return np.asarray(np.linalg.inv(one) @ two)


def mount_beside(tree: TransformTree, camera_frame: str, frame: str) -> Floats | None:
    """Return T_camera_sensor by static transforms; None where there are none.

    Also where images carry the frame of the camera's body.
    """
    pose = tree.static_pose(camera_frame, frame)
    if pose is None:
        return None
    base = camera_frame
    for hop in tree.up(camera_frame):
        if not hop.is_static:
            break
        base = hop.parent
    placed = tree.static_pose(base, camera_frame)
    if placed is None or frame == camera_frame:
        return pose
    optical, _ = as_optical(placed, camera_frame, tree.upward(camera_frame))
    return np.asarray(np.linalg.inv(optical) @ placed @ pose)


def _camera_info_of(
    recording: Recording, topics: RecordingTopics, depth: Topic
) -> CameraFields | None:
    """Return the camera_info beside a depth image, or that of the colour image."""
    infos = recording.of_type('sensor_msgs/msg/CameraInfo')
    near = [topic for topic in infos if topic.namespace == depth.namespace]
    chosen = near[0] if len(near) == 1 else topics.camera_info
    content = None if chosen is None else recording.first(chosen)
    return content if isinstance(content, CameraFields) else None
