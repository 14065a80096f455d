"""Graphs of a model that is there already, for tests of what follows their export.

Exporting a network takes several times as long as opening all engines on its graphs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from depth_node.engines.graph_files import external_files
from depth_node.model_folder import ModelFolder
from depth_node.networks import make_model as maker
from depth_node.networks.half_graph import HalfGraph


def reuse_graphs(monkeypatch: pytest.MonkeyPatch, made: ModelFolder) -> None:
    """Let make_model take its graphs from a model; its engines and checks see no difference.

    :param made: a model of the same network with the same weights and storage, at the sizes that
        will be asked for.
    """

    def copied(name: str, folder: Path) -> tuple[str, ...]:
        fresh = [
            file
            for file in sorted(external_files(made.file(name)))
            if not (folder / file).exists()
        ]
        for file in (name, *fresh):
            (folder / file).write_bytes(made.file(file).read_bytes())
        return tuple(fresh)

    def export_onnx(
        module: object, height: int, width: int, path: Path, **choices: object
    ) -> tuple[Path, ...]:
        return (path, *(path.with_name(name) for name in copied(path.name, path.parent)))

    def half_graph(
        network: object, size: maker.InputSpec, folder: Path, *rest: object
    ) -> HalfGraph:
        (known,) = (
            own for own in made.card.inputs if (own.height, own.width) == (size.height, size.width)
        )
        assert known.graph_f16 is not None
        error = made.card.metrics['parity'][f'{size.width}x{size.height}']['float16 arithmetic']
        return HalfGraph(known.graph_f16, error, copied(known.graph_f16, folder))

    monkeypatch.setattr(maker, 'export_onnx', export_onnx)
    monkeypatch.setattr(maker, 'half_graph', half_graph)


def leave_out_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let make_model export no float16 graph, as for a network that is beyond float16."""
    monkeypatch.setattr(maker, 'half_graph', lambda *_: HalfGraph(None, 'not tried'))
