"""The libraries behind the engines, imported by name so that their import can be timed alone."""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import suppress
from types import ModuleType
from typing import Any
from typing import cast

_OF_ENGINE = {'torch': 'torch', 'cuda': 'torch', 'eager': 'torch'}
"""First word of an engine -> module, where the two differ in name."""


def imported(name: str) -> Any:
    """Import a library as the engines do: without OpenVINO's report of its use to its makers."""
    sys.modules.setdefault('openvino_telemetry', cast(ModuleType, None))
    return importlib.import_module(name)


def import_s(engine: str) -> float:
    """Import the library behind an engine and return how long that took, seconds.

    What is wrong with a library is left to the engine to say.
    """
    started = time.perf_counter()
    word = engine.partition('-')[0]
    with suppress(ImportError):
        imported(_OF_ENGINE.get(word, word))
    return time.perf_counter() - started
