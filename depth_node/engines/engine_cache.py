"""Keeps what an engine library has built for this machine, so that it is built once.

A built plan is a program: whoever can write to the cache can run code in the node.  So the folder
belongs to this user alone, and every byte is checked against a description beside it *before* a
library sees it.  That finds damage, power cuts and plans of another model, GPU, driver or library
version; it does not stop a hostile process of the same user.

Whatever is wrong with the folder or the disk, the engine works: it is then built at every start,
and a note says why.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import mmap
import os
import re
import shutil
import stat
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from dataclasses import asdict
from dataclasses import dataclass
from datetime import datetime
from datetime import timezone
from pathlib import Path
from typing import Any
from typing import ClassVar
from typing import TypeVar
from typing import Union

from depth_node import __version__
from depth_node import files
from depth_node.errors import DepthNodeError
from depth_node.errors import EngineError

FORMAT = 1
"""Part of every key: entries of an older layout are not found, and pruned one day."""
LARGEST_CACHE_BYTES = 2 << 30
"""Above this, old entries are removed."""

_LOG = logging.getLogger(__name__)
_LARGEST_ENTRY_BYTES = 16 << 30
_LARGEST_DESCRIPTION_BYTES = 64 << 10
_KINDS = ('plan', 'timing')
_NAME = re.compile(r'^([0-9a-f]{64})\.(plan|timing|json|lock)$')
_ORPHAN_AGE_S = 3600.0
# The largest plans take minutes on the slowest boards; a lock held longer is held by a hung node.
_LONGEST_WAIT_S = 1800.0
_POLL_S = 0.1
_REPORT_S = 10.0
_OTHERS_MAY_WRITE = 0o022


@dataclass(frozen=True)
class DeviceKey:
    """The library and the device that built code and measured timings belong to."""

    library: str
    """'tensorrt', 'tensorrt_rtx' or 'openvino'."""
    library_version: str
    library_build: str
    """File name and size of the native library: builds for two CUDA versions share a number."""
    cuda: str
    """CUDA version of the driver, e.g. '13.0'; empty where the plan does not depend on it."""
    gpu: str
    """Name of the GPU, or the processor; empty where the plan runs on all of this capability."""
    compute_capability: str
    """E.g. '8.7'; of a processor the kinds of arithmetic that it has instructions for."""
    sm_count: int
    """Number of multiprocessors, or cores; 0 where the plan does not depend on it."""
    platform: str
    """Operating system and processor architecture, e.g. 'linux x86_64'."""


@dataclass(frozen=True)
class PlanKey:
    """Everything that a plan depends on."""

    kind: ClassVar[str] = 'plan'
    device: DeviceKey
    graph_sha256: str
    """Of the ONNX file."""
    data_sha256: tuple[str, ...]
    """Of the files in which the graph keeps its weights, in the order of their names."""
    input_shape: tuple[int, int, int, int]
    precision: str
    options: tuple[str, ...]
    """What the builder was told besides."""


@dataclass(frozen=True)
class TimingKey:
    """Everything that the measured run times of single kernels depend on."""

    kind: ClassVar[str] = 'timing'
    device: DeviceKey


Key = Union[PlanKey, TimingKey]
_Content = TypeVar('_Content', bytes, mmap.mmap)


@dataclass(frozen=True)
class Loaded:
    """A plan, where it comes from, and what was to be said about the cache."""

    plan: bytes
    origin: str
    """'cache' or 'built'."""
    notes: tuple[str, ...] = ()
    """Sentences for the log: damaged entries, and why nothing could be kept."""


class EngineCache:
    """Entries in one folder: the built bytes, and beside them a description that is readable.

    :param folder: an existing folder that only this user can write to; None: nothing is kept.
    :param limit_bytes: size above which old entries are removed.
    :param notes: why there is no folder.
    """

    def __init__(
        self,
        folder: Path | None,
        limit_bytes: int = LARGEST_CACHE_BYTES,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.notes = notes
        self._limit_bytes = limit_bytes

    @classmethod
    def of_user(cls, limit_bytes: int = LARGEST_CACHE_BYTES) -> EngineCache:
        """Open ``$XDG_CACHE_HOME/depth_node/engines``; where it is unsafe, a cache of nothing."""
        try:
            return cls(_private(files.cache_folder('engines')), limit_bytes)
        # RuntimeError: a user without a home folder
        except (DepthNodeError, OSError, RuntimeError) as error:
            return cls(None, notes=(f'Engines are built at every start: {error}',))

    def get_or_build(self, key: PlanKey, build: Callable[[], bytes]) -> Loaded:
        """Return the plan of ``key``; build and keep it when there is no sound one.

        Of several nodes that start together, one builds and the others wait for it.

        :param build: makes the plan; what it raises is passed on.
        """
        notes = list(self.notes)
        with self._locked(key, notes):
            plan, reason = self.load(key)
            if plan is not None:
                return Loaded(plan, 'cache', tuple(notes))
            if reason:
                notes.append(reason)
            plan = build()
            if reason := self.store(key, plan):
                notes.append(reason)
        return Loaded(plan, 'built', tuple(notes))

    def load(self, key: Key) -> tuple[bytes | None, str]:
        """Return the bytes of an entry and ''; or None and, when it was refused, the reason.

        An entry that is refused is removed.
        """
        return self._entry(key, _bytes_of)

    def _entry(
        self, key: Key, take: Callable[[int, int], _Content]
    ) -> tuple[_Content | None, str]:
        """Return the content of a sound entry as ``take`` makes it of an open file and a size."""
        if self.folder is None:
            return None, ''
        name = _name_of(key)
        try:
            return _checked_entry(self.folder, name, key, take), ''
        except FileNotFoundError:
            if not _paths(self.folder, name):
                return None, ''
            reason = 'a part of it is missing'
        except (_Refused, OSError) as error:
            reason = str(error)
        _remove(self.folder, name)
        return None, f'The stored {key.kind} {name[:12]} is not used: {reason}.'

    def mapped(self, key: Key) -> tuple[mmap.mmap | None, str]:
        """Do as :meth:`load`, but map the entry into memory instead of reading it.

        What is written to the mapping does not reach the file.
        """
        return self._entry(key, _mapping_of)

    def store(self, key: Key, data: bytes) -> str:
        """Keep an entry, and remove old ones when there are too many bytes.

        :returns: '' or a sentence that says why it is not kept.
        """
        if self.folder is None:
            return ''
        name = _name_of(key)
        try:
            files.write_atomically(
                self.folder / f'{name}.{key.kind}', lambda stream: stream.write(data)
            )
            # last: an entry counts from here on
            files.write_text_atomically(self.folder / f'{name}.json', _description(key, data))
        except OSError as error:
            _remove(self.folder, name)
            return (
                f'The {key.kind} is not kept, the next start builds it again: {self.folder}: '
                f'{error.strerror or error}.'
            )
        with suppress(OSError):
            _prune(self.folder, name, key.device, self._limit_bytes)
        return ''

    def remove(self, key: Key) -> None:
        """Remove an entry that a library refused; nothing happens when there is none."""
        if self.folder is not None:
            _remove(self.folder, _name_of(key))

    @contextmanager
    def _locked(self, key: Key, notes: list[str]) -> Iterator[None]:
        """Hold the lock of one entry; without it, and with a note, where there are no locks."""
        handle = None
        if self.folder is not None:
            try:
                handle = _acquired(self.folder / f'{_name_of(key)}.lock', _LONGEST_WAIT_S)
            except OSError as error:
                notes.append(f'The engine cache is used without a lock: {error}.')
        try:
            yield
        finally:
            if handle is not None:
                os.close(handle)


class _Refused(Exception):
    """An entry that must not reach a library; the text says what is wrong with it."""


@dataclass(frozen=True)
class _Entry:
    """What pruning knows of an entry."""

    name: str
    size_bytes: int
    used_s: float
    stale: bool


def _name_of(key: Key) -> str:
    """Return the SHA-256 over all fields of a key, its kind and the format of the cache."""
    return hashlib.sha256(json.dumps(_fields_of(key), sort_keys=True).encode()).hexdigest()


def _fields_of(key: Key) -> dict[str, Any]:
    """Return a key as JSON gives it back, with lists for tuples."""
    fields: dict[str, Any] = json.loads(json.dumps(asdict(key)))
    return {'format': FORMAT, 'kind': key.kind, **fields}


def _description(key: Key, data: bytes) -> str:
    """Return the text beside an entry."""
    described = {
        'key': _fields_of(key),
        'sha256': hashlib.sha256(data).hexdigest(),
        'size_bytes': len(data),
        'written': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'depth_node': __version__,
    }
    return json.dumps(described, indent=1) + '\n'


def _checked_entry(
    folder: Path, name: str, key: Key, take: Callable[[int, int], _Content]
) -> _Content:
    """Return the content of an entry that is exactly what was stored under ``key``.

    :raises FileNotFoundError: when there is none, or a part of it is missing.
    :raises _Refused: when it is something else.
    """
    description = _parsed(_owned_bytes(folder / f'{name}.json', _LARGEST_DESCRIPTION_BYTES))
    if description.get('key') != _fields_of(key):
        raise _Refused('its description is that of something else')
    size_bytes = description.get('size_bytes')
    if not isinstance(size_bytes, int) or not 0 < size_bytes <= _LARGEST_ENTRY_BYTES:
        raise _Refused('its description names no believable size')
    path = folder / f'{name}.{key.kind}'
    with _owned_file(path, size_bytes) as handle:
        data = take(handle, size_bytes)
    if len(data) != size_bytes:
        raise _Refused(f'it has {len(data)} bytes instead of {size_bytes}')
    if hashlib.sha256(data).hexdigest() != description.get('sha256'):
        raise _Refused('its bytes have changed')
    with suppress(OSError):
        os.utime(path)  # the time of use, by which pruning goes
    return data


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Refused('its description cannot be read') from error
    if not isinstance(description, dict):
        raise _Refused('its description is no mapping')
    return description


def _bytes_of(handle: int, size_bytes: int) -> bytes:
    """Read an open file, and one byte more where it has grown."""
    with open(handle, 'rb', closefd=False) as stream:
        return stream.read(size_bytes + 1)


def _mapping_of(handle: int, size_bytes: int) -> mmap.mmap:
    """Map an open file whole; changes stay in this process."""
    try:
        return mmap.mmap(handle, 0, access=mmap.ACCESS_COPY)
    except ValueError as error:
        raise _Refused('it is empty') from error


def _owned_bytes(path: Path, largest_bytes: int) -> bytes:
    """Read a regular file of this user; see :func:`_owned_file`."""
    with _owned_file(path, largest_bytes) as handle:
        return _bytes_of(handle, largest_bytes)


@contextmanager
def _owned_file(path: Path, largest_bytes: int) -> Iterator[int]:
    """Open a regular file of this user; links are not followed, pipes not waited for.

    :raises FileNotFoundError: when there is none.
    :raises _Refused: when it is anything else, others may write to it, or it is too large.
    """
    if path.is_symlink():
        raise _Refused('it is a link')
    # checked and read through one handle, so that nothing is put in its place in between
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _Refused('it is no regular file')
        if status.st_uid != os.getuid():
            raise _Refused(f'it belongs to user {status.st_uid}')
        if status.st_mode & _OTHERS_MAY_WRITE:
            raise _Refused('others may write to it')
        if status.st_size > largest_bytes:
            raise _Refused(f'it has {status.st_size} bytes instead of {largest_bytes} at most')
        yield handle
    finally:
        os.close(handle)


def _private(folder: Path) -> Path:
    """Return a folder if it is one of this user that nobody else can write to.

    :raises EngineError: otherwise.
    """
    status = folder.lstat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid != os.getuid()
        or status.st_mode & _OTHERS_MAY_WRITE
    ):
        raise EngineError(
            'engine cache',
            f'{folder} with mode {stat.S_IMODE(status.st_mode):o} of user {status.st_uid}',
            f'a folder of user {os.getuid()} that nobody else can write to',
            f'Remove it, or run: chmod 700 {folder}',
        )
    return folder


def _acquired(path: Path, wait_s: float) -> int:
    """Return the handle of a lock file that this process alone holds; closing it lets go.

    Polls, because a blocking lock could be waited for without end.

    :raises OSError: when the file system has no locks; TimeoutError after ``wait_s``.
    """
    start_s = report_s = time.monotonic()
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), path.lstat()):
                return handle
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        now_s = time.monotonic()
        if now_s - start_s >= wait_s:
            raise TimeoutError(f'{path} was held for {wait_s:g} s')
        if now_s - report_s >= _REPORT_S:
            report_s = now_s
            _LOG.info('waiting for another node that builds the engine: %.0f s', now_s - start_s)
        time.sleep(_POLL_S)


def _paths(folder: Path, name: str) -> list[Path]:
    """Return the files of an entry that are there; its lock is none of them."""
    paths = [folder / f'{name}.{kind}' for kind in (*_KINDS, 'json')]
    return [path for path in paths if os.path.lexists(path)]


def _remove(folder: Path, name: str) -> None:
    """Remove an entry, whatever lies in its place; where that fails, it stays refused."""
    for path in _paths(folder, name):
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _prune(folder: Path, kept: str, device: DeviceKey, limit_bytes: int) -> None:
    """Remove entries until the rest is below the limit.

    Those of another library or GPU go first, then those that were not used for longest.
    """
    found = _entries(folder, device)
    total = sum(entry.size_bytes for entry in found)
    for entry in sorted(found, key=lambda entry: (not entry.stale, entry.used_s)):
        if total <= limit_bytes:
            break
        if entry.name != kept and _remove_unused(folder, entry.name):
            total -= entry.size_bytes
    oldest_s = time.time() - _ORPHAN_AGE_S
    for path in folder.glob('.*.tmp'):
        if path.lstat().st_mtime < oldest_s:
            path.unlink(missing_ok=True)


def _remove_unused(folder: Path, name: str) -> bool:
    """Remove an entry unless another process is building it; return whether it went."""
    lock = folder / f'{name}.lock'
    try:
        handle = _acquired(lock, 0.0)
    except OSError:
        return False
    try:
        _remove(folder, name)
        # whoever waits for this lock finds that the file is another one and opens it again
        lock.unlink(missing_ok=True)
    finally:
        os.close(handle)
    return True


def _entries(folder: Path, device: DeviceKey) -> list[_Entry]:
    """List what lies in a cache; entries that are no longer of this device count as stale."""
    sizes: dict[str, int] = {}
    used: dict[str, float] = {}
    for path in folder.iterdir():
        match = _NAME.match(path.name)
        if match is None or match[2] == 'lock':
            continue
        status = path.lstat()
        sizes[match[1]] = sizes.get(match[1], 0) + status.st_size
        used[match[1]] = max(used.get(match[1], 0.0), status.st_mtime)
    current = asdict(device)
    return [
        _Entry(name, size, used[name], _device_in(folder / f'{name}.json') != current)
        for name, size in sizes.items()
    ]


def _device_in(path: Path) -> object:
    """Return the device that a description names; None where it cannot be read."""
    try:
        key = _parsed(_owned_bytes(path, _LARGEST_DESCRIPTION_BYTES)).get('key')
    except (_Refused, OSError):
        return None
    return key.get('device') if isinstance(key, dict) else None
