"""A model folder is read whole and unharmed, or refused with a sentence that names the trouble."""

from __future__ import annotations

import dataclasses
import os
import random
import re
from pathlib import Path

import pytest
import yaml

from depth_node import model_folder
from depth_node.errors import ModelError
from depth_node.model_folder import CARD_NAME
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import FileRecord
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import OutputSpec
from depth_node.model_folder import card_yaml
from depth_node.model_folder.card import card_from_yaml
from depth_node.model_folder.card import card_to_yaml
from depth_node.model_folder.card import check_files

GRAPH = 'graph_96x64.onnx'
GOLDEN = 'golden_96x64.safetensors'
FILES = (WEIGHTS_NAME, GRAPH, GOLDEN)


def example_card(**changes: object) -> ModelCard:
    card = ModelCard(
        name='sample',
        network='lite-mono',
        variant='tiny',
        output=OutputSpec('disparity', 0.1, 100.0),
        inputs=(InputSpec(64, 96, GRAPH, GOLDEN),),
        fit='native',
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
        focal_px=55.5,
        options={'dilations': '640x192', 'nested': [1, 2.5, None, True]},
        metrics={'test set': {'abs_rel': 0.1}},
        notes='Zeile eins\nline two: "quoted" \u2713',
    )
    return dataclasses.replace(card, **changes)


def fill(folder: Path) -> None:
    draw = random.Random(7)
    for name in FILES:
        (folder / name).write_bytes(draw.randbytes(3000))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder.write(tmp_path / 'sample', example_card(), fill).path


def edited(folder: Path, **changes: object) -> None:
    """Change keys of the card on disk; the value ... takes a key out."""
    mapping = yaml.safe_load((folder / CARD_NAME).read_text())
    for key, value in changes.items():
        if value is ...:
            del mapping[key]
        else:
            mapping[key] = value
    (folder / CARD_NAME).write_text(card_yaml.dumped(mapping))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        model_folder.read(folder)
    return str(caught.value)


def test_what_was_written_is_read_back_equal(folder: Path) -> None:
    read = model_folder.read(folder)
    assert dataclasses.replace(read.card, files={}) == example_card()
    assert set(read.card.files) == set(FILES)
    assert read.file(GRAPH).read_bytes() == (folder / GRAPH).read_bytes()


def test_a_card_survives_yaml_exactly() -> None:
    record = FileRecord('ab' * 32, 5)
    card = example_card(depth_scale=1.0 / 3.0, files=dict.fromkeys(FILES, record))
    assert card_from_yaml(card_to_yaml(card), 'card') == card


@pytest.mark.parametrize('name', FILES)
def test_a_flipped_bit_anywhere_is_refused(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    draw = random.Random(name)
    for place in [0, len(whole) * 8 - 1, *(draw.randrange(len(whole) * 8) for _ in range(30))]:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        (folder / name).write_bytes(damaged)
        assert 'damaged' in refusal(folder)
    (folder / name).write_bytes(whole)
    model_folder.read(folder)


@pytest.mark.parametrize('kept', [1, 1500, 2999])
def test_a_truncated_file_is_named_as_truncated(folder: Path, kept: int) -> None:
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:kept])
    text = refusal(folder)
    assert 'truncated' in text and WEIGHTS_NAME in text and '3000' in text


def test_a_longer_file_is_refused(folder: Path) -> None:
    with (folder / GRAPH).open('ab') as stream:
        stream.write(b'more')
    assert 'longer' in refusal(folder)


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        (b'', 'empty'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3000\n', 'Git LFS'),
        (b'\n <!DOCTYPE html><html><body>Sign in</body></html>', 'web page'),
        (b'<html lang="en"></html>', 'web page'),
    ],
)
@pytest.mark.parametrize('name', [WEIGHTS_NAME, CARD_NAME])
def test_stand_ins_of_downloads_are_recognised(
    folder: Path, name: str, content: bytes, named: str
) -> None:
    (folder / name).write_bytes(content)
    text = refusal(folder)
    assert named in text and name in text


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / GOLDEN).unlink()
    assert GOLDEN in refusal(folder)


def test_a_file_that_the_card_does_not_list_is_refused(folder: Path) -> None:
    (folder / 'extra.bin').write_bytes(b'x')
    assert 'extra.bin' in refusal(folder)


def test_a_link_out_of_the_folder_is_refused_even_to_the_right_bytes(folder: Path) -> None:
    outside = folder.parent / 'outside.bin'
    (folder / GRAPH).rename(outside)
    (folder / GRAPH).symlink_to(outside)
    assert 'symbolic link' in refusal(folder)


def test_a_pipe_is_refused_without_opening_it(folder: Path) -> None:
    (folder / GRAPH).unlink()
    os.mkfifo(folder / GRAPH)
    assert 'pipe' in refusal(folder)


def test_a_symlinked_install_is_read_where_it_really_lies(folder: Path, tmp_path: Path) -> None:
    installed = tmp_path / 'install' / 'sample'
    installed.mkdir(parents=True)
    for entry in folder.iterdir():
        (installed / entry.name).symlink_to(entry)
    assert model_folder.read(installed).path == folder


WRONG_VALUES = {
    'name': [5, '', '../up', 'a/b'],
    'network': [None, 'a b'],
    'variant': [['tiny'], ''],
    'output': [
        'disparity',
        {'kind': 'disparity'},
        {'kind': 'sonar', 'min_depth_m': 0.1, 'max_depth_m': 1.0},
        {'kind': 'metric', 'min_depth_m': 2.0, 'max_depth_m': 1.0},
        {'kind': 'metric', 'min_depth_m': 0.0, 'max_depth_m': 1.0},
        {'kind': 'metric', 'min_depth_m': float('nan'), 'max_depth_m': 1.0},
        {'kind': 'metric', 'min_depth_m': '0.1', 'max_depth_m': 1.0},
    ],
    'inputs': [
        [],
        {},
        [{'height': 64, 'width': 96, 'graph': GRAPH}],
        [{'height': 64.0, 'width': 96, 'graph': GRAPH, 'golden': GOLDEN}],
        [{'height': True, 'width': 96, 'graph': GRAPH, 'golden': GOLDEN}],
        [{'height': 1 << 31, 'width': 96, 'graph': GRAPH, 'golden': GOLDEN}],
        [{'height': -64, 'width': 96, 'graph': GRAPH, 'golden': GOLDEN}],
        [{'height': 64, 'width': 96, 'graph': '../' + GRAPH, 'golden': GOLDEN}],
        [{'height': 64, 'width': 96, 'graph': GRAPH, 'golden': GOLDEN}] * 2,
    ],
    'fit': ['squash', None],
    'mean': [[0.1, 0.2], [0.1, 0.2, 'x'], [float('inf')] * 3, [100.0] * 3, 0.5],
    'std': [[1.0, 1.0, 0.0], [1.0, 1.0, -1.0], [1.0] * 4],
    'focal_px': [0.0, -5.0, 'long', float('nan'), True],
    'depth_scale': [0.0, -1.0, float('inf'), None],
    'options': [[], {'a': float('nan')}, {1: 'a'}],
    'storage': ['f64', None],
    'weights_license': [None, 3],
    'metrics': [{'a': {'b': [float('inf')]}}, 'good'],
    'files': [{}, [], {WEIGHTS_NAME: 'ab' * 32}],
    'format': [0, 2, '1', True, None],
}


@pytest.mark.parametrize(
    ('key', 'value'), [(key, value) for key, values in WRONG_VALUES.items() for value in values]
)
def test_a_wrong_value_in_the_card_is_refused_by_its_key(
    folder: Path, key: str, value: object
) -> None:
    edited(folder, **{key: value})
    assert f'{CARD_NAME}: {key}' in refusal(folder)


def test_a_graph_without_a_record_is_refused(folder: Path) -> None:
    spec = {'height': 64, 'width': 96, 'graph': 'other.onnx', 'golden': GOLDEN}
    edited(folder, inputs=[spec])
    assert "no entry for 'other.onnx'" in refusal(folder)


@pytest.mark.parametrize('key', [field.name for field in dataclasses.fields(ModelCard)])
def test_a_missing_key_is_named(folder: Path, key: str) -> None:
    edited(folder, **{key: ...})
    assert f'{CARD_NAME}: {key}: received no such key' in refusal(folder)


def test_an_unknown_key_is_named(folder: Path) -> None:
    edited(folder, focal_lenght_px=5.0)
    text = refusal(folder)
    assert 'focal_lenght_px' in text and 'unknown' in text


@pytest.mark.parametrize(
    'name', ['../outside.bin', '/etc/hostname', 'sub/file', '..', '.hidden', 'a\0b', '', CARD_NAME]
)
def test_a_listed_file_with_a_path_for_a_name_is_refused(folder: Path, name: str) -> None:
    files = yaml.safe_load((folder / CARD_NAME).read_text())['files']
    edited(folder, files={**files, name: {'sha256': 'ab' * 32, 'size_bytes': 1}})
    text = refusal(folder)
    assert f'{CARD_NAME}: files' in text
    assert 'plain file name' in text or 'printable text' in text


@pytest.mark.parametrize(
    ('record', 'key'),
    [
        ({'sha256': 'AB' * 32, 'size_bytes': 3000}, 'sha256'),
        ({'sha256': 'ab', 'size_bytes': 3000}, 'sha256'),
        ({'sha256': 'ab' * 32, 'size_bytes': 0}, 'size_bytes'),
        ({'sha256': 'ab' * 32, 'size_bytes': True}, 'size_bytes'),
        ({'sha256': 'ab' * 32, 'size_bytes': -1}, 'size_bytes'),
        ({'sha256': 'ab' * 32, 'size_bytes': 1 << 60}, 'size_bytes'),
        ({'sha256': 'ab' * 32}, 'size_bytes'),
    ],
)
def test_a_wrong_file_record_is_named(folder: Path, record: object, key: str) -> None:
    files = yaml.safe_load((folder / CARD_NAME).read_text())['files']
    edited(folder, files={**files, GRAPH: record})
    assert key in refusal(folder)


def test_a_network_of_a_thousand_million_parameters_has_room_in_a_card() -> None:
    record = FileRecord('ab' * 32, 4 * 1_100_000_000)
    check_files(example_card(files=dict.fromkeys(FILES, record)), 'card')


def test_yaml_that_makes_objects_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    witness = tmp_path / 'ran'
    (folder / CARD_NAME).write_text(f"!!python/object/apply:os.mkdir ['{witness}']\n")
    assert 'YAML' in refusal(folder)
    assert not witness.exists()


@pytest.mark.parametrize(
    'text',
    [
        'a: &x [1, 2]\nb: *x\n',
        'name: one\nname: two\n',
        '[' * 20_000,
        'a: [1, 2\n',
        '- just\n- a list\n',
        'text',
        'a: 2020-13-45\n',
        '? [1, 2]\n: a\n',
        '"\x01": 1\n',
        '--- 1\n--- 2\n',
    ],
)
def test_hostile_yaml_is_refused(folder: Path, text: str) -> None:
    (folder / CARD_NAME).write_text(text)
    refusal(folder)


@pytest.mark.parametrize('number', ['9' * 400, '-0x' + 'f' * 9000], ids=['decimal', 'hexadecimal'])
@pytest.mark.parametrize('key', ['format', 'focal_px', 'depth_scale', 'height', 'size_bytes'])
def test_a_number_of_thousands_of_digits_is_refused(folder: Path, key: str, number: str) -> None:
    card = folder / CARD_NAME
    card.write_text(re.sub(rf'{key}: .*', f'{key}: {number}', card.read_text(), count=1))
    assert number[:20] in card.read_text()
    refusal(folder)


@pytest.mark.parametrize(
    ('before', 'after', 'named'),
    [
        ('fit: native\n', 'fit: native\nfit: crop\n', 'repeated key'),
        ("parent: ''\n", "parent: &empty ''\n", 'alias'),
    ],
)
def test_a_good_card_with_a_repeated_key_or_an_alias_is_refused(
    folder: Path, before: str, after: str, named: str
) -> None:
    text = (folder / CARD_NAME).read_text()
    assert before in text
    text = text.replace(before, after).replace("training_data: ''", 'training_data: *empty')
    if named != 'alias':
        text = text.replace('*empty', "''")
    (folder / CARD_NAME).write_text(text)
    assert named in refusal(folder)


def test_a_card_that_is_no_text_or_too_large_is_refused(folder: Path) -> None:
    (folder / CARD_NAME).write_bytes(b'name: \xff\xfe')
    assert 'UTF-8' in refusal(folder)
    (folder / CARD_NAME).write_bytes(b'#' * (256 * 1024 + 1))
    assert 'at most' in refusal(folder)


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    assert CARD_NAME in refusal(tmp_path)
    assert CARD_NAME in refusal(tmp_path / 'nowhere')


def test_a_request_for_an_unlisted_file_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError):
        model_folder.read(folder).file('../outside')


def test_an_existing_model_is_replaced_only_when_told(folder: Path) -> None:
    before = (folder / CARD_NAME).read_text()
    with pytest.raises(ModelError, match='already there'):
        model_folder.write(folder, example_card(notes='new'), fill)
    assert (folder / CARD_NAME).read_text() == before
    model_folder.write(folder, example_card(notes='new'), fill, overwrite=True)
    assert model_folder.read(folder).card.notes == 'new'
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_what_is_no_model_is_never_replaced(tmp_path: Path) -> None:
    precious = tmp_path / 'home'
    precious.mkdir()
    (precious / 'thesis.txt').write_text('years of work')
    with pytest.raises(ModelError, match='no model folder'):
        model_folder.write(precious, example_card(), fill, overwrite=True)
    assert (precious / 'thesis.txt').exists()


@pytest.mark.parametrize('overwrite', [False, True])
def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / 'sample'
    if overwrite:
        model_folder.write(target, example_card(), fill)
    before = sorted(str(path) for path in tmp_path.rglob('*'))

    def breaks(folder: Path) -> None:
        fill(folder)
        raise OSError(28, 'No space left on device')

    def disagrees(folder: model_folder.ModelFolder) -> ModelCard:
        raise ModelError('test', 'a', 'b')

    with pytest.raises(OSError):
        model_folder.write(target, example_card(), breaks, overwrite=overwrite)
    with pytest.raises(ModelError):
        model_folder.write(target, example_card(), fill, inspect=disagrees, overwrite=overwrite)
    with pytest.raises(ModelError):
        model_folder.write(target, example_card(), lambda _: None, overwrite=overwrite)
    with pytest.raises(ModelError):
        model_folder.write(target, example_card(std=(0.0, 1.0, 1.0)), fill, overwrite=overwrite)
    assert sorted(str(path) for path in tmp_path.rglob('*')) == before


def test_an_inspection_that_touches_the_files_is_refused(tmp_path: Path) -> None:
    def meddles(folder: model_folder.ModelFolder) -> ModelCard:
        folder.file(GRAPH).write_bytes(b'other')
        return folder.card

    with pytest.raises(ModelError, match='truncated'):
        model_folder.write(tmp_path / 'sample', example_card(), fill, inspect=meddles)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_swept_but_not_a_living_one(tmp_path: Path) -> None:
    dead, living = tmp_path / '.sample.aaaa.tmp', tmp_path / '.sample.bbbb.tmp'
    dead.mkdir()
    living.mkdir()
    os.utime(dead, (0, 0))
    model_folder.write(tmp_path / 'sample', example_card(), fill)
    assert not dead.exists() and living.exists()


def test_a_name_is_found_in_each_place_and_the_first_place_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, install = tmp_path / 'own', tmp_path / 'prefix' / 'share' / 'depth_node' / 'models'
    model_folder.write(own / 'both', example_card(), fill)
    model_folder.write(install / 'both', example_card(), fill)
    model_folder.write(install / 'shipped', example_card(), fill)
    monkeypatch.setenv('DEPTH_NODE_MODELS', str(own))
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path / "none"}:{tmp_path / "prefix"}')
    assert model_folder.find('both') == own / 'both'
    assert model_folder.find('shipped') == install / 'shipped'
    assert model_folder.find(str(install / 'both')) == install / 'both'


@pytest.mark.parametrize('name', ['absent', '', '.', '..', 'a\0b', 'sample\nFAKE LOG LINE'])
def test_an_unknown_name_is_answered_with_the_names_that_are_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv('DEPTH_NODE_MODELS', str(folder.parent))
    with pytest.raises(ModelError) as caught:
        model_folder.find(name)
    assert '\n' not in str(caught.value)
    if '\0' not in name:
        assert 'sample' in str(caught.value)
        assert 'python -m depth_node.tools.models list' in str(caught.value)


def test_a_name_is_never_looked_up_in_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.delenv('DEPTH_NODE_MODELS', raising=False)
    with pytest.raises(ModelError, match=r'\./sample'):
        model_folder.find('sample')
    assert model_folder.find('./sample').resolve() == folder


def test_a_path_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=CARD_NAME):
        model_folder.find(f'{tmp_path}/nothing')


@pytest.mark.parametrize('path', ['~nobody-of-this-name/model', './' + 'b' * 300])
def test_a_path_that_cannot_be_looked_at_is_refused(path: str) -> None:
    with pytest.raises(ModelError, match=CARD_NAME):
        model_folder.find(path)
