"""The folder of a fine-tuning run: one JSON record per stage, so that nothing is done twice.

A record says what a stage found and for what it was made (its key: recordings, settings, version).
A stage whose record has the same key is not run again; one whose key differs is, and with it all
that follow, because what they were made for has changed too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from depth_node.errors import DepthNodeError
from depth_node.errors import ModelError
from depth_node.files import sha256_of
from depth_node.files import sweep_orphans
from depth_node.files import write_text_atomically
from depth_node.model_folder import CARD_NAME
from depth_node.model_folder import read

STAGES = ('audit', 'cache', 'train', 'evaluate', 'report')
"""In the order in which they run; each is a verb of the command."""

_FORMAT = 1
_LOCK = '.lock'
_LARGEST_RECORD_BYTES = 256 << 20


def key_of(*parts: object) -> str:
    """Return a short name of everything that a stage depends on.

    :param parts: plain JSON values; the order of mappings does not matter.
    """
    text = json.dumps([_FORMAT, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class RunFolder:
    """Where a run keeps its records, its frames, its checkpoint and its models."""

    def __init__(self, root: Path, frames: Path | None = None, *, leads: bool = True) -> None:
        """Name the places; :meth:`locked` makes the folder.

        :param root: folder of the run, made when missing.
        :param frames: folder of frames that several runs share; None for one of its own.
        :param leads: False in a process that follows another one in the same folder: it reads
            records and writes none.
        """
        self.root = root
        self._frames = frames
        self._leads = leads
        self.removed_trainings: list[str] = []
        """Names of the states of older trainings that this process has removed."""

    @property
    def frames(self) -> Path:
        """Decoded and resized frames, a folder per recording; may be deleted after the run."""
        return self._frames or self.root / 'frames'

    @property
    def checkpoint(self) -> Path:
        """States of trainings, a folder of each; the current and the last one are kept."""
        return self.root / 'training'

    @contextmanager
    def training(self, key: str) -> Iterator[Path]:
        """Keep the state of one training for this process and those that train along.

        Of the others, the last one is kept, so that a run can go back to it; older ones are
        removed, unless a process holds them.

        :param key: see :func:`key_of`.
        :returns: the folder of its checkpoint.
        :raises DepthNodeError: when it cannot be made.
        """
        folder = self.checkpoint / key
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._refused('the folder of the training', error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
            if self._leads:
                self.removed_trainings += self._swept(folder)
            yield folder
        finally:
            os.close(handle)

    def _swept(self, current: Path) -> list[str]:
        """Remove all states but the current one and the last one before; return their names."""
        others = [path for path in self.checkpoint.iterdir() if path.is_dir() and path != current]
        others.sort(key=_last_written_ns)
        return [path.name for path in others[:-1] if _removed(path)]

    @property
    def candidate(self) -> Path:
        """Model folder of the fine-tuned network, before it is judged."""
        return self.root / 'candidate'

    @property
    def best(self) -> Path:
        """Model folder for the node: the candidate if it is better, else a copy of the start."""
        return self.root / 'best'

    @property
    def report(self) -> Path:
        """The report for people, HTML."""
        return self.root / 'report.html'

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder for this process.

        :raises DepthNodeError: when it cannot be made, or another process works in it.
        """
        if not self._leads:
            yield
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise DepthNodeError(
                f'run folder {self.root}',
                f'a folder that cannot be written to ({error.strerror})',
                'a writable folder',
                'Name another one with --out.',
            ) from error
        try:
            self._lock(handle)
            sweep_orphans(self.root)
            yield
        finally:
            os.close(handle)

    def record(self, stage: str, key: str) -> dict[str, Any] | None:
        """Return what a stage found earlier; None where it must run.

        :param key: see :func:`key_of`; a record of another key does not count.
        """
        record = self.latest(stage)
        return None if record is None or record.get('key') != key else record['result']

    def latest(self, stage: str) -> dict[str, Any] | None:
        """Return the whole record of a stage whatever its key; None where there is none."""
        path = self._record_path(stage)
        try:
            if path.stat().st_size > _LARGEST_RECORD_BYTES:
                return None
            record = json.loads(path.read_text())
        except (OSError, ValueError):
            return None  # a record that cannot be read only costs its stage
        good = isinstance(record, dict) and isinstance(record.get('result'), dict)
        return record if good else None

    def write(self, stage: str, key: str, result: dict[str, Any], took_s: float) -> None:
        """Keep what a stage found.

        :param result: plain JSON values; numbers that are not finite become null.
        :param took_s: its time, seconds.
        :raises DepthNodeError: when the disk refuses.
        """
        if not self._leads:
            return
        record = {'stage': stage, 'key': key, 'took_s': round(took_s, 3), 'result': result}
        text = json.dumps(_plain(record), indent=1, allow_nan=False)
        try:
            write_text_atomically(self._record_path(stage), text + '\n')
        except OSError as error:
            raise self._refused(f'the record of {stage}', error) from error

    def write_page(self, text: str) -> None:
        """Keep the report for people.

        :raises DepthNodeError: when the disk refuses.
        """
        try:
            write_text_atomically(self.report, text)
        except OSError as error:
            raise self._refused('the report', error) from error

    def _record_path(self, stage: str) -> Path:
        return self.root / f'{stage}.json'

    def _refused(self, what: str, error: OSError) -> DepthNodeError:
        return DepthNodeError(
            f'run folder {self.root}',
            f'a disk that refuses {what} ({error.strerror})',
            'room to write',
            'Make room and run the same command again: it goes on from here.',
        )

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DepthNodeError(
                f'run folder {self.root}',
                'a folder in which another process works',
                'one run at a time',
                'Wait for it, or name another folder with --out.',
            ) from error


def holds_model(folder: Path, card_sha256: str) -> bool:
    """Tell whether a folder holds a model, every byte of it as its card says.

    :param card_sha256: of the card; '' is that of no model.
    """
    card = folder / CARD_NAME
    try:
        if not card_sha256 or sha256_of(card) != card_sha256:
            return False
        read(folder)
    except (OSError, ModelError):
        return False
    return True


def _last_written_ns(folder: Path) -> int:
    """Return when something but the lock was last written; 0 where that cannot be read."""
    try:
        written = [path for path in folder.iterdir() if path.name != _LOCK]
        return max((path.stat().st_mtime_ns for path in written), default=0)
    except OSError:
        return 0


def _removed(folder: Path) -> bool:
    """Remove the state of a training that no process holds; tell whether it is gone."""
    try:
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except OSError:  # held, or the disk refuses: it only takes room
        return False
    finally:
        os.close(handle)
    return True


def _plain(value: Any) -> Any:
    """Return a value as strict JSON has it: no NaN, no infinity, text as keys."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
