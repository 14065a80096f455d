"""The scan of the node: what costmaps need, at the stamp of the image, or a sentence."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy')

from node_rig import HEIGHT
from node_rig import WIDTH
from node_rig import Log
from node_rig import image_message
from node_rig import stamp_of
from sensor_msgs.msg import LaserScan
from sensor_msgs.msg import RegionOfInterest

# the lower half of a sensor: its principal point is in the upper
LOWER_HALF = RegionOfInterest(y_offset=HEIGHT, width=WIDTH, height=HEIGHT)


def listened(it):
    scans = []
    it.peer.create_subscription(LaserScan, 'scan', scans.append, 10)
    it.wait(lambda: it.channel.outputs._scan.get_subscription_count())
    it.wait(lambda: it.images.get_subscription_count())
    return scans


def warnings_of(it, monkeypatch):
    log = Log()
    monkeypatch.setattr(it.node, 'get_logger', lambda: log)
    return log.lines


def test_a_wall_is_at_its_distance_at_the_stamp_of_the_image_in_the_frame_with_x_forward(rig):
    it = rig().give_camera()
    scans = listened(it)
    stamp_ns = it.send()
    it.wait(lambda: scans)
    (scan,) = scans
    assert stamp_of(scan) == stamp_ns and scan.header.frame_id == 'camera_frame'
    ranges = np.array(scan.ranges)
    angles = scan.angle_min + scan.angle_increment * np.arange(len(ranges))
    assert len(ranges) > WIDTH // 2
    np.testing.assert_allclose(ranges * np.cos(angles), 2.0, rtol=0.02)
    assert scan.angle_max == pytest.approx(angles[-1], abs=1e-5) and scan.angle_min < 0
    assert scan.range_min == pytest.approx(0.1) and scan.range_max == 10.0
    assert it.report().published == 1


def test_limits_and_frame_are_those_of_the_settings_from_the_next_image_on(rig):
    it = rig(**{'scan.frame_id': 'laser'}).give_camera()
    scans = listened(it)
    it.send()
    assert it.set(scan__max_m=1.5, scan__min_m=0.5).successful
    it.send()
    assert it.set(scan__max_m=9.0, depth__max_m=1.25).successful
    it.send()
    it.wait(lambda: len(scans) == 3)
    assert [scan.header.frame_id for scan in scans] == ['laser'] * 3
    assert np.isfinite(scans[0].ranges).all()
    assert np.isposinf(scans[1].ranges).all() and scans[1].range_max == 1.5
    # farther than depth.max_m nothing is known, so that a scan must not claim it
    assert scans[2].range_max == 1.25
    assert not it.set(scan__min_m=5.0, scan__max_m=4.0).successful


def test_a_camera_that_does_not_see_its_horizon_is_told_once_and_gives_no_scan(rig, monkeypatch):
    it = rig().listen().give_camera(height=2 * HEIGHT, roi=LOWER_HALF)
    lines = warnings_of(it, monkeypatch)
    scans = listened(it)
    for _ in range(3):
        it.send()
    it.wait(lambda: len(it.depth) == 3)
    it.pump(0.1)
    assert not scans and it.report().published == 3
    (line,) = lines
    assert 'row -24, is not in the image' in line and f'rows 0 to {HEIGHT - 1}' in line


def test_a_frame_that_cannot_be_told_from_an_optical_one_is_told(rig, monkeypatch):
    it = rig().give_camera()
    lines = warnings_of(it, monkeypatch)
    scans = listened(it)
    for _ in range(2):
        it.send(header=header_in('lens', it))
    it.wait(lambda: len(scans) == 2)
    assert scans[0].header.frame_id == 'lens'
    assert [line for line in lines if 'scan.frame_id' in line and "'lens'" in line] == lines
    assert len(lines) == 1


def test_a_scan_is_made_only_for_those_who_listen(rig, monkeypatch):
    monkeypatch.setattr('depth_node.ros.scan_topic.Scanner', None)
    it = rig().ready()
    it.send()
    it.wait(lambda: it.depth)
    assert it.node.exit_code == 0 and it.report().published == 1


def header_in(frame_id, it):
    header = image_message(it.stamp_ns + 33_000_000).header
    header.frame_id = frame_id
    return header
