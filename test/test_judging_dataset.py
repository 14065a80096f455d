"""Judging with the parts of the data set: scans projected, and recordings without a reference."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_samples import HIDDEN
from dataset_samples import SIZE
from dataset_samples import cached
from dataset_samples import recorded
from dataset_samples import true_depth

from depth_node.frames import DepthFrame
from depth_node.image_codec import decode_compressed
from depth_node.image_codec import decode_compressed_depth
from depth_node.judging import proxies
from depth_node.judging.judge import judge
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.projecting import projecting
from depth_node.judging.scenes import JudgeSettings
from depth_node.judging.unreferenced import judge_cache
from depth_node.recording import open_recording
from depth_node.recording.messages import OdometryFields
from depth_node.recording.messages import TransformsFields
from depth_node.recording.writer import RecordingWriter
from depth_node.tools import evaluate
from depth_node.world.recording import RecordingSettings

STRAIGHT = RecordingSettings(seconds=4.0, rate_hz=10.0, width=160, height=120)


def knowing(by_stamp: dict, factor: float = 1.0, name: str = 'true') -> ModelUnderTest:
    def process(image, view):
        return DepthFrame(
            camera=view.model, rgb=image.rgb, stamp_ns=image.stamp_ns, frame_id='',
            depth_m=by_stamp[image.stamp_ns] * np.float32(factor),
        )  # fmt: skip

    return ModelUnderTest(name, False, process)


def test_true_depth_agrees_with_the_projected_scan_and_a_wrong_scale_does_not():
    path = recorded(STRAIGHT)
    with open_recording(path) as recording:
        topics = recording.camera_topics()
        depths = {
            record.content.stamp_ns: decode_compressed_depth(record.content)
            for record in recording.records([topics.depth])
        }
    models = [knowing(depths), knowing(depths, 0.5, 'half')]
    settings = JudgeSettings(reference='/scan')
    found = judge(models, [path], settings, projecting=projecting)
    true, half = found.judgements
    assert found.frames >= 30
    assert true.mean('metric.abs_rel') < 0.04
    assert half.mean('metric.abs_rel') == pytest.approx(0.5, abs=0.03)
    assert half.series['scale'].median == pytest.approx(2.0, rel=0.02)


def test_without_reference_true_depth_is_told_from_half_of_it():
    cache = cached(STRAIGHT, HIDDEN)
    assert (cache.camera.height, cache.camera.width) == SIZE
    truth = true_depth(STRAIGHT)
    by_bytes = {cache.rgb(frame.index).tobytes(): truth[frame.stamp_ns] for frame in cache.frames}

    def model(name, factor):
        def process(image, view):
            depth = by_bytes[image.rgb.tobytes()] * np.float32(factor)
            return DepthFrame(
                camera=view.model, rgb=image.rgb, stamp_ns=0, frame_id='', depth_m=depth
            )

        return ModelUnderTest(name, False, process)

    models = (model('true', 1.0), model('half', 0.5))
    true, half = judge_cache(models, cache, range(len(cache)), 'world')
    assert true.mean(proxies.TRACKS) < 0.17  # corners lie at edges of depth
    assert half.mean(proxies.TRACKS) == pytest.approx(0.5, abs=0.05)
    assert true.series[proxies.TRACKS_SCALE].median == pytest.approx(1.0, abs=0.12)
    assert true.mean(proxies.PHOTOMETRIC) < half.mean(proxies.PHOTOMETRIC)
    assert true.mean(proxies.PHOTOMETRIC) < true.mean(proxies.STANDING_STILL)
    assert true.mean(proxies.CONSISTENCY) < half.mean(proxies.CONSISTENCY)


def test_the_command_judges_what_has_no_reference_by_tracks(tmp_path, capsys):
    path = tmp_path / 'blind'
    with open_recording(recorded(STRAIGHT)) as recording, RecordingWriter(path, 'mcap') as writer:
        fields = recording.first(recording.camera_topics().camera_info)
        writer.camera_info('/camera/camera_info', fields)
        for record in recording.records():
            content = record.content
            if record.time_ns > recording.start_ns + 1_200_000_000:
                break
            if isinstance(content, TransformsFields):
                mounts = [(item.parent, item.child, item.pose) for item in content.transforms]
                writer.static_transform(mounts, record.time_ns)
            elif isinstance(content, OdometryFields):
                frames = (content.frame_id, content.child_frame_id)
                writer.odometry('/odom', content.stamp_ns, *frames, content.pose)
            elif record.topic.startswith('/camera/image_raw'):
                rgb = decode_compressed(content)
                writer.image('/camera/image_raw', rgb, content.stamp_ns, content.frame_id, 95)
    assert evaluate.main(['lite-mono-small-world', str(path)]) == 0
    text = capsys.readouterr().out
    assert 'Abs Rel at tracks' in text and 'inconsistency over time' in text
    assert 'in metres, as published' not in text
