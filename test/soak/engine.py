"""An engine that fails by chance, in the place of 'openvino' in the real pipeline."""

from __future__ import annotations

import random
import time

import numpy as np
from scripted_engine import ERRORS
from scripted_engine import ScriptedEngine

DEPTH_M = 2.0
# one failure of a row of three ends the process by design; this engine fails twice at most
_IN_A_ROW = 2


class Chance:
    """How often what goes wrong; one for all engines, because failures open them anew."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
        self.draw = random.Random(5)
        self.inference_s = 0.0
        self.slow_s = 0.0
        self.in_a_row = 0
        self.injected: dict[str, int] = {}

    def next(self) -> str:
        """Return what happens to the next image: a name in ERRORS, 'nan', 'slow' or 'ok'."""
        left = self.draw.random()
        for name, rate in self.rates.items():
            left -= rate
            if left < 0 and (name == 'slow' or self.in_a_row < _IN_A_ROW):
                self.in_a_row += name != 'slow'
                self.injected[name] = self.injected.get(name, 0) + 1
                return name
        self.in_a_row = 0
        return 'ok'


CHANCE = Chance()


class ChanceEngine(ScriptedEngine):
    name = 'openvino'

    def infer(self, image: np.ndarray) -> np.ndarray:
        if np.array_equal(image, self.golden.image):
            return self.golden.output
        step = CHANCE.next()
        if step in ERRORS:
            raise ERRORS[step].with_traceback(None)
        wait_s = CHANCE.slow_s if step == 'slow' else CHANCE.inference_s
        if wait_s:
            time.sleep(wait_s)
        return np.full(image.shape[2:], np.nan if step == 'nan' else DEPTH_M, np.float32)
