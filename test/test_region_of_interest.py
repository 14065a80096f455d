"""Outside of the region of interest nothing is known; sizes stay, and inside nothing changes."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import pytest

from depth_node import camera
from depth_node.camera import fitting
from depth_node.cloud import CloudPacker
from depth_node.engines import EngineInfo
from depth_node.engines import FrameLimits
from depth_node.engines import FramePlan
from depth_node.engines import MadeFrame
from depth_node.engines import selection
from depth_node.errors import SettingsError
from depth_node.frames import CameraImage
from depth_node.frames import CameraModel
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.model_folder import OutputSpec
from depth_node.pipeline import Pipeline
from depth_node.region_of_interest import rows_and_columns
from depth_node.scan import Scanner
from depth_node.settings import settings_from

VGA = CameraModel(640, 480, 500.0, 500.0, 320.0, 240.0)
WIDE = CameraModel(800, 480, 600.0, 600.0, 400.0, 240.0)
ROI = 'depth.roi_ratios'


class ToldEngine:
    """A network that sees a slope everywhere; keeps its input size."""

    def __init__(self) -> None:
        self.info = EngineInfo('told', '1', 'f32', 'test', (1, 3, 96, 128))
        self.output = np.tile(np.linspace(0.2, 0.6, 128, dtype=np.float32), (96, 1))

    def warm_up(self) -> None:
        pass

    def infer(self, image: np.ndarray) -> np.ndarray:
        return self.output

    def close(self) -> None:
        pass


class FrameEngine(ToldEngine):
    """An engine that hands over depth and cloud of its own; the memory is used again."""

    def frame(self, rgb: np.ndarray, plan: FramePlan, limits: FrameLimits) -> MadeFrame:
        shown = plan.view.model if plan.full_size else plan.fit.camera
        colors = np.zeros((shown.height, shown.width, 3), np.uint8)
        values = np.full(colors.shape[:2], 3.0, np.float32)
        packer = CloudPacker(shown, organized=True, color=True, stride=plan.points.stride)
        cloud = packer.pack(values, colors)
        assert cloud.is_dense and isinstance(cloud.data, array)
        return MadeFrame(values, 1.0, None if plan.full_size else colors, cloud, {})


def frame_of(monkeypatch, engine, model=VGA, kind='disparity', **parameters):
    card = ModelCard(
        name='told',
        network='lite-mono',
        variant='small',
        output=OutputSpec(kind, 0.1, 100.0),
        inputs=(InputSpec(96, 128, 'a', 'b'),),
        fit='native',
        focal_px=100.0,
    )
    monkeypatch.setattr(selection, 'open_engine', lambda *_, **__: (engine, ()))
    pipeline = Pipeline(ModelFolder(Path('told'), card), settings_from({}))
    rgb = np.full((model.height, model.width, 3), 99, np.uint8)
    image = CameraImage(rgb, 5, 'optical')
    return pipeline.process(image, camera.CameraView(model, None), settings_from(parameters))


def outside(shape: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    mask = np.ones(shape, bool)
    mask[rows, columns] = False
    return mask


def test_outside_depth_is_unknown_and_inside_it_is_what_it_was(monkeypatch) -> None:
    whole = frame_of(monkeypatch, ToldEngine()).depth_m.copy()
    cut = frame_of(monkeypatch, ToldEngine(), **{ROI: '0.1 0.25 0 0.2'})
    assert cut.depth_m.shape == whole.shape and cut.camera == VGA
    gone = outside(whole.shape, slice(0, 384), slice(64, 480))
    assert np.array_equal(np.isnan(cut.depth_m), gone)
    assert np.array_equal(cut.depth_m[~gone], whole[~gone])


@pytest.mark.parametrize('kind', ['disparity', 'relative'])
@pytest.mark.parametrize('model', [VGA, WIDE])
def test_at_the_size_of_the_network_the_region_is_the_same_part_of_the_picture(
    monkeypatch, model, kind
) -> None:
    text = {ROI: '0.3 0.1 0.15 0.2'}
    large, small = (
        frame_of(monkeypatch, ToldEngine(), model, kind, **text, **{'depth.full_size': size})
        for size in (True, False)
    )
    x, y = fitting.ray_slopes(small.camera)
    seen = [~np.isnan(getattr(f, 'inverse', getattr(f, 'depth_m', None))) for f in (large, small)]
    # by the ray: what a pixel of the network sees is known where the image's pixel there is
    u = np.rint(x * model.fx + model.cx - 1e-4).astype(int)
    v = np.rint(y * model.fy + model.cy - 1e-4).astype(int)
    wanted = seen[0][np.clip(v, 0, model.height - 1)][:, np.clip(u, 0, model.width - 1)]
    # a centre may lie on the border
    assert (seen[1] != wanted).mean() < 0.01
    assert 0.2 < seen[1].mean() < 0.6


@pytest.mark.parametrize('stride', [1, 3])
@pytest.mark.parametrize('full_size', [True, False])
def test_a_frame_that_an_engine_made_loses_the_same_pixels_and_points(
    monkeypatch, full_size, stride
) -> None:
    parameters = {ROI: '0.11 0.2 0.07 0.2', 'points.stride': stride, 'depth.full_size': full_size}
    ours = frame_of(monkeypatch, ToldEngine(), **parameters)
    made = frame_of(monkeypatch, FrameEngine(), **parameters)
    assert np.array_equal(np.isnan(made.depth_m), np.isnan(ours.depth_m))
    packer = CloudPacker(ours.camera, organized=True, color=True, stride=stride)
    wanted = packer.pack(ours.depth_m, ours.rgb)
    shape = (wanted.height, wanted.width, 4)
    points = [
        np.frombuffer(cloud.data, np.float32).reshape(shape) for cloud in (made.cloud, wanted)
    ]
    assert np.array_equal(np.isnan(points[0][..., :3]), np.isnan(points[1][..., :3]))
    assert not made.cloud.is_dense and not wanted.is_dense
    assert np.isfinite(points[0][..., :3]).mean() > 0.3
    assert not np.isnan(points[0][..., 3]).any()


def test_without_a_region_an_engines_frame_is_passed_on_as_it_is(monkeypatch) -> None:
    made = frame_of(monkeypatch, FrameEngine())
    assert made.cloud.is_dense and not np.isnan(made.depth_m).any()


def test_a_cloud_of_valid_points_has_none_outside(monkeypatch) -> None:
    frame = frame_of(monkeypatch, ToldEngine(), **{ROI: '0 0 0 0.5'})
    packed = CloudPacker(frame.camera, organized=False, color=False, stride=1).pack(
        frame.depth_m, frame.rgb
    )
    y = np.frombuffer(packed.data, np.float32).reshape(-1, 4)[:, 1]
    assert packed.width == 640 * 240 and (y <= 0.0).all()


def test_the_scan_neither_marks_nor_clears_outside(monkeypatch) -> None:
    frame = frame_of(monkeypatch, ToldEngine(), **{ROI: '0 0.5 0 0'})
    ranges = Scanner(frame.camera, band=0.05).scan(frame.depth_m, 0.1, 50.0).ranges_m
    half = len(ranges) // 2
    # the rightmost comes first
    assert np.isnan(ranges[: half - 2]).all() and np.isfinite(ranges[half + 2 :]).all()


@pytest.mark.parametrize('shares', [(0.0, 0.0, 0.0, 0.0), (0.5, 0.45, 0.0, 0.95)])
def test_some_pixel_is_always_left(shares) -> None:
    model = CameraModel(32, 24, 30.0, 30.0, 15.5, 11.5)
    fit = fitting.fit(model, [(24, 32)], 'native')
    rows, columns = rows_and_columns(shares, model, fit, full_size=True)
    assert 0 <= rows.start < rows.stop <= 24 and 0 <= columns.start < columns.stop <= 32


def test_a_region_beside_what_the_network_sees_leaves_nothing_at_its_size() -> None:
    model = CameraModel(960, 240, 200.0, 200.0, 479.5, 119.5)
    fit = fitting.fit(model, [(96, 128)], 'native')
    rows, columns = rows_and_columns((0.0, 0.8, 0.0, 0.0), model, fit, full_size=False)
    assert columns.start == columns.stop == 0 and rows == slice(0, 96)


@pytest.mark.parametrize(
    'text',
    ['0 0 0', '0 0 0 0 0', 'a b c d', '0 0 0 -0.1', '0 0 nan 0', '0.5 0.5 0 0', '0 0 inf 0',
     '0 0 1 0', '10 10 300 200'],
)  # fmt: skip
def test_a_region_that_is_none_is_refused_with_a_sentence(text) -> None:
    with pytest.raises(SettingsError, match=r'depth\.roi_ratios.*four shares'):
        settings_from({ROI: text})
