"""Files whole or not at all, hashes, and folders that nobody else can write to."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from depth_node import files
from depth_node.errors import DepthNodeError


def test_a_hash_is_that_of_all_bytes(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 17)
    (tmp_path / 'x').write_bytes(data)
    assert files.sha256_of(tmp_path / 'x') == hashlib.sha256(data).hexdigest()


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / 'x'
    files.write_text_atomically(path, 'old')

    def fail(stream) -> None:
        stream.write(b'half')
        raise ValueError('in the middle')

    with pytest.raises(ValueError, match='middle'):
        files.write_atomically(path, fail)
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / 'x'
    files.write_text_atomically(path, 'old')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(OSError, match='too large'):
            files.write_text_atomically(path, 'x' * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_never_leaves_a_part_and_its_orphans_are_swept(tmp_path: Path) -> None:
    code = (
        'import sys, itertools\n'
        'from pathlib import Path\n'
        'from depth_node.files import write_text_atomically\n'
        'for n in itertools.count():\n'
        '    write_text_atomically(Path(sys.argv[1]), str(n % 10) * 300_000)\n'
        "    print('.', flush=True)\n"
    )
    path = tmp_path / 'x'
    for delay_s in (0.0, 0.002, 0.004, 0.006, 0.008):
        words = [sys.executable, '-c', code, str(path)]
        writer = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay_s)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        text = path.read_text()
        assert len(text) == 300_000 and len(set(text)) == 1
    files.sweep_orphans(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('kind', ['missing', 'folder', 'pipe', 'empty', 'large'])
def test_only_regular_files_of_a_believable_size_are_accepted(tmp_path: Path, kind: str) -> None:
    path = tmp_path / 'x'
    if kind == 'folder':
        path.mkdir()
    elif kind == 'pipe':
        os.mkfifo(path)
    elif kind != 'missing':
        path.write_bytes(b'' if kind == 'empty' else b'12345')
    with pytest.raises(DepthNodeError, match='reader: received'):
        files.regular_file(path, 'reader', 4)


def test_a_regular_file_is_returned(tmp_path: Path) -> None:
    (tmp_path / 'x').write_bytes(b'1234')
    assert files.regular_file(tmp_path / 'x', 'reader', 4) == tmp_path / 'x'


def test_the_cache_is_made_for_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'new'))
    folder = files.cache_folder('a', 'b')
    assert folder == tmp_path / 'new' / 'depth_node' / 'a' / 'b'
    assert (tmp_path / 'new' / 'depth_node').stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize('kind', ['writable', 'link', 'file'])
def test_a_cache_that_others_can_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    root = tmp_path / 'depth_node'
    if kind == 'link':
        (tmp_path / 'elsewhere').mkdir(mode=0o700)
        root.symlink_to(tmp_path / 'elsewhere')
    elif kind == 'writable':
        root.mkdir()
        root.chmod(0o777)
    else:
        root.write_text('x')
    with pytest.raises((DepthNodeError, FileExistsError)):
        files.cache_folder('a')
