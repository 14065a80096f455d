"""Outputs are not delivered long after they were made, and everybody may still read them."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy')

import rclpy
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.qos import qos_profile_sensor_data
from scripted_pipeline import ScriptedPipeline
from sensor_msgs.msg import Image

from depth_node.ros import interface
from depth_node.ros.lifecycle_node import DepthNode

FRAMES = ('depth/image_rect', 'depth/camera_info', 'depth/color', 'scan', 'points')


def lifespans_s(node) -> dict[str, float]:
    return {
        publisher.topic_name: publisher.qos_profile.lifespan.nanoseconds / 1e9
        for publisher in node.publishers
    }


def test_what_is_made_of_images_lives_as_long_as_an_image_may_take(rig):
    it = rig(**{'input.max_age_s': 0.25})
    for name in FRAMES:
        topic = str(it.node.resolve_topic_name(name))
        it.wait(lambda topic=topic: it.peer.get_publishers_info_by_topic(topic))
        (info,) = it.peer.get_publishers_info_by_topic(topic)
        assert info.qos_profile.lifespan.nanoseconds == 250_000_000, name
    words = {topic.name: topic.qos for topic in interface.OUTPUTS}
    assert all('lifespan input.max_age_s' in words[name] for name in FRAMES)
    assert 'lifespan' not in words['/diagnostics']


@pytest.mark.parametrize(
    'reader',
    [
        QoSProfile(depth=10),
        QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
        QoSProfile(depth=1, durability=DurabilityPolicy.VOLATILE),
        qos_profile_sensor_data,
    ],
)
def test_readers_that_ask_for_no_lifespan_are_served(rig, reader):
    it = rig().give_camera()
    got = []
    it.peer.create_subscription(Image, 'depth/image_rect', got.append, reader)
    it.wait(lambda: it.images.get_subscription_count())
    (depth,) = [item for item in it.node.publishers if item.topic_name.endswith('image_rect')]
    it.wait(depth.get_subscription_count)
    it.send()
    it.wait(lambda: got)


def test_an_override_sets_the_lifespan_of_one_topic(private_network):
    context = rclpy.Context()
    given = 'qos_overrides./points.publisher.lifespan:=3000000000'
    rclpy.init(args=['--ros-args', '-p', given], context=context)
    node = DepthNode(ScriptedPipeline().open, context=context)
    try:
        assert node.autostart()
        told = lifespans_s(node)
        assert told['/points'] == 3.0 and told['/depth/image_rect'] == 0.5
    finally:
        node.close()
        node.destroy_node()
        context.try_shutdown()
