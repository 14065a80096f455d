"""Engines that follow a script instead of a graph, a model for them, and what builds them.

They come in through ``selection.ENGINES`` in the places of 'tensorrt' and 'openvino'; depth is 3 m
and 2 m, so that an image tells who made it.  As a program, ``python scripted_engine.py FOLDER
SCRIPT --ros-args ...`` runs the real node with them; SCRIPT is JSON with fields of Script.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import cv2
import numpy as np
import safetensors.numpy

from depth_node import model_folder
from depth_node.engines import DeviceLost
from depth_node.engines import EngineInfo
from depth_node.engines import FrameLimits
from depth_node.engines import FramePlan
from depth_node.engines import MadeFrame
from depth_node.engines import OutOfMemory
from depth_node.engines import selection
from depth_node.engines import upgrade
from depth_node.engines.parity import read_golden
from depth_node.errors import EngineError
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.model_folder import OutputSpec

SIZES = ((48, 64), (48, 96))
DEPTH_M = {'tensorrt': 3.0, 'openvino': 2.0}


def _memory_of_opencv() -> Exception:
    try:
        cv2.resize(np.zeros((1, 1), np.uint8), (1 << 24, 1 << 24))
    except cv2.error as error:
        return error
    raise AssertionError('256 TiB were there')


ERRORS = {
    'lost': DeviceLost('engine', 'CUDA_ERROR_ILLEGAL_ADDRESS', 'success'),
    'memory': OutOfMemory('engine', 'too little memory for 12 MiB with 3 of 8 MiB free', 'memory'),
    'fail': EngineError('engine', 'a failure', 'a result'),
    'host memory': MemoryError('12 MiB'),
    'memory of OpenCV': _memory_of_opencv(),
    'bug': ValueError('a bug'),
}


@dataclass
class Script:
    """What goes wrong."""

    ready: bool = True
    """Whether 'tensorrt' can be opened without being built."""
    at_open: str = ''
    """Name in ERRORS of what opening 'tensorrt' raises, or 'hang'."""
    off_by: float = 0.0
    """What is added to the golden output by 'tensorrt', in its standard deviations."""
    steps: dict[str, list[str]] = field(default_factory=dict)
    """Per engine what happens to the next images: names in ERRORS, 'nan' or 'ok'."""
    command: list[str] | None = None
    """What builds instead of ``models build``."""
    makes_frames: bool = False
    """Whether 'tensorrt' makes whole frames."""
    frames: list[tuple[str, FramePlan]] = field(default_factory=list)
    """Thread and plan of each."""
    notes: list[str] = field(default_factory=list)
    """What 'tensorrt' has to say, e.g. of a cache that cannot be written to."""
    report_s: float = 5.0
    """Time between two lines of the log about a build."""
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)


SCRIPT = Script()


class ScriptedEngine:
    """Gives the golden output for the golden image and the same depth for all others."""

    name = ''
    lost = False

    def __init__(
        self, folder: ModelFolder, size: InputSpec, *, precision: str, threads: int
    ) -> None:
        SCRIPT.opened.append(self.name)
        if self.name == 'tensorrt' and SCRIPT.at_open in ERRORS:
            raise ERRORS[SCRIPT.at_open]
        if self.name == 'tensorrt' and SCRIPT.at_open == 'hang':
            time.sleep(60)
        self.notes = tuple(SCRIPT.notes) if self.name == 'tensorrt' else ()
        shape = (1, 3, size.height, size.width)
        self.golden = read_golden(folder, size)
        self.info = EngineInfo(self.name, 'scripted', precision, 'this machine', shape)

    def warm_up(self) -> None:
        pass

    def infer(self, image: np.ndarray) -> np.ndarray:
        if np.array_equal(image, self.golden.image):
            off_by = SCRIPT.off_by if self.name == 'tensorrt' else 0.0
            return self.golden.output + np.float32(off_by) * self.golden.output.std()
        steps = SCRIPT.steps.get(self.name) or ['ok']
        step = steps.pop(0)
        self.lost = step == 'lost'
        if step in ERRORS:
            raise ERRORS[step]
        depth_m = np.nan if step == 'nan' else DEPTH_M[self.name]
        return np.full(image.shape[2:], depth_m, np.float32)

    def close(self) -> None:
        if self.lost:
            time.sleep(60)  # as a driver may that has lost its GPU
        SCRIPT.closed.append(self.name)


class Wanted(ScriptedEngine):
    name = 'tensorrt'

    def __new__(cls, *_: object, **__: object) -> Wanted:
        return object.__new__(WantedOfFrames if SCRIPT.makes_frames else cls)

    @staticmethod
    def ready(folder: ModelFolder, size: InputSpec, **how: object) -> tuple[bool, tuple[str, ...]]:
        return SCRIPT.ready, ()


class WantedOfFrames(Wanted):
    def frame(self, rgb: np.ndarray, plan: FramePlan, limits: FrameLimits) -> MadeFrame:
        SCRIPT.frames.append((threading.current_thread().name, plan))
        self.infer(np.zeros(self.info.input_shape, np.float32))
        depth_m = np.full(rgb.shape[:2], DEPTH_M[self.name], np.float32)
        return MadeFrame(depth_m, 1.0, None, None, {'gpu': 1})


class Spare(ScriptedEngine):
    name = 'openvino'


NAMES = {'tensorrt': 'scripted_engine:Wanted', 'openvino': 'scripted_engine:Spare'}


def write_model(folder: Path) -> ModelFolder:
    """Write a model of metric depth whose graphs nobody reads."""
    sizes = tuple(
        InputSpec(height, width, f'{width}.onnx', f'{width}.safetensors')
        for height, width in SIZES
    )

    def fill(target: Path) -> None:
        draw = np.random.default_rng(0)
        safetensors.numpy.save_file({'w': np.ones(3, np.float32)}, target / WEIGHTS_NAME)
        for size in sizes:
            shape = (size.height, size.width)
            golden = {
                'image': draw.integers(0, 256, (*shape, 3), np.uint8),
                'output': draw.random(shape, np.float32) + np.float32(1.0),
            }
            (target / size.graph).write_bytes(b'no graph')
            safetensors.numpy.save_file(golden, target / size.golden)

    card = ModelCard(
        name=folder.name,
        network='none',
        variant='none',
        output=OutputSpec('metric'),
        inputs=sizes,
        fit='native',
        weights_license='CC0-1.0',
    )
    return model_folder.write(folder, card, fill)


# What builds: says its number and lines, waits for a file if one is given, and ends as told.
BUILDER = """
import os, signal, sys, time
from pathlib import Path
gate, ending, folder = sys.argv[1:4]
Path(folder, f'{os.getpid()}.pid').write_text(' '.join(sys.argv[4:]))
print('first line', flush=True)
print('phase one\\x1b[31m', flush=True)
while gate and not os.path.exists(gate):
    time.sleep(0.01)
if ending.startswith('SIG'):
    os.kill(os.getpid(), getattr(signal, ending))
if ending:
    print(ending, flush=True)
sys.exit(bool(ending))
"""


def builder(folder: Path, ending: str = '', gate: Path | str = '') -> list[str]:
    """Return what takes the place of ``models build``.

    :param folder: where a file NUMBER.pid holds the arguments.
    :param ending: '' succeeds, 'SIGSEGV' crashes, other text is said before a failure.
    :param gate: a file that is waited for.
    """
    return [sys.executable, '-c', BUILDER, str(gate), ending, str(folder)]


if __name__ == '__main__':
    import scripted_engine  # the module that selection imports, not this program

    from depth_node.ros.lifecycle_node import main

    cut = sys.argv.index('--ros-args')
    scripted_engine.SCRIPT = Script(**json.loads(sys.argv[2]))
    selection.ENGINES.update(NAMES)
    upgrade._REPORT_S = scripted_engine.SCRIPT.report_s
    if scripted_engine.SCRIPT.command is not None:
        upgrade.COMMAND = tuple(scripted_engine.SCRIPT.command)
    words = [sys.argv[0], *sys.argv[cut:], '-p', f"model.name:='{sys.argv[1]}'"]
    sys.exit(main(words))
