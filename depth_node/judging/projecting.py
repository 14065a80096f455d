"""Scans and clouds as reference: projected to the image, without what the camera cannot see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import CameraView
from depth_node.dataset.pose_source import camera_poses
from depth_node.dataset.pose_source import read_transforms
from depth_node.dataset.projection import Target
from depth_node.dataset.sensors import Sensor
from depth_node.dataset.sensors import sensors_of
from depth_node.dataset.topics import RecordingTopics
from depth_node.dataset.topics import TopicChoice
from depth_node.dataset.topics import camera_frame_of
from depth_node.dataset.topics import topics_of
from depth_node.errors import RecordingError
from depth_node.judging.references import Measured
from depth_node.judging.references import Projector
from depth_node.recording import CameraTopics
from depth_node.recording import Recording
from depth_node.recording import Topic
from depth_node.recording.messages import LaserScanFields
from depth_node.recording.messages import PointCloudFields


def projecting(recording: Recording, topics: CameraTopics, topic: Topic) -> Projector:
    """Return what projects the messages of one topic of scans or clouds.

    Between the time of a measurement and that of the image the camera moves as odometry or TF
    says; without either only measurements of the same moment count.

    :raises RecordingError: when no static transforms lead from the camera to the sensor.
    """
    is_scan = topic.kind.endswith('LaserScan')
    info = topics.camera_info.name if topics.camera_info is not None else None
    chosen = topics_of(
        recording,
        TopicChoice(
            image=topics.image.name,
            camera_info=info,
            depth='',
            scan=topic.name if is_scan else '',
            cloud='' if is_scan else topic.name,
        ),
    )
    first = recording.first(topics.image)
    frame = camera_frame_of(recording, first, topics.camera_info)
    sensor = _sensor(recording, chosen, frame, topic)
    trajectory = camera_poses(recording, chosen, frame)

    def project(measured: Measured, view: CameraView, stamp_ns: int) -> NDArray[np.float32]:
        height, width = view.model.height, view.model.width
        truth = np.full((height, width), np.nan, np.float32)
        if isinstance(measured, (LaserScanFields, PointCloudFields)):
            seen = view.rectifier.valid if view.rectifier else np.ones((height, width), np.bool_)
            # a sensor of its own, so that this very message is taken
            alone = Sensor(sensor.source, sensor.mount)
            alone.hear(measured)
            found = alone.depth_at(stamp_ns, Target(view.model, seen), trajectory)
            if found is not None:
                rows, columns = np.rint(found.v).astype(np.intp), np.rint(found.u).astype(np.intp)
                truth[rows, columns] = found.depth_m
        return truth

    return project


def _sensor(recording: Recording, chosen: RecordingTopics, frame: str, topic: Topic) -> Sensor:
    """Return the sensor of a topic, placed beside the camera."""
    sensors, said = sensors_of(recording, chosen, read_transforms(recording, chosen), frame)
    for sensor in sensors:
        if sensor.source.topic == topic.name:
            return Sensor(sensor.source, sensor.mount)
    raise RecordingError(
        f'reference {topic.name}', 'no place beside the camera', 'one', ' '.join(said)
    )
