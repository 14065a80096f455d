"""What a check reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import field


@dataclass(frozen=True)
class Figure:
    """One figure, what is asked of it, and what was reached."""

    what: str
    asked: str
    """E.g. '<= 0.03'."""
    reached: float
    kept: bool


@dataclass
class Row:
    """The outcome of one check."""

    name: str
    seconds: float = 0.0
    """Duration of the check."""
    figures: list[Figure] = field(default_factory=list)
    skipped: str = ''
    """Why nothing was checked, a sentence; empty: it was."""
    failed: str = ''
    """The error that ended the check; empty: none."""

    def at_most(self, what: str, reached: float, asked: float) -> None:
        """Note a figure that may not be larger."""
        self._add(what, f'<= {asked:g}', reached, reached <= asked)

    def at_least(self, what: str, reached: float, asked: float) -> None:
        """Note a figure that may not be smaller."""
        self._add(what, f'>= {asked:g}', reached, reached >= asked)

    def exactly(self, what: str, reached: float, asked: float) -> None:
        """Note a figure that must be one number."""
        self._add(what, f'= {asked:g}', reached, reached == asked)

    def told(self, what: str, reached: float) -> None:
        """Note a figure of which nothing is asked."""
        self._add(what, '', reached, True)

    def _add(self, what: str, asked: str, reached: float, kept: bool) -> None:
        self.figures.append(Figure(what, asked, float(reached), kept and not math.isnan(reached)))
