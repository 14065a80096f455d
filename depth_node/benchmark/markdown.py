"""Tables in Markdown and on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table; text in cells cannot break out of them."""
    yield f'| {" | ".join(head)} |'
    yield '|---' * len(head) + '|'
    for row in rows:
        yield f'| {" | ".join(_cell(text) for text in row)} |'


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table for a terminal; a row may be shorter than the head.

    The last cell of a short row is a sentence, to which no column is fitted.
    """
    whole = [row for row in rows if len(row) == len(head)]
    named = [row[:-1] for row in rows if len(row) < len(head)]
    widths = [
        max(len(row[index]) for row in (head, *whole, *(n for n in named if len(n) > index)))
        for index in range(len(head))
    ]
    for row in (head, *rows):
        cells = [f'{text:{width}}' for text, width in zip(row, widths, strict=False)]
        yield '  '.join(cells).rstrip()


def _cell(text: str) -> str:
    return ' '.join(text.replace('|', '\\|').split())
