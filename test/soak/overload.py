"""Ten times more images than the engine can take: as many leave, and none is old."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from soak import pictures
from soak.core import Core
from soak.core import chance_engine
from soak.engine import CHANCE
from soak.row import MIB
from soak.row import Row
from soak.row import growth
from soak.row import rss_bytes

_FACTOR = 10
_OUTPUT_SHARE = 0.9
_INFERENCE_S = 0.02
# of a machine that does other things too; the largest age is reported beside it
_WITHIN_SHARE = 0.95
# images after which memory is judged
_SETTLED = 10_000


class Taken:
    """When the worker took what, and for how long it was at it."""

    def __init__(self, core: Core) -> None:
        self.ages_s: list[float] = []
        self.works_s: list[float] = []
        process = core.stream._worker._process

        def timed(lane: Any, arrival: Any) -> None:
            began_ns = time.monotonic_ns()
            self.ages_s.append((began_ns - arrival.arrived_ns) / 1e9)
            try:
                process(lane, arrival)
            finally:
                self.works_s.append((time.monotonic_ns() - began_ns) / 1e9)

        core.stream._worker._process = timed


class Clocked:
    """Sends images with rising stamps."""

    def __init__(self, core: Core) -> None:
        self.core, self.stamp_ns = core, 10**9
        self.message = pictures.raw(pictures.SIZES[0], 'rgb8')

    def send(self) -> None:
        self.stamp_ns += 1_000_000
        pictures.stamped(self.message, self.stamp_ns, 'camera')
        self.core.node.deliver_image(self.message)


def _unloaded(camera: Clocked, left: threading.Event, seconds: float) -> float:
    """Send an image as soon as the one before has left; return the rate of the output, Hz."""
    count, began_s = 0, time.monotonic()
    while time.monotonic() < began_s + seconds:
        left.clear()
        camera.send()
        count += left.wait(10.0)
    return count / (time.monotonic() - began_s)


def _loaded(camera: Clocked, period_s: float, seconds: float) -> int:
    """Send images at a fixed period; return how many."""
    count, began_s = 0, time.monotonic()
    while (now_s := time.monotonic()) < began_s + seconds:
        due_s = began_s + count * period_s
        if now_s < due_s:
            time.sleep(due_s - now_s)
        camera.send()
        count += 1
    return count


def overload(
    folder: Path, seconds: float = 60.0, tick: Callable[[int], None] = lambda _: None
) -> Row:
    """Measure a quarter of the time without load, the rest with ten times too many images."""
    row = Row('overload')
    began_s = time.monotonic()
    left = threading.Event()
    published: list[int] = []

    def leave(message: Any) -> None:
        published.append(time.monotonic_ns())
        left.set()

    with chance_engine(folder) as model:
        CHANCE.inference_s = _INFERENCE_S
        core = Core(model, leave)
        core.activate()
        core.node.deliver_camera(pictures.camera(pictures.SIZES[0]))
        taken = Taken(core)
        camera = Clocked(core)
        _unloaded(camera, left, 0.3)
        free_hz = _unloaded(camera, left, seconds / 4)
        period_s = 1.0 / (free_hz * _FACTOR)
        core.settle(5.0)
        published.clear(), taken.ages_s.clear(), taken.works_s.clear()
        memory, sent, loaded_s = [], 0, time.monotonic()
        for _ in range(30):
            sent += _loaded(camera, period_s, seconds / 40)
            memory.append((sent, rss_bytes()))
        loaded_s = time.monotonic() - loaded_s
        core.settle(5.0)
        core.close()
    row.seconds = time.monotonic() - began_s
    bound_s = np.array(taken.works_s[:-1]) + period_s
    ages_s = np.array(taken.ages_s[1:])
    # the image in work when one arrives is the one before: what it took is what one may wait
    within = float((ages_s <= bound_s).mean())
    row.figures = {
        'images': sent,
        'unloaded_hz': round(free_hz, 2),
        'input_hz': round(sent / loaded_s, 2),
        'output_hz': round(len(published) / loaded_s, 2),
        'output_share': round(len(published) / loaded_s / free_hz, 3),
        'inference_ms': round(float(np.median(taken.works_s)) * 1e3, 2),
        'age_at_start_p50_ms': round(float(np.median(ages_s)) * 1e3, 2),
        'age_at_start_max_ms': round(float(ages_s.max()) * 1e3, 2),
        'bound_ms': round(float(np.median(bound_s)) * 1e3, 2),
        'within_bound_share': round(within, 4),
        'growth_mib': round(growth(memory, sent) / MIB, 3),
    }
    share, grown = row.figures['output_share'], row.figures['growth_mib']
    settled = sent >= _SETTLED
    row.require(grown < 1.0 or not settled, f'memory grows by {grown} MiB in {sent} images')
    row.require(share >= _OUTPUT_SHARE, f'under load {share} of the images leave')
    row.require(
        within >= _WITHIN_SHARE, f'{within:.3f} of the images are in work within the bound'
    )
    row.require(not core.node.given_up, '; '.join(core.node.given_up))
    return row


def pause(folder: Path, seconds: float = 5.0) -> Row:
    """Let a camera pause for longer than anything waits, and come back."""
    row = Row('pause')
    began_s = time.monotonic()
    left = threading.Event()
    waits_s = []
    with chance_engine(folder) as model:
        core = Core(model, lambda _: left.set(), **{'node.input_timeout_s': 0.5})
        core.activate()
        core.node.deliver_camera(pictures.camera(pictures.SIZES[0]))
        camera = Clocked(core)
        for _ in range(5):
            _unloaded(camera, left, 0.05)
            end_s = time.monotonic() + seconds / 5
            while time.monotonic() < end_s:
                time.sleep(0.05)
                core.stream.watch()
            back_s = time.monotonic()
            left.clear()
            camera.send()
            row.require(left.wait(5.0), 'nothing leaves after a pause')
            waits_s.append(time.monotonic() - back_s)
        core.close()
    row.seconds = time.monotonic() - began_s
    row.figures = {'pauses': len(waits_s), 'slowest_output_s': round(max(waits_s), 4)}
    row.require(max(waits_s) < 1.0, f'after a pause depth took {max(waits_s):.2f} s')
    return row
