from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from depth_node.errors import DepthNodeError
from depth_node.errors import ModelError
from depth_node.networks import conformance
from depth_node.networks import registry
from depth_node.networks.blocks import DropPath
from depth_node.networks.lite_mono import CrossCovarianceAttention
from depth_node.networks.lite_mono import DilatedBlock
from depth_node.networks.lite_mono import image_pyramid
from depth_node.tools.conformance import main

VECTORS = Path(__file__).parent / 'data' / 'conformance'
PARAMETERS = {'tiny': 2_147_659, 'small': 2_476_859, 'base': 3_074_747, '8m': 8_775_851}


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """Small layers spend more time waiting for each other's threads than computing."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def spec():
    return registry.spec('lite-mono')


def filled(spec, variant='tiny', **options):
    network = spec.build(variant, options).eval()
    conformance.fill(network, spec)
    return network


def released(network, **extra):
    encoder = {**network.encoder.state_dict(), **extra}
    return {'encoder': encoder, 'depth': network.decoder.state_dict()}


def copied_vectors(folder, name, new_name, change=lambda text: None):
    text = json.loads((VECTORS / f'{name}.json').read_text())
    change(text)
    (folder / f'{new_name}.json').write_text(json.dumps(text))
    (folder / f'{new_name}.npz').write_bytes((VECTORS / f'{name}.npz').read_bytes())


@pytest.mark.parametrize('name', ['litemono-tiny_640x192', 'litemono_1024x320'])
def test_numbers_of_the_authors_are_reproduced(name):
    outcome = conformance.check(VECTORS, name)
    assert outcome.status == 'pass'
    assert outcome.arrays == 9
    assert outcome.worst_error < 2e-5


def test_wrong_dilations_fail_conformance(tmp_path):
    copied_vectors(tmp_path, 'litemono_1024x320', 'litemono_640x192')
    outcome = conformance.check(tmp_path, 'litemono_640x192')
    assert outcome.status == 'fail'
    assert outcome.worst_error > 1e-2


def test_keys_in_another_order_fail_conformance(tmp_path):
    name = 'litemono-tiny_640x192'

    def swap(text):
        keys = text['modules']['depth']['keys']
        keys[0], keys[2] = keys[2], keys[0]

    copied_vectors(tmp_path, name, name, swap)
    outcome = conformance.check(tmp_path, name)
    assert outcome.status == 'fail'
    assert 'key 0' in outcome.reason


def test_output_that_is_not_finite_fails_conformance(tmp_path, spec, monkeypatch):
    original = conformance.draw
    monkeypatch.setattr(
        conformance,
        'draw',
        lambda key, shape: (
            np.full(shape, np.nan, np.float32)
            if key == 'decoder.6.conv.bias'
            else original(key, shape)
        ),
    )
    assert conformance.check(VECTORS, 'litemono-tiny_640x192').status == 'fail'


def test_array_that_we_do_not_give_fails_conformance(tmp_path):
    name = 'litemono-tiny_640x192'
    arrays = dict(np.load(VECTORS / f'{name}.npz'))
    text = json.loads((VECTORS / f'{name}.json').read_text())
    text['outputs']['feat_9'] = text['outputs']['feat_2']
    arrays['feat_9'] = arrays['feat_2']
    (tmp_path / f'{name}.json').write_text(json.dumps(text))
    np.savez(tmp_path / f'{name}.npz', **arrays)
    outcome = conformance.check(tmp_path, name)
    assert outcome.status == 'fail'
    assert 'feat_9' in outcome.reason


@pytest.mark.parametrize(
    'damage',
    [
        lambda folder, name: (folder / f'{name}.npz').write_bytes(b'PK\x03\x04 cut'),
        lambda folder, name: (folder / f'{name}.npz').unlink(),
        lambda folder, name: (folder / f'{name}.json').write_text('[1]'),
        lambda folder, name: (folder / f'{name}.json').write_text('{"modules": {}}'),
        lambda folder, name: (folder / f'{name}.json').write_text('{'),
    ],
)
def test_damaged_vectors_are_refused(tmp_path, damage):
    name = 'litemono-tiny_640x192'
    copied_vectors(tmp_path, name, name)
    damage(tmp_path, name)
    with pytest.raises(DepthNodeError):
        conformance.check(tmp_path, name)
    assert main([str(tmp_path)]) == 2


def test_input_of_a_giant_size_is_refused_before_it_is_drawn(tmp_path):
    name = 'litemono-tiny_640x192'
    copied_vectors(
        tmp_path, name, name, lambda text: text['input'].update(shape=[1, 3, 1 << 30, 1 << 30])
    )
    with pytest.raises(ModelError, match='input shape'):
        conformance.check(tmp_path, name)


def test_tool_passes_only_when_all_selected_pass(tmp_path, capsys):
    copied_vectors(tmp_path, 'litemono-tiny_640x192', 'litemono-tiny_640x192')
    assert main([str(tmp_path)]) == 0
    copied_vectors(tmp_path, 'litemono-tiny_640x192', 'another_network')
    assert main([str(tmp_path)]) == 1
    assert 'not implemented' in capsys.readouterr().out
    assert main([str(tmp_path), '--only', 'litemono*']) == 0


def test_tool_does_not_call_an_empty_selection_a_success(tmp_path, capsys):
    copied_vectors(tmp_path, 'litemono-tiny_640x192', 'losses', lambda text: text.pop('modules'))
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path), '--only', 'nothing*']) == 2
    assert 'selects no network' in capsys.readouterr().err
    assert main([str(tmp_path / 'absent')]) == 2


@pytest.mark.parametrize(('variant', 'count'), PARAMETERS.items())
def test_parameters_are_as_many_as_published(spec, variant, count):
    network = spec.build(variant, {})
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(('height', 'width'), [(32, 32), (64, 224)])
def test_sizes_that_are_multiples_of_32_work(spec, height, width):
    with torch.no_grad():
        outputs = filled(spec)(torch.rand(2, 3, height, width))
    shapes = [tuple(output.shape) for output in outputs]
    assert shapes == [(2, 1, height >> scale, width >> scale) for scale in range(3)]
    assert all(output.min() > 0 and output.max() < 1 for output in outputs)


@pytest.mark.parametrize(('height', 'width'), [(0, 32), (48, 64), (64, 48)])
def test_other_sizes_are_refused(spec, height, width):
    with pytest.raises(ModelError, match='multiples of 32'):
        spec.build('tiny', {})(torch.zeros(1, 3, height, width))


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
def test_options_out_of_range_are_refused(spec, variant, options, word):
    with pytest.raises(ModelError, match=word):
        spec.build(variant, options)


def test_options_reach_the_layers(spec):
    network = spec.build('tiny', {'drop_path': 0.3, 'layer_scale': 0.1})
    rates = [block.drop_path.rate for stage in network.encoder.stages for block in stage]
    assert rates == pytest.approx(np.linspace(0, 0.3, 15))
    gammas = [p.detach() for name, p in network.named_parameters() if 'gamma' in name]
    assert torch.cat(gammas).numpy() == pytest.approx(0.1)


@pytest.mark.parametrize('variant', PARAMETERS)
def test_variant_and_dilations_are_inferred_from_released_files(spec, variant):
    network = spec.build(variant, {})
    files = released(network, height=320, width=1024, use_stereo=False)
    assert spec.infer(files) == (variant, {'dilations': '1024x320'})
    assert spec.infer(released(network)) == (variant, {'dilations': '640x192'})


def test_shapes_of_no_variant_are_refused(spec):
    files = released(spec.build('tiny', {}))
    files['encoder'] = {k: v for k, v in files['encoder'].items() if 'stages.2.6.' not in k}
    with pytest.raises(ModelError, match='6 blocks'):
        spec.infer(files)
    with pytest.raises(ModelError, match='None channels'):
        spec.infer({})


def test_released_files_fill_the_network_and_leftovers_are_ignored(spec):
    source, target = filled(spec), spec.build('tiny', {}).eval()
    extra = {'normalize.total_ops': torch.zeros(1), 'stages.total_params': torch.zeros(1)}
    spec.load(target, released(source, height=192, width=640, **extra))
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


def test_missing_or_misshapen_weights_are_refused_by_name(spec):
    network = spec.build('tiny', {})
    files = released(filled(spec))
    del files['depth']['decoder.3.conv.conv.bias']
    with pytest.raises(ModelError, match=r'decoder\.3\.conv\.conv\.bias'):
        spec.load(network, files)
    with pytest.raises(ModelError, match=r'stages\.0'):
        spec.load(network, released(filled(spec), **{'stages.0.0.gamma': torch.zeros(5)}))


def test_every_weight_that_is_used_gets_a_gradient(spec):
    network = spec.build('tiny', {'layer_scale': 0.1}).train()
    sum(output.mean() for output in network(torch.rand(2, 3, 64, 64))).backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    dilated = (m for m in network.encoder.named_modules() if isinstance(m[1], DilatedBlock))
    expected = {
        f'encoder.{name}.norm.{part}' for name, _ in dilated for part in ('weight', 'bias')
    }
    assert without == expected


def test_border_zeros_count_in_the_image_pyramid():
    half, quarter, eighth = image_pyramid(torch.ones(1, 3, 32, 64))
    assert half.shape[-2:] == (16, 32)
    assert eighth.shape[-2:] == (4, 8)
    assert half[0, 0, 0, 0] == pytest.approx(4 / 9)
    assert quarter[0, 0, 5, 5] == 1.0


def test_half_precision_gives_the_same_disparity(spec):
    network, image = filled(spec), torch.rand(1, 3, 64, 96)
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


def test_registry_refuses_a_name_twice_and_a_name_that_differs(spec):
    with pytest.raises(ModelError, match='second time'):
        registry.register('lite-mono')(lambda: spec)
    with pytest.raises(ModelError, match='one name'):
        registry.register('other')(lambda: spec)
    assert 'other' not in registry.names()


def test_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(ModelError, match='lite-mono'):
        registry.spec('lite-stereo')


def test_names_need_no_torch_and_a_network_says_that_it_does():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        'from depth_node.networks import registry\n'
        'from depth_node.errors import MissingPackage\n'
        "if 'lite-mono' not in registry.names(): sys.exit('no name')\n"
        'try:\n'
        "    registry.spec('lite-mono')\n"
        'except MissingPackage as error:\n'
        "    sys.exit(0 if error.package == 'torch' else 'other package')\n"
        "sys.exit('no error')\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
