"""ECoDepth in miniature: every part in its official form, with few channels.

The full network is compared with the authors' numbers by the conformance tool.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from network_vectors import MINIATURE
from torch.nn import functional as F

from depth_node.errors import ModelError
from depth_node.networks import conformance
from depth_node.networks import registry
from depth_node.networks.checkpoint import check_entries
from depth_node.networks.checkpoint import read_checkpoint
from depth_node.networks.diffusion_unet import ContextBlock
from depth_node.networks.diffusion_unet import DiffusionUNet
from depth_node.networks.ecodepth import LAYOUTS
from depth_node.networks.ecodepth import EcoDepth
from depth_node.networks.ecodepth import Layout
from depth_node.networks.ecodepth import conformance_case
from depth_node.networks.ecodepth import probe
from depth_node.networks.ecodepth import translated
from depth_node.networks.export import export_onnx
from depth_node.networks.initialization import adopt
from depth_node.networks.latent_encoder import Halving
from depth_node.networks.rewrites import linearized
from depth_node.networks.scene_embedding import FixedWeights
from depth_node.networks.scene_embedding import grey_levels
from depth_node.networks.scene_embedding import resized
from depth_node.networks.scene_embedding import resizing_weights
from depth_node.networks.specification import Identity

FIRST = Layout(10.0, classes=6, has_head=True, **MINIATURE)
SECOND = Layout(80.0, classes=0, has_head=False, **MINIATURE)
PARAMETERS = {
    'v1-indoor': 971_476_781,
    'v1-outdoor': 971_593_681,
    'v2-indoor': 969_006_993,
    'v2-outdoor': 969_006_993,
}
VIT = 'encoder.cide_module.vit_model.vit.'
HF_PARTS = {
    'norm1': 'layernorm_before',
    'norm2': 'layernorm_after',
    'attn.proj': 'attention.output.dense',
    'mlp.fc1': 'intermediate.dense',
    'mlp.fc2': 'output.dense',
}


@pytest.fixture(scope='module')
def spec():
    return registry.spec('ecodepth')


def filled(layout):
    network = EcoDepth(layout).eval()
    conformance.fill(network)
    return network


@pytest.fixture(scope='module')
def first():
    return filled(FIRST)


@pytest.fixture(scope='module')
def second():
    return filled(SECOND)


def image(height, width, seed=0):
    return torch.from_numpy(conformance.image((seed,), height, width))


def normalized(picture):
    return 2 * picture - 1


def released(network):
    """Return what the authors' file of this network holds, in the layout of version 2."""
    entries = {}
    for key, value in network.state_dict().items():
        if not key.startswith('encoder.cide_module.vit.'):
            entries[key] = value
            continue
        name = key.removeprefix('encoder.cide_module.vit.')
        if name.startswith('blocks.'):
            _, index, rest = name.split('.', 2)
            part, kind = rest.rsplit('.', 1)
            layer = f'{VIT}encoder.layer.{index}.'
            if part == 'attn.qkv':
                for piece, what in zip(value.chunk(3), ('query', 'key', 'value'), strict=True):
                    entries[f'{layer}attention.attention.{what}.{kind}'] = piece.clone()
            else:
                entries[f'{layer}{HF_PARTS[part]}.{kind}'] = value
        elif name.startswith('classifier'):
            entries[f'encoder.cide_module.vit_model.{name}'] = value
        elif name.startswith('layernorm'):
            entries[VIT + name] = value
        else:
            name = name.replace('patch_embeddings', 'patch_embeddings.projection')
            entries[f'{VIT}embeddings.{name}'] = value
    return {**entries, **unused_entries(entries)}


def unused_entries(entries):
    """Return what the files hold besides and no forward pass reads."""
    found = {
        'encoder.encoder_vq.post_quant_conv.weight': torch.zeros(4, 4, 1, 1),
        'encoder.encoder_vq.post_quant_conv.bias': torch.zeros(4),
        'encoder.unet.out.2.weight': torch.zeros(4, 32, 3, 3),
        f'{VIT}layernorm.weight': torch.ones(32),
        f'{VIT}layernorm.bias': torch.ones(32),
        'encoder.cide_module.vit_model.classifier.weight': torch.ones(12, 32),
        'encoder.cide_module.vit_model.classifier.bias': torch.ones(12),
    }
    for key in entries:
        if key.endswith('attn2.to_v.weight'):
            block = key.removesuffix('attn2.to_v.weight')
            channels = len(entries[key])
            found[f'{block}attn2.to_q.weight'] = torch.zeros(channels, channels)
            found[f'{block}attn2.to_k.weight'] = torch.zeros(channels, 32)
            found[f'{block}norm2.weight'] = torch.ones(channels)
            found[f'{block}norm2.bias'] = torch.zeros(channels)
    return {key: value for key, value in found.items() if key not in entries}


def of_first_training(entries):
    """Return the entries under the names that version 1's training gave them."""
    deep = 'encoder.unet.unet.diffusion_model.'
    return {
        f'module.{key.replace("encoder.unet.", deep, 1)}': value for key, value in entries.items()
    }


@pytest.mark.parametrize(
    ('layout', 'wrapped'),
    [
        (FIRST, lambda entries: {'model': of_first_training(entries), 'epoch': 24}),
        (FIRST, lambda entries: {'state_dict': entries, 'epoch': 3, 'global_step': 7}),
        (SECOND, lambda entries: {'state_dict': entries, 'hyper_parameters': {'lr': 1e-4}}),
    ],
)
def test_released_files_of_both_trainings_fill_the_network(tmp_path, layout, wrapped):
    source = filled(layout)
    torch.save(wrapped(released(source)), tmp_path / 'weights.ckpt')
    entries = read_checkpoint(tmp_path / 'weights.ckpt')
    given = translated({'model': entries}, layout)
    target = EcoDepth(layout)
    check_entries(given, target.state_dict(), 'file')
    adopt(target, given)
    filled_ones = target.state_dict()
    for key, value in source.state_dict().items():
        assert torch.equal(filled_ones[key], value), key


def test_translation_copies_only_the_joined_matrices_of_the_scene(second):
    entries = released(second)
    given = translated({'model': entries}, SECOND)
    own = {value.data_ptr() for value in entries.values()}
    copied = {key for key, value in given.items() if value.data_ptr() not in own}
    assert copied == {
        f'encoder.cide_module.vit.blocks.{index}.attn.qkv.{kind}'
        for index in range(2)
        for kind in ('weight', 'bias')
    }


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        (lambda e: e.pop(f'{VIT}encoder.layer.1.attention.attention.key.weight'), 'query'),
        (lambda e: e.update({f'{VIT}encoder.layer.0.attention.attention.key.bias': 1}), 'value'),
        (lambda e: e.update({'encoder.unet.label_emb.weight': torch.ones(1)}), 'label_emb'),
        (lambda e: e.update({f'{VIT}encoder.layer.0.layer_scale.weight': 1}), 'layer_scale'),
        (lambda e: e.pop('decoder.conv_layers.1.running_mean'), 'running_mean'),
        (lambda e: e.update({'last_layer_depth.2.bias': torch.tensor([math.nan])}), 'not finite'),
    ],
)
def test_missing_unknown_and_damaged_entries_are_refused_by_name(second, change, word):
    entries = released(second)
    change(entries)
    given = translated({'model': entries}, SECOND)
    with pytest.raises(ModelError, match=word):
        check_entries(given, second.state_dict(), 'file')


def scene_entries(classes=None):
    entries = {f'{VIT}embeddings.cls_token': torch.zeros(1, 1, 768)}
    if classes is not None:
        entries['encoder.cide_module.embeddings'] = torch.empty(classes, 768, device='meta')
    return {'model': entries}


@pytest.mark.parametrize(
    ('classes', 'wanted', 'variant'),
    [
        (100, None, 'v1-indoor'),
        (200, None, 'v1-outdoor'),
        (200, 'v1-outdoor', 'v1-outdoor'),
        (None, 'v2-indoor', 'v2-indoor'),
        (None, 'v2-outdoor', 'v2-outdoor'),
    ],
)
def test_variant_is_inferred_or_taken_from_the_user(spec, classes, wanted, variant):
    assert spec.infer(scene_entries(classes), wanted) == Identity(variant)


@pytest.mark.parametrize(
    ('files', 'wanted', 'word'),
    [
        (scene_entries(), None, 'Give --variant'),
        (scene_entries(), 'v1-indoor', 'version 2'),
        (scene_entries(100), 'v1-outdoor', '100 kinds'),
        (scene_entries(100), 'v2-indoor', '100 kinds'),
        (scene_entries(7), None, '7 kinds'),
        (scene_entries(0), 'v2-indoor', ' 0 kinds'),
        ({'model': {'encoder.conv1.weight': torch.ones(1)}}, 'v2-indoor', 'no scene classifier'),
        ({}, None, 'no scene classifier'),
    ],
)
def test_files_of_no_variant_or_of_another_are_refused(spec, files, wanted, word):
    with pytest.raises(ModelError, match=word):
        spec.infer(files, wanted)


@pytest.mark.parametrize('variant', LAYOUTS)
def test_parameters_are_as_many_as_released_less_the_unused(spec, variant):
    with torch.device('meta'):
        network = registry.build('ecodepth', Identity(variant))
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[variant]


def test_only_the_comparison_keeps_the_unused_head_of_version_2(spec):
    with torch.device('meta'):
        compared = conformance_case('ecodepth_v2_indoor').network
        served = registry.build('ecodepth', Identity('v2-indoor'))
    extra = set(compared.state_dict()) - set(served.state_dict())
    assert {key.rsplit('.', 2)[1] for key in extra} == {'layernorm', 'classifier'}
    assert conformance_case('ecodepth_v3_indoor') is None
    assert conformance_case('midas_v21_384') is None


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


@pytest.mark.parametrize(
    ('variant', 'size', 'focal_px', 'most'),
    [
        ('v1-indoor', (480, 640), 518.8579, 10.0),
        ('v2-indoor', (240, 320), 518.8579 / 2, 10.0),
        ('v1-outdoor', (352, 1216), 721.5377, 80.0),
        ('v2-outdoor', (176, 608), 721.5377 / 2, 80.0),
    ],
)
def test_card_gives_metres_for_the_focal_length_of_training(spec, variant, size, focal_px, most):
    meaning = spec.meaning(Identity(variant), {}, size)
    assert meaning.output.kind == 'metric'
    assert meaning.focal_px == pytest.approx(focal_px)
    assert meaning.output.max_depth_m == most
    assert 'too slow' in meaning.notes


def test_releases_name_every_variant_and_the_licence_its_limits(spec):
    assert {release.identity.variant for release in spec.releases} == set(LAYOUTS)
    assert {(r.height, r.width) for r in spec.releases} == {(480, 640), (352, 1216)}
    assert all('recalled' in r.protocol for r in spec.releases if r.figures)
    assert 'non-commercial' in spec.weights_license
    assert 'OpenRAIL' in spec.weights_license
