"""The float16 graph of a model: written where float16 is good enough, and checked on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

import torch

from depth_node.engines import Engine
from depth_node.engines.memory import give_back_freed_memory
from depth_node.engines.onnxruntime_engine import OnnxRuntimeEngine
from depth_node.engines.openvino_engine import OpenVinoEngine
from depth_node.engines.parity import TOLERANCES
from depth_node.engines.parity import Disagreement
from depth_node.engines.parity import Golden
from depth_node.engines.parity import error_of
from depth_node.engines.parity import parity_error
from depth_node.engines.parity import read_golden
from depth_node.errors import EngineError
from depth_node.errors import MissingPackage
from depth_node.errors import ModelError
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.export import export_onnx
from depth_node.networks.half import halved
from depth_node.networks.rewrites import GPU
from depth_node.networks.rewrites import linearized


@dataclass(frozen=True)
class HalfGraph:
    """What came of float16 at one input size."""

    name: str | None
    """Of the ONNX file; None: there is none."""
    error: float | str
    """Largest error of float16 arithmetic, every result rounded, on the golden image, in standard
    deviations; or why there is no graph."""
    weights: tuple[str, ...] = ()
    """Names of the files that were written beside it."""


def half_graph(
    network: DepthNetwork,
    size: InputSpec,
    folder: Path,
    golden: Golden,
    stored_in: Sequence[str],
    storage: str,
) -> HalfGraph:
    """Write the float16 graph of one size, unless float16 is too coarse for the network.

    It has the fewest operations, because it is for GPUs.  Weights that lie in one of the files
    ``stored_in`` are read from there, and rounded while loading where they lie in float32, so
    that only those that other rewrites have changed are written.

    :param network: trained network with the weights that are stored.
    :param golden: what its graph is to reproduce.
    """
    try:
        plain = linearized(network, size.height, size.width, GPU)
        module = halved(plain)
        with torch.inference_mode():
            output = module(torch.from_numpy(golden.image))[0, 0].numpy()
        error = error_of(output, golden)
        if not error <= TOLERANCES['f16', storage]:
            received = f'float16 arithmetic that is off by {error:.2g} standard deviations'
            raise ModelError('float16 graph', received, f'{TOLERANCES["f16", storage]:g} or less')
        graph = folder / f'graph_f16_{size.width}x{size.height}.onnx'
        files = export_onnx(
            module,
            size.height,
            size.width,
            graph,
            weights_file=f'{graph.stem}.safetensors',
            stored_in=stored_in,
            storage=storage,
            rounded_from={f'body.{name}': value for name, value in plain.named_parameters()}
            if storage == 'f32'
            else None,
        )
    except ModelError as reason:
        return HalfGraph(None, str(reason).replace(f'{folder}/', ''))
    finally:
        give_back_freed_memory()
    weights = tuple(path.name for path in files if path != graph)
    return HalfGraph(graph.name, _digits(error), weights)


def in_half(folder: ModelFolder, size: InputSpec, half: HalfGraph) -> dict[str, float | str]:
    """Return what is to be said of float16 in the card, after the graph was run on the CPU.

    :returns: 'float16 arithmetic' and, where there is a graph, 'float16 graph': its error in an
        engine that computes it in float32, or why none can load it.
    :raises Disagreement: when engines run it and none gives what the trained network gives.
    """
    if half.name is None:
        return {'float16 arithmetic': half.error}
    as_f32 = replace(size, graph=half.name)
    return {'float16 arithmetic': half.error, 'float16 graph': _on_cpu(folder, as_f32)}


def _on_cpu(folder: ModelFolder, size: InputSpec) -> float | str:
    golden = read_golden(folder, size)
    largest = TOLERANCES['f16', folder.card.storage]
    reasons: list[EngineError | MissingPackage] = []
    for kind in (OnnxRuntimeEngine, OpenVinoEngine):
        try:
            error = _error(kind(folder, size, precision='f32', threads=0), golden)
            if error <= largest:
                return _digits(error)
            found = f'an output that is off by {error:.2g} standard deviations'
            raise Disagreement('float16 graph', found, f'at most {largest:g}')
        except (EngineError, MissingPackage) as reason:
            reasons.append(reason.with_traceback(None))
        finally:
            give_back_freed_memory()
    for failure in reasons:
        if isinstance(failure, Disagreement):
            raise failure
    return ' '.join(str(failure).replace(f'{folder.path}/', '') for failure in reasons)


def _error(engine: Engine, golden: Golden) -> float:
    try:
        return parity_error(engine, golden)
    finally:
        engine.close()


def _digits(error: float) -> float:
    return float(f'{error:.3g}')
