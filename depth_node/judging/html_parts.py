"""Parts of a page: every text is escaped here, so that the report cannot forget it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from html import escape
from typing import Any

_LONGEST_TEXT = 2000
_MOST_ITEMS = 40
_DEEPEST = 6
_STYLE = """
:root { color-scheme: light dark; --line: #d9dde3; --soft: #f5f6f8; --dim: #5c6670;
  --good: #14713f; --good-soft: #e3f4ea; --bad: #a3291b; --bad-soft: #fbe9e7; }
@media (prefers-color-scheme: dark) { :root { --line: #3a4149; --soft: #22272d; --dim: #a3adb8;
  --good: #6fd19b; --good-soft: #16351f; --bad: #ff9b8c; --bad-soft: #43201b; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1180px;
  padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 16px; } h2 { font-size: 19px; margin: 40px 0 12px; }
h3 { font-size: 14px; margin: 20px 0 8px; color: var(--dim); font-weight: 600; }
table { border-collapse: collapse; margin: 0 0 20px; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { text-align: left; padding: 4px 18px 4px 8px; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; } tr.heading td { color: var(--dim); font-weight: 600; padding-top: 16px; }
tr.good td:last-child { color: var(--good); } tr.bad td:last-child { color: var(--bad); }
.mono td:last-child, pre { font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: 12px 14px; border-radius: 8px; white-space: pre-wrap; }
.banner { border-radius: 10px; padding: 14px 18px; border-left: 6px solid; }
.banner strong { font-size: 18px; } .banner p { margin: 6px 0 0; }
.banner.good { background: var(--good-soft); border-color: var(--good); }
.banner.bad { background: var(--bad-soft); border-color: var(--bad); }
.cards { display: flex; flex-wrap: wrap; gap: 14px; margin: 18px 0 0; }
.card { background: var(--soft); border-radius: 10px; padding: 12px 18px; min-width: 230px; }
.card b { display: block; font-size: 28px; line-height: 1.3; }
.card.good b { color: var(--good); } .card.bad b { color: var(--bad); }
.card span, figcaption, .note { color: var(--dim); font-size: 13px; }
.gallery { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; }
figure { margin: 0; } figure img { width: 100%; display: block; border-radius: 4px; }
figure.plot { background: #fff; border-radius: 8px; padding: 8px; margin: 0 0 16px; }
figure.plot svg { max-width: 100%; height: auto; display: block; }
details { margin: 0 0 8px; } summary { cursor: pointer; font-weight: 600; padding: 4px 0; }
td table { margin: 0; } ul { margin: 0 0 16px; padding-left: 20px; }
@media (max-width: 760px) { .gallery { grid-template-columns: repeat(2, 1fr); } }
"""


def document(title: str, sections: Sequence[str]) -> str:
    """Return a page that loads nothing and runs nothing.

    :param sections: HTML.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        f'<h1>{text(title)}</h1>\n' + '\n'.join(part for part in sections if part) + '\n</body>\n'
        '</html>\n'
    )


def text(value: object) -> str:
    """Return anything as escaped text, cut to 2000 characters."""
    words = str(value)
    if len(words) > _LONGEST_TEXT:
        words = words[: _LONGEST_TEXT - 3] + '...'
    return escape(words)


def section(title: str, body: str) -> str:
    """Return a section; nothing where its body is empty.

    :param body: HTML.
    """
    return f'<h2>{text(title)}</h2>\n{body}' if body else ''


def banner(kind: str, sentence: str, reasons: Sequence[str]) -> str:
    """Return the verdict.

    :param kind: 'good' or 'bad'.
    """
    below = ''.join(f'<p>{text(reason)}</p>' for reason in reasons)
    return f'<div class="banner {kind}"><strong>{text(sentence)}</strong>{below}</div>'


def cards(items: Sequence[tuple[str, str, str, str]]) -> str:
    """Return large figures: (label, figure, words below, 'good', 'bad' or '')."""
    body = ''.join(
        f'<div class="card {kind}"><span>{text(label)}</span><b>{text(figure)}</b>'
        f'<span>{text(words)}</span></div>'
        for label, figure, words, kind in items
    )
    return f'<div class="cards">{body}</div>' if body else ''


def table(heads: Sequence[str], rows: Sequence[str], mono: bool = False) -> str:
    """Return a table.

    :param rows: HTML of :func:`row`.
    :param mono: whether the last column is set in one width.
    """
    head = ''.join(f'<th>{text(cell)}</th>' for cell in heads)
    kind = ' class="mono"' if mono else ''
    return (
        f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table></div>'
    )


def row(cells: Sequence[str], kind: str = '') -> str:
    """Return a row of a table; ``kind`` is 'good', 'bad' or ''."""
    body = ''.join(f'<td>{text(cell)}</td>' for cell in cells)
    return f'<tr class="{kind}">{body}</tr>' if kind else f'<tr>{body}</tr>'


def heading_row(label: str, columns: int) -> str:
    """Return a row that begins a group."""
    return f'<tr class="heading"><td colspan="{columns}">{text(label)}</td></tr>'


def gallery(caption: str, tiles: Sequence[tuple[str, str]]) -> str:
    """Return pictures side by side: (data URI, caption)."""
    body = ''.join(
        f'<figure><img src="{escape(uri)}" alt="{text(words)}">'
        f'<figcaption>{text(words)}</figcaption></figure>'
        for uri, words in tiles
    )
    return f'<h3>{text(caption)}</h3><div class="gallery">{body}</div>'


def svg(document: str) -> str:
    """Return a plot of depth_node/svg.py, which escapes its own texts."""
    return f'<figure class="plot">{document}</figure>'


def listed(items: Sequence[str]) -> str:
    """Return a list; nothing where it is empty."""
    body = ''.join(f'<li>{text(item)}</li>' for item in items)
    return f'<ul class="note">{body}</ul>' if body else ''


def code(words: str) -> str:
    """Return a command as it was typed."""
    return f'<pre>{text(words)}</pre>'


def folded(title: str, body: str) -> str:
    """Return what opens on a click.

    :param body: HTML.
    """
    return f'<details><summary>{text(title)}</summary>{body}</details>'


def nested(value: Any, depth: int = 0) -> str:
    """Return a JSON value as tables within tables; what is long or deep is cut."""
    if depth >= _DEEPEST:
        return '...'
    if isinstance(value, Mapping):
        kept = list(value.items())[:_MOST_ITEMS]
        pairs = [(text(str(key).replace('_', ' ')), nested(item, depth + 1)) for key, item in kept]
        body = ''.join(f'<tr><td>{key}</td><td>{item}</td></tr>' for key, item in pairs)
        return f'<table>{body}</table>'
    if isinstance(value, (list, tuple)):
        items = [nested(item, depth + 1) for item in value[:_MOST_ITEMS]]
        items += [f'... {len(value) - _MOST_ITEMS} more'] if len(value) > _MOST_ITEMS else []
        plain = not any(isinstance(item, (Mapping, list, tuple)) for item in value)
        return (', ' if plain and _short(value) else '<br>').join(items)
    if value is None:
        return '-'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return text(f'{value:.6g}' if isinstance(value, float) else value)


def _short(value: Sequence[Any]) -> bool:
    """Tell whether the items are numbers or words and not sentences."""
    return all(len(str(item)) < 40 for item in value)
