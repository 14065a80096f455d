"""Frames on disk: what is read is what was written, whatever happened in between."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import zlib

import numpy as np
import pytest

from depth_node.camera import Fit
from depth_node.camera import from_horizontal_fov
from depth_node.dataset import cache_format
from depth_node.dataset.cache_writer import CacheWriter
from depth_node.dataset.cache_writer import cache_arrays
from depth_node.dataset.frame_cache import open_cache
from depth_node.dataset.sparse_depth import SparseDepth
from depth_node.dataset.sparse_depth import SparseSource
from depth_node.dataset.sparse_depth import pack
from depth_node.dataset.sparse_depth import unpack
from depth_node.errors import DepthNodeError  # noqa: F401
from depth_node.errors import RecordingError

MODEL = from_horizontal_fov(64, 48, 1.2)
SCAN = SparseSource('scan', '/scan')
DEPTH = SparseSource('depth', '/depth')


def picture(index: int) -> np.ndarray:
    v, u = np.mgrid[:48, :64]
    waves = [np.sin(0.1 * (u + 3 * c) + 0.2 * index) * np.cos(0.09 * v + c) for c in range(3)]
    return (127 + 100 * np.stack(waves, axis=2)).astype(np.uint8)


def pose(index: int) -> np.ndarray:
    made = np.eye(4)
    made[:3, 3] = 0.1 * index, 0.0, 1.0
    return made


def points(rng: np.random.Generator, source: SparseSource, count: int = 50) -> SparseDepth:
    u, v, depth = rng.uniform([[0], [0], [0.5]], [[63], [47], [9]], (3, count)).astype(np.float32)
    return SparseDepth(u, v, depth, source)


def header(key: str = 'k') -> cache_format.Header:
    fit = Fit(0, 0, 64, 48, MODEL)
    return cache_format.Header(key, '', fit, np.ones((48, 64), bool), (SCAN,))


def filled(root, first: int, count: int, shard_bytes: int = 8000):
    with CacheWriter(root, header(), shard_bytes) as writer:
        for index in range(first, first + count):
            writer.add(picture(index), index + 1, pose(index))
        return writer.finish()


def test_what_is_read_is_what_was_written(tmp_path):
    rng = np.random.default_rng(1)
    parts = [(points(rng, SCAN), points(rng, DEPTH)), (), (points(rng, SCAN),)]
    seen = np.ones((48, 64), bool)
    seen[:5] = False
    cache_arrays(
        tmp_path / 'c', MODEL, [picture(k) for k in range(3)], [5, 9, 14],
        [pose(0), None, pose(2)], parts, seen,
    )  # fmt: skip
    cache = open_cache(tmp_path / 'c')
    assert [frame.stamp_ns for frame in cache.frames] == [5, 9, 14]
    assert cache.camera == MODEL
    np.testing.assert_array_equal(cache.seen, seen)
    np.testing.assert_array_equal(cache.frames[2].pose, pose(2))
    assert cache.frames[1].pose is None
    assert np.isnan(cache.poses[1, :3]).all()
    for index in range(3):
        error = cache.rgb(index).astype(int) - picture(index)
        assert np.abs(error).mean() < 1.5 and np.abs(error).max() < 12
        assert cache.frames[index].brightness == pytest.approx(
            picture(index).mean() / 255, abs=0.02
        )
    best = cache.sparse(0)
    assert best.source == DEPTH, 'a depth image goes before a scan'
    np.testing.assert_allclose(best.u, parts[0][1].u, atol=1 / 32 + 1e-6)
    np.testing.assert_array_equal(best.depth_m, parts[0][1].depth_m)
    assert cache.sparse(1) is None
    sent = copy.deepcopy(cache)
    np.testing.assert_array_equal(sent.rgb(2), cache.rgb(2))


def test_a_killed_writer_loses_only_what_was_not_flushed_and_goes_on(tmp_path):
    code = f"""
        import os, signal, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_dataset_cache import *
        with CacheWriter({str(tmp_path / 'c')!r}, header(), 8000) as writer:
            for index in range(150):
                writer.add(picture(index), index + 1, pose(index))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(RecordingError, match='not finished'):
        open_cache(tmp_path / 'c')
    with CacheWriter(tmp_path / 'c', header(), 8000) as writer:
        assert 86 <= writer.count <= 150
        assert writer.last_ordinal == writer.count - 1
        for index in range(writer.count, 160):
            writer.add(picture(index), index + 1, pose(index))
        cache = writer.finish()
    whole = filled(tmp_path / 'whole', 0, 160)
    assert len(cache) == 160
    for index in (0, 85, 86, 127, 128, 149, 150, 159):
        np.testing.assert_array_equal(cache.rgb(index), whole.rgb(index))
        np.testing.assert_array_equal(cache.frames[index].pose, pose(index))


@pytest.mark.parametrize('cut', [1, cache_format.ROW.itemsize, cache_format.ROW.itemsize + 7])
def test_a_torn_index_is_cut_back_to_whole_rows(tmp_path, cut):
    filled(tmp_path, 0, 10)
    index = tmp_path / cache_format.INDEX
    os.truncate(index, index.stat().st_size - cut)
    with CacheWriter(tmp_path, header(), 8000) as writer:
        kept = writer.count
        assert kept == 10 - -(-cut // cache_format.ROW.itemsize)
        for number in range(kept, 10):
            writer.add(picture(number), number + 1, pose(number))
        cache = writer.finish()
    np.testing.assert_array_equal(cache.rgb(9), filled(tmp_path / 'w', 0, 10).rgb(9))


def test_damage_is_told_and_not_shown(tmp_path):
    filled(tmp_path, 0, 12)
    shard = tmp_path / cache_format.shard_name(0)
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    cache = open_cache(tmp_path)
    with pytest.raises(RecordingError, match='damaged bytes of image 0'):
        cache.rgb(0)
    cache.rgb(3)
    os.truncate(shard, len(data) - 1)
    with pytest.raises(RecordingError, match=r'frames-00000\.bin of'):
        open_cache(tmp_path)
    index = tmp_path / cache_format.INDEX
    index.write_bytes(index.read_bytes()[:-1] + b'x')
    with pytest.raises(RecordingError, match='damaged index'):
        open_cache(tmp_path)


def test_another_recording_does_not_go_into_the_same_folder(tmp_path):
    filled(tmp_path, 0, 3)
    with pytest.raises(RecordingError, match='made from something else'):
        CacheWriter(tmp_path, header('other')).__enter__()
    assert len(open_cache(tmp_path)) == 3


def test_two_processes_do_not_write_one_cache(tmp_path):
    with (
        CacheWriter(tmp_path, header()),
        pytest.raises(RecordingError, match='another process'),
    ):
        CacheWriter(tmp_path, header()).__enter__()


def test_a_full_disk_ends_with_a_sentence_and_keeps_what_was_flushed(tmp_path):
    code = f"""
        import resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_dataset_cache import *
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            with CacheWriter({str(tmp_path / 'c')!r}, header()) as writer:
                for index in range(1000):
                    writer.add(picture(index), index + 1, pose(index))
        except DepthNodeError as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)], check=True, capture_output=True, text=True
    )
    assert 'DepthNodeError' in done.stdout, done.stderr
    assert 'Make room and run the same command again' in done.stdout
    with CacheWriter(tmp_path / 'c', header()) as writer:
        assert writer.count >= 64


@pytest.mark.parametrize(
    'change',
    [
        {'dropped': []},
        {'index_crc': float('inf')},
        {'sources': [{'kind': 'guessed', 'topic': '/x'}]},
        {'fit': {**dataclasses.asdict(Fit(0, 0, 64, 48, MODEL)), 'camera': {
            **dataclasses.asdict(MODEL), 'width': 1 << 40, 'height': 1 << 20}}},
    ],
)  # fmt: skip
def test_a_header_that_was_tampered_with_is_refused_in_a_sentence(tmp_path, change):
    filled(tmp_path, 0, 3)
    path = tmp_path / cache_format.HEADER
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RecordingError, match='cannot be read'):
        open_cache(tmp_path)


def test_a_header_of_nothing_but_brackets_is_refused_in_a_sentence(tmp_path):
    (tmp_path / cache_format.HEADER).write_text('[' * 100_000)
    with pytest.raises(RecordingError, match='cannot be read'):
        open_cache(tmp_path)


def test_a_place_beyond_all_files_is_told_as_damage(tmp_path):
    cache = filled(tmp_path, 0, 3)
    rows = np.array(cache_format.mapped_rows(tmp_path))
    rows['at'][1] = 2**64 - 1  # its end, beyond 64 bits, looks like the first byte
    (tmp_path / cache_format.INDEX).write_bytes(rows.tobytes())
    broken = dataclasses.replace(cache.header, index_crc=cache_format.index_crc(tmp_path))
    cache_format.write_header(tmp_path, broken)
    with pytest.raises(RecordingError):
        open_cache(tmp_path).rgb(1)


@pytest.mark.parametrize('depth_m', [0.0, -1.0, np.nan, np.inf])
def test_stored_depth_that_is_none_is_told_as_damage(depth_m):
    depth = points(np.random.default_rng(0), SCAN)
    depth.depth_m[7] = depth_m
    with pytest.raises(RecordingError):
        unpack(pack([depth], [SCAN]), [SCAN])


def test_a_few_bytes_of_stored_depth_do_not_fill_the_memory():
    with pytest.raises(RecordingError, match='damaged sparse depth'):
        unpack(zlib.compress(bytes(65 << 20)), [SCAN])
