"""Plans are built, kept and loaded; whatever is missing or fails is named.

Three kinds of test: with TensorRT-RTX, which parses and builds without a GPU; with stand-ins for
TensorRT and for the driver, which hold the order of the calls but compute nothing of a network;
and, marked ``gpu``, the real thing.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from standin_tensorrt import DRIVER
from standin_tensorrt import Script
from standin_tensorrt import fake_tensorrt

from depth_node import model_folder
from depth_node.engines import DeviceLost
from depth_node.engines import OutOfMemory
from depth_node.engines import cuda_driver
from depth_node.engines import tensorrt_build
from depth_node.engines.cuda_driver import CudaError
from depth_node.engines.parity import check_parity
from depth_node.engines.parity import read_golden
from depth_node.engines.tensorrt_engine import TensorRtEngine
from depth_node.engines.tensorrt_engine import build_only
from depth_node.engines.tensorrt_engine import targets
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.model_folder import ModelFolder

MODEL = Path(__file__).parent.parent / 'models' / 'lite-mono-small-world'


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    forget()
    yield tmp_path / 'cache' / 'depth_node' / 'engines'
    forget()


@pytest.fixture(scope='module')
def in_half(model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """The bundled model with float16 graphs, made where it is older than those."""
    if model.card.inputs[0].graph_f16 is not None:
        return model
    make_model = pytest.importorskip('depth_node.networks.make_model')
    copy = tmp_path_factory.mktemp('half') / 'model'
    shutil.copytree(model.path, copy)
    made: ModelFolder = make_model.remake(model_folder.read(copy))
    return made


def forget() -> None:
    cuda_driver.cuda.cache_clear()
    tensorrt_build.library_of.cache_clear()


@pytest.fixture(scope='module')
def model() -> ModelFolder:
    return model_folder.read(MODEL)


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


# --- what is missing --------------------------------------------------------------------------


def opened(model: ModelFolder, precision: str = 'f32') -> TensorRtEngine:
    return TensorRtEngine(model, model.card.inputs[0], precision=precision, threads=1)


@pytest.mark.parametrize('precision', ['bf16', 'tf32', 'int8'])
def test_a_precision_that_is_no_graph_is_refused(model: ModelFolder, precision: str) -> None:
    with pytest.raises(EngineError, match=rf"precision '{precision}', expected f32 or f16"):
        opened(model, precision)


def test_a_model_without_a_float16_graph_says_how_to_make_one(
    model: ModelFolder, script: Script
) -> None:
    size = replace(model.card.inputs[0], graph_f16=None)
    with pytest.raises(ModelError, match=r'no graph in f16.*remake'):
        TensorRtEngine(model, size, precision='f16', threads=1)
    assert script.builds == 0


def test_a_missing_library_is_named_with_its_command(
    model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, 'tensorrt', 'tensorrt_rtx')
    monkeypatch.setattr(tensorrt_build, '_TEGRA', (Path('/none'),) * 2)
    with pytest.raises(MissingPackage, match='pip install tensorrt-rtx') as caught:
        opened(model)
    assert caught.value.package == 'tensorrt'
    with pytest.raises(MissingPackage) as caught:
        build_only(model, model.card.inputs[0], target='8.6')
    assert caught.value.package == 'tensorrt_rtx'


@pytest.mark.parametrize('which', [0, 1])
def test_on_a_jetson_the_package_of_the_system_is_named_and_never_pip(
    model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    without(monkeypatch, 'tensorrt', 'tensorrt_rtx')
    places = [Path('/none'), Path('/none')]
    places[which] = tmp_path / 'tegra'
    places[which].write_bytes(b'nvidia,p3737\0nvidia,tegra234' if which else b'# R36')
    monkeypatch.setattr(tensorrt_build, '_TEGRA', tuple(places))
    with pytest.raises(MissingPackage, match='sudo apt install python3-libnvinfer') as caught:
        opened(model)
    assert 'pip install' not in str(caught.value)


@pytest.mark.parametrize('version', ['8.6.1', '9.0.0', '10.2.0.post1'])
def test_a_library_that_is_too_old_is_named_with_the_oldest_that_works(
    model: ModelFolder, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    without(monkeypatch, 'tensorrt_rtx')
    monkeypatch.setitem(sys.modules, 'tensorrt', types.SimpleNamespace(__version__=version))
    with pytest.raises(
        EngineError, match=rf'received tensorrt {version}, expected tensorrt 10\.3'
    ):
        opened(model)


def test_a_library_that_cannot_be_imported_is_no_missing_one(
    model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, 'tensorrt_rtx')
    (tmp_path / 'tensorrt.py').write_text("raise OSError('libnvinfer.so.10: no such file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'tensorrt', raising=False)
    with pytest.raises(EngineError, match=r'cannot be imported.*libnvinfer\.so\.10'):
        opened(model)


def test_a_missing_driver_is_named(model: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'tensorrt', fake_tensorrt('10.3.0'))
    monkeypatch.setattr(cuda_driver, '_LIBRARY', 'libcuda-that-is-not-there.so.1')
    with pytest.raises(CudaError, match=r'no usable NVIDIA driver .*nvidia-smi.*--gpus all'):
        opened(model)


def test_a_driver_that_lacks_calls_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, '_LIBRARY', 'libm.so.6')
    with pytest.raises(CudaError, match=r'expected a driver for CUDA 11\.4'):
        cuda_driver.cuda()


# --- TensorRT-RTX without a GPU ---------------------------------------------------------------


@pytest.fixture(scope='module')
def rtx() -> Any:
    return pytest.importorskip('tensorrt_rtx')


@pytest.mark.parametrize('index', [0, 1])
def test_a_graph_is_built_once_and_then_found(
    rtx: Any, model: ModelFolder, own_cache: Path, index: int
) -> None:
    size = model.card.inputs[index]
    first = build_only(model, size, target='8.6')
    assert (first.origin, first.notes) == ('built', ())
    assert len(first.plan) > 1_000_000
    second = build_only(model, size, target='8.6')
    assert (second.plan, second.origin, second.notes) == (first.plan, 'cache', ())
    text = next(own_cache.glob('*.json')).read_text()
    assert 'libtensorrt_rtx.so' in text and f'"{rtx.__version__}"' in text


@pytest.mark.parametrize('index', [0, 1])
def test_float16_is_a_plan_of_its_own_and_smaller(
    rtx: Any, in_half: ModelFolder, own_cache: Path, index: int
) -> None:
    size = in_half.card.inputs[index]
    wide = build_only(in_half, size, target='8.6')
    half = build_only(in_half, size, target='8.6', precision='f16')
    # 2.5 million weights
    assert len(half.plan) < len(wide.plan) - 4_000_000
    assert len(list(own_cache.glob('*.plan'))) == 2
    again = build_only(in_half, size, target='8.6', precision='f16')
    assert (again.plan, again.origin) == (half.plan, 'cache')


def test_a_damaged_plan_is_built_again(rtx: Any, model: ModelFolder, own_cache: Path) -> None:
    first = build_only(model, model.card.inputs[0], target='8.0')
    path = next(own_cache.glob('*.plan'))
    path.write_bytes(first.plan[:-1] + bytes([first.plan[-1] ^ 1]))
    again = build_only(model, model.card.inputs[0], target='8.0')
    assert again.origin == 'built' and 'changed' in again.notes[0]
    assert len(again.plan) == len(first.plan)


@pytest.mark.parametrize('target', ['8.7', '86', 'SM86', '', 'CURRENT'])
def test_a_target_that_is_not_offered_is_refused(
    rtx: Any, model: ModelFolder, target: str
) -> None:
    assert {'7.5', '8.6', '8.9', '12.0'} <= set(targets())
    with pytest.raises(EngineError, match=r'expected one of .*8\.6'):
        build_only(model, model.card.inputs[0], target=target)


def test_a_graph_of_another_size_than_the_card_says_is_refused(
    rtx: Any, model: ModelFolder, own_cache: Path
) -> None:
    size = replace(model.card.inputs[0], height=96)
    with pytest.raises(EngineError, match=r'192, 256.*expected .*96, 256'):
        build_only(model, size, target='8.6')
    assert not list(own_cache.glob('*.plan'))


def changed(model: ModelFolder, out: Path, change: Callable[[Path], object]) -> ModelFolder:
    """Copy a model and change its first graph; the card is left, as if nobody had looked."""
    shutil.copytree(model.path, out)
    change(out / model.card.inputs[0].graph)
    return ModelFolder(out, model.card)


def test_what_the_parser_says_reaches_the_reader(
    rtx: Any, model: ModelFolder, tmp_path: Path
) -> None:
    onnx = pytest.importorskip('onnx')

    def unknown_operator(path: Path) -> None:
        graph = onnx.load(path, load_external_data=False)
        graph.graph.node[3].op_type = 'Mystery'
        graph.graph.node[3].domain = ''
        path.write_bytes(graph.SerializeToString())

    broken = changed(model, tmp_path / 'broken', unknown_operator)
    with pytest.raises(EngineError, match=r'cannot be read \(.*Mystery'):
        build_only(broken, broken.card.inputs[0], target='8.6')


def test_missing_weights_are_named(rtx: Any, model: ModelFolder, tmp_path: Path) -> None:
    broken = changed(model, tmp_path / 'm', lambda path: path.with_suffix('.safetensors').unlink())
    with pytest.raises(EngineError, match='Failed to import initializer'):
        build_only(broken, broken.card.inputs[0], target='8.6')


def test_garbage_never_reaches_the_parser(rtx: Any, model: ModelFolder, tmp_path: Path) -> None:
    broken = changed(model, tmp_path / 'broken', lambda path: path.write_bytes(b'garbage'))
    with pytest.raises(ModelError, match='no ONNX graph'):
        build_only(broken, broken.card.inputs[0], target='8.6')


def test_an_interrupt_ends_the_build(
    rtx: Any, model: ModelFolder, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def interrupt(text: str, *_: object) -> None:
        if text.startswith('building the engine:'):
            steps.append(text)
            raise KeyboardInterrupt

    monkeypatch.setattr(tensorrt_build, '_REPORT_S', 0.0)
    monkeypatch.setattr(logging.getLogger(tensorrt_build.__name__), 'info', interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_only(model, model.card.inputs[0], target='8.6')
    assert len(steps) == 1, 'the build went on'
    assert not list(own_cache.glob('*.plan'))


def test_a_long_build_says_that_it_goes_on(
    rtx: Any,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tensorrt_build, '_REPORT_S', 0.0)
    with caplog.at_level(logging.INFO, 'depth_node.engines'):
        build_only(model, model.card.inputs[0], target='8.6')
    assert any(text.startswith('building the engine: ') for text in caplog.messages)


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
