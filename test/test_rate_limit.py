"""A limited rate is kept on average, under jitter, and whatever the clock does."""

from __future__ import annotations

import numpy as np
import pytest

from depth_node.rate_limit import RateLimit

SECOND_NS = 10**9


def passed(stamps_ns: list[int], max_hz: float) -> list[int]:
    limit = RateLimit()
    return [stamp_ns for stamp_ns in stamps_ns if limit.take(stamp_ns, max_hz)]


@pytest.mark.parametrize('max_hz', [0.5, 4.0, 10.0, 20.0, 29.0])
def test_the_rate_that_is_asked_for_is_reached_under_jitter_and_not_exceeded(
    max_hz: float,
) -> None:
    rng = np.random.default_rng(6)
    stamps = np.arange(900) * SECOND_NS // 30 + rng.integers(-3_000_000, 3_000_000, 900)
    count = len(passed([int(stamp) for stamp in stamps], max_hz))
    assert max_hz * 30 * 0.97 - 1 <= count <= max_hz * 30 + 1


def test_a_rate_above_that_of_the_images_and_none_let_all_through() -> None:
    stamps = [number * SECOND_NS // 30 for number in range(90)]
    assert passed(stamps, 0.0) == stamps
    assert passed(stamps, 100.0) == stamps


@pytest.mark.parametrize('jump_s', [-3600.0, -1.0, -0.3, 0.3, 1.0, 3600.0])
def test_a_clock_that_jumps_stops_clouds_for_two_periods_at_most(jump_s: float) -> None:
    step_ns = SECOND_NS // 30
    before = [SECOND_NS * 5000 + number * step_ns for number in range(31)]
    began_ns = before[-1] + round(jump_s * SECOND_NS)
    after = [began_ns + number * step_ns for number in range(1, 91)]
    limit = RateLimit()
    for stamp_ns in before:
        limit.take(stamp_ns, 10.0)
    let = [stamp_ns for stamp_ns in after if limit.take(stamp_ns, 10.0)]
    assert let[0] - began_ns <= 0.2 * SECOND_NS + step_ns
    assert 27 <= len(let) <= 31


def test_a_pause_is_not_made_up_for() -> None:
    limit = RateLimit()
    assert limit.take(0, 10.0)
    late = [100 * SECOND_NS + number * SECOND_NS // 30 for number in range(30)]
    assert len([stamp_ns for stamp_ns in late if limit.take(stamp_ns, 10.0)]) == 10


def test_two_cameras_of_one_topic_share_the_rate() -> None:
    pairs = [
        (number * SECOND_NS // 30, number * SECOND_NS // 30 - 5_000_000) for number in range(90)
    ]
    count = len(passed([stamp_ns for pair in pairs for stamp_ns in pair], 10.0))
    assert 29 <= count <= 31


def test_frames_of_a_sender_without_a_clock_have_the_rate_by_the_clock_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ns = [5000 * SECOND_NS]
    monkeypatch.setattr('time.monotonic_ns', lambda: now_ns[0])
    limit, let = RateLimit(), 0
    for _ in range(90):
        now_ns[0] += SECOND_NS // 30
        let += limit.take(0, 10.0)
    assert 29 <= let <= 31
