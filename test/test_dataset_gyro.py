"""A gyroscope beside camera and odometry: delays, its mount, its faults, steadier poses."""

from __future__ import annotations

from dataclasses import replace

import altered_recordings as spoilt
import numpy as np
import pytest
from altered_recordings import turning_error_rad
from altered_recordings import used_poses

from depth_node.dataset.audit import audit_from_json
from depth_node.dataset.audit import describe
from depth_node.dataset.audit_recording import audit_recording
from depth_node.dataset.caching import CacheSettings
from depth_node.dataset.caching import cache_recording
from depth_node.dataset.clock_offset import ImageTurns
from depth_node.dataset.clock_offset import TurnRates
from depth_node.dataset.gyro_audit import Compared
from depth_node.dataset.gyro_audit import compare
from depth_node.dataset.gyroscope import Gyroscope
from depth_node.dataset.gyroscope import fitted_rotation
from depth_node.dataset.poses import rotation_vectors
from depth_node.dataset.trajectory import Trajectory
from depth_node.errors import SettingsError
from depth_node.recording import open_recording
from depth_node.recording.messages import ImuFields
from depth_node.recording.writer import RecordingWriter
from depth_node.world.recording import RecordingSettings
from depth_node.world.recording import write

T0 = 1_700_000_000_000_000_000
NOT_MEASURED = -np.eye(3).ravel()
BIAS = np.array([0.4, -0.3, 0.2])
LATE = spoilt.late_images(80_000_000)
HAND = RecordingSettings(
    seconds=5.0, rate_hz=15.0, width=160, height=120, carrier='handheld', imu_hz=100.0
)


@pytest.fixture(scope='module')
def plain(hand):
    """The audit of it as it is."""
    return audit_recording(hand)


@pytest.fixture(scope='module')
def hand(tmp_path_factory):
    """A camera in a hand, with odometry and a biased IMU whose mount is in /tf_static."""
    path = tmp_path_factory.mktemp('gyro') / 'hand'
    write(path, HAND, workers=1)
    return path


def with_wrong_mount(topic, place, message, all_of_it):
    """The IMU lies on its side, and nobody told TF."""
    for item in message.transforms if topic == spoilt.STATIC else ():
        if item.child_frame_id == 'imu_link':
            kind = type(item.transform.rotation)
            item.transform.rotation = kind(x=0.5, y=-0.5, z=0.5, w=-0.5)
    return message


def changed_rates(change):
    def alter(topic, place, message, all_of_it):
        if topic == '/imu':
            vector = message.angular_velocity
            x, y, z = change(np.array([vector.x, vector.y, vector.z]))
            message.angular_velocity = type(vector)(x=float(x), y=float(y), z=float(z))
        return message

    return alter


def audited(source, tmp_path, *alters, **options):
    return audit_recording(
        spoilt.altered(source, tmp_path / 'bag', spoilt.both(*alters)), **options
    )


def test_a_gyroscope_is_only_recorded_where_it_is_asked_for(hand, tmp_path):
    small = RecordingSettings(seconds=0.2, rate_hz=10.0, carrier='handheld', width=32, height=24)
    write(tmp_path / 'without', small, workers=1)
    for path, wanted in ((tmp_path / 'without', set()), (hand, {'/imu'})):
        with open_recording(path) as recording:
            assert {topic.name for topic in recording.topics} & {'/imu'} == wanted
    with pytest.raises(SettingsError, match='5 Hz'):
        write(tmp_path / 'slow', replace(small, imu_hz=5.0))


def test_a_gyroscope_agrees_with_images_and_odometry_of_the_same_clock(hand, plain):
    audit = plain
    gyro = audit.gyro
    assert gyro.topic == '/imu' and gyro.mount == 'tf' and gyro.measurements > 480
    assert abs(gyro.poses.offset_s) < 0.003 and abs(gyro.images.offset_s) < 0.010
    assert gyro.poses.gain == pytest.approx(1.0, abs=0.02)
    assert not audit.warnings and audit.usable and gyro.use is None, 'clean poses stay as they are'
    assert audit_from_json(audit.to_json()) == audit


@pytest.mark.parametrize('mount', ['tf', 'data'])
def test_the_gyroscope_alone_finds_the_delay_of_the_images(hand, tmp_path, mount):
    alters = [LATE, spoilt.without_heading] + ([spoilt.without_mount] if mount == 'data' else [])
    audit = audited(hand, tmp_path, *alters)
    assert audit.gyro.mount == mount and audit.gyro.images.is_sharp
    assert abs(audit.gyro.images.offset_s - 0.08) < 0.015
    assert audit.gyro.poses is None or not audit.gyro.poses.is_sharp
    assert abs(audit.applied_offset_ns - 80_000_000) < 15_000_000
    said = ' '.join(audit.warnings)
    assert 'stamped by the same clock' in said and '/imu turns' in said


def test_offsets_compose_where_all_clocks_differ(hand, tmp_path):
    def late_odometry(topic, place, message, all_of_it):
        if topic == spoilt.ODOMETRY:
            total = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec + 120_000_000
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(total, 10**9)
        return message

    audit = audited(hand, tmp_path, LATE, late_odometry)
    assert audit.gyro.images.offset_s == pytest.approx(0.08, abs=0.01)
    assert audit.gyro.poses.offset_s == pytest.approx(0.12, abs=0.005)
    assert audit.clock_offset.offset_s == pytest.approx(-0.04, abs=0.01)
    with open_recording(tmp_path / 'bag') as recording:
        poses = used_poses(recording, audit)
    # a pose of the moment T0 is stamped 0.12 s later, the image of that moment 0.08 s
    assert poses.stamps_ns[0] - T0 == pytest.approx(80_000_000, abs=10_000_000)


def test_a_bias_of_the_gyroscope_does_not_matter(hand, tmp_path):
    audit = audited(hand, tmp_path, LATE, changed_rates(lambda rate: rate + BIAS))
    assert audit.gyro.images.offset_s == pytest.approx(0.08, abs=0.01)
    assert audit.gyro.poses.is_sharp and len(audit.warnings) == 1


def test_a_wrong_mount_in_tf_is_said_and_made_up_for(hand, tmp_path):
    audit = audited(hand, tmp_path, LATE, with_wrong_mount)
    assert audit.gyro.mount == 'data' and any('another way' in text for text in audit.warnings)
    assert audit.gyro.images.offset_s == pytest.approx(0.08, abs=0.01)


def test_a_gyroscope_that_does_not_turn_is_said_and_tells_no_delay(hand, tmp_path):
    noise = np.random.default_rng(3)
    audit = audited(hand, tmp_path, LATE, changed_rates(lambda rate: noise.normal(0.02, 0.005, 3)))
    assert any('/odom turns' in text and '/imu hardly' in text for text in audit.warnings)
    assert audit.gyro.images is None and audit.gyro.poses is None
    assert describe(audit).count('cannot tell') == 2
    assert audit.clock_offset.source == '/odom' and audit.clock_offset.is_applicable


def still(count=200, step_ns=50_000_000):
    return Trajectory(
        '/odom', T0 + np.arange(count, dtype=np.int64) * step_ns, np.tile(np.eye(4), (count, 1, 1))
    )


def test_with_too_little_turning_nobody_can_tell():
    stamps = T0 + np.arange(2000, dtype=np.int64) * 5_000_000
    rates = np.random.default_rng(1).normal(0.01, 0.005, (2000, 3))
    for rotation in (np.eye(3), None):
        found, offset, said = compare(
            Gyroscope('/imu', 'imu', stamps, rates), Compared([], still(), None, rotation)
        )
        assert found.images is None and found.poses is None and offset is None and not said
        assert found.use is None


def swings(at):
    """Return turn rates (N, 3) about all axes that do not repeat themselves."""
    x, y, z = 0.3 * np.sin(3.1 * at), np.sin(1.3 * at) + 0.4 * np.sin(4 * at), np.cos(2.3 * at)
    return np.stack([x, y, 0.2 * z], axis=1)


def images_of(rates_at, delay_s, count=150):
    starts = T0 + np.arange(15, 15 + count, dtype=np.int64) * 66_666_667
    middle = (starts - T0) / 1e9 + 1 / 30 - delay_s
    noise = np.random.default_rng(1).normal(0, 0.05, (count, 3))
    return ImageTurns(starts, starts + 66_666_667, (rates_at(middle) + noise) / 15)


def test_a_mount_is_found_from_turning_about_all_axes_and_refused_where_delays_look_alike():
    stamps = T0 + np.arange(0, 14_000_000_000, 5_000_000, dtype=np.int64)
    seconds = (stamps - T0) / 1e9
    angle = np.array([0.4, -1.1, 0.7])
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    c, s = np.cos(angle[0]), np.sin(angle[0])
    mount = quarter @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    gyroscope = Gyroscope('/imu', 'imu', stamps, swings(seconds) @ mount)
    fit = fitted_rotation(images_of(swings, 0.08), gyroscope)
    turned = rotation_vectors((fit.rotation @ mount.T)[None])
    assert np.linalg.norm(turned) < 0.03 and fit.correlation > 0.95
    # to and fro in 0.5 s: a quarter of a second later, the opposite rotation does as well
    regular = lambda at: np.stack([0 * at, np.sin(4 * np.pi * at), 0 * at], 1)  # noqa: E731
    again = Gyroscope('/imu', 'imu', stamps, regular(seconds) @ mount)
    assert fitted_rotation(images_of(regular, 0.08), again) is None
    other = Gyroscope('/imu', 'imu', stamps, np.random.default_rng(0).normal(0, 0.5, (2800, 3)))
    assert fitted_rotation(images_of(swings, 0.08), other) is None


def test_turning_is_not_known_across_a_gap():
    stamps = T0 + np.arange(0, 2_000_000_000, 10_000_000, dtype=np.int64)
    stamps = stamps[(stamps < T0 + 900_000_000) | (stamps > T0 + 1_200_000_000)]
    rates = TurnRates(stamps, np.ones((len(stamps), 3)))
    starts = T0 + np.array([0, 800, 850, 1000, 1300, 1950], np.int64) * 1_000_000
    turns, known = rates.turned(starts, starts + 75_000_000)
    assert known.tolist() == [True, True, False, False, True, False]
    np.testing.assert_allclose(turns[known], 0.075)


@pytest.mark.parametrize('what, said', [
    (lambda message: setattr(message, 'angular_velocity_covariance', NOT_MEASURED), 'no rate'),
    (lambda message: setattr(message.angular_velocity, 'y', float('nan')), 'no rate'),
    (lambda message: setattr(message.angular_velocity, 'z', 80.0), 'degrees per second'),
    (lambda message: setattr(message.header.stamp, 'sec', 0), 'stamp that rises'),
])  # fmt: skip
def test_rates_that_mean_nothing_are_refused_with_a_sentence(hand, tmp_path, what, said):
    def alter(topic, place, message, all_of_it):
        if topic == '/imu':
            what(message)
            message.header.stamp.nanosec *= int(message.header.stamp.sec > 0)
        return message

    audit = audited(hand, tmp_path, alter)
    assert audit.gyro is None and any(said in text for text in audit.warnings), audit.warnings
    assert audit.usable and audit.clock_offset.is_sharp


def test_the_gyroscope_tells_a_wrong_focal_length_from_wrong_odometry(hand, tmp_path):
    lens = audited(hand, tmp_path / 'lens', spoilt.wrong_focal_length)
    assert len(lens.reasons) == 1 and 'focal length of camera_info is wrong' in lens.reasons[0]
    assert 'as /imu' in lens.reasons[0]

    def half_as_far(topic, place, message, all_of_it):
        if topic == spoilt.ODOMETRY:
            o = message.pose.pose.orientation
            size = np.hypot(np.hypot(o.x, o.y), o.z)
            angle = 0.5 * np.arctan2(size, o.w)
            x, y, z = (float(v / max(size, 1e-12) * np.sin(angle)) for v in (o.x, o.y, o.z))
            message.pose.pose.orientation = type(o)(x=x, y=y, z=z, w=float(np.cos(angle)))
        return message

    poses = audited(hand, tmp_path / 'poses', half_as_far)
    assert len(poses.reasons) == 1 and 'the turning of /odom is wrong' in poses.reasons[0]


def test_a_gyroscope_steadies_poses_that_shake(hand, plain, tmp_path):
    with open_recording(hand) as recording:
        truth = used_poses(recording, plain)
    audit = audited(hand, tmp_path, spoilt.with_yaw_noise(0.005))
    before, after = audit.gyro.apart_rad_s
    assert audit.gyro.use is not None and after < 0.5 * before
    assert audit_from_json(audit.to_json()) == audit and 'steadied' in describe(audit)
    with open_recording(tmp_path / 'bag') as recording:
        steady = used_poses(recording, audit)
        shaking = used_poses(recording, replace(audit, gyro=None))
    assert turning_error_rad(shaking, truth) > 0.005
    assert turning_error_rad(steady, truth) < 0.3 * turning_error_rad(shaking, truth)
    settings = CacheSettings.of(audit, [(120, 160)], 'native')
    cache = cache_recording(tmp_path / 'bag', settings, tmp_path)
    # `steady` has the clock of the images already
    wanted, _ = steady.at_many(np.array([frame.stamp_ns for frame in cache.frames]))
    np.testing.assert_allclose(cache.poses[:, :3, :3], wanted[:, :3, :3], atol=1e-6)


def test_a_gyroscope_of_another_clock_does_not_hide_the_images(tmp_path):
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        for k in range(420):
            v, u = np.mgrid[:24, :32]
            grey = (127 + 100 * np.sin(0.9 * u + 0.1 * k) * np.cos(0.8 * v)).astype(np.uint8)
            writer.image('/camera/image_raw', np.dstack([grey] * 3), T0 + k * 10**8, 'camera')
            rate = np.array([0.0, 0.0, np.sin(k / 5)])
            writer.imu('/imu', ImuFields(rate, np.zeros(3), (k + 10) * 10**8, 'imu'))
    audit = audit_recording(tmp_path / 'bag')
    assert audit.pictures.sampled > 100
    assert not any('decoded' in reason for reason in audit.reasons)
