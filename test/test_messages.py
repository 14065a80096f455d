from __future__ import annotations

import sys
from array import array

import numpy as np
import pytest

pytest.importorskip('sensor_msgs')

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header

from depth_node.byte_arrays import float_image
from depth_node.cloud import CloudPacker
from depth_node.errors import RecordingError
from depth_node.frames import CameraModel
from depth_node.frames import DepthFrame
from depth_node.ros import messages
from depth_node.ros import serialized
from depth_node.ros.camera_messages import time_message

HEADER = Header(stamp=Time(sec=12, nanosec=345), frame_id='camera_optical_frame')
CAMERA = CameraModel(4, 3, 5.0, 6.0, 1.5, 1.25)


def frame(**changes):
    values = {
        'depth_m': np.arange(12, dtype=np.float32).reshape(3, 4) + 1,
        'camera': CAMERA,
        'rgb': np.zeros((3, 4, 3), np.uint8),
        'stamp_ns': 12_000_000_345,
        'frame_id': 'camera_optical_frame',
    }
    return DepthFrame(**{**values, **changes})


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def test_the_pixels_of_an_image_are_not_copied():
    message = Image(
        header=HEADER, height=3, width=4, encoding='mono8', is_bigendian=1, step=5,
        data=array('B', range(15)),
    )  # fmt: skip
    image = messages.raw_image(message)
    assert (image.height, image.width, image.encoding) == (3, 4, 'mono8')
    assert (image.is_bigendian, image.step) == (1, 5)
    assert (image.stamp_ns, image.frame_id) == (12_000_000_345, 'camera_optical_frame')
    message.data[7] = 99
    assert image.data[7] == 99
    assert len(image.data) == 15


def test_the_bytes_of_a_compressed_image_are_not_copied():
    message = CompressedImage(header=HEADER, format='jpeg', data=array('B', b'abc'))
    image = messages.compressed_image(message)
    assert (image.format, bytes(image.data)) == ('jpeg', b'abc')
    message.data[0] = 120
    assert bytes(image.data) == b'xbc'


def test_every_field_of_a_camera_info_is_taken_over():
    message = over_the_wire(
        CameraInfo(
            header=HEADER, width=640, height=480, distortion_model='rational_polynomial',
            d=[0.1 * n for n in range(8)], k=[float(n) for n in range(9)],
            r=[float(n) for n in range(10, 19)], p=[float(n) for n in range(20, 32)],
            binning_x=2, binning_y=3,
            roi=RegionOfInterest(x_offset=4, y_offset=5, width=6, height=7, do_rectify=True),
        )
    )  # fmt: skip
    fields = messages.camera_fields(message)
    assert (fields.width, fields.height) == (640, 480)
    assert fields.distortion_model == 'rational_polynomial'
    assert fields.d == pytest.approx([0.1 * n for n in range(8)])
    assert fields.k == tuple(range(9))
    assert fields.r == tuple(range(10, 19))
    assert fields.p == tuple(range(20, 32))
    assert (fields.binning_x, fields.binning_y) == (2, 3)
    assert (fields.roi_x_offset, fields.roi_y_offset) == (4, 5)
    assert (fields.roi_width, fields.roi_height) == (6, 7)
    assert fields.roi_do_rectify is True
    assert (fields.frame_id, fields.stamp_ns) == ('camera_optical_frame', 12_000_000_345)
    assert all(type(value) is float for value in fields.k + fields.d)


def test_depth_goes_out_as_32fc1_metres_with_nan_and_inf_unchanged():
    depth_m = frame().depth_m
    depth_m[0, 1], depth_m[2, 3] = np.nan, np.inf
    message = over_the_wire(messages.depth_message(frame(depth_m=depth_m)))
    assert (message.height, message.width, message.step) == (3, 4, 16)
    assert message.encoding == '32FC1'
    assert message.is_bigendian == (sys.byteorder == 'big')
    assert message.header == HEADER
    received = np.frombuffer(message.data, np.float32).reshape(3, 4)
    np.testing.assert_array_equal(received, depth_m)


def test_strided_depth_goes_out_row_by_row():
    wide = np.arange(24, dtype=np.float32).reshape(3, 8)
    message = messages.depth_message(frame(depth_m=wide[:, 2:6]))
    received = np.frombuffer(message.data, np.float32).reshape(3, 4)
    np.testing.assert_array_equal(received, wide[:, 2:6])


def test_a_depth_image_in_an_array_of_bytes_goes_out_without_a_copy():
    depth_m = float_image(3, 4)
    message = messages.depth_message(frame(depth_m=depth_m))
    depth_m[2, 3] = 7.5
    assert np.frombuffer(message.data, np.float32).reshape(3, 4)[2, 3] == 7.5


@pytest.mark.parametrize('part', [np.s_[:2], np.s_[:, :2], np.s_[::-1], np.s_[:, ::-1]], ids=str)
def test_a_part_or_another_order_of_such_an_image_goes_out_as_what_it_is(part):
    depth_m = float_image(3, 4)
    depth_m[...] = np.arange(12).reshape(3, 4)
    message = messages.depth_message(frame(depth_m=depth_m[part]))
    assert np.frombuffer(message.data, np.float32).tolist() == depth_m[part].ravel().tolist()


def test_a_cloud_goes_out_without_a_copy():
    packed = CloudPacker(CAMERA, organized=True, color=True, stride=1).pack(
        frame().depth_m, frame().rgb
    )
    assert messages.cloud_message(packed, frame()).data is packed.data


def test_the_data_is_an_array_of_bytes_and_passes_the_checks_of_rclpy(monkeypatch):
    message = messages.depth_message(frame())
    assert isinstance(message.data, array) and message.data.typecode == 'B'
    strict = (
        Image(check_fields=True) if 'check_fields' in Image.__init__.__code__.co_names else None
    )
    if strict is not None:
        strict.data = message.data


def test_the_camera_of_the_depth_has_no_distortion_and_k_equals_p():
    message = over_the_wire(messages.camera_info_message(frame()))
    assert (message.width, message.height) == (4, 3)
    assert message.header == HEADER
    assert message.distortion_model == 'plumb_bob'
    assert list(message.d) == [0.0] * 5
    assert list(message.k) == [5.0, 0.0, 1.5, 0.0, 6.0, 1.25, 0.0, 0.0, 1.0]
    assert list(message.r) == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    assert list(message.p) == [5.0, 0.0, 1.5, 0.0, 0.0, 6.0, 1.25, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert messages.camera_fields(message).p[:3] == tuple(message.k[:3])


@pytest.mark.parametrize('color', [True, False])
@pytest.mark.parametrize('organized', [True, False])
def test_a_cloud_has_no_row_padding_and_the_points_of_the_packer(color, organized):
    given = frame()
    given.depth_m[1, 1] = np.nan
    packed = CloudPacker(CAMERA, organized=organized, color=color, stride=1).pack(
        given.depth_m, given.rgb
    )
    message = over_the_wire(messages.cloud_message(packed, given))
    assert isinstance(message, PointCloud2)
    assert message.header == HEADER
    assert message.row_step == message.width * message.point_step
    assert len(message.data) == message.height * message.row_step
    assert [item.name for item in message.fields] == ['x', 'y', 'z', *(['rgb'] if color else [])]
    assert message.width * message.height == (12 if organized else 11)
    z = np.frombuffer(message.data, np.float32).reshape(-1, message.point_step // 4)[:, 2]
    assert z[0] == 1.0 and np.nanmax(z) == 12.0


def test_stamps_before_the_epoch_and_large_ones_survive():
    for stamp_ns in (-(2**31) * 10**9, -1, 0, 2**31 * 10**9 - 1):
        header = messages.header(frame(stamp_ns=stamp_ns))
        assert messages.stamp_ns(header) == stamp_ns


def test_a_hostile_stamp_at_the_end_of_time_goes_out_as_it_came():
    came = Header(stamp=Time(sec=2**31 - 1, nanosec=2**32 - 1))
    message = messages.depth_message(frame(stamp_ns=messages.stamp_ns(came)))
    assert over_the_wire(message).header.stamp == came.stamp


@pytest.mark.parametrize('stamp_ns', [-(2**31) * 10**9 - 1, (2**32 - 1) * 10**9])
def test_a_recorded_stamp_that_no_message_can_hold_is_refused_with_a_sentence(stamp_ns):
    with pytest.raises(RecordingError, match='1902 to 2038'):
        serialized.with_stamp(serialize_message(Image()), stamp_ns)
    with pytest.raises(RecordingError, match='1902 to 2038'):
        time_message(stamp_ns)
