from __future__ import annotations

import random

import pytest

from depth_node.health import Health
from depth_node.health import State
from depth_node.health import Throttle
from depth_node.health import stamp_remark
from depth_node.ros import interface

MS = 1_000_000
S = 1_000_000_000


class Clock:
    def __init__(self):
        self.now = 1_000 * S

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health(clock)


def run(health, clock, seconds, rate_hz=30, drop=''):
    """Let images come at a rate, each published after 20 ms or dropped."""
    for _ in range(round(seconds * rate_hz)):
        health.received()
        clock.now += 20 * MS
        if drop:
            health.dropped(drop)
        else:
            health.published(20 * MS, 25 * MS, {'decode': 1 * MS, 'engine': 15 * MS})
        clock.now += S // rate_hz - 20 * MS


def test_every_image_is_published_dropped_or_pending(health):
    chance = random.Random(0)
    for _ in range(500):
        health.received()
        if chance.random() < 0.5:
            health.dropped(chance.choice(['replaced', 'duplicate', 'too_old']))
        else:
            health.published(1, None, {})
    health.received()
    report = health.report(0.5)
    assert report.received == 501
    assert report.published + sum(report.drops.values()) == 500
    assert report.pending == 1
    assert set(report.drops) == {'replaced', 'duplicate', 'too_old'}


def test_a_camera_that_works_is_ok_with_its_rates_and_ages(health, clock):
    run(health, clock, 5)
    report = health.report(0.5)
    assert report.state is State.OK
    assert report.input_rate_hz == pytest.approx(30, abs=0.6)
    assert report.output_rate_hz == pytest.approx(30, abs=0.6)
    assert report.age.p50_ms == 20.0
    assert report.stamp_age.p99_ms == 25.0
    assert report.stages_ms == {'decode': 1.0, 'engine': 15.0}
    assert '30' in report.text


def test_rates_are_of_the_last_two_seconds_as_the_reference_says(health, clock):
    run(health, clock, 5)
    clock.now += 1_500 * MS
    assert health.report(0.5).input_rate_hz == pytest.approx(7.5, abs=0.6)
    clock.now += 600 * MS
    assert health.report(0.5).input_rate_hz == health.report(0.5).output_rate_hz == 0.0
    for key in ('input rate (Hz)', 'output rate (Hz)'):
        assert interface.DIAGNOSTICS[key] == 'over the last two seconds'


def test_percentiles_are_nearest_rank(health):
    for milliseconds in range(1, 101):
        health.published(milliseconds * MS, None, {})
    age = health.report(0.5).age
    assert (age.p50_ms, age.p95_ms, age.p99_ms) == (50.0, 95.0, 99.0)


def test_figures_of_long_ago_are_forgotten(health, clock):
    run(health, clock, 1)
    clock.now += 11 * S
    report = health.report(0.5)
    assert report.age is None
    assert report.stages_ms == {}
    assert report.input_rate_hz == 0.0


def test_unknown_stamp_ages_are_none(health):
    health.published(1 * MS, None, {})
    assert health.report(0.5).stamp_age is None


def test_no_image_yet_is_stale(health, clock):
    clock.now += 3 * S
    report = health.report(0.5)
    assert report.state is State.STALE
    assert '3.0 s' in report.text
    assert report.silence_s == 3.0


def test_a_camera_that_stops_is_stale_within_a_second_and_recovers_with_the_next_image(
    health, clock
):
    run(health, clock, 3)
    clock.now += 900 * MS
    assert health.report(0.5).state is State.STALE
    run(health, clock, 0.1)
    assert health.report(0.5).state is State.OK


def test_a_slow_camera_is_not_stale_between_its_images(health, clock):
    run(health, clock, 10, rate_hz=1)
    clock.now += 1 * S
    assert health.report(0.5).state is State.OK
    clock.now += 3 * S
    assert health.report(0.5).state is State.STALE


def test_a_pause_in_the_past_does_not_stretch_the_patience(health, clock):
    run(health, clock, 3)
    clock.now += 600 * S
    run(health, clock, 3)
    clock.now += 900 * MS
    assert health.report(0.5).state is State.STALE


def test_watching_again_begins_a_new_silence(health, clock):
    run(health, clock, 1)
    clock.now += 60 * S
    health.watch()
    assert health.report(0.5).silence_s == 0.0


def test_drops_degrade_the_state_and_are_named_and_it_clears_within_two_seconds(health, clock):
    run(health, clock, 1)
    run(health, clock, 1, drop='image_data_length')
    report = health.report(0.5)
    assert report.state is State.DEGRADED
    assert '30 image_data_length' in report.text
    run(health, clock, 1.6)
    assert health.report(0.5).state is State.OK
    assert health.report(0.5).drops == {'image_data_length': 30}


@pytest.mark.parametrize('reason', ['replaced', 'no_subscriber'])
def test_drops_by_design_leave_the_state_ok(health, clock, reason):
    run(health, clock, 1, drop=reason)
    assert health.report(0.5).state is State.OK


def test_a_failure_stays_until_it_is_mended(health, clock):
    run(health, clock, 1)
    health.failed('the engine is gone')
    run(health, clock, 1)
    assert health.report(0.5).state is State.FAILED
    assert health.report(0.5).text == 'the engine is gone'
    health.mended()
    assert health.report(0.5).state is State.OK


def do_work(health, clock, spent_ns, times=1):
    for _ in range(times):
        health.work_began()
        clock.now += spent_ns
        health.work_ended(completed=True)


def test_work_that_does_not_end_fails_after_a_second_and_is_hung_after_five(health, clock):
    do_work(health, clock, 30 * MS, times=20)
    health.work_began()
    clock.now += 900 * MS
    assert health.report(0.5).state is State.STALE
    clock.now += 200 * MS
    report = health.report(0.5)
    assert report.state is State.FAILED
    assert '1.1 s' in report.text
    assert not report.hung
    clock.now += 4 * S
    assert health.report(0.5).hung


def test_a_slow_model_is_given_ten_times_its_usual_time(health, clock):
    do_work(health, clock, 2 * S, times=3)
    health.work_began()
    clock.now += 19 * S
    assert not health.report(0.5).hung
    clock.now += 2 * S
    assert health.report(0.5).hung


def test_work_that_was_cut_short_does_not_count_as_usual(health, clock):
    do_work(health, clock, 2 * S, times=3)
    for _ in range(100):
        health.work_began()
        health.work_ended(completed=False)
    health.work_began()
    clock.now += 19 * S
    assert not health.report(0.5).hung


def test_the_first_result_is_given_a_minute(health, clock):
    health.work_began()
    clock.now += 59 * S
    assert not health.report(0.5).hung
    clock.now += 2 * S
    assert health.report(0.5).hung


def test_refused_camera_infos_are_counted_apart(health):
    health.camera_rejected('camera_focal')
    report = health.report(0.5)
    assert report.camera_rejections == {'camera_focal': 1}
    assert report.drops == {}


def test_refused_camera_infos_degrade_the_state_until_they_cease(health, clock):
    run(health, clock, 1)
    health.camera_rejected('camera_focal')
    report = health.report(0.5)
    assert report.state is health.state(0.5) is State.DEGRADED
    assert 'camera_info' in report.text and '1 camera_focal' in report.text
    run(health, clock, 1.6)
    assert health.report(0.5).state is health.state(0.5) is State.OK


def test_what_is_odd_about_stamps_is_reported_until_it_ceases(health):
    health.published(0, None, {}, 'odd')
    assert health.report(0.5).stamp_remark == 'odd'
    health.published(0, 0, {})
    assert health.report(0.5).stamp_remark == ''


@pytest.mark.parametrize(
    ('age_ns', 'stamp_ns', 'said'),
    [
        (0, 0, 'stamp 0'),
        (-3 * S, 9 * S, '3.00 s in the future'),
        (61 * S, 9 * S, 'over a minute old'),
        (-S // 20, 9 * S, ''),
        (59 * S, 9 * S, ''),
    ],
)
def test_clocks_that_disagree_are_told_with_the_offset(age_ns, stamp_ns, said):
    remark = stamp_remark(age_ns, stamp_ns)
    assert said in remark and bool(said) == bool(remark)


def test_a_cause_is_told_once_in_five_seconds_with_its_count(clock):
    throttle = Throttle(clock=clock)
    assert throttle.due('too_old') == 1
    assert [throttle.due('too_old') for _ in range(10)] == [0] * 10
    assert throttle.due('duplicate') == 1
    clock.now += 5 * S
    assert throttle.due('too_old') == 11
    clock.now += 5 * S
    assert throttle.due('too_old') == 1
