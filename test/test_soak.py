"""The long checks of ``make soak``, for seconds instead of minutes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip('rclpy')

from result_schema import problems_of
from soak import __main__ as command
from soak import cycles
from soak import endings
from soak import over_dds
from soak import overload
from soak import pictures
from soak import storm
from soak.processes import ROOT
from soak.processes import environment
from soak.row import Row
from soak.row import growth

from depth_node.newest import StampOrder


def test_nothing_stale_duplicate_or_out_of_order_leaves_a_storm_and_every_image_is_counted(
    tmp_path,
):
    row = storm.storm(tmp_path, 3000)
    assert not row.broken
    assert row.figures['images'] >= 3000
    assert row.figures['published'] > 1000
    # what was injected has come through, so that the zeros above say something
    for reason in ('duplicate', 'out_of_order', 'replaced', 'too_old', 'engine_output'):
        assert row.figures['drops'].get(reason), reason


def test_a_node_without_order_of_stamps_would_be_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(StampOrder, 'objection', lambda *_: '')
    row = storm.storm(tmp_path, 600)
    assert row.figures['duplicate'] > 0
    assert row.figures['out_of_order'] > 0
    assert len(row.broken) >= 2


def test_a_node_that_publishes_old_images_would_be_caught(tmp_path, monkeypatch):
    monkeypatch.setattr('depth_node.ros.worker._check_age', lambda *_: None)
    monkeypatch.setattr(storm, '_SLOW_S', 0.3)
    monkeypatch.setattr(storm, 'RATES', {'slow': 0.05})
    assert storm.storm(tmp_path, 300).figures['stale'] > 0


def test_ten_times_too_many_images_cost_no_output_and_none_waits_long(tmp_path):
    # a machine that is busy with something else for a moment gets another chance
    rows = []
    while len(rows) < 3 and (not rows or rows[-1].broken):
        rows.append(overload.overload(tmp_path, 2.0))
    assert not rows[-1].broken
    assert rows[-1].figures['input_hz'] > 5 * rows[-1].figures['unloaded_hz']


def test_depth_is_back_within_a_second_when_a_camera_is_after_a_pause(tmp_path):
    row = overload.pause(tmp_path, 3.0)
    assert not row.broken
    assert row.figures['pauses'] == 5


def test_lifecycle_cycles_leave_no_thread_and_no_file_descriptor(tmp_path, private_network):
    row = cycles.scripted_cycles(tmp_path, 24, mib=8.0)
    assert not row.broken
    assert row.figures['failed'] == 0


def test_rclpy_keeps_nothing_of_what_earlier_cycles_destroyed(rig):
    node = rig(autostart=False).node
    counts = []
    for _ in range(12):
        for transition in ('configure', 'activate', 'deactivate', 'cleanup'):
            getattr(node, f'trigger_{transition}')()
        counts.append(len(node.default_callback_group.entities))
    # a cycle makes 18; the executor may have one or two cycles in hand, kept ones would be 198
    assert counts[-1] < counts[0] + 40, counts


def test_the_kills_wait_as_long_as_our_launch_file_before_a_new_start():
    launch_file = ROOT / 'launch' / 'depth.launch.py'
    assert f'RESPAWN_DELAY_S = {endings.RESPAWN_DELAY_S}' in launch_file.read_text()


def test_growth_is_that_of_the_later_rounds():
    steady = [(number, 100 if number > 10 else number) for number in range(100)]
    assert growth(steady, 1000) == 0.0
    leaking = [(number, 500 + 3 * number) for number in range(100)]
    assert growth(leaking, 1000) == pytest.approx(3000)


@pytest.mark.parametrize('name', pictures.BAD_RAW)
def test_a_bad_picture_differs_from_a_good_one(name):
    good, bad = pictures.raw(pictures.SIZES[0], 'rgb8'), pictures.bad_raw(name)
    assert any(getattr(good, field) != getattr(bad, field) for field in pictures.BAD_RAW[name])


def test_the_results_keep_the_schema_and_a_broken_promise_is_the_exit_code(
    tmp_path, monkeypatch, capsys
):
    def check(path, size, tick):
        tick(size)
        return Row('pause', 1.5, {'pauses': int(size)}, ['too slow'] if size > 1 else [])

    def run(name, share):
        command._run_here(name, share, tmp_path / 'row.json')
        return json.loads((tmp_path / 'row.json').read_text())

    monkeypatch.setattr(command, 'CHECKS', {'pause': (check, 10, 's')})
    monkeypatch.setattr(command, '_run_apart', run)
    monkeypatch.setattr(command, '_OTHER', tmp_path / 'on_the_way.json')
    out = tmp_path / 'soak.json'
    assert command.main(['pause', '--share', '0.1', '--out', str(out)]) == 0
    assert problems_of(json.loads(out.read_text())) == []
    assert command.main(['pause', '--out', str(out)]) == 1
    assert 'too slow' in capsys.readouterr().out
    assert json.loads(out.read_text())['rows'][0]['broken'] == ['too slow']


def test_what_a_check_has_started_does_not_outlive_it(tmp_path):
    code = (
        'import os, signal, subprocess, sys, time\n'
        'from soak.processes import die_with_parent\n'
        'words = [sys.executable, "-c", "import time; time.sleep(60)"]\n'
        'child = subprocess.Popen(words, preexec_fn=die_with_parent)\n'
        'print(child.pid, flush=True)\n'
        'time.sleep(60)\n'
    )
    check = subprocess.Popen(
        [sys.executable, '-c', code], env=environment(), stdout=subprocess.PIPE, text=True
    )
    pid = int(check.stdout.readline())
    assert Path(f'/proc/{pid}').exists()
    check.kill()
    check.communicate()
    limit_s = time.monotonic() + 5.0
    while time.monotonic() < limit_s and _runs(pid):
        time.sleep(0.01)
    assert not _runs(pid)


def _runs(pid):
    """Tell whether a process lives; one that nobody has waited for yet does not."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_signals_at_random_moments_end_the_process_with_0(tmp_path):
    assert not endings.signals(tmp_path, 8).broken


@pytest.mark.slow
def test_depth_is_back_within_ten_seconds_after_a_kill(tmp_path):
    assert not endings.respawns(tmp_path, 2).broken


@pytest.mark.slow
def test_a_camera_and_a_listener_that_are_killed_come_back(tmp_path):
    assert not over_dds.over_dds(tmp_path, 25.0).broken
