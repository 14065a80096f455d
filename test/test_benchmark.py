"""Fair turns, honest result files that keep their schema."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from dataclasses import fields
from pathlib import Path

import pytest
from result_schema import problems_of

from depth_node.benchmark import rewriting
from depth_node.benchmark.own_process import in_own_process
from depth_node.benchmark.result import spread_of
from depth_node.benchmark.result import write_result
from depth_node.benchmark.turns import Contestant
from depth_node.benchmark.turns import take_patient_turns
from depth_node.benchmark.turns import take_turns
from depth_node.errors import EngineError
from depth_node.errors import SettingsError

RESULTS = Path(__file__).parents[1] / 'benchmarks' / 'results'
KINDS = [
    'engines',
    'frame',
    'node',
    'rewriting',
    'networks',
    'soak',
    'edges',
    'finetuning',
    'bundled',
]
COMMITTED = sorted(path.name for path in RESULTS.glob('*.json'))


def sleeper(seconds: float, log: str):
    def call() -> None:
        with open(log, 'a') as stream:
            stream.write(f'{os.getpid()}\n')
        time.sleep(seconds)

    return call, {'slept': seconds}


def failing():
    raise ValueError('no such engine')


def quitting():
    os._exit(3)


def failing_later(calls: int):
    left = [calls]

    def call() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ValueError('worn out')

    return call, {}


def vanishing():
    threading.Timer(0.2, os._exit, (9,)).start()
    return lambda: None, {}


def waiting():
    return lambda: time.sleep(0.2), {}


def refusing():
    raise SettingsError('somebody', 'a stone', 'bread', 'Bake.')


def interrupted_by_the_terminal():
    return lambda: os.kill(os.getpid(), signal.SIGINT), {}


def test_contestants_take_turns_in_reversed_order_and_own_processes(tmp_path: Path) -> None:
    log = tmp_path / 'log'
    contestants = [
        Contestant('short', sleeper, (0.002, str(log))),
        Contestant('long', sleeper, (0.01, str(log))),
    ]
    short, long = take_turns(contestants, rounds=2, calls=3)
    assert len(short.times_ns) == len(long.times_ns) == 6
    assert min(long.times_ns) >= 10_000_000 > min(short.times_ns) >= 2_000_000
    assert long.figures == {'slept': 0.01}
    turns = [line for index, line in enumerate(log.read_text().split()) if index % 4 == 0]
    first, second, third, fourth = turns
    assert first == fourth != second == third
    assert str(os.getpid()) not in turns


@pytest.mark.parametrize(('opener', 'text'), [(failing, 'no such engine'), (quitting, 'ended')])
def test_a_contestant_that_fails_is_named(opener, text: str) -> None:
    with pytest.raises(EngineError, match=f'broken.*{text}'):
        take_turns([Contestant('broken', opener)], rounds=1, calls=1)


def test_what_cannot_run_is_named_and_the_others_are_timed(tmp_path: Path) -> None:
    log = str(tmp_path / 'log')
    contestants = [
        Contestant('broken', failing),
        Contestant('good', sleeper, (0.001, log)),
        Contestant('gone', quitting),
        Contestant('fails later', failing_later, (2,)),
    ]
    (broken, good, gone, later), interrupted = take_patient_turns(contestants, rounds=2, calls=2)
    assert not interrupted
    assert 'no such engine' in broken.failure and broken.times_ns == ()
    assert gone.failure == 'its process ended'
    assert 'worn out' in later.failure
    assert good.failure == '' and len(good.times_ns) == 4
    assert 5.0 < good.peak_mib < 2_000.0


def test_a_process_that_ends_between_two_turns_is_named_and_the_others_go_on() -> None:
    contestants = [Contestant('vanishes', vanishing), Contestant('stays', waiting)]
    (vanished, stayed), _ = take_patient_turns(contestants, rounds=2, calls=1)
    assert vanished.failure == 'its process ended'
    assert stayed.failure == '' and len(stayed.times_ns) == 2


def test_ctrl_c_keeps_what_was_timed(tmp_path: Path) -> None:
    def progress(done: int, total: int) -> None:
        assert total == 6
        if done == 3:  # two starts and a round
            raise KeyboardInterrupt

    contestants = [
        Contestant('a', sleeper, (0.001, str(tmp_path / 'a'))),
        Contestant('b', sleeper, (0.001, str(tmp_path / 'b'))),
    ]
    (a, b), interrupted = take_patient_turns(contestants, 4, 3, progress)
    assert interrupted
    assert len(a.times_ns) == len(b.times_ns) == 3


def test_ctrl_c_on_the_terminal_does_not_reach_the_contestants() -> None:
    contestants = [Contestant('all', interrupted_by_the_terminal)]
    assert len(take_turns(contestants, rounds=1, calls=2)[0].times_ns) == 2


@pytest.mark.parametrize(('work', 'text'), [(failing, 'no such engine'), (quitting, 'ended')])
def test_work_in_another_process_that_fails_is_named(work, text: str) -> None:
    with pytest.raises(EngineError, match=text):
        in_own_process('something', work)


def test_an_error_with_a_sentence_keeps_it_on_its_way_between_processes() -> None:
    with pytest.raises(EngineError) as caught:
        in_own_process('something', refusing)
    assert str(caught.value) == 'somebody: received a stone, expected bread. Bake.'
    assert in_own_process('something', os.getpid) != os.getpid()


def test_a_spread_is_that_of_its_times() -> None:
    spread = spread_of([4_000_000, 1_000_000, 3_000_000, 2_000_000, 100_000_000])
    assert (spread.count, spread.min_ms, spread.median_ms) == (5, 1.0, 3.0)
    assert 4.0 < spread.p95_ms < spread.p99_ms < 100.0


@dataclass(frozen=True)
class Row:
    name: str
    time_ms: float


def test_a_written_result_holds_rows_machine_and_what_else_is_given(tmp_path: Path) -> None:
    rows = [Row('a', 1.0), Row('b', float('nan'))]
    write_result(
        tmp_path / 'new' / 'x.json', 'x', 'word', {'rate_hz': 30.0}, rows, {'targets': rows[:1]}
    )
    content = json.loads((tmp_path / 'new' / 'x.json').read_text())
    # JSON knows no NaN
    assert content['rows'] == [{'name': 'a', 'time_ms': 1.0}, {'name': 'b', 'time_ms': None}]
    assert content['targets'] == content['rows'][:1]
    assert content['machine']['packages']['numpy']
    assert problems_of(content) == ["$.benchmark: 'x' is not one of " + str(KINDS)]


def test_every_committed_result_keeps_the_schema() -> None:
    assert {'networks.json', 'node.json', 'rewriting.json'} <= set(COMMITTED)
    for name in COMMITTED:
        assert problems_of(json.loads((RESULTS / name).read_text())) == [], name


def lose_the_commit(content) -> None:
    del content['machine']['commit']


def lose_a_field(content) -> None:
    del content['rows'][-1]['torch_loaded']


def add_a_field(content) -> None:
    content['rows'][0]['network_s'] = 1.0


def mix_units(content) -> None:
    content['rows'][0]['network_ms'] = '13 ms'


def measure_nothing(content) -> None:
    content['rows'] = []


def say_nothing(content) -> None:
    content['protocol'] = 'as usual'


def be_of_another_kind(content) -> None:
    content['benchmark'] = 'rewriting'


@pytest.mark.parametrize(
    'damage',
    [
        *(lose_the_commit, lose_a_field, add_a_field, mix_units, measure_nothing, say_nothing),
        be_of_another_kind,
    ],
)
def test_a_damaged_result_does_not_keep_the_schema(damage) -> None:
    content = json.loads((RESULTS / 'node.json').read_text())
    damage(content)
    assert problems_of(content)


def test_every_choice_of_rewrites_is_switched_off_alone() -> None:
    rewrites = pytest.importorskip('depth_node.networks.rewrites')
    names = tuple(field.name for field in fields(rewrites.Choices))
    assert names == rewriting.REWRITES
    assert set(rewriting.WITHOUT.values()) == {(), names, *((name,) for name in names)}
    assert rewriting._choices('without all three') == rewrites.GPU
    assert rewriting._choices(rewriting.REWRITTEN) == rewrites.CPU_GRAPH
    assert rewriting._choices('without gram_attention') == rewrites.Choices(gram_attention=False)
