"""Depth by followed corners: right where it is given, and not given where it cannot be known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from dataset_samples import BENT
from dataset_samples import HIDDEN
from dataset_samples import cached
from dataset_samples import true_depth

from depth_node.camera import from_horizontal_fov
from depth_node.dataset.cache_writer import cache_arrays
from depth_node.dataset.pairs import plan_pairs
from depth_node.dataset.tracks import measured_depth_m
from depth_node.dataset.tracks import tracked_depth
from depth_node.dataset.tracks import triangulated

MODEL = from_horizontal_fov(192, 144, 1.2)
SEEN = np.ones((144, 192), bool)
NORMAL = np.array([0.3, -0.2, 1.0])
DISTANCE_M = 2.0


def texture() -> np.ndarray:
    rng = np.random.default_rng(3)
    grain = cv2.GaussianBlur(rng.uniform(0, 255, (144, 192)).astype(np.float32), (0, 0), 1.6)
    return np.clip((grain - grain.mean()) * 6 + 127, 0, 255).astype(np.uint8)


def seen_from(grey: np.ndarray, T_source_target: np.ndarray) -> np.ndarray:
    """Show the plane ``NORMAL . p = DISTANCE_M`` from elsewhere."""
    plane = T_source_target[:3, :3] + np.outer(T_source_target[:3, 3], NORMAL) / DISTANCE_M
    homography = MODEL.k @ plane @ np.linalg.inv(MODEL.k)
    return cv2.warpPerspective(grey, homography, (192, 144), flags=cv2.INTER_CUBIC)


def plane_depth(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    rays = np.stack([(u - MODEL.cx) / MODEL.fx, (v - MODEL.cy) / MODEL.fy, np.ones_like(u)], 1)
    return DISTANCE_M / (rays @ NORMAL)


def motion(x=0.0, y=0.0, z=0.0, yaw=0.0, roll=0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.array([0.0, yaw, roll]))[0]
    pose[:3, 3] = x, y, z
    return pose


def test_a_slanted_plane_is_measured_to_a_percent():
    grey = texture()
    poses = [motion(0.12, 0.01, 0.05, 0.08, 0.03), motion(-0.1, 0.02, -0.05, -0.1, 0.0)]
    found = triangulated(grey, [(seen_from(grey, pose), pose) for pose in poses], MODEL, SEEN)
    assert len(found.depth) > 150
    ratio = found.depth.depth_m / plane_depth(found.depth.u, found.depth.v)
    assert abs(np.median(ratio) - 1) < 0.005
    assert np.quantile(np.abs(ratio - 1), 0.9) < 0.04
    assert (np.abs(ratio - 1) < 3 * found.sigma_m / found.depth.depth_m).mean() > 0.95


def test_depth_is_as_wrong_as_the_odometry():
    grey = texture()
    pose = motion(0.12, 0.01, 0.05, 0.08)
    said = pose.copy()
    said[:3, 3] *= 1.1
    found = triangulated(grey, [(seen_from(grey, pose), said)], MODEL, SEEN)
    ratio = found.depth.depth_m / plane_depth(found.depth.u, found.depth.v)
    assert np.median(ratio) == pytest.approx(1.1, abs=0.01)


@pytest.mark.parametrize(
    ('true_pose', 'said'),
    [
        (motion(yaw=0.1), motion(yaw=0.1)),
        (motion(), motion(x=0.2)),
        (motion(y=0.15), motion(x=0.15)),
        (motion(x=-0.15), motion(x=0.15)),
    ],
    ids=['only turned', 'slipped', 'across the line', 'behind the camera'],
)
def test_what_the_poses_do_not_explain_is_not_measured(true_pose, said):
    grey = texture()
    found = triangulated(grey, [(seen_from(grey, true_pose), said)], MODEL, SEEN)
    assert len(found.depth) <= 6


def test_pictures_without_corners_give_nothing():
    blank = np.full((144, 192), 90, np.uint8)
    found = triangulated(blank, [(blank, motion(x=0.1))], MODEL, SEEN)
    assert len(found.depth) == 0


def test_nothing_is_measured_where_rectification_left_black():
    grey = texture()
    seen = SEEN.copy()
    seen[:, :60] = False
    pose = motion(0.12)
    found = triangulated(grey, [(seen_from(grey, pose), pose)], MODEL, seen)
    assert len(found.depth) > 50 and found.depth.u.min() >= 60


def test_tracks_of_a_recording_agree_with_its_truth():
    cache, truth = cached(BENT, HIDDEN), true_depth(BENT)
    typical = measured_depth_m(cache, range(len(cache)), guess_m=10.0)
    plan = plan_pairs(cache, range(len(cache)), typical)
    ratios = []
    for target, pairs in list(plan.targets.items())[::3]:
        depth = tracked_depth(cache, pairs).depth
        ratios.append(depth.depth_m / depth.sampled(truth[cache.frames[target].stamp_ns]))
    ratio = np.concatenate(ratios)
    ratio = ratio[np.isfinite(ratio)]
    assert len(ratio) > 300
    assert abs(np.median(ratio) - 1) < 0.03
    assert np.median(np.abs(ratio - 1)) < 0.12


def test_standing_cameras_measure_nothing(tmp_path):
    rgb = cv2.cvtColor(texture(), cv2.COLOR_GRAY2RGB)
    stamps = [k * 100_000_000 + 1 for k in range(10)]
    cache = cache_arrays(tmp_path / 'c', MODEL, [rgb] * 10, stamps, [np.eye(4)] * 10)
    assert measured_depth_m(cache, range(10)) is None
