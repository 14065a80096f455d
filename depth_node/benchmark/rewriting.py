"""How much the exact rewrites gain: the same weights with and without them, in every engine.

Rewrites of which it depends on the engine whether they gain are also switched off one at a time,
which is what the choices in networks/rewrites.py go by.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_node.benchmark.own_process import in_own_process
from depth_node.benchmark.result import Spread
from depth_node.benchmark.result import spread_of
from depth_node.benchmark.turns import Contestant
from depth_node.benchmark.turns import Opened
from depth_node.benchmark.turns import take_turns

REWRITES = ('split_concat', 'resize_by_convolution', 'gram_attention')
"""Fields of networks.rewrites.Choices."""
REFERENCE, REWRITTEN = 'reference', 'rewritten'
WITHOUT: Mapping[str, tuple[str, ...]] = {
    REWRITTEN: (),
    **{f'without {name}': (name,) for name in REWRITES},
    'without all three': REWRITES,
}
"""Name of a graph -> rewrites that it goes without."""
GRAPHS = (REFERENCE, REWRITTEN)
ABLATION = (REFERENCE, *WITHOUT)
ENGINES = ('torch', 'onnxruntime', 'openvino')
PROTOCOL = (
    'Each engine and graph in its own process; turns in one run, order reversed each round. '
    'Random non-degenerate weights, the same for all. Error: largest absolute difference of the '
    'disparity, in (0, 1), from the float64 result of the unrewritten network. torch: eager, '
    'channels_last, inference_mode, float32. openvino: f32 set explicitly, latency hint. The '
    'reference graph is the network as trained, normalisation and all heads included where the '
    'engine cannot drop them; "without" graphs lack the rewrites that they name and have all '
    'others. launches: operators that PyTorch runs for one image, views not counted.'
)


@dataclass(frozen=True)
class RewritingRow:
    """One engine and graph."""

    variant: str
    """Variant of Lite-Mono."""
    engine: str
    """'torch', 'onnxruntime' or 'openvino'."""
    graph: str
    """'reference' or a key of ``WITHOUT``."""
    time: Spread
    """Of one image."""
    error: float
    """Largest absolute difference from float64, disparity in (0, 1)."""
    speed_up_min: float
    """Smallest time of the reference graph in the same engine over this one's."""
    speed_up_median: float
    """The same with medians."""
    launches: int = 0
    """Operators that PyTorch runs for one image; 0: another engine."""


def measure(
    variant: str,
    height: int,
    width: int,
    rounds: int,
    calls: int,
    progress: Callable[[int, int], None],
    graphs: Sequence[str] = GRAPHS,
) -> list[RewritingRow]:
    """Time all engines on several graphs of one variant.

    :param variant: of Lite-Mono.
    :param rounds: turns of each contestant.
    :param calls: images per turn.
    :param progress: called with rounds done and in all.
    :param graphs: of ``ABLATION``; with 'reference', which the others are compared with.
    """
    with tempfile.TemporaryDirectory() as folder:
        # in a process of its own, so that this one stays small and quiet while others are timed
        in_own_process(f'lite-mono {variant}', _prepare, variant, height, width, folder, graphs)
        contestants = [
            Contestant(f'{engine} {graph}', _OPENERS[engine], (folder, variant, graph))
            for engine in ENGINES
            for graph in graphs
        ]
        timed = {item.name: item for item in take_turns(contestants, rounds, calls, progress)}
    rows = []
    for engine in ENGINES:
        reference = spread_of(timed[f'{engine} reference'].times_ns)
        for graph in graphs:
            found = timed[f'{engine} {graph}']
            time = spread_of(found.times_ns)
            rows.append(
                RewritingRow(
                    variant=variant,
                    engine=engine,
                    graph=graph,
                    time=time,
                    error=found.figures['error'],
                    speed_up_min=reference.min_ms / time.min_ms,
                    speed_up_median=reference.median_ms / time.median_ms,
                    launches=int(found.figures.get('launches', 0)),
                )
            )
    return rows


def _prepare(variant: str, height: int, width: int, folder: str, graphs: Sequence[str]) -> None:
    """Write all graphs, an image for each and its float64 result."""
    import torch

    from depth_node.networks import conformance
    from depth_node.networks.export import export_onnx
    from depth_node.networks.rewrites import linearized

    class FullSize(torch.nn.Module):
        """The network as trained; graphs have one output."""

        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            """Return the disparity of full size."""
            return self.network(image)[0]

    network = _network(variant)
    place = Path(folder)
    image = conformance.image([0], height, width)
    normalized = network.normalized(torch.from_numpy(image)).numpy()
    for graph in graphs:
        module: torch.nn.Module = FullSize(network).eval()
        if graph != REFERENCE:
            module = linearized(network, height, width, _choices(graph))
        np.save(place / f'{graph}.npy', image if graph == REFERENCE else normalized)
        export_onnx(module, height, width, place / f'{graph}.onnx')
    with torch.inference_mode():
        exact = network.double()(torch.from_numpy(image).double())[0]
    np.save(place / 'exact.npy', exact[0, 0].numpy())


def _choices(graph: str) -> Any:
    """Return the choices of a graph other than the reference."""
    from depth_node.networks.rewrites import Choices

    return Choices(**{name: name not in WITHOUT[graph] for name in REWRITES})


def _network(variant: str) -> Any:
    """Build a network whose every layer matters: fresh layer scales would hide all errors."""
    from depth_node.networks import conformance
    from depth_node.networks import registry
    from depth_node.networks.specification import Identity

    network = registry.build('lite-mono', Identity(variant)).eval()
    conformance.fill(network)
    return network


def _open_torch(folder: str, variant: str, graph: str) -> Opened:
    import torch

    from depth_node.benchmark.launches import launches
    from depth_node.networks.rewrites import linearized

    image = np.load(Path(folder) / f'{graph}.npy')
    tensor = torch.from_numpy(image).to(memory_format=torch.channels_last)
    network = _network(variant)
    if graph != REFERENCE:
        network = linearized(network, image.shape[2], image.shape[3], _choices(graph))
    network = network.to(memory_format=torch.channels_last)

    def call() -> NDArray[np.float32]:
        with torch.inference_mode():
            output = network(tensor)
        disparity = output[0] if isinstance(output, (list, tuple)) else output
        return np.asarray(disparity.numpy()).reshape(image.shape[2:])

    counted = float(launches(network, tensor))
    return call, {'error': _error(folder, call()), 'launches': counted}


def _open_onnxruntime(folder: str, variant: str, graph: str) -> Opened:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(Path(folder) / f'{graph}.onnx'), providers=['CPUExecutionProvider']
    )
    image = np.load(Path(folder) / f'{graph}.npy')

    def call() -> NDArray[np.float32]:
        return np.asarray(session.run(None, {'image': image})[0]).reshape(image.shape[2:])

    return call, {'error': _error(folder, call())}


def _open_openvino(folder: str, variant: str, graph: str) -> Opened:
    import openvino

    hints = {'INFERENCE_PRECISION_HINT': 'f32', 'PERFORMANCE_HINT': 'LATENCY'}
    compiled = openvino.Core().compile_model(Path(folder) / f'{graph}.onnx', 'CPU', hints)
    request = compiled.create_infer_request()
    image = np.load(Path(folder) / f'{graph}.npy')

    def call() -> NDArray[np.float32]:
        request.infer([image], share_inputs=True)
        return np.asarray(request.get_output_tensor(0).data).reshape(image.shape[2:])

    return call, {'error': _error(folder, call())}


def _error(folder: str, disparity: NDArray[np.float32]) -> float:
    exact = np.load(Path(folder) / 'exact.npy')
    return float(np.abs(disparity.astype(np.float64) - exact).max())


_OPENERS = {
    'torch': _open_torch,
    'onnxruntime': _open_onnxruntime,
    'openvino': _open_openvino,
}
