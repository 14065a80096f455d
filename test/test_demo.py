"""The demo plays a recording to a node over DDS and measures it, or ends and says what is wrong.

However it ends, so do the processes that it started.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('rosbags')

import demo_recording
from demo_recording import COUNT
from demo_recording import HEIGHT
from demo_recording import RATE_HZ
from demo_recording import WIDTH
from demo_recording import write
from ply_points import read_ply
from standin_node import FACTOR

from depth_node.demo import processes
from depth_node.demo import report as demo_report
from depth_node.demo import run as demo_run
from depth_node.demo.processes import Child
from depth_node.demo.truth import Source
from depth_node.errors import DepthNodeError
from depth_node.errors import RecordingError
from depth_node.errors import SettingsError
from depth_node.ros import player
from depth_node.ros.footage import camera_of_view
from depth_node.ros.footage import filmed_shots
from depth_node.tools import demo

STAND_IN = str(Path(__file__).with_name('standin_node.py'))

recording = demo_recording.recording


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    for name in (
        'ROS_DOMAIN_ID',
        'ROS_AUTOMATIC_DISCOVERY_RANGE',
        'PYTHONUNBUFFERED',
        'FASTRTPS_DEFAULT_PROFILES_FILE',
        'FASTDDS_DEFAULT_PROFILES_FILE',
    ):
        monkeypatch.setenv(name, os.environ.get(name, ''))
        if not os.environ[name]:
            monkeypatch.delenv(name)


@pytest.fixture
def time_for_discovery(monkeypatch):
    """The recording lasts half a second; a busy machine takes longer to match the topics."""
    monkeypatch.setattr(demo_run, '_SETTLE_S', 2.5)


def run_of(recording: Path, out: Path, behaviour: str, **changes) -> demo_run.Run:
    run = demo_run.Run(
        source=Source(recording),
        out=out,
        node=(sys.executable, STAND_IN, behaviour),
        model='some-model',
        engine='auto',
        rate=2.0,
        seconds=math.inf,
        domain=1 + os.getpid() % 100,
        patience_s=20.0,
    )
    return replace(run, **changes)


@pytest.mark.usefixtures('time_for_discovery')
def test_a_run_measures_what_went_over_dds_and_writes_all_results(recording, tmp_path, capsys):
    figures = demo_run.demonstrate(run_of(recording, tmp_path / 'out', 'good'))
    out = tmp_path / 'out'
    assert figures.played == COUNT
    assert COUNT - 2 <= figures.received <= COUNT
    assert figures.drops == {'too_old': figures.received // 4}
    wanted = figures.received - figures.received // 4
    assert wanted - 2 <= figures.depths <= wanted
    assert figures.clouds >= wanted - 2
    assert figures.input_rate_hz == pytest.approx(2 * RATE_HZ, rel=0.1)
    assert 0.0 < figures.depth_age.p50_ms <= figures.depth_age.p99_ms < 2_000.0
    assert 0.0 < figures.first_depth_s < 20.0
    assert 10.0 < figures.rss_mib <= figures.peak_rss_mib
    assert figures.node_status == 0
    # The stand-in is ten percent too far everywhere, which is also its scale.
    quality = figures.quality
    assert quality.frames >= 10
    assert quality.metric.abs_rel == pytest.approx(FACTOR - 1.0, abs=0.02)
    assert quality.scaled.abs_rel == pytest.approx(0.0, abs=0.02)
    assert quality.scale == pytest.approx(1.0 / FACTOR, rel=0.02)
    assert quality.metric.coverage == pytest.approx((HEIGHT - 1) / HEIGHT)
    assert 0.15 < quality.baseline.abs_rel < 0.4

    saved = json.loads((out / 'demo.json').read_text())
    assert saved['depths'] == figures.depths
    assert saved['quality']['metric']['abs_rel'] == quality.metric.abs_rel
    picture = cv2.imread(str(out / 'demo.png'))
    assert picture.shape[1] == 4 * 480
    points = read_ply(out / 'cloud.ply')
    assert len(points) == WIDTH * (HEIGHT - 1)
    assert set(points['x']) == {0.25}
    assert points['z'].max() == pytest.approx(3.0 * FACTOR)
    assert points[0].tolist()[3:] == (10, 20, 30)
    assert 'attention' in demo_report.table(replace(figures, node_status=-11))
    text = demo_report.table(figures)
    assert 'attention' not in text
    assert 'none at all' in text and 'best constant' in text and 'too_old' in text
    assert os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'


@pytest.mark.usefixtures('time_for_discovery')
def test_relative_inverse_depth_is_compared_after_an_alignment_and_said_to_be(recording, tmp_path):
    figures = demo_run.demonstrate(run_of(recording, tmp_path, 'relative'))
    assert figures.relative and figures.depths > COUNT // 2 and figures.clouds == 0
    quality = figures.quality
    assert quality.frames >= 10 and quality.reversed_frames == 0
    assert quality.aligned.abs_rel == pytest.approx(0.0, abs=0.02)
    assert 0.15 < quality.constant.abs_rel < 0.4
    # The farthest column is 0 in relative inverse depth, which is a value like any other.
    assert quality.aligned.coverage == pytest.approx((HEIGHT - 1) / HEIGHT)
    assert json.loads((tmp_path / 'demo.json').read_text())['quality']['aligned']
    assert cv2.imread(str(tmp_path / 'demo.png')).shape[1] == 5 * 480
    assert not (tmp_path / 'cloud.ply').exists()
    text = demo_report.table(figures)
    assert 'no metres and no clouds' in text and 'Abs Rel, aligned' in text
    assert 'age of cloud' not in text and 'larger was farther' not in text
    turned = replace(figures, quality=replace(quality, reversed_frames=3))
    assert 'in 3 frames larger was farther' in demo_report.table(turned)


@pytest.mark.parametrize(
    'behaviour, status, words',
    [('absent', 1, 'no such model'), ('dies', 3, 'the engine has exploded')],
)
def test_a_node_that_ends_is_reported_with_its_last_words(
    recording, tmp_path, behaviour, status, words
):
    with pytest.raises(DepthNodeError, match=f'status {status}') as caught:
        demo_run.demonstrate(run_of(recording, tmp_path, behaviour))
    assert words in str(caught.value)


def test_no_depth_at_all_is_a_failure_and_not_an_empty_table(recording, tmp_path):
    with pytest.raises(DepthNodeError, match='no depth'):
        demo_run.demonstrate(run_of(recording, tmp_path, 'silent'))
    assert not (tmp_path / 'demo.json').exists()


def test_a_node_that_takes_too_long_is_given_up(recording, tmp_path):
    slow = (sys.executable, '-c', 'import time; time.sleep(60)')
    began_s = time.monotonic()
    with pytest.raises(DepthNodeError, match='no depth within 1 s'):
        demo_run.demonstrate(run_of(recording, tmp_path, 'good', node=slow, patience_s=1.0))
    assert time.monotonic() - began_s < 10.0


def test_results_of_an_earlier_run_do_not_survive_a_failure(recording, tmp_path):
    (tmp_path / 'demo.json').write_text('{}')
    with pytest.raises(DepthNodeError):
        demo_run.demonstrate(run_of(recording, tmp_path, 'absent'))
    assert not (tmp_path / 'demo.json').exists()


PROGRAM = """
import sys, pathlib
from depth_node.demo import run as demo_run
demo_run.NODE = (sys.executable, {stand_in!r}, 'silent')
from depth_node.tools.demo import main
sys.exit(main(['--recording', {recording!r}, '--out', {out!r}, '--rate', '0.2']))
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_demo_ends_its_processes(recording, tmp_path, number):
    text = PROGRAM.format(stand_in=STAND_IN, recording=str(recording), out=str(tmp_path))
    program = subprocess.Popen(
        [sys.executable, '-c', text],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    limit_s = time.monotonic() + 20.0
    while not (tmp_path / 'player.jsonl').exists() and time.monotonic() < limit_s:
        time.sleep(0.05)
    children = children_of(program.pid)
    assert len(children) == 2
    program.send_signal(number)
    errors = program.communicate(timeout=20.0)[1].decode()
    assert program.returncode == (-number if number == signal.SIGKILL else 130), errors
    assert 'Traceback' not in errors
    limit_s = time.monotonic() + 5.0
    while any(is_running(pid) for pid in children) and time.monotonic() < limit_s:
        time.sleep(0.05)
    assert not [pid for pid in children if is_running(pid)]


def children_of(pid: int) -> list[int]:
    return [
        int(word)
        for task in Path(f'/proc/{pid}/task').iterdir()
        for word in (task / 'children').read_text().split()
    ]


def is_running(pid: int) -> bool:
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except OSError:
        return False
    return state not in 'ZX'


def test_a_child_that_ignores_signals_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(
        processes, '_STOPS', ((signal.SIGINT, 0.2), (signal.SIGTERM, 0.2), (signal.SIGKILL, 5.0))
    )
    stubborn = (
        'import signal, time\n'
        'for n in (2, 15): signal.signal(n, signal.SIG_IGN)\n'
        'print("ready", flush=True); time.sleep(60)'
    )
    with Child(
        'stubborn', [sys.executable, '-c', stubborn], os.environ, tmp_path / 'log'
    ) as child:
        while 'ready' not in child.last_lines():
            time.sleep(0.02)
        usage = child.usage()
        assert usage.rss_mib > 1.0 and usage.peak_rss_mib >= usage.rss_mib
        assert child.stop() == -signal.SIGKILL
        assert child.usage() is None


def test_the_command_says_what_is_wrong_and_ends_with_one(tmp_path, capsys):
    assert demo.main(['--recording', str(tmp_path / 'nope'), '--out', str(tmp_path)]) == 1
    assert 'No such file' in capsys.readouterr().err
    assert demo.main(['--rate', 'nan']) == 1
    assert 'option --rate' in capsys.readouterr().err
    assert demo.main(['--seconds', '0']) == 1
    assert 'option --seconds' in capsys.readouterr().err


def test_the_model_and_the_age_of_images_reach_the_node(recording, tmp_path, monkeypatch):
    runs = []

    def noted(run):
        runs.append(run)
        raise RecordingError('demo', 'enough', 'this')

    monkeypatch.setattr(demo_run, 'demonstrate', noted)
    words = ['--recording', str(recording), '--model', './my models/x', '--max-age-s', '20']
    assert demo.main(words) == 1
    command = demo_run.node_of(replace(runs[0], out=tmp_path), {})._words
    assert "model.name:='./my models/x'" in command
    assert 'input.max_age_s:=20.0' in command


@pytest.mark.parametrize(
    'words, text',
    [
        (['--rate', '0'], 'option --rate'),
        (['--transport', 'compressed', '--video'], 'option --transport'),
        (['--wait-s', '0.1'], 'no subscription within 0.1 s'),
        (['--recorded-image', '/nope'], "'/nope'"),
        (['--log', '/nope/log.jsonl'], '/nope/log.jsonl'),
        (['--image-topic', 'two words'], 'two words'),
    ],
)
def test_the_player_refuses_with_a_sentence(recording, capfd, monkeypatch, words, text):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    done = subprocess.run(
        [sys.executable, '-m', 'depth_node.ros.player', str(recording), *words],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        timeout=30.0,
    )
    assert done.returncode == 1
    assert text in done.stderr.decode()
    assert 'Traceback' not in done.stderr.decode()


def test_raw_recordings_cannot_be_played_compressed(tmp_path):
    path = write(tmp_path / 'bag', quality=None)
    options = player._parser().parse_args([str(path), '--transport', 'compressed'])
    with pytest.raises(SettingsError, match='raw images'), player._footage(options):
        pass


def test_a_video_becomes_shots_with_a_camera_of_its_view(tmp_path):
    path = tmp_path / 'film.avi'
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10.0, (WIDTH, HEIGHT))
    for level in (0, 120, 240):
        film.write(np.full((HEIGHT, WIDTH, 3), (level, 0, 0), dtype=np.uint8))
    film.release()
    shots = list(filmed_shots(path, math.radians(90.0)))
    assert [shot.due_s for shot in shots] == pytest.approx([0.0, 0.1, 0.2])
    pixels = np.frombuffer(shots[2].picture.data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    assert np.abs(pixels[5, 5].astype(int) - [0, 0, 240]).max() < 12
    assert shots[0].camera.k == pytest.approx((32, 0, 31.5, 0, 32, 23.5, 0, 0, 1))
    with pytest.raises(SettingsError, match='field of view'):
        next(filmed_shots(path, math.pi))
    (tmp_path / 'text.mp4').write_text('no film')
    for name in ('text.mp4', 'nothing.mp4'):
        with pytest.raises(RecordingError, match='video file'):
            next(filmed_shots(tmp_path / name, 1.0))


def test_view_angle_reaches_from_edge_to_edge():
    camera = camera_of_view(100, 50, math.radians(60.0))
    focal, center = camera.k[0], camera.k[2]
    left = math.atan((center + 0.5) / focal)
    right = math.atan((99.5 - center) / focal)
    assert math.degrees(left + right) == pytest.approx(60.0)


def test_the_room_is_rendered_once_and_then_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    rendered = []

    def render(path, progress):
        rendered.append(path)
        progress(1, 2)
        path.mkdir()

    monkeypatch.setattr(demo.world, 'write', render)
    first, second = demo._own_recording(), demo._own_recording()
    assert rendered == [first] == [second]
    # Other pictures for the same settings must not come from an old cache.
    monkeypatch.setattr(demo.world, 'VERSION', demo.world.VERSION + 1)
    assert demo._own_recording() != first


def test_a_room_that_another_process_rendered_meanwhile_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))

    def overtaken(path, progress):
        path.mkdir()
        raise RecordingError('recording', 'a path that exists', 'a new one')

    def refused(path, progress):
        raise RecordingError('recording', 'no space', 'a disk that can be written')

    monkeypatch.setattr(demo.world, 'write', refused)
    with pytest.raises(RecordingError, match='no space'):
        demo._own_recording()
    monkeypatch.setattr(demo.world, 'write', overtaken)
    assert demo._own_recording().is_dir()
