"""What the bundled model is worth as a start: against the same network with fresh weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from finetune_start import scaled_start

from depth_node.dataset.audit_recording import audit_recording
from depth_node.judging.bootstrap import BlockSettings
from depth_node.judging.comparison import compare
from depth_node.judging.judgement import Judgement
from depth_node.model_folder import ModelFolder
from depth_node.networks import registry
from depth_node.networks.make_model import make_model
from depth_node.networks.specification import Identity
from finetune_check.row import Row
from finetune_check.runs import Setting
from finetune_check.runs import finetuned

_SEED = 0
_FRESH_BIAS = -3.0
"""Of the output heads: the fresh network begins at two metres, as pre-training does."""


def start(setting: Setting) -> Row:
    """The same card, recording, steps and seeds, once from each start; held-out time decides."""
    row = Row('start')
    path = setting.livingroom
    if path is None or not path.exists():
        row.skipped = f'The recording {path} is not here; name it with LIVINGROOM=path.'
        return row
    hidden = audit_recording(path).choice.depth
    bundled = scaled_start(setting.folder / 'bundled', 1.0)
    starts = {'random': fresh(bundled, setting.folder / 'random'), 'bundled': bundled}
    given: dict[str, Any] = {} if setting.share == 1.0 else {'steps': setting.steps}
    judgements, block_s = {}, 1.0
    for name, model in starts.items():
        run = finetuned(
            setting, path, model.path, f'run-{name}', hide=[hidden], seed=_SEED, **given
        )
        row.told(f'minutes from {name}', run.seconds / 60.0)
        found = run.record('evaluate')
        # as long as the command found right for this recording
        block_s = float(found['block_s'])
        judgements[name] = Judgement.from_json(found['after'])
    settings = BlockSettings(block_s=block_s)
    changes = compare(judgements['random'], judgements['bundled'], settings).changes
    for measure in ('median.abs_rel', 'metric.abs_rel'):
        change = changes[measure]
        row.told(f'{measure} from random', change.before)
        row.told(f'{measure} from bundled', change.after)
        # better with its interval clear of zero, not on the average alone
        row.at_most(f'{measure}, bundled - random, upper end of 95 %', change.difference.high, 0.0)
    return row


def fresh(like: ModelFolder, out: Path) -> ModelFolder:
    """Write a model of the same card with weights as a pre-training begins with them."""
    card = like.card
    torch.manual_seed(_SEED)
    options = {**card.options, 'drop_path': 0.0, 'layer_scale': 0.1}
    network = registry.build(card.network, Identity(card.variant, options)).eval()
    for head in list(network.decoder.decoder)[-3:]:
        for parameter in head.parameters():
            if parameter.ndim == 1:
                torch.nn.init.constant_(parameter, _FRESH_BIAS)
    sizes = [(size.height, size.width) for size in card.inputs]
    return make_model(network, replace(card, name='random', metrics={}), out, sizes, storage='f16')
