"""Networks of hundreds of megabytes and more: time, memory, and files beyond 2 GiB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import nn

from depth_node.networks import registry
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.specification import Identity
from depth_node.networks.specification import Meaning
from depth_node.networks.specification import NetworkSpec
from depth_node.networks.specification import StateDicts
from depth_node.networks.specification import Traits
from depth_node.model_folder import OutputSpec
from depth_node.networks.vision_transformer import TransformerBlock

NAME = 'standin-large'
PATCH_PX = 16
SIZE = (192, 256)
# variant -> blocks, channels
TRANSFORMERS = {'vit-25m': (2, 1024), 'vit-85m': (12, 768), 'vit-300m': (24, 1024)}
CONVOLUTIONS = {'conv-270m': (18, 1280)}
TRAITS = Traits('disparity', PATCH_PX, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


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


@registry.register(NAME)
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


def save_checkpoint(variant: str, path: Path, **options: object) -> int:
    """Write a checkpoint of weights near those of training; return its size, bytes."""
    torch.manual_seed(0)
    network = registry.build(NAME, Identity(variant))
    torch.save(network.state_dict(), path, **options)
    return path.stat().st_size


def resident() -> dict[str, int]:
    """Return what this process holds in memory, and its peak, bytes."""
    lines = Path('/proc/self/status').read_text().splitlines()
    fields = dict(line.split(':', 1) for line in lines)
    return {name: int(fields[name].split()[0]) << 10 for name in ('VmRSS', 'VmHWM')}


def forget_peak() -> None:
    Path('/proc/self/clear_refs').write_text('5')


def import_and_measure(variant: str, checkpoint: Path, out: Path | None, storage: str) -> None:
    """Import a checkpoint and print times and peaks of memory above the idle process."""
    import onnxruntime  # noqa: F401
    import openvino  # noqa: F401

    from depth_node.networks.checkpoint import load_released
    from depth_node.networks.importing import import_released

    torch.set_num_threads(2)
    forget_peak()
    idle, start = resident()['VmRSS'], time.perf_counter()
    if out is None:
        released = load_released(registry.spec(NAME), {'model': checkpoint}, variant)
        assert not released.network.training
    else:
        import_released(NAME, checkpoint, out, variant=variant, size=SIZE, storage=storage)
    seconds = time.perf_counter() - start
    print(json.dumps({'peak': resident()['VmHWM'] - idle, 'seconds': seconds}))


def measured(variant: str, checkpoint: Path, out: Path | None, storage: str = 'f32'):
    code = (
        f'import sys; sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parent)]!r}\n'
        'from pathlib import Path\n'
        'import test_large_models as here\n'
        f'here.import_and_measure({variant!r}, Path({str(checkpoint)!r}), '
        f'{None if out is None else f"Path({str(out)!r})"}, {storage!r})\n'
    ).replace('Path(Path', 'Path(Path')
    if out is not None:
        code = code.replace(repr(f'Path({str(out)!r})'), f'Path({str(out)!r})')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
