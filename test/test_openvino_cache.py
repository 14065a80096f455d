"""A compiled network is read back from the cache, and whatever is wrong there, compiled again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('openvino')

from depth_node import model_folder
from depth_node.engines.openvino_engine import OpenVinoEngine
from depth_node.model_folder import ModelFolder
from depth_node.settings import Settings


@pytest.fixture(scope='module')
def model() -> ModelFolder:
    return model_folder.read(model_folder.find(Settings().model.name))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'depth_node' / 'engines'


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Count how often a graph is compiled."""
    import openvino

    counted: list[str] = []
    compile_model = openvino.Core.compile_model

    def counting(core: Any, graph: str, *rest: Any) -> Any:
        counted.append(graph)
        return compile_model(core, graph, *rest)

    monkeypatch.setattr(openvino.Core, 'compile_model', counting)
    yield counted


def output_of(model: ModelFolder, **options: Any) -> bytes:
    size = model.card.inputs[0]
    image = np.random.default_rng(0).standard_normal((1, 3, size.height, size.width))
    engine = OpenVinoEngine(model, size, **{'precision': 'f32', 'threads': 1, **options})
    found = engine.infer(image.astype(np.float32)).tobytes()
    engine.close()
    return found


def test_the_second_start_compiles_nothing_and_gives_the_same_bits(
    model: ModelFolder, cache: Path, compilations: list[str]
) -> None:
    first = output_of(model)
    assert len(compilations) == 1
    assert output_of(model) == first
    assert len(compilations) == 1
    output_of(model, threads=2)
    assert len(compilations) == 2


@pytest.mark.parametrize('damage', ['shorter', 'flipped', 'empty', 'foreign', 'no description'])
def test_a_damaged_network_is_compiled_again_and_replaced(
    model: ModelFolder, cache: Path, compilations: list[str], damage: str
) -> None:
    sound = output_of(model)
    (plan,) = cache.glob('*.plan')
    content = plan.read_bytes()
    plan.chmod(0o600)
    if damage == 'no description':
        plan.with_suffix('.json').unlink()
    elif damage == 'foreign':  # something else whose description is right
        plan.write_bytes(b'not a network' * 1000)
        description = json.loads(plan.with_suffix('.json').read_text())
        description['size_bytes'] = plan.stat().st_size
        description['sha256'] = hashlib.sha256(plan.read_bytes()).hexdigest()
        plan.with_suffix('.json').write_text(json.dumps(description))
    else:
        flipped = bytes([content[0] ^ 1]) + content[1:]
        plan.write_bytes({'shorter': content[:-1], 'flipped': flipped, 'empty': b''}[damage])
    assert output_of(model) == sound
    assert len(compilations) == 2
    assert output_of(model) == sound
    assert len(compilations) == 2


def test_without_a_cache_it_works_the_same(
    model: ModelFolder, cache: Path, compilations: list[str]
) -> None:
    kept = output_of(model)
    cache.chmod(0o777)
    assert output_of(model) == kept
    assert len(compilations) == 2


def test_a_large_network_is_not_kept(
    model: ModelFolder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('depth_node.engines.openvino_compiled._LARGEST_KEPT_BYTES', 1 << 20)
    output_of(model)
    assert not list(cache.glob('*.plan'))
