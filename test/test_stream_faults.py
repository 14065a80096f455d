"""Streams that change, contradict themselves or get stuck: the node goes on, and is right."""

from __future__ import annotations

import os
import threading
import time
from array import array

import numpy as np
import pytest

pytest.importorskip('rclpy')

import rclpy
from node_rig import HEIGHT
from node_rig import WIDTH
from node_rig import camera_message
from node_rig import image_message
from node_rig import stamp_of
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

HALF = {
    'width': WIDTH // 2,
    'height': HEIGHT // 2,
    'encoding': 'mono8',
    'step': WIDTH // 2,
    'data': array('B', bytes(WIDTH * HEIGHT // 4)),
}
ZOOMED = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
SECOND = 10**9


def statuses(it):
    return [{pair.key: pair.value for pair in array.status[0].values} for array in it.diagnostics]


# ---- images that change


def test_size_and_encoding_may_change_with_every_image(rig):
    it = rig().listen(points=True).give_camera()
    for changes in ({}, HALF, {'encoding': 'bgr8'}, HALF, {}):
        it.send(**changes)
    it.wait(lambda: len(it.depth) == len(it.infos) == len(it.clouds) == 5)
    sizes = [(64, 48), (32, 24), (64, 48), (32, 24), (64, 48)]
    for messages in (it.depth, it.infos, it.clouds):
        assert [(message.width, message.height) for message in messages] == sizes
    assert [info.k[0] for info in it.infos] == [50.0, 25.0, 50.0, 25.0, 50.0]
    assert it.report().drops == {}


def test_a_frame_id_that_is_no_utf8_or_endless_harms_nothing(rig):
    it = rig().ready()
    odd = image_message(6 * SECOND)
    odd.header.frame_id = 'camera_name'
    data = bytes(serialize_message(odd)).replace(b'camera_name', b'%s{0}\xff\xfe\n/..')
    it.send_message(data)
    endless = image_message(7 * SECOND)
    endless.header.frame_id = 'x' * 100_000
    it.send_message(endless)
    it.wait(lambda: len(it.depth) == 2)
    assert '%s{0}' in it.depth[0].header.frame_id
    assert it.depth[1].header.frame_id == endless.header.frame_id
    assert all('\n' not in line and len(line) < 1_000 for line in it.log.lines)


def test_an_encoding_that_is_no_utf8_is_refused(rig):
    it = rig().ready()
    data = bytes(serialize_message(image_message(6 * SECOND, encoding='mono16')))
    it.send_message(data.replace(b'mono16', b'\xff\xfe\x80no'))
    assert it.report().drops == {'image_encoding': 1}


def test_bytes_that_are_no_message_do_not_end_the_node(rig):
    it = rig().ready()
    for publisher, message in ((it.cameras, camera_message(k=ZOOMED)), (it.images, None)):
        good = bytes(serialize_message(message or image_message(6 * SECOND)))
        for wrong in (b'', good[:4], good[:30], good[:60], good[:4] + b'\xff' * 200):
            publisher.publish(wrong)
            it.pump(0.02)
    it.wait(lambda: it.report().camera_rejections.get('camera_message'))
    it.send()
    it.wait(lambda: it.infos)
    assert it.infos[0].k[0] == 50.0
    assert it.report().published == 1


# ---- cameras that change


def test_a_camera_that_changes_during_an_image_is_not_mixed_into_it(rig):
    it = rig('sleep', **{'input.max_age_s': 5.0}).listen(points=True).give_camera()
    it.images.publish(image_message(10 * SECOND))
    it.wait(lambda: it.pipeline.seen)
    it.cameras.publish(camera_message(k=ZOOMED))
    it.wait(lambda: it.channel.inputs.cameras._fields.k[0] == 60.0)
    assert it.report().published == 0
    it.images.publish(image_message(11 * SECOND))
    it.wait(lambda: len(it.infos) == len(it.clouds) == 2)
    for info, cloud, fx in zip(it.infos, it.clouds, (50.0, 60.0), strict=True):
        assert info.k[0] == info.p[0] == fx
        points = np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)
        assert points[1, 0] == pytest.approx((1 - 31.5) / fx * 2.0)


@pytest.mark.parametrize(
    ('changes', 'entry'),
    [
        ({'k': [0.0] * 9}, 'K[0] = 0'),
        ({'k': [float('nan')] * 9}, 'K[0] = nan'),
        ({'k': [-50.0, *ZOOMED[1:]]}, 'K[0] = -50'),
        ({'k': [60.0, 0.0, 640.0, *ZOOMED[3:]]}, 'K[2] = 640'),
        ({'p': [float('nan')] * 12}, 'P[0] = nan'),
        ({'width': 0}, 'width = 0'),
    ],
    ids=['zero', 'nan', 'negative', 'principal point', 'p', 'width'],
)
def test_a_camera_info_that_is_none_is_named_and_the_last_good_one_holds(rig, changes, entry):
    it = rig().ready()
    it.cameras.publish(camera_message(**changes))
    it.wait(lambda: it.report().camera_rejections)
    assert entry in it.log
    it.send()
    it.wait(lambda: it.infos)
    assert it.infos[0].k[0] == 50.0


def test_a_p_of_zeros_is_a_camera_without_rectification(rig):
    it = rig().listen().give_camera(p=[0.0] * 12)
    it.send()
    it.wait(lambda: it.infos)
    assert it.infos[0].p[0] == 50.0


def test_a_frame_id_that_differs_is_told_once(rig):
    it = rig().ready()
    for seconds in range(6, 10):
        message = image_message(seconds * SECOND)
        message.header.frame_id = 'left'
        it.channel.remarks._throttle._last_ns.clear()
        it.send_message(message)
    it.wait(lambda: len(it.depth) == 4)
    assert sum("'left'" in line for line in it.log.lines) == 1


def test_the_age_of_the_camera_info_is_told(rig):
    it = rig(**{'node.diagnostics_period_s': 0.1}).ready().listen_to_diagnostics()
    it.wait(lambda: any(float(values['camera_info age (s)']) > 0.3 for values in statuses(it)))
    it.cameras.publish(camera_message())
    it.diagnostics.clear()
    it.wait(lambda: any(float(values['camera_info age (s)']) < 0.2 for values in statuses(it)))


@pytest.mark.parametrize(('rectify', 'told'), [('never', 1), ('auto', 0)])
def test_an_image_that_stays_bent_is_told(rig, rectify, told):
    it = rig(**{'input.rectify': rectify}).listen().give_camera(d=[0.1, 0.0, 0.0, 0.0, 0.0])
    for _ in range(2):
        it.send()
    it.wait(lambda: len(it.depth) == 2)
    assert sum('bends' in line for line in it.log.lines) == told


# ---- time


def test_a_stamp_in_the_future_is_published_and_told_with_its_offset(rig):
    it = rig(**{'node.diagnostics_period_s': 0.1}).ready().listen_to_diagnostics()
    stamp_ns = time.time_ns() + 30 * SECOND
    began = time.monotonic()
    it.send_message(image_message(stamp_ns))
    it.wait(lambda: it.depth)
    assert time.monotonic() - began < 1.0
    assert stamp_of(it.depth[0]) == stamp_ns
    assert 'stamps are 30.' in it.log or 'stamps are 29.9' in it.log
    it.wait(lambda: any('in the future' in values['stamps'] for values in statuses(it)))
    it.send_message(image_message(time.time_ns()))
    it.diagnostics.clear()
    it.wait(lambda: any(values['stamps'] == 'of now' for values in statuses(it)))


def test_images_without_a_stamp_are_all_published_and_told_once(rig):
    it = rig().ready()
    for _ in range(3):
        it.send_message(image_message(0))
    it.wait(lambda: len(it.depth) == 3)
    assert sum('stamp 0' in line for line in it.log.lines) == 1


def test_a_bag_that_loops_under_simulated_time_is_published_again_within_a_second(rig):
    it = rig(use_sim_time=True).ready()
    clock = it.peer.create_publisher(Clock, '/clock', 1)
    it.wait(lambda: clock.get_subscription_count())
    for start in (100, 100):
        for step in range(4):
            stamp_ns = start * SECOND + step * SECOND // 10
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(stamp_ns, SECOND)
            clock.publish(message)
            it.wait(lambda stamp_ns=stamp_ns: it.node.stamp_now_ns() == stamp_ns)
            it.send_message(image_message(stamp_ns))
    it.wait(lambda: len(it.depth) == 8, timeout_s=1.0)
    assert it.report().drops == {}


def test_simulated_time_that_stands_still_holds_nothing_up(rig):
    it = rig(use_sim_time=True).ready()
    assert it.node.stamp_now_ns() == 0
    it.send()
    it.wait(lambda: it.depth)
    spent = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - spent < 0.15
    assert it.transition(4)


# ---- load


@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='needs /proc')
def test_a_subscriber_that_takes_nothing_neither_slows_the_node_nor_lets_it_grow(rig):
    it = rig().ready()
    idle = rclpy.create_node('idle', context=it.context, namespace=it.namespace)
    idle.create_subscription(Image, 'depth/image_rect', print, QoSProfile(depth=1))
    it.wait(lambda: it.channel.outputs._image.get_subscription_count() == 2)
    width, height = 640, 480
    big = {'width': width, 'height': height, 'step': width * 3}
    big['data'] = array('B', bytes(width * height * 3))
    it.cameras.publish(camera_message())
    for _ in range(10):
        it.send(**big)
        it.depth.clear()
        it.pipeline.seen.clear()
    before = resident_bytes()
    for _ in range(60):
        it.send(**big)
        it.depth.clear()
        it.pipeline.seen.clear()
    assert resident_bytes() - before < 20e6  # 60 depth images are 74 MB
    assert it.report().published == 70
    assert it.report().age.p50_ms < 100.0
    idle.destroy_node()


def resident_bytes():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def test_the_first_result_comes_within_a_second_of_the_first_subscriber(rig):
    it = rig().give_camera()
    it.wait(lambda: it.images.get_subscription_count())
    for _ in range(3):
        it.send()
    assert it.pipeline.seen == []
    began = time.monotonic()
    it.peer.create_subscription(Image, 'depth/image_rect', it.depth.append, 10)
    while not it.depth and time.monotonic() < began + 1.0:
        it.stamp_ns += 33_000_000
        it.images.publish(image_message(it.stamp_ns))
        it.pump(0.03)
    assert it.depth


def test_two_nodes_in_one_process_serve_their_own_cameras(rig):
    one, other = rig(), rig()
    one.ready()
    other.listen().give_camera(k=ZOOMED)
    for _ in range(5):
        one.send()
        other.send()
    one.wait(lambda: len(one.infos) == 5)
    other.wait(lambda: len(other.infos) == 5)
    assert {info.k[0] for info in one.infos} == {50.0}
    assert {info.k[0] for info in other.infos} == {60.0}
    assert one.transition(4) and other.transition(4)  # the rigs close one after the other


# ---- life


def handles():
    return len(os.listdir('/proc/self/fd')), threading.active_count()


@pytest.mark.skipif(not os.path.exists('/proc/self/fd'), reason='needs /proc')
def test_going_through_all_states_again_and_again_leaves_no_thread_and_no_file_open(rig):
    it = rig()

    def cycle():
        assert all(it.transition(number) for number in (4, 2, 1, 3))

    for _ in range(3):
        cycle()
    before = handles()
    for _ in range(20):
        cycle()
    assert handles() == before
    assert it.pipeline.opened - it.pipeline.closed == 1


@pytest.mark.skipif(not os.path.exists('/proc/self/fd'), reason='needs /proc')
def test_configuring_that_fails_again_and_again_leaves_nothing_behind(rig):
    it = rig(autostart=False, **{'model.name': 'missing'})
    assert it.transition(1) is False
    before = handles()
    for _ in range(30):
        assert it.transition(1) is False
    assert handles() == before
    assert it.set(model__name='scripted').successful
    assert it.transition(1) and it.transition(3)
    it.ready()
    it.send()
    it.wait(lambda: it.depth)


# ---- latched


def test_a_camera_info_that_comes_late_counts_from_then_on(rig):
    it = rig().listen()
    it.send()
    assert it.report().drops == {'no_camera_info': 1}
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    it.peer.create_publisher(CameraInfo, 'camera_info', latched).publish(camera_message())
    it.wait(lambda: it.channel.inputs.cameras.known)
    for _ in range(3):
        it.send()
    it.wait(lambda: len(it.depth) == 3)
