"""Fair turns, honest result files."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from dataclasses import fields
from pathlib import Path

import pytest

from depth_node.benchmark import rewriting
from depth_node.benchmark.result import spread_of
from depth_node.benchmark.result import write_result
from depth_node.benchmark.turns import Contestant
from depth_node.benchmark.turns import take_turns
from depth_node.errors import EngineError

RESULTS = Path(__file__).parents[1] / 'benchmarks' / 'results'


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


def test_a_spread_is_that_of_its_times() -> None:
    spread = spread_of([4_000_000, 1_000_000, 3_000_000, 2_000_000, 100_000_000])
    assert (spread.count, spread.min_ms, spread.median_ms) == (5, 1.0, 3.0)
    assert 4.0 < spread.p95_ms < spread.p99_ms < 100.0


@dataclass(frozen=True)
class Row:
    name: str
    time_ms: float


def problems_of(content: object) -> list[str]:
    """Say what a result file lacks; the schema in words."""
    if not isinstance(content, dict):
        return ['no object']
    kinds = {'benchmark': str, 'protocol': str, 'conditions': dict, 'machine': dict, 'rows': list}
    found = [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]
    if found or set(content) != set(kinds):
        return [f'keys {sorted(content)}, wrong or missing: {found}']
    machine = content['machine']
    wanted = ('processor', 'cores', 'system', 'python', 'packages', 'commit', 'depth_node')
    found += [f'machine.{name}' for name in wanted if name not in machine]
    found += [] if machine.get('packages', {}).get('numpy') else ['machine.packages.numpy']
    found += [] if len(content['protocol']) > 80 else ['a protocol that explains']
    found += [] if content['rows'] else ['rows']
    found += [
        f'row {index} lacks {set(content["rows"][0]) ^ set(row)}'
        for index, row in enumerate(content['rows'])
        if set(row) != set(content['rows'][0])
    ]
    return found


def test_a_written_result_keeps_the_schema(tmp_path: Path) -> None:
    rows = [Row('a', 1.0), Row('b', 2.0)]
    write_result(tmp_path / 'new' / 'x.json', 'x', 'word ' * 20, {'rate_hz': 30.0}, rows)
    content = json.loads((tmp_path / 'new' / 'x.json').read_text())
    assert problems_of(content) == []
    assert content['rows'][1] == {'name': 'b', 'time_ms': 2.0}
    del content['machine']['commit']
    content['rows'].append({'name': 'c'})
    assert len(problems_of(content)) == 2


@pytest.mark.parametrize('name', ['node.json', 'rewriting.json'])
def test_committed_results_keep_the_schema(name: str) -> None:
    assert problems_of(json.loads((RESULTS / name).read_text())) == []


def test_every_choice_of_rewrites_is_switched_off_alone() -> None:
    rewrites = pytest.importorskip('depth_node.networks.rewrites')
    names = tuple(field.name for field in fields(rewrites.Choices))
    assert names == rewriting.REWRITES
    assert set(rewriting.WITHOUT.values()) == {(), names, *((name,) for name in names)}
    assert rewriting._choices('without all three') == rewrites.GPU
    assert rewriting._choices(rewriting.REWRITTEN) == rewrites.CPU_GRAPH
    assert rewriting._choices('without gram_attention') == rewrites.Choices(gram_attention=False)
