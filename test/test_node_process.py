# ruff: noqa: E402 (imports follow the check that ROS is there)
from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

rclpy = pytest.importorskip('rclpy')

from node_rig import camera_message
from node_rig import image_message
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

SCRIPT = Path(__file__).with_name('scripted_pipeline.py')


@pytest.fixture
def start(private_network):
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


@pytest.mark.skipif(not Path('/proc/self/maps').exists(), reason='needs /proc')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=['SIGINT', 'SIGTERM'])
@pytest.mark.parametrize('library', ['_multiarray_umath', 'cv2', '_rclpy_pybind11'])
def test_a_signal_during_the_imports_ends_the_process_as_a_later_one_does(number, library):
    process = subprocess.Popen(
        [sys.executable, '-m', 'depth_node.ros.node'],
        stderr=subprocess.PIPE,
        text=True,
        cwd=SCRIPT.parents[1],
    )
    try:
        maps = Path(f'/proc/{process.pid}/maps')
        end = time.monotonic() + 20
        while library not in maps.read_text():
            assert time.monotonic() < end
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert errors == ''


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


def test_memory_limits_are_set_unless_the_user_has_chosen():
    asked = 'import os; from depth_node.ros.memory import keep_large_buffers as keep; '
    said = subprocess.run(
        [sys.executable, '-c', asked + "print(keep({}), keep({'MALLOC_TOP_PAD_': '0'}))"],
        capture_output=True,
        text=True,
        check=True,
        cwd=SCRIPT.parents[1],
    )
    assert said.stdout.split()[1] == 'False'
    if 'glibc' in platform.libc_ver()[0]:
        assert said.stdout.split()[0] == 'True'
