"""The whole node over DDS at a fixed rate: a camera process, the node, a listener."""

from __future__ import annotations

import math
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from depth_node import files
from depth_node.demo import run as demo_run
from depth_node.demo.truth import Source
from depth_node.errors import EngineError
from depth_node.world import recording as world

PROTOCOL = (
    'A rendered 640x480 recording is played by one process at its own rate over DDS (shared '
    'memory, the shipped Fast DDS profile), received and answered by the real node in a second, '
    'and its depth images and, in the first row, clouds (xyz with colour, full size) are received '
    'by a third, all on one machine. Age: from the stamp of the image to the arrival of its '
    "depth. Stage times are the node's own medians. Start: from the start of the node's process "
    "to the arrival of the first depth image, which includes the camera's start and DDS discovery."
)
_LARGEST_DOMAIN = 101


@dataclass(frozen=True)
class ServingRow:
    """One run of the node."""

    model: str
    """Name of the model."""
    engine: str
    """Engine and version."""
    network_input: str
    """Size of the network's input."""
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
    network_ms: float
    """Median time of the network, milliseconds."""
    overhead_p50_ms: float
    """Median age of depth less ``network_ms``."""
    first_depth_s: float
    """From the start of the node's process to the arrival of the first depth."""
    peak_rss_mib: float
    """Most memory of the node, MiB."""
    cpu_percent: float
    """Processor time of the node; 100 is one core."""
    torch_loaded: bool
    """Whether the node's process had torch's library in its memory."""


def measure(
    model: str, engine: str, rate_hz: float, seconds: float, *, points: bool
) -> ServingRow:
    """Run the node once on a rendered recording.

    :param points: whether the listener wants clouds too.

    :raises DepthNodeError: when the node publishes nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Source(
            path=_recording(rate_hz, seconds),
            video=False,
            hfov_deg=65.0,
            image=None,
            camera_info=None,
            depth='',
        )
        figures = demo_run.demonstrate(
            demo_run.Run(
                source=source,
                out=Path(folder),
                node=demo_run.NODE,
                model=model,
                engine=engine,
                rate=1.0,
                seconds=math.inf,
                domain=1 + secrets.randbelow(_LARGEST_DOMAIN),
                patience_s=90.0,
                points=points,
            )
        )
    depth, cloud, first = figures.depth_age, figures.cloud_age, figures.first_depth_s
    if depth is None or first is None or figures.received is None or (points and cloud is None):
        raise EngineError('node benchmark', 'no depth or no clouds', 'both')
    network_ms = float(figures.facts['stage network (ms)'])
    return ServingRow(
        model=model,
        engine=figures.facts['engine'],
        network_input=figures.facts['network input'],
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
        network_ms=network_ms,
        overhead_p50_ms=depth.p50_ms - network_ms,
        first_depth_s=first,
        peak_rss_mib=figures.peak_rss_mib,
        cpu_percent=figures.cpu_percent,
        torch_loaded=figures.torch_loaded,
    )


def _recording(rate_hz: float, seconds: float) -> Path:
    """Return a rendered recording, from the user's cache where it is there."""
    path = files.cache_folder('benchmark') / f'room-{world.VERSION}-{rate_hz:g}hz-{seconds:g}s'
    if not path.exists():
        world.write(path, world.RecordingSettings(rate_hz=rate_hz, seconds=seconds))
    return path
