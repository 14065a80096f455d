"""SQLite recordings row by row, past pages that are missing or damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from depth_node.recording.stored import Damage
from depth_node.recording.stored import StoredMessage

_ROWS = 'SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? ORDER BY id'
_LARGEST_SKIP = 1 << 22


def read_sqlite(path: Path, damage: Damage) -> Iterator[StoredMessage]:
    """Yield the messages of a file in the order in which they were written.

    Rows are found by their number and not by the index of times, which lies at the end of a file
    as much as at its front.

    :param damage: told what could not be read.
    """
    with path.open('rb') as file:
        if not file.read(16).startswith(b'SQLite format 3'):
            damage.stopped('no SQLite file')
            return
    # What was not yet written back lies in a second file, which 'immutable' would overlook.
    waiting = path.with_name(path.name + '-wal')
    mode = 'ro' if waiting.exists() and waiting.stat().st_size else 'ro&immutable=1'
    try:
        database = sqlite3.connect(f'{path.resolve().as_uri()}?mode={mode}', uri=True)
    except sqlite3.Error as error:
        damage.stopped(str(error))
        return
    try:
        # Without this SQLite refuses a file that is shorter than its header says.
        database.execute('PRAGMA writable_schema = ON')
        database.text_factory = lambda data: data.decode(errors='replace')
        yield from _rows(database, damage)
    except (sqlite3.Error, TypeError) as error:
        damage.stopped(str(error))
    finally:
        database.close()


def _rows(database: sqlite3.Connection, damage: Damage) -> Iterator[StoredMessage]:
    """Yield messages; where a row cannot be read, look for the next one that can."""
    topics = database.execute('SELECT id, name, type FROM topics')
    # A column holds values of any type, whatever it was declared as.
    names = {
        number: (name, kind)
        for number, name, kind in topics
        if isinstance(name, str) and isinstance(kind, str)
    }
    last, skip, lost = 0, 0, ''
    while skip <= _LARGEST_SKIP:
        try:
            for number, topic, time_ns, data in database.execute(_ROWS, (last + skip,)):
                if number <= last + skip:
                    # Of missing pages SQLite makes rows of zeros before it notices.
                    raise sqlite3.DatabaseError('rows that are not in order')
                if lost:
                    damage.holes, lost = damage.holes + 1, ''
                last, skip = number, 0
                if topic in names and isinstance(data, bytes) and isinstance(time_ns, int):
                    yield StoredMessage(*names[topic], time_ns, data)
                else:
                    damage.holes += 1
            break
        except (sqlite3.Error, OverflowError) as error:
            lost = str(error)
            skip = max(1, 2 * skip)
    if lost:
        damage.stopped(f'{lost} after message {last}')
