"""What a check reports, and what it reads of its process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import numpy as np

MIB = 1 << 20
_FEWEST = 8
_PAGE = os.sysconf('SC_PAGE_SIZE')


@dataclass
class Row:
    """The outcome of one check."""

    name: str
    seconds: float = 0.0
    """Duration of the check."""
    figures: dict[str, float | int | str | dict[str, int]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """A sentence for each promise that did not hold."""

    def require(self, kept: bool, sentence: str) -> None:
        """Note a broken promise."""
        if not kept:
            self.broken.append(sentence)


def rss_bytes(pid: int | str = 'self') -> int:
    """Return the resident memory of a process."""
    return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * _PAGE


def thread_count() -> int:
    return len(os.listdir('/proc/self/task'))


def descriptor_count() -> int:
    return len(os.listdir('/proc/self/fd'))


def growth(samples: list[tuple[int, int]], per: int, warm_share: float = 0.25) -> float:
    """Return by how much a measure grows per so many rounds, after warming up.

    The median of the last quarter is compared with that of the first quarter after the warm-up:
    a single sample may lie high for a moment, and a line would be bent by it.

    :param samples: round number and value, in rising order; of less than 8 nothing is said.
    :param warm_share: share of the samples that is left out at the beginning.
    """
    if len(samples) < _FEWEST:
        return 0.0
    warm = samples[int(len(samples) * warm_share) :]
    quarter = max(1, len(warm) // 4)
    first, last = np.array(warm[:quarter], float), np.array(warm[-quarter:], float)
    rounds = float(np.median(last[:, 0]) - np.median(first[:, 0]))
    return float(np.median(last[:, 1]) - np.median(first[:, 1])) / max(rounds, 1.0) * per
