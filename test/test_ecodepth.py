"""ECoDepth in miniature computes what its parts are written to compute, here and exported.

The full network is compared with the authors' numbers by the conformance tool.
"""

from __future__ import annotations

import math

import ecodepth_miniature
import numpy as np
import pytest
import torch
from ecodepth_miniature import FIRST
from ecodepth_miniature import SECOND
from ecodepth_miniature import filled
from torch.nn import functional as F

from depth_node.errors import ModelError
from depth_node.networks import conformance
from depth_node.networks.diffusion_unet import ContextBlock
from depth_node.networks.diffusion_unet import DiffusionUNet
from depth_node.networks.ecodepth import EcoDepth
from depth_node.networks.ecodepth import probe
from depth_node.networks.export import export_onnx
from depth_node.networks.latent_encoder import Halving
from depth_node.networks.rewrites import linearized
from depth_node.networks.scene_embedding import FixedWeights
from depth_node.networks.scene_embedding import grey_levels
from depth_node.networks.scene_embedding import resized
from depth_node.networks.scene_embedding import resizing_weights

first = ecodepth_miniature.first
second = ecodepth_miniature.second


def image(height, width, seed=0):
    return torch.from_numpy(conformance.image((seed,), height, width))


def normalized(picture):
    return 2 * picture - 1


@pytest.mark.parametrize(('height', 'width'), [(64, 128), (72, 100), (1, 65)])
def test_any_size_works_in_both_versions(first, second, height, width):
    for network, most in ((first, 10.0), (second, 80.0)):
        with torch.no_grad():
            (depth,) = network(image(height, width).expand(2, -1, -1, -1))
        assert depth.shape == (2, 1, height, width)
        assert depth.min() > 0
        assert depth.max() < most


def test_an_empty_image_is_refused(second):
    with pytest.raises(ModelError, match='0x64'):
        second(torch.zeros(1, 3, 64, 0))


def test_the_border_is_mid_grey_and_goes_before_the_last_layers(second):
    picture = image(64, 40)
    grey = F.pad(picture, (0, 24, 0, 0), value=0.5)
    with torch.no_grad():
        given, whole = second(picture)[0], second(grey)[0][..., :40]
    assert (given - whole)[..., :-2].abs().max() < 1e-4
    assert (given - whole)[..., -1].abs().max() > 1e-2


def test_probe_names_every_output(first, second):
    with torch.no_grad():
        outputs = probe(first, image(72, 100))
        depth = first(image(72, 100))[0]
    common = {
        'vit_pixel_values',
        'cide_embedding',
        'latents',
        'unet_out_0',
        'unet_out_1',
        'unet_out_2',
        'unet_out_3',
        'encoder_out',
        'decoder_out',
        'depth_logit',
        'depth',
    }
    assert set(outputs) == common | {'vit_logits', 'class_probs'}
    assert torch.equal(outputs['depth'], depth)
    assert outputs['class_probs'].sum() == pytest.approx(1.0)
    shapes = [tuple(outputs[f'unet_out_{index}'].shape[1:]) for index in range(4)]
    assert shapes == [(32, 16, 16), (64, 8, 8), (128, 4, 4), (128, 2, 2)]
    with torch.no_grad():
        assert set(probe(second, image(64, 64))) == common


@pytest.mark.parametrize('layout', [FIRST, SECOND])
def test_every_weight_gets_a_gradient(layout):
    network = filled(layout).train()
    network(image(64, 128).expand(2, -1, -1, -1))[0].log().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_grey_levels_are_cut_off_not_rounded():
    levels = torch.tensor([0.0, 0.9, 127.5, 100.999, 254.9])
    assert grey_levels(levels / 127.5 - 1).tolist() == [0, 0, 127, 100, 254]


def test_8_bit_images_keep_their_levels_whatever_arithmetic_normalised_them():
    levels = torch.arange(256.0)
    gain = torch.tensor(np.float32(1 / 127.5))
    ways = (
        levels / 255 * 2 - 1,
        (levels / 255 - 0.5) / 0.5,
        (levels - 127.5) / 127.5,
        (levels - 127.5) * gain,
        levels * (1 / 255) * 2 - 1,
        (levels / 255).half() * 2 - 1,
    )
    for way in ways:
        assert torch.equal(grey_levels(way), levels)


def pillow(picture):
    """Resize (H, W) whole levels to 224x224 by integers, as Pillow's 8-bit filter does."""
    square = np.zeros((max(picture.shape),) * 2, np.int64)
    square[: picture.shape[0], : picture.shape[1]] = picture
    for _ in range(2):  # columns, then rows
        square = fixed_point_columns(square).T
    return square


def fixed_point_columns(picture):
    side = picture.shape[1]
    scale = side / 224
    support = max(scale, 1.0)
    result = np.empty((len(picture), 224), np.int64)
    for index in range(224):
        center = (index + 0.5) * scale
        lowest, highest = math.floor(center - support) - 1, math.ceil(center + support) + 1
        taps = np.arange(max(lowest, 0), min(highest, side))
        weights = np.maximum(0.0, 1.0 - np.abs((taps - center + 0.5) / support))
        fixed = np.floor(weights / weights.sum() * 2**22 + 0.5).astype(np.int64)
        result[:, index] = (picture[:, taps] @ fixed + 2**21) >> 22
    return result


@pytest.mark.parametrize(
    ('height', 'width'), [(64, 64), (192, 128), (224, 224), (512, 640), (384, 1216), (1088, 1920)]
)
def test_resizing_is_that_of_8_bit_integers(height, width):
    draw = np.random.Generator(np.random.PCG64(5))
    levels = draw.integers(0, 256, (height, width))
    given = resized(
        torch.from_numpy(levels).float().expand(1, 3, -1, -1), resizing_weights(max(height, width))
    )
    assert np.array_equal(given[0, 1].numpy(), pillow(levels))


def test_hand_computed_case_of_the_resizing():
    levels = torch.zeros(1, 1, 448, 448)
    levels[..., 2] = 255.0  # result 1 sees columns 1 to 4 with weights 1, 3, 3, 1 of 8
    given = resized(levels, resizing_weights(448))[0, 0, 100, :4]
    assert given.tolist() == [math.floor(255 / 7 + 0.5), 96, 0, 0]


@pytest.mark.parametrize('side', [64, 640, 1920, 4096, 8192])
def test_sums_of_the_resizing_are_exact_in_single_precision(side):
    high, low = resizing_weights(side)
    assert (255 * low.abs().sum(dim=1)).max() < 2**24
    assert (255 * high.sum(dim=1)).max() < 2**24
    assert low.abs().max() <= 1024
    whole = high.double() * 2048 + low.double()
    assert (whole.sum(dim=1) - 2**22).abs().max() <= side / 112 + 2


def test_classifier_sees_a_square_that_is_black_at_the_bottom_or_right(second):
    scene = second.encoder.cide_module
    x = normalized(image(64, 128))
    square = F.pad(x, (0, 0, 0, 64), value=-1.0)
    assert torch.equal(scene.pixel_values(x), scene.pixel_values(square))
    assert scene.pixel_values(x)[..., 114:, :].max() == -1.0
    x = x.transpose(2, 3)
    assert scene.pixel_values(x)[..., 114:].max() == -1.0


def test_context_of_version_1_is_a_mixture_and_a_small_step(first):
    scene = first.encoder.cide_module
    token = torch.randn(2, 32)
    with torch.no_grad():
        mixture = scene.probabilities(token) @ scene.embeddings
        expected = mixture + scene.gamma * scene.embedding_adapter(mixture)
        assert torch.equal(scene.context(token), expected[:, None])
    fresh = EcoDepth(FIRST).encoder.cide_module
    assert fresh.gamma.unique().item() == pytest.approx(1e-4)


def test_context_of_version_2_is_the_token_before_the_last_normalisation(second):
    token = 3.0 + torch.randn(2, 32)
    assert torch.equal(second.encoder.cide_module.context(token), token[:, None])


def test_one_token_of_context_makes_cross_attention_a_constant():
    torch.manual_seed(0)
    block = ContextBlock(32, 8, 20).eval()
    tokens, context = torch.randn(1, 30, 32), torch.randn(1, 1, 20)
    query, key = torch.randn(1, 8, 30, 4), torch.randn(1, 8, 1, 4)
    with torch.no_grad():
        value = block.attn2.to_v(context).unflatten(2, (8, 4)).transpose(1, 2)
        mixed = torch.softmax(query @ key.transpose(2, 3), dim=-1) @ value
        crossed = block.attn2.to_out(mixed.transpose(1, 2).flatten(2))
        after = tokens + block.attn1(block.norm1(tokens))
        after = after + crossed
        expected = after + block.ff(block.norm3(after))
        assert torch.allclose(block(tokens, context), expected, atol=1e-6)


def test_second_half_of_the_gated_layer_is_the_gate():
    block = ContextBlock(32, 8, 20)
    gated = block.ff.net[0]
    with torch.no_grad():
        gated.proj.weight.zero_()
        gated.proj.bias.zero_()
        gated.proj.bias[:128] = 2.0
        gated.proj.bias[128:] = -1.0
        given = gated(torch.zeros(1, 1, 32))
    assert given.unique().item() == pytest.approx(2.0 * F.gelu(torch.tensor(-1.0)).item())


def test_time_step_is_1_cosines_first():
    sines = DiffusionUNet(32, 8, 20)._sines()[0]
    assert sines[0].item() == pytest.approx(math.cos(1.0))
    assert sines[16].item() == pytest.approx(math.sin(1.0))
    assert sines[31].item() == pytest.approx(math.sin(10000 ** (-15 / 16)))


def test_latents_are_halved_with_zeros_at_the_bottom_and_right_only():
    halving = Halving(1)
    with torch.no_grad():
        halving.conv.weight.fill_(1.0)
        halving.conv.bias.zero_()
        given = halving(torch.ones(1, 1, 4, 4))
    assert given[0, 0].tolist() == [[9.0, 6.0], [6.0, 4.0]]


def test_latents_are_the_mean_in_the_scale_of_the_diffusion_network(second):
    encoder, x = second.encoder.encoder_vq, normalized(image(64, 64))
    with torch.no_grad():
        both = encoder.quant_conv(encoder.encoder(x))
        assert torch.equal(encoder(x), both[:, :4] * 0.18215)


def test_linearized_network_is_the_same_without_time_and_shares_its_weights(first):
    plain = linearized(first, 72, 100)
    names = {name for name, _ in plain.named_parameters()}
    assert not any('time_embed' in name or 'emb_layers' in name for name in names)
    assert any('emb_layers' in name for name in first.state_dict())
    assert (
        plain.network.decoder.conv_layers[0].weight.data_ptr()
        == first.decoder.conv_layers[0].weight.data_ptr()
    )
    with torch.no_grad():
        expected = first(image(72, 100))[0]
        given = plain(normalized(image(72, 100)))
    assert (given - expected).abs().max() < 1e-4 * expected.std()


class FirstChannel(torch.nn.Module):
    """What the classifier of a scene sees of one channel, at the size that an export wants."""

    def __init__(self, side):
        super().__init__()
        self.resizing = FixedWeights(side)

    def forward(self, x):
        levels = resized(grey_levels(x), self.resizing(x))
        return F.pad(levels[:, :1], (0, x.shape[-1] - 224, 0, x.shape[-2] - 224))


def of_onnxruntime(path, x):
    onnxruntime = pytest.importorskip('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return session.run(None, {'image': x.numpy()})[0]


def of_openvino(path, x):
    openvino = pytest.importorskip('openvino')
    compiled = openvino.compile_model(
        path, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': 1}
    )
    return compiled(x.numpy())[0]


@pytest.mark.parametrize('engine', [of_onnxruntime, of_openvino])
def test_exported_resizing_is_exact_to_the_bit(tmp_path, engine):
    pytest.importorskip('onnxscript')
    module = FirstChannel(640).eval()
    export_onnx(module, 480, 640, tmp_path / 'graph.onnx')
    levels = torch.randint(0, 256, (1, 3, 480, 640), generator=torch.Generator().manual_seed(1))
    x = normalized(levels / 255)
    given = engine(tmp_path / 'graph.onnx', x)[0, 0, :224, :224]
    assert np.array_equal(given, pillow(levels[0, 0].numpy()))


@pytest.mark.slow
@pytest.mark.parametrize('layout', [FIRST, SECOND])
def test_exported_network_agrees_in_every_engine(tmp_path, layout):
    pytest.importorskip('onnxscript')
    network = filled(layout)
    export_onnx(linearized(network, 72, 100), 72, 100, tmp_path / 'graph.onnx')
    picture = image(72, 100)
    with torch.no_grad():
        expected = network(picture)[0].numpy()
    for engine in (of_onnxruntime, of_openvino):
        given = engine(tmp_path / 'graph.onnx', normalized(picture))
        assert np.abs(given - expected).max() < 1e-3 * expected.std()
