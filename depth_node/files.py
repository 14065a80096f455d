"""Files that are written whole or not at all, hashed, and kept in folders of our own."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from depth_node.errors import DepthNodeError

_CHUNK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open('rb') as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a new file, then put it in the place of ``path`` in one step.

    A reader, or a machine that loses power, sees the old file or the new one, never a part.

    :param path: file to make or replace; its folder must exist.
    :param write: called once with a binary stream.
    :raises OSError: when the disk refuses; the old file is then untouched.
    """
    handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', suffix='.tmp', dir=path.parent)
    try:
        with os.fdopen(handle, 'wb') as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk: a power cut then leaves no part of it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all; see :func:`write_atomically`."""
    write_atomically(path, lambda stream: stream.write(text.encode()))


def sweep_orphans(folder: Path) -> int:
    """Remove what a killed :func:`write_atomically` left in ``folder``; return how many."""
    orphans = [path for path in folder.glob('.*.tmp') if path.is_file()]
    for path in orphans:
        path.unlink(missing_ok=True)
    return len(orphans)


def regular_file(path: Path, who: str, largest_bytes: int) -> Path:
    """Return ``path`` if it is an ordinary file of a believable size.

    :param who: name of what wants the file, for the error's text.
    :param largest_bytes: upper limit of the size.
    :raises DepthNodeError: when it is missing, no regular file (a device, a pipe, a folder), empty
        or larger than ``largest_bytes``.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DepthNodeError(
            who, f'{path} ({error.strerror})', 'a readable file', 'Check the path.'
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise DepthNodeError(who, f'{path}, which is no regular file', 'a file on disk')
    if not 0 < status.st_size <= largest_bytes:
        raise DepthNodeError(
            who, f'{path} of {status.st_size} bytes', f'1 to {largest_bytes} bytes'
        )
    return path


def cache_folder(*parts: str) -> Path:
    """Return a folder below the user's cache that only this user can read, made if needed.

    ``$XDG_CACHE_HOME/depth_node``, or ``~/.cache/depth_node``.

    :raises DepthNodeError: when the folder belongs to somebody else or others may write to it.
    """
    base = os.environ.get('XDG_CACHE_HOME')
    root = (Path(base) if base else Path.home() / '.cache') / 'depth_node'
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise DepthNodeError(
            'cache folder',
            f'{root} with mode {stat.S_IMODE(status.st_mode):o} of user {status.st_uid}',
            f'a folder of user {os.getuid()} that nobody else can write to',
            f'Run: chmod 700 {root}',
        )
    folder = root.joinpath(*parts)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
