"""Every network still gives what it gave when it was compared with its authors' own code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from network_vectors import CASES
from network_vectors import VECTORS
from network_vectors import case_of
from network_vectors import computed
from network_vectors import released_layouts

from depth_node.networks.checkpoint import check_entries

# of the code of dpt_swin2_base_384 and dpt_beit_base_384, at several times the weights
LARGER = ('dpt_swin2_large_384', 'dpt_beit_large_384', 'dpt_beit_large_512')
QUICK = [name for name in CASES if name not in LARGER]


@pytest.fixture(scope='module')
def recorded():
    with np.load(VECTORS) as stored:
        return {key: stored[key] for key in stored.files}


@pytest.mark.parametrize(
    'name', [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER)]
)
def test_network_gives_the_recorded_numbers(name, recorded):
    case = case_of(name)
    found = computed(name, case)
    assert set(found) == {key for key in recorded if key.startswith(f'{name}/')}
    for key, expected in recorded.items():
        if key.startswith(f'{name}/') and not key.endswith('/std'):
            limit = case.tolerance * float(recorded[f'{key}/std'])
            assert np.abs(found[key] - expected).max() <= limit, key


@pytest.mark.parametrize('name', released_layouts())
def test_released_file_fills_the_network_exactly(name):
    """All entries of the authors' file, by name and shape, are used or known to be unused."""
    files = {
        part: {e.key: torch.zeros((), dtype=getattr(torch, e.dtype)).expand(e.shape) for e in each}
        for part, each in released_layouts()[name].items()
    }
    case = case_of(name)
    check_entries(case.translate(files), case.network.state_dict(), name)
