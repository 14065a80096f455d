"""Engines that are built, swapped, refused or lost under the real node, over DDS."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')

import rclpy
import scripted_engine
from node_rig import camera_message
from node_rig import image_message
from node_rig import stamp_of
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from scripted_engine import DEPTH_M
from scripted_engine import builder
from scripted_engine import write_model
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from test_node_process import wait_for_line

from depth_node.engines import NotFinite
from depth_node.engines import OutOfMemory
from depth_node.engines import cuda_driver
from depth_node.engines import selection
from depth_node.engines import upgrade
from depth_node.pipeline import Pipeline
from depth_node.ros import lifecycle_node

PROGRAM = Path(scripted_engine.__file__)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('models') / 'scripted')


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(scripted_engine, 'SCRIPT', scripted_engine.Script(ready=False))
    for name, place in scripted_engine.NAMES.items():
        monkeypatch.setitem(selection.ENGINES, name, place)
    return scripted_engine.SCRIPT


@pytest.fixture
def served(rig, script, model, tmp_path, monkeypatch):
    """Start nodes with scripted engines; what builds waits for the file 'gate'."""

    def start(engine='tensorrt,openvino', ending='', gate='gate', **parameters):
        command = builder(tmp_path, ending, tmp_path / gate if gate else '')
        monkeypatch.setattr(upgrade, 'COMMAND', tuple(command))
        it = rig(
            open_pipeline=Pipeline.open,
            **{
                'model.name': str(model.path),
                'model.engine': engine,
                'node.diagnostics_period_s': 0.1,
                **parameters,
            },
        )
        return it.ready().listen_to_diagnostics() if it.started else it

    return start


def facts(it):
    """Return what the newest diagnostics say."""
    if not it.diagnostics:
        return {}
    status = it.diagnostics[-1].status[0]
    return {'level': status.level, **{pair.key: pair.value for pair in status.values}}


def depths(it):
    return [float(np.frombuffer(message.data, np.float32)[0]) for message in it.depth]


def ends(numbers, within_s=2.0):
    """Tell whether all processes of these numbers end."""
    end = time.monotonic() + within_s
    while any(Path(f'/proc/{number}').exists() for number in numbers):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def processes(folder):
    return [int(path.stem) for path in folder.glob('*.pid')]


# ---- serving while an engine is built


def test_the_swap_loses_no_image_and_repeats_none(served, script, tmp_path, capfd):
    script.notes = ['The plan is not kept.']
    it = served()
    stamps = [it.send() for _ in range(3)]
    it.wait(lambda: re.match(r'tensorrt f32, \d+ s: phase one', facts(it).get('engine build', '')))
    assert facts(it)['engine'] == 'openvino scripted'
    (tmp_path / 'gate').touch()
    while depths(it)[-1:] != [DEPTH_M['tensorrt']]:
        assert len(stamps) < 500
        stamps.append(it.send())
        it.wait(lambda: len(it.depth) == len(stamps))
    assert [stamp_of(message) for message in it.depth] == stamps
    assert depths(it) == sorted(depths(it))
    report = it.report()
    assert (report.published, report.drops) == (len(stamps), {})
    it.wait(lambda: facts(it)['engine'] == 'tensorrt scripted')
    assert facts(it)['engine build'] == ''
    assert facts(it)['engine notes'] == 'The plan is not kept.'
    assert float(facts(it)['parity error']) < 1e-3
    assert (facts(it)['precision'], facts(it)['device']) == ('f32', 'this machine')
    it.pump(1.2)  # two looks of the node at its engine
    said = capfd.readouterr().err
    assert said.count('on tensorrt scripted (f32') == 1
    assert said.count('The plan is not kept.') == 1
    assert it.node.exit_code == 0
    assert script.closed == ['openvino']


def test_images_go_on_while_the_swap_happens_under_load(served, tmp_path):
    it = served()
    for number in range(120):
        if number == 40:
            (tmp_path / 'gate').touch()
        it.images.publish(image_message(10**10 + number * 1_000_000))
        it.pump(0.005)
    it.wait(lambda: it.report().pending == 0 and len(it.depth) == it.report().published)
    report = it.report()
    assert set(report.drops) <= {'replaced'}
    assert report.received == report.published + sum(report.drops.values())
    stamps = [stamp_of(message) for message in it.depth]
    assert stamps == sorted(set(stamps))
    assert set(depths(it)) == set(DEPTH_M.values())


@pytest.mark.parametrize(
    ('ending', 'off_by', 'reason'),
    [
        ('the reason for it', 0.0, 'the reason for it'),
        ('SIGABRT', 0.0, 'SIGABRT'),
        ('', 0.5, 'standard deviations'),
    ],
    ids=['refused', 'crashed', 'disagrees'],
)
def test_a_better_engine_that_cannot_serve_is_told_once_and_the_node_goes_on(
    served, script, capfd, ending, off_by, reason
):
    script.off_by = off_by
    it = served(ending=ending, gate='')
    it.wait(lambda: reason in facts(it).get('engine notes', ''))
    it.send()
    it.pump(1.2)  # two looks of the node at its engine
    assert depths(it) == [DEPTH_M['openvino']]
    assert facts(it)['engine'] == 'openvino scripted' and facts(it)['engine build'] == ''
    (line,) = (line for line in capfd.readouterr().err.splitlines() if reason in line)
    assert '[WARN]' in line and 'tensorrt is passed over' in line


def test_too_little_memory_at_load_leads_to_the_next_engine(served, script):
    script.ready, script.at_open = True, 'memory'
    it = served()
    it.send()
    it.wait(lambda: it.depth and facts(it).get('engine') == 'openvino scripted')
    assert '3 of 8 MiB free' in facts(it)['engine notes']
    assert depths(it) == [DEPTH_M['openvino']]


def test_too_little_memory_for_the_only_engine_is_a_failure_to_configure(served, script):
    script.ready, script.at_open = True, 'memory'
    it = served('tensorrt')
    assert it.started is False
    assert '3 of 8 MiB free' in it.report().text


def test_an_only_engine_that_disagrees_is_a_failure_to_configure(served, script):
    script.ready, script.off_by = True, 0.5
    it = served('tensorrt')
    assert it.started is False
    assert 'standard deviations' in it.report().text


@pytest.mark.parametrize('last', [2, None], ids=['cleanup', 'close'])
def test_a_build_ends_with_what_asked_for_it(served, tmp_path, last):
    it = served()
    it.wait(lambda: processes(tmp_path))
    if last is None:
        assert it.node.close()
    else:
        assert it.transition(4)
        assert not ends(processes(tmp_path), 0.2), 'an inactive node goes on building'
        assert it.transition(last)
    assert ends(processes(tmp_path), 0.5)
    assert not upgrade.is_busy()


def test_an_engine_that_became_ready_while_inactive_takes_the_first_image(served, tmp_path):
    it = served()
    assert it.transition(4)
    (tmp_path / 'gate').touch()
    it.wait(lambda: 'takes over' in facts(it).get('engine build', ''))
    assert it.transition(3)
    it.wait(lambda: it.images.get_subscription_count())
    it.give_camera()
    it.send()
    it.wait(lambda: it.depth)
    assert depths(it) == [DEPTH_M['tensorrt']]


def test_an_engine_that_took_over_and_fails_is_replaced_by_itself(
    served, script, tmp_path, monkeypatch
):
    monkeypatch.setattr(cuda_driver, 'probe', lambda: cuda_driver.Probe(True))
    monkeypatch.setattr(selection, 'PACKAGES', {'tensorrt': ('json',), 'cuda': ('json',)})
    it = served('auto', gate='')
    it.wait(lambda: 'takes over' in facts(it).get('engine build', ''))
    script.steps['tensorrt'] = ['ok', 'fail']
    script.ready = True
    it.send()
    it.send()
    it.send()
    it.wait(lambda: len(it.depth) == 2)
    assert depths(it) == [DEPTH_M['tensorrt']] * 2
    assert it.report().drops == {'engine': 1}
    assert script.opened == ['openvino', 'tensorrt', 'tensorrt']
    assert len(processes(tmp_path)) == 1


# ---- faults of single images


@pytest.mark.parametrize('step', ['memory', 'host memory', 'memory of OpenCV'])
def test_too_little_memory_for_an_image_costs_that_image(served, script, step):
    script.steps['openvino'] = ['ok', step, step, 'ok']
    with pytest.raises(cv2.error):  # another error of OpenCV, raised later, changes nothing
        cv2.resize(np.zeros((0, 0), np.uint8), (1, 1))
    it = served('openvino')
    for _ in range(4):
        it.send()
    it.wait(lambda: len(it.depth) == 2)
    assert it.report().drops == {'out_of_memory': 2}
    assert script.opened == ['openvino'], 'the engine may be used again'
    assert 'The next image is tried' in it.log
    assert it.node.exit_code == 0


def test_memory_that_stays_short_ends_the_process(served, script):
    script.steps['openvino'] = ['memory'] * 3
    it = served('openvino')
    it.send()
    it.send()
    it.images.publish(image_message(10**11))
    it.wait_for_the_end()
    assert it.node.exit_code == 3
    assert '3 images in a row' in it.report().text


@pytest.mark.parametrize('kind', [OutOfMemory, NotFinite, selection.EngineError])
def test_the_memory_of_an_image_is_free_before_anything_is_done_about_its_failure(
    served, monkeypatch, kind
):
    class Buffer:
        pass

    buffers, alive = [], []

    def infer(self, image):
        if np.array_equal(image, self.golden.image):
            return self.golden.output
        buffer = Buffer()  # in a frame that the exception refers to
        buffers.append(weakref.ref(buffer))
        raise kind('engine', 'a failure', 'a result')

    it = served('openvino')
    monkeypatch.setattr(scripted_engine.ScriptedEngine, 'infer', infer)
    worker = it.node._stream._worker
    heed = worker._heed

    def look(lane, failure):
        alive.append(buffers[-1]() is not None)
        heed(lane, failure)

    monkeypatch.setattr(worker, '_heed', look)
    gc.disable()
    try:
        it.send()
        it.wait(lambda: alive)
    finally:
        gc.enable()
    assert alive == [False]


def test_outputs_of_no_numbers_degrade_the_state_and_the_engine_is_made_anew_once(served, script):
    script.steps['openvino'] = ['ok', *['nan'] * 7, 'ok']
    it = served('openvino')
    for _ in range(8):
        it.send()
    assert it.report().drops == {'engine_output': 7}
    it.wait(lambda: facts(it).get('dropped: engine_output') == '7')
    assert facts(it)['level'] == b'\x01'
    assert script.opened == ['openvino'] * 2
    assert script.closed == ['openvino']
    it.send()
    it.wait(lambda: len(it.depth) == 2)
    assert it.node.exit_code == 0


def test_a_single_output_of_no_numbers_changes_nothing(served, script):
    script.steps['openvino'] = ['nan', 'ok', 'nan', 'nan', 'ok']
    it = served('openvino')
    for _ in range(5):
        it.send()
    assert it.report().drops == {'engine_output': 3}
    assert script.opened == ['openvino']


# ---- the process


@pytest.fixture
def start(private_network, model, tmp_path):
    made, timers = [], []

    def make(*words, **script):
        made.append(
            subprocess.Popen(
                [sys.executable, str(PROGRAM), str(model.path), json.dumps(script),
                 '--ros-args', '-r', '__ns:=/e', *words],
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=PROGRAM.parents[1],
                env={
                    **os.environ,
                    'PYTHONPATH': os.pathsep.join(map(str, (PROGRAM.parents[1], PROGRAM.parent))),
                },
            )
        )  # fmt: skip
        timers.append(threading.Timer(20, made[-1].kill))  # ends every wait for its lines
        timers[-1].start()
        return made[-1]

    yield make
    for timer in timers:
        timer.cancel()
    for process in made:
        process.kill()
        process.communicate()
    for number in processes(tmp_path):
        assert ends([number])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=['SIGINT', 'SIGTERM'])
@pytest.mark.parametrize('engine', ['tensorrt,openvino', 'tensorrt'], ids=['serving', 'waiting'])
def test_a_signal_during_a_build_ends_node_and_build(start, tmp_path, number, engine):
    command = builder(tmp_path, gate=tmp_path / 'gate')
    process = start('-p', f'model.engine:={engine}', ready=False, command=command)
    if engine == 'tensorrt':
        end = time.monotonic() + 10
        while not processes(tmp_path):
            assert time.monotonic() < end
            time.sleep(0.01)
    else:
        wait_for_line(process, 'is ready after')
    (build,) = processes(tmp_path) or [None] if engine == 'tensorrt' else [None]
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert time.monotonic() - began < 2.0
    assert process.returncode == 0, errors
    assert 'Traceback' not in errors and 'FATAL' not in errors
    assert ends(processes(tmp_path), 0.5)
    assert build is None or not Path(f'/proc/{build}').exists()


def test_a_signal_while_an_engine_hangs_in_opening_ends_the_process(start, tmp_path):
    process = start(
        '-p', 'model.engine:=tensorrt,openvino', '-p', 'node.diagnostics_period_s:=0.1',
        ready=False, at_open='hang', command=builder(tmp_path), report_s=0.0,
    )  # fmt: skip
    wait_for_line(process, 'is opened')
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert time.monotonic() - began < 2.0
    assert process.returncode == 0, errors


def test_progress_of_a_build_reaches_the_log_of_ros_while_configuring(start, tmp_path):
    command = builder(tmp_path, gate=tmp_path / 'gate')
    process = start('-p', 'model.engine:=tensorrt', ready=False, command=command, report_s=0.2)
    wait_for_line(process, 'engine build: tensorrt f32, ')
    (tmp_path / 'gate').touch()
    wait_for_line(process, 'on tensorrt scripted')


def test_a_process_with_an_engine_that_still_opens_leaves_without_unloading_it(monkeypatch):
    left = []
    monkeypatch.setattr(os, '_exit', left.append)
    monkeypatch.setattr(upgrade, 'is_busy', lambda: True)
    lifecycle_node._end(None, 0)
    assert left == [0]


class Feeder:
    """A camera and a consumer for the node in another process."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node('feeder', namespace='/e', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(node)
        self.depth = []
        self.images = node.create_publisher(Image, 'image', 1)
        self.cameras = node.create_publisher(CameraInfo, 'camera_info', 1)
        node.create_subscription(Image, 'depth/image_rect', self.depth.append, 10)
        self.stamp_ns = 10**10

    def feed(self, until, timeout_s=15):
        end = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < end
            self.stamp_ns += 33_000_000
            self.cameras.publish(camera_message())
            self.images.publish(image_message(self.stamp_ns))
            self.executor.spin_once(timeout_sec=0.02)

    def close(self):
        self.context.try_shutdown()


def test_a_lost_gpu_ends_the_process_within_two_seconds_by_a_code_of_its_own(start):
    steps = {'tensorrt': ['ok', 'ok', 'lost']}
    process = start('-p', 'model.engine:=tensorrt', ready=True, steps=steps)
    wait_for_line(process, 'is ready after')
    feeder = Feeder()
    try:
        feeder.feed(lambda: len(feeder.depth) == 2)
        began = time.monotonic()
        feeder.feed(lambda: process.poll() is not None)
        assert time.monotonic() - began < 2.0
        feeder.executor.spin_once(timeout_sec=0.2)
    finally:
        feeder.close()
    _, errors = process.communicate()
    assert process.returncode == 5, errors
    assert 'FATAL' in errors and 'CUDA_ERROR_ILLEGAL_ADDRESS' in errors
    assert len(feeder.depth) == 2, 'nothing is published any more'
