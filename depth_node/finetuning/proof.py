"""Whether the fine-tuned model is better, by held-out time; and the model that the node gets.

Both models are judged as the node would run them, from their folders.  Where depth was recorded it
is the reference, also when nothing was learned from it; beside it, and without it, triangulated
tracks, photometric error under recorded poses, and consistency over time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from depth_node.errors import DepthNodeError
from depth_node.errors import RecordingError
from depth_node.errors import quoted
from depth_node.files import sync
from depth_node.finetuning.preparation import Prepared
from depth_node.judging.bootstrap import SMALLEST_BLOCKS
from depth_node.judging.bootstrap import BlockSettings
from depth_node.judging.by_take import compared_by_take
from depth_node.judging.comparison import Comparison
from depth_node.judging.comparison import compare
from depth_node.judging.gate import Verdict
from depth_node.judging.gate import gate
from depth_node.judging.judge import judge
from depth_node.judging.judgement import Judgement
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.models import opened_models
from depth_node.judging.references import NoReference
from depth_node.judging.scenes import JudgeSettings
from depth_node.judging.unreferenced import has_reference
from depth_node.judging.unreferenced import joined
from depth_node.judging.unreferenced import judge_cache

Progress = Callable[[str, int, int], None]
"""Told what is judged, how many of it are done, and of how many."""

_USUAL_BLOCK_S = 1.0
_SHORTEST_BLOCK_S = 0.1
_BLOCKS_WANTED = SMALLEST_BLOCKS + 2


@dataclass(frozen=True, eq=False)
class Proof:
    """What was measured of both models, and what follows."""

    before: Judgement
    """The start model."""
    after: Judgement
    """The fine-tuned one."""
    comparison: Comparison
    """Of the two, moment by moment, over all takes."""
    parts: Mapping[str, Comparison]
    """Name of a take -> the comparison on it alone; empty where there is one take."""
    verdict: Verdict
    """Of the gate."""
    block_s: float
    """Length of the blocks of time behind the intervals, seconds."""

    def to_json(self) -> dict[str, Any]:
        """Return the measurements and the verdict as plain JSON values."""
        return {
            'outcome': int(self.verdict.outcome),
            'reasons': list(self.verdict.reasons),
            'block_s': self.block_s,
            'before': self.before.to_json(),
            'after': self.after.to_json(),
            'comparison': self.comparison.to_json(),
            'parts': {name: part.to_json() for name, part in self.parts.items()},
        }


def proof_from_json(value: Mapping[str, Any]) -> Proof:
    """Compare anew what :meth:`Proof.to_json` has kept.

    :raises DepthNodeError: for anything else.
    """
    before = Judgement.from_json(value.get('before'))
    after = Judgement.from_json(value.get('after'))
    block_s = value.get('block_s')
    if not isinstance(block_s, (int, float)):
        raise DepthNodeError('proof', f'blocks of {quoted(block_s)}', 'their length in seconds')
    return _compared(before, after, float(block_s))


def proven(
    before: Path,
    after: Path,
    recordings: Sequence[Prepared],
    settings: JudgeSettings,
    progress: Progress = lambda what, done, total: None,
) -> Proof:
    """Judge two model folders on the held-out time of recordings.

    :param before: folder of the start model.
    :param after: folder of the fine-tuned model.
    :raises RecordingError: when a recording cannot be read.
    :raises EngineError: when no engine runs a model.
    """
    with opened_models([str(before), str(after)]) as models:
        found = [
            _by_reference(models, recordings, settings, progress),
            *_by_proxies(models, recordings, progress),
        ]
    start, candidate = (joined([item[place] for item in found]) for place in range(2))
    return _compared(start, candidate, _block_s(recordings))


def publish(folder: Path, best: Path) -> None:
    """Put a copy of a model folder, byte for byte, in the place of ``best``.

    :raises DepthNodeError: when the disk refuses; what was there before is then untouched.
    """
    temporary, old = best.with_name(f'.{best.name}.new'), best.with_name(f'.{best.name}.old')
    try:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(folder, temporary)
        for path in temporary.rglob('*'):
            sync(path)
        if best.exists():
            os.replace(best, old)
        try:
            os.replace(temporary, best)
        except OSError:
            if old.exists():
                os.replace(old, best)
            raise
        sync(best.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise DepthNodeError(
            f'model folder {best}',
            f'a disk that refuses it ({_cause(error)})',
            'room to write',
            'Make room and run the same command again: it goes on from here.',
        ) from error


def _cause(error: OSError) -> str:
    """Return why the disk refused, in words; of a copied folder, the first file's reason."""
    listed = error.args[0] if isinstance(error, shutil.Error) and error.args else None
    return str(listed[0][2]) if isinstance(listed, list) and listed else str(error.strerror)


def _compared(before: Judgement, after: Judgement, block_s: float) -> Proof:
    blocks = BlockSettings(block_s=block_s)
    comparison = compare(before, after, blocks)
    parts = compared_by_take(before, after, blocks)
    return Proof(before, after, comparison, parts, gate(comparison), block_s)


def _by_reference(
    models: Sequence[ModelUnderTest],
    recordings: Sequence[Prepared],
    settings: JudgeSettings,
    progress: Progress,
) -> tuple[Judgement, ...]:
    """Judge by recorded depth where there is any."""
    found = [
        tuple(Judgement(model.name, model.relative, {}, sha256=model.sha256) for model in models)
    ]
    for item in recordings:
        low, high = _span(item)
        topics = settings.of(item.take)
        if low > high or not has_reference(item.path, topics):
            continue
        try:
            judged = judge(
                models,
                [item.path],
                topics,
                lambda done, total: progress('images', done, total),
                partial(_within, low, high),
                names=[item.name],
            )
        except NoReference as error:
            # its tracks, and what the other takes have, may speak for it; the report says so
            note = f'{item.name} is judged without its recorded depth: {error}'
            found.append(tuple(replace(empty, notes=(note,)) for empty in found[0]))
            continue
        found.append(judged.judgements)
    return tuple(joined([item[place] for item in found]) for place in range(len(models)))


def _within(low_ns: int, high_ns: int, path: Path, stamp_ns: int) -> bool:
    """Tell whether an image lies in the held-out time of its take."""
    return low_ns <= stamp_ns <= high_ns


def _by_proxies(
    models: Sequence[ModelUnderTest],
    recordings: Sequence[Prepared],
    progress: Progress,
) -> list[tuple[Judgement, ...]]:
    """Judge by what needs no reference: tracks, images under recorded poses, consistency."""
    found = []
    for item in recordings:
        try:
            found.append(
                judge_cache(
                    models,
                    item.cache,
                    item.split.held_out,
                    item.name,
                    progress=lambda done, total: progress('pairs', done, total),
                )
            )
        except RecordingError:
            continue  # the held-out time has no parallax; the reference may speak for it
    return found


def _span(item: Prepared) -> tuple[int, int]:
    """Return the first and the last stamp of the held-out time; an empty span for none."""
    stamps = item.cache.stamps_ns
    held = item.split.held_out
    return (int(stamps[held[0]]), int(stamps[held[-1]])) if held else (1, 0)


def _block_s(recordings: Sequence[Prepared]) -> float:
    """Return a block length that leaves blocks enough.

    A second is more than one frame tells of the next; a recording of a few seconds cannot afford
    it, and its shorter blocks say less about other places.
    """
    held_s = sum((high - low) * 1e-9 for low, high in map(_span, recordings) if high > low)
    return float(np.clip(held_s / _BLOCKS_WANTED, _SHORTEST_BLOCK_S, _USUAL_BLOCK_S))
