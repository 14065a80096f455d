"""Built engines are found again, and nothing that was not stored so ever reaches a library."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from dataclasses import replace
from pathlib import Path

import pytest

from depth_node import files
from depth_node.engines import engine_cache
from depth_node.engines.engine_cache import DeviceKey
from depth_node.engines.engine_cache import EngineCache
from depth_node.engines.engine_cache import PlanKey
from depth_node.engines.engine_cache import TimingKey

DEVICE = DeviceKey(
    library='tensorrt',
    library_version='10.3.0',
    library_build='libnvinfer.so.10 of 1 bytes',
    cuda='12.6',
    gpu='Orin',
    compute_capability='8.7',
    sm_count=16,
    platform='linux aarch64',
)
KEY = PlanKey(DEVICE, 'aa', ('bb', 'cc'), (1, 3, 192, 256), 'f32', ('TF32 off',))
PLAN = bytes(range(256)) * 40

# What a second process does: argv is the folder, a file that counts builds, seconds per build.
BUILDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_engine_cache import EngineCache, KEY, PLAN
def build():
    with open(sys.argv[2], 'a') as log:
        log.write('x')
    print('building', flush=True)
    time.sleep(float(sys.argv[3]))
    return PLAN
loaded = EngineCache(Path(sys.argv[1])).get_or_build(KEY, build)
assert loaded.plan == PLAN
print(loaded.origin, loaded.notes)
"""


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    folder = tmp_path / 'cache'
    folder.mkdir(mode=0o700)
    return EngineCache(folder)


def never() -> bytes:
    raise AssertionError('built, though it was in the cache')


def paths(cache: EngineCache) -> tuple[Path, Path]:
    assert cache.folder is not None
    return next(cache.folder.glob('*.plan')), next(cache.folder.glob('*.json'))


def listing(cache: EngineCache) -> list[str]:
    assert cache.folder is not None
    return sorted(path.suffix for path in cache.folder.iterdir() if path.suffix != '.lock')


def test_a_plan_is_built_once(cache: EngineCache) -> None:
    first = cache.get_or_build(KEY, lambda: PLAN)
    second = cache.get_or_build(KEY, never)
    assert (first.plan, first.origin, first.notes) == (PLAN, 'built', ())
    assert (second.plan, second.origin, second.notes) == (PLAN, 'cache', ())


def test_the_description_can_be_read_by_people(cache: EngineCache) -> None:
    cache.get_or_build(KEY, lambda: PLAN)
    described = json.loads(paths(cache)[1].read_text())
    assert described['key']['device']['gpu'] == 'Orin'
    assert described['key']['input_shape'] == [1, 3, 192, 256]
    assert described['size_bytes'] == len(PLAN)
    assert described['written'].endswith('+00:00')


def other(value: object) -> object:
    if isinstance(value, tuple):
        return (*value[:-1], other(value[-1]))
    return value + 1 if isinstance(value, int) else f'{value}x'


CHANGED = [
    *(replace(KEY, **{field.name: other(getattr(KEY, field.name))})
      for field in fields(KEY) if field.name != 'device'),
    *(replace(KEY, device=replace(DEVICE, **{field.name: other(getattr(DEVICE, field.name))}))
      for field in fields(DEVICE)),
    replace(KEY, data_sha256=('cc', 'bb')),
    replace(KEY, data_sha256=()),
]  # fmt: skip


@pytest.mark.parametrize('key', CHANGED, ids=str)
def test_a_plan_of_anything_else_is_another_one(cache: EngineCache, key: PlanKey) -> None:
    cache.get_or_build(KEY, lambda: PLAN)
    assert cache.get_or_build(key, lambda: b'other').origin == 'built'
    assert cache.get_or_build(KEY, never).plan == PLAN


def test_another_format_of_the_cache_is_not_believed(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.get_or_build(KEY, lambda: PLAN)
    monkeypatch.setattr(engine_cache, 'FORMAT', engine_cache.FORMAT + 1)
    assert cache.get_or_build(KEY, lambda: b'new').plan == b'new'


def test_timings_lie_beside_plans_of_the_same_device(cache: EngineCache) -> None:
    assert cache.load(TimingKey(DEVICE)) == (None, '')
    assert cache.store(TimingKey(DEVICE), b'times') == ''
    cache.get_or_build(KEY, lambda: PLAN)
    assert cache.load(TimingKey(DEVICE)) == (b'times', '')
    assert cache.load(TimingKey(replace(DEVICE, sm_count=8))) == (None, '')


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / 'inside').write_text('x')


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_link(path: Path) -> None:
    path.rename(path.with_name('elsewhere'))
    path.symlink_to('elsewhere')


def as_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to('nowhere')


def described(**changes: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def of_key(**changes: object) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        content['key'].update(changes)
        path.write_text(json.dumps(content))

    return change


DAMAGE: dict[str, tuple[int, Callable[[Path], object], str]] = {
    'plan truncated': (0, lambda path: path.write_bytes(PLAN[:-1]), 'bytes instead of'),
    'plan longer': (0, lambda path: path.write_bytes(PLAN + b'x'), 'bytes instead of'),
    'plan empty': (0, lambda path: path.write_bytes(b''), 'bytes instead of'),
    'one bit': (0, flipped, 'changed'),
    'plan gone': (0, Path.unlink, 'missing'),
    'plan a folder': (0, as_folder, 'no regular file'),
    'plan a pipe': (0, as_pipe, 'no regular file'),
    'plan a link': (0, as_link, 'link'),
    'plan a dangling link': (0, as_dangling_link, 'link'),
    'plan open to others': (0, lambda path: path.chmod(0o666), 'others may write'),
    'description gone': (1, Path.unlink, 'missing'),
    'description empty': (1, lambda path: path.write_bytes(b''), 'cannot be read'),
    'description no UTF-8': (1, lambda path: path.write_bytes(b'\xff\xfe'), 'cannot be read'),
    'description nested': (1, lambda path: path.write_text('[' * 60_000), 'cannot be read'),
    'description huge': (1, lambda path: path.write_bytes(b' ' * 70_000), 'bytes instead of'),
    'description a list': (1, lambda path: path.write_text('[]'), 'no mapping'),
    'description a folder': (1, as_folder, 'no regular file'),
    'description a pipe': (1, as_pipe, 'no regular file'),
    'description a link': (1, as_link, 'link'),
    'description open to others': (1, lambda path: path.chmod(0o622), 'others may write'),
    'another version': (1, of_key(precision='f16'), 'something else'),
    'no key': (1, described(key=None), 'something else'),
    'another hash': (1, described(sha256='0' * 64), 'changed'),
    'hash no text': (1, described(sha256=7), 'changed'),
    'another size': (1, described(size_bytes=3), 'bytes instead of'),
    'size no number': (1, described(size_bytes='3'), 'believable'),
    'size negative': (1, described(size_bytes=-1), 'believable'),
    'size huge': (1, described(size_bytes=1 << 60), 'believable'),
}


@pytest.mark.parametrize('name', DAMAGE)
def test_damage_is_found_before_the_bytes_are_used_and_mended(
    cache: EngineCache, name: str
) -> None:
    which, damage, reason = DAMAGE[name]
    cache.get_or_build(KEY, lambda: PLAN)
    damage(paths(cache)[which])
    again = cache.get_or_build(KEY, lambda: PLAN[::-1])
    assert (again.plan, again.origin) == (PLAN[::-1], 'built')
    assert len(again.notes) == 1 and reason in again.notes[0]
    assert cache.get_or_build(KEY, never).plan == PLAN[::-1]


@pytest.mark.skipif(os.getuid() != 0, reason='only root can give files away')
@pytest.mark.parametrize('which', [0, 1])
def test_files_of_another_user_are_not_read(cache: EngineCache, which: int) -> None:
    cache.get_or_build(KEY, lambda: PLAN)
    os.chown(paths(cache)[which], 12345, -1)
    again = cache.get_or_build(KEY, lambda: b'new')
    assert again.plan == b'new' and 'belongs to user 12345' in again.notes[0]


def test_a_removed_entry_is_built_again(cache: EngineCache) -> None:
    cache.get_or_build(KEY, lambda: PLAN)
    cache.remove(KEY)
    cache.remove(KEY)
    assert cache.load(KEY) == (None, '')


def test_the_cache_of_the_user_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    cache = EngineCache.of_user()
    assert cache.folder == tmp_path / 'depth_node' / 'engines'
    assert cache.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize('kind', ['writable', 'writable root', 'link', 'file', 'no home'])
def test_an_unsafe_folder_is_not_used_and_the_engine_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    root = tmp_path / 'depth_node'
    folder = root / 'engines'
    root.mkdir(mode=0o700)
    if kind == 'writable':
        folder.mkdir()
        folder.chmod(0o777)
    elif kind == 'writable root':
        root.chmod(0o777)
    elif kind == 'link':
        (tmp_path / 'elsewhere').mkdir(mode=0o700)
        folder.symlink_to(tmp_path / 'elsewhere')
    elif kind == 'file':
        folder.write_text('x')
    else:
        monkeypatch.delenv('XDG_CACHE_HOME')
        monkeypatch.setattr(Path, 'home', lambda: (_ for _ in ()).throw(RuntimeError('no home')))
    cache = EngineCache.of_user()
    for _ in range(2):
        loaded = cache.get_or_build(KEY, lambda: PLAN)
        assert (loaded.plan, loaded.origin) == (PLAN, 'built')
        assert 'built at every start' in loaded.notes[0]
    assert not list(tmp_path.rglob('*.plan'))


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize('call', ['write_atomically', 'write_text_atomically'])
def test_a_disk_that_takes_nothing_leaves_no_half_entry(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, call, refuse)
    loaded = cache.get_or_build(KEY, lambda: PLAN)
    assert (loaded.plan, loaded.origin) == (PLAN, 'built')
    assert os.strerror(code) in loaded.notes[0]
    assert listing(cache) == []


def test_an_unreadable_folder_is_worked_around(tmp_path: Path) -> None:
    loaded = EngineCache(tmp_path / 'gone').get_or_build(KEY, lambda: PLAN)
    assert loaded.plan == PLAN
    assert ['lock' in note for note in loaded.notes] == [True, False]


def test_without_locks_plans_are_still_found(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'flock', refuse)
    assert cache.get_or_build(KEY, lambda: PLAN).origin == 'built'
    loaded = cache.get_or_build(KEY, never)
    assert loaded.plan == PLAN and 'without a lock' in loaded.notes[0]


def started(cache: EngineCache, log: Path, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, '-c', BUILDER, str(cache.folder), str(log), str(seconds),
             str(Path(__file__).parent)]  # fmt: skip
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_two_nodes_that_start_together_build_once(cache: EngineCache, tmp_path: Path) -> None:
    log = tmp_path / 'log'
    nodes = [started(cache, log, 0.5) for _ in range(2)]
    said = [node.communicate(timeout=60)[0].split('\n')[-2] for node in nodes]
    assert sorted(said) == ['built ()', 'cache ()']
    assert log.read_text() == 'x'


def test_the_lock_of_a_killed_node_is_free(cache: EngineCache, tmp_path: Path) -> None:
    node = started(cache, tmp_path / 'log', 60.0)
    assert node.stdout is not None and node.stdout.readline() == 'building\n'
    node.kill()
    node.wait()
    node.stdout.close()
    loaded = cache.get_or_build(KEY, lambda: PLAN)
    assert (loaded.origin, loaded.notes) == ('built', ())


def test_a_lock_that_is_never_given_back_is_not_waited_for_without_end(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.get_or_build(KEY, lambda: PLAN)
    cache.remove(KEY)
    assert cache.folder is not None
    monkeypatch.setattr(engine_cache, '_LONGEST_WAIT_S', 0.2)
    with next(cache.folder.glob('*.lock')).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        loaded = cache.get_or_build(KEY, lambda: PLAN)
    assert loaded.plan == PLAN and 'was held for 0.2 s' in loaded.notes[0]


def test_a_failed_build_is_passed_on_and_frees_the_lock(cache: EngineCache) -> None:
    def fail() -> bytes:
        raise ValueError('no plan')

    with pytest.raises(ValueError, match='no plan'):
        cache.get_or_build(KEY, fail)
    assert cache.get_or_build(KEY, lambda: PLAN).notes == ()


def test_a_power_cut_while_storing_leaves_the_entry_whole_or_refused(cache: EngineCache) -> None:
    code = (
        'import sys, itertools\n'
        'from pathlib import Path\n'
        'sys.path.insert(0, sys.argv[2])\n'
        'from test_engine_cache import EngineCache, KEY\n'
        'cache = EngineCache(Path(sys.argv[1]))\n'
        'for n in itertools.count():\n'
        '    cache.store(KEY, bytes([n % 256]) * 300_000)\n'
        "    print('.', flush=True)\n"
    )
    words = [sys.executable, '-c', code, str(cache.folder), str(Path(__file__).parent)]
    for delay_s in (0.0, 0.003, 0.006):
        writer = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay_s)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        plan, reason = cache.load(KEY)
        assert reason if plan is None else len(plan) == 300_000 and len(set(plan)) == 1


def numbered(index: int, device: DeviceKey = DEVICE) -> PlanKey:
    return replace(KEY, device=device, graph_sha256=f'{index}')


def stored(cache: EngineCache, key: PlanKey, age_s: float) -> None:
    """Store 10 000 bytes as if they had been used some time ago."""
    before = set(cache.folder.iterdir())
    cache.get_or_build(key, lambda: bytes(10_000))
    for path in set(cache.folder.iterdir()) - before:
        os.utime(path, (time.time() - age_s,) * 2)


def test_old_entries_give_way_first_those_of_another_library(cache: EngineCache) -> None:
    stale = replace(DEVICE, library_version='10.2.0')
    keys = [numbered(0), numbered(1, stale), numbered(2, stale), numbered(3)]
    for key, age_s in zip(keys, (9000.0, 20.0, 30.0, 10.0), strict=True):
        stored(cache, key, age_s)
    small = EngineCache(cache.folder, limit_bytes=45_000)
    small.get_or_build(numbered(4), lambda: bytes(10_000))
    left = [small.load(key)[0] is not None for key in (*keys, numbered(4))]
    assert left == [True, True, False, True, True]
    # the first was used just now, so that after the stale one the fourth has waited for longest
    os.utime(next(cache.folder.glob(f'{engine_cache._name_of(keys[3])}.plan')), (0, 0))
    os.utime(next(cache.folder.glob(f'{engine_cache._name_of(keys[3])}.json')), (0, 0))
    EngineCache(cache.folder, limit_bytes=35_000).get_or_build(numbered(5), lambda: bytes(10_000))
    left = [small.load(key)[0] is not None for key in (*keys, numbered(4), numbered(5))]
    assert left == [True, False, False, False, True, True]


def test_use_makes_an_entry_young(cache: EngineCache) -> None:
    cache.get_or_build(KEY, lambda: PLAN)
    os.utime(paths(cache)[0], (0, 0))
    cache.get_or_build(KEY, never)
    assert time.time() - paths(cache)[0].stat().st_mtime < 60


def test_timings_above_the_limit_are_kept_too(cache: EngineCache) -> None:
    small = EngineCache(cache.folder, limit_bytes=5)
    small.store(TimingKey(DEVICE), b'more than five')
    assert small.load(TimingKey(DEVICE)) == (b'more than five', '')


def test_what_was_just_built_is_kept_even_above_the_limit(cache: EngineCache) -> None:
    small = EngineCache(cache.folder, limit_bytes=5_000)
    for index in range(3):
        small.get_or_build(numbered(index), lambda: bytes(10_000))
    assert listing(cache) == ['.json', '.plan']
    assert small.load(numbered(2))[0] is not None


def test_an_entry_that_is_being_built_does_not_give_way(cache: EngineCache) -> None:
    stored(cache, KEY, 9000.0)
    assert cache.folder is not None
    with (cache.folder / f'{engine_cache._name_of(KEY)}.lock').open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        EngineCache(cache.folder, 5_000).get_or_build(numbered(1), lambda: bytes(10_000))
    assert cache.load(KEY)[0] is not None


def test_what_killed_nodes_left_is_swept(cache: EngineCache) -> None:
    assert cache.folder is not None
    young, old = cache.folder / '.young.tmp', cache.folder / '.old.tmp'
    foreign = cache.folder / 'notes.txt'
    for path in (young, old, foreign):
        path.write_text('x')
    os.utime(old, (0, 0))
    os.utime(foreign, (0, 0))
    EngineCache(cache.folder, 1).get_or_build(KEY, lambda: PLAN)
    assert young.exists() and foreign.exists() and not old.exists()
