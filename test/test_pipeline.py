"""The way of one frame: geometry, limits, unknown pixels; the engine says what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depth_node import camera
from depth_node.camera import fitting
from depth_node.camera.assumed import unknown_view
from depth_node.engines import EngineInfo
from depth_node.engines import selection
from depth_node.errors import EngineError
from depth_node.errors import ImageRejected
from depth_node.frames import CameraFields
from depth_node.frames import CameraImage
from depth_node.frames import CameraModel
from depth_node.model_folder import ModelFolder
from depth_node.model_folder.card import InputSpec
from depth_node.model_folder.card import ModelCard
from depth_node.model_folder.card import OutputSpec
from depth_node.pipeline import Pipeline
from depth_node.settings import settings_from

VGA = CameraModel(640, 480, 500.0, 500.0, 320.0, 240.0)


@dataclass
class ToldEngine:
    """Returns what the test put into ``output``; remembers what it was given."""

    size: InputSpec
    output: np.ndarray = field(init=False)
    given: np.ndarray | None = None
    closed: bool = False

    def __post_init__(self) -> None:
        shape = (1, 3, self.size.height, self.size.width)
        self.info = EngineInfo('told', '1', 'f32', 'test', shape)
        self.output = np.full(shape[2:], 0.05, np.float32)

    def warm_up(self) -> None:
        pass

    def infer(self, image: np.ndarray) -> np.ndarray:
        self.given = image.copy()
        return self.output

    def close(self) -> None:
        self.closed = True


def card(**changes: object) -> ModelCard:
    values: dict[str, object] = {
        'name': 'told',
        'network': 'lite-mono',
        'variant': 'small',
        'output': OutputSpec('disparity', 0.1, 100.0),
        'inputs': (InputSpec(96, 128, 'a', 'b'), InputSpec(96, 192, 'c', 'd')),
        'fit': 'native',
        'mean': (0.45, 0.5, 0.4),
        'std': (0.225, 0.2, 0.25),
        'focal_px': 100.0,
    }
    return ModelCard(**{**values, **changes})


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch):
    """Open a pipeline whose engines are told what to say; returns (pipeline, engines)."""
    engines: list[ToldEngine] = []

    def open_engine(folder, size, *, engine, precision, threads):
        engines.append(ToldEngine(size))
        return engines[-1], ()

    monkeypatch.setattr(selection, 'open_engine', open_engine)

    def opener(
        cameras: tuple[str, ...] = (), **changes: object
    ) -> tuple[Pipeline, list[ToldEngine]]:
        settings = settings_from({'cameras': cameras})
        return Pipeline(ModelFolder(Path('told'), card(**changes)), settings), engines

    return opener


def image_of(model: CameraModel, seed: int = 0) -> CameraImage:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (model.height, model.width, 3), np.uint8)
    return CameraImage(rgb, 123, 'optical')


def process(pipeline: Pipeline, model: CameraModel = VGA, **parameters: object):
    view = camera.CameraView(model, None)
    return pipeline.process(image_of(model), view, settings_from(parameters))


def test_depth_is_scaled_by_the_focal_length_at_network_input(opened) -> None:
    pipeline, _ = opened()
    inverse = 0.01 + (10.0 - 0.01) * 0.05
    for fx in (500.0, 1000.0):
        model = CameraModel(640, 480, fx, fx, 320.0, 240.0)
        depth = process(pipeline, model).depth_m
        expected = (fx * 128 / 640) / 100.0 / inverse
        np.testing.assert_allclose(depth, expected, rtol=1e-5)


def test_depth_scale_of_card_and_of_user_multiply(opened) -> None:
    pipeline, _ = opened(depth_scale=2.0)
    plain, _ = opened()
    expected = process(plain).depth_m * 6.0
    doubled = process(pipeline, **{'depth.scale': 3.0}).depth_m
    np.testing.assert_allclose(doubled, expected, rtol=1e-5)


def test_a_plane_stays_a_plane_through_the_enlargement(opened) -> None:
    pipeline, engines = opened(focal_px=None)
    fit = fitting.fit(VGA, [(96, 128)], 'native')
    normal, distance = np.array([0.2, 0.5, 0.84]), 2.0

    def inverse_depth(model: CameraModel) -> np.ndarray:
        x, y = fitting.ray_slopes(model)
        return (normal[0] * x[None] + normal[1] * y[:, None] + normal[2]) / distance

    engines[-1].output = ((inverse_depth(fit.camera) - 0.01) / 9.99).astype(np.float32)
    depth = process(pipeline).depth_m
    inner = (slice(8, -8), slice(8, -8))  # beyond the outermost network pixels nothing is known
    np.testing.assert_allclose(depth[inner], 1.0 / inverse_depth(VGA)[inner], rtol=2e-4)


def test_beyond_the_limits_is_infinite_and_nearer_is_unknown(opened) -> None:
    pipeline, engines = opened(focal_px=None)
    engines[-1].output[:] = 0.05
    engines[-1].output[:, :40] = 0.0
    engines[-1].output[:, 90:] = 0.9
    limits = {'depth.min_m': 0.2, 'depth.max_m': 50.0}
    depth = process(pipeline, **limits).depth_m
    assert np.isposinf(depth[:, :180]).all()
    assert np.isnan(depth[:, 470:]).all()
    assert np.isfinite(depth[:, 250:400]).all()
    assert not (depth == 0.0).any()


def test_single_numbers_that_are_none_stay_unknown(opened) -> None:
    pipeline, engines = opened()
    engines[-1].output[10, 10] = np.nan
    engines[-1].output[50, 60] = np.inf
    depth = process(pipeline).depth_m
    assert np.isnan(depth[52, 52]) and np.isnan(depth[252, 302])
    assert np.isfinite(depth[400, 500])


def test_an_output_that_is_mostly_no_number_is_refused(opened) -> None:
    pipeline, engines = opened()
    engines[-1].output[:60] = np.nan
    with pytest.raises(EngineError, match='non-finite'):
        process(pipeline)


def test_what_a_crop_left_out_is_unknown(opened) -> None:
    pipeline, _ = opened(fit='crop')
    model = CameraModel(800, 480, 500.0, 500.0, 400.0, 240.0)
    depth = process(pipeline, model).depth_m
    assert depth.shape == (480, 800)
    assert np.isnan(depth[:, :80]).all() and np.isnan(depth[:, 720:]).all()
    assert np.isfinite(depth[:, 80:720]).all()


def test_a_wide_camera_gets_the_engine_of_the_wide_input(opened) -> None:
    pipeline, engines = opened()
    wide = CameraModel(1280, 640, 900.0, 900.0, 640.0, 320.0)
    process(pipeline, wide)
    assert [engine.size.width for engine in engines] == [128, 192]
    assert engines[0].closed and not engines[1].closed
    assert pipeline.engine_info.input_shape == (1, 3, 96, 192)


def test_cameras_that_take_turns_share_engines_plans_and_buffers(
    opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = []
    fit = camera.fit
    monkeypatch.setattr(camera, 'fit', lambda *args: fits.append(args) or fit(*args))
    pipeline, engines = opened(cameras=('front', 'left', 'rear'))
    wide = CameraModel(640, 320, 500.0, 500.0, 320.0, 160.0)
    places = set()
    for _ in range(3):
        for name, model in (('front', VGA), ('left', wide), ('rear', VGA)):
            image = replace(image_of(model), camera=name)
            frame = pipeline.process(image, camera.CameraView(model, None), settings_from({}))
            assert frame.camera == model
            places.add((frame.depth_m.shape, frame.depth_m.ctypes.data))
    assert len(engines) == 2 and not any(engine.closed for engine in engines)
    assert len(fits) == 3, 'once for each camera'
    assert len(places) == 2, 'once for each size of image'
    shapes = [pipeline.engine_info_of(name).input_shape[2:] for name in ('front', 'left', 'rear')]
    assert shapes == [(96, 128), (96, 192), (96, 128)]
    assert pipeline.engine_info_of('').input_shape == engines[0].info.input_shape
    pipeline.close()
    assert all(engine.closed for engine in engines)


def test_an_engine_stays_open_until_every_camera_has_shown_what_it_needs(opened) -> None:
    pipeline, engines = opened(cameras=('front', 'left'))
    wide = CameraModel(640, 320, 500.0, 500.0, 320.0, 160.0)
    view = camera.CameraView(wide, None)
    pipeline.process(replace(image_of(wide), camera='front'), view, settings_from({}))
    assert [engine.closed for engine in engines] == [False, False]
    pipeline.process(replace(image_of(wide), camera='left'), view, settings_from({}))
    assert [engine.closed for engine in engines] == [True, False]


def test_network_size_comes_with_its_own_camera_and_image(opened) -> None:
    pipeline, _ = opened()
    frame = process(pipeline, **{'depth.full_size': False})
    assert frame.depth_m.shape == (96, 128) == frame.rgb.shape[:2]
    assert frame.camera == fitting.resized(VGA, 128, 96)


def test_pixels_without_a_source_in_the_raw_image_are_unknown(opened) -> None:
    pipeline, _ = opened()
    fields = CameraFields(
        640, 480, 'plumb_bob', (0.2, 0.05, 0.0, 0.0, 0.0), tuple(VGA.k.ravel().tolist())
    )
    view = camera.view_of(fields, 640, 480, rectify=True, rectified_input=False)
    assert view.rectifier is not None and not view.rectifier.valid.all()
    frame = pipeline.process(image_of(VGA), view, settings_from({}))
    assert np.array_equal(np.isnan(frame.depth_m), ~view.rectifier.valid)
    small = pipeline.process(image_of(VGA), view, settings_from({'depth.full_size': False}))
    assert np.isnan(small.depth_m[0, 0]) and np.isfinite(small.depth_m[48, 64])
    assert abs(np.isnan(small.depth_m).mean() - (~view.rectifier.valid).mean()) < 0.02


def test_the_network_sees_the_resampled_image_normalized_as_the_card_says(opened) -> None:
    pipeline, engines = opened()
    process(pipeline)
    fit = camera.fit(VGA, [(96, 128)], 'native')
    rgb = camera.resampled(image_of(VGA).rgb, fit).astype(np.float64) / 255.0
    expected = (rgb - [0.45, 0.5, 0.4]) / [0.225, 0.2, 0.25]
    given = engines[-1].given
    assert given is not None and given.flags.c_contiguous and given.dtype == np.float32
    np.testing.assert_allclose(given[0].transpose(1, 2, 0), expected, atol=1e-5)


def test_stamp_and_frame_of_the_image_are_kept(opened) -> None:
    pipeline, _ = opened()
    frame = process(pipeline)
    assert (frame.stamp_ns, frame.frame_id, frame.camera) == (123, 'optical', VGA)
    assert list(frame.stage_ns) == ['rectify', 'resize', 'network', 'depth']


def test_an_image_of_another_size_than_its_camera_is_refused(opened) -> None:
    pipeline, _ = opened()
    view = camera.CameraView(CameraModel(320, 240, 250.0, 250.0, 160.0, 120.0), None)
    with pytest.raises(ImageRejected, match='640x480'):
        pipeline.process(image_of(VGA), view, settings_from({}))


def test_metric_networks_give_metres_as_they_are(opened) -> None:
    pipeline, engines = opened(output=OutputSpec('metric'), focal_px=None)
    engines[-1].output[:] = 3.5
    np.testing.assert_allclose(process(pipeline).depth_m, 3.5, rtol=1e-6)


def test_a_depth_that_is_not_positive_is_unknown_and_an_infinite_one_stays_infinite(
    opened,
) -> None:
    pipeline, engines = opened(output=OutputSpec('metric'), focal_px=None)
    engines[-1].output[:] = 3.5
    engines[-1].output[:20] = -2.0
    engines[-1].output[:10] = 0.0
    engines[-1].output[70:] = np.inf
    depth = process(pipeline).depth_m
    assert np.isnan(depth[:95]).all()
    assert np.isfinite(depth[110:330]).all()
    assert np.isposinf(depth[360:]).all()


def test_every_size_gives_what_it_gives_alone_whatever_came_before(opened) -> None:
    small = CameraModel(320, 240, 250.0, 250.0, 159.75, 119.75)
    ramp = np.linspace(0.02, 0.9, 96 * 128, dtype=np.float32).reshape(96, 128)

    def depth_of(pipeline, engines, model):
        engines[-1].output[:] = ramp
        return process(pipeline, model).depth_m.copy()

    alone = {model: depth_of(*opened(), model) for model in (VGA, small)}
    pipeline, engines = opened()
    for model in (VGA, small, VGA, small, small, VGA):
        np.testing.assert_array_equal(depth_of(pipeline, engines, model), alone[model])


@pytest.mark.parametrize('level', [0, 255], ids=['black', 'white'])
@pytest.mark.parametrize('kind', ['disparity', 'metric'])
def test_an_image_without_contrast_is_given_to_the_network_and_published(
    opened, level: int, kind: str
) -> None:
    spec = OutputSpec('metric') if kind == 'metric' else OutputSpec('disparity', 0.1, 100.0)
    pipeline, engines = opened(output=spec)
    engines[-1].output[:] = 0.5
    rgb = np.full((480, 640, 3), level, np.uint8)
    with np.errstate(all='raise', under='ignore'):
        frame = pipeline.process(
            CameraImage(rgb, 123, ''), camera.CameraView(VGA, None), settings_from({})
        )
    assert engines[-1].given is not None and np.isfinite(engines[-1].given).all()
    assert np.isfinite(frame.depth_m).all() and np.ptp(frame.depth_m) < 1e-5


def test_the_bundled_model_makes_depth_of_pictures_without_contrast() -> None:
    pytest.importorskip('openvino')
    settings = settings_from({'model.engine': 'openvino', 'depth.edge_step': 0.0})
    pipeline = Pipeline.open(settings)
    view = camera.CameraView(VGA, None)
    stripes = np.where(np.arange(640) // 8 % 2, 255, 0)[None, :, None]
    for levels in (0, 255, stripes):
        rgb = np.full((480, 640, 3), levels, np.uint8)
        depth_m = pipeline.process(CameraImage(rgb, 123, ''), view, settings).depth_m
        assert not np.isnan(depth_m).any() and (depth_m > 0.0).all()
    pipeline.close()


def test_depth_of_a_model_without_focal_length_needs_no_intrinsics(opened) -> None:
    pipeline, _ = opened(focal_px=None)
    known = process(pipeline).depth_m.copy()
    unknown = pipeline.process(image_of(VGA), unknown_view(640, 480), settings_from({}))
    assert not unknown.camera.is_known and unknown.camera.width == 640
    assert np.array_equal(unknown.depth_m, known)
