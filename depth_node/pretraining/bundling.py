"""From a finished training to the model folder that is bundled, with its honest figures."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from depth_node.model_folder import ModelFolder
from depth_node.model_folder.card import ModelCard
from depth_node.model_folder.card import OutputSpec
from depth_node.networks import registry
from depth_node.networks.make_model import make_model
from depth_node.pretraining.machine import hours_told
from depth_node.pretraining.notes import notes_of
from depth_node.pretraining.trainer import Progress
from depth_node.pretraining.trainer import TrainingPlan
from depth_node.pretraining.views import JudgedView
from depth_node.pretraining.views import judged


def bundle(
    network: nn.Module,
    plan: TrainingPlan,
    progress: Progress,
    data: Mapping[str, Sequence[JudgedView]],
    out: Path,
    sizes: Sequence[tuple[int, int]],
    focal_per_height: float,
) -> ModelFolder:
    """Judge a trained network and write its model folder, weights as float16.

    :param network: averaged network at the end of the plan.
    :param data: name of a data set -> its views; none of them was trained on.
    :param out: folder to make or replace; its name becomes the model's.
    :param sizes: (height, width) of the exported inputs, pixels, of one height.
    :raises ModelError: when the network cannot become a model.
    :raises EngineError: when an engine disagrees with it.
    """
    traits = registry.spec(plan.network).variants[plan.variant]
    network.eval()
    metrics = {
        name: _rounded(judged(network, views, focal_per_height, plan.depth_range_m))
        for name, views in data.items()
    }
    card = ModelCard(
        name=out.name,
        network=plan.network,
        variant=plan.variant,
        output=OutputSpec('disparity', *plan.depth_range_m),
        inputs=(),
        fit='native',
        mean=traits.mean,
        std=traits.std,
        focal_px=focal_per_height * sizes[0][0],
        options=dict(plan.options),
        weights_license='Apache-2.0',
        source=(
            'python -m depth_node.tools.pretrain; '
            f'{progress.images} images, {hours_told(progress.seconds_on) or "no time"}, '
            f'seed {plan.seed}' + (f', from {Path(plan.start).name}' if plan.start else '')
        ),
        training_data='depth_node.world: procedural scenes, no photographs, no foreign weights',
        metrics=dict(metrics),
        notes=notes_of(metrics),
    )
    return make_model(network, card, out, sizes, storage='f16', overwrite=True)


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}
