"""Train the bundled model on procedural scenes: python -m depth_node.tools.pretrain [-o FOLDER].

Resumable: the same command goes on where it was stopped.  The folder gets the plan, the curve and
the checkpoint; ``--model`` writes the model folder at the end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from depth_node.errors import DepthNodeError
from depth_node.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn

    from depth_node.pretraining.trainer import TrainingPlan
    from depth_node.pretraining.views import JudgedView

SIZES = ((192, 256), (192, 352))
"""(height, width) of the exported inputs: native aspect of 4:3 and, within 3 percent, of 16:9."""
_SHARES_OF_SIZES = (0.7, 0.3)
"""Share of the batches that each of them gets."""
FOCAL_PX = 200.0
"""Focal length of the card at 192 rows: a horizontal field of view of 65 degrees in 4:3."""
FOCAL_PER_HEIGHT = FOCAL_PX / SIZES[0][0]
DEPTH_RANGE_M = (0.1, 100.0)
_HELD_OUT_SEED = 987_654_321
_HELD_OUT_VIEWS = 96


def main(words: Sequence[str] | None = None) -> int:
    """Run the training and return the exit code."""
    arguments = _parser().parse_args(words)
    try:
        return _run(arguments)
    except DepthNodeError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('stopped; the same command goes on from the last checkpoint', file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('-o', '--out', type=Path, default=Path('runs/pretrain'), help='state')
    parser.add_argument('--model', type=Path, help='write this model folder at the end')
    parser.add_argument('--variant', default='small', help='variant of Lite-Mono')
    parser.add_argument('--images', type=int, default=5_000_000, help='views to show in all')
    parser.add_argument(
        '--half-share',
        type=float,
        default=0.75,
        help='share of the views shown at half size first; 0 to go on with a trained model',
    )
    parser.add_argument('--workers', type=int, default=1, help='processes that render scenes')
    parser.add_argument('--threads', type=int, default=0, help='threads of torch; 0: its choice')
    parser.add_argument(
        '--start', type=Path, help='model folder to begin with; else drawn weights'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--device',
        choices=('auto', 'cpu', 'cuda'),
        default='auto',
        help='where to train and render; auto: cuda where there is one',
    )
    parser.add_argument(
        '--judge', type=Path, nargs='*', default=[], help='recordings with depth, never trained on'
    )
    return parser


def plan_of(
    variant: str,
    images: int,
    seed: int,
    workers: int,
    start: str,
    device: str,
    half_share: float = 0.75,
) -> TrainingPlan:
    """Show most at half size, where a second shows four times as many.

    :param device: 'cpu' or 'cuda', which needs large batches to be busy.
    :param half_share: of the images that are shown at half size, 0 to 1.
    :raises SettingsError: for another share.
    """
    from depth_node.pretraining.batch import BatchSpec
    from depth_node.pretraining.trainer import Stage
    from depth_node.pretraining.trainer import TrainingPlan

    if not 0.0 <= half_share <= 1.0:
        raise SettingsError('--half-share', f'{half_share}', '0 to 1')
    at_half = round(half_share * images)
    larger = 8 if device == 'cuda' else 1
    half = BatchSpec(
        size=16 * larger,
        pool=512 * larger,
        shapes=tuple((height // 2, _multiple_of_32(width // 2)) for height, width in SIZES),
        shares=_SHARES_OF_SIZES,
        focal_per_height=FOCAL_PER_HEIGHT,
    )
    full = replace(half, size=8 * larger, shapes=SIZES)
    # of the rates tried, 3e-3 was too high even for small batches
    faster = 1.5 if device == 'cuda' else 1.0
    return TrainingPlan(
        network='lite-mono',
        variant=variant,
        options={'dilations': '640x192'},
        depth_range_m=DEPTH_RANGE_M,
        stages=(
            Stage(at_half, half, faster * 1e-3, faster * 3e-4),
            Stage(images - at_half, full, faster * 4e-4, 1e-5),
        ),
        seed=seed,
        start=start,
        workers=workers,
    )


def chosen_device(name: str) -> str:
    """Return 'cpu' or 'cuda' for 'auto', 'cpu' or 'cuda'.

    :raises SettingsError: when 'cuda' is asked for and torch sees no GPU.
    """
    import torch

    available = torch.cuda.is_available()
    if name == 'cuda' and not available:
        raise SettingsError('--device', 'cuda', 'a GPU that torch sees; or --device cpu')
    return 'cuda' if available and name != 'cpu' else 'cpu'


def _check_before_hours(model: Path | None, recordings: Sequence[Path]) -> None:
    """Refuse at once what would otherwise be refused at the end of the training.

    :raises DepthNodeError: for a name that is none of a model, or a recording that cannot judge.
    """
    from depth_node.model_folder.card import is_plain_name
    from depth_node.pretraining.views import load_views

    if model is not None and not is_plain_name(model.name):
        raise SettingsError(
            '--model', f'{model}', 'a folder whose name begins with a letter and has no blanks'
        )
    for recording in recordings:
        load_views(recording, list(SIZES), 1)


def _multiple_of_32(pixels: int) -> int:
    return 32 * round(pixels / 32)


def _run(arguments: argparse.Namespace) -> int:
    import torch

    from depth_node import model_folder
    from depth_node.networks import registry
    from depth_node.networks.initialization import adopt
    from depth_node.networks.model_weights import network_of
    from depth_node.networks.specification import Identity
    from depth_node.pretraining.trainer import Trainer

    device = chosen_device(arguments.device)
    _check_before_hours(arguments.model, arguments.judge)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    start = str(arguments.start or '')
    plan = plan_of(
        arguments.variant,
        arguments.images,
        arguments.seed,
        arguments.workers,
        start,
        device,
        arguments.half_share,
    )
    # a fresh block must do something, or the first minutes go into waking the blocks up
    options = {**plan.options, 'drop_path': 0.0, 'layer_scale': 0.1}
    network = registry.build(plan.network, Identity(plan.variant, options))
    if arguments.start:
        adopt(network, network_of(model_folder.read(arguments.start)).state_dict())
    else:
        _start_far(network)
    data = lru_cache(lambda shapes: _judged_data(shapes, arguments.judge))
    trainer = Trainer(
        network,
        plan,
        arguments.out,
        report=lambda line: print(line, flush=True),
        evaluate=lambda averaged, shapes: _figures(averaged, data(tuple(shapes))),
        device=device,
    )
    averaged = trainer.run().cpu()
    if arguments.model:
        from depth_node.pretraining.bundling import bundle

        bundle(
            averaged,
            plan,
            trainer.progress,
            data(SIZES),
            arguments.model,
            SIZES,
            FOCAL_PER_HEIGHT,
        )
        print(f'wrote {arguments.model}')
    return 0


def _start_far(network: nn.Module) -> None:
    """Let the fresh network say two metres, not the 0.2 metres of a disparity of one half."""
    import torch

    for head in list(network.decoder.decoder)[-3:]:
        for parameter in head.parameters():
            if parameter.ndim == 1:
                torch.nn.init.constant_(parameter, -3.0)


Data = dict[str, 'list[JudgedView]']


def _judged_data(sizes: Sequence[tuple[int, int]], recordings: Sequence[Path]) -> Data:
    from depth_node.pretraining.views import load_views
    from depth_node.world import samples

    rng = np.random.default_rng(_HELD_OUT_SEED)
    data = {'world (held-out scenes)': _held_out_views(rng, samples.SHARES, sizes)}
    rng = np.random.default_rng((_HELD_OUT_SEED, 1))
    data['world (kinds held out)'] = _held_out_views(rng, samples.HELD_OUT_SHARES, sizes)
    names = [path.stem for path in recordings]
    if len(set(names)) < len(names):
        names = [str(path) for path in recordings]
    views = (load_views(path, list(sizes), 24) for path in recordings)
    return data | dict(zip(names, views, strict=True))


def _held_out_views(
    rng: np.random.Generator, shares: Mapping[str, float], sizes: Sequence[tuple[int, int]]
) -> list[JudgedView]:
    """Render scenes that no training sees, of kinds with these weights."""
    from depth_node.pretraining.views import JudgedView
    from depth_node.world import samples

    views: list[JudgedView] = []
    while len(views) < _HELD_OUT_VIEWS:
        height, width = sizes[len(views) % len(sizes)]
        for sample in samples.draw(rng, height, width, 1, shares=shares):
            depth = np.where(np.isfinite(sample.depth_m), sample.depth_m, np.nan)
            views.append(JudgedView(sample.rgb, depth.astype(np.float32), sample.camera.fx))
    return views


def _figures(network: nn.Module, data: Data) -> dict[str, float]:
    """Return few figures for the curve: metric and median-scaled Abs Rel per data set."""
    figures: dict[str, float] = {}
    for name, views in data.items():
        found = _judged(network, views)
        figures[f'{name} metric'] = found['abs_rel']
        figures[f'{name} scaled'] = found['abs_rel_median_scaled']
        figures[f'{name} a1'] = found['a1_median_scaled']
    return figures


def _judged(network: nn.Module, views: list[JudgedView]) -> dict[str, float]:
    from depth_node.pretraining.views import judged

    return judged(network, views, FOCAL_PER_HEIGHT, DEPTH_RANGE_M)


if __name__ == '__main__':
    sys.exit(main())
