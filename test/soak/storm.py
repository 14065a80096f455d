"""Many thousand images with everything that goes wrong, through the node's own core.

Each image has a number of its own, which stands in the last six digits of its stamp, so that what
is published is judged by what was sent and not by what the node says of it.
"""

from __future__ import annotations

import random
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

RATES = {'fail': 0.001, 'memory': 0.001, 'host memory': 0.001, 'nan': 0.003, 'slow': 0.001}
_MAX_AGE_S = 0.1
_SLOW_S = 0.12
_PUBLISHING_S = 0.1  # from the node's last look at the age to the publisher of this check
_NUMBERS = 1_000_000
_PERIOD_NS = 33_000_000
_PHASE = 2_500
_EVERY = 1_000


class Judge:
    """Knows what was sent, and judges what is published."""

    def __init__(self, count: int) -> None:
        self.arrived_ns = np.zeros(count, np.int64)
        self.epoch = np.zeros(count, np.int32)
        self.size = np.zeros((count, 2), np.int32)
        self.seen = np.zeros(count, bool)
        for table in (self.arrived_ns, self.epoch, self.size, self.seen):
            table.fill(0)  # in memory now: else this would be what grows
        self.last: dict[str, tuple[int, int]] = {}
        self.published = self.stale = self.duplicate = self.out_of_order = self.wrong = 0

    def sent(self, number: int, epoch: int, size: tuple[int, int]) -> None:
        self.arrived_ns[number] = time.monotonic_ns()
        self.epoch[number], self.size[number] = epoch, size

    def judge(self, message: Any) -> None:
        """Judge one depth image; runs in the worker's thread."""
        self.published += 1
        stamp = message.header.stamp
        stamp_ns = stamp.sec * 10**9 + stamp.nanosec
        depth_m = np.frombuffer(message.data, np.float32)
        if not (np.isfinite(depth_m).mean() > 0.5 and (depth_m[np.isfinite(depth_m)] > 0).all()):
            self.wrong += 1
        if stamp_ns == 0:
            return
        number = stamp_ns % _NUMBERS
        age_ns = time.monotonic_ns() - int(self.arrived_ns[number])
        self.stale += age_ns > (_MAX_AGE_S + _PUBLISHING_S) * 1e9
        self.duplicate += bool(self.seen[number])
        self.seen[number] = True
        place = (int(self.epoch[number]), stamp_ns)
        before = self.last.get(message.header.frame_id, (-1, 0))
        self.out_of_order += place <= before
        self.last[message.header.frame_id] = max(place, before)
        self.wrong += (message.width, message.height) != tuple(self.size[number])


class Storm:
    """The camera: sends, drops, jumps, and changes its mind."""

    def __init__(self, core: Core, judge: Judge, count: int, tick: Callable[[int], None]) -> None:
        self.core, self.judge, self.count, self.tick = core, judge, count, tick
        self.draw = random.Random(7)
        self.sent = self.epoch = self.number = self.burst = self.deaf = 0
        self.stamp_ns = 100 * 10**9
        self.size, self.encoding = pictures.SIZES[0], 'rgb8'
        self.compressed = False
        self.did: dict[str, int] = {}
        self.memory: list[tuple[int, int]] = []

    def run(self) -> None:
        while self.sent < self.count:
            self.begin_phase()
            for _ in range(min(_PHASE, self.count - self.sent)):
                self.step()
            self.core.node.listened_to = True
        self.core.settle(30.0)
        self.core.deactivate()

    def begin_phase(self) -> None:
        """Deactivate, perhaps with an image in the slot, and activate with the other transport."""
        self.core.deactivate()
        self.compressed = not self.compressed and self.sent > 0
        transport = 'compressed' if self.compressed else 'raw'
        self.encoding = 'jpeg' if self.compressed else 'rgb8'
        self.epoch += 1
        self.core.activate(**{'input.transport': transport})
        self.core.node.deliver_camera(pictures.camera(self.size))

    def step(self) -> None:
        """Let something happen, or not, and send one image."""
        self.stamp_ns += _PERIOD_NS
        kind = self.draw.choices(list(KINDS), list(KINDS.values()))[0]
        self.did[kind] = self.did.get(kind, 0) + 1
        happens = getattr(self, f'_{kind}', None)
        message = happens() if happens else None
        self.core.set_clock(self.stamp_ns + 5_000_000)
        if self.deaf:
            self.deaf -= 1
            self.core.node.listened_to = not self.deaf
        if message is None:
            self.send(self.stamp_ns)
        else:
            self.deliver(message)
        if self.burst:
            self.burst -= 1
            return
        end = time.monotonic() + 0.004
        while self.core.pending() and time.monotonic() < end:
            time.sleep(0.0001)

    def send(self, near_ns: int, frame_id: str = 'camera') -> None:
        """Send a good image with a number of its own, at about this time."""
        self.number += 1
        self.judge.sent(self.number, self.epoch, self.size)
        source = pictures.compressed if self.compressed else pictures.raw
        message = source(self.size, self.encoding)
        stamp_ns = near_ns // _NUMBERS * _NUMBERS + self.number
        pictures.stamped(message, stamp_ns, frame_id)
        self.deliver(message)

    def deliver(self, message: Any) -> None:
        self.sent += 1
        self.core.node.deliver_image(message)
        if self.sent % _EVERY == 0:
            self.memory.append((self.sent, rss_bytes()))
            self.tick(_EVERY)

    def _gap(self) -> None:
        self.stamp_ns += self.draw.randrange(1, 60) * _PERIOD_NS

    def _bad(self) -> Any:
        message = pictures.bad(self.draw, self.compressed)
        pictures.stamped(message, self.stamp_ns, 'camera')
        return message

    def _duplicate(self) -> Any:
        """Send the last good image again, unchanged."""
        if self.number == 0 or self.epoch != self.judge.epoch[self.number]:
            return None
        source = pictures.compressed if self.compressed else pictures.raw
        message = source(self.size, self.encoding)
        if message.header.stamp.nanosec % _NUMBERS != self.number:
            return None
        self.judge.sent(self.number, self.epoch, self.size)
        return message

    def _late(self) -> None:
        """Send an image that has been overtaken, and then the newest."""
        late_ns = self.stamp_ns - self.draw.randrange(2, 25) * _PERIOD_NS
        if self.sent + 1 < self.count:
            self.send(late_ns)

    def _unclocked(self) -> Any:
        message = (pictures.compressed if self.compressed else pictures.raw).__wrapped__(
            self.size, self.encoding
        )
        pictures.stamped(message, 0, 'camera')
        return message

    def _other(self) -> None:
        if self.sent + 1 < self.count:
            self.send(self.stamp_ns - _PERIOD_NS // 2, 'other')

    def _resize(self) -> None:
        """Change the size; half of the time camera_info comes too late for the first image."""
        self.size = self.draw.choice(pictures.SIZES)
        if self.draw.random() < 0.5 and self.sent + 1 < self.count:
            self.send(self.stamp_ns - _PERIOD_NS // 2)
        self.core.node.deliver_camera(pictures.camera(self.size))

    def _recode(self) -> None:
        names = pictures.FORMATS if self.compressed else tuple(pictures.BYTES)
        self.encoding = self.draw.choice(names)

    def _bad_camera(self) -> None:
        self.core.node.deliver_camera(pictures.bad_camera())

    def _jump(self) -> None:
        """Set the clock, for the node too, forwards or back."""
        self.epoch += 1
        self.stamp_ns = max(10**9, self.stamp_ns + self.draw.randrange(-90, 90) * 10**9)
        self.core.set_clock(self.stamp_ns)

    def _loop(self) -> None:
        """Begin a recording anew: stamps go back and the node's clock does not."""
        self.epoch += 1
        self.stamp_ns = max(10**9, self.stamp_ns - 70 * 10**9)
        self.core.node.now_ns = self.stamp_ns

    def _burst(self) -> None:
        self.burst = self.draw.randrange(3, 30)

    def _deafness(self) -> None:
        self.core.node.listened_to = False
        self.deaf = 50


KINDS = {
    'nothing': 84.0, 'gap': 3.0, 'bad': 3.0, 'duplicate': 3.0, 'late': 2.0, 'unclocked': 0.3,
    'other': 1.0, 'resize': 0.6, 'recode': 1.0, 'bad_camera': 0.5, 'jump': 0.2, 'loop': 0.2,
    'burst': 1.0, 'deafness': 0.05,
}  # fmt: skip


def storm(folder: Path, count: int = 100_000, tick: Callable[[int], None] = lambda _: None) -> Row:
    """Run ``count`` images (below a million) through the core."""
    row = Row('storm')
    began_s = time.monotonic()
    judge = Judge(count + 2)
    with chance_engine(folder, **RATES) as model:
        CHANCE.slow_s = _SLOW_S
        core = Core(model, judge.judge, **{'input.max_age_s': _MAX_AGE_S})
        camera = Storm(core, judge, count, tick)
        camera.run()
        report = core.report()
        core.close()
    row.seconds = time.monotonic() - began_s
    row.figures = {
        'images': camera.sent,
        'published': judge.published,
        'stale': judge.stale,
        'duplicate': judge.duplicate,
        'out_of_order': judge.out_of_order,
        'wrong': judge.wrong,
        'crashes': len(core.node.given_up),
        'uncounted': report.pending,
        'engines_opened_anew': core.node.reopened,
        'growth_mib_per_100000': round(growth(camera.memory, 100_000) / MIB, 3),
        'drops': dict(sorted(report.drops.items())),
        'injected': dict(sorted({**camera.did, **CHANCE.injected}.items())),
    }
    for name in ('stale', 'duplicate', 'out_of_order', 'wrong', 'crashes', 'uncounted'):
        row.require(row.figures[name] == 0, f'{name} is {row.figures[name]}, not 0')
    row.require(not core.node.given_up, '; '.join(core.node.given_up))
    row.require(camera.sent == report.received, f'received {report.received} of {camera.sent}')
    row.require(judge.published == report.published, f'{report.published} counted as published')
    if count >= 50_000:
        grown = row.figures['growth_mib_per_100000']
        row.require(grown < 1.0, f'memory grows by {grown} MiB per 100,000 images')
    return row
