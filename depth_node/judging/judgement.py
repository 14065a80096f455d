"""What is known of one model after it was judged: named series of numbers over time.

A series has one number per judged moment of a recording; NaN is a moment at which there was
nothing to measure, which counts nowhere.  The name says how the model's depth was treated before
it was compared:

``metric.*``
    Depth as the node publishes it, in metres: no alignment.
``global.*``
    Times one factor per recording, the median over its frames of the median-scaling factor.
``median.*``
    Each frame times median(truth) / median(depth), as papers on self-supervision do.
``aligned.*``
    Relative inverse depth after a least-squares scale and shift per frame; of such models only.
``range.A-Bm.abs_rel``
    Unaligned Abs Rel of the pixels whose true depth lies in a range.
``proxy.*``
    What needs no reference; see :mod:`depth_node.judging.proxies`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import DepthNodeError
from depth_node.errors import quoted

FORMAT = 1
_LARGER_IS_BETTER = ('a1', 'a2', 'a3', 'coverage')
_NEUTRAL = ('scale',)


@dataclass(frozen=True, eq=False)
class Series:
    """One measure at the judged moments of one or several recordings."""

    recordings: tuple[str, ...]
    """Names of the recordings."""
    recording: NDArray[np.int64]
    """(N,) index into ``recordings``."""
    stamps_ns: NDArray[np.int64]
    """(N,) stamps of the images, nanoseconds."""
    values: NDArray[np.float64]
    """(N,) the measure; NaN where it could not be taken."""

    @property
    def mean(self) -> float:
        """Return the mean over the moments that count; NaN where there are none."""
        known = self.values[np.isfinite(self.values)]
        return float(known.mean()) if known.size else math.nan

    @property
    def median(self) -> float:
        """Return the median over the moments that count; NaN where there are none."""
        known = self.values[np.isfinite(self.values)]
        return float(np.median(known)) if known.size else math.nan

    @property
    def count(self) -> int:
        """Return how many moments count."""
        return int(np.count_nonzero(np.isfinite(self.values)))


@dataclass(frozen=True, eq=False)
class Constants:
    """What guesses that look at no pixel reach on the same truth; each knows the truth."""

    depth_m: float
    """The constant depth with the lowest mean Abs Rel, metres."""
    abs_rel: float
    """Its mean Abs Rel."""
    a1: float
    """Its mean share of pixels within a factor of 1.25."""
    median_abs_rel: float
    """Mean Abs Rel when each frame gets its own true median."""
    rows_abs_rel: float
    """Mean Abs Rel of the best constant per row of the image, over the whole recording."""
    rows_a1: float
    """The same rows' mean share of pixels within a factor of 1.25."""
    rows_scaled_abs_rel: float = math.nan
    """Mean Abs Rel of the best table of rows in units of each frame's own true median: the mark
    for median-scaled depth; NaN in judgements that are older than it."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """One model and what was measured of it."""

    name: str
    """Name of the model."""
    relative: bool
    """Whether it gives relative inverse depth; it is then never compared in metres."""
    series: Mapping[str, Series]
    """Name of a measure -> its numbers."""
    constants: Mapping[str, Constants] = field(default_factory=dict)
    """Recording -> what constants reach on it; empty without a reference."""
    sha256: str = ''
    """Of the model's card, which names the hashes of all other files; empty: unknown."""
    notes: tuple[str, ...] = ()
    """What the reader of the figures should know."""

    def mean(self, name: str) -> float:
        """Return the mean of a measure; NaN where it was not taken."""
        series = self.series.get(name)
        return math.nan if series is None else series.mean

    def to_json(self) -> dict[str, Any]:
        """Return a value that :func:`json.dumps` takes with ``allow_nan=False``."""
        return {
            'format': FORMAT,
            'name': self.name,
            'relative': self.relative,
            'sha256': self.sha256,
            'notes': list(self.notes),
            'constants': {
                recording: {key: _plain(value) for key, value in vars(constants).items()}
                for recording, constants in self.constants.items()
            },
            'means': {name: _plain(series.mean) for name, series in self.series.items()},
            'series': {
                name: {
                    'recordings': list(series.recordings),
                    'recording': series.recording.tolist(),
                    'stamps_ns': series.stamps_ns.tolist(),
                    'values': [_plain(value) for value in series.values.tolist()],
                }
                for name, series in self.series.items()
            },
        }

    @staticmethod
    def from_json(value: object) -> Judgement:
        """Read what :meth:`to_json` made.

        :raises DepthNodeError: for anything else.
        """
        try:
            return _from_json(value)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DepthNodeError(
                'judgement', quoted(f'{type(error).__name__}: {error}'), 'what a judgement wrote'
            ) from error


def larger_is_better(name: str) -> bool:
    """Tell whether a measure of this name grows with quality."""
    return name.rpartition('.')[2] in _LARGER_IS_BETTER


def is_neutral(name: str) -> bool:
    """Tell whether a measure of this name says nothing of quality by its size."""
    return name.rpartition('.')[2] in _NEUTRAL


def series_of(rows: list[tuple[str, int, float]]) -> Series:
    """Make a series of (recording, stamp in nanoseconds, value)."""
    names = tuple(dict.fromkeys(row[0] for row in rows))
    index = {name: place for place, name in enumerate(names)}
    return Series(
        recordings=names,
        recording=np.array([index[row[0]] for row in rows], np.int64),
        stamps_ns=np.array([row[1] for row in rows], np.int64),
        values=np.array([row[2] for row in rows], np.float64),
    )


def _from_json(value: Any) -> Judgement:
    if value['format'] != FORMAT:
        raise ValueError(f'format {value["format"]}')
    series = {
        str(name): Series(
            recordings=tuple(str(item) for item in entry['recordings']),
            recording=np.array(entry['recording'], np.int64).reshape(-1),
            stamps_ns=np.array(entry['stamps_ns'], np.int64).reshape(-1),
            values=np.array([_number(item) for item in entry['values']], np.float64),
        )
        for name, entry in value['series'].items()
    }
    for name, item in series.items():
        places = item.recording
        if not len(places) == len(item.stamps_ns) == len(item.values):
            raise ValueError(f'columns of different lengths in {name}')
        if places.size and not 0 <= places.min() <= places.max() < len(item.recordings):
            raise ValueError(f'a recording that {name} does not name')
    return Judgement(
        name=str(value['name']),
        relative=bool(value['relative']),
        series=series,
        constants={
            str(recording): Constants(**{key: _number(item) for key, item in entry.items()})
            for recording, entry in value['constants'].items()
        },
        sha256=str(value['sha256']),
        notes=tuple(str(note) for note in value['notes']),
    )


def _plain(value: float) -> float | None:
    """Replace a number that JSON does not know by None."""
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
