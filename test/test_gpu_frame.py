"""A frame made of PyTorch operations is the frame that the pipeline and the packer make.

All of it runs on the processor here; the same operations run on a GPU.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from depth_node import camera
from depth_node.byte_arrays import bytes_of
from depth_node.camera import resampling
from depth_node.camera.assumed import unknown_view
from depth_node.camera.fitting import Fit
from depth_node.cloud import CloudPacker
from depth_node.engines import EngineInfo
from depth_node.engines import FrameLimits
from depth_node.engines import FramePlan
from depth_node.engines import MadeFrame
from depth_node.engines import WholeFrame
from depth_node.engines import selection
from depth_node.engines.gpu_frame import GpuFrame
from depth_node.engines.gpu_frame import OrdinaryMemory
from depth_node.engines.gpu_frame import _flying
from depth_node.engines.gpu_resampling import Enlarge
from depth_node.engines.gpu_resampling import Shrink
from depth_node.errors import EngineError
from depth_node.flying_pixels import FlyingPixels
from depth_node.frames import CameraFields
from depth_node.frames import CameraImage
from depth_node.frames import CameraModel
from depth_node.frames import DepthFrame
from depth_node.frames import RelativeFrame
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.model_folder import OutputSpec
from depth_node.pipeline import Pipeline
from depth_node.settings import Settings
from depth_node.settings import settings_from

VGA = CameraModel(640, 480, 500.0, 505.0, 320.0, 240.0)
WIDE = CameraModel(800, 480, 611.0, 612.0, 433.3, 201.9)
ODD = CameraModel(333, 247, 300.0, 290.0, 150.2, 99.7)
CAMERAS = {'vga': VGA, 'wide': WIDE, 'odd': ODD}
KINDS = {
    'disparity': OutputSpec('disparity', 0.1, 100.0),
    'metric': OutputSpec('metric'),
    'relative': OutputSpec('relative'),
}


def card(kind: str = 'disparity') -> ModelCard:
    return ModelCard(
        name='told',
        network='lite-mono',
        variant='small',
        output=KINDS[kind],
        inputs=(InputSpec(96, 128, 'a', 'b'),),
        fit='native',
        mean=(0.45, 0.5, 0.4),
        std=(0.225, 0.2, 0.25),
        focal_px=100.0,
        depth_scale=1.7,
    )


def plain(values: dict[str, Any]) -> Settings:
    """Return settings that keep the pixels about edges, of which random output has no others."""
    return settings_from({'depth.edge_step': 0.0, **values})


def output_of(kind: str, seed: int = 0) -> np.ndarray:
    """Return what a network could say, with steps, and with what is no number."""
    rng = np.random.default_rng(seed)
    low, high = {'disparity': (0.0, 1.0), 'metric': (0.2, 14.0), 'relative': (-3.0, 900.0)}[kind]
    output = rng.uniform(low, high, (96, 128)).astype(np.float32)
    output[40:50, 3:9] = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-30)
    output[0, 0] = output[95, 127] = output[41, 1] = output[1, 31] = np.nan
    return output


class ToldNetwork(nn.Module):
    """Says what it was told; remembers what it was given."""

    def __init__(self, output: np.ndarray) -> None:
        super().__init__()
        self.register_buffer('output', torch.from_numpy(output)[None, None])
        self.given: np.ndarray = np.empty(0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.is_contiguous(memory_format=torch.channels_last)
        self.given = image.numpy().copy()
        return self.output


@dataclass
class ToldEngine:
    """The network alone, as on a processor."""

    output: np.ndarray
    given: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        self.info = EngineInfo('told', '1', 'f32', 'test', (1, 3, 96, 128))

    def warm_up(self) -> None:
        pass

    def infer(self, image: np.ndarray) -> np.ndarray:
        self.given = image.copy()
        return self.output

    def close(self) -> None:
        pass


class FrameEngine(ToldEngine):
    """The whole frame in PyTorch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.card = card()
        self.frames: list[GpuFrame] = []

    def frame(self, rgb: np.ndarray, plan: FramePlan, limits: FrameLimits) -> MadeFrame:
        if not self.frames or self.frames[-1].plan != plan:
            network = ToldNetwork(self.output)
            self.frames.append(GpuFrame(network, self.card, plan, 'cpu', OrdinaryMemory()))
        with torch.inference_mode():
            self.frames[-1].put(rgb, limits)
            self.frames[-1].enqueue()
        return self.frames[-1].made({'gpu': 7})


def pipeline_of(engine: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setattr(selection, 'open_engine', lambda *_, **__: (engine, ()))
    engine.card = card(kind)
    return Pipeline(ModelFolder(Path('told'), card(kind)), settings_from({}))


def image_of(model: CameraModel, seed: int = 0) -> CameraImage:
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 256, (model.height, model.width + 3, 3), np.uint8)
    return CameraImage(wide[:, : model.width], 123, 'optical')


def copied(frame: Any) -> Any:
    """Return a frame whose arrays the next frame does not overwrite."""
    values = 'inverse' if isinstance(frame, RelativeFrame) else 'depth_m'
    return type(frame)(**{**vars(frame), values: getattr(frame, values).copy()})


def both(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    view: camera.CameraView,
    settings: Settings,
    seed: int = 0,
    output: np.ndarray | None = None,
) -> tuple[Any, Any]:
    """Return the frame of the pipeline and that of the whole-frame engine."""
    frames = []
    output = output_of(kind, seed) if output is None else output
    for engine in (ToldEngine(output.copy()), FrameEngine(output.copy())):
        pipeline = pipeline_of(engine, kind, monkeypatch)
        frames.append(copied(pipeline.process(image_of(view.model), view, settings)))
    return frames[0], frames[1]


def same_depth(got: np.ndarray, wanted: np.ndarray, settings: Settings) -> None:
    """Hold depth to 1e-5 where finite; at most one pixel in 10 000 may cross a limit."""
    assert got.shape == wanted.shape and got.dtype == np.float32
    kinds = [np.where(np.isnan(a), 2, np.where(np.isposinf(a), 1, 0)) for a in (got, wanted)]
    crossed = kinds[0] != kinds[1]
    assert crossed.mean() < 1e-4
    for depth_m in (got[crossed], wanted[crossed]):
        finite = depth_m[np.isfinite(depth_m)]
        limits = np.array([settings.depth.min_m, settings.depth.max_m])
        assert (np.abs(finite[:, None] / limits - 1.0).min(axis=1) < 1e-5).all()
    finite = np.isfinite(got) & np.isfinite(wanted)
    assert finite.mean() > 0.2, finite.mean()
    np.testing.assert_allclose(got[finite], wanted[finite], rtol=1e-5, atol=0)


def same_cloud(frame: DepthFrame, settings: Settings) -> None:
    """Hold the cloud of a frame to what the packer makes of its depth and colours."""
    points, got = settings.points, frame.cloud
    assert got is not None and frame.cloud_settings == points
    packer = CloudPacker(frame.camera, organized=True, color=points.color, stride=points.stride)
    wanted = packer.pack(frame.depth_m, frame.rgb)
    for name in ('width', 'height', 'point_step', 'fields', 'is_dense'):
        assert getattr(got, name) == getattr(wanted, name), name
    shape = (wanted.height, wanted.width, 4)
    ours, theirs = (
        np.frombuffer(cloud.data, np.float32).reshape(shape) for cloud in (got, wanted)
    )
    assert np.array_equal(ours[..., 3].view(np.uint32), theirs[..., 3].view(np.uint32))
    np.testing.assert_allclose(ours[..., :3], theirs[..., :3], rtol=1e-5, atol=0)


@pytest.mark.parametrize('full_size', [True, False])
@pytest.mark.parametrize('name', CAMERAS)
@pytest.mark.parametrize('kind', ['disparity', 'metric'])
def test_depth_and_cloud_are_those_of_the_processor(
    monkeypatch: pytest.MonkeyPatch, kind: str, name: str, full_size: bool
) -> None:
    settings = plain({'depth.full_size': full_size, 'depth.min_m': 0.4, 'depth.max_m': 20.0})
    wanted, got = both(monkeypatch, kind, camera.CameraView(CAMERAS[name], None), settings)
    assert isinstance(got, DepthFrame) and got.camera == wanted.camera
    assert (np.isposinf(wanted.depth_m).any(), np.isnan(wanted.depth_m).any()) == (True, True)
    same_depth(got.depth_m, wanted.depth_m, settings)
    levels = np.abs(got.rgb.astype(int) - wanted.rgb.astype(int))
    assert levels.max() <= (0 if full_size else 1) and (levels > 0).mean() < 2e-3
    same_cloud(got, settings)


@pytest.mark.parametrize('full_size', [True, False])
@pytest.mark.parametrize('name', CAMERAS)
def test_pixels_between_surfaces_are_forgotten_as_on_the_processor(
    monkeypatch: pytest.MonkeyPatch, name: str, full_size: bool
) -> None:
    output = np.full((96, 128), 0.02, np.float32)
    output[20:60, 30:90] = 0.05
    output[50:, 100:] = np.linspace(0.05, 0.2, 46, dtype=np.float32)[:, None]
    output[5, 5] = np.nan
    settings = settings_from({'depth.full_size': full_size})
    view = camera.CameraView(CAMERAS[name], None)
    wanted, got = both(monkeypatch, 'disparity', view, settings, output=output)
    unknown = [np.isnan(frame.depth_m) for frame in (wanted, got)]
    assert (unknown[0] != unknown[1]).mean() < 1e-3
    known = ~unknown[0] & ~unknown[1]
    assert 0.01 < unknown[0].mean() < 0.9
    np.testing.assert_allclose(got.depth_m[known], wanted.depth_m[known], rtol=1e-5, atol=0)


@pytest.mark.parametrize('blur_px', [0.0, 0.8, 1.5])
def test_the_mask_is_that_of_the_processor_pixel_by_pixel(blur_px: float) -> None:
    inverse = np.random.default_rng(3).uniform(0.0, 1.0, (24, 40)).astype(np.float32)
    inverse = cv2.resize(inverse, (320, 192), interpolation=cv2.INTER_NEAREST)
    if blur_px:
        inverse = cv2.GaussianBlur(inverse, (0, 0), blur_px)
    inverse[100:, 200:] = np.linspace(0.01, 0.9, 92, dtype=np.float32)[:, None]
    inverse[3, 4] = np.nan
    mask = _flying(torch.from_numpy(inverse), torch.tensor(0.12)).numpy()
    FlyingPixels().forget(inverse, 0.12)
    mask[3, 4] = True
    assert 0.01 < mask.mean() < 0.9
    assert np.array_equal(mask, np.isnan(inverse))


@pytest.mark.parametrize('full_size', [True, False])
@pytest.mark.parametrize('name', CAMERAS)
def test_relative_inverse_depth_is_that_of_the_processor(
    monkeypatch: pytest.MonkeyPatch, name: str, full_size: bool
) -> None:
    settings = plain({'depth.full_size': full_size})
    view = camera.CameraView(CAMERAS[name], None)
    wanted, got = both(monkeypatch, 'relative', view, settings)
    assert isinstance(got, RelativeFrame)
    assert np.array_equal(np.isnan(got.inverse), np.isnan(wanted.inverse))
    np.testing.assert_allclose(got.inverse, wanted.inverse, rtol=0, atol=900.0 * 1e-6)


@pytest.mark.parametrize('full_size', [True, False])
def test_what_rectification_could_not_see_is_unknown(
    monkeypatch: pytest.MonkeyPatch, full_size: bool
) -> None:
    k = tuple(VGA.k.ravel().tolist())
    fields = CameraFields(640, 480, 'plumb_bob', (0.2, 0.05, 0.0, 0.0, 0.0), k)
    view = camera.view_of(fields, 640, 480, rectify=True, rectified_input=False)
    assert view.rectifier is not None and not view.rectifier.valid.all()
    settings = plain({'depth.full_size': full_size})
    wanted, got = both(monkeypatch, 'disparity', view, settings)
    assert np.isnan(wanted.depth_m).mean() > 0.02
    same_depth(got.depth_m, wanted.depth_m, settings)
    same_cloud(got, settings)


@pytest.mark.parametrize(('color', 'stride'), [(True, 3), (False, 1), (False, 4)])
def test_clouds_of_every_kind_that_is_offered(
    monkeypatch: pytest.MonkeyPatch, color: bool, stride: int
) -> None:
    settings = plain({'points.color': color, 'points.stride': stride})
    _, got = both(monkeypatch, 'disparity', camera.CameraView(ODD, None), settings)
    same_cloud(got, settings)


@pytest.mark.parametrize('other', [{'points.organized': False}, {'points.padded': True}])
def test_other_clouds_are_left_to_the_packer(
    monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    view = camera.CameraView(ODD, None)
    wanted, got = both(monkeypatch, 'disparity', view, plain(other))
    assert got.cloud is None
    same_depth(got.depth_m, wanted.depth_m, plain(other))


def test_a_dense_cloud_is_called_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FrameEngine(np.full((96, 128), 0.3, np.float32))
    pipeline = pipeline_of(engine, 'disparity', monkeypatch)
    view = camera.CameraView(VGA, None)
    for max_m, dense in ((100.0, True), (0.4, False), (100.0, True)):
        settings = plain({'depth.max_m': max_m})
        frame = pipeline.process(image_of(VGA), view, settings)
        assert isinstance(frame, DepthFrame) and frame.cloud is not None
        assert frame.cloud.is_dense is dense


def test_limits_and_scale_change_without_a_new_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, other = FrameEngine(output_of('disparity')), ToldEngine(output_of('disparity'))
    ours, theirs = (pipeline_of(each, 'disparity', monkeypatch) for each in (engine, other))
    view = camera.CameraView(VGA, None)
    for scale, min_m, max_m in ((1.0, 0.1, 80.0), (2.5, 0.0, 9.0), (0.3, 0.02, 0.4)):
        settings = plain({'depth.scale': scale, 'depth.min_m': min_m, 'depth.max_m': max_m})
        got, wanted = (each.process(image_of(VGA), view, settings) for each in (ours, theirs))
        assert isinstance(got, DepthFrame) and isinstance(wanted, DepthFrame)
        same_depth(got.depth_m, wanted.depth_m, settings)
    assert len(engine.frames) == 1
    for changed in ({'depth.full_size': False}, {'points.stride': 2}):
        ours.process(image_of(VGA), view, plain(changed))
    assert len(engine.frames) == 3


def test_a_frame_is_made_of_its_own_image(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FrameEngine(output_of('disparity'))
    pipeline = pipeline_of(engine, 'disparity', monkeypatch)
    for seed in (1, 2):
        image = image_of(VGA, seed)
        frame = pipeline.process(image, camera.CameraView(VGA, None), settings_from({}))
        assert isinstance(frame, DepthFrame)
        same_cloud(frame, settings_from({}))
        assert np.shares_memory(frame.rgb, image.rgb)
        # a message takes the depth without a copy
        assert np.shares_memory(np.frombuffer(bytes_of(frame.depth_m), np.uint8), frame.depth_m)


@pytest.mark.parametrize('name', CAMERAS)
def test_the_network_is_given_what_the_pipeline_gives_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    told, whole = ToldEngine(output_of('disparity')), FrameEngine(output_of('disparity'))
    view = camera.CameraView(CAMERAS[name], None)
    for engine in (told, whole):
        pipeline = pipeline_of(engine, 'disparity', monkeypatch)
        pipeline.process(image_of(view.model), view, settings_from({}))
    std = np.array(card().std)[:, None, None]
    levels = np.abs(whole.frames[-1].network.given - told.given)[0] * 255.0 * std
    assert levels.max() < 1.001
    assert (levels > 1e-3).mean() < 2e-3


SIZES = [
    ((480, 640), (192, 256)),  # halved, then bilinear
    ((960, 1280), (192, 256)),  # halved twice
    ((240, 427), (192, 352)),  # bilinear
    ((100, 120), (192, 256)),  # enlarged
    ((375, 1242), (192, 640)),
    ((480, 640), (480, 512)),  # one axis as it is
    ((481, 641), (192, 256)),  # an odd side: area
    ((576, 768), (192, 256)),
    ((120, 640), (192, 256)),  # area along one axis, enlarged along the other
    ((640, 120), (192, 256)),
    ((192, 256), (192, 256)),
]


@pytest.mark.parametrize(('size', 'wanted'), SIZES)
def test_images_are_shrunk_to_the_bytes_of_opencv(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    fit = Fit(0, 0, size[1], size[0], CameraModel(wanted[1], wanted[0], 1.0, 1.0, 0.0, 0.0))
    rgb = np.random.default_rng(4).integers(0, 256, (*size, 3), np.uint8)
    planes = torch.from_numpy(rgb).permute(2, 0, 1).float().contiguous()
    got = Shrink(fit)(planes).permute(1, 2, 0).numpy()
    assert np.array_equal(got, np.rint(got))
    levels = np.abs(got - resampling.resampled(rgb, fit))
    assert levels.max() <= 1.0
    assert (levels > 0).mean() < 2e-3


@pytest.mark.parametrize('wanted', [(480, 640), (97, 131), (288, 384), (60, 70), (96, 640)])
def test_enlarging_lets_no_number_spread_further_than_opencv_does(
    wanted: tuple[int, int],
) -> None:
    import cv2

    plane = np.random.default_rng(1).uniform(0.01, 10.0, (96, 128)).astype(np.float32)
    for place in ((0, 0), (95, 127), (40, 0), (41, 1), (50, 127), (1, 31), (95, 60), (94, 70)):
        plane[place] = np.nan
    expected = cv2.resize(plane, wanted[::-1], interpolation=cv2.INTER_LINEAR)
    got = Enlarge((96, 128), wanted)(torch.from_numpy(plane)).numpy()
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=0)


def test_an_output_that_is_mostly_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    output = np.full((96, 128), 0.3, np.float32)
    output[:60] = np.nan
    pipeline = pipeline_of(FrameEngine(output), 'disparity', monkeypatch)
    with pytest.raises(EngineError, match='62 % non-finite'):
        pipeline.process(image_of(VGA), camera.CameraView(VGA, None), settings_from({}))


def test_the_stages_of_a_whole_frame_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FrameEngine(output_of('disparity'))
    assert isinstance(engine, WholeFrame) and not isinstance(ToldEngine(engine.output), WholeFrame)
    pipeline = pipeline_of(engine, 'disparity', monkeypatch)
    frame = pipeline.process(image_of(VGA), camera.CameraView(VGA, None), settings_from({}))
    assert list(frame.stage_ns) == ['rectify', 'gpu'] and frame.stage_ns['gpu'] == 7


def smoothed_sequence(
    engine: Any, monkeypatch: pytest.MonkeyPatch, kind: str, steps: list[tuple[str, int, float]]
) -> list[np.ndarray]:
    """Return the depth of images of which each says another output, smoothed by a half."""
    rng = np.random.default_rng(5)
    pipeline = pipeline_of(engine, kind, monkeypatch)
    base = output_of(kind, 3)
    rgb = rng.integers(0, 256, (480, 640, 3), np.uint8)
    made = []
    for frame_id, stamp_ms, smoothing in steps:
        said = base * rng.normal(1.0, 0.04, base.shape).astype(np.float32)
        said[: len(said) // 4] *= np.float32(0.5 + 0.1 * len(made))
        if isinstance(engine, FrameEngine):
            for frame in engine.frames:
                frame.network.output.copy_(torch.from_numpy(said)[None, None])
        engine.output[...] = said
        seen = rgb.copy()
        seen[:, : 40 * len(made)] //= 2
        frame = pipeline.process(
            CameraImage(seen, stamp_ms * 1_000_000, frame_id),
            camera.CameraView(VGA, None),
            plain({'depth.smoothing': smoothing, 'depth.full_size': False}),
        )
        values = 'inverse' if isinstance(frame, RelativeFrame) else 'depth_m'
        made.append(getattr(frame, values).copy())
    return made


@pytest.mark.parametrize('kind', list(KINDS))
def test_smoothing_is_that_of_the_processor_also_over_breaks(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    steps = [
        *[('a', 1000 + 33 * number, 0.5) for number in range(4)],
        ('a', 2000, 0.5),  # after a gap
        ('a', 2033, 0.8),
        ('b', 2066, 0.5),  # of another camera
        ('b', 2099, 0.5),
        ('b', 1500, 0.5),  # a jump back
        ('b', 1533, 0.0),
        ('b', 1566, 0.5),
        ('b', 1599, 0.5),
    ]
    wanted, got, unsmoothed = (
        smoothed_sequence(engine(output_of(kind)), monkeypatch, kind, chosen)
        for engine, chosen in (
            (ToldEngine, steps),
            (FrameEngine, steps),
            (ToldEngine, [(name, stamp, 0.0) for name, stamp, _ in steps]),
        )
    )
    for number, (ours, theirs, came) in enumerate(zip(wanted, got, unsmoothed, strict=True)):
        # where a value lies at a limit it may be kept by one and not by the other
        close = np.isclose(theirs, ours, rtol=1e-4, equal_nan=True)
        assert (~close).mean() < 2e-3, (number, (~close).mean())
        mixed = (~np.isclose(ours, came, rtol=1e-6, equal_nan=True)).mean()
        follows = number in (1, 2, 3, 5, 7, 11) and kind != 'relative'
        assert mixed > 0.1 if follows else mixed == 0.0, (number, mixed)


def test_without_intrinsics_there_is_depth_and_no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = plain({})
    told = replace(card(), focal_px=None)
    monkeypatch.setattr(sys.modules[__name__], 'card', lambda _='': told)
    wanted, got = both(monkeypatch, 'disparity', unknown_view(640, 480), settings)
    same_depth(got.depth_m, wanted.depth_m, settings)
    assert got.cloud is None and not got.camera.is_known
