"""The image subscription: hands over to the worker's slot, and follows its publishers' offers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from typing import Union

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage as CompressedImageMessage
from sensor_msgs.msg import Image

from depth_node.errors import Rejected
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.health import NO_SUBSCRIBER
from depth_node.health import REPLACED
from depth_node.image_codec import check_raw
from depth_node.newest import StampOrder
from depth_node.ros import messages
from depth_node.ros import qos
from depth_node.ros.remarks import Remarks
from depth_node.settings import InputSettings
from depth_node.settings import Settings

_GIVES_WAY_S = 50e-6


@dataclass(frozen=True)
class Arrival:
    """An image message and when it came."""

    image: Union[RawImage, CompressedImage]
    """Fields of the message, unchecked beyond what :func:`image_codec.check_raw` does."""
    arrived_ns: int
    """Monotonic clock."""
    era: int
    """Of the order of stamps, when it came."""


def name_of(chosen: InputSettings) -> str:
    """Return the name of the image topic before it is remapped."""
    return 'image/compressed' if chosen.transport == 'compressed' else 'image'


class Images:
    """One image topic; its callbacks only hand over."""

    def __init__(
        self,
        node: Node,
        settings: Callable[[], Settings],
        put: Callable[[Arrival], bool],
        wanted: Callable[[], bool],
        remarks: Remarks,
        order: StampOrder,
        prefix: str = '',
    ) -> None:
        """Subscribe.

        :param settings: returns the settings in force.
        :param put: takes images; returns True when one got lost by this.
        :param wanted: tells whether anybody listens to the results.
        :param order: of the stamps of this camera.
        :param prefix: what stands before the name of the topic.
        """
        self._node = node
        self._settings = settings
        self._put = put
        self._order = order
        self._wanted = wanted
        self._health = remarks.health
        self._remarks = remarks
        chosen = settings().input
        self._compressed = chosen.transport == 'compressed'
        self._follows = chosen.reliability == 'auto'
        self._name = prefix + name_of(chosen)
        self._topic = str(node.resolve_topic_name(self._name))
        self._reliable: bool = chosen.reliability == 'reliable' or (
            self._follows and qos.reliable_everywhere(self._publishers())
        )
        self._subscription = self._subscribe()

    @property
    def topic(self) -> str:
        """Return the resolved name of the topic."""
        return self._topic

    @property
    def reliable(self) -> bool:
        """Tell whether reliable delivery is asked for at present."""
        return self._reliable

    def follow_publishers(self) -> None:
        """Subscribe anew when what the publishers offer has changed."""
        publishers = self._publishers() if self._follows else []
        if publishers and qos.reliable_everywhere(publishers) != self._reliable:
            self._node.destroy_subscription(self._subscription)
            self._reliable = not self._reliable
            self._subscription = self._subscribe()

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _publishers(self) -> list[Any]:
        """Return what is known of the publishers of the topic."""
        return list(self._node.get_publishers_info_by_topic(self._topic))

    def _subscribe(self) -> Any:
        """Make the subscription with the reliability in force."""
        return self._node.create_subscription(
            CompressedImageMessage if self._compressed else Image,
            self._name,
            self._receive_compressed if self._compressed else self._receive_raw,
            qos.newest(reliable=self._reliable),
            qos_overriding_options=qos.input_overrides(),
        )

    def _receive_raw(self, message: Image) -> None:
        """Check the fields against each other, then hand over."""
        self._health.received()
        image = messages.raw_image(message)
        try:
            check_raw(image, self._settings().input.max_pixels)
        except Rejected as error:
            self._remarks.dropped(error)
            return
        self._hand_over(image)

    def _receive_compressed(self, message: CompressedImageMessage) -> None:
        """Hand over; the worker finds out whether the bytes are an image."""
        self._health.received()
        self._hand_over(messages.compressed_image(message))

    def _hand_over(self, image: RawImage | CompressedImage) -> None:
        """Put an image into the slot if anybody wants its depth."""
        if not self._wanted():
            self._health.dropped(NO_SUBSCRIBER)
            return
        if self._put(Arrival(image, time.monotonic_ns(), self._order.era)):
            self._health.dropped(REPLACED)
        # The worker has woken up and waits for the interpreter's lock, which this thread would
        # keep until its executor sleeps again: a third of a millisecond of the age of the depth.
        time.sleep(_GIVES_WAY_S)
