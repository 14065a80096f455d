"""Plans are built without a GPU, kept and found again; what a machine lacks is named.

TensorRT-RTX parses and builds without a GPU; where it is missing, those tests are skipped.
"""

from __future__ import annotations

import logging
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tensorrt_model
from standin_tensorrt import fake_tensorrt
from tensorrt_model import opened

from depth_node.engines import cuda_driver
from depth_node.engines import tensorrt_build
from depth_node.engines.cuda_driver import CudaError
from depth_node.engines.tensorrt_engine import build_only
from depth_node.engines.tensorrt_engine import targets
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.model_folder import ModelFolder

own_cache = tensorrt_model.own_cache
model = tensorrt_model.model
in_half = tensorrt_model.in_half


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


# --- what is missing --------------------------------------------------------------------------


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
