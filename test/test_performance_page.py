"""docs/performance.md says what the committed result files say, and names what is missing."""

from __future__ import annotations

import copy
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from depth_node.benchmark import plots
from depth_node.benchmark.markdown import columns
from depth_node.benchmark.markdown import table
from depth_node.benchmark.performance_page import ACCURACY_PLOT
from depth_node.benchmark.performance_page import PAGE
from depth_node.benchmark.performance_page import STAGES_PLOT
from depth_node.benchmark.performance_page import documents
from depth_node.benchmark.performance_page import read_results
from depth_node.svg import Point
from depth_node.svg import numbered_points
from depth_node.svg import stacked_bars
from depth_node.tools import benchmark

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
SPREAD = {'count': 9, 'min_ms': 0.5, 'median_ms': 0.75, 'p95_ms': 1.0, 'p99_ms': 2.0}


@pytest.fixture(scope='module')
def committed():
    return read_results(RESULTS)


def engine_row(engine: str, precision: str, min_ms: float | None, **changes):
    time = None if min_ms is None else {**SPREAD, 'min_ms': min_ms, 'median_ms': min_ms + 1.0}
    row = {
        'model': 'lite-mono:base', 'network': 'lite-mono', 'variant': 'base', 'width': 640,
        'height': 192, 'parameters': 3_070_000, 'macs': 5_000_000_000, 'random_weights': True,
        'engine': engine, 'precision': precision, 'batch': 1, 'reason': '', 'version': '1',
        'device': 'd', 'notes': '', 'time': time, 'error': 1e-6, 'error_std': 1e-5,
        'depth_error': {'p50': 1e-3, 'max': 1e-2},
        'start': {'import_s': 0.1, 'first_load_s': None, 'load_s': 0.2, 'first_ms': 30.0},
        'peak_mib': 180.0, 'share_of_peak': 0.5, 'share_of_peak_median': 0.4,
    }  # fmt: skip
    return {**row, **changes}


@pytest.fixture
def complete(committed):
    """Results of every kind, small ones for those that are not committed yet."""
    common = {key: committed['node'][key] for key in ('protocol', 'machine')}
    target = {'name': 'base against eager', 'bound': 2.9, 'at_least': True, 'unit': 'times',
              'best': 2.5, 'median': 2.0, 'note': ''}  # fmt: skip
    engines = {
        **common,
        'conditions': {'rounds': 12, 'calls': 8, 'threads': 0, 'interrupted': False},
        'rows': [
            engine_row('eager', 'f32', 70.0),
            engine_row('openvino', 'f32', 28.0, notes='weights stored in float16'),
            engine_row('tensorrt', 'f16', None, reason='no usable NVIDIA driver | none'),
        ],
        'peaks': [{'kind': 'convolution', 'precision': 'f32', 'time': SPREAD, 'gflops': 480.0,
                   'gflops_median': 470.0, 'reason': ''}],
        'targets': [target],
    }  # fmt: skip
    frame = {
        **common,
        'conditions': {},
        'rows': [
            {'model': 'm', 'engine': 'stand-in', 'network_input': '256x192', 'encoding': 'rgb8',
             'image': '640x480', 'cores': 1, 'rest': SPREAD, 'whole': None,
             'stages': dict.fromkeys(('decode', 'resize', 'depth', 'cloud'), SPREAD)}
        ],
    }  # fmt: skip
    return {**copy.deepcopy(committed), 'engines-cpu': engines, 'frame': frame}


def test_the_page_and_its_plots_are_what_the_command_writes(tmp_path, committed):
    assert benchmark.main(['page', '--results', str(RESULTS), '--docs', str(tmp_path)]) == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert PAGE in written and ACCURACY_PLOT in written
    for name in written:
        assert (ROOT / 'docs' / name).read_text() == (tmp_path / name).read_text(), (
            f'docs/{name} is not that of the result files; run make performance'
        )
    assert documents(committed) == documents(json.loads(json.dumps(committed)))


def test_what_was_not_measured_is_named_with_the_command_that_would(committed):
    missing = documents({'networks': committed['networks']})[PAGE]
    assert missing.count('**not measured**') == 15
    section = missing.split('## Not measured')[1].split('##')[0]
    for command in ('engines`', 'frame`', 'node`', 'rewriting`', 'engines --device gpu`',
                    'frame --engine cuda`'):  # fmt: skip
        assert f'python -m depth_node.tools.benchmark {command}' in section
    for word in ('Jetson', 'int8', 'weights of the authors'):
        assert word in section


def test_a_missed_figure_is_called_missed(complete):
    text = documents(complete)[PAGE]
    line = '| base against eager | at least 2.90 times | 2.50 times | 2.00 times | **missed** |'
    assert line in text
    assert '* Missed: base against eager; ' in text
    reached = copy.deepcopy(complete)
    reached['engines-cpu']['targets'][0].update(best=3.0, median=3.0)
    assert '3.00 times | 3.00 times | reached |' in documents(reached)[PAGE]
    node = complete['node']['rows'][0]
    over = node['depth_age_p50_ms'] - node['network_ms']
    assert f'at most 2.50 ms |  | {over:.2f} ms |' in text


def test_every_engine_is_in_the_page_and_those_that_did_not_run_with_their_reason(complete):
    text = documents(complete)[PAGE]
    assert '| eager | f32 | 70.00 / 71.00 |' in text
    assert '| openvino | f32 | 28.00 / 29.00 | 1.00 / 2.00 | 50% | 1.0e-06 |' in text
    assert '| lite-mono:base | tensorrt | f16 | no usable NVIDIA driver \\| none |' in text
    assert '| f32 | convolution | 480 | 470 |' in text
    assert '\nWeights stored in float16.\n' in text
    assert '| decode | 0.500 | 0.750 | 1.000 | 2.000 |' in text


def test_a_result_of_the_first_version_is_still_read(complete):
    row = complete['node']['rows'][0]
    for field in ('kind', 'precision', 'stages_ms', 'first_depth_live_s', 'image'):
        row.pop(field, None)
    made = documents(complete)
    assert f'{row["depth_age_p50_ms"]:.1f} / ' in made[PAGE]
    assert 'camera running already | at most 1.00 s |  |  | **not measured** |' in made[PAGE]
    assert 'DDS and waiting' in made[STAGES_PLOT]


def test_the_bars_are_as_long_as_the_stages_say(complete):
    document = documents(complete)[STAGES_PLOT]
    root = ElementTree.fromstring(document)  # noqa: S314
    texts = [item.text for item in root.iter('{http://www.w3.org/2000/svg}text')]
    row = complete['node']['rows'][0]
    dds = row['overhead_p50_ms'] - 3 * 0.75
    if 'stages_ms' not in row:
        assert f'{71.0 + 4 * 0.75 + dds:.1f} ms' in texts
    assert texts.index('decode') < texts.index('network') < texts.index('depth')
    assert 'eager f32' in texts and 'tensorrt f16' not in texts


def test_points_are_the_checkpoints_with_one_protocol(committed):
    networks = {'networks': committed['networks']}
    points = {point.label.partition(':')[0]: point for point in plots.accuracy_points(networks)}
    base = points['lite-mono-base-640x192']
    assert base.y == 0.107
    (row,) = (
        row for row in committed['networks']['rows'] if 'lite-mono-base-640x192' in row['releases']
    )
    assert base.x == row['engines'][0]['time']['median_ms']
    assert not [name for name in points if name.startswith(('midas', 'ecodepth', 'sqldepth'))]


def test_a_run_of_engines_counts_before_the_page_of_all_networks(complete):
    points = {point.label.partition(':')[0]: point for point in plots.accuracy_points(complete)}
    assert points['lite-mono-base-640x192'].x == 29.0


def test_plots_are_well_formed_and_the_same_every_time():
    bars = {'<a & b>': {'x': 1.0, 'y': 2.0}, 'c': {'y': 3.0, 'z': 0.0}}
    assert stacked_bars('t', 'ms', bars) == stacked_bars('t', 'ms', bars)
    root = ElementTree.fromstring(stacked_bars('t', 'ms', bars))  # noqa: S314
    rects = [r.attrib for r in root.iter('{http://www.w3.org/2000/svg}rect')]
    lengths = [float(r['width']) for r in rects if r['height'] == '20']
    assert lengths[1] == pytest.approx(2 * lengths[0], abs=0.2)
    assert lengths[2] == pytest.approx(lengths[0] + lengths[1], abs=0.2)
    points = [Point('near', 'a', 10.0, 0.1), Point('far', 'b', 1000.0, 0.2)]
    root = ElementTree.fromstring(numbered_points('t', 'x', 'y', points))  # noqa: S314
    circles = [c.attrib for c in root.iter('{http://www.w3.org/2000/svg}circle')][::2]
    assert float(circles[0]['cx']) < float(circles[1]['cx'])
    assert float(circles[0]['cy']) > float(circles[1]['cy'])
    assert numbered_points('t', 'x', 'y', points[:1])


def test_text_in_a_cell_cannot_break_the_table():
    assert list(table(('a', 'b'), [('x|y', 'two\nlines')]))[-1] == '| x\\|y | two lines |'
    lines = list(columns(('name', 'ms'), [('long name', '1.0'), ('short', '2.0')]))
    assert lines == ['name       ms', 'long name  1.0', 'short      2.0']
    assert list(columns(('a', 'b', 'c'), [('x', 'a long reason')]))[-1] == 'x  a long reason'
