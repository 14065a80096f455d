"""Models of relative inverse depth: what they give, and that nobody takes it for metres."""
# ruff: noqa: E402 (imports follow the check that ROS is there)

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('onnx')
pytest.importorskip('openvino')

import relative_model
from node_rig import HEIGHT
from node_rig import WIDTH
from node_rig import camera_message
from node_rig import image_message
from node_rig import stamp_of
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from relative_model import expected
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from depth_node import camera
from depth_node.camera import fitting
from depth_node.errors import EngineError
from depth_node.frames import CameraFields
from depth_node.frames import CameraImage
from depth_node.frames import CameraModel
from depth_node.frames import DepthFrame
from depth_node.frames import RelativeFrame
from depth_node.model_folder import ModelFolder
from depth_node.model_folder import OutputSpec
from depth_node.pipeline import Pipeline
from depth_node.ros import diagnostics
from depth_node.ros.outputs import remark_on
from depth_node.settings import settings_from

ROOT = Path(__file__).parents[1]
VGA = CameraModel(640, 480, 500.0, 500.0, 320.0, 240.0)
PICTURES = ('depth/color', 'depth/color/compressed')
IMAGE_TOPICS = {
    *PICTURES,
    'depth/image_rect',
    'depth/relative',
    'depth/camera_info',
    'scan',
    'points',
}


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> ModelFolder:
    return relative_model.write(tmp_path_factory.mktemp('models') / 'relative', 128, 96)


@pytest.fixture
def pipeline(model):
    opened = Pipeline(model, settings_from({'model.threads': 1}))
    yield opened
    opened.close()


def smooth_image(model: CameraModel = VGA) -> CameraImage:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    rgb = cv2.resize(coarse, (model.width, model.height), interpolation=cv2.INTER_CUBIC)
    return CameraImage(rgb, 123, 'optical')


def process(pipeline: Pipeline, view: camera.CameraView | None = None, **parameters):
    view = view or camera.CameraView(VGA, None)
    return pipeline.process(smooth_image(view.model), view, settings_from(parameters))


# ---- the pipeline, with a real model folder and engine


def test_the_numbers_are_those_of_the_network_with_zero_left_zero(pipeline):
    frame = process(pipeline, **{'depth.full_size': False})
    assert isinstance(frame, RelativeFrame) and not hasattr(frame, 'depth_m')
    assert frame.camera == fitting.resized(VGA, 128, 96)
    assert frame.inverse.shape == (96, 128) == frame.rgb.shape[:2]
    np.testing.assert_allclose(frame.inverse, expected(frame.rgb), rtol=1e-4, atol=1e-3)
    assert (frame.inverse == 0.0).any() and frame.inverse.max() > 200.0


def test_the_whole_image_is_a_linear_enlargement_of_the_relative_values(pipeline):
    small = process(pipeline, **{'depth.full_size': False}).inverse.copy()
    frame = process(pipeline)
    assert (frame.stamp_ns, frame.frame_id, frame.camera) == (123, 'optical', VGA)
    assert list(frame.stage_ns) == ['rectify', 'resize', 'network', 'depth']
    wanted = cv2.resize(small, (640, 480), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(frame.inverse, wanted)


def test_limits_and_scale_of_metric_depth_change_nothing(pipeline):
    plain = process(pipeline).inverse.copy()
    other = {'depth.min_m': 2.0, 'depth.max_m': 3.0, 'depth.scale': 7.0}
    np.testing.assert_array_equal(process(pipeline, **other).inverse, plain)


@pytest.mark.parametrize('full_size', [True, False])
def test_what_the_camera_did_not_see_is_unknown(pipeline, full_size):
    fields = CameraFields(
        640, 480, 'plumb_bob', (0.2, 0.05, 0.0, 0.0, 0.0), tuple(VGA.k.ravel().tolist())
    )
    view = camera.view_of(fields, 640, 480, rectify=True, rectified_input=False)
    unseen = ~view.rectifier.valid
    inverse = process(pipeline, view, **{'depth.full_size': full_size}).inverse
    assert np.isnan(inverse[0, 0]) and np.isfinite(inverse[inverse.shape[0] // 2]).any()
    assert abs(np.isnan(inverse).mean() - unseen.mean()) < 0.02


def test_what_a_crop_left_out_is_unknown(model):
    cropping = ModelFolder(model.path, replace(model.card, fit='crop'))
    opened = Pipeline(cropping, settings_from({'model.threads': 1}))
    wide = CameraModel(800, 480, 500.0, 500.0, 400.0, 240.0)
    inverse = process(opened, camera.CameraView(wide, None)).inverse
    assert np.isnan(inverse[:, :80]).all() and np.isnan(inverse[:, 720:]).all()
    assert np.isfinite(inverse[:, 80:720]).all()
    opened.close()


class Broken:
    """An engine that gives what it is told."""

    def __init__(self, engine, output):
        self.info, self.output, self.close = engine.info, output, engine.close

    def infer(self, image):
        return self.output


def test_what_is_no_number_becomes_unknown_and_the_array_of_the_engine_is_left_alone(pipeline):
    output = np.full((96, 128), -5.0, np.float32)
    output[10, 10], output[20, 20] = np.nan, np.inf
    serving = pipeline._serving_of(0)
    serving._engine = Broken(serving._engine, output)
    before = output.copy()
    inverse = process(pipeline, **{'depth.full_size': False}).inverse
    assert np.isnan(inverse[10, 10]) and np.isnan(inverse[20, 20])
    assert np.isnan(inverse).sum() == 2 and np.nanmax(inverse) == -5.0
    np.testing.assert_array_equal(output, before)
    output[:60] = np.inf
    with pytest.raises(EngineError, match='non-finite'):
        process(pipeline)


def test_the_arrays_of_a_frame_are_not_those_of_the_engine(pipeline):
    output = np.full((96, 128), 5.0, np.float32)
    serving = pipeline._serving_of(0)
    serving._engine = Broken(serving._engine, output)
    for full_size in (True, False):
        inverse = process(pipeline, **{'depth.full_size': full_size}).inverse
        assert not np.shares_memory(inverse, output)


def test_a_metric_model_gives_metres_and_never_a_relative_frame():
    settings = settings_from({'model.threads': 1})
    opened = Pipeline.open(settings)
    frame = opened.process(smooth_image(), camera.CameraView(VGA, None), settings)
    assert isinstance(frame, DepthFrame) and not hasattr(frame, 'inverse')
    assert diagnostics.pipeline_facts(opened)['output'] == 'metric depth'
    assert remark_on(opened.card) == ''
    opened.close()


# ---- the node


def topics_of(it) -> set[str]:
    """Return which of our output topics the node offers, as a peer sees it over DDS."""
    namespace = it.namespace
    pairs = it.peer.get_publisher_names_and_types_by_node('depth_node', namespace)
    return {name.removeprefix(f'{namespace}/') for name, _ in pairs} & IMAGE_TOPICS


@pytest.mark.parametrize(
    ('kind', 'topics'),
    [
        ('relative', {'depth/relative', 'depth/camera_info', *PICTURES}),
        ('metric', IMAGE_TOPICS - {'depth/relative'}),
    ],
)
def test_a_node_offers_the_topics_of_its_model_and_no_others(rig, kind, topics):
    it = rig(kind=kind)
    it.wait(lambda: topics_of(it) == topics)
    it.pump(0.3)
    assert topics_of(it) == topics
    assert it.transition(4) and it.transition(2)
    it.wait(lambda: not topics_of(it))


def test_relative_images_and_their_camera_come_with_stamp_and_frame_of_the_image(rig):
    it = rig(kind='relative').ready()
    stamp_ns = it.send()
    it.wait(lambda: it.relative and it.infos)
    for message in (it.relative[0], it.infos[0]):
        assert stamp_of(message) == stamp_ns
        assert message.header.frame_id == 'camera_optical_frame'
    (message,) = it.relative
    assert (message.encoding, message.step) == ('32FC1', 4 * WIDTH)
    inverse = np.frombuffer(message.data, np.float32).reshape(HEIGHT, WIDTH)
    assert np.isnan(inverse[0, 0]) and (inverse[0, -1], inverse[-1, 0]) == (0.0, -3.0)
    assert inverse[5, 5] == 700.0
    assert list(it.infos[0].k) == [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
    assert it.report().published == 1 and not it.depth


def test_a_listener_of_the_relative_image_alone_is_counted_and_nobody_else_served(rig):
    it = rig(kind='relative').give_camera()
    it.wait(lambda: it.images.get_subscription_count())
    it.peer.create_subscription(Image, 'depth/image_rect', it.depth.append, 10)
    it.pump(0.3)
    it.send()
    assert it.report().drops == {'no_subscriber': 1} and it.pipeline.seen == []
    it.peer.create_subscription(Image, 'depth/relative', it.relative.append, 10)
    it.wait(lambda: it.channel.outputs.wanted())
    it.send()
    it.wait(lambda: it.relative)
    report = it.report()
    assert report.received == report.published + sum(report.drops.values()) == 2
    assert not it.depth


def test_every_image_is_published_or_counted(rig):
    it = rig('slow', 'engine', 'slow', kind='relative').ready()
    for number in range(40):
        it.images.publish(image_message(10**10 + number * 1_000_000))
        it.pump(0.004)
    it.pump(0.3)  # what is still under way
    it.wait(lambda: it.report().pending == 0 and it.report().published == len(it.relative))
    report = it.report()
    assert report.drops['engine'] == 1
    assert report.received == report.published + sum(report.drops.values())
    assert report.published >= 2


def test_a_frame_of_the_other_kind_is_never_published(rig):
    it = rig(kind='metric').ready()
    it.pipeline.card = replace(it.pipeline.card, output=OutputSpec('relative'))
    it.images.publish(image_message(10**10))
    it.wait_for_the_end()
    assert it.node.exit_code == 2
    assert not it.depth


def test_a_model_that_was_replaced_on_disk_is_not_taken_up_by_a_running_node(rig):
    it = rig('engine', 'ok').ready()
    other = type(it.pipeline)(kind='relative')
    it.node._open_pipeline = other.open
    it.images.publish(image_message(10**10))
    it.wait_for_the_end()
    assert it.node.exit_code == 3
    assert 'another model under its name' in it.report().text
    assert not it.depth


def test_diagnostics_say_what_the_numbers_are(rig):
    it = rig(kind='relative', **{'node.diagnostics_period_s': 0.1}).listen_to_diagnostics()
    it.wait(lambda: it.diagnostics)
    values = {pair.key: pair.value for pair in it.diagnostics[-1].status[0].values}
    assert values['output'] == 'relative inverse depth'


def test_depth_without_a_known_scale_says_so():
    class WithCard:
        engine_notes = ()
        engine_build = ''

        def __init__(self, pipeline, card):
            self.engine_info_of, self.card = pipeline.engine_info_of, card

    from scripted_pipeline import ScriptedPipeline

    scripted = ScriptedPipeline()
    for focal_px, output in ((None, 'depth of unknown scale'), (200.0, 'metric depth')):
        known = WithCard(scripted, replace(scripted.card, focal_px=focal_px))
        assert diagnostics.pipeline_facts(known)['output'] == output


# ---- the whole node in a process of its own, with a real relative model


def test_the_command_serves_a_relative_model_and_says_once_what_that_means(model, private_network):
    words = ['-p', f"model.name:='{model.path}'", '-p', 'model.threads:=1', '-r', '__ns:=/rel']
    process = subprocess.Popen(
        [sys.executable, '-m', 'depth_node.ros.node', '--ros-args', *words],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=dict(os.environ),
    )
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        received = fed(context)
    finally:
        context.try_shutdown()
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert errors.count('gives relative inverse depth') == 1
    (line,) = (line for line in errors.splitlines() if 'relative inverse depth' in line)
    assert '[WARN]' in line and model.card.name in line
    for word in ('depth/relative', 'scale', 'shift', 'depth_node.tools.models list'):
        assert word in line
    inverse = np.frombuffer(received.data, np.float32).reshape(HEIGHT, WIDTH)
    np.testing.assert_allclose(inverse, 0.0, atol=1e-3)  # the image is black


def fed(context) -> Image:
    """Feed images until a relative one comes."""
    node = rclpy.create_node('feeder', namespace='/rel', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    relative: list[Image] = []
    images = node.create_publisher(Image, 'image', 1)
    cameras = node.create_publisher(CameraInfo, 'camera_info', 1)
    node.create_subscription(Image, 'depth/relative', relative.append, 1)
    end, stamp_ns = time.monotonic() + 30, 10**10
    while not relative:
        assert time.monotonic() < end
        stamp_ns += 33_000_000
        cameras.publish(camera_message())
        images.publish(image_message(stamp_ns))
        executor.spin_once(timeout_sec=0.05)
    return relative[0]
