"""The node with a camera whose camera_info does not come or says that it is not calibrated."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from node_rig import HEIGHT
from node_rig import WIDTH
from node_rig import camera_message
from node_rig import image_message
from node_rig import stamp_of
from sensor_msgs.msg import LaserScan
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

FOV = {'camera.horizontal_fov_deg': 90.0}
PIXELS = {'camera.intrinsics': '70 71 30 20'}


def said(it):
    it.wait(lambda: it.diagnostics)
    it.diagnostics.clear()
    it.wait(lambda: it.diagnostics)
    return {pair.key: pair.value for pair in it.diagnostics[-1].status[0].values}


def ks(it):
    return [(info.k[0], info.k[4], info.k[2], info.k[5]) for info in it.infos]


def test_a_field_of_view_stands_in_at_once_and_the_guess_is_told_once(rig):
    it = rig(**FOV, **{'node.diagnostics_period_s': 0.1, 'node.input_timeout_s': 0.5})
    it.listen().listen_to_diagnostics()
    for _ in range(3):
        it.channel.remarks._throttle._last_ns.clear()
        it.send()
    it.wait(lambda: len(it.infos) == 3)
    assert ks(it)[0] == pytest.approx((32.0, 32.0, 31.5, 23.5))
    assert said(it)['intrinsics from'] == 'camera.horizontal_fov_deg'
    it.pump(1.2)
    assert [line for line in it.log.lines if 'camera_info' in line] == [
        line for line in it.log.lines if 'guessed' in line
    ]
    assert sum('guessed' in line for line in it.log.lines) == 1


def test_intrinsics_stand_in_without_a_warning_and_follow_the_size_of_the_image(rig):
    it = rig(**PIXELS, **{'node.diagnostics_period_s': 0.1}).listen().listen_to_diagnostics()
    it.send()
    half = {'width': WIDTH // 2, 'height': HEIGHT // 2, 'step': WIDTH // 2 * 3}
    it.send(**half, data=array('B', bytes(WIDTH * HEIGHT * 3 // 4)))
    it.wait(lambda: len(it.infos) == 2)
    assert ks(it) == [(70.0, 71.0, 30.0, 20.0), (35.0, 35.5, 14.75, 9.75)]
    assert said(it)['intrinsics from'] == 'camera.intrinsics'
    assert 'intrinsics' not in it.log and 'camera_info' not in it.log


def test_an_uncalibrated_camera_info_is_no_fault_where_a_parameter_stands_in(rig):
    it = rig(**FOV, **{'node.diagnostics_period_s': 0.1}).listen().listen_to_diagnostics()
    it.cameras.publish(camera_message(k=[0.0] * 9))
    it.wait(lambda: it.channel.inputs.cameras._uncalibrated)
    it.send()
    it.wait(lambda: it.infos)
    assert it.report().camera_rejections == {}
    assert said(it)['camera_info'].startswith('not calibrated on')


def test_a_usable_camera_info_wins_and_stays_in_force(rig):
    it = rig(**PIXELS, **{'node.diagnostics_period_s': 0.1}).listen().listen_to_diagnostics()
    it.send()
    it.give_camera()
    it.send()
    it.cameras.publish(camera_message(k=[0.0] * 9))
    it.wait(lambda: it.report().camera_rejections == {'camera_uncalibrated': 1})
    it.send()
    it.wait(lambda: len(it.infos) == 3)
    assert [info.k[0] for info in it.infos] == [70.0, 50.0, 50.0]
    assert said(it)['intrinsics from'] == 'camera_info'


def test_the_parameters_may_be_set_while_images_come(rig):
    it = rig(**{'node.diagnostics_period_s': 0.1}).listen().listen_to_diagnostics()
    it.send()
    assert it.report().drops == {'no_camera_info': 1}
    assert 'camera.horizontal_fov_deg' in it.log
    assert said(it)['intrinsics from'] == 'none'
    assert not it.set(camera__intrinsics='70 71 30').successful
    assert it.set(camera__horizontal_fov_deg=90.0).successful
    it.send()
    it.wait(lambda: it.infos)


def free_of_focal_length(it):
    """Let the model be one whose depth does not follow from the focal length."""
    it.pipeline.card = replace(it.pipeline.card, focal_px=None)
    return it


@pytest.mark.parametrize('kind', ['metric', 'relative'])
def test_a_model_that_needs_no_focal_length_gives_depth_without_camera_info(rig, kind):
    it = rig(kind=kind, **{'node.diagnostics_period_s': 0.1, 'node.input_timeout_s': 0.5})
    free_of_focal_length(it).listen(points=kind == 'metric').listen_to_diagnostics()
    scans = []
    it.peer.create_subscription(LaserScan, 'scan', scans.append, 10)
    stamp_ns = it.send()
    images = it.depth if kind == 'metric' else it.relative
    it.wait(lambda: images)
    assert stamp_of(images[0]) == stamp_ns and images[0].width == WIDTH
    assert it.report().published == 1 and it.report().drops == {}
    assert said(it)['intrinsics from'] == 'none'
    it.wait(
        lambda: any(
            'camera_info' in line and 'publishers of it: 1' in line for line in it.log.lines
        )
    )
    assert not it.infos and not it.clouds and not scans


def test_its_points_and_camera_come_as_soon_as_camera_info_does(rig):
    it = free_of_focal_length(rig()).listen(points=True)
    it.send()
    it.wait(lambda: it.depth)
    it.give_camera()
    it.send()
    it.wait(lambda: it.infos and it.clouds)
    assert len(it.depth) == 2 and len(it.infos) == len(it.clouds) == 1
    assert it.infos[0].k[0] == 50.0


def test_a_listener_to_points_alone_is_no_reason_to_count_a_drop_while_the_camera_is_unknown(rig):
    it = free_of_focal_length(rig())
    clouds = []
    it.peer.create_subscription(PointCloud2, 'points', clouds.append, 10)
    it.wait(lambda: it.images.get_subscription_count())
    (points,) = [item for item in it.node.publishers if item.topic_name.endswith('points')]
    it.wait(points.get_subscription_count)
    it.send()
    assert it.report().published == 1 and it.report().drops == {} and not clouds


def test_where_parameters_describe_the_camera_such_a_model_uses_them(rig):
    it = free_of_focal_length(rig(**FOV)).listen()
    it.send()
    it.wait(lambda: it.infos)
    assert ks(it)[0] == pytest.approx((32.0, 32.0, 31.5, 23.5))


def test_every_frame_id_has_its_own_last_camera_info(rig):
    it = rig().listen()
    for name, focal_px in (('left', 50.0), ('right', 60.0)):
        k = [focal_px, 0.0, 31.5, 0.0, focal_px, 23.5, 0.0, 0.0, 1.0]
        it.cameras.publish(camera_message(header=Header(frame_id=name), k=k))
        it.wait(lambda name=name: name in it.channel.inputs.cameras._of_frames)
    for number, name in enumerate(('left', 'right', 'left', 'third')):
        header = Header(frame_id=name, stamp=Time(sec=100 + number))
        it.send_message(image_message(0, header=header))
    it.wait(lambda: len(it.infos) == 4)
    # the last of all for one that has none of its own
    assert [info.k[0] for info in it.infos] == [50.0, 60.0, 50.0, 60.0]
    assert [info.header.frame_id for info in it.infos] == ['left', 'right', 'left', 'third']
    assert sum('camera_info has frame_id' in line for line in it.log.lines) == 1


def test_invented_frame_ids_do_not_fill_the_memory(rig):
    it = rig().listen()
    for number in range(40):
        it.cameras.publish(camera_message(header=Header(frame_id=f'camera_{number}')))
        it.wait(lambda n=number: f'camera_{n}' in it.channel.inputs.cameras._of_frames)
    assert len(it.channel.inputs.cameras._of_frames) == 16
