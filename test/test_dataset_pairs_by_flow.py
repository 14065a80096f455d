"""Without poses, frames are paired by the parallax that their images show."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from dataset_samples import HIDDEN
from dataset_samples import IDLE
from dataset_samples import TrueModel
from dataset_samples import cached

from depth_node.camera import from_horizontal_fov
from depth_node.dataset.cache_writer import cache_arrays
from depth_node.dataset.pairs import LONELY
from depth_node.dataset.pairs import STANDING
from depth_node.dataset.pairs import TURNING
from depth_node.dataset.pairs import UNFOLLOWED
from depth_node.dataset.pairs import PairLimits
from depth_node.dataset.pairs import PairPlan
from depth_node.dataset.pairs import parallax_px
from depth_node.dataset.pairs import plan_pairs
from depth_node.dataset.pairs_by_flow import has_poses
from depth_node.dataset.pairs_by_flow import plan_pairs_by_flow
from depth_node.dataset.pairs_by_flow import posed_by_depth
from depth_node.dataset.view_change import view_change

SLOW = replace(IDLE, seconds=10.0, rate_hz=5.0)
DEPTH_M = 3.6  # median of what its frames show
MODEL = from_horizontal_fov(256, 192, 1.2)
SECOND = 1_000_000_000


def seen_from(turn, shift, depth_m=(2.0, 6.0), noise_px=0.15):
    """Return pixels of points before and after x' = R x + t, and their movement without R."""
    rng = np.random.default_rng(2)
    before = rng.uniform((8, 8), (248, 184), (200, 2))
    focal, centre = (MODEL.fx, MODEL.fy), (MODEL.cx, MODEL.cy)
    rays = np.concatenate([(before - centre) / focal, np.ones((200, 1))], axis=1)
    points = rays * rng.uniform(*depth_m, (200, 1))
    matrix = cv2.Rodrigues(np.array(turn, float))[0]
    turned = points @ matrix.T
    moved = turned + shift

    def pixels(p):
        return p[:, :2] / p[:, 2:] * focal + centre

    true_px = np.median(np.linalg.norm(pixels(moved) - pixels(turned), axis=1))
    return before, pixels(moved) + rng.normal(0, noise_px, (200, 2)), true_px


@pytest.mark.parametrize('turn', [(0, 0.1, 0), (0.02, -0.06, 0.05), (0, 0, 0)])
def test_turning_is_no_parallax(turn):
    before, after, _ = seen_from(turn, (0, 0, 0))
    found = view_change(before, after, MODEL)
    assert found.parallax_px < 0.7
    assert found.angle_rad == pytest.approx(np.linalg.norm(turn), abs=0.002)


@pytest.mark.parametrize('shift', [(0.2, 0, 0), (0.05, 0.02, -0.4), (-0.15, 0.1, 0.2)])
@pytest.mark.parametrize('turn', [(0, 0.1, 0), (0.02, -0.06, 0.05)])
def test_parallax_is_what_the_turn_leaves_over(turn, shift):
    before, after, true_px = seen_from(turn, shift)
    after[:20] = np.random.default_rng(0).uniform(0, 190, (20, 2))  # followed wrongly
    found = view_change(before, after, MODEL)
    assert true_px > 4.0
    assert found.parallax_px == pytest.approx(true_px, rel=0.15)
    assert found.angle_rad == pytest.approx(np.linalg.norm(turn), abs=0.006)


def test_overlap_is_the_share_that_stays_in_view():
    before, after, _ = seen_from((0, 0.2, 0), (0, 0, 0))
    shift_px = np.mean(np.abs(after - before)[:, 0])
    assert view_change(before, before, MODEL).overlap == 1.0
    assert view_change(before, after, MODEL).overlap == pytest.approx(
        1.0 - shift_px / MODEL.width, abs=0.04
    )


def test_images_without_a_common_motion_say_nothing():
    rng = np.random.default_rng(1)
    before, after = rng.uniform(0, 190, (2, 60, 2))
    assert view_change(before, after, MODEL) is None
    assert view_change(before[:5], before[:5], MODEL) is None


def test_pairs_without_poses_are_about_those_with_poses():
    cache = cached(SLOW, HIDDEN)
    posed = plan_pairs(cache, range(len(cache)), DEPTH_M)
    plan = plan_pairs_by_flow(cache, range(len(cache)))
    share = (cache.stamps_ns - cache.stamps_ns[0]) * 1e-9 / SLOW.seconds
    used = {pair.source for pairs in plan.targets.values() for pair in pairs} | set(plan.targets)
    assert not used & set(np.flatnonzero((share < 0.18) | (share > 0.72)).tolist())
    assert len(set(plan.targets) & set(posed.targets)) >= 0.7 * len(posed.targets)
    assert plan.dropped[STANDING] >= 10 and plan.dropped[TURNING] >= 15
    assert len(plan.targets) + sum(plan.dropped.values()) == len(cache)
    pairs = [pair for found in plan.targets.values() for pair in found]
    limits = PairLimits()
    assert all(np.isnan(pair.T_source_target).all() for pair in pairs)
    assert all(
        limits.min_parallax_px <= pair.parallax_px <= limits.max_parallax_px for pair in pairs
    )
    true = [
        parallax_px(
            np.linalg.inv(cache.poses[p.source]) @ cache.poses[p.target], cache.camera, 2.5
        )
        for p in pairs
    ]
    assert 0.5 < np.median(true) / np.median([p.parallax_px for p in pairs]) < 2.0
    poses = cache.poses
    truth = TrueModel(SLOW, cache, factor=0.5)
    few = PairPlan(dict(list(plan.targets.items())[::5]))
    posed_pairs = posed_by_depth(cache, few, truth).targets.values()
    ratios = [
        np.linalg.norm(pair.T_source_target[:3, 3])
        / np.linalg.norm((np.linalg.inv(poses[pair.source]) @ poses[pair.target])[:3, 3])
        for found in posed_pairs
        for pair in found
    ]
    assert len(ratios) >= 6 and 0.35 < np.median(ratios) < 0.7, 'in the units of the model'
    assert any({p.source < k for p in found} == {True, False} for k, found in plan.targets.items())


def test_frames_that_nothing_can_be_followed_in_are_counted(tmp_path):
    blank = [np.zeros((192, 256, 3), np.uint8)] * 6
    stamps = [SECOND + k * SECOND // 10 for k in range(6)]
    cache = cache_arrays(tmp_path / 'blank', MODEL, blank, stamps, [None] * 6)
    assert not has_poses(cache) and has_poses(cached(SLOW, HIDDEN))
    assert plan_pairs_by_flow(cache, range(6)).dropped == {UNFOLLOWED: 6}
    stamps = [SECOND + k * 5 * SECOND for k in range(6)]
    cache = cache_arrays(tmp_path / 'apart', MODEL, blank, stamps, [None] * 6)
    assert plan_pairs_by_flow(cache, range(6)).dropped == {LONELY: 6}
