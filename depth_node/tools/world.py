"""Make recordings of procedural scenes, or a sheet of training samples.

``python -m depth_node.tools.world OUT --kind room --seed 1`` writes a rosbag2 folder with frames,
exact depth, poses and a laser scan; ``--contact-sheet FILE.jpg`` shows what training sees.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from depth_node.errors import DepthNodeError
from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.world import recording
from depth_node.world import rig
from depth_node.world import samples
from depth_node.world.scenes import KINDS

_SHEET_COLUMNS = 8
_SHEET_ROWS = 5
_SHEET_PX = (144, 192)
_SHEET_QUALITY = 80
_SHOWN_M = (0.3, 80.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool.

    :returns: exit status: 0, 1 with a sentence for what was refused, 130 on Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.contact_sheet is not None:
            print(_write_sheet(options.contact_sheet, options.seed))
        if options.out is not None:
            print(_record(options))
    except KeyboardInterrupt:
        print('world: stopped', file=sys.stderr)
        return 130
    except DepthNodeError as error:
        print(f'world: {error}', file=sys.stderr)
        return 1
    return 0


def _record(options: argparse.Namespace) -> str:
    settings = _settings(options)
    began = time.monotonic()
    with tqdm(total=round(settings.seconds * settings.rate_hz), unit='frame', disable=None) as bar:
        recording.write(
            options.out,
            settings,
            workers=options.workers,
            progress=lambda done, _: bar.update(done - bar.n),
        )
    return f'wrote {options.out} in {time.monotonic() - began:.1f} s'


def _settings(options: argparse.Namespace) -> recording.RecordingSettings:
    width, height = _size(options.size)
    return recording.RecordingSettings(
        kind=options.kind,
        seed=options.seed,
        carrier=options.path,
        seconds=options.seconds,
        rate_hz=options.rate,
        width=width,
        height=height,
        hfov_rad=math.radians(options.hfov_deg),
        lens=options.lens,
        storage=options.storage,
        jpeg_quality=options.jpeg_quality if options.format == 'jpeg' else None,
        raw_depth=options.raw_depth,
        stand_still=options.stand_still,
        turn=options.turn,
        exposure_drift=options.drift,
        noise=options.noise,
    )


def _size(text: str) -> tuple[int, int]:
    parts = text.split('x')
    if len(parts) != 2 or not all(part.isdecimal() and len(part) <= 5 for part in parts):
        raise SettingsError('option --size', quoted(text), 'WIDTHxHEIGHT, e.g. 640x480')
    return int(parts[0]), int(parts[1])


def _write_sheet(path: Path, seed: int) -> str:
    """Write a grid of samples, each above its depth (red is near, blue far, black sky)."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(_SHEET_ROWS):
        drawn = [samples.draw(rng, *_SHEET_PX, supersample=2.0)[0] for _ in range(_SHEET_COLUMNS)]
        rows.append(np.hstack([sample.rgb[..., ::-1] for sample in drawn]))
        rows.append(np.hstack([_depth_picture(sample.depth_m) for sample in drawn]))
    quality = (cv2.IMWRITE_JPEG_QUALITY, _SHEET_QUALITY)
    try:
        written = cv2.imwrite(str(path), np.vstack(rows), quality)
    except cv2.error:
        written = False
    if not written:
        raise SettingsError(
            'option --contact-sheet', quoted(str(path)), 'a .jpg or .png in a folder that is there'
        )
    return f'wrote {path}'


def _depth_picture(depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    near, far = (math.log(limit) for limit in _SHOWN_M)
    known = np.isfinite(depth_m)
    share = (np.log(np.where(known, depth_m, 1.0)) - near) / (far - near)
    level = (255 * np.clip(share, 0, 1)).astype(np.uint8)
    picture = cv2.applyColorMap(level, cv2.COLORMAP_TURBO)
    picture[~known] = 0
    return np.asarray(picture, np.uint8)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m depth_node.tools.world', description=(__doc__ or '').split('\n')[0]
    )
    default = recording.RecordingSettings()
    add = parser.add_argument
    add('out', type=Path, nargs='?', help='rosbag2 folder to make')
    add('--contact-sheet', type=Path, metavar='FILE.jpg', help='write a grid of training samples')
    add('--kind', choices=KINDS, default=default.kind, help='kind of scene')
    add('--seed', type=int, default=default.seed, help='another seed is another scene')
    add('--seconds', type=float, default=default.seconds, help='duration')
    add('--rate', type=float, default=default.rate_hz, help='frames per second')
    add('--size', default=f'{default.width}x{default.height}', help='WIDTHxHEIGHT, pixels')
    add('--hfov-deg', type=float, default=math.degrees(default.hfov_rad), help='field of view')
    add('--storage', choices=('mcap', 'sqlite3'), default=default.storage, help='file format')
    add('--lens', choices=rig.LENSES, default=default.lens, help='distortion model')
    add('--format', choices=('jpeg', 'raw'), default='jpeg', help='kind of image messages')
    add('--jpeg-quality', type=int, default=default.jpeg_quality, help='1 to 100')
    add('--raw-depth', action='store_true', help='32FC1 depth; default: compressed millimetres')
    add('--path', choices=('robot', 'handheld'), default=default.carrier, help='who carries it')
    add('--stand-still', action='store_true', help='begin without motion')
    add('--turn', action='store_true', help='end by turning on the spot')
    add('--drift', action='store_true', help='let the exposure wander')
    add('--noise', type=float, default=default.noise, help='of the sensor, grey values')
    add('--workers', type=int, help='processes that render; default: all processors')
    return parser


if __name__ == '__main__':
    sys.exit(main())
