"""Intervals over blocks of time: right coverage, seeded, paired, and honest about few blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from depth_node.errors import SettingsError
from depth_node.judging.bootstrap import BlockSettings
from depth_node.judging.bootstrap import _t_quantile
from depth_node.judging.bootstrap import change_of
from depth_node.judging.bootstrap import difference_of
from depth_node.judging.bootstrap import interval_of
from depth_node.judging.bootstrap import paired
from depth_node.judging.judgement import Series
from depth_node.judging.judgement import series_of

T0 = 1_700_000_000_000_000_000


def series(values, rate_hz: float = 10.0, name: str = 'a', start_s: float = 0.0) -> Series:
    stamps = [T0 + round((start_s + index / rate_hz) * 1e9) for index in range(len(values))]
    return series_of([(name, t, float(v)) for t, v in zip(stamps, values, strict=True)])


def correlated(rng: np.random.Generator, count: int, keep: float = 0.8) -> np.ndarray:
    values = np.empty(count)
    state = rng.normal()
    for index in range(count):
        state = keep * state + math.sqrt(1 - keep * keep) * rng.normal()
        values[index] = state
    return values


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly():
    one = series(np.random.default_rng(0).normal(5, 1, 300))
    assert interval_of(one) == interval_of(one)
    other = interval_of(one, BlockSettings(seed=1))
    assert other != interval_of(one)
    assert other.low == pytest.approx(interval_of(one).low, abs=0.03)


@pytest.mark.parametrize('blocks', [8, 30])
def test_intervals_of_correlated_frames_hold_the_truth_about_95_times_in_100(blocks):
    rng = np.random.default_rng(4)
    settings = BlockSettings(block_s=2.0, draws=400)
    hits = 0
    for _ in range(300):
        found = interval_of(series(correlated(rng, blocks * 20, 0.5)), settings)
        assert found.blocks == blocks
        hits += found.low < 0.0 < found.high
    assert 0.90 <= hits / 300 <= 0.99


def test_single_frames_as_blocks_would_be_far_too_sure():
    values = correlated(np.random.default_rng(5), 400)
    frames = interval_of(series(values), BlockSettings(block_s=0.1))
    blocks = interval_of(series(values), BlockSettings(block_s=4.0))
    assert blocks.high - blocks.low > 1.5 * (frames.high - frames.low)


def test_few_blocks_are_told_and_one_block_has_no_interval():
    few = interval_of(series(np.arange(50.0)))
    assert few.blocks == 5 and not few.enough and 'only 5 blocks' in few.remark
    many = interval_of(series(np.arange(101.0)))
    assert many.blocks == 10 and many.enough and not many.remark
    one = interval_of(series([1.0, 2.0, 3.0]))
    assert one.blocks == 1 and one.value == 2.0 and math.isnan(one.low) and math.isnan(one.high)
    none = interval_of(series([math.nan]))
    assert math.isnan(none.value) and none.blocks == none.frames == 0


def test_blocks_are_of_equal_length_and_none_is_a_rest_of_a_few_frames():
    found = paired(series(np.ones(35)), series(np.ones(35)))
    counts = np.bincount(found.blocks)
    assert len(counts) == 3 and counts.min() >= 11


def test_no_block_spans_two_recordings():
    rows = [('a', T0, 1.0), ('a', T0 + 10**8, 1.0), ('b', T0, 3.0), ('b', T0 + 10**8, 3.0)]
    assert interval_of(series_of(rows)).blocks == 2


def test_pairing_by_moment_takes_out_what_both_have_in_common():
    rng = np.random.default_rng(6)
    common = 10.0 * correlated(rng, 400)
    before = series(common + rng.normal(1.0, 0.1, 400))
    after = series(common + rng.normal(0.8, 0.1, 400))
    found = difference_of(paired(before, after))
    assert found.high < -0.15 and found.low > -0.25
    assert interval_of(before).high > interval_of(after).low


def test_moments_are_matched_by_recording_and_stamp_and_unknown_ones_left_out():
    before = series_of([('a', 1, 1.0), ('a', 2, 2.0), ('b', 1, 5.0), ('a', 3, 3.0)])
    after = series_of([('b', 1, 50.0), ('a', 3, math.nan), ('a', 1, 10.0), ('c', 2, 9.0)])
    found = paired(before, after)
    assert found.before.tolist() == [1.0, 5.0] and found.after.tolist() == [10.0, 50.0]
    assert found.blocks.tolist() == [0, 1]


def test_relative_change_is_that_of_the_means():
    pair = paired(series(np.tile([1.0, 3.0], 100)), series(np.tile([0.5, 1.5], 100)))
    found = change_of(pair)
    assert found.value == found.low == found.high == -0.5
    assert math.isnan(change_of(paired(series(np.zeros(50)), series(np.ones(50)))).value)
    nothing = change_of(paired(series([]), series([])))
    assert math.isnan(nothing.value) and nothing.blocks == 0


def test_quantiles_of_t_are_those_of_the_table():
    table = {1: 12.706, 2: 4.303, 3: 3.182, 5: 2.571, 7: 2.365, 10: 2.228, 30: 2.042}
    for freedom, wanted in table.items():
        assert _t_quantile(freedom) == pytest.approx(wanted, rel=6e-3)


@pytest.mark.parametrize('wrong', [{'block_s': 0.0}, {'block_s': math.nan}, {'draws': 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError):
        interval_of(series([1.0]), BlockSettings(**wrong))
