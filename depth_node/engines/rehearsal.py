"""One frame through an engine that makes whole frames, before an image has to wait for it.

Such an engine prepares for a camera when it sees the first image of it, which takes tenths of a
second, and runs code that the comparison of the network with its golden output does not reach.
"""

from __future__ import annotations

import numpy as np

from depth_node import camera
from depth_node.engines import Engine
from depth_node.engines import FrameLimits
from depth_node.engines import FramePlan
from depth_node.engines import WholeFrame
from depth_node.errors import EngineError
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.settings import PointsSettings

_LIMITS = FrameLimits(scale_m=1.0, min_m=0.1, max_m=80.0, edge_step=0.12)
_USUAL = (640, 480, 1.2)


def rehearse(engine: Engine, plan: FramePlan) -> None:
    """Make a frame of a black image; an engine that makes none is left alone.

    :raises EngineError: when it fails, or gives depth of another size than asked for.
    """
    if not isinstance(engine, WholeFrame):
        return
    model = plan.view.model
    made = engine.frame(np.zeros((model.height, model.width, 3), np.uint8), plan, _LIMITS)
    seen = model if plan.full_size else plan.fit.camera
    if made.values.shape != (seen.height, seen.width):
        raise EngineError(
            f'engine {engine.info.name}',
            f'a frame of shape {made.values.shape}',
            f'{(seen.height, seen.width)}',
        )


def usual_plan(card: ModelCard, size: InputSpec) -> FramePlan:
    """Return the plan of a common camera, for when that of the robot is not known yet.

    :param size: the only one that counts.
    """
    model = camera.from_horizontal_fov(*_USUAL)
    fit = camera.fit(model, [(size.height, size.width)], card.fit)
    return FramePlan(camera.CameraView(model, None), fit, full_size=True, points=PointsSettings())
