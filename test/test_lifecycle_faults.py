"""What goes wrong in a transition is told, leaves nothing behind and takes nothing from a worker."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy')

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
