"""Points of a binary PLY file as an array with a field for each of its properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_ply(path: Path) -> np.ndarray:
    header, _, body = path.read_bytes().partition(b'end_header\n')
    lines = header.decode('ascii').splitlines()
    assert lines[:2] == ['ply', 'format binary_little_endian 1.0']
    kinds = {'float': '<f4', 'uchar': 'u1'}
    layout = [
        (line.split()[2], kinds[line.split()[1]]) for line in lines if line.startswith('property')
    ]
    points = np.frombuffer(body, dtype=layout)
    assert f'element vertex {len(points)}' in lines
    return points
