"""Every engine gives the output of the trained network, or is refused with the reason."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from tiny_model import opened
from tiny_model import trained
from tiny_model import two_sizes

from depth_node import model_folder
from depth_node.engines.openvino_engine import OpenVinoEngine
from depth_node.engines.parity import read_golden
from depth_node.engines.selection import ENGINES
from depth_node.engines.selection import ON_CPU
from depth_node.engines.selection import ORDER
from depth_node.engines.selection import open_engine
from depth_node.errors import DepthNodeError
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder
from depth_node.networks.depth_network import DepthNetwork
from depth_node.settings import parameters


@pytest.fixture(scope='module')
def network() -> DepthNetwork:
    return trained()


@pytest.fixture(scope='module')
def model() -> ModelFolder:
    return two_sizes()


def resealed(
    model: ModelFolder, out: Path, change: Callable[[Path], None], **changes: object
) -> ModelFolder:
    """Copy a model, change its files and write a card with matching hashes."""

    def fill(folder: Path) -> None:
        for name in model.card.files:
            (folder / name).write_bytes(model.file(name).read_bytes())
        change(folder)

    return model_folder.write(out, replace(model.card, **changes), fill)


def with_golden(model: ModelFolder, out: Path, **arrays: np.ndarray) -> ModelFolder:
    name = model.card.inputs[0].golden
    golden = safetensors.numpy.load_file(model.file(name))
    golden.update(arrays)
    return resealed(model, out, lambda folder: safetensors.numpy.save_file(golden, folder / name))


@pytest.mark.parametrize('name', ON_CPU)
def test_an_engine_gives_what_the_trained_network_gives(
    model: ModelFolder, network: DepthNetwork, name: str
) -> None:
    engine = opened(model, name)
    engine.warm_up()
    draw = np.random.default_rng(3)
    for _ in range(3):
        picture = draw.random((1, 3, 64, 96), dtype=np.float32)
        image = (picture - np.float32(0.45)) / np.float32(0.225)
        given = image.copy()
        with torch.inference_mode():
            wanted = network(torch.from_numpy(picture))[0][0, 0].numpy()
        output = engine.infer(image)
        assert output.shape == (64, 96) and output.dtype == np.float32
        assert np.abs(output - wanted).max() < 1e-4 * wanted.std()
        assert np.array_equal(image, given)
    assert engine.info.name == name
    assert engine.info.precision == 'f32'
    assert engine.info.input_shape == (1, 3, 64, 96)
    assert 0 < engine.info.parity_error < 1e-4
    engine.close()


def test_auto_takes_openvino_and_has_nothing_to_explain(model: ModelFolder) -> None:
    engine, notes = open_engine(
        model, model.card.inputs[0], engine='auto', precision='f32', threads=1
    )
    assert engine.info.name == 'openvino' and notes == ()


def test_auto_falls_through_and_says_why(
    model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = model.card.inputs[0]
    monkeypatch.setitem(sys.modules, 'openvino', None)
    engine, notes = open_engine(model, size, engine='auto', precision='f32', threads=1)
    assert engine.info.name == 'onnxruntime'
    assert len(notes) == 1 and 'pip install openvino' in notes[0]
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    engine, notes = open_engine(model, size, engine='auto', precision='f32', threads=1)
    assert engine.info.name == 'torch'
    assert len(notes) == 2 and 'pip install onnxruntime' in notes[1]
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(EngineError) as caught:
        open_engine(model, size, engine='auto', precision='f32', threads=1)
    assert all(f'pip install {name}' in str(caught.value) for name in ON_CPU)


@pytest.mark.parametrize('name', ON_CPU)
def test_a_named_engine_that_is_missing_is_not_replaced_by_another(
    model: ModelFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage, match=f'pip install {name}'):
        opened(model, name)


@pytest.mark.parametrize('name', ON_CPU)
def test_an_engine_that_disagrees_with_the_golden_output_is_refused(
    model: ModelFolder, tmp_path: Path, name: str
) -> None:
    output = read_golden(model, model.card.inputs[0]).output.copy()
    output[17, 23] += 0.01 * output.std()
    tampered = with_golden(model, tmp_path / 'tampered', output=output)
    with pytest.raises(EngineError, match='standard deviations'):
        opened(tampered, name)


def test_auto_does_not_serve_a_model_with_which_no_engine_agrees(
    model: ModelFolder, tmp_path: Path
) -> None:
    output = read_golden(model, model.card.inputs[0]).output * np.float32(1.01)
    tampered = with_golden(model, tmp_path / 'tampered', output=output)
    with pytest.raises(EngineError) as caught:
        opened(tampered)
    assert all(f'{name} is passed over' in str(caught.value) for name in ON_CPU)


def test_an_engine_that_gives_nan_is_refused(
    model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = np.full((64, 96), np.nan, np.float32)
    monkeypatch.setattr(OpenVinoEngine, 'infer', lambda self, image: nothing)
    with pytest.raises(EngineError, match='inf standard deviations'):
        opened(model, 'openvino')
    engine, notes = open_engine(
        model, model.card.inputs[0], engine='auto', precision='f32', threads=1
    )
    assert engine.info.name == 'onnxruntime' and len(notes) == 1


@pytest.mark.parametrize(
    'arrays',
    [
        {'output': np.full((64, 96), 0.5, np.float32)},
        {'output': np.zeros((64, 96), np.float32)},
        {'output': np.full((64, 96), np.nan, np.float32)},
        {'output': np.random.default_rng(0).random((96, 64), np.float32)},
        {'output': np.random.default_rng(0).random((64, 96))},
        {'image': np.zeros((64, 97, 3), np.uint8)},
        {'image': np.zeros((64, 96, 3), np.float32)},
        {'other': np.zeros(3, np.float32)},
    ],
)
def test_a_golden_file_that_proves_nothing_is_refused(
    model: ModelFolder, tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    with pytest.raises(ModelError):
        opened(with_golden(model, tmp_path / 'golden', **arrays))


@pytest.mark.parametrize('content', [b'x', b'\xff' * 64, b'\x10\0\0\0\0\0\0\0{"image": 3}    '])
def test_a_golden_file_that_is_no_safetensors_is_refused(
    model: ModelFolder, tmp_path: Path, content: bytes
) -> None:
    name = model.card.inputs[0].golden
    damaged = resealed(model, tmp_path / 'x', lambda f: (f / name).write_bytes(content))
    with pytest.raises(ModelError, match='no safetensors'):
        opened(damaged)


def test_openvino_computes_in_the_precision_that_was_asked_for(model: ModelFolder) -> None:
    openvino = pytest.importorskip('openvino')
    exact = opened(model, 'openvino').info
    assert exact.precision == 'f32' and exact.parity_error < 1e-4
    if 'BF16' in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        fast = opened(model, 'openvino', 'bf16').info
        assert fast.precision == 'bf16' and 1e-3 < fast.parity_error < 0.15
    else:
        with pytest.raises(EngineError, match='bfloat16'):
            opened(model, 'openvino', 'bf16')


def test_bf16_is_refused_where_the_processor_lacks_it(
    model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    class OlderCore:
        def get_property(self, device: str, name: str) -> list[str]:
            return ['FP32', 'INT8']

    monkeypatch.setattr(openvino, 'Core', OlderCore)
    with pytest.raises(EngineError, match='bfloat16'):
        opened(model, 'openvino', 'bf16')
    with pytest.raises(EngineError, match='bf16 and int8 need openvino'):
        opened(model, 'auto', 'bf16')


@pytest.mark.parametrize('name', ['onnxruntime', 'torch'])
def test_other_engines_refuse_bf16(model: ModelFolder, name: str) -> None:
    with pytest.raises(EngineError, match='bf16 and int8 need openvino'):
        opened(model, name, 'bf16')


@pytest.mark.parametrize(('engine', 'precision'), [('tensorflow', 'f32'), ('auto', 'int8')])
def test_unknown_engines_and_precisions_are_refused(
    model: ModelFolder, engine: str, precision: str
) -> None:
    with pytest.raises(EngineError, match='expected'):
        opened(model, engine, precision)


@pytest.mark.parametrize('name', ON_CPU)
def test_an_image_that_would_be_misread_is_refused(model: ModelFolder, name: str) -> None:
    engine = opened(model, name)
    shape = engine.info.input_shape
    for image in (
        np.zeros(shape, np.float64),
        np.zeros(shape, np.float32)[:, :, ::-1],
        np.zeros((1, 3, 64, 192), np.float32)[:, :, :, ::2],
        np.zeros((1, 3, 96, 64), np.float32),
        np.zeros(shape[1:], np.float32),
    ):
        with pytest.raises(EngineError, match='C-contiguous float32'):
            engine.infer(image)
    engine.warm_up()


@pytest.mark.parametrize('name', ON_CPU)
def test_a_closed_engine_refuses_and_closes_twice(model: ModelFolder, name: str) -> None:
    engine = opened(model, name)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match='closed'):
        engine.warm_up()


def signal_stack() -> tuple[int | None, int]:
    """Return where the handlers of signals run in this thread."""
    found = (ctypes.c_void_p * 3)()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found[0], found[2]


def test_no_engine_leaves_a_stack_for_signals_that_it_frees(model: ModelFolder) -> None:
    before = signal_stack()
    engines = [opened(model, 'openvino') for _ in range(2)]
    assert signal_stack() == before
    for engine in engines:
        engine.close()
    assert signal_stack() == before


@pytest.mark.parametrize(
    ('name', 'part', 'call'),
    [
        ('openvino', '_request', 'infer'),
        ('onnxruntime', '_session', 'run_with_iobinding'),
        ('torch', '_network', '__call__'),
    ],
)
def test_a_failure_of_the_library_becomes_an_engine_error(
    model: ModelFolder, name: str, part: str, call: str
) -> None:
    engine = opened(model, name)

    class Broken:
        def set_input_tensor(self, tensor: object) -> None:
            pass

        def fail(self, *arguments: object) -> None:
            raise RuntimeError('out of memory\nFAKE LOG LINE')

    setattr(Broken, call, Broken.fail)
    setattr(engine, part, Broken())
    with pytest.raises(EngineError, match=r'inference.*out of memory') as caught:
        engine.warm_up()
    assert '\n' not in str(caught.value)


def test_threads_are_limited_as_asked(model: ModelFolder) -> None:
    size = model.card.inputs[0]
    vino, _ = open_engine(model, size, engine='openvino', precision='f32', threads=1)
    compiled = vino._request.get_compiled_model()
    assert int(compiled.get_property('INFERENCE_NUM_THREADS')) == 1
    ort, _ = open_engine(model, size, engine='onnxruntime', precision='f32', threads=1)
    assert ort._session.get_session_options().intra_op_num_threads == 1
    open_engine(model, size, engine='torch', precision='f32', threads=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_serving_an_exported_model_imports_no_torch_and_no_second_engine(
    model: ModelFolder,
) -> None:
    program = f"""
import sys
from pathlib import Path
from depth_node import model_folder
from depth_node.engines.selection import open_engine
from depth_node.engines.torch_engine import TorchEngine
model = model_folder.read(Path({str(model.path)!r}))
engine, _ = open_engine(model, model.card.inputs[0], engine='auto', precision='f32', threads=1)
engine.warm_up()
print(engine.info.name, sorted({{'torch', 'onnxruntime', 'onnx'}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split('\n')[0] == 'openvino []'


def test_a_graph_of_another_size_than_the_card_says_is_refused(
    model: ModelFolder, tmp_path: Path
) -> None:
    first, second = model.card.inputs
    inputs = (replace(first, graph=second.graph), replace(second, graph=first.graph))
    swapped = resealed(model, tmp_path / 'swapped', lambda folder: None, inputs=inputs)
    for name in ('openvino', 'onnxruntime'):
        with pytest.raises(EngineError, match='a graph from'):
            opened(swapped, name)


@pytest.mark.parametrize('name', ['openvino', 'onnxruntime'])
def test_a_graph_that_is_none_is_refused(model: ModelFolder, tmp_path: Path, name: str) -> None:
    graph = model.card.inputs[0].graph
    whole = model.file(graph).read_bytes()
    for index, content in enumerate((whole[: len(whole) // 2], b'\x07nonsense', b'\x08')):
        bad = resealed(
            model, tmp_path / str(index), lambda f, c=content: (f / graph).write_bytes(c)
        )
        with pytest.raises(DepthNodeError):
            opened(bad, name)


def test_weights_of_another_variant_are_refused(model: ModelFolder, tmp_path: Path) -> None:
    other = resealed(model, tmp_path / 'other', lambda folder: None, variant='small')
    with pytest.raises(ModelError, match='of another shape'):
        opened(other, 'torch')


def test_weights_that_are_no_safetensors_are_refused(model: ModelFolder, tmp_path: Path) -> None:
    other = resealed(
        model, tmp_path / 'other', lambda folder: (folder / WEIGHTS_NAME).write_bytes(b'\xff' * 99)
    )
    with pytest.raises(ModelError, match='no safetensors'):
        opened(other, 'torch')


def test_a_size_of_the_wrong_kind_of_card_has_no_files(model: ModelFolder) -> None:
    alien = InputSpec(64, 96, 'alien.onnx', 'alien.safetensors')
    with pytest.raises(ModelError, match='alien'):
        open_engine(model, alien, engine='auto', precision='f32', threads=1)


def test_openvino_reports_nothing_over_the_network() -> None:
    code = (
        'import sys\n'
        'from depth_node.engines.openvino_engine import _library\n'
        '_library()\n'
        "found = [name for name in sys.modules if name.startswith('openvino_telemetry.')]\n"
        "sys.exit(str(found) if found or sys.modules['openvino_telemetry'] else 0)\n"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_engine_can_be_named_and_lies_in_a_file_of_its_own() -> None:
    choices = next(known.choices for known in parameters() if known.name == 'model.engine')
    assert choices == ('auto', *ORDER)
    assert set(ENGINES) == set(ORDER) and len(set(ENGINES.values())) == len(ORDER)
