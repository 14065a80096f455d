"""A network compiled by OpenVINO: from the cache of engines, or compiled anew and kept there.

Compiling the bundled network takes 0.2 to 0.3 s and leaves 20 MiB more in memory than reading it
back.  Whatever is wrong with the cache, the network is compiled.
"""

from __future__ import annotations

import logging
import mmap
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depth_node.engines.engine_cache import DeviceKey
from depth_node.engines.engine_cache import EngineCache
from depth_node.engines.engine_cache import PlanKey
from depth_node.engines.graph_files import external_files
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder

_DEVICE = 'CPU'
_LOG = logging.getLogger(__name__)
# larger networks take seconds for an image anyway, and would fill the disk of a robot
_LARGEST_KEPT_BYTES = 256 << 20


@dataclass(frozen=True)
class Compiled:
    """A network that is ready to run."""

    network: Any
    """openvino.CompiledModel."""
    memory: mmap.mmap | None
    """Where some of its weights lie: to live as long as the network; None where it has all."""


def compiled_network(
    openvino: Any,
    core: Any,
    folder: ModelFolder,
    size: InputSpec,
    graph: Path,
    options: dict[str, str],
) -> Compiled:
    """Return a compiled network.

    :param openvino: the module, and ``core`` its Core.
    :param graph: a checked graph of ``folder``, for ``size``.
    :param options: properties with which it is compiled.
    :raises RuntimeError: when OpenVINO refuses the graph.
    """
    store = EngineCache.of_user()
    key = _key(openvino, core, folder, size, graph, options)
    memory, reason = store.mapped(key)
    if memory is not None:
        try:
            # a tensor wants memory that may be written to; nobody does, and it would stay here
            kept = openvino.Tensor(np.frombuffer(memory, np.uint8), shared_memory=True)
            network = core.import_model(kept, _DEVICE, options)
        except RuntimeError as error:
            store.remove(key)
            reason = f'A stored network is compiled again: {error}'
        else:
            # most of it has been copied into the order of the processor; the rest comes back
            memory.madvise(mmap.MADV_DONTNEED)
            return Compiled(network, memory)
    network = core.compile_model(str(graph), _DEVICE, options)
    if _bytes_behind(folder, graph) <= _LARGEST_KEPT_BYTES:
        reason += store.store(key, network.export_model().getvalue())
    if reason:
        _LOG.info('%s', reason)
    return Compiled(network, None)


def _key(
    openvino: Any,
    core: Any,
    folder: ModelFolder,
    size: InputSpec,
    graph: Path,
    options: dict[str, str],
) -> PlanKey:
    """Name everything that the compiled network depends on."""
    recorded = folder.card.files  # of checked files
    return PlanKey(
        device=DeviceKey(
            library='openvino',
            library_version=str(openvino.__version__),
            library_build='',
            cuda='',
            gpu=str(core.get_property(_DEVICE, 'FULL_DEVICE_NAME')).strip(),
            compute_capability=' '.join(core.get_property(_DEVICE, 'OPTIMIZATION_CAPABILITIES')),
            sm_count=os.cpu_count() or 0,
            platform=f'{sys.platform} {platform.machine()}',
        ),
        graph_sha256=recorded[graph.name].sha256,
        data_sha256=tuple(recorded[name].sha256 for name in sorted(external_files(graph))),
        input_shape=(1, 3, size.height, size.width),
        precision=options['INFERENCE_PRECISION_HINT'],
        options=tuple(f'{name}={value}' for name, value in sorted(options.items())),
    )


def _bytes_behind(folder: ModelFolder, graph: Path) -> int:
    """Return how long the files are that a graph is made of."""
    names = {graph.name, *external_files(graph)}
    return sum(folder.card.files[name].size_bytes for name in names)
