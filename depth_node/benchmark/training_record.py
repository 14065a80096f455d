"""What a training left in its folder: plan, curve and, where it wrote one, time and machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depth_node.errors import DepthNodeError

PLAN, CURVE, FURTHER = 'plan.json', 'curve.jsonl', 'training.json'
_LONGEST = 400


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of a training.

    :returns: ``plan`` as it was given, ``curve`` as a list of points with ``images`` and figures,
        at most 400 of them, and ``further``, what the training wrote about time and machine.
    :raises DepthNodeError: when plan or curve is missing or is not what a training writes.
    """
    try:
        plan = json.loads((folder / PLAN).read_text(encoding='utf-8'))
        lines = (folder / CURVE).read_text(encoding='utf-8').splitlines()
        curve = [_point(value) for line in lines if (value := _value_of(line)) is not None]
        path = folder / FURTHER
        further = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DepthNodeError(
            f'record of a training {folder}',
            f'{type(error).__name__}: {error}',
            f'{PLAN} and {CURVE}, as depth_node.tools.pretrain writes them',
        ) from error
    return {'plan': plan, 'curve': _thinned(curve), 'further': further}


def curves_of(record: Mapping[str, Any], ending: str) -> dict[str, list[tuple[float, float]]]:
    """Return (images, figure) of every figure whose name ends so, by the name before it.

    Where a training was judged at several heights of the input, of the one that most points have:
    a step from one to another is no progress.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    heights = [point.get('rows') for point in record['curve']]
    usual = max(set(heights), key=heights.count, default=None)
    for point in record['curve']:
        if point.get('rows') != usual:
            continue
        for name, value in point.items():
            if name.endswith(ending) and value is not None:
                known = found.setdefault(name.removesuffix(ending).strip(), [])
                known.append((float(point['images']), float(value)))
    return found


def _value_of(line: str) -> Any:
    """Return the value of a line, None where a power cut kept its end from being written."""
    try:
        return json.loads(line) if line.strip() else None
    except ValueError:
        if line.startswith('{') and not line.endswith('}'):
            return None
        raise


def _point(value: Any) -> dict[str, float | None]:
    numbers = {
        str(name): float(item) if math.isfinite(item) else None
        for name, item in value.items()
        if isinstance(item, (int, float))
    }
    numbers['images'] = float(value['images'])
    return numbers


def _thinned(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # the last point is kept besides, so that the others have one place less
    step = -(-(len(curve) - 1) // (_LONGEST - 1)) if len(curve) > _LONGEST else 1
    return curve if step == 1 else [*curve[:-1:step], curve[-1]]
