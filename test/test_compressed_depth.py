"""compressedDepth: depths come back, damaged streams are refused by name."""

from __future__ import annotations

import struct
import tracemalloc

import cv2
import numpy as np
import pytest
from image_files import picture
from image_files import png_of
from image_files import reason_of

from depth_node.errors import ImageRejected
from depth_node.frames import CompressedImage
from depth_node.image_codec import decode_compressed_depth
from depth_node.image_codec import encode_compressed_depth
from depth_node.image_codec import encode_jpeg
from depth_node.image_codec import encode_png


def rvl_of(values):
    """Encode uint16 depth in RVL, number by number."""
    nibbles = []

    def put(number):
        while True:
            number, low = number >> 3, number & 7
            nibbles.append(low | (8 if number else 0))
            if not number:
                return

    flat, at, before = [int(v) for v in values.ravel()], 0, 0
    while at < len(flat):
        for is_run in (lambda v: v == 0, lambda v: v != 0):
            start = at
            while at < len(flat) and is_run(flat[at]):
                at += 1
            put(at - start)
        for value in flat[start:at]:
            change = value - before
            put(2 * change if change >= 0 else -2 * change - 1)
            before = value
    nibbles += [0] * (-len(nibbles) % 8)
    stream = b''
    for first in range(0, len(nibbles), 8):
        word = 0
        for nibble in nibbles[first : first + 8]:
            word = word << 4 | nibble
        stream += struct.pack('<I', word)
    return struct.pack('<II', values.shape[1], values.shape[0]) + stream


def depth_values(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 30, 2)
    values = rng.integers(1, 65536, (height, width))
    smooth = np.cumsum(rng.integers(-9, 10, (height, width)), axis=1) + 2000
    chosen = smooth if seed % 2 else values
    return (chosen * (rng.random((height, width)) > rng.random())).astype(np.uint16)


def png_depth(values):
    return cv2.imencode('.png', values)[1].tobytes()


def test_compressed_depth_comes_back_within_half_a_millimeter():
    depth_m = np.random.default_rng(4).uniform(0.001, 65.5, (40, 50)).astype(np.float32)
    depth_m[::7, ::5] = np.nan
    layout, data = encode_compressed_depth(depth_m)
    assert layout == '16UC1; compressedDepth png'
    back_m = decode_compressed_depth(CompressedImage(layout, data))
    assert np.array_equal(np.isnan(back_m), np.isnan(depth_m))
    assert np.nanmax(np.abs(back_m - depth_m)) < 0.000504  # and float32 at 65 m


def test_depth_that_has_no_millimeters_is_written_as_unknown():
    depth_m = np.float32(
        [[np.nan, np.inf, -np.inf, 0.0, -1.0, 65.536, 66.0, 1e30, 0.0004, 65.535]]
    )
    back_m = decode_compressed_depth(CompressedImage(*encode_compressed_depth(depth_m)))
    assert np.isnan(back_m[0, :-1]).all()
    assert back_m[0, -1] == np.float32(65.535)


def test_an_empty_depth_image_is_refused_by_the_encoder():
    assert reason_of(encode_compressed_depth, np.zeros((0, 5), np.float32)) == 'image_compressed'


@pytest.mark.parametrize('form', ['png', 'rvl', ''])
def test_quantized_inverse_depth_becomes_meters(form):
    quant_a, quant_b = np.float32(100.0 * 101.0), np.float32(1.0 - 10_100.0 / 20.0)
    depth_m = np.random.default_rng(5).uniform(0.4, 19.0, (8, 9))
    values = np.rint(quant_a / depth_m + quant_b).astype(np.uint16)
    values[0, 0] = 0
    payload = rvl_of(values) if form == 'rvl' else png_depth(values)
    data = struct.pack('<iff', 0, quant_a, quant_b) + payload
    back_m = decode_compressed_depth(CompressedImage(f'32FC1; compressedDepth {form}', data))
    assert np.isnan(back_m[0, 0])
    step_m = depth_m**2 / quant_a  # of the quantisation
    assert (np.abs(back_m - depth_m) <= 0.51 * step_m + 1e-5).ravel()[1:].all()


def test_inverse_depth_behind_the_camera_is_unknown():
    data = struct.pack('<iff', 0, 10.0, 5.0) + png_depth(np.uint16([[4, 5, 6, 0]]))
    back_m = decode_compressed_depth(CompressedImage('32FC1; compressedDepth png', data))
    assert np.array_equal(back_m, np.float32([[np.nan, np.nan, 10.0, np.nan]]), equal_nan=True)


def test_rvl_streams_of_any_shape_come_back_exactly():
    for seed in range(120):
        values = depth_values(seed)
        data = bytes(12) + rvl_of(values)
        back_m = decode_compressed_depth(CompressedImage('16UC1; compressedDepth rvl', data))
        expected = np.where(values == 0, np.nan, values / 1000.0).astype(np.float32)
        assert np.array_equal(back_m, expected, equal_nan=True)


def test_a_bare_16_bit_png_of_a_depth_source_is_millimeters():
    image = CompressedImage('16UC1; png compressed ', png_depth(np.uint16([[0, 1500]])))
    assert np.array_equal(
        decode_compressed_depth(image), np.float32([[np.nan, 1.5]]), equal_nan=True
    )


RVL = bytes(12) + rvl_of(depth_values(0))


def rvl_message(width, height, *words):
    stream = struct.pack(f'<II{len(words)}I', width, height, *words)
    return CompressedImage('16UC1; compressedDepth rvl', bytes(12) + stream)


@pytest.mark.parametrize(
    ('message', 'sentence'),
    [
        (CompressedImage('16UC1; compressedDepth', bytes(11)), 'a header of 12 bytes'),
        (rvl_message(4, 4, 0x01211291), 'ends at pixel 3 of 16'),
        (rvl_message(1, 1, 0x02220000), 'a run of impossible length'),
        (rvl_message(2, 2, 0x70000000), 'a run of impossible length'),
        (rvl_message(4, 4, 0x08122222), 'a run of impossible length'),
        (rvl_message(1, 1, 0x01100000), 'beyond 16 bits'),
        (rvl_message(4, 4, 0xFFFFFFFF, 0xFFFFFFFF), 'an endless number'),
        (rvl_message(4, 4, 0xFFFFFFFF, 0xFF100000), 'an endless number'),
        (rvl_message(4, 4, *[0] * 20), '88 bytes of RVL for 16 pixels'),
    ],
)
def test_the_sentence_says_what_is_wrong_with_a_depth_stream(message, sentence):
    with pytest.raises(ImageRejected, match=sentence):
        decode_compressed_depth(message)


@pytest.mark.parametrize(
    ('shape', 'dtype'), [((4, 4), np.uint8), ((4, 4, 3), np.uint16), ((4, 4, 4), np.uint16)]
)
def test_only_a_16_bit_gray_png_is_depth(shape, dtype):
    data = bytes(12) + png_depth(np.ones(shape, dtype))
    with pytest.raises(ImageRejected, match='a 16-bit grey PNG'):
        decode_compressed_depth(CompressedImage('16UC1; compressedDepth png', data))


@pytest.mark.parametrize(
    ('image_format', 'data', 'reason'),
    [
        ('jpeg', b'\xff\xd8\xff', 'image_encoding'),
        ('rgb8; compressedDepth png', bytes(40), 'image_encoding'),
        ('16UC1; jpeg compressed ', encode_jpeg(picture(), 90), 'image_encoding'),
        ('x' * 300, b'', 'image_encoding'),
        ('16UC1; compressedDepth png', bytes(11), 'image_compressed'),
        ('16UC1; compressedDepth png', bytes(12), 'image_compressed'),
        ('16UC1; compressedDepth png', bytes(12) + encode_png(picture()), 'image_compressed'),
        ('16UC1; compressedDepth png', bytes(12) + png_of(9_999, 9_999), 'image_too_large'),
        (
            '16UC1; compressedDepth png',
            bytes(12) + cv2.imencode('.png', picture()[..., 0])[1].tobytes(),
            'image_compressed',
        ),
        ('32FC1; compressedDepth png', bytes(12) + png_depth(depth_values(1)), 'image_compressed'),
        (
            '32FC1; compressedDepth png',
            struct.pack('<iff', 0, float('nan'), 0.0) + png_depth(depth_values(1)),
            'image_compressed',
        ),
        (
            '32FC1; compressedDepth png',
            struct.pack('<iff', 0, 1.0, float('inf')) + png_depth(depth_values(1)),
            'image_compressed',
        ),
        ('16UC1; compressedDepth rvl', bytes(12), 'image_compressed'),
        ('16UC1; compressedDepth rvl', bytes(20), 'image_size'),
        (
            '16UC1; compressedDepth rvl',
            bytes(12) + struct.pack('<II', 2**31, 2**31),
            'image_too_large',
        ),
        ('16UC1; compressedDepth rvl', bytes(12) + struct.pack('<II', 4, 4), 'image_compressed'),
        ('16UC1; compressedDepth rvl', RVL + bytes(100_000), 'image_compressed'),
        ('16UC1; compressedDepth rvl', RVL[: len(RVL) // 2], 'image_compressed'),
        (  # a number that never ends
            '16UC1; compressedDepth rvl',
            bytes(12) + struct.pack('<II', 40, 40) + b'\xff' * 40,
            'image_compressed',
        ),
        (  # a number of more digits than any image has pixels
            '16UC1; compressedDepth rvl',
            bytes(12) + struct.pack('<II', 40, 40) + b'\xff' * 40 + bytes(4),
            'image_compressed',
        ),
        (  # groups that take no pixel
            '16UC1; compressedDepth rvl',
            bytes(12) + struct.pack('<II', 40, 40) + bytes(400),
            'image_compressed',
        ),
        (  # one pixel, of depth -1
            '16UC1; compressedDepth rvl',
            bytes(12) + struct.pack('<III', 1, 1, 0x01100000),
            'image_compressed',
        ),
    ],
)
def test_depth_files_that_are_damaged_or_of_another_kind_are_refused(image_format, data, reason):
    image = CompressedImage(image_format, data)
    tracemalloc.start()
    try:
        assert reason_of(decode_compressed_depth, image) == reason
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
