"""Batches rendered by torch show what world/ renders view by view, on every device."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from depth_node.errors import SettingsError  # noqa: E402
from depth_node.pretraining import batches as batches_room  # noqa: E402
from depth_node.pretraining.batch import BatchSpec  # noqa: E402
from depth_node.pretraining.device_batches import Pool  # noqa: E402
from depth_node.pretraining.device_batches import SceneShots  # noqa: E402
from depth_node.pretraining.device_batches import device_batches  # noqa: E402
from depth_node.pretraining.rendering import renderer  # noqa: E402
from depth_node.pretraining.rendering.bank import device_bank  # noqa: E402
from depth_node.pretraining.rendering.blurring import blurred  # noqa: E402
from depth_node.pretraining.rendering.jpeg import compressed  # noqa: E402
from depth_node.pretraining.rendering.packing import pack  # noqa: E402
from depth_node.pretraining.rendering.packing import sensor_row  # noqa: E402
from depth_node.pretraining.rendering.sensor import COLUMNS  # noqa: E402
from depth_node.pretraining.rendering.sensor import develop  # noqa: E402
from depth_node.world import materials  # noqa: E402
from depth_node.world import samples  # noqa: E402
from depth_node.world import scene as scene_room  # noqa: E402
from depth_node.world import scenes  # noqa: E402
from depth_node.world import sensor as sensor_room  # noqa: E402
from depth_node.world import solids as solids_room  # noqa: E402
from depth_node.world.painters import SIZE_PX  # noqa: E402
from depth_node.world.render import render  # noqa: E402
from depth_node.world.shading import shade  # noqa: E402
from depth_node.world.textures import texture_bank  # noqa: E402
from depth_node.world.tracing import Rays  # noqa: E402
from depth_node.world.tracing import trace  # noqa: E402
from depth_node.world.viewpoints import rolled_shutter  # noqa: E402

HEIGHT, WIDTH = 41, 70  # no multiples of a tile
SPEC = BatchSpec(
    size=4,
    shapes=((32, 64), (48, 32)),
    shares=(0.5, 0.5),
    focal_per_height=1.0,
    reuse=2,
    pool=6,
    views_per_scene=2,
)


def shots_of(
    kinds: Sequence[str], seed: int, height: int = HEIGHT, width: int = WIDTH
) -> list[samples.Shot]:
    rng = np.random.default_rng(seed)
    found = []
    for kind in kinds:
        scene = scenes.make(kind, rng)
        found += [samples._shot(scene, rng, height, width) for _ in range(2)]
    return found


def plain(shot: samples.Shot, **changes: object) -> samples.Shot:
    return dataclasses.replace(shot, sensor=sensor_room.Sensor(**changes))


@pytest.fixture(scope='module')
def shots() -> list[samples.Shot]:
    """Two views of a scene of every kind, and of some kinds a second scene; some sheared."""
    found = [*shots_of(scenes.KINDS, 1), *shots_of(('room', 'street', 'corridor'), 2)]
    return [
        dataclasses.replace(shot, shear=(-1) ** number * 0.05 if number % 5 == 1 else shot.shear)
        for number, shot in enumerate(found)
    ]


@pytest.fixture(scope='module')
def lit(shots: list[samples.Shot]) -> tuple[np.ndarray, np.ndarray]:
    light, depth = renderer.lit(pack(shots))
    return light.permute(0, 2, 3, 1).numpy(), depth.numpy()


def test_depth_is_that_of_world_in_every_kind_of_scene(shots, lit):
    for shot, found in zip(shots, lit[1], strict=True):
        expected = samples.taken(plain(shot), None).depth_m
        both = np.isfinite(expected) & np.isfinite(found)
        assert (np.isfinite(expected) == np.isfinite(found)).mean() > 0.999, shot.scene.kind
        error = np.abs(found[both] / expected[both] - 1.0)
        assert (error > 1e-5).sum() <= 2, shot.scene.kind


def test_light_is_that_of_world_in_every_kind_of_scene(shots, lit):
    for shot, found in zip(shots, lit[0], strict=True):
        rays = Rays(rolled_shutter(samples.pinhole_slopes(shot.camera), shot.shear))
        hits = trace(shot.scene.solids, shot.scene.shell, shot.T_world_camera, rays)
        hits.depth_m[hits.depth_m > 1000.0] = np.inf
        expected = shade(shot.scene, shot.T_world_camera, rays, hits)
        error = np.abs(np.minimum(found, 4.0) - np.minimum(expected, 4.0))
        # the bank of world/ gives bytes: what is brighter than white paper is less exact
        assert error.mean() < 0.002 * max(1.0, float(expected.mean())), shot.scene.kind
        # on the edge of two faces the last bit decides which one is seen
        assert (error > 0.02).mean() < 0.006, shot.scene.kind


WITHOUT_NOISE = {'noise': 0.0, 'shot_noise': 0.0, 'jpeg_quality': None}


def test_the_views_have_all_that_varies(shots):
    """What no view had, no test here would compare."""
    scenes_of = [shot.scene for shot in shots]
    assert {scene.kind for scene in scenes_of} == set(scenes.KINDS)
    assert any(scene.lamps for scene in scenes_of)
    assert any(scene.light.pattern is not None for scene in scenes_of)
    assert any(len(scene.light.openings_m) for scene in scenes_of)
    assert any(scene.surroundings.headlight for scene in scenes_of)
    mirrors = [s for s in scenes_of if s.surroundings.mirror and s.materials.shine.max() > 0.5]
    assert len(mirrors) > 3 and any(shot.shear for shot in shots)


def test_pictures_are_those_of_world_but_for_the_noise(shots):
    cameras = [
        dataclasses.replace(shot, sensor=dataclasses.replace(shot.sensor, **WITHOUT_NOISE))
        for shot in shots
    ]
    found = renderer.render(pack(cameras), None).rgb.permute(0, 2, 3, 1).numpy()
    for shot, rgb in zip(cameras, found, strict=True):
        error = np.abs(rgb.astype(float) - samples.taken(shot, None).rgb)
        assert error.mean() < 0.4 and (error > 8).mean() < 0.005, shot.sensor


EFFECTS = {
    'black': {'black': 0.1},
    'veil': {'veil': 0.35},
    'motion': {'motion_px': (3.3, -1.7)},
    'little motion': {'motion_px': (0.2, 0.6)},
    'defocus': {'defocus_px': 3.4, 'focus_m': 0.7},
    'slight defocus': {'defocus_px': 0.4, 'focus_m': 5.0},
    'aberration': {'aberration': 0.012},
    'sharpening': {'sharpening': 1.5, 'blur_px': 0.5},
    'mono': {'mono': (0.2, 0.7, 0.1)},
    'grey': {'saturation': 0.0},
    'vignette': {'vignette': 0.5},
    'all': {
        'black': 0.08,
        'veil': 0.2,
        'motion_px': (-2.0, 1.0),
        'defocus_px': 2.0,
        'aberration': -0.008,
        'sharpening': 0.8,
        'mono': (0.3, 0.4, 0.3),
        'blur_px': 0.8,
    },
}


def test_each_effect_of_the_sensor_is_that_of_world(shots):
    views = [
        plain(shots[3 * number], **changes) for number, changes in enumerate(EFFECTS.values())
    ]
    found = renderer.render(pack(views), None).rgb.permute(0, 2, 3, 1).numpy()
    for name, shot, rgb in zip(EFFECTS, views, found, strict=True):
        expected, bare = samples.taken(shot, None).rgb, samples.taken(plain(shot), None).rgb
        error = np.abs(rgb.astype(float) - expected)
        assert error.mean() < 0.4 and (error > 8).mean() < 0.005, name
        made = np.abs(bare.astype(float) - expected).mean()
        assert made > 4 * error.mean(), f'{name} is too weak to be tested: {made}'


def test_finer_rays_are_averaged_as_in_world(shots):
    some = [plain(shot) for shot in shots[:2]]
    found = renderer.render(pack(some), None, supersample=2)
    for number, shot in enumerate(some):
        expected = samples.taken(shot, None, 2.0)
        error = np.abs(found.rgb[number].permute(1, 2, 0).numpy() - expected.rgb.astype(float))
        assert error.mean() < 0.5
        np.testing.assert_allclose(found.depth_m[number, 0], expected.depth_m, rtol=1e-4)


def test_views_of_one_scene_share_the_pictures_of_its_lights(shots):
    packed = pack(shots)
    assert packed.scenes.kind.shape[0] == len(shots) // 2
    assert packed.looks.materials.shape[0] == len(shots) == packed.scene.shape[0]


def test_a_pattern_of_another_size_than_the_shadows_is_refused(shots):
    light = dataclasses.replace(shots[0].scene.light, pattern=np.ones((9, 9), np.float32))
    scene = dataclasses.replace(shots[0].scene, light=light)
    with pytest.raises(SettingsError, match='pattern'):
        pack([dataclasses.replace(shots[0], scene=scene)])


def test_a_view_does_not_depend_on_what_is_rendered_beside_it(shots, lit):
    light, depth = renderer.lit(pack([shots[3]]))
    np.testing.assert_array_equal(depth[0], lit[1][3])
    np.testing.assert_allclose(light[0].permute(1, 2, 0), lit[0][3], atol=1e-4)


def test_a_scene_without_solids_is_rendered(shots):
    empty = shots[0].scene.solids.only(np.zeros(len(shots[0].scene.solids.kind), bool))
    scene = dataclasses.replace(shots[0].scene, solids=empty)
    bare = dataclasses.replace(shots[0], scene=scene)
    found = renderer.lit(pack([bare]))[1][0]
    expected = samples.taken(plain(bare), None).depth_m
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_bank_is_sampled_like_its_atlas():
    bank, rng = texture_bank(), np.random.default_rng(3)
    shape = (40, 50)
    texture = rng.integers(0, len(bank.period_m), shape)
    u, v = rng.uniform(-9, 9, (2, *shape)).astype(np.float32)
    footprint = np.exp(rng.uniform(-9, 1, shape)).astype(np.float32)
    scale = rng.uniform(0.5, 2.0, shape).astype(np.float32)
    expected = bank.lookup(texture, u, v, footprint, scale) / 127.5
    arrays = (torch.from_numpy(item) for item in (texture, u, v, footprint, scale))
    found = device_bank(torch.device('cpu')).lookup(*arrays).numpy()
    # cv2.remap knows only 32 places between two texels
    error = np.abs(found - expected)
    assert error.mean() < 0.01 and np.quantile(error, 0.99) < 0.08
    assert SIZE_PX == 256


def test_coordinates_that_are_no_numbers_find_some_texel():
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30])
    texture = torch.zeros(4, dtype=torch.long)
    found = device_bank(torch.device('cpu')).lookup(texture, odd, odd, odd.abs(), 1.0)
    assert found.shape == (4, 3)


def test_each_image_is_blurred_by_its_own_deviation():
    import cv2

    images = np.random.default_rng(0).random((3, 30, 37, 3)).astype(np.float32)
    deviations = (0.0, 0.4, 2.3)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    found = blurred(tensor, torch.tensor(deviations), 3.0).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found[0], images[0], atol=1e-6)
    for number in (1, 2):
        expected = cv2.GaussianBlur(images[number], (0, 0), deviations[number])
        np.testing.assert_allclose(found[number], expected, atol=2e-5)


@pytest.mark.parametrize('quality', [10, 49, 50, 75, 95])
def test_jpeg_leaves_what_the_codec_leaves(shots, quality):
    rgb = samples.taken(plain(shots[0]), None).rgb
    expected = sensor_room._compressed(rgb, quality).astype(float)
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()
    found = compressed(tensor, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy()
    lost = np.abs(expected - rgb).mean()
    assert np.abs(found - expected).mean() < max(0.8, 0.35 * lost), lost


NOISES = [
    {'noise': 4.0},
    {},
    {'noise': 4.0, 'noise_grain_px': 0.8},
    {'noise': 2.0, 'shot_noise': 6.0},
    {'noise': 4.0, 'mono': (0.3, 0.4, 0.3)},
    {'noise': 3.0, 'noise_grain_px': 0.5, 'sharpening': 1.0},
]


def test_noise_is_as_strong_and_as_grainy_as_in_world_and_repeats_with_the_generator():
    light = torch.full((len(NOISES), 3, 80, 80), 0.25)
    sensors = [sensor_room.Sensor(**changes) for changes in NOISES]
    rows = torch.tensor([sensor_row(item) for item in sensors])
    first, again, other = (
        develop(light.clone(), rows, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first[0].float().std() == pytest.approx(4.0, rel=0.05)
    assert first[1].float().std() == 0.0
    assert torch.equal(first[4, 0], first[4, 2]) and not torch.equal(first[0, 0], first[0, 2])
    for sensor, rgb in zip(sensors, first.permute(0, 2, 3, 1).numpy().astype(float), strict=True):
        grey = np.full((80, 80, 3), 0.25, np.float32)
        expected = sensor_room.develop(grey, sensor, np.random.default_rng(0)).astype(float)
        assert rgb.mean() == pytest.approx(expected.mean(), abs=0.3), sensor
        assert rgb.std() == pytest.approx(expected.std(), rel=0.06, abs=1e-9), sensor
        for picture in (rgb, expected):  # how alike neighbours are
            picture -= picture.mean()
        own, wanted = ((p[:, 1:] * p[:, :-1]).mean() for p in (rgb, expected))
        assert own == pytest.approx(wanted, abs=0.06 * expected.var() + 1e-9), sensor


def test_every_field_of_the_sensor_has_its_column():
    """Fails when a field is added to world.sensor.Sensor that batches would ignore."""
    names = {item.name for item in dataclasses.fields(sensor_room.Sensor)}
    assert names == set(COLUMNS), 'teach pretraining/rendering/sensor.py the new effect'
    for name, columns in COLUMNS.items():
        value = tuple(range(7, 7 + columns.stop - columns.start))
        value = value if len(value) > 1 else value[0]
        row = sensor_row(sensor_room.Sensor(**{name: value}))
        assert row[columns] == (value if isinstance(value, tuple) else (7,)), name
    assert len(row) == max(columns.stop for columns in COLUMNS.values())


RENDERED = {
    scene_room.Scene: (
        'kind solids shell materials light surroundings cover center_m walk_low_m walk_high_m '
        'lamps'
    ),
    scene_room.Light: 'position_m color reach_m shadow openings_m pattern',
    scene_room.Lamp: 'position_m color reach_m',
    scene_room.View: 'T_world_view tangent look size_px',
    scene_room.Surroundings: (
        'ambient fill fill_direction headlight horizon zenith clouds haze haze_m '
        'mirror mirror_texture'
    ),
    materials.Materials: 'texture scale tint contrast stain staining shine glow',
    solids_room.Solids: 'kind center_m rotation half_m taper material',
    solids_room.Shell: 'low_m high_m material',
    samples.Shot: 'scene T_world_camera camera sensor shear',
}


@pytest.mark.parametrize('part', RENDERED, ids=lambda part: part.__name__)
def test_every_field_of_a_scene_is_rendered_in_batches_too(part):
    """Fails when world/ learns something that pretraining/rendering would ignore."""
    names = {item.name for item in dataclasses.fields(part)}
    assert names == set(RENDERED[part].split()), f'teach pretraining/rendering {part.__name__}'


def test_batches_from_shots_repeat_with_the_seed_and_hold_what_was_rendered():
    def first(seed: int, count: int):
        source = device_batches(SPEC, seed, SceneShots(SPEC, seed), torch.device('cpu'))
        return [next(source) for _ in range(count)]

    drawn, again, other = first(3, 9), first(3, 9), first(4, 1)
    for one, two in zip(drawn, again, strict=True):
        assert torch.equal(one.image, two.image) and torch.equal(one.depth, two.depth)
    assert drawn[0].image.shape != other[0].image.shape or not torch.equal(
        drawn[0].image, other[0].image
    )
    for batch in drawn:
        assert batch.image.dtype == torch.uint8 and batch.image.shape[0] == 4
        assert tuple(batch.image.shape[2:]) in SPEC.shapes
        assert (batch.depth > 0.0).all() and batch.depth.shape[1] == 1
        assert batch.depth.shape[2:] == batch.image.shape[2:]
    assert {tuple(batch.image.shape[2:]) for batch in drawn} == set(SPEC.shapes)
    assert drawn[0].image.shape == drawn[1].image.shape  # reuse 2


def test_a_pool_gives_what_was_rendered_with_depth_at_the_cards_focal_length():
    spec = dataclasses.replace(SPEC, shapes=((32, 64),), shares=(1.0,), reuse=1)
    packed = next(iter(SceneShots(spec, 5)))
    (drawn,) = device_batches(spec, 5, [packed], torch.device('cpu'))
    views = renderer.render(packed[1], torch.Generator().manual_seed(5))
    factor = (32.0 / packed[1].fx)[:, None, None, None]
    for rgb, depth in zip(views.rgb, views.depth_m * factor, strict=True):
        assert any(
            torch.equal(image, rgb) and torch.equal(own, depth)
            for image, own in zip(drawn.image, drawn.depth, strict=True)
        )


def test_a_full_pool_forgets_its_oldest_views():
    pool = Pool(SPEC, (2, 3), torch.device('cpu'))
    for first in (0, 4):
        numbers = torch.arange(first, first + 4).view(4, 1, 1, 1)
        pool.add(numbers.expand(4, 3, 2, 3).to(torch.uint8), numbers.expand(4, 1, 2, 3).float())
    rng, seen = np.random.default_rng(0), set()
    for _ in range(20):
        batch = pool.drawn(rng)
        numbers = batch.depth[:, 0, 0, 0]
        assert len(set(numbers.tolist())) == 4 and torch.equal(batch.image[:, 0, 0, 0], numbers)
        seen |= set(numbers.tolist())
    assert seen == {2, 3, 4, 5, 6, 7}


def test_both_ways_of_making_batches_draw_the_same_kinds_of_scenes():
    rng, again = np.random.default_rng(8), np.random.default_rng(8)
    shot = samples.shots(rng, 24, 32)[0]
    sample = samples.draw(again, 24, 32)[0]
    assert sample.kind == shot.scene.kind and sample.camera == shot.camera
    np.testing.assert_array_equal(sample.depth_m, samples.taken(shot, None).depth_m)


def test_workers_send_the_shots_that_this_process_would_draw_and_keep_no_files_open():
    source = iter(batches_room._loader(SceneShots(SPEC, 5), 1))
    here = iter(SceneShots(SPEC, 5))
    before = len(os.listdir('/proc/self/fd'))
    kept = [next(source) for _ in range(2)]
    assert len(os.listdir('/proc/self/fd')) <= before + 4
    for index, sent in kept:
        number, own = next(here)
        assert index == number
        assert torch.equal(sent.scenes.center_m, own.scenes.center_m)
        assert torch.equal(sent.sensor, own.sensor) and sent.scene.dtype == own.scene.dtype


def test_a_pool_smaller_than_a_batch_is_refused():
    with pytest.raises(SettingsError, match='pool'):
        dataclasses.replace(SPEC, pool=3)


def test_lights_look_only_when_someone_reads_them(shots):
    """Where a GPU renders, a scene must not cost the pictures of its lights."""
    rng = np.random.default_rng(0)
    drawn = [samples.shots(rng, 24, 32)[0] for _ in range(8)]
    assert any(shot.scene.light.pattern is not None for shot in drawn)
    pack(drawn)
    for shot in drawn:
        assert 'values' not in vars(shot.scene.light.shadow) | vars(shot.scene.cover)
    pose = render(shot.scene, shot.T_world_camera, samples.pinhole_slopes(shot.camera))
    for view in (shot.scene.light.shadow, shot.scene.cover):
        assert vars(view)['values'].shape == (view.size_px, view.size_px)
    assert pose.rgb.shape == (24, 32, 3)


@pytest.mark.gpu
def test_a_gpu_renders_what_the_cpu_renders(shots, lit):
    light, depth = renderer.lit(pack(shots).to(torch.device('cuda')))
    found = depth.cpu().numpy()
    both = np.isfinite(found) & np.isfinite(lit[1])
    assert (np.isfinite(found) == np.isfinite(lit[1])).mean() > 0.999
    assert (np.abs(found[both] / lit[1][both] - 1.0) > 1e-4).mean() < 1e-3
    error = np.abs(light.cpu().permute(0, 2, 3, 1).numpy() - lit[0])
    assert np.minimum(error, 4.0).mean() < 0.002


@pytest.mark.gpu
def test_batches_on_a_gpu_keep_a_training_busy():
    spec = BatchSpec(128, ((128, 160), (192, 256)), (0.5, 0.5), 1.04, pool=1024)
    source = batches_room.batches(spec, 0, 8, 'cuda')
    assert next(source).image.is_cuda
    for _ in range(12):  # kernels and pools
        next(source)
    torch.cuda.synchronize()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 20.0:
        count += next(source).image.shape[0]
    torch.cuda.synchronize()
    rate = count / (time.perf_counter() - started)
    packed = pack(shots_of(scenes.KINDS, 1, 192, 256) * 10).to(torch.device('cuda'))
    renderer.render(packed, None)
    torch.cuda.synchronize()
    started = time.perf_counter()
    renderer.render(packed, None)
    torch.cuda.synchronize()
    alone = packed.scene.shape[0] / (time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() / 2**30
    said = f'{rate:.0f} samples/s, reuse 4; rendering alone {alone:.0f} views/s; {peak:.1f} GiB'
    print(said)  # noqa: T201
    assert rate > 1000.0
