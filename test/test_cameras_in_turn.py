"""Several cameras on one worker, without DDS: fair, newest first, none disturbs another."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy')

import scripted_engine
from node_rig import camera_message
from node_rig import stamp_of
from soak import pictures
from soak.core import Core
from soak.core import chance_engine
from soak.engine import CHANCE

from depth_node.engines import upgrade
from depth_node.errors import EngineError
from depth_node.health import State
from depth_node.ros import channel as channels

SECOND = 10**9
NAMES = ('front', 'left', 'rear')
SIZES = {'front': (64, 48), 'left': (96, 48), 'rear': (64, 48)}


class Seen:
    """What left, by the frame_id, which is the name of the camera here."""

    def __init__(self) -> None:
        self.stamps: dict[str, list[int]] = {name: [] for name in NAMES}
        self.late: Counter[str] = Counter()
        self.sent_ns: dict[tuple[str, int], int] = {}
        self.may_leave = threading.Event()
        self.may_leave.set()

    def __call__(self, message: Any) -> None:
        name, stamp_ns = message.header.frame_id, stamp_of(message)
        self.may_leave.wait(10.0)
        self.stamps[name].append(stamp_ns)
        arrived_ns = self.sent_ns.get((name, stamp_ns))
        if arrived_ns is not None and time.monotonic_ns() - arrived_ns > 0.3 * SECOND:
            self.late[name] += 1


class Served:
    """A core with cameras of several shapes."""

    def __init__(self, folder: Path, names: tuple[str, ...] = NAMES, **settings: Any) -> None:
        self.seen = Seen()
        self.core = Core(folder, self.seen, **{'cameras': list(names), **settings})
        pipeline = self.core.node.pipeline
        pipeline.card = replace(pipeline.card, focal_px=100.0)  # it needs the intrinsics
        self.names = names
        self.images = {name: pictures.raw.__wrapped__(SIZES[name], 'rgb8') for name in names}

    def activate(self, *known: str) -> Served:
        self.core.activate()
        for name in known or self.names:
            self.tell(name)
        return self

    def tell(self, name: str) -> None:
        self.core.node.deliver_camera(pictures.camera(SIZES[name]), f'{name}/')

    def send(self, name: str, stamp_ns: int) -> None:
        message = self.images[name]
        # the message before may be in work or wait, with its bytes; the header is copied
        pictures.stamped(message, stamp_ns, name)
        self.seen.sent_ns[name, stamp_ns] = time.monotonic_ns()
        self.core.node.deliver_image(message, f'{name}/')

    def send_and_wait(self, name: str, stamp_ns: int) -> None:
        self.send(name, stamp_ns)
        assert self.core.settle(5.0)

    def report(self, name: str) -> Any:
        return next(c for c in self.core.channels if c.name == name).health.report(10.0)


@pytest.fixture
def served(tmp_path: Path) -> Any:
    made: list[Served] = []
    with chance_engine(tmp_path) as folder:
        scripted_engine.SCRIPT.__init__()  # type: ignore[misc]

        def make(*names: str, **settings: Any) -> Served:
            made.append(Served(folder, names or NAMES, **settings))
            return made[-1]

        yield make
        for one in made:
            one.seen.may_leave.set()
            one.core.close()


def test_each_input_size_has_one_engine_however_the_cameras_alternate(served: Any) -> None:
    it = served().activate()
    for number in range(1, 11):
        for name in NAMES:
            it.send_and_wait(name, number * SECOND)
    assert {name: len(stamps) for name, stamps in it.seen.stamps.items()} == dict.fromkeys(
        NAMES, 10
    )
    script = scripted_engine.SCRIPT
    assert (len(script.opened), script.closed) == (2, [])
    it.core.close()
    assert len(script.closed) == 2


def test_an_engine_that_no_camera_needs_any_more_is_closed(served: Any) -> None:
    it = served('front', 'left').activate()
    it.send_and_wait('front', SECOND)
    it.send_and_wait('left', SECOND)
    it.images['left'] = pictures.raw.__wrapped__((64, 48), 'rgb8')
    it.core.node.deliver_camera(pictures.camera((64, 48)), 'left/')
    it.send_and_wait('left', 2 * SECOND)
    assert len(scripted_engine.SCRIPT.closed) == 1
    it.send_and_wait('front', 2 * SECOND)
    assert len(scripted_engine.SCRIPT.opened) == 2
    assert it.report('front').drops == it.report('left').drops == {}


def test_an_engine_that_is_opened_for_a_camera_of_another_shape_is_none_that_hangs(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('depth_node.health._HUNG_AT_LEAST_NS', SECOND // 5)
    it = served('front').activate()
    it.send_and_wait('front', SECOND)
    begun, may_end, open_first = threading.Event(), threading.Event(), upgrade.open_first

    def slowly(*given: Any, **named: Any) -> Any:
        begun.set()
        may_end.wait(10.0)
        return open_first(*given, **named)

    monkeypatch.setattr(upgrade, 'open_first', slowly)
    it.images['front'] = pictures.raw.__wrapped__(SIZES['left'], 'rgb8')
    it.core.node.deliver_camera(pictures.camera(SIZES['left']), 'front/')
    it.send('front', 2 * SECOND)
    assert begun.wait(5.0)
    time.sleep(0.4)
    hung = it.report('front').hung
    may_end.set()
    assert it.core.settle(5.0)
    assert not hung and it.report('front').published == 2


def test_under_overload_each_camera_gets_its_share_and_the_newest_wins(served: Any) -> None:
    it = served().activate()
    turns = threading.Semaphore(0)
    take = it.core.stream._slots.take

    def in_turn() -> Any:
        turns.acquire()
        return take()

    it.core.stream._slots.take = in_turn
    it.send_and_wait('front', 1)  # the worker has waited in the old one
    it.seen.stamps['front'].clear()
    newest = dict.fromkeys(NAMES, 1)
    try:
        for turn in range(300):
            # front sends ten times as often as can be served, rear as often as it is its turn
            for name, every, count in (('front', 1, 10), ('left', 1, 3), ('rear', 3, 1)):
                for _ in range(count if turn % every == 0 else 0):
                    newest[name] += 1
                    it.send(name, newest[name])
            before = {name: len(stamps) for name, stamps in it.seen.stamps.items()}
            turns.release()
            end_s = time.monotonic() + 5.0
            while sum(map(len, it.seen.stamps.values())) == turn and time.monotonic() < end_s:
                time.sleep(0.0002)
            (served_one,) = [n for n in NAMES if len(it.seen.stamps[n]) > before[n]]
            assert it.seen.stamps[served_one][-1] == newest[served_one], 'the newest'
    finally:
        del it.core.stream._slots.take
        turns.release()
    counts = [len(stamps) for stamps in it.seen.stamps.values()]
    assert sum(counts) == 300 and max(counts) <= 1.1 * min(counts), counts
    assert it.core.settle(5.0)
    for name in NAMES:
        report = it.report(name)
        assert report.pending == 0 and set(report.drops) <= {'replaced'}
    assert it.report('front').drops['replaced'] > 2_000


def test_a_slow_engine_serves_cameras_of_every_rate_alike(served: Any) -> None:
    it = served().activate()
    CHANCE.inference_s = 0.005
    ends, periods_s = threading.Event(), {'front': 0.002, 'left': 0.004, 'rear': 0.009}

    def sends(name: str) -> None:
        number = 0
        while not ends.wait(periods_s[name]):
            number += 1
            it.send(name, number)

    senders = [threading.Thread(target=sends, args=(name,)) for name in NAMES]
    for sender in senders:
        sender.start()
    time.sleep(1.5)
    ends.set()
    for sender in senders:
        sender.join()
    assert it.core.settle(5.0)
    for name in NAMES:
        stamps, report = it.seen.stamps[name], it.report(name)
        assert stamps == sorted(set(stamps))
        assert report.received == report.published + sum(report.drops.values())
        # on a machine that does other things too; exact shares are held above
        assert len(stamps) > 0.2 * sum(map(len, it.seen.stamps.values()))


def rubbish() -> list[Any]:
    return [pictures.bad_raw(name) for name in pictures.BAD_RAW]


def test_a_camera_that_is_silent_uncalibrated_or_sends_rubbish_disturbs_no_other(
    served: Any,
) -> None:
    it = served().activate('rear')
    for number in range(1, 31):
        it.core.node.deliver_camera(camera_message(k=[0.0] * 9), 'left/')
        for message in rubbish():
            pictures.stamped(message, number * SECOND, 'left')
            it.core.node.deliver_image(message, 'left/')
        it.send('left', number * SECOND)
        it.send_and_wait('rear', number * SECOND)
    assert len(it.seen.stamps['rear']) == 30 and it.report('rear').drops == {}
    assert it.report('rear').state is State.OK
    assert (it.report('front').state, it.report('front').received) == (State.STALE, 0)
    left = it.report('left')
    assert left.state is State.DEGRADED and left.published == 0 == left.pending
    assert left.received == 30 * (1 + len(rubbish()))
    assert it.core.node.given_up == [] and it.core.node.reopened == 0


def test_an_engine_that_fails_for_one_camera_alone_goes_on_for_the_others(
    served: Any, monkeypatch: Any
) -> None:
    it = served('front', 'left').activate()
    process = type(it.core.node.pipeline).process

    def fails(self: Any, image: Any, *rest: Any) -> Any:
        if image.camera == 'left':
            raise EngineError('engine', 'a failure', 'a result')
        return process(self, image, *rest)

    monkeypatch.setattr(type(it.core.node.pipeline), 'process', fails)
    for number in range(1, 11):
        it.send_and_wait('left', number * SECOND)
        it.send_and_wait('front', number * SECOND)
    assert len(it.seen.stamps['front']) == 10 and it.core.node.given_up == []
    assert it.core.node.reopened == 3, 'not for every image of that camera'
    left = it.report('left')
    assert left.state is State.FAILED and left.drops == {'engine': 10} and left.pending == 0
    assert it.report('front').state is State.OK
    monkeypatch.setattr(type(it.core.node.pipeline), 'process', process)
    it.core.deactivate()
    it.activate()
    it.send_and_wait('left', 20 * SECOND)
    assert it.report('left').published == 1 and it.report('left').state is not State.FAILED


def test_an_engine_that_fails_for_all_cameras_ends_the_process(served: Any) -> None:
    it = served().activate()
    for name in NAMES:
        it.send_and_wait(name, SECOND)
    scripted_engine.SCRIPT.steps = {}
    it.core.node.pipeline.process = lambda *_: (_ for _ in ()).throw(EngineError('e', 'f', 'g'))
    it.core.node.reopen_pipeline = lambda: it.core.node.pipeline
    for name in NAMES:
        it.send(name, 2 * SECOND)
    end_s = time.monotonic() + 5.0
    while not it.core.node.given_up and time.monotonic() < end_s:
        time.sleep(0.005)
    assert len(it.core.node.given_up) == 1 and '3 images in a row' in it.core.node.given_up[0]


def test_storms_of_arrivals_leave_nothing_stale_twice_or_out_of_order(served: Any) -> None:
    draw = random.Random(11)
    it = served(**{'input.max_age_s': 0.2}).activate()
    CHANCE.rates = {'fail': 0.01, 'memory': 0.01, 'nan': 0.02}
    stamps = dict.fromkeys(NAMES, 10 * SECOND)
    last: dict[str, int] = dict.fromkeys(NAMES, 0)
    for _ in range(4_000):
        name = draw.choice(NAMES)
        chance = draw.random()
        if chance < 0.05:
            stamp_ns = stamps[name]  # again
        elif chance < 0.1:
            stamp_ns = max(1, stamps[name] - draw.randrange(1, SECOND))  # older
        else:
            stamps[name] += draw.randrange(1, 50_000_000)
            stamp_ns = stamps[name]
        if chance > 0.97:
            message = draw.choice(rubbish())
            pictures.stamped(message, stamp_ns, name)
            it.core.node.deliver_image(message, f'{name}/')
        else:
            it.seen.sent_ns[name, stamp_ns] = time.monotonic_ns()
            it.send(name, stamp_ns)
        if draw.random() < 0.1:
            time.sleep(draw.random() * 0.004)
        last[name] = stamp_ns
    assert it.core.settle(5.0) and it.core.node.given_up == []
    for name in NAMES:
        assert len(it.seen.stamps[name]) > 50
        assert all(np.diff(it.seen.stamps[name]) > 0), 'twice or out of order'
        report = it.report(name)
        assert report.pending == 0 and report.received == report.published + sum(
            report.drops.values()
        )
        assert report.published == len(it.seen.stamps[name])
    assert not it.seen.late


# ---- the first image and its camera


def test_the_first_image_waits_for_a_camera_that_comes_right_after_it(
    served: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(channels, '_FIRST_CAMERA_S', 5.0)
    it = served('front', 'left', **{'input.max_age_s': 30.0}).activate('left')
    it.send('front', SECOND)
    time.sleep(0.05)
    it.send('left', SECOND)
    end_s = time.monotonic() + 2.0
    while not it.seen.stamps['left'] and time.monotonic() < end_s:
        time.sleep(0.002)
    assert it.seen.stamps['left'], 'no other camera waits'
    assert it.report('front').pending == 1
    it.tell('front')
    assert it.core.settle(2.0)
    assert it.seen.stamps['front'] == [SECOND] and it.report('front').drops == {}


def test_without_a_camera_one_image_waits_a_moment_and_the_others_not(
    served: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(channels, '_FIRST_CAMERA_S', 0.2)
    it = served('front', **{'input.max_age_s': 30.0})
    it.core.activate()
    began_s = time.monotonic()
    it.send_and_wait('front', SECOND)
    assert 0.19 < time.monotonic() - began_s < 1.5
    began_s = time.monotonic()
    for number in range(2, 12):
        it.send_and_wait('front', number * SECOND)
    assert time.monotonic() - began_s < 1.5
    assert it.report('front').drops == {'no_camera_info': 11}


def test_a_camera_that_is_known_lets_no_image_wait(served: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(channels, '_FIRST_CAMERA_S', 60.0)
    it = served('front', **{'input.max_age_s': 30.0}).activate()
    it.send_and_wait('front', SECOND)
    assert it.seen.stamps['front'] == [SECOND]
    described = served('rear', **{'camera.horizontal_fov_deg': 60.0})
    described.core.activate()
    described.send_and_wait('rear', SECOND)
    assert described.seen.stamps['rear'] == [SECOND], 'parameters stand in, and nobody publishes'


# ---- the clock


def test_an_image_in_work_while_the_clock_is_set_back_stops_none_that_follow(served: Any) -> None:
    it = served('front', **{'input.max_age_s': 30.0}).activate()
    it.core.node.now_ns = 100 * SECOND
    it.send_and_wait('front', 99 * SECOND)
    it.seen.may_leave.clear()
    it.send('front', 100 * SECOND)  # in work: it hangs while it leaves
    time.sleep(0.05)
    it.send('front', 100 * SECOND + 1)  # waits
    it.core.set_clock(99 * SECOND + SECOND // 2)
    it.seen.may_leave.set()
    assert it.core.settle(5.0)
    for number in range(1, 4):
        it.send_and_wait('front', 99 * SECOND + SECOND // 2 + number)
    assert it.report('front').drops == {}
    assert it.seen.stamps['front'][-3:] == [99 * SECOND + SECOND // 2 + n for n in (1, 2, 3)]
