from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F

from depth_node.errors import ModelError
from depth_node.networks import conformance
from depth_node.networks import hrnet
from depth_node.networks import registry
from depth_node.networks.checkpoint import load_released
from depth_node.networks.diffnet import DiffNet
from depth_node.networks.diffnet import Fusion
from depth_node.networks.export import export_onnx
from depth_node.networks.hrnet import ParallelModule
from depth_node.networks.rewrites import linearized
from depth_node.networks.specification import Identity

SECOND_NAMES = (
    'up_x9_0',
    'up_x9_1',
    '72',
    '36',
    '18',
    '9',
    *(f'dispConvScale{s}' for s in range(4)),
)


@pytest.fixture(scope='module')
def spec():
    return registry.spec('diffnet')


@pytest.fixture(scope='module')
def network():
    made = registry.build('diffnet', Identity('hrnet18')).eval()
    conformance.fill(made)
    return made


def second_name(key):
    number, rest = re.fullmatch(r'decoder\.(\d+)\.(.+)', key).groups()
    return f'convs.{SECOND_NAMES[int(number)]}.{rest}'


def older_name(key):
    key = re.sub(r'^convs\.(72|36|18|9)\.', r'convs.\1fSE.', key)
    return key.replace('.ca.fc.', '.fc.')


def released(network, *, doubled=True, older=False):
    """Entries as the authors' files have them."""
    named = network.decoder.state_dict()
    depth = {second_name(key): value for key, value in named.items()} if doubled else {}
    depth.update(named)
    if older:
        depth = {older_name(key): value for key, value in depth.items()}
    return {'encoder': dict(network.encoder.state_dict()), 'depth': depth}


def saved(folder, files, **extra):
    torch.save({**files['encoder'], **extra}, folder / 'encoder.pth')
    torch.save(files['depth'], folder / 'depth.pth')
    return {part: folder / f'{part}.pth' for part in files}


def test_parameters_are_as_many_as_published(network):
    assert sum(parameter.numel() for parameter in network.parameters()) == 10_869_100


@pytest.mark.parametrize('older', [False, True])
@pytest.mark.parametrize('doubled', [False, True])
def test_older_and_newer_released_files_fill_the_network(spec, network, tmp_path, doubled, older):
    files = released(network, doubled=doubled, older=older)
    assert ('convs.72fSE.fc.0.weight' in files['depth']) == (doubled and older)
    assert ('decoder.2.fc.0.weight' in files['depth']) == older
    loaded = load_released(spec, saved(tmp_path, files, height=192, width=640, use_stereo=False))
    assert loaded.identity == Identity('hrnet18')
    assert loaded.training_size == (192, 640)
    given = loaded.network.state_dict()
    for key, value in network.state_dict().items():
        assert torch.equal(given[key], value), key


def test_files_with_the_second_names_alone_fill_the_network(spec, network):
    files = released(network)
    files['depth'] = {k: v for k, v in files['depth'].items() if k.startswith('convs.')}
    assert set(spec.translate(files, Identity('hrnet18'))) == set(network.state_dict())


@pytest.mark.parametrize('reverse', [False, True])
def test_of_two_values_the_one_named_decoder_counts(spec, network, reverse):
    files = released(network)
    for key in [key for key in files['depth'] if key.startswith('convs.')]:
        files['depth'][key] = torch.full_like(files['depth'][key], 7.0)
    if reverse:
        files['depth'] = dict(reversed(files['depth'].items()))
    given = spec.translate(files, Identity('hrnet18'))
    for key, value in network.decoder.state_dict().items():
        assert torch.equal(given[f'decoder.{key}'], value), key


@pytest.mark.parametrize(
    'stranger', ['convs.54.conv_se.bias', 'convs.up_x9_0fSE.conv.conv.bias', 'final_layer.weight']
)
def test_missing_and_unknown_entries_are_refused_by_name(spec, network, tmp_path, stranger):
    files = released(network, doubled=False)
    files['depth'][stranger] = files['depth'].pop('decoder.3.conv_se.bias')
    with pytest.raises(ModelError, match=re.escape(stranger)) as refusal:
        load_released(spec, saved(tmp_path, files))
    assert 'decoder.3.conv_se.bias' in str(refusal.value)


def test_encoders_of_another_width_are_refused(spec, network):
    files = released(network)
    assert spec.infer(files, 'hrnet18') == Identity('hrnet18')
    with pytest.raises(ModelError, match='hrnet32'):
        spec.infer(files, 'hrnet32')
    files['encoder']['stage4.0.branches.3.0.conv1.weight'] = torch.zeros(256, 256, 3, 3)
    with pytest.raises(ModelError, match='18, 36, 72, 256 channels'):
        spec.infer(files, None)
    with pytest.raises(ModelError, match='None, None'):
        spec.infer({'encoder': {}, 'depth': {}}, None)


@pytest.mark.parametrize(('height', 'width'), [(32, 32), (64, 96)])
def test_outputs_are_disparities_at_four_sizes(network, height, width):
    with torch.no_grad():
        outputs = network(torch.rand(2, 3, height, width))
    shapes = [tuple(output.shape) for output in outputs]
    assert shapes == [(2, 1, height >> scale, width >> scale) for scale in range(4)]
    assert all(output.min() > 0 and output.max() < 1 for output in outputs)


@pytest.mark.parametrize(('height', 'width'), [(0, 32), (48, 64), (64, 48)])
def test_other_sizes_are_refused(network, height, width):
    with pytest.raises(ModelError, match='multiples of 32'):
        network(torch.zeros(1, 3, height, width))


def test_image_is_not_normalised(spec, network):
    image = torch.rand(1, 3, 32, 32)
    assert network.normalized(image) is image
    assert spec.variants['hrnet18'].mean == (0.0, 0.0, 0.0)


def test_every_stage_of_a_branch_reaches_the_decoder(network):
    with torch.no_grad():
        features = network.encoder(torch.rand(1, 3, 64, 96))
    assert features.stem.shape == (1, 64, 32, 48)
    assert features.quarter.shape == (1, 64, 16, 24)
    for branch, (width, count) in enumerate([(18, 3), (36, 3), (72, 2), (144, 1)]):
        shapes = {tuple(feature.shape) for feature in features.of_branch(branch)}
        assert shapes == {(1, width, 16 >> branch, 24 >> branch)}
        assert len(features.of_branch(branch)) == count


def test_coarser_branches_are_resized_corner_to_corner():
    module = ParallelModule((18, 36)).eval()
    conformance.fill(module)
    fine, coarse = torch.rand(1, 18, 8, 12), torch.rand(1, 36, 4, 6)
    with torch.no_grad():
        given, _ = module([fine, coarse])
        fine, coarse = module.branches[0](fine), module.branches[1](coarse)
        narrow = module.fuse_layers[0][1](coarse)
        expected = F.relu(
            fine + F.interpolate(narrow, (8, 12), mode='bilinear', align_corners=True)
        )
        other = F.relu(fine + F.interpolate(narrow, (8, 12), mode='bilinear', align_corners=False))
    assert torch.allclose(given, expected, atol=1e-6)
    assert not torch.allclose(given, other, atol=1e-2)


def test_fusion_repeats_pixels_and_weighs_channels_before_it_convolves():
    fusion = Fusion(32, 2)
    coarse, fine = torch.rand(1, 16, 2, 3), [torch.rand(1, 8, 4, 6), torch.rand(1, 8, 4, 6)]
    with torch.no_grad():
        given = fusion(coarse, fine)
        repeated = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        joined = torch.cat((repeated, *fine), dim=1)
        inner = F.relu(fusion.ca.fc[0].weight @ joined.mean(dim=(2, 3))[0])
        gain = torch.sigmoid(fusion.ca.fc[2].weight @ inner)
        expected = F.relu(fusion.conv_se(joined * gain[:, None, None]))
    assert torch.allclose(given, expected, atol=1e-5)


def test_scale_is_known_only_after_stereo_training(spec):
    identity = Identity('hrnet18')
    video = spec.meaning(identity, {'encoder': {'use_stereo': False}}, (192, 640))
    assert (video.focal_px, video.depth_scale) == (None, 1.0)
    stereo = spec.meaning(identity, {'encoder': {'use_stereo': True, 'width': 640}}, (320, 1024))
    assert stereo.focal_px == pytest.approx(0.58 * 640)
    assert stereo.depth_scale == 5.4


def test_releases_are_told_apart(spec):
    assert len({release.name for release in spec.releases}) == len(spec.releases) == 5
    assert {(r.height, r.width) for r in spec.releases} == {(192, 640), (320, 1024)}
    refined = next(release for release in spec.releases if 'ttr' in release.name)
    assert 'test images themselves' in refined.protocol


def test_fresh_weights_are_kaiming_normal():
    torch.manual_seed(0)
    fresh = DiffNet()
    for layer in (fresh.encoder.stage4[2].branches[3][0].conv1, fresh.decoder.decoder[2].conv_se):
        fan_out = layer.out_channels * 9
        assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)


def test_every_weight_gets_a_gradient():
    fresh = DiffNet().train()
    sum(output.mean() for output in fresh(torch.rand(2, 3, 64, 64))).backward()
    assert [name for name, p in fresh.named_parameters() if p.grad is None] == []


def test_exported_graph_agrees(tmp_path, monkeypatch):
    """On fewer blocks: every kind of layer is still there, and tracing takes seconds."""
    onnxruntime = pytest.importorskip('onnxruntime')
    monkeypatch.setattr(hrnet, '_MODULES', {2: 1, 3: 1, 4: 1})
    monkeypatch.setattr(hrnet, '_BLOCKS_PER_BRANCH', 1)
    small = DiffNet().eval()
    conformance.fill(small)
    path = tmp_path / 'graph.onnx'
    export_onnx(linearized(small, 32, 64), 32, 64, path)
    image = torch.rand(1, 3, 32, 64)
    with torch.inference_mode():
        expected = small(image)[0]
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    (given,) = session.run(None, {'image': image.numpy()})
    assert (torch.from_numpy(given) - expected).abs().max() < 1e-4 * expected.std()
