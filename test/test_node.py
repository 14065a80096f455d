from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from node_rig import HEIGHT
from node_rig import WIDTH
from node_rig import camera_message
from node_rig import image_message
from node_rig import stamp_of
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from depth_node import health
from depth_node.cloud import CloudPacker
from depth_node.errors import Rejected
from depth_node.ros.parameters import unknown_names

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


# ---- the way of a good image


def test_depth_camera_and_points_come_with_stamp_and_frame_of_the_image(rig):
    it = rig().listen(points=True).give_camera()
    stamp_ns = it.send()
    it.wait(lambda: it.depth and it.infos and it.clouds)
    for message in (it.depth[0], it.infos[0], it.clouds[0]):
        assert stamp_of(message) == stamp_ns
        assert message.header.frame_id == 'camera_optical_frame'
    depth = np.frombuffer(it.depth[0].data, np.float32).reshape(HEIGHT, WIDTH)
    assert it.depth[0].encoding == '32FC1'
    assert np.isnan(depth[0, 0]) and np.all(depth.ravel()[1:] == 2.0)
    assert list(it.infos[0].k) == [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
    assert (it.clouds[0].width, it.clouds[0].height) == (WIDTH, HEIGHT)
    assert len(it.clouds[0].data) == WIDTH * HEIGHT * it.clouds[0].point_step
    assert it.report().published == 1


def test_a_compressed_image_is_decoded_and_a_broken_one_counted(rig):
    it = rig(**{'input.transport': 'compressed'})
    publisher = it.peer.create_publisher(CompressedImage, 'image/compressed', 1)
    it.images = publisher
    it.ready()
    _, jpeg = cv2.imencode('.jpg', np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    message = CompressedImage(format='jpeg', data=array('B', jpeg.tobytes()))
    it.send_message(message)
    it.wait(lambda: it.depth)
    message.data = message.data[: len(message.data) // 2]
    message.data[2:20] = array('B', bytes(18))
    it.send_message(message)
    assert it.report().published == 1
    assert sum(it.report().drops.values()) == 1


def test_a_message_is_made_only_for_those_who_listen(rig, monkeypatch):
    it = rig().ready()
    monkeypatch.setattr('depth_node.ros.messages.cloud_message', None)
    it.send()
    it.wait(lambda: it.depth)
    assert it.node.exit_code == 0


def test_a_frame_that_cannot_become_a_cloud_is_not_published_by_half(rig, monkeypatch):
    def refuse(self, depth_m, rgb):
        raise Rejected('cloud_size', 'cloud', 'one size', 'another')

    it = rig().give_camera().listen(points=True)
    monkeypatch.setattr(CloudPacker, 'check', refuse)
    it.send()
    it.wait(lambda: it.report().drops)
    assert it.report().drops == {'cloud_size': 1}
    assert not it.depth


def test_nothing_is_computed_while_nobody_listens(rig):
    it = rig().give_camera()
    it.wait(lambda: it.images.get_subscription_count())
    it.send()
    assert it.report().drops == {'no_subscriber': 1}
    assert it.pipeline.seen == []
    it.listen()
    it.send()
    it.wait(lambda: it.depth)


# ---- what must not be published


@pytest.mark.parametrize(
    'changes',
    [
        {'data': array('B')},
        {'data': array('B', bytes(WIDTH * HEIGHT * 3 - 1))},
        {'step': WIDTH},
        {'width': 2**31, 'height': 2**31},
        {'encoding': 'rgb8\n[FATAL] forged'},
    ],
    ids=['empty', 'short', 'step', 'huge', 'encoding'],
)
def test_a_malformed_image_is_counted_under_its_reason_and_nothing_is_published(rig, changes):
    it = rig().ready()
    it.send(**changes)
    report = it.report()
    assert report.published == 0
    (reason,) = report.drops
    assert reason.startswith('image')
    assert it.pipeline.seen == []
    assert len(it.log.lines) == 1 and '\n' not in it.log.lines[0]
    it.send()
    it.wait(lambda: it.depth)
    assert it.report().published == 1


def test_nothing_is_published_without_camera_info(rig):
    it = rig().listen()
    it.send()
    assert it.report().drops == {'no_camera_info': 1}
    assert it.pipeline.seen == []
    it.give_camera()
    it.send()
    it.wait(lambda: it.depth)


def test_a_bad_camera_info_is_counted_and_the_last_good_one_stays(rig):
    it = rig().ready()
    it.cameras.publish(camera_message(k=[0.0] * 9))
    it.wait(lambda: it.report().camera_rejections)
    it.send()
    it.wait(lambda: it.infos)
    assert it.infos[0].k[0] == 50.0


def test_a_camera_that_changes_counts_from_the_next_image_on(rig):
    it = rig().ready()
    it.send()
    it.cameras.publish(camera_message(k=[60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]))
    it.wait(lambda: it.channel.inputs.cameras._fields.k[0] == 60.0)
    it.send()
    it.wait(lambda: len(it.infos) == 2)
    assert [info.k[0] for info in it.infos] == [50.0, 60.0]


def test_an_image_of_another_size_than_the_camera_is_not_published(rig):
    it = rig().ready()
    it.send(width=WIDTH // 2, step=WIDTH // 2 * 3, data=array('B', bytes(WIDTH * HEIGHT * 3 // 2)))
    report = it.report()
    assert report.published == 0
    assert sum(report.drops.values()) == 1
    assert it.pipeline.seen == []


def test_a_frame_id_that_differs_is_told_and_that_of_the_image_wins(rig):
    it = rig().ready()
    message = image_message(5 * 10**9)
    message.header.frame_id = 'left'
    it.send_message(message)
    it.wait(lambda: it.depth)
    assert it.depth[0].header.frame_id == 'left'
    assert "'left'" in it.log


def test_duplicate_and_older_stamps_are_dropped_by_name(rig):
    it = rig().ready()
    for stamp_ns in (10 * 10**9, 10 * 10**9, 9_500_000_000, 10_100_000_000):
        it.send_message(image_message(stamp_ns))
    it.wait(lambda: len(it.depth) == 2)
    assert it.report().drops == {'duplicate': 1, 'out_of_order': 1}
    assert [stamp_of(message) for message in it.depth] == [10 * 10**9, 10_100_000_000]


def test_a_recording_that_loops_goes_on(rig):
    it = rig().ready()
    for stamp_ns in (10 * 10**9, 2 * 10**9, 2_033_000_000):
        it.send_message(image_message(stamp_ns))
    it.wait(lambda: len(it.depth) == 3)


def test_a_jump_of_simulated_time_begins_the_order_anew(rig):
    it = rig(use_sim_time=True).ready()
    clock = it.peer.create_publisher(Clock, '/clock', 1)
    it.wait(lambda: clock.get_subscription_count())

    def tick(seconds_ns):
        clock.publish(Clock(clock=Time(sec=seconds_ns // 10**9, nanosec=seconds_ns % 10**9)))
        it.wait(lambda: it.node.stamp_now_ns() == seconds_ns)

    tick(10_000_000_000)
    it.send_message(image_message(10_000_000_000))
    tick(9_500_000_000)
    it.send_message(image_message(9_500_000_000))
    it.wait(lambda: len(it.depth) == 2)


def test_an_image_that_took_too_long_is_dropped(rig):
    it = rig('sleep', **{'input.max_age_s': 0.2}).ready()
    it.send()
    assert it.report().drops == {'too_old': 1}
    it.pump(0.1)
    assert it.depth == []


def test_under_overload_the_newest_wins_and_every_image_is_accounted_for(rig):
    it = rig('slow').ready()
    for number in range(150):
        it.images.publish(image_message(10**10 + number * 1_000_000))
        it.pump(0.004)
    it.wait(lambda: it.report().pending == 0)
    it.pump(0.1)
    report = it.report()
    stamps = [stamp_of(message) for message in it.depth]
    assert report.received > 100
    assert report.drops.get('replaced', 0) > 50
    assert report.received == report.published + sum(report.drops.values())
    assert report.published == len(stamps) >= 8
    assert stamps == sorted(set(stamps))
    assert stamps[-1] == 10**10 + 149 * 1_000_000
    assert report.age.p99_ms < 200


def test_a_malformed_image_does_not_push_out_a_good_one_that_waits(rig):
    it = rig('slow').ready()
    it.images.publish(image_message(10**10))
    it.wait(lambda: it.pipeline.seen)
    it.images.publish(image_message(10**10 + 1))
    it.wait(lambda: it.report().received == 2)
    it.images.publish(image_message(10**10 + 2, step=WIDTH))
    it.wait(lambda: it.report().received == 3 and it.report().pending == 0)
    assert it.report().published == 2
    assert 'replaced' not in it.report().drops


# ---- the publishers of the image


def test_reliable_delivery_is_asked_for_where_every_publisher_offers_it(rig):
    it = rig().ready()
    it.wait(lambda: it.channel.inputs.images.reliable)
    poor = it.peer.create_publisher(Image, 'image', qos_profile_sensor_data)
    it.wait(lambda: not it.channel.inputs.images.reliable)
    it.wait(lambda: poor.get_subscription_count())
    it.send_message(image_message(6 * 10**9), poor)
    it.wait(lambda: it.depth)
    it.peer.destroy_publisher(poor)
    it.wait(lambda: it.channel.inputs.images.reliable)


def test_a_latched_camera_info_is_seen(rig):
    it = rig(autostart=False)
    it.peer.create_publisher(CameraInfo, 'camera_info', LATCHED).publish(camera_message())
    it.pump(0.2)
    assert it.transition(1)
    assert it.transition(3)
    it.wait(lambda: it.channel.inputs.cameras.known)


def test_a_best_effort_camera_info_is_seen(rig):
    it = rig()
    it.peer.destroy_publisher(it.cameras)
    it.cameras = it.peer.create_publisher(CameraInfo, 'camera_info', qos_profile_sensor_data)
    it.ready()


def test_silent_topics_are_named_with_their_publishers(rig):
    it = rig(**{'node.input_timeout_s': 0.5}).listen()
    it.peer.create_publisher(CameraInfo, 'camera_info', 1)
    it.wait(lambda: len(it.log.lines) == 2)
    image, camera = it.log.lines
    assert image.startswith(f'no usable image on {it.namespace}/image for ')
    assert image.endswith('publishers of it: 1')
    assert camera.startswith(f'no usable camera_info on {it.namespace}/camera_info for ')
    assert camera.endswith('publishers of it: 2')


# ---- parameters


def test_a_bad_parameter_is_refused_with_a_reason_and_nothing_of_its_set_is_applied(rig):
    it = rig()
    result = it.set(depth__scale=3.0, depth__min_m=90.0)
    assert not result.successful
    assert 'depth.min_m below depth.max_m' in result.reason
    assert it.node.settings.depth.scale == 1.0
    assert not it.set(input__max_age_s=float('nan')).successful
    assert not it.set(points__stride=0).successful
    assert not it.set(depth__full_size='yes').successful
    assert it.state() == 'active'


def test_a_good_parameter_holds_from_the_next_image_on(rig):
    it = rig().ready()
    it.send()
    assert it.set(depth__scale=3, depth__min_m=1.0).successful
    it.send()
    scales = [settings.depth.scale for _, _, settings in it.pipeline.seen]
    assert scales == [1.0, 3.0]


def test_a_structural_parameter_is_refused_while_configured(rig):
    it = rig()
    result = it.set(model__engine='torch')
    assert not result.successful
    assert 'model.engine' in result.reason and 'unconfigured' in result.reason
    assert it.transition(4) and it.transition(2)
    assert it.set(model__engine='torch').successful
    assert it.node.settings.model.engine == 'torch'


def test_a_misspelt_parameter_is_told():
    (sentence,) = unknown_names(['input.max_age', 'use_sim_time', 'depth.max_m'])
    assert 'Did you mean input.max_age_s?' in sentence


# ---- lifecycle


def test_an_illegal_transition_is_answered_with_no_and_the_node_lives(rig):
    it = rig().ready()
    assert it.transition(1) is False
    assert it.transition(200) is False
    assert it.state() == 'active'
    it.send()
    it.wait(lambda: it.depth)


def test_a_node_that_went_through_all_states_works_again(rig):
    it = rig().ready()
    for _ in range(2):
        assert it.transition(4)
        assert it.state() == 'inactive'
        assert it.transition(2)
        assert it.state() == 'unconfigured'
        assert it.transition(1)
        assert it.transition(3)
    assert (it.pipeline.opened, it.pipeline.closed) == (3, 2)
    it.listen().give_camera()
    it.send()
    it.wait(lambda: it.depth)


def test_an_inactive_node_takes_no_images(rig):
    it = rig().ready()
    assert it.transition(4)
    it.wait(lambda: it.images.get_subscription_count() == 0)
    it.images.publish(image_message(10**10))
    it.pump(0.1)
    assert it.report().received == 0
    assert it.depth == []


def test_a_configure_that_fails_leaves_the_node_unconfigured_with_the_sentence(rig):
    it = rig(autostart=False, **{'model.name': 'missing'}).listen_to_diagnostics()
    assert it.transition(1) is False
    assert it.state() == 'unconfigured'
    it.wait(lambda: it.diagnostics)
    it.wait(lambda: "received 'missing'" in it.diagnostics[-1].status[0].message)
    assert it.diagnostics[-1].status[0].level == b'\x02'
    assert it.set(model__name='scripted').successful
    assert it.transition(1) is True


# ---- failures of the engine and the worker


def test_an_engine_that_fails_once_is_opened_anew(rig):
    it = rig('engine', 'ok').ready()
    it.send()
    assert it.report().drops == {'engine': 1}
    it.send()
    it.wait(lambda: it.depth)
    assert (it.pipeline.opened, it.pipeline.closed) == (2, 1)
    assert it.node.exit_code == 0


def test_an_engine_that_keeps_failing_ends_the_process(rig):
    it = rig('engine').ready()
    it.send()
    it.send()
    it.images.publish(image_message(10**10))
    it.wait_for_the_end()
    assert it.node.exit_code == 3


def test_a_worker_that_dies_ends_the_process(rig):
    it = rig('die').ready()
    it.images.publish(image_message(10**10))
    it.wait_for_the_end()
    assert it.node.exit_code == 2
    assert 'a bug' in it.report().text


def test_an_engine_that_hangs_ends_the_process(rig, monkeypatch):
    monkeypatch.setattr(health, '_HUNG_AT_LEAST_NS', 10**9)
    it = rig('ok', 'hang').ready()
    it.send()
    it.images.publish(image_message(10**10))
    it.wait_for_the_end()
    assert it.node.exit_code == 4


# ---- diagnostics


def test_diagnostics_tell_the_state_and_the_figures(rig):
    it = rig(**{'node.diagnostics_period_s': 0.1}).ready().listen_to_diagnostics()
    for _ in range(3):
        it.send()
    it.send(encoding='?')

    def values():
        status = it.diagnostics[-1].status[0]
        return {pair.key: pair.value for pair in status.values}

    it.wait(lambda: it.diagnostics and values()['images received'] == '4')
    status, said = it.diagnostics[-1].status[0], values()
    assert (status.name, status.hardware_id) == ('depth_node: depth', 'depth_node')
    assert status.level == b'\x01'
    assert 'image_encoding' in status.message
    assert said['images published'] == '3'
    assert said['dropped: image_encoding'] == '1'
    assert said['lifecycle state'] == 'active'
    assert said['engine'] == 'scripted 1.0'
    assert said['weights licence'] == 'CC0-1.0'
    assert 'passed over' in said['engine notes']
    assert said['stage network (ms)'] == '1.00'
    assert said['input'] == f'{it.namespace}/image, reliable'
    assert said['camera_info'].startswith('64x48')
    it.wait(lambda: it.diagnostics[-1].status[0].level == b'\x03')


def test_diagnostics_go_on_while_simulated_time_stands_still(rig):
    it = rig(use_sim_time=True, **{'node.diagnostics_period_s': 0.1}).listen_to_diagnostics()
    it.wait(lambda: len(it.diagnostics) > 2)
