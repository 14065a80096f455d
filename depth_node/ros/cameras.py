"""The camera that belongs to an image: the last good camera_info, and its view made once.

It is the last one with the frame_id of the image; where none has that, the last one of all.

Until a usable camera_info has come the parameters camera.intrinsics and camera.horizontal_fov_deg
stand in for it, from the first image on; from then on camera_info counts alone.  Where there are
none either, models that need no focal length see a camera without intrinsics.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from depth_node import camera
from depth_node.camera import CameraView
from depth_node.camera import assumed
from depth_node.camera import has_distortion
from depth_node.camera.info import UNCALIBRATED
from depth_node.errors import CameraRejected
from depth_node.errors import Rejected
from depth_node.errors import quoted
from depth_node.frames import CameraFields
from depth_node.ros import messages
from depth_node.ros import qos
from depth_node.ros import serialized
from depth_node.ros.remarks import Remarks
from depth_node.settings import CameraSettings

NO_CAMERA_INFO = 'no_camera_info'
_UNREADABLE = 'camera_message'
_FRAME_IDS = 16
_VIEWS = 4


class Cameras:
    """Listens to camera_info on the executor's thread, serves views to the worker's."""

    def __init__(
        self,
        node: Node,
        remarks: Remarks,
        rectify: str,
        rectified_input: bool,
        settings: Callable[[], CameraSettings] = CameraSettings,
        *,
        prefix: str = '',
        came: Callable[[], object] = lambda: None,
    ) -> None:
        """Subscribe.

        :param rectify: the parameter input.rectify.
        :param rectified_input: True when the name of the image topic says that it is rectified.
        :param settings: returns the parameters that stand in for camera_info.
        :param prefix: what stands before the name of the topic.
        :param came: called when the first usable camera_info has come.
        """
        self._node = node
        self._remarks = remarks
        self._rectify = rectify
        self._rectified_input = rectified_input
        self._settings = settings
        self._assumed = assumed.AssumedCamera()
        self._told_fov = False
        self._told_frames: tuple[str, str] | None = None
        self._other_frame: str | None = None
        self._uncalibrated = False
        self._fields: CameraFields | None = None
        self._content = b''
        self._heard_ns = 0
        self._of_frames: dict[str, CameraFields] = {}
        self._views: dict[tuple[CameraFields, int, int], CameraView] = {}
        self._came = came
        self._name = f'{prefix}camera_info'
        self._topic = str(node.resolve_topic_name(self._name))
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

    def awaited(self) -> bool:
        """Tell whether a camera_info may be on its way that an image should wait for.

        Where parameters stand in for it, only a publisher makes that likely.
        """
        if self._fields is not None:
            return False
        return self.source() == 'none' or self._node.count_publishers(self._topic) > 0

    def source(self) -> str:
        """Name where the intrinsics come from: 'camera_info', a parameter, or 'none'."""
        if self._fields is not None:
            return 'camera_info'
        return assumed.source_of(self._settings()) or 'none'

    def age(self) -> str:
        """Return how long ago the last usable camera_info came, seconds; '' for never."""
        if self._fields is None:
            return ''
        return f'{(time.monotonic_ns() - self._heard_ns) / 1e9:.1f}'

    def description(self) -> str:
        """Return the state of camera_info in words."""
        fields = self._fields
        if fields is None:
            return f'{"not calibrated" if self._uncalibrated else "none"} on {self.topic}'
        lens = fields.distortion_model if any(fields.d) else 'no distortion'
        other = self._other_frame
        images = '' if other is None else f', but that of images is {quoted(other)}'
        return (
            f'{fields.width}x{fields.height}, {quoted(lens)}, '
            f'frame {quoted(fields.frame_id)}{images}'
        )

    def view(self, width: int, height: int, frame_id: str, *, needed: bool = True) -> CameraView:
        """Return how an image of this size is to be looked at.

        :param needed: False where an image is of use without intrinsics.
        :raises CameraRejected: when a camera is needed and none is known, or it does not explain
            the size.
        """
        # Read once: a camera_info that comes meanwhile counts from the next image on.
        fields = self._of_frames.get(frame_id, self._fields)
        if fields is None:
            if not needed and self.source() == 'none':
                return assumed.unknown_view(width, height)
            fields = self._assumed_fields(width, height, frame_id)
        else:
            self._other_frame = frame_id if fields.frame_id != frame_id else None
            if self._other_frame is not None:
                self._tell_frames(fields.frame_id, frame_id)
        key = (fields, width, height)
        view = self._views.get(key)
        if view is None:
            view = self._view_of(fields, width, height)
            self._views = {**dict(list(self._views.items())[1 - _VIEWS :]), key: view}
        return view

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
            self._name,
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
        content = serialized.without_stamp(data)
        if content == self._content and content:
            self._heard_ns = time.monotonic_ns()
            return
        try:
            fields = _unpacked(data)
            camera.check_fields(fields)
        except Rejected as error:
            if error.reason == UNCALIBRATED and self._fields is None:
                self._uncalibrated = True
                if assumed.source_of(self._settings()):
                    return  # as expected: the parameters are there for this
            self._remarks.camera_rejected(error)
            return
        others = {name: item for name, item in self._of_frames.items() if name != fields.frame_id}
        # Never changed in place: the worker reads it.
        self._of_frames = {
            **dict(list(others.items())[1 - _FRAME_IDS :]),
            fields.frame_id: fields,
        }
        first = self._fields is None
        self._fields, self._content = fields, content
        self._heard_ns = time.monotonic_ns()
        if first:
            self._came()

    def _assumed_fields(self, width: int, height: int, frame_id: str) -> CameraFields:
        """Return the camera that the parameters describe; a guess is told once.

        :raises CameraRejected: when they describe none, or not that of such an image.
        """
        chosen = self._settings()
        fields = self._assumed.fields(chosen, width, height, frame_id)
        if fields is None:
            raise CameraRejected(
                NO_CAMERA_INFO,
                f'camera_info on {self.topic}',
                'no usable message',
                'one before the image',
                'Depth in metres needs the focal length; without a calibration set '
                'camera.intrinsics or camera.horizontal_fov_deg.',
            )
        if assumed.source_of(chosen) == assumed.FROM_FOV and not self._told_fov:
            self._told_fov = True
            self._remarks.warn(
                'guessed_intrinsics',
                f'no usable camera_info on {self.topic}: the intrinsics are guessed from '
                f'camera.horizontal_fov_deg = {chosen.horizontal_fov_deg:g}, which holds for a '
                'centred lens without distortion; calibrate the camera for better depth',
            )
        return fields

    def _tell_frames(self, of_camera: str, of_image: str) -> None:
        """Say once, until they change, that two frame_ids differ."""
        if self._told_frames != (of_camera, of_image):
            self._told_frames = (of_camera, of_image)
            self._remarks.warn(
                'frame_id',
                f'camera_info has frame_id {quoted(of_camera)} and the image '
                f'{quoted(of_image)}; the one of the image is published',
            )

    def _view_of(self, fields: CameraFields, width: int, height: int) -> CameraView:
        """Apply the parameter input.rectify; comes here once per camera and size."""
        if self._rectify == 'never' and not self._rectified_input and has_distortion(fields):
            self._remarks.warn(
                'distorted',
                'images are used as the lens bends them, because input.rectify is never: depth '
                'and points are off towards the edges',
            )
        return camera.chosen_view(fields, width, height, self._rectify, self._rectified_input)


def _unpacked(data: bytes) -> CameraFields:
    """Unpack a serialized message; its stamp is left out, so that equal cameras are equal.

    :raises CameraRejected: for bytes that are no such message: a sender with another definition of
        it, or a damaged recording.
    """
    try:
        message = deserialize_message(data, CameraInfo)
    except Exception as error:  # of several kinds, which differ between ROS distributions
        raise CameraRejected(
            _UNREADABLE,
            'camera_info',
            f'{len(data)} bytes that cannot be unpacked ({quoted(str(error))})',
            'a sensor_msgs/CameraInfo',
        ) from None
    return dataclasses.replace(messages.camera_fields(message), stamp_ns=0)
