from __future__ import annotations

import network_vectors
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from depth_node.errors import ModelError
from depth_node.networks import conformance
from depth_node.networks import registry
from depth_node.networks.export import export_onnx
from depth_node.networks.half import Affine
from depth_node.networks.half import InFloat32
from depth_node.networks.half import halved
from depth_node.networks.rewrites import CPU_GRAPH
from depth_node.networks.rewrites import GPU
from depth_node.networks.rewrites import linearized
from depth_node.networks.specification import Identity

# network -> largest error in standard deviations of its output: twice what was measured
ERRORS = {
    'litemono-tiny_640x192': 0.03,
    'litemono-small_640x192': 0.015,
    'monodepth2_depth_resnet18': 0.015,
    'diffnet': 0.02,
    'sqldepth_resnet50_640x192': 0.06,
    'midas_v21_small_256': 0.02,
    'dpt_levit_224': 0.05,
    'ecodepth_v1_miniature': 0.1,
    'ecodepth_v2_miniature': 0.1,
}
SLOW = {
    'dpt_swin2_tiny_256': 0.05,
    'sqldepth_effb5_1024x320': 0.06,
    'dpt_beit_base_384': 0.06,
    'midas_v21_384': 0.05,
    'dpt_swin_large_384': 0.1,
}


def worst(given, expected):
    return float((given - expected).abs().max() / expected.std())


@pytest.mark.parametrize(
    'name', [*ERRORS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
@torch.no_grad()
def test_error_of_float16_is_that_of_rounding(name):
    network = network_vectors.case_of(name).network
    conformance.fill(network, conformance.PooledNumbers)
    height, width = network_vectors.CASES[name]
    image = network.normalized(torch.from_numpy(conformance.image([0], height, width)))
    plain = linearized(network, height, width, GPU)
    given = halved(plain)(image)
    expected = plain.double()(image.double())
    assert given.dtype == torch.float32
    # with less than 1e-4 it would not have been float16
    assert 1e-4 < worst(given, expected) < {**ERRORS, **SLOW}[name]


def lite_mono(variant='tiny'):
    network = registry.build('lite-mono', Identity(variant)).eval()
    conformance.fill(network)
    return network


@pytest.mark.parametrize('choices', [GPU, CPU_GRAPH])
@torch.no_grad()
def test_attention_between_channels_survives_large_queries_and_keys(choices):
    """A cosine does not see how long they are; their squares and products leave float16."""
    network, image = lite_mono(), torch.randn(1, 3, 64, 96)
    for stage in network.encoder.stages:
        attention = stage[-1].xca
        rows = 2 * attention.qkv.out_features // 3
        attention.qkv.weight[:rows] *= 100
        attention.qkv.bias[:rows] *= 100
    plain = linearized(network, 64, 96, choices)
    expected, given = plain(image), halved(plain)(image)
    assert worst(given, expected) < 0.03
    if choices == GPU:
        assert not torch.isfinite(plain.half()(image.half())).all()


class Lengths(nn.Module):
    def forward(self, x):
        length = x.norm(dim=1, keepdim=True)
        return length / 100 + F.normalize(x, dim=1).mean(dim=1, keepdim=True)


@torch.no_grad()
def test_cosines_of_long_vectors_stay_finite():
    module, x = Lengths(), 6000 + 1000 * torch.rand(1, 64, 24, 32)
    expected, given = module(x), halved(module)(x)
    assert (given - expected).abs().max() < 2e-3 * expected.abs().max()
    x = torch.cat((x, 3 * x), dim=1)  # their length is beyond 65504, and their cosines are not
    cosines = F.normalize(x, dim=1).mean()
    assert not F.normalize(x.half(), dim=1).float().mean().isclose(cosines, rtol=0.1)
    assert halved(Cosines())(x).mean().isclose(cosines, rtol=2e-3)


class Cosines(nn.Module):
    def forward(self, x):
        return F.normalize(x, dim=1)


class Normalizing(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.LayerNorm(64)
        self.groups = nn.GroupNorm(4, 64)

    def forward(self, x):
        pixels = x.mean(dim=(2, 3), keepdim=True)
        tokens = self.tokens((x - pixels).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        shares = torch.softmax(self.groups(x) + tokens, dim=1)
        query = shares.flatten(2).transpose(1, 2)[:, None]
        mixed = F.scaled_dot_product_attention(query, query, query, query @ query.mT, scale=1.0)
        return mixed[:, 0].mT.reshape(x.shape)[:, :1]


NARROW = {'LayerNormalization', 'InstanceNormalization', 'GroupNormalization', 'Softmax',
          'ReduceMean', 'ReduceSum', 'ReduceL2'}  # fmt: skip


def types_of(path):
    """Return the types in which the operators of a graph compute, by name of the operator."""
    onnx = pytest.importorskip('onnx')
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    known = {
        value.name: value.type.tensor_type.elem_type
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    known.update({value.name: value.data_type for value in model.graph.initializer})
    found = {}
    for node in model.graph.node:
        kind = onnx.TensorProto.DataType.Name(known[node.input[0]])
        found.setdefault(node.op_type, set()).add(kind)
    return found


def test_a_graph_names_float32_where_float16_is_not_enough(tmp_path):
    path = tmp_path / 'graph.onnx'
    export_onnx(halved(linearized(lite_mono(), 64, 96, GPU)), 64, 96, path)
    found = types_of(path)
    assert all(kinds == {'FLOAT'} for name, kinds in found.items() if name in NARROW)
    assert {'LayerNormalization', 'Softmax'} < set(found)
    assert found['Sigmoid'] == {'FLOAT'}
    assert found['Gelu'] == found['Elu'] == found['AveragePool'] == {'FLOAT16'}
    assert found['Conv'] == {'FLOAT', 'FLOAT16'}


def test_functions_of_transformers_are_float32_in_a_graph(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 64, 1), Normalizing()).eval().requires_grad_(False)
    for value in module.parameters():
        nn.init.uniform_(value, 0.5, 1.5)
    path = tmp_path / 'graph.onnx'
    export_onnx(halved(module), 16, 24, path)
    found = types_of(path)
    assert {'LayerNormalization', 'Softmax', 'ReduceMean'} < set(found)
    assert all(kinds == {'FLOAT'} for name, kinds in found.items() if name in NARROW)
    assert found['MatMul'] == {'FLOAT16'}
    ort = pytest.importorskip('onnxruntime')
    image = torch.rand(1, 3, 16, 24)
    session = ort.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    given = torch.from_numpy(session.run(None, {'image': image.numpy()})[0])
    with torch.no_grad():
        assert (given - module(image)).abs().max() < 2e-3 * given.abs().max()


def test_only_the_head_and_what_must_is_float32():
    plain = linearized(lite_mono(), 64, 96)
    made = halved(plain)
    wide = [layer.module for layer in made.modules() if isinstance(layer, InFloat32)]
    kinds = sorted(type(module).__name__ for module in wide)
    assert kinds == ['Conv2d', 'DoublingConv', *['GramAttention'] * 3]
    small = sum(value.numel() for module in wide for value in module.parameters())
    assert small < 0.1 * sum(value.numel() for value in made.parameters())
    halves = [value for value in made.parameters() if value.dtype == torch.float16]
    assert sum(value.numel() for value in halves) > 0.9 * sum(
        value.numel() for value in made.parameters()
    )


@torch.no_grad()
def test_the_module_that_is_halved_stays_as_it_was():
    plain, image = linearized(lite_mono(), 64, 96), torch.rand(1, 3, 64, 96)
    before, keys = plain(image), list(plain.state_dict())
    made = halved(plain)
    for value in made.parameters():
        if value.dtype == torch.float16:
            value.zero_()
    assert torch.equal(plain(image), before)
    assert list(plain.state_dict()) == keys
    assert {value.dtype for value in plain.parameters()} == {torch.float32}


def test_a_weight_beyond_float16_is_named():
    conv = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 1, 1)).eval()
    with torch.no_grad():
        conv[0].weight[3, 1] = -7e4
    with pytest.raises(ModelError, match=r"70000 in '0\.weight'.*65504"):
        halved(conv)


@pytest.mark.parametrize('shape', [(4, 8, 5, 6), (30, 8)])
@torch.no_grad()
def test_a_batch_normalisation_without_a_convolution_is_a_factor_and_a_summand(shape):
    norm = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(8)
    conformance.fill(norm)
    norm.double().eval().running_var *= 1e-6
    x = torch.randn(shape, dtype=torch.float64)
    expected = norm(x)
    assert (Affine(norm)(x) - expected).abs().max() < 1e-12 * expected.abs().max()
    norm.float().running_var[:] = 1e6  # beyond float16
    x = 500 * torch.randn(shape)
    given, expected = halved(nn.Sequential(norm))(x), norm(x)
    assert (given - expected).abs().max() < 2e-3 * expected.abs().max()
