"""Counters and clocks of the stream of images, and the state that follows from them.

Every image that comes in is counted once as received and once more as published or, under a named
reason, as dropped; what is neither yet is pending: at most one image in work and one that waits.
All times are of the monotonic clock.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections import deque
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from math import ceil

NO_SUBSCRIBER = 'no_subscriber'
REPLACED = 'replaced'
# Drops that are the design at work: nobody wants the result, or the camera is the faster one.
_HARMLESS = frozenset({NO_SUBSCRIBER, REPLACED, 'inactive'})

_SECOND_NS = 1_000_000_000
_WINDOW_NS = 10 * _SECOND_NS
_RECENT_NS = 2 * _SECOND_NS
# A fault that is over is out of /diagnostics within two seconds: this, and the time until the
# change of the state is noticed and published.
_FAULT_NS = 3 * _SECOND_NS // 2
_SLOWEST_RATE_NS = 10 * _SECOND_NS
_KEPT = 512
_SLOW_FACTOR, _SLOW_AT_LEAST_NS = 3, 1 * _SECOND_NS
_HUNG_FACTOR, _HUNG_AT_LEAST_NS = 10, 5 * _SECOND_NS
# Before the first result nobody knows how fast this model is on this machine.
_FIRST_RESULT_NS = 60 * _SECOND_NS

_OLDEST_STAMP_NS = 60 * _SECOND_NS
_NEWEST_STAMP_NS = -_SECOND_NS // 10

Clock = Callable[[], int]


class State(Enum):
    """How the node is doing."""

    OK = 'ok'
    DEGRADED = 'degraded'
    STALE = 'stale'
    FAILED = 'failed'


@dataclass(frozen=True)
class Percentiles:
    """Nearest-rank percentiles of the last seconds, milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Report:
    """The health at one moment."""

    state: State
    text: str
    """One plain sentence about the state."""
    received: int
    published: int
    drops: dict[str, int]
    """Reason to number of images, since the start."""
    camera_rejections: dict[str, int]
    """Reason to number of refused camera_info messages, since the start."""
    input_rate_hz: float
    output_rate_hz: float
    age: Percentiles | None
    """From the arrival of an image to the publishing of its depth; None: nothing published."""
    stamp_age: Percentiles | None
    """From the stamp of an image to the publishing of its depth; None where clocks disagree."""
    stages_ms: dict[str, float]
    """Median time of each stage, milliseconds."""
    silence_s: float
    """Time since the last image, or since the watch began, seconds."""
    stamp_remark: str
    """What is odd about the stamp of the last published image; '' where nothing is."""
    hung: bool
    """True when an image has been in work for so long that only a new process helps."""

    @property
    def pending(self) -> int:
        """Images that wait or are in work."""
        return self.received - self.published - sum(self.drops.values())


class Health:
    """Counts what happens to images; every method may be called from any thread."""

    def __init__(self, clock: Clock = time.monotonic_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._received = 0
        self._published = 0
        self._drops: Counter[str] = Counter()
        self._camera_rejections: Counter[str] = Counter()
        self._arrivals = _Window()
        self._outputs = _Window()
        self._stamp_ages = _Window()
        self._work = _Window()
        self._stages: dict[str, _Window] = {}
        self._recent_drops: deque[tuple[int, str]] = deque(maxlen=_KEPT)
        self._recent_cameras: deque[tuple[int, str]] = deque(maxlen=_KEPT)
        self._stamp_remark = ''
        self._began_ns = clock()
        self._work_began_ns: int | None = None
        self._work_is_first = False
        self._failure = ''

    def watch(self) -> None:
        """Begin to expect images: silence is measured from now on."""
        with self._lock:
            self._began_ns = self._clock()
            self._arrivals.clear()

    def watched_s(self) -> float:
        """Return the time since :meth:`watch`, seconds."""
        with self._lock:
            return (self._clock() - self._began_ns) / _SECOND_NS

    def received(self) -> None:
        """Count an image that has come in."""
        with self._lock:
            self._received += 1
            self._arrivals.add(self._clock(), 0)

    def dropped(self, reason: str) -> None:
        """Count an image that will not be published.

        :param reason: short fixed name, never text from outside.
        """
        with self._lock:
            self._drops[reason] += 1
            self._recent_drops.append((self._clock(), reason))

    def published(
        self,
        age_ns: int,
        stamp_age_ns: int | None,
        stage_ns: Mapping[str, int],
        stamp_remark: str = '',
    ) -> None:
        """Count an image whose depth has been published.

        :param age_ns: from its arrival until now.
        :param stamp_age_ns: from its stamp until now; None where that makes no sense.
        :param stage_ns: time spent per stage.
        :param stamp_remark: what is odd about its stamp, from :func:`stamp_remark`.
        """
        with self._lock:
            now_ns = self._clock()
            self._published += 1
            self._outputs.add(now_ns, age_ns)
            self._stamp_remark = stamp_remark
            if stamp_age_ns is not None:
                self._stamp_ages.add(now_ns, stamp_age_ns)
            for stage, spent_ns in stage_ns.items():
                self._stages.setdefault(stage, _Window()).add(now_ns, spent_ns)

    def camera_rejected(self, reason: str) -> None:
        """Count a camera_info that was refused."""
        with self._lock:
            self._camera_rejections[reason] += 1
            self._recent_cameras.append((self._clock(), reason))

    def work_began(self) -> None:
        """Start the clock of the image in work."""
        with self._lock:
            self._work_began_ns = self._clock()
            self._work_is_first = False

    def work_is_first(self) -> None:
        """Give the image in work as long as the very first: an engine is opened for it."""
        with self._lock:
            self._work_is_first = True

    def work_ended(self, *, completed: bool) -> None:
        """Stop the clock of the image in work.

        :param completed: True when all stages ran, so that the time counts as a usual one.
        """
        with self._lock:
            if completed and self._work_began_ns is not None:
                self._work.add(self._clock(), self._clock() - self._work_began_ns)
            self._work_began_ns = None

    def failed(self, text: str) -> None:
        """Set the state FAILED with its sentence until :meth:`mended`."""
        with self._lock:
            self._failure = text

    def mended(self) -> None:
        """Take back :meth:`failed`."""
        with self._lock:
            self._failure = ''

    def state(self, stale_after_s: float) -> State:
        """Judge the state alone, which is cheap; see :meth:`report`."""
        with self._lock:
            return self._judged(self._clock(), round(stale_after_s * _SECOND_NS))[0]

    def report(self, stale_after_s: float) -> Report:
        """Judge the state and sum up the counters.

        :param stale_after_s: silence after which the output is STALE, seconds; a camera that is
            slower than this is given three of its periods.
        """
        with self._lock:
            now_ns = self._clock()
            state, text = self._judged(now_ns, round(stale_after_s * _SECOND_NS))
            return Report(
                state=state,
                text=text,
                received=self._received,
                published=self._published,
                drops=dict(self._drops),
                camera_rejections=dict(self._camera_rejections),
                input_rate_hz=self._arrivals.rate_hz(now_ns),
                output_rate_hz=self._outputs.rate_hz(now_ns),
                age=_percentiles(self._outputs.values(now_ns)),
                stamp_age=_percentiles(self._stamp_ages.values(now_ns)),
                stages_ms={
                    stage: figures.p50_ms
                    for stage, window in self._stages.items()
                    if (figures := _percentiles(window.values(now_ns)))
                },
                silence_s=self._silence_ns(now_ns) / _SECOND_NS,
                stamp_remark=self._stamp_remark,
                hung=self._overrun(now_ns, _HUNG_FACTOR, _HUNG_AT_LEAST_NS),
            )

    def _silence_ns(self, now_ns: int) -> int:
        """Return the time since the last image, or since the watch began."""
        return now_ns - (self._arrivals.last_ns or self._began_ns)

    def _judged(self, now_ns: int, stale_ns: int) -> tuple[State, str]:
        """Return the state and its sentence; the worst that holds is told."""
        silence_ns = self._silence_ns(now_ns)
        if self._failure:
            return State.FAILED, self._failure
        if self._overrun(now_ns, _SLOW_FACTOR, _SLOW_AT_LEAST_NS):
            seconds = (now_ns - (self._work_began_ns or now_ns)) / _SECOND_NS
            return State.FAILED, f'one image has been in work for {seconds:.1f} s'
        if not self._arrivals.last_ns:
            return State.STALE, f'no image yet, for {silence_ns / _SECOND_NS:.1f} s'
        if silence_ns > max(stale_ns, self._patience_ns()):
            return State.STALE, f'no image for {silence_ns / _SECOND_NS:.1f} s'
        recent = _recent(self._recent_drops, now_ns)
        harmful = {name: count for name, count in recent.items() if name not in _HARMLESS}
        if harmful:
            return State.DEGRADED, f'images dropped in the last 1.5 s: {_listed(harmful)}'
        cameras = _recent(self._recent_cameras, now_ns)
        if cameras:
            return State.DEGRADED, (
                f'camera_info refused in the last 1.5 s: {_listed(cameras)}; '
                'what was known of the camera before stays in force'
            )
        if recent[NO_SUBSCRIBER]:
            return State.OK, 'nobody listens, so nothing is computed'
        return State.OK, f'publishing {self._outputs.rate_hz(now_ns):.1f} depth images a second'

    def _patience_ns(self) -> int:
        """Return three periods of the camera, or 0 while it is unknown."""
        return min(3 * self._arrivals.period_ns(), _SLOWEST_RATE_NS)

    def _overrun(self, now_ns: int, factor: int, at_least_ns: int) -> bool:
        """Tell whether the image in work takes ``factor`` times as long as usual."""
        if self._work_began_ns is None:
            return False
        usual_ns = None if self._work_is_first else self._work.median()
        limit_ns = _FIRST_RESULT_NS if usual_ns is None else max(factor * usual_ns, at_least_ns)
        return now_ns - self._work_began_ns > limit_ns


class Throttle:
    """Lets one log line per cause through in a period, and counts what it keeps back."""

    def __init__(self, period_s: float = 5.0, clock: Clock = time.monotonic_ns) -> None:
        self._period_ns = round(period_s * _SECOND_NS)
        self._clock = clock
        self._lock = threading.Lock()
        self._last_ns: dict[str, int] = {}
        self._held_back: Counter[str] = Counter()

    def due(self, cause: str) -> int:
        """Tell whether to say something about ``cause`` now.

        :returns: how often it happened since the last line, this time included; 0: keep quiet.
        """
        with self._lock:
            now_ns = self._clock()
            self._held_back[cause] += 1
            last_ns = self._last_ns.get(cause)
            if last_ns is not None and now_ns - last_ns < self._period_ns:
                return 0
            self._last_ns[cause] = now_ns
            return self._held_back.pop(cause)


def stamp_remark(age_ns: int, stamp_ns: int) -> str:
    """Say what is odd about the clock of a sender.

    :param age_ns: from the stamp until now, by this machine's clock.
    :param stamp_ns: the stamp itself.
    :returns: a plain sentence, or '' where the age can be believed.
    """
    if stamp_ns == 0:
        return 'images have the stamp 0; their age is measured from their arrival'
    if age_ns < _NEWEST_STAMP_NS:
        return f'stamps are {-age_ns / _SECOND_NS:.2f} s in the future; synchronise the clocks'
    if age_ns > _OLDEST_STAMP_NS:
        return 'stamps are over a minute old; is this a recording without use_sim_time?'
    return ''


class _Window:
    """Values with their times; those of the last ten seconds count, 512 at most."""

    def __init__(self) -> None:
        self._entries: deque[tuple[int, int]] = deque(maxlen=_KEPT)

    def add(self, now_ns: int, value: int) -> None:
        self._entries.append((now_ns, value))

    def clear(self) -> None:
        self._entries.clear()

    @property
    def last_ns(self) -> int:
        """Time of the last entry; 0 where there is none."""
        return self._entries[-1][0] if self._entries else 0

    def values(self, now_ns: int) -> list[int]:
        """Return the values of the last ten seconds."""
        return [value for at_ns, value in self._entries if now_ns - at_ns <= _WINDOW_NS]

    def median(self) -> int | None:
        """Return the median of all that is kept, however old; None where nothing is."""
        values = sorted(value for _, value in self._entries)
        return values[len(values) // 2] if values else None

    def period_ns(self) -> int:
        """Return the median distance of the last nine entries; 0 below two."""
        times = [at_ns for at_ns, _ in self._entries][-9:]
        gaps = sorted(after - before for before, after in pairwise(times))
        return gaps[len(gaps) // 2] if gaps else 0

    def rate_hz(self, now_ns: int) -> float:
        """Return entries per second over the last two seconds."""
        recent = sum(1 for at_ns, _ in self._entries if now_ns - at_ns <= _RECENT_NS)
        return recent * _SECOND_NS / _RECENT_NS


def _recent(entries: deque[tuple[int, str]], now_ns: int) -> Counter[str]:
    """Count the reasons that are so recent that they make the state."""
    return Counter(reason for at_ns, reason in entries if now_ns - at_ns <= _FAULT_NS)


def _listed(counts: Mapping[str, int]) -> str:
    """Return counts and their names in one line."""
    return ', '.join(f'{count} {name}' for name, count in sorted(counts.items()))


def _percentiles(values_ns: Sequence[int]) -> Percentiles | None:
    """Return nearest-rank percentiles of durations; None where there are none."""
    ordered = sorted(values_ns)
    if not ordered:
        return None
    p50, p95, p99 = (
        ordered[max(ceil(share * len(ordered)) - 1, 0)] / 1e6 for share in (0.5, 0.95, 0.99)
    )
    return Percentiles(p50, p95, p99)
