"""Networks of hundreds of megabytes and more: time, memory, and files beyond 2 GiB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import nn

from depth_node.engines.graph_files import external_files
from depth_node.engines.memory import let_go_of_files_at
from depth_node.errors import ModelError
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import ModelCard
from depth_node.model_folder import OutputSpec
from depth_node.networks import registry
from depth_node.networks.checkpoint import load_released
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.export import export_onnx
from depth_node.networks.importing import import_released
from depth_node.networks.make_model import make_model
from depth_node.networks.model_weights import network_of
from depth_node.networks.specification import Identity
from depth_node.networks.specification import Meaning
from depth_node.networks.specification import NetworkSpec
from depth_node.networks.specification import StateDicts
from depth_node.networks.specification import Traits
from depth_node.networks.vision_transformer import TransformerBlock

NAME = 'standin-large'
PATCH_PX = 16
SIZE = (192, 256)
# variant -> blocks, channels
TRANSFORMERS = {
    'vit-tiny': (1, 64),
    'vit-wide': (1, 128),
    'vit-25m': (2, 1024),
    'vit-85m': (12, 768),
    'vit-300m': (24, 1024),
}
LARGEST_RATIO = 2.2
CONVOLUTIONS = {'conv-270m': (18, 1280)}
TRAITS = Traits('disparity', PATCH_PX, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


onnxruntime = pytest.importorskip('onnxruntime')
openvino = pytest.importorskip('openvino')
pytest.importorskip('onnxscript')


class Transformer(nn.Module):
    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        grid = SIZE[0] // PATCH_PX * SIZE[1] // PATCH_PX
        self.positions = nn.Parameter(torch.zeros(1, grid, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, width // 64) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.mT.unflatten(2, x.shape[2:])


class Convolutions(nn.Module):
    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + torch.relu(block(x))
        return x


class Large(DepthNetwork):
    """Patches, many blocks, patches again."""

    def __init__(self, variant: str) -> None:
        super().__init__(NAME, TRAITS)
        depth, width = {**TRANSFORMERS, **CONVOLUTIONS}[variant]
        self.stem = nn.Conv2d(3, width, PATCH_PX, PATCH_PX)
        kind = Transformer if variant in TRANSFORMERS else Convolutions
        self.body = kind(depth, width)
        self.head = nn.Conv2d(width, PATCH_PX**2, 1)

    def from_normalized(self, x: Tensor) -> list[Tensor]:
        logits = self.head(self.body(self.stem(x)))
        return [torch.sigmoid(nn.functional.pixel_shuffle(logits, PATCH_PX))]


def infer(files: StateDicts, wanted: str | None) -> Identity:
    return Identity(str(wanted))


def translate(files: StateDicts, identity: Identity) -> dict[str, object]:
    return dict(files['model'])


def describe() -> NetworkSpec:
    return NetworkSpec(
        name=NAME,
        paper='none',
        origin='this file',
        code_license='Apache-2.0',
        weights_license='Apache-2.0',
        variants=dict.fromkeys((*TRANSFORMERS, *CONVOLUTIONS), TRAITS),
        option_help={},
        parts=('model',),
        releases=(),
        build=lambda identity: Large(identity.variant),
        infer=infer,
        translate=translate,
        meaning=lambda identity, files, size: Meaning(OutputSpec('disparity')),
        conformance_case=lambda stem: None,
    )


@pytest.fixture(scope='module', autouse=True)
def registered() -> Iterator[None]:
    """Enter the stand-in, and take it out again: other files look at all networks."""
    registry.register(NAME)(describe)
    yield
    del registry._specs[NAME]


def save_checkpoint(variant: str, path: Path, **options: object) -> int:
    """Write a checkpoint of fresh weights; return its size, bytes."""
    torch.manual_seed(0)
    torch.save(registry.build(NAME, Identity(variant)).state_dict(), path, **options)
    return path.stat().st_size


def resident(field: str) -> int:
    """Return what this process holds in memory ('VmRSS') or held at most ('VmHWM'), bytes."""
    lines = Path('/proc/self/status').read_text().splitlines()
    fields = dict(line.split(':', 1) for line in lines)
    return int(fields[field].split()[0]) << 10


def measure(variant: str, checkpoint: Path, out: Path, *, whole: bool) -> dict[str, float]:
    """Import a checkpoint; return seconds, and the peak above the idle process, bytes.

    Idle means: all that is needed is imported.  Of the exporter that is about 200 MB of code, so
    one layer is exported first.
    """
    torch.set_num_threads(2)
    if whole:
        layer = nn.Conv2d(3, 1, 1).eval().requires_grad_(False)
        export_onnx(layer, 16, 16, out.with_suffix('.onnx'))
    Path('/proc/self/clear_refs').write_text('5')
    idle, start = resident('VmRSS'), time.perf_counter()
    if whole:
        import_released(NAME, checkpoint, out, variant=variant, size=SIZE)
    else:
        released = load_released(registry.spec(NAME), {'model': checkpoint}, variant)
        assert not released.network.training
    return {'seconds': time.perf_counter() - start, 'peak': resident('VmHWM') - idle}


def measured(variant: str, checkpoint: Path, *, whole: bool) -> dict[str, float]:
    """Run :func:`measure` in a process of its own."""
    if not Path('/proc/self/clear_refs').exists():
        pytest.skip('memory is measured on Linux')
    done = subprocess.run(
        [sys.executable, __file__, variant, str(checkpoint), 'whole' if whole else 'load'],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def card_of(variant: str) -> ModelCard:
    return ModelCard(
        name='m',
        network=NAME,
        variant=variant,
        output=OutputSpec('disparity'),
        inputs=(),
        fit='native',
        mean=TRAITS.mean,
        std=TRAITS.std,
    )


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before torch 1.6'])
def test_reading_a_checkpoint_holds_its_weights_once(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / 'w.pth'
    size = save_checkpoint('vit-25m', path, _use_new_zipfile_serialization=zipped)
    assert size > 100e6
    assert measured('vit-25m', path, whole=False)['peak'] < LARGEST_RATIO * size


@pytest.mark.slow
@pytest.mark.parametrize('variant', ['vit-300m', 'conv-270m'])
def test_a_whole_import_needs_little_more_than_twice_the_weights(
    tmp_path: Path, variant: str
) -> None:
    size = save_checkpoint(variant, tmp_path / 'w.pth')
    assert size > 1e9
    assert measured(variant, tmp_path / 'w.pth', whole=True)['peak'] < LARGEST_RATIO * size


@pytest.mark.slow
def test_a_network_of_85_million_parameters_is_there_within_3_seconds(tmp_path: Path) -> None:
    path = tmp_path / 'w.pth'
    save_checkpoint('vit-85m', path)
    assert measured('vit-85m', path, whole=False)['seconds'] < 3.0
    model = make_model(registry.build(NAME, Identity('vit-85m')), card_of('vit-85m'),
                       tmp_path / 'm', [SIZE])  # fmt: skip
    start = time.perf_counter()
    network_of(model)
    assert time.perf_counter() - start < 3.0


def test_a_model_keeps_its_weights_once_on_disk(tmp_path: Path) -> None:
    network = registry.build(NAME, Identity('vit-tiny'))
    model = make_model(network, card_of('vit-tiny'), tmp_path / 'm', [SIZE, SIZE[::-1]])
    graphs = [name for size in model.card.inputs for name in (size.graph, size.graph_f16)]
    assert all(external_files(model.file(graph)) == {WEIGHTS_NAME} for graph in graphs)
    golden = [size.golden for size in model.card.inputs]
    assert set(model.card.files) == {WEIGHTS_NAME, *graphs, *golden}
    same = network_of(model).state_dict()
    assert all(torch.equal(value, same[key]) for key, value in network.state_dict().items())


def test_engines_read_weights_beyond_2_gib(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 1, 1)).eval()
    weight = module[0].weight.detach().numpy()
    gap, length = (2 << 30) + 4096, weight.nbytes
    header = {
        'gap': {'dtype': 'U8', 'shape': [gap], 'data_offsets': [0, gap]},
        '0.weight': {
            'dtype': 'F32',
            'shape': list(weight.shape),
            'data_offsets': [gap, gap + length],
        },
    }
    text = json.dumps(header).ljust(248).encode()
    with (tmp_path / 'far.safetensors').open('wb') as stream:
        stream.write(len(text).to_bytes(8, 'little') + text)
        stream.seek(gap, os.SEEK_CUR)  # a hole, which takes no place on disk
        stream.write(weight.tobytes())
    graph = tmp_path / 'graph.onnx'
    export_onnx(
        module, 32, 64, graph, weights_file='own.safetensors', stored_in=['far.safetensors']
    )
    assert external_files(graph) == {'far.safetensors'}
    image = torch.rand(1, 3, 32, 64)
    wanted = module(image).detach().numpy()
    session = onnxruntime.InferenceSession(str(graph), providers=['CPUExecutionProvider'])
    given = session.run(['output'], {'image': image.numpy()})[0]
    assert abs(given - wanted).max() < 1e-5
    exact = {'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = openvino.Core().compile_model(str(graph), 'CPU', exact)
    assert abs(compiled({'image': image.numpy()})['output'] - wanted).max() < 1e-5


class Code:
    """What a pickle must not be able to do."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.witness),)


def damaged(kind: str, path: Path, zipped: bool) -> str:
    """Write a checkpoint that must be refused; return a word of the reason."""
    options = {'_use_new_zipfile_serialization': zipped}
    save_checkpoint('vit-tiny', path, **options)
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)
    if kind == 'code':
        torch.save({**state, 'more': Code(path.with_name('ran'))}, path, **options)
        return 'more than weights'
    if kind == 'nan':
        state['body.blocks.0.mlp.fc2.weight'][5, 7] = torch.nan
        torch.save(state, path, **options)
        return 'not finite'
    if kind == 'other variant':
        save_checkpoint('vit-wide', path, **options)
        return 'of another shape'
    if kind == 'page':
        path.write_bytes(b'\n<!DOCTYPE html><html><body>Sign in</body></html>')
        return 'web page'
    if kind == 'page instead of the end':
        path.write_bytes(whole[: len(whole) // 2] + b'<html><body>timed out</body></html>')
        return 'cannot read'
    path.write_bytes(whole[: int(len(whole) * float(kind))])
    return 'cannot read'


KINDS = ['0.001', '0.3', '0.9', '0.999', 'code', 'nan', 'other variant', 'page']


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before torch 1.6'])
@pytest.mark.parametrize('kind', [*KINDS, 'page instead of the end'])
def test_a_checkpoint_that_is_not_whole_or_not_ours_is_refused_and_nothing_written(
    tmp_path: Path, kind: str, zipped: bool
) -> None:
    path, out = tmp_path / 'w.pth', tmp_path / 'models' / 'm'
    reason = damaged(kind, path, zipped)
    with pytest.raises(ModelError, match=reason):
        import_released(NAME, path, out, variant='vit-tiny', size=SIZE)
    assert [entry.name for entry in tmp_path.iterdir()] == ['w.pth']


def test_an_archive_that_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'w.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', 'weights are elsewhere')
    with pytest.raises(ModelError, match='cannot read'):
        load_released(registry.spec(NAME), {'model': path}, 'vit-tiny')


def test_mapped_weights_may_be_changed_and_the_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / 'w.pth'
    save_checkpoint('vit-tiny', path)
    before = path.read_bytes()
    network = load_released(registry.spec(NAME), {'model': path}, 'vit-tiny').network
    with torch.no_grad():
        for value in network.parameters():
            value.fill_(0.125)
    let_go_of_files_at(value.data_ptr() for value in network.parameters())
    assert all(bool((value == 0.125).all()) for value in network.parameters())
    assert path.read_bytes() == before


if __name__ == '__main__':
    registry.register(NAME)(describe)
    chosen, file, extent = sys.argv[1:]
    given = Path(file)
    found = measure(chosen, given, given.with_suffix('.model'), whole=extent == 'whole')
    sys.stdout.write(json.dumps(found) + '\n')
