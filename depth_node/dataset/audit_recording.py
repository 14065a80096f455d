"""Makes the audit of a recording: reads it once, measures, and judges in plain words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depth_node.camera import CameraView
from depth_node.camera import check_fields
from depth_node.camera import chosen_view
from depth_node.camera import is_named_rectified
from depth_node.camera import view_of
from depth_node.camera.assumed import AssumedCamera
from depth_node.camera.assumed import source_of
from depth_node.camera.lens import lens_of
from depth_node.dataset.audit import Audit
from depth_node.dataset.audit import CameraAudit
from depth_node.dataset.audit import ScaleSource
from depth_node.dataset.clock_offset import ClockOffset
from depth_node.dataset.clock_offset import clock_offset
from depth_node.dataset.gyro_audit import Compared
from depth_node.dataset.gyro_audit import compare
from depth_node.dataset.gyroscope import Gyroscope
from depth_node.dataset.gyroscope import read_gyroscope
from depth_node.dataset.image_sample import ImageSample
from depth_node.dataset.image_sample import chosen_times
from depth_node.dataset.pose_source import TransformTree
from depth_node.dataset.pose_source import camera_poses
from depth_node.dataset.pose_source import read_transforms
from depth_node.dataset.sensors import mount_beside
from depth_node.dataset.sensors import trouble_with_times
from depth_node.dataset.stereo_partner import StereoSearch
from depth_node.dataset.stereo_partner import stereo_of
from depth_node.dataset.topics import TF_PREFIX
from depth_node.dataset.topics import RecordingTopics
from depth_node.dataset.topics import TopicChoice
from depth_node.dataset.topics import camera_frame_of
from depth_node.dataset.topics import frame_of
from depth_node.dataset.topics import topics_of
from depth_node.dataset.trajectory import Trajectory
from depth_node.dataset.verdict import Findings
from depth_node.dataset.verdict import motion_of
from depth_node.dataset.verdict import reasons_of
from depth_node.dataset.verdict import stamps_of
from depth_node.dataset.verdict import warnings_of
from depth_node.errors import CameraRejected
from depth_node.errors import ImageRejected
from depth_node.errors import RecordingError
from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.image_codec import decode_image
from depth_node.recording import Recording
from depth_node.recording import Topic
from depth_node.recording import open_recording
from depth_node.settings import CameraSettings

_SAME_K = 1e-6


def audit_recording(
    path: Path | str,
    choice: TopicChoice | None = None,
    assumed: CameraSettings | None = None,
    rectify: str = 'auto',
) -> Audit:
    """Say what one camera of a recording is good for.

    :param choice: topics that the user names.
    :param assumed: the camera, for recordings without a usable camera_info.
    :param rectify: as the setting input.rectify.
    :raises RecordingError: when nothing can be read, when topics are missing or ambiguous.
    """
    with open_recording(path, salvage=True) as recording:
        topics = topics_of(recording, choice)
        first = recording.first(topics.image)
        if not isinstance(first, RawImage | CompressedImage):
            raise RecordingError(f'recording {path}', 'no readable image', 'images')
        tree = read_transforms(recording, topics)
        frame = camera_frame_of(recording, first, topics.camera_info)
        found = Findings(unclear=topics.unclear)
        trajectory = _poses(recording, topics, frame, found)
        gyroscope = None
        if topics.imu is not None:
            gyroscope, said = read_gyroscope(recording, topics.imu)
            found.warnings += said
        turning = None if gyroscope is None else gyroscope.rates_in(np.eye(3))
        wanted = chosen_times(trajectory, topics.image.count, turning)
        assumed = assumed or CameraSettings()
        sample = _read(recording, topics, wanted, assumed, rectify, found)
        if sample is None and not found.undecodable:
            # no image is of the time of poses or gyroscope: another clock
            wanted = chosen_times(None, topics.image.count)
            sample = _read(recording, topics, wanted, assumed, rectify, found)
        found.motion = None if trajectory is None else motion_of(trajectory, found.stamps_ns)
        direct = offset = None
        if sample is not None:
            direct = offset = _direct_delay(sample, trajectory)
            if gyroscope is not None:
                mount = mount_beside(tree, frame.lstrip('/'), gyroscope.frame)
                offset = _delay_with(gyroscope, mount, sample, trajectory, direct, found)
        found.pictures = None if sample is None else sample.pictures()
        stereo = stereo_of(recording, topics, tree, frame, found.fields)
        found.unclear += tuple(filter(None, [stereo.unclear]))
        found.reasons = list(reasons_of(found, direct))
        return _audit(recording, topics, frame, found, offset, tree, stereo)


def _direct_delay(sample: ImageSample, trajectory: Trajectory | None) -> ClockOffset | None:
    if trajectory is None:
        return None
    return clock_offset(sample.pairs, trajectory, trajectory.source)


def _delay_with(
    gyroscope: Gyroscope,
    mount: NDArray[np.float64] | None,
    sample: ImageSample,
    trajectory: Trajectory | None,
    direct: ClockOffset | None,
    found: Findings,
) -> ClockOffset | None:
    """Return the delay of the images against the poses, by way of a gyroscope if that is sharper.

    :param mount: (4, 4) gyroscope in the frame of the camera; None where no transform tells.
    """
    rotation = None if mount is None else mount[:3, :3]
    found.gyro, offset, said = compare(
        gyroscope, Compared(sample.pairs, trajectory, direct, rotation)
    )
    found.warnings += said
    return offset


def _audit(
    recording: Recording,
    topics: RecordingTopics,
    frame: str,
    found: Findings,
    offset: ClockOffset | None,
    tree: TransformTree,
    stereo: StereoSearch,
) -> Audit:
    return Audit(
        recording=str(recording.path),
        choice=_choice(topics, found, stereo),
        camera_frame=frame,
        frames=len(found.stamps_ns),
        stamps=stamps_of(found),
        camera=found.camera,
        motion=found.motion,
        clock_offset=offset,
        pictures=found.pictures,
        scale_sources=(
            *_scale_sources(recording, topics, tree, frame, found),
            *_stereo_sources(stereo),
        ),
        damage=recording.damage,
        reasons=tuple(found.reasons),
        warnings=warnings_of(found, offset, recording.damage),
        gyro=found.gyro,
    )


def _poses(
    recording: Recording, topics: RecordingTopics, frame: str, found: Findings
) -> Trajectory | None:
    """Return the poses; why there are none becomes a warning."""
    try:
        trajectory = camera_poses(recording, topics, frame)
    except RecordingError as error:
        found.warnings.append(f'The recorded poses cannot be used: {error}')
        return None
    if trajectory is not None:
        found.warnings += trajectory.remarks
    return trajectory


def _read(
    recording: Recording,
    topics: RecordingTopics,
    wanted: Callable[[int, int], bool],
    assumed: CameraSettings,
    rectify: str,
    found: Findings,
) -> ImageSample | None:
    """Read images and camera_info once; decode the images that are looked at."""
    camera = None if topics.camera_info is None else recording.first(topics.camera_info)
    sample: ImageSample | None = None
    stamps: list[int] = []
    latencies: list[int] = []
    # Damage must not end the audit: what comes before it counts.
    for record in recording.records(_present(topics.image, topics.camera_info)):
        content = record.content
        if isinstance(content, CameraFields):
            _compare(content, camera, found)
        if not isinstance(content, RawImage | CompressedImage):
            continue
        index = len(stamps)
        stamps.append(content.stamp_ns)
        latencies.append(record.time_ns - content.stamp_ns)
        if not wanted(index, content.stamp_ns):
            continue
        try:
            rgb = decode_image(content)
        except ImageRejected as error:
            found.undecodable.append(str(error))
            continue
        if sample is None:
            fields = camera if isinstance(camera, CameraFields) else None
            sample = _sample(topics.image, fields, assumed, rectify, rgb, found)
        sample.add(index, content.stamp_ns, rgb)
    found.stamps_ns = np.array(stamps, dtype=np.int64)
    found.latencies_ns = np.array(latencies, dtype=np.int64)
    return sample


def _sample(
    topic: Topic,
    fields: CameraFields | None,
    assumed: CameraSettings,
    rectify: str,
    rgb: NDArray[np.uint8],
    found: Findings,
) -> ImageSample:
    """Make the sample for a camera; one that cannot be used becomes a reason."""
    height, width = rgb.shape[:2]
    source = 'camera_info'
    fields = _usable(fields, assumed, found)
    try:
        if fields is None:
            fields, source = AssumedCamera().fields(assumed, width, height, ''), source_of(assumed)
        if fields is None:
            found.reasons.append(
                'There is no camera_info: give camera.intrinsics (fx fy cx cy in pixels) or '
                'camera.horizontal_fov_deg.'
            )
            return ImageSample(None, None)
        is_rectified = is_named_rectified(topic.name)
        view = chosen_view(fields, width, height, rectify, is_rectified)
        raw = view_of(fields, width, height, rectify=False, rectified_input=is_rectified)
    except CameraRejected as error:
        found.reasons.append(str(error))
        return ImageSample(None, None)
    found.camera = _camera(width, height, fields, view, source, is_rectified)
    found.fields = replace(fields, stamp_ns=0)
    return ImageSample(raw.model, None if is_rectified else lens_of(fields))


def _usable(
    fields: CameraFields | None, assumed: CameraSettings, found: Findings
) -> CameraFields | None:
    """Return the camera_info; None where it is of no use and there is another description."""
    if fields is None or not source_of(assumed):
        return fields
    try:
        check_fields(fields)
    except CameraRejected as error:
        found.warnings.append(f'The camera_info is not used: {error}')
        return None
    return fields


def _camera(
    width: int,
    height: int,
    fields: CameraFields,
    view: CameraView,
    source: str,
    is_rectified: bool,
) -> CameraAudit:
    bent = not is_rectified and lens_of(fields) is not None
    model = view.model
    return CameraAudit(
        width=width,
        height=height,
        lens=fields.distortion_model if bent else 'none',
        sent=fields if source == 'camera_info' else None,
        used_k=(model.fx, model.fy, model.cx, model.cy),
        rectified=view.rectifier is not None,
        source=source,
    )


def _compare(fields: CameraFields, first: object, found: Findings) -> None:
    """Note the first camera_info that describes another camera than the one before."""
    if found.changed_camera or not isinstance(first, CameraFields):
        return
    same = (
        (fields.width, fields.height) == (first.width, first.height)
        and len(fields.k) == len(first.k)
        and np.allclose(fields.k, first.k, rtol=_SAME_K, atol=_SAME_K)
        and len(fields.d) == len(first.d)
        and np.allclose(fields.d, first.d, rtol=_SAME_K, atol=_SAME_K)
    )
    if not same:
        found.changed_camera = (
            f'camera_info changes: K[0] = {first.k[0]:g} at {first.width} x {first.height} first, '
            f'{fields.k[0]:g} at {fields.width} x {fields.height} later.'
        )


def _scale_sources(
    recording: Recording,
    topics: RecordingTopics,
    tree: TransformTree,
    frame: str,
    found: Findings,
) -> tuple[ScaleSource, ...]:
    """List the sensors that know metres, and why some of them cannot be used."""
    sources = []
    if found.motion is not None:
        source = found.motion.source
        why_not = '' if found.moves else 'the camera hardly moves'
        sources.append(ScaleSource('odometry', source, found.motion.poses, why_not))
    sensors = (('scan', topics.scan), ('cloud', topics.cloud), ('depth', topics.depth))
    for kind, topic in sensors:
        if topic is None:
            continue
        own = frame_of(recording, topic)
        known = tree.static_pose(frame.lstrip('/'), own.lstrip('/')) is not None
        why_not = trouble_with_times(recording.first(topic))
        if not known:
            why_not = f'no static transform from its frame, {own!r}, to the camera'
        sources.append(ScaleSource(kind, topic.name, topic.count, why_not))
    return tuple(sources)


def _stereo_sources(stereo: StereoSearch) -> list[ScaleSource]:
    """List the other cameras, and why some of them are no stereo partner."""
    chosen = [] if stereo.sensor is None else [(stereo.sensor.partner, '')]
    return [
        ScaleSource('stereo', topic.name, topic.count, why_not)
        for topic, why_not in (*chosen, *stereo.refused)
    ]


def _choice(topics: RecordingTopics, found: Findings, stereo: StereoSearch) -> TopicChoice:
    """Name the topics that are used, so that a later stage uses the same.

    Poses that cannot be used are left out, or that stage would stumble over them again.
    """
    odometry = '' if topics.odometry is None else topics.odometry.name
    if found.motion is None:
        odometry = ''
    elif topics.odometry is None and topics.transforms:
        odometry = TF_PREFIX + topics.fixed_frame
    names = {
        role: '' if topic is None else topic.name
        for role, topic in (
            ('depth', topics.depth),
            ('imu', topics.imu),
            ('scan', topics.scan),
            ('cloud', topics.cloud),
        )
    }
    info = None if topics.camera_info is None else topics.camera_info.name
    names['stereo'] = '' if stereo.sensor is None else stereo.sensor.partner.name
    return TopicChoice(topics.image.name, info, odometry=odometry, **names)


def _present(*topics: Topic | None) -> list[Topic]:
    return [topic for topic in topics if topic is not None]
