"""A node with the topics of the real one and depth that a test can predict; run as a program.

The first argument says how it behaves: 'good', 'relative' (relative inverse depth alone), 'silent'
(subscribes, publishes nothing), 'dies' (ends with status 3 at the first image) or 'absent' (ends
at once).
"""

from __future__ import annotations

import sys
import time
from array import array
from contextlib import suppress

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
from diagnostic_msgs.msg import KeyValue
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2
from sensor_msgs.msg import PointField

FACTOR = 1.1
QOS = QoSProfile(depth=1)


def truth(height: int, width: int) -> np.ndarray:
    """Depth of the test scene, metres."""
    column = np.linspace(1.0, 3.0, width, dtype=np.float32)
    return np.repeat(column[None], height, axis=0)


def relative(height: int, width: int) -> np.ndarray:
    """Relative inverse depth of the test scene; 0 where it is farthest."""
    return np.float32(900.0) * (1 / truth(height, width) - np.float32(1 / 3))


class StandIn(Node):
    def __init__(self, behaviour: str) -> None:
        super().__init__('stand_in')
        self.behaviour = behaviour
        self.camera = None
        self.received = 0
        self.relative = behaviour == 'relative'
        topic = 'depth/relative' if self.relative else 'depth/image_rect'
        self.depth = self.create_publisher(Image, topic, QOS)
        self.info = self.create_publisher(CameraInfo, 'depth/camera_info', QOS)
        if not self.relative:
            self.points = self.create_publisher(PointCloud2, 'points', QOS)
        self.diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', QOS)
        self.create_subscription(Image, 'image', self.receive, QOS)
        self.create_subscription(CameraInfo, 'camera_info', self.remember, QOS)
        self.create_timer(0.1, self.report)

    def remember(self, message: CameraInfo) -> None:
        self.camera = message

    def receive(self, image: Image) -> None:
        self.received += 1
        if self.behaviour == 'dies':
            sys.stderr.write('the engine has exploded\n')
            raise SystemExit(3)
        if self.behaviour == 'silent' or self.received % 4 == 0:
            return
        if self.relative:
            values = relative(image.height, image.width)
        else:
            values = truth(image.height, image.width) * np.float32(FACTOR)
        values[0] = np.nan
        message = Image(height=image.height, width=image.width, encoding='32FC1')
        message.header, message.step = image.header, 4 * image.width
        message.data = array('B', values.tobytes())
        self.depth.publish(message)
        if self.camera is not None:
            self.camera.header = image.header
            self.info.publish(self.camera)
        if not self.relative:
            self.points.publish(cloud(image, values))

    def report(self) -> None:
        pairs = {
            'images received': str(self.received),
            'dropped: too_old': str(self.received // 4),
            'engine': 'none at all',
        }
        status = DiagnosticStatus(name='stand_in: depth')
        status.values = [KeyValue(key=key, value=value) for key, value in pairs.items()]
        self.diagnostics.publish(DiagnosticArray(status=[status]))


def cloud(image: Image, depth_m: np.ndarray) -> PointCloud2:
    packed = np.zeros((*depth_m.shape, 4), dtype=np.float32)
    packed[..., 0], packed[..., 2] = 0.25, depth_m
    # An opaque alpha makes the bits a NaN when they are read as a float.
    packed.view(np.uint32)[..., 3] = 0xFF0A141E
    fields = (('x', 0), ('y', 4), ('z', 8), ('rgb', 12))
    message = PointCloud2(height=image.height, width=image.width, point_step=16)
    message.header, message.row_step = image.header, 16 * image.width
    message.fields = [
        PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
        for name, offset in fields
    ]
    message.data = array('B', packed.tobytes())
    return message


def main() -> None:
    behaviour = sys.argv[1]
    if behaviour == 'absent':
        sys.stderr.write('no such model\n')
        time.sleep(0.2)
        sys.exit(1)
    rclpy.init()
    with suppress(KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        rclpy.spin(StandIn(behaviour))


if __name__ == '__main__':
    main()
