"""Clouds: points against float64, bytes against the layout that readers expect."""

from array import array

import numpy as np
import pytest

from depth_node import cloud as cloud_module
from depth_node.cloud import CloudPacker
from depth_node.errors import Rejected
from depth_node.errors import SettingsError
from depth_node.frames import CameraModel

CAMERA = CameraModel(67, 41, 52.0, 50.5, 31.25, 22.75)

XYZ = np.dtype(
    {'names': ['x', 'y', 'z'], 'formats': ['<f4'] * 3, 'offsets': [0, 4, 8], 'itemsize': 16}
)
_NAMED = {'names': ['x', 'y', 'z', 'rgb'], 'formats': ['<f4', '<f4', '<f4', '<u4']}
XYZRGB = np.dtype({**_NAMED, 'offsets': [0, 4, 8, 12], 'itemsize': 16})
PADDED = np.dtype({**_NAMED, 'offsets': [0, 4, 8, 16], 'itemsize': 32})


def scene(seed=3, holes=True):
    """Return depth with NaN and both infinities, and colors that use all values of a byte."""
    rng = np.random.default_rng(seed)
    depth_m = rng.uniform(0.2, 60.0, (CAMERA.height, CAMERA.width)).astype(np.float32)
    if holes:
        depth_m[rng.random(depth_m.shape) < 0.2] = np.nan
        depth_m[:4] = np.inf
        depth_m[5, 7] = -np.inf
    rgb = rng.integers(0, 256, (CAMERA.height, CAMERA.width, 3), np.uint8)
    rgb[10] = 255
    return depth_m, rgb


def reference(depth_m, stride):
    """Return (h, w, 3) float64 points, NaN where depth is not finite."""
    v, u = np.mgrid[0 : CAMERA.height : stride, 0 : CAMERA.width : stride].astype(np.float64)
    z = depth_m[::stride, ::stride].astype(np.float64)
    z = np.where(np.isfinite(z), z, np.nan)
    x = z * (u - CAMERA.cx) / CAMERA.fx
    y = z * (v - CAMERA.cy) / CAMERA.fy
    return np.stack((x, y, z), axis=-1)


def read(cloud):
    """Read a cloud as sensor_msgs_py does: a structured array over the bytes."""
    colored = PADDED if cloud.point_step == 32 else XYZRGB
    dtype = colored if any(field.name == 'rgb' for field in cloud.fields) else XYZ
    assert cloud.point_step == dtype.itemsize
    for field in cloud.fields:
        assert dtype.fields[field.name][1] == field.offset
        assert (field.datatype, field.count) == (7, 1)
    assert len(cloud.data) == cloud.height * cloud.row_step
    return np.frombuffer(cloud.data.tobytes(), dtype).reshape(cloud.height, cloud.width)


def xyz(points):
    return np.stack([points[name] for name in 'xyz'], axis=-1).astype(np.float64)


def packed(rgb):
    red, green, blue = np.moveaxis(rgb.astype(np.uint32), -1, 0)
    return red << 16 | green << 8 | blue


@pytest.mark.parametrize('stride', [1, 2, 3, 5])
@pytest.mark.parametrize(
    ('color', 'padded', 'step'), [(False, True, 16), (True, False, 16), (True, True, 32)]
)
def test_organized_points_are_exact_and_keep_their_pixels(color, padded, step, stride):
    depth_m, rgb = scene()
    packer = CloudPacker(CAMERA, organized=True, color=color, stride=stride, padded=padded)
    assert packer.pack(depth_m, rgb).point_step == step
    cloud = packer.pack(depth_m, rgb)
    wanted = reference(depth_m, stride)
    points = read(cloud)
    assert points.shape == wanted.shape[:2]
    assert not cloud.is_dense
    np.testing.assert_allclose(xyz(points), wanted, rtol=3e-7, atol=0)
    assert not np.isinf(xyz(points)).any()
    np.testing.assert_array_equal(points['z'], wanted[..., 2].astype(np.float32))
    if color:
        np.testing.assert_array_equal(points['rgb'], packed(rgb[::stride, ::stride]))


@pytest.mark.parametrize('stride', [1, 2, 3, 5])
@pytest.mark.parametrize('color', [False, True])
def test_unorganized_clouds_hold_the_finite_points_in_order_and_nothing_else(color, stride):
    depth_m, rgb = scene()
    packer = CloudPacker(CAMERA, organized=False, color=color, stride=stride)
    cloud = packer.pack(depth_m, rgb)
    wanted = reference(depth_m, stride)
    finite = np.isfinite(wanted[..., 2])
    points = read(cloud)
    assert (cloud.height, cloud.width) == (1, finite.sum())
    assert cloud.is_dense
    np.testing.assert_allclose(xyz(points)[0], wanted[finite], rtol=3e-7, atol=0)
    if color:
        np.testing.assert_array_equal(points['rgb'][0], packed(rgb[::stride, ::stride])[finite])


def test_color_bytes_are_blue_green_red_zero_and_never_nan():
    depth_m, rgb = scene(holes=False)
    rgb[0, 0] = (255, 128, 3)
    cloud = CloudPacker(CAMERA, organized=True, color=True, stride=1).pack(depth_m, rgb)
    assert bytes(cloud.data[12:16]) == bytes((3, 128, 255, 0))
    assert np.isfinite(np.frombuffer(cloud.data, np.float32)).all()
    padded = CloudPacker(CAMERA, organized=True, color=True, stride=1, padded=True)
    floats = np.frombuffer(padded.pack(depth_m, rgb).data, np.float32).reshape(-1, 8)
    assert bytes(floats[0, 4:5]) == bytes((3, 128, 255, 0))
    assert np.isfinite(floats).all()
    assert not floats[:, [3, 5, 6, 7]].any()


def test_padding_of_points_without_color_is_zero():
    depth_m, _ = scene(holes=False)
    cloud = CloudPacker(CAMERA, organized=True, color=False, stride=1).pack(depth_m, None)
    assert not np.frombuffer(cloud.data, np.float32).reshape(-1, 4)[:, 3].any()


def test_is_dense_says_whether_there_is_a_nan():
    packer = CloudPacker(CAMERA, organized=True, color=False, stride=2)
    depth_m, _ = scene(holes=False)
    assert packer.pack(depth_m, None).is_dense
    depth_m[1, 1] = np.nan  # skipped by the stride
    assert packer.pack(depth_m, None).is_dense
    depth_m[2, 4] = np.inf
    assert not packer.pack(depth_m, None).is_dense
    depth_m[2, 4] = 1.0
    assert packer.pack(depth_m, None).is_dense


def test_a_frame_without_any_depth_gives_an_empty_dense_cloud():
    depth_m, rgb = scene()
    packer = CloudPacker(CAMERA, organized=False, color=True, stride=1)
    empty = packer.pack(np.full_like(depth_m, np.nan), rgb)
    assert (empty.width, empty.height, empty.is_dense, len(empty.data)) == (0, 1, True, 0)
    assert packer.pack(depth_m, rgb).width == np.isfinite(depth_m).sum()


def test_organized_memory_is_reused_and_holds_no_trace_of_the_last_frame():
    packer = CloudPacker(CAMERA, organized=True, color=True, stride=1)
    first = packer.pack(*scene(seed=1))
    address = first.data.buffer_info()
    second = packer.pack(*scene(seed=2))
    assert second.data is first.data
    assert second.data.buffer_info() == address
    fresh = CloudPacker(CAMERA, organized=True, color=True, stride=1).pack(*scene(seed=2))
    assert second.data == fresh.data


@pytest.mark.parametrize('organized', [True, False])
@pytest.mark.parametrize('stride', [1, 3])
def test_a_cloud_is_the_same_in_bands_of_any_height(monkeypatch, organized, stride):
    depth_m, rgb = scene()
    depth_m[20:] = 3.0  # some bands without holes, and a last one that is shorter
    made = []
    for points in (1, 7 * CAMERA.width, CAMERA.width * CAMERA.height):
        monkeypatch.setattr(cloud_module, '_BAND_POINTS', points)
        packer = CloudPacker(CAMERA, organized=organized, color=True, stride=stride)
        made.append(packer.pack(depth_m, rgb).data.tobytes())
    assert made[0] == made[1] == made[2]


def test_unorganized_memory_follows_the_number_of_points():
    packer = CloudPacker(CAMERA, organized=False, color=True, stride=1)
    first = packer.pack(*scene(seed=1)).data
    rng = np.random.default_rng(5)
    for share in (0.9, 0.1, 0.5, 0.0, 1.0, 0.3):
        depth_m, rgb = scene(seed=2, holes=False)
        depth_m[rng.random(depth_m.shape) >= share] = np.nan
        cloud = packer.pack(depth_m, rgb)
        assert cloud.data is first
        fresh = CloudPacker(CAMERA, organized=False, color=True, stride=1).pack(depth_m, rgb)
        assert cloud.data == fresh.data
        assert cloud.width == np.isfinite(depth_m).sum()


def test_a_reader_that_still_holds_the_last_cloud_does_not_stop_the_next():
    packer = CloudPacker(CAMERA, organized=False, color=False, stride=1)
    first = packer.pack(*scene(seed=1))
    held = memoryview(first.data)
    before = bytes(held)
    second = packer.pack(scene(seed=2, holes=False)[0], None)
    assert bytes(held) == before
    assert len(read(second)[0]) == CAMERA.width * CAMERA.height


def test_data_is_an_array_of_bytes_as_messages_want_it():
    for organized in (True, False):
        packer = CloudPacker(CAMERA, organized=organized, color=True, stride=1)
        data = packer.pack(*scene()).data
        assert isinstance(data, array)
        assert data.typecode == 'B'


def test_strided_and_read_only_inputs_give_the_same_points_and_are_left_alone():
    depth_m, rgb = scene()
    wide_depth = np.zeros((CAMERA.height, CAMERA.width + 5), np.float32)
    wide_depth[:, : CAMERA.width] = depth_m
    wide_rgb = np.zeros((CAMERA.height, CAMERA.width + 5, 3), np.uint8)
    wide_rgb[:, : CAMERA.width] = rgb
    strided_depth, strided_rgb = wide_depth[:, : CAMERA.width], wide_rgb[:, : CAMERA.width]
    strided_depth.flags.writeable = False
    strided_rgb.flags.writeable = False
    for stride in (1, 2):
        packer = CloudPacker(CAMERA, organized=True, color=True, stride=stride)
        from_strided = packer.pack(strided_depth, strided_rgb).data.tobytes()
        assert from_strided == packer.pack(depth_m, rgb).data.tobytes()
    np.testing.assert_array_equal(strided_depth, depth_m)
    np.testing.assert_array_equal(strided_rgb, rgb)


@pytest.mark.parametrize(
    ('depth_m', 'rgb', 'said'),
    [
        (np.ones((40, 67), np.float32), scene()[1], 'depth'),
        (np.ones((41, 67)), scene()[1], 'float64'),
        (np.ones((41, 67), '>f4'), scene()[1], 'depth'),
        (None, scene()[1], 'nothing'),
        (scene()[0], np.ones((41, 67), np.uint8), 'color'),
        (scene()[0], np.ones((41, 68, 3), np.uint8), 'color'),
        (scene()[0], np.ones((41, 67, 3), np.uint16), 'uint16'),
        (scene()[0], None, 'nothing'),
    ],
)
def test_arrays_of_another_size_or_type_are_refused_and_change_nothing(depth_m, rgb, said):
    packer = CloudPacker(CAMERA, organized=True, color=True, stride=1)
    before = packer.pack(*scene(seed=9)).data
    copy = before.tobytes()
    with pytest.raises(Rejected, match='the size of its camera') as refused:
        packer.pack(depth_m, rgb)
    assert refused.value.reason == 'cloud_size'
    assert said in str(refused.value)
    assert before.tobytes() == copy


def test_no_warning_is_raised_for_infinite_depth():
    depth_m, rgb = scene()
    with np.errstate(all='raise'):
        CloudPacker(CAMERA, organized=True, color=True, stride=1).pack(depth_m, rgb)


def test_a_stride_below_one_is_refused():
    with pytest.raises(SettingsError, match='stride'):
        CloudPacker(CAMERA, organized=True, color=True, stride=0)
