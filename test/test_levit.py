import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from depth_node.networks import conformance
from depth_node.networks import levit
from depth_node.networks.export import export_onnx
from depth_node.networks.initialization import WithoutDrawing


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


@pytest.fixture(scope='module')
def filled():
    with WithoutDrawing():
        network = levit.levit_384().eval()
    conformance.fill(network)
    return network


@pytest.fixture
def attention():
    """Return a layer on a grid of 4x4 tokens that a test may change."""
    layer = levit.Attention(64, 2, 4).eval()
    conformance.fill(layer)
    return layer


def test_features_are_those_of_three_stages(filled):
    with torch.no_grad():
        features = filled(torch.randn(2, 3, 224, 224))
    shapes = [(2, 384, 14, 14), (2, 512, 7, 7), (2, 768, 4, 4)]
    assert [tuple(feature.shape) for feature in features] == shapes
    assert filled.channels == (384, 512, 768)


def test_images_of_a_batch_do_not_mix(filled):
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        together, alone = filled(images), filled(images[1:])
    for both, one in zip(together, alone, strict=True):
        assert (both[1:] - one).abs().max() < 1e-4 * one.std()


def test_parameters_are_those_that_the_forward_pass_reads():
    with torch.device('meta'):
        network = levit.levit_384()
    assert sum(parameter.numel() for parameter in network.parameters()) == 25_173_236


def test_features_are_taken_where_the_released_network_is_hooked(filled):
    seen = {}
    image = torch.randn(1, 3, 224, 224)
    hooks = [
        filled.blocks[index].register_forward_hook(
            lambda block, given, result, index=index: seen.update({index: result})
        )
        for index in (3, 11, 21)
    ]
    with torch.no_grad():
        features = filled(image)
    for hook in hooks:
        hook.remove()
    for tokens, feature in zip(seen.values(), features, strict=True):
        assert torch.equal(feature.flatten(2).transpose(1, 2), tokens)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('side', [7, 4])
def test_biases_are_numbered_as_their_distances_are_met(side, stride):
    keys = list(itertools.product(range(side), repeat=2))
    queries = list(itertools.product(range(0, side, stride), repeat=2))
    numbers: dict[tuple[int, int], int] = {}
    expected = [
        [numbers.setdefault((abs(qy - ky), abs(qx - kx)), len(numbers)) for ky, kx in keys]
        for qy, qx in queries
    ]
    assert levit.offsets(side, stride).tolist() == expected
    assert len(numbers) == side * side


def test_queries_of_a_shrinking_attention_are_every_second_token():
    tokens = torch.arange(49.0).reshape(1, 49, 1)
    rows = [[14 * row + 2 * column for column in range(4)] for row in range(4)]
    assert levit.Subsampling(7)(tokens).flatten().tolist() == [
        token for row in rows for token in row
    ]


def test_biases_follow_the_weights_in_evaluation_too(attention):
    tokens = torch.randn(1, 16, 64)
    with torch.no_grad():
        before = attention(tokens)
        attention.attention_biases.mul_(-3)
        assert (attention(tokens) - before).abs().max() > 1e-3


def test_attention_is_a_softmax_of_scaled_products_and_biases(attention):
    tokens = torch.randn(1, 16, 64)
    with torch.no_grad():
        given = attention(tokens)[0]
        joined = attention.qkv(tokens)[0].reshape(16, 2, 128).transpose(0, 1)
        query, key, value = joined[..., :32], joined[..., 32:64], joined[..., 64:]
        scores = query @ key.transpose(1, 2) / 32**0.5
        scores = scores + attention.attention_biases[:, attention.index]
        mixed = (torch.softmax(scores, dim=-1) @ value).transpose(0, 1).reshape(16, 128)
        expected = attention.proj[1](F.hardswish(mixed)[None])[0]
    assert (given - expected).abs().max() < 1e-5


def test_normalisation_runs_over_all_tokens():
    layer, tokens = levit.LinearNorm(3, 5).train(), 4 + torch.randn(2, 50, 3)
    with torch.no_grad():
        layer.c.weight.mul_(100)  # so that its epsilon does not show
        result = layer(tokens)
    assert result.shape == (2, 50, 5)
    assert result.mean((0, 1)).abs().max() < 1e-5
    assert (result.var((0, 1), unbiased=False) - 1).abs().max() < 1e-3


def test_residual_branches_begin_as_nothing():
    block = levit.Residual(levit.Attention(64, 2, 4)).eval()
    tokens = torch.randn(1, 16, 64)
    with torch.no_grad():
        assert torch.equal(block(tokens), tokens)


def test_released_names_fill_the_network_and_what_no_pass_reads_is_dropped(filled):
    expected = filled.state_dict()
    unused = [
        'head.bn.weight',
        'head.l.bias',
        'head_dist.l.weight',
        'blocks.0.m.attention_bias_idxs',
        'blocks.8.attention_bias_idxs',
        'blocks.22.m.attention_biases',
        'blocks.27.m.2.bn.num_batches_tracked',
    ]
    rename = levit.translator([*expected, *unused])
    assert [rename(key) for key in expected] == list(expected)
    assert {rename(key) for key in unused} == {None}


def test_names_that_the_release_does_not_have_come_back_for_the_caller_to_refuse():
    for unknown in ('blocks.28.m.0.c.weight', 'stem.conv1.linear.weight', 'blocks.2.attention'):
        assert levit.translate(unknown) == unknown


def test_every_weight_gets_a_gradient(filled):
    filled.train()
    try:
        features = filled(torch.randn(2, 3, 224, 224))
        sum(feature.square().mean() for feature in features).backward()
        for name, parameter in filled.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    finally:
        filled.zero_grad()
        conformance.fill(filled.eval())


class Excerpt(nn.Module):
    """One layer of each kind, from an image to a plane of its size, as the exporter wants it."""

    def __init__(self):
        super().__init__()
        self.stem = levit.ConvNorm(3, 64)
        self.blocks = nn.Sequential(
            levit.Residual(levit.Attention(64, 2, 7)), levit.ShrinkingAttention(64, 96, 7)
        )

    def forward(self, image):
        tokens = self.blocks(self.stem(image).flatten(2).transpose(1, 2))
        return F.interpolate(tokens.mean(2).reshape(1, 1, 4, 4), image.shape[2:])


def test_exported_graph_gives_the_same_features(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    module, image = Excerpt().eval(), torch.randn(1, 3, 14, 14)
    conformance.fill(module)
    export_onnx(module, 14, 14, tmp_path / 'levit.onnx')
    session = onnxruntime.InferenceSession(tmp_path / 'levit.onnx')
    (given,) = session.run(None, {'image': image.numpy()})
    with torch.no_grad():
        expected = module(image).numpy()
    assert np.abs(given - expected).max() < 1e-4 * expected.std()
