"""One run of the demo: the node and the player as processes, the collector here, the results."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from depth_node.demo import report as demo_report
from depth_node.demo.processes import Child
from depth_node.demo.processes import Usage
from depth_node.demo.report import Figures
from depth_node.demo.truth import Source
from depth_node.demo.truth import judge
from depth_node.demo.truth import picture_count
from depth_node.demo.truth import read_log
from depth_node.errors import DepthNodeError
from depth_node.errors import SettingsError
from depth_node.ros import collector as outputs
from depth_node.ros.collector import Collector
from depth_node.ros.collector import Status
from depth_node.ros.memory import keep_large_buffers
from depth_node.ros.transport_profile import profile_variables
from depth_node.settings import Settings

_KEPT_DEPTHS = 60
_POLL_S = 0.1
_SETTLED_S = 1.0
_SETTLING_LIMIT_S = 10.0
_DIAGNOSTICS_S = 3.0
# The node's outputs are matched with our subscriptions a moment after its input with the player.
_SETTLE_S = 0.4
NODE = (sys.executable, '-m', 'depth_node.ros.node')


@dataclass(frozen=True)
class Run:
    """What is run, and how."""

    source: Source
    """What is played."""
    out: Path
    """Folder for the results."""
    node: tuple[str, ...]
    """Command of the node, without its ROS arguments."""
    model: str
    """Parameter model.name."""
    engine: str
    """Parameter model.engine."""
    rate: float
    """Speed of the player."""
    seconds: float
    """Time of playing, seconds; infinity for the whole recording."""
    domain: int
    """ROS domain of all processes."""
    patience_s: float
    """How long the first depth image may take from the start of the node, seconds."""
    points: bool = True
    """Whether the clouds are listened to; the node makes none otherwise."""
    max_age_s: float = Settings().input.max_age_s
    """Parameter input.max_age_s: a slower model has all of its images dropped, seconds."""
    precision: str = Settings().model.precision
    """Parameter model.precision."""


@dataclass(frozen=True)
class Load:
    """What the node's process used while pictures were played."""

    first: Usage
    """When the first depth image had come."""
    last: Usage
    """When the last one had come."""

    @property
    def cpu_percent(self) -> float:
        """Mean processor use between the two, percent of one core."""
        spent_s = self.last.steady_s - self.first.steady_s
        return 100.0 * (self.last.cpu_s - self.first.cpu_s) / spent_s if spent_s > 0.0 else 0.0


def demonstrate(run: Run) -> Figures:
    """Play, collect, compare and write the results.

    :raises DepthNodeError: when the source cannot be read, or when the node fails or publishes no
        depth; the text then ends with the last lines of its log.
    """
    expected = picture_count(run.source, run.seconds * run.rate)
    _prepare(run.out)
    environment = environment_of(run.domain)
    # The collector joins DDS in this process and has to find the same variables; untuned it would
    # take twice as long to receive a cloud.
    os.environ.update(environment)
    keep_large_buffers(os.environ)
    keep_every = max(1, math.ceil((expected or 1_000) / _KEPT_DEPTHS))
    with ExitStack() as stack:
        collector = stack.enter_context(Collector(keep_every, points=run.points))
        node = stack.enter_context(node_of(run, environment))
        player = stack.enter_context(player_of(run, environment))
        load = _watch(run, collector, node, player, expected)
        collector.wait_for_diagnostics(_DIAGNOSTICS_S)
        player.stop()
        torch_loaded = node.has_loaded('libtorch')
        status = node.stop()
        return _results(run, collector, node, load, status, torch_loaded)


def _watch(
    run: Run, collector: Collector, node: Child, player: Child, expected: int | None
) -> Load:
    """Wait until all is played and published, showing progress.

    :raises DepthNodeError: when the node or the player ends early or no depth comes.
    """
    limit_s = time.monotonic() + run.patience_s
    first: Usage | None = None
    last: Usage | None = None
    with tqdm(total=expected, unit='depth', desc='depth images', leave=False, disable=None) as bar:

        def look() -> None:
            nonlocal first, last
            _require_alive(node)
            count = collector.count(collector.image_topic)
            # Not while nothing comes any more: idling would make the load look smaller.
            if count > bar.n:
                last = node.usage() or last
                first = first or last
            bar.update(count - bar.n)
            if not count and time.monotonic() > limit_s:
                raise _failure('the node', f'no depth within {run.patience_s:g} s', node)

        while player.status is None:
            look()
            time.sleep(_POLL_S)
        if player.status:
            raise _failure('the player', f'an end with status {player.status}', player)
        _settle(collector, look)
    if first is None or last is None:
        raise _failure('the node', 'no depth for any picture', node)
    return Load(first, last)


def _settle(collector: Collector, look: Callable[[], None]) -> None:
    """Wait until no more depth and no more clouds come, or nothing has come at all."""
    end_s = time.monotonic() + _SETTLING_LIMIT_S
    quiet_s = time.monotonic() + _SETTLED_S
    before = -1
    while time.monotonic() < min(end_s, quiet_s):
        look()
        count = collector.count(collector.image_topic) + collector.count(outputs.POINTS)
        if count != before:
            before, quiet_s = count, time.monotonic() + _SETTLED_S
        time.sleep(_POLL_S)


def _results(
    run: Run,
    collector: Collector,
    node: Child,
    load: Load,
    status: int | None,
    torch_loaded: bool,
) -> Figures:
    """Compare with the recorded depth, sum up, and write all files."""
    played = read_log(run.out / 'player.jsonl')
    published = collector.published()
    depths = collector.arrivals(collector.image_topic)
    clouds = collector.arrivals(outputs.POINTS)
    judgement = judge(run.source, played, published, collector.camera())
    received, drops = _counters(collector.statuses())
    spent_ns = played[-1].stamp_ns - played[0].stamp_ns if played else 0
    figures = Figures(
        source=str(run.source.path),
        model=run.model,
        relative=published.relative,
        facts=_facts(collector.statuses()),
        played=len(played),
        received=received,
        depths=len(depths),
        clouds=len(clouds),
        drops=drops,
        input_rate_hz=(len(played) - 1) / spent_ns * 1e9 if spent_ns > 0 else 0.0,
        output_rate_hz=outputs.rate_hz(depths),
        depth_age=outputs.percentiles_ms(depths),
        cloud_age=outputs.percentiles_ms(clouds),
        first_depth_s=(depths[0].arrived_ns - node.started_ns) / 1e9 if depths else None,
        rss_mib=load.last.rss_mib,
        peak_rss_mib=load.last.peak_rss_mib,
        cpu_percent=load.cpu_percent,
        quality=judgement.report,
        quality_note=judgement.note,
        torch_loaded=torch_loaded,
        node_status=status,
    )
    demo_report.write_figures(run.out / 'demo.json', figures)
    if judgement.exhibit is not None:
        demo_report.write_picture(run.out / 'demo.png', judgement.exhibit)
    cloud = collector.cloud()
    if cloud is not None:
        demo_report.write_ply(run.out / 'cloud.ply', cloud)
    return figures


def _counters(statuses: Sequence[Status]) -> tuple[int | None, dict[str, int]]:
    """Read the node's own counters: images received, and drops by reason."""
    values = _facts(statuses)
    received = values.get('images received')
    drops = {
        key.removeprefix('dropped: '): int(value)
        for key, value in values.items()
        if key.startswith('dropped: ') and value.isdigit()
    }
    return int(received) if received and received.isdigit() else None, drops


def _facts(statuses: Sequence[Status]) -> dict[str, str]:
    """Return keys and values of the node's status; nothing where it sent none."""
    return next((dict(item.values) for item in statuses if 'images received' in item.values), {})


def _require_alive(node: Child) -> None:
    """Raise when the node has ended."""
    if node.status is not None:
        raise _failure('the node', f'an end with status {node.status}', node)


def _failure(who: str, received: str, child: Child) -> DepthNodeError:
    """Word a failure of a child process with the end of its log."""
    return DepthNodeError(
        who,
        received,
        'depth for the pictures that are played',
        f'Its log {child.log} ends:\n{child.last_lines()}',
    )


def node_of(run: Run, environment: dict[str, str]) -> Child:
    """Return the node's process, not yet started; its log is node.log."""
    values = {
        'model.name': run.model,
        'model.engine': run.engine,
        'model.precision': run.precision,
        'input.transport': 'raw',
    }
    words = [*run.node, '--ros-args', '-p', f'input.max_age_s:={float(run.max_age_s)}']
    for name, value in values.items():
        words += ['-p', f"{name}:='{value}'"]
    return Child('node', words, environment, run.out / 'node.log')


def player_of(run: Run, environment: dict[str, str], *, loop: bool = False) -> Child:
    """Return the player's process, not yet started; its logs are player.log and player.jsonl.

    :param loop: whether it begins again at the end.
    """
    source = run.source
    words = [sys.executable, '-m', 'depth_node.ros.player', str(source.path)]
    words += ['--rate', str(run.rate), '--log', str(run.out / 'player.jsonl')]
    words += ['--wait-s', str(run.patience_s), '--settle-s', str(_SETTLE_S)]
    if math.isfinite(run.seconds):
        words += ['--seconds', str(run.seconds)]
    if loop:
        words.append('--loop')
    if source.video:
        words += ['--video', '--hfov-deg', str(source.hfov_deg)]
    if source.image:
        words += ['--recorded-image', source.image]
    if source.camera_info:
        words += ['--recorded-camera-info', source.camera_info]
    return Child('player', words, environment, run.out / 'player.log')


def environment_of(domain: int) -> dict[str, str]:
    """Return the environment of all processes: one domain, this machine only, large messages."""
    environment = dict(os.environ)
    environment.update(profile_variables(environment))
    environment['ROS_DOMAIN_ID'] = str(domain)
    environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    environment['PYTHONUNBUFFERED'] = '1'
    return environment


def _prepare(out: Path) -> None:
    """Make the folder of the results and remove those of the last run."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ('demo.png', 'cloud.ply', 'demo.json', 'player.jsonl'):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(
            'option --out', f'{out} ({error.strerror})', 'a folder that can be written'
        ) from error
