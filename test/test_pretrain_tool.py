"""The command that trains the bundled model, on pictures of a few pixels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from exported_before import leave_out_float16

from depth_node import image_codec
from depth_node import model_folder
from depth_node.errors import ImageRejected
from depth_node.tools import pretrain
from depth_node.world import recording


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(pretrain, 'SIZES', ((64, 96),))
    monkeypatch.setattr(pretrain, '_HELD_OUT_VIEWS', 2)
    monkeypatch.setattr(pretrain, '_SHARES_OF_SIZES', (1.0,))
    leave_out_float16(monkeypatch)


WORDS = ['--variant', 'tiny', '--workers', '0', '--device', 'cpu']


def test_a_training_ends_with_a_model_with_which_another_one_can_begin(tmp_path):
    made = ['-o', f'{tmp_path}/run', '--model', f'{tmp_path}/mine', '--images', '128']
    assert pretrain.main([*WORDS, *made]) == 0
    card = model_folder.read(tmp_path / 'mine').card
    assert card.focal_px == pytest.approx(200.0 / 3.0) and card.variant == 'tiny'
    assert {'world (held-out scenes)', 'world (kinds held out)'} <= set(card.metrics)
    curve = [json.loads(line) for line in (tmp_path / 'run/curve.jsonl').read_text().splitlines()]
    assert [line['rows'] for line in curve] == [32, 64] and curve[-1]['images'] == 128
    assert json.loads((tmp_path / 'run/training.json').read_text())['images'] == 128

    again = ['-o', f'{tmp_path}/more', '--start', f'{tmp_path}/mine', '--images', '8']
    assert pretrain.main([*WORDS, *again]) == 0
    assert json.loads((tmp_path / 'more/plan.json').read_text())['start'].endswith('mine')
    begun, ended = (weights(tmp_path / name) for name in ('run', 'more'))
    apart = [float((begun[name] - ended[name]).abs().max()) for name in begun]
    # one step of Adam moves a weight by no more than its rate; other weights would be far off
    assert 0.0 < max(apart) < 0.05


@pytest.mark.parametrize('damage', ['cut', 'text', 'other keys', 'code'])
def test_a_checkpoint_that_is_none_is_refused_and_its_plan_stays(tmp_path, capsys, damage):
    import torch

    words = ['--workers', '0', '--device', 'cpu', '-o', str(tmp_path), '--images', '0']
    assert pretrain.main([*words, '--variant', 'tiny']) == 0
    path = tmp_path / 'last.pt'
    if damage == 'cut':
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == 'text':
        path.write_text('hello')
    else:
        torch.save({'network': 1 if damage == 'other keys' else Path('/')}, path)
    assert pretrain.main([*words, '--variant', 'tiny', '--images', '8']) == 1
    assert 'expected a checkpoint of lite-mono tiny' in capsys.readouterr().err
    plan = json.loads((tmp_path / 'plan.json').read_text())
    assert [stage['images'] for stage in plan['stages']] == [0, 0]


@pytest.mark.parametrize('other', [('--variant', 'small'), ('--seed', '1'), ('--start', '')])
def test_a_training_does_not_go_on_as_another_one(tmp_path, capsys, other):
    words = [*WORDS, '-o', f'{tmp_path}/run', '--images', '0']
    assert pretrain.main([*words, '--model', f'{tmp_path}/mine']) == 0
    if other[0] == '--start':
        other = ('--start', f'{tmp_path}/mine')
    before = (tmp_path / 'run/plan.json').read_text()
    assert pretrain.main([*words, *other]) == 1
    said = capsys.readouterr().err
    assert f'the training in {tmp_path}/run' in said and other[0][2:] in said
    assert (tmp_path / 'run/plan.json').read_text() == before
    assert pretrain.main([*words[:-1], '8']) == 0  # another length is welcome


def test_what_the_end_would_refuse_is_refused_before_hours_of_training(tmp_path, capsys):
    words = [*WORDS, '-o', f'{tmp_path}/run']
    assert pretrain.main([*words, '--model', f'{tmp_path}/my model']) == 1
    assert 'a folder whose name' in capsys.readouterr().err
    assert pretrain.main([*words, '--judge', f'{tmp_path}/none']) == 1
    assert 'none' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def weights(folder):
    """Return the averaged weights, not the statistics of the batches, of a training."""
    import torch

    state = torch.load(folder / 'last.pt', weights_only=True)['averaged']
    return {name: value for name, value in state.items() if 'running' not in name and value.ndim}


def test_a_gpu_that_is_not_there_is_refused_with_a_sentence(tmp_path, monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert pretrain.main(['-o', str(tmp_path), '--device', 'cuda']) == 1
    assert 'a GPU that torch sees; or --device cpu' in capsys.readouterr().err


def test_a_gpu_gets_large_batches_and_a_cpu_small_ones():
    plans = [pretrain.plan_of('small', 1000, 0, 1, '', device) for device in ('cpu', 'cuda')]
    sizes = [[stage.spec.size for stage in plan.stages] for plan in plans]
    assert sizes == [[16, 8], [128, 64]]
    assert all(sum(stage.images for stage in plan.stages) == 1000 for plan in plans)


@pytest.mark.parametrize(('share', 'images'), [('0', [0, 8]), ('0.75', [6, 2]), ('1', [8, 0])])
def test_half_size_gets_its_share_of_the_images(tmp_path, share, images):
    words = [*WORDS, '-o', str(tmp_path), '--images', '8', '--half-share', share]
    assert pretrain.main(words) == 0
    plan = json.loads((tmp_path / 'plan.json').read_text())
    assert [stage['images'] for stage in plan['stages']] == images


@pytest.mark.parametrize('share', ['-0.1', '1.1', 'nan'])
def test_a_share_that_is_none_is_refused(tmp_path, capsys, share):
    assert pretrain.main([*WORDS, '-o', f'{tmp_path}/run', '--half-share', share]) == 1
    assert 'expected 0 to 1' in capsys.readouterr().err


def test_a_damaged_image_of_a_recording_is_left_out_and_does_not_end_a_training(
    tmp_path, monkeypatch
):
    settings = recording.RecordingSettings(seconds=0.3, rate_hz=10.0, width=64, height=48)
    recording.write(tmp_path / 'bag', settings, workers=1)
    inner, seen = image_codec.decode_image, []

    def decode(image):
        seen.append(image.stamp_ns)
        if len(seen) == 2:
            raise ImageRejected('image_jpeg', 'image', 'half a JPEG', 'a whole one')
        return inner(image)

    monkeypatch.setattr(image_codec, 'decode_image', decode)
    views = pretrain._judged_data(((64, 96),), [tmp_path / 'bag'])['bag']
    assert len(seen) == 3 and len(views) == 2


def test_recordings_of_one_name_are_all_judged(monkeypatch):
    monkeypatch.setattr('depth_node.pretraining.views.load_views', lambda path, *_: [path])
    data = pretrain._judged_data(((64, 96),), [Path('a/bag'), Path('b/bag')])
    assert [name for name in data if 'world' not in name] == ['a/bag', 'b/bag']
