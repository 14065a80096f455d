"""Whether a new model may take the place of the old one: only when it is proven better.

The primary measure has to improve with its interval clear of zero, and nothing else that is
watched may become worse by more than a tenth.  In doubt the old model stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from depth_node.judging.bootstrap import SMALLEST_BLOCKS
from depth_node.judging.comparison import Change
from depth_node.judging.comparison import Comparison
from depth_node.judging.proxies import TRACKS

PRIMARY = ('metric.abs_rel', 'aligned.abs_rel', TRACKS)
"""The measure that decides: the first of these that could be taken."""

_GUARDS = ('metric.coverage', 'aligned.coverage')
_PROXY = 'proxy.'
_WORDS = {
    'metric.abs_rel': 'Abs Rel in metres against the reference',
    'aligned.abs_rel': 'Abs Rel after alignment to the reference',
    'metric.coverage': 'share of pixels with depth',
    TRACKS: 'Abs Rel at triangulated tracks',
    'proxy.photometric': 'photometric error under recorded poses',
    'proxy.consistency': 'inconsistency over time',
    'proxy.ground_height': 'error of the height above the ground',
}


class Outcome(IntEnum):
    """How fine-tuning ended; the values are exit codes."""

    IMPROVED = 0
    """The new model is better and becomes the result."""
    UNUSABLE = 2
    """The data do not allow any judgement."""
    NOT_IMPROVED = 3
    """The new model is not proven better; the old one stays."""


@dataclass(frozen=True)
class GateLimits:
    """What the gate asks for."""

    largest_worsening: float = 0.1
    """Share by which a watched measure may become worse."""
    smallest_blocks: int = SMALLEST_BLOCKS
    """Blocks of time below which no interval is believed."""


@dataclass(frozen=True)
class Verdict:
    """What the gate decided."""

    outcome: Outcome
    """Also the exit code."""
    primary: str
    """The measure that decided; empty where there was none."""
    reasons: tuple[str, ...]
    """Plain sentences, the deciding ones first."""

    @property
    def improved(self) -> bool:
        """Tell whether the new model may take the old one's place."""
        return self.outcome is Outcome.IMPROVED


DEFAULTS = GateLimits()


def gate(comparison: Comparison, limits: GateLimits = DEFAULTS) -> Verdict:
    """Decide whether the second model of a comparison is proven better than the first."""
    primary = next(
        (
            comparison.changes[name]
            for name in PRIMARY
            if name in comparison.changes and _measured(comparison.changes[name])
        ),
        None,
    )
    if primary is None:
        return Verdict(
            Outcome.UNUSABLE,
            '',
            (
                'Nothing tells how good the depth is: held-out time has neither reference depth '
                'nor triangulated tracks. Record odometry, or TF that moves the camera, while '
                'driving, or a topic of depth images beside the camera.',
            ),
        )
    against = [*_against_primary(primary, limits)]
    for name, change in comparison.changes.items():
        if name != primary.name and (name.startswith(_PROXY) or name in _GUARDS):
            against += _against_watched(change, limits)
    if against:
        return Verdict(Outcome.NOT_IMPROVED, primary.name, tuple(against))
    return Verdict(Outcome.IMPROVED, primary.name, (_praise(primary),))


def word_of(name: str) -> str:
    """Return what a measure is called in a sentence."""
    return _WORDS.get(name, name)


def _measured(change: Change) -> bool:
    """Tell whether the old model has a measure anywhere, with the new one beside it or alone."""
    return math.isfinite(change.before) or change.lost > 0


def _against_primary(change: Change, limits: GateLimits) -> list[str]:
    """Say why the primary measure does not prove an improvement; nothing where it does."""
    what, blocks = word_of(change.name), change.difference.blocks
    if not math.isfinite(change.after):
        return [f'The {what} of the new model could not be measured.']
    if change.lost:
        return [
            f'The new model gave no usable depth for {change.lost} images for which the old one '
            'did.'
        ]
    found = f'from {change.before:.4g} to {change.after:.4g}'
    if change.same:
        return [f'The {what} stayed the same, {change.after:.4g}.']
    if change.worsening > 0.0:
        return [f'The {what} became worse, {found}.']
    if blocks < limits.smallest_blocks:
        return [
            f'The {what} went {found}, but that proves nothing: held-out time has {blocks} of the '
            f'{limits.smallest_blocks} blocks of {change.difference.block_s:g} s that an interval '
            'needs. Record more.'
        ]
    if not change.better:
        return [
            f'The {what} went {found}, which may be chance: the 95 % interval of the difference, '
            f'{_interval(change)}, includes zero.'
        ]
    return []


def _against_watched(change: Change, limits: GateLimits) -> list[str]:
    """Say why a measure that is only watched forbids the new model; nothing where it does not."""
    if change.neutral:
        return []
    what = word_of(change.name)
    if change.lost:
        return [f'The {what} can no longer be measured at {change.lost} moments.']
    if math.isnan(change.worsening):
        return []
    if change.worsening > limits.largest_worsening:
        return [
            f'The {what} became worse by {100.0 * change.worsening:.0f} %, from '
            f'{change.before:.4g} to {change.after:.4g}; at most '
            f'{100.0 * limits.largest_worsening:.0f} % are allowed.'
        ]
    return []


def _praise(change: Change) -> str:
    return (
        f'The {word_of(change.name)} fell from {change.before:.4g} to {change.after:.4g} '
        f'({-100.0 * change.worsening:.0f} % less); the 95 % interval of the difference is '
        f'{_interval(change)}, over {change.difference.blocks} blocks of held-out time.'
    )


def _interval(change: Change) -> str:
    return f'{change.difference.low:.4g} to {change.difference.high:.4g}'
