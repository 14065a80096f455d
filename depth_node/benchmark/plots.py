"""The plots of the page: where the time of a frame goes, and time against published accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from depth_node.benchmark.targets import SIZE
from depth_node.networks import registry
from depth_node.networks.specification import KITTI_EIGEN
from depth_node.svg import Point
from depth_node.svg import numbered_points
from depth_node.svg import stacked_bars

Result = Mapping[str, Any]
_SHOWN = 'lite-mono:base'
_DDS = 'DDS and waiting'
_LAST = ('cloud', 'cloud message')


def latency_bars(engines: Result, frame: Result, node: Result | None) -> str:
    """Draw the time of a frame by stage for each engine that runs Lite-Mono base.

    Medians of three measurements side by side: the network of a run of engines, the stages around
    it, and what the node's age has beyond its stages; without a node, that part is left out.
    """
    stages = {name: spread['median_ms'] for name, spread in frame['rows'][0]['stages'].items()}
    around = None if node is None else _beyond_stages(node['rows'][0], stages)
    bars = {}
    for row in engines['rows']:
        wanted = row['model'] == _SHOWN and [row['width'], row['height']] == list(SIZE)
        if not wanted or row['time'] is None or row['batch'] != 1:
            continue
        parts: dict[str, float] = {}
        for name, spent in stages.items():
            # where the pipeline runs it, so that the bar reads in the order of the frame
            if name == 'depth':
                parts['network'] = row['time']['median_ms']
            if name not in _LAST:
                parts[name] = spent
        if around is not None:
            parts[_DDS] = around
        parts.update({name: stages[name] for name in _LAST if name in stages})
        bars[f'{row["engine"]} {row["precision"]}'] = parts
    return stacked_bars(
        'Lite-Mono base at 640x192, image 640x480 to depth and coloured cloud: medians by stage',
        'ms',
        bars,
    )


def _beyond_stages(row: Mapping[str, Any], stages: Mapping[str, float]) -> float:
    """Return the part of a depth's age that no stage of the node explains, milliseconds."""
    measured = row.get('stages_ms')
    if measured is None:
        known = sum(spent for name, spent in stages.items() if name not in _LAST)
        return max(0.0, float(row['overhead_p50_ms']) - known)
    known = sum(spent for name, spent in measured.items() if name != 'publish')
    known += stages.get('depth message', 0.0)
    return max(0.0, float(row['depth_age_p50_ms']) - known)


def accuracy_points(results: Mapping[str, Result]) -> list[Point]:
    """Return the networks whose authors published an Abs Rel, with their time in OpenVINO.

    A run of engines counts before the page of all networks, where both have timed a network.
    """
    times: dict[tuple[str, str, int, int], float] = {}
    for row in results.get('networks', {'rows': ()})['rows']:
        for engine in row['engines']:
            if engine['engine'] == 'openvino' and engine['time'] is not None:
                times[_key(row)] = engine['time']['median_ms']
    for row in results.get('engines-cpu', {'rows': ()})['rows']:
        fits = (row['engine'], row['precision']) == ('openvino', 'f32')
        if fits and row['time'] is not None and row['random_weights']:
            times[_key(row)] = row['time']['median_ms']
    return [
        Point(f'{label}: {time:.0f} ms', key[0], time, abs_rel)
        for key, time in times.items()
        for label, abs_rel in _published(*key)
    ]


def latency_against_accuracy(points: list[Point]) -> str:
    """Draw time in OpenVINO float32 against the authors' own Abs Rel."""
    return numbered_points(
        "Time in OpenVINO float32 on this machine against the authors' own accuracy",
        'median time of the network at batch 1, ms',
        'Abs Rel, KITTI Eigen 697, median scaling, as published; lower is better',
        points,
    )


def _key(row: Mapping[str, Any]) -> tuple[str, str, int, int]:
    return str(row['network']), str(row['variant']), int(row['height']), int(row['width'])


def _published(network: str, variant: str, height: int, width: int) -> Iterator[tuple[str, float]]:
    """Yield name and Abs Rel of the best checkpoint of a configuration with the usual protocol."""
    found = [
        (known.figures['abs_rel'], known.name)
        for known in registry.spec(network).releases
        if (known.identity.variant, known.height, known.width) == (variant, height, width)
        and known.protocol == KITTI_EIGEN
        and 'abs_rel' in known.figures
    ]
    if found:
        abs_rel, name = min(found)
        yield name, abs_rel
