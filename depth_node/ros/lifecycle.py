"""What rclpy's lifecycle node lacks: surviving mistakes and failures, and many cycles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode

ROS_ERRORS = (rclpy_implementation.RCLError, rclpy_implementation.UnknownROSArgsError)
"""What rclpy raises, already in words, for a file or an argument that it cannot read."""


def survive_illegal_transitions(node: LifecycleNode) -> None:
    """Answer an illegal request, such as configure while active, with 'no'.

    rclpy lets the error of such a request out of the service's callback, which ends ``spin``.
    """
    service = node._service_change_state
    change_state = service.callback

    def change_state_or_refuse(request: Any, response: Any) -> Any:
        try:
            return change_state(request, response)
        except rclpy_implementation.RCLError as error:
            if not node.context.ok():
                raise
            node.get_logger().warning(f'lifecycle request refused: {error}')
            response.success = False
            return response

    service.callback = change_state_or_refuse


@contextmanager
def all_or_none(node: LifecycleNode) -> Iterator[None]:
    """Let no publisher and no subscription stay of several of which one cannot be made."""
    publishers, subscriptions = tuple(node.publishers), tuple(node.subscriptions)
    try:
        yield
    except Exception:
        if node.context.ok():
            for publisher in set(node.publishers).difference(publishers):
                node.destroy_publisher(publisher)
            for subscription in set(node.subscriptions).difference(subscriptions):
                node.destroy_subscription(subscription)
        raise


def forget_destroyed(node: LifecycleNode) -> None:
    """Drop what rclpy keeps of publishers, subscriptions and timers that no longer exist.

    Its callback groups hold a weak reference to each for good: 2 KiB per lifecycle cycle.
    """
    entities = getattr(node.default_callback_group, 'entities', None)
    if isinstance(entities, set):
        entities -= {reference for reference in tuple(entities) if reference() is None}
