"""Frames without a network, and what is said of a node that has neither metres nor clouds."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('rosbags')

from result_schema import problems_of

from depth_node.benchmark import frame
from depth_node.benchmark import serving
from depth_node.benchmark.result import write_result
from depth_node.demo import run as demo_run
from depth_node.demo.report import Figures
from depth_node.demo.truth import Source
from depth_node.errors import EngineError
from depth_node.frames import CameraFields
from depth_node.health import Percentiles
from depth_node.recording.writer import RecordingWriter
from depth_node.tools import benchmark

STAND_IN = str(Path(__file__).with_name('standin_node.py'))
FACTS = {
    'engine': 'openvino 1', 'precision': 'f32', 'network input': '64x48', 'images received': '9',
    'stage decode (ms)': '0.05', 'stage network (ms)': '12.50', 'stage publish (ms)': '2.00',
}  # fmt: skip
FIGURES = Figures(
    source='s', model='m', relative=False, facts=FACTS, played=10, received=10, depths=9, clouds=9,
    drops={'replaced': 1}, input_rate_hz=30.0, output_rate_hz=29.0,
    depth_age=Percentiles(15.0, 20.0, 30.0), cloud_age=Percentiles(18.0, 25.0, 35.0),
    first_depth_s=1.5, rss_mib=200.0, peak_rss_mib=250.0, cpu_percent=80.0, quality=None,
    quality_note='', torch_loaded=False, node_status=0,
)  # fmt: skip
CAMERA = CameraFields(
    width=64, height=48, distortion_model='plumb_bob', d=(0.0,) * 5,
    k=(60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0), frame_id='cam', stamp_ns=1,
)  # fmt: skip
SERVING = serving.Serving('m', 'auto', 'auto', 30.0, 5.0)


def test_frames_are_measured_by_stage_without_the_network(tmp_path):
    words = ['frame', '--frames', '5', '--size', '96x64', '--out', str(tmp_path)]
    assert benchmark.main(words) == 0
    result = json.loads((tmp_path / 'frame.json').read_text())
    assert problems_of(result) == []
    for row, encoding in zip(result['rows'], ('rgb8', 'bgr8'), strict=True):
        assert (row['encoding'], row['engine'], row['cores']) == (encoding, 'stand-in', 1)
        assert {'decode', 'resize', 'depth', 'cloud', 'cloud message'} <= set(row['stages'])
        assert 'network' not in row['stages'] and row['whole'] is None
        parts_ms = sum(spread['min_ms'] for spread in row['stages'].values())
        assert parts_ms <= row['rest']['min_ms'] <= row['rest']['p99_ms']
        assert row['rest']['count'] == 5


def test_a_relative_model_has_no_cloud_to_measure(tmp_path):
    pytest.importorskip('onnx')
    import relative_model

    folder = relative_model.write(tmp_path / 'relative').path
    with pytest.raises(EngineError, match='relative inverse depth, which makes no clouds'):
        frame.measure(str(folder), 'stand-in', 96, 64, 1)


def row_of(figures: Figures, live=(), points: bool = True) -> serving.ServingRow:
    return serving.row_of(SERVING, figures, list(live), points=points, tuned=True)


def test_a_row_holds_the_stages_of_the_node_and_the_overhead(tmp_path):
    row = row_of(FIGURES, live=(0.8, 1.0, 0.9))
    assert row.stages_ms == {'decode': 0.05, 'network': 12.5, 'publish': 2.0}
    assert row.overhead_p50_ms == pytest.approx(2.5)
    assert (row.first_depth_live_s.min_s, row.first_depth_live_s.median_s) == (0.8, 0.9)
    conditions = {'image': '640x480 rgb8', 'rate_hz': 30.0, 'seconds': 5.0}
    path = tmp_path / 'node.json'
    alone = row_of(replace(FIGURES, clouds=0, cloud_age=None), points=False)
    write_result(path, 'node', serving.PROTOCOL, conditions, [row, alone])
    assert problems_of(json.loads(path.read_text())) == []
    said = serving.sentence(row)
    for text in ('p50/p95/p99 15.0/20.0/30.0 ms', '18.0/25.0/35.0', '1 replaced', '0.90 s'):
        assert text in said


def test_a_relative_model_gives_a_sentence_about_its_kind_and_no_failure():
    row = row_of(replace(FIGURES, relative=True, clouds=0, cloud_age=None))
    assert (row.kind, row.cloud_age_p50_ms) == ('relative', None)
    assert 'relative inverse depth: numbers without unit, no metres' in serving.sentence(row)


def test_a_model_of_depth_without_clouds_is_a_failure():
    with pytest.raises(EngineError, match='no clouds'):
        row_of(replace(FIGURES, clouds=0, cloud_age=None))
    with pytest.raises(EngineError, match='no depth'):
        row_of(replace(FIGURES, depth_age=None))


def test_the_node_is_started_anew_beside_a_running_camera(tmp_path, monkeypatch):
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'PYTHONUNBUFFERED'):
        monkeypatch.setenv(name, '')
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        for index in range(20):
            stamp = 1_700_000_000_000_000_000 + index * 50_000_000
            writer.camera_info('/camera/camera_info', replace(CAMERA, stamp_ns=stamp))
            rgb = np.full((48, 64, 3), index, np.uint8)
            writer.image('/camera/image_raw', rgb, stamp, 'cam', None)
    run = demo_run.Run(
        source=Source(path=tmp_path / 'bag', depth=''),
        out=tmp_path,
        node=(sys.executable, STAND_IN, 'relative'),
        model='m',
        engine='auto',
        rate=1.0,
        seconds=1.0,
        domain=1 + os.getpid() % 100,
        patience_s=30.0,
    )
    (spent_s,) = serving.live_starts(run, 1)
    assert 0.05 < spent_s < 30.0
    dying = replace(run, node=(sys.executable, STAND_IN, 'absent'))
    with pytest.raises(EngineError, match='ended'):
        serving.live_starts(dying, 1)
    assert serving.live_starts(dying, 0) == []


@pytest.mark.parametrize(
    ('words', 'kind'),
    [
        (['--node', '--seconds', '3'], 'node'),
        (['node'], 'node'),
        (['lite-mono:base'], 'engines'),
        (['--engines', 'eager'], 'engines'),
        (['rewriting'], 'rewriting'),
        (['networks'], 'networks'),
        (['--help'], '--help'),
    ],
)
def test_every_spelling_finds_its_kind(words, kind):
    _, kinds = benchmark._parser()
    assert benchmark._with_kind(words, kinds)[0] == kind


@pytest.mark.parametrize(
    ('words', 'folder'),
    [
        (['node'], benchmark._STANDARD),
        (['node', '--seconds', '3'], benchmark._OTHER),
        (['engines'], benchmark._STANDARD),
        (['engines', '--device', 'gpu'], benchmark._STANDARD),
        (['engines', 'lite-mono:base'], benchmark._OTHER),
        (['frame', '--engine', 'cuda'], benchmark._STANDARD),
        (['frame', '--engine', 'cuda', '--frames', '3'], benchmark._OTHER),
        (['frame', '--out', 'here'], Path('here')),
    ],
)
def test_only_the_standard_measurements_go_to_the_committed_results(words, folder, monkeypatch):
    seen = []
    for kind in ('_engines', '_frame', '_node'):
        monkeypatch.setattr(benchmark, kind, lambda options: seen.append(options.out) or 0)
    parser, _ = benchmark._parser()
    assert benchmark._run(parser, words) == 0
    assert seen == [folder]
