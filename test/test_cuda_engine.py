"""The cuda engine: what it refuses, what it does when the GPU fails, and on a GPU, how fast it is.

Most of it runs with a stand-in for ``torch.cuda`` that records and replays on the processor; the
real thing is marked ``gpu``.
"""

from __future__ import annotations

import gc
import statistics
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from standin_cuda import FakeDriver
from standin_cuda import FakeTorch
from standin_cuda import Script

from depth_node import camera
from depth_node import model_folder
from depth_node.engines import DeviceLost
from depth_node.engines import OutOfMemory
from depth_node.engines import WholeFrame
from depth_node.engines import cuda_driver
from depth_node.engines import cuda_engine
from depth_node.engines import selection
from depth_node.engines.cuda_driver import CudaError
from depth_node.engines.cuda_engine import CudaEngine
from depth_node.engines.cuda_graph import PinnedMemory
from depth_node.engines.cuda_graph import Stream
from depth_node.engines.gpu_inference import GpuInference
from depth_node.engines.parity import check_parity
from depth_node.engines.parity import read_golden
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.frames import CameraImage
from depth_node.frames import CameraModel
from depth_node.frames import DepthFrame
from depth_node.model_folder import ModelFolder
from depth_node.networks import conformance
from depth_node.networks import registry
from depth_node.networks.specification import Identity
from depth_node.pipeline import Pipeline
from depth_node.settings import settings_from

MODEL = Path(__file__).parent.parent / 'models' / 'lite-mono-small-world'
VGA = CameraModel(640, 480, 500.0, 500.0, 319.5, 239.5)


@pytest.fixture(scope='module')
def model() -> ModelFolder:
    return model_folder.read(MODEL)


def opened(model: ModelFolder, precision: str = 'f32') -> CudaEngine:
    return CudaEngine(model, model.card.inputs[0], precision=precision, threads=0)


def image_of(seed: int) -> CameraImage:
    rgb = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    return CameraImage(np.kron(rgb, np.ones((20, 20, 1), np.uint8)), 5, 'c')


# --- what is missing --------------------------------------------------------------------------


@pytest.mark.parametrize('precision', ['bf16', 'int8', 'tf32'])
def test_a_precision_that_is_not_offered_is_refused(model: ModelFolder, precision: str) -> None:
    with pytest.raises(EngineError, match=rf"precision '{precision}', expected f32 or f16"):
        opened(model, precision)


def test_a_missing_driver_is_named_before_torch_is_imported(
    model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda_driver.cuda.cache_clear()
    monkeypatch.setattr(cuda_driver, '_LIBRARY', 'libcuda-that-is-not-there.so.1')
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(CudaError, match=r'no usable NVIDIA driver .*nvidia-smi.*--gpus all'):
        opened(model)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver()
    monkeypatch.setattr(cuda_engine, 'cuda', lambda: fake)
    return fake


def test_a_missing_torch_is_named_with_its_command(
    model: ModelFolder, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(MissingPackage, match=r'pip install .*torch'):
        opened(model)


def a_torch(cuda: str | None) -> Any:
    return types.SimpleNamespace(
        __version__='2.13.0',
        version=types.SimpleNamespace(cuda=cuda),
        cuda=types.SimpleNamespace(is_available=lambda: False),
    )


def test_a_torch_for_the_processor_alone_is_refused_with_the_command(
    model: ModelFolder, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'torch', a_torch(None))
    with pytest.raises(EngineError, match=r'built without CUDA.*pip install .*torch.*JetPack'):
        opened(model)


def test_a_driver_that_is_too_old_for_torch_is_named(
    model: ModelFolder, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'torch', a_torch('13.0'))
    with pytest.raises(EngineError, match=r'for CUDA 13\.0, .*driver for CUDA 12\.6.*Update'):
        opened(model)


# --- with a stand-in --------------------------------------------------------------------------


@pytest.fixture
def script(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script()
    fake = FakeTorch(made)
    monkeypatch.setattr(cuda_engine, 'torch_with_cuda', lambda gpu: fake)
    monkeypatch.setattr(cuda_engine, '_DEVICE', 'cpu')
    return made


def by_name(model: ModelFolder) -> CudaEngine:
    """Open the engine as the node does, held to the golden output."""
    engine, notes = selection.open_engine(
        model, model.card.inputs[0], engine='cuda', precision='f32', threads=0
    )
    assert isinstance(engine, CudaEngine) and notes == ()
    return engine


def test_the_engine_replays_what_the_trained_network_computes(
    model: ModelFolder, script: Script
) -> None:
    engine = by_name(model)
    assert engine.info.parity_error < 1e-3
    assert (engine.info.name, engine.info.device) == ('cuda', 'Stand-in')
    assert (script.captures, script.replays, script.modes) == (1, 1, ['thread_local'])
    golden = read_golden(model, model.card.inputs[0])
    first = engine.infer(golden.image).copy()
    other = engine.infer(np.zeros_like(golden.image)).copy()
    assert np.abs(other - first).max() > 0.01
    assert np.array_equal(engine.infer(golden.image), first)
    with pytest.raises(EngineError, match='C-contiguous'):
        engine.infer(golden.image[:, ::-1])
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match='closed'):
        engine.infer(golden.image)
    assert script.emptied == 1


def pipelines(model: ModelFolder) -> tuple[Pipeline, Pipeline]:
    """Return the pipeline with the cuda engine, and that with torch on the processor."""
    chosen = ('cuda', 'torch')
    settings = [settings_from({'model.engine': e, 'model.precision': 'f32'}) for e in chosen]
    return Pipeline(model, settings[0]), Pipeline(model, settings[1])


def test_frames_are_those_of_the_pipeline_and_each_is_of_its_own_image(
    model: ModelFolder, script: Script
) -> None:
    ours, theirs = pipelines(model)
    view, clouds = camera.CameraView(VGA, None), []
    for seed, max_m in ((1, 80.0), (2, 80.0), (1, 80.0), (1, 1.5)):
        settings = settings_from({'depth.max_m': max_m})
        got = ours.process(image_of(seed), view, settings)
        wanted = theirs.process(image_of(seed), view, settings)
        assert isinstance(got, DepthFrame) and isinstance(wanted, DepthFrame)
        same = np.isfinite(got.depth_m) == np.isfinite(wanted.depth_m)
        assert same.mean() > 0.9999
        finite = np.isfinite(got.depth_m) & same
        assert finite.mean() > 0.1
        np.testing.assert_allclose(got.depth_m[finite], wanted.depth_m[finite], rtol=1e-3)
        assert got.cloud is not None
        clouds.append(bytes(got.cloud.data))
        assert list(got.stage_ns) == ['rectify', 'upload', 'gpu', 'wait']
    assert clouds[0] == clouds[2] != clouds[1] and clouds[3] != clouds[0]
    assert script.captures == 2 and len(script.pinned) == 2
    del got
    small = settings_from({'depth.full_size': False})
    assert ours.process(image_of(1), view, small).rgb.shape == (192, 256, 3)
    assert script.captures == 3 and len(script.pinned) == 2, 'the old buffers are gone'
    ours.close()
    del ours
    gc.collect()
    assert not script.pinned, 'memory is unpinned before it is freed'


def test_cameras_that_take_turns_are_recorded_once_each(
    model: ModelFolder, script: Script
) -> None:
    names = ('front', 'left')
    settings = settings_from(
        {'model.engine': 'cuda', 'model.precision': 'f32', 'cameras': list(names)}
    )
    pipeline = Pipeline(model, settings)
    before = script.captures
    models = {'front': VGA, 'left': CameraModel(640, 480, 600.0, 600.0, 319.5, 239.5)}
    depths: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in names}
    for _ in range(3):
        for name in names:
            image = replace(image_of(1), camera=name)
            frame = pipeline.process(image, camera.CameraView(models[name], None), settings)
            assert isinstance(frame, DepthFrame)
            depths[name].append(frame.depth_m.copy())
    assert script.captures == before + 2
    for name in names:
        assert all(np.array_equal(depths[name][0], d, equal_nan=True) for d in depths[name])
    known = np.isfinite(depths['front'][0]) & np.isfinite(depths['left'][0])
    ratio = depths['left'][0][known] / depths['front'][0][known]
    np.testing.assert_allclose(ratio, 1.2, rtol=1e-3)
    pipeline.close()


def test_memory_that_cannot_be_pinned_leaves_the_cloud_to_the_packer(
    model: ModelFolder, script: Script
) -> None:
    script.pinning_fails = True
    pipeline = Pipeline(model, settings_from({'model.engine': 'cuda', 'model.precision': 'f32'}))
    frame = pipeline.process(image_of(1), camera.CameraView(VGA, None), settings_from({}))
    assert isinstance(frame, DepthFrame) and frame.cloud is None
    assert np.isfinite(frame.depth_m).any()


def test_work_that_cannot_be_recorded_is_done_piece_by_piece_and_said(
    model: ModelFolder, script: Script
) -> None:
    script.fails_in_capture = RuntimeError('CUDA error: operation not permitted')
    engine = opened(model)
    assert 'without a CUDA graph: CUDA error: operation not permitted' in engine.notes[0]
    check_parity(engine, read_golden(model, model.card.inputs[0]), model.card.storage)
    assert script.replays == 0


OUT_OF_MEMORY = torch.cuda.OutOfMemoryError(
    'CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of ...'
)


def test_too_little_memory_at_load_is_told_in_mebibytes(
    model: ModelFolder, script: Script
) -> None:
    script.fails_in_capture = OUT_OF_MEMORY
    with pytest.raises(
        OutOfMemory,
        match=r'received 100 of 200 MiB of memory free in loading, with 30 MiB taken and '
        r'20\.00 MiB more needed, .* smaller model',
    ):
        opened(model)


def test_too_little_memory_in_a_frame_keeps_no_tensor_alive(
    model: ModelFolder, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(model)
    held: list[weakref.ref[torch.Tensor]] = []

    def run(self: Stream, graph: Any, enqueue: Callable[[], None]) -> tuple[int, int]:
        large = torch.zeros(1000)
        held.append(weakref.ref(large))
        raise torch.cuda.OutOfMemoryError(f'no memory for {large.shape}')

    monkeypatch.setattr(Stream, 'run', run)
    emptied = script.emptied
    try:
        engine.warm_up()
    except OutOfMemory as error:
        # what the worker sees while it still holds the error
        assert error.__context__ is None and error.__cause__ is None
        assert held[0]() is None
        assert 'an unknown amount more needed' in str(error)
    else:
        pytest.fail('no error')
    assert script.emptied == emptied + 1


def test_a_fault_that_stays_is_told_apart_from_one_that_goes(
    model: ModelFolder, script: Script
) -> None:
    engine = opened(model)
    script.fails_in_replay = RuntimeError('CUDA error: invalid argument')
    with pytest.raises(EngineError, match=r'failure in inference .*invalid argument') as caught:
        engine.warm_up()
    assert not isinstance(caught.value, DeviceLost)
    script.lost = True
    with pytest.raises(DeviceLost, match=r'illegal memory access.*started anew'):
        engine.warm_up()
    engine.close()


def test_a_frame_on_another_thread_than_the_one_that_loaded(
    model: ModelFolder, script: Script
) -> None:
    pipeline = Pipeline(model, settings_from({'model.engine': 'cuda', 'model.precision': 'f32'}))
    made: list[Any] = []

    def work() -> None:
        view = camera.CameraView(VGA, None)
        made.append(pipeline.process(image_of(1), view, settings_from({})))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert np.isfinite(made[0].depth_m).any()


def test_half_precision_is_near_the_golden_output(model: ModelFolder, script: Script) -> None:
    pytest.importorskip('depth_node.networks.half', reason='networks/half.py is not there yet')
    engine = opened(model, 'f16')
    assert engine.info.precision == 'f16'
    check_parity(engine, read_golden(model, model.card.inputs[0]), model.card.storage)
    assert engine.info.parity_error > 1e-5


# --- on a GPU ---------------------------------------------------------------------------------


@pytest.fixture
def gpu() -> None:
    if torch.version.cuda is None:
        pytest.skip('torch was built without CUDA')
    cuda_driver.cuda.cache_clear()
    cuda_driver.cuda()


@pytest.mark.gpu
@pytest.mark.parametrize('index', [0, 1])
@pytest.mark.parametrize('precision', ['f32', 'f16'])
def test_the_gpu_gives_what_the_trained_network_gives(
    gpu: None, model: ModelFolder, precision: str, index: int
) -> None:
    size = model.card.inputs[index]
    engine = CudaEngine(model, size, precision=precision, threads=0)
    assert engine.notes == () and isinstance(engine, WholeFrame)
    golden = read_golden(model, size)
    check_parity(engine, golden, model.card.storage)
    first = engine.infer(golden.image).copy()
    assert (engine.infer(np.zeros_like(golden.image)) != first).any()
    assert (engine.infer(golden.image) == first).all()
    engine.close()


@pytest.mark.gpu
@pytest.mark.parametrize('full_size', [True, False])
def test_a_frame_of_the_gpu_is_that_of_the_pipeline(
    gpu: None, model: ModelFolder, full_size: bool
) -> None:
    ours, theirs = pipelines(model)
    view, clouds = camera.CameraView(VGA, None), []
    settings = settings_from({'depth.full_size': full_size})
    for seed in (1, 2, 1):
        got = ours.process(image_of(seed), view, settings)
        wanted = theirs.process(image_of(seed), view, settings)
        assert isinstance(got, DepthFrame) and isinstance(wanted, DepthFrame)
        same = np.isfinite(got.depth_m) == np.isfinite(wanted.depth_m)
        assert same.mean() > 0.9999
        finite = np.isfinite(got.depth_m) & same
        np.testing.assert_allclose(got.depth_m[finite], wanted.depth_m[finite], rtol=1e-3)
        assert got.cloud is not None
        clouds.append(bytes(got.cloud.data))
    assert clouds[0] == clouds[2] != clouds[1]


@pytest.mark.gpu
def test_bytes_in_to_cloud_bytes_out_take_less_than_two_milliseconds(
    gpu: None, model: ModelFolder
) -> None:
    pytest.importorskip('depth_node.networks.half')
    settings = settings_from({'model.engine': 'cuda', 'model.precision': 'f16'})
    pipeline = Pipeline(model, settings)
    view, images = camera.CameraView(VGA, None), [image_of(1), image_of(2)]
    assert getattr(pipeline.process(images[0], view, settings), 'cloud', None) is not None
    spent_s = []
    for turn in range(300):
        start_s = time.perf_counter()
        frame = pipeline.process(images[turn % 2], view, settings)
        spent_s.append(time.perf_counter() - start_s)
    say(f'640x480 to xyzrgb: {1e3 * statistics.median(spent_s):.3f} ms, {frame.stage_ns}')
    assert statistics.median(spent_s[100:]) < 2e-3


@pytest.mark.gpu
def test_the_graph_in_half_precision_is_eight_times_as_fast_as_eager_float32(gpu: None) -> None:
    pytest.importorskip('depth_node.networks.half')
    network = registry.build('lite-mono', Identity('base')).eval()
    conformance.fill(network)
    stream = Stream(torch, exact=False)
    shape = (1, 3, 192, 640)
    plain = cuda_engine.served(network, *shape[2:], 'f16').to('cuda')
    memory = PinnedMemory(cuda_driver.cuda(), torch)
    alone = GpuInference(plain, shape, 'cuda', memory)
    graph, reason = stream.recorded(alone.enqueue)
    assert graph is not None, reason
    graph_ms = statistics.median(stream.run(graph, alone.enqueue)[0] / 1e6 for _ in range(300))
    trained = network.to('cuda')
    image = torch.rand(shape, device='cuda')
    eager_s = []
    with torch.inference_mode():
        for _ in range(100):
            torch.cuda.synchronize()
            start_s = time.perf_counter()
            trained(image)
            torch.cuda.synchronize()
            eager_s.append(time.perf_counter() - start_s)
    eager_ms = 1e3 * statistics.median(eager_s[20:])
    say(f'lite-mono base 640x192: eager f32 {eager_ms:.3f} ms, graph f16 {graph_ms:.3f} ms')
    assert eager_ms >= 8 * graph_ms
    assert graph_ms <= 0.4


@pytest.mark.gpu
def test_memory_of_the_gpu_comes_back(gpu: None, model: ModelFolder) -> None:
    opened(model).close()
    before, _ = cuda_driver.cuda().memory_bytes()
    for _ in range(5):
        opened(model).close()
    after, _ = cuda_driver.cuda().memory_bytes()
    assert before - after < 64 << 20


def say(text: str) -> None:
    """Show a figure whether or not output is captured."""
    print(text, file=sys.__stderr__)
