"""MiDaS: import of the released layouts, arithmetic that is easily got wrong, sizes, export."""

import functools
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from depth_node.errors import ModelError
from depth_node.networks import conformance
from depth_node.networks import midas
from depth_node.networks import registry
from depth_node.networks.beit import Beit
from depth_node.networks.beit import BeitAttention
from depth_node.networks.beit import BiasTable
from depth_node.networks.beit import relative_rows
from depth_node.networks.checkpoint import check_entries
from depth_node.networks.checkpoint import load_released
from depth_node.networks.dpt_vit import HybridEmbedding
from depth_node.networks.dpt_vit import PatchEmbedding
from depth_node.networks.dpt_vit import PositionTable
from depth_node.networks.dpt_vit import Reassembly
from depth_node.networks.dpt_vit import VisionTransformer
from depth_node.networks.export import export_onnx
from depth_node.networks.midas import LAYOUTS
from depth_node.networks.midas import TRAITS
from depth_node.networks.midas import Layout
from depth_node.networks.midas import Midas
from depth_node.networks.midas_decoder import DecoderLayout
from depth_node.networks.midas_decoder import Doubling
from depth_node.networks.midas_decoder import DptDecoder
from depth_node.networks.midas_decoder import Fusion
from depth_node.networks.midas_decoder import ResidualUnit
from depth_node.networks.resnet_v2 import ResNetV2
from depth_node.networks.resnet_v2 import StandardizedConv
from depth_node.networks.rewrites import linearized
from depth_node.networks.specification import Identity

PARAMETERS = {
    'v21-small': 21_320_545,
    'v21-large': 105_362_945,
    'dpt-hybrid': 123_146_985,
    'dpt-large': 344_055_465,
    'dpt-beit-base-384': 111_531_689,
    'dpt-beit-large-384': 344_338_601,
    'dpt-beit-large-512': 345_014_441,
}
TINY_TAPS = {0: (1, 8), 1: (2, 8), 2: (3, 16), 3: (4, 16)}
TINY_HYBRID_TAPS = {0: (3, 16), 1: (4, 16)}

SMALL_NAMES = {
    r'conv_stem\.': 'layer1.0.',
    r'bn1\.': 'layer1.1.',
    r'blocks\.0\.': 'layer1.3.',
    r'blocks\.1\.': 'layer1.4.',
    r'blocks\.2\.': 'layer2.0.',
    r'blocks\.3\.': 'layer3.0.',
    r'blocks\.4\.': 'layer3.1.',
    r'blocks\.5\.': 'layer4.0.',
    r'blocks\.6\.': 'layer4.1.',
}
LARGE_NAMES = {r'layer1\.': 'layer1.4.', r'conv1\.': 'layer1.0.', r'bn1\.': 'layer1.1.'}
TIMM_NAMES = {
    r'act_postprocess(\d)\.project\.': r'act_postprocess\1.0.project.0.',
    r'act_postprocess(\d)\.conv\.': r'act_postprocess\1.3.',
    r'act_postprocess(\d)\.resample\.': r'act_postprocess\1.4.',
    r'positions\.pos_embed': 'model.pos_embed',
    r'(.*\.attn)\.positions\.': r'model.\1.',
    r'': 'model.',
}


@pytest.fixture(scope='module')
def spec():
    return registry.spec('midas')


@functools.cache
def on_meta(variant):
    with torch.device('meta'):
        return Midas(variant).eval()


def filled(network):
    conformance.fill(network)
    return network.eval()


@pytest.fixture(scope='module')
def small():
    return filled(Midas('v21-small'))


def tiny(variant, monkeypatch):
    """Return a network that is built as ``variant`` is, with hardly any layers."""
    backbones = {
        'dpt-large': lambda: VisionTransformer(PatchEmbedding(16), 16, 4, 2, TINY_TAPS),
        'dpt-hybrid': lambda: VisionTransformer(HybridEmbedding(16), 16, 2, 2, TINY_HYBRID_TAPS),
        'dpt-beit-base-384': lambda: Beit(16, 4, 2, 4, TINY_TAPS),
    }
    skips = (256, 512, 16, 16) if variant == 'dpt-hybrid' else (8, 8, 16, 16)
    decoder = DecoderLayout(skips, widths=(8, 8, 8, 8), head=(8, 4))
    full = LAYOUTS[variant]
    layout = Layout(backbones[variant], full.translator, decoder, full.mark)
    monkeypatch.setitem(LAYOUTS, variant, layout)
    return filled(Midas(variant))


def released(network, variant):
    """Return the entries as the authors' files name them, with all that our network leaves out."""
    names = {'v21-small': SMALL_NAMES, 'v21-large': LARGE_NAMES}.get(variant, TIMM_NAMES)
    entries = {}
    for key, value in network.state_dict().items():
        attribute, inner = key.split('.', 1)
        if attribute == 'backbone':
            for ours, theirs in names.items():
                if re.match(ours, inner):
                    inner = re.sub(f'^{ours}', theirs, inner, count=1)
                    break
            entries[f'pretrained.{inner}'] = value
        else:
            entries[f'scratch.{inner}'] = value
    coarsest = network.decoder.levels
    for name, value in network.decoder.state_dict().items():
        if name.startswith(f'refinenet{coarsest}.resConfUnit2.'):
            entries[f'scratch.{name.replace("Unit2", "Unit1")}'] = torch.zeros_like(value)
    if variant.startswith('dpt'):
        like = next(iter(entries.values()))
        for name in ('norm.weight', 'norm.bias', 'head.weight', 'head.bias'):
            entries[f'pretrained.model.{name}'] = torch.zeros_like(like)
    if 'beit' in variant:
        for key in [key for key in entries if key.endswith('_bias_table')]:
            index = key.replace('_bias_table', '_index')
            entries[index] = torch.zeros(3, 3, dtype=torch.int64)
        entries['pretrained.model.fc_norm.weight'] = torch.zeros(3)
    return entries


def test_parameters_are_those_of_the_authors_less_what_is_unused():
    for variant, count in PARAMETERS.items():
        network = on_meta(variant)
        unit = network.decoder.get_submodule(f'refinenet{network.decoder.levels}.resConfUnit2')
        unused = sum(value.numel() for value in unit.parameters())
        if variant.startswith('dpt'):
            width = network.backbone.cls_token.shape[-1]
            unused += 2 * width + 1000 * width + 1000  # last normalisation, classifier
        ours = sum(value.numel() for value in network.parameters())
        assert ours + unused == count, variant


@pytest.mark.parametrize('variant', LAYOUTS)
def test_variant_of_a_released_file_is_told(spec, variant):
    files = {'model': released(on_meta(variant), variant)}
    assert spec.infer(files, None) == Identity(variant)
    assert spec.infer(files, variant) == Identity(variant)
    other = 'dpt-large' if variant != 'dpt-large' else 'dpt-hybrid'
    with pytest.raises(ModelError, match=f'{variant}, expected those of {other}'):
        spec.infer(files, other)


@pytest.mark.parametrize('variant', PARAMETERS)
def test_released_names_become_ours_and_unused_ones_vanish(spec, variant):
    network = on_meta(variant)
    entries = released(network, variant)
    translated = spec.translate({'model': entries}, Identity(variant))
    state = network.state_dict()
    assert set(translated) == set(state)
    assert all(translated[key].shape == value.shape for key, value in state.items())
    assert len(entries) > len(state)


@pytest.mark.parametrize(
    ('entries', 'word'),
    [
        ({}, '0 entries'),
        ({'encoder.conv1.weight': torch.zeros(64, 3, 7, 7)}, r'encoder\.conv1'),
        ({'pretrained.layer1.0.weight': torch.zeros(48, 3, 3, 3)}, 'mark no variant'),
        ({'pretrained.layer1.0.weight': 'text'}, 'mark no variant'),
        ({'pretrained.model.stem.0.conv.weight': torch.zeros(1)}, 'Next-ViT'),
        ({'pretrained.model.pos_embed': torch.zeros(1, 197, 1024)}, 'mark no variant'),
    ],
)
def test_files_of_no_variant_are_refused(spec, entries, word):
    with pytest.raises(ModelError, match=word):
        spec.infer({'model': entries}, None)


@pytest.mark.parametrize('wrapper', ['flat', 'optimizer', 'parallel'])
def test_released_file_is_loaded_however_it_is_wrapped(tmp_path, spec, small, wrapper):
    entries = released(small, 'v21-small')
    if wrapper == 'optimizer':
        entries = {'optimizer': {'state': {}, 'param_groups': []}, 'model': entries}
    if wrapper == 'parallel':
        entries = {f'module.{key}': value for key, value in entries.items()}
    path = tmp_path / 'midas_v21_small_256.pt'
    torch.save(entries, path)
    loaded = load_released(spec, {'model': path})
    assert loaded.identity == Identity('v21-small')
    for key, value in small.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], value), key


def test_entry_that_is_not_of_the_network_is_refused_by_name(spec, monkeypatch):
    network = tiny('dpt-beit-base-384', monkeypatch)
    entries = released(network, 'dpt-beit-base-384')
    entries['pretrained.model.blocks.0.attn.k_bias'] = torch.zeros(768)
    entries['scratch.refinenet5.out_conv.bias'] = torch.zeros(256)
    entries['other'] = torch.zeros(1)
    translated = spec.translate({'model': entries}, Identity('dpt-beit-base-384'))
    unexpected = set(translated) - set(network.state_dict())
    assert {name.rsplit('.', 1)[-1] for name in unexpected} == {'k_bias', 'bias', 'other'}
    with pytest.raises(ModelError, match='3 unexpected'):
        check_entries(translated, network.state_dict(), 'file')


@pytest.mark.parametrize('adds_rectified', [False, True])
def test_shortcut_of_a_residual_unit_is_what_its_relu_left_only_in_large_v21(adds_rectified):
    unit, x = filled(ResidualUnit(4, adds_rectified=adds_rectified)), torch.randn(1, 4, 5, 6)
    before = x.clone()
    with torch.no_grad():
        branch = unit.conv2(F.relu(unit.conv1(F.relu(x))))
        assert torch.equal(unit(x), branch + (F.relu(x) if adds_rectified else x))
    assert torch.equal(x, before)
    rectifying = {name for name, made in LAYOUTS.items() if made.decoder.adds_rectified}
    assert rectifying == {'v21-large'}


def test_pointwise_convolution_commutes_with_the_resize_of_a_fusion():
    fusion = filled(Fusion(8, 4, has_skip=True, adds_rectified=False)).double()
    x, skip = torch.randn(2, 1, 8, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        refined = fusion.resConfUnit2(x + fusion.resConfUnit1(skip))
        resized = F.interpolate(refined, (9, 13), mode='bilinear', align_corners=True)
        expected = fusion.out_conv(resized)
        assert (fusion(x, skip, (9, 13)) - expected).abs().max() < 1e-12


def test_head_of_v21_alone_keeps_corners_instead_of_corner_pixels():
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    aligned, centred = Doubling(aligned=True)(ramp), Doubling(aligned=False)(ramp)
    assert aligned[0, 0, 0].numpy() == pytest.approx(np.linspace(0, 3, 8), abs=1e-6)
    assert centred[0, 0, 0, :3].numpy() == pytest.approx([0, 0.25, 0.75])
    for variant, layout in LAYOUTS.items():
        assert layout.decoder.aligned_head == (not variant.startswith('v21'))
        with torch.device('meta'):
            assert DptDecoder(layout.decoder).output_conv[1].aligned == layout.decoder.aligned_head


def test_three_odd_levels_and_transposed_convolutions_end_at_full_size():
    decoder = filled(DptDecoder(DecoderLayout((4, 5, 6), (8, 8, 8), (4, 2), transposed=(6, 4))))
    features = [torch.randn(1, c, s, s) for c, s in ((4, 14), (5, 7), (6, 4))]
    with torch.no_grad():
        stages = decoder.stages(features)
    sides = {name: value.shape[-1] for name, value in stages.items()}
    assert [sides[f'refinenet{level}'] for level in (3, 2, 1)] == [7, 14, 28]
    assert stages['pre_relu'].shape == (1, 1, 224, 224)
    assert 'refinenet4' not in stages


def test_positions_are_as_trained_on_the_training_grid_and_resized_elsewhere():
    table = PositionTable(3)
    grid = torch.arange(24.0)[:, None] + 100 * torch.arange(24.0)
    with torch.no_grad():
        table.pos_embed[0, 0] = -7
        table.pos_embed[0, 1:] = grid.reshape(-1, 1)
        assert torch.equal(table((24, 24)), table.pos_embed)
        resized = table((12, 48))
    assert resized.shape == (1, 1 + 12 * 48, 3)
    assert (resized[0, 0] == -7).all()
    plane = resized[0, 1:, 0].reshape(12, 48)
    assert plane[3, 0] == pytest.approx(6.5)  # half-way between rows 6 and 7, edge repeated
    assert plane[3, 5] == pytest.approx(6.5 + 100 * 2.25)


def test_readout_sees_token_and_class_token_side_by_side():
    layer, tokens = filled(Reassembly(8, 4, 3)), torch.randn(2, 7, 8)
    with torch.no_grad():
        joined = torch.cat((tokens[:, 1:], tokens[:, :1].expand(-1, 6, -1)), dim=2)
        projected = F.gelu(layer.project(joined))
        expected = layer.conv(projected.transpose(1, 2).reshape(2, 8, 2, 3))
        assert (layer(tokens, (2, 3)) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(('level', 'size'), [(1, (8, 16)), (2, (4, 8)), (3, (2, 4)), (4, (1, 2))])
def test_reassembled_features_have_the_size_of_their_level(level, size):
    assert Reassembly(8, 4, level)(torch.randn(1, 9, 8), (2, 4)).shape == (1, 4, *size)


def test_row_of_the_bias_table_follows_from_the_distance():
    height, width = 2, 3
    rows = relative_rows((height, width))
    last = (2 * height - 1) * (2 * width - 1)
    for query in range(height * width):
        for key in range(height * width):
            dy = query // width - key // width
            dx = query % width - key % width
            expected = (dy + height - 1) * (2 * width - 1) + dx + width - 1
            assert rows[1 + query, 1 + key] == expected
    assert (rows[0, 1:] == last).all()
    assert (rows[1:, 0] == last + 1).all()
    assert rows[0, 0] == last + 2


def test_bias_table_is_resized_but_for_the_rows_of_the_class_token():
    table = filled(BiasTable(4, 2))
    with torch.no_grad():
        assert torch.equal(table((4, 4)), table.relative_position_bias_table.t())
        resized = table((6, 2))
        plane = table.relative_position_bias_table[:-3].reshape(7, 7, 2).permute(2, 0, 1)
        expected = F.interpolate(plane[None], (11, 3), mode='bilinear', align_corners=False)[0]
    assert torch.equal(resized[:, :-3], expected.flatten(1))
    assert torch.equal(resized[:, -3:], table.relative_position_bias_table[-3:].t())


def test_attention_of_beit_adds_the_bias_of_each_pair_and_none_to_keys():
    attention = filled(BeitAttention(8, 2, 3)).double()
    tokens, rows = torch.randn(1, 10, 8, dtype=torch.float64), relative_rows((3, 3))
    with torch.no_grad():
        query, key, value = (tokens @ attention.qkv.weight.t()).chunk(3, dim=2)
        query, value = query + attention.q_bias, value + attention.v_bias
        heads = []
        for head in range(2):
            q, k, v = (part[0, :, 4 * head : 4 * head + 4] for part in (query, key, value))
            bias = attention.positions.relative_position_bias_table[rows, head]
            heads.append(torch.softmax(q @ k.t() / 2 + bias, dim=1) @ v)
        expected = attention.proj(torch.cat(heads, dim=1))
        given = attention(tokens, (3, 3), rows)[0]
    assert (given - expected).abs().max() < 1e-12


def test_filters_of_the_hybrid_are_standardised_once_or_in_every_pass():
    conv, x = filled(StandardizedConv(4, 6, 3, 2)), torch.randn(1, 4, 8, 9)
    weight = conv.standardized()
    assert weight.mean((1, 2, 3)).abs().max() < 1e-6
    assert weight.var((1, 2, 3), correction=0).detach().numpy() == pytest.approx(1, abs=1e-5)
    with torch.no_grad():
        assert (conv(x) - conv.fixed()(x)).abs().max() < 1e-6


def test_hybrid_pads_at_the_end_of_even_sides():
    network, x = filled(ResNetV2()), torch.randn(1, 3, 32, 48)
    pooled = []
    network.stages[0].register_forward_hook(lambda module, args, result: pooled.append(args[0]))
    with torch.no_grad():
        network(x)
        stem = network.stem
        convolved = F.conv2d(F.pad(x, (2, 3, 2, 3)), stem.conv.standardized(), stride=2)
        active = F.relu(stem.norm(convolved))
        expected = F.max_pool2d(F.pad(active, (0, 1, 0, 1), value=-torch.inf), 3, 2)
    assert torch.equal(pooled[0], expected)


def test_output_of_small_v21_is_inverse_depth_at_full_size(small):
    with torch.no_grad():
        (output,) = small(torch.rand(2, 3, 64, 96))
    assert output.shape == (2, 1, 64, 96)
    assert output.min() >= 0


@pytest.mark.parametrize(('height', 'width'), [(48, 64), (64, 40), (0, 32)])
def test_sizes_that_are_no_multiples_of_32_are_refused(small, height, width):
    with pytest.raises(ModelError, match='multiples of 32'):
        small.check_size(height, width)


@pytest.mark.parametrize(
    ('variant', 'side'),
    [('dpt-levit-224', 224), ('dpt-swin2-tiny-256', 256), ('dpt-swin-large-384', 384)],
)
def test_square_networks_refuse_other_sizes(spec, variant, side):
    network = on_meta(variant)
    network.check_size(side, side)
    with pytest.raises(ModelError, match=f'{side}x{side} pixels only'):
        network.check_size(side, side + 32)
    with pytest.raises(ModelError, match=f'{side}x{side} pixels only'):
        linearized(network, side - 32, side - 32)


@pytest.mark.parametrize('variant', ['dpt-large', 'dpt-hybrid', 'dpt-beit-base-384'])
def test_every_weight_of_a_transformer_gets_a_gradient(monkeypatch, variant):
    network = tiny(variant, monkeypatch).train()
    nn.init.ones_(network.decoder.output_conv[4].bias)
    network(torch.rand(1, 3, 64, 96))[0].mean().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_every_weight_of_small_v21_gets_a_gradient():
    network = Midas('v21-small').train()
    nn.init.ones_(network.decoder.output_conv[4].bias)
    network(torch.rand(2, 3, 64, 64))[0].mean().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


TRANSFORMERS = ('dpt-beit-base-384', 'dpt-large', 'dpt-hybrid')


@pytest.mark.parametrize('variant', TRANSFORMERS)
def test_fixed_size_changes_neither_output_nor_network(monkeypatch, variant):
    network, image = tiny(variant, monkeypatch), torch.rand(1, 3, 64, 96)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        expected = network(image)[0]
        plain = linearized(network, 64, 96)
        given = plain(network.normalized(image))
    assert (given - expected).abs().max() < 1e-5 * expected.std()
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    shared = {value.data_ptr() for value in network.parameters()}
    assert plain.network.backbone.blocks[0].mlp.fc1.weight.data_ptr() in shared


@pytest.mark.parametrize('variant', TRANSFORMERS)
def test_tables_of_a_fixed_size_are_no_longer_resized(monkeypatch, variant):
    network = tiny(variant, monkeypatch)
    plain, resize = linearized(network, 64, 96), F.interpolate
    modes = []

    def counted(*args, **kwargs):
        modes.append(kwargs['align_corners'])
        return resize(*args, **kwargs)

    monkeypatch.setattr(F, 'interpolate', counted)
    with torch.no_grad():
        plain(torch.rand(1, 3, 64, 96))
    assert modes == [True] * 5  # four fusions and the head


@pytest.mark.parametrize(
    'variant',
    [
        'dpt-beit-base-384',
        pytest.param('dpt-large', marks=pytest.mark.slow),
        pytest.param('dpt-hybrid', marks=pytest.mark.slow),
    ],
)
def test_exported_transformer_agrees(tmp_path, monkeypatch, variant):
    network, path = tiny(variant, monkeypatch), tmp_path / 'graph.onnx'
    export_onnx(linearized(network, 64, 96), 64, 96, path)
    check_graph(path, network, torch.rand(1, 3, 64, 96))


@pytest.mark.slow
def test_exported_small_v21_agrees(tmp_path, small):
    path = tmp_path / 'graph.onnx'
    export_onnx(linearized(small, 64, 96), 64, 96, path)
    check_graph(path, small, torch.rand(1, 3, 64, 96))


def check_graph(path, network, image):
    runtime = pytest.importorskip('onnxruntime')
    session = runtime.InferenceSession(path, providers=['CPUExecutionProvider'])
    given = session.run(None, {'image': network.normalized(image).numpy()})[0]
    with torch.no_grad():
        expected = network(image)[0].numpy()
    assert np.abs(given - expected).max() < 1e-4 * expected.std()


def test_releases_name_sizes_that_their_networks_take(spec):
    assert {release.identity.variant for release in spec.releases} == set(spec.variants)
    names = [release.name for release in spec.releases]
    assert len(set(names)) == len(names)
    for release in spec.releases:
        traits = TRAITS[release.identity.variant]
        size = (release.height, release.width)
        assert traits.fixed_size in (None, size)
        assert not any(side % traits.size_multiple for side in size)
        assert len(release.figures) == 6
        is_of_2023 = '/v3_1/' in release.source  # trained on KITTI and NYU as well
        assert ('not zero-shot' in release.protocol) == is_of_2023


def test_meaning_says_that_there_are_no_metres(spec):
    for variant, traits in spec.variants.items():
        given = spec.meaning(Identity(variant), {}, (384, 384))
        assert given.output.kind == traits.output_kind == 'relative'
        assert given.fit == ('native' if traits.fixed_size is None else 'stretch')
        assert 'no metres' in given.notes


def test_unknown_options_variants_and_vectors_are_refused():
    with pytest.raises(ModelError, match='no option'):
        registry.build('midas', Identity('v21-small', {'depth': 3}))
    with pytest.raises(ModelError, match='v21-small'):
        registry.build('midas', Identity('v3'))
    assert midas.conformance_case('dpt_next_vit_large_384') is None
