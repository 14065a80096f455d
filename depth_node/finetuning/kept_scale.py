"""Metres after a training: a factor in closed form on the depth of the trained network.

Images without poses fix depth and motion but for a common factor, which drifts while both are
learned.  A sensor that knows metres gives it back; where there is none, the start model does,
whose metres are then as good as they were.

Recorded poses hold the factor while the network learns.  It is measured again, on the time that
was learned from, evenly over the image, and applied where it differs from 1 by more than chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from depth_node.dataset.even_scale import cell_ratios
from depth_node.dataset.even_scale import even_scale
from depth_node.dataset.scale import chosen_scale
from depth_node.dataset.scale import estimate_scales
from depth_node.finetuning.pooled_scale import pooled
from depth_node.finetuning.preparation import Preparation
from depth_node.finetuning.start_model import StartModel
from depth_node.finetuning.start_model import depth_m_by
from depth_node.networks.depth_network import DepthNetwork

START_MODEL = 'start model'

_LOOKED_AT = 40


@dataclass(frozen=True)
class KeptScale:
    """A factor on the depth of a fine-tuned network."""

    factor: float = 1.0
    """To be multiplied with its depth."""
    source: str = ''
    """What says so: a source of metres, 'start model', or '' where nothing was to be mended."""
    measured: float = math.nan
    """Factor that was measured evenly over the image, applied or not; NaN where it was not."""
    low: float = math.nan
    """Lower end of its interval of 95 %."""
    high: float = math.nan
    """Upper end."""

    def told(self) -> str:
        """Return a sentence about it; '' where nothing was measured."""
        if not math.isfinite(self.measured):
            return ''
        done = 'applied' if self.factor != 1.0 else 'as good as 1, left as it is'
        return (
            f'scale after training by {self.source}: {self.measured:.3f} '
            f'({self.low:.3f} to {self.high:.3f}), {done}'
        )


def settled_scale(start: StartModel, network: DepthNetwork, preparation: Preparation) -> KeptScale:
    """Return what makes the depth of a network right on the whole that learned with poses.

    :param network: see :func:`kept_scale`.
    :raises RecordingError: when an image of a cache cannot be read.
    """
    if preparation.chosen is None:
        return KeptScale()
    meaning, source = start.meaning(preparation.scale), preparation.chosen.source
    found = even_scale(
        [
            cell_ratios(
                item.cache, item.plan, depth_m_by(network, meaning, item.cache.camera), source
            )
            for item in preparation.recordings
        ]
    )
    factor = found.factor if found.significant else 1.0
    return KeptScale(factor, source, found.factor, found.low, found.high)


def kept_scale(start: StartModel, network: DepthNetwork, preparation: Preparation) -> KeptScale:
    """Return what brings a fine-tuned network back to metres.

    :param network: in evaluation mode; its output means what that of the start model does, times
        ``preparation.scale``.
    :raises RecordingError: when an image of a cache cannot be read.
    """
    meaning = start.meaning(preparation.scale)
    if preparation.chosen is not None:
        estimates = pooled(
            [
                estimate_scales(
                    item.cache, item.plan, depth_m_by(network, meaning, item.cache.camera)
                )
                for item in preparation.recordings
            ]
        )
        same = [item for item in estimates if item.kind == preparation.chosen.kind]
        chosen = chosen_scale(same)
        if chosen is not None:
            return KeptScale(chosen.scale, chosen.source)
    ratios = []
    for item in preparation.recordings:
        before = start.depth_m(item.cache.camera, preparation.scale)
        after = depth_m_by(network, meaning, item.cache.camera)
        targets, seen = sorted(item.plan.targets), item.cache.seen
        at = np.linspace(0, len(targets) - 1, min(_LOOKED_AT, len(targets))).round().astype(int)
        for index in {targets[k] for k in at}:
            rgb = item.cache.rgb(index)
            ratios.append(float(np.median((before(rgb) / after(rgb))[seen])))
    return KeptScale(float(np.median(ratios)), START_MODEL) if ratios else KeptScale()
