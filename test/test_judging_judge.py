"""Models judged by small recordings: matching, geometry, scale, what is dropped or refused."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from judging_samples import CAMERA
from judging_samples import HEIGHT
from judging_samples import STEP_NS
from judging_samples import T0
from judging_samples import WIDTH
from judging_samples import depth
from judging_samples import picture
from judging_samples import write

from depth_node.camera import view_of
from depth_node.errors import RecordingError
from depth_node.evaluation import Evaluation
from depth_node.frames import CameraFields
from depth_node.frames import DepthFrame
from depth_node.frames import RawImage
from depth_node.frames import RelativeFrame
from depth_node.judging.exhibits import evenly_spread
from depth_node.judging.exhibits import frames_shown
from depth_node.judging.exhibits import worst_places
from depth_node.judging.held_out import held_out_span
from depth_node.judging.held_out import image_stamps_ns
from depth_node.judging.judge import judge
from depth_node.judging.judgement import series_of
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.references import truth_of
from depth_node.judging.scenes import JudgeSettings
from depth_node.judging.table import text_table
from depth_node.recording.writer import RecordingWriter

pytest.importorskip('rosbags')


def model(name='told', factor=1.0, wrong=lambda index: 1.0) -> ModelUnderTest:
    """Return a model that knows the truth but for a factor; it reuses its array."""
    kept = np.empty((HEIGHT, WIDTH), np.float32)

    def process(image, view):
        index = int(image.rgb[0, 0, 0]) - 10
        kept[...] = np.nan_to_num(depth(index), nan=1.0) * factor * wrong(index)
        return DepthFrame(
            camera=view.model, rgb=image.rgb, stamp_ns=image.stamp_ns, frame_id='cam', depth_m=kept
        )

    return ModelUnderTest(name, False, process, 'ab' * 32)


def relative(name='relative') -> ModelUnderTest:
    def process(image, view):
        index = int(image.rgb[0, 0, 0]) - 10
        inverse = 50.0 / np.nan_to_num(depth(index), nan=1.0) + 7.0
        return RelativeFrame(
            camera=view.model, rgb=image.rgb, stamp_ns=image.stamp_ns, frame_id='cam',
            inverse=inverse.astype(np.float32),
        )  # fmt: skip

    return ModelUnderTest(name, True, process)


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    return write(tmp_path_factory.mktemp('judge') / 'bag')


def test_a_perfect_model_has_no_error_and_a_scaled_one_only_a_scale(bag):
    perfect, half = judge([model(), model('half', 0.5)], [bag], JudgeSettings()).judgements
    assert perfect.mean('metric.abs_rel') < 1e-6 and perfect.mean('metric.a1') == 1.0
    assert perfect.series['metric.abs_rel'].count == 20
    assert half.mean('metric.abs_rel') == pytest.approx(0.5)
    assert half.mean('median.abs_rel') < 1e-6 and half.mean('global.abs_rel') < 1e-4
    assert half.series['scale'].median == pytest.approx(2.0)
    assert half.sha256 == 'ab' * 32 and 'edge_step = 0' in half.notes[0]
    json.dumps(half.to_json(), allow_nan=False)


def test_figures_are_those_of_the_evaluation_that_the_demo_uses(bag):
    wobbly = model(wrong=lambda index: 1.0 + 0.5 * math.sin(index))
    found = judge([wobbly], [bag], JudgeSettings()).judgements[0]
    evaluation = Evaluation()
    for index in range(20):
        factor = np.float32(1.0 + 0.5 * math.sin(index))
        evaluation.add(np.nan_to_num(depth(index), nan=1.0) * factor, depth(index))
    report = evaluation.report()
    assert found.mean('metric.abs_rel') == pytest.approx(report.metric.abs_rel, rel=1e-5)
    assert found.mean('median.rmse_m') == pytest.approx(report.scaled.rmse_m, abs=1e-5)
    assert found.series['scale'].median == pytest.approx(report.scale, rel=1e-5)
    constants = found.constants['bag']
    assert constants.abs_rel == pytest.approx(report.baseline.abs_rel)
    assert constants.rows_abs_rel < constants.abs_rel


def test_one_global_scale_takes_out_the_mean_error_but_not_the_wobble(bag):
    wobbly = model(factor=3.0, wrong=lambda index: 1.25 if index % 2 else 0.8)
    found = judge([wobbly], [bag], JudgeSettings()).judgements[0]
    scales = [1 / (3 * (1.25 if k % 2 else 0.8)) for k in range(20)]
    common = np.median(scales)
    wanted = np.mean([abs(common / s - 1) for s in scales])
    assert found.mean('global.abs_rel') == pytest.approx(wanted, rel=1e-3)
    assert found.mean('median.abs_rel') < 1e-6 < found.mean('global.abs_rel')


@pytest.mark.parametrize('late', [0, 3])
@pytest.mark.parametrize('shift_ms', [-40, 0, 40])
def test_depth_is_matched_by_stamp_whenever_it_arrives(tmp_path, late, shift_ms):
    path = write(tmp_path / 'b', shift_ns=shift_ms * 1_000_000, late=late)
    found = judge([model()], [path], JudgeSettings())
    assert found.frames == 20 and not found.dropped
    assert found.judgements[0].mean('metric.abs_rel') < 1e-6


def test_depth_farther_than_half_a_frame_belongs_to_no_image(tmp_path):
    path = write(tmp_path / 'b', skip=(3, 4, 9))
    found = judge([model()], [path], JudgeSettings())
    assert (found.frames, found.dropped) == (17, {'without reference': 3})


def test_several_recordings_are_told_apart_even_with_one_name(tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
    paths = [write(tmp_path / name / 'bag', count=6) for name in 'ab']
    found = judge([model()], paths, JudgeSettings()).judgements[0]
    assert found.series['metric.abs_rel'].recordings == tuple(str(path) for path in paths)
    assert set(found.constants) == {str(path) for path in paths}


def test_few_frames_are_spread_evenly_and_progress_reaches_the_end(bag):
    seen = []
    found = judge([model()], [bag], JudgeSettings(frames=7), lambda *now: seen.append(now))
    stamps = (found.judgements[0].series['metric.abs_rel'].stamps_ns - T0) // STEP_NS
    assert stamps.tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert seen[-1] == (20, 20)


def test_held_out_time_is_the_last_fifth(bag):
    first, last = image_stamps_ns(bag)
    assert (first, last) == (T0, T0 + 19 * STEP_NS)
    low, high = held_out_span(first, last)
    found = judge(
        [model()], [bag], JudgeSettings(), wanted=lambda path, stamp: low <= stamp < high
    )
    stamps = (found.judgements[0].series['metric.abs_rel'].stamps_ns - T0) // STEP_NS
    assert stamps.tolist() == [16, 17, 18, 19]


def test_the_parts_of_a_recording_cover_it_without_overlap():
    spans = [held_out_span(5, 1003, 4, block) for block in range(4)]
    assert spans[0][0] == 5 and spans[-1][1] == 1004 and spans[-1] == held_out_span(5, 1003, 4)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


def test_a_relative_model_is_aligned_and_has_no_metric_figures(bag):
    found = judge([relative(), model()], [bag], JudgeSettings()).judgements
    assert found[0].relative and found[0].mean('aligned.abs_rel') < 1e-5
    assert not [name for name in found[0].series if not name.startswith('aligned.')]
    text = text_table(found)
    row = next(line for line in text.splitlines() if line.startswith('  Abs Rel  '))
    assert row.split()[2] == '-'
    assert 'not comparable with metric figures' in text


def test_a_frame_without_any_depth_counts_as_no_coverage(bag):
    blind = model(wrong=lambda index: math.nan if index == 4 else 1.0)
    found = judge([blind], [bag], JudgeSettings()).judgements[0]
    assert found.series['metric.abs_rel'].count == 19
    assert found.mean('metric.coverage') == pytest.approx(0.95)


def test_a_crop_leaves_pixels_out_and_cuts_depth_to_the_limits(bag):
    whole, garg = (
        judge([model(factor=100.0)], [bag], JudgeSettings(crop=crop)).judgements[0]
        for crop in ('', 'garg')
    )
    assert whole.mean('metric.rmse_m') > 200 and garg.mean('metric.rmse_m') < 80
    assert garg.mean('metric.coverage') == 1.0


def test_storages_give_the_same_figures(tmp_path, bag):
    other = write(tmp_path / 'bag', storage='sqlite3')
    wobbly = model(wrong=lambda index: 1.0 + 0.1 * index)
    one, two = (judge([wobbly], [path], JudgeSettings()).judgements[0] for path in (bag, other))
    assert one.to_json() == two.to_json()


def test_depth_of_another_frame_is_refused_with_what_to_do(tmp_path):
    path = write(tmp_path / 'b', depth_frame='depth_cam')
    with pytest.raises(RecordingError, match='aligned_depth_to_color'):
        judge([model()], [path], JudgeSettings())


def test_a_recording_without_depth_or_without_match_is_refused(tmp_path):
    path = write(tmp_path / 'none', skip=range(20))
    with pytest.raises(RecordingError, match='no depth images'):
        judge([model()], [path], JudgeSettings())
    path = write(tmp_path / 'apart', skip=range(1, 20), shift_ns=10**12)
    with pytest.raises(RecordingError, match='20 without reference'):
        judge([model()], [path], JudgeSettings())


BENT = CameraFields(
    320, 240, 'plumb_bob', (-0.3, 0.1, 0.0, 0.0, 0.0),
    (250.0, 0.0, 160.0, 0.0, 250.0, 118.0, 0.0, 0.0, 1.0),
    p=(250.0, 0.0, 160.0, 0.0, 0.0, 250.0, 118.0, 0.0, 0.0, 0.0, 1.0, 0.0),
)  # fmt: skip


def raw_depth(values: np.ndarray) -> RawImage:
    height, width = values.shape
    data = values.astype('<f4').tobytes()
    return RawImage(height, width, '32FC1', 0, 4 * width, data, T0, 'cam')


def test_depth_of_the_raw_image_is_rectified_with_the_image_to_half_a_pixel():
    view = view_of(BENT, 320, 240, rectify=True, rectified_input=False)
    columns = np.tile(np.arange(320, dtype=np.float32) + 1.0, (240, 1))
    found = truth_of(raw_depth(columns), view, '/camera/depth/image_raw')
    where = view.rectifier.source[..., 0] + (view.rectifier.fraction % 32) / 32.0
    valid = view.rectifier.valid
    offset = (found - 1.0 - where)[valid]
    assert np.abs(offset).max() <= 0.5 and abs(offset.mean()) < 0.02
    assert np.isnan(found[~valid]).all()


def test_depth_that_its_sender_has_rectified_is_left_as_it_is():
    view = view_of(BENT, 320, 240, rectify=True, rectified_input=False)
    values = np.random.default_rng(0).uniform(1, 5, (240, 320)).astype(np.float32)
    for topic in ('/camera/depth/image_rect', '/camera/depth/image_rect/compressedDepth'):
        np.testing.assert_array_equal(truth_of(raw_depth(values), view, topic), values)


def test_depth_of_another_aspect_is_refused():
    view = view_of(CAMERA, WIDTH, HEIGHT, rectify=False, rectified_input=False)
    with pytest.raises(RecordingError, match='aspect'):
        truth_of(raw_depth(np.ones((24, 40))), view, '/d')
    assert truth_of(raw_depth(np.ones((48, 64))), view, '/d').shape == (HEIGHT, WIDTH)


def test_frames_to_show_are_spread_and_the_worst_are_moments_apart(bag):
    values = [(f'{"ab"[k // 30]}', T0 + k * STEP_NS, float(k % 30)) for k in range(60)]
    series = series_of(values)
    spread = evenly_spread(series, 4)
    assert [(t - T0) // STEP_NS for _, t in spread] == [0, 20, 39, 59]
    worst = worst_places(series, 4)
    assert [(name, (t - T0) // STEP_NS) for name, t in worst] == [
        ('a', 29), ('b', 59), ('a', 19), ('b', 49),
    ]  # fmt: skip
    assert len(worst_places(series_of(values[:3]), 5)) == 1
    assert evenly_spread(series_of([('a', 1, math.nan)]), 3) == ()


def test_shown_frames_keep_the_depth_of_both_models_and_the_reference(bag):
    places = (('bag', T0 + 7 * STEP_NS), ('bag', T0 + 2 * STEP_NS), ('other', T0))
    shown = frames_shown(model(), model('x', 2.0), bag, 'bag', places, JudgeSettings())
    assert [frame.caption for frame in shown] == ['bag, 0.7 s', 'bag, 0.2 s']
    np.testing.assert_array_equal(shown[0].reference_m, depth(7))
    np.testing.assert_allclose(shown[0].after_m, 2 * shown[0].before_m)
    assert shown[0].rgb[0, 0, 0] == 17


def test_a_scan_is_a_reference_where_something_projects_it_and_refused_where_not(tmp_path):
    path = write(tmp_path / 'b', scan=True)
    settings = JudgeSettings(reference='scan')
    with pytest.raises(RecordingError, match='/scan of sensor_msgs/msg/LaserScan'):
        judge([model()], [path], settings)
    heard = []

    def projecting(recording, topics, topic):
        assert topics.depth is None and topic.name == '/scan' and recording.path == path

        def project(scan, view, stamp_ns):
            heard.append((scan.stamp_ns, stamp_ns, len(scan.ranges_m)))
            truth = np.full((view.model.height, view.model.width), np.nan, np.float32)
            truth[12, ::4] = depth((stamp_ns - T0) // STEP_NS)[12, ::4] * 2
            return truth

        return project

    found = judge([model()], [path], settings, projecting=projecting)
    assert found.frames == 20 and heard[3] == (T0 + 3 * STEP_NS, T0 + 3 * STEP_NS, 9)
    assert found.judgements[0].mean('metric.abs_rel') == pytest.approx(0.5)
    assert found.judgements[0].mean('metric.coverage') == 1.0


def test_an_image_without_a_stamp_does_not_make_all_time_held_out(tmp_path):
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        for stamp_ns in (0, *(T0 + index * STEP_NS for index in range(20))):
            writer.image('/camera/image_raw', picture(0), stamp_ns, 'cam', None)
    assert image_stamps_ns(tmp_path / 'bag') == (T0, T0 + 19 * STEP_NS)
