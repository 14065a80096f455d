from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from depth_node.networks import conformance
from depth_node.networks import hrnet
from depth_node.networks import registry
from depth_node.networks.efficientnet import SameConv
from depth_node.networks.folding import convolution
from depth_node.networks.folding import folded
from depth_node.networks.folding import folded_batch_norm
from depth_node.networks.folding import padding_of
from depth_node.networks.resnet import ResNet
from depth_node.networks.resnet import ResNetLayout
from depth_node.networks.rewrites import linearized
from depth_node.networks.specification import Identity


def filled(module):
    """Weights of which every one matters: a fresh batch normalisation would hide any mistake."""
    conformance.fill(module, conformance.PooledNumbers)
    return module.eval()


def network_of(name, variant):
    return filled(registry.build(name, Identity(variant)))


def batch_norms(module):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


# what stays in place follows a convolution of stride 2 that pads by size, or a transposed one
@pytest.mark.parametrize(
    ('name', 'variant', 'height', 'width', 'before', 'after'),
    [
        ('monodepth2', 'resnet18', 64, 96, 20, 0),
        ('diffnet', 'hrnet18', 32, 64, 62, 0),
        ('midas', 'v21-small', 64, 96, 72, 5),
        ('midas', 'dpt-levit-224', 224, 224, 6, 2),
        ('sqldepth', 'resnet50', 256, 256, 61, 0),
        pytest.param('sqldepth', 'efficientnet-b5', 256, 512, 125, 5, marks=pytest.mark.slow),
        pytest.param('midas', 'v21-large', 64, 96, 104, 0, marks=pytest.mark.slow),
    ],
)
def test_network_is_the_trained_function(monkeypatch, name, variant, height, width, before, after):
    monkeypatch.setattr(hrnet, '_MODULES', {2: 1, 3: 1, 4: 1})
    monkeypatch.setattr(hrnet, '_BLOCKS_PER_BRANCH', 1)
    network = network_of(name, variant).double()
    image = torch.rand(1, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        if name == 'midas':
            network.decoder.output_conv[4].bias += 10  # no ReLU is to cut what is compared
        plain = linearized(network, height, width)
        expected, given = network(image)[0], plain(network.normalized(image))
    assert (given - expected).abs().max() < 1e-10 * expected.std()
    assert (batch_norms(network), batch_norms(plain)) == (before, after)


def test_error_in_float32_is_that_of_rounding():
    network = network_of('monodepth2', 'resnet18')
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        given = linearized(network, 64, 96)(network.normalized(image))
        expected = network.double()(image.double())[0]
    assert (given - expected).abs().max() < 1e-5 * expected.std()


def test_heads_that_nobody_reads_are_gone():
    network = network_of('monodepth2', 'resnet18')
    plain = linearized(network, 64, 96)
    heads = [layer for layer in plain.modules() if getattr(layer, 'out_channels', 0) == 1]
    assert len(heads) == 1
    assert heads[0].weight.data_ptr() == network.decoder.decoder[10].conv.weight.data_ptr()


def test_only_convolutions_that_changed_have_weights_of_their_own():
    network = network_of('monodepth2', 'resnet18')
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trained = {value.data_ptr() for value in network.parameters()}
    plain = linearized(network, 64, 96)
    own = [name for name, value in plain.named_parameters() if value.data_ptr() not in trained]
    assert len(own) == 2 * 20
    assert all('.encoder.' in name for name in own)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(value.requires_grad for value in network.parameters())


def test_grouped_bottlenecks_are_the_trained_function():
    encoder = filled(ResNet(ResNetLayout((1, 2, 1, 1), True, groups=32, width_per_group=8)))
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        for given, expected in zip(folded(encoder.double())(image), encoder(image), strict=True):
            assert (given - expected).abs().max() < 1e-10 * expected.std()


def test_module_without_batch_normalisation_comes_back_itself():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    assert folded(module) is module


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x)) if x.mean() > 0 else x


def test_module_that_branches_on_numbers_comes_back_itself():
    module = filled(Branching())
    assert folded(module) is module


class ReadTwice(Branching):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class CalledTwice(Branching):
    def forward(self, x):
        return self.norm(self.conv(F.relu(self.conv(x))))


class NormalizedTwice(Branching):
    def forward(self, x):
        return self.norm(F.relu(self.norm(self.conv(x))))


class NormalizedFirst(Branching):
    def forward(self, x):
        return self.conv(self.norm(x))


class Functional(Branching):
    def forward(self, x):
        return self.norm(F.relu(self.conv(x)))


@pytest.mark.parametrize(
    'kind', [ReadTwice, CalledTwice, NormalizedTwice, NormalizedFirst, Functional]
)
def test_batch_normalisation_that_has_no_convolution_of_its_own_stays(kind):
    module, x = filled(kind()).double(), torch.randn(1, 3, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        made = folded(module)
        assert batch_norms(made) == 1
        assert torch.equal(made(x), module(x))


@pytest.mark.parametrize(
    ('conv', 'padding'),
    [
        (nn.Conv2d(2, 2, 3, padding=(1, 2)), (1, 2)),
        (SameConv(2, 2, 5), (2, 2)),
        (SameConv(2, 2, 3, 2), None),
        (SameConv(2, 2, 2), None),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode='reflect'), None),
        (nn.Conv2d(2, 2, 3, padding='same'), None),
        (nn.ConvTranspose2d(2, 2, 3), None),
        (None, None),
    ],
)
def test_padding_is_known_where_it_is_zeros_and_the_same_at_any_size(conv, padding):
    assert padding_of(conv) == padding


@pytest.mark.parametrize('bias', [False, True])
def test_batch_norm_folds_into_a_grouped_dilated_strided_convolution(bias):
    conv = nn.Conv2d(6, 12, 3, stride=2, padding=2, dilation=2, groups=3, bias=bias)
    pair = filled(nn.Sequential(conv, nn.BatchNorm2d(12))).double()
    image = torch.randn(2, 6, 11, 9, dtype=torch.float64)
    with torch.no_grad():
        given = folded_batch_norm(*pair)(image)
        assert torch.allclose(given, pair(image), rtol=0, atol=1e-12)


def test_convolution_of_type_and_place_of_another():
    like = nn.Conv2d(4, 4, 3, padding=1, groups=2).half()
    with torch.no_grad():
        made = convolution(like, like.weight.double(), None)
    assert (made.weight.dtype, made.bias, made.groups) == (torch.float16, None, 2)
    assert torch.equal(made.weight, like.weight)
