"""From a recording to cached frames: as the node sees them, whatever stops the pass."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
from dataset_samples import BENT
from dataset_samples import HIDDEN
from dataset_samples import IDLE
from dataset_samples import SIZE
from dataset_samples import cached
from dataset_samples import recorded

from depth_node import camera
from depth_node import image_codec
from depth_node.dataset import cache_format
from depth_node.dataset.audit_recording import audit_recording
from depth_node.dataset.cache_writer import CacheWriter
from depth_node.dataset.caching import CacheSettings
from depth_node.dataset.caching import cache_recording
from depth_node.dataset.topics import TopicChoice
from depth_node.errors import ImageRejected
from depth_node.errors import RecordingError
from depth_node.frames import CameraFields
from depth_node.recording import Recording
from depth_node.recording import open_recording
from depth_node.recording.messages import LaserScanFields
from depth_node.recording.writer import RecordingWriter

RATE_HZ = 10
START_NS = 1_700_000_000_000_000_000
SETTINGS = CacheSettings(((48, 64),))


def picture(index: int) -> np.ndarray:
    v, u = np.mgrid[:96, :128]
    waves = [np.sin(0.1 * (u + 3 * c) + 0.2 * index) * np.cos(0.09 * v + c) for c in range(3)]
    return (127 + 100 * np.stack(waves, axis=2)).astype(np.uint8)


def info_of(focal_px: float = 100.0) -> CameraFields:
    k = (focal_px, 0.0, 63.5, 0.0, focal_px, 47.5, 0.0, 0.0, 1.0)
    return CameraFields(128, 96, 'plumb_bob', (0.0,) * 5, k, frame_id='cam')


def film(path, count=150, stamps=None, fields=None, quality=None):
    """Record a camera without poses."""
    with RecordingWriter(path, 'mcap') as writer:
        for k in range(count):
            stamp = START_NS + k * 10**9 // RATE_HZ if stamps is None else stamps[k]
            info = fields[k] if fields else info_of()
            writer.camera_info('/cam/camera_info', replace(info, stamp_ns=stamp))
            writer.image('/cam/image_raw', picture(k), stamp, 'cam', quality)
    return path


def same(one, two) -> None:
    assert len(one) == len(two)
    np.testing.assert_array_equal(one.stamps_ns, two.stamps_ns)
    np.testing.assert_array_equal(one.poses, two.poses)
    for k in range(len(one)):
        np.testing.assert_array_equal(one.rgb(k), two.rgb(k))
        parts = one.sparse_all(k), two.sparse_all(k)
        assert [part.source for part in parts[0]] == [part.source for part in parts[1]]
        for a, b in zip(*parts, strict=True):
            np.testing.assert_array_equal(a.depth_m, b.depth_m)


def test_frames_are_what_the_node_would_give_the_network():
    cache = cached(BENT, HIDDEN)
    with open_recording(recorded(BENT)) as recording:
        topics = recording.camera_topics(depth='')
        fields = recording.first(topics.camera_info)
        view = camera.chosen_view(fields, BENT.width, BENT.height, 'auto', False)
        assert view.rectifier is not None
        fit = camera.fit(view.model, [SIZE], 'native')
        network = camera.NetworkInput(*SIZE, (0.0,) * 3, (1.0,) * 3)
        for k, record in enumerate(recording.records([topics.image])):
            rgb = view.rectifier.apply(image_codec.decode_compressed(record.content))
            error = np.abs(network.fill(rgb, fit).astype(int) - cache.rgb(k))
            assert error.mean() < 2.0
    assert cache.camera == fit.camera and cache.fit == fit
    np.testing.assert_array_equal(cache.seen, camera.resampled_mask(view.rectifier.valid, fit))


def test_poses_are_those_of_the_optical_frame():
    cache = cached(IDLE)
    assert np.isfinite(cache.poses).all()
    forward, down = cache.poses[:, :3, 2], cache.poses[:, :3, 1]
    assert (np.abs(forward[:, 2]) < 0.3).all() and (down[:, 2] < -0.9).all()
    assert (cache.poses[:, 2, 3] > 0.2).all(), 'the camera is above the floor'


def test_poses_are_those_of_the_moment_and_not_of_a_late_stamp(tmp_path):
    class Found:
        choice = TopicChoice()
        applied_offset_ns = 100_000_000
        gyro_use = None

    settings = CacheSettings.of(Found(), [SIZE], 'native', HIDDEN)
    late, right = cache_recording(recorded(IDLE), settings, tmp_path), cached(IDLE)
    np.testing.assert_allclose(late.poses[21:40], right.poses[20:39], atol=1e-6)
    assert late.frames[0].pose is None, 'before the first pose'


def test_hidden_topics_stay_hidden_and_make_another_cache():
    whole, blind = cached(IDLE), cached(IDLE, HIDDEN)
    assert {source.kind for source in whole.sources} == {'depth', 'scan'}
    assert blind.sources == () and blind.sparse(3) is None
    assert whole.root != blind.root


def test_a_pass_that_is_stopped_goes_on_and_gives_the_same(tmp_path):
    settings = CacheSettings((SIZE,))

    def stop(done: int, total: int) -> None:
        assert total == 60
        if done == 31:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_recording(recorded(IDLE), settings, tmp_path, progress=stop)
    same(cache_recording(recorded(IDLE), settings, tmp_path), cached(IDLE))


def test_a_pass_that_is_killed_goes_on_and_gives_the_same(tmp_path):
    film(tmp_path / 'film')
    code = f"""
        import os, signal, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_dataset_caching import *
        def kill(done, total):
            if done == 120:
                os.kill(os.getpid(), signal.SIGKILL)
        cache_recording({str(tmp_path / 'film')!r}, SETTINGS, {str(tmp_path)!r}, progress=kill)
    """
    done = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    again = cache_recording(tmp_path / 'film', SETTINGS, tmp_path)
    same(again, cache_recording(tmp_path / 'film', SETTINGS, tmp_path / 'fresh'))
    assert len(again) == 150


def test_a_finished_cache_is_opened_and_a_changed_recording_cached_anew(tmp_path):
    film(tmp_path / 'film', 4)
    first = cache_recording(tmp_path / 'film', SETTINGS, tmp_path)
    written = (first.root / 'frames-00000.bin').stat().st_mtime_ns
    second = cache_recording(tmp_path / 'film', SETTINGS, tmp_path)
    assert second.root == first.root
    assert (second.root / 'frames-00000.bin').stat().st_mtime_ns == written
    os.utime(next((tmp_path / 'film').glob('*.mcap')), ns=(1, 1))
    assert cache_recording(tmp_path / 'film', SETTINGS, tmp_path).root != first.root
    other = replace(SETTINGS, sizes=((24, 32),))
    assert cache_recording(tmp_path / 'film', other, tmp_path).camera.width == 32


def test_what_cannot_be_used_is_counted(tmp_path, monkeypatch):
    stamps = [START_NS + k * 10**8 for k in range(12)]
    stamps[5] = stamps[4]
    stamps[9] = stamps[8] + 1000
    zoomed = info_of(200.0)
    fields = [zoomed if k == 2 else info_of() for k in range(12)]
    decode, seen = image_codec.decode_image, []

    def broken(image):
        seen.append(image.stamp_ns)
        if image.stamp_ns == stamps[7]:
            raise ImageRejected('image_size', 'image', 'x', 'y')
        return decode(image)

    monkeypatch.setattr(image_codec, 'decode_image', broken)
    film(tmp_path / 'film', 12, stamps, fields)
    cache = cache_recording(tmp_path / 'film', SETTINGS, tmp_path)
    assert cache.dropped == {'undecodable': 1, 'stamp': 1, 'other_camera': 1, 'rate': 1}
    assert len(cache) == 8
    assert stamps[9] not in seen, 'what is passed over need not be decoded'
    assert cache.frames[0].pose is None and cache.header.pose_source == ''


def test_one_stamp_of_tomorrow_does_not_make_all_others_look_old(tmp_path, monkeypatch):
    film(tmp_path / 'film', 30)
    records = Recording.records

    def leapt(self, topics=None):
        for k, record in enumerate(records(self, topics)):
            late = record.content.stamp_ns + (86_400 * 10**9 if k == 21 else 0)
            yield replace(record, content=replace(record.content, stamp_ns=late))

    monkeypatch.setattr(Recording, 'records', leapt)
    cache = cache_recording(tmp_path / 'film', SETTINGS, tmp_path)
    assert len(cache) == 29 and cache.dropped == {'stamp': 1}


def test_of_a_damaged_recording_what_comes_before_is_cached(tmp_path, monkeypatch):
    film(tmp_path / 'film', 30)
    records = Recording.records

    def torn(self, topics=None):
        for k, record in enumerate(records(self, topics)):
            if k == 20 and len(topics) > 1:
                raise RecordingError('recording film', 'damaged data', 'a whole one')
            yield record

    monkeypatch.setattr(Recording, 'records', torn)
    cache = cache_recording(tmp_path / 'film', SETTINGS, tmp_path)
    assert len(cache) == 10
    assert 'Only what comes before the damage is used' in cache.header.remarks[0]


@pytest.mark.parametrize('share', [0.5, 0.8])
def test_of_a_recording_that_was_cut_short_the_beginning_is_cached(tmp_path, share):
    film(tmp_path / 'film', 100)
    storage = next((tmp_path / 'film').glob('*.mcap'))
    os.truncate(storage, int(share * storage.stat().st_size))
    cache = cache_recording(tmp_path / 'film', SETTINGS, tmp_path)
    assert 100 * share - 40 < len(cache) <= 100 * share
    assert cache.header.remarks


def test_a_recording_without_usable_images_is_refused(tmp_path, monkeypatch):
    film(tmp_path / 'film', 3)

    def broken(image):
        raise ImageRejected('image_size', 'image', 'x', 'y')

    monkeypatch.setattr(image_codec, 'decode_image', broken)
    with pytest.raises(RecordingError, match='can be decoded'):
        cache_recording(tmp_path / 'film', SETTINGS, tmp_path)


def driven(path, image_frame='camera_optical', tf=False):
    """Record a camera that drives ahead, or only its scanner by transforms on /tf."""
    mount = np.array([[0, 0, 1.0, 0.1], [-1, 0, 0, 0], [0, -1, 0, 0.4], [0, 0, 0, 1]])
    with RecordingWriter(path, 'mcap') as writer:
        writer.static_transform([('base_link', 'camera_optical', mount)], START_NS)
        for k in range(40):
            stamp, pose = START_NS + k * 10**8, np.eye(4)
            pose[0, 3] = 0.05 * k
            info = replace(info_of(), stamp_ns=stamp, frame_id='camera_optical')
            writer.camera_info('/cam/camera_info', info)
            writer.image('/cam/image_raw', picture(k), stamp, image_frame)
            if tf:
                placed = [('base_link', 'scanner', np.eye(4))]
                writer._write('/tf', writer._make.transforms(placed, stamp), stamp)
                ranges = np.full(201, 2.0, np.float32)
                writer.scan(
                    '/scan', LaserScanFields(-1.0, 1.0, 0.01, 0.1, 30.0, ranges, stamp, 'scanner')
                )
            else:
                writer.odometry('/odom', stamp, 'odom', 'base_link', pose)
    return path


def cached_as_audited(path, root):
    audit = audit_recording(path)
    return audit, cache_recording(path, CacheSettings.of(audit, ((48, 64),), 'native'), root)


def test_images_without_a_frame_have_that_of_their_camera_info_as_in_the_audit(tmp_path):
    audit, cache = cached_as_audited(driven(tmp_path / 'bag', image_frame=''), tmp_path)
    assert audit.camera_frame == 'camera_optical' and audit.motion is not None
    assert np.isfinite(cache.poses[:, 0, 3]).all()


def test_a_sensor_that_tf_places_is_used_where_there_are_no_poses_as_in_the_audit(tmp_path):
    audit, cache = cached_as_audited(driven(tmp_path / 'bag', tf=True), tmp_path)
    assert audit.choice.odometry == '' and audit.scale_sources[0].why_not == ''
    assert [source.topic for source in cache.sources] == ['/scan'] and not cache.header.remarks
    assert cache.sparse(3) is not None and cache.header.pose_source == ''


def test_depth_at_ninety_hertz_is_that_of_the_image(tmp_path):
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        for k in range(180):
            stamp = START_NS + k * 10**9 // 90
            depth = np.full((96, 128), 1.0 + 0.01 * k, np.float32)
            writer.depth('/cam/depth/image_raw', depth, stamp, 'cam', False)
            if k % 9 == 0:
                writer.camera_info('/cam/camera_info', replace(info_of(), stamp_ns=stamp))
                writer.image('/cam/image_raw', picture(k), stamp, 'cam')
    cache = cache_recording(tmp_path / 'bag', SETTINGS, tmp_path)
    assert len(cache) == 20
    for k in range(20):
        np.testing.assert_allclose(cache.sparse(k).depth_m, 1.0 + 0.09 * k, atol=1e-3)


def test_a_stamp_of_tomorrow_right_after_a_stop_is_not_believed_either(tmp_path, monkeypatch):
    film(tmp_path / 'film', 60)
    records, wrong = Recording.records, [-1]

    def leapt(self, topics=None):
        for k, record in enumerate(records(self, topics)):
            late = record.content.stamp_ns + (86_400 * 10**9 if k == wrong[0] else 0)
            yield replace(record, content=replace(record.content, stamp_ns=late))

    def stop(done, total):
        if done == 31:
            raise KeyboardInterrupt

    monkeypatch.setattr(Recording, 'records', leapt)
    with pytest.raises(KeyboardInterrupt):
        cache_recording(tmp_path / 'film', SETTINGS, tmp_path, progress=stop)
    (folder,) = tmp_path.glob('film-*')
    wrong[0] = 2 * int(cache_format.whole_rows(folder)[-1]['ordinal']) + 3
    cache = cache_recording(tmp_path / 'film', SETTINGS, tmp_path)
    assert len(cache) == 59 and cache.dropped == {'stamp': 1}


def test_images_do_not_pile_up_where_record_times_stand_still(tmp_path, monkeypatch):
    film(tmp_path / 'film', 100)
    records, add, added = Recording.records, CacheWriter.add, []

    def frozen(self, topics=None):
        return (replace(record, time_ns=START_NS) for record in records(self, topics))

    def noted(self, *args, **named):
        added.append(1)
        add(self, *args, **named)

    behind = []
    monkeypatch.setattr(Recording, 'records', frozen)
    monkeypatch.setattr(CacheWriter, 'add', noted)
    cache = cache_recording(
        tmp_path / 'film', SETTINGS, tmp_path,
        progress=lambda done, total: behind.append(done - len(added)),
    )  # fmt: skip
    assert len(cache) == 100 and max(behind) < 40
