"""What came out of a demo is compared with depth of the same view alone, and shown as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('rosbags')

import demo_recording
from demo_recording import CAMERA
from demo_recording import COUNT
from demo_recording import HEIGHT
from demo_recording import RATE_HZ
from demo_recording import T0
from demo_recording import WIDTH
from demo_recording import write
from ply_points import read_ply
from standin_node import relative
from standin_node import truth

from depth_node.demo import report as demo_report
from depth_node.demo.truth import Exhibit
from depth_node.demo.truth import Played
from depth_node.demo.truth import RelativeExhibit
from depth_node.demo.truth import Source
from depth_node.demo.truth import judge
from depth_node.demo.truth import read_log
from depth_node.ros.collector import Arrival
from depth_node.ros.collector import Cloud
from depth_node.ros.collector import Published
from depth_node.ros.collector import percentiles_ms
from depth_node.ros.collector import rate_hz

recording = demo_recording.recording


def played(count: int = COUNT) -> tuple[Played, ...]:
    return tuple(
        Played(index, 5_000 + index, T0 + round(index * 1e9 / RATE_HZ)) for index in range(count)
    )


def metric(images: dict[int, np.ndarray]) -> Published:
    return Published(relative=False, images=images)


@pytest.mark.parametrize(
    'change, word',
    [
        ({'d': (0.1, 0.0, 0.0, 0.0, 0.0)}, 'distortion'),
        ({'k': (90.0, 0.0, 31.5, 0.0, 90.0, 23.5, 0.0, 0.0, 1.0)}, 'another view'),
        ({'k': (60.0, 0.0, 28.0, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0)}, 'another view'),
    ],
)
def test_depth_of_another_view_is_not_compared(tmp_path, change, word):
    path = write(tmp_path / 'bag', replace(CAMERA, **change))
    judgement = judge(Source(path), played(), metric({5_000: truth(HEIGHT, WIDTH)}), CAMERA)
    assert judgement.report is None and word in judgement.note
    assert judgement.exhibit.truth_m is None


def test_depth_of_another_sensor_is_not_compared(tmp_path):
    path = write(tmp_path / 'bag', depth_frame='other')
    judgement = judge(Source(path), played(), metric({5_000: truth(HEIGHT, WIDTH)}), CAMERA)
    assert judgement.report is None and 'not aligned' in judgement.note


def test_depth_of_another_size_is_compared_at_that_size(recording):
    half = replace(CAMERA, width=32, height=24, k=(30.0, 0.0, 15.5, 0.0, 30.0, 11.5, 0, 0, 1.0))
    wanted = truth(2 * HEIGHT, 2 * WIDTH)[2::4, 2::4]
    judgement = judge(Source(recording), played(), metric({5_003: wanted}), half)
    assert judgement.report.frames == 1
    assert judgement.report.metric.abs_rel < 0.001
    assert judgement.exhibit.rgb.shape == (HEIGHT, WIDTH, 3)
    assert judgement.exhibit.truth_m.shape == (24, 32)


def test_depth_without_a_known_stamp_is_not_compared(recording):
    judgement = judge(Source(recording), played(), metric({77: truth(HEIGHT, WIDTH)}), CAMERA)
    assert judgement.report is None and judgement.exhibit is None and judgement.note


def test_relative_inverse_depth_without_a_truth_is_shown_and_not_compared(tmp_path):
    path = write(tmp_path / 'bag', depth_frame='other')
    published = Published(relative=True, images={5_000: relative(HEIGHT, WIDTH)})
    judgement = judge(Source(path), played(), published, CAMERA)
    assert judgement.report is None and 'not aligned' in judgement.note
    assert judgement.exhibit.aligned_m is None and judgement.exhibit.inverse[0, -1] == 0.0


def test_a_log_that_was_cut_short_is_read_as_far_as_it_goes(tmp_path):
    path = tmp_path / 'log'
    path.write_text('{"index": 0, "stamp_ns": 7, "recorded_stamp_ns": 5}\n{"index": 1, "sta')
    assert read_log(path) == (Played(0, 7, 5),)
    assert read_log(tmp_path / 'nothing') == ()


def test_ages_and_rates_are_those_of_the_arrivals():
    arrivals = [
        Arrival(stamp_ns=i * 10**8, arrived_ns=i * 10**8 + (i + 1) * 10**6, size_bytes=1)
        for i in range(100)
    ]
    figures = percentiles_ms(arrivals)
    assert (figures.p50_ms, figures.p95_ms, figures.p99_ms) == (50.0, 95.0, 99.0)
    assert rate_hz(arrivals) == pytest.approx(10.0, rel=0.02)
    assert percentiles_ms([]) is None and rate_hz(arrivals[:1]) == 0.0


def test_unknown_depth_is_grey_and_colours_share_one_scale():
    depth = np.full((4, 4), 2.0, dtype=np.float32)
    depth[0, 0] = np.nan
    other = np.full((4, 4), 2.0, dtype=np.float32)
    other[3, 3] = 4.0
    picture = demo_report.render(Exhibit(np.zeros((4, 4, 3), np.uint8), depth, other))
    _, near, true, error = np.split(picture, 4, axis=1)
    assert near[10, 10].tolist() == [48, 48, 48] == error[10, 10].tolist()
    assert near[240, 240].tolist() == true[240, 240].tolist()
    assert true[470, 470].tolist() != true[240, 240].tolist()
    alone = demo_report.render(Exhibit(np.zeros((4, 4, 3), np.uint8), depth, None))
    assert alone.shape[1] == 960
    nothing = np.full((4, 4), np.nan, dtype=np.float32)
    assert demo_report.render(Exhibit(np.zeros((4, 4, 3), np.uint8), nothing, None)).size


def test_near_has_the_same_colour_in_metres_and_in_relative_inverse_depth():
    rgb, truth_m = np.zeros((HEIGHT, WIDTH, 3), np.uint8), truth(HEIGHT, WIDTH)
    inverse = relative(HEIGHT, WIDTH)
    inverse[0] = np.nan
    picture = demo_report.render(RelativeExhibit(rgb, inverse, truth_m, truth_m))
    _, shown, aligned, true, _ = np.split(picture, 5, axis=1)
    assert shown[2, 200].tolist() == [48, 48, 48]
    for column in (1, 478):
        assert shown[200, column].tolist() == aligned[200, column].tolist()
        assert shown[200, column].tolist() == true[200, column].tolist()
    assert shown[200, 1].tolist() != shown[200, 478].tolist()
    nothing = np.full((4, 4), np.nan, np.float32)
    alone = demo_report.render(RelativeExhibit(rgb, nothing, None, None))
    assert alone.shape[1] == 2 * 480


def test_a_cloud_without_points_is_still_a_ply_file(tmp_path):
    empty = Cloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), 'cam')
    demo_report.write_ply(tmp_path / 'c.ply', empty)
    assert len(read_ply(tmp_path / 'c.ply')) == 0
