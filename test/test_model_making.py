"""A model is made only of what gives the output of its network; the card tells what was found."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.numpy
import torch
from exported_before import leave_out_float16
from exported_before import reuse_graphs
from tiny_model import SIZES
from tiny_model import SPEC
from tiny_model import TRAITS
from tiny_model import card
from tiny_model import opened
from tiny_model import trained
from tiny_model import two_sizes

from depth_node.engines.graph_files import checked_graph
from depth_node.engines.graph_files import external_files
from depth_node.engines.onnxruntime_engine import OnnxRuntimeEngine
from depth_node.engines.openvino_engine import OpenVinoEngine
from depth_node.engines.parity import Disagreement
from depth_node.engines.parity import read_golden
from depth_node.engines.selection import ON_CPU
from depth_node.engines.selection import open_engine
from depth_node.engines.torch_engine import TorchEngine
from depth_node.errors import EngineError
from depth_node.errors import ModelError
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import ModelFolder
from depth_node.networks import make_model as maker
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.half_graph import half_graph
from depth_node.networks.make_model import make_model


@pytest.fixture(scope='module')
def network() -> DepthNetwork:
    return trained()


@pytest.fixture(scope='module')
def model() -> ModelFolder:
    return two_sizes()


@pytest.fixture(scope='module')
def in_training() -> DepthNetwork:
    return trained().train()


@pytest.fixture(scope='module')
def half(in_training: DepthNetwork, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    out = tmp_path_factory.mktemp('models') / 'half'
    return make_model(in_training, card('half'), out, SIZES[:1], storage='f16')


@pytest.fixture
def exported(model: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make models of ``network`` from the graphs that ``model`` has."""
    reuse_graphs(monkeypatch, model)


def test_the_card_tells_the_measured_parity_of_every_engine_and_size(model: ModelFolder) -> None:
    parity = model.card.metrics['parity']
    assert set(parity) == {'96x64', '64x96'}
    for errors in parity.values():
        assert {f'{name} f32' for name in ON_CPU} <= set(errors)
        assert all(errors[f'{name} f32'] < 1e-4 for name in ON_CPU)


def test_sizes_share_their_weights(model: ModelFolder) -> None:
    first, second = (external_files(model.file(size.graph)) for size in model.card.inputs)
    assert first < second < set(model.card.files)
    assert WEIGHTS_NAME in first
    shared, own = (
        sum(model.card.files[name].size_bytes for name in names)
        for names in (first - {WEIGHTS_NAME}, second - first)
    )
    assert own < 0.05 * shared
    for size in model.card.inputs:
        for name in ON_CPU:
            engine, _ = open_engine(model, size, engine=name, precision='f32', threads=1)
            assert engine.info.input_shape[2:] == (size.height, size.width)


def test_half_precision_storage_halves_the_files_and_keeps_the_output(
    half: ModelFolder, model: ModelFolder
) -> None:
    stored = safetensors.numpy.load_file(half.file(WEIGHTS_NAME))
    kinds = {array.dtype.name for array in stored.values()}
    assert kinds == {'float16', 'int64'}
    assert half.card.storage == 'f16'
    ratio = half.card.files[WEIGHTS_NAME].size_bytes / model.card.files[WEIGHTS_NAME].size_bytes
    assert ratio < 0.55
    name = f'{Path(half.card.inputs[0].graph).stem}.safetensors'
    assert half.card.files[name].size_bytes < 0.55 * model.card.files[name].size_bytes
    for name in ON_CPU:
        engine = opened(half, name)
        assert engine.info.precision == 'f32' and engine.info.parity_error < 1e-2
    # The golden output is that of the stored weights: only the graphs are rounded once more.
    assert opened(half, 'torch').info.parity_error < 1e-4


@pytest.mark.parametrize('storage', ['f32', 'f16'])
def test_the_float16_graph_needs_hardly_any_bytes_of_its_own(
    model: ModelFolder, half: ModelFolder, storage: str
) -> None:
    made = half if storage == 'f16' else model
    files = made.card.files
    for size in made.card.inputs:
        assert size.graph_f16 is not None
        shared = external_files(checked_graph(made, size, 'f16'))
        assert WEIGHTS_NAME in shared
        own = {name for name in shared if 'f16' in name}
        total = files[WEIGHTS_NAME].size_bytes
        assert sum(files[name].size_bytes for name in own) < 0.1 * total
        assert files[size.graph_f16].size_bytes < 100_000


def test_the_float16_graph_is_run_when_a_model_is_made(model: ModelFolder) -> None:
    for found in model.card.metrics['parity'].values():
        assert 1e-4 < found['float16 arithmetic'] < 3e-2
        assert 1e-4 < found['float16 graph'] < 3e-2


@pytest.mark.parametrize(
    ('gain', 'reason'),
    [(1e8, 'received 7.6.*attention.qkv.*up to 65504'), (3e4, 'off by inf standard')],
)
def test_a_network_beyond_float16_has_no_float16_graph_but_a_reason(
    tmp_path: Path, model: ModelFolder, gain: float, reason: str
) -> None:
    network = trained()
    attention = network.encoder.stages[0][-1].xca
    with torch.no_grad():  # the same function, with values that are larger by a factor
        values = slice(2 * attention.proj.in_features, None)
        attention.qkv.weight[values] *= gain
        attention.qkv.bias[values] *= gain
        attention.proj.weight /= gain
    size = model.card.inputs[0]
    found = half_graph(network, size, tmp_path, read_golden(model, size), [], 'f32')
    assert found.name is None and found.weights == ()
    assert re.search(reason, str(found.error))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures('exported')
def test_the_card_of_a_model_without_a_float16_graph_says_why(
    network: DepthNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_float16(monkeypatch)
    made = make_model(network, card('m'), tmp_path / 'm', SIZES[:1])
    assert made.card.inputs[0].graph_f16 is None
    assert not [name for name in made.card.files if 'f16' in name]
    found = made.card.metrics['parity']['96x64']
    assert found['float16 arithmetic'] == 'not tried'
    assert 'float16 graph' not in found


def test_weights_beyond_the_range_of_f16_are_refused(tmp_path: Path) -> None:
    network = trained()
    with torch.no_grad():
        next(network.parameters())[0] = 1e5
    with pytest.raises(ModelError, match='not finite as f16'):
        make_model(network, card('m'), tmp_path / 'm', SIZES[:1], storage='f16')
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_is_not_the_network_never_becomes_a_model(
    half: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = trained()
    with torch.no_grad():
        network.encoder.stages[1][0].gamma[3] *= 1.5
    reuse_graphs(monkeypatch, half)
    with pytest.raises(EngineError, match='standard deviations'):
        make_model(network, card('m'), tmp_path / 'm', SIZES[:1], storage='f16')
    assert list(tmp_path.iterdir()) == []


def failing(monkeypatch: pytest.MonkeyPatch, *classes: type) -> None:
    def fail(self: object, folder: ModelFolder, *rest: object, **choices: object) -> None:
        raise EngineError('engine', f'no kernel for {folder.path}/graph.onnx', 'one')

    for broken in classes:
        monkeypatch.setattr(broken, '__init__', fail)


@pytest.mark.usefixtures('exported')
def test_an_engine_that_cannot_load_a_model_is_recorded_with_the_reason(
    network: DepthNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, OpenVinoEngine)
    made = make_model(network, card('m'), tmp_path / 'm', SIZES[:1])
    parity = made.card.metrics['parity']['96x64']
    assert parity['openvino f32'] == 'engine: received no kernel for graph.onnx, expected one.'
    assert parity['openvino bf16'] is None
    assert parity['onnxruntime f32'] < 1e-4 and parity['torch f32'] < 1e-4
    engine, notes = open_engine(
        made, made.card.inputs[0], engine='auto', precision='f32', threads=1
    )
    assert engine.info.name == 'onnxruntime' and 'no kernel' in notes[0]


@pytest.mark.usefixtures('exported')
def test_torch_alone_may_serve_a_model_but_one_engine_must(
    network: DepthNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, OpenVinoEngine, OnnxRuntimeEngine)
    parity = make_model(network, card('m'), tmp_path / 'm', SIZES[:1]).card.metrics['parity']
    kinds = {name: type(error) for name, error in parity['96x64'].items()}
    assert kinds['openvino f32'] is kinds['onnxruntime f32'] is str
    assert kinds['torch f32'] is float
    failing(monkeypatch, TorchEngine)
    with pytest.raises(EngineError, match='no engine that works'):
        make_model(network, card('n'), tmp_path / 'n', SIZES[:1])
    assert [path.name for path in tmp_path.iterdir()] == ['m']


@pytest.mark.usefixtures('exported')
@pytest.mark.parametrize('broken', [OpenVinoEngine, OnnxRuntimeEngine, TorchEngine])
def test_one_engine_that_disagrees_is_enough_to_refuse_a_model(
    network: DepthNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: type
) -> None:
    infer = broken.infer
    monkeypatch.setattr(broken, 'infer', lambda self, image: infer(self, image) * 1.01)
    with pytest.raises(Disagreement, match='standard deviations'):
        make_model(network, card('m'), tmp_path / 'm', SIZES[:1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures('exported')
def test_rounding_may_carry_one_engine_off_in_a_deep_network_but_not_every_graph(
    network: DepthNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = replace(SPEC, variants={'tiny': replace(TRAITS, tolerance=1e-3)})
    monkeypatch.setattr(maker.registry, 'spec', lambda name: deep)
    for count, broken in enumerate((OpenVinoEngine, OnnxRuntimeEngine)):
        infer = broken.infer
        monkeypatch.setattr(broken, 'infer', lambda s, image, infer=infer: infer(s, image) * 1.01)
        if count == 0:
            made = make_model(network, card('m'), tmp_path / 'm', SIZES[:1])
            parity = made.card.metrics['parity']['96x64']
            assert 'standard deviations' in parity['openvino f32']
            assert parity['onnxruntime f32'] < 1e-4
    with pytest.raises(Disagreement):
        make_model(network, card('n'), tmp_path / 'n', SIZES[:1])
    assert [path.name for path in tmp_path.iterdir()] == ['m']


@pytest.mark.usefixtures('half')
def test_making_a_model_leaves_the_network_as_it_was(in_training: DepthNetwork) -> None:
    before = trained().state_dict()
    assert all(module.training for module in in_training.modules())
    assert all(value.requires_grad for value in in_training.parameters())
    after = in_training.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in after.items())


def test_a_card_with_another_normalisation_than_the_graph_leaves_out_is_refused(
    network: DepthNetwork, tmp_path: Path
) -> None:
    wrong = replace(card('m'), mean=(0.0, 0.0, 0.0))
    with pytest.raises(ModelError, match='mean'):
        make_model(network, wrong, tmp_path / 'm', SIZES[:1])
