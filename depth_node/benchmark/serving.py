"""The whole node over DDS at a fixed rate: a camera process, the node, a listener."""

from __future__ import annotations

import math
import os
import secrets
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from depth_node import files
from depth_node.benchmark.result import StartSpread
from depth_node.benchmark.result import start_spread_of
from depth_node.demo import run as demo_run
from depth_node.demo.report import Figures
from depth_node.demo.truth import Source
from depth_node.errors import EngineError
from depth_node.ros.collector import Collector
from depth_node.ros.memory import keep_large_buffers
from depth_node.world import recording as world

PROTOCOL = (
    'A rendered recording is played by one process at its own rate over DDS (shared memory, the '
    'shipped Fast DDS profile), received and answered by the real node in a second, and its depth '
    'images and, in the first row, clouds (xyz with colour, full size) are received by a third '
    'whose malloc keeps large buffers, all on one machine. Age: from the stamp of the image to '
    "the arrival of its depth. Stage times are the node's own medians. Start: from the start of "
    "the node's process to the arrival of the first depth image, first with a camera that starts "
    'at the same time, which includes its start and its wait for a listener; live: with a camera '
    'that sends already, as after a restart of the node; in both the engine finds what an '
    'earlier start has compiled.'
)
_LARGEST_DOMAIN = 101
_PATIENCE_S = 90.0
_POLL_S = 0.005
_RECORDING_S = 10.0


@dataclass(frozen=True)
class Serving:
    """What is served, and to what."""

    model: str
    """Name or path of a model."""
    engine: str
    """Parameter model.engine."""
    precision: str
    """Parameter model.precision."""
    rate_hz: float
    """Of the camera."""
    seconds: float
    """Time of playing."""
    width: int = 640
    """Columns of the images, pixels."""
    height: int = 480
    """Rows of the images, pixels."""
    starts: int = 3
    """How often the node is started beside a camera that sends already; 0: not at all."""


@dataclass(frozen=True)
class ServingRow:
    """One run of the node."""

    model: str
    """Name of the model."""
    kind: str
    """'depth', or 'relative': no metres and no clouds."""
    engine: str
    """Engine and version."""
    precision: str
    """Of the arithmetic."""
    network_input: str
    """Size of the network's input."""
    image: str
    """Size of the images."""
    played: int
    """Images that the camera sent."""
    received: int
    """Images that the node received."""
    depths: int
    """Depth images that the listener received."""
    clouds: int
    """Clouds that the listener received."""
    drops: dict[str, int]
    """Reason to number of images, as the node counts them."""
    input_rate_hz: float
    """Of the camera."""
    output_rate_hz: float
    """Of the depth images at the listener."""
    depth_age_p50_ms: float
    depth_age_p95_ms: float
    depth_age_p99_ms: float
    cloud_age_p50_ms: float | None
    cloud_age_p95_ms: float | None
    cloud_age_p99_ms: float | None
    stages_ms: dict[str, float]
    """The node's own medians by stage; 'publish' includes the cloud."""
    network_ms: float
    """Median time of the network, milliseconds."""
    overhead_p50_ms: float
    """Median age of depth less ``network_ms``."""
    first_depth_s: float
    """From the start of the node's process to the arrival of the first depth."""
    first_depth_live_s: StartSpread | None
    """The same with a camera that sends already; None: not measured."""
    peak_rss_mib: float
    """Most memory of the node, MiB."""
    cpu_percent: float
    """Processor time of the node; 100 is one core."""
    torch_loaded: bool
    """Whether the node's process had torch's library in its memory."""
    receiver_tuned: bool
    """Whether the listener's malloc keeps large buffers."""


def measure(serving: Serving, *, points: bool) -> ServingRow:
    """Run the node once on a rendered recording.

    :param points: whether the listener wants clouds too.

    :raises DepthNodeError: when the node publishes nothing, or no clouds where they are wanted.
    """
    tuned = keep_large_buffers(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        run = _run(serving, Path(folder), points=points)
        live = live_starts(run, serving.starts) if points else []
        figures = demo_run.demonstrate(run)
    return row_of(serving, figures, live, points=points, tuned=tuned)


def sentence(row: ServingRow) -> str:
    """Say what came out, in a few lines for the terminal."""
    lines = [
        f'{row.model} on {row.engine} ({row.precision}), network input {row.network_input}: '
        f'{row.played} images of {row.image} at {row.input_rate_hz:.1f} Hz, {row.received} '
        f'received, {row.depths} answered at {row.output_rate_hz:.1f} Hz, {row.clouds} clouds',
        f'  age of {"relative depth" if row.kind == "relative" else "depth"} p50/p95/p99 '
        f'{row.depth_age_p50_ms:.1f}/{row.depth_age_p95_ms:.1f}/{row.depth_age_p99_ms:.1f} ms, '
        f'{row.overhead_p50_ms:.1f} ms over the network ({row.network_ms:.1f} ms)',
    ]
    if row.cloud_age_p50_ms is not None:
        lines.append(
            f'  age of cloud p50/p95/p99 {row.cloud_age_p50_ms:.1f}/{row.cloud_age_p95_ms:.1f}/'
            f'{row.cloud_age_p99_ms:.1f} ms'
        )
    if row.kind == 'relative':
        lines.append(
            '  the model gives relative inverse depth: numbers without unit, no metres, so that '
            'there is no cloud to time'
        )
    dropped = ', '.join(f'{count} {name}' for name, count in sorted(row.drops.items()))
    stages = ', '.join(f'{name} {spent:.2f}' for name, spent in row.stages_ms.items())
    live = row.first_depth_live_s
    lines += [
        f'  dropped: {dropped or "none"}; stages, ms: {stages}',
        f'  first depth after {row.first_depth_s:.2f} s'
        + (f' ({live.median_s:.2f} s with the camera running)' if live else '')
        + f', {row.peak_rss_mib:.0f} MiB, {row.cpu_percent:.0f} % of a core',
    ]
    return '\n'.join(lines)


def _run(serving: Serving, out: Path, *, points: bool) -> demo_run.Run:
    return demo_run.Run(
        source=Source(path=recording_of(serving), depth=''),
        out=out,
        node=demo_run.NODE,
        model=serving.model,
        engine=serving.engine,
        precision=serving.precision,
        rate=1.0,
        seconds=serving.seconds if serving.seconds < _RECORDING_S else math.inf,
        domain=1 + secrets.randbelow(_LARGEST_DOMAIN),
        patience_s=_PATIENCE_S,
        points=points,
    )


def live_starts(run: demo_run.Run, count: int) -> list[float]:
    """Start the node again and again beside a camera that sends; return seconds to first depth.

    The camera waits for a listener before it begins, so that the first start is not counted.
    """
    if count < 1:
        return []
    environment = demo_run.environment_of(run.domain)
    os.environ.update(environment)
    spent_s: list[float] = []
    with ExitStack() as stack:
        collector = stack.enter_context(Collector(1_000_000, points=run.points))
        player = demo_run.player_of(replace(run, seconds=math.inf), environment, loop=True)
        stack.enter_context(player)
        for _ in range(count + 1):
            before = collector.count(collector.image_topic)
            with demo_run.node_of(run, environment) as node:
                limit_s = time.monotonic() + _PATIENCE_S
                while collector.count(collector.image_topic) == before:
                    if node.status is not None or player.status is not None:
                        raise EngineError('start benchmark', 'a process that ended', 'depth')
                    if time.monotonic() > limit_s:
                        raise EngineError('start benchmark', 'no depth', 'depth')
                    time.sleep(_POLL_S)
                arrived_ns = collector.arrivals(collector.image_topic)[before].arrived_ns
                spent_s.append((arrived_ns - node.started_ns) / 1e9)
    return spent_s[1:]


def row_of(
    serving: Serving, figures: Figures, live: list[float], *, points: bool, tuned: bool
) -> ServingRow:
    """Put together what a run has measured."""
    depth, cloud, first = figures.depth_age, figures.cloud_age, figures.first_depth_s
    if depth is None or first is None or figures.received is None:
        raise EngineError('node benchmark', 'no depth', 'depth for the images that are played')
    if points and cloud is None and not figures.relative:
        raise EngineError('node benchmark', 'no clouds', 'clouds of a model of depth')
    stages_ms = {
        key.removeprefix('stage ').removesuffix(' (ms)'): float(value)
        for key, value in figures.facts.items()
        if key.startswith('stage ')
    }
    return ServingRow(
        model=figures.model,
        kind='relative' if figures.relative else 'depth',
        engine=figures.facts['engine'],
        precision=figures.facts['precision'],
        network_input=figures.facts['network input'],
        image=f'{serving.width}x{serving.height}',
        played=figures.played,
        received=figures.received,
        depths=figures.depths,
        clouds=figures.clouds,
        drops=figures.drops,
        input_rate_hz=figures.input_rate_hz,
        output_rate_hz=figures.output_rate_hz,
        depth_age_p50_ms=depth.p50_ms,
        depth_age_p95_ms=depth.p95_ms,
        depth_age_p99_ms=depth.p99_ms,
        cloud_age_p50_ms=cloud.p50_ms if cloud else None,
        cloud_age_p95_ms=cloud.p95_ms if cloud else None,
        cloud_age_p99_ms=cloud.p99_ms if cloud else None,
        stages_ms=stages_ms,
        network_ms=stages_ms['network'],
        overhead_p50_ms=depth.p50_ms - stages_ms['network'],
        first_depth_s=first,
        first_depth_live_s=start_spread_of(live) if live else None,
        peak_rss_mib=figures.peak_rss_mib,
        cpu_percent=figures.cpu_percent,
        torch_loaded=figures.torch_loaded,
        receiver_tuned=tuned,
    )


def recording_of(serving: Serving) -> Path:
    """Return a rendered recording, from the user's cache where it is there."""
    seconds = max(serving.seconds, _RECORDING_S)
    name = f'room-{world.VERSION}-{serving.rate_hz:g}hz-{seconds:g}s'
    if (serving.width, serving.height) != (640, 480):
        name += f'-{serving.width}x{serving.height}'
    path = files.cache_folder('benchmark') / name
    if not path.exists():
        wanted = world.RecordingSettings(
            rate_hz=serving.rate_hz, seconds=seconds, width=serving.width, height=serving.height
        )
        world.write(path, wanted)
    return path
