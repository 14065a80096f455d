"""The bundled model is judged by what it never saw, and no figure of its page is typed by hand."""

from __future__ import annotations

import copy
import json
import math
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from result_schema import problems_of

from depth_node import model_folder
from depth_node.benchmark import bundled
from depth_node.benchmark import bundled_files
from depth_node.benchmark import bundled_page
from depth_node.benchmark import power_law
from depth_node.benchmark.bundled_data import HELD_OUT
from depth_node.benchmark.bundled_data import TRAINED
from depth_node.benchmark.bundled_data import rendered
from depth_node.benchmark.bundled_picture import Shown
from depth_node.benchmark.bundled_picture import jpeg
from depth_node.benchmark.bundled_picture import sheet
from depth_node.benchmark.flicker import flicker
from depth_node.benchmark.flicker import spread_over_time
from depth_node.benchmark.training_record import curves_of
from depth_node.benchmark.training_record import read_record
from depth_node.camera import CameraView
from depth_node.camera import from_horizontal_fov
from depth_node.errors import DepthNodeError
from depth_node.errors import ModelError
from depth_node.files import sha256_of
from depth_node.frames import CameraImage
from depth_node.frames import DepthFrame
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.models import opened_models
from depth_node.judging.scenes import Scene
from depth_node.model_folder import CARD_NAME
from depth_node.settings import Settings
from depth_node.world import samples

ROOT = Path(__file__).parents[1]
RESULT = ROOT / 'benchmarks' / 'results' / bundled_files.NAME
BUNDLED = Settings().model.name
PLAN = bundled.Plan(
    model=BUNDLED, recordings=(), before=BUNDLED, views=4, size=(96, 128), still=1, timed=0
)


@pytest.fixture(scope='module')
def measured():
    return bundled.measure(PLAN)


@pytest.fixture(scope='module')
def written(measured, tmp_path_factory):
    """The result file and the folder of the page, with the record of a training."""
    folder = tmp_path_factory.mktemp('bundled')
    curve = [{'images': 100.0 * n, 'world scaled': n**-0.2} for n in range(1, 9)]
    record = {'plan': {'seed': 3, 'stages': [{'images': 9}]}, 'curve': curve, 'further': {}}
    bundled_files.write(folder / 'bundled.json', folder, PLAN, measured, record)
    return folder


def content_of(folder: Path):
    return json.loads((folder / 'bundled.json').read_text())


def test_every_rendered_data_set_is_judged_beside_guesses_and_the_former_model(measured) -> None:
    assert {row.kind for row in measured.rows} >= {TRAINED}
    for row in measured.rows:
        assert 0.0 < row.scaled['abs_rel'] < 2.0 and row.scaled['coverage'] > 0.99
        assert row.constants['rows_scaled_abs_rel'] <= row.constants['median_abs_rel'] * 1.02
        assert row.constants['rows_abs_rel'] <= row.constants['abs_rel'] * 1.02
        assert 0.0 < row.flicker.typical < row.flicker.p95
        # it was held against itself
        assert {item.measure for item in row.before} == set(bundled.COMPARED)
        assert all(item.before == item.after and item.low == item.high == 0 for item in row.before)


def test_the_model_that_is_judged_is_the_one_whose_card_is_told(tmp_path, monkeypatch) -> None:
    """A folder of the same name in the current one is not what the name means."""
    installed = model_folder.find(BUNDLED).resolve()
    shutil.copytree(installed, tmp_path / BUNDLED)
    monkeypatch.chdir(tmp_path)
    opened = []

    @contextmanager
    def noted(names, **_):
        with opened_models(names, engine='openvino', precision='f32') as models:
            opened.extend(models)
            yield models

    monkeypatch.setattr(bundled, 'opened_models', noted)
    changed = tmp_path / BUNDLED / CARD_NAME
    changed.write_text(changed.read_text() + '\n# another\n')
    bundled.measure(replace(PLAN, before='', views=0))
    assert [model.sha256 for model in opened] == [sha256_of(installed / CARD_NAME)]


def test_a_picture_names_models_and_not_their_place_on_this_machine(measured) -> None:
    names = {name for shown in measured.shown for name, *_ in shown.depths}
    assert names == {BUNDLED, f'{BUNDLED} before'}
    assert bundled._told(['/home/me/new', BUNDLED]) == ['new', BUNDLED]


def test_a_model_without_metres_is_refused(tmp_path: Path) -> None:
    shutil.copytree(model_folder.find(BUNDLED), tmp_path / 'some')
    card = tmp_path / 'some' / CARD_NAME
    card.write_text(card.read_text().replace('kind: disparity', 'kind: relative'))
    with pytest.raises(ModelError, match='relative inverse depth'):
        bundled.measure(replace(PLAN, model=str(tmp_path / 'some'), before='', views=1))


def test_the_result_keeps_the_schema(written) -> None:
    content = content_of(written)
    assert problems_of(content) == []
    del content['rows'][0]['flicker']
    assert problems_of(content)


def test_a_record_stays_where_the_same_weights_are_judged_again(written, measured, tmp_path):
    shutil.copytree(written, tmp_path / 'again')
    path = tmp_path / 'again' / 'bundled.json'
    bundled_files.write(path, tmp_path / 'again', PLAN, measured, None)
    assert json.loads(path.read_text())['training'] == content_of(written)['training']
    other = replace(measured, model={**measured.model, 'weights_sha256': 'f' * 64})
    bundled_files.write(path, tmp_path / 'again', PLAN, other, None)
    assert json.loads(path.read_text())['training'] == []


def row_of(data: str, scaled: float, metric: float = 0.25) -> bundled.DataRow:
    constants = {'median_abs_rel': 0.16, 'rows_abs_rel': 0.15, 'rows_scaled_abs_rel': 0.13}
    return bundled.DataRow(
        data, 'recording', 9, {'abs_rel': metric}, {'abs_rel': scaled}, 1.0, (0.1, 0.2),
        constants, bundled.Flicker(1, 0.05, 0.1, 0.05), (),
    )  # fmt: skip


def kept(rows, speed=(), size_mb: float = 5.0) -> dict[str, bool]:
    return {figure.what: figure.kept for figure in bundled.asked_of(rows, speed, size_mb)}


def test_figures_are_held_to_the_stricter_of_the_guesses() -> None:
    good = kept([row_of('livingroom', 0.11)])
    assert all(good[what] for what in good if 'livingroom' in what or 'mean' in what)
    middling = kept([row_of('livingroom', 0.14)])
    assert middling['livingroom: median-scaled Abs Rel']
    assert middling["livingroom: median-scaled Abs Rel, below each image's own median"]
    assert not middling['livingroom: median-scaled Abs Rel, below the best depth per row']
    assert not kept([row_of('livingroom', 0.11, 0.31)])['livingroom: metric Abs Rel']
    assert 'hall: metric Abs Rel' not in kept([row_of('hall', 0.11)])


def test_what_was_not_measured_is_missed() -> None:
    found = kept([])
    assert found.pop('size of the folder, MB')
    assert len(found) == 3 and not any(found.values())
    rows = [replace(row_of('world', 0.1), kind=TRAINED, flicker=bundled.Flicker(1, *three))
            for three in ((0.01, 0.02, 0.01), (math.nan,) * 3)]  # fmt: skip
    flickers = 'still camera in rendered scenes: flicker, share of depth'
    assert kept(rows[:1])[flickers]
    assert not kept(rows)[flickers] and not kept(rows[::-1])[flickers]


def test_the_page_says_first_what_is_missed(written) -> None:
    content = content_of(written)
    text = bundled_page.documents(content)[bundled_page.PAGE]
    missed = sum(not figure['kept'] for figure in content['figures'])
    assert f'{missed} of {len(content["figures"])} figures' in text.splitlines()[4]
    row = content['rows'][0]
    lost = copy.deepcopy(content)
    for item in lost['rows']:
        item['scaled']['abs_rel'] = 0.0
    lost['rows'][0]['scaled']['abs_rel'] = row['constants']['median_abs_rel'] + 0.1
    assert f'own median depth, on {row["data"]}.' in ' '.join(bundled_page.verdict(lost))
    assert f'{row["metric"]["abs_rel"]:.3f}' in text
    everything = copy.deepcopy(content)
    for figure in everything['figures']:
        figure['kept'] = True
    assert bundled_page.verdict(everything)[0].startswith('All ')


def test_what_was_written_by_hand_stays_and_the_rest_is_made_anew(written) -> None:
    content = content_of(written)
    text = bundled_page.documents(content)[bundled_page.PAGE]
    mine = text.replace('Nothing is noted yet.', 'Bigger rooms\nhelped.').replace('# The', '# A')
    again = bundled_page.documents(content, mine)[bundled_page.PAGE]
    assert 'Bigger rooms\nhelped.' in again and again.startswith('# The bundled model')
    assert bundled_page.documents(content, again)[bundled_page.PAGE] == again


def test_the_readme_gets_the_verdict_between_its_marks_alone(written) -> None:
    content = content_of(written)
    assert bundled_page.in_readme(content, 'no marks') == 'no marks'
    marks = f'a {bundled_page.README_BEGIN} old {bundled_page.README_END} b'
    told = bundled_page.in_readme(content, marks)
    assert told.startswith('a <') and told.endswith('> b') and ' old ' not in told
    assert bundled_page.verdict(content)[0] in told
    assert bundled_page.in_readme(content, told) == told


def test_the_page_shows_the_curve_and_what_it_promises(written) -> None:
    text = (written / bundled_page.PAGE).read_text()
    # the law of the record is n^-0.2: a tenth of 8 images at most, without scatter
    assert f'n^-0.200 [-0.200, -0.200] | {16**-0.2:.3f}' in text
    assert '| seed | 3 |' in text and '| stage 1 | images 9 |' in text
    assert (written / bundled_page.CURVE).read_text().startswith('<svg')
    content = {**content_of(written), 'training': []}
    made = bundled_page.documents(content)
    assert bundled_page.CURVE not in made and 'not given' in made[bundled_page.PAGE]


def test_the_card_gets_the_figures_and_keeps_the_rest(measured, tmp_path: Path) -> None:
    there = model_folder.find(BUNDLED)
    mine = Path(shutil.copytree(there, tmp_path / there.name))
    bundled_files.write_card(mine, measured.rows)
    old, new = model_folder.read(there).card, model_folder.read(mine).card
    assert set(new.metrics) == {row.data for row in measured.rows} | {'parity'}
    assert new.metrics['parity'] == old.metrics['parity'] and new.files == old.files
    assert f'Abs Rel {measured.rows[0].metric["abs_rel"]:.3f}' in new.notes


def test_rendered_views_are_the_same_each_time_and_held_out_kinds_are_apart() -> None:
    (first, *_), (again, *others) = rendered(3, 32, 24), rendered(3, 32, 24)
    for one, other in zip(
        first.scenes(lambda stamp: True), again.scenes(lambda stamp: True), strict=True
    ):
        np.testing.assert_array_equal(one.image.rgb, other.image.rgb)
        np.testing.assert_array_equal(one.truth_m, other.truth_m)
    assert len(list(first.scenes(lambda stamp: stamp == 0))) == 1
    for data in others:
        kinds = {scene.image.frame_id for scene in data.scenes(lambda stamp: True)}
        assert data.kind == HELD_OUT and not kinds & set(samples.SHARES)


def still_scene() -> Scene:
    rgb = np.full((12, 16, 3), 128, np.uint8)
    view = CameraView(from_horizontal_fov(16, 12, 1.0), None)
    return Scene(CameraImage(rgb, 0, 'still'), view, np.ones((12, 16), np.float32))


def model_of(depth_of) -> ModelUnderTest:
    def process(image: CameraImage, view: CameraView) -> DepthFrame:
        depth_m = depth_of(image.rgb).astype(np.float32)
        return DepthFrame(
            depth_m=depth_m,
            camera=view.model,
            rgb=image.rgb,
            stamp_ns=image.stamp_ns,
            frame_id=image.frame_id,
            stage_ns={},
        )

    return ModelUnderTest('some', False, process)


def test_flicker_is_the_spread_of_depth_over_its_size() -> None:
    assert flicker(model_of(lambda rgb: np.full(rgb.shape[:2], 3.0)), [still_scene()]).p95 == 0.0
    # depth follows one channel, whose noise is 3 of 128
    found = flicker(model_of(lambda rgb: rgb[..., 0] / 10.0), [still_scene()], 3.0, shots=60)
    assert found.scenes == 1 and found.typical == pytest.approx(3.0 / 128.0, rel=0.2)
    assert math.isnan(flicker(model_of(lambda rgb: rgb[..., 0]), []).typical)


def test_one_outlier_or_an_unknown_pixel_is_no_flicker() -> None:
    depths = np.full((9, 1, 3), 2.0, np.float32)
    depths[4, 0, 1] = 50.0
    depths[2, 0, 2] = np.inf
    np.testing.assert_array_equal(spread_over_time(depths), [[0.0, 0.0, np.nan]])


def test_a_power_law_is_found_with_its_spread() -> None:
    counts = np.geomspace(1e3, 1e6, 60)
    exact = power_law.fitted([(n, 3.0 * n**-0.3) for n in counts])
    assert exact is not None and exact.exponent == pytest.approx(-0.3)
    assert exact.at(1e7)[0] == pytest.approx(3.0 * 1e7**-0.3)
    held = 0
    for seed in range(40):
        noise = np.exp(np.random.default_rng(seed).normal(0.0, 0.1, counts.size))
        law = power_law.fitted(list(zip(counts, 3.0 * counts**-0.3 * noise, strict=True)))
        assert law is not None and law.scatter == pytest.approx(0.1, rel=0.4)
        held += law.low < -0.3 < law.high
    assert 34 <= held < 40


def test_points_that_resemble_each_other_count_less() -> None:
    counts = np.geomspace(1e5, 1e6, 60)
    slow = 0.5 * np.exp(0.1 * np.sin(np.linspace(0.0, 9.0, counts.size)))
    fast = 0.5 * np.exp(0.1 * (-1.0) ** np.arange(counts.size))
    slow_law = power_law.fitted(list(zip(counts, slow, strict=True)))
    fast_law = power_law.fitted(list(zip(counts, fast, strict=True)))
    assert slow_law is not None and fast_law is not None
    assert slow_law.independent < 10 < 55 < fast_law.independent
    assert power_law.fitted([(1.0, 0.5)] * 9) is None
    assert power_law.fitted([(n, 0.5) for n in (1.0, 2.0, 3.0, math.nan)]) is None


def test_the_record_of_a_training_is_read_or_refused(tmp_path: Path) -> None:
    with pytest.raises(DepthNodeError, match=r'plan\.json'):
        read_record(tmp_path)
    (tmp_path / 'plan.json').write_text('{"seed": 1}')
    points = [{'images': n, 'rows': 96 if n < 6 else 192, 'a scaled': 1.0 / n, 'word': 'x'}
              for n in range(1, 8)]  # fmt: skip
    lines = [json.dumps(point) for point in points]
    (tmp_path / 'curve.jsonl').write_text('\n'.join(lines) + '\n')
    record = read_record(tmp_path)
    assert record['plan'] == {'seed': 1} and record['further'] == {}
    # a step from one input size to another is no progress
    assert curves_of(record, 'scaled') == {'a': [(n, 1.0 / n) for n in range(1, 6)]}
    for count in (400, 401, 800, 1200):
        lines = [json.dumps({'images': n}) for n in range(count)]
        (tmp_path / 'curve.jsonl').write_text('\n'.join(lines))
        kept_points = [point['images'] for point in read_record(tmp_path)['curve']]
        assert 200 <= len(kept_points) <= 400 and kept_points[-1] == count - 1
    cut = '{"images": 1}\n{"images": 2, "wor\n{"images": 3}\n'
    (tmp_path / 'curve.jsonl').write_text(cut)
    assert [point['images'] for point in read_record(tmp_path)['curve']] == [1, 3]
    (tmp_path / 'curve.jsonl').write_text('{"images": 1}\nno JSON\n')
    with pytest.raises(DepthNodeError, match='JSON'):
        read_record(tmp_path)
    (tmp_path / 'curve.jsonl').write_text('{"steps": 1}\n')
    with pytest.raises(DepthNodeError, match='images'):
        read_record(tmp_path)


def test_the_picture_is_small_enough_whatever_it_shows(measured) -> None:
    assert {item.caption.rpartition(' ')[2] for item in measured.shown} == {'median', 'worst'}
    errors = [item.depths[0][3] for item in measured.shown]
    worst = [error for item, error in zip(measured.shown, errors, strict=True)
             if item.caption.endswith('worst')]  # fmt: skip
    assert max(errors) in worst
    assert all(len(item.depths) == 2 for item in measured.shown)
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (480, 640, 3), np.uint8)
    depth = rng.uniform(1.0, 5.0, (480, 640)).astype(np.float32)
    page = sheet([Shown('noise', noise, depth, (('m', depth, 1.0, 0.0),) * 2)] * 6)
    assert page.shape[1] > 4 * 200
    data = jpeg(page)
    assert len(data) < 300_000
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == page.shape


@pytest.mark.skipif(not RESULT.is_file(), reason='the bundled model has not been judged')
def test_the_page_is_what_the_result_says_and_is_about_the_bundled_model() -> None:
    content = json.loads(RESULT.read_text())
    page = (ROOT / 'docs' / bundled_page.PAGE).read_text()
    for name, text in bundled_page.documents(content, page).items():
        assert (ROOT / 'docs' / name).read_text() == text, name
    card = model_folder.read(model_folder.find(BUNDLED)).card
    assert content['model'][0]['weights_sha256'] == card.files['weights.safetensors'].sha256
    readme = (ROOT / 'README.md').read_text()
    assert bundled_page.in_readme(content, readme) == readme
    assert (ROOT / 'docs' / bundled_page.PICTURE).stat().st_size < 300_000
