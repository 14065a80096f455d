"""How topics are delivered, and why; overridable by QoS override parameters."""

from __future__ import annotations

from collections.abc import Iterable

from rclpy.duration import Duration
from rclpy.qos import QoSDurabilityPolicy
from rclpy.qos import QoSHistoryPolicy
from rclpy.qos import QoSPolicyKind
from rclpy.qos import QoSProfile
from rclpy.qos import QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.topic_endpoint_info import TopicEndpointInfo


def newest(*, reliable: bool, latched: bool = False) -> QoSProfile:
    """Return a profile that keeps the last message only.

    :param reliable: repair losses (a reader of this kind does not match best-effort senders).
    :param latched: transient local: a late reader gets the last message of a sender that latches.
    """
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=(
            QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT
        ),
        durability=(
            QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE
        ),
    )


def of_frames(lifespan_s: float) -> QoSProfile:
    """Return the profile of what is made of images: the last one, reliable, for a short time.

    Readers need not ask for a lifespan to match.  With Fast DDS it ends the sender's repairs of
    what a reader has not got; a reader's own queue obeys the lifespan that the reader sets.

    :param lifespan_s: of a message, seconds by the clock of DDS: simulated time is without effect.
    """
    profile = newest(reliable=True)
    profile.lifespan = Duration(nanoseconds=round(lifespan_s * 1e9))
    return profile


def output_overrides() -> QoSOverridingOptions:
    """Let a publisher's history, depth, reliability, durability and lifespan be parameters."""
    return QoSOverridingOptions(
        (
            QoSPolicyKind.HISTORY,
            QoSPolicyKind.DEPTH,
            QoSPolicyKind.RELIABILITY,
            QoSPolicyKind.DURABILITY,
            QoSPolicyKind.LIFESPAN,
        )
    )


def input_overrides(entity_id: str | None = None) -> QoSOverridingOptions:
    """Let history and depth of a subscription be set by parameters.

    Its reliability belongs to the parameter input.reliability: a read-only override would keep
    the node from following its publishers.

    :param entity_id: tells subscriptions of one topic apart.
    """
    return QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH), entity_id=entity_id)


def reliable_everywhere(publishers: Iterable[TopicEndpointInfo]) -> bool:
    """Tell whether there are publishers and each of them offers reliable delivery."""
    offers = [publisher.qos_profile.reliability for publisher in publishers]
    return bool(offers) and all(offer == QoSReliabilityPolicy.RELIABLE for offer in offers)


def latched_anywhere(publishers: Iterable[TopicEndpointInfo]) -> bool:
    """Tell whether a publisher keeps its last message for late readers."""
    return any(
        publisher.qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
        for publisher in publishers
    )
