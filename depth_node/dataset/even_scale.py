"""The scale over the whole image and the whole time, and how sure it is.

Sparse metres lie where there is texture: counted point by point, near things with corners outvote
bare walls, and a model whose shape is not right gets the factor of the former.  Here every part of
the image has equal weight, as far as anything was measured there at all; and the interval is a
bootstrap over blocks of time, because what a model gets wrong in one view says little of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.frame_cache import FrameCache
from depth_node.dataset.pairs import PairPlan
from depth_node.dataset.scale import Predict
from depth_node.dataset.scale import tracked
from depth_node.dataset.scale import weighted_median
from depth_node.dataset.sparse_depth import SparseDepth

Floats = NDArray[np.float64]

CELLS = (4, 6)
"""Rows and columns of the parts of an image."""

_MOST_FRAMES = 64
_BLOCKS = 10
_FEWEST_BLOCKS = 5
_FEWEST_PER_CELL = 5
_LEAST_COVERED = 0.4
_LEAST_CHANGE = 0.005
_DRAWS = 1000
_SURE = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class CellRatios:
    """What one source says of a model in the parts of the images of one recording."""

    block: NDArray[np.int64]
    """(N,) piece of time, from 0."""
    cell: NDArray[np.int64]
    """(N,) part of the image, row by row."""
    log_ratio: Floats
    """(N,) logarithm of metres over what the model takes for metres, median in that part."""


@dataclass(frozen=True)
class EvenScale:
    """By what the depth of a model is wrong on the whole."""

    factor: float
    """Metres per what the model takes for a metre; NaN where there is too little to say."""
    low: float
    """Lower end of its interval of 95 %."""
    high: float
    """Upper end."""
    covered: float
    """Share of the image in which there are points enough, 0 to 1."""

    @property
    def significant(self) -> bool:
        """Tell whether the factor differs from 1 by more than chance and by more than nothing."""
        sure = bool(self.low > 1.0 or self.high < 1.0)
        return sure and abs(np.log(self.factor)) > _LEAST_CHANGE


def cell_ratios(cache: FrameCache, plan: PairPlan, predict: Predict, source: str) -> CellRatios:
    """Compare a model with one source, part by part of the images.

    :param plan: of the frames that may be looked at: not of those held out.
    :param source: kind and topic, as :class:`depth_node.dataset.scale.ScaleEstimate` names it.
    :raises RecordingError: when an image of the cache cannot be read.
    """
    targets = sorted(plan.targets)
    at = np.linspace(0, len(targets) - 1, min(_MOST_FRAMES, len(targets))).round().astype(int)
    found: list[tuple[int, int, float]] = []
    for order, index in enumerate(targets[k] for k in at):
        parts = [*cache.sparse_all(index), *tracked(cache, plan.targets[index])]
        same = [p for p in parts if f'{p.source.kind} {p.source.topic}' == source and len(p)]
        if same:
            predicted = predict(cache.rgb(index))
            block = order * _BLOCKS // len(at)
            found += [(block, *item) for part in same for item in _by_cell(part, predicted)]
    table = np.array(found, np.float64).reshape(-1, 3)
    return CellRatios(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2])


def even_scale(ratios: Sequence[CellRatios]) -> EvenScale:
    """Return the factor that all parts of the images agree on best.

    :param ratios: of each recording of one camera and one model.
    """
    cells = np.concatenate([item.cell for item in ratios]) if ratios else np.zeros(0, np.int64)
    count = np.bincount(cells, minlength=CELLS[0] * CELLS[1])
    known = count >= _FEWEST_PER_CELL
    covered = float(known.mean())
    # every part of the image weighs the same, however often something was measured there
    weights = np.where(known, 1.0 / np.maximum(count, 1), 0.0)
    blocks = [
        (item.log_ratio[item.block == k], weights[item.cell[item.block == k]])
        for item in ratios
        for k in np.unique(item.block)
    ]
    blocks = [(logs, heavy) for logs, heavy in blocks if heavy.any()]
    if covered < _LEAST_COVERED or len(blocks) < _FEWEST_BLOCKS:
        return EvenScale(np.nan, np.nan, np.nan, covered)
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(blocks), len(blocks)) for _ in range(_DRAWS)]
    low, high = np.quantile([_middle([blocks[k] for k in drawn]) for drawn in draws], _SURE)
    factor, low, high = np.exp([_middle(blocks), low, high])
    return EvenScale(float(factor), float(low), float(high), covered)


def _middle(blocks: Sequence[tuple[Floats, Floats]]) -> float:
    logs, weights = (np.concatenate([block[k] for block in blocks]) for k in (0, 1))
    return weighted_median(logs, weights)


def _by_cell(part: SparseDepth, predicted: NDArray[np.float32]) -> list[tuple[int, float]]:
    """Return part of the image and median logarithm of the ratio, for parts with points."""
    height, width = predicted.shape
    model = part.sampled(predicted).astype(np.float64)
    good = np.isfinite(model) & (model > 0.0)
    rows = np.clip((part.v + 0.5) * CELLS[0] / height, 0, CELLS[0] - 1).astype(np.int64)
    columns = np.clip((part.u + 0.5) * CELLS[1] / width, 0, CELLS[1] - 1).astype(np.int64)
    cells = (rows * CELLS[1] + columns)[good]
    logs = np.log(part.depth_m[good] / model[good])
    return [(int(cell), float(np.median(logs[cells == cell]))) for cell in np.unique(cells)]
