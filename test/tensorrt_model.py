"""The bundled model as the tensorrt engine is given it, and fixtures that forget earlier plans.

A test file takes a fixture by naming it: ``model = tensorrt_model.model``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from depth_node import model_folder
from depth_node.engines import cuda_driver
from depth_node.engines import tensorrt_build
from depth_node.engines.tensorrt_engine import TensorRtEngine
from depth_node.model_folder import ModelFolder

MODEL = Path(__file__).parent.parent / 'models' / 'lite-mono-small-world'


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    forget()
    yield tmp_path / 'cache' / 'depth_node' / 'engines'
    forget()


def forget() -> None:
    cuda_driver.cuda.cache_clear()
    tensorrt_build.library_of.cache_clear()


@pytest.fixture(scope='module')
def model() -> ModelFolder:
    return model_folder.read(MODEL)


@pytest.fixture(scope='module')
def in_half(model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """The bundled model with float16 graphs, made where it is older than those."""
    if model.card.inputs[0].graph_f16 is not None:
        return model
    make_model = pytest.importorskip('depth_node.networks.make_model')
    copy = tmp_path_factory.mktemp('half') / 'model'
    shutil.copytree(model.path, copy)
    made: ModelFolder = make_model.remake(model_folder.read(copy))
    return made


def opened(model: ModelFolder, precision: str = 'f32') -> TensorRtEngine:
    return TensorRtEngine(model, model.card.inputs[0], precision=precision, threads=1)
