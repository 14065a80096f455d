"""Numbers of our own making that hold every network to what it gave when it was compared.

``python test/network_vectors.py`` records them anew, to be run after all networks have passed
against the authors' own numbers (``make conformance``); it must not be run to make a test pass.
"""

from __future__ import annotations

import json
import lzma
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from depth_node.networks import conformance
from depth_node.networks import ecodepth
from depth_node.networks.initialization import WithoutDrawing
from depth_node.networks.specification import Case

DATA = Path(__file__).parent / 'data'
VECTORS = DATA / 'network_vectors.npz'
LAYOUTS = DATA / 'released_layouts.json.xz'
SAMPLES = 48

# name as in the authors' vectors -> (height, width), as small as the network allows
CASES = {
    'litemono-tiny_640x192': (64, 96),
    'litemono-tiny_1024x320': (64, 96),
    'litemono-small_640x192': (64, 96),
    'litemono_640x192': (64, 96),
    'litemono_1024x320': (64, 96),
    'litemono-8m_640x192': (64, 96),
    'monodepth2_depth_resnet18': (64, 96),
    'monodepth2_depth_resnet50': (64, 96),
    'monodepth2_pose_resnet18': (64, 96),
    'monodepth2_pose_resnet50': (64, 96),
    'monodepth2_posecnn': (128, 128),
    'diffnet': (64, 96),
    'sqldepth_resnet50_640x192': (256, 256),
    'sqldepth_resnet50_1024x320': (320, 640),
    'sqldepth_effb5_1024x320': (256, 512),
    'sqldepth_convnextL_1024x320': (512, 512),
    'sqldepth_nyu_effb5': (320, 640),
    'midas_v21_384': (64, 96),
    'midas_v21_small_256': (64, 96),
    'dpt_hybrid_384': (64, 96),
    'dpt_large_384': (64, 96),
    'dpt_beit_base_384': (64, 96),
    'dpt_beit_large_384': (64, 96),
    'dpt_beit_large_512': (64, 96),
    'dpt_swin2_tiny_256': (256, 256),
    'dpt_swin2_base_384': (384, 384),
    'dpt_swin2_large_384': (384, 384),
    'dpt_swin_large_384': (384, 384),
    'dpt_levit_224': (224, 224),
    'ecodepth_v1_miniature': (72, 100),
    'ecodepth_v2_miniature': (72, 100),
}
# of a billion weights, so that every run only checks their names and shapes
FULL_SIZE_ONLY = ('ecodepth_v1_indoor', 'ecodepth_v2_indoor')
MINIATURE = {
    'vae_width': 32,
    'unet_width': 32,
    'vit_width': 32,
    'vit_blocks': 2,
    'vit_heads': 4,
    'logits': 12,
    'class_hidden': 10,
    'aggregated': 32,
    'narrow': 8,
    'decoded': 8,
}


def case_of(name: str) -> Case:
    """Return the network of a name, its weights without values."""
    if name.endswith('miniature'):
        version = ecodepth.LAYOUTS['v1-indoor' if '_v1_' in name else 'v2-outdoor']
        classes = min(6, version.classes)
        network = ecodepth.EcoDepth(replace(version, classes=classes, **MINIATURE)).eval()
        return Case(network, dict, ecodepth.probe, 1e-3)
    with WithoutDrawing():
        case = conformance.claimed(name)
    assert case is not None, f'no network claims {name}'
    return case


def computed(name: str, case: Case) -> dict[str, NDArray[np.float32]]:
    """Return samples of every output of a network, and with '/std' their full deviations."""
    height, width = CASES[name]
    conformance.fill(case.network, conformance.PooledNumbers)
    seeds = (0, 1) if 'pose' in name else (0,)
    image = torch.from_numpy(conformance.image(seeds, height, width))
    with torch.inference_mode():
        outputs = case.probe(case.network, image)
    found = {}
    for key, value in outputs.items():
        flat = value.double().numpy().reshape(-1)
        found[f'{name}/{key}'] = thinned(flat).astype(np.float32)
        found[f'{name}/{key}/std'] = np.float32(flat.std())
    return found


def thinned(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return at most SAMPLES numbers, evenly spread."""
    return flat[np.unique(np.linspace(0, flat.size - 1, SAMPLES).astype(int))]


def released_layouts() -> dict[str, dict[str, list[conformance.Entry]]]:
    """Return the names, shapes and types of all entries of the released files."""
    stored = json.loads(lzma.decompress(LAYOUTS.read_bytes()))
    return {
        name: {
            part: [conformance.Entry(key, tuple(shape), *rest) for key, shape, *rest in entries]
            for part, entries in parts.items()
        }
        for name, parts in stored.items()
    }


def _record_layouts(folder: Path) -> None:
    found = {}
    for name in (*CASES, *FULL_SIZE_ONLY):
        if name.endswith('miniature'):
            continue
        vectors = conformance.read(folder, name)
        found[name] = {
            part: [(e.key, e.shape, e.dtype, e.is_drawn, e.alias_of) for e in entries]
            for part, entries in vectors.entries.items()
        }
    LAYOUTS.write_bytes(lzma.compress(json.dumps(found).encode(), preset=9))


if __name__ == '__main__':
    if len(sys.argv) > 1:
        _record_layouts(Path(sys.argv[1]))
    recorded: dict[str, NDArray[np.float32]] = {}
    for case_name in CASES:
        recorded.update(computed(case_name, case_of(case_name)))
        sys.stdout.write(f'{case_name}\n')
    np.savez_compressed(VECTORS, **recorded)
