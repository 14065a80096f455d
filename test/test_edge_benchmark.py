"""What counts as a flying point, and that the page says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('rosbags')

from result_schema import problems_of

from depth_node.benchmark import edge_page
from depth_node.benchmark import edge_picture
from depth_node.benchmark import edge_views
from depth_node.benchmark import edges
from depth_node.benchmark.flying import Count
from depth_node.benchmark.flying import edges_of
from depth_node.benchmark.flying import flying_points
from depth_node.benchmark.result import spread_of
from depth_node.benchmark.result import write_result
from depth_node.frames import CameraModel
from depth_node.settings import Settings
from depth_node.tools import benchmark
from depth_node.world import recording

CAMERA = CameraModel(60, 40, 50.0, 50.0, 29.5, 19.5)
STEP = Settings().depth.edge_step


def box_before_a_wall() -> np.ndarray:
    depth_m = np.full((40, 60), 4.0, np.float32)
    depth_m[:, 30:] = 2.0
    return depth_m


def test_a_point_between_two_surfaces_flies_and_one_on_either_does_not() -> None:
    surface_m = box_before_a_wall()
    depth_m = surface_m.copy()
    depth_m[10, 29], depth_m[11, 29], depth_m[12, 29], depth_m[13, 29] = 3.0, 2.05, 3.85, np.nan
    depth_m[14, 2] = 2.0
    flies = flying_points(depth_m, surface_m, CAMERA, 8)
    # 2 m is that of the box, but the box is far from column 2
    assert np.argwhere(flies).tolist() == [[10, 29], [14, 2]]


def test_nothing_is_a_surface_where_the_truth_is_unknown_or_sky() -> None:
    for nothing in (np.nan, np.inf):
        surface_m = np.full((40, 60), nothing, np.float32)
        assert flying_points(box_before_a_wall(), surface_m, CAMERA, 3).all()


def test_shares_are_those_of_the_points_that_count() -> None:
    flies = np.array([[True, True, False, False, False, True]])
    judged = np.array([[True, True, True, True, True, False]])
    gone = np.array([[True, False, False, False, True, True]])
    count = Count()
    count.add(flies, judged, gone)
    assert (count.before_share, count.after_share) == (2 / 5, 1 / 3)
    assert (count.removed_share, count.lost_share) == (1 / 2, 1 / 3)


def test_an_edge_is_where_there_is_room_for_a_point_that_flies() -> None:
    assert set(np.nonzero(edges_of(box_before_a_wall()))[1]) == {29, 30}
    assert not edges_of(np.linspace(2.0, 4.0, 60, dtype=np.float32)[None].repeat(40, 0)).any()


def test_without_recordings_the_result_keeps_the_schema_and_the_page_says_so(
    tmp_path: Path,
) -> None:
    views = edge_views.generated(320, 240, 2)
    assert list(edge_views.recorded(tmp_path / 'none', 2)) == []
    rows = edges.exact_rows('world', views, (128, 96))
    costs = [edges.EdgeCost('128x96', spread_of([400_000]))]
    conditions = {'edge_step': STEP, 'views': 2, 'model': 'm', 'recordings': []}
    path = tmp_path / 'edges.json'
    write_result(path, 'edges', edges.PROTOCOL, conditions, rows, further={'costs': costs})
    content = json.loads(path.read_text())
    assert problems_of(content) == []
    text = edge_page.page(content)
    assert 'Recordings: none were there' in text
    assert '| time, median | under 0.3 ms | 0.40 ms | **missed** |' in text
    assert [edges.summary(row, STEP)[2] for row in rows] == list(edges.SEEN)
    removed = [item['removed_share'] for item in content['rows'][0]['steps']]
    assert removed == sorted(removed, reverse=True)


def test_images_of_a_recording_are_spread_over_all_of_it(tmp_path: Path, monkeypatch) -> None:
    settings = recording.RecordingSettings(seconds=1.0, rate_hz=10.0, width=32, height=24)
    recording.write(tmp_path / 'bag', settings, workers=1)
    seen: list[int] = []
    inner = edge_views.decode_depth_image
    monkeypatch.setattr(
        edge_views, 'decode_depth_image', lambda item: seen.append(item.stamp_ns) or inner(item)
    )
    ((name, views),) = edge_views.recorded(tmp_path, 6)
    assert name == 'bag' and len(views) == len(seen) == 6
    assert seen[-1] - seen[0] == 900_000_000


def test_the_picture_shows_fewer_red_points_with_the_mask_and_is_small() -> None:
    drawn = edge_picture.picture(edge_views.generated(320, 240, 1)[0], (128, 96), STEP)
    red = (drawn == (220, 0, 0)).all(axis=2)
    half = red.shape[1] // 2
    assert red[:, :half].sum() > 5 * red[:, half:].sum()
    assert len(edge_picture.png(drawn)) < 150_000


def test_committed_figures_are_those_of_the_setting_in_force() -> None:
    path = Path(__file__).parents[1] / 'benchmarks' / 'results' / 'edges.json'
    content = json.loads(path.read_text())
    assert problems_of(content) == []
    assert content['conditions']['edge_step'] == STEP


def test_the_command_knows_the_measurement() -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark.main(['edges', '--help'])
    assert ended.value.code == 0
