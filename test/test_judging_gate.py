"""The gate: only a proven improvement passes, and every refusal says why."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from depth_node.errors import DepthNodeError
from depth_node.judging.comparison import compare
from depth_node.judging.gate import GateLimits
from depth_node.judging.gate import Outcome
from depth_node.judging.gate import gate
from depth_node.judging.judgement import Constants
from depth_node.judging.judgement import Judgement
from depth_node.judging.judgement import series_of

T0 = 1_700_000_000_000_000_000
RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 0.02, 200)


def judgement(
    name: str = 'm', relative: bool = False, count: int = 200, **means: float | np.ndarray
) -> Judgement:
    """Make a judgement whose series wander about means; ``metric_abs_rel`` is 'metric.abs_rel'."""
    series = {}
    for key, mean in means.items():
        values = np.broadcast_to(mean, count) + NOISE[:count]
        group, _, measure = key.partition('_')
        rows = [('bag', T0 + k * 100_000_000, float(v)) for k, v in enumerate(values)]
        series[f'{group}.{measure}'] = series_of(rows)
    return Judgement(name, relative, series)


def verdict(before: dict, after: dict, **options):
    count = options.pop('count', 200)
    pair = (judgement('old', count=count, **before), judgement('new', count=count, **after))
    return gate(compare(*pair), **options)


def test_a_clear_improvement_of_the_reference_error_passes():
    found = verdict({'metric_abs_rel': 0.5}, {'metric_abs_rel': 0.4})
    assert found.improved and found.outcome == 0 and found.primary == 'metric.abs_rel'
    assert '20 % less' in found.reasons[0] and '20 blocks' in found.reasons[0]


def test_equal_models_are_not_improved_nor_are_those_that_differ_by_rounding():
    for after in (0.5, 0.5 - 1e-6):
        found = verdict({'metric_abs_rel': 0.5}, {'metric_abs_rel': after})
        assert found.outcome is Outcome.NOT_IMPROVED and 'stayed the same' in found.reasons[0]


def test_a_worse_model_is_refused():
    found = verdict({'metric_abs_rel': 0.5}, {'metric_abs_rel': 0.6})
    assert found.outcome == 3 and 'became worse, from' in found.reasons[0]


def test_an_improvement_that_may_be_chance_is_refused():
    swing = np.where(np.arange(200) // 20 % 2, 0.2, -0.22)
    found = verdict({'metric_abs_rel': 0.5}, {'metric_abs_rel': 0.5 + swing})
    assert not found.improved and 'may be chance' in found.reasons[0]


def test_too_few_blocks_prove_nothing_however_large_the_improvement():
    options = {'count': 50}
    found = verdict({'metric_abs_rel': 0.5}, {'metric_abs_rel': 0.1}, **options)
    assert found.outcome is Outcome.NOT_IMPROVED
    assert '5 of the 8 blocks' in found.reasons[0] and 'Record more' in found.reasons[0]
    limits = GateLimits(smallest_blocks=5)
    assert verdict(
        {'metric_abs_rel': 0.5}, {'metric_abs_rel': 0.1}, limits=limits, **options
    ).improved


def test_the_reference_decides_before_the_tracks():
    before = {'metric_abs_rel': 0.5, 'proxy_tracks_abs_rel': 0.5}
    found = verdict(before, {'metric_abs_rel': 0.6, 'proxy_tracks_abs_rel': 0.2})
    assert not found.improved and found.primary == 'metric.abs_rel'


def test_without_reference_the_tracks_decide():
    before = {'proxy_tracks_abs_rel': 0.5, 'proxy_photometric': 0.3}
    found = verdict(before, {'proxy_tracks_abs_rel': 0.3, 'proxy_photometric': 0.3})
    assert found.improved and found.primary == 'proxy.tracks_abs_rel'


def test_without_reference_and_tracks_the_data_are_unusable():
    found = verdict({'proxy_photometric': 0.5}, {'proxy_photometric': 0.1})
    assert found.outcome == 2 and 'neither reference depth nor triangulated tracks' in str(found)
    unknown = {'metric_abs_rel': math.nan}
    assert verdict(unknown, unknown).outcome is Outcome.UNUSABLE
    assert verdict({}, {}).outcome is Outcome.UNUSABLE


def test_tracks_stand_in_where_the_reference_was_never_measured():
    before = {'metric_abs_rel': math.nan, 'proxy_tracks_abs_rel': 0.5}
    found = verdict(before, {'metric_abs_rel': math.nan, 'proxy_tracks_abs_rel': 0.3})
    assert found.improved and found.primary == 'proxy.tracks_abs_rel'


def test_a_new_model_whose_errors_are_nan_is_refused():
    found = verdict({'metric_abs_rel': 0.5}, {'metric_abs_rel': math.nan})
    assert not found.improved


def test_a_new_model_that_gives_no_depth_at_all_is_not_improved_whatever_tracks_say():
    before = {'metric_abs_rel': 0.5, 'proxy_tracks_abs_rel': 0.5}
    for after in ({'metric_abs_rel': math.nan}, {}):  # NaN everywhere, or no such series
        found = verdict(before, after)
        assert found.outcome is Outcome.NOT_IMPROVED and found.primary == 'metric.abs_rel'
        assert 'could not be measured' in found.reasons[0]
        tracks = {'proxy_tracks_abs_rel': 0.2}
        assert verdict(before, after | tracks).outcome is Outcome.NOT_IMPROVED


def test_a_new_model_that_gives_nothing_for_some_images_is_refused():
    holes = np.where(np.arange(200) % 10 == 0, math.nan, 0.2)
    found = verdict({'metric_abs_rel': 0.5}, {'metric_abs_rel': holes})
    assert not found.improved and '20 images' in found.reasons[0]


@pytest.mark.parametrize(('after', 'passes'), [(0.32, True), (0.36, False), (0.2, True)])
def test_no_proxy_may_become_worse_by_more_than_a_tenth(after, passes):
    before = {'metric_abs_rel': 0.5, 'proxy_consistency': 0.3}
    found = verdict(before, {'metric_abs_rel': 0.3, 'proxy_consistency': after})
    assert found.improved is passes
    if not passes:
        assert 'inconsistency over time became worse by 20 %' in found.reasons[0]


def test_a_proxy_that_can_no_longer_be_measured_forbids():
    before = {'metric_abs_rel': 0.5, 'proxy_consistency': 0.3}
    found = verdict(before, {'metric_abs_rel': 0.3, 'proxy_consistency': math.nan})
    assert not found.improved and 'can no longer be measured' in found.reasons[0]


def test_a_proxy_that_was_never_measured_does_not_matter():
    before = {'metric_abs_rel': 0.5, 'proxy_ground_height': math.nan}
    assert verdict(before, {'metric_abs_rel': 0.3, 'proxy_ground_height': math.nan}).improved


def test_leaving_pixels_out_is_no_way_through():
    before = {'metric_abs_rel': 0.5, 'metric_coverage': 0.95}
    found = verdict(before, {'metric_abs_rel': 0.3, 'metric_coverage': 0.7})
    assert not found.improved and 'share of pixels with depth' in found.reasons[0]


def test_all_reasons_are_given_at_once():
    before = {'metric_abs_rel': 0.5, 'proxy_consistency': 0.3, 'proxy_photometric': 0.3}
    after = {'metric_abs_rel': 0.6, 'proxy_consistency': 0.6, 'proxy_photometric': 0.6}
    assert len(verdict(before, after).reasons) == 3


def test_more_of_what_is_good_is_better_and_scale_is_neither():
    before = {'metric_a1': 0.5, 'metric_abs_rel': 0.5, 'scale_scale': 1.0}
    after = {'metric_a1': 0.8, 'metric_abs_rel': 0.8, 'scale_scale': 3.0}
    changes = compare(judgement(**before), judgement(**after)).changes
    assert changes['metric.a1'].better and not changes['metric.a1'].worse
    assert changes['metric.a1'].worsening == pytest.approx(-0.6, abs=0.01)
    assert changes['metric.abs_rel'].worse and not changes['metric.abs_rel'].better
    assert not changes['scale.scale'].better and not changes['scale.scale'].worse


def test_what_was_nothing_and_became_worse_is_infinitely_worse():
    flat = series_of([('a', T0 + k * 10**8, 0.0) for k in range(100)])
    worse = series_of([('a', T0 + k * 10**8, 0.1) for k in range(100)])
    name = 'proxy.consistency'
    change = compare(Judgement('a', False, {name: flat}), Judgement('b', False, {name: worse}))
    assert change.changes[name].worsening == math.inf
    json.dumps(change.to_json(), allow_nan=False)


def test_relative_and_metric_models_are_never_compared():
    with pytest.raises(DepthNodeError, match='relative inverse depth'):
        compare(judgement(aligned_abs_rel=0.1), judgement(relative=True, aligned_abs_rel=0.1))


def test_a_judgement_comes_back_from_json_as_it_was():
    before = judgement('old', metric_abs_rel=np.where(np.arange(200) == 3, np.nan, 0.5))
    constants = {'bag': Constants(1.0, 0.2, 0.5, 0.3, math.nan, 0.9)}
    before = Judgement('old', False, before.series, constants, 'abc', ('a note',))
    text = json.dumps(before.to_json(), allow_nan=False)
    again = Judgement.from_json(json.loads(text))
    assert (again.name, again.sha256, again.notes) == ('old', 'abc', ('a note',))
    assert math.isnan(again.constants['bag'].rows_abs_rel)
    for column in ('recording', 'stamps_ns', 'values'):
        np.testing.assert_array_equal(
            getattr(again.series['metric.abs_rel'], column),
            getattr(before.series['metric.abs_rel'], column),
        )


@pytest.mark.parametrize('wrong', [None, {}, {'format': 2}, [1], 'text'])
def test_foreign_json_is_refused_with_a_sentence(wrong):
    with pytest.raises(DepthNodeError, match='judgement'):
        Judgement.from_json(wrong)


def test_json_with_columns_that_cannot_be_is_refused():
    value = judgement(metric_abs_rel=0.5).to_json()
    value['series']['metric.abs_rel']['values'].pop()
    with pytest.raises(DepthNodeError, match='different lengths'):
        Judgement.from_json(value)
    value = judgement(metric_abs_rel=0.5).to_json()
    value['series']['metric.abs_rel']['stamps_ns'][0] = 2**70
    with pytest.raises(DepthNodeError, match='OverflowError'):
        Judgement.from_json(value)
    value = judgement(metric_abs_rel=0.5).to_json()
    value['series']['metric.abs_rel']['recordings'] = []
    with pytest.raises(DepthNodeError, match='does not name'):
        Judgement.from_json(value)
