"""A run of engines: own processes, errors that are real, reasons for what fails."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from result_schema import problems_of

from depth_node import model_folder
from depth_node.benchmark import engines
from depth_node.benchmark import peak
from depth_node.benchmark.contestants import depth_of
from depth_node.benchmark.contestants import errors_of
from depth_node.benchmark.engines import EngineRow
from depth_node.benchmark.engines import Plan
from depth_node.benchmark.engines import precisions_of
from depth_node.benchmark.exactness import macs_of
from depth_node.benchmark.own_process import own_cache
from depth_node.benchmark.random_models import random_network
from depth_node.benchmark.result import Spread
from depth_node.benchmark.subjects import Subject
from depth_node.benchmark.subjects import prepared
from depth_node.benchmark.subjects import size_from
from depth_node.benchmark.targets import targets_of_engines
from depth_node.errors import ModelError
from depth_node.model_folder import OutputSpec
from depth_node.networks.specification import Identity
from depth_node.settings import Settings
from depth_node.tools import benchmark

TINY = 'lite-mono:tiny'


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """The result file of a small run through the command, and its exit status."""
    cache = tmp_path_factory.mktemp('cache')
    out = tmp_path_factory.mktemp('results')
    words = [TINY, 'no-such-model', '--engines', 'eager', 'openvino', 'nosuchengine']
    words += ['--precisions', 'f32', '--sizes', '96x64', '--rounds', '1', '--calls', '2']
    words += ['--threads', '1', '--no-peak']
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(cache))
        status = benchmark.main([*words, '--out', str(out)])
    assert not list(cache.rglob('*.plan')), "networks of a measurement in the user's cache"
    return status, json.loads((out / 'engines-cpu.json').read_text())


def row_of(result, engine: str, precision: str, model: str = TINY):
    wanted = (model, engine, precision)
    (found,) = (r for r in result['rows'] if (r['model'], r['engine'], r['precision']) == wanted)
    return found


def test_a_fresh_result_keeps_the_schema_and_a_damaged_one_does_not(tiny):
    status, result = tiny
    assert status == 0
    assert problems_of(result) == []
    assert result['conditions']['rounds'] == 1
    row_of(result, 'openvino', 'f32')['time'] = None
    assert problems_of(result), 'neither a time nor a reason'
    row_of(result, 'openvino', 'f32')['reason'] = 'broken'
    assert problems_of(result) == []


def test_errors_are_those_of_the_arithmetic(tiny):
    eager, exact = (row_of(tiny[1], engine, 'f32') for engine in ('eager', 'openvino'))
    for row in (eager, exact):
        assert 0.0 < row['error'] < 1e-5
        assert row['error'] < row['error_std'] < 1e-3
        assert 0.0 <= row['depth_error']['p50'] <= row['depth_error']['max'] < 1e-4
        assert row['start']['first_ms'] > 0.0 < row['start']['load_s']
        assert 20.0 < row['peak_mib'] < 4_000.0


def test_a_first_load_is_told_from_those_that_find_a_compiled_network(tiny):
    assert row_of(tiny[1], 'eager', 'f32')['start']['first_load_s'] is None
    assert row_of(tiny[1], 'openvino', 'f32')['start']['first_load_s'] > 0.0


def test_the_cache_of_the_user_comes_back(tmp_path):
    user = Path(os.environ['XDG_CACHE_HOME'])
    with own_cache(tmp_path / 'a'):
        assert os.environ['XDG_CACHE_HOME'] == str(tmp_path / 'a')
    assert Path(os.environ['XDG_CACHE_HOME']) == user


def test_torch_is_in_the_memory_of_those_alone_that_need_it(tiny):
    eager, openvino = (row_of(tiny[1], engine, 'f32') for engine in ('eager', 'openvino'))
    assert openvino['peak_mib'] < eager['peak_mib'] - 50.0


def test_what_cannot_run_has_a_reason(tiny):
    assert "'nosuchengine'" in row_of(tiny[1], 'nosuchengine', 'f32')['reason']
    missing = row_of(tiny[1], 'openvino', 'f32', 'no-such-model')
    assert 'lite-mono-small-world' in missing['reason']
    assert missing['time'] is None


def test_nothing_at_all_is_a_failure(tmp_path, capsys):
    assert benchmark.main(['no-such-model', '--out', str(tmp_path), '--no-peak']) == 1
    assert 'no-such-model' in capsys.readouterr().out


def test_multiply_accumulates_are_those_of_the_paper():
    assert macs_of('lite-mono', Identity('base'), 192, 640) == pytest.approx(5.0e9, rel=0.02)


def test_random_weights_hide_no_layer():
    scales = [
        value
        for key, value in random_network('lite-mono', Identity('tiny')).state_dict().items()
        if 'gamma' in key
    ]
    assert scales and all(value.abs().min() > 0.3 for value in scales)


def test_a_model_folder_is_measured_at_its_own_sizes(tmp_path):
    name = Settings().model.name
    subject = prepared(name, None, tmp_path)
    card = model_folder.read(model_folder.find(name)).card
    assert (subject.height, subject.width) == (card.inputs[0].height, card.inputs[0].width)
    assert not subject.random_weights and subject.exact and subject.macs
    with pytest.raises(ModelError, match='expected one of 256x192'):
        prepared(name, (32, 32), tmp_path)
    with pytest.raises(ModelError, match='variant'):
        prepared('lite-mono:huge', None, tmp_path)


def test_the_depth_error_is_that_of_the_depth(tmp_path):
    spec = OutputSpec('disparity', 0.1, 100.0)
    exact = np.array([[0.0, 0.5, 1.0]])
    np.testing.assert_allclose(depth_of(exact, spec), [[100.0, 2 / 10.01, 0.1]])
    np.save(tmp_path / 'exact.npy', exact)
    subject = Subject('m', exact=str(tmp_path / 'exact.npy'))
    output = np.float32([[0.01, 0.5, 1.0]])
    found = errors_of(output, subject, spec)
    assert found['error'] == pytest.approx(0.01)
    assert found['error_std'] == pytest.approx(0.01 / exact.std())
    assert found['depth_error_p50'] == pytest.approx(0.0, abs=1e-7)
    assert found['depth_error_max'] == pytest.approx(1 - 0.01 / (0.01 + 9.99 * 0.01), rel=1e-4)
    assert 'depth_error_max' not in errors_of(output, subject, OutputSpec('relative'))
    metric = errors_of(np.float32([[1.1, 2.0]]), metric_subject(tmp_path), OutputSpec('metric'))
    assert metric['depth_error_max'] == pytest.approx(0.1)


def metric_subject(folder) -> Subject:
    np.save(folder / 'metric.npy', np.array([[1.0, 2.0]]))
    return Subject('m', exact=str(folder / 'metric.npy'))


def test_precisions_are_those_that_suit_unless_some_are_asked_for():
    plan = Plan((), ())
    assert precisions_of(plan, 'openvino', Subject('m')) == ('f32', 'bf16')
    assert precisions_of(plan, 'openvino', Subject('m', has_int8=True))[-1] == 'int8'
    asked = Plan((), (), precisions=('int8',))
    assert precisions_of(asked, 'onnxruntime', Subject('m')) == ('int8',)
    assert precisions_of(asked, 'eager', Subject('m')) == ('f32',)


@pytest.mark.parametrize('text', ['640', '640x', 'x', '640x192x3', '-1x5', 'AxB'])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ModelError, match='WIDTHxHEIGHT'):
        size_from(text)
    assert size_from('640x192') == (192, 640)


@pytest.mark.parametrize('kind', peak.KINDS)
def test_the_arithmetic_of_the_peak_runs_and_is_counted(kind):
    call, facts = peak.open_peak(kind, 'f32', 1)
    (output,) = call().values()
    layers = 4
    wanted = layers * (output.size * 9 * 256 if kind == 'convolution' else 1536**3)
    assert facts['macs'] == wanted
    assert np.isfinite(output).all() and 0.3 < output.std() < 3.0


def spread(min_ms: float, median_ms: float) -> Spread:
    return Spread(10, min_ms, median_ms, median_ms, median_ms)


def measured(model: str, engine: str, precision: str, time: Spread, **changes) -> EngineRow:
    network, _, variant = model.partition(':')
    values = {'batch': 1, 'reason': '', 'macs': 5_000_000_000, 'parameters': 1, **changes}
    return EngineRow(
        model, network, variant, 640, 192, random_weights=True, engine=engine,
        precision=precision, time=time, **values,
    )  # fmt: skip


def test_figures_are_ratios_of_one_run_and_missed_ones_are_called_missed():
    rows = [
        measured('lite-mono:base', 'eager', 'f32', spread(60.0, 90.0)),
        measured('lite-mono:base', 'openvino', 'f32', spread(20.0, 33.0), share_of_peak=0.82,
                 share_of_peak_median=0.7),
        measured('lite-mono:base', 'openvino', 'bf16', spread(15.0, 20.0)),
        measured('monodepth2:resnet18', 'openvino', 'f32', spread(30.0, 50.0)),
    ]  # fmt: skip
    against_eager, against_monodepth2, share, bf16 = targets_of_engines(rows, 'cpu')
    assert (against_eager.best, against_eager.median) == (3.0, pytest.approx(90 / 33))
    assert against_eager.verdict == 'reached by best times only'
    assert against_monodepth2.verdict == 'reached'
    assert (share.best, share.verdict) == (82.0, 'reached by best times only')
    assert (bf16.best, bf16.verdict) == (4.0, 'missed')
    assert {target.verdict for target in targets_of_engines([], 'cpu')} == {'not measured'}


def test_figures_count_at_640x192_alone():
    rows = [
        measured('lite-mono:base', engine, 'f32', spread(1.0, 1.0), **{})
        for engine in ('eager', 'openvino')
    ]
    small = [EngineRow(**{**vars(row), 'width': 96, 'height': 64}) for row in rows]
    assert targets_of_engines(rows, 'cpu')[0].best == 1.0
    assert targets_of_engines(small, 'cpu')[0].verdict == 'not measured'


def test_figures_of_a_gpu_are_taken_from_the_faster_engine():
    rows = [
        measured('lite-mono:base', 'eager-cuda', 'f32', spread(3.0, 3.0)),
        measured('lite-mono:base', 'eager-cuda-batch16', 'f32', spread(0.5, 0.5)),
        measured('lite-mono:base', 'cuda', 'f16', spread(0.5, 0.5)),
        measured('lite-mono:base', 'tensorrt', 'f16', spread(0.3, 0.3)),
        measured('monodepth2:resnet18', 'eager-cuda', 'f32', spread(2.0, 2.0)),
    ]
    found = targets_of_engines(rows, 'gpu')
    assert [target.verdict for target in found] == ['reached'] * 4
    assert found[1].best == 0.3


def test_the_share_of_the_peak_is_that_of_the_same_arithmetic(monkeypatch, tmp_path):
    def turns(contestants, rounds, calls, progress):
        return [timed_like(item.name) for item in contestants], False

    def timed_like(name: str):
        figures = {'macs': 10**9} if '/' in name else FACTS
        return engines.Timed(name, (10_000_000,), figures, 1.0, 100.0)

    def prepare(who, work, *arguments):
        return Subject('m', macs=5 * 10**8, height=64, width=96) if work is prepared else 1.0

    monkeypatch.setattr(engines, 'take_patient_turns', turns)
    monkeypatch.setattr(engines, 'in_own_process', prepare)
    found = engines.measure(Plan(('m',), ('openvino', 'cuda'), precisions=('f32',)), tmp_path)
    assert found.peaks[0].gflops == pytest.approx(200.0)
    assert found.rows[0].share_of_peak == pytest.approx(0.5)
    assert found.rows[1].share_of_peak is None


FACTS = {
    'version': '1', 'precision': 'f32', 'device': 'd', 'notes': '', 'import_s': 0.1,
    'load_s': 0.1, 'first_ms': 1.0,
}  # fmt: skip
