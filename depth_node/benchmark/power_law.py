"""What a curve of a training promises: error = a n^b, with its spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_FEWEST = 5
_NORMAL = 1.96


@dataclass(frozen=True)
class PowerLaw:
    """A straight line through (log n, log error) by least squares."""

    points: int
    """Points that were fitted."""
    independent: float
    """Points that they are worth: neighbours on a curve of one training resemble each other, by
    the correlation of one residual with the next."""
    exponent: float
    """b; below 0 where more samples help."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of its 95 % interval."""
    scatter: float
    """Standard deviation of log error about the line."""
    mean_log: float
    """Mean of log n."""
    spread_log: float
    """Standard deviation of log n."""
    middle: float
    """Log error of the line at ``mean_log``."""

    def at(self, count: float) -> tuple[float, float, float]:
        """Return the error at ``count`` samples, and the ends of its 95 % interval."""
        away = math.log(count) - self.mean_log
        value = self.middle + self.exponent * away
        share = 1.0 / self.independent
        spread = self.scatter * math.sqrt(
            1.0 + share + share * (away / max(self.spread_log, 1e-9)) ** 2
        )
        reach = _NORMAL * spread
        return math.exp(value), math.exp(value - reach), math.exp(value + reach)


def fitted(curve: Sequence[tuple[float, float]], skipped: float = 0.05) -> PowerLaw | None:
    """Fit a curve; None where fewer than five of its points can be used.

    :param curve: (samples seen, error); what is not finite and positive is left out.
    :param skipped: points before this share of the samples are left out: a network that still
        wakes up follows no law.
    """
    known = [(n, e) for n, e in curve if math.isfinite(n) and math.isfinite(e) and min(n, e) > 0]
    most = max((n for n, _ in known), default=0.0)
    used = np.log([point for point in known if point[0] >= skipped * most])
    if len(used) < _FEWEST or np.ptp(used[:, 0]) <= 0.0:
        return None
    x, y = used[:, 0] - used[:, 0].mean(), used[:, 1] - used[:, 1].mean()
    exponent = float(x @ y / (x @ x))
    residuals = y - exponent * x
    scatter = math.sqrt(float(residuals @ residuals) / (len(used) - 2))
    power = float(residuals @ residuals)
    repeat = float(residuals[1:] @ residuals[:-1]) / power if power > 0.0 else 0.0
    repeat = min(max(repeat, 0.0), 0.9)
    independent = max(3.0, len(used) * (1.0 - repeat) / (1.0 + repeat))
    spread_log = float(np.std(used[:, 0]))
    reach = _NORMAL * scatter / (math.sqrt(independent) * spread_log)
    return PowerLaw(
        points=len(used),
        independent=independent,
        exponent=exponent,
        low=exponent - reach,
        high=exponent + reach,
        scatter=scatter,
        mean_log=float(used[:, 0].mean()),
        spread_log=spread_log,
        middle=float(used[:, 1].mean()),
    )
