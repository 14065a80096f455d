"""The command: models and recordings told apart, a table, JSON, and refusals in sentences."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from judging_samples import write

from depth_node import model_folder
from depth_node.judging.judgement import Judgement
from depth_node.tools import evaluate

pytest.importorskip('rosbags')
pytest.importorskip('openvino')

BUNDLED = Path(__file__).parents[1] / 'models' / 'lite-mono-small-world'


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    return write(tmp_path_factory.mktemp('evaluate') / 'bag', count=10)


@pytest.fixture(scope='module')
def doubled(tmp_path_factory):
    """Return a model whose depth is twice that of the bundled one."""
    folder = model_folder.read(BUNDLED)

    def fill(target: Path) -> None:
        for name in folder.card.files:
            shutil.copy(folder.path / name, target / name)

    card = dataclasses.replace(
        folder.card, name='doubled', depth_scale=2.0 * folder.card.depth_scale
    )
    return model_folder.write(tmp_path_factory.mktemp('models') / 'doubled', card, fill).path


def test_models_stand_side_by_side_and_a_doubled_one_has_half_the_scale(
    bag, doubled, tmp_path, capsys
):
    out = tmp_path / 'all.json'
    status = evaluate.main([str(BUNDLED), str(bag), str(doubled), '--json', str(out)])
    text = capsys.readouterr().out
    assert status == 0 and text.splitlines()[0].split() == [BUNDLED.name, 'doubled']
    assert 'best depth per row' in text and 'edge_step = 0' in text
    assert 'too narrow: only 1 block of' in text
    value = json.loads(out.read_text())
    one, two = (Judgement.from_json(item) for item in value['models'])
    assert value['frames'] == 10
    assert two.series['scale'].median == pytest.approx(one.series['scale'].median / 2, rel=1e-4)
    assert two.mean('median.abs_rel') == pytest.approx(one.mean('median.abs_rel'), rel=1e-3)
    assert one.sha256 != two.sha256 and len(one.sha256) == 64


def test_an_installed_model_is_known_by_its_name_and_held_out_time_is_told(bag, capsys):
    assert evaluate.main(['lite-mono-small-world', str(bag), '--held-out-only']) == 0
    text = capsys.readouterr().out
    assert 'the last fifth' in text
    assert text.splitlines()[1].split() == ['images', 'compared', '2']


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['lite-mono-small-world'], 'no recording'),
        (['{bag}'], 'no model'),
        (['lite-mono-small-wurld', '{bag}'], 'Installed are: lite-mono-small-world'),
        (['lite-mono-small-world', '{bag}', '--reference', '/nothing'], '/nothing'),
        (['lite-mono-small-world', '{bag}', '--frames', '0'], '--frames'),
        (['lite-mono-small-world', '{bag}', '--block-s', 'nan'], '--block-s'),
        (['lite-mono-small-world', '{bag}', '--min-m', '9', '--max-m', '3'], '--min-m'),
        (['lite-mono-small-world', '{bag}', '--seed', '-1'], '--seed'),
        (['lite-mono-small-world', '{bag}', '--json', '/proc/none/x.json'], '--json'),
    ],
)
def test_what_cannot_be_judged_is_refused_with_a_sentence(bag, capsys, words, told):
    status = evaluate.main([word.replace('{bag}', str(bag)) for word in words])
    said = capsys.readouterr().err
    assert status == 1 and said.startswith('evaluate: ') and told in said
    assert 'Traceback' not in said
