"""The node with a camera whose camera_info does not come or says that it is not calibrated."""

from __future__ import annotations

from array import array

import pytest

pytest.importorskip('rclpy')

from node_rig import HEIGHT
from node_rig import WIDTH
from node_rig import camera_message

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
        it.node._remarks._throttle._last_ns.clear()
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
    it.wait(lambda: it.node._stream._cameras._uncalibrated)
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
