"""One process, one engine, several cameras: each is served alike and none disturbs another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy')

import rclpy
from node_rig import Rig
from node_rig import camera_message
from node_rig import image_message
from node_rig import stamp_of
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from scripted_pipeline import ScriptedPipeline
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from depth_node.errors import SettingsError
from depth_node.ros.lifecycle_node import DepthNode
from depth_node.settings import settings_from

SECOND = 10**9
NAMES = ('front', 'left', 'rear')
OK, STALE = b'\x00', b'\x03'
OUTPUTS = (
    'depth/image_rect', 'depth/camera_info', 'depth/color', 'scan', 'points'
)  # fmt: skip


# ---- the parameter


@pytest.mark.parametrize(
    'wrong',
    [['1st'], ['a b'], ['a/b'], [''], ['ä'], ['a', 'a'], [f'c{i}' for i in range(17)], [1], 'a'],
)
def test_what_are_no_different_names_is_refused_with_what_would_be(wrong: Any) -> None:
    with pytest.raises(SettingsError, match=r'cameras: .*different names'):
        settings_from({'cameras': wrong})
    assert settings_from({'cameras': ['a1', '_b']}).cameras == ('a1', '_b')


def test_scans_of_several_cameras_are_not_put_into_one_frame() -> None:
    with pytest.raises(SettingsError, match='2 cameras'):
        settings_from({'cameras': ['a', 'b'], 'scan.frame_id': 'base'})
    assert settings_from({'cameras': ['a'], 'scan.frame_id': 'base'}).scan.frame_id == 'base'


@pytest.mark.parametrize(
    ('written', 'expected'), [('[]', ()), ('[front, left]', ('front', 'left'))]
)
def test_rclpy_reads_the_names_from_a_file_and_an_empty_list_is_none(
    private_network: None, tmp_path: Path, written: str, expected: tuple[str, ...]
) -> None:
    (tmp_path / 'p.yaml').write_text(f'/**:\n  ros__parameters:\n    cameras: {written}\n')
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '--params-file', str(tmp_path / 'p.yaml')], context=context)
    node = DepthNode(ScriptedPipeline().open, context=context)
    try:
        assert node.settings.cameras == expected
        assert [channel.name for channel in node._channels] == list(expected or ('',))
        # as `ros2 param set` sends lists, an empty one in the type of bytes
        for value, after in (([], ()), (['rear'], ('rear',)), ([], ())):
            (result,) = node.set_parameters([Parameter('cameras', value=value)])
            assert result.successful and node.settings.cameras == after
        (result,) = node.set_parameters([Parameter('cameras', value=[1, 2])])
        assert not result.successful and 'different names' in result.reason
    finally:
        node.destroy_node()
        context.try_shutdown()


def test_numbers_in_a_file_are_refused_with_a_sentence(private_network: None) -> None:
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '-p', 'cameras:=[1, 2]'], context=context)
    try:
        with pytest.raises(SettingsError, match='different names'):
            DepthNode(ScriptedPipeline().open, context=context)
    finally:
        context.try_shutdown()


# ---- the node over DDS


class Cameras(Rig):
    """The node with several cameras, and for each a publisher and what is published."""

    def __init__(self, *names: str, **options: Any) -> None:
        super().__init__(cameras=list(names), **options)
        self.senders, self.infos_of, self.depth_of = {}, {}, {name: [] for name in names}
        for name in names:
            self.senders[name] = self.peer.create_publisher(Image, f'{name}/image', 1)
            self.infos_of[name] = self.peer.create_publisher(CameraInfo, f'{name}/camera_info', 1)
            self.peer.create_subscription(
                Image, f'{name}/depth/image_rect', self.depth_of[name].append, 10
            )

    def of(self, name: str) -> Any:
        return next(channel for channel in self.node._channels if channel.name == name)

    def ready_for(self, *names: str) -> Cameras:
        for name in names:
            self.wait(lambda name=name: self.of(name).outputs.wanted())
            self.wait(lambda name=name: self.senders[name].get_subscription_count())
            self.wait(lambda name=name: self.infos_of[name].get_subscription_count())
            # the publishers came after the node, which subscribes anew then
            self.wait(lambda name=name: self.of(name).inputs.images.reliable)
            self.infos_of[name].publish(camera_message())
            self.wait(lambda name=name: self.of(name).inputs.cameras.known)
        return self

    def send_to(self, name: str, stamp_ns: int, **changes: Any) -> None:
        before = self.of(name).health.report(0.5).received
        self.senders[name].publish(image_message(stamp_ns, **changes))
        self.wait(lambda: self.of(name).health.report(0.5).received > before)
        self.wait(lambda: self.of(name).health.report(0.5).pending == 0)


@pytest.fixture
def cameras(private_network: None) -> Any:
    made: list[Cameras] = []

    def make(*names: str, **options: Any) -> Cameras:
        made.append(Cameras(*names, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_every_topic_of_a_camera_lies_below_its_name(cameras: Any) -> None:
    node = cameras('front', 'left').node
    space = node.get_namespace()
    published = {item.topic_name for item in node.publishers}
    wanted = {f'{space}/{name}/{topic}' for name in ('front', 'left') for topic in OUTPUTS}
    assert wanted <= published
    assert not {f'{space}/{topic}' for topic in OUTPUTS} & published
    read = {item.topic_name for item in node.subscriptions}
    assert {f'{space}/left/image', f'{space}/left/camera_info'} <= read
    assert f'{space}/image' not in read


def test_images_come_back_under_their_own_camera_with_their_own_stamp(cameras: Any) -> None:
    it = cameras('front', 'left').ready_for('front', 'left')
    # equal stamps are no duplicates: each camera has an order of its own
    for number in range(1, 4):
        it.send_to('front', number * SECOND)
        it.send_to('left', number * SECOND)
    it.send_to('left', 4 * SECOND)
    it.wait(lambda: len(it.depth_of['front']) == 3 and len(it.depth_of['left']) == 4)
    assert [stamp_of(message) for message in it.depth_of['front']] == [
        SECOND,
        2 * SECOND,
        3 * SECOND,
    ]
    assert [it.of(name).health.report(0.5).published for name in ('front', 'left')] == [3, 4]
    assert it.pipeline.opened == 1
    assert {image.camera for image, _, _ in it.pipeline.seen} == {'front', 'left'}


def test_a_camera_that_is_latched_is_heard_below_its_name(cameras: Any) -> None:
    it = cameras('front')
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    it.peer.create_publisher(CameraInfo, 'front/camera_info', latched).publish(camera_message())
    it.wait(lambda: it.of('front').inputs.cameras.known)


def test_qos_of_one_camera_can_be_overridden(private_network: None) -> None:
    context = rclpy.Context()
    words = ['--ros-args', '-p', 'qos_overrides./front/points.publisher.depth:=2']
    rclpy.init(args=[*words, '-p', 'cameras:=[front, left]'], context=context)
    node = DepthNode(ScriptedPipeline().open, context=context)
    try:
        assert node.autostart()
        depths = {item.topic_name: item.qos_profile.depth for item in node.publishers}
        assert (depths['/front/points'], depths['/left/points']) == (2, 1)
    finally:
        node.close()
        node.destroy_node()
        context.try_shutdown()


def test_diagnostics_have_a_status_for_each_camera_with_its_own_state(cameras: Any) -> None:
    it = cameras('front', 'left', **{'node.diagnostics_period_s': 0.1}).listen_to_diagnostics()
    it.ready_for('front')
    it.send_to('front', SECOND)
    it.send_to('front', 2 * SECOND)
    it.wait(it.of('left').outputs.wanted)
    it.wait(it.senders['left'].get_subscription_count)
    it.wait(lambda: it.of('left').inputs.images.reliable)
    it.send_to('left', SECOND)  # nobody has told its camera

    def shown() -> dict[str, dict[str, str]]:
        statuses = it.diagnostics[-1].status if it.diagnostics else []
        return {item.name: {pair.key: pair.value for pair in item.values} for item in statuses}

    front, left = 'depth_node: depth front', 'depth_node: depth left'
    it.wait(lambda: 'dropped: no_camera_info' in shown().get(left, {}))
    assert set(shown()) == {front, left}
    assert shown()[front]['images published'] == '2'
    assert shown()[left]['dropped: no_camera_info'] == '1'
    assert 'dropped: no_camera_info' not in shown()[front]
    assert shown()[left]['engine'] == shown()[front]['engine'] == 'scripted 1.0'
    assert shown()[left]['input'].startswith(f'{it.namespace}/left/image')


def test_a_fault_of_any_camera_is_published_at_once(cameras: Any) -> None:
    it = cameras('front', 'left', **{'node.diagnostics_period_s': 60.0}).listen_to_diagnostics()
    it.ready_for('front', 'left')
    for step in range(1, 11):
        for name in ('front', 'left'):
            changes = {'encoding': 'rgb9'} if (name, step) > ('front', 10) else {}
            it.send_to(name, step * SECOND, **changes)

    def faulty() -> list[str]:
        return [
            item.name
            for item in (it.diagnostics[-1].status if it.diagnostics else [])
            if 'image_encoding' in item.message
        ]

    it.wait(lambda: faulty() == ['depth_node: depth left'], timeout_s=2.0)


def test_an_image_of_any_camera_that_hangs_ends_the_process(
    cameras: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr('depth_node.health._FIRST_RESULT_NS', SECOND // 2)
    it = cameras('front', 'left', steps=('hang',)).ready_for('left')
    it.senders['left'].publish(image_message(SECOND))
    it.wait_for_the_end()
    assert it.node.exit_code == 4


def test_names_that_change_while_unconfigured_change_the_topics(cameras: Any) -> None:
    it = cameras('front', 'left')
    refused = it.set(cameras=['rear'])
    assert not refused.successful and 'unconfigured' in refused.reason
    front = it.of('front')
    assert it.transition(4) and it.transition(2)
    assert it.set(cameras=['front', 'rear']).successful
    assert it.transition(1) and it.transition(3)
    assert [channel.name for channel in it.node._channels] == ['front', 'rear']
    assert it.of('front') is front, 'its counters go on'
    topics = {item.topic_name for item in it.node.publishers}
    assert f'{it.namespace}/rear/points' in topics
    assert f'{it.namespace}/left/points' not in topics
