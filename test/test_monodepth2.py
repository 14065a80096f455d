from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from depth_node.errors import ModelError
from depth_node.networks import conformance
from depth_node.networks import registry
from depth_node.networks.checkpoint import load_released
from depth_node.networks.export import export_onnx
from depth_node.networks.monodepth2 import LAYOUTS
from depth_node.networks.monodepth2 import Monodepth2
from depth_node.networks.pose import PoseCnn
from depth_node.networks.pose import PoseNet
from depth_node.networks.pose import inverse_pose_matrix
from depth_node.networks.pose import pose_matrix
from depth_node.networks.pose import rotation_matrix
from depth_node.networks.pose import translate_pose
from depth_node.networks.resnet import RESNET_18
from depth_node.networks.rewrites import linearized
from depth_node.networks.specification import Identity

PARAMETERS = {'resnet18': 14_329_236, 'resnet50': 32_522_132}
"""As published, less the unused classifier."""


@pytest.fixture(scope='module')
def spec():
    return registry.spec('monodepth2')


@pytest.fixture(scope='module')
def network():
    made = registry.build('monodepth2', Identity('resnet18')).eval()
    conformance.fill(made)
    return made


def released(network):
    """Entries as the authors' files have them, the unused classifier among them."""
    state = network.state_dict()
    width = state['encoder.layer4.1.bn2.weight'].shape[0]
    encoder = {key: value for key, value in state.items() if key.startswith('encoder.')}
    depth = {
        key.removeprefix('decoder.'): value
        for key, value in state.items()
        if key.startswith('decoder.')
    }
    encoder['encoder.fc.weight'] = torch.zeros(1000, width)
    encoder['encoder.fc.bias'] = torch.zeros(1000)
    return {'encoder': encoder, 'depth': depth}


def saved(folder, files, **extra):
    torch.save({**files['encoder'], **extra}, folder / 'encoder.pth')
    torch.save(files['depth'], folder / 'depth.pth')
    return {part: folder / f'{part}.pth' for part in files}


def inputs_of(module, run):
    """Return what a module is given while ``run`` is called."""
    given = []
    handle = module.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    with torch.no_grad():
        run()
    handle.remove()
    return given[0]


@pytest.mark.parametrize(('variant', 'count'), PARAMETERS.items())
def test_parameters_are_as_many_as_published(variant, count):
    with torch.device('meta'):
        built = registry.build('monodepth2', Identity(variant))
    assert sum(parameter.numel() for parameter in built.parameters()) == count


def test_released_files_fill_the_network(spec, network, tmp_path):
    files = saved(tmp_path, released(network), height=192, width=640, use_stereo=True)
    loaded = load_released(spec, files)
    assert loaded.identity == Identity('resnet18')
    assert loaded.training_size == (192, 640)
    assert spec.meaning(loaded.identity, loaded.entries, (192, 640)).depth_scale == 5.4
    given = loaded.network.state_dict()
    for key, value in network.state_dict().items():
        assert torch.equal(given[key], value), key


@pytest.mark.parametrize('part', ['encoder', 'depth'])
def test_missing_and_unknown_entries_are_refused_by_name(spec, network, tmp_path, part):
    files = released(network)
    gone = 'encoder.layer3.1.bn2.bias' if part == 'encoder' else 'decoder.3.conv.conv.bias'
    files[part]['stranger.weight'] = files[part].pop(gone)
    with pytest.raises(ModelError, match=r'stranger\.weight') as refusal:
        load_released(spec, saved(tmp_path, files))
    assert gone in str(refusal.value)


@pytest.mark.parametrize('variant', PARAMETERS)
def test_variant_is_inferred_from_names_and_shapes(spec, variant):
    with torch.device('meta'):
        files = released(registry.build('monodepth2', Identity(variant)))
    assert spec.infer(files, None) == Identity(variant)
    assert spec.infer(files, variant) == Identity(variant)
    (other,) = set(PARAMETERS) - {variant}
    with pytest.raises(ModelError, match=other):
        spec.infer(files, other)
    with pytest.raises(ModelError, match='no variant'):
        spec.infer(files, 'resnet34')


def test_encoders_of_other_depths_are_refused(spec, network):
    files = released(network)
    files['encoder']['encoder.layer3.2.conv1.weight'] = torch.zeros(256, 256, 3, 3)
    with pytest.raises(ModelError, match='2, 2, 3, 2 basic blocks'):
        spec.infer(files, None)
    with pytest.raises(ModelError, match='None input channels'):
        spec.infer({'encoder': {}, 'depth': {}}, None)


def test_pose_encoder_in_place_of_the_encoder_is_refused(spec):
    with torch.device('meta'):
        pose = {f'encoder.{key}': v for key, v in PoseNet(RESNET_18).encoder.state_dict().items()}
    with pytest.raises(ModelError, match=r'6 input channels.*not pose_encoder\.pth'):
        spec.infer({'encoder': pose}, None)


@pytest.mark.parametrize(('height', 'width'), [(64, 64), (96, 64)])
def test_outputs_are_disparities_at_four_sizes(network, height, width):
    with torch.no_grad():
        outputs = network(torch.rand(2, 3, height, width))
    shapes = [tuple(output.shape) for output in outputs]
    assert shapes == [(2, 1, height >> scale, width >> scale) for scale in range(4)]
    assert all(output.min() > 0 and output.max() < 1 for output in outputs)


@pytest.mark.parametrize(
    ('height', 'width', 'reason'),
    [(80, 64, 'multiples of 32'), (64, 0, 'multiples of 32'), (64, 32, 'at least 64')],
)
def test_other_sizes_are_refused(network, height, width, reason):
    with pytest.raises(ModelError, match=reason):
        network(torch.zeros(1, 3, height, width))


def test_mean_and_deviation_are_taken_off_before_the_first_layer(network):
    image = torch.rand(1, 3, 64, 64)
    given = inputs_of(network.encoder.conv1, lambda: network(image))
    assert torch.allclose(given, (image - 0.45) / 0.225, atol=1e-6)


def test_decoder_repeats_pixels_and_appends_the_skipped_feature(network):
    layers = network.decoder.decoder
    features = [torch.rand(1, c, 64 >> s, 64 >> s) for s, c in enumerate((64, 64, 128, 256, 512))]
    before = []
    handle = layers[6].register_forward_hook(lambda _, __, result: before.append(result))
    joined = inputs_of(layers[7], lambda: network.decoder(features))
    handle.remove()
    repeated = before[0].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(joined, torch.cat((repeated, features[0]), dim=1))


def test_depth_after_training_on_video_has_no_scale(spec):
    for entries in ({'use_stereo': False, 'width': 640}, {}, {'use_stereo': torch.ones(1)}):
        meant = spec.meaning(Identity('resnet18'), {'encoder': entries}, (192, 640))
        assert (meant.focal_px, meant.depth_scale) == (None, 1.0)
        assert 'without a metric scale' in meant.notes
        assert (meant.output.min_depth_m, meant.output.max_depth_m) == (0.1, 100.0)


def test_depth_after_stereo_training_is_metric_for_the_camera_of_training(spec):
    entries = {'use_stereo': True, 'width': 1024, 'height': 320}
    meant = spec.meaning(Identity('resnet18'), {'encoder': entries}, (192, 640))
    assert meant.focal_px == pytest.approx(0.58 * 1024)
    assert meant.depth_scale == 5.4
    assert 'metres' in meant.notes
    del entries['width']
    meant = spec.meaning(Identity('resnet18'), {'encoder': entries}, (192, 640))
    assert meant.focal_px == pytest.approx(0.58 * 640)


def test_releases_are_told_apart_and_stereo_figures_need_no_median(spec):
    releases = {release.name: release for release in spec.releases}
    assert len(releases) == len(spec.releases) == 11
    with_checksum = [release for release in spec.releases if 'MD5' in release.source]
    assert len({release.source[-33:-1] for release in with_checksum}) == 9
    assert all(release.identity.variant in spec.variants for release in spec.releases)
    stereo = releases['monodepth2-mono+stereo-1024x320']
    assert '/mono%2Bstereo_1024x320.zip' in stereo.source
    assert (stereo.height, stereo.width) == (320, 1024)
    assert 'no median' in stereo.protocol
    assert 'non-commercial' in spec.weights_license


def test_pose_net_normalises_and_gives_two_motions():
    net = PoseNet(RESNET_18).eval()
    images = torch.rand(2, 6, 64, 96)
    given = inputs_of(net.encoder.conv1, lambda: net(images))
    assert torch.allclose(given, (images - 0.45) / 0.225, atol=1e-6)
    with torch.no_grad():
        net.net[-1].weight.zero_()
        net.net[-1].bias.copy_(torch.arange(12.0))
        axis_angle, translation = net(images)
    assert axis_angle.shape == translation.shape == (2, 2, 3)
    assert axis_angle[1] == pytest.approx(0.01 * torch.tensor([[0.0, 1, 2], [6, 7, 8]]))
    assert translation[1] == pytest.approx(0.01 * torch.tensor([[3.0, 4, 5], [9, 10, 11]]))


def test_pose_cnn_takes_images_as_they_are_and_gives_one_motion():
    net = PoseCnn().eval()
    images = torch.rand(2, 6, 128, 160)
    assert torch.equal(inputs_of(net.net[0], lambda: net(images)), images)
    with torch.no_grad():
        net.pose_conv.weight.zero_()
        net.pose_conv.bias.copy_(torch.arange(6.0))
        axis_angle, translation = net(images)
    assert axis_angle.shape == translation.shape == (2, 1, 3)
    assert axis_angle[0, 0] == pytest.approx(torch.tensor([0.0, 0.01, 0.02]))
    assert translation[0, 0] == pytest.approx(torch.tensor([0.03, 0.04, 0.05]))


def test_released_pose_files_lose_their_classifier_and_nothing_else():
    with torch.device('meta'):
        net, cnn = PoseNet(RESNET_18), PoseCnn()
    state = net.state_dict()
    files = {
        'pose_encoder': {key: v for key, v in state.items() if key.startswith('encoder.')},
        'pose': {key: v for key, v in state.items() if key.startswith('net.')},
    }
    files['pose_encoder']['encoder.fc.weight'] = files['pose_encoder']['encoder.fc.bias'] = 0
    assert set(translate_pose(files)) == set(state)
    assert set(translate_pose({'pose': cnn.state_dict()})) == set(cnn.state_dict())


@pytest.mark.parametrize(
    ('stem', 'kind'),
    [
        ('monodepth2_depth_resnet18', Monodepth2),
        ('monodepth2_pose_resnet18', PoseNet),
        ('monodepth2_posecnn', PoseCnn),
        ('monodepth2_depth_resnet34', type(None)),
        ('diffnet', type(None)),
    ],
)
def test_vectors_are_claimed_by_their_names(spec, stem, kind):
    with torch.device('meta'):
        case = spec.conformance_case(stem)
    assert isinstance(case and case.network, kind)


def test_rotation_is_right_handed():
    x, y, z = torch.eye(3)
    about_z, about_x = rotation_matrix(math.pi / 2 * torch.stack((z, x)))
    assert torch.allclose(about_z @ x, y, atol=1e-6)
    assert torch.allclose(about_x @ y, z, atol=1e-6)


def test_pose_rotates_before_it_shifts_and_its_inverse_undoes_it():
    torch.manual_seed(0)
    axis_angle, translation = torch.randn(2, 4, 2, 3, dtype=torch.float64)
    pose = pose_matrix(axis_angle, translation)
    back = inverse_pose_matrix(axis_angle, translation)
    assert pose.shape == back.shape == (4, 2, 4, 4)
    assert torch.equal(pose[..., :3, 3], translation)
    identity = torch.eye(4, dtype=torch.float64).expand_as(pose)
    assert torch.allclose(back @ pose, identity, atol=1e-6)
    assert torch.allclose(pose @ back, identity, atol=1e-6)


def test_no_rotation_is_the_identity_with_a_finite_gradient():
    axis_angle = torch.zeros(1, 3, requires_grad=True)
    pose = pose_matrix(axis_angle, torch.zeros(1, 3))
    assert torch.equal(pose[0], torch.eye(4))
    (pose * torch.arange(16.0).reshape(4, 4)).sum().backward()
    assert torch.isfinite(axis_angle.grad).all()


@pytest.mark.parametrize(
    ('make', 'shape'),
    [
        (lambda: Monodepth2(LAYOUTS['resnet18']), (2, 3, 64, 64)),
        (lambda: PoseNet(RESNET_18), (2, 6, 64, 64)),
        (PoseCnn, (2, 6, 128, 128)),
    ],
)
def test_every_weight_gets_a_gradient(make, shape):
    network: nn.Module = make().train()
    sum(output.mean() for output in network(torch.rand(shape))).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_exported_graph_agrees(network, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    path = tmp_path / 'graph.onnx'
    export_onnx(linearized(network, 64, 96), 64, 96, path)
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        expected = network(image)[0]
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    (given,) = session.run(None, {'image': network.normalized(image).numpy()})
    assert (torch.from_numpy(given) - expected).abs().max() < 1e-4 * expected.std()
