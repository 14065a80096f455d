"""The camera that belongs to an image: the last good camera_info, and its view made once."""

from __future__ import annotations

import dataclasses
from typing import Any

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from depth_node import camera
from depth_node.camera import CameraView
from depth_node.errors import CameraRejected
from depth_node.errors import Rejected
from depth_node.errors import quoted
from depth_node.frames import CameraFields
from depth_node.ros import messages
from depth_node.ros import qos
from depth_node.ros.remarks import Remarks

NO_CAMERA_INFO = 'no_camera_info'
# A message that begins with a header: 4 bytes of encapsulation, then the stamp, twice 4 bytes.
_STAMP_END = 12


class Cameras:
    """Listens to camera_info on the executor's thread, serves views to the worker's."""

    def __init__(self, node: Node, remarks: Remarks, rectify: str, rectified_input: bool) -> None:
        """Subscribe.

        :param rectify: the parameter input.rectify.
        :param rectified_input: True when the name of the image topic says that it is rectified.
        """
        self._node = node
        self._remarks = remarks
        self._rectify = rectify
        self._rectified_input = rectified_input
        self._fields: CameraFields | None = None
        self._content = b''
        self._cached: tuple[CameraFields, int, int, CameraView] | None = None
        self._topic = str(node.resolve_topic_name('camera_info'))
        self._subscriptions = [self._subscribe(reliable=False, latched=False)]
        self._hears_latched = False
        self.follow_publishers()

    @property
    def topic(self) -> str:
        """Return the resolved name of the topic."""
        return self._topic

    @property
    def known(self) -> bool:
        """Tell whether a usable camera_info has come."""
        return self._fields is not None

    def description(self) -> str:
        """Return the state of camera_info in words."""
        fields = self._fields
        if fields is None:
            return f'none on {self.topic}'
        lens = fields.distortion_model if any(fields.d) else 'no distortion'
        return f'{fields.width}x{fields.height}, {quoted(lens)}, frame {quoted(fields.frame_id)}'

    def view(self, width: int, height: int, frame_id: str) -> CameraView:
        """Return how an image of this size is to be looked at.

        :raises CameraRejected: when no camera_info has come, or it does not explain the size.
        """
        fields = self._fields
        if fields is None:
            raise CameraRejected(
                NO_CAMERA_INFO,
                f'camera_info on {self.topic}',
                'no usable message',
                'one before the image',
                'Depth in metres needs the focal length.',
            )
        if fields.frame_id != frame_id:
            self._remarks.warn(
                'frame_id',
                f'camera_info has frame_id {quoted(fields.frame_id)} and the image '
                f'{quoted(frame_id)}; the one of the image is published',
            )
        cached = self._cached
        if cached is None or cached[:3] != (fields, width, height):
            cached = (fields, width, height, self._view_of(fields, width, height))
            self._cached = cached
        return cached[3]

    def follow_publishers(self) -> None:
        """Subscribe a second time once a publisher latches its messages.

        A volatile reader never sees what was latched before it came; a transient-local one does
        not match a sender that does not latch, and makes that sender log a warning.
        """
        if not self._hears_latched and qos.latched_anywhere(
            self._node.get_publishers_info_by_topic(self._topic)
        ):
            self._hears_latched = True
            self._subscriptions.append(self._subscribe(reliable=True, latched=True))

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _subscribe(self, *, reliable: bool, latched: bool) -> Any:
        """Make one of the two subscriptions."""
        return self._node.create_subscription(
            CameraInfo,
            'camera_info',
            self._receive,
            qos.newest(reliable=reliable, latched=latched),
            qos_overriding_options=qos.input_overrides('latched' if latched else None),
            raw=True,
        )

    def _receive(self, data: bytes) -> None:
        """Keep a good message; a bad one leaves the last good one in force.

        :param data: serialized.  It comes with every image, at the moment at which the worker has
            most to do, and is nearly always the same but for its stamp: then it is not unpacked.
        """
        content = data[_STAMP_END:]
        if content == self._content:
            return
        message = deserialize_message(data, CameraInfo)
        fields = dataclasses.replace(messages.camera_fields(message), stamp_ns=0)
        try:
            camera.check_fields(fields)
        except Rejected as error:
            self._remarks.camera_rejected(error)
            return
        self._fields, self._content = fields, content

    def _view_of(self, fields: CameraFields, width: int, height: int) -> CameraView:
        """Apply the parameter input.rectify."""
        return camera.chosen_view(fields, width, height, self._rectify, self._rectified_input)
