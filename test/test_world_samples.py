"""Training samples: kinds, light, paint, lens and sensor vary; geometry and depth do not."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from depth_node.errors import SettingsError
from depth_node.frames import CameraModel
from depth_node.world import lens
from depth_node.world import samples
from depth_node.world import scenes
from depth_node.world import variation
from depth_node.world import viewpoints
from depth_node.world.render import render
from depth_node.world.scene import Lamp
from depth_node.world.scene import look_at
from depth_node.world.sensor import Sensor
from depth_node.world.sensor import develop
from depth_node.world.tracing import Rays
from depth_node.world.tracing import trace

WIDTH, HEIGHT = 64, 48
CAMERA = CameraModel(WIDTH, HEIGHT, 50.0, 50.0, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
SLOPES = viewpoints.pinhole_slopes(CAMERA)
FIXED = Sensor(metering=0.0)


def rng_of(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope='module')
def scene():
    return scenes.make('room', rng_of(13))


@pytest.fixture(scope='module')
def pose():
    return look_at(np.array([-2.5, -1.5, 1.2]), np.array([2.0, 1.0, 0.5]))


def linear(scene, pose, sensor=FIXED):
    """Return a picture that grows with the light."""
    return render(scene, pose, SLOPES, sensor=sensor).rgb.astype(float)


@pytest.mark.parametrize('kind', scenes.KINDS)
def test_scenes_repeat_with_the_seed(kind):
    one, two, other = (scenes.make(kind, rng_of(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.solids.center_m, two.solids.center_m)
    np.testing.assert_array_equal(one.materials.tint, two.materials.tint)
    np.testing.assert_array_equal(one.light.shadow.values, two.light.shadow.values)
    assert one.kind == kind
    assert other.solids.center_m.shape != one.solids.center_m.shape or not np.array_equal(
        other.solids.center_m, one.solids.center_m
    )


def test_the_scene_of_the_demo_stays_what_it_was(scene):
    """Recordings, figures and documents show it."""
    solids = scene.solids
    assert len(solids.kind) == 205
    assert solids.center_m.sum() == pytest.approx(424.6356528, abs=1e-6)
    assert scene.surroundings.mirror == 0.0 and scene.lamps == () and scene.light.pattern is None


def test_every_kind_is_either_trained_on_or_held_out():
    assert not set(samples.SHARES) & set(samples.HELD_OUT_SHARES)
    assert set(samples.SHARES) | set(samples.HELD_OUT_SHARES) == set(scenes.KINDS)
    assert len(samples.HELD_OUT_KINDS) >= 2


def test_evaluation_draws_only_kinds_held_out():
    rng = rng_of(1)
    drawn = [samples.draw(rng, 12, 16, shares=samples.HELD_OUT_SHARES)[0].kind for _ in range(5)]
    assert set(drawn) <= set(samples.HELD_OUT_KINDS)


@pytest.mark.parametrize(
    'shares', [{'moon': 1.0}, {'room': -1.0}, {'room': 0.0}, {}, {'room': math.nan}]
)
def test_shares_that_mean_nothing_are_refused(shares):
    with pytest.raises(SettingsError):
        samples.draw(rng_of(), 12, 16, shares=shares)


def test_variation_changes_the_picture_and_not_the_depth(scene, pose):
    plain = render(scene, pose, SLOPES)
    seen = []
    for seed in range(4):
        other = variation.varied(scene, rng_of(seed))
        again = variation.varied(scene, rng_of(seed))
        assert other.solids is scene.solids and other.shell is scene.shell
        rendered = render(other, pose, SLOPES)
        np.testing.assert_array_equal(rendered.depth_m, plain.depth_m)
        np.testing.assert_array_equal(rendered.rgb, render(again, pose, SLOPES).rgb)
        seen.append(rendered.rgb.astype(float))
    for k, one in enumerate(seen):
        assert np.abs(one - plain.rgb).mean() > 3
        assert all(np.abs(one - two).mean() > 3 for two in seen[:k])


def test_near_surfaces_are_often_burnt_out_and_far_ones_dark():
    rng = rng_of(2)
    near, far = [], []
    for _ in range(40):
        for sample in samples.draw(rng, 24, 32, 2):
            grey = sample.rgb.mean(axis=2)
            order = np.argsort(sample.depth_m, axis=None)
            quarter = len(order) // 4
            near.append(grey.ravel()[order[:quarter]].mean())
            far.append(grey.ravel()[order[-quarter:]].mean())
    assert np.mean(np.array(near) > 180) > 0.08
    assert np.mean(np.array(far) < 60) > 0.08
    assert 0.35 < np.mean(np.array(near) > np.array(far)) < 0.7


def test_a_lamp_lights_what_is_near_it(scene, pose):
    dark = replace(
        scene,
        light=replace(scene.light, color=np.zeros(3, np.float32)),
        surroundings=replace(
            scene.surroundings,
            ambient=np.full(3, 0.02, np.float32),
            fill=np.zeros(3, np.float32),
            headlight=0.0,
        ),
    )
    depth = trace(scene.solids, scene.shell, pose, Rays(SLOPES)).depth_m
    lamp = Lamp(pose[:3, 3].astype(np.float32), np.ones(3, np.float32), 1.0)
    gain = linear(replace(dark, lamps=(lamp,)), pose) - linear(dark, pose)
    assert gain.min() >= 0
    order = np.argsort(depth, axis=None)
    level = gain.mean(axis=2).ravel()[order]
    assert level[: len(level) // 4].mean() > 1.3 * level[-len(level) // 4 :].mean() > 0


def test_a_shut_pattern_stops_the_key_light_and_an_open_one_nothing(scene, pose):
    size = scene.light.shadow.values.shape
    scene = replace(scene, light=replace(scene.light, openings_m=np.zeros((0, 2, 3))))
    unlit = replace(scene.light, color=np.zeros(3, np.float32))
    shut = replace(scene.light, pattern=np.zeros(size, np.float32))
    open_ = replace(scene.light, pattern=np.ones(size, np.float32))
    lit = linear(scene, pose)
    np.testing.assert_array_equal(linear(replace(scene, light=open_), pose), lit)
    closed = linear(replace(scene, light=shut), pose)
    np.testing.assert_array_equal(closed, linear(replace(scene, light=unlit), pose))
    assert (lit - closed).max() > 20


def test_only_shiny_surfaces_mirror(scene, pose):
    mirror = replace(scene.surroundings, mirror=1.0, mirror_texture=3)
    shine = np.zeros_like(scene.materials.shine)
    plain = replace(scene, materials=replace(scene.materials, shine=shine))
    np.testing.assert_array_equal(
        linear(replace(plain, surroundings=mirror), pose), linear(plain, pose)
    )
    shiny = replace(scene, materials=replace(scene.materials, shine=shine + 1))
    change = linear(replace(shiny, surroundings=mirror), pose) - linear(shiny, pose)
    assert np.abs(change).max() > 5


def test_a_rolling_shutter_leaves_depth_exact(scene, pose):
    slopes = viewpoints.rolled_shutter(SLOPES, 0.1)
    assert slopes[-1, 0, 0] - SLOPES[-1, 0, 0] == pytest.approx(0.05)
    depth = render(scene, pose, slopes).depth_m
    for row, column in ((0, 3), (20, 31), (47, 60)):
        alone = Rays(slopes[row : row + 1, column : column + 1])
        found = trace(scene.solids, scene.shell, pose, alone).depth_m[0, 0]
        np.testing.assert_allclose(depth[row, column], found, rtol=1e-5)


def test_cameras_have_the_promised_fields_of_view():
    cameras = [viewpoints.random_camera(rng_of(seed), 48, 64) for seed in range(200)]
    degrees = [2 * math.degrees(math.atan(32 / camera.fx)) for camera in cameras]
    assert 50 <= min(degrees) < 54 and 105 < max(degrees) <= 120


def grey_step():
    """Return a dark half and a bright half."""
    light = np.full((HEIGHT, WIDTH, 3), 0.05, np.float32)
    light[:, WIDTH // 2 :] = 0.5
    return light


def test_motion_blurs_along_its_way_only():
    across = develop(grey_step(), replace(FIXED, motion_px=(5.0, 0.0)), None).astype(int)
    along = develop(grey_step(), replace(FIXED, motion_px=(0.0, 5.0)), None).astype(int)
    sharp = develop(grey_step(), FIXED, None).astype(int)
    np.testing.assert_allclose(along, sharp, atol=1)
    changed = np.flatnonzero((np.abs(across - sharp) > 1).any(axis=(0, 2)))
    assert 4 <= len(changed) <= 8 and abs(changed.mean() - (WIDTH - 1) / 2) <= 1


def test_defocus_spares_the_focus_and_blurs_the_rest():
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    light = grey_step()
    np.testing.assert_allclose(lens.defocused(light, depth, 3.0, 2.0), light, atol=1e-6)
    depth[:] = np.inf
    soft = lens.defocused(light, depth, 3.0, 0.5)
    assert np.isfinite(soft).all()
    assert np.abs(soft - light).max() > 0.1


def test_aberration_moves_red_against_blue_and_leaves_green():
    light = np.repeat(np.linspace(0, 1, WIDTH, dtype=np.float32)[None], HEIGHT, 0)
    light = np.repeat(light[..., None], 3, axis=2)
    found = lens.aberrated(light, 0.02)
    np.testing.assert_array_equal(found[..., 1], light[..., 1])
    assert (found[:, 50, 0] < light[:, 50, 0]).all() and (found[:, 50, 2] > light[:, 50, 2]).all()


def test_noise_grows_with_light_and_hangs_together():
    flat = np.full((96, 96, 3), 0.02, np.float32)
    flat[:, 48:] = 0.7
    noisy = replace(FIXED, shot_noise=12.0, noise_grain_px=0.8)
    picture = develop(flat.copy(), noisy, rng_of()).astype(float)
    dark, bright = picture[:, 4:44, 0], picture[:, 52:92, 0]
    assert bright.std() > 1.5 * dark.std() > 0
    neighbours = np.corrcoef(bright[:, :-1].ravel(), bright[:, 1:].ravel())[0, 1]
    fine = develop(flat.copy(), replace(FIXED, shot_noise=12.0), rng_of()).astype(float)[:, 52:, 0]
    alone = np.corrcoef(fine[:, :-1].ravel(), fine[:, 1:].ravel())[0, 1]
    assert neighbours > 0.3 > abs(alone) + 0.2


def test_blacks_are_crushed_or_veiled_and_edges_have_halos():
    sharp = develop(grey_step(), FIXED, None)
    assert develop(grey_step(), replace(FIXED, black=0.1), None)[0, 3].max() == 0
    assert develop(grey_step(), replace(FIXED, veil=0.4), None)[0, 3].min() > sharp[0, 3].max()
    halo = develop(grey_step(), replace(FIXED, sharpening=1.0), None)
    assert halo.max() > sharp.max() and halo.min() < sharp.min()
    np.testing.assert_array_equal(halo[:, :10], sharp[:, :10])


def test_mono_cameras_have_no_colour_and_their_own_sensitivity():
    light = grey_step() * np.array([1.0, 0.5, 0.1], np.float32)
    red = develop(light.copy(), replace(FIXED, mono=(1.0, 0.0, 0.0), noise=3.0), rng_of())
    blue = develop(light.copy(), replace(FIXED, mono=(0.0, 0.0, 1.0)), None)
    assert (red[..., 0] == red[..., 1]).all() and (red[..., 0] == red[..., 2]).all()
    assert red.mean() > 2 * blue.mean()


def test_the_contact_sheet_shows_pictures_above_their_depth(tmp_path, monkeypatch):
    from depth_node.tools import world

    monkeypatch.setattr(world, '_SHEET_ROWS', 1)
    monkeypatch.setattr(world, '_SHEET_COLUMNS', 3)
    monkeypatch.setattr(world, '_SHEET_PX', (24, 32))
    assert world.main(['--contact-sheet', str(tmp_path / 'sheet.png'), '--seed', '4']) == 0
    sheet = cv2.imread(str(tmp_path / 'sheet.png'))
    first = samples.draw(rng_of(4), 24, 32, supersample=2.0)[0]
    np.testing.assert_array_equal(sheet[:24, :32, ::-1], first.rgb)
    black = (sheet[24:, :32] == 0).all(axis=2)
    np.testing.assert_array_equal(black, np.isinf(first.depth_m))
    assert world.main(['--contact-sheet', str(tmp_path / 'sheet.jpg')]) == 0
    assert (tmp_path / 'sheet.jpg').read_bytes()[:2] == b'\xff\xd8'


@pytest.mark.parametrize('name', ['nowhere/sheet.jpg', 'sheet', 'sheet.txt'])
def test_a_contact_sheet_that_cannot_be_written_is_refused(tmp_path, monkeypatch, capsys, name):
    from depth_node.tools import world

    monkeypatch.setattr(world, '_SHEET_ROWS', 1)
    monkeypatch.setattr(world, '_SHEET_COLUMNS', 1)
    assert world.main(['--contact-sheet', str(tmp_path / name)]) == 1
    assert '--contact-sheet' in capsys.readouterr().err
