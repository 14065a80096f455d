from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from depth_node.errors import ModelError
from depth_node.networks import conformance
from depth_node.networks import registry
from depth_node.networks import sqldepth
from depth_node.networks.blocks import doubled
from depth_node.networks.checkpoint import load_released
from depth_node.networks.convnext import ConvNeXt
from depth_node.networks.convnext import ConvNeXtLayout
from depth_node.networks.efficientnet import EFFICIENTNET_B5
from depth_node.networks.efficientnet import EFFICIENTNET_LITE3
from depth_node.networks.efficientnet import BlockLayout
from depth_node.networks.efficientnet import EfficientNet
from depth_node.networks.efficientnet import EfficientNetLayout
from depth_node.networks.efficientnet import SameConv
from depth_node.networks.efficientnet import same_padding
from depth_node.networks.export import export_onnx
from depth_node.networks.initialization import WithoutDrawing
from depth_node.networks.rewrites import linearized
from depth_node.networks.specification import Identity
from depth_node.networks.sqldepth import LAYOUTS
from depth_node.networks.sqldepth import BorderedDecoder
from depth_node.networks.sqldepth import EncoderLayer
from depth_node.networks.sqldepth import HeadLayout
from depth_node.networks.sqldepth import SelfQueryLayer
from depth_node.networks.sqldepth import SqlDepth
from depth_node.networks.sqldepth import UnetBlock
from depth_node.networks.sqldepth import UpStep
from depth_node.networks.sqldepth import energy_maps
from depth_node.networks.sqldepth import summaries

WEIGHTS = {
    'resnet50': 26_183_680 + 2_819_264,
    'efficientnet-b5': 35_380_176 + 10_322_240,
    'nyu-efficientnet-b5': 72_223_568 - 4096 + 9_672_456,
    'convnext-large': 238_411_488 + 3_738_816,
}
SMALL = {'patch_size': 2, 'queries': 6, 'bins': 5, 'feed_forward': 12, 'dim': 8}
SMALL_HEAD = HeadLayout(**SMALL)

OUTSIDE = {
    'resnet50': ('backbone.', 'encoder.encoder.'),
    'efficientnet-b5': ('backbone.', 'encoder.'),
    'nyu-efficientnet-b5': ('backbone.', 'encoder.original_model.'),
    'convnext-large': (r'backbone\.(stem|stages)\.(\d)', r'encoder.\1_\2'),
}
HEAD_OUTSIDE = (
    (r'^head\.', ''),
    (r'^layers\.', 'transformer_encoder.layers.'),
    (r'self_attn\.qkv\.', 'self_attn.in_proj_'),
    (r'self_attn\.proj\.', 'self_attn.out_proj.'),
    (r'^patch_embedding\.', 'embedding_convPxP.'),
    (r'^to_bins\.', 'convert_to_prob.0.'),
)


@pytest.fixture(scope='module')
def spec():
    return registry.spec('sqldepth')


@pytest.fixture
def tiny(monkeypatch):
    """A variant whose EfficientNet has one narrow block in each stage."""
    wide = (4, 4, 8, 8, 8, 12, 12)
    blocks = tuple(
        dataclasses.replace(block, channels=channels, repeats=1, expansion=1)
        for block, channels in zip(EFFICIENTNET_B5.blocks, wide, strict=True)
    )
    backbone = EfficientNetLayout(stem=8, blocks=blocks, activation='silu')
    layout = dataclasses.replace(
        LAYOUTS['efficientnet-b5'],
        backbone=lambda: EfficientNet(backbone),
        channels=(4, 4, 8, 8, 12),
        unet_widths=(8, 8, 8, 8, 8),
    )
    monkeypatch.setitem(LAYOUTS, 'tiny', layout)
    halved = dataclasses.replace(layout, decoder_width=16, feature_stride=2)
    monkeypatch.setitem(LAYOUTS, 'tiny-bordered', halved)


def made(variant='tiny', decoder_width=None):
    head = dataclasses.replace(SMALL_HEAD, patch_size=4)
    network = SqlDepth(variant, head, decoder_width).eval()
    conformance.fill(network)
    return network


def on_meta(variant, **options):
    with torch.device('meta'):
        return registry.build('sqldepth', Identity(variant, options))


def released(variant, network, **extra):
    """Entries of both files under the names that the authors gave them."""
    encoder, depth = dict(extra), {}
    pattern, theirs = OUTSIDE[variant]
    for key, value in network.state_dict().items():
        if key.startswith('head.'):
            for ours, outside in HEAD_OUTSIDE:
                key = re.sub(ours, outside, key)
            depth[key] = value
        else:
            key = re.sub(f'^{pattern}', theirs, key)
            encoder[re.sub(r'(up\d)\.net\.', r'\1._net.', key)] = value
    return {'encoder': encoder, 'depth': depth}


def leftover(variant):
    """Entries that the authors' files hold and nobody reads."""
    if variant == 'resnet50':
        fc = 'encoder.encoder.fc.'
        return {f'{fc}weight': torch.zeros(2, 2), f'{fc}bias': torch.zeros(2)}
    if variant == 'nyu-efficientnet-b5':
        parts = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
        return {f'encoder.original_model.bn2.{part}': torch.zeros(2) for part in parts}
    return {}


# promises


@pytest.mark.parametrize('variant', WEIGHTS)
def test_variant_has_as_many_weights_as_the_published_one(variant):
    assert sum(weight.numel() for weight in on_meta(variant).parameters()) == WEIGHTS[variant]


@pytest.mark.parametrize('variant', WEIGHTS)
def test_released_names_and_shapes_tell_the_variant_and_fill_it(spec, variant):
    network = on_meta(variant)
    files = released(variant, network, **leftover(variant))
    identity = spec.infer(files, None)
    assert identity.variant == variant
    assert identity == spec.infer(files, variant)
    head = LAYOUTS[variant].head
    for option in ('patch_size', 'queries', 'bins', 'feed_forward', 'dim'):
        assert identity.options[option] == getattr(head, option)
    translated = spec.translate(files, identity)
    state = network.state_dict()
    assert translated.keys() == state.keys()
    assert all(translated[key].shape == state[key].shape for key in state)


def test_every_release_is_built_and_takes_its_size(spec):
    for release in spec.releases:
        network = on_meta(release.identity.variant, **release.identity.options)
        network.check_size(release.height, release.width)
        files = released(release.identity.variant, network)
        assert spec.infer(files, None) == release.identity


def test_released_files_on_disk_fill_the_network(spec, tmp_path):
    with WithoutDrawing():
        source = registry.build('sqldepth', Identity('resnet50', {**SMALL, 'decoder_width': 32}))
    for value in source.state_dict().values():
        value.zero_()
    conformance.fill(source.head)
    extra = {'height': 192, 'width': 640, 'use_stereo': True, **leftover('resnet50')}
    files = released('resnet50', source, **extra)
    for part, entries in files.items():
        torch.save(entries, tmp_path / f'{part}.pth')
    paths = {part: tmp_path / f'{part}.pth' for part in files}
    found = load_released(spec, paths)
    assert found.identity == Identity('resnet50', {**SMALL, 'decoder_width': 32})
    assert found.training_size == (192, 640)
    for key, value in source.state_dict().items():
        assert torch.equal(found.network.state_dict()[key], value), key


@pytest.mark.parametrize('variant', ['tiny', 'tiny-bordered'])
def test_depth_is_at_full_size_and_inside_the_range(tiny, variant):
    network = made(variant, 16 if variant == 'tiny-bordered' else None)
    with torch.no_grad():
        depth = network(torch.rand(2, 3, 32, 64))[0]
    assert depth.shape == (2, 1, 32, 64)
    assert 0.001 < depth.min() < depth.max() < 80.0
    assert depth.std() > 0


def test_half_size_depth_is_doubled_in_inverse_depth(tiny):
    network, image = made('tiny-bordered', 16), torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        half = network.head(network.decoded(image))
        assert half.shape[-2:] == (16, 32)
        assert torch.equal(network(image)[0], 1 / doubled(1 / half))


@pytest.mark.parametrize('variant', ['tiny', 'tiny-bordered'])
def test_every_weight_gets_a_gradient(tiny, variant):
    network = made(variant, 16 if variant == 'tiny-bordered' else None).train()
    network(torch.rand(2, 3, 64, 64))[0].log().mean().backward()
    assert [key for key, weight in network.named_parameters() if weight.grad is None] == []


def test_onnx_graph_gives_the_same_depth(tiny, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    network = made('tiny-bordered', 16)
    path, image = tmp_path / 'graph.onnx', torch.rand(1, 3, 64, 64)
    export_onnx(linearized(network, 64, 64), 64, 64, path)
    with torch.no_grad():
        expected = network(image)[0].numpy()
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    given = session.run(None, {'image': image.numpy()})[0]
    assert np.abs(given - expected).max() < 1e-3 * expected.std()


def test_depth_is_direct_and_of_no_scale_that_is_vouched_for(spec):
    for release in spec.releases:
        meaning = spec.meaning(release.identity, {}, (release.height, release.width))
        assert (meaning.output.kind, meaning.focal_px) == ('metric', None)
        assert 'median' in meaning.notes
    indoors = spec.meaning(Identity('nyu-efficientnet-b5'), {}, (480, 640))
    assert indoors.output.max_depth_m == 10.0


# arithmetic


def test_transformer_layer_is_that_of_torch():
    theirs = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True).eval()
    conformance.fill(theirs)
    prefix = 'transformer_encoder.layers.0.'
    depth = {f'{prefix}{key}': value for key, value in theirs.state_dict().items()}
    translated = sqldepth.translate({'depth': depth}, Identity('resnet50'))
    ours = EncoderLayer(32, 48).eval()
    ours.load_state_dict({k.removeprefix('head.layers.0.'): v for k, v in translated.items()})
    tokens = torch.randn(2, 7, 32)
    with torch.no_grad():
        assert torch.allclose(ours(tokens), theirs(tokens), atol=2e-6)


def test_queries_come_from_the_top_rows_only():
    head = SelfQueryLayer(SMALL_HEAD).eval()
    head.layers = nn.Identity()
    features = torch.randn(1, 8, 6, 8)  # 3 rows of 4 patches
    with torch.no_grad():
        before = head.queries(features)
        features[:, :, 4:] += 1  # patches 8 to 11
        features[:, :, 2:4, 4:] += 1  # patches 6 and 7
        assert torch.equal(head.queries(features), before)
        features[:, :, 2:4, 2:4] += 1  # patch 5, the last query
        after = head.queries(features)
    assert torch.equal(after[:, :5], before[:, :5])
    assert not torch.allclose(after[:, 5], before[:, 5])


def test_patches_that_are_not_whole_are_left_out():
    head = SelfQueryLayer(SMALL_HEAD).eval()
    features = torch.randn(1, 8, 5, 7)
    with torch.no_grad():
        assert torch.equal(head.queries(features), head.queries(features[:, :, :4, :6]))


def test_summaries_are_means_weighted_by_the_softmax_over_pixels():
    queries, pixels = torch.randn(2, 6, 8), torch.randn(2, 35, 8)
    weights = energy_maps(queries, pixels).softmax(2)
    expected = torch.einsum('bqn,bne->bqe', weights, pixels)
    assert torch.allclose(summaries(queries, pixels), expected, atol=1e-5)


def test_probabilities_are_those_of_the_convolved_energy_maps():
    head = SelfQueryLayer(SMALL_HEAD).eval()
    queries, pixels = torch.randn(2, 6, 8), torch.randn(2, 35, 8)
    with torch.no_grad():
        maps = energy_maps(queries, pixels).unflatten(2, (5, 7))
        expected = head.to_bins(maps).softmax(1).flatten(2)
        given = head.probabilities(queries, pixels).mT.unflatten(2, (5, 7))
        assert torch.allclose(given, expected.unflatten(2, (5, 7)), atol=1e-6)


def test_bins_fill_the_range_and_negative_logits_give_the_smallest():
    layout = dataclasses.replace(SMALL_HEAD, bins=3, min_depth_m=2.0, max_depth_m=14.0)
    head = SelfQueryLayer(layout)
    # shares 0.1, 0.4 and 0.7 of 1.2, of 12 metres: edges 2, 3, 7, 14
    centres = head.centres(torch.tensor([[-5.0, 0.3, 0.6]]))
    assert centres[0].tolist() == pytest.approx([2.5, 5.0, 10.5])


def test_deepest_feature_gets_a_border_of_bare_biases():
    decoder = BorderedDecoder((4, 4, 4, 4, 6), 16, 8)
    conformance.fill(decoder)
    with torch.no_grad():
        mapped = decoder.conv2(torch.rand(1, 6, 2, 3))
    assert mapped.shape == (1, 16, 4, 5)
    assert torch.equal(mapped[0, :, 0, 0], decoder.conv2.bias)
    assert torch.equal(mapped[0, :, 3, 2], decoder.conv2.bias)
    assert not torch.equal(mapped[0, :, 1, 1], decoder.conv2.bias)


def test_corners_stay_corners_only_where_there_is_a_skip():
    block = UnetBlock(2, 2)
    block.conv1, block.conv2 = nn.Identity(), nn.Identity()
    x = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    with_skip = block(x, torch.zeros(1, 3, 2, 4))
    assert with_skip.shape == (1, 4, 2, 4)
    assert with_skip[0, 0, 0].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert block(x, None)[0, 0, 0].tolist() == pytest.approx([0, 0.25, 0.75, 1])
    step = UpStep(2, 2)
    step.net = nn.Identity()
    assert step(x, torch.zeros(1, 1, 1, 3))[0, 0, 0].tolist() == pytest.approx([0, 0.5, 1])


def test_only_the_resnet_normalises_its_image():
    for variant in WEIGHTS:
        mean = LAYOUTS[variant].traits.mean
        assert mean == ((0.45,) * 3 if variant == 'resnet50' else (0.0,) * 3)


@pytest.mark.parametrize(
    ('side', 'kernel', 'stride', 'padding'),
    [
        (8, 3, 2, (0, 1)),
        (7, 3, 2, (1, 1)),
        (8, 5, 2, (1, 2)),
        (7, 5, 2, (2, 2)),
        (8, 3, 1, (1, 1)),
        (8, 1, 1, (0, 0)),
        (1, 5, 2, (2, 2)),
    ],
)
def test_padding_is_that_of_tensorflow(side, kernel, stride, padding):
    assert same_padding(side, kernel, stride) == padding


def test_odd_zeros_come_last():
    conv = SameConv(1, 1, 3, 2)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 1, 1] = 1.0
        even = conv(torch.arange(16.0).reshape(1, 1, 4, 4))
        mixed = conv(torch.arange(20.0).reshape(1, 1, 4, 5))
    assert even[0, 0].tolist() == [[5, 7], [13, 15]]
    assert mixed[0, 0].tolist() == [[5, 7, 9], [15, 17, 19]]


def test_features_of_efficientnet_have_the_announced_shapes(tiny):
    layout = LAYOUTS['tiny']
    features = layout.backbone().eval()(torch.rand(1, 3, 64, 96))
    strides = [64 // feature.shape[-2] for feature in features]
    assert strides == [2, 2, 4, 8, 16, 16, 32, 32]
    assert [f.shape[1] for f in features] == [8, 4, 4, 8, 8, 8, 12, 12]


def test_efficientnets_take_the_constants_of_tensorflow():
    with torch.device('meta'):
        networks = [EfficientNet(layout) for layout in (EFFICIENTNET_B5, EFFICIENTNET_LITE3)]
    for network in networks:
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {norm.eps for norm in norms} == {1e-3}
    assert networks[0].blocks[1][0].se.conv_reduce.out_channels == 6  # a quarter of the input
    assert networks[1].blocks[1][0].se is None
    assert networks[1].activation is F.relu6


def test_head_of_efficientnet_is_not_normalised():
    block = BlockLayout('ds', 3, 2, 1, 4, 1, squeeze_excite=False)
    network = EfficientNet(EfficientNetLayout(4, (block,), 'silu', head=6)).eval()
    features = network(torch.rand(1, 3, 16, 16))
    assert torch.equal(features[-1], F.conv2d(features[-2], network.conv_head.weight))
    assert not [key for key in network.state_dict() if key.startswith('bn2')]


def test_features_of_convnext_have_the_announced_shapes():
    network = ConvNeXt(ConvNeXtLayout((4, 8, 12, 16), (1, 1, 2, 1))).eval()
    features = network(torch.rand(1, 3, 64, 96))
    shapes = [tuple(feature.shape[1:]) for feature in features]
    assert shapes == [(4, 16, 24), (8, 8, 12), (12, 4, 6), (16, 2, 3)]
    norms = [m for m in network.modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 1 + 3 + 5
    assert {norm.eps for norm in norms} == {1e-6}


def test_convnext_block_is_scaled_and_added():
    network = ConvNeXt(ConvNeXtLayout((4, 4, 4, 4), (1, 0, 0, 0))).eval()
    block, x = network.stages[0].blocks[0], torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        block.gamma.zero_()
        assert torch.equal(block(x), x)
        block.gamma.fill_(1.0)
        y = F.layer_norm(block.conv_dw(x).permute(0, 2, 3, 1), (4,), block.norm.weight, eps=1e-6)
        expected = x + block.mlp.fc2(F.gelu(block.mlp.fc1(y))).permute(0, 3, 1, 2)
        assert torch.allclose(block(x), expected, atol=1e-6)


# faults


@pytest.mark.parametrize(
    ('variant', 'height', 'width', 'word'),
    [
        ('resnet50', 192, 600, 'multiples of 32'),
        ('resnet50', 192, 320, '60 patches of 32x32'),
        ('resnet50', 1024, 1024, '1024 patches'),
        ('efficientnet-b5', 192, 640, '120 patches'),
        ('convnext-large', 192, 640, '30 patches of 64x64'),
        ('nyu-efficientnet-b5', 320, 320, '64 patches of 40x40'),
    ],
)
def test_sizes_with_too_few_or_too_many_patches_are_refused(variant, height, width, word):
    network = on_meta(variant)
    with pytest.raises(ModelError, match=word):
        network(torch.zeros(1, 3, height, width, device='meta'))


@pytest.mark.parametrize(
    ('variant', 'options', 'word'),
    [
        ('resnet18', {}, 'variant'),
        ('resnet50', {'patch': 16}, 'patch'),
        ('resnet50', {'patch_size': 0}, 'patch_size'),
        ('resnet50', {'queries': 501}, 'queries'),
        ('resnet50', {'bins': 64.0}, 'bins'),
        ('resnet50', {'bins': True}, 'bins'),
        ('resnet50', {'dim': 30}, 'multiple of 4'),
        ('resnet50', {'decoder_width': 250}, 'multiple of 16'),
        ('convnext-large', {'decoder_width': 256}, 'decoder_width'),
        ('resnet50', {'min_depth_m': 0.0}, 'min_depth_m'),
        ('resnet50', {'min_depth_m': 90}, 'max_depth_m'),
        ('resnet50', {'max_depth_m': float('nan')}, 'max_depth_m'),
        ('resnet50', {'max_depth_m': '80'}, 'max_depth_m'),
    ],
)
def test_options_out_of_range_are_refused(variant, options, word):
    with pytest.raises(ModelError, match=word):
        on_meta(variant, **options)


def test_files_of_no_variant_or_of_another_are_refused(spec):
    files = released('resnet50', on_meta('resnet50'))
    with pytest.raises(ModelError, match='names of resnet50'):
        spec.infer(files, 'efficientnet-b5')
    with pytest.raises(ModelError, match='no variant'):
        spec.infer({'encoder': {}, 'depth': files['depth']}, None)
    both = {**files['encoder'], 'encoder.stem_0.weight': torch.zeros(1)}
    with pytest.raises(ModelError, match='resnet50 and convnext-large'):
        spec.infer({**files, 'encoder': both}, None)


@pytest.mark.parametrize('value', [None, torch.zeros(3), 'text'])
@pytest.mark.parametrize('key', ['convert_to_prob.0.weight', 'positional_encodings'])
def test_files_without_the_shapes_that_tell_sizes_are_refused_by_name(spec, key, value):
    files = released('resnet50', on_meta('resnet50'))
    files['depth'][key] = value
    with pytest.raises(ModelError, match=re.escape(key)):
        spec.infer(files, None)


def test_entries_that_no_layer_knows_stay_in_to_be_refused(spec):
    files = released('convnext-large', on_meta('convnext-large'))
    files['encoder']['encoder.head.weight'] = torch.zeros(1)
    files['depth']['refine.weight'] = torch.zeros(1)
    translated = spec.translate(files, Identity('convnext-large'))
    state = on_meta('convnext-large').state_dict()
    assert sorted(set(translated) - set(state)) == ['encoder.head.weight', 'head.refine.weight']


def test_names_of_other_vectors_are_not_claimed(spec):
    assert spec.conformance_case('litemono_640x192') is None
    assert spec.conformance_case('sqldepth_resnet50_800x600') is None
