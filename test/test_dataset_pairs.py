"""Frames are paired by parallax, never by index; what teaches nothing is dropped and counted."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_samples import HIDDEN
from dataset_samples import IDLE
from dataset_samples import cached

from depth_node.camera import from_horizontal_fov
from depth_node.dataset import cache_format
from depth_node.dataset.cache_writer import CacheWriter
from depth_node.dataset.cache_writer import cache_arrays
from depth_node.dataset.pairs import FAST
from depth_node.dataset.pairs import LITTLE_PARALLAX
from depth_node.dataset.pairs import LONELY
from depth_node.dataset.pairs import NO_POSE
from depth_node.dataset.pairs import STANDING
from depth_node.dataset.pairs import TURNING
from depth_node.dataset.pairs import PairLimits
from depth_node.dataset.pairs import angle_rad
from depth_node.dataset.pairs import parallax_px
from depth_node.dataset.pairs import plan_pairs
from depth_node.dataset.pairs import split_by_time
from depth_node.errors import SettingsError

MODEL = from_horizontal_fov(64, 48, 1.2)
BLANK = np.zeros((48, 64, 3), np.uint8)
SECOND = 1_000_000_000


def moved(x: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    pose = np.eye(4)
    c, s = np.cos(yaw), np.sin(yaw)
    pose[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    pose[:3, 3] = x, 0, z
    return pose


def cache_of(tmp_path, poses, rate_hz=10.0):
    stamps = [SECOND + round(k * SECOND / rate_hz) for k in range(len(poses))]
    return cache_arrays(tmp_path / 'c', MODEL, [BLANK] * len(poses), stamps, poses)


def planned(tmp_path, poses, depth=2.0, limits=None, **kwargs):
    cache = cache_of(tmp_path, poses, **kwargs)
    return plan_pairs(cache, range(len(cache)), depth, limits)


def test_standing_and_turning_stretches_are_dropped_to_the_last_frame():
    cache = cached(IDLE, HIDDEN)
    plan = plan_pairs(cache, range(len(cache)), 2.5)
    share = (cache.stamps_ns - cache.stamps_ns[0]) * 1e-9 / IDLE.seconds
    used = {pair.source for pairs in plan.targets.values() for pair in pairs} | set(plan.targets)
    assert not used & set(np.flatnonzero((share < 0.2) | (share > 0.7)).tolist())
    assert len(plan.targets) > 15
    assert plan.dropped[STANDING] >= 11 and plan.dropped[TURNING] >= 16
    assert len(plan.targets) + sum(plan.dropped.values()) == len(cache)


def test_pairs_keep_the_limits_and_say_how_points_move():
    cache = cached(IDLE, HIDDEN)
    limits = PairLimits()
    plan = plan_pairs(cache, range(len(cache)), 2.5, limits)
    assert any(len(pairs) == limits.max_sources for pairs in plan.targets.values())
    for target, pairs in plan.targets.items():
        for pair in pairs:
            assert pair.target == target
            assert limits.min_parallax_px <= pair.parallax_px <= limits.max_parallax_px
            apart = abs(int(cache.stamps_ns[target] - cache.stamps_ns[pair.source]))
            assert apart <= limits.max_time_s * SECOND
            assert angle_rad(pair.T_source_target) <= limits.max_rotation_rad
            np.testing.assert_allclose(
                cache.poses[pair.source] @ pair.T_source_target, cache.poses[target], atol=1e-9
            )


@pytest.mark.parametrize('shift_m', [0.05, 0.2])
def test_parallax_of_a_sideways_step_is_that_of_the_textbook(shift_m):
    assert parallax_px(moved(x=shift_m), MODEL, 2.0) == pytest.approx(MODEL.fx * shift_m / 2.0)
    turned = moved(yaw=0.1)
    assert parallax_px(turned, MODEL, 2.0) == pytest.approx(0.0, abs=1e-9)


def test_half_the_depth_needs_half_the_way(tmp_path):
    cache = cache_of(tmp_path, [moved(x=0.02 * k) for k in range(41)])
    limits = PairLimits(min_parallax_px=2.0, max_parallax_px=5.0)
    far = plan_pairs(cache, range(41), 4.0, limits).targets[20][0]
    near = plan_pairs(cache, range(41), lambda index: 2.0, limits).targets[20][0]
    assert abs(far.source - 20) / abs(near.source - 20) == pytest.approx(2.0, abs=0.2)


def test_sources_lie_on_both_sides_in_time_where_there_are_any(tmp_path):
    plan = planned(tmp_path, [moved(x=0.05 * k) for k in range(30)])
    middle = [pair.source for pair in plan.targets[15]]
    assert min(middle) < 15 < max(middle) and len(middle) == 4
    assert all(pair.source < 29 for pair in plan.targets[29])
    assert len(plan.targets[29]) == 4


@pytest.mark.parametrize(
    ('poses', 'reason'),
    [
        ([moved()] * 20, STANDING),
        ([moved(yaw=0.05 * k) for k in range(20)], TURNING),
        ([moved(x=0.1 * np.sin(0.05 * k), yaw=0.05 * k) for k in range(20)], TURNING),
        ([moved(x=3.0 * k) for k in range(20)], FAST),
        ([None] * 20, NO_POSE),
        ([moved(x=0.05 * k) for k in range(2)], LITTLE_PARALLAX),
    ],
)
def test_every_frame_that_is_dropped_has_its_reason(tmp_path, poses, reason):
    plan = planned(tmp_path, poses)
    assert not plan.targets
    assert plan.dropped == {reason: len(poses)}


def test_frames_far_apart_in_time_are_no_pair(tmp_path):
    plan = planned(tmp_path, [moved(x=0.6 * k) for k in range(8)], rate_hz=0.4)
    assert plan.dropped == {LONELY: 8}


def test_no_pair_reaches_over_a_jump_of_the_localisation(tmp_path):
    fit = cache_format.Fit(0, 0, 64, 48, MODEL)
    header = cache_format.Header('k', '', fit, np.ones((48, 64), bool))
    with CacheWriter(tmp_path / 'c', header) as writer:
        for k in range(40):
            pose = moved(x=0.05 * k + (0.03 if k >= 20 else 0.0))
            writer.add(BLANK, SECOND + k * SECOND // 10, pose, segment=int(k >= 20))
        cache = writer.finish()
    plan = plan_pairs(cache, range(40), 2.0)
    pairs = [pair for found in plan.targets.values() for pair in found]
    assert len(pairs) > 80
    assert all((pair.target >= 20) == (pair.source >= 20) for pair in pairs)


def test_held_out_frames_are_neither_targets_nor_sources(tmp_path):
    cache = cache_of(tmp_path, [moved(x=0.05 * k) for k in range(200)])
    split = split_by_time(cache.frames, blocks=5, guard_s=2.0)
    assert split.held_out == tuple(range(160, 200))
    assert max(split.train) == 139, 'two seconds of guard'
    plan = plan_pairs(cache, split.train, 2.0)
    used = {pair.source for pairs in plan.targets.values() for pair in pairs}
    assert used and max(used) <= 139
    inner = split_by_time(cache.frames, blocks=5, guard_s=2.0, held_out=2)
    assert inner.held_out == tuple(range(80, 120))
    assert not set(range(60, 80)) & set(inner.train)
    assert not set(range(120, 139)) & set(inner.train)
    with pytest.raises(SettingsError, match='block 5 of 5'):
        split_by_time(cache.frames, blocks=5, held_out=5)
