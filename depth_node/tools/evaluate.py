"""Judge models by recorded depth, any number of them side by side.

``python -m depth_node.tools.evaluate MODEL... BAG...`` reads every recording once, lets each model
turn every image into depth exactly as the node does, and prints the usual errors, with 95 %
intervals over blocks of time, beside what guesses reach that look at no pixel.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from depth_node.dataset.caching import CacheSettings
from depth_node.dataset.ego_mask import EgoMask
from depth_node.dataset.takes import Take
from depth_node.dataset.takes import takes_of
from depth_node.dataset.takes import told_apart
from depth_node.dataset.topics import TopicChoice
from depth_node.errors import DepthNodeError
from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.files import write_text_atomically
from depth_node.judging.bootstrap import BlockSettings
from depth_node.judging.by_take import rows_by_take
from depth_node.judging.crops import CROPS
from depth_node.judging.held_out import held_out_span
from depth_node.judging.held_out import image_stamps_ns
from depth_node.judging.judge import Judged
from depth_node.judging.judge import judge
from depth_node.judging.judgement import Judgement
from depth_node.judging.models import ModelUnderTest
from depth_node.judging.models import is_model_folder
from depth_node.judging.models import opened_models
from depth_node.judging.projecting import projecting
from depth_node.judging.scenes import JudgeSettings
from depth_node.judging.scenes import Progress
from depth_node.judging.table import text_table
from depth_node.judging.unreferenced import has_reference
from depth_node.judging.unreferenced import joined
from depth_node.judging.unreferenced import judge_recording
from depth_node.model_folder import installed

_PROXY_SIZE = (384, 512)
"""Rows and columns at which images are compared with each other where there is no reference."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge models.

    :returns: exit status: 0, 1 with a sentence for what was refused, 130 on Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(_evaluated(options))
    except KeyboardInterrupt:
        print('evaluate: stopped', file=sys.stderr)
        return 130
    except DepthNodeError as error:
        print(f'evaluate: {error}', file=sys.stderr)
        return 1
    return 0


def _evaluated(options: argparse.Namespace) -> str:
    """Judge what the options say; return the table.

    :raises DepthNodeError: for what cannot be judged.
    """
    _check(options)
    models, recordings = models_and_recordings(options.paths)
    found = [
        takes_of(
            path,
            TopicChoice(depth=options.reference),
            options.image_topic,
            options.camera_info_topic,
        )
        for path in recordings
    ]
    takes = told_apart(found)
    settings = JudgeSettings(
        reference=options.reference,
        crop=options.crop or '',
        min_m=options.min_m,
        max_m=options.max_m,
        frames=options.frames,
        ego_mask=EgoMask.read(options.ego_mask) if options.ego_mask else None,
    )
    blocks = BlockSettings(block_s=options.block_s, seed=options.seed)
    wanted = _held_out(takes) if options.held_out_only else _all
    with (
        opened_models(models, engine=options.engine, precision=options.precision) as opened,
        tqdm(unit='image', desc='images', leave=False, disable=None) as bar,
    ):

        def progress(done: int, total: int) -> None:
            if done <= bar.n:
                bar.reset()
            bar.total = total
            bar.update(done - bar.n)

        judged = _judged(opened, takes, settings, progress, wanted)
    lines = [text_table(judged.judgements, blocks, rows_by_take(judged.judgements))]
    lines += [remark for item in found for remark in item.remarks]
    lines += [
        f'{count} images not compared: {why}' for why, count in sorted(judged.dropped.items())
    ]
    if options.held_out_only:
        lines.append('Held-out time only: the last fifth of each recording.')
    if options.json is not None:
        _write(options.json, judged)
        lines.append(f'wrote {options.json}')
    return '\n'.join(lines)


def _judged(
    models: Sequence[ModelUnderTest],
    takes: Sequence[Take],
    settings: JudgeSettings,
    progress: Progress,
    wanted: Callable[[Path, int], bool],
) -> Judged:
    """Judge by reference where a take has one, else by tracks, images and poses."""
    by_model: dict[str, list[Judgement]] = {}
    frames, dropped = 0, dict[str, int]()
    with tempfile.TemporaryDirectory(prefix='depth_node.evaluate.') as folder:
        for take in takes:
            topics = settings.of(take)
            if has_reference(take.path, topics):
                found = judge(
                    models, [take.path], topics, progress, wanted, projecting, [take.name]
                )
                frames += found.frames
                for why, count in found.dropped.items():
                    dropped[why] = dropped.get(why, 0) + count
                judgements = found.judgements
            else:
                choice = replace(take.choice, depth=None)
                cache = CacheSettings((_PROXY_SIZE,), choice=choice, ego_mask=settings.ego_mask)
                tells = partial(wanted, take.path)
                judgements = judge_recording(
                    models, take.path, take.name, cache, Path(folder), tells, progress
                )
            for item in judgements:
                by_model.setdefault(item.name, []).append(item)
    joint = tuple(joined(by_model[model.name]) for model in models if model.name in by_model)
    return Judged(joint, frames, dropped)


def models_and_recordings(paths: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Tell models from recordings.

    A model is a folder with a card or the name of an installed model; all else is a recording.

    :raises SettingsError: when one of the two is missing.
    """
    names = installed()
    models = [
        path for path in paths if is_model_folder(path) or (os.sep not in path and path in names)
    ]
    recordings = [Path(path) for path in paths if path not in models]
    missing = [path for path in recordings if not path.exists()]
    if missing:
        raise SettingsError(
            'evaluate',
            f'{quoted(str(missing[0]))}, which is no installed model and no file',
            'models and recordings',
            f'Installed are: {", ".join(sorted(names)) or "none"}.',
        )
    if not models or not recordings:
        lacking = 'model' if not models else 'recording'
        raise SettingsError('evaluate', f'no {lacking}', 'one or more models and recordings')
    return models, recordings


def _held_out(takes: Sequence[Take]) -> Callable[[Path, int], bool]:
    """Return what tells whether an image lies in the held-out time of its recording."""
    stamps: dict[Path, list[int]] = {}
    for take in takes:
        stamps.setdefault(take.path, []).extend(image_stamps_ns(take.path, take.choice.image))
    spans = {path: held_out_span(min(known), max(known)) for path, known in stamps.items()}

    def wanted(path: Path, stamp_ns: int) -> bool:
        low, high = spans[path]
        return low <= stamp_ns < high

    return wanted


def _all(path: Path, stamp_ns: int) -> bool:
    return True


def _write(path: Path, judged: Judged) -> None:
    """Write everything that was measured as JSON."""
    value: dict[str, Any] = {
        'frames': judged.frames,
        'dropped': judged.dropped,
        'models': [item.to_json() for item in judged.judgements],
    }
    try:
        write_text_atomically(path, json.dumps(value, indent=1, allow_nan=False) + '\n')
    except OSError as error:
        raise SettingsError(
            'option --json', f'{path} ({error.strerror})', 'a file that can be written'
        ) from error


def _check(options: argparse.Namespace) -> None:
    """Refuse numbers out of range."""
    for name in ('min_m', 'max_m', 'block_s', 'frames'):
        value = getattr(options, name)
        if not (math.isfinite(value) and value > 0):
            raise SettingsError(f'option --{name.replace("_", "-")}', f'{value}', 'more than 0')
    if options.min_m >= options.max_m:
        raise SettingsError('option --min-m', f'{options.min_m}', f'less than {options.max_m}')
    infos, images = options.camera_info_topic, options.image_topic
    if len(infos) not in (0, max(1, len(images))):
        raise SettingsError(
            'option --camera-info-topic',
            f'{len(infos)} topics for {len(images)} of --image-topic',
            'one for each camera, in the same order',
        )
    if options.seed < 0:
        raise SettingsError('option --seed', f'{options.seed}', '0 or more')


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m depth_node.tools.evaluate', description=(__doc__ or '').split('\n')[0]
    )
    default, blocks = JudgeSettings(), BlockSettings()
    add = parser.add_argument
    add('paths', nargs='+', metavar='MODEL|BAG', help='model folders or names, and recordings')
    add('--reference', metavar='TOPIC', help="recorded depth; '' for none")
    add('--held-out-only', action='store_true', help='judge the last fifth of the time only')
    add('--crop', choices=CROPS, help='compare as papers on driving data do')
    add('--json', type=Path, metavar='OUT', help='write all figures of all images')
    add(
        '--image-topic', action='append', default=[], metavar='TOPIC',
        help='images of a camera; repeat it for several; default: all cameras',
    )  # fmt: skip
    add(
        '--camera-info-topic', action='append', default=[], metavar='TOPIC',
        help='its camera_info; one for each --image-topic',
    )  # fmt: skip
    add('--ego-mask', type=Path, metavar='PNG', help='white where the robot sees itself')
    add('--min-m', type=float, default=default.min_m, help='nearest true depth, metres')
    add('--max-m', type=float, default=default.max_m, help='farthest true depth, metres')
    add('--frames', type=int, default=default.frames, help='images per recording at most')
    add('--block-s', type=float, default=blocks.block_s, help='shortest block of time, seconds')
    add('--seed', type=int, default=blocks.seed, help='of the intervals')
    add('--engine', default='', help='engine that runs the models')
    add('--precision', default='', help='precision of the engine')
    return parser


if __name__ == '__main__':
    sys.exit(main())
