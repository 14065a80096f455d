import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from depth_node.networks import conformance
from depth_node.networks import swin
from depth_node.networks.export import export_onnx
from depth_node.networks.initialization import WithoutDrawing
from depth_node.networks.swin import CosineWindowAttention
from depth_node.networks.swin import Swin
from depth_node.networks.swin import SwinBlock
from depth_node.networks.swin import SwinLayout
from depth_node.networks.swin import WindowAttention

# grids of 16, 8, 4 and 2 tokens: two stages of several windows, two of one
SMALL = {
    1: SwinLayout(64, 8, (2, 2, 2, 1), (1, 2, 2, 4), 4, 1),
    2: SwinLayout(64, 8, (2, 2, 2, 1), (1, 2, 2, 4), 4, 2, (3, 3, 3, 2)),
}
PARAMETERS = {
    'swin_large_384': 195_195_444,
    'swin2_tiny_256': 27_576_618,
    'swin2_base_384': 86_891_768,
    'swin2_large_384': 195_199_860,
}


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def filled(layout):
    with WithoutDrawing():
        network = Swin(layout).eval()
    conformance.fill(network)
    return network


def on_meta(name):
    with torch.device('meta'):
        return getattr(swin, name)()


def released(network, *, late=False):
    """Return the entries of a network as timm names them, with all that no pass reads."""
    entries = {}
    for key, value in network.state_dict().items():
        if late and 'downsample' in key:
            stage = int(key.split('.')[1])
            key = key.replace(f'layers.{stage}.', f'layers.{stage + 1}.')
        entries[key] = value
    head = 'head.fc' if late else 'head'
    names = ['norm.weight', 'norm.bias', f'{head}.weight', f'{head}.bias']
    block = 'layers.0.blocks.1'
    names += [f'{block}.attn_mask', f'{block}.attn.relative_position_index']
    names += [f'{block}.attn.relative_coords_table']
    return {**entries, **{name: torch.zeros(2) for name in names}}


def translated(entries):
    rename = swin.translator(entries)
    renamed = {rename(key): value for key, value in entries.items()}
    renamed.pop(None)
    return renamed


def dense_attention(block, x):
    """Attend between all tokens of the grid at once, those of other windows left out by name."""
    attention, side, window, shift = block.attn, block.side, block.window, block.shift
    bias = attention.position_bias().reshape(attention.heads, *(window,) * 4)
    qkv = attention.qkv(x)
    tokens = list(itertools.product(range(side), range(side)))
    scores = torch.full((attention.heads, side**2, side**2), -math.inf)
    query, key, value = qkv.reshape(side**2, 3, attention.heads, -1).permute(1, 2, 0, 3)
    products = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
    # where a token lies before anything is rolled; the first window of an axis is cut to `shift`
    place = [(i - shift + window) for i in range(side)]
    for q, k in itertools.product(range(side**2), repeat=2):
        (qy, qx), (ky, kx) = tokens[q], tokens[k]
        same_row = place[qy] // window == place[ky] // window
        if same_row and place[qx] // window == place[kx] // window:
            at = (place[qy], place[qx], place[ky], place[kx])
            scores[:, q, k] = products[:, q, k] + bias[(slice(None), *(p % window for p in at))]
    mixed = torch.softmax(scores, dim=-1) @ value
    return attention.proj(mixed.transpose(0, 1).reshape(1, side, side, -1))


@pytest.mark.parametrize('shift', [0, 2])
def test_tokens_attend_to_their_window_and_never_across_the_border(shift):
    attention = WindowAttention(8, 2, 4)
    block = SwinBlock(8, 12, 4, shift, attention, norm_first=True).eval()
    conformance.fill(block)
    x = torch.randn(1, 12, 12, 8)
    with torch.no_grad():
        given, expected = block._in_windows(x), dense_attention(block, x)
    assert (given - expected).abs().max() < 1e-5


@pytest.mark.parametrize('version', SMALL)
def test_images_of_a_batch_do_not_mix(version):
    network, images = filled(SMALL[version]), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        together = network(images)
        alone = [network(image[None]) for image in images]
    for level, both in enumerate(together):
        separate = torch.cat([features[level] for features in alone])
        assert (both - separate).abs().max() < 1e-4 * both.std()


@pytest.mark.parametrize('version', SMALL)
def test_features_are_those_before_each_merging(version):
    network = filled(SMALL[version])
    with torch.no_grad():
        features = network(torch.randn(1, 3, 64, 64))
    shapes = [(1, 8 << level, 16 >> level, 16 >> level) for level in range(4)]
    assert [tuple(feature.shape) for feature in features] == shapes
    assert network.channels == (8, 16, 32, 64)
    with torch.no_grad():
        tokens = network.layers[0].downsample(features[0].permute(0, 2, 3, 1))
        again = network.layers[1].blocks(tokens).permute(0, 3, 1, 2)
    assert torch.equal(again, features[1])


@pytest.mark.parametrize(('name', 'count'), PARAMETERS.items())
def test_parameters_are_those_that_the_forward_pass_reads(name, count):
    network = on_meta(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(
    ('name', 'shifts'),
    [
        ('swin_large_384', (6, 6, 6, 0)),
        ('swin2_tiny_256', (8, 8, 0, 0)),
        ('swin2_base_384', (12, 12, 0, 0)),
    ],
)
def test_windows_that_cover_the_grid_are_not_shifted(name, shifts):
    layers = on_meta(name).layers
    assert tuple(stage.blocks[1].shift for stage in layers) == shifts
    assert not any(block.shift for stage in layers for block in stage.blocks[::2])
    assert [stage.blocks[1].mask is None for stage in layers] == [not shift for shift in shifts]


def test_relative_positions_count_rows_then_columns_from_key_to_query():
    index = swin.relative_positions(3).reshape(9, 9)
    assert index[0, 0] == 12
    assert index[0, 1] == 11
    assert index[1, 0] == 13
    assert index[0, 3] == 7
    assert index[8, 0] == 24
    assert index[0, 8] == 0


def test_coordinates_grow_as_logarithms_and_are_scaled_by_the_window_of_the_training():
    table = swin.log_coordinates(24, 12).reshape(47, 47, 2)
    assert table[23, 23].tolist() == [0.0, 0.0]
    assert table[23 + 11, 23 - 1].tolist() == pytest.approx(
        [math.log2(9) / 3, -math.log2(1 + 8 / 11) / 3]
    )
    assert swin.log_coordinates(24, 24).max() == pytest.approx(math.log2(9) / 3)


@pytest.mark.parametrize(
    ('name', 'trained'), [('swin2_tiny_256', (16, 16, 16, 8)), ('swin2_base_384', (12, 12, 12, 6))]
)
def test_windows_of_the_training_are_those_of_the_release(name, trained):
    with WithoutDrawing():
        network = getattr(swin, name)()
    for stage, window in zip(network.layers, trained, strict=True):
        block = stage.blocks[0]
        expected = swin.log_coordinates(block.window, window)
        assert torch.equal(block.attn.coordinates, expected)


def test_cut_windows_are_put_together_again():
    x = torch.randn(2, 8, 8, 3)
    windows = swin.windows_of(x, 4)
    assert torch.equal(windows[1, 1].reshape(4, 4, 3), x[1, :4, 4:])
    assert torch.equal(swin.grid_of(windows, 8, 4), x)


@pytest.mark.parametrize(('norm_first', 'expected'), [(True, 8), (False, 4)])
def test_neighbours_are_joined_column_by_column(norm_first, expected):
    merging = swin.PatchMerging(2, norm_first=norm_first)
    assert merging.norm.normalized_shape == (expected,)
    merging.norm, joined = nn.Identity(), nn.Identity()
    merging.reduction = joined
    x = torch.arange(4.0).reshape(1, 2, 2, 1).expand(1, 2, 2, 2)
    assert merging(x).flatten().tolist() == [0, 0, 2, 2, 1, 1, 3, 3]


def test_second_version_normalises_what_leaves_a_branch():
    blocks = {version: Swin(SMALL[version]).eval().layers[0].blocks[1] for version in SMALL}
    x = torch.randn(1, 16, 16, 8)
    with torch.no_grad():
        # silenced at first: the weights of the normalisations are 0 and nothing is added
        assert torch.equal(blocks[2](x), x)
        for norm in (blocks[1].norm1, blocks[1].norm2, blocks[2].norm1, blocks[2].norm2):
            norm.weight.fill_(0.0)
            norm.bias.fill_(1.0)
        assert torch.allclose(blocks[2](x), x + 2)
        assert not torch.allclose(blocks[1](x), x + 2)


def cosine_attention(window=2):
    attention = CosineWindowAttention(8, 2, window, window).eval()
    conformance.fill(attention)
    return attention


def test_scale_of_the_cosines_is_a_hundred_at_most():
    attention, windows = cosine_attention(), torch.randn(1, 3, 4, 8)
    with torch.no_grad():
        attention.logit_scale.fill_(math.log(100))
        expected = attention(windows, None)
        attention.logit_scale.fill_(50.0)
        assert torch.equal(attention(windows, None), expected)


def test_scores_are_scaled_cosines_plus_position_bias():
    attention, windows = cosine_attention(), torch.randn(1, 1, 4, 8)
    with torch.no_grad():
        given = attention(windows, None)
        query, key, value = F.linear(windows[0, 0], attention.qkv.weight).chunk(3, dim=-1)
        parts = [query + attention.q_bias, key, value + attention.v_bias]
        query, key, value = (part.reshape(4, 2, 4).transpose(0, 1) for part in parts)
        cosine = F.cosine_similarity(query[:, :, None], key[:, None], dim=-1)
        scores = cosine * attention.logit_scale.exp() + attention.position_bias()
        mixed = torch.softmax(scores, dim=-1) @ value
        expected = attention.proj(mixed.transpose(0, 1).reshape(4, 8))
    assert (given[0, 0] - expected).abs().max() < 1e-5


def test_position_bias_of_the_second_version_lies_between_0_and_16():
    attention = cosine_attention(4)
    with torch.no_grad():
        attention.cpb_mlp[2].weight.mul_(1000)
        bias = attention.position_bias()
    assert bias.min() >= 0
    assert bias.min() < 1
    assert 15 < bias.max() <= 16


@pytest.mark.parametrize('version', SMALL)
@pytest.mark.parametrize('late', [False, True])
def test_both_layouts_of_timm_fill_the_same_network(version, late):
    network = filled(SMALL[version])
    given, expected = translated(released(network, late=late)), network.state_dict()
    assert given.keys() == expected.keys()
    assert all(torch.equal(given[key], value) for key, value in expected.items())


def test_names_that_no_layout_has_come_back_for_the_caller_to_refuse():
    rename = swin.translator(['layers.0.downsample.norm.weight'])
    assert rename('layers.0.downsample.norm.weight') == 'layers.0.downsample.norm.weight'
    for unknown in ('layers.4.blocks.0.norm1.weight', 'neck.weight', 'layers.0.norm.weight'):
        assert rename(unknown) == unknown


@pytest.mark.parametrize('version', SMALL)
def test_nothing_that_follows_from_sizes_is_saved(version):
    assert not {key for key in Swin(SMALL[version]).state_dict() if 'mask' in key or 'ind' in key}


@pytest.mark.parametrize('version', SMALL)
def test_every_weight_gets_a_gradient(version):
    network = filled(SMALL[version]).train()
    sum(feature.square().mean() for feature in network(torch.randn(2, 3, 64, 64))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


class Excerpt(nn.Module):
    """The first stage and what follows it, from an image to a plane of its size."""

    def __init__(self, network):
        super().__init__()
        self.patch_embed = network.patch_embed
        self.stage = network.layers[0]

    def forward(self, image):
        tokens = self.stage.downsample(self.stage.blocks(self.patch_embed(image)))
        return F.interpolate(tokens[None, ..., 0], image.shape[2:])


@pytest.mark.parametrize('version', SMALL)
def test_exported_graph_gives_the_same_features(version, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    module, image = Excerpt(filled(SMALL[version])).eval(), torch.randn(1, 3, 64, 64)
    export_onnx(module, 64, 64, tmp_path / 'swin.onnx')
    session = onnxruntime.InferenceSession(tmp_path / 'swin.onnx')
    (given,) = session.run(None, {'image': image.numpy()})
    with torch.no_grad():
        expected = module(image).numpy()
    assert np.abs(given - expected).max() < 1e-4 * expected.std()
