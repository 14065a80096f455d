"""What a recording is good for: the delay of its images, and verdicts in plain words."""

from __future__ import annotations

import re
from dataclasses import replace

import altered_recordings as spoilt
import numpy as np
import pytest

from depth_node.dataset.audit import audit_from_json
from depth_node.dataset.audit import describe
from depth_node.dataset.audit_recording import audit_recording
from depth_node.dataset.clock_offset import ImageTurns
from depth_node.dataset.clock_offset import TurnRates
from depth_node.dataset.clock_offset import offset_of_turns
from depth_node.dataset.image_rotation import rotation_between
from depth_node.dataset.topics import TopicChoice
from depth_node.errors import RecordingError
from depth_node.frames import CameraFields
from depth_node.recording import open_recording
from depth_node.recording.messages import OdometryFields
from depth_node.recording.messages import TransformsFields
from depth_node.recording.writer import RecordingWriter
from depth_node.settings import CameraSettings
from depth_node.world.recording import RecordingSettings
from depth_node.world.recording import write

pytest.importorskip('rosbags')

T0 = 1_700_000_000_000_000_000
K = (110.0, 0.0, 79.5, 0.0, 110.0, 59.5, 0.0, 0.0, 1.0)
CAMERA = CameraFields(160, 120, 'plumb_bob', (0.0,) * 5, K, frame_id='camera_optical_frame')
MOUNT = np.array([[0, 0, 1.0, 0.1], [-1, 0, 0, 0], [0, -1, 0, 0.4], [0, 0, 0, 1]])


@pytest.fixture(scope='module')
def room(tmp_path_factory):
    """A robot that stands, drives and turns, seen at 15 Hz through a lens."""
    path = tmp_path_factory.mktemp('audit') / 'room'
    settings = RecordingSettings(
        seconds=4.0, width=160, height=120, stand_still=True, turn=True, lens='plumb_bob'
    )
    write(path, settings, workers=1)
    return path


def delayed(source, path, delay_ns):
    """Copy a recording; its images and camera_info are stamped later."""
    from depth_node.image_codec import decode_compressed

    with open_recording(source) as recording, RecordingWriter(path, 'mcap') as writer:
        for record in recording.records():
            content = record.content
            if isinstance(content, OdometryFields):
                writer.odometry('/odom', content.stamp_ns, 'odom', 'base_link', content.pose)
            elif isinstance(content, TransformsFields):
                transforms = [(item.parent, item.child, item.pose) for item in content.transforms]
                writer.static_transform(transforms, record.time_ns)
            elif isinstance(content, CameraFields):
                writer.camera_info(
                    record.topic, replace(content, stamp_ns=content.stamp_ns + delay_ns)
                )
            elif record.topic == '/camera/image_raw/compressed':
                stamp = content.stamp_ns + delay_ns
                rgb = decode_compressed(content)
                writer.image('/camera/image_raw', rgb, stamp, content.frame_id)
    return path


def texture():
    coarse = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))


def record(path, picture=None, pose=None, count=40, fields=CAMERA, stamps=True, topics=True):
    """Write a recording; ``picture`` and ``pose`` say what is at each index."""
    view = texture()
    picture = picture or (lambda index: view[20:140, 20 + 2 * index : 180 + 2 * index])
    pose = pose or (lambda index: np.eye(4))
    with RecordingWriter(path, 'mcap') as writer:
        if topics:
            writer.static_transform([('base_link', 'camera_optical_frame', MOUNT)], T0)
        for index in range(count):
            stamp = T0 + index * 66_666_667
            if topics:
                writer.odometry('/odom', stamp, 'odom', 'base_link', pose(index))
            if fields is not None:
                now = fields(index) if callable(fields) else fields
                writer.camera_info('/camera/camera_info', replace(now, stamp_ns=stamp))
            at = stamp if stamps else 0
            frame = 'camera_optical_frame'
            writer.image('/camera/image_raw', np.ascontiguousarray(picture(index)), at, frame)
    return path


def driven(index):
    pose = np.eye(4)
    pose[0, 3] = 0.03 * index
    return pose


def only_reason(path, **options):
    audit = audit_recording(path, **options)
    assert not audit.usable and len(audit.reasons) == 1, audit.reasons
    return audit.reasons[0]


def test_a_whole_recording_is_usable_and_described(room):
    audit = audit_recording(room)
    assert audit.usable and not audit.warnings and not audit.damage
    assert audit.frames == 60 and audit.stamps.rate_hz == pytest.approx(15.0, rel=1e-3)
    assert audit.camera.lens == 'plumb_bob' and audit.camera.rectified
    assert audit.camera.source == 'camera_info' and audit.camera.sent.width == 160
    assert audit.motion.standing == pytest.approx(0.2, abs=0.03)
    assert audit.motion.rotating == pytest.approx(0.3, abs=0.05)
    assert audit.motion.covered == 1.0 and audit.motion.segments == 1
    kinds = {source.kind: source.why_not for source in audit.scale_sources}
    assert kinds == {'odometry': '', 'scan': '', 'depth': ''}
    assert abs(audit.clock_offset.offset_s) < 0.010 and audit.applied_offset_ns == 0
    text = describe(audit)
    assert 'usable' in text.splitlines()[1] and 'standing 20%' in text


@pytest.mark.parametrize('delay_ms', [80, -120])
def test_a_delay_of_the_images_is_found_within_15_ms(room, tmp_path, delay_ms):
    path = delayed(room, tmp_path / 'late', delay_ms * 1_000_000)
    audit = audit_recording(path)
    assert abs(audit.clock_offset.offset_s * 1e3 - delay_ms) < 15.0
    assert audit.clock_offset.is_applicable and audit.clock_offset.correlation > 0.95
    assert any(f'too {"late" if delay_ms > 0 else "early"}' in text for text in audit.warnings)
    assert abs(audit.applied_offset_ns / 1e6 - delay_ms) < 15.0


@pytest.mark.parametrize(
    ('alter', 'reason'),
    [
        (spoilt.wrong_focal_length, 'The images turn 0.[67][0-9] times as far as /odom says'),
        (spoilt.shuffled_poses, 'The poses of /odom go to and fro'),
    ],
)
def test_a_camera_or_poses_that_the_images_contradict_are_refused(room, tmp_path, alter, reason):
    found = audit_recording(spoilt.altered(room, tmp_path / 'bad', alter))
    assert len(found.reasons) == 1 and re.match(reason, found.reasons[0])
    good = audit_recording(room)
    assert good.usable and good.motion.directness > 0.9
    assert good.clock_offset.gain == pytest.approx(1.0, abs=0.1)


def test_an_audit_survives_json(room):
    audit = audit_recording(room)
    assert audit_from_json(audit.to_json()) == audit
    unknown = replace(audit, motion=replace(audit.motion, speed_m_s=float('nan')), camera=None)
    again = audit_from_json(unknown.to_json())
    assert np.isnan(again.motion.speed_m_s) and again.camera is None
    for text in (
        '',
        '[]',
        '{"version": 1}',
        audit.to_json().replace('"version": 1', '"version": 9'),
    ):
        with pytest.raises(RecordingError, match='verb audit'):
            audit_from_json(text)


def test_the_choice_of_an_audit_gives_the_same_audit(room):
    audit = audit_recording(room)
    assert audit_recording(room, audit.choice) == audit


def test_of_a_damaged_recording_what_is_left_is_judged(room, tmp_path):
    (tmp_path / 'cut').mkdir()
    file = tmp_path / 'cut' / 'cut.mcap'
    data = next(room.glob('*.mcap')).read_bytes()
    file.write_bytes(data[: int(0.8 * len(data))])
    audit = audit_recording(tmp_path / 'cut')
    assert 40 <= audit.frames < 60 and audit.usable
    assert 'messages over' in audit.damage and audit.warnings[0] == audit.damage


def test_a_camera_that_stands_still_cannot_be_learnt_from(tmp_path):
    view = texture()[:120, :160]
    path = record(tmp_path / 'bag', lambda index: view)
    assert 'standing still 100%' in only_reason(path)
    bare = record(tmp_path / 'bare', lambda index: view, topics=False)
    assert 'nothing moves in the images' in only_reason(bare)


def test_a_camera_that_only_turns_cannot_be_learnt_from(tmp_path):
    def turned(index):
        pose, yaw = np.eye(4), 0.05 * index
        pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
        return pose

    assert 'only turns on the spot' in only_reason(record(tmp_path / 'bag', pose=turned))


def test_noise_and_blank_images_cannot_be_learnt_from(tmp_path):
    rng = np.random.default_rng(3)
    noise = record(
        tmp_path / 'noise',
        lambda index: rng.integers(0, 256, (120, 160, 3), dtype=np.uint8),
        driven,
    )
    assert 'noise' in only_reason(noise)
    blank = record(tmp_path / 'blank', lambda index: np.full((120, 160, 3), 90, np.uint8), driven)
    assert 'too little texture' in only_reason(blank)


def test_cameras_that_are_not_known_are_refused_with_what_to_do(tmp_path):
    path = record(tmp_path / 'none', pose=driven, fields=None)
    assert 'camera.horizontal_fov_deg' in only_reason(path)
    given = audit_recording(path, assumed=CameraSettings(horizontal_fov_deg=72.0))
    assert given.usable and given.camera.source == 'camera.horizontal_fov_deg'
    blank = record(tmp_path / 'blank', pose=driven, fields=replace(CAMERA, k=(0.0,) * 9))
    assert 'K[0] = 0' in only_reason(blank)

    def zoomed(index):
        return CAMERA if index < 20 else replace(CAMERA, k=(150.0, *K[1:4], 150.0, *K[5:]))

    changed = record(tmp_path / 'zoom', pose=driven, fields=zoomed)
    assert 'K[0] = 110 at 160 x 120 first, 150' in only_reason(changed)


def test_images_without_stamps_are_refused(tmp_path):
    audit = audit_recording(record(tmp_path / 'bag', pose=driven, stamps=False))
    assert any('stamps of all images are zero' in reason for reason in audit.reasons)
    assert audit.stamps.zero == 40


def test_without_poses_a_recording_is_usable_and_warned_of(tmp_path):
    path = record(tmp_path / 'bag', pose=driven)
    audit = audit_recording(path, TopicChoice(odometry=''))
    assert audit.usable and audit.motion is None and not audit.scale_sources
    assert 'poses would have to be learnt' in audit.warnings[0]
    assert audit_recording(path).usable


def test_a_gyroscope_tells_the_delay_too():
    stamps = T0 + np.arange(0, 10_000_000_000, 5_000_000, dtype=np.int64)
    seconds = (stamps - T0) / 1e9

    def rates(at):
        return np.stack([0.1 * np.sin(3 * at), np.sin(1.3 * at) + 0.4 * np.sin(4 * at), 0 * at], 1)

    starts = T0 + np.arange(15, 120, dtype=np.int64) * 66_666_667
    middle = (starts - T0) / 1e9 + 1 / 30 - 0.08
    noise = np.random.default_rng(1).normal(0, 0.05, (105, 3))
    images = ImageTurns(starts, starts + 66_666_667, (rates(middle) + noise) / 15)
    found = offset_of_turns(images, TurnRates(stamps, rates(seconds)), '/imu')
    assert found.offset_s == pytest.approx(0.08, abs=0.01) and found.is_sharp
    assert found.standard_error_s < 0.01
    even = TurnRates(stamps, np.tile([0.0, 0.5, 0.0], (len(stamps), 1)))
    assert offset_of_turns(images, even, '/imu') is None
    few = ImageTurns(starts[:10], images.end_ns[:10], images.turns_rad[:10])
    assert offset_of_turns(few, TurnRates(stamps, rates(seconds)), '/imu') is None


def test_rotation_is_told_from_translation_of_known_direction():
    rng = np.random.default_rng(2)
    points = rng.uniform((-0.7, -0.5, 1.0), (0.7, 0.5, 6.0), (150, 3)) * [1, 1, 1]
    points[:, :2] *= points[:, 2:]
    turn, moved = np.array([0.004, -0.02, 0.006]), np.array([0.06, 0.0, 0.03])
    x, y, z = turn
    rotation = np.eye(3) + np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    after = (points - moved) @ rotation  # R^T (p - t)
    slopes = [item[:, :2] / item[:, 2:] for item in (points, after)]
    np.testing.assert_allclose(rotation_between(*slopes, moved), turn, atol=1e-3)
    assert np.abs(rotation_between(*slopes) - turn).max() > 5e-3
    assert rotation_between(slopes[0][:5], slopes[1][:5]) is None


def test_an_audit_of_nothing_but_brackets_is_refused_in_a_sentence():
    with pytest.raises(RecordingError, match='JSON of version'):
        audit_from_json('[' * 100_000)
