"""What goes wrong in a transition is told and leaves nothing behind; a worker keeps its engine."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy')

from node_rig import NUMBERS
from node_rig import image_message

from depth_node.ros import lifecycle_node


def test_the_engine_of_a_worker_that_does_not_end_is_left_alone_to_the_end(rig, monkeypatch):
    monkeypatch.setattr(lifecycle_node, '_DEACTIVATES_WITHIN_S', 0.1)
    monkeypatch.setattr(lifecycle_node, '_ENDS_WITHIN_S', 0.1)
    it = rig('hang').ready()
    it.images.publish(image_message(10**10))
    it.wait(lambda: it.pipeline.seen)
    failed = lifecycle_node.TransitionCallbackReturn.FAILURE
    assert it.node.on_deactivate(None) == failed
    assert it.node.exit_code == lifecycle_node.EXIT_HUNG
    # the process ends now, and must do so without a library that is taken away under the worker
    assert it.node.close() is False
    assert it.pipeline.closed == 0
    it.pipeline.released.set()
    monkeypatch.setattr(lifecycle_node, '_ENDS_WITHIN_S', 5.0)
    assert it.node.close() is True
    assert it.pipeline.closed == 1


def with_bad_qos(rig, topic, end, **options):
    """Return a node with an override for a topic that rclpy refuses when the topic is made."""
    name = f'qos_overrides./test_{next(NUMBERS) + 1}/{topic}.{end}.depth'
    return rig(**{name: 'deep'}, **options)


def entities(node):
    return [item.topic_name for item in (*node.publishers, *node.subscriptions)]


@pytest.mark.parametrize('cameras', [[], ['front', 'left']])
def test_an_activation_that_fails_is_told_and_leaves_no_subscription(rig, capfd, cameras):
    image = 'left/image' if cameras else 'image'
    it = with_bad_qos(rig, image, 'subscription', cameras=cameras, autostart=False)
    before = entities(it.node)
    assert it.transition(1)
    assert it.transition(3) is False
    assert f'{image}.subscription.depth' in capfd.readouterr().err
    assert it.report().text.startswith('not activated: ')
    assert it.state() == 'unconfigured'
    assert entities(it.node) == before
    assert [channel.inputs for channel in it.node._channels] == [None] * (len(cameras) or 1)


@pytest.mark.parametrize('cameras', [[], ['front', 'left']])
def test_a_configure_that_fails_while_topics_are_offered_withdraws_them(rig, capfd, cameras):
    points = 'left/points' if cameras else 'points'
    it = with_bad_qos(rig, points, 'publisher', cameras=cameras, autostart=False)
    before = entities(it.node)
    assert it.transition(1) is False
    assert f'{points}.publisher.depth' in capfd.readouterr().err
    assert it.state() == 'unconfigured'
    assert entities(it.node) == before
