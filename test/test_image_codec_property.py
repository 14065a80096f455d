"""Generated images: the right pixels, or ImageRejected, and nothing else."""

from __future__ import annotations

import dataclasses
from collections import Counter

import cv2
import numpy as np
import pytest

from depth_node.errors import ImageRejected
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.image_codec import IMAGE_COMPRESSED
from depth_node.image_codec import IMAGE_REASONS
from depth_node.image_codec import check_raw
from depth_node.image_codec import decode_compressed
from depth_node.image_codec import decode_compressed_depth
from depth_node.image_codec import decode_depth
from depth_node.image_codec import decode_raw
from depth_node.image_codec import encode_compressed_depth
from depth_node.image_codec import encode_jpeg
from depth_node.image_codec import encode_png

MAX_PIXELS = 24 * 36  # the largest generated image, with its rows of chroma
IMAGES_PER_ENCODING = [
    pytest.param(800, id='quick'),
    pytest.param(34_000, id='million', marks=pytest.mark.slow),
]

# Which samples of a pixel are red, green and blue.
PACKED = {
    'rgb8': (0, 1, 2),
    'bgr8': (2, 1, 0),
    'rgba8': (0, 1, 2),
    'bgra8': (2, 1, 0),
    'mono8': (0, 0, 0),
    '8UC1': (0, 0, 0),
    '8UC3': (2, 1, 0),
    '8UC4': (2, 1, 0),
    'mono16': (0, 0, 0),
    'rgb16': (0, 1, 2),
    'bgr16': (2, 1, 0),
    'rgba16': (0, 1, 2),
    'bgra16': (2, 1, 0),
}
YUV422 = ('uyvy', 'yuyv', 'yuv422', 'yuv422_yuy2')
# Bytes of a pixel in a row, and of a sample.
SIZES = {
    **dict.fromkeys(('rgb8', 'bgr8', '8UC3'), (3, 1)),
    **dict.fromkeys(('rgba8', 'bgra8', '8UC4'), (4, 1)),
    **dict.fromkeys(('mono8', '8UC1', 'nv12', 'nv21', 'nv24'), (1, 1)),
    **dict.fromkeys(('rgb16', 'bgr16'), (6, 2)),
    **dict.fromkeys(('rgba16', 'bgra16'), (8, 2)),
    **dict.fromkeys(('mono16', '16UC1'), (2, 2)),
    **dict.fromkeys(YUV422, (2, 1)),
    **{f'bayer_{tile}8': (1, 1) for tile in ('rggb', 'bggr', 'gbrg', 'grbg')},
    **{f'bayer_{tile}16': (2, 2) for tile in ('rggb', 'bggr', 'gbrg', 'grbg')},
    '32FC1': (4, 4),
}
DEPTHS = ('16UC1', '32FC1')


def with_padding(rows, rng, sample_bytes):
    """Join rows of bytes with the same number of junk bytes behind each; step and data."""
    pad = int(rng.choice([0, 0, 1, 2, 3, 16])) * sample_bytes
    data = b''.join(row.tobytes() + rng.bytes(pad) for row in rows)
    return rows[0].nbytes + pad, data


def yuv_to_rgb(y, u, v):
    """BT.601, studio range, in float64 and unrounded."""
    y = np.maximum(y.astype(np.float64) - 16.0, 0.0)
    u = u.astype(np.float64) - 128.0
    v = v.astype(np.float64) - 128.0
    red = 1.164 * y + 1.596 * v
    green = 1.164 * y - 0.813 * v - 0.391 * u
    blue = 1.164 * y + 2.018 * u
    return np.clip(np.stack([red, green, blue], axis=-1), 0.0, 255.0)


def interpolated(mosaic, tile):
    """Bilinear interpolation of a mosaic whose first four letters are its first 2x2 pixels."""
    height, width = mosaic.shape
    colors = np.array([['rgb'.index(tile[2 * (y % 2) + x % 2]) for x in (0, 1)] for y in (0, 1)])
    planes = np.tile(colors, (height // 2 + 1, width // 2 + 1))[:height, :width]
    m = mosaic.astype(np.int64)
    inside = m[1:-1, 1:-1]
    left, right, up, down = m[1:-1, :-2], m[1:-1, 2:], m[:-2, 1:-1], m[2:, 1:-1]
    across, along = (left + right + 1) >> 1, (up + down + 1) >> 1
    cross = (left + right + up + down + 2) >> 2
    corners = (m[:-2, :-2] + m[:-2, 2:] + m[2:, :-2] + m[2:, 2:] + 2) >> 2
    rgb = np.empty((height - 2, width - 2, 3), np.int64)
    for color in (0, 1, 2):
        own = planes[1:-1, 1:-1] == color
        beside, above = planes[1:-1, :-2] == color, planes[:-2, 1:-1] == color
        value = np.where(beside, across, np.where(above, along, corners))
        rgb[..., color] = np.where(own, inside, np.where(beside & above, cross, value))
    return np.pad(rgb, ((1, 1), (1, 1), (0, 0)), mode='edge')


def packed_image(name, rng):
    height, width = rng.integers(1, 25, 2)
    pixel_bytes, sample_bytes = SIZES[name]
    shape = (height, width, pixel_bytes // sample_bytes)
    samples = rng.integers(0, 256**sample_bytes, shape)
    big = int(rng.integers(2))
    rows = samples.astype(f'{"<>"[big]}u{sample_bytes}')
    step, data = with_padding(rows, rng, sample_bytes)
    expected = (samples >> (8 * (sample_bytes - 1)))[..., PACKED[name]]
    return RawImage(int(height), int(width), name, big, step, data), expected, 0


def bayer_image(name, rng):
    height, width = rng.integers(3, 25, 2)
    sample_bytes = SIZES[name][1]
    samples = rng.integers(0, 256**sample_bytes, (height, width))
    big = int(rng.integers(2))
    step, data = with_padding(samples.astype(f'{"<>"[big]}u{sample_bytes}'), rng, sample_bytes)
    expected = interpolated(samples >> (8 * (sample_bytes - 1)), name[6:10])
    return RawImage(int(height), int(width), name, big, step, data), expected, 0


def yuv422_image(name, rng):
    height, width = int(rng.integers(1, 25)), 2 * int(rng.integers(1, 13))
    y = rng.integers(0, 256, (height, width))
    u, v = rng.integers(0, 256, (2, height, width // 2))
    luma_first = name in ('yuyv', 'yuv422_yuy2')
    order = (y[:, 0::2], u, y[:, 1::2], v) if luma_first else (u, y[:, 0::2], v, y[:, 1::2])
    rows = np.stack(order, axis=-1).reshape(height, 2 * width).astype(np.uint8)
    step, data = with_padding(rows, rng, 1)
    expected = yuv_to_rgb(y, u.repeat(2, 1), v.repeat(2, 1))
    return RawImage(height, width, name, int(rng.integers(2)), step, data), expected, 1


def planar_image(name, rng):
    """Semi-planar: the chroma of 4:4:4 takes two rows of the message for each row of pixels."""
    half = 1 if name == 'nv24' else 2
    height, width = (half * int(n) for n in rng.integers(1, 24 // half + 1, 2))
    y = rng.integers(0, 256, (height, width))
    u, v = rng.integers(0, 256, (2, height // half, width // half))
    chroma = np.stack((v, u) if name == 'nv21' else (u, v), axis=-1).reshape(len(u), -1)
    pad = int(rng.integers(0, width))
    luma_rows = np.hstack([y, rng.integers(0, 256, (height, pad))])
    chroma_pad = pad if half == 2 else 2 * pad
    chroma_rows = np.hstack([chroma, rng.integers(0, 256, (len(chroma), chroma_pad))])
    data = luma_rows.astype(np.uint8).tobytes() + chroma_rows.astype(np.uint8).tobytes()
    rows = len(data) // (width + pad)
    said = rows if rng.integers(2) and rows * width <= MAX_PIXELS else height
    expected = yuv_to_rgb(y, u.repeat(half, 0).repeat(half, 1), v.repeat(half, 0).repeat(half, 1))
    return RawImage(said, width, name, 0, width + pad, data), expected, 1


def depth_image(name, rng):
    height, width = rng.integers(1, 25, 2)
    big = int(rng.integers(2))
    if name == '16UC1':
        values = rng.integers(0, 65536, (height, width)) * (rng.random((height, width)) > 0.2)
        rows = values.astype(f'{"<>"[big]}u2')
        expected = np.where(values == 0, np.nan, values / 1000.0)
    else:
        specials = rng.choice([0.0, -1.0, np.nan, np.inf, -np.inf], (height, width))
        meters = np.float32(rng.uniform(0.01, 100.0, (height, width)))
        values = np.where(rng.random((height, width)) > 0.3, meters, specials)
        rows = values.astype(f'{"<>"[big]}f4')
        expected = np.where(np.nan_to_num(values, nan=-1.0) > 0, values, np.nan)
    step, data = with_padding(rows, rng, SIZES[name][1])
    return RawImage(int(height), int(width), name, big, step, data), np.float32(expected), 0


def valid_image(name, rng):
    """Make an image from planes of known values: fields, expected picture, tolerance."""
    if name in PACKED:
        return packed_image(name, rng)
    if name.startswith('bayer'):
        return bayer_image(name, rng)
    if name.startswith('nv'):
        return planar_image(name, rng)
    return depth_image(name, rng) if name in DEPTHS else yuv422_image(name, rng)


def decode(image, max_pixels=MAX_PIXELS):
    return (decode_depth if image.encoding in DEPTHS else decode_raw)(image, max_pixels)


def picture_height(image):
    """Say how high the picture is, or None where the fields contradict each other."""
    width, height, step, length = image.width, image.height, image.step, len(image.data)
    if image.encoding not in SIZES or image.is_bigendian not in (0, 1):
        return None
    pixel_bytes, sample_bytes = SIZES[image.encoding]
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        return None
    if step < width * pixel_bytes or step % sample_bytes:
        return None
    if image.encoding in ('nv12', 'nv21', 'nv24'):
        whole, multiple = (1.5, 2) if image.encoding != 'nv24' else (3.0, 1)
        ratio = length / (step * height)
        rows = height if ratio == whole else height / whole
        doubtful = ratio != whole and step >= 2 * width
        fits = ratio in (1.0, whole) and rows % multiple == 0 and width % multiple == 0
        return int(rows) if fits and not doubtful else None
    if length != step * height:
        return None
    if image.encoding in YUV422:
        return height if width % 2 == 0 else None
    if image.encoding.startswith('bayer') and (width < 3 or height < 3):
        return None
    return height


def mutated(image, rng):
    """Change one field of an image, or its data."""
    small = int(rng.integers(-3, 4))
    absurd = int(rng.choice([0, 1, -1, 2**31 - 1, 2**31, 2**32 - 1]))
    other = str(rng.choice([*SIZES, image.encoding.upper(), 'x' * 300, 'rgb8\0', '', '16SC1']))
    cut = int(rng.integers(0, len(image.data) + 1))
    changes = [
        {'width': image.width + small},
        {'height': image.height + small},
        {'step': image.step + small},
        {rng.choice(['width', 'height', 'step']): absurd},
        {'encoding': other},
        {'is_bigendian': int(rng.choice([0, 1, 2, 255, -1]))},
        {'data': bytes(image.data)[:cut]},
        {'data': bytes(image.data) + rng.bytes(1 + cut)},
        {'width': image.height, 'height': image.width},
        {'height': image.height * 2 // 3},
        {'step': image.step // 2, 'height': image.height * 2},
    ]
    return dataclasses.replace(image, **changes[rng.integers(len(changes))])


@pytest.mark.parametrize('number', IMAGES_PER_ENCODING)
@pytest.mark.parametrize('name', sorted(SIZES))
def test_valid_images_of_every_size_padding_and_endianness_are_pixel_exact(name, number):
    rng = np.random.default_rng([20_251_120, *name.encode()])
    for _ in range(number):
        image, expected, tolerance = valid_image(name, rng)
        assert picture_height(image) == len(expected)
        picture = decode(image)
        assert picture.shape == expected.shape
        assert picture.dtype == (np.float32 if name in DEPTHS else np.uint8)
        if tolerance:
            assert np.abs(picture - expected).max() <= tolerance
        else:
            assert np.array_equal(picture, expected, equal_nan=name in DEPTHS)


@pytest.mark.parametrize('number', IMAGES_PER_ENCODING)
@pytest.mark.parametrize('name', sorted(SIZES))
def test_mutated_images_are_decoded_if_and_only_if_they_are_consistent(name, number):
    rng = np.random.default_rng([7, *name.encode()])
    reasons = Counter()
    for _ in range(number):
        image = mutated(valid_image(name, rng)[0], rng)
        height = picture_height(image)
        if height is None:
            for refuses in (decode, check_raw):
                with pytest.raises(ImageRejected) as refused:
                    refuses(image, MAX_PIXELS)
                assert refused.value.reason in IMAGE_REASONS
                assert len(str(refused.value)) < 700
            reasons[refused.value.reason] += 1
        else:
            assert decode(image).shape[:2] == (height, image.width)
    assert sum(reasons.values()) > number // 2
    assert len(reasons) >= 5, reasons


def damaged(file, rng):
    """Flip a few bytes, cut, or insert."""
    kind, at = rng.integers(3), int(rng.integers(len(file)))
    if kind == 0:
        return file[:at]
    if kind == 1:
        return file[:at] + rng.bytes(int(rng.integers(1, 5))) + file[at:]
    changed = bytearray(file)
    for place in rng.integers(0, len(file), int(rng.integers(1, 4))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def test_damaged_files_give_a_picture_or_a_refusal_and_nothing_else():
    rng = np.random.default_rng(3)
    rgb = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (40, 30))
    layout, depth = encode_compressed_depth(np.float32(rng.uniform(0.5, 9.0, (30, 40))))
    sources = (
        (decode_compressed, 'jpeg', encode_jpeg(rgb, 80)),
        (decode_compressed, 'png', encode_png(rgb)),
        (decode_compressed_depth, layout, depth),
        (decode_compressed_depth, '32FC1; compressedDepth rvl', depth),
    )
    refusals = 0
    for number in range(1200):
        decoder, image_format, file = sources[number % len(sources)]
        try:
            picture = decoder(CompressedImage(image_format, damaged(file, rng)), 40 * 30)
        except ImageRejected as refused:
            refusals += 1
            assert refused.reason in IMAGE_REASONS
        else:
            assert picture.shape[0] * picture.shape[1] <= 40 * 30
    assert refusals > 600


def test_every_truncation_of_a_file_is_refused():
    rgb = cv2.resize(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5, (24, 20))
    layout, depth = encode_compressed_depth(np.full((6, 5), 2.5, np.float32))
    for decoder, image_format, file in (
        (decode_compressed, 'jpeg', encode_jpeg(rgb, 80)),
        (decode_compressed, 'png', encode_png(rgb)),
        (decode_compressed_depth, layout, depth),
    ):
        assert decoder(CompressedImage(image_format, file)).size
        for length in range(len(file)):
            with pytest.raises(ImageRejected) as refused:
                decoder(CompressedImage(image_format, file[:length]))
            assert refused.value.reason == IMAGE_COMPRESSED


def test_every_flipped_byte_of_a_png_is_refused():
    file = encode_png(np.arange(36, dtype=np.uint8).reshape(3, 4, 3))
    for place in range(len(file)):
        changed = bytearray(file)
        changed[place] ^= 0x10
        with pytest.raises(ImageRejected):
            decode_compressed(CompressedImage('png', bytes(changed)))
