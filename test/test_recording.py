from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from depth_node.errors import RecordingError
from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.image_codec import decode_compressed
from depth_node.image_codec import decode_compressed_depth
from depth_node.image_codec import decode_depth
from depth_node.image_codec import decode_raw
from depth_node.recording import open_recording
from depth_node.recording.messages import LaserScanFields
from depth_node.recording.messages import OdometryFields
from depth_node.recording.messages import TransformsFields
from depth_node.recording.messages import quaternion_of
from depth_node.recording.messages import rotation_of
from depth_node.recording.writer import RecordingWriter

pytest.importorskip('rosbags')

T0 = 1_700_000_000_000_000_000
STEP_NS = 50_000_000
CAMERA = CameraFields(
    width=12,
    height=8,
    distortion_model='plumb_bob',
    d=(0.1, -0.2, 0.001, -0.002, 0.03),
    k=(10.0, 0.0, 5.5, 0.0, 11.0, 3.5, 0.0, 0.0, 1.0),
    p=(9.0, 0.0, 5.0, -0.6, 0.0, 9.5, 3.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    binning_x=2,
    binning_y=1,
    roi_x_offset=3,
    roi_y_offset=4,
    roi_width=5,
    roi_height=6,
    roi_do_rectify=True,
    frame_id='cam',
    stamp_ns=T0,
)


def picture(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    coarse = rng.integers(0, 256, (2, 3, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 4, axis=0), 4, axis=1)


def depth(index: int) -> np.ndarray:
    values = np.linspace(0.5, 4.0, 96, dtype=np.float32).reshape(8, 12) + np.float32(index)
    values[0, 0] = np.nan
    return values


def write(
    path: Path,
    storage: str = 'mcap',
    quality: int | None = 95,
    count: int = 5,
    camera: str = '/camera',
    compressed: bool = True,
) -> Path:
    with RecordingWriter(path, storage) as writer:
        fill(writer, quality, count, camera, compressed)
    return path


def fill(
    writer: RecordingWriter,
    quality: int | None = 95,
    count: int = 5,
    camera: str = '/camera',
    compressed: bool = True,
) -> None:
    for index in range(count):
        stamp = T0 + index * STEP_NS
        writer.camera_info(f'{camera}/camera_info', CAMERA)
        writer.image(f'{camera}/image_raw', picture(index), stamp, 'cam', quality)
        writer.depth(f'{camera}/depth/image_rect', depth(index), stamp, 'cam', compressed)


def read_all(path: Path) -> list:
    with open_recording(path) as recording:
        return list(recording.records())


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('quality', [None, 95])
def test_what_is_written_is_read_back(tmp_path, storage, quality):
    path = write(tmp_path / 'bag', storage, quality, compressed=quality is not None)
    with open_recording(path) as recording:
        topics = recording.camera_topics()
        images = list(recording.records([topics.image]))
        depths = [record.content for record in recording.records([topics.depth])]
        assert recording.first(topics.camera_info) == CAMERA
    assert [record.time_ns for record in images] == [T0 + i * STEP_NS for i in range(5)]
    for index, (record, measured) in enumerate(zip(images, depths, strict=True)):
        image = record.content
        assert (image.stamp_ns, image.frame_id) == (T0 + index * STEP_NS, 'cam')
        if quality is None:
            assert isinstance(image, RawImage)
            np.testing.assert_array_equal(decode_raw(image), picture(index))
            np.testing.assert_array_equal(decode_depth(measured), depth(index))
        else:
            assert isinstance(image, CompressedImage)
            error = decode_compressed(image).astype(int) - picture(index)
            assert np.abs(error).mean() < 25.0
            np.testing.assert_allclose(
                decode_compressed_depth(measured), depth(index), atol=0.00051
            )


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_poses_and_scans_survive_the_round_trip(tmp_path, storage):
    pose = np.eye(4)
    pose[:3, :3] = rotation_of(0.1, -0.7, 0.2, 0.3)
    pose[:3, 3] = 1.0, -2.0, 3.0
    scan = LaserScanFields(
        -1.5,
        1.5,
        0.5,
        0.1,
        30.0,
        np.array([1, np.inf, np.nan, 2, 3, 4, 5], np.float32),
        T0,
        'laser',
    )
    with RecordingWriter(tmp_path / 'bag', storage) as writer:
        writer.static_transform([('base_link', 'cam', pose), ('a', 'b', np.eye(4))], T0)
        writer.odometry('/odom', T0 + 1, 'odom', 'base_link', pose)
        writer.scan('/scan', scan)
    contents = {record.topic: record.content for record in read_all(tmp_path / 'bag')}
    static = contents['/tf_static']
    assert isinstance(static, TransformsFields)
    assert [(item.parent, item.child) for item in static.transforms] == [
        ('base_link', 'cam'),
        ('a', 'b'),
    ]
    np.testing.assert_allclose(static.transforms[0].pose, pose, atol=1e-12)
    odometry = contents['/odom']
    assert isinstance(odometry, OdometryFields)
    assert (odometry.frame_id, odometry.child_frame_id) == ('odom', 'base_link')
    assert odometry.stamp_ns == T0 + 1
    np.testing.assert_allclose(odometry.pose, pose, atol=1e-12)
    read = contents['/scan']
    np.testing.assert_array_equal(read.ranges_m, scan.ranges_m)
    assert read.frame_id == 'laser' and read.range_max_m == 30.0
    assert read.angle_increment_rad == 0.5


@pytest.mark.parametrize(
    'quaternion',
    [
        (0.0, 0.0, 0.0, 1.0),
        (1.0, 0.0, 0.0, 0.0),
        (0.0, 1.0, 0.0, 0.0),
        (0.0, 0.0, 1.0, 0.0),
        (0.5, -0.5, 0.5, 0.5),
        (0.1, 0.2, 0.3, -0.9),
    ],
)
def test_rotation_and_quaternion_are_inverse(quaternion):
    rotation = rotation_of(*quaternion)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation_of(*quaternion_of(rotation)), rotation, atol=1e-12)


def test_rotation_about_z_turns_x_to_y():
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        rotation_of(0.0, 0.0, half, half) @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-12
    )
    assert np.isnan(rotation_of(0.0, 0.0, 0.0, 0.0)).all()


def test_latched_transforms_say_so_in_the_metadata(tmp_path):
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        writer.static_transform([('a', 'b', np.eye(4))], T0)
    assert 'durability: transient_local' in (tmp_path / 'bag' / 'metadata.yaml').read_text()


def test_an_existing_path_is_never_overwritten(tmp_path):
    path = tmp_path / 'bag'
    path.mkdir()
    (path / 'precious').write_text('data')
    begun = False
    with pytest.raises(RecordingError, match='never overwritten'), RecordingWriter(path, 'mcap'):
        begun = True
    # Hours of rendering must not be wasted before the refusal.
    assert not begun
    assert (path / 'precious').read_text() == 'data'
    assert [item.name for item in tmp_path.iterdir()] == ['bag']


def test_a_path_that_appears_during_the_writing_is_kept(tmp_path):
    path = tmp_path / 'bag'
    refusal = pytest.raises(RecordingError, match='never overwritten')
    with refusal, RecordingWriter(path, 'mcap') as writer:
        fill(writer)
        path.mkdir()
    assert list(path.iterdir()) == []
    assert [item.name for item in tmp_path.iterdir()] == ['bag']


def test_an_exception_leaves_nothing_behind(tmp_path):
    bag = tmp_path / 'bag'
    with pytest.raises(ZeroDivisionError), RecordingWriter(bag, 'sqlite3') as writer:
        fill(writer)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_visible_before_the_end(tmp_path):
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        fill(writer)
        assert not (tmp_path / 'bag').exists()
    assert sorted(item.name for item in (tmp_path / 'bag').iterdir()) == [
        'bag.mcap',
        'metadata.yaml',
    ]
    assert [item.name for item in tmp_path.iterdir()] == ['bag']


def test_writer_refuses_wrong_use(tmp_path):
    with pytest.raises(RecordingError, match="'mcap' or 'sqlite3'"):
        RecordingWriter(tmp_path / 'bag', 'csv')
    writer = RecordingWriter(tmp_path / 'bag', 'mcap')
    with pytest.raises(RecordingError, match='an open recording'):
        writer.camera_info('/c', CAMERA)
    with pytest.raises(RecordingError, match='/same'), writer:
        writer.camera_info('/same', CAMERA)
        writer.odometry('/same', T0, 'a', 'b', np.eye(4))
    (tmp_path / 'file').write_text('')
    with pytest.raises(RecordingError, match='a disk that can be written'):
        write(tmp_path / 'file' / 'bag')


@pytest.mark.parametrize('storage, suffix', [('mcap', '.mcap'), ('sqlite3', '.db3')])
def test_metadata_is_not_needed(tmp_path, storage, suffix):
    path = write(tmp_path / 'bag', storage)
    whole = [(r.topic, r.time_ns) for r in read_all(path)]
    bare = path / f'bag{suffix}'
    assert [(r.topic, r.time_ns) for r in read_all(bare)] == whole
    (path / 'metadata.yaml').unlink()
    assert [(r.topic, r.time_ns) for r in read_all(path)] == whole
    assert len(whole) == 15


def test_records_come_in_the_order_of_time(tmp_path):
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        for index in (3, 0, 4, 1, 2):
            writer.odometry('/odom', T0 + index * STEP_NS, 'a', 'b', np.eye(4))
            writer.image('/image', picture(0), T0 + index * STEP_NS + 1, 'cam')
    times = [record.time_ns for record in read_all(tmp_path / 'bag')]
    assert times == sorted(times) and len(times) == 10


def write_ros1(path: Path, topic: str = 'raspicam_node/image') -> Path:
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores
    from rosbags.typesys import get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    with Writer(path) as writer:
        info = writer.add_connection(
            '/raspicam_node/camera_info', 'sensor_msgs/msg/CameraInfo', typestore=store
        )
        image = writer.add_connection(topic, 'sensor_msgs/msg/Image', typestore=store)
        for index in range(3):
            stamp = types['builtin_interfaces/msg/Time'](sec=100, nanosec=index * 10)
            header = types['std_msgs/msg/Header'](seq=index, stamp=stamp, frame_id='cam')
            roi = types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
            message = types['sensor_msgs/msg/CameraInfo'](
                header=header,
                height=8,
                width=12,
                distortion_model='plumb_bob',
                D=np.array(CAMERA.d),
                K=np.array(CAMERA.k),
                R=np.array(CAMERA.r),
                P=np.array(CAMERA.p),
                binning_x=0,
                binning_y=0,
                roi=roi,
            )
            time_ns = 100_000_000_000 + index * 10
            writer.write(info, time_ns, store.serialize_ros1(message, info.msgtype))
            message = types['sensor_msgs/msg/Image'](
                header=header,
                height=8,
                width=12,
                encoding='rgb8',
                is_bigendian=0,
                step=36,
                data=picture(index).reshape(-1),
            )
            writer.write(image, time_ns, store.serialize_ros1(message, image.msgtype))
    return path


def test_ros1_recordings_are_read_with_their_capital_matrices(tmp_path):
    path = write_ros1(tmp_path / 'old.bag')
    with open_recording(path) as recording:
        topics = recording.camera_topics(image='/raspicam_node/image')
        assert topics == recording.camera_topics()
        assert topics.image.name == 'raspicam_node/image'
        assert topics.camera_info.name == '/raspicam_node/camera_info'
        camera = recording.first(topics.camera_info)
        images = [record.content for record in recording.records([topics.image])]
    assert (camera.d, camera.k, camera.p) == (CAMERA.d, CAMERA.k, CAMERA.p)
    assert [image.stamp_ns - 100_000_000_000 for image in images] == [0, 10, 20]
    np.testing.assert_array_equal(decode_raw(images[2]), picture(2))


def test_two_cameras_are_not_guessed(tmp_path):
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        fill(writer, count=2, camera='/left')
        fill(writer, count=3, camera='/right')
    with open_recording(tmp_path / 'bag') as recording:
        with pytest.raises(RecordingError) as caught:
            recording.camera_topics()
        assert '/left/image_raw/compressed (sensor_msgs/msg/CompressedImage, 2)' in str(
            caught.value
        )
        assert '/right/image_raw/compressed (sensor_msgs/msg/CompressedImage, 3)' in str(
            caught.value
        )
        # The depth is still ambiguous, the camera_info is found beside the image.
        with pytest.raises(RecordingError, match='depth topic'):
            recording.camera_topics(image='left/image_raw')
        chosen = recording.camera_topics(image='left/image_raw', depth='')
        assert chosen.camera_info.name == '/left/camera_info' and chosen.depth is None
        chosen = recording.camera_topics(
            '/right/image_raw/compressed', depth='right/depth/image_rect'
        )
        assert chosen.image.count == 3
        assert chosen.depth.name == '/right/depth/image_rect/compressedDepth'


def test_topics_without_messages_do_not_confuse_the_choice(tmp_path):
    with RecordingWriter(tmp_path / 'bag', 'sqlite3') as writer:
        fill(writer, count=1, camera='/left')
        fill(writer, count=1, camera='/right')
    file = tmp_path / 'bag' / 'bag.db3'
    with sqlite3.connect(file) as database:
        database.execute(
            'DELETE FROM messages WHERE topic_id IN '
            "(SELECT id FROM topics WHERE name LIKE '/right%')"
        )
    with open_recording(file) as recording:
        assert recording.camera_topics().image.namespace == 'left'


def test_a_topic_that_is_not_there_is_named_with_those_that_are(tmp_path):
    path = write(tmp_path / 'bag')
    with open_recording(path) as recording:
        for wanted in ({'image': '/nope'}, {'camera_info': 'nope'}, {'depth': '/nope'}):
            with pytest.raises(RecordingError, match=r"nope'.*/camera/image_raw/compressed"):
                recording.camera_topics(**wanted)
        with pytest.raises(RecordingError, match='no image topic'):
            recording.camera_topics(image='/camera/depth/image_rect')


def test_raw_images_go_before_compressed_ones_of_the_same_camera(tmp_path):
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        fill(writer, quality=90, compressed=True)
        fill(writer, quality=None, compressed=False)
    with open_recording(tmp_path / 'bag') as recording:
        topics = recording.camera_topics()
    assert topics.image.name == '/camera/image_raw'
    assert topics.depth.name == '/camera/depth/image_rect'


def test_raw_depth_is_told_from_colour_by_its_encoding(tmp_path):
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        writer.image('/a', picture(0), T0, 'cam')
        writer.depth('/b', depth(0), T0, 'cam', compressed=False)
    with open_recording(tmp_path / 'bag') as recording:
        topics = recording.camera_topics()
    assert (topics.image.name, topics.depth.name) == ('/a', '/b')
    assert topics.camera_info is None


def test_a_recording_without_images_lists_what_it_has(tmp_path):
    with RecordingWriter(tmp_path / 'bag', 'mcap') as writer:
        writer.odometry('/odom', T0, 'a', 'b', np.eye(4))
    refusal = pytest.raises(RecordingError, match=r'no images.*/odom \(nav_msgs/msg/Odometry, 1\)')
    with open_recording(tmp_path / 'bag') as recording, refusal:
        recording.camera_topics()


@pytest.mark.parametrize('storage, suffix', [('mcap', '.mcap'), ('sqlite3', '.db3')])
@pytest.mark.parametrize('share', [0.0, 0.02, 0.5, 0.9])
def test_a_recording_that_was_cut_short_is_one_clear_error(tmp_path, storage, suffix, share):
    path = write(tmp_path / 'bag', storage, quality=None, count=20, compressed=False)
    file = path / f'bag{suffix}'
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    for target in (path, file):
        with pytest.raises(RecordingError, match='damaged') as caught:
            read_all(target)
        assert 'recover' in str(caught.value) and str(target) in str(caught.value)


def test_a_cut_ros1_recording_is_one_clear_error(tmp_path):
    path = write_ros1(tmp_path / 'old.bag')
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RecordingError, match='rosbag reindex'):
        read_all(path)


@pytest.mark.parametrize('storage, suffix', [('mcap', '.mcap'), ('sqlite3', '.db3')])
def test_random_damage_raises_nothing_but_recording_errors(tmp_path, storage, suffix):
    path = write(tmp_path / 'bag', storage, count=4)
    good = (path / f'bag{suffix}').read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(60):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), 40):
            bad[place] = int(rng.integers(0, 256))
        (path / f'bag{suffix}').write_bytes(bad)
        try:
            read_all(path)
        except RecordingError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize('name', ['notes.txt', 'notes.mcap', 'notes.db3', 'notes.bag'])
def test_a_text_file_is_refused_with_what_was_expected(tmp_path, name):
    (tmp_path / name).write_text('these are my notes\n' * 100)
    with pytest.raises(RecordingError, match=r'a rosbag2 folder, an \.mcap or \.db3 file'):
        read_all(tmp_path / name)


def test_missing_empty_and_special_paths_are_refused(tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(RecordingError, match='No such file'):
        read_all(tmp_path / 'nothing')
    with pytest.raises(RecordingError, match=r'without metadata\.yaml'):
        read_all(tmp_path / 'empty')
    with pytest.raises(RecordingError, match='another kind'):
        read_all(Path('/dev/null'))
    # A pipe with a believable name would block its reader for ever.
    os.mkfifo(tmp_path / 'pipe.bag')
    with pytest.raises(RecordingError, match='another kind'):
        read_all(tmp_path / 'pipe.bag')


@pytest.mark.parametrize('text', ['', 'a: [', 'rosbag2_bagfile_information: 3', '- 1\n- 2\n'])
def test_broken_metadata_is_one_clear_error(tmp_path, text):
    path = write(tmp_path / 'bag')
    (path / 'metadata.yaml').write_text(text)
    with pytest.raises(RecordingError, match='recording'):
        read_all(path)


def test_a_missing_storage_file_is_one_clear_error(tmp_path):
    path = write(tmp_path / 'bag')
    (path / 'bag.mcap').unlink()
    with pytest.raises(RecordingError, match='missing'):
        read_all(path)


def test_without_rosbags_the_install_command_is_named(tmp_path, monkeypatch):
    import sys

    from depth_node.errors import MissingPackage

    path = write(tmp_path / 'bag')
    for name in [name for name in sys.modules if name.split('.')[0] == 'rosbags']:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage, match='pip install rosbags'):
        read_all(path)
    with pytest.raises(MissingPackage, match='pip install rosbags'):
        RecordingWriter(tmp_path / 'other', 'mcap')


def test_several_bare_files_of_a_folder_are_read_as_one(tmp_path):
    first, second = write(tmp_path / 'one', count=2), tmp_path / 'two'
    with RecordingWriter(second, 'mcap') as writer:
        writer.odometry('/odom', T0 + 1, 'a', 'b', np.eye(4))
    folder = tmp_path / 'bare'
    folder.mkdir()
    shutil.copy(first / 'one.mcap', folder / 'a.mcap')
    shutil.copy(second / 'two.mcap', folder / 'b.mcap')
    records = read_all(folder)
    assert [record.time_ns for record in records] == sorted(record.time_ns for record in records)
    assert sum(record.topic == '/odom' for record in records) == 1
    assert len(records) == 7
