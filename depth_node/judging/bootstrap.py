"""95 % intervals of means over time: block bootstrap, paired for a before and an after.

Neighbouring frames of a recording show nearly the same, so that n frames tell far less than n
independent ones would.  Whole blocks of time are therefore drawn with replacement (H. Künsch,
"The jackknife and the bootstrap for general stationary observations", Annals of Statistics 1989;
here with blocks that do not overlap).  With few blocks percentiles are too narrow; they are moved
outwards by the ratio of Student's t to the normal quantile and by sqrt(n / (n - 1)), the expanded
percentiles of T. Hesterberg, "What teachers should know about the bootstrap" (American
Statistician 2015), section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import SettingsError
from depth_node.judging.judgement import Series

SMALLEST_BLOCKS = 8
_NORMAL_QUANTILE = 1.959963984540054
_DRAWS_AT_ONCE = 256


@dataclass(frozen=True)
class BlockSettings:
    """How intervals are made."""

    block_s: float = 1.0
    """Shortest length of a block, seconds: longer than what one frame tells of the next.  A
    recording is cut into equal blocks of at least this length."""
    draws: int = 4000
    """How often the blocks are drawn."""
    seed: int = 0
    """Of the draws; the same seed gives the same interval."""


DEFAULTS = BlockSettings()


@dataclass(frozen=True)
class Interval:
    """A mean over time and where it lies with 95 % confidence."""

    value: float
    """The mean over all frames that count; NaN where there are none."""
    low: float
    """Lower end; NaN where there are fewer than two blocks."""
    high: float
    """Upper end; NaN where there are fewer than two blocks."""
    frames: int
    """Frames that count."""
    blocks: int
    """Blocks of time that they fall into."""
    block_s: float
    """Shortest length of a block, seconds."""

    @property
    def enough(self) -> bool:
        """Tell whether there are blocks enough for an interval to be believed."""
        return self.blocks >= SMALLEST_BLOCKS

    @property
    def remark(self) -> str:
        """Say what is wrong with the interval; empty where nothing is."""
        if self.enough:
            return ''
        blocks = '1 block' if self.blocks == 1 else f'{self.blocks} blocks'
        return f'only {blocks} of {self.block_s:g} s: an interval needs {SMALLEST_BLOCKS} or more'


@dataclass(frozen=True, eq=False)
class Paired:
    """The same moments of the same recordings, before and after."""

    blocks: NDArray[np.int64]
    """(N,) number of the block of time of each moment, from 0 without gaps."""
    before: NDArray[np.float64]
    """(N,) finite."""
    after: NDArray[np.float64]
    """(N,) finite."""


def interval_of(series: Series, settings: BlockSettings = DEFAULTS) -> Interval:
    """Return the mean of a series with its interval.

    :raises SettingsError: for a block length or a number of draws that is not positive.
    """
    known = np.isfinite(series.values)
    blocks = _blocks(series, known, settings)
    return _interval(blocks, series.values[known], settings)


def paired(before: Series, after: Series, settings: BlockSettings = DEFAULTS) -> Paired:
    """Return the moments at which both series have a number, in blocks of time.

    :raises SettingsError: for a block length or a number of draws that is not positive.
    """
    places = {key: place for place, key in enumerate(_keys(after))}
    matches = [(place, places.get(key, -1)) for place, key in enumerate(_keys(before))]
    first = np.array([a for a, b in matches if b >= 0], np.intp)
    second = np.array([b for _, b in matches if b >= 0], np.intp)
    known = np.isfinite(before.values[first]) & np.isfinite(after.values[second])
    first, second = first[known], second[known]
    chosen = np.zeros(len(before.values), np.bool_)
    chosen[first] = True
    # blocks come in the order of the series, and so do the matches
    return Paired(_blocks(before, chosen, settings), before.values[first], after.values[second])


def difference_of(pair: Paired, settings: BlockSettings = DEFAULTS) -> Interval:
    """Return the mean of after - before with its interval."""
    return _interval(pair.blocks, pair.after - pair.before, settings)


def change_of(pair: Paired, settings: BlockSettings = DEFAULTS) -> Interval:
    """Return mean(after) / mean(before) - 1 with its interval; NaN where mean(before) is 0."""
    count = int(pair.blocks.max()) + 1 if pair.blocks.size else 0
    sums = [np.bincount(pair.blocks, values, count) for values in (pair.before, pair.after)]
    value = _ratio(sums[1].sum(), sums[0].sum()) if count else math.nan
    drawn = []
    for weights in _drawn(count, settings):
        with np.errstate(divide='ignore', invalid='ignore'):
            drawn.append(weights @ sums[1] / (weights @ sums[0]) - 1.0)
    low, high = _ends(drawn, count)
    return Interval(value, low, high, pair.blocks.size, count, settings.block_s)


def _interval(
    blocks: NDArray[np.int64], values: NDArray[np.float64], settings: BlockSettings
) -> Interval:
    """Return the mean of finite values with its interval.

    :param blocks: (N,) number of the block of each value, from 0 without gaps.
    """
    count = int(blocks.max()) + 1 if blocks.size else 0
    sums, frames = np.bincount(blocks, values, count), np.bincount(blocks, minlength=count)
    drawn = [weights @ sums / (weights @ frames) for weights in _drawn(count, settings)]
    low, high = _ends(drawn, count)
    value = float(values.mean()) if values.size else math.nan
    return Interval(value, low, high, values.size, count, settings.block_s)


def _drawn(count: int, settings: BlockSettings) -> list[NDArray[np.int64]]:
    """Return how often each of ``count`` blocks is drawn, (draws, count) in portions."""
    if count < 2:
        return []
    rng = np.random.default_rng(settings.seed)
    shares = np.full(count, 1.0 / count)
    sizes = [_DRAWS_AT_ONCE] * (settings.draws // _DRAWS_AT_ONCE)
    sizes += [settings.draws % _DRAWS_AT_ONCE] if settings.draws % _DRAWS_AT_ONCE else []
    return [rng.multinomial(count, shares, size) for size in sizes]


def _ends(drawn: list[NDArray[np.float64]], count: int) -> tuple[float, float]:
    """Return the expanded percentiles of the drawn means."""
    if count < 2 or not drawn:
        return math.nan, math.nan
    tail = _normal_share(-math.sqrt(count / (count - 1.0)) * _t_quantile(count - 1))
    values = np.concatenate(drawn)
    if not np.isfinite(values).all():
        return math.nan, math.nan
    low, high = np.quantile(values, (tail, 1.0 - tail))
    return float(low), float(high)


def _t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t.

    Exact for 1 and 2; else the expansion of M. Abramowitz, I. Stegun, "Handbook of Mathematical
    Functions", 26.7.5, good to 0.5 % from 3 on.
    """
    if freedom <= 2:
        return (12.7062, 4.30265)[freedom - 1]
    z, n = _NORMAL_QUANTILE, float(freedom)
    terms = (
        (z**3 + z) / 4.0,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96.0,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384.0,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160.0,
    )
    return z + sum(term / n ** (power + 1) for power, term in enumerate(terms))


def _normal_share(quantile: float) -> float:
    """Return the share of a normal distribution below a quantile."""
    return 0.5 * math.erfc(-quantile / math.sqrt(2.0))


def _blocks(
    series: Series, chosen: NDArray[np.bool_], settings: BlockSettings
) -> NDArray[np.int64]:
    """Return the number of the block of time of each chosen moment, within its recording."""
    _check(settings)
    recording, stamps_ns = series.recording[chosen], series.stamps_ns[chosen]
    if not stamps_ns.size:
        return np.empty(0, np.int64)
    block = np.zeros_like(stamps_ns)
    for place in range(len(series.recordings)):
        of_it = recording == place
        since_s = (stamps_ns[of_it] - stamps_ns[of_it].min(initial=2**62)) / 1e9
        # to the end of the last frame
        span_s = float(since_s.max(initial=0.0)) * since_s.size / max(since_s.size - 1, 1)
        count = max(1, math.floor(span_s / settings.block_s + 0.01))
        # of equal length, so that no block is a rest of a few frames
        block[of_it] = np.minimum(since_s * count / max(span_s, 1e-9), count - 1)
    pairs = np.stack([recording, block], axis=1)
    numbers: NDArray[np.int64] = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    return numbers


def _keys(series: Series) -> list[tuple[str, int]]:
    names = series.recordings
    return [
        (names[place], stamp)
        for place, stamp in zip(series.recording.tolist(), series.stamps_ns.tolist(), strict=True)
    ]


def _ratio(after: float, before: float) -> float:
    return float(after / before - 1.0) if before else math.nan


def _check(settings: BlockSettings) -> None:
    if not (math.isfinite(settings.block_s) and settings.block_s >= 1e-3):
        raise SettingsError('block length', f'{settings.block_s} s', '0.001 s or more')
    if settings.draws < 1:
        raise SettingsError('bootstrap', f'{settings.draws} draws', '1 or more')
