"""Poses of a camera from odometry and TF, and what is done about faulty ones."""

from __future__ import annotations

import numpy as np
import pytest

from depth_node.dataset.pose_source import Hop
from depth_node.dataset.pose_source import TransformTree
from depth_node.dataset.pose_source import camera_poses
from depth_node.dataset.pose_source import read_transforms
from depth_node.dataset.poses import interpolated
from depth_node.dataset.poses import inverted
from depth_node.dataset.poses import quaternions_of
from depth_node.dataset.poses import rotation_vectors
from depth_node.dataset.poses import rotations_of
from depth_node.dataset.sensors import mount_beside
from depth_node.dataset.topics import TopicChoice
from depth_node.dataset.topics import topics_of
from depth_node.dataset.trajectory import trajectory_from
from depth_node.dataset.verdict import motion_of
from depth_node.errors import RecordingError
from depth_node.recording import open_recording
from depth_node.recording.messages import quaternion_of
from depth_node.recording.writer import RecordingWriter

pytest.importorskip('rosbags')

T0 = 1_700_000_000_000_000_000
OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def pose(x=0.0, y=0.0, z=0.0, yaw=0.0, optical=False):
    made = np.eye(4)
    made[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    if optical:
        made[:3, :3] = made[:3, :3] @ OPTICAL
    made[:3, 3] = x, y, z
    return made


def drive(count=30, period_ns=100_000_000, speed=0.5, turn=0.2):
    stamps = T0 + np.arange(count, dtype=np.int64) * period_ns
    seconds = np.arange(count) * period_ns / 1e9
    return stamps, np.stack([pose(speed * s, yaw=turn * s) for s in seconds])


def image(writer, frame='camera_optical_frame', stamp=T0):
    writer.image('/camera/image_raw', np.zeros((16, 16, 3), np.uint8), stamp, frame)


def trajectory(path, choice=None, frame='camera_optical_frame'):
    with open_recording(path) as recording:
        return camera_poses(recording, topics_of(recording, choice), frame)


def dynamic(writer, transforms, stamp):
    """Write /tf; the writer itself only knows /tf_static."""
    writer._write('/tf', writer._make.transforms(transforms, stamp), stamp)


def test_many_quaternions_are_those_of_one():
    rng = np.random.default_rng(1)
    wanted = rng.normal(size=(200, 4))
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    wanted[:4] = np.eye(4)
    rotations = rotations_of(wanted)
    found = quaternions_of(rotations)
    np.testing.assert_allclose(np.abs((found * wanted).sum(axis=1)), 1.0, atol=1e-12)
    for one, rotation in zip(found[:20], rotations[:20], strict=True):
        assert abs(np.dot(one, quaternion_of(rotation))) == pytest.approx(1.0, abs=1e-9)


def test_interpolation_turns_evenly_along_the_shorter_arc():
    before, after = pose(yaw=3.0)[None], pose(2.0, yaw=-3.0)[None]
    for share in (0.0, 0.25, 0.5, 1.0):
        found = interpolated(before, after, np.array([share]))[0]
        yaw = 3.0 + share * (2 * np.pi - 6.0)
        np.testing.assert_allclose(found, pose(2.0 * share, yaw=yaw), atol=1e-9)


def test_rotation_vectors_keep_small_and_large_angles():
    axis = np.array([0.6, 0.0, -0.8])
    for angle in (0.0, 1e-9, 0.3, 3.1):
        quaternion = np.append(axis * np.sin(angle / 2), np.cos(angle / 2))
        found = rotation_vectors(rotations_of(quaternion[None]))[0]
        np.testing.assert_allclose(found, axis * angle, atol=1e-12)
    some = np.stack([pose(1.0, 2.0, 3.0, 0.7)])
    np.testing.assert_allclose(inverted(some)[0] @ some[0], np.eye(4), atol=1e-12)


def test_a_pose_between_two_is_interpolated_and_none_outside_or_in_a_gap():
    stamps, poses = drive()
    kept = (np.arange(30) < 10) | (np.arange(30) >= 16)
    found = trajectory_from('/odom', stamps[kept], poses[kept])
    np.testing.assert_allclose(found.at(T0 + 250_000_000), pose(0.125, yaw=0.05), atol=1e-3)
    np.testing.assert_array_equal(found.at(int(stamps[29])), poses[29])
    assert found.at(T0 - 1) is None and found.at(int(stamps[29]) + 1) is None
    assert found.at(int(stamps[12])) is None
    assert found.segments.max() == 1 and found.is_gap.sum() == 1
    assert found.connected(int(stamps[2]) + 5, int(stamps[8]) + 5)
    assert not found.connected(int(stamps[8]), int(stamps[17]))
    assert not found.connected(int(stamps[8]), int(stamps[12]))


def test_stamps_that_repeat_or_go_back_are_mended_and_said():
    stamps, poses = drive()
    order = np.arange(30)
    order[[4, 5]] = 5, 4
    order = np.append(np.insert(order, 10, order[9]), [0, 1])
    sent, given = stamps[order].copy(), poses[order].copy()
    given[9] = pose(99.0)
    found = trajectory_from('/odom', sent, given)
    np.testing.assert_array_equal(found.stamps_ns, stamps)
    np.testing.assert_allclose(found.poses, poses, atol=0.0)
    assert len(found.remarks) == 3
    assert '2 poses after a clock was set back' in found.remarks[0]


def test_poses_that_are_not_finite_and_stamps_of_zero_are_left_out():
    stamps, poses = drive()
    poses[3] = np.nan
    found = trajectory_from('/odom', stamps, poses)
    assert len(found.stamps_ns) == 29
    assert trajectory_from('/odom', np.zeros(30, np.int64), poses) is None


@pytest.mark.parametrize('change', [pose(0.6), pose(yaw=0.8)])
def test_a_jump_parts_the_trajectory_and_fast_driving_does_not(change):
    stamps, poses = drive(60, 50_000_000, speed=1.0, turn=1.0)
    assert trajectory_from('/odom', stamps, poses).segments.max() == 0
    stop = poses.copy()
    stop[30:] = stop[30]
    assert trajectory_from('/odom', stamps, stop).segments.max() == 0
    poses[25:] = poses[25:] @ change
    found = trajectory_from('/odom', stamps, poses)
    assert found.is_jump.tolist() == [False] * 24 + [True] + [False] * 34
    assert found.at(int(stamps[24]) + 1) is None
    assert found.at(int(stamps[24])) is not None
    assert np.isnan(found.speeds_m_s[24]) and np.isnan(found.turn_rates_rad_s[24])
    assert np.nanmax(found.speeds_m_s) < 1.3


def test_speeds_and_turn_rates_are_those_of_the_drive():
    stamps, poses = drive(turn=-0.4)
    found = trajectory_from('/odom', stamps, poses)
    np.testing.assert_allclose(found.speeds_m_s, 0.5, atol=1e-9)
    np.testing.assert_allclose(found.turn_rates_rad_s, 0.4, atol=1e-9)


def test_odometry_reaches_the_camera_over_several_static_hops(tmp_path):
    hops = [
        ('base_link', 'mast', pose(0.1, z=0.5)),
        ('mast', 'head', pose(yaw=0.3)),
        ('head', 'camera_optical_frame', pose(0.05, optical=True)),
        ('base_footprint', 'base_link', pose(z=0.2)),
    ]
    stamps, poses = drive()
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        writer.static_transform(hops, T0)
        for stamp, at in zip(stamps, poses, strict=True):
            writer.odometry('/odom', int(stamp), 'odom', 'base_footprint', at)
        image(writer)
    found = trajectory(tmp_path / 'bag')
    mount = pose(z=0.2) @ hops[0][2] @ hops[1][2] @ hops[2][2]
    np.testing.assert_allclose(found.poses, poses @ mount, atol=1e-9)
    assert found.source == '/odom' and not found.remarks


def test_transforms_give_the_same_poses_as_odometry(tmp_path):
    mount = pose(0.1, z=0.5, optical=True)
    stamps, poses = drive()
    with RecordingWriter(tmp_path / 'bag', 'sqlite3') as writer:
        writer.static_transform([('base_link', 'camera_optical_frame', mount)], T0)
        for index, (stamp, at) in enumerate(zip(stamps, poses, strict=True)):
            dynamic(writer, [('odom', 'base_link', at)], int(stamp))
            if index % 10 == 0:
                dynamic(writer, [('map', 'odom', pose(0.5 * index))], int(stamp))
        image(writer)
    found = trajectory(tmp_path / 'bag')
    assert found.source == 'tf odom -> base_link'
    np.testing.assert_allclose(found.poses, poses @ mount, atol=1e-9)
    by_map = trajectory(tmp_path / 'bag', TopicChoice(odometry='tf:map'))
    assert by_map.source == 'tf map -> base_link'
    with pytest.raises(RecordingError, match=r"no way from 'moon'.*'base_link', 'odom', 'map'"):
        trajectory(tmp_path / 'bag', TopicChoice(odometry='tf:moon'))
    assert trajectory(tmp_path / 'bag', TopicChoice(odometry='')) is None


def test_a_camera_on_a_moving_joint_is_followed(tmp_path):
    stamps, poses = drive()
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        writer.static_transform([('head', 'cam_optical', pose(optical=True))], T0)
        for index, (stamp, at) in enumerate(zip(stamps, poses, strict=True)):
            joint = pose(0.2, yaw=0.1 * index)
            dynamic(writer, [('odom', 'base_link', at), ('base_link', 'head', joint)], int(stamp))
        image(writer, 'cam_optical')
    found = trajectory(tmp_path / 'bag', frame='cam_optical')
    wanted = poses[7] @ pose(0.2, yaw=0.7) @ pose(optical=True)
    np.testing.assert_allclose(found.at(int(stamps[7])), wanted, atol=1e-9)


def test_odometry_without_a_way_to_the_camera_says_what_to_record(tmp_path):
    stamps, poses = drive(3)
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        for stamp, at in zip(stamps, poses, strict=True):
            writer.odometry('/odom', int(stamp), 'odom', 'base_link', at)
        image(writer)
    with pytest.raises(RecordingError, match='Record /tf_static too'):
        trajectory(tmp_path / 'bag')


def test_a_body_frame_in_the_image_header_is_turned_and_said(tmp_path):
    stamps, poses = drive()
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        writer.static_transform([('base_link', 'camera_link', pose(0.1))], T0)
        for stamp, at in zip(stamps, poses, strict=True):
            writer.odometry('/odom', int(stamp), 'odom', 'base_link', at)
        image(writer, 'camera_link')
    found = trajectory(tmp_path / 'bag', frame='camera_link')
    np.testing.assert_allclose(found.poses, poses @ pose(0.1, optical=True), atol=1e-9)
    assert 'no optical frame' in found.remarks[0]


def test_a_loop_of_transforms_ends():
    one, two = pose(1.0)[None], pose(2.0)[None]
    stamps = np.array([T0])
    tree = TransformTree([Hop('a', 'b', stamps, one, True), Hop('b', 'a', stamps, two, True)])
    assert len(tree.up('a')) == 50
    assert tree.static_pose('c', 'a') is None


def test_two_odometries_are_listed_and_two_scans_left_out(tmp_path):
    from depth_node.recording.messages import LaserScanFields

    scan = LaserScanFields(0.0, 1.0, 0.5, 0.1, 9.0, np.ones(3, np.float32), T0, 'laser')
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        image(writer)
        writer.odometry('/odom', T0, 'odom', 'base_link', np.eye(4))
        writer.odometry('/odometry/filtered', T0, 'odom', 'base_link', np.eye(4))
        writer.scan('/front', scan)
        writer.scan('/back', scan)
    with open_recording(tmp_path / 'bag') as recording:
        with pytest.raises(RecordingError, match=r'/odom \(1\), /odometry/filtered \(1\)'):
            topics_of(recording)
        topics = topics_of(recording, TopicChoice(odometry='odom'))
        assert topics.odometry.name == '/odom' and topics.scan is None
        assert '/back (1), /front (1)' in topics.unclear[0]
        assert topics_of(recording, TopicChoice(odometry='', scan='front')).scan.name == '/front'
        with pytest.raises(RecordingError, match="no scan topic '/side'"):
            topics_of(recording, TopicChoice(odometry='', scan='/side'))


def test_a_clock_that_is_set_on_the_way_does_not_fill_the_memory():
    stamps, poses = drive(60)
    stamps = stamps - T0 + 10**9
    stamps[30:] += T0
    found = trajectory_from('/odom', stamps, poses)
    motion = motion_of(found, stamps)
    assert motion.segments == 2 and motion.covered == 1.0
    assert motion.directness > 0.95


def test_an_optical_frame_that_tf_moves_by_itself_is_not_turned(tmp_path):
    stamps, poses = drive()
    poses = poses @ pose(z=0.4, optical=True)
    scanner = np.linalg.inv(pose(optical=True))
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        writer.static_transform([('cam', 'laser', scanner)], T0)
        for stamp, at in zip(stamps, poses, strict=True):
            dynamic(writer, [('odom', 'cam', at)], int(stamp))
        image(writer, 'cam')
    found = trajectory(tmp_path / 'bag', frame='cam')
    np.testing.assert_allclose(found.poses, poses, atol=1e-9)
    assert not found.remarks
    with open_recording(tmp_path / 'bag') as recording:
        tree = read_transforms(recording, topics_of(recording))
    np.testing.assert_allclose(mount_beside(tree, 'cam', 'laser'), scanner, atol=1e-9)


def test_a_body_frame_that_tf_moves_by_itself_is_turned(tmp_path):
    stamps, poses = drive()
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        for stamp, at in zip(stamps, poses, strict=True):
            dynamic(writer, [('odom', 'camera_link', at)], int(stamp))
        image(writer, 'camera_link')
    found = trajectory(tmp_path / 'bag', frame='camera_link')
    np.testing.assert_allclose(found.poses, poses @ pose(optical=True), atol=1e-9)
