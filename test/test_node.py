from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from array import array
from pathlib import Path

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import ExternalShutdownException
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from scripted_pipeline import ScriptedPipeline
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2

from depth_node import health
from depth_node.ros.node import DepthNode

DOMAIN = random.SystemRandom().randrange(1, 101)
WIDTH, HEIGHT = 64, 48
NUMBERS = itertools.count()
SCRIPT = Path(__file__).with_name('scripted_pipeline.py')
LATCHED = QoSProfile(depth=1, durability=rclpy.qos.DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(autouse=True)
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

    def __init__(self, steps=('ok',), autostart=True, **parameters):
        # Of its own, because DDS forgets the nodes of the test before only after a while.
        self.namespace = f'/test_{next(NUMBERS)}'
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.pipeline = ScriptedPipeline(steps)
        self.node = DepthNode(
            self.pipeline.open,
            context=self.context,
            namespace=self.namespace,
            parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()],
        )
        self.log = self.node._remarks._logger = Log()
        self.peer = rclpy.create_node('peer', context=self.context, namespace=self.namespace)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.peer)
        self.clients = {}
        self.depth, self.infos, self.clouds, self.diagnostics = [], [], [], []
        self.images = self.peer.create_publisher(Image, 'image', 1)
        self.cameras = self.peer.create_publisher(CameraInfo, 'camera_info', 1)
        self.stamp_ns = 5 * 10**9
        self.started = self.node.autostart() if autostart else None
        self._node_executor = SingleThreadedExecutor(context=self.context)
        self._node_executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin_node, daemon=True)
        self._thread.start()

    def listen(self, points=False):
        self.peer.create_subscription(Image, 'depth/image_rect', self.depth.append, 10)
        self.peer.create_subscription(CameraInfo, 'depth/camera_info', self.infos.append, 10)
        if points:
            self.peer.create_subscription(PointCloud2, 'points', self.clouds.append, 10)
        outputs = self.node._outputs
        heard = [outputs._depth, outputs._camera_info, *([outputs._points] if points else [])]
        self.wait(lambda: all(publisher.get_subscription_count() for publisher in heard))
        self.wait(lambda: self.images.get_subscription_count())
        return self

    def listen_to_diagnostics(self):
        self.peer.create_subscription(
            DiagnosticArray, '/diagnostics', self.diagnostics.append, 10
        )
        return self

    def give_camera(self, **changes):
        self.wait(lambda: self.cameras.get_subscription_count())
        self.cameras.publish(camera_message(**changes))
        self.wait(lambda: self.node._stream._cameras.known)
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
        return self.node._health.report(0.5)

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
        assert not [thread for thread in threading.enumerate() if thread.name == 'depth worker']

    def _spin_node(self):
        try:
            self._node_executor.spin()
        except ExternalShutdownException:
            pass
        except Exception:
            if self.context.ok():
                raise


@pytest.fixture
def rig():
    rigs = []

    def make(*steps, **options):
        rigs.append(Rig(steps or ('ok',), **options))
        return rigs[-1]

    yield make
    for made in rigs:
        made.close()


# ---- the way of a good image


def test_depth_camera_and_points_come_with_stamp_and_frame_of_the_image(rig):
    it = rig().listen(points=True).give_camera()
    stamp_ns = it.send()
    it.wait(lambda: it.depth and it.infos and it.clouds)
    for message in (it.depth[0], it.infos[0], it.clouds[0]):
        assert stamp_of(message) == stamp_ns
        assert message.header.frame_id == 'camera_optical_frame'
    depth = np.frombuffer(it.depth[0].data, np.float32).reshape(HEIGHT, WIDTH)
    assert it.depth[0].encoding == '32FC1'
    assert np.isnan(depth[0, 0]) and np.all(depth.ravel()[1:] == 2.0)
    assert list(it.infos[0].k) == [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
    assert (it.clouds[0].width, it.clouds[0].height) == (WIDTH, HEIGHT)
    assert len(it.clouds[0].data) == WIDTH * HEIGHT * it.clouds[0].point_step
    assert it.report().published == 1


def test_a_compressed_image_is_decoded_and_a_broken_one_counted(rig):
    it = rig(**{'input.transport': 'compressed'})
    publisher = it.peer.create_publisher(CompressedImage, 'image/compressed', 1)
    it.images = publisher
    it.ready()
    _, jpeg = cv2.imencode('.jpg', np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    message = CompressedImage(format='jpeg', data=array('B', jpeg.tobytes()))
    it.send_message(message)
    it.wait(lambda: it.depth)
    message.data = message.data[: len(message.data) // 2]
    message.data[2:20] = array('B', bytes(18))
    it.send_message(message)
    assert it.report().published == 1
    assert sum(it.report().drops.values()) == 1


def test_a_message_is_made_only_for_those_who_listen(rig, monkeypatch):
    it = rig().ready()
    monkeypatch.setattr('depth_node.ros.messages.cloud_message', None)
    it.send()
    it.wait(lambda: it.depth)
    assert it.node.exit_code == 0


def test_nothing_is_computed_while_nobody_listens(rig):
    it = rig().give_camera()
    it.wait(lambda: it.images.get_subscription_count())
    it.send()
    assert it.report().drops == {'no_subscriber': 1}
    assert it.pipeline.seen == []
    it.listen()
    it.send()
    it.wait(lambda: it.depth)


# ---- what must not be published


@pytest.mark.parametrize(
    'changes',
    [
        {'data': array('B')},
        {'data': array('B', bytes(WIDTH * HEIGHT * 3 - 1))},
        {'step': WIDTH},
        {'width': 2**31, 'height': 2**31},
        {'encoding': 'rgb8\n[FATAL] forged'},
    ],
    ids=['empty', 'short', 'step', 'huge', 'encoding'],
)
def test_a_malformed_image_is_counted_under_its_reason_and_nothing_is_published(rig, changes):
    it = rig().ready()
    it.send(**changes)
    report = it.report()
    assert report.published == 0
    (reason,) = report.drops
    assert reason.startswith('image')
    assert it.pipeline.seen == []
    assert len(it.log.lines) == 1 and '\n' not in it.log.lines[0]
    it.send()
    it.wait(lambda: it.depth)
    assert it.report().published == 1


def test_nothing_is_published_without_camera_info(rig):
    it = rig().listen()
    it.send()
    assert it.report().drops == {'no_camera_info': 1}
    assert it.pipeline.seen == []
    it.give_camera()
    it.send()
    it.wait(lambda: it.depth)


def test_a_bad_camera_info_is_counted_and_the_last_good_one_stays(rig):
    it = rig().ready()
    it.cameras.publish(camera_message(k=[0.0] * 9))
    it.wait(lambda: it.report().camera_rejections)
    it.send()
    it.wait(lambda: it.infos)
    assert it.infos[0].k[0] == 50.0


def test_a_camera_that_changes_counts_from_the_next_image_on(rig):
    it = rig().ready()
    it.send()
    it.cameras.publish(camera_message(k=[60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]))
    it.wait(lambda: it.node._stream._cameras._fields.k[0] == 60.0)
    it.send()
    it.wait(lambda: len(it.infos) == 2)
    assert [info.k[0] for info in it.infos] == [50.0, 60.0]


def test_an_image_of_another_size_than_the_camera_is_not_published(rig):
    it = rig().ready()
    it.send(width=WIDTH // 2, step=WIDTH // 2 * 3, data=array('B', bytes(WIDTH * HEIGHT * 3 // 2)))
    report = it.report()
    assert report.published == 0
    assert sum(report.drops.values()) == 1
    assert it.pipeline.seen == []


def test_a_frame_id_that_differs_is_told_and_that_of_the_image_wins(rig):
    it = rig().ready()
    message = image_message(5 * 10**9)
    message.header.frame_id = 'left'
    it.send_message(message)
    it.wait(lambda: it.depth)
    assert it.depth[0].header.frame_id == 'left'
    assert "'left'" in it.log


def test_duplicate_and_older_stamps_are_dropped_by_name(rig):
    it = rig().ready()
    for stamp_ns in (10 * 10**9, 10 * 10**9, 9_500_000_000, 10_100_000_000):
        it.send_message(image_message(stamp_ns))
    it.wait(lambda: len(it.depth) == 2)
    assert it.report().drops == {'duplicate': 1, 'out_of_order': 1}
    assert [stamp_of(message) for message in it.depth] == [10 * 10**9, 10_100_000_000]


def test_a_recording_that_loops_goes_on(rig):
    it = rig().ready()
    for stamp_ns in (10 * 10**9, 2 * 10**9, 2_033_000_000):
        it.send_message(image_message(stamp_ns))
    it.wait(lambda: len(it.depth) == 3)


def test_a_jump_of_simulated_time_begins_the_order_anew(rig):
    it = rig(use_sim_time=True).ready()
    clock = it.peer.create_publisher(Clock, '/clock', 1)
    it.wait(lambda: clock.get_subscription_count())

    def tick(seconds_ns):
        clock.publish(Clock(clock=Time(sec=seconds_ns // 10**9, nanosec=seconds_ns % 10**9)))
        it.wait(lambda: it.node.stamp_now_ns() == seconds_ns)

    tick(10_000_000_000)
    it.send_message(image_message(10_000_000_000))
    tick(9_500_000_000)
    it.send_message(image_message(9_500_000_000))
    it.wait(lambda: len(it.depth) == 2)


def test_an_image_that_took_too_long_is_dropped(rig):
    it = rig('sleep', **{'input.max_age_s': 0.2}).ready()
    it.send()
    assert it.report().drops == {'too_old': 1}
    it.pump(0.1)
    assert it.depth == []


def test_under_overload_the_newest_wins_and_every_image_is_accounted_for(rig):
    it = rig('slow').ready()
    for number in range(150):
        it.images.publish(image_message(10**10 + number * 1_000_000))
        it.pump(0.004)
    it.wait(lambda: it.report().pending == 0)
    it.pump(0.1)
    report = it.report()
    stamps = [stamp_of(message) for message in it.depth]
    assert report.received > 100
    assert report.drops.get('replaced', 0) > 50
    assert report.received == report.published + sum(report.drops.values())
    assert report.published == len(stamps) >= 8
    assert stamps == sorted(set(stamps))
    assert stamps[-1] == 10**10 + 149 * 1_000_000
    assert report.age.p99_ms < 200


def test_a_malformed_image_does_not_push_out_a_good_one_that_waits(rig):
    it = rig('slow').ready()
    it.images.publish(image_message(10**10))
    it.wait(lambda: it.pipeline.seen)
    it.images.publish(image_message(10**10 + 1))
    it.wait(lambda: it.report().received == 2)
    it.images.publish(image_message(10**10 + 2, step=WIDTH))
    it.wait(lambda: it.report().received == 3 and it.report().pending == 0)
    assert it.report().published == 2
    assert 'replaced' not in it.report().drops


# ---- the publishers of the image


def test_reliable_delivery_is_asked_for_where_every_publisher_offers_it(rig):
    it = rig().ready()
    it.wait(lambda: it.node._stream._images.reliable)
    poor = it.peer.create_publisher(Image, 'image', qos_profile_sensor_data)
    it.wait(lambda: not it.node._stream._images.reliable)
    it.wait(lambda: poor.get_subscription_count())
    it.send_message(image_message(6 * 10**9), poor)
    it.wait(lambda: it.depth)
    it.peer.destroy_publisher(poor)
    it.wait(lambda: it.node._stream._images.reliable)


def test_a_latched_camera_info_is_seen(rig):
    it = rig(autostart=False)
    it.peer.create_publisher(CameraInfo, 'camera_info', LATCHED).publish(camera_message())
    it.pump(0.2)
    assert it.transition(1)
    assert it.transition(3)
    it.wait(lambda: it.node._stream._cameras.known)


def test_a_best_effort_camera_info_is_seen(rig):
    it = rig()
    it.peer.destroy_publisher(it.cameras)
    it.cameras = it.peer.create_publisher(CameraInfo, 'camera_info', qos_profile_sensor_data)
    it.ready()


def test_silent_topics_are_named_with_their_publishers(rig):
    it = rig(**{'node.input_timeout_s': 0.5}).listen()
    it.peer.create_publisher(CameraInfo, 'camera_info', 1)
    it.wait(lambda: len(it.log.lines) == 2)
    image, camera = it.log.lines
    assert image.startswith(f'no usable image on {it.namespace}/image for ')
    assert image.endswith('publishers of it: 1')
    assert camera.startswith(f'no usable camera_info on {it.namespace}/camera_info for ')
    assert camera.endswith('publishers of it: 2')


# ---- parameters


def test_a_bad_parameter_is_refused_with_a_reason_and_nothing_of_its_set_is_applied(rig):
    it = rig()
    result = it.set(depth__scale=3.0, depth__min_m=90.0)
    assert not result.successful
    assert 'depth.min_m below depth.max_m' in result.reason
    assert it.node.settings.depth.scale == 1.0
    assert not it.set(input__max_age_s=float('nan')).successful
    assert not it.set(points__stride=0).successful
    assert not it.set(depth__full_size='yes').successful
    assert it.state() == 'active'


def test_a_good_parameter_holds_from_the_next_image_on(rig):
    it = rig().ready()
    it.send()
    assert it.set(depth__scale=3, depth__min_m=1.0).successful
    it.send()
    scales = [settings.depth.scale for _, _, settings in it.pipeline.seen]
    assert scales == [1.0, 3.0]


def test_a_structural_parameter_is_refused_while_configured(rig):
    it = rig()
    result = it.set(model__engine='torch')
    assert not result.successful
    assert 'model.engine' in result.reason and 'unconfigured' in result.reason
    assert it.transition(4) and it.transition(2)
    assert it.set(model__engine='torch').successful
    assert it.node.settings.model.engine == 'torch'


# ---- lifecycle


def test_an_illegal_transition_is_answered_with_no_and_the_node_lives(rig):
    it = rig().ready()
    assert it.transition(1) is False
    assert it.transition(200) is False
    assert it.state() == 'active'
    it.send()
    it.wait(lambda: it.depth)


def test_a_node_that_went_through_all_states_works_again(rig):
    it = rig().ready()
    for _ in range(2):
        assert it.transition(4)
        assert it.state() == 'inactive'
        assert it.transition(2)
        assert it.state() == 'unconfigured'
        assert it.transition(1)
        assert it.transition(3)
    assert (it.pipeline.opened, it.pipeline.closed) == (3, 2)
    it.listen().give_camera()
    it.send()
    it.wait(lambda: it.depth)


def test_an_inactive_node_takes_no_images(rig):
    it = rig().ready()
    assert it.transition(4)
    it.wait(lambda: it.images.get_subscription_count() == 0)
    it.images.publish(image_message(10**10))
    it.pump(0.1)
    assert it.report().received == 0
    assert it.depth == []


def test_a_configure_that_fails_leaves_the_node_unconfigured_with_the_sentence(rig):
    it = rig(autostart=False, **{'model.name': 'missing'}).listen_to_diagnostics()
    assert it.transition(1) is False
    assert it.state() == 'unconfigured'
    it.wait(lambda: it.diagnostics)
    it.wait(lambda: "received 'missing'" in it.diagnostics[-1].status[0].message)
    assert it.diagnostics[-1].status[0].level == b'\x02'
    assert it.set(model__name='scripted').successful
    assert it.transition(1) is True


# ---- failures of the engine and the worker


def test_an_engine_that_fails_once_is_opened_anew(rig):
    it = rig('engine', 'ok').ready()
    it.send()
    assert it.report().drops == {'engine': 1}
    it.send()
    it.wait(lambda: it.depth)
    assert (it.pipeline.opened, it.pipeline.closed) == (2, 1)
    assert it.node.exit_code == 0


def test_an_engine_that_keeps_failing_ends_the_process(rig):
    it = rig('engine').ready()
    it.send()
    it.send()
    it.images.publish(image_message(10**10))
    it.wait_for_the_end()
    assert it.node.exit_code == 3


def test_a_worker_that_dies_ends_the_process(rig):
    it = rig('die').ready()
    it.images.publish(image_message(10**10))
    it.wait_for_the_end()
    assert it.node.exit_code == 2
    assert 'a bug' in it.report().text


def test_an_engine_that_hangs_ends_the_process(rig, monkeypatch):
    monkeypatch.setattr(health, '_HUNG_AT_LEAST_NS', 10**9)
    it = rig('ok', 'hang').ready()
    it.send()
    it.images.publish(image_message(10**10))
    it.wait_for_the_end()
    assert it.node.exit_code == 4


# ---- diagnostics


def test_diagnostics_tell_the_state_and_the_figures(rig):
    it = rig(**{'node.diagnostics_period_s': 0.1}).ready().listen_to_diagnostics()
    for _ in range(3):
        it.send()
    it.send(encoding='?')

    def values():
        status = it.diagnostics[-1].status[0]
        return {pair.key: pair.value for pair in status.values}

    it.wait(lambda: it.diagnostics and values()['images received'] == '4')
    status, said = it.diagnostics[-1].status[0], values()
    assert (status.name, status.hardware_id) == ('depth_node: depth', 'depth_node')
    assert status.level == b'\x01'
    assert 'image_encoding' in status.message
    assert said['images published'] == '3'
    assert said['dropped: image_encoding'] == '1'
    assert said['lifecycle state'] == 'active'
    assert said['engine'] == 'scripted 1.0'
    assert said['weights licence'] == 'CC0-1.0'
    assert 'passed over' in said['engine notes']
    assert said['stage network (ms)'] == '1.00'
    assert said['input'] == f'{it.namespace}/image, reliable'
    assert said['camera_info'].startswith('64x48')
    it.wait(lambda: it.diagnostics[-1].status[0].level == b'\x03')


def test_diagnostics_go_on_while_simulated_time_stands_still(rig):
    it = rig(use_sim_time=True, **{'node.diagnostics_period_s': 0.1}).listen_to_diagnostics()
    it.wait(lambda: len(it.diagnostics) > 2)


# ---- the process


@pytest.fixture
def start():
    processes = []

    def make(*arguments):
        processes.append(popen(*arguments))
        return processes[-1]

    yield make
    for process in processes:
        process.kill()
        process.communicate()


def popen(*arguments):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=SCRIPT.parents[1],
        env={**os.environ, 'PYTHONPATH': str(SCRIPT.parents[1])},
    )


def wait_for_line(process, text):
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f'the process ended without saying {text!r}')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=['SIGINT', 'SIGTERM'])
@pytest.mark.parametrize('busy', [False, True], ids=['idle', 'busy'])
@pytest.mark.parametrize('times', [1, 2], ids=['once', 'twice'])
def test_a_signal_ends_the_process_with_0_and_without_a_traceback(start, number, busy, times):
    process = start(
        'sleep' if busy else 'ok', '--ros-args', '-r', '__ns:=/s', '-p', 'input.max_age_s:=5.0'
    )
    wait_for_line(process, 'is ready after')
    feeder = Feeder('/s') if busy else None
    if feeder:
        feeder.feed_until_taken()
    else:
        time.sleep(0.1)
    began = time.monotonic()
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.02)
    _, errors = process.communicate(timeout=5)
    assert process.returncode == 0, errors
    assert 'Traceback' not in errors
    assert time.monotonic() - began < 2.5
    if feeder:
        feeder.close()


class Feeder:
    """A camera with a consumer for a node in another process."""

    def __init__(self, namespace):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node('feeder', namespace=namespace, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.depth = []
        self.images = self.node.create_publisher(Image, 'image', 1)
        self.cameras = self.node.create_publisher(CameraInfo, 'camera_info', 1)
        self.node.create_subscription(Image, 'depth/image_rect', self.depth.append, 1)

    def feed_until_taken(self):
        """Feed until depth has come, so that the next images are certainly in work."""
        end = time.monotonic() + 10
        stamp_ns = 10**10
        while not self.depth:
            assert time.monotonic() < end
            stamp_ns += 33_000_000
            self.cameras.publish(camera_message())
            self.images.publish(image_message(stamp_ns))
            self.executor.spin_once(timeout_sec=0.03)
        self.images.publish(image_message(stamp_ns + 10**9))
        time.sleep(0.1)

    def close(self):
        self.context.try_shutdown()


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ('-p model.name:=missing', "received 'missing'"),
        ('-p depth.max_m:=0.1 -p depth.min_m:=5.0', 'depth.min_m below depth.max_m'),
        ('-p input.max_age_s:=-1.0', 'input.max_age_s'),
        ('-p model.engine:=abacus', "'abacus'"),
        ('-r nonsense', "Couldn't parse remap rule"),
    ],
)
def test_a_start_that_cannot_work_ends_quickly_with_a_sentence(start, arguments, said):
    process = start('ok', '--ros-args', *arguments.split())
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert said in errors
    assert 'Traceback' not in errors


def test_a_misspelt_parameter_is_told(rig):
    from depth_node.ros.parameters import unknown_names

    (sentence,) = unknown_names(['input.max_age', 'use_sim_time', 'depth.max_m'])
    assert 'Did you mean input.max_age_s?' in sentence
