"""Runs of the whole command, their records, and what they learn from."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_start import command
from finetune_start import hashes

from depth_node.world.recording import RecordingSettings
from depth_node.world.recording import write
from depth_node.world.rig import CameraMount

ROOT = Path(__file__).parents[2]
DRIVE = RecordingSettings(
    seconds=24.0, rate_hz=10.0, width=320, height=240, lens='plumb_bob', seed=13
)
MIXED = RecordingSettings(
    seconds=12.0, rate_hz=10.0, width=160, height=120, lens='plumb_bob', seed=13,
    stand_still=True, turn=True,
)  # fmt: skip
PAIR = RecordingSettings(
    seconds=8.0, rate_hz=5.0, width=320, height=240, lens='plumb_bob', seed=13,
    extra_cameras=(CameraMount('right', 0.1, 0.002, 0.003, math.radians(-2.0)),),
)  # fmt: skip
RIG = RecordingSettings(
    seconds=24.0, rate_hz=10.0, width=320, height=240, seed=13,
    extra_cameras=(CameraMount('left', right_m=-0.1, yaw_rad=-0.9, depth=True),),
)  # fmt: skip
DEPTH, BENT_DEPTH = '/camera/depth/image_rect', '/camera/depth/image_raw'
COMPRESSED = '/compressedDepth'
USUAL_STEPS = 500


@dataclass(frozen=True)
class Setting:
    """Where and how large a check runs."""

    folder: Path
    """Empty, for the check."""
    share: float
    """Part of the usual number of training steps."""
    say: Callable[[str], None]
    """Tells how far it is."""
    livingroom: Path | None = None
    """A real recording with depth."""

    @property
    def steps(self) -> int:
        """Return the steps of a training."""
        return max(4, round(USUAL_STEPS * self.share))


@dataclass(frozen=True)
class Run:
    """One run of the command."""

    code: int
    """Exit code."""
    seconds: float
    """Wall time."""
    root: Path
    """Its folder."""
    said: str
    """What it wrote to standard error."""
    start_kept: bool
    """Whether the start model is the same, byte for byte."""

    def record(self, stage: str) -> dict[str, Any]:
        """Return what a stage found."""
        found: dict[str, Any] = json.loads((self.root / f'{stage}.json').read_text())['result']
        return found

    def change(self, name: str) -> float:
        """Return mean(after) / mean(before) - 1 of a measure."""
        change = self.record('evaluate')['comparison']['changes'][name]
        return float(change['after'] / change['before'] - 1.0)

    def mean(self, name: str, of: str = 'after') -> float:
        """Return the mean of a measure over held-out time."""
        return float(self.record('evaluate')['comparison']['changes'][name][of])


def rendered(setting: Setting, settings: RecordingSettings) -> Path:
    """Return a recording of a procedural scene."""
    cameras = 1 + len(settings.extra_cameras)
    path = setting.folder / f'world-{settings.storage}-{settings.width}-{cameras}'
    if not path.exists():
        setting.say(f'rendering {settings.seconds:g} s at {settings.width} columns')
        write(path, settings)
    return path


def finetuned(setting: Setting, recording: Path, model: Path, name: str, **options: Any) -> Run:
    """Run the command in a process of its own."""
    out = setting.folder / name
    words = command(recording, out, model, **options)
    setting.say('finetune ' + ' '.join(words))
    before, began_s = hashes(model), time.monotonic()
    done = subprocess.run(
        [sys.executable, '-m', 'depth_node.tools.finetune', *words],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began_s
    setting.say(f'ended with {done.returncode} after {seconds:.0f} s')
    if done.returncode == 1:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return Run(done.returncode, seconds, out, done.stderr, hashes(model) == before)
