"""Two models on the same moments: what changed, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from depth_node.errors import DepthNodeError
from depth_node.judging.bootstrap import DEFAULTS
from depth_node.judging.bootstrap import BlockSettings
from depth_node.judging.bootstrap import Interval
from depth_node.judging.bootstrap import change_of
from depth_node.judging.bootstrap import difference_of
from depth_node.judging.bootstrap import paired
from depth_node.judging.judgement import Judgement
from depth_node.judging.judgement import is_neutral
from depth_node.judging.judgement import larger_is_better
from depth_node.judging.judgement import series_of

ROUNDING = 1e-4
"""Changes by less than this share of the size before are taken for none."""


@dataclass(frozen=True)
class Change:
    """One measure before and after, over the moments at which both have it."""

    name: str
    """Of the measure."""
    before: float
    """Its mean; NaN where no moment has both."""
    after: float
    """Its mean; NaN where no moment has both."""
    difference: Interval
    """Of after - before, paired."""
    relative: Interval
    """Of mean(after) / mean(before) - 1, paired."""
    larger_is_better: bool
    """Whether the measure grows with quality."""
    neutral: bool
    """Whether its size says nothing of quality."""
    lost: int
    """Moments at which the first model has the measure and the second has not."""

    @property
    def better(self) -> bool:
        """Tell whether it improved with its interval clear of zero; False for NaN."""
        if self.neutral or self.same:
            return False
        return self.difference.low > 0 if self.larger_is_better else self.difference.high < 0

    @property
    def worse(self) -> bool:
        """Tell whether it became worse with its interval clear of zero; False for NaN."""
        if self.neutral or self.same:
            return False
        return self.difference.high < 0 if self.larger_is_better else self.difference.low > 0

    @property
    def same(self) -> bool:
        """Tell whether it changed by no more than rounding; False for NaN."""
        return abs(self.after - self.before) <= ROUNDING * abs(self.before)

    @property
    def worsening(self) -> float:
        """Return by which share of its size before it is worse; negative where it is better.

        NaN where it was not measured, +Inf where 0 became worse.
        """
        if not (math.isfinite(self.before) and math.isfinite(self.after)):
            return math.nan
        step = self.before - self.after if self.larger_is_better else self.after - self.before
        if self.before == 0.0:
            return 0.0 if step == 0.0 else math.copysign(math.inf, step)
        return step / abs(self.before)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A model and the one that may take its place."""

    before: str
    """Name of the first model."""
    after: str
    """Name of the second model."""
    changes: Mapping[str, Change]
    """Name of a measure -> what became of it; measures of the first model, lost ones included."""

    def to_json(self) -> dict[str, Any]:
        """Return a value that :func:`json.dumps` takes with ``allow_nan=False``."""
        return {
            'before': self.before,
            'after': self.after,
            'changes': {name: _plain(change) for name, change in self.changes.items()},
        }


def compare(before: Judgement, after: Judgement, settings: BlockSettings = DEFAULTS) -> Comparison:
    """Compare every measure that the first model has, moment by moment.

    :raises DepthNodeError: when one model gives metres and the other relative inverse depth.
    """
    if before.relative != after.relative:
        names = [item.name for item in (before, after) if item.relative]
        raise DepthNodeError(
            'comparison',
            f'{names[0]}, which gives relative inverse depth, beside a metric model',
            'two models of the same kind',
            'Figures after an alignment to the reference flatter; judge the two apart.',
        )
    changes = {}
    for name, series in before.series.items():
        # what the second model could nowhere be measured by has no series, and is lost everywhere
        pair = paired(series, after.series.get(name, series_of([])), settings)
        changes[name] = Change(
            name=name,
            before=float(pair.before.mean()) if pair.before.size else math.nan,
            after=float(pair.after.mean()) if pair.after.size else math.nan,
            difference=difference_of(pair, settings),
            relative=change_of(pair, settings),
            larger_is_better=larger_is_better(name),
            neutral=is_neutral(name),
            lost=series.count - pair.before.size,
        )
    return Comparison(before.name, after.name, changes)


def _plain(change: Change) -> dict[str, Any]:
    return {
        'before': _finite(change.before),
        'after': _finite(change.after),
        'difference': [_finite(change.difference.low), _finite(change.difference.high)],
        'relative': _finite(change.relative.value),
        'relative_interval': [_finite(change.relative.low), _finite(change.relative.high)],
        'frames': change.difference.frames,
        'blocks': change.difference.blocks,
        'lost': change.lost,
        'better': change.better,
        'worse': change.worse,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
