"""What is readable before damage is read, what is damaged is left out, and both are said."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import tracemalloc
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from depth_node.dataset.audit_recording import audit_recording
from depth_node.errors import RecordingError
from depth_node.image_codec import decode_raw
from depth_node.recording import open_recording
from depth_node.recording import salvage
from depth_node.recording.chunk_codecs import decompressed_file
from depth_node.recording.stored import Damage
from depth_node.recording.writer import RecordingWriter

rosbags = pytest.importorskip('rosbags')

T0 = 1_700_000_000_000_000_000
STEP_NS = 50_000_000
COUNT = 120


def picture(index: int) -> np.ndarray:
    """Noise does not compress, so that the size of a file grows evenly."""
    return np.random.default_rng(index).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def stamp(index: int) -> int:
    return T0 + index * STEP_NS


def write(path: Path, storage: str, count: int = COUNT) -> Path:
    with RecordingWriter(path, storage) as writer:
        writer.static_transform([('base_link', 'camera', np.eye(4))], T0)
        for index in range(count):
            writer.odometry('/odom', stamp(index), 'odom', 'base_link', np.eye(4))
            writer.image('/camera/image_raw', picture(index), stamp(index), 'camera')
    return path / f'{path.name}{".mcap" if storage == "mcap" else ".db3"}'


def write_compressed(path: Path, mode: str, storage: str = 'MCAP') -> Path:
    """Write images with rosbags itself, compressed as rosbag2 would."""
    from rosbags.rosbag2 import CompressionFormat
    from rosbags.rosbag2 import CompressionMode
    from rosbags.rosbag2 import StoragePlugin
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores
    from rosbags.typesys import get_typestore

    from depth_node.recording.factory import MessageFactory

    store = get_typestore(Stores.ROS2_JAZZY)
    make = MessageFactory(store.types)
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage])
    writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(
            '/camera/image_raw', 'sensor_msgs/msg/Image', typestore=store
        )
        for index in range(COUNT):
            message = make.raw_image(picture(index), 'rgb8', stamp(index), 'camera')
            data = store.serialize_cdr(message, connection.msgtype)
            writer.write(connection, stamp(index), data)
    return next(item for item in path.iterdir() if item.name != 'metadata.yaml')


def cut(file: Path, share: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def images(path: Path) -> tuple[list[int], str]:
    """Return the numbers of the images that are read, each compared with what was written."""
    numbers = []
    with open_recording(path, salvage=True) as recording:
        for record in recording.records():
            if record.topic == '/camera/image_raw':
                number, rest = divmod(record.time_ns - T0, STEP_NS)
                assert rest == 0 and record.content.stamp_ns == record.time_ns
                np.testing.assert_array_equal(decode_raw(record.content), picture(number))
                numbers.append(number)
        return numbers, recording.damage


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_whole_recording_has_no_damage(tmp_path, storage):
    write(tmp_path / 'bag', storage, count=5)
    assert images(tmp_path / 'bag') == ([0, 1, 2, 3, 4], '')


@pytest.mark.parametrize('share', [0.3, 0.7, 0.95])
@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_everything_before_the_cut_is_read(tmp_path, storage, share):
    file = write(tmp_path / 'bag', storage)
    cut(file, share)
    with pytest.raises(RecordingError, match='damaged'), open_recording(file):
        pass
    for target in (tmp_path / 'bag', file):
        numbers, damage = images(target)
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= (share - 0.05) * COUNT
        assert 'messages over' in damage and 'recover' in damage
    (tmp_path / 'bag' / 'metadata.yaml').unlink()
    assert images(tmp_path / 'bag')[0] == numbers


@pytest.mark.parametrize('share', [0.3, 0.7, 0.95])
def test_a_cut_recording_of_zstd_chunks_is_read_up_to_the_cut(tmp_path, share):
    file = write_compressed(tmp_path / 'bag', 'STORAGE')
    assert images(tmp_path / 'bag') == (list(range(COUNT)), '')
    cut(file, share)
    numbers, damage = images(tmp_path / 'bag')
    assert numbers == list(range(len(numbers))) and len(numbers) >= (share - 0.1) * COUNT
    assert 'cut off' in damage


@pytest.mark.parametrize('storage', ['MCAP', 'SQLITE3'])
@pytest.mark.parametrize('mode', ['MESSAGE', 'FILE'])
def test_a_cut_recording_of_compressed_messages_or_files_is_read(tmp_path, mode, storage):
    file = write_compressed(tmp_path / 'bag', mode, storage)
    cut(file, 0.7)
    numbers, damage = images(tmp_path / 'bag')
    assert numbers == list(range(len(numbers))) and len(numbers) >= 0.6 * COUNT
    assert damage


def with_checksums(file: Path) -> list[int]:
    """Give every chunk its CRC, which rosbags leaves out; return where the chunks begin."""
    from backports import zstd

    data = bytearray(file.read_bytes())
    at, chunks = 8, []
    while data[at] != 0x0F:
        (length,) = struct.unpack_from('<Q', data, at + 1)
        if data[at] == 0x06:
            chunks.append(at)
            packed = data[at + 9 + 40 + len('zstd') : at + 9 + length]
            struct.pack_into('<I', data, at + 9 + 24, crc32(zstd.decompress(bytes(packed))))
        at += 9 + length
    file.write_bytes(data)
    return chunks


@pytest.mark.parametrize('place', [9 + 24, 4000])
def test_a_chunk_with_a_wrong_checksum_or_wrong_data_is_left_out_and_counted(tmp_path, place):
    file = write_compressed(tmp_path / 'bag', 'STORAGE')
    chunks = with_checksums(file)
    assert images(file) == (list(range(COUNT)), '')
    data = bytearray(file.read_bytes())
    data[chunks[0] + place] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(RecordingError), open_recording(file) as recording:
        list(recording.records())
    for target in (file, tmp_path / 'bag'):
        numbers, damage = images(target)
        assert numbers == list(range(COUNT - len(numbers), COUNT))
        assert 0 < len(numbers) < COUNT
        assert '1 damaged chunks were left out' in damage


def test_rows_behind_a_damaged_page_are_read(tmp_path):
    file = write(tmp_path / 'bag', 'sqlite3')
    data = bytearray(file.read_bytes())
    # A leaf of the table of messages: type 13, somewhere in the middle.
    pages = [at for at in range(0, len(data), 4096) if data[at] == 13]
    data[pages[len(pages) // 2] : pages[len(pages) // 2] + 64] = b'\xff' * 64
    file.write_bytes(data)
    numbers, damage = images(file)
    assert numbers == sorted(set(numbers)) and COUNT // 2 < len(numbers) < COUNT
    assert numbers[-1] == COUNT - 1
    assert '1 places could not be read' in damage


def test_a_message_that_cannot_be_decoded_is_left_out(tmp_path):
    file = write(tmp_path / 'bag', 'sqlite3', count=10)
    with sqlite3.connect(file) as database:
        database.execute("UPDATE messages SET data = x'0001000000' WHERE id = 5")
    with pytest.raises(RecordingError), open_recording(file) as recording:
        list(recording.records())
    numbers, damage = images(file)
    assert len(numbers) == 9
    assert damage == '1 messages could not be decoded and were left out.'


def test_of_a_split_recording_all_files_are_read(tmp_path):
    whole, half = write(tmp_path / 'one', 'mcap', 20), tmp_path / 'bag'
    half.mkdir()
    shutil.copy(whole, half / 'bag_0.mcap')
    with RecordingWriter(tmp_path / 'two', 'mcap') as writer:
        for index in range(20, 60):
            writer.image('/camera/image_raw', picture(index), stamp(index), 'camera')
    shutil.copy(tmp_path / 'two' / 'two.mcap', half / 'bag_1.mcap')
    cut(half / 'bag_1.mcap', 0.5)
    numbers, damage = images(half)
    assert numbers == list(range(len(numbers))) and 36 <= len(numbers) < 60
    assert 'bag_1.mcap' in damage and 'bag_0.mcap' not in damage


def write_ros1(path: Path, compression: str | None) -> None:
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores
    from rosbags.typesys import get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    writer = Writer(path)
    if compression:
        writer.set_compression(Writer.CompressionFormat[compression])
    with writer:
        kind = 'sensor_msgs/msg/Image'
        connection = writer.add_connection('/camera/image_raw', kind, typestore=store)
        for index in range(COUNT):
            sec, nanosec = divmod(stamp(index), 1_000_000_000)
            time = types['builtin_interfaces/msg/Time'](sec=sec, nanosec=nanosec)
            header = types['std_msgs/msg/Header'](seq=index, stamp=time, frame_id='camera')
            data = picture(index)
            message = types[kind](header, 60, 80, 'rgb8', 0, 240, data.reshape(-1))
            writer.write(connection, stamp(index), store.serialize_ros1(message, kind))


@pytest.mark.parametrize(
    'compression, share',
    # of bz2 nothing comes of a block that is not whole
    [(None, 0.3), (None, 0.95), ('LZ4', 0.3), ('LZ4', 0.95), ('BZ2', 0.95)],
)
def test_ros1_recordings_without_their_index_are_read(tmp_path, compression, share):
    file = tmp_path / 'old.bag'
    write_ros1(file, compression)
    cut(file, share)
    with pytest.raises(RecordingError, match='reindex'), open_recording(file):
        pass
    numbers, damage = images(file)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= (share - (0.5 if compression == 'BZ2' else 0.1)) * COUNT
    assert 'rosbag reindex' in damage


@pytest.mark.parametrize('name', ['bag.mcap', 'bag.db3', 'bag.bag'])
@pytest.mark.parametrize('data', [b'', b'these are my notes\n' * 100])
def test_nothing_readable_is_refused_in_one_sentence(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecordingError, match='nothing that can be read'):
        images(tmp_path / name)
    with pytest.raises(RecordingError, match='No such file'):
        images(tmp_path / 'missing.mcap')
    (tmp_path / 'notes.txt').write_bytes(data)
    with pytest.raises(RecordingError, match='another kind'):
        images(tmp_path / 'notes.txt')


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_random_damage_raises_nothing_but_recording_errors(tmp_path, storage):
    file = write(tmp_path / 'bag', storage, count=20)
    good = file.read_bytes()
    rng = np.random.default_rng(5)
    read = 0
    for _ in range(15):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), 20):
            bad[place] ^= int(rng.integers(1, 256))
        file.write_bytes(bad)
        try:
            with open_recording(file, salvage=True) as recording:
                read += len(list(recording.records()))
        except RecordingError:
            continue
    assert read > 50


def test_with_checksums_no_wrong_picture_is_read(tmp_path):
    file = write_compressed(tmp_path / 'bag', 'STORAGE')
    with_checksums(file)
    good = file.read_bytes()
    rng = np.random.default_rng(6)
    for _ in range(8):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), 1):
            bad[place] ^= int(rng.integers(1, 256))
        file.write_bytes(bad)
        numbers, _ = images(file)  # compares every picture
        assert numbers


def failing(monkeypatch, after: int) -> None:
    """Let rosbags stumble once it has read some messages."""
    from rosbags.highlevel import AnyReader

    messages = AnyReader.messages

    def torn(self, *args, **named):
        for number, item in enumerate(messages(self, *args, **named)):
            if number == after:
                raise ValueError('a damaged chunk')
            yield item

    monkeypatch.setattr(AnyReader, 'messages', torn)


@pytest.mark.parametrize('after', [1, 2, 4])
def test_messages_of_one_time_survive_damage_between_them(tmp_path, monkeypatch, after):
    file = write(tmp_path / 'bag', 'mcap', 5)
    with open_recording(file) as recording:
        whole = [(record.topic, record.time_ns) for record in recording.records()]
    failing(monkeypatch, after)
    with open_recording(file, salvage=True) as recording:
        assert [(record.topic, record.time_ns) for record in recording.records()] == whole


def test_where_nothing_can_be_salvaged_the_refusal_is_what_is_raised(tmp_path, monkeypatch):
    file = write(tmp_path / 'bag', 'mcap', 5)
    failing(monkeypatch, 1)
    with (
        pytest.raises(RecordingError, match='nothing that can be read'),
        open_recording(file, salvage=True) as recording,
    ):
        for record in recording.records():
            assert record
            file.write_bytes(b'gone')


def test_a_record_time_that_no_clock_shows_is_damage(tmp_path):
    file = write(tmp_path / 'bag', 'mcap', 20)
    data = file.read_bytes().replace(struct.pack('<Q', stamp(3)), struct.pack('<Q', 2**64 - 1))
    file.write_bytes(data[: int(0.8 * len(data))])
    numbers, damage = images(file)
    assert numbers == [number for number in range(len(numbers) + 1) if number != 3]
    assert '2 messages could not be decoded' in damage
    assert audit_recording(file).frames == len(numbers)


def test_unpacking_a_file_takes_no_more_memory_than_a_block(tmp_path):
    from backports import zstd

    packed, plain, damage = tmp_path / 'zeros.zstd', tmp_path / 'zeros', Damage()
    packed.write_bytes(zstd.compress(bytes(200 << 20)))
    tracemalloc.start()
    decompressed_file(packed, plain, damage)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plain.stat().st_size == 200 << 20 and not str(damage)
    assert peak < 20 << 20


def test_a_path_that_is_too_long_or_may_not_be_read_is_refused_in_a_sentence(
    tmp_path, monkeypatch
):
    with pytest.raises(RecordingError), open_recording('x' * 300 + '.mcap', salvage=True):
        pass
    write(tmp_path / 'bag', 'mcap', 2)

    def locked(self):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'iterdir', locked)
    (tmp_path / 'bag' / 'metadata.yaml').unlink()
    with pytest.raises(RecordingError), open_recording(tmp_path / 'bag', salvage=True):
        pass


def test_a_file_that_cannot_be_unpacked_is_said_in_a_sentence(tmp_path, monkeypatch):
    (tmp_path / 'bag.mcap.zstd').write_bytes(b'packed')

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(salvage, 'decompressed_file', full)
    with (
        pytest.raises(RecordingError, match='No space left'),
        open_recording(tmp_path, salvage=True),
    ):
        pass


def test_topics_that_are_no_text_are_left_out(tmp_path):
    file = write(tmp_path / 'bag', 'sqlite3', count=10)
    with sqlite3.connect(file) as database:
        database.execute("UPDATE topics SET name = x'00ff' WHERE name = '/odom'")
    numbers, damage = images(file)
    assert numbers == list(range(10)) and '10 places could not be read' in damage


def test_a_database_that_cannot_be_opened_is_said_in_a_sentence(tmp_path, monkeypatch):
    cut(write(tmp_path / 'bag', 'sqlite3', count=10), 0.5)

    def refuse(*args, **named):
        raise sqlite3.OperationalError('unable to open database file')

    monkeypatch.setattr(sqlite3, 'connect', refuse)
    with pytest.raises(RecordingError, match='unable to open'):
        images(tmp_path / 'bag')


def test_of_a_split_recording_few_files_are_open_at_once(tmp_path, monkeypatch):
    parts = tmp_path / 'parts'
    parts.mkdir()
    for part in range(12):
        with RecordingWriter(tmp_path / f'{part}', 'mcap') as writer:
            for index in range(2 * part, 2 * part + 2):
                writer.image('/camera/image_raw', picture(index), stamp(index), 'camera')
        shutil.copy(tmp_path / f'{part}' / f'{part}.mcap', parts / f'bag_{part}.mcap')
    cut(parts / 'bag_11.mcap', 0.7)
    read, now, most = salvage._READERS['.mcap'], [0], [0]

    def noted(path, damage):
        now[0] += 1
        most[0] = max(most[0], now[0])
        try:
            yield from read(path, damage)
        finally:
            now[0] -= 1

    monkeypatch.setitem(salvage._READERS, '.mcap', noted)
    numbers, damage = images(parts)
    assert numbers[:22] == list(range(22)) and 'bag_11' in damage
    assert now[0] == 0 and most[0] <= 2
