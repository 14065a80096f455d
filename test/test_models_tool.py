"""Released checkpoints become model folders, or are refused without being run."""

from __future__ import annotations

import collections
import os
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exported_before import reuse_graphs

from depth_node import model_folder
from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.networks import conformance
from depth_node.networks import registry
from depth_node.networks.checkpoint import load_released
from depth_node.networks.checkpoint import read_checkpoint
from depth_node.networks.model_weights import network_of
from depth_node.networks.specification import Identity
from depth_node.tools import models

SPEC = registry.spec('lite-mono')
Entries = dict[str, object]


def released(variant: str, **extra: object) -> tuple[Entries, Entries]:
    """Return the entries of encoder.pth and depth.pth as the authors' scripts leave them."""
    network = registry.build('lite-mono', Identity(variant))
    conformance.fill(network)
    encoder: Entries = collections.OrderedDict(network.encoder.state_dict())
    decoder: Entries = collections.OrderedDict(network.decoder.state_dict())
    encoder.update(extra)
    for entries in (encoder, decoder):
        for name in ('total_ops', 'stages.0.total_params', 'normalize.total_ops'):
            entries[name] = torch.zeros(1, dtype=torch.float64)
    return encoder, decoder


def saved(folder: Path, encoder: object, decoder: object) -> dict[str, Path]:
    files = {'encoder': folder / 'encoder.pth', 'depth': folder / 'depth.pth'}
    torch.save(encoder, files['encoder'])
    torch.save(decoder, files['depth'])
    return files


@pytest.fixture(scope='module')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    entries = released('tiny', height=192, width=640, use_stereo=False)
    return saved(tmp_path_factory.mktemp('tiny'), *entries)


@pytest.fixture(scope='module')
def imported(tiny: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('models') / 'my-tiny'
    arguments = ['import', 'lite-mono', str(tiny['encoder'].parent), '-o', str(out)]
    assert models.main([*arguments, '--height', '64', '--width', '96']) == 0
    return out


def refusal(folder: Path, encoder: object, decoder: object) -> str:
    with pytest.raises(ModelError) as caught:
        load_released(SPEC, saved(folder, encoder, decoder))
    return str(caught.value)


def test_an_imported_model_has_the_weights_and_facts_of_the_release(
    imported: Path, tiny: dict[str, Path]
) -> None:
    folder = model_folder.read(imported)
    card = folder.card
    assert (card.name, card.network, card.variant) == ('my-tiny', 'lite-mono', 'tiny')
    assert [(size.height, size.width) for size in card.inputs] == [(64, 96)]
    assert card.options == {'dilations': '640x192'}
    assert (card.output.kind, card.output.min_depth_m, card.output.max_depth_m) == (
        'disparity',
        0.1,
        100.0,
    )
    assert card.focal_px is None and not card.is_metric and card.depth_scale == 1.0
    assert card.mean == (0.45, 0.45, 0.45) and card.std == (0.225, 0.225, 0.225)
    assert 'not stated' in card.weights_license
    state = network_of(folder).state_dict()
    original = torch.load(tiny['encoder'], weights_only=True)
    for key, value in original.items():
        if f'encoder.{key}' in state:
            assert torch.equal(state[f'encoder.{key}'], value)
    assert set(card.metrics['parity']['96x64']) >= {'openvino f32', 'onnxruntime f32'}


def test_list_and_show_tell_what_a_user_needs(
    imported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('DEPTH_NODE_MODELS', str(imported.parent))
    assert models.main(['list']) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if 'my-tiny' in line)
    assert 'lite-mono tiny' in row and '96x64' in row and ' no ' in row and 'not stated' in row
    assert models.main(['show', 'my-tiny']) == 0
    text = capsys.readouterr().out
    assert 'without a known scale' in text and 'as the card records' in text
    assert 'openvino f32' in text


def test_a_model_made_again_keeps_its_weights_and_card(
    imported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reuse_graphs(monkeypatch, model_folder.read(imported))
    copy = tmp_path / 'copy'
    shutil.copytree(imported, copy)
    before = model_folder.read(copy)
    weights = (copy / model_folder.WEIGHTS_NAME).read_bytes()
    assert models.main(['remake', str(copy)]) == 0
    assert 'made again' in capsys.readouterr().out
    after = model_folder.read(copy)
    assert (copy / model_folder.WEIGHTS_NAME).read_bytes() == weights
    assert replace(after.card, files={}, metrics={}) == replace(before.card, files={}, metrics={})


def test_show_finds_damage(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / 'copy'
    copy.mkdir()
    for entry in imported.iterdir():
        content = bytearray(entry.read_bytes())
        if entry.suffix == '.safetensors':
            content[-1] ^= 1
        (copy / entry.name).write_bytes(content)
    assert models.main(['show', str(copy)]) == 1
    captured = capsys.readouterr()
    assert 'damaged' in captured.err and captured.out == ''


def test_list_shows_a_broken_card_instead_of_stopping_at_it(
    imported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'card.yaml').write_text('name: [')
    monkeypatch.setenv('DEPTH_NODE_MODELS', f'{tmp_path}:{imported.parent}')
    assert models.main(['list']) == 0
    text = capsys.readouterr().out
    assert 'my-tiny' in text and 'refused' in text


@pytest.mark.parametrize(
    ('variant', 'height', 'width'),
    [
        ('tiny', 192, 640),
        ('tiny', 320, 1024),
        ('small', 192, 640),
        ('base', 320, 1024),
        ('8m', 192, 640),
    ],
)
def test_variant_and_dilations_follow_from_the_files(
    tmp_path: Path, variant: str, height: int, width: int
) -> None:
    files = saved(tmp_path, *released(variant, height=height, width=width, use_stereo=True))
    found = load_released(SPEC, files)
    assert found.identity == Identity(variant, {'dilations': f'{width}x{height}'})
    assert found.training_size == (height, width)
    assert not found.network.training


def test_files_of_parallel_training_and_wrapped_ones_are_read(
    tmp_path: Path, tiny: dict[str, Path]
) -> None:
    encoder, decoder = released('tiny')
    encoder = {f'module.{key}': value for key, value in encoder.items()}
    files = saved(tmp_path, {'state_dict': encoder, 'epoch': 3}, {'model': decoder})
    plain, found = load_released(SPEC, tiny), load_released(SPEC, files)
    assert found.training_size is None
    for key, value in plain.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[key], value)


def test_missing_keys_are_counted_and_the_first_ten_listed(tmp_path: Path) -> None:
    encoder, decoder = released('tiny')
    gone = [key for key in encoder if key.startswith('stages.1.')]
    for key in gone:
        del encoder[key]
    text = refusal(tmp_path, encoder, decoder)
    assert f'{len(gone)} missing' in text and text.count("'encoder.stages.1.") == 10
    assert 'encoder.pth' in text


def test_unexpected_and_misshapen_keys_are_refused(tmp_path: Path) -> None:
    encoder, decoder = released('tiny')
    decoder['decoder.9.conv.weight'] = torch.zeros(3)
    decoder['decoder.6.conv.bias'] = torch.zeros(2)
    text = refusal(tmp_path, encoder, decoder)
    assert "1 unexpected: 'decoder.decoder.9.conv.weight'" in text
    assert 'decoder.6.conv.bias (2,) instead of (1,)' in text


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    encoder, decoder = released('tiny')
    encoder['stages.0.0.gamma'] = torch.full((32,), float('nan'))
    assert "1 not finite: 'encoder.stages.0.0.gamma'" in refusal(tmp_path, encoder, decoder)


@pytest.mark.parametrize(
    'encoder',
    [
        {},
        {'conv1.weight': torch.zeros(64, 3, 7, 7), 'bn1.weight': torch.zeros(64)},
        {'downsample_layers.0.0.conv.weight': 'text'},
        {'downsample_layers.0.0.conv.weight': torch.zeros(32, 3, 3, 3)},
    ],
)
def test_files_of_another_network_are_refused(tmp_path: Path, encoder: Entries) -> None:
    assert 'expected' in refusal(tmp_path, encoder, released('tiny')[1])


def test_an_encoder_and_a_decoder_of_different_variants_are_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, released('tiny')[0], released('8m')[1])
    assert 'of another shape' in text and 'depth.pth' in text


def test_the_parts_must_be_exactly_those_of_the_network(tiny: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match='encoder, depth'):
        load_released(SPEC, {'encoder': tiny['encoder']})


class Attack:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


def malicious(folder: Path, kind: str, witness: Path) -> Path:
    path = folder / 'encoder.pth'
    attack = {'stem': Attack(witness)}
    if kind == 'pickle':
        path.write_bytes(pickle.dumps(attack, protocol=2))
    elif kind == 'zip':
        torch.save(attack, path)
    elif kind == 'legacy':
        torch.save(attack, path, _use_new_zipfile_serialization=False)
    elif kind == 'eval':
        path.write_bytes(
            b"cbuiltins\neval\n(V__import__('os').mkdir('%s')\ntR." % str(witness).encode()
        )
    elif kind == 'module':
        torch.save(torch.nn.Linear(2, 2), path)
    else:
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('x/data.pkl', pickle.dumps(attack, protocol=2))
            archive.writestr('x/version', '3\n')
    return path


@pytest.mark.parametrize('kind', ['pickle', 'zip', 'legacy', 'eval', 'module', 'archive'])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    witness = tmp_path / 'ran'
    with pytest.raises(ModelError, match=r'more than weights|cannot read'):
        read_checkpoint(malicious(tmp_path, kind, witness))
    assert not witness.exists()


def test_the_refusal_of_a_pickle_says_that_it_was_not_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='not loaded, because loading it could run a program'):
        read_checkpoint(malicious(tmp_path, 'zip', tmp_path / 'ran'))


@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(
    tmp_path: Path, tiny: dict[str, Path], share: float
) -> None:
    whole = tiny['encoder'].read_bytes()
    path = tmp_path / 'encoder.pth'
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match='empty file' if share == 0 else 'cannot read'):
        read_checkpoint(path)


def test_a_web_page_or_a_missing_file_is_named(tmp_path: Path) -> None:
    page = tmp_path / 'encoder.pth'
    page.write_text('<!doctype html><title>Quota exceeded</title>')
    with pytest.raises(ModelError, match='web page'):
        read_checkpoint(page)
    with pytest.raises(ModelError, match='no file'):
        read_checkpoint(tmp_path / 'absent.pth')


@pytest.mark.parametrize('content', [torch.zeros(3), [1, 2], {1: torch.zeros(1)}, 'text'])
def test_a_file_without_named_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / 'encoder.pth')
    with pytest.raises(ModelError, match='names to tensors'):
        read_checkpoint(tmp_path / 'encoder.pth')


@pytest.mark.parametrize('version', ['2.5.1', '1.13.0+cpu'])
def test_a_torch_whose_restricted_reader_leaks_is_refused(
    tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(torch, '__version__', version)
    with pytest.raises(MissingPackage, match=r'torch>=2\.6'):
        read_checkpoint(tiny['encoder'])


def test_import_answers_trouble_with_one_sentence_and_status_1(
    tmp_path: Path, tiny: dict[str, Path], imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, size = str(tiny['encoder'].parent), ('--height', '65', '--width', '640')
    for arguments, named in (
        (['import', 'mono-lite', path, '-o', str(tmp_path / 'a')], 'lite-mono'),
        (['import', 'lite-mono', path, '-o', str(imported)], 'already there'),
        (['import', 'lite-mono', path, '-o', str(tmp_path / 'a'), *size], '640x65'),
        (['import', 'lite-mono', path, '-o', str(tmp_path / 'a'), *size[:2]], 'both or none'),
        (['import', 'lite-mono', path, '-o', str(tmp_path / 'a'), '--variant', '8m'], 'of 8m'),
        (['import', 'lite-mono', str(tmp_path), '-o', str(tmp_path / 'a')], 'no encoder.pth'),
        (['show', 'absent'], 'models list'),
    ):
        assert models.main(arguments) == 1
        captured = capsys.readouterr()
        assert named in captured.err and captured.err.count('\n') == 1 and captured.out == ''
    assert list(tmp_path.iterdir()) == []


def test_import_asks_for_a_size_where_the_files_carry_none_and_several_were_released(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = registry.build('monodepth2', Identity('resnet18'))
    encoder = {f'encoder.{key}': value for key, value in network.encoder.state_dict().items()}
    saved(tmp_path, encoder, network.decoder.state_dict())
    assert models.main(['import', 'monodepth2', str(tmp_path), '-o', 'never']) == 1
    assert '--height and --width' in capsys.readouterr().err


def test_sources_tell_where_authors_publish_under_which_licence_with_which_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert models.main(['sources']) == 0
    text = capsys.readouterr().out
    for name in registry.names():
        spec = registry.spec(name)
        assert spec.paper in text and spec.weights_license in text
        assert all(release.name in text and release.source in text for release in spec.releases)
    assert text.count('non-commercial') >= 4 and 'never released' in text
    assert 'abs_rel 0.107' in text
