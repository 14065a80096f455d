"""IMU and point clouds of recordings, and clouds whose layout does not add up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from depth_node.errors import RecordingError
from depth_node.frames import PointField
from depth_node.recording import open_recording
from depth_node.recording.messages import PointCloudFields
from depth_node.recording.points import points_m
from depth_node.recording.writer import RecordingWriter

pytest.importorskip('rosbags')

T0 = 1_700_000_000_000_000_007
POINTS = np.array([[1.0, 2.0, 3.0], [-4.0, 5.5, 0.25], [7.0, 8.0, 9.0], [0.5, 0.0, -1.0]])


def cloud(kind='<f4', step=20, offsets=(4, 8, 12), rows=2, padding=0, points=POINTS):
    """Pack points, rows of equal length, with bytes between them that mean nothing."""
    columns = len(points) // rows
    data = bytearray(b'\x99' * (rows * (columns * step + padding)))
    for index, point in enumerate(points):
        at = (index // columns) * (columns * step + padding) + (index % columns) * step
        for offset, value in zip(offsets, point, strict=True):
            packed = np.array(value, dtype=kind).tobytes()
            data[at + offset : at + offset + len(packed)] = packed
    datatype = 8 if kind.endswith('8') else 7
    fields = tuple(PointField(n, o, datatype) for n, o in zip('xyz', offsets, strict=True))
    fields = (PointField('ring', 0, 4), *fields)
    row = columns * step + padding
    return PointCloudFields(
        rows, columns, fields, kind[0] == '>', step, row, bytes(data), T0, 'lidar'
    )


@pytest.mark.parametrize('kind, step, offsets', [
    ('<f4', 20, (4, 8, 12)),
    ('>f4', 17, (5, 9, 1)),
    ('<f8', 32, (8, 16, 24)),
    ('>f8', 25, (1, 9, 17)),
])  # fmt: skip
@pytest.mark.parametrize('rows, padding', [(1, 0), (2, 3)])
def test_points_are_read_in_any_layout(kind, step, offsets, rows, padding):
    found = points_m(cloud(kind, step, offsets, rows, padding))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, POINTS)


def test_points_that_mean_nothing_are_left_out():
    points = POINTS.copy()
    points[0, 1], points[2] = np.nan, 0.0
    np.testing.assert_array_equal(points_m(cloud(points=points)), points[[1, 3]])
    points[1, 0] = np.inf
    assert len(points_m(cloud(points=points))) == 1
    empty = replace(cloud(), width=0, data=b'')
    assert points_m(empty).shape == (0, 3)


GOOD = cloud()
FIELDS = GOOD.fields


@pytest.mark.parametrize(
    'change, said',
    [
        ({'data': GOOD.data[:-1]}, '79 bytes'),
        ({'point_step': 0}, 'point_step 0'),
        ({'row_step': 39}, 'row_step 39'),
        ({'width': -2}, '-2 x 2 points'),
        ({'width': 2**31, 'height': 2**31}, '2147483648 x 2147483648'),
        ({'fields': FIELDS[:3]}, "a field 'z'"),
        ({'fields': (*FIELDS[:3], replace(FIELDS[3], datatype=5))}, 'datatype 5'),
        ({'fields': (*FIELDS[:3], replace(FIELDS[3], count=3))}, 'count 3'),
        ({'fields': (*FIELDS[:3], replace(FIELDS[3], offset=17))}, 'offset 17'),
        ({'fields': (*FIELDS[:3], replace(FIELDS[3], offset=-1))}, 'offset -1'),
        ({'point_step': 15, 'row_step': 30}, 'offset 12'),
    ],
)
def test_clouds_that_contradict_themselves_are_refused(change, said):
    with pytest.raises(RecordingError, match=said):
        points_m(replace(GOOD, **change))


@pytest.mark.parametrize('ros1', [False, True])
def test_imu_and_clouds_are_read_from_both_generations(tmp_path, ros1):
    from rosbags.rosbag1 import Writer as Writer1
    from rosbags.rosbag2 import Writer as Writer2
    from rosbags.typesys import Stores
    from rosbags.typesys import get_typestore

    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_JAZZY)
    types = store.types
    time = types['builtin_interfaces/msg/Time'](*divmod(T0, 1_000_000_000))
    seq = {'seq': 1} if ros1 else {}
    header = types['std_msgs/msg/Header'](stamp=time, frame_id='sensor', **seq)
    vector, quaternion = types['geometry_msgs/msg/Vector3'], types['geometry_msgs/msg/Quaternion']
    none = np.zeros(9)
    none[0] = -1.0
    imu = types['sensor_msgs/msg/Imu'](
        header, quaternion(0, 0, 0, 1), np.zeros(9), vector(0.1, -0.2, 0.3), np.zeros(9),
        vector(9.0, 9.0, 9.0), none,
    )  # fmt: skip
    field = types['sensor_msgs/msg/PointField']
    fields = [field(item.name, item.offset, item.datatype, 1) for item in FIELDS]
    data = np.frombuffer(GOOD.data, np.uint8)
    points = types['sensor_msgs/msg/PointCloud2'](
        header, 2, 2, fields, False, GOOD.point_step, GOOD.row_step, data, True
    )
    path = tmp_path / ('old.bag' if ros1 else 'bag')
    with Writer1(path) if ros1 else Writer2(path, version=9) as writer:
        for topic, message in (('/imu', imu), ('/points', points)):
            kind = message.__msgtype__
            connection = writer.add_connection(topic, kind, typestore=store)
            packed = store.serialize_ros1 if ros1 else store.serialize_cdr
            writer.write(connection, T0, packed(message, kind))
    with open_recording(path) as recording:
        contents = {record.topic: record.content for record in recording.records()}
    assert contents['/imu'].stamp_ns == T0 and contents['/imu'].frame_id == 'sensor'
    np.testing.assert_array_equal(contents['/imu'].angular_velocity_rad_s, [0.1, -0.2, 0.3])
    assert np.isnan(contents['/imu'].linear_acceleration_m_s2).all()
    np.testing.assert_array_equal(points_m(contents['/points']), POINTS)
    assert contents['/points'].stamp_ns == T0


def test_a_disk_that_refuses_a_new_recording_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    from rosbags.rosbag2 import Writer

    def full(self):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Writer, 'open', full)
    with (
        pytest.raises(RecordingError, match='No space left'),
        RecordingWriter(tmp_path / 'bag', 'mcap'),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
