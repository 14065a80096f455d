"""One file that came from outside: is it there, is it itself, is it the one that was recorded."""

from __future__ import annotations

import stat
from pathlib import Path

from depth_node.errors import ModelError
from depth_node.files import sha256_of
from depth_node.model_folder.card import FileRecord

_HEAD_BYTES = 512


def check_regular(path: Path, largest_bytes: int) -> int:
    """Refuse what is no ordinary file of a believable size, or only stands in the place of one.

    Nothing is opened before it is known to be a regular file: opening a pipe would wait for ever.

    :param largest_bytes: upper limit of the size.
    :returns: the size, bytes.
    :raises ModelError: for a missing file, a link, a folder, a pipe or a device; an empty file;
        one that is too large; a Git LFS pointer; a web page.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise ModelError(str(path), f'no file ({error.strerror})', 'a readable file') from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(str(path), _kind_of(status.st_mode), 'a regular file')
    if status.st_size == 0:
        raise ModelError(str(path), 'an empty file', 'the file of the model', 'Get it anew.')
    if status.st_size > largest_bytes:
        raise ModelError(
            str(path), f'{status.st_size} bytes', f'at most {largest_bytes} bytes', 'Get it anew.'
        )
    _refuse_stand_in(path)
    return status.st_size


def check_recorded(path: Path, record: FileRecord) -> None:
    """Refuse a file that is not, byte for byte, the one that a card records.

    :raises ModelError: as :func:`check_regular` does, and for another size or content.
    """
    size_bytes = check_regular(path, 1 << 62)
    if size_bytes != record.size_bytes:
        cause = 'a truncated file' if size_bytes < record.size_bytes else 'a longer file'
        raise ModelError(
            str(path), f'{cause} of {size_bytes} bytes', f'{record.size_bytes}', 'Get it anew.'
        )
    found = sha256_of(path)
    if found != record.sha256:
        raise ModelError(
            str(path),
            f'damaged or different content (SHA-256 {found})',
            f'SHA-256 {record.sha256}',
            'Get it anew.',
        )


def _refuse_stand_in(path: Path) -> None:
    """Refuse what downloads and clones leave in the place of a file."""
    with path.open('rb') as stream:
        start = stream.read(_HEAD_BYTES).lstrip().lower()
    if start.startswith(b'version https://git-lfs'):
        raise ModelError(
            str(path),
            'a Git LFS pointer',
            'the file itself',
            'Run: git lfs install && git lfs pull',
        )
    if start.startswith((b'<!doctype html', b'<html')):
        raise ModelError(
            str(path),
            'a web page',
            'the file of the model',
            'The link it came from leads to a page; download the file itself.',
        )


def _kind_of(mode: int) -> str:
    """Name the kind of a directory entry."""
    kinds = {
        stat.S_IFLNK: 'a symbolic link',
        stat.S_IFDIR: 'a folder',
        stat.S_IFIFO: 'a pipe',
        stat.S_IFSOCK: 'a socket',
    }
    return kinds.get(stat.S_IFMT(mode), 'a device')
