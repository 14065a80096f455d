"""The page that compares the networks is what the command writes, and says all that it should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from depth_node.benchmark import networks
from depth_node.benchmark.network_page import page
from depth_node.benchmark.network_page import written_page
from depth_node.networks import registry

ROOT = Path(__file__).parents[1]
RESULT = ROOT / 'benchmarks' / 'results' / 'networks.json'


@pytest.fixture(scope='module')
def result():
    return json.loads(RESULT.read_text())


def test_the_page_is_what_the_command_writes():
    assert (ROOT / 'docs' / 'networks.md').read_text() == written_page(RESULT)


def test_every_network_is_measured_and_what_is_not_is_named(result):
    text = page(result)
    measured = {(r['network'], r['variant'], r['height'], r['width']) for r in result['rows']}
    assert {row[0] for row in measured} == set(registry.names())
    for name, releases in networks.configurations(lambda name: True):
        first = releases[0]
        variant, size = first.identity.variant, f'{first.width}x{first.height}'
        if (name, variant, first.height, first.width) not in measured:
            assert f'{name} {variant} at {size}' in text.split('Not measured: ')[1]


def test_an_engine_that_has_no_figure_has_a_reason(result):
    for row in result['rows']:
        assert row['engines'] or row['failure']
        for engine in row['engines']:
            assert (engine['error'] is None) == bool(engine['reason'])
            assert (engine['error'] is None) == (engine['time'] is None)


def test_a_failure_is_shown_in_the_page(result):
    row = {**result['rows'][0], 'failure': 'onnx: no such operator', 'engines': []}
    assert 'onnx: no such operator' in page({**result, 'rows': [row]})
    engine = {'engine': 'openvino', 'error': None, 'reason': 'does not load', 'time': None}
    row = {**result['rows'][0], 'engines': [engine] * 3}
    assert 'does not load' in page({**result, 'rows': [row]})


def test_the_page_names_every_release_with_figures_and_every_licence():
    text = written_page(RESULT)
    for name in registry.names():
        spec = registry.spec(name)
        assert spec.weights_license in text
        assert all(known.name in text for known in spec.releases if known.figures)
