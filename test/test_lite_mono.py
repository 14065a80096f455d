"""Lite-Mono: sizes, options, released files, and arithmetic that is easily got wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depth_node.errors import ModelError
from depth_node.networks import conformance
from depth_node.networks import registry
from depth_node.networks.blocks import DropPath
from depth_node.networks.blocks import image_pyramid
from depth_node.networks.lite_mono import CrossCovarianceAttention
from depth_node.networks.lite_mono import DilatedBlock
from depth_node.networks.specification import Identity

PARAMETERS = {'tiny': 2_147_659, 'small': 2_476_859, 'base': 3_074_747, '8m': 8_775_851}


@pytest.fixture(scope='module')
def spec():
    return registry.spec('lite-mono')


def built(variant='tiny', **options):
    return registry.build('lite-mono', Identity(variant, options))


def filled(variant='tiny', **options):
    network = built(variant, **options).eval()
    conformance.fill(network)
    return network


def released(network, **extra):
    encoder = {**network.encoder.state_dict(), **extra}
    return {'encoder': encoder, 'depth': network.decoder.state_dict()}


@pytest.mark.parametrize(('variant', 'count'), PARAMETERS.items())
def test_parameters_are_as_many_as_published(variant, count):
    network = built(variant)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(('height', 'width'), [(32, 32), (64, 224)])
def test_sizes_that_are_multiples_of_32_work(height, width):
    with torch.no_grad():
        outputs = filled()(torch.rand(2, 3, height, width))
    shapes = [tuple(output.shape) for output in outputs]
    assert shapes == [(2, 1, height >> scale, width >> scale) for scale in range(3)]
    assert all(output.min() > 0 and output.max() < 1 for output in outputs)


@pytest.mark.parametrize(('height', 'width'), [(0, 32), (48, 64), (64, 48)])
def test_other_sizes_are_refused(height, width):
    with pytest.raises(ModelError, match='multiples of 32'):
        built()(torch.zeros(1, 3, height, width))


@pytest.mark.parametrize(
    ('variant', 'options', 'word'),
    [
        ('huge', {}, 'variant'),
        ('tiny', {'droppath': 0.1}, 'droppath'),
        ('tiny', {'dilations': '800x600'}, 'dilations'),
        ('tiny', {'dilations': ['640x192']}, 'dilations'),
        ('tiny', {'drop_path': 1.0}, 'drop_path'),
        ('tiny', {'drop_path': float('nan')}, 'drop_path'),
        ('tiny', {'drop_path': True}, 'drop_path'),
        ('tiny', {'layer_scale': '1'}, 'layer_scale'),
        ('tiny', {'layer_scale': -1.0}, 'layer_scale'),
    ],
)
def test_options_out_of_range_are_refused(variant, options, word):
    with pytest.raises(ModelError, match=word):
        built(variant, **options)


def test_options_reach_the_layers():
    network = built(drop_path=0.3, layer_scale=0.1)
    rates = [block.drop_path.rate for stage in network.encoder.stages for block in stage]
    assert rates == pytest.approx(np.linspace(0, 0.3, 15))
    gammas = [p.detach() for name, p in network.named_parameters() if 'gamma' in name]
    assert torch.cat(gammas).numpy() == pytest.approx(0.1)


@pytest.mark.parametrize('variant', PARAMETERS)
def test_variant_and_dilations_are_inferred_from_released_files(spec, variant):
    network = built(variant)
    files = released(network, height=320, width=1024, use_stereo=False)
    assert spec.infer(files, None) == Identity(variant, {'dilations': '1024x320'})
    assert spec.infer(released(network), variant) == Identity(variant, {'dilations': '640x192'})


def test_shapes_of_no_variant_are_refused(spec):
    files = released(built())
    with pytest.raises(ModelError, match='the shapes of base'):
        spec.infer(files, 'base')
    files['encoder'] = {k: v for k, v in files['encoder'].items() if 'stages.2.6.' not in k}
    with pytest.raises(ModelError, match='6 blocks'):
        spec.infer(files, None)
    with pytest.raises(ModelError, match='None channels'):
        spec.infer({}, None)


def test_every_weight_that_is_used_gets_a_gradient():
    network = built(layer_scale=0.1).train()
    sum(output.mean() for output in network(torch.rand(2, 3, 64, 64))).backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    dilated = (m for m in network.encoder.named_modules() if isinstance(m[1], DilatedBlock))
    expected = {
        f'encoder.{name}.norm.{part}' for name, _ in dilated for part in ('weight', 'bias')
    }
    assert without == expected


def test_border_zeros_count_in_the_image_pyramid():
    half, quarter, eighth = image_pyramid(torch.ones(1, 3, 32, 64), 3)
    assert half.shape[-2:] == (16, 32)
    assert eighth.shape[-2:] == (4, 8)
    assert half[0, 0, 0, 0] == pytest.approx(4 / 9)
    assert quarter[0, 0, 5, 5] == 1.0


def test_half_precision_gives_the_same_disparity():
    network, image = filled(), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = network(image)[0]
        given = network.half()(image.half())[0].float()
    assert (given - expected).abs().max() < 5e-3


def test_attention_survives_sums_beyond_half_precision():
    torch.manual_seed(0)
    attention = CrossCovarianceAttention(48).eval()
    with torch.no_grad():
        attention.qkv.weight[:96] *= 3000  # a cosine does not see it, a sum of squares does
        tokens = torch.randn(1, 4096, 48)
        expected = attention(tokens)
        given = attention.half()(tokens.half()).float()
    assert torch.isfinite(given).all()
    assert (given - expected).abs().max() < 1e-2


def test_autocast_leaves_the_cosines_of_attention_in_float32():
    torch.manual_seed(0)
    attention = CrossCovarianceAttention(48).eval()
    query, key = torch.randn(2, 1, 8, 6, 512).bfloat16()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        given = attention._weights(query, key)
    with torch.no_grad():
        expected = attention._weights(query.float(), key.float())
    assert (given - expected).abs().max() < 1e-6


def test_bfloat16_gradients_of_dilated_convolutions_agree_with_float32():
    def gradient(autocast):
        torch.manual_seed(1)
        block = DilatedBlock(48, 3, 0.0, 0.1).to(memory_format=torch.channels_last).train()
        image = torch.randn(4, 48, 24, 80).contiguous(memory_format=torch.channels_last)
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            result = block(image)
        (result.float() * torch.randn(result.shape)).sum().backward()
        return block.ddwconv.conv.weight.grad

    expected, given = gradient(False), gradient(True)
    assert (given - expected).norm() < 0.05 * expected.norm()


def test_drop_path_leaves_out_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, ones = DropPath(0.25).train(), torch.ones(4000, 2, 3, 3)
    dropped = layer(ones)
    per_sample = dropped.flatten(1)
    assert torch.equal(per_sample.amin(1), per_sample.amax(1))
    assert np.unique(per_sample.numpy()) == pytest.approx([0.0, 4 / 3])
    assert dropped.mean() == pytest.approx(1.0, abs=0.05)
    assert layer.eval()(ones) is ones
