"""The comparison with the authors' numbers fails where it should; the registry of networks."""

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
from depth_node.networks.specification import Identity
from depth_node.tools.conformance import main

NAME = 'litemono-tiny_640x192'


@pytest.fixture(scope='module')
def vectors(tmp_path_factory):
    """Write vectors of our own network in the format of the authors' numbers."""
    folder = tmp_path_factory.mktemp('vectors')
    case = conformance.claimed(NAME)
    parts = {'encoder': case.network.encoder, 'depth': case.network.decoder}
    modules = {}
    for part, module in parts.items():
        keys = []
        for key, value in module.state_dict().items():
            treatment = 'set' if value.is_floating_point() else 'kept'
            dtype = str(value.dtype).removeprefix('torch.')
            keys.append([key, list(value.shape), dtype, 'param', treatment])
            if treatment == 'set':
                value.copy_(torch.from_numpy(conformance.draw(key, tuple(value.shape))))
        modules[part] = {'keys': keys}
    with torch.no_grad():
        image = torch.from_numpy(conformance.image([7], 64, 96))
        outputs = {k: v.numpy() for k, v in case.probe(case.network, image).items()}
    entries = {
        key: {'stride': 1 + value.size // 500, 'shape': value.shape, 'std': float(value.std())}
        for key, value in outputs.items()
    }
    text = {'input': {'seed': 7, 'shape': [1, 3, 64, 96]}, 'modules': modules, 'outputs': entries}
    (folder / f'{NAME}.json').write_text(json.dumps(text))
    thinned = {k: v.reshape(-1)[:: entries[k]['stride']] for k, v in outputs.items()}
    np.savez(folder / f'{NAME}.npz', **thinned)
    return folder


@pytest.fixture
def copied(vectors, tmp_path):
    """Copy the vectors under a name, with a change to their description."""

    def copy(new_name=NAME, change=lambda text: None):
        text = json.loads((vectors / f'{NAME}.json').read_text())
        change(text)
        (tmp_path / f'{new_name}.json').write_text(json.dumps(text))
        (tmp_path / f'{new_name}.npz').write_bytes((vectors / f'{NAME}.npz').read_bytes())

    return copy


def test_vectors_of_the_same_network_pass(vectors):
    outcome = conformance.check(vectors, NAME)
    assert (outcome.status, outcome.arrays) == ('pass', 9)
    assert outcome.worst_error < 1e-5


def test_wrong_dilations_fail(copied, tmp_path):
    copied('litemono-tiny_1024x320')
    outcome = conformance.check(tmp_path, 'litemono-tiny_1024x320')
    assert outcome.status == 'fail'
    assert outcome.worst_error > 1e-2


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        (lambda keys: keys.pop(0), '1 missing'),
        (lambda keys: keys.append(['more.weight', [2], 'float32', 'param', 'set']), 'unexpected'),
        (lambda keys: keys[0].__setitem__(1, [3, 3]), 'another shape'),
    ],
)
def test_keys_that_are_not_ours_fail(copied, tmp_path, change, word):
    copied(change=lambda text: change(text['modules']['depth']['keys']))
    outcome = conformance.check(tmp_path, NAME)
    assert outcome.status == 'fail'
    assert word in outcome.reason


def test_output_that_is_not_finite_fails(vectors, monkeypatch):
    original = conformance.draw
    monkeypatch.setattr(
        conformance,
        'draw',
        lambda key, shape: (
            original(key, shape) * (1e30 if key == 'decoder.5.conv.conv.weight' else 1)
        ),
    )
    assert conformance.check(vectors, NAME).status == 'fail'


def test_array_that_we_do_not_give_fails(vectors, tmp_path):
    arrays = dict(np.load(vectors / f'{NAME}.npz'))
    text = json.loads((vectors / f'{NAME}.json').read_text())
    text['outputs']['feat_9'] = text['outputs']['feat_2']
    arrays['feat_9'] = arrays['feat_2']
    (tmp_path / f'{NAME}.json').write_text(json.dumps(text))
    np.savez(tmp_path / f'{NAME}.npz', **arrays)
    outcome = conformance.check(tmp_path, NAME)
    assert outcome.status == 'fail'
    assert 'feat_9' in outcome.reason


@pytest.mark.parametrize(
    'damage',
    [
        lambda folder: (folder / f'{NAME}.npz').write_bytes(b'PK\x03\x04 cut'),
        lambda folder: (folder / f'{NAME}.npz').unlink(),
        lambda folder: (folder / f'{NAME}.json').write_text('[1]'),
        lambda folder: (folder / f'{NAME}.json').write_text('{"modules": {}}'),
        lambda folder: (folder / f'{NAME}.json').write_text('{'),
    ],
)
def test_damaged_vectors_are_refused(copied, tmp_path, damage):
    copied()
    damage(tmp_path)
    with pytest.raises(DepthNodeError):
        conformance.check(tmp_path, NAME)
    assert main([str(tmp_path)]) == 2


def test_input_of_a_giant_size_is_refused_before_it_is_drawn(copied, tmp_path):
    copied(change=lambda text: text['input'].update(shape=[1, 3, 1 << 30, 1 << 30]))
    with pytest.raises(ModelError, match='input shape'):
        conformance.check(tmp_path, NAME)


def test_tool_passes_only_when_all_selected_pass(copied, tmp_path, capsys):
    copied()
    assert main([str(tmp_path)]) == 0
    copied('another_network')
    assert main([str(tmp_path)]) == 1
    assert 'not implemented' in capsys.readouterr().out
    assert main([str(tmp_path), '--only', 'litemono*']) == 0


def test_tool_does_not_call_an_empty_selection_a_success(copied, tmp_path, capsys):
    copied('losses', lambda text: text.pop('modules'))
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path), '--only', 'nothing*']) == 2
    assert 'selects no network' in capsys.readouterr().err
    assert main([str(tmp_path / 'absent')]) == 2


def test_two_names_of_one_tensor_get_the_value_that_is_drawn_last():
    first = conformance.Entry('convs.a.weight', (2, 3), 'float32', True)
    second = conformance.Entry('decoder.0.weight', (2, 3), 'float32', True, 'convs.a.weight')
    drawn = conformance.drawn_entries([first, second])
    expected = conformance.draw('decoder.0.weight', (2, 3))
    assert all(np.array_equal(value.numpy(), expected) for value in drawn.values())


def test_registry_refuses_a_name_twice_and_a_name_that_differs():
    spec = registry.spec('lite-mono')
    with pytest.raises(ModelError, match='second time'):
        registry.register('lite-mono')(lambda: spec)
    with pytest.raises(ModelError, match='one name'):
        registry.register('other')(lambda: spec)
    assert 'other' not in registry.names()


def test_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(ModelError, match='lite-mono'):
        registry.spec('lite-stereo')


@pytest.mark.parametrize(
    ('identity', 'word'),
    [(Identity('huge'), 'tiny, small, base, 8m'), (Identity('tiny', {'size': 1}), 'dilations')],
)
def test_unknown_variants_and_options_are_refused_with_the_known_ones(identity, word):
    with pytest.raises(ModelError, match=word):
        registry.build('lite-mono', identity)


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
