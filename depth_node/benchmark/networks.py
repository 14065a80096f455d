"""Every published configuration of every network: size, cost, agreement and time of each engine.

Weights are random, so that no checkpoint is needed: the time of a network does not depend on them,
and the agreement of the engines is then judged on weights that hide nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import cast

from depth_node import model_folder
from depth_node.benchmark.own_process import in_own_process
from depth_node.benchmark.own_process import own_cache
from depth_node.benchmark.result import Spread
from depth_node.benchmark.result import spread_of
from depth_node.benchmark.result import this_machine
from depth_node.benchmark.turns import Contestant
from depth_node.benchmark.turns import Opened
from depth_node.benchmark.turns import take_turns
from depth_node.engines.selection import ON_CPU
from depth_node.engines.selection import open_engine
from depth_node.errors import DepthNodeError
from depth_node.model_folder import ModelCard
from depth_node.networks import registry
from depth_node.networks.specification import Release

PROTOCOL = (
    'Each network is built with random non-degenerate weights and made into a model folder by the '
    'same code that imports released checkpoints. Agreement: largest difference of an engine from '
    'the trained network in PyTorch, in standard deviations of its output over one picture, or '
    'the reason why the engine cannot run it. Time: one image at batch 1 through the engine '
    'alone, all engines of a network in turns of one run, each in its own process, float32, all '
    'cores; networks above 300 million parameters one engine after the other, because they do not '
    'fit into memory together. MACs: multiply-accumulates of convolutions and matrix products, '
    'counted by PyTorch.'
)
_TOGETHER_BELOW = 300_000_000
_TURN_BUDGET_MACS = 60e9
_MOST_CALLS = 8
_ROUNDS = 3


@dataclass(frozen=True)
class EngineRow:
    """One network on one engine."""

    engine: str
    """'openvino', 'onnxruntime' or 'torch'."""
    error: float | None
    """Largest difference from the trained network, standard deviations; None: did not run."""
    reason: str
    """Why it did not run; empty where it did."""
    time: Spread | None
    """Of one image; None: not timed."""


@dataclass(frozen=True)
class NetworkRow:
    """One configuration of one network."""

    network: str
    """Name in the registry."""
    variant: str
    """Of the network."""
    releases: tuple[str, ...]
    """Published checkpoints of this configuration and size."""
    height: int
    """Rows of the input, pixels."""
    width: int
    """Columns of the input, pixels."""
    parameters: int
    """Trained numbers in the network as it is served."""
    macs: int
    """Multiply-accumulates of one image."""
    failure: str = ''
    """Why no model folder could be made; empty where it could."""
    made_s: float = 0.0
    """Building, export and comparison of all engines, seconds."""
    engines: tuple[EngineRow, ...] = field(default_factory=tuple)
    """In the order in which the node tries them."""
    commit: str = ''
    """Of the source when this row was measured."""


def configurations(pattern: Callable[[str], bool]) -> Iterator[tuple[str, list[Release]]]:
    """Yield each network's releases, those of one identity and size together.

    :param pattern: tells whether the releases of a name are wanted.
    """
    for name in registry.names():
        groups: dict[object, list[Release]] = {}
        for release in registry.spec(name).releases:
            if pattern(release.name):
                options = tuple(sorted(release.identity.options.items(), key=str))
                key = (release.identity.variant, options, release.height, release.width)
                groups.setdefault(key, []).append(release)
        for group in groups.values():
            yield name, group


def measure(name: str, releases: list[Release]) -> NetworkRow:
    """Make a model folder of one configuration and time every engine on it.

    :param name: of the network in the registry.
    :param releases: of one identity and size.
    """
    first = releases[0]
    with tempfile.TemporaryDirectory() as folder, own_cache(Path(folder) / 'cache'):
        out = Path(folder) / first.name
        parameters, macs, made_s, failure = in_own_process(first.name, _prepare, name, first, out)
        engines: tuple[EngineRow, ...] = ()
        if not failure:
            engines = tuple(_engine_rows(model_folder.read(out).card, out, parameters, macs))
    return NetworkRow(
        network=name,
        variant=first.identity.variant,
        releases=tuple(release.name for release in releases),
        height=first.height,
        width=first.width,
        parameters=parameters,
        macs=macs,
        failure=failure,
        made_s=made_s,
        engines=engines,
        commit=this_machine().commit,
    )


def summary(row: NetworkRow) -> str:
    """Return one line for the terminal."""
    cells = [
        f'{engine.engine} {engine.time.median_ms:.4g} ms ({engine.error:.0e})'
        if engine.time and engine.error is not None
        else f'{engine.engine}: {engine.reason}'
        for engine in row.engines
    ]
    made = row.failure or f'made in {row.made_s:.0f} s; {", ".join(cells)}'
    return f'{row.network} {row.variant} {row.width}x{row.height}: {made}'


def _prepare(name: str, release: Release, out: Path) -> tuple[int, int, float, str]:
    """Build, fill and export a network; runs in a process of its own.

    :returns: parameters, multiply-accumulates, seconds, and why there is no model folder.
    """
    from depth_node.benchmark.exactness import macs_of
    from depth_node.benchmark.random_models import folder_of
    from depth_node.benchmark.random_models import random_network

    started = time.monotonic()
    network = random_network(name, release.identity)
    parameters = sum(value.numel() for value in network.parameters())
    size = (release.height, release.width)
    macs = macs_of(name, release.identity, *size)
    failure = ''
    try:
        folder_of(network, name, release.identity, size, out)
    except DepthNodeError as error:
        failure = str(error)
    return parameters, macs, time.monotonic() - started, failure


def _engine_rows(card: ModelCard, out: Path, parameters: int, macs: int) -> Iterator[EngineRow]:
    """Yield what each engine does with a model folder."""
    size = card.inputs[0]
    parity = cast('dict[str, dict[str, object]]', card.metrics['parity'])
    found = parity[f'{size.width}x{size.height}']
    able = [name for name in ON_CPU if isinstance(found.get(f'{name} f32'), float)]
    calls = max(1, min(_MOST_CALLS, round(_TURN_BUDGET_MACS / macs)))
    rounds = _ROUNDS if calls > 1 else 1
    contestants = [Contestant(name, _open, (str(out), name)) for name in able]
    groups = [contestants]
    if parameters >= _TOGETHER_BELOW:
        groups = [[contestant] for contestant in contestants]
    times = {
        timed.name: spread_of(timed.times_ns)
        for group in groups
        for timed in take_turns(group, rounds, calls)
    }
    for name in ON_CPU:
        given = found.get(f'{name} f32')
        error = given if isinstance(given, float) else None
        reason = '' if error is not None else str(given or 'not installed')
        yield EngineRow(name, error, reason, times.get(name))


def _open(folder: str, engine: str) -> Opened:
    """Open an engine on a model folder; runs in the process of a contestant."""
    import numpy as np

    model = model_folder.read(Path(folder))
    opened, _ = open_engine(model, model.card.inputs[0], engine=engine, precision='f32', threads=0)
    image = np.zeros(opened.info.input_shape, np.float32)
    return lambda: opened.infer(image), {}
