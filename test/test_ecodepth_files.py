"""Released files of ECoDepth are recognised, fill the network entry by entry, or are refused."""

from __future__ import annotations

import math

import ecodepth_miniature
import pytest
import torch
from ecodepth_miniature import FIRST
from ecodepth_miniature import SECOND
from ecodepth_miniature import filled

from depth_node.errors import ModelError
from depth_node.networks import registry
from depth_node.networks.checkpoint import check_entries
from depth_node.networks.checkpoint import read_checkpoint
from depth_node.networks.ecodepth import LAYOUTS
from depth_node.networks.ecodepth import EcoDepth
from depth_node.networks.ecodepth import conformance_case
from depth_node.networks.ecodepth import translated
from depth_node.networks.initialization import adopt
from depth_node.networks.specification import Identity

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

second = ecodepth_miniature.second


@pytest.fixture(scope='module')
def spec():
    return registry.spec('ecodepth')


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
