"""A pipeline that follows a script instead of a network: for tests of the node around it.

As a program, ``python scripted_pipeline.py STEP... --ros-args ...`` runs the real node with it.
"""

from __future__ import annotations

import sys
import threading
import time

import numpy as np

from depth_node.engines import EngineInfo
from depth_node.errors import EngineError
from depth_node.errors import ModelError
from depth_node.frames import DepthFrame
from depth_node.frames import RelativeFrame
from depth_node.model_folder.card import ModelCard
from depth_node.model_folder.card import OutputSpec


class ScriptedPipeline:
    """Depth is 2 m everywhere; each call of process takes the next step of the script.

    With kind 'relative' the relative inverse depth is 700, and 0 and -3 in two corners.

    Steps: 'ok', 'slow' (50 ms), 'sleep' (0.6 s), 'engine' (EngineError), 'die' (ValueError) and
    'hang' (until released); the last one repeats.
    """

    def __init__(self, steps=('ok',), kind='metric'):
        self.steps = list(steps)
        self.card = ModelCard(
            name='scripted',
            network='none',
            variant='none',
            output=OutputSpec(kind),
            inputs=(),
            fit='stretch',
            focal_px=100.0,
            weights_license='CC0-1.0',
        )
        self.engine_info = EngineInfo('scripted', '1.0', 'f32', 'this machine', (1, 3, 48, 64))
        self.engine_notes = ('another engine was passed over: it is not installed',)
        self.engine_build = ''
        self.opened = 0
        self.closed = 0
        self.seen = []
        self.released = threading.Event()

    def open(self, settings):
        self.opened += 1
        if settings.model.name == 'missing':
            raise ModelError('model', "'missing'", 'one of the names scripted')
        return self

    def engine_info_of(self, camera):
        return self.engine_info

    def opens_engine_for(self, camera, model):
        return False

    def close(self):
        self.closed += 1

    def process(self, image, view, settings):
        self.seen.append((image, view, settings))
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if step == 'engine':
            raise EngineError('engine', 'a failure', 'none')
        if step == 'die':
            raise ValueError('a bug')
        if step == 'hang':
            self.released.wait(60)
        time.sleep({'slow': 0.05, 'sleep': 0.6}.get(step, 0.0))
        facts = {
            'camera': view.model,
            'rgb': image.rgb,
            'stamp_ns': image.stamp_ns,
            'frame_id': image.frame_id,
            'stage_ns': {'network': 1_000_000},
        }
        size = image.rgb.shape[:2]
        if self.card.output.kind == 'relative':
            inverse = np.full(size, 700.0, np.float32)
            inverse[0, 0], inverse[0, -1], inverse[-1, 0] = np.nan, 0.0, -3.0
            return RelativeFrame(inverse=inverse, **facts)
        depth_m = np.full(size, 2.0, np.float32)
        depth_m[0, 0] = np.nan
        return DepthFrame(depth_m=depth_m, **facts)


if __name__ == '__main__':
    from depth_node.ros.lifecycle_node import run

    cut = sys.argv.index('--ros-args')
    sys.exit(run([sys.argv[0], *sys.argv[cut:]], ScriptedPipeline(sys.argv[1:cut]).open))
