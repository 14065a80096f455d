"""What the bundled model is judged on: recordings with depth, and scenes rendered on the spot."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from depth_node.camera import CameraView
from depth_node.frames import CameraImage
from depth_node.judging.judge import recording_names
from depth_node.judging.scenes import JudgeSettings
from depth_node.judging.scenes import Scene
from depth_node.judging.scenes import scenes
from depth_node.world import samples

RECORDING = 'recording'
TRAINED = 'trained kinds'
HELD_OUT = 'kinds held out'
SEED = 987_654_321
"""Of the scenes; no training uses it."""
_STEP_NS = 10_000_000_000
_SUPERSAMPLE = 1.5

Wanted = Callable[[int], bool]
"""Tells by the stamp whether an image is wanted."""


@dataclass(frozen=True)
class DataSet:
    """Images with true depth that no training has seen."""

    name: str
    """Short and unique."""
    kind: str
    """:data:`RECORDING`, :data:`TRAINED` or :data:`HELD_OUT`."""
    scenes: Callable[[Wanted], Iterator[Scene]]
    """The images that are wanted, the same ones each time."""


def recorded(paths: Sequence[Path], settings: JudgeSettings) -> list[DataSet]:
    """Return one data set per recording; nothing is read before its images are asked for."""
    names = recording_names(paths)
    return [
        DataSet(name, RECORDING, partial(_of_recording, path, settings))
        for name, path in zip(names, paths, strict=True)
    ]


def rendered(views: int, width: int, height: int, seed: int = SEED) -> list[DataSet]:
    """Render the scenes, of trained kinds and, where there are any, of kinds held out.

    :param views: of each data set.
    :param width: columns, pixels.
    :param height: rows, pixels.
    """
    asked = (
        ('world', TRAINED, samples.SHARES),
        ('world (kinds held out)', HELD_OUT, samples.HELD_OUT_SHARES),
    )
    made = []
    for place, (name, kind, shares) in enumerate(asked):
        if not shares:
            continue
        rng = np.random.default_rng((seed, place))
        found = _drawn(rng, list(shares), views, width, height)
        made.append(DataSet(name, kind, partial(_of_list, found)))
    return made


def _of_recording(path: Path, settings: JudgeSettings, wanted: Wanted) -> Iterator[Scene]:
    return scenes(path, settings, wanted, lambda done, total: None, {})


def _of_list(found: Sequence[Scene], wanted: Wanted) -> Iterator[Scene]:
    return (scene for scene in found if wanted(scene.image.stamp_ns))


def _drawn(
    rng: np.random.Generator, kinds: Sequence[str], views: int, width: int, height: int
) -> list[Scene]:
    """Render single views of scenes, the kinds in turn; stamps are far apart."""
    found = []
    for place in range(views):
        # by turns, so that few views already hold every kind
        shares = {kinds[place % len(kinds)]: 1.0}
        (sample,) = samples.draw(rng, height, width, 1, _SUPERSAMPLE, shares)
        truth = np.where(np.isfinite(sample.depth_m), sample.depth_m, np.float32(np.nan))
        image = CameraImage(sample.rgb, place * _STEP_NS, sample.kind)
        found.append(Scene(image, CameraView(sample.camera, None), truth))
    return found
