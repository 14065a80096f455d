"""From prepared recordings to a fine-tuned model folder."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from depth_node import camera
from depth_node.dataset import sparse_depth
from depth_node.dataset.exposure import TELLING
from depth_node.dataset.exposure import exposure_change
from depth_node.dataset.pairs_by_flow import has_poses
from depth_node.dataset.pairs_by_flow import posed_by_depth
from depth_node.errors import RecordingError
from depth_node.errors import SettingsError
from depth_node.finetuning.kept_scale import KeptScale
from depth_node.finetuning.kept_scale import kept_scale
from depth_node.finetuning.kept_scale import settled_scale
from depth_node.finetuning.objective import LossWeights
from depth_node.finetuning.pose import BoundedResidual
from depth_node.finetuning.pose import NetworkPoses
from depth_node.finetuning.pose import Poses
from depth_node.finetuning.pose import RecordedPoses
from depth_node.finetuning.preparation import Preparation
from depth_node.finetuning.preparation import Prepared
from depth_node.finetuning.reference_maps import ReferenceMaps
from depth_node.finetuning.reference_maps import reference_maps
from depth_node.finetuning.run_folder import RunFolder
from depth_node.finetuning.samples import BatchSettings
from depth_node.finetuning.samples import Footage
from depth_node.finetuning.samples import Samples
from depth_node.finetuning.schedule import Schedule
from depth_node.finetuning.schedule import in_encoder
from depth_node.finetuning.schedule import steps_for
from depth_node.finetuning.settings import FineTuneSettings
from depth_node.finetuning.start_model import StartModel
from depth_node.finetuning.trainer import FineTuned
from depth_node.finetuning.trainer import Progress
from depth_node.finetuning.trainer import TrainingSettings
from depth_node.finetuning.trainer import fine_tuned
from depth_node.frames import CameraImage
from depth_node.frames import CameraModel
from depth_node.frames import RelativeFrame
from depth_node.judging.models import opened_models
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.model_folder.card import LONGEST_NAME
from depth_node.networks import pose as pose_networks
from depth_node.networks.make_model import make_model

Counted = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

FEWEST_TARGETS = 20
_TEACHER_WEIGHT = 0.1
_GEOMETRY_WEIGHT = 0.05
_POSE_WEIGHT = 0.1
"""Of the difference between the poses of a network and those that tracks and depth tell."""
_SPARSE_WEIGHTS = {
    sparse_depth.DEPTH_IMAGE: 0.2,
    sparse_depth.LIDAR: 0.2,
    sparse_depth.STEREO: 0.2,
    sparse_depth.SCAN: 0.1,
}
_SUFFIX = '-finetuned'
_MOST_NAMES = 50


@dataclass(frozen=True, eq=False)
class Learned:
    """How a training went."""

    made: FineTuned
    """The network and its record."""
    weights: LossWeights
    """What was minimised."""
    schedule: Schedule
    """With which rates."""
    seconds: float
    """Wall time of this process, seconds."""
    device: str
    """Where."""
    kept: KeptScale = field(default_factory=KeptScale)
    """What was left of its scale to mend after the training."""
    exposure: float = 0.0
    """Change of brightness between the frames of a pair, as the logarithm of a gain."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return {
            'steps': self.made.state.step,
            'strikes': self.made.state.strikes,
            'stopped': self.made.stopped,
            'curve': self.made.state.curve,
            'weights': vars(self.weights),
            'schedule': vars(self.schedule),
            'seconds': self.seconds,
            'kept_scale': vars(self.kept),
            'exposure_change': self.exposure,
            'device': self.device,
        }


def check_targets(preparation: Preparation) -> None:
    """Refuse recordings of which too little can be learned.

    :raises RecordingError: with the reasons why frames were left out.
    """
    if preparation.targets >= FEWEST_TARGETS:
        return
    dropped: dict[str, int] = {}
    for item in preparation.recordings:
        for reason, count in item.plan.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    listed = ', '.join(f'{count} {reason}' for reason, count in sorted(dropped.items()))
    raise RecordingError(
        'fine-tuning',
        f'{preparation.targets} frames that can be learned from (left out: {listed or "none"})',
        f'at least {FEWEST_TARGETS} frames with parallax to their neighbours',
        'Record while the camera moves sideways or along curves, for a minute or more.',
    )


def learned(
    start: StartModel,
    preparation: Preparation,
    settings: FineTuneSettings,
    folder: RunFolder,
    checkpoint: Path,
    progress: Callable[[Progress], None],
    counted: Counted = lambda what, done, total: None,
) -> Learned:
    """Train a copy of the start network.

    :param checkpoint: folder of the state; the training goes on from what lies there.
    :raises RecordingError: when the recordings do not fit together or cannot be read.
    :raises ModelError: when the checkpoint is damaged.
    """
    began_s = time.monotonic()
    device = _device(settings.device)
    torch.manual_seed(settings.seed)
    network = copy.deepcopy(start.network).to(device)
    network.requires_grad_(True)
    if settings.train_decoder_only:
        _freeze_encoder(network)
    meaning = start.meaning(preparation.scale)
    by_network = poses_by_network(settings, preparation)
    weights = _weights(settings, preparation, device, by_network)
    exposure = max(exposure_change(item.cache, item.plan) for item in preparation.recordings)
    batch = BatchSettings(
        size=settings.batch,
        seed=settings.seed,
        source_views=by_network or bool(weights.geometry),
        same_brightness=exposure > TELLING,
    )
    if by_network:
        preparation = _posed(start, preparation)
    footage = _footage(start, preparation, settings, folder, counted)
    samples = Samples(footage, batch)
    poses = _poses(settings, by_network, samples)
    steps = settings.steps or steps_for(len(samples), settings.batch)
    schedule = Schedule(steps=steps)
    if settings.steps:  # whoever asks for a short training does not want a long warm-up
        schedule = replace(schedule, pose_steps=min(schedule.pose_steps, 2 * settings.steps))
    made = fine_tuned(
        network,
        meaning,
        samples,
        poses,
        checkpoint,
        TrainingSettings(
            schedule=schedule,
            weights=weights,
            precision=settings.precision,
            workers=settings.workers,
        ),
        progress,
    )
    counted('scale', 0, 1)
    mended = kept_scale if by_network else settled_scale
    kept = mended(start, made.network, preparation)
    return Learned(
        made, weights, schedule, time.monotonic() - began_s, device.type, kept, exposure
    )


def exported(
    start: StartModel,
    made: Learned,
    preparation: Preparation,
    settings: FineTuneSettings,
    out: Path,
) -> ModelFolder:
    """Write the fine-tuned network as a model folder that engines have agreed to.

    :raises ModelError: when a weight is not finite.
    :raises EngineError: when an engine disagrees with the network.
    """
    card = _card(start, made, preparation, settings)
    network = made.made.network.to('cpu')
    return make_model(
        network, card, out, start.sizes, storage=start.folder.card.storage, overwrite=True
    )


def poses_by_network(settings: FineTuneSettings, preparation: Preparation) -> bool:
    """Tell whether poses come from a network, because none were recorded or it is asked for."""
    if settings.pose != 'auto':
        return settings.pose == 'network'
    return not preparation.posed


def _card(
    start: StartModel, made: Learned, preparation: Preparation, settings: FineTuneSettings
) -> ModelCard:
    """Describe the fine-tuned model; what it inherits, it keeps."""
    card = start.folder.card
    chosen = preparation.chosen
    scale: dict[str, Any] = {'factor': preparation.scale, 'source': 'start model'}
    if chosen is not None:
        scale |= {'source': chosen.source, 'spread': chosen.spread, 'points': chosen.samples}
    if made.kept.factor != 1.0:
        scale |= {'after_training': made.kept.factor, 'by': made.kept.source}
    recordings = _listed([item.name for item in preparation.recordings])
    return replace(
        card,
        name=card.name.removesuffix(_SUFFIX)[: LONGEST_NAME - len(_SUFFIX)] + _SUFFIX,
        depth_scale=card.depth_scale * preparation.scale * made.kept.factor,
        parent=f'{card.name} {start.sha256}',
        source=f'python -m depth_node.tools.finetune; {made.made.state.step} steps, '
        f'seed {settings.seed}',
        training_data=f'{card.training_data}; fine-tuned on {preparation.targets} frames of '
        f'{recordings}'.lstrip('; '),
        metrics={'fine-tuning': {'scale': scale, 'steps': made.made.state.step}},
    )


def _listed(names: Sequence[str]) -> str:
    """Return names in a row, the first of very many: a card has a largest size."""
    rest = len(names) - _MOST_NAMES
    return ', '.join(names[:_MOST_NAMES]) + (f' and {rest} more' if rest > 0 else '')


def _device(name: str) -> torch.device:
    if name == 'cuda' and not torch.cuda.is_available():
        raise SettingsError('option --device', 'cuda', 'cpu, as torch finds no GPU here')
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    return torch.device(name)


def _freeze_encoder(network: torch.nn.Module) -> None:
    for name, value in network.named_parameters():
        if in_encoder(name):
            value.requires_grad_(False)


def _weights(
    settings: FineTuneSettings, preparation: Preparation, device: torch.device, by_network: bool
) -> LossWeights:
    """Choose the parts of the loss by what was recorded and by what the machine can do."""
    kinds = {source.kind for item in preparation.recordings for source in item.cache.sources}
    sparse = max((_SPARSE_WEIGHTS.get(kind, 0.0) for kind in kinds), default=0.0)
    # A pose network moves in the units of the start model: metres help where it has been scaled.
    in_metres = not by_network or preparation.chosen is not None
    return LossWeights(
        sparse=sparse if in_metres else 0.0,
        teacher=_TEACHER_WEIGHT if settings.teacher else 0.0,
        geometry=_GEOMETRY_WEIGHT if device.type == 'cuda' else 0.0,
        residual=_POSE_WEIGHT if by_network else LossWeights.residual,
    )


def _poses(settings: FineTuneSettings, by_network: bool, samples: Samples) -> Poses:
    if by_network:
        return NetworkPoses(pose_networks.PoseCnn())
    return BoundedResidual(samples.pairs) if settings.pose == 'residual' else RecordedPoses()


def _posed(start: StartModel, preparation: Preparation) -> Preparation:
    """Give pairs without poses those that tracks tell with the depth of the start model."""
    recordings = []
    for item in preparation.recordings:
        if not has_poses(item.cache):
            predict = start.depth_m(item.cache.camera, preparation.scale)
            item = replace(item, plan=posed_by_depth(item.cache, item.plan, predict))
        recordings.append(item)
    return replace(preparation, recordings=tuple(recordings))


def _footage(
    start: StartModel,
    preparation: Preparation,
    settings: FineTuneSettings,
    folder: RunFolder,
    counted: Counted,
) -> list[Footage]:
    """Return what batches are made of, with the maps of the start model and of the teacher."""
    found = []
    with ExitStack() as stack:
        teacher = None
        if settings.teacher:
            (teacher,) = stack.enter_context(opened_models([settings.teacher]))
        for item in preparation.recordings:
            indices = sorted(item.plan.targets)
            known = folder.frames / f'{item.cache.root.name}.start'
            maps = reference_maps(
                item.cache,
                indices,
                start.inverse_depth(item.cache.camera, preparation.scale),
                known,
                f'{start.sha256} {preparation.scale!r}',
                lambda done, total: counted('start model', done, total),
            )
            taught: ReferenceMaps | None = None
            if teacher is not None:
                taught = reference_maps(
                    item.cache,
                    indices,
                    _taught_by(teacher.process, item.cache.camera),
                    folder.frames / f'{item.cache.root.name}.teacher',
                    teacher.sha256,
                    lambda done, total: counted('teacher', done, total),
                )
            found.append(Footage(item.cache, item.plan.targets, start=maps, teacher=taught))
    return found


def _taught_by(
    process: Callable[[CameraImage, camera.CameraView], Any], shown: CameraModel
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return what maps an image at network size to a teacher's inverse depth, of any scale."""
    view = camera.CameraView(shown, None)

    def predict(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        frame = process(CameraImage(rgb, 0, ''), view)
        if isinstance(frame, RelativeFrame):
            return np.nan_to_num(frame.inverse)
        with np.errstate(divide='ignore'):
            inverse = 1.0 / frame.depth_m
        return np.nan_to_num(inverse, nan=0.0, posinf=0.0).astype(np.float32)

    return predict


def described(preparation: Preparation) -> dict[str, Any]:
    """Return pairs and scale as plain JSON values."""
    return {
        'scale': preparation.scale,
        'chosen': preparation.chosen.source if preparation.chosen else '',
        'estimates': [vars(item) for item in preparation.estimates],
        'by_take': {
            name: [vars(item) for item in estimates]
            for name, estimates in preparation.by_take.items()
        },
        'recordings': {item.name: _counts(item) for item in preparation.recordings},
    }


def _counts(item: Prepared) -> dict[str, Any]:
    parallax: Sequence[float] = [
        pair.parallax_px for pairs in item.plan.targets.values() for pair in pairs
    ]
    return {
        'frames': len(item.cache),
        'train': len(item.split.train),
        'held_out': len(item.split.held_out),
        'targets': len(item.plan.targets),
        'held_out_targets': len(item.held_out.targets),
        'median_parallax_px': float(np.median(parallax)) if parallax else math.nan,
        'typical_m': item.typical_m,
        'dropped': {**item.cache.dropped, **item.plan.dropped},
    }
