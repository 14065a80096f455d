"""JPEG and PNG: whole files come back, all others are refused before they cost anything."""

from __future__ import annotations

import time
import tracemalloc

import cv2
import numpy as np
import pytest
from image_files import chunk
from image_files import patched_size
from image_files import picture
from image_files import png_of
from image_files import reason_of
from image_files import with_segment

from depth_node.errors import ImageRejected
from depth_node.frames import CompressedImage
from depth_node.image_codec import decode_compressed
from depth_node.image_codec import encode_compressed_depth
from depth_node.image_codec import encode_jpeg
from depth_node.image_codec import encode_png


@pytest.mark.parametrize('image_format', ['jpeg', 'jpg', '', 'rgb8; jpeg compressed bgr8', 'png'])
def test_a_jpeg_comes_back_nearly_as_it_was_whatever_its_format_says(image_format):
    rgb = decode_compressed(CompressedImage(image_format, encode_jpeg(picture(), 95)))
    assert rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - picture()).mean() < 3


def test_jpeg_quality_is_heeded():
    assert len(encode_jpeg(picture(), 20)) < len(encode_jpeg(picture(), 95))


def test_a_png_comes_back_exactly():
    image = CompressedImage('rgb8; png compressed bgr8', encode_png(picture()))
    assert np.array_equal(decode_compressed(image), picture())


@pytest.mark.parametrize(
    'options',
    [
        [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
        [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
    ],
)
def test_progressive_jpegs_and_restart_markers_are_followed(options):
    file = cv2.imencode('.jpg', picture(), options)[1].tobytes()
    rgb = decode_compressed(CompressedImage('jpeg', file))
    assert np.abs(rgb.astype(int) - picture()[..., ::-1]).mean() < 6
    assert reason_of(decode_compressed, CompressedImage('jpeg', file[:-1])) == 'image_compressed'


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
def test_a_gray_file_gives_three_equal_channels(extension):
    file = cv2.imencode(extension, picture()[..., 0])[1].tobytes()
    rgb = decode_compressed(CompressedImage('mono8; compressed', file))
    assert rgb.shape == (32, 48, 3)
    assert (rgb == rgb[..., :1]).all()


def test_a_16_bit_png_becomes_its_high_byte():
    samples = np.random.default_rng(3).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    file = cv2.imencode('.png', samples[..., ::-1])[1].tobytes()
    assert np.array_equal(decode_compressed(CompressedImage('png', file)), samples >> 8)


def test_alpha_is_dropped_from_a_png():
    bgra = np.dstack([picture()[..., ::-1], np.arange(32 * 48, dtype=np.uint8).reshape(32, 48)])
    file = cv2.imencode('.png', bgra)[1].tobytes()
    assert np.array_equal(decode_compressed(CompressedImage('png', file)), picture())


@pytest.mark.parametrize('source', ['bayer_grbg8', 'bayer_grbg16'])
def test_a_compressed_mosaic_is_interpolated(source):
    dtype, shift = (np.uint16, 8) if source.endswith('16') else (np.uint8, 0)
    mosaic = np.tile(np.array([[100, 200], [50, 100]], dtype) << dtype(shift), (4, 4))
    file = cv2.imencode('.png', mosaic)[1].tobytes()
    rgb = decode_compressed(CompressedImage(f'{source}; png compressed ', file))
    assert (rgb == [200, 100, 50]).all()
    small = cv2.imencode('.png', mosaic[:2])[1].tobytes()
    assert reason_of(decode_compressed, CompressedImage(source, small)) == 'image_size'


def test_a_color_file_of_a_mosaic_or_yuv_source_is_taken_as_it_is():
    file = encode_png(picture()[:2, :3])
    for source in ('bayer_grbg8', 'yuv422'):
        rgb = decode_compressed(CompressedImage(f'{source}; png compressed bgr8', file))
        assert np.array_equal(rgb, picture()[:2, :3])


def test_exif_orientation_does_not_turn_the_image():
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    plain = encode_jpeg(picture(), 90)
    turned = with_segment(plain, 0xE1, exif)
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (48, 32)
    rgb = decode_compressed(CompressedImage('jpeg', turned))
    assert np.array_equal(rgb, decode_compressed(CompressedImage('jpeg', plain)))


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture():
    file = with_segment(encode_jpeg(picture(), 90), 0xE1, encode_jpeg(picture()[:8, :8], 50))
    assert decode_compressed(CompressedImage('jpeg', file)).shape == (32, 48, 3)
    assert reason_of(decode_compressed, CompressedImage('jpeg', file[:-2])) == 'image_compressed'


@pytest.mark.parametrize('encode', [encode_png, lambda rgb: encode_jpeg(rgb, 90)])
def test_padding_behind_the_picture_is_ignored(encode):
    file = encode(picture())
    rgb = decode_compressed(CompressedImage('', file + bytes(500)))
    assert np.array_equal(rgb, decode_compressed(CompressedImage('', file)))


def test_filling_before_a_marker_is_allowed():
    file = encode_jpeg(picture(), 90)
    assert decode_compressed(CompressedImage('', file[:2] + b'\xff\xff' + file[2:])).size
    assert decode_compressed(CompressedImage('', file[:-2] + b'\xff\xff' + file[-2:])).size


@pytest.mark.parametrize(
    ('file', 'reason'),
    [
        (b'', 'image_compressed'),
        (b'\xff\xd8', 'image_compressed'),
        (b'\xff\xd8\xff\xd9', 'image_compressed'),
        (b'\xff\xd8\xff' + bytes(100), 'image_compressed'),
        (b'GIF89a' + bytes(100), 'image_compressed'),
        (b'<html>404</html>', 'image_compressed'),
        (b'\x89PNG\r\n\x1a\n', 'image_compressed'),
        (b'\x89PNG\r\n\x1a\n' + chunk(b'IEND', b''), 'image_compressed'),
        (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', b'1234'), 'image_compressed'),
        (png_of(2, 2), 'image_compressed'),
        (png_of(2, 2, color_type=5), 'image_compressed'),
        (png_of(0, 5), 'image_size'),
        (png_of(60_000, 60_000), 'image_too_large'),
        (png_of(2**31 - 1, 2**31 - 1), 'image_too_large'),
        (patched_size(encode_jpeg(picture(), 90), 65_500, 65_500), 'image_too_large'),
        (patched_size(encode_jpeg(picture(), 90), 48, 0), 'image_size'),
    ],
    ids=lambda value: f'{len(value)}-bytes' if isinstance(value, bytes) else value,
)
def test_files_that_are_no_pictures_are_refused_without_taking_memory(file, reason):
    tracemalloc.start()
    try:
        assert reason_of(decode_compressed, CompressedImage('jpeg', file)) == reason
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


def test_a_png_without_its_pixels_is_refused():
    file = encode_png(picture())
    start, end = file.index(b'IDAT') - 4, file.index(b'IEND') - 4
    assert (
        reason_of(decode_compressed, CompressedImage('png', file[:start] + file[end:]))
        == 'image_compressed'
    )


def test_a_second_frame_cannot_enlarge_a_jpeg_that_was_checked():
    file = encode_jpeg(picture(), 90)
    at = file.index(b'\xff\xc0')
    frame = file[at : at + 19]
    double = file[:at] + frame + patched_size(frame, 65_500, 65_500) + file[at + 19 :]
    with pytest.raises(ImageRejected, match='a second or unusual frame'):
        decode_compressed(CompressedImage('jpeg', double))


@pytest.mark.parametrize('code', [0xC3, 0xC9, 0xCB])
def test_lossless_and_arithmetic_jpegs_are_refused_by_name(code):
    file = encode_jpeg(picture(), 90).replace(b'\xff\xc0', bytes([0xFF, code]))
    with pytest.raises(ImageRejected, match='unusual frame'):
        decode_compressed(CompressedImage('jpeg', file))


def test_a_jpeg_of_four_components_or_twelve_bits_is_refused():
    file = bytearray(encode_jpeg(picture(), 90))
    at = file.index(b'\xff\xc0')
    for place, value in ((at + 9, 4), (at + 4, 12)):
        changed = file.copy()
        changed[place] = value
        with pytest.raises(ImageRejected, match='components of'):
            decode_compressed(CompressedImage('jpeg', bytes(changed)))


@pytest.mark.parametrize('marker', [0x00, 0x01, 0xD0, 0xD8])
def test_a_marker_out_of_place_is_refused(marker):
    file = with_segment(encode_jpeg(picture(), 90), marker, b'ab')
    with pytest.raises(ImageRejected, match='out of place'):
        decode_compressed(CompressedImage('jpeg', file))


@pytest.mark.parametrize(
    ('file', 'sentence'),
    [
        (b'\xff\xd8\xff\xd9', 'a JPEG without a frame'),
        (b'\xff\xd8\xff\xe0\0\x02ab\xff\xd9', 'no marker at byte 6'),
        (b'\xff\xd8\xff\xe0\0\x01\xff\xd9', 'a segment of 1 bytes at byte 4'),
        (b'\xff\xd8\xff\xe0\0\x09\xff\xd9', 'a segment of 9 bytes at byte 4'),
        (b'\xff\xd8\xff\xc0\0\x04ab\xff\xd9', 'a frame header of 2 bytes'),
        (b'\xff\xd8\xff\xe0\0', 'cut after 5 bytes'),
        (b'\x89PNG\r\n\x1a\n' + chunk(b'IEND', b''), 'begins with a'),
        (png_of(2, 2)[:48], 'cut in its'),
        (png_of(2, 2)[:36], 'cut after 36 bytes'),
    ],
    ids=lambda value: value.replace(' ', '-') if isinstance(value, str) else 'file',
)
def test_the_sentence_says_what_is_wrong_with_a_file(file, sentence):
    with pytest.raises(ImageRejected, match=sentence):
        decode_compressed(CompressedImage('bayer_rggb8; jpeg compressed ', file))


def test_what_only_the_decoder_refuses_is_refused_by_name_too():
    wider_than_opencv_allows = CompressedImage('png', png_of(2**20 + 1, 1, 8, 0, bytes(2**20 + 2)))
    assert reason_of(decode_compressed, wider_than_opencv_allows) == 'image_compressed'


def test_a_decoder_that_raises_is_a_refusal(monkeypatch):
    def failing(data, flags):
        raise cv2.error('no such\nluck')

    monkeypatch.setattr(cv2, 'imdecode', failing)
    with pytest.raises(ImageRejected, match='no such') as refused:
        decode_compressed(CompressedImage('png', encode_png(picture())))
    assert '\n' not in str(refused.value)


def test_a_cut_scan_followed_by_another_picture_is_not_glued_together():
    file = encode_jpeg(picture(), 90)
    glued = file[: len(file) // 2] + file
    assert reason_of(decode_compressed, CompressedImage('jpeg', glued)) == 'image_compressed'


@pytest.mark.parametrize('part', ['chunks', 'segments', 'filling'])
def test_a_file_of_empty_parts_is_given_up_soon(part):
    if part == 'chunks':
        file = encode_png(picture())[:33] + 300_000 * chunk(b'teXt', b'')
    elif part == 'segments':
        file = b'\xff\xd8' + 1_000_000 * b'\xff\xe1\0\x02'
    else:
        file = b'\xff\xd8' + 100_000_000 * b'\xff'
    start_s = time.process_time()
    with pytest.raises(ImageRejected, match=r'more than 65536|cut after'):
        decode_compressed(CompressedImage('jpeg', file))
    assert time.process_time() - start_s < 2.0


def test_a_small_file_of_thousands_of_scans_does_not_keep_the_decoder_busy():
    file = cv2.imencode('.jpg', np.zeros((96, 96, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    jpeg = bytes(file[1])
    last = jpeg.rindex(b'\xff\xda')
    with pytest.raises(ImageRejected, match='more than 64 scans') as caught:
        decode_compressed(CompressedImage('jpeg', jpeg[:-2] + jpeg[last:-2] * 2000 + jpeg[-2:]))
    assert caught.value.reason == 'image_compressed'


def test_compressed_depth_is_no_picture():
    layout, data = encode_compressed_depth(np.ones((4, 4), np.float32))
    assert reason_of(decode_compressed, CompressedImage(layout, data)) == 'image_encoding'


def test_limits_of_pixels_hold_for_files():
    image = CompressedImage('png', encode_png(picture()))
    assert decode_compressed(image, 32 * 48).size
    assert reason_of(decode_compressed, image, 32 * 48 - 1) == 'image_too_large'


def test_more_bytes_than_the_limit_of_pixels_can_need_are_not_looked_at():
    file = encode_png(picture()[:1, :1])
    assert decode_compressed(CompressedImage('png', file), 1).size
    padded = CompressedImage('png', file + bytes(1 << 17))
    assert reason_of(decode_compressed, padded, 1) == 'image_too_large'


def test_a_jpeg_that_is_too_tall_is_refused_by_the_encoder():
    assert reason_of(encode_jpeg, np.zeros((70_000, 1, 3), np.uint8), 90) == 'image_compressed'
