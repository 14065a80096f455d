"""Promises for raw images, one by one; test_image_codec_property.py has the generated ones."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from image_files import reason_of

from depth_node import image_codec
from depth_node.errors import ImageRejected
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.image_codec import check_raw
from depth_node.image_codec import decode_depth
from depth_node.image_codec import decode_raw

RGB8 = RawImage(3, 4, 'rgb8', 0, 14, bytes(range(42)))


# Raw images ---------------------------------------------------------------------------------


def test_rgb8_is_a_read_only_view_of_the_message():
    data = bytearray(RGB8.data)
    rgb = decode_raw(dataclasses.replace(RGB8, data=data))
    assert np.shares_memory(rgb, np.frombuffer(data, np.uint8))
    assert not rgb.flags.writeable
    assert rgb[1, 2].tolist() == [20, 21, 22]


def test_a_641_pixel_wide_image_with_aligned_rows_is_not_sheared():
    source = np.random.default_rng(1).integers(0, 256, (480, 641, 3), dtype=np.uint8)
    data = b''.join(row.tobytes() + b'\0' for row in source)
    assert np.array_equal(decode_raw(RawImage(480, 641, 'rgb8', 0, 1924, data)), source)


@pytest.mark.parametrize(
    ('encoding', 'pixel'),
    [
        ('rgb8', [250, 20, 30]),
        ('bgr8', [30, 20, 250]),
        ('8UC3', [30, 20, 250]),
        ('rgba8', [250, 20, 30, 7]),
        ('bgra8', [30, 20, 250, 7]),
        ('8UC4', [30, 20, 250, 7]),
    ],
)
def test_red_is_red_in_every_packed_encoding(encoding, pixel):
    image = RawImage(2, 5, encoding, 0, 5 * len(pixel), bytes(pixel * 10))
    assert (decode_raw(image) == [250, 20, 30]).all()


@pytest.mark.parametrize(('big', 'pixel'), [(0, b'\x22\x11'), (1, b'\x11\x22')])
@pytest.mark.parametrize(('encoding', 'channels'), [('mono16', 1), ('rgb16', 3), ('bgra16', 4)])
def test_16_bit_samples_become_their_high_byte(encoding, channels, big, pixel):
    image = RawImage(3, 3, encoding, big, 6 * channels, pixel * 9 * channels)
    rgb = decode_raw(image)
    assert (rgb == 0x11).all()
    assert rgb.shape == (3, 3, 3)
    assert rgb.strides[1:] == (3, 1)


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('tile', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_the_mosaic_of_an_even_color_gives_that_color(tile, bits):
    value = {'r': 200, 'g': 100, 'b': 50}
    mosaic = np.tile(
        np.array([[value[tile[0]], value[tile[1]]], [value[tile[2]], value[tile[3]]]]), (4, 5)
    )
    samples = (mosaic << (bits - 8)).astype(f'<u{bits // 8}')
    image = RawImage(8, 10, f'bayer_{tile}{bits}', 0, 10 * bits // 8, samples.tobytes())
    assert (decode_raw(image) == [200, 100, 50]).all()


@pytest.mark.parametrize(
    ('yuv', 'rgb'),
    [
        ((235, 128, 128), (255, 255, 255)),
        ((16, 128, 128), (0, 0, 0)),
        ((0, 128, 128), (0, 0, 0)),
        ((81, 90, 240), (254, 0, 0)),
        ((145, 54, 34), (0, 255, 1)),
        ((41, 240, 110), (0, 0, 255)),
    ],
)
@pytest.mark.parametrize('encoding', ['uyvy', 'yuyv', 'nv12', 'nv21', 'nv24'])
def test_the_primaries_of_bt601_come_out(encoding, yuv, rgb):
    y, u, v = yuv
    data = {
        'uyvy': bytes([u, y, v, y] * 4),
        'yuyv': bytes([y, u, y, v] * 4),
        'nv12': bytes([y] * 8 + [u, v] * 2),
        'nv21': bytes([y] * 8 + [v, u] * 2),
        'nv24': bytes([y] * 8 + [u, v] * 8),
    }[encoding]
    image = RawImage(2, 4, encoding, 0, 8 if encoding in ('uyvy', 'yuyv') else 4, data)
    assert np.abs(decode_raw(image).astype(int) - rgb).max() <= 1


@pytest.mark.parametrize(('encoding', 'said'), [('nv12', 6), ('nv21', 6), ('nv24', 12)])
def test_both_meanings_of_height_give_the_same_planar_picture(encoding, said):
    data = np.random.default_rng(2).integers(0, 256, 7 * said, dtype=np.uint8).tobytes()
    one = decode_raw(RawImage(4, 6, encoding, 0, 7, data))
    assert one.shape == (4, 6, 3)
    assert np.array_equal(one, decode_raw(RawImage(said, 6, encoding, 0, 7, data)))


@pytest.mark.parametrize(
    ('image', 'reason'),
    [
        (RawImage(4, 6, 'nv12', 0, 6, bytes(24)), 'image_data_length'),  # luma only
        (RawImage(4, 6, 'nv12', 0, 6, bytes(35)), 'image_data_length'),
        (RawImage(6, 6, 'nv21', 0, 12, bytes(72)), 'image_step'),  # two samples a pixel
        (RawImage(6, 6, 'nv24', 0, 12, bytes(72)), 'image_step'),
        (RawImage(7, 6, 'nv12', 0, 6, bytes(42)), 'image_data_length'),
        (RawImage(4, 5, 'nv12', 0, 6, bytes(36)), 'image_size'),
        (RawImage(3, 6, 'nv21', 0, 6, bytes(27)), 'image_size'),
        (RawImage(6, 6, 'nv21', 0, 6, bytes(54)), None),
        (RawImage(3, 6, 'nv12', 0, 6, bytes(18)), None),
    ],
)
def test_planar_images_whose_height_cannot_be_told_are_refused(image, reason):
    if reason is None:
        assert decode_raw(image).shape[1] == 6
    else:
        assert reason_of(decode_raw, image) == reason


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'encoding': 'RGB8'}, 'image_encoding'),
        ({'encoding': 'rgb8\0'}, 'image_encoding'),
        ({'encoding': ''}, 'image_encoding'),
        ({'encoding': 'e' * 300}, 'image_encoding'),
        ({'encoding': '16UC1', 'step': 8, 'data': bytes(24)}, 'image_encoding'),
        ({'is_bigendian': 2}, 'image_endianness'),
        ({'is_bigendian': -1}, 'image_endianness'),
        ({'width': 0}, 'image_size'),
        ({'height': 0, 'data': b''}, 'image_size'),
        ({'width': -4}, 'image_size'),
        ({'width': -1, 'height': -1}, 'image_size'),
        ({'width': 2**31, 'height': 2**31}, 'image_too_large'),
        ({'height': 2**32 - 1}, 'image_too_large'),
        ({'width': 5}, 'image_step'),
        ({'step': 11, 'data': bytes(33)}, 'image_step'),
        ({'step': 0, 'data': b''}, 'image_step'),
        ({'encoding': 'mono16', 'step': 9, 'data': bytes(27)}, 'image_step'),
        ({'encoding': 'uyvy', 'width': 3}, 'image_size'),
        ({'encoding': 'bayer_rggb8', 'width': 2}, 'image_size'),
        ({'encoding': 'bayer_rggb8', 'height': 2, 'data': bytes(28)}, 'image_size'),
        ({'data': b''}, 'image_data_length'),
        ({'data': bytes(41)}, 'image_data_length'),
        ({'data': bytes(43)}, 'image_data_length'),
    ],
)
def test_fields_that_contradict_each_other_are_refused_under_their_reason(change, reason):
    assert reason_of(decode_raw, dataclasses.replace(RGB8, **change)) == reason


def test_an_image_over_the_limit_of_pixels_is_refused_and_one_at_the_limit_is_not():
    check_raw(RGB8, 12)
    assert reason_of(check_raw, RGB8, 11) == 'image_too_large'


@pytest.mark.parametrize('encoding', ['rgb8', 'mono16', 'uyvy', 'nv12', 'bayer_rggb8', '32FC1'])
@pytest.mark.parametrize('size', [(2**31, 2**31), (2**31, 1), (1, 2**31), (2**32 - 1, 2)])
def test_absurd_sizes_take_no_memory(encoding, size):
    decode = decode_depth if encoding == '32FC1' else decode_raw
    image = RawImage(*size, encoding, 0, 2**31, b'0' * 64)
    tracemalloc.start()
    try:
        with pytest.raises(ImageRejected):
            decode(image)
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()


def test_the_sentence_names_what_is_supported_and_cuts_and_escapes_what_came():
    with pytest.raises(ImageRejected) as refused:
        decode_raw(dataclasses.replace(RGB8, encoding='\n[INFO] forged\0' + 'x' * 300))
    text = str(refused.value)
    assert 'rgb8 bgr8 mono8' in text
    assert '\n' not in text
    assert '\0' not in text
    assert len(text) < 500


def test_the_reasons_are_stable_names():
    assert image_codec.IMAGE_REASONS == (
        'image_encoding',
        'image_endianness',
        'image_size',
        'image_too_large',
        'image_step',
        'image_data_length',
        'image_compressed',
    )


def test_memoryviews_and_arrays_of_bytes_are_taken_as_they_are():
    for data in (bytearray(RGB8.data), memoryview(RGB8.data), np.frombuffer(RGB8.data, np.uint8)):
        image = dataclasses.replace(RGB8, data=memoryview(data))
        assert np.array_equal(decode_raw(image), decode_raw(RGB8))


# Raw depth ----------------------------------------------------------------------------------


def test_depth_in_millimeters_becomes_meters_with_nan_for_unknown():
    samples = np.array([[0, 1], [1500, 65535]], '>u2')
    depth_m = decode_depth(RawImage(2, 2, '16UC1', 1, 4, samples.tobytes()))
    expected = np.float32([[np.nan, 0.001], [1.5, 65.535]])
    assert np.array_equal(depth_m, expected, equal_nan=True)
    assert depth_m.dtype == np.float32


def test_depth_in_meters_keeps_infinity_and_loses_what_is_not_above_zero():
    samples = np.array([[0.0, -0.0, -2.0, np.inf, -np.inf, np.nan, 2.5]], '<f4')
    depth_m = decode_depth(RawImage(1, 7, '32FC1', 0, 28, samples.tobytes()))
    expected = np.float32([[np.nan, np.nan, np.nan, np.inf, np.nan, np.nan, 2.5]])
    assert np.array_equal(depth_m, expected, equal_nan=True)


def test_a_color_image_is_no_depth_image():
    assert reason_of(decode_depth, RGB8) == 'image_encoding'


# Raw or compressed ---------------------------------------------------------------------------


def test_one_call_decodes_raw_and_compressed_images_alike_and_keeps_the_limit():
    rgb = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    raw = RawImage(5, 7, 'rgb8', 0, 21, rgb.tobytes())
    packed = CompressedImage('rgb8; png compressed', image_codec.encode_png(rgb))
    for image in (raw, packed):
        np.testing.assert_array_equal(image_codec.decode_image(image), rgb)
        with pytest.raises(ImageRejected) as error:
            image_codec.decode_image(image, max_pixels=34)
        assert error.value.reason == image_codec.IMAGE_TOO_LARGE


def test_one_call_decodes_raw_and_compressed_depth_alike_and_keeps_the_limit():
    metres = np.array([[0.5, 1.25, np.nan], [2.0, 3.5, 7.0]], np.float32)
    raw = RawImage(2, 3, '32FC1', 0, 12, metres.tobytes())
    packed = CompressedImage(*image_codec.encode_compressed_depth(metres))
    for image in (raw, packed):
        np.testing.assert_allclose(image_codec.decode_depth_image(image), metres, atol=1e-6)
        with pytest.raises(ImageRejected) as error:
            image_codec.decode_depth_image(image, max_pixels=5)
        assert error.value.reason == image_codec.IMAGE_TOO_LARGE
