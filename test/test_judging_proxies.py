"""What needs no reference: true depth scores well, wrong depth badly, all on the same pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from depth_node.camera import ray_slopes
from depth_node.frames import CameraModel
from depth_node.judging import proxies
from depth_node.judging.proxies import Ground
from depth_node.judging.proxies import judge_by_proxies
from depth_node.judging.warping import height_above_ground_m
from depth_node.judging.warping import inconsistency
from depth_node.judging.warping import photometric_difference
from depth_node.judging.warping import projected
from depth_node.judging.warping import sampled

CAMERA = CameraModel(96, 72, 80.0, 82.0, 46.0, 37.0)
NORMAL, DISTANCE = np.array([0.15, 0.3, 0.94]), 3.0


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    """Return T_source_target."""
    matrix = np.eye(4)
    cos, sin = math.cos(yaw), math.sin(yaw)
    matrix[:3, :3] = [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
    matrix[:3, 3] = x, y, z
    return matrix


def plane_seen_from(t_camera_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return RGB and depth of a textured plane, seen by a camera that has moved."""
    x, y = (axis.astype(float) for axis in ray_slopes(CAMERA))
    rays = np.stack(np.broadcast_arrays(x[None, :], y[:, None], 1.0), axis=-1)
    back = np.linalg.inv(t_camera_world)
    turned, origin = rays @ back[:3, :3].T, back[:3, 3]
    depth = (DISTANCE - NORMAL @ origin) / (turned @ NORMAL)
    points = turned * depth[..., None] + origin
    waves = [np.sin(points @ np.array(k)) for k in ((7, 1, 0), (2, 9, 1), (4, -5, 2))]
    return (127 + 80 * np.stack(waves, axis=-1)).astype(np.uint8), depth.astype(np.float32)


@dataclass
class Pair:
    source: int
    T_source_target: np.ndarray


@dataclass
class Known:
    u: np.ndarray
    v: np.ndarray
    depth_m: np.ndarray


class Recorded:
    """Frames of the plane from several places."""

    def __init__(self) -> None:
        self.camera, self.seen = CAMERA, np.ones((72, 96), bool)
        self.poses = [pose(0.05 * k, 0.01 * k, 0.04 * k, 0.01 * k) for k in range(6)]
        self.views = [plane_seen_from(item) for item in self.poses]
        self.stamps_ns = np.arange(6, dtype=np.int64) * 100_000_000
        self.asked: list[int] = []

    def rgb(self, index: int) -> np.ndarray:
        self.asked.append(index)
        return self.views[index][0]

    def pair(self, target: int, source: int) -> Pair:
        return Pair(source, self.poses[source] @ np.linalg.inv(self.poses[target]))

    def model(self, change=lambda depth: depth):
        """Return a model that knows the true depth, changed."""
        by_bytes = {rgb.tobytes(): depth for rgb, depth in self.views}
        return lambda rgb: change(by_bytes[rgb.tobytes()].copy())

    def targets(self) -> dict[int, list[Pair]]:
        return {2: [self.pair(2, 0), self.pair(2, 4)], 3: [self.pair(3, 1), self.pair(3, 5)]}


@pytest.fixture(scope='module')
def recorded() -> Recorded:
    return Recorded()


def means(found: dict) -> dict[str, dict[str, float]]:
    return {name: {key: s.mean for key, s in series.items()} for name, series in found.items()}


def test_the_identity_pose_leaves_every_pixel_where_it_is(recorded):
    rgb, depth = recorded.views[0]
    place = projected(depth, CAMERA, np.eye(4))
    assert place.in_view.all()
    image = rgb.astype(np.float32) / 255
    np.testing.assert_allclose(sampled(image, place), image, atol=2e-3)
    np.testing.assert_allclose(place.depth_m, depth, rtol=1e-6)


def test_true_depth_and_pose_find_the_same_place_in_the_other_image(recorded):
    (rgb, depth), (other, other_depth) = recorded.views[2], recorded.views[4]
    place = projected(depth, CAMERA, recorded.pair(2, 4).T_source_target)
    assert 0.5 < place.in_view.mean() < 1.0
    warped = sampled(other.astype(np.float32) / 255, place)
    difference = np.abs(warped - rgb.astype(np.float32) / 255)[place.in_view]
    assert difference.mean() < 0.01
    unlike = inconsistency(place, other_depth)
    assert np.nanmax(unlike) < 2e-3
    assert (np.isfinite(unlike) == place.in_view).all()


def test_points_behind_the_source_and_unknown_depth_are_out_of_view():
    depth = np.full((72, 96), 1.0, np.float32)
    assert not projected(depth, CAMERA, pose(z=-2.0)).in_view.any()
    for unknown in (np.nan, np.inf, 0.0, -1.0):
        place = projected(np.full_like(depth, unknown), CAMERA, np.eye(4))
        assert not place.in_view.any() and np.isfinite(place.u).all()
        assert np.isnan(place.depth_m).all()


def test_photometric_difference_is_that_of_its_formula():
    rng = np.random.default_rng(0)
    a, b = (rng.random((12, 14, 3)).astype(np.float32) for _ in range(2))
    v, u, c = 5, 7, 1
    one, two = (x[v - 1 : v + 2, u - 1 : u + 2, c].astype(float).ravel() for x in (a, b))
    covariance = np.mean(one * two) - one.mean() * two.mean()
    ssim = (2 * one.mean() * two.mean() + 1e-4) * (2 * covariance + 9e-4)
    ssim /= (one.mean() ** 2 + two.mean() ** 2 + 1e-4) * (one.var() + two.var() + 9e-4)
    wanted = 0.85 * (1 - ssim) / 2 + 0.15 * abs(float(a[v, u, c]) - float(b[v, u, c]))
    single = photometric_difference(a[..., c : c + 1].repeat(3, 2), b[..., c : c + 1].repeat(3, 2))
    assert single[v, u] == pytest.approx(wanted, abs=1e-5)
    assert photometric_difference(a, a).max() < 1e-6


def test_true_depth_beats_wrong_depth_in_every_proxy(recorded):
    models = {
        'true': recorded.model(),
        'wrong': recorded.model(lambda d: d * np.linspace(0.6, 1.6, 96, dtype=np.float32)),
    }
    rng = np.random.default_rng(1)
    u, v = rng.uniform(1, 94, 40).astype('f4'), rng.uniform(1, 70, 40).astype('f4')

    def tracks(index):
        rows, columns = np.rint(v).astype(int), np.rint(u).astype(int)
        return Known(u, v, recorded.views[index][1][rows, columns])

    found = judge_by_proxies('bag', recorded, recorded.targets(), models, tracks=tracks)
    good, bad = means(found)['true'], means(found)['wrong']
    assert good[proxies.TRACKS] < 1e-6 and bad[proxies.TRACKS] > 0.2
    assert good[proxies.TRACKS_SCALE] == pytest.approx(1.0)
    assert good[proxies.PHOTOMETRIC] < 0.3 * bad[proxies.PHOTOMETRIC]
    assert good[proxies.PHOTOMETRIC] < 0.3 * good[proxies.STANDING_STILL]
    assert good[proxies.CONSISTENCY] < 2e-3 and bad[proxies.CONSISTENCY] > 0.01
    assert good[proxies.STANDING_STILL] == bad[proxies.STANDING_STILL]
    assert found['true'][proxies.TRACKS].stamps_ns.tolist() == [200_000_000, 300_000_000]
    assert found['true'][proxies.TRACKS].recordings == ('bag',)


def test_tracks_tell_a_wrong_scale_and_the_scaled_measure_does_not_mind(recorded):
    u = np.linspace(5, 90, 20).astype('f4')
    v = np.linspace(5, 65, 20).astype('f4')

    def tracks(index):
        rows, columns = np.rint(v).astype(int), np.rint(u).astype(int)
        return Known(u, v, recorded.views[index][1][rows, columns])

    models = {'half': recorded.model(lambda d: d / 2)}
    found = judge_by_proxies('bag', recorded, recorded.targets(), models, tracks=tracks)['half']
    assert found[proxies.TRACKS].mean == pytest.approx(0.5)
    assert found[proxies.TRACKS_SCALED].mean < 1e-6
    assert found[proxies.TRACKS_SCALE].mean == pytest.approx(2.0)


def test_a_model_cannot_choose_its_pixels_and_what_it_leaves_out_is_told(recorded):
    def half(depth):
        depth[:, :48] = np.nan
        return depth

    bent = recorded.model(lambda d: d * np.linspace(0.6, 1.6, 96, dtype=np.float32))
    alone = means(judge_by_proxies('b', recorded, recorded.targets(), {'bent': bent}))
    models = {'bent': bent, 'half': recorded.model(half)}
    both = means(judge_by_proxies('b', recorded, recorded.targets(), models))
    assert both['half'][proxies.COVERAGE] == pytest.approx(0.5)
    assert both['bent'][proxies.COVERAGE] == 1.0
    assert both['bent'][proxies.PHOTOMETRIC] != alone['bent'][proxies.PHOTOMETRIC]
    assert both['bent'][proxies.STANDING_STILL] == both['half'][proxies.STANDING_STILL]


def test_too_few_tracks_or_no_view_in_common_is_nan_and_not_zero(recorded):
    few = Known(*(np.ones(3, np.float32) for _ in range(3)))
    away = {2: [Pair(4, pose(z=-50.0))]}
    found = judge_by_proxies(
        'b', recorded, away, {'m': recorded.model()}, tracks=lambda index: few
    )['m']
    for name in (proxies.TRACKS, proxies.PHOTOMETRIC, proxies.CONSISTENCY):
        assert found[name].count == 0 and math.isnan(found[name].mean)


def test_pixels_that_no_camera_saw_do_not_count(recorded):
    recorded_black = Recorded()
    recorded_black.seen[:, :30] = False
    for rgb, _ in recorded_black.views:
        rgb[:, :30] = 0
    found = judge_by_proxies(
        'b', recorded_black, recorded_black.targets(), {'m': recorded_black.model()}
    )['m']
    assert found[proxies.PHOTOMETRIC].mean < 0.01
    assert found[proxies.COVERAGE].mean == 1.0


def test_frames_are_read_and_inferred_once_while_they_are_near():
    frames = Recorded()
    calls = []
    true = frames.model()

    def predict(rgb):
        calls.append(1)
        return true(rgb)

    judge_by_proxies('b', frames, frames.targets(), {'m': predict})
    assert sorted(frames.asked) == [0, 1, 2, 3, 4, 5] and len(calls) == 6


def test_height_above_a_level_floor_is_found_and_walls_do_not_count():
    height, pitch = 0.42, math.radians(12)
    down = np.array([0.0, math.cos(pitch), math.sin(pitch)])
    x, y = (axis.astype(float) for axis in ray_slopes(CAMERA))
    fall = y[:, None] * down[1] + down[2] + 0 * x[None, :]
    depth = np.where(fall > 0.12, height / np.maximum(fall, 0.12), 2.5).astype(np.float32)
    assert height_above_ground_m(depth, CAMERA, down) == pytest.approx(height, rel=1e-3)
    wall = np.full((72, 96), 2.0, np.float32)
    assert math.isnan(height_above_ground_m(wall, CAMERA, np.array([0.0, 1.0, 0.0])))


def test_the_error_of_the_height_is_a_share_of_the_known_one(recorded):
    ground = Ground(2.0 * DISTANCE, NORMAL / np.linalg.norm(NORMAL))
    found = judge_by_proxies('b', recorded, {0: []}, {'m': recorded.model()}, ground=ground)['m']
    assert found[proxies.GROUND].mean == pytest.approx(0.5, abs=0.01)


def test_cv2_remap_is_good_to_a_32nd_of_a_pixel():
    ramp = np.tile(np.arange(20, dtype=np.float32), (4, 1))
    at = np.array([[3.3, 7.77]], np.float32)
    found = cv2.remap(ramp, at, np.ones_like(at), cv2.INTER_LINEAR)
    np.testing.assert_allclose(found, at, atol=1 / 32)
