from __future__ import annotations

import copy
import itertools
import math
from dataclasses import astuple

import pytest
import torch
from torch import fx
from torch import nn
from torch.nn import functional as F

from depth_node.benchmark.launches import launches
from depth_node.errors import ModelError
from depth_node.networks import conformance
from depth_node.networks import registry
from depth_node.networks.blocks import image_pyramid
from depth_node.networks.half import halved
from depth_node.networks.lite_mono_plain import GramAttentionBlock
from depth_node.networks.lite_mono_plain import PlainAttentionBlock
from depth_node.networks.lite_mono_plain import token_scale
from depth_node.networks.rewrites import GPU
from depth_node.networks.rewrites import Choices
from depth_node.networks.rewrites import DoublingConv
from depth_node.networks.rewrites import as_convolution
from depth_node.networks.rewrites import linearized
from depth_node.networks.rewrites import over_parts
from depth_node.networks.rewrites import pointwise
from depth_node.networks.rewrites import with_affine
from depth_node.networks.rewrites import with_gain
from depth_node.networks.specification import Identity

VARIANTS = ('tiny', 'small', 'base', '8m')
SIZES = ('640x192', '1024x320')
TRAITS = registry.spec('lite-mono').variants['tiny']


def filled(variant, size='640x192'):
    """Weights of which every one matters: fresh layer scales would hide any mistake."""
    network = registry.build('lite-mono', Identity(variant, {'dilations': size})).eval()
    conformance.fill(network)
    return network


def normalized(image):
    return (image - TRAITS.mean[0]) / TRAITS.std[0]


def randomized(module):
    torch.manual_seed(5)
    with torch.no_grad():
        for value in (*module.parameters(), *module.buffers()):
            if value.is_floating_point():
                value.copy_(0.5 + torch.rand(value.shape))
    return module.double().eval()


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('variant', VARIANTS)
def test_plain_form_is_the_trained_function(variant, size):
    network = filled(variant, size)
    image = torch.rand(1, 3, 32, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        single = linearized(network, 32, 96)(normalized(image))
        expected = network(image)[0]
        assert (single - expected).abs().max() < 2e-6
        network, image = network.double(), image.double()
        exact = linearized(network, 32, 96)(normalized(image))
        assert (exact - network(image)[0]).abs().max() < 1e-12


@pytest.mark.parametrize('split', [False, True])
@pytest.mark.parametrize('resize', [False, True])
@pytest.mark.parametrize('gram', [False, True])
def test_every_choice_gives_the_same(split, resize, gram):
    network = filled('tiny').double()
    image = torch.rand(1, 3, 64, 32, dtype=torch.float64)
    plain = linearized(network, 64, 32, Choices(split, resize, gram))
    with torch.no_grad():
        assert (plain(normalized(image)) - network(image)[0]).abs().max() < 1e-12
    kinds = {type(module).__name__ for module in plain.modules()}
    assert ('SplitConv' in kinds) == split
    assert ('DoublingConv' in kinds) == resize
    assert ('GramAttention' in kinds) == gram
    assert ('PlainAttention' in kinds) == (not gram)


def test_error_at_full_size_is_that_of_float32_rounding():
    network = filled('small')
    image = torch.rand(1, 3, 192, 640, generator=torch.Generator().manual_seed(1))
    plain = linearized(network, 192, 640)
    with torch.inference_mode():
        expected = network.double()(image.double())[0]
        given = plain(normalized(image))
        channels_last = plain.to(memory_format=torch.channels_last)(normalized(image))
    assert given.shape == (1, 1, 192, 640)
    assert (given - expected).abs().max() < 2e-6
    assert (channels_last - expected).abs().max() < 2e-6


def test_normalizations_and_linear_layers_are_gone():
    kinds = {type(module) for module in linearized(filled('tiny'), 64, 96).modules()}
    assert not kinds & {nn.BatchNorm2d, nn.LayerNorm, nn.Linear}


def test_trained_network_is_left_as_it_was():
    network = filled('tiny').train()
    before = copy.deepcopy(network.state_dict())
    plain = linearized(network, 64, 96)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not plain.training
    assert not any(parameter.requires_grad for parameter in plain.parameters())


def test_image_given_to_the_plain_form_is_not_overwritten():
    image = torch.rand(1, 3, 64, 96)
    before = image.clone()
    with torch.inference_mode():
        linearized(filled('tiny'), 64, 96)(image)
    assert torch.equal(image, before)


def test_size_that_the_network_cannot_take_is_refused():
    with pytest.raises(ModelError, match='multiples of 32'):
        linearized(filled('tiny'), 192, 650)


def test_network_without_rewrites_is_refused():
    with pytest.raises(ModelError, match='Conv2d'):
        linearized(nn.Conv2d(3, 1, 1), 64, 64)


def test_linear_layer_is_a_convolution_without_permutations():
    linear = randomized(nn.Linear(8, 5))
    image = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        expected = linear(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        given = as_convolution(linear, torch.float64)(image)
    assert torch.allclose(given, expected, rtol=0, atol=1e-12)


def test_layer_norm_affine_goes_into_the_next_linear_layer():
    norm, linear = randomized(nn.LayerNorm(8)), randomized(nn.Linear(8, 5))
    tokens = torch.randn(7, 8, dtype=torch.float64)
    with torch.no_grad():
        given = with_affine(linear, norm)(F.layer_norm(tokens, (8,), eps=norm.eps))
        assert torch.allclose(given, linear(norm(tokens)), rtol=0, atol=1e-12)


def test_layer_scale_goes_into_the_linear_layer_before():
    linear, gain = randomized(nn.Linear(8, 5)), torch.rand(5, dtype=torch.float64)
    tokens = torch.randn(7, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(with_gain(linear, gain)(tokens), gain * linear(tokens), atol=1e-12)


def test_a_linear_layer_takes_in_what_lies_before_and_behind_at_once():
    norm, linear = randomized(nn.LayerNorm(8)), randomized(nn.Linear(8, 5))
    gain = torch.rand(5, dtype=torch.float64)
    image = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    tokens = image.permute(0, 2, 3, 1)
    with torch.no_grad():
        conv = pointwise(linear, norm=norm, gain=gain)
        bare = F.layer_norm(tokens, (8,), eps=norm.eps).permute(0, 3, 1, 2)
        expected = (gain * linear(norm(tokens))).permute(0, 3, 1, 2)
        assert torch.allclose(conv(bare), expected, rtol=0, atol=1e-12)


def test_weights_are_rounded_once_however_many_rewrites_they_take():
    norm, linear = nn.LayerNorm(8), nn.Linear(8, 5)
    for value in (*norm.parameters(), *linear.parameters()):
        nn.init.uniform_(value, 0.5, 1.5)
    gain = torch.rand(5)
    with torch.no_grad():
        exact = gain.double()[:, None] * (linear.weight.double() * norm.weight.double())
        given = pointwise(linear, norm=norm, gain=gain).weight[:, :, 0, 0]
    assert torch.equal(given, exact.float())


def test_positional_encoding_is_a_constant_of_the_size():
    block = filled('base').encoder.stages[0][-1].double()
    x = torch.randn(1, 48, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        made = PlainAttentionBlock(block, 8, 12)
        expected = block.pos_embd(8, 12)
        assert torch.equal(made._encoded(x), x + expected)
    operators = {str(node.target) for node in fx.symbolic_trace(made).graph.nodes}
    assert not any('sin' in name or name == 'cos' for name in operators)
    assert expected.std() > 0.1


def test_pools_of_the_image_are_cascaded():
    image = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    for level, given in enumerate(image_pyramid(image, 3), start=1):
        expected = image
        for _ in range(level):
            expected = F.avg_pool2d(expected, 3, 2, 1)
        assert torch.equal(given, expected)
    plain, calls = linearized(filled('tiny'), 64, 96), []
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        pool = F.avg_pool2d
        patch.setattr(F, 'avg_pool2d', lambda *args: calls.append(args) or pool(*args))
        plain(torch.rand(1, 3, 64, 96))
    assert len(calls) == 3


def test_only_the_head_of_full_size_is_left():
    heads = [
        layer
        for layer in linearized(filled('tiny'), 64, 96).modules()
        if isinstance(layer, nn.Conv2d) and layer.out_channels == 1
    ]
    assert len(heads) == 1


def test_the_choices_for_a_gpu_launch_least():
    network, image = filled('small'), torch.rand(1, 3, 64, 96)
    launched = {
        choices: launches(linearized(network, 64, 96, Choices(*choices)), image)
        for choices in itertools.product([False, True], repeat=3)
    }
    assert launched[astuple(GPU)] == min(launched.values())
    assert launched[astuple(GPU)] < 0.7 * launches(network, image)


@pytest.mark.parametrize('reflect', [False, True])
def test_split_convolution_is_the_convolution_of_the_concatenation(reflect):
    conv = randomized(nn.Conv2d(9, 4, 3, stride=2, padding=0 if reflect else 1))
    parts = [torch.randn(1, channels, 8, 10, dtype=torch.float64) for channels in (4, 2, 3)]
    with torch.no_grad():
        joined = over_parts(conv, [4, 2, 3], split=False, reflect=reflect)(*parts)
        split = over_parts(conv, [4, 2, 3], split=True, reflect=reflect)(*parts)
        image = torch.cat(parts, 1)
        expected = conv(F.pad(image, (1, 1, 1, 1), mode='reflect') if reflect else image)
    assert torch.allclose(joined, expected, rtol=0, atol=1e-12)
    assert torch.allclose(split, expected, rtol=0, atol=1e-12)


def test_doubling_convolution_is_the_bilinear_resize_up_to_the_border():
    image = torch.randn(1, 1, 5, 7, dtype=torch.float64)
    expected = F.interpolate(image, scale_factor=2.0, mode='bilinear', align_corners=False)
    assert torch.allclose(DoublingConv().double()(image), expected, rtol=0, atol=1e-12)


ATTENTION_BLOCKS = (PlainAttentionBlock, GramAttentionBlock)


@pytest.mark.parametrize('kind', ATTENTION_BLOCKS)
@pytest.mark.parametrize(('stage', 'height', 'width'), [(0, 8, 12), (1, 5, 7), (2, 1, 3)])
def test_attention_is_the_trained_one(kind, stage, height, width):
    block = randomized(filled('small').encoder.stages[stage][-1])
    x = torch.randn(1, block.gamma.numel(), height, width, dtype=torch.float64)
    with torch.no_grad():
        expected, given = block(x), kind(block, height, width).double()(x)
    assert (given - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize('kind', ATTENTION_BLOCKS)
def test_attention_survives_sums_beyond_half_precision(kind):
    """Squares of 20480 pixels: a cosine sees neither their size nor that of the weights."""
    block = filled('base').encoder.stages[0][-1]
    x = torch.randn(1, 48, 80, 256, generator=torch.Generator().manual_seed(2))
    x[:, 5] *= 100  # normalised, it is 7 everywhere
    with torch.no_grad():
        block.xca.qkv.weight[:96] *= 8
        block.xca.qkv.bias[:96] *= 8
        plain = kind(block, 80, 256)
        expected = plain(x)
        given = halved(plain)(x)
    assert torch.isfinite(given).all()
    assert (given - expected).abs().max() < 2e-3 * expected.abs().max()


def test_gram_attention_survives_any_weights_of_queries_and_keys():
    block = filled('tiny').encoder.stages[2][-1]
    x = torch.randn(1, 128, 4, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = block(x)
        for value in (block.xca.qkv.weight, block.xca.qkv.bias):
            value[:128] *= 1e6
            value[128:256] *= 1e-6
        given = GramAttentionBlock(block, 4, 6).half()(x.half()).float()
    assert (given - expected).abs().max() < 2e-3 * expected.abs().max()


def test_token_scale_is_a_power_of_two_next_to_the_root():
    for count in (1, 60, 480, 1920, 7680, 20480):
        scale = token_scale(count)
        assert math.frexp(scale)[0] == 0.5
        assert 0.5 <= scale**2 * count <= 2.0


def test_whole_network_runs_in_half_precision():
    plain, image = linearized(filled('base'), 64, 96), normalized(torch.rand(1, 3, 64, 96))
    with torch.inference_mode():
        expected = plain(image)
        given = plain.half()(image.half()).float()
    assert (given - expected).abs().max() < 5e-3
