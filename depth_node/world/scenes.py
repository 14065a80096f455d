"""Scenes by kind and seed."""

from __future__ import annotations

import numpy as np

from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.world import close_up
from depth_node.world import grounds
from depth_node.world import indoors
from depth_node.world import open_air
from depth_node.world import open_plan
from depth_node.world import tabletop
from depth_node.world.scene import Scene

_MAKERS = {
    'room': indoors.room,
    'corridor': indoors.corridor,
    'warehouse': indoors.warehouse,
    'street': open_air.street,
    'closeup': close_up.table_top,
    'field': open_air.field,
    'tabletop': tabletop.tabletop,
    'home': open_plan.home,
    'office': open_plan.office,
    'shop': open_plan.shop,
    'workshop': open_plan.workshop,
    'stairwell': open_plan.stairwell,
    'yard': grounds.yard,
    'park': grounds.park,
    'parking': grounds.parking,
    'underpass': grounds.underpass,
    'slope': grounds.slope,
}
KINDS = tuple(_MAKERS)


def make(kind: str, rng: np.random.Generator) -> Scene:
    """Return a new scene.

    :param kind: one of :data:`KINDS`.
    :param rng: source of all choices; equal generators give equal scenes.
    :raises SettingsError: for an unknown kind.
    """
    if kind not in _MAKERS:
        raise SettingsError('world kind', quoted(kind), f'one of {", ".join(KINDS)}')
    return _MAKERS[kind](rng)
