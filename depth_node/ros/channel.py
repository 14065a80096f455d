"""One camera of the node: its topics in and out, the order of its images, and how it is doing.

A node without names of cameras has one channel, whose name is empty.  Engine and worker belong to
no channel: all share them.
"""

from __future__ import annotations

from typing import Any

from depth_node import camera
from depth_node.health import Health
from depth_node.health import Report
from depth_node.health import State
from depth_node.model_folder import ModelCard
from depth_node.newest import NewestOfEach
from depth_node.newest import StampOrder
from depth_node.ros.cameras import Cameras
from depth_node.ros.images import Arrival
from depth_node.ros.images import Images
from depth_node.ros.images import name_of
from depth_node.ros.outputs import Outputs
from depth_node.ros.outputs import outputs_for
from depth_node.ros.remarks import Remarks

_FIRST_CAMERA_S = 0.05
"""How long the first image waits for its camera_info: of two messages that are ready together an
executor may take the image first."""


class Channel:
    """Lasts as long as the node has this camera.

    It has outputs while the node is configured, and inputs while it is active.

    :param name: of the camera; empty where the node has but one.
    """

    def __init__(self, name: str, logger: Any) -> None:
        self.name = name
        self.health = Health()
        self.order = StampOrder()
        self.remarks = Remarks(logger, self.health, name)
        self.outputs: Outputs | None = None
        self.inputs: Inputs | None = None

    @property
    def prefix(self) -> str:
        """Return what stands before the names of its topics."""
        return f'{self.name}/' if self.name else ''

    def offer(self, node: Any, card: ModelCard) -> None:
        """Offer the topics of what a model gives."""
        self.outputs = outputs_for(node, card, self.prefix)

    def withdraw(self) -> None:
        """Withdraw the topics, if any are offered."""
        outputs, self.outputs = self.outputs, None
        if outputs is not None:
            outputs.close()

    def facts(self) -> dict[str, str]:
        """Return what is known of the inputs; empty while there are none."""
        inputs = self.inputs
        return {**inputs.facts(), **inputs.figures()} if inputs is not None else {}

    def state(self, stale_after_s: float) -> tuple[State, dict[str, str]]:
        """Return what is to be shown at once when it changes."""
        facts = self.inputs.facts() if self.inputs is not None else {}
        return self.health.state(stale_after_s), facts


class Inputs:
    """The subscriptions of an active channel; they hand over to its slot."""

    def __init__(
        self, node: Any, channel: Channel, slots: NewestOfEach[Arrival], slot: int
    ) -> None:
        """Subscribe.

        :param slots: where images go.
        :param slot: which of them is this camera's.
        :raises RuntimeError: when the channel has no outputs.
        """
        if channel.outputs is None:
            raise RuntimeError('a channel is subscribed to after it was configured')
        self.outputs = channel.outputs
        self._node = node
        self._health, self._remarks = channel.health, channel.remarks
        self._slots, self._slot = slots, slot
        self._waited = False
        self._health.watch()
        chosen = node.settings.input
        name = channel.prefix + name_of(chosen)
        rectified = camera.is_named_rectified(str(node.resolve_topic_name(name)))
        # Cameras first: of messages that are ready together the executor mostly takes that of the
        # first subscription, and the first image needs its camera.
        self.cameras = Cameras(
            node,
            channel.remarks,
            chosen.rectify,
            rectified,
            lambda: node.settings.camera,
            prefix=channel.prefix,
            came=lambda: slots.release(slot),
        )
        self.images = Images(
            node,
            lambda: node.settings,
            self._put,
            self.outputs.wanted,
            channel.remarks,
            channel.order,
            channel.prefix,
        )

    def close(self) -> None:
        """Unsubscribe."""
        self.images.close()
        self.cameras.close()

    def watch(self) -> Report:
        """Look after publishers that change and topics that are silent; return the health."""
        self.images.follow_publishers()
        self.cameras.follow_publishers()
        settings = self._node.settings
        report = self._health.report(settings.input.max_age_s)
        timeout_s = settings.node.input_timeout_s
        if report.silence_s > timeout_s:
            self._warn_of_silence('image', self.images.topic, report.silence_s)
        watched_s = self._health.watched_s()
        if self.cameras.source() == 'none' and watched_s > timeout_s:
            self._warn_of_silence('camera_info', self.cameras.topic, watched_s)
        return report

    def facts(self) -> dict[str, str]:
        """Return what comes in, how it is delivered, and from where the camera is known.

        None of it is a figure that always changes: a change is published at once.
        """
        delivery = 'reliable' if self.images.reliable else 'best effort'
        return {
            'input': f'{self.images.topic}, {delivery}',
            'camera_info': self.cameras.description(),
            'intrinsics from': self.cameras.source(),
        }

    def figures(self) -> dict[str, str]:
        """Return what changes all the time."""
        return {'camera_info age (s)': self.cameras.age()}

    def _put(self, arrival: Arrival) -> bool:
        """Put an image into the slot; the first one waits a moment for its camera."""
        if not self._waited:
            self._waited = True
            if self.cameras.awaited():
                max_age_s = self._node.settings.input.max_age_s
                self._slots.hold(self._slot, min(_FIRST_CAMERA_S, max_age_s / 2))
        return self._slots.put(arrival, self._slot)

    def _warn_of_silence(self, name: str, topic: str, silence_s: float) -> None:
        """Name a silent topic and its publishers."""
        count = self._node.count_publishers(topic)
        self._remarks.remind(
            f'silent_{name}',
            f'no usable {name} on {topic} for {silence_s:.1f} s; publishers of it: {count}',
        )
