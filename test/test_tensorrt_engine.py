"""The tensorrt engine calls the library and the driver in order and gives what the network gives.

Two kinds of test: with stand-ins for TensorRT and for the driver, which hold the order of the
calls but compute nothing of a network; and, marked ``gpu``, the real thing.
"""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorrt_model
from standin_tensorrt import DRIVER
from standin_tensorrt import Script
from standin_tensorrt import fake_tensorrt
from tensorrt_model import opened

from depth_node.engines import DeviceLost
from depth_node.engines import OutOfMemory
from depth_node.engines import cuda_driver
from depth_node.engines.cuda_driver import CudaError
from depth_node.engines.parity import check_parity
from depth_node.engines.parity import read_golden
from depth_node.engines.tensorrt_engine import TensorRtEngine
from depth_node.errors import EngineError
from depth_node.errors import ModelError
from depth_node.model_folder import ModelFolder

own_cache = tensorrt_model.own_cache
model = tensorrt_model.model
in_half = tensorrt_model.in_half


@pytest.mark.parametrize('precision', ['bf16', 'tf32', 'int8'])
def test_a_precision_that_is_no_graph_is_refused(model: ModelFolder, precision: str) -> None:
    with pytest.raises(EngineError, match=rf"precision '{precision}', expected f32 or f16"):
        opened(model, precision)


# --- the order of the calls, with stand-ins ---------------------------------------------------


@pytest.fixture(scope='module')
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which('cc')
    if compiler is None:
        pytest.skip('a C compiler makes the stand-in for the driver')
    folder = tmp_path_factory.mktemp('driver')
    (folder / 'driver.c').write_text(DRIVER)
    words = [compiler, '-w', '-shared', '-fPIC', '-o', 'libfake.so', 'driver.c']
    subprocess.run(words, cwd=folder, check=True)
    return folder / 'libfake.so'


@pytest.fixture
def driver(fake_driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    own = shutil.copy(fake_driver, tmp_path / 'libfake.so')  # with variables of its own
    monkeypatch.setattr(cuda_driver, '_LIBRARY', str(own))
    return ctypes.CDLL(str(own))


@pytest.fixture(params=['10.3.0', '11.4.1'])
def script(
    request: pytest.FixtureRequest, driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> Script:
    script = Script()
    script.enqueue = driver.fake_enqueue
    monkeypatch.setitem(sys.modules, 'tensorrt', fake_tensorrt(request.param, script))
    return script


def image_of(value: float) -> np.ndarray:
    return np.full((1, 3, 192, 256), value, np.float32)


def set_variable(driver: ctypes.CDLL, name: str, value: int) -> None:
    ctypes.c_int.in_dll(driver, name).value = value


def variable(driver: ctypes.CDLL, name: str) -> int:
    return ctypes.c_int.in_dll(driver, name).value


def test_a_model_without_a_float16_graph_says_how_to_make_one(
    model: ModelFolder, script: Script
) -> None:
    size = replace(model.card.inputs[0], graph_f16=None)
    with pytest.raises(ModelError, match=r'no graph in f16.*remake'):
        TensorRtEngine(model, size, precision='f16', threads=1)
    assert script.builds == 0


def test_every_frame_is_one_graph(model: ModelFolder, script: Script) -> None:
    engine = opened(model)
    assert engine.notes == ()
    assert engine.info.device == 'Stand-in'
    assert (engine.info.name, engine.info.precision) == ('tensorrt', 'f32')
    enqueued = script.runs
    for value in (2.0, 5.0):
        output = engine.infer(image_of(value))
        assert output.shape == (192, 256) and (output == value + 1).all()
    assert script.runs == enqueued, 'frames are to replay the graph'
    engine.warm_up()
    engine.close()


def test_the_network_is_typed_by_its_graph_without_tf32(
    model: ModelFolder, script: Script
) -> None:
    opened(model).close()
    version = sys.modules['tensorrt'].__version__
    assert script.network_flags == [0 if version.startswith('11') else 1 << 1]
    assert script.cleared == ['TF32']


def test_each_precision_is_built_from_its_own_graph(in_half: ModelFolder, script: Script) -> None:
    size = in_half.card.inputs[0]
    for precision in ('f32', 'f16', 'f32', 'f16'):
        engine = opened(in_half, precision)
        assert engine.info.precision == precision
        # float16 is inside: images and outputs are float32
        assert (engine.infer(image_of(2.0)) == 3).all()
        engine.close()
    assert script.parsed == [size.graph, size.graph_f16]


def test_without_a_graph_frames_are_enqueued_and_a_note_says_so(
    model: ModelFolder, script: Script, driver: ctypes.CDLL
) -> None:
    set_variable(driver, 'fake_fail_capture', 901)
    engine = opened(model)
    assert 'without a CUDA graph' in engine.notes[0] and 'CUDA_ERROR_X' in engine.notes[0]
    assert (engine.infer(image_of(3.0)) == 4).all()
    assert (engine.infer(image_of(4.0)) == 5).all()
    engine.close()


def test_a_run_that_cannot_be_captured_ends_the_capture(
    model: ModelFolder, script: Script
) -> None:
    script.failing_runs = 2
    engine = opened(model)
    assert 'an enqueue that failed' in engine.notes[0]
    script.failing_runs = 0
    assert (engine.infer(image_of(3.0)) == 4).all()
    engine.close()


def test_the_second_start_takes_plan_and_timings_from_the_cache(
    model: ModelFolder, script: Script
) -> None:
    opened(model).close()
    opened(model).close()
    assert script.builds == 1
    TensorRtEngine(model, model.card.inputs[0], precision='f32', threads=0).close()
    assert script.builds == 1
    script.shape = (1, 3, 192, 352)
    TensorRtEngine(model, model.card.inputs[1], precision='f32', threads=0).close()
    assert script.builds == 2
    assert script.timings == [b'', b't']


def test_timings_that_do_not_fit_are_forgotten(
    model: ModelFolder, script: Script, own_cache: Path
) -> None:
    for _ in range(3):
        opened(model).close()
        next(own_cache.glob('*.plan')).unlink()
    assert script.timings == [b'', b't', b'tt', b'']


def test_a_stored_plan_that_the_library_refuses_is_built_again(
    model: ModelFolder, script: Script
) -> None:
    opened(model).close()
    script.refused_plans = 1
    engine = opened(model)
    assert script.builds == 2
    assert 'built again' in engine.notes[0] and 'a plan of another GPU' in engine.notes[0]
    assert (engine.infer(image_of(1.0)) == 2).all()
    engine.close()
    assert opened(model).notes == ()


def test_a_new_plan_that_is_refused_is_an_error(model: ModelFolder, script: Script) -> None:
    script.refused_plans = 2
    with pytest.raises(EngineError, match=r'100 of 200 MiB of memory free .*another GPU'):
        opened(model)
    assert script.builds == 1


def test_too_little_memory_for_a_context_is_named(model: ModelFolder, script: Script) -> None:
    script.without_context = True
    with pytest.raises(EngineError, match=r'no execution context with 100 of 200.*Close other'):
        opened(model)


def test_an_engine_that_cannot_be_opened_keeps_no_memory(
    model: ModelFolder, script: Script, driver: ctypes.CDLL
) -> None:
    set_variable(driver, 'fake_fail_sync', 1)
    with pytest.raises(CudaError, match='cuStreamSynchronize'):
        opened(model)
    gc.collect()
    assert variable(driver, 'fake_freed') == 4, 'two images, here and on the GPU'


def test_too_little_memory_for_images_is_named(
    model: ModelFolder, script: Script, driver: ctypes.CDLL
) -> None:
    set_variable(driver, 'fake_largest', 4 * 192 * 256)  # enough for the output
    said = r'OUT_OF_MEMORY.* for 1 MiB with 100 of 200 MiB free.*Close other'
    with pytest.raises(OutOfMemory, match=said):
        opened(model)


def test_a_plan_in_the_cache_needs_no_build(
    model: ModelFolder, script: Script, own_cache: Path
) -> None:
    wanted = {'precision': 'f32', 'threads': 1}
    size = model.card.inputs[0]
    assert TensorRtEngine.ready(model, size, **wanted) == (False, ())
    opened(model).close()
    assert TensorRtEngine.ready(model, size, **wanted) == (True, ())
    assert script.builds == 1
    next(own_cache.glob('*.plan')).write_bytes(b'plan of somebody else')
    ready, (note,) = TensorRtEngine.ready(model, size, **wanted)
    assert not ready and 'is not used' in note


def test_a_gpu_is_found_without_being_used(driver: ctypes.CDLL) -> None:
    assert cuda_driver.probe() == cuda_driver.Probe(True)
    set_variable(driver, 'fake_init', 100)  # hidden by CUDA_VISIBLE_DEVICES, or none
    assert cuda_driver.probe() == cuda_driver.Probe(False)
    set_variable(driver, 'fake_init', 803)
    found = cuda_driver.probe()
    assert not found.usable and 'CUDA_ERROR_X from cuInit' in found.problem


@pytest.mark.parametrize(
    ('cause', 'remedy'),
    [
        ('Out of memory', 'smaller model'),
        ('CUDA driver version is insufficient', 'Update the NVIDIA driver'),
        ('Mystery', ''),
    ],
)
def test_a_failed_build_says_why_and_what_to_do(
    model: ModelFolder, script: Script, cause: str, remedy: str, own_cache: Path
) -> None:
    script.fails_in_build = f'{cause}\nforged line'
    with pytest.raises(EngineError, match=rf'no plan \({cause} forged line\).*{remedy}'):
        opened(model)
    assert not list(own_cache.glob('*.plan'))
    script.fails_in_build = ''
    opened(model).close()


def test_a_plan_of_another_shape_is_refused(model: ModelFolder, script: Script) -> None:
    opened(model).close()
    script.shape = (1, 3, 96, 256)
    with pytest.raises(EngineError, match='96, 256'):
        opened(model)


def test_an_engine_that_failed_says_so(
    model: ModelFolder, script: Script, driver: ctypes.CDLL
) -> None:
    engine = opened(model)
    set_variable(driver, 'fake_fail_sync', 1)
    with pytest.raises(DeviceLost, match='CUDA_ERROR_X from cuStreamSynchronize'):
        engine.infer(image_of(1.0))
    engine.close()


def test_closing_frees_everything_but_arrays_that_are_still_seen(
    model: ModelFolder, script: Script, driver: ctypes.CDLL
) -> None:
    engine = opened(model)
    output = engine.infer(image_of(6.0))
    engine.close()
    engine.close()
    assert variable(driver, 'fake_freed') == 2
    assert (output == 7).all()
    with pytest.raises(EngineError, match='after it was closed'):
        engine.infer(image_of(1.0))
    del engine
    assert variable(driver, 'fake_freed') == 3
    del output
    assert variable(driver, 'fake_freed') == 4


@pytest.mark.parametrize('kind', ['shape', 'dtype', 'strided'])
def test_an_image_that_would_be_misread_is_refused(
    model: ModelFolder, script: Script, kind: str
) -> None:
    wrong = {
        'shape': image_of(0.0)[:, :, :96],
        'dtype': image_of(0.0).astype(np.float64),
        'strided': image_of(0.0)[..., ::-1],
    }[kind]
    engine = opened(model)
    with pytest.raises(EngineError, match='expected C-contiguous float32'):
        engine.infer(wrong)
    engine.close()


def test_an_engine_may_move_to_another_thread(model: ModelFolder, script: Script) -> None:
    engine = opened(model)
    seen: list[bool] = []

    def work() -> None:
        seen.append(bool((engine.infer(image_of(2.0)) == 3).all()))
        engine.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


# --- the real thing ---------------------------------------------------------------------------


@pytest.fixture
def gpu() -> None:
    if not any(map(importable, ('tensorrt', 'tensorrt_rtx'))):
        pytest.skip('neither tensorrt nor tensorrt_rtx is installed')
    cuda_driver.cuda()


def importable(name: str) -> bool:
    try:
        __import__(name)
    except (ImportError, OSError):
        return False
    return True


@pytest.mark.gpu
@pytest.mark.parametrize('index', [0, 1])
@pytest.mark.parametrize('precision', ['f32', 'f16'])
def test_the_gpu_gives_what_the_trained_network_gives(
    gpu: None, in_half: ModelFolder, precision: str, index: int
) -> None:
    size = in_half.card.inputs[index]
    golden = read_golden(in_half, size)
    for _ in range(2):  # built, then from the cache
        engine = TensorRtEngine(in_half, size, precision=precision, threads=0)
        check_parity(engine, golden, in_half.card.storage)
        first = engine.infer(golden.image).copy()
        engine.infer(np.zeros_like(golden.image))
        assert (engine.infer(golden.image) == first).all()
        engine.close()


@pytest.mark.gpu
def test_a_frame_is_captured_on_the_gpu(gpu: None, model: ModelFolder) -> None:
    engine = opened(model)
    assert engine.notes == ()
    engine.close()


@pytest.mark.gpu
def test_memory_of_the_gpu_comes_back(gpu: None, model: ModelFolder) -> None:
    opened(model).close()
    before, _ = cuda_driver.cuda().memory_bytes()
    for _ in range(5):
        opened(model).close()
    after, _ = cuda_driver.cuda().memory_bytes()
    assert before - after < 64 << 20
