"""ECoDepth in miniature, in both versions: every part in its official form, with few channels.

A test file takes a fixture by naming it: ``second = ecodepth_miniature.second``.
"""

from __future__ import annotations

import pytest
from network_vectors import MINIATURE

from depth_node.networks import conformance
from depth_node.networks.ecodepth import EcoDepth
from depth_node.networks.ecodepth import Layout

FIRST = Layout(10.0, classes=6, has_head=True, **MINIATURE)
SECOND = Layout(80.0, classes=0, has_head=False, **MINIATURE)


def filled(layout):
    network = EcoDepth(layout).eval()
    conformance.fill(network)
    return network


@pytest.fixture(scope='module')
def first():
    return filled(FIRST)


@pytest.fixture(scope='module')
def second():
    return filled(SECOND)
