"""The scale of a model: found, whatever it was, by every source, and compared."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from dataset_samples import BENT
from dataset_samples import HIDDEN
from dataset_samples import IDLE
from dataset_samples import TrueModel
from dataset_samples import cached
from dataset_samples import recorded

from depth_node.dataset.pairs import PairPlan
from depth_node.dataset.pairs import plan_pairs
from depth_node.dataset.pose_source import read_transforms
from depth_node.dataset.scale import ScaleEstimate
from depth_node.dataset.scale import chosen_scale
from depth_node.dataset.scale import disagreements
from depth_node.dataset.scale import estimate_scales
from depth_node.dataset.topics import topics_of
from depth_node.dataset.tracks import measured_depth_m
from depth_node.recording import open_recording


@functools.cache
def planned(cache):
    return plan_pairs(cache, range(len(cache)), measured_depth_m(cache, range(len(cache))))


def test_a_model_three_times_wrong_behind_a_lens_is_put_right_by_odometry_alone():
    cache = cached(BENT, HIDDEN)
    assert not cache.sources, 'depth and scan are hidden'
    estimates = estimate_scales(cache, planned(cache), TrueModel(BENT, cache))
    chosen = chosen_scale(estimates)
    assert chosen.kind == 'tracks'
    assert chosen.scale == pytest.approx(3.0, rel=0.03)
    assert chosen.spread < 0.2 and chosen.samples > 500
    assert chosen.remark == ''


def test_both_storages_give_the_same_scale():
    settings = [replace(BENT, storage=storage) for storage in ('mcap', 'sqlite3')]
    scales = []
    for chosen in settings:
        cache = cached(chosen, HIDDEN)
        scales.append(
            chosen_scale(estimate_scales(cache, planned(cache), TrueModel(chosen, cache))).scale
        )
    assert scales[0] == pytest.approx(scales[1], rel=0.02)


def test_all_sources_of_a_robot_agree():
    cache = cached(IDLE)
    height = camera_height(IDLE)
    estimates = estimate_scales(cache, planned(cache), TrueModel(IDLE, cache), height)
    assert [estimate.kind for estimate in estimates] == ['depth', 'tracks', 'scan', 'height']
    assert chosen_scale(estimates).kind == 'depth'
    for estimate, tolerance in zip(estimates, (0.01, 0.03, 0.05, 0.05), strict=True):
        assert estimate.usable, estimate
        assert estimate.scale == pytest.approx(3.0, rel=tolerance), estimate


def camera_height(settings) -> float:
    with open_recording(recorded(settings)) as recording:
        tree = read_transforms(recording, topics_of(recording))
    return float(tree.static_pose('base_link', 'camera_optical_frame')[2, 3])


def test_a_model_that_one_factor_does_not_mend_is_told():
    cache = cached(IDLE)
    model = TrueModel(IDLE, cache, power=0.5)
    best = chosen_scale(estimate_scales(cache, planned(cache), model))
    assert best.slope == pytest.approx(2.0, rel=0.15)
    assert 'one factor is not enough' in best.remark


def test_without_pairs_nothing_is_chosen():
    cache = cached(BENT, HIDDEN)
    estimates = estimate_scales(cache, PairPlan({}), TrueModel(BENT, cache))
    assert chosen_scale(estimates) is None
    assert [estimate.usable for estimate in estimates] == [False]


def test_noise_sets_no_scale():
    cache = cached(IDLE)
    rng = np.random.default_rng(0)
    estimates = estimate_scales(
        cache, planned(cache), lambda rgb: np.exp(rng.normal(0, 2, rgb.shape[:2]))
    )
    assert chosen_scale(estimates) is None
    assert 'scatter' in estimates[0].remark


def says(source, scale, usable=True, direct=float('nan')):
    return ScaleEstimate(source, scale, 0.1, 1000, 1.0, usable, '', 20, direct)


def test_a_source_that_differs_is_named():
    estimates = (
        says('tracks odometry', 1.0), says('scan /scan', 1.2), says('height 0.4 m', 0.96),
        says('lidar /points', 9.0, usable=False),
    )  # fmt: skip
    sentences = disagreements(estimates)
    assert len(sentences) == 1
    assert 'scan /scan says 1.2, +20 % from the 1 of tracks odometry' in sentences[0]
    assert disagreements(()) == ()


def test_sources_are_compared_with_each_other_and_not_through_a_model_that_errs():
    estimates = (
        says('depth /d', 1.0), says('tracks odometry', 1.3, direct=1.01),
        says('scan /s', 1.0, direct=0.8),
    )  # fmt: skip
    sentences = disagreements(estimates)
    assert len(sentences) == 1
    assert 'scan /s measures +25 % against depth /d at the same places' in sentences[0]


def test_a_model_that_errs_does_not_make_sources_differ():
    cache = cached(IDLE)
    model = TrueModel(IDLE, cache, power=0.5)
    estimates = estimate_scales(cache, planned(cache), model)
    tracks = next(estimate for estimate in estimates if estimate.kind == 'tracks')
    assert tracks.scale / chosen_scale(estimates).scale > 1.1
    assert tracks.direct == pytest.approx(1.0, abs=0.04)
    assert not [text for text in disagreements(estimates) if text.startswith('tracks')]
