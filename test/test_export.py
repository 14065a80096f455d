from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from depth_node.errors import ModelError
from depth_node.networks import conformance
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


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """Small layers spend more time waiting for each other's threads than computing."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def test_two_sizes_share_one_weights_file(tmp_path, trained):
    sizes = ((96, 160), (64, 96))
    plain = {size: linearized(trained, *size) for size in sizes}
    paths = {size: tmp_path / f'graph_{size[0]}.onnx' for size in sizes}
    weights = tmp_path / WEIGHTS
    files = export_onnx(plain[sizes[0]], *sizes[0], paths[sizes[0]], weights_file=WEIGHTS)
    assert files == (paths[sizes[0]], weights)
    before = weights.read_bytes()
    export_onnx(plain[sizes[1]], *sizes[1], paths[sizes[1]], weights_file=WEIGHTS)
    assert weights.read_bytes() == before
    for size, path in paths.items():
        onnx.checker.check_model(str(path), full_check=True)
        assert path.stat().st_size < 0.05 * len(before)
        assert worst(plain[size], path, *size) < 2e-6


def test_half_storage_halves_the_files_and_keeps_float32_arithmetic(tmp_path, trained):
    plain = linearized(trained, 96, 160)
    wide, half = tmp_path / 'f32.onnx', tmp_path / 'f16.onnx'
    export_onnx(plain, 96, 160, wide)
    export_onnx(plain, 96, 160, half, storage='f16', weights_file=WEIGHTS)
    stored = half.stat().st_size + (tmp_path / WEIGHTS).stat().st_size
    assert stored < 0.54 * wide.stat().st_size
    # half the last bit of float16 in every weight, through all layers
    assert 1e-6 < worst(plain, half, 96, 160) < 1e-3
    rounded = onnx.load(half)
    assert {
        v.type.tensor_type.elem_type for v in (*rounded.graph.input, *rounded.graph.output)
    } == {onnx.TensorProto.FLOAT}


def test_weights_file_is_safetensors_with_the_names_of_the_parameters(tmp_path):
    from safetensors.numpy import load_file

    module = Small()
    export_onnx(module, 32, 64, tmp_path / 'a.onnx', weights_file=WEIGHTS)
    stored = load_file(tmp_path / WEIGHTS)
    assert set(stored) == {name for name, _ in module.named_parameters()}
    assert np.array_equal(stored['conv.weight'], module.conv.weight.detach().numpy())


def test_buffers_may_depend_on_the_size_and_stay_in_the_graph(tmp_path):
    small, large = Small(32, 64), Small(64, 64)
    export_onnx(small, 32, 64, tmp_path / 'small.onnx', weights_file=WEIGHTS)
    export_onnx(large, 64, 64, tmp_path / 'large.onnx', weights_file=WEIGHTS)
    assert worst(small, tmp_path / 'small.onnx', 32, 64) < 2e-6
    assert worst(large, tmp_path / 'large.onnx', 64, 64) < 2e-6


@pytest.mark.parametrize('storage', ['f32', 'f16'])
def test_weights_file_of_another_network_is_refused_and_left_alone(tmp_path, storage):
    weights = tmp_path / WEIGHTS
    export_onnx(Small(), 32, 64, tmp_path / 'a.onnx', weights_file=WEIGHTS)
    before = weights.read_bytes()
    other = Small(gain=1.5) if storage == 'f32' else Small()
    with pytest.raises(ModelError, match=r'conv\.weight'):
        export_onnx(other, 32, 64, tmp_path / 'b.onnx', weights_file=WEIGHTS, storage=storage)
    assert weights.read_bytes() == before
    assert not (tmp_path / 'b.onnx').exists()


@pytest.mark.parametrize(
    'content',
    [b'x', b'\xff' * 64, (5).to_bytes(8, 'little') + b'{"a":'],
    ids=['short', 'giant header', 'cut header'],
)
def test_damaged_weights_file_is_refused(tmp_path, content):
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match='safetensors'):
        export_onnx(Small(), 32, 64, tmp_path / 'a.onnx', weights_file=WEIGHTS)


def test_weight_beyond_float16_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ModelError, match=r'conv\.weight'):
        export_onnx(Small(gain=1e6), 32, 64, tmp_path / 'a.onnx', storage='f16')
    assert list(tmp_path.iterdir()) == []


def test_module_with_several_outputs_or_another_shape_is_refused(tmp_path):
    path = tmp_path / 'a.onnx'
    with pytest.raises(ModelError, match='one output'):
        export_onnx(TwoOutputs(), 32, 64, path)
    with pytest.raises(ModelError, match='shapes'):
        export_onnx(nn.Conv2d(3, 2, 1).eval(), 64, 96, path)
    assert not path.exists()


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        ({'height': 0}, 'sides'),
        ({'width': 1 << 20}, 'sides'),
        ({'storage': 'int8'}, 'storage'),
        ({'opset': 17}, 'opset'),
        ({'weights_file': '../weights'}, 'without a folder'),
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
