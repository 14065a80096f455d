"""What exists while the node is active: subscriptions, slot, worker, and a watch on them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from depth_node import camera
from depth_node.newest import Newest
from depth_node.newest import StampOrder
from depth_node.ros.cameras import Cameras
from depth_node.ros.images import Arrival
from depth_node.ros.images import Images
from depth_node.ros.images import name_of
from depth_node.ros.outputs import Outputs
from depth_node.ros.remarks import Remarks
from depth_node.ros.worker import Worker

if TYPE_CHECKING:
    from depth_node.pipeline import Pipeline

EXIT_HUNG = 4


class Stream:
    """From the image topic to the outputs; begins when made, ends with :meth:`close`."""

    def __init__(
        self,
        node: Any,
        pipeline: Pipeline,
        outputs: Outputs,
        order: StampOrder,
        remarks: Remarks,
    ) -> None:
        """Subscribe and start the worker.

        :param node: a rclpy node that is a :class:`depth_node.ros.worker.Host` too.
        """
        self._node = node
        self._remarks = remarks
        self._health = remarks.health
        self._health.watch()
        self._slot: Newest[Arrival] = Newest()
        chosen = node.settings.input
        rectified = camera.is_named_rectified(str(node.resolve_topic_name(name_of(chosen))))
        # Cameras first: of messages that are ready together the executor mostly takes that of the
        # first subscription, and the first image needs its camera.
        self._cameras = Cameras(
            node, remarks, chosen.rectify, rectified, lambda: node.settings.camera
        )
        self._images = Images(node, lambda: node.settings, self._slot, outputs.wanted, remarks)
        self._worker = Worker(node, pipeline, self._slot, self._cameras, outputs, order, remarks)
        self._worker.start()

    def close(self, within_s: float) -> bool:
        """Unsubscribe and end the worker after the image in work.

        :param within_s: longest wait for the worker, seconds.
        :returns: False when the worker is still busy.
        """
        self._images.close()
        self._cameras.close()
        if self._slot.close():
            self._health.dropped('inactive')
        return self._worker.join(within_s)

    def watch(self) -> None:
        """Look after publishers that change, topics that are silent, and a worker that hangs."""
        self._images.follow_publishers()
        self._cameras.follow_publishers()
        settings = self._node.settings
        report = self._health.report(settings.input.max_age_s)
        if report.hung:
            self._node.give_up(EXIT_HUNG, f'the engine hangs: {report.text}')
        timeout_s = settings.node.input_timeout_s
        if report.silence_s > timeout_s:
            self._warn_of_silence('image', self._images.topic, report.silence_s)
        watched_s = self._health.watched_s()
        if self._cameras.source() == 'none' and watched_s > timeout_s:
            self._warn_of_silence('camera_info', self._cameras.topic, watched_s)

    def facts(self) -> dict[str, str]:
        """Return what comes in, how it is delivered, and from where the camera is known.

        None of it is a figure that always changes: a change is published at once.
        """
        delivery = 'reliable' if self._images.reliable else 'best effort'
        return {
            'input': f'{self._images.topic}, {delivery}',
            'camera_info': self._cameras.description(),
            'intrinsics from': self._cameras.source(),
        }

    def figures(self) -> dict[str, str]:
        """Return what changes all the time."""
        return {'camera_info age (s)': self._cameras.age()}

    def _warn_of_silence(self, name: str, topic: str, silence_s: float) -> None:
        """Name a silent topic and its publishers."""
        count = self._node.count_publishers(topic)
        self._remarks.remind(
            f'silent_{name}',
            f'no usable {name} on {topic} for {silence_s:.1f} s; publishers of it: {count}',
        )
