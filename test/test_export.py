from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file
from torch import nn

from depth_node.engines.graph_files import external_files
from depth_node.errors import ModelError
from depth_node.networks import conformance
from depth_node.networks import export
from depth_node.networks import registry
from depth_node.networks.export import export_onnx
from depth_node.networks.rewrites import linearized
from depth_node.networks.specification import Identity

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
ort = pytest.importorskip('onnxruntime')
ov = pytest.importorskip('openvino')

EXACT = {'INFERENCE_PRECISION_HINT': 'f32', 'PERFORMANCE_HINT': 'LATENCY'}
WEIGHTS = 'graphs.safetensors'


class Small(nn.Module):
    """A network of one convolution, quick to export."""

    def __init__(self, height=32, width=64, gain=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 64, 3, padding=1)
        self.head = nn.Conv2d(64, 1, 1)
        self.register_buffer('ramp', torch.rand(1, 1, height, width))
        with torch.no_grad():
            self.conv.weight *= gain
        self.eval()

    def forward(self, image):
        return self.head(torch.relu(self.conv(image))) + self.ramp


class Linear(nn.Module):
    """Two matrices, which exporters like to transpose."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(64, 96)
        self.second = nn.Linear(96, 64)
        self.eval()

    def forward(self, image):
        return image.mean(1, keepdim=True) + self.second(torch.relu(self.first(image)))[:, :1]


class Bessel(Small):
    def forward(self, image):
        return torch.special.bessel_j0(super().forward(image))


class TwoOutputs(Small):
    def forward(self, image):
        return super().forward(image), image


@pytest.fixture(scope='module')
def trained():
    network = registry.build('lite-mono', Identity('tiny')).eval()
    conformance.fill(network)
    return network


@pytest.fixture(scope='module')
def usual(trained, tmp_path_factory):
    """The graph at the usual size, with the module that it was made from."""
    plain = linearized(trained, 192, 640)
    path = tmp_path_factory.mktemp('usual') / 'graph.onnx'
    return plain, path, export_onnx(plain, 192, 640, path)


@pytest.fixture(scope='module')
def small(trained, tmp_path_factory):
    """The module at 96x160, its graph and the weights beside it."""
    plain = linearized(trained, 96, 160)
    folder = tmp_path_factory.mktemp('small')
    return plain, export_onnx(plain, 96, 160, folder / 'a.onnx', weights_file='a.safetensors')


def in_onnxruntime(path, image):
    session = ort.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return session.run(['output'], {'image': image})[0]


def in_openvino(path, image):
    return ov.Core().compile_model(str(path), 'CPU', EXACT)({'image': image})['output']


def worst(module, path, height, width):
    image = np.random.default_rng(0).standard_normal((1, 3, height, width)).astype(np.float32)
    with torch.no_grad():
        expected = module.double()(torch.from_numpy(image).double()).numpy()
    module.float()
    given = [run(path, image) for run in (in_onnxruntime, in_openvino)]
    assert all(output.shape == (1, 1, height, width) for output in given)
    return max(float(np.abs(output - expected).max()) for output in given)


def test_engines_agree_with_float64_at_the_usual_size(usual):
    plain, path, written = usual
    assert written == (path,)
    assert list(path.parent.iterdir()) == [path]
    onnx.checker.check_model(str(path), full_check=True)
    assert worst(plain, path, 192, 640) < 2e-6


def test_gelu_and_layer_norm_are_single_operators(usual):
    kinds = [node.op_type for node in onnx.load(usual[1]).graph.node]
    assert kinds.count('LayerNormalization') == 6
    assert kinds.count('Gelu') == 18
    assert not {'Erf', 'BatchNormalization', 'Sin', 'Shape', 'Identity'} & set(kinds)


def test_older_operator_set_gives_the_same(tmp_path, trained):
    plain, path = linearized(trained, 64, 96), tmp_path / 'graph.onnx'
    export_onnx(plain, 64, 96, path, opset=18)
    assert onnx.load(path).opset_import[0].version == 18
    assert worst(plain, path, 64, 96) < 2e-6


def test_a_second_size_adds_only_what_depends_on_the_size(tmp_path, trained, small):
    first, second = small[0], linearized(trained, 64, 96)
    files = tuple(Path(shutil.copy(path, tmp_path)) for path in small[1])
    assert files == (tmp_path / 'a.onnx', tmp_path / 'a.safetensors')
    before = files[1].read_bytes()
    graph, own = export_onnx(
        second,
        64,
        96,
        tmp_path / 'b.onnx',
        weights_file='b.safetensors',
        stored_in=('a.safetensors',),
    )
    assert files[1].read_bytes() == before
    assert own.stat().st_size < 0.05 * len(before)
    assert max(path.stat().st_size for path in (files[0], graph)) < 0.05 * len(before)
    for module, path, *size in ((first, files[0], 96, 160), (second, graph, 64, 96)):
        onnx.checker.check_model(str(path), full_check=True)
        assert worst(module, path, *size) < 2e-6


def test_weights_that_lie_in_a_file_already_are_not_written_again(tmp_path):
    module = Linear()
    save_file(dict(module.state_dict()), tmp_path / WEIGHTS)
    for storage in ('f32', 'f16'):
        path = tmp_path / f'{storage}.onnx'
        written = export_onnx(
            module,
            32,
            64,
            path,
            weights_file=f'{storage}.safetensors',
            stored_in=(WEIGHTS,),
            storage=storage,
        )
        assert external_files(path) == {WEIGHTS if storage == 'f32' else 'f16.safetensors'}
        assert len(written) == (1 if storage == 'f32' else 2)
        assert worst(module, path, 32, 64) < (2e-6 if storage == 'f32' else 1e-3)


def test_a_tensor_is_found_only_where_every_byte_is_the_same(tmp_path):
    module = Linear()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    state['first.weight'][-1, -1] += 1.0
    save_file(state, tmp_path / WEIGHTS)
    path = tmp_path / 'a.onnx'
    export_onnx(module, 32, 64, path, weights_file='own.safetensors', stored_in=(WEIGHTS,))
    assert external_files(path) == {WEIGHTS, 'own.safetensors'}
    assert set(load_file(tmp_path / 'own.safetensors')) == {'first.weight'}
    assert worst(module, path, 32, 64) < 2e-6


def test_half_storage_halves_the_files_and_keeps_float32_arithmetic(tmp_path, small):
    (plain, files), half = small, tmp_path / 'f16.onnx'
    export_onnx(plain, 96, 160, half, storage='f16', weights_file=WEIGHTS)
    stored = half.stat().st_size + (tmp_path / WEIGHTS).stat().st_size
    assert stored < 0.54 * sum(path.stat().st_size for path in files)
    # half the last bit of float16 in every weight, through all layers
    assert 1e-6 < worst(plain, half, 96, 160) < 1e-3
    rounded = onnx.load(half)
    assert {
        v.type.tensor_type.elem_type for v in (*rounded.graph.input, *rounded.graph.output)
    } == {onnx.TensorProto.FLOAT}


def test_weights_file_is_safetensors_with_the_names_of_the_tensors(tmp_path):
    module = Small()
    export_onnx(module, 32, 64, tmp_path / 'a.onnx', weights_file=WEIGHTS)
    stored = load_file(tmp_path / WEIGHTS)
    # the others are smaller than a kilobyte
    assert set(stored) == {'conv.weight', 'ramp'}
    assert torch.equal(stored['conv.weight'], module.conv.weight)


def test_a_weights_file_that_is_there_is_refused_and_left_alone(tmp_path):
    weights = tmp_path / WEIGHTS
    export_onnx(Small(), 32, 64, tmp_path / 'a.onnx', weights_file=WEIGHTS)
    before = weights.read_bytes()
    with pytest.raises(ModelError, match='there already'):
        export_onnx(Small(gain=1.5), 32, 64, tmp_path / 'b.onnx', weights_file=WEIGHTS)
    assert weights.read_bytes() == before
    assert not (tmp_path / 'b.onnx').exists()


def test_more_weights_than_a_graph_can_hold_need_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(export, '_LARGEST_EMBEDDED_BYTES', 5000)
    with pytest.raises(ModelError, match='weights_file'):
        export_onnx(Small(), 32, 64, tmp_path / 'a.onnx')
    assert list(tmp_path.iterdir()) == []
    export_onnx(Small(), 32, 64, tmp_path / 'a.onnx', weights_file=WEIGHTS)


def test_an_operator_that_onnx_lacks_is_named_and_nothing_is_written(tmp_path):
    with pytest.raises(ModelError, match=r'failure.*bessel_j0') as caught:
        export_onnx(Bessel(), 32, 64, tmp_path / 'a.onnx', weights_file=WEIGHTS)
    assert '\n' not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_the_module_itself_refuses_stays_its_own_error(tmp_path, trained):
    class Refusing(Small):
        def forward(self, image):
            raise ModelError('standin', 'this', 'that')

    with pytest.raises(ModelError, match=r'^standin: received this'):
        export_onnx(Refusing(), 32, 64, tmp_path / 'a.onnx')


@pytest.mark.parametrize(
    'content',
    [
        b'x',
        b'\xff' * 64,
        (5).to_bytes(8, 'little') + b'{"a":',
        (2).to_bytes(8, 'little') + b'[]',
        (28).to_bytes(8, 'little') + b'{"a":{"data_offsets":[0,9]}}',
        (29).to_bytes(8, 'little') + b'{"a":{"data_offsets":[-4,0]}}',
    ],
    ids=['short', 'giant header', 'cut header', 'list', 'beyond the end', 'before the start'],
)
def test_damaged_weights_file_is_refused(tmp_path, content):
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match='safetensors'):
        export_onnx(
            Small(),
            32,
            64,
            tmp_path / 'a.onnx',
            weights_file='own.safetensors',
            stored_in=(WEIGHTS,),
        )
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]


def test_weight_beyond_float16_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ModelError, match=r'conv\.weight'):
        export_onnx(Small(gain=1e6), 32, 64, tmp_path / 'a.onnx', storage='f16')
    assert list(tmp_path.iterdir()) == []


def test_module_with_several_outputs_or_another_shape_is_refused(tmp_path):
    path = tmp_path / 'a.onnx'
    with pytest.raises(ModelError, match='one output'):
        export_onnx(TwoOutputs(), 32, 64, path, weights_file=WEIGHTS)
    with pytest.raises(ModelError, match='shapes'):
        export_onnx(nn.Conv2d(3, 2, 1).eval(), 64, 96, path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        ({'height': 0}, 'sides'),
        ({'width': 1 << 20}, 'sides'),
        ({'storage': 'int8'}, 'storage'),
        ({'opset': 17}, 'opset'),
        ({'weights_file': '../weights'}, 'without a folder'),
        ({'weights_file': 'w', 'stored_in': ['/etc/passwd']}, 'without a folder'),
        ({'module': Small().train()}, 'evaluation mode'),
        ({'module': Small().double()}, 'float32'),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, change, word):
    arguments = {'module': Small(), 'height': 32, 'width': 64, 'path': tmp_path / 'a', **change}
    with pytest.raises(ModelError, match=word):
        export_onnx(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_export_is_quiet_repeatable_and_names_no_files(tmp_path):
    program = (
        'import sys, torch; from pathlib import Path\n'
        'from depth_node.networks.export import export_onnx\n'
        'net = torch.nn.Conv2d(3, 1, 3, padding=1).eval()\n'
        f"for name in 'ab': export_onnx(net, 32, 32, Path({str(tmp_path)!r}) / name)\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=root, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    content = (tmp_path / 'a').read_bytes()
    assert content == (tmp_path / 'b').read_bytes()
    assert b'.py' not in content
    assert str(root).encode() not in content
