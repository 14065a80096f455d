"""Configure, activate, deactivate, cleanup, over and over, in the real lifecycle node."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.logging import LoggingSeverity
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from depth_node.ros.lifecycle_node import DepthNode
from soak.core import chance_engine
from soak.row import MIB
from soak.row import Row
from soak.row import descriptor_count
from soak.row import growth
from soak.row import rss_bytes
from soak.row import thread_count

_CYCLE = ('configure', 'activate', 'deactivate', 'cleanup')


def _cycles(count: int, tick: Callable[[int], None], **parameters: Any) -> dict[str, Any]:
    """Run cycles of one node; return samples of what must not grow."""
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = DepthNode(
        context=context,
        namespace='/soak_cycles',
        parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()],
    )
    node.get_logger().set_level(LoggingSeverity.WARN)
    samples: dict[str, Any] = {'memory': [], 'threads': [], 'descriptors': [], 'failed': 0}
    try:
        for number in range(count):
            for name in _CYCLE:
                done = getattr(node, f'trigger_{name}')()
                samples['failed'] += done != TransitionCallbackReturn.SUCCESS
            if number % max(1, count // 200) == 0:
                gc.collect()
                samples['memory'].append((number, rss_bytes()))
                samples['threads'].append((number, thread_count()))
                samples['descriptors'].append((number, descriptor_count()))
            tick(1)
    finally:
        node.close()
        node.destroy_node()
        context.try_shutdown()
    return samples


def _judged(name: str, count: int, samples: dict[str, Any], seconds: float, mib: float) -> Row:
    grown = {what: growth(samples[what], count) for what in ('memory', 'threads', 'descriptors')}
    row = Row(
        name,
        seconds,
        {
            'cycles': count,
            'failed': samples['failed'],
            'memory_growth_mib': round(grown['memory'] / MIB, 3),
            'thread_growth': round(grown['threads'], 2),
            'descriptor_growth': round(grown['descriptors'], 2),
        },
    )
    row.require(samples['failed'] == 0, f'{samples["failed"]} transitions failed')
    row.require(grown['threads'] < 1, f'{grown["threads"]:.1f} threads more')
    row.require(grown['descriptors'] < 1, f'{grown["descriptors"]:.1f} file descriptors more')
    megabytes = grown['memory'] / MIB
    row.require(megabytes < mib, f'{megabytes:.2f} MiB more after {count} cycles')
    return row


def scripted_cycles(
    folder: Path,
    count: int = 1000,
    tick: Callable[[int], None] = lambda _: None,
    mib: float = 1.0,
) -> Row:
    """Run cycles with the real pipeline around a scripted engine."""
    began_s = time.monotonic()
    with chance_engine(folder) as model:
        how = {'model.name': str(model), 'model.engine': 'openvino'}
        samples = _cycles(count, tick, **how)
    return _judged('cycles', count, samples, time.monotonic() - began_s, mib)


def bundled_cycles(count: int = 30, tick: Callable[[int], None] = lambda _: None) -> Row:
    """Run cycles with the bundled model."""
    began_s = time.monotonic()
    samples = _cycles(count, tick, **{'model.threads': 1})
    return _judged('bundled_cycles', count, samples, time.monotonic() - began_s, 8.0)
