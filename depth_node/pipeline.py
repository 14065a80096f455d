"""CameraImage and CameraView in, depth out: one frame at a time, no ROS, no threads.

A model of metric depth makes a DepthFrame of every image, one of relative inverse depth a
RelativeFrame.

``depth_m = network_depth * depth_scale * fx_at_input / focal_px``: a network has learned how large
things look through the focal length ``focal_px``, so a longer lens means the same picture farther
away.  Between network size and image size it is the *inverse* depth that is interpolated, because
the inverse depth of a plane is an affine function of the pixel, so that walls stay flat.

Relative inverse depth is enlarged in the same way, for the same reason, and left as it is
otherwise: no scale, no limits, and no rule about zero (see RelativeFrame).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node import camera
from depth_node import model_folder
from depth_node.byte_arrays import float_image
from depth_node.camera.resampling import resampled_mask
from depth_node.engines import Engine
from depth_node.engines import EngineInfo
from depth_node.engines import FrameLimits
from depth_node.engines import FramePlan
from depth_node.engines import MadeFrame
from depth_node.engines import NotFinite
from depth_node.engines import WholeFrame
from depth_node.engines.serving import ServingEngine
from depth_node.errors import ImageRejected
from depth_node.flying_pixels import FlyingPixels
from depth_node.frames import CameraImage
from depth_node.frames import CameraModel
from depth_node.frames import DepthFrame
from depth_node.frames import OutputFrame
from depth_node.frames import PackedCloud
from depth_node.frames import RelativeFrame
from depth_node.model_folder import ModelCard
from depth_node.region_of_interest import forget_outside
from depth_node.region_of_interest import rows_and_columns
from depth_node.region_of_interest import without_outside
from depth_node.setting_texts import roi_shares
from depth_node.settings import DepthSettings
from depth_node.settings import PointsSettings
from depth_node.settings import Settings
from depth_node.temporal_smoothing import Smoother
from depth_node.temporal_smoothing import Succession

REASON_VIEW_SIZE = 'image_camera_size'
_LARGEST_SHARE_OF_UNKNOWN = 0.5
"""A network output with a larger share of non-finite values is not a picture of anything."""


@dataclass(frozen=True)
class _Plan:
    """What stays the same for all frames of one camera."""

    model: CameraModel
    """The camera of its images."""
    fit: camera.Fit
    """Which part of the image goes to which network size."""
    scale_m: float
    """Metres per unit of the network's depth, before the user's factor; without meaning where
    the model is relative."""


class Pipeline:
    """A model, the engines that run it, and the buffers of frames.

    Each camera, by its name, has a plan of its own, and each input size that is in one of them one
    open engine, whichever cameras share it.  Owned by one thread at a time.  The arrays of a
    returned frame are reused by the next call of :meth:`process`.
    """

    def __init__(
        self,
        folder: model_folder.ModelFolder,
        settings: Settings,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Open the engine for the preferred input size of ``folder`` and warm it up.

        :param wanted: asked while an engine is being built that has no substitute; False ends
            that.
        :raises EngineError: when no engine of ``settings.model`` works.
        """
        self.card: ModelCard = folder.card
        self._folder = folder
        self._model_settings = settings.model
        self._cameras = max(1, len(settings.cameras))
        self._plans: dict[str, _Plan] = {}
        self._relative = folder.card.output.kind == 'relative'
        self._buffers: dict[tuple[int, int], NDArray[np.float32]] = {}
        self._smoothers: defaultdict[str, Smoother] = defaultdict(Smoother)
        self._successions: defaultdict[str, Succession] = defaultdict(Succession)
        self._flying = FlyingPixels()
        self._engines: dict[int, ServingEngine] = {}
        self._engine: Engine = self._serving_of(0).wait(wanted)

    @classmethod
    def open(cls, settings: Settings, wanted: Callable[[], bool] = lambda: True) -> Pipeline:
        """Find, verify and open the model that ``settings`` names.

        :param wanted: see the class.
        :raises ModelError: when there is no such model or its files are damaged.
        :raises EngineError: when no engine works.
        """
        return cls(model_folder.read(model_folder.find(settings.model.name)), settings, wanted)

    @property
    def engine_info(self) -> EngineInfo:
        """Return what the engine says of itself that was used last."""
        return self._engine.info

    def engine_info_of(self, camera: str) -> EngineInfo:
        """Return what the engine says of itself that the images of one camera go to.

        :param camera: its name; of one that has sent nothing yet, the engine used last.
        """
        plan = self._plans.get(camera)
        serving = self._engines.get(plan.fit.size_index) if plan is not None else None
        return (serving.info if serving is not None else None) or self.engine_info

    @property
    def engine_notes(self) -> tuple[str, ...]:
        """Return why other engines were passed over, and what the engines have to say."""
        said = (note for engine in self._engines.values() for note in engine.notes)
        return tuple(dict.fromkeys(said))

    @property
    def engine_build(self) -> str:
        """Say how far an engine is that will take over; empty where there is none."""
        return '; '.join(text for engine in self._engines.values() if (text := engine.build))

    def close(self) -> None:
        """Release the engines and end what is being built; calling it twice is harmless."""
        for engine in self._engines.values():
            engine.close()

    def opens_engine_for(self, camera: str, model: CameraModel) -> bool:
        """Tell whether an engine is to be opened before the next image, which may take long.

        :param camera: its name.
        :param model: of its rectified images.
        """
        plan = self._plans.get(camera)
        if plan is None or plan.model != model:
            plan = self._new_plan(model)
        return plan.fit.size_index not in self._engines

    def process(
        self, image: CameraImage, view: camera.CameraView, settings: Settings
    ) -> OutputFrame:
        """Turn one image into depth.

        :param image: image as the camera sent it.
        :param view: the camera of that image; its rectifier, if any, is applied.
        :param settings: depth limits, scale, size and region; may change from frame to frame.  Of
            these relative inverse depth heeds size and region alone.
        :returns: metric depth or relative inverse depth, as the model gives it, of the whole
            (rectified) image, or at network size; the arrays are valid until the next call.
        :raises ImageRejected: when the image is not of the size of ``view``.
        :raises EngineError: when the engine fails or returns mostly non-finite numbers.
        """
        clock = _StageClock()
        model, wanted = view.model, settings.depth
        _check_size(image, model)
        rgb = view.rectifier.apply(image.rgb) if view.rectifier else image.rgb
        clock.stage('rectify')
        plan = self._plan_of(image.camera, model)
        ahead = self._frame_plan(view, plan, settings, image.camera)
        serving = self._serving_of(plan.fit.size_index)
        self._engine = serving.for_image(ahead)
        if isinstance(self._engine, WholeFrame):
            made = self._made_by(self._engine, rgb, ahead, plan, image, settings)
            shown = (plan.fit.camera, made.rgb) if made.rgb is not None else (model, rgb)
            stages_ns = {**clock.stages_ns, **made.stage_ns}
            cloud = _keep_region(made.values, made.cloud, model, plan.fit, settings)
            return self._frame(made.values, *shown, image, stages_ns, cloud, settings.points)
        small = serving.input.fill(rgb, plan.fit)
        clock.stage('resize')
        output = self._engine.infer(serving.input.array)
        clock.stage('network')
        inverse = self._inverse_depth(output)
        if not self._relative:
            camera_key = (image.frame_id, model)
            smoother = self._smoothers[image.camera]
            smoother.smooth(inverse, small, camera_key, image.stamp_ns, wanted.smoothing)
            self._flying.forget(inverse, wanted.edge_step)
        if wanted.full_size:
            values = self._full_size(inverse, plan, model)
            inside = values[_rows(plan.fit), _columns(plan.fit)]
        else:
            values = inside = self._buffer(inverse.shape)
            values[...] = inverse
        if not self._relative:
            _invert_in_place(inside, plan.scale_m * wanted.scale, inverse, wanted)
        if view.rectifier:
            _forget_unseen(values, view.rectifier.valid, plan.fit, wanted)
        _keep_region(values, None, model, plan.fit, settings)
        clock.stage('depth')
        shown = (model, rgb) if wanted.full_size else (plan.fit.camera, small)
        return self._frame(values, *shown, image, clock.stages_ns)

    def _made_by(
        self,
        engine: WholeFrame,
        rgb: NDArray[np.uint8],
        ahead: FramePlan,
        plan: _Plan,
        image: CameraImage,
        settings: Settings,
    ) -> MadeFrame:
        """Let the engine make the whole frame of a rectified image."""
        wanted = settings.depth
        succession = self._successions[image.camera]
        follows = succession.follows(ahead.view.model, image.frame_id, image.stamp_ns)
        made = engine.frame(
            rgb,
            ahead,
            FrameLimits(
                *(plan.scale_m * wanted.scale, wanted.min_m, wanted.max_m, wanted.edge_step),
                smoothing=wanted.smoothing if follows else 0.0,
            ),
        )
        self._check_known(made.known_share)
        return made

    def _frame_plan(
        self, view: camera.CameraView, plan: _Plan, settings: Settings, name: str
    ) -> FramePlan:
        """Return what an engine that makes whole frames can prepare for."""
        smooths = settings.depth.smoothing > 0.0 and not self._relative
        return FramePlan(view, plan.fit, settings.depth.full_size, settings.points, smooths, name)

    def _frame(
        self,
        values: NDArray[np.float32],
        model: CameraModel,
        rgb: NDArray[np.uint8],
        image: CameraImage,
        stage_ns: dict[str, int],
        cloud: PackedCloud | None = None,
        cloud_settings: PointsSettings | None = None,
    ) -> OutputFrame:
        """Give the numbers of a frame the type that says what they mean.

        :param values: (H, W) metres, or relative inverse depth where the model is relative.
        """
        if self._relative:
            return RelativeFrame(
                inverse=values,
                camera=model,
                rgb=rgb,
                stamp_ns=image.stamp_ns,
                frame_id=image.frame_id,
                stage_ns=stage_ns,
            )
        return DepthFrame(
            depth_m=values,
            camera=model,
            rgb=rgb,
            stamp_ns=image.stamp_ns,
            frame_id=image.frame_id,
            stage_ns=stage_ns,
            cloud=cloud,
            cloud_settings=cloud_settings,
        )

    def _plan_of(self, name: str, model: CameraModel) -> _Plan:
        """Return the plan of a camera; an engine that no camera needs any more is closed."""
        plan = self._plans.get(name)
        if plan is None or plan.model != model:
            plan = self._plans[name] = self._new_plan(model)
            # a camera that has sent nothing yet may need what is open
            if len(self._plans) >= self._cameras:
                self._close_unused()
        return plan

    def _new_plan(self, model: CameraModel) -> _Plan:
        """Fit the images of a camera to the sizes of the network."""
        sizes = [(size.height, size.width) for size in self.card.inputs]
        fit = camera.fit(model, sizes, self.card.fit)
        focal = self.card.focal_px
        scale_m = self.card.depth_scale * (fit.camera.fx / focal if focal else 1.0)
        return _Plan(model, fit, scale_m)

    def _close_unused(self) -> None:
        """Close the engines of the input sizes that are in no plan."""
        wanted = {plan.fit.size_index for plan in self._plans.values()}
        unused = [engine for index, engine in self._engines.items() if index not in wanted]
        self._engines = {i: engine for i, engine in self._engines.items() if i in wanted}
        for engine in unused:
            engine.close()

    def _serving_of(self, size_index: int) -> ServingEngine:
        """Return the engine of an input size, opened when it is needed first."""
        serving = self._engines.get(size_index)
        if serving is None:
            size = self.card.inputs[size_index]
            serving = ServingEngine(self._folder, size, self._model_settings)
            # never changed in place: the executor's thread reads it
            self._engines = {**self._engines, size_index: serving}
        return serving

    def _inverse_depth(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the network's inverse depth, (h, w), per unit of the network's depth.

        What is no number, and a depth that is not positive, becomes NaN.  Relative inverse depth
        is the engine's own array where all of it are numbers: not to be written to.
        """
        spec = self.card.output
        if spec.kind == 'relative':
            inverse = output
        elif spec.kind == 'metric':
            with np.errstate(divide='ignore', invalid='ignore'):
                inverse = np.reciprocal(output)
            inverse[output <= 0.0] = np.nan
        else:
            low, high = 1.0 / spec.max_depth_m, 1.0 / spec.min_depth_m
            inverse = output * np.float32(high - low)
            inverse += np.float32(low)
        finite = np.isfinite(inverse)
        if finite.all():
            return inverse
        self._check_known(float(finite.mean()))
        return np.where(finite, inverse, np.float32(np.nan))

    def _check_known(self, known_share: float) -> None:
        """Refuse an output of which too little is a number."""
        share = 1.0 - known_share
        if share > _LARGEST_SHARE_OF_UNKNOWN:
            raise NotFinite(
                f'engine {self.engine_info.name}',
                f'an output with {100.0 * share:.0f} % non-finite values',
                f'at most {100.0 * _LARGEST_SHARE_OF_UNKNOWN:.0f} %',
            )

    def _full_size(
        self, inverse: NDArray[np.float32], plan: _Plan, model: CameraModel
    ) -> NDArray[np.float32]:
        """Enlarge inverse depth to the image; what the network did not see is NaN."""
        full = self._buffer((model.height, model.width))
        fit = plan.fit
        if (fit.width, fit.height) == (model.width, model.height):
            cv2.resize(inverse, (fit.width, fit.height), dst=full, interpolation=cv2.INTER_LINEAR)
        else:
            full.fill(np.nan)
            full[_rows(fit), _columns(fit)] = cv2.resize(
                inverse, (fit.width, fit.height), interpolation=cv2.INTER_LINEAR
            )
        return full

    def _buffer(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return the buffer of a frame; fresh pages each time would cost more than arithmetic."""
        buffer = self._buffers.get(shape)
        if buffer is None:
            if len(self._buffers) >= self._cameras:
                self._buffers.pop(next(iter(self._buffers)))
            buffer = self._buffers[shape] = float_image(*shape)
        return buffer


def _check_size(image: CameraImage, model: CameraModel) -> None:
    """Refuse an image that is not of the size of its camera."""
    height, width = image.rgb.shape[:2]
    if (height, width) != (model.height, model.width):
        raise ImageRejected(
            REASON_VIEW_SIZE,
            'image',
            f'{width}x{height} pixels',
            f'{model.width}x{model.height} as in camera_info',
        )


def _invert_in_place(
    values: NDArray[np.float32],
    scale_m: float,
    inverse: NDArray[np.float32],
    limits: DepthSettings,
) -> None:
    """Turn inverse depth into metres within the limits.

    :param values: (H, W) inverse depth, replaced by metres; NaN stays NaN.
    :param scale_m: metres times inverse depth.
    :param inverse: (h, w) what ``values`` was enlarged from; its extremes bound those of
        ``values``, so that whole passes over the large array can be left out.
    :param limits: farther than ``max_m`` becomes +Inf, nearer than ``min_m`` NaN.
    """
    farthest, nearest = scale_m / limits.max_m, scale_m / max(limits.min_m, 1e-9)
    # these pass NaN over; nanmin takes longer
    lowest, highest = np.fmin.reduce(inverse.ravel()), np.fmax.reduce(inverse.ravel())
    if lowest < farthest:
        np.copyto(values, 0.0, where=values < farthest)
    if highest > nearest:
        np.copyto(values, np.nan, where=values > nearest)
    with np.errstate(divide='ignore'):
        np.divide(np.float32(scale_m), values, out=values)


def _forget_unseen(
    values: NDArray[np.float32],
    seen: NDArray[np.bool_],
    fit: camera.Fit,
    settings: DepthSettings,
) -> None:
    """Make NaN of pixels that rectification filled with black.

    :param values: (H, W) of the image, or (h, w) of the network.
    :param seen: (H, W) of the image, False where the raw image had no pixel.
    """
    if not settings.full_size:
        seen = resampled_mask(seen, fit)
    np.copyto(values, np.nan, where=~seen)


def _keep_region(
    values: NDArray[np.float32],
    cloud: PackedCloud | None,
    model: CameraModel,
    fit: camera.Fit,
    settings: Settings,
) -> PackedCloud | None:
    """Forget what is outside of the region of interest.

    :param values: (H, W) of the frame, changed in place.
    :param cloud: that an engine has packed of them.
    :returns: the cloud, without the points outside.
    """
    shares = roi_shares(settings.depth.roi_ratios)
    if shares is None:
        return cloud
    inside = rows_and_columns(shares, model, fit, full_size=settings.depth.full_size)
    forget_outside(values, *inside)
    return cloud and without_outside(cloud, *inside, settings.points.stride)


def _rows(fit: camera.Fit) -> slice:
    """Return the rows of the image that the network sees."""
    return slice(fit.top, fit.top + fit.height)


def _columns(fit: camera.Fit) -> slice:
    """Return the columns of the image that the network sees."""
    return slice(fit.left, fit.left + fit.width)


class _StageClock:
    """Splits the time of a frame into named stages."""

    def __init__(self) -> None:
        self.stages_ns: dict[str, int] = {}
        self._last_ns = time.perf_counter_ns()

    def stage(self, name: str) -> None:
        """Book the time since the last call under ``name``."""
        now_ns = time.perf_counter_ns()
        self.stages_ns[name] = now_ns - self._last_ns
        self._last_ns = now_ns
