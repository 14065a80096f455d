"""What is wanted most becomes ready beside what serves, and nothing it does harms the node."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scripted_engine
from scripted_engine import DEPTH_M
from scripted_engine import builder
from scripted_engine import write_model

from depth_node import camera
from depth_node.camera.fitting import from_horizontal_fov
from depth_node.engines import OutOfMemory
from depth_node.engines import build_process
from depth_node.engines import cuda_driver
from depth_node.engines import selection
from depth_node.engines import upgrade
from depth_node.engines.cuda_driver import Probe
from depth_node.engines.selection import open_engine
from depth_node.errors import EngineError
from depth_node.errors import ImageRejected
from depth_node.errors import SettingsError
from depth_node.frames import CameraImage
from depth_node.model_folder import ModelFolder
from depth_node.pipeline import Pipeline
from depth_node.settings import settings_from
from depth_node.tools import models


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return write_model(tmp_path_factory.mktemp('models') / 'scripted')


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> scripted_engine.Script:
    monkeypatch.setattr(scripted_engine, 'SCRIPT', scripted_engine.Script(ready=False))
    for name, place in scripted_engine.NAMES.items():
        monkeypatch.setitem(selection.ENGINES, name, place)
    return scripted_engine.SCRIPT


@pytest.fixture
def opened(model, script, tmp_path, monkeypatch):
    """Open pipelines; what builds waits for the file 'gate' unless told otherwise."""
    made = []

    def opener(engine='tensorrt,openvino', ending='', gate='gate', wanted=lambda: True):
        command = builder(tmp_path, ending, tmp_path / gate if gate else '')
        monkeypatch.setattr(upgrade, 'COMMAND', tuple(command))
        settings = settings_from({'model.name': str(model.path), 'model.engine': engine})
        made.append(Pipeline.open(settings, wanted))
        return made[-1]

    yield opener
    for pipeline in made:
        pipeline.close()
    wait_for(lambda: not upgrade.is_busy())


@pytest.fixture
def with_gpu(monkeypatch):
    monkeypatch.setattr(cuda_driver, 'probe', lambda: Probe(True))
    monkeypatch.setattr(selection, 'PACKAGES', {'tensorrt': ('json',), 'cuda': ('json',)})


def wait_for(condition, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def depth_of(pipeline, width=64, height=48):
    view = camera.CameraView(from_horizontal_fov(width, height, 1.1), None)
    image = CameraImage(np.zeros((height, width, 3), np.uint8), 0, 'c')
    return float(pipeline.process(image, view, settings_from({})).depth_m[0, 0])


def processes(folder):
    return [int(path.stem) for path in folder.glob('*.pid') if path.read_text()]


def is_alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


# ---- lists of engines


@pytest.mark.parametrize(
    ('given', 'names'),
    [
        ('auto', ('tensorrt', 'cuda', 'openvino', 'onnxruntime', 'torch')),
        ('torch', ('torch',)),
        ('tensorrt,openvino', ('tensorrt', 'openvino')),
        ('openvino , tensorrt', ('openvino', 'tensorrt')),
    ],
)
def test_engines_are_named_in_order_of_preference(given, names):
    chosen = settings_from({'model.engine': given}).model.engine
    assert ' ' not in chosen
    assert selection.names_of(chosen) == names


@pytest.mark.parametrize(
    'given', ['', ',', 'abacus', 'tensorrt,', 'auto,torch', 'torch,torch', 'tensorrt;torch']
)
def test_a_list_that_makes_no_sense_is_refused_with_what_would(given):
    with pytest.raises(SettingsError, match=r'model\.engine'):
        settings_from({'model.engine': given})
    with pytest.raises(EngineError):
        selection.names_of(given)


def test_the_first_engine_of_a_list_that_works_is_taken(model, script):
    script.ready, script.at_open = True, 'memory'
    engine, notes = open_engine(
        model, model.card.inputs[0], engine='tensorrt,openvino', precision='f32', threads=1
    )
    assert engine.info.name == 'openvino'
    (note,) = notes
    assert note.startswith('tensorrt is passed over') and '3 of 8 MiB free' in note


def test_too_little_memory_for_the_only_engine_is_a_refusal_with_figures(model, script):
    script.ready, script.at_open = True, 'host memory'
    with pytest.raises(OutOfMemory, match=r'take \d+ MiB, \d+ MiB are free'):
        open_engine(model, model.card.inputs[0], engine='tensorrt', precision='f32', threads=1)


# ---- while nothing has to be built


def test_engines_on_the_processor_start_no_thread_and_no_process(opened, script, tmp_path):
    before = threading.active_count()
    for engine in ('openvino', 'openvino,onnxruntime', 'auto'):
        pipeline = opened(engine)
        assert (pipeline.engine_info.name, pipeline.engine_notes) == ('openvino', ())
        assert pipeline.engine_build == ''
    assert threading.active_count() == before
    assert script.opened == ['openvino'] * 3
    assert processes(tmp_path) == []


def test_an_engine_that_is_built_already_is_opened_at_once(opened, script, tmp_path):
    script.ready = True
    pipeline = opened()
    assert pipeline.engine_info.name == 'tensorrt'
    assert script.opened == ['tensorrt'] and processes(tmp_path) == []


def test_an_engine_that_disagrees_at_load_gives_way_to_the_next(opened, script):
    script.ready, script.off_by = True, 0.01
    pipeline = opened()
    assert pipeline.engine_info.name == 'openvino'
    assert 'standard deviations' in pipeline.engine_notes[0]


def test_a_gpu_whose_driver_is_broken_is_told(opened, monkeypatch):
    monkeypatch.setattr(cuda_driver, 'probe', lambda: Probe(False, 'the driver is too old.'))
    pipeline = opened('auto')
    assert pipeline.engine_notes == ('tensorrt and cuda are passed over: the driver is too old.',)


def test_a_gpu_whose_libraries_are_missing_is_told_with_the_commands(opened, monkeypatch):
    monkeypatch.setattr(cuda_driver, 'probe', lambda: Probe(True))
    monkeypatch.setattr(selection, 'PACKAGES', {'tensorrt': ('absent',), 'cuda': ('missing',)})
    pipeline = opened('auto')
    tensorrt, cuda = pipeline.engine_notes
    assert 'pip install tensorrt' in tensorrt and '--force-reinstall torch' in cuda
    assert pipeline.engine_build == ''


@pytest.mark.parametrize(
    ('there', 'problem'), [(False, ''), (True, 'NVIDIA GPU')], ids=['no GPU', 'no driver']
)
def test_a_missing_driver_matters_only_where_there_is_a_gpu(monkeypatch, tmp_path, there, problem):
    sign = tmp_path / 'gpus'
    sign.mkdir()
    if there:
        (sign / '0000:01:00.0').mkdir()
    monkeypatch.setattr(cuda_driver, '_LIBRARY', 'libabsent.so.1')
    monkeypatch.setattr(cuda_driver, '_SIGNS_OF_A_GPU', (sign,))
    found = cuda_driver.probe()
    assert not found.usable
    assert problem in found.problem and bool(found.problem) == there


# ---- serving while the first choice is built


def test_the_next_engine_serves_until_the_first_is_built(opened, script, tmp_path):
    pipeline = opened()
    assert depth_of(pipeline) == DEPTH_M['openvino']
    wait_for(lambda: 'phase one' in pipeline.engine_build)
    assert pipeline.engine_build.startswith('tensorrt f32, 0 s: phase one')
    assert '\x1b' not in pipeline.engine_build
    (number,) = processes(tmp_path)
    asked = (tmp_path / f'{number}.pid').read_text().split()
    assert asked[0] == 'build' and '--for-node' in asked
    assert asked[2:10] == ['--engine', 'tensorrt', '--precision', 'f32',
                           '--size', '64x48', '--threads', '0']  # fmt: skip
    (tmp_path / 'gate').touch()
    wait_for(lambda: 'takes over' in pipeline.engine_build)
    assert script.closed == []
    assert depth_of(pipeline) == DEPTH_M['tensorrt']
    assert script.closed == ['openvino']
    assert (pipeline.engine_info.name, pipeline.engine_build) == ('tensorrt', '')
    assert 0 <= pipeline.engine_info.parity_error < 1e-3
    pipeline.close()
    assert script.closed == ['openvino', 'tensorrt']


@pytest.mark.parametrize(
    ('ending', 'reason'),
    [
        ('SIGSEGV', "ended by SIGSEGV after saying 'phase one"),
        ('SIGKILL', 'ended by SIGKILL'),
        ('engine tensorrt: received 0 MiB, expected some.', 'passed over: engine tensorrt: rec'),
    ],
)
def test_a_build_that_fails_is_told_and_its_engine_is_never_touched(
    opened, script, ending, reason
):
    pipeline = opened(ending=ending, gate='')
    wait_for(lambda: pipeline.engine_notes)
    (note,) = pipeline.engine_notes
    assert reason in note
    assert depth_of(pipeline) == DEPTH_M['openvino']
    assert script.opened == ['openvino'] and pipeline.engine_build == ''


def test_a_build_that_hangs_is_killed(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(build_process, '_LONGEST_SILENCE_S', 0.4)
    monkeypatch.setattr(build_process, '_POLL_S', 0.1)
    pipeline = opened()
    wait_for(lambda: pipeline.engine_notes)
    assert 'said nothing' in pipeline.engine_notes[0]
    assert not any(map(is_alive, processes(tmp_path)))


@pytest.mark.parametrize(
    ('field', 'value', 'reason'),
    [
        ('off_by', 0.5, 'standard deviations'),
        ('at_open', 'memory', 'MiB free'),
        ('at_open', 'lost', 'ILLEGAL_ADDRESS'),
        ('at_open', 'bug', 'ValueError: a bug'),
    ],
)
def test_an_engine_that_fails_here_though_it_was_built_is_refused(
    opened, script, field, value, reason
):
    setattr(script, field, value)
    pipeline = opened(gate='')
    wait_for(lambda: pipeline.engine_notes)
    assert reason in pipeline.engine_notes[0]
    assert depth_of(pipeline) == DEPTH_M['openvino']


def test_a_program_that_cannot_be_started_is_told(opened, monkeypatch):
    monkeypatch.setattr(sys, 'executable', '/absent/program')  # what the builder begins with
    pipeline = opened()
    wait_for(lambda: pipeline.engine_notes)
    assert 'cannot be started' in pipeline.engine_notes[0]


def test_auto_tries_every_gpu_engine_in_a_process_of_its_own_first(
    opened, script, tmp_path, with_gpu
):
    script.ready = True
    pipeline = opened('auto', ending='a reason', gate='')
    assert pipeline.engine_info.name == 'openvino'
    wait_for(lambda: len(pipeline.engine_notes) == 2)
    for name, note in zip(('tensorrt', 'cuda'), pipeline.engine_notes, strict=True):
        assert note == f'{name} is passed over: a reason'
    assert len(processes(tmp_path)) == 2
    assert script.opened == ['openvino']


def test_auto_takes_a_gpu_engine_that_passed(opened, script, with_gpu):
    pipeline = opened('auto', gate='')
    wait_for(lambda: 'takes over' in pipeline.engine_build)
    assert depth_of(pipeline) == DEPTH_M['tensorrt']


def test_a_camera_of_another_aspect_ratio_is_served_in_the_same_way(opened, script, tmp_path):
    pipeline = opened(gate='')
    wait_for(lambda: 'takes over' in pipeline.engine_build)
    assert depth_of(pipeline) == DEPTH_M['tensorrt']
    assert depth_of(pipeline, 96, 48) == DEPTH_M['openvino']
    assert pipeline.engine_info.input_shape == (1, 3, 48, 96)
    wait_for(lambda: 'takes over' in pipeline.engine_build)
    assert depth_of(pipeline, 96, 48) == DEPTH_M['tensorrt']
    assert pipeline.engine_info.input_shape == (1, 3, 48, 96)
    assert sum('96x48' in path.read_text() for path in tmp_path.glob('*.pid')) == 1
    assert script.closed == ['openvino', 'tensorrt', 'openvino']


def test_what_was_built_for_one_size_is_not_wanted_for_another(opened, tmp_path):
    pipeline = opened()
    wait_for(lambda: processes(tmp_path))
    (first,) = processes(tmp_path)
    assert depth_of(pipeline, 96, 48) == DEPTH_M['openvino']
    assert not is_alive(first)
    (tmp_path / 'gate').touch()
    wait_for(lambda: 'takes over' in pipeline.engine_build)
    assert depth_of(pipeline, 96, 48) == DEPTH_M['tensorrt']


def test_an_engine_of_whole_frames_is_prepared_before_an_image_waits_for_it(
    opened, script, tmp_path, monkeypatch
):
    script.makes_frames = True
    pipeline = opened()
    assert depth_of(pipeline) == DEPTH_M['openvino']
    (tmp_path / 'gate').touch()
    wait_for(lambda: 'takes over' in pipeline.engine_build)
    ((thread, prepared),) = script.frames
    assert depth_of(pipeline) == DEPTH_M['tensorrt']
    _, (other, plan) = script.frames
    assert plan == prepared
    assert (thread, other) == (upgrade.THREAD_NAME, threading.current_thread().name)


def test_an_engine_whose_frames_fail_is_passed_over(opened, script, tmp_path):
    script.makes_frames, script.steps['tensorrt'] = True, ['fail']
    pipeline = opened()
    assert depth_of(pipeline) == DEPTH_M['openvino']
    (tmp_path / 'gate').touch()
    wait_for(lambda: pipeline.engine_notes)
    assert 'a failure' in pipeline.engine_notes[0]
    assert depth_of(pipeline) == DEPTH_M['openvino']


# ---- an engine without a substitute


def test_the_only_engine_is_waited_for(opened, script):
    pipeline = opened('tensorrt', gate='')
    assert depth_of(pipeline) == DEPTH_M['tensorrt']
    assert script.opened == ['tensorrt']


def test_the_only_engine_that_cannot_be_built_is_an_error(opened):
    with pytest.raises(EngineError, match=r'no engine that works.*the reason'):
        opened('tensorrt', ending='the reason', gate='')


def test_waiting_ends_when_the_node_does(opened, tmp_path):
    asked = []

    def wanted():
        asked.append(time.monotonic())
        return not processes(tmp_path)

    with pytest.raises(EngineError, match='the end of the node'):
        opened('tensorrt', wanted=wanted)
    assert not any(map(is_alive, processes(tmp_path)))
    assert not upgrade.is_busy()


def test_images_of_another_size_are_refused_by_name_while_the_only_engine_is_built(
    opened, tmp_path
):
    (tmp_path / 'gate').touch()
    pipeline = opened('tensorrt')
    (tmp_path / 'gate').unlink()
    with pytest.raises(ImageRejected) as caught:
        depth_of(pipeline, 96, 48)
    assert caught.value.reason == 'engine_building'
    (tmp_path / 'gate').touch()
    wait_for(lambda: 'takes over' in pipeline.engine_build)
    assert depth_of(pipeline, 96, 48) == DEPTH_M['tensorrt']


def test_another_size_whose_only_engine_cannot_be_built_is_an_error(opened, tmp_path, monkeypatch):
    pipeline = opened('tensorrt', gate='')
    monkeypatch.setattr(upgrade, 'COMMAND', tuple(builder(tmp_path, 'the reason')))
    with pytest.raises(ImageRejected):
        depth_of(pipeline, 96, 48)
    wait_for(lambda: pipeline.engine_notes)
    with pytest.raises(EngineError, match='the reason'):
        depth_of(pipeline, 96, 48)


# ---- the end


def test_closing_ends_the_build_at_once(opened, tmp_path, script):
    pipeline = opened()
    wait_for(lambda: processes(tmp_path))
    began = time.monotonic()
    pipeline.close()
    assert time.monotonic() - began < 0.5
    assert not any(map(is_alive, processes(tmp_path)))
    assert not upgrade.is_busy()
    assert script.closed == ['openvino']


def test_an_engine_that_nobody_took_is_closed(opened, script):
    pipeline = opened(gate='')
    wait_for(lambda: 'takes over' in pipeline.engine_build)
    pipeline.close()
    assert sorted(script.closed) == ['openvino', 'tensorrt']


def test_a_build_ends_with_a_node_that_was_killed(tmp_path):
    child = (
        'import sys, time\n'
        'from pathlib import Path\n'
        'from depth_node.engines.build_process import serve_the_node\n'
        'serve_the_node()\n'
        f'import os; Path({str(tmp_path)!r}, f"{{os.getpid()}}.pid").write_text(str(os.nice(0)))\n'
        'time.sleep(60)\n'
    )
    node = (
        'from depth_node.engines.build_process import BuildProcess\n'
        f'import sys; BuildProcess([sys.executable, "-c", {child!r}]).follow(lambda line: None)\n'
    )
    process = subprocess.Popen([sys.executable, '-c', node], cwd=Path(__file__).parents[1])
    try:
        wait_for(lambda: processes(tmp_path))
        (number,) = processes(tmp_path)
        assert int((tmp_path / f'{number}.pid').read_text()) > os.nice(0)
        process.send_signal(signal.SIGKILL)
        wait_for(lambda: not is_alive(number))
    finally:
        process.kill()
        process.wait()


def test_what_the_new_engine_has_to_say_is_among_the_notes(opened, script):
    script.notes = ['The plan is not kept: /cache: No space left on device.']
    pipeline = opened(gate='')
    wait_for(lambda: 'takes over' in pipeline.engine_build)
    assert pipeline.engine_notes == tuple(script.notes)


def test_a_long_build_is_reported_in_the_log(opened, monkeypatch, caplog):
    monkeypatch.setattr(upgrade, '_REPORT_S', 0.0)
    with caplog.at_level(logging.INFO, 'depth_node.engines'):
        pipeline = opened()
        wait_for(lambda: any('phase one' in text for text in caplog.messages))
    assert 'engine build: tensorrt f32, 0 s: ' in caplog.messages[-1]
    pipeline.close()


# ---- the command


def test_an_engine_is_built_and_checked_by_a_command(model, script, capsys, monkeypatch):
    script.ready = True
    words = ['build', str(model.path), '--size', '96x48']
    assert models.main(words) == 0
    said = capsys.readouterr().out
    assert said.startswith('tensorrt scripted f32 on this machine: differs by 0 standard')
    assert script.closed == ['tensorrt']
    script.makes_frames = True
    assert models.main(words) == 0
    assert script.frames[0][1].fit.camera.width == 96
    capsys.readouterr()
    script.off_by = 0.5
    assert models.main(words) == 1
    assert 'standard deviations' in capsys.readouterr().err
    assert models.main([*words[:2], '--size', '1x1']) == 1
    assert '64x48, 96x48' in capsys.readouterr().err


@pytest.mark.skipif(
    any(selection.importlib.util.find_spec(name) for name in ('tensorrt', 'tensorrt_rtx')),
    reason='needs a machine without TensorRT',
)
def test_the_real_command_says_what_is_missing(model, script, monkeypatch):
    settings = settings_from({'model.name': str(model.path), 'model.engine': 'tensorrt,openvino'})
    pipeline = Pipeline.open(settings)
    wait_for(lambda: pipeline.engine_notes, 20)
    assert 'pip install tensorrt' in pipeline.engine_notes[0]
    assert replace(pipeline.engine_info, parity_error=0.0).name == 'openvino'
    pipeline.close()
