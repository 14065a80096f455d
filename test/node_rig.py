"""The real node with a scripted pipeline, and a peer that plays camera and consumer over DDS."""

from __future__ import annotations

import itertools
import random
import threading
import time
from array import array

import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import ExternalShutdownException
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from scripted_pipeline import ScriptedPipeline
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2

from depth_node.ros.lifecycle_node import DepthNode

DOMAIN = random.SystemRandom().randrange(1, 101)
WIDTH, HEIGHT = 64, 48
NUMBERS = itertools.count()


@pytest.fixture
def private_network(monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(DOMAIN))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    monkeypatch.setenv('RCUTILS_LOGGING_BUFFERED_STREAM', '0')


def image_message(stamp_ns, **changes):
    message = Image(height=HEIGHT, width=WIDTH, encoding='rgb8', step=WIDTH * 3)
    message.header.frame_id = 'camera_optical_frame'
    message.header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    message.data = array('B', bytes(WIDTH * HEIGHT * 3))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def camera_message(**changes):
    message = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model='plumb_bob')
    message.header.frame_id = 'camera_optical_frame'
    message.d = [0.0] * 5
    message.k = [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [50.0, 0.0, 31.5, 0.0, 0.0, 50.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def stamp_of(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


class Log:
    """Takes the place of the node's logger."""

    def __init__(self):
        self.lines = []

    def warning(self, text):
        self.lines.append(text)

    def __contains__(self, text):
        return any(text in line for line in self.lines)


class Rig:
    """The real node in a thread, and a peer that plays camera and consumer over DDS."""

    def __init__(
        self, steps=('ok',), autostart=True, kind='metric', open_pipeline=None, **parameters
    ):
        # Of its own, because DDS forgets the nodes of the test before only after a while.
        self.namespace = f'/test_{next(NUMBERS)}'
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.pipeline = ScriptedPipeline(steps, kind)
        self.node = DepthNode(
            open_pipeline or self.pipeline.open,
            context=self.context,
            namespace=self.namespace,
            parameter_overrides=[
                Parameter(name, value=value) for name, value in parameters.items()
            ],
        )
        self.log = Log()
        for channel in self.node._channels:
            channel.remarks._logger = self.log
        self.peer = rclpy.create_node('peer', context=self.context, namespace=self.namespace)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.peer)
        self.clients = {}
        self.depth, self.relative, self.infos, self.clouds = [], [], [], []
        self.diagnostics = []
        self.images = self.peer.create_publisher(Image, 'image', 1)
        self.cameras = self.peer.create_publisher(CameraInfo, 'camera_info', 1)
        self.stamp_ns = 5 * 10**9
        self.started = self.node.autostart() if autostart else None
        self._node_executor = SingleThreadedExecutor(context=self.context)
        self._node_executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin_node, daemon=True)
        self._thread.start()

    @property
    def channel(self):
        """The one camera, or the first."""
        return self.node._channels[0]

    def listen(self, points=False):
        """Subscribe to image and camera, and to the points; wait until the node knows."""
        self.peer.create_subscription(Image, 'depth/image_rect', self.depth.append, 10)
        self.peer.create_subscription(Image, 'depth/relative', self.relative.append, 10)
        self.peer.create_subscription(CameraInfo, 'depth/camera_info', self.infos.append, 10)
        if points:
            self.peer.create_subscription(PointCloud2, 'points', self.clouds.append, 10)
        outputs = self.channel.outputs
        heard = [outputs._image, outputs._camera_info, *([outputs._points] if points else [])]
        self.wait(lambda: all(publisher.get_subscription_count() for publisher in heard))
        self.wait(lambda: self.images.get_subscription_count())
        return self

    def listen_to_diagnostics(self):
        """Subscribe to the health; wait until the node knows: tests time the node alone."""
        self.peer.create_subscription(DiagnosticArray, '/diagnostics', self.diagnostics.append, 10)
        self.wait(lambda: self.node._diagnostics.get_subscription_count())
        return self

    def give_camera(self, **changes):
        self.wait(lambda: self.cameras.get_subscription_count())
        self.cameras.publish(camera_message(**changes))
        self.wait(lambda: self.channel.inputs.cameras.known)
        return self

    def ready(self):
        return self.listen().give_camera()

    def wait(self, condition, timeout_s=5.0):
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f'{self.report()}, log: {self.log.lines}')
            self.executor.spin_once(timeout_sec=0.01)

    def send(self, **changes):
        """Publish one image, newer than the last; wait until the node has counted it."""
        self.stamp_ns += 33_000_000
        self.send_message(image_message(self.stamp_ns, **changes))
        return self.stamp_ns

    def send_message(self, message, publisher=None):
        before = self.report().received
        (publisher or self.images).publish(message)
        self.wait(lambda: self.report().received > before and self.report().pending == 0)

    def pump(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.01)

    def wait_for_the_end(self):
        with pytest.raises(ExternalShutdownException):
            self.wait(lambda: False)

    def report(self):
        return self.channel.health.report(0.5)

    def call(self, kind, service, request):
        if service not in self.clients:
            self.clients[service] = self.peer.create_client(kind, service)
        client = self.clients[service]
        self.wait(client.service_is_ready)
        future = client.call_async(request)
        self.wait(future.done)
        return future.result()

    def transition(self, identity):
        request = ChangeState.Request()
        request.transition.id = identity
        return self.call(ChangeState, 'depth_node/change_state', request).success

    def state(self):
        return self.call(GetState, 'depth_node/get_state', GetState.Request()).current_state.label

    def set(self, **values):
        request = SetParametersAtomically.Request()
        request.parameters = [
            Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
            for name, value in values.items()
        ]
        return self.call(
            SetParametersAtomically, 'depth_node/set_parameters_atomically', request
        ).result

    def close(self):
        self.pipeline.released.set()
        self._node_executor.shutdown()
        self._thread.join(5)
        self.node.close()
        for node in (self.node, self.peer):
            node.destroy_node()
        self.context.try_shutdown()
        ours = ('depth worker', 'engine upgrade')
        assert not [thread for thread in threading.enumerate() if thread.name in ours]

    def _spin_node(self):
        try:
            self._node_executor.spin()
        except ExternalShutdownException:
            pass
        except Exception:
            if self.context.ok():
                raise


@pytest.fixture
def rig(private_network):
    rigs = []

    def make(*steps, **options):
        rigs.append(Rig(steps or ('ok',), **options))
        return rigs[-1]

    yield make
    for made in rigs:
        made.close()
