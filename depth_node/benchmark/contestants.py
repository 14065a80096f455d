"""What is timed in a run of engines: a model in an engine, or its unrewritten network in PyTorch.

Everything here runs in the process of a contestant; torch is imported only by those that need it,
so that memory and start-up are those of the engine alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.benchmark.libraries import import_s
from depth_node.benchmark.subjects import Subject
from depth_node.benchmark.turns import Opened
from depth_node.engines.parity import read_golden
from depth_node.engines.selection import open_engine
from depth_node.model_folder import ModelFolder
from depth_node.model_folder import OutputSpec

Output = NDArray[np.float32]
_NEAR_ZERO = 1e-12


@dataclass(frozen=True)
class Eager:
    """A way to run the trained network, nothing rewritten, operator by operator in PyTorch."""

    device: str
    """'cpu' or 'cuda'."""
    channels_last: bool
    """Order of its memory."""
    batch: int = 1
    """Images in one call."""


EAGER = {
    'eager': Eager('cpu', channels_last=False),
    'eager-channels-last': Eager('cpu', channels_last=True),
    'eager-cuda': Eager('cuda', channels_last=False),
    'eager-cuda-batch16': Eager('cuda', channels_last=False, batch=16),
}
"""Names of the baselines."""
KEEP_COMPILED = frozenset({'openvino', 'tensorrt'})
"""Engines that keep what they have compiled, so that a first start takes longer than others."""


def open_contestant(subject: Subject, engine: str, precision: str, threads: int) -> Opened:
    """Open a model.

    :param engine: one of :data:`EAGER`, or an engine of selection.open_engine.
    :param precision: as for selection.open_engine; 'f32' for the eager ones.
    :param threads: CPU threads; 0 lets the library decide.
    :returns: the call, and what is known of it: versions, start-up and errors.
    :raises DepthNodeError: when the engine cannot run the model in this precision.
    """
    spent_s = import_s(engine)
    started = time.perf_counter()
    if engine in EAGER:
        folder = subject.opened()
        call, facts = _eager(folder, subject, EAGER[engine], threads)
    else:
        folder = subject.opened()
        call, facts = _engine(folder, subject, engine, precision, threads)
    loaded = time.perf_counter()
    output = call().copy()
    done = time.perf_counter()
    start = {
        'import_s': spent_s,
        'load_s': loaded - started,
        'first_ms': 1e3 * (done - loaded),
    }
    return call, {**facts, **start, **errors_of(output, subject, folder.card.output)}


def first_load_s(subject: Subject, engine: str, precision: str, threads: int) -> float:
    """Open a model on an engine whose compiled networks are kept, and return the seconds.

    Runs in a process of its own, before the contestant that finds the network in the cache.

    :raises DepthNodeError: when the engine cannot run the model in this precision.
    """
    import_s(engine)
    started = time.perf_counter()
    folder = subject.opened()
    size = folder.card.inputs[subject.input_index]
    open_engine(folder, size, engine=engine, precision=precision, threads=threads)
    return time.perf_counter() - started


def _engine(
    folder: ModelFolder, subject: Subject, engine: str, precision: str, threads: int
) -> tuple[Callable[[], Output], dict[str, Any]]:
    size = folder.card.inputs[subject.input_index]
    opened, notes = open_engine(folder, size, engine=engine, precision=precision, threads=threads)
    image = read_golden(folder, size).image
    info = opened.info
    facts = {
        'version': info.version,
        'precision': info.precision,
        'device': info.device,
        'notes': '; '.join(notes),
    }
    return lambda: opened.infer(image), facts


def _eager(
    folder: ModelFolder, subject: Subject, way: Eager, threads: int
) -> tuple[Callable[[], Output], dict[str, Any]]:
    """Open the network as it was trained: normalisation inside, all heads, float32."""
    import torch

    from depth_node.networks.model_weights import network_of

    if way.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('PyTorch sees no GPU')
    if threads > 0:
        torch.set_num_threads(threads)
    order = torch.channels_last if way.channels_last else torch.contiguous_format
    network = network_of(folder).to(way.device, memory_format=order)
    card = folder.card
    golden = read_golden(folder, card.inputs[subject.input_index]).image
    std, mean = (np.array(value, np.float32)[:, None, None] for value in (card.std, card.mean))
    picture = torch.from_numpy(golden * std + mean).repeat(way.batch, 1, 1, 1)
    picture = picture.to(way.device, memory_format=order)

    def call() -> Output:
        with torch.inference_mode():
            outputs = network(picture)
        # bringing the result to the processor waits for a GPU, as whoever uses it has to
        return outputs[0][0, 0].contiguous().cpu().numpy()

    device = torch.cuda.get_device_name() if way.device == 'cuda' else ''
    return call, {
        'version': torch.__version__,
        'precision': 'f32',
        'device': device,
        'notes': '',
    }


def errors_of(output: Output, subject: Subject, spec: OutputSpec) -> dict[str, float]:
    """Hold the output for the golden picture to the float64 one; nothing where there is none.

    :returns: 'error' (largest, as the network counts), 'error_std' (the same in standard
        deviations of the exact output), and for networks of depth 'depth_error_p50' and
        'depth_error_max', |depth / exact depth - 1| over all pixels.
    """
    if not subject.exact:
        return {}
    exact = np.load(subject.exact)
    largest = float(np.abs(output.astype(np.float64) - exact).max())
    found = {'error': largest, 'error_std': largest / max(float(exact.std()), _NEAR_ZERO)}
    if spec.kind == 'relative':
        return found
    depth, exact_depth = (depth_of(values, spec) for values in (output, exact))
    off = np.abs(depth / exact_depth - 1.0)
    return {
        **found,
        'depth_error_p50': float(np.median(off)),
        'depth_error_max': float(off.max()),
    }


def depth_of(values: NDArray[Any], spec: OutputSpec) -> NDArray[np.float64]:
    """Return the depth that an output of kind 'disparity' or 'metric' stands for."""
    numbers = values.astype(np.float64)
    if spec.kind == 'metric':
        return numbers
    low, high = 1.0 / spec.max_depth_m, 1.0 / spec.min_depth_m
    return 1.0 / (low + (high - low) * numbers)
