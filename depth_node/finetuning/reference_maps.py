"""Inverse depth of the start model, or of a teacher, predicted once per frame and kept on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depth_node.errors import RecordingError
from depth_node.files import write_atomically
from depth_node.finetuning.samples import CacheLike

Floats = NDArray[np.float32]
_LONGEST_HEAD = 64 << 20
Predict = Callable[[NDArray[np.uint8]], Floats]
"""(h, w, 3) RGB -> (h, w) inverse depth."""


class ReferenceMaps(Mapping[int, Floats]):
    """Maps of some frames, in a file that is mapped into memory.

    :param path: file that :func:`reference_maps` has made.
    :raises RecordingError: when it is not one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open('rb') as stream:
                head = json.loads(stream.readline(_LONGEST_HEAD))
                start = stream.tell()
            height, width = map(int, head['size'])
            self.size = (height, width)
            self._row = {int(index): row for row, index in enumerate(head['indices'])}
            self.key = str(head['key'])
            self._maps = np.memmap(
                path, np.float16, 'r', start, (len(head['indices']), *self.size)
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise RecordingError(
                f'reference maps {path}', 'a damaged file', 'what was written',
                'Delete it; it is made again.',
            ) from error  # fmt: skip

    def __getitem__(self, index: int) -> Floats:
        """Return (h, w) float32."""
        return np.asarray(self._maps[self._row[index]], np.float32)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the frames."""
        return iter(self._row)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._row)


def reference_maps(
    cache: CacheLike,
    indices: Sequence[int],
    predict: Predict,
    path: Path,
    key: str,
    progress: Callable[[int, int], None] | None = None,
) -> ReferenceMaps:
    """Predict every frame once, or return what lies there from before.

    :param indices: frames.
    :param predict: the frozen network.
    :param path: file to make; half precision, two bytes per pixel.
    :param key: says which network predicts, e.g. its SHA-256; another one makes the file anew.
    :param progress: called with frames done and all frames.
    """
    size = (cache.camera.height, cache.camera.width)
    if path.exists():
        try:
            there = ReferenceMaps(path)
            if (there.key, there.size) == (key, size) and set(there) >= set(indices):
                return there
        except RecordingError:
            pass  # made again below
    head = {'indices': list(map(int, indices)), 'size': size, 'key': key}

    def write(stream: object) -> None:
        stream.write(json.dumps(head).encode() + b'\n')  # type: ignore[attr-defined]
        for done, index in enumerate(indices):
            found = np.asarray(predict(cache.rgb(index)), np.float16)
            if found.shape != size:
                raise RecordingError('reference maps', f'shape {found.shape}', f'{size}')
            stream.write(found.tobytes())  # type: ignore[attr-defined]
            if progress is not None:
                progress(done + 1, len(indices))

    write_atomically(path, write)
    return ReferenceMaps(path)
