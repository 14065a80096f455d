"""What a fine-tuning says while it works, and what its long checks leave behind."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import pytest
from finetune_check import __main__ as long_checks
from finetune_check.row import Row
from result_schema import problems_of

from depth_node.errors import DepthNodeError
from depth_node.finetuning import progress
from depth_node.finetuning import proof
from depth_node.finetuning import trainer
from depth_node.tools import finetune


class Clock:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


def test_a_log_gets_a_line_now_and_then_and_no_bar(monkeypatch):
    stream, clock = io.StringIO(), Clock()
    monkeypatch.setattr(progress, 'time', clock)
    bars = finetune.Bars(stream)
    for second in range(100):
        clock.now_s = float(second)
        bars.counted('frames of drive', second, 400)
    bars.trained(trainer.Progress(0, 800, float('nan'), 0.1, float('nan')))
    clock.now_s += 30.0
    bars.trained(trainer.Progress(120, 800, 3725.0, 0.1, 0.714))
    bars.close()
    lines = stream.getvalue().split('\n')
    assert lines[0] == 'frames of drive: 30 of 400 (7 %), 6:10 left'
    assert lines[2].startswith('frames of drive: 90 of 400')
    assert lines[3] == (
        'training: 120 of 800 (15 %), 1:02:05 left, photometric 0.71 of standing still'
    )
    assert lines[4:] == ['']
    assert '\r' not in stream.getvalue()


def test_a_terminal_gets_a_bar(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, 'isatty', lambda: True, raising=False)
    bars = finetune.Bars(stream)
    bars.counted('frames of drive', 0, 400)
    bars.counted('frames of drive', 200, 400)
    bars.close()
    assert '\r' in stream.getvalue() and 'frames of drive' in stream.getvalue()


def test_the_results_of_the_long_checks_keep_the_schema_and_tell_what_was_missed(
    tmp_path, monkeypatch, capsys
):
    def check(setting):
        row = Row('image_delay')
        row.at_most('error, ms', 3.0 / setting.share, 15.0)
        row.at_least('nothing', float('nan'), 0.0) if setting.share < 0.5 else None
        return row

    def apart(name, options):
        options.names, options.row = [name], tmp_path / 'row.json'
        long_checks._run_here(options)
        return json.loads((tmp_path / 'row.json').read_text())

    monkeypatch.setattr(long_checks, 'CHECKS', {'image_delay': check})
    monkeypatch.setattr(long_checks, '_run_apart', apart)
    out = tmp_path / 'finetuning.json'
    assert long_checks.main(['image_delay', '--out', str(out)]) == 0
    assert problems_of(json.loads(out.read_text())) == []
    assert long_checks.main(['image_delay', '--share', '0.1', '--out', str(out)]) == 1
    assert capsys.readouterr().out.count('MISSED') == 2
    assert problems_of(json.loads(out.read_text())) == []


def test_what_was_in_the_place_of_best_stays_when_the_disk_refuses_the_last_step(
    tmp_path, monkeypatch
):
    new, best = tmp_path / 'candidate', tmp_path / 'best'
    for folder in (new, best):
        folder.mkdir()
        (folder / 'card.yaml').write_text(folder.name)
    real = os.replace

    def refuses(source, target):
        if Path(source).name == '.best.new':
            raise OSError(errno.EIO, 'Input/output error')
        real(source, target)

    monkeypatch.setattr(proof.os, 'replace', refuses)
    with pytest.raises(DepthNodeError, match='Input/output error'):
        proof.publish(new, best)
    assert (best / 'card.yaml').read_text() == 'best'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['best', 'candidate']


@pytest.mark.parametrize('words', [[], ['bag', '--stepps', '3'], ['bag', '--steps', 'many']])
def test_a_command_that_is_not_understood_does_not_end_as_unusable_data_do(words, capsys):
    with pytest.raises(SystemExit) as ended:
        finetune.main(words)
    assert ended.value.code == finetune.EXIT_REFUSED
    assert 'finetune: ' in capsys.readouterr().err
