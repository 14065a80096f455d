"""Delay between the stamps of a camera and those of odometry or a gyroscope.

Both say how fast the camera turns.  The delay is where the two agree best: the largest correlation
over all three axes, means taken out, refined between the samples by a parabola.  How well it is
known follows from what is left over: with residual variance s^2 per sample and slopes w' of the
rate over time, no unbiased estimate has a variance below s^2 / sum(w'^2) (Cramer-Rao).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.image_rotation import rotation_between
from depth_node.dataset.poses import Floats
from depth_node.dataset.poses import rotation_vectors
from depth_node.dataset.trajectory import Trajectory

LARGEST_S = 0.5
"""Delays up to this are looked for, seconds."""

_STEP_S = 0.01
_GAP_PERIODS, _GAP_S = 3.0, 0.05
_LEAST_SAMPLES = 20
_LEAST_RATE_RAD_S = 0.03
_LEAST_KNOWN = 0.6
_LEAST_CORRELATION = 0.6
_LARGEST_ERROR_S = 0.015
_BESIDE_S = 0.1
_ROBUST_RAD_S = 3.0
_ROUNDS = 5
_SMOOTHING = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
_SETTLED_S = 0.002
_STANDING_M = 0.002
_LEAST_APPLIED_S = 0.010
_ERRORS_APPLIED = 3.0


@dataclass(frozen=True)
class ClockOffset:
    """A delay that was found; positive where the images are stamped too late."""

    offset_s: float
    """Seconds: stamp of the image minus time of the same moment by the other clock."""
    standard_error_s: float
    """How well it is known, seconds."""
    correlation: float
    """Of both turn rates at that delay, 0 to 1."""
    sharpness: float
    """By how much the correlation falls 0.1 s beside the peak."""
    samples: int
    """Pairs of images that were compared."""
    source: str
    """What the images were compared with, e.g. '/odom'."""
    gain: float = float('nan')
    """Turn by the images over turn by the other clock, 1 where lens and odometry are right."""
    gain_error: float = float('nan')
    """Standard error of it."""

    @property
    def offset_ns(self) -> int:
        """The delay in nanoseconds."""
        return round(self.offset_s * 1e9)

    @property
    def is_applicable(self) -> bool:
        """Whether it is to be applied: sharp, and larger than it could be by chance."""
        chance_s = max(_LEAST_APPLIED_S, _ERRORS_APPLIED * self.standard_error_s)
        return self.is_sharp and abs(self.offset_s) > chance_s

    @property
    def is_sharp(self) -> bool:
        """Whether it can be trusted: a clear peak that is not at the end of the range."""
        return (
            self.correlation >= _LEAST_CORRELATION
            and self.standard_error_s <= _LARGEST_ERROR_S
            and abs(self.offset_s) < LARGEST_S - 2 * _STEP_S
        )


@dataclass(frozen=True, eq=False)
class TrackedPair:
    """Points that were followed from one image to the next."""

    start_ns: int
    """Stamp of the first image, nanoseconds."""
    end_ns: int
    """Stamp of the second, nanoseconds."""
    before: Floats
    """(N, 2) ray slopes x/z, y/z in the first image."""
    after: Floats
    """(N, 2) of the same points in the second."""


@dataclass(frozen=True, eq=False)
class ImageTurns:
    """How much a camera turned between pairs of images."""

    start_ns: NDArray[np.int64]
    """(N,) stamp of the first image of each pair."""
    end_ns: NDArray[np.int64]
    """(N,) stamp of the second."""
    turns_rad: Floats
    """(N, 3) axis times angle of R_first_second in camera axes, radians."""


@dataclass(frozen=True, eq=False)
class TurnRates:
    """What a gyroscope said."""

    stamps_ns: NDArray[np.int64]
    """(M,) strictly rising."""
    rates_rad_s: Floats
    """(M, 3) radians per second, in camera axes."""

    def turned(
        self, start_ns: NDArray[np.int64], end_ns: NDArray[np.int64]
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the turn (N, 3) between times, radians, and where it is known (N,).

        It is not known outside of the stamps and across gaps.
        """
        seconds = (self.stamps_ns - self.stamps_ns[0]) / 1e9
        middle = (self.rates_rad_s[1:] + self.rates_rad_s[:-1]) / 2.0
        total = np.vstack([np.zeros(3), np.cumsum(middle * np.diff(seconds)[:, None], axis=0)])
        start, end = ((item - self.stamps_ns[0]) / 1e9 for item in (start_ns, end_ns))
        known = (start >= 0.0) & (end <= seconds[-1])
        steps = np.diff(seconds)
        gaps = np.append(0, np.cumsum(steps > max(_GAP_PERIODS * np.median(steps), _GAP_S)))
        last = len(seconds) - 1
        before = np.clip(np.searchsorted(seconds, start, side='right') - 1, 0, last)
        known &= gaps[before] == gaps[np.clip(np.searchsorted(seconds, end), 0, last)]
        turns = [
            np.interp(end, seconds, axis) - np.interp(start, seconds, axis) for axis in total.T
        ]
        return np.stack(turns, axis=1), known


def clock_offset(
    pairs: Sequence[TrackedPair], other: Trajectory | TurnRates, source: str
) -> ClockOffset | None:
    """Return the delay of the images, sharp or not; None where nothing can be said.

    Where poses are known, the direction in which the camera moved is taken out of the motion of
    the points; it depends on the delay a little, so that this is repeated until it settles.

    Nothing can be said where there are too few pairs, or where the turn rate hardly varies: a
    robot that drives straight or turns evenly looks the same at every delay.

    :param source: what ``other`` is, e.g. '/odom'.
    """
    found = offset_of_turns(turns_of(pairs), other, source)
    if isinstance(other, TurnRates):
        return found
    found = offset_of_turns(turns_with_poses(pairs, other, 0), other, source) or found
    for _ in range(_ROUNDS):
        if found is None:
            return None
        turns = turns_with_poses(pairs, other, found.offset_ns)
        before, found = found, offset_of_turns(turns, other, source)
        if found is not None and abs(found.offset_s - before.offset_s) < _SETTLED_S:
            break
    return found


def turns_of(
    pairs: Sequence[TrackedPair], moved: Sequence[Floats | None] | None = None
) -> ImageTurns:
    """Return how much the camera turned between pairs of images.

    :param moved: for each pair the direction of motion, see
        :func:`~depth_node.dataset.image_rotation.rotation_between`.
    """
    directions = [None] * len(pairs) if moved is None else moved
    found = [
        (pair.start_ns, pair.end_ns, turn)
        for pair, direction in zip(pairs, directions, strict=True)
        if (turn := rotation_between(pair.before, pair.after, direction)) is not None
    ]
    return ImageTurns(
        np.array([item[0] for item in found], dtype=np.int64),
        np.array([item[1] for item in found], dtype=np.int64),
        np.array([item[2] for item in found], dtype=np.float64).reshape(-1, 3),
    )


def turns_with_poses(
    pairs: Sequence[TrackedPair], trajectory: Trajectory, delay_ns: int
) -> ImageTurns:
    """Return how much the camera turned between images, its motion by poses taken out.

    :param delay_ns: of the images beside the poses.
    """
    return turns_of(pairs, [_moved(pair, trajectory, delay_ns) for pair in pairs])


def _moved(pair: TrackedPair, trajectory: Trajectory, offset_ns: int) -> Floats | None:
    """Return where the camera moved between two images, metres, its axes; None for nowhere."""
    first = trajectory.at(pair.start_ns - offset_ns)
    second = trajectory.at(pair.end_ns - offset_ns)
    if first is None or second is None:
        return None
    step = first[:3, :3].T @ (second[:3, 3] - first[:3, 3])
    return np.asarray(step) if np.linalg.norm(step) > _STANDING_M else None


def offset_of_turns(
    images: ImageTurns, other: Trajectory | TurnRates, source: str
) -> ClockOffset | None:
    """Return the delay at which two records of how a camera turned agree best; None as above."""
    if len(images.turns_rad) < _LEAST_SAMPLES:
        return None
    seconds = ((images.end_ns - images.start_ns) / 1e9)[:, None]
    rates = images.turns_rad / seconds
    delays = tried_delays_s()
    correlations = np.full(len(delays), np.nan)
    varied = 0.0
    for index, delay in enumerate(delays):
        turns, known = turned_between(other, images, delay)
        if not enough(known):
            continue
        correlations[index], spread = _correlation(rates[known], (turns / seconds)[known])
        varied = max(varied, spread)
    if varied < _LEAST_RATE_RAD_S or not np.isfinite(correlations).any():
        return None
    best = int(np.nanargmax(correlations))
    delay = float(delays[best]) + _STEP_S * _vertex(correlations, best)
    error_s, gain, gain_error = _errors(images, rates, other, delay)
    return ClockOffset(
        offset_s=delay,
        standard_error_s=error_s,
        correlation=float(correlations[best]),
        sharpness=_sharpness(correlations, best),
        samples=len(rates),
        source=source,
        gain=gain,
        gain_error=gain_error,
    )


def tried_delays_s() -> Floats:
    """Return the delays that are tried, seconds."""
    return np.arange(-LARGEST_S, LARGEST_S + _STEP_S / 2, _STEP_S)


def enough(known: NDArray[np.bool_]) -> bool:
    """Tell whether enough pairs have a turn by the other clock to compare them."""
    return bool(known.sum() >= max(_LEAST_SAMPLES, _LEAST_KNOWN * len(known)))


def turned_between(
    other: Trajectory | TurnRates, images: ImageTurns, delay_s: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return what the other clock says that the camera turned, were the images late by this."""
    shift = np.int64(round(delay_s * 1e9))
    start, end = images.start_ns - shift, images.end_ns - shift
    if isinstance(other, TurnRates):
        return other.turned(start, end)
    first, known = other.at_many(start)
    second, also = other.at_many(end)
    known &= also
    turns = np.full((len(start), 3), np.nan)
    relative = np.swapaxes(first[known, :3, :3], 1, 2) @ second[known, :3, :3]
    turns[known] = rotation_vectors(relative)
    return turns, known


def _correlation(one: Floats, two: Floats) -> tuple[float, float]:
    """Return the correlation over all axes, and how much the second varies, radians/second."""
    first, second = varying(one), varying(two)
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    spread = float(np.sqrt((second**2).sum(axis=1).mean()))
    return (float((first * second).sum()) / norm if norm > 0.0 else 0.0), spread


def varying(rates: Floats) -> Floats:
    """Take the mean out, and keep single wild samples from deciding."""
    centred = rates - np.median(rates, axis=0)
    size = np.linalg.norm(centred, axis=1)
    limit = _ROBUST_RAD_S * max(float(np.sqrt(np.median(size**2))), _LEAST_RATE_RAD_S)
    limit = max(limit, float(np.percentile(size, 95)))
    centred = _smoothed(centred * np.minimum(1.0, limit / np.maximum(size, 1e-12))[:, None])
    return np.asarray(centred - centred.mean(axis=0))


def _smoothed(rates: Floats) -> Floats:
    """Average over some pairs.

    Poses between two stamps are interpolated, which smooths; without smoothing both records more
    than that, delays that fall between the stamps would look better than they are.
    """
    return np.stack([np.convolve(axis, _SMOOTHING, mode='same') for axis in rates.T], axis=1)


def _vertex(values: Floats, best: int) -> float:
    """Return the vertex of the parabola through three neighbours, in samples from ``best``."""
    if not 0 < best < len(values) - 1:
        return 0.0
    left, middle, right = values[best - 1 : best + 2]
    bend = left - 2.0 * middle + right
    if not np.isfinite(bend) or bend >= 0.0:
        return 0.0
    return float(np.clip(0.5 * (left - right) / bend, -1.0, 1.0))


def _sharpness(correlations: Floats, best: int) -> float:
    """Return by how much the correlation falls beside its peak."""
    beside = round(_BESIDE_S / _STEP_S)
    around = [index for index in (best - beside, best + beside) if 0 <= index < len(correlations)]
    values = correlations[around]
    values = values[np.isfinite(values)]
    return float(correlations[best] - values.max()) if len(values) else 0.0


def _errors(
    images: ImageTurns, rates: Floats, other: Trajectory | TurnRates, delay_s: float
) -> tuple[float, float, float]:
    """Return the error of the delay by the Cramer-Rao bound, the gain, and the error of that.

    Inf where nothing varies.
    """
    seconds = ((images.end_ns - images.start_ns) / 1e9)[:, None]
    step = float(np.median(seconds)) / 2.0
    (here, a), (late, b), (early, c) = (
        turned_between(other, images, delay_s + shift) for shift in (0.0, step, -step)
    )
    known = a & b & c
    if known.sum() < _LEAST_SAMPLES:
        return float('inf'), float('nan'), float('inf')
    slopes = _smoothed(((late - early) / seconds)[known] / (2.0 * step))
    said = varying((here / seconds)[known])
    seen = varying(rates[known])
    power = max(float((said**2).sum()), 1e-12)
    gain = float((seen * said).sum()) / power
    rest = seen - gain * said
    steep = gain**2 * float((slopes**2).sum())
    variance = float((rest**2).sum()) / max(3 * len(rest) - 4, 1)
    # What is left over is no noise where it goes on from pair to pair: fewer independent samples.
    alike = float((rest[1:] * rest[:-1]).sum() / max((rest**2).sum(), 1e-12))
    alike = min(max(alike, 0.0), 0.98)
    variance *= (1.0 + alike) / (1.0 - alike)
    error_s = float(np.sqrt(variance / steep)) if steep > 0.0 else float('inf')
    return error_s, gain, float(np.sqrt(variance / power))
