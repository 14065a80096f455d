"""Smoothing takes flicker away and nothing else: moving edges, gaps and other cameras stay out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depth_node import camera
from depth_node.engines import EngineInfo
from depth_node.engines import selection
from depth_node.errors import SettingsError
from depth_node.frames import CameraImage
from depth_node.frames import CameraModel
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.model_folder import OutputSpec
from depth_node.pipeline import Pipeline
from depth_node.settings import settings_from
from depth_node.temporal_smoothing import Smoother
from depth_node.temporal_smoothing import Succession

SIZE = (48, 64)
PERIOD_NS = 33_000_000
START_NS = 10**12
NEAR, FAR = np.float32(1 / 2.0), np.float32(1 / 4.0)
GREY = np.full((*SIZE, 3), 120, np.uint8)
MODEL = CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5)


class Sequence:
    """Gives a smoother one image after the other."""

    def __init__(self, kept: float = 0.75) -> None:
        self.smoother, self.kept, self.stamp_ns = Smoother(), kept, START_NS

    def next(self, inverse, rgb=GREY, *, after_ns=PERIOD_NS, key='front') -> np.ndarray:
        self.stamp_ns += after_ns
        smoothed = np.array(inverse, np.float32)
        self.smoother.smooth(smoothed, rgb, key, self.stamp_ns, self.kept)
        return smoothed


def flat(value: float) -> np.ndarray:
    return np.full(SIZE, value, np.float32)


def test_flicker_of_a_camera_at_rest_shrinks_as_the_formula_says() -> None:
    rng = np.random.default_rng(0)
    sequence = Sequence(0.75)
    came, left = [], []
    for _ in range(200):
        noisy = flat(NEAR) * rng.normal(1.0, 0.01, SIZE).astype(np.float32)
        rgb = (120.0 + rng.normal(0.0, 1.0, (*SIZE, 3))).astype(np.uint8)
        came.append(noisy)
        left.append(sequence.next(noisy, rgb))
    ratio = np.std(left[20:], axis=0).mean() / np.std(came[20:], axis=0).mean()
    assert ratio == pytest.approx(np.sqrt(0.25 / 1.75), rel=0.05)
    assert np.mean(left[20:]) == pytest.approx(NEAR, rel=1e-3)


@pytest.mark.parametrize('pictured', [True, False])
@pytest.mark.parametrize('speed_px', [1, 3, 10])
def test_between_the_surfaces_of_a_moving_edge_no_value_appears(speed_px, pictured) -> None:
    """A box passes a wall; where it is not pictured, depth alone tells them apart."""
    rng = np.random.default_rng(1)
    sequence = Sequence(0.9)
    for step in range(12):
        left = 5 + step * speed_px % 40
        surfaces, rgb = flat(FAR), GREY.copy()
        surfaces[10:30, left : left + 12] = NEAR
        if pictured:
            rgb[10:30, left : left + 12] = 200
        noisy = surfaces * rng.normal(1.0, 0.003, SIZE).astype(np.float32)
        smoothed = sequence.next(noisy, rgb)
        np.testing.assert_allclose(smoothed, surfaces, rtol=0.012)


def test_surfaces_closer_than_a_tenth_are_told_apart_by_the_image() -> None:
    """A hand on a table: 5 % nearer, and brighter."""
    sequence = Sequence(0.9)
    sequence.next(flat(FAR))
    hand, rgb = flat(FAR), GREY.copy()
    hand[10:30, 10:30] = FAR * np.float32(1.05)
    rgb[10:30, 10:30] = 150
    assert np.array_equal(sequence.next(hand, rgb), hand)


def test_no_value_is_ever_farther_than_a_tenth_of_the_kept_share_from_the_new_one() -> None:
    rng = np.random.default_rng(2)
    sequence = Sequence(0.95)
    for _ in range(20):
        came = rng.uniform(0.2, 0.3, SIZE).astype(np.float32)
        smoothed = sequence.next(came)
        assert (np.abs(smoothed / came - 1.0) <= 0.95 * 0.1 + 1e-6).all()
    assert (smoothed != came).any()


def test_what_moves_slowly_lags_by_the_images_that_the_formula_says() -> None:
    sequence = Sequence(0.75)
    for step in range(40):
        came = NEAR + np.float32(0.0005 * step)
        smoothed = sequence.next(flat(came))
    assert (came - smoothed) == pytest.approx(3.0 * 0.0005, rel=0.02)


@pytest.mark.parametrize(
    ('after_ns', 'mixes'),
    [(PERIOD_NS, True), (500_000_000, True), (500_000_001, False), (0, False), (-PERIOD_NS, False),
     (-10**11, False)],
)  # fmt: skip
def test_nothing_is_kept_after_a_gap_or_a_jump_back_of_the_stamps(after_ns, mixes) -> None:
    sequence = Sequence()
    sequence.next(flat(NEAR))
    came = flat(NEAR * np.float32(1.02))
    assert bool((sequence.next(came, after_ns=after_ns) != came).all()) == mixes
    # and what comes after the break is smoothed again
    assert (sequence.next(flat(NEAR * np.float32(1.04))) != flat(NEAR * np.float32(1.04))).all()


def test_images_without_a_stamp_are_not_smoothed() -> None:
    smoother = Smoother()
    for value in (NEAR, NEAR * np.float32(1.01)):
        inverse = flat(value)
        smoother.smooth(inverse, GREY, 'front', 0, 0.75)
        assert (inverse == value).all()


def test_cameras_that_take_turns_keep_to_their_own_past() -> None:
    sequence = Sequence()
    for step in range(6):
        for key, value in (('front', NEAR), ('left', NEAR * np.float32(1.05))):
            smoothed = sequence.next(flat(value), key=key)
            assert np.allclose(smoothed, value, rtol=1e-6), (step, key)


def test_a_change_of_size_begins_anew_and_what_is_unknown_stays_unknown() -> None:
    sequence = Sequence()
    sequence.next(flat(NEAR))
    small = np.full((24, 32), NEAR * np.float32(1.01), np.float32)
    assert np.array_equal(sequence.next(small, GREY[:24, :32]), small)
    small[3, 4] = np.nan
    assert np.array_equal(np.argwhere(np.isnan(sequence.next(small, GREY[:24, :32]))), [[3, 4]])
    small[3, 4] = NEAR
    assert sequence.next(small, GREY[:24, :32])[3, 4] == NEAR


def test_names_that_are_invented_do_not_fill_the_memory() -> None:
    sequence, succession = Sequence(), Succession()
    for number in range(200):
        sequence.next(flat(NEAR), key=number)
        succession.follows(replace(MODEL, width=number), 'front', START_NS)
    assert len(sequence.smoother._pasts) == len(succession._last) == 16


def test_switched_off_it_leaves_depth_alone_and_forgets() -> None:
    sequence = Sequence(0.75)
    sequence.next(flat(NEAR))
    sequence.kept = 0.0
    came = flat(NEAR * np.float32(1.01))
    assert np.array_equal(sequence.next(came), came)
    sequence.kept = 0.75
    assert np.array_equal(sequence.next(came * np.float32(1.01)), came * np.float32(1.01))


def test_an_image_follows_on_the_last_of_its_model_and_frame_alone() -> None:
    succession, other = Succession(), replace(MODEL, fx=51.0)
    told = [
        succession.follows(model, frame_id, START_NS + at * PERIOD_NS)
        for at, (model, frame_id) in enumerate(
            [(MODEL, 'a'), (MODEL, 'a'), (other, 'b'), (MODEL, 'a'), (MODEL, 'b'), (MODEL, 'a')]
        )
    ]
    assert told == [False, True, False, True, False, False]


# ---- in the pipeline


class Flickering:
    """A network that says what it is told to."""

    def __init__(self) -> None:
        self.info = EngineInfo('told', '1', 'f32', 'test', (1, 3, *SIZE))
        self.output = flat(0.2)

    def warm_up(self) -> None:
        pass

    def infer(self, image: np.ndarray) -> np.ndarray:
        return self.output.copy()

    def close(self) -> None:
        pass


@pytest.fixture
def opened(monkeypatch):
    def opener(kind='metric'):
        engine = Flickering()
        monkeypatch.setattr(selection, 'open_engine', lambda *_, **__: (engine, ()))
        card = ModelCard(
            name='told',
            network='lite-mono',
            variant='small',
            output=OutputSpec(kind),
            inputs=(InputSpec(*SIZE, 'a', 'b'),),
            fit='native',
            focal_px=50.0,
        )
        return Pipeline(ModelFolder(Path('told'), card), settings_from({})), engine

    return opener


def values_of(opened_pipeline, said, number, *, frame_id='front', **parameters) -> float:
    pipeline, engine = opened_pipeline
    engine.output = flat(said)
    frame = pipeline.process(
        CameraImage(GREY, START_NS + number * PERIOD_NS, frame_id),
        camera.CameraView(MODEL, None),
        settings_from(parameters),
    )
    return float(getattr(frame, 'depth_m', getattr(frame, 'inverse', None))[20, 20])


def test_it_is_off_until_it_is_asked_for_and_may_change_from_frame_to_frame(opened) -> None:
    it = opened()
    asked = {'depth.smoothing': 0.5}
    assert values_of(it, 2.0, 0) == pytest.approx(2.0)
    assert values_of(it, 2.1, 1) == pytest.approx(2.1)
    assert values_of(it, 2.0, 2, **asked) == pytest.approx(2.0)
    mixed = values_of(it, 2.1, 3, **asked)
    assert mixed == pytest.approx(1.0 / (0.5 / 2.0 + 0.5 / 2.1))
    assert values_of(it, 2.1, 4) == pytest.approx(2.1)


def test_the_scale_may_change_while_it_smooths(opened) -> None:
    it = opened()
    values_of(it, 2.0, 0, **{'depth.smoothing': 0.5})
    value = values_of(it, 2.0, 1, **{'depth.smoothing': 0.5, 'depth.scale': 3.0})
    assert value == pytest.approx(6.0)


def test_frames_of_two_cameras_with_equal_lenses_are_never_mixed(opened) -> None:
    it = opened()
    for number in range(0, 8, 2):
        for offset, (frame_id, value) in enumerate((('front', 2.0), ('left', 2.1))):
            smoothed = values_of(
                it, value, number + offset, frame_id=frame_id, **{'depth.smoothing': 0.9}
            )
            assert smoothed == pytest.approx(value)


def test_relative_depth_whose_scale_differs_from_image_to_image_is_left_alone(opened) -> None:
    it = opened('relative')
    for number, value in enumerate((2.0, 2.1, 2.0)):
        assert values_of(it, value, number, **{'depth.smoothing': 0.9}) == np.float32(value)


@pytest.mark.parametrize('value', [-0.1, 0.96, 1.0, float('nan')])
def test_a_share_that_would_never_let_go_is_refused(value) -> None:
    with pytest.raises(SettingsError, match=r'depth\.smoothing'):
        settings_from({'depth.smoothing': value})
