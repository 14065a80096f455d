"""A tiny network in which every weight matters, and a model of it, made once per test run."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from depth_node.engines import Engine
from depth_node.engines.selection import open_engine
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.model_folder import OutputSpec
from depth_node.networks import conformance
from depth_node.networks import registry
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.make_model import make_model
from depth_node.networks.specification import Identity

SPEC = registry.spec('lite-mono')
TRAITS = SPEC.variants['tiny']
SIZES = [(64, 96), (96, 64)]

_FOLDER = tempfile.TemporaryDirectory(prefix='tiny_model.')


def trained() -> DepthNetwork:
    """Return a network in which every weight matters; fresh ones hide faults behind 1e-6."""
    network = registry.build('lite-mono', Identity('tiny')).eval()
    conformance.fill(network)
    return network


def card(name: str) -> ModelCard:
    return ModelCard(
        name=name,
        network='lite-mono',
        variant='tiny',
        output=OutputSpec('disparity'),
        inputs=(),
        fit='native',
        mean=TRAITS.mean,
        std=TRAITS.std,
    )


@functools.cache
def two_sizes() -> ModelFolder:
    """Make a model of the network at both sizes, once: its export takes longer than most tests."""
    return make_model(trained(), card('two-sizes'), Path(_FOLDER.name) / 'two-sizes', SIZES)


def opened(model: ModelFolder, engine: str = 'auto', precision: str = 'f32') -> Engine:
    """Open an engine at the first size of a model."""
    return open_engine(model, model.card.inputs[0], engine=engine, precision=precision, threads=1)[
        0
    ]
