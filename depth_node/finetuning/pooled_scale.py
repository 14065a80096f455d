"""One scale for all takes: what every camera says of it, pooled, and cameras that contradict.

A model has one factor, with the focal length of each camera divided out, so cameras whose
camera_info is right say the same of it, but for what the model does better in one place than in
another.  A wrong focal length shows as a factor of its own; the scale alone cannot tell the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from depth_node.dataset.scale import RANKING
from depth_node.dataset.scale import ScaleEstimate

APART = 0.15
"""Share by which a take may differ from the pooled factor before it is told."""


def pooled(found: Sequence[Sequence[ScaleEstimate]]) -> tuple[ScaleEstimate, ...]:
    """Return one estimate per kind over all takes, in the order of ``RANKING``.

    The median over the takes of those that are usable, weighted with their frames, between two of
    them in proportion; so two equal cameras meet in the middle and one odd one of many has no say.

    :param found: of every take.
    """
    if len(found) == 1:
        return tuple(found[0])
    kinds = [kind for kind in RANKING if any(item.kind == kind for one in found for item in one)]
    return tuple(
        _pooled([item for one in found for item in one if item.kind == kind]) for kind in kinds
    )


def contradictions(found: Mapping[str, Sequence[ScaleEstimate]]) -> list[str]:
    """Say which takes want another factor than all together, by more than :data:`APART`.

    Compared by the best kind of source that two of them have.

    :param found: name of a take -> its estimates.
    """
    for kind in RANKING:
        known = {
            name: item
            for name, estimates in found.items()
            for item in estimates
            if item.kind == kind and item.usable
        }
        if len(known) < 2:
            continue
        common = _pooled(list(known.values())).scale
        apart = {name: item.scale / common for name, item in known.items()}
        odd = [name for name, ratio in apart.items() if abs(np.log(ratio)) > np.log1p(APART)]
        return [
            f'By {kind}, {name} wants the scale {known[name].scale:.3g}, '
            f'{100 * (apart[name] - 1):+.0f} % from the {common:.3g} of all, and one factor '
            'serves every camera: the model errs otherwise there, or the camera_info of that '
            'camera is wrong, its focal length in the first place, or its mounting.'
            for name in odd
        ]
    return []


def _pooled(same: Sequence[ScaleEstimate]) -> ScaleEstimate:
    """Return one estimate of those of one kind."""
    usable = [item for item in same if item.usable] or list(same)
    if len(usable) == 1:
        return usable[0]
    order = sorted(usable, key=lambda item: item.scale)
    weights = np.array([max(item.frames, 1) for item in order], np.float64)
    places = (np.cumsum(weights) - weights / 2) / weights.sum()
    logs = np.log([item.scale for item in order])
    scale = float(np.exp(np.interp(0.5, places, logs)))
    within = float(np.median([item.spread for item in order]))
    between = float(np.median(np.abs(np.expm1(logs - np.log(scale)))))
    topics = dict.fromkeys(item.source.partition(' ')[2] for item in order)
    slopes = [item.slope for item in order if np.isfinite(item.slope)]
    return ScaleEstimate(
        source=f'{order[0].kind} {", ".join(topics)}',
        scale=scale,
        spread=max(within, between),
        samples=sum(item.samples for item in order),
        slope=float(np.median(slopes)) if slopes else float('nan'),
        usable=order[0].usable,
        remark='' if order[0].usable else order[0].remark,
        frames=sum(item.frames for item in order),
    )
