"""Where a training runs, for its record."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

CPU = 'CPU'
"""Name of the device where there is no GPU."""
_CPU_INFO = Path('/proc/cpuinfo')


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or :data:`CPU`."""
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else CPU


def described(device: torch.device) -> dict[str, object]:
    """Return the machine of this process and the device that trains, as JSON takes it."""
    return {
        'device': device_name(device),
        'processor': _processor(),
        'cores': len(os.sched_getaffinity(0)),
        'threads': torch.get_num_threads(),
        'system': f'{platform.system()} {platform.release()} {platform.machine()}',
        'python': platform.python_version(),
        'torch': torch.__version__,
    }


def hours_told(seconds_on: dict[str, float]) -> str:
    """Return the times of a training in words, such as '1.5 hours on a CPU'."""
    return ' and '.join(
        f'{seconds / 3600.0:.1f} hours on {"a CPU" if name == CPU else name}'
        for name, seconds in seconds_on.items()
    )


def _processor() -> str:
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or 'unknown'
