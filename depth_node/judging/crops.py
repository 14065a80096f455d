"""The parts of an image that papers on driving data compare, and the ranges of depth.

Both crops are shares of the image of the reference: that of Eigen et al. (NIPS 2014) as usually
coded, and that of R. Garg et al., "Unsupervised CNN for single view depth estimation" (ECCV 2016).
They leave out the sky and the bonnet of the car of KITTI; elsewhere they serve comparison only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import SettingsError
from depth_node.errors import quoted

RANGES_M = ((0.0, 2.0), (2.0, 5.0), (5.0, 10.0), (10.0, 20.0), (20.0, 80.0))
"""Ranges of true depth that are reported apart, metres; the nearer end belongs to a range."""

_CROPS = {
    'eigen': (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    'garg': (0.40810811, 0.99189189, 0.03594771, 0.96405229),
}
CROPS = tuple(_CROPS)


def cropped_truth(truth_m: NDArray[np.float32], crop: str) -> NDArray[np.float32]:
    """Return a reference that is NaN outside a crop.

    :param truth_m: (H, W) metres.
    :param crop: one of :data:`CROPS`, or '' for the whole image.
    :raises SettingsError: for an unknown crop.
    """
    if not crop:
        return truth_m
    if crop not in _CROPS:
        raise SettingsError('crop', quoted(crop), 'one of ' + ', '.join(CROPS))
    height, width = truth_m.shape
    top, bottom, left, right = _CROPS[crop]
    rows = slice(int(top * height), int(bottom * height))
    columns = slice(int(left * width), int(right * width))
    inside = np.full_like(truth_m, np.nan)
    inside[rows, columns] = truth_m[rows, columns]
    return inside


def range_name(limits_m: tuple[float, float]) -> str:
    """Return the name of the measure of a range, e.g. 'range.0-2m.abs_rel'."""
    return f'range.{limits_m[0]:g}-{limits_m[1]:g}m.abs_rel'


def range_errors(
    prediction_m: NDArray[np.floating[Any]], truth_m: NDArray[np.floating[Any]]
) -> dict[str, float]:
    """Return the Abs Rel of each range; NaN where it has no pixel.

    :param prediction_m: (N,) metres of the pixels that count.
    :param truth_m: (N,) their true depth, metres.
    """
    errors = np.abs(prediction_m - truth_m) / truth_m
    found = {}
    for near, far in RANGES_M:
        inside = (truth_m >= near) & (truth_m < far)
        found[range_name((near, far))] = float(errors[inside].mean()) if inside.any() else np.nan
    return found
