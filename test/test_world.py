"""Procedural scenes: exact depth, consistent geometry, repeatable results, readable recordings."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from depth_node.camera import distort_slopes
from depth_node.camera import undistorted_slopes
from depth_node.errors import SettingsError
from depth_node.frames import CameraModel
from depth_node.world import laser
from depth_node.world import paths
from depth_node.world import recording
from depth_node.world import rig
from depth_node.world import samples
from depth_node.world import scenes
from depth_node.world.builder import turned
from depth_node.world.render import render
from depth_node.world.scene import look_at
from depth_node.world.sensor import Sensor
from depth_node.world.solids import BOX
from depth_node.world.solids import CYLINDER
from depth_node.world.solids import ELLIPSOID
from depth_node.world.solids import Shell
from depth_node.world.solids import Solids
from depth_node.world.solids import clearance_m
from depth_node.world.tracing import Rays
from depth_node.world.tracing import trace

OPEN = Shell(np.full(3, -np.inf), np.full(3, np.inf), np.zeros((3, 2), np.intp))
POSE = look_at(np.array([0.3, -4.0, 1.1]), np.array([0.1, 0.2, 0.6]), 0.3)


def slopes_of(width, height, hfov_deg=70.0):
    focal = width / (2 * math.tan(math.radians(hfov_deg) / 2))
    camera = CameraModel(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    return samples.pinhole_slopes(camera)


def one_solid(kind, center, half, yaw=0.4, taper=1.0):
    return Solids(
        np.array([kind], np.uint8),
        np.array([center], float),
        turned(yaw)[None],
        np.array([half], float),
        np.array([taper]),
        np.zeros((1, 3), np.intp),
    )


def depth_of(solids, shell=OPEN, pose=POSE, slopes=None):
    slopes = slopes_of(97, 65) if slopes is None else slopes
    return trace(solids, shell, pose, Rays(slopes)).depth_m


def world_rays(slopes, pose):
    rays = np.concatenate([slopes, np.ones((*slopes.shape[:2], 1))], axis=2)
    return rays @ pose[:3, :3].T


def local_rays(solids, slopes, pose):
    rotation, center = solids.rotation[0], solids.center_m[0]
    return (pose[:3, 3] - center) @ rotation, world_rays(slopes, pose) @ rotation


def assert_same_depth(found, wanted, least_hits):
    hit = np.isfinite(wanted)
    assert hit.sum() > least_hits
    assert (np.isfinite(found) != hit).sum() <= 2  # silhouettes that pass through a pixel centre
    both = hit & np.isfinite(found)
    np.testing.assert_allclose(found[both], wanted[both], rtol=5e-6)


def test_planes_of_the_shell_have_exact_depth():
    shell = Shell(np.array([-2.0, -5.0, 0.0]), np.array([3.0, 4.0, 2.5]), np.zeros((3, 2), int))
    slopes = slopes_of(97, 65)
    rays = world_rays(slopes, POSE)
    wanted = np.full(rays.shape[:2], np.inf)
    for k in range(3):
        for plane in (shell.low_m[k], shell.high_m[k]):
            t = (plane - POSE[k, 3]) / rays[..., k]
            wanted = np.where((t > 0) & (t < wanted), t, wanted)
    none = one_solid(BOX, (0, 0, 0), (1, 1, 1)).only(np.array([False]))
    np.testing.assert_allclose(depth_of(none, shell), wanted, rtol=5e-6)


def test_boxes_have_exact_depth():
    solids = one_solid(BOX, (0.2, 0.5, 0.7), (0.8, 0.3, 0.5))
    slopes = slopes_of(97, 65)
    origin, rays = local_rays(solids, slopes, POSE)
    wanted = np.full(rays.shape[:2], np.inf)
    for k in range(3):
        for side in (-1, 1):
            t = (side * solids.half_m[0, k] - origin[k]) / rays[..., k]
            point = origin + t[..., None] * rays
            inside = (np.abs(point) <= solids.half_m[0] + 1e-9).all(axis=2)
            wanted = np.where(inside & (t > 0) & (t < wanted), t, wanted)
    assert_same_depth(depth_of(solids), wanted, 400)


def test_ellipsoids_have_exact_depth():
    solids = one_solid(ELLIPSOID, (0.0, 0.3, 0.6), (0.9, 0.4, 0.5))
    slopes = slopes_of(97, 65)
    origin, rays = local_rays(solids, slopes, POSE)
    o, d = origin / solids.half_m[0], rays / solids.half_m[0]
    a, b, c = (d * d).sum(2), (o * d).sum(2), (o * o).sum() - 1
    with np.errstate(invalid='ignore'):
        wanted = (-b - np.sqrt(b * b - a * c)) / a
    assert_same_depth(depth_of(solids), np.where(np.isfinite(wanted), wanted, np.inf), 300)


@pytest.mark.parametrize('taper', [1.0, 0.3, 1.4, 2.5])
@pytest.mark.parametrize('eye', [(0.3, -4.0, 1.1), (0.4, -1.5, 3.5), (0.2, -1.2, -2.5)])
def test_tapered_cylinders_have_exact_depth(taper, eye):
    solids = one_solid(CYLINDER, (0.0, 0.3, 0.6), (0.4, 0.4, 0.7), taper=taper)
    pose = look_at(np.array(eye), np.array([0.0, 0.3, 0.6]))
    slopes = slopes_of(97, 65)
    origin, rays = local_rays(solids, slopes, pose)
    wanted = np.full(rays.shape[:2], np.inf)
    half = solids.half_m[0]

    def outside(t):
        p = (origin + t[..., None] * rays) / half
        radius = 0.5 * (1 + taper) + 0.5 * (taper - 1) * p[..., 2]
        return np.maximum(np.hypot(p[..., 0], p[..., 1]) - radius, np.abs(p[..., 2]) - 1)

    # March along every ray and refine the first change of sign: another way than the formula.
    low = np.full(wanted.shape, 0.5)
    high = wanted.copy()
    for t in np.arange(0.5, 7.0, 0.01):
        ahead = ~np.isfinite(high)
        met = ahead & (outside(np.full(wanted.shape, t)) <= 0)
        high[met] = t
        low[ahead & ~met] = t
    hit = np.isfinite(high)
    low, high = np.where(hit, low, 0.5), np.where(hit, high, 0.5)
    for _ in range(40):
        middle = (low + high) / 2
        inside = outside(middle) <= 0
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    wanted[hit] = high[hit]
    found = depth_of(solids, pose=pose, slopes=slopes)
    both = np.isfinite(wanted) & np.isfinite(found)
    assert both.sum() > 150
    assert (np.isfinite(wanted) != np.isfinite(found)).sum() <= 12
    np.testing.assert_allclose(found[both], wanted[both], rtol=1e-5)


def test_the_nearest_of_many_solids_wins_in_any_order():
    rng = np.random.default_rng(3)
    count = 40
    kinds = rng.integers(0, 3, count).astype(np.uint8)
    centers = rng.uniform((-3, -2, 0), (3, 6, 2), (count, 3))
    many = Solids(
        kinds,
        centers,
        np.stack([turned(a) for a in rng.uniform(0, 6, count)]),
        rng.uniform(0.1, 0.5, (count, 3)),
        np.ones(count),
        np.zeros((count, 3), np.intp),
    )
    clear = clearance_m(many, OPEN, POSE[None, :3, 3])[0]
    assert clear > 0
    singles = [depth_of(many.only(np.arange(count) == k)) for k in range(count)]
    hits = trace(many, OPEN, POSE, Rays(slopes_of(97, 65)))
    np.testing.assert_array_equal(hits.depth_m, np.min(singles, axis=0))
    met = np.isfinite(hits.depth_m)
    chosen = np.take_along_axis(
        np.array(singles), np.minimum(hits.index, count - 1)[None], axis=0
    )[0]
    np.testing.assert_array_equal(chosen[met], hits.depth_m[met])
    assert (hits.index[~met] == count).all()


def test_solids_beside_and_behind_the_camera_are_met_where_they_are_in_view():
    """A wall that passes the camera on its side crosses the image plane."""
    pose = look_at(np.array([0.0, 0.0, 1.0]), np.array([0.0, 5.0, 1.0]))
    wall = one_solid(BOX, (1.0, 0.0, 1.0), (0.1, 20.0, 30.0), yaw=0.0)
    slopes = slopes_of(97, 65, 100.0)
    depth = depth_of(wall, pose=pose, slopes=slopes)
    right = slopes[..., 0] > 0.05
    np.testing.assert_allclose(depth[right], 0.9 / slopes[..., 0][right], rtol=1e-5)
    assert np.isinf(depth[slopes[..., 0] < 0.04]).all()


def test_lens_rays_give_the_same_depth_as_pinhole_rays_through_the_same_slopes():
    scene = scenes.make('room', np.random.default_rng(4))
    path = paths.make(scene, np.random.default_rng(4), paths.PathSettings(seconds=1, rate_hz=2))
    straight = slopes_of(64, 48)
    # The tiniest bend makes every slope its own, which takes the general way through the tracer.
    bent = straight + 1e-9 * np.random.default_rng(0).random(straight.shape)
    pose = path.T_world_camera(0)
    a = trace(scene.solids, scene.shell, pose, Rays(straight))
    b = trace(scene.solids, scene.shell, pose, Rays(bent))
    same = a.index == b.index
    assert same.mean() > 0.99
    near = np.abs(a.depth_m[same] / b.depth_m[same] - 1)
    assert np.quantile(near, 0.99) < 1e-4


@pytest.mark.parametrize('kind', scenes.KINDS)
def test_a_frame_warped_by_depth_and_pose_matches_the_next(kind):
    scene = scenes.make(kind, np.random.default_rng(8))
    settings = paths.PathSettings('handheld', seconds=4.0, rate_hz=2.0)
    path = paths.make(scene, np.random.default_rng(8), settings)
    width, height = 160, 120
    slopes = slopes_of(width, height)
    sensor = Sensor(metering=0.0, exposure=0.8)
    a, b = (path.T_world_camera(k) for k in (2, 4))
    first = render(scene, a, slopes, sensor=sensor, supersample=2)
    second = render(scene, b, slopes, sensor=sensor, supersample=2)
    rays = np.concatenate([slopes, np.ones((height, width, 1))], axis=2)
    points = rays * np.where(np.isfinite(first.depth_m), first.depth_m, 1e4)[..., None]
    moved = points @ (np.linalg.inv(b) @ a)[:3, :3].T + (np.linalg.inv(b) @ a)[:3, 3]
    focal = 1 / (slopes[0, 1, 0] - slopes[0, 0, 0])
    u = (moved[..., 0] / moved[..., 2] * focal + (width - 1) / 2).astype(np.float32)
    v = (moved[..., 1] / moved[..., 2] * focal + (height - 1) / 2).astype(np.float32)
    seen = cv2.remap(second.rgb, u, v, cv2.INTER_LINEAR).astype(float).mean(2)
    depth_there = cv2.remap(second.depth_m, u, v, cv2.INTER_NEAREST)
    inside = (u > 0) & (v > 0) & (u < width - 1) & (v < height - 1) & (moved[..., 2] > 0)
    inside &= np.abs(depth_there / moved[..., 2] - 1) < 0.02  # not hidden in the second frame
    assert inside.mean() > 0.2
    grey, other = first.rgb.astype(float).mean(2), second.rgb.astype(float).mean(2)
    still = np.median(np.abs(other - grey)[inside])
    warped = np.median(np.abs(seen - grey)[inside])
    assert warped < 2.5
    if still > 2.0:  # else the picture is too plain to tell
        assert warped < 0.6 * still + 0.5


def test_the_scan_agrees_with_the_depth_image_at_its_height():
    scene = scenes.make('room', np.random.default_rng(5))
    settings = paths.PathSettings(seconds=1, rate_hz=2)
    base = paths.make(scene, np.random.default_rng(5), settings).T_world_base[0]
    base[2, 3] = 0.4
    optical = base.copy()
    optical[:3, :3] = base[:3, :3] @ np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    slopes = slopes_of(81, 3)
    row = trace(scene.solids, scene.shell, optical, Rays(slopes)).depth_m[1]
    tangent = slopes[1, :, 0]
    ranges = laser.ranges_m(scene, base, -np.arctan(tangent))
    np.testing.assert_allclose(ranges, row * np.hypot(1, tangent), rtol=1e-5)
    behind = laser.ranges_m(scene, base, np.array([math.pi, -math.pi]))
    turned_base = base.copy()
    turned_base[:3, :3] = base[:3, :3] @ turned(math.pi)
    np.testing.assert_allclose(behind, laser.ranges_m(scene, turned_base, np.zeros(2)), rtol=1e-5)


def test_samples_repeat_with_the_seed_and_differ_without():
    a = samples.draw(np.random.default_rng(5), 48, 64, 2)
    b = samples.draw(np.random.default_rng(5), 48, 64, 2)
    c = samples.draw(np.random.default_rng(6), 48, 64, 2)
    for one, two, three in zip(a, b, c, strict=True):
        np.testing.assert_array_equal(one.rgb, two.rgb)
        np.testing.assert_array_equal(one.depth_m, two.depth_m)
        assert (one.rgb != three.rgb).any()


def test_samples_are_usable_and_supersampling_leaves_depth_alone():
    plain = samples.draw(np.random.default_rng(7), 48, 64, 1)[0]
    smooth = samples.draw(np.random.default_rng(7), 48, 64, 1, supersample=2.0)[0]
    np.testing.assert_array_equal(plain.depth_m, smooth.depth_m)
    assert (plain.rgb != smooth.rgb).any()
    for sample in (plain, smooth):
        assert sample.rgb.shape == (48, 64, 3) and sample.rgb.dtype == np.uint8
        assert sample.depth_m.shape == (48, 64) and sample.depth_m.dtype == np.float32
        assert (sample.depth_m > 0).all()


def test_bright_does_not_mean_far():
    rng = np.random.default_rng(11)
    found = []
    for _ in range(80):
        for sample in samples.draw(rng, 24, 32, 2):
            known = np.isfinite(sample.depth_m)
            grey, depth = sample.rgb.mean(2)[known], np.log(sample.depth_m[known])
            if known.mean() > 0.3 and grey.std() > 2 and depth.std() > 0.05:
                found.append(np.corrcoef(grey, depth)[0, 1])
    assert len(found) > 100
    assert abs(np.mean(found)) < 0.15


@pytest.mark.parametrize('carrier', ['robot', 'handheld'])
@pytest.mark.parametrize('kind', ['room', 'street'])
def test_paths_keep_clear_of_everything(kind, carrier):
    scene = scenes.make(kind, np.random.default_rng(2))
    settings = paths.PathSettings(carrier, 6.0, 10.0, stand_still=True, turn=True)
    path = paths.make(scene, np.random.default_rng(2), settings)
    cameras = np.array([path.T_world_camera(k)[:3, 3] for k in range(60)])
    assert clearance_m(scene.solids, scene.shell, cameras).min() > 0.12
    steps = np.linalg.norm(np.diff(path.T_world_base[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 0.15
    assert steps[:11].max() == 0.0
    assert np.linalg.norm(path.T_world_base[0, :2, 3] - path.T_world_base[-1, :2, 3]) > 0.3
    last = path.T_world_base[-18:]
    assert np.linalg.norm(last[0, :2, 3] - last[-1, :2, 3]) < 0.02
    spun = math.degrees(math.acos(np.clip(last[0, 0, :3] @ last[-1, 0, :3], -1, 1)))
    assert spun > 40 or not np.allclose(last[0, :3, :3], last[-1, :3, :3], atol=0.3)


@pytest.mark.parametrize('seed', range(6))
def test_robots_fit_through_the_whole_path(seed):
    """The straight way between two free places in a furnished room is mostly blocked."""
    scene = scenes.make('room', np.random.default_rng(seed))
    settings = paths.PathSettings('robot', 8.0, 5.0)
    path = paths.make(scene, np.random.default_rng(seed), settings)
    body = path.T_world_base[:, :3, 3] + (0.0, 0.0, 0.3)
    assert clearance_m(scene.solids, scene.shell, body).min() > 0.2


def test_the_ground_ends_in_the_sky():
    scene = scenes.make('field', np.random.default_rng(1))
    pose = look_at(np.array([0.0, 0.0, 40.0]), np.array([100.0, 0.0, 40.0]))
    depth = render(scene, pose, slopes_of(64, 48)).depth_m
    assert np.isinf(depth).any()
    assert 200 < depth[np.isfinite(depth)].max() <= 1000


def test_clearance_is_negative_inside_and_grows_outside():
    box = one_solid(BOX, (0, 0, 0), (1, 2, 3), yaw=0.0)
    points = np.array([(0, 0, 0), (1.5, 0, 0), (2, 3, 0), (50, 0, 0)], float)
    found = clearance_m(box, OPEN, points)
    np.testing.assert_allclose(found, (-1.0, 0.5, math.sqrt(2), 2.0))


@pytest.mark.parametrize('lens', [name for name in rig.LENSES if name != 'none'])
def test_distorted_pixels_look_along_the_rays_of_their_lens(lens):
    settings = recording.RecordingSettings(lens=lens, width=64, height=48)
    fields = recording.camera_fields(settings)
    slopes = undistorted_slopes(fields)
    assert np.isfinite(slopes).all()
    pixels = distort_slopes(slopes, fields)
    u, v = np.meshgrid(np.arange(64), np.arange(48))
    np.testing.assert_allclose(pixels, np.stack([u, v], axis=2), atol=1e-6)
    pinhole = slopes_of(64, 48, math.degrees(settings.hfov_rad))
    assert np.abs(slopes - pinhole).max() > 0.02
    scene = scenes.make('room', np.random.default_rng(4))
    pose = paths.make(
        scene, np.random.default_rng(4), paths.PathSettings(seconds=1, rate_hz=2)
    ).T_world_camera(0)
    found = render(scene, pose, slopes).depth_m
    for row, column in ((5, 7), (24, 32), (40, 60)):
        alone = trace(
            scene.solids, scene.shell, pose, Rays(slopes[row : row + 1, column : column + 1])
        )
        np.testing.assert_allclose(found[row, column], alone.depth_m[0, 0], rtol=1e-5)


def test_recordings_are_the_same_whatever_the_number_of_workers(tmp_path):
    settings = recording.RecordingSettings(width=48, height=32, seconds=0.4, jpeg_quality=None)
    recording.write(tmp_path / 'one', settings, workers=1)
    recording.write(tmp_path / 'two', settings, workers=2)
    one, two = (images_of(tmp_path / name) for name in ('one', 'two'))
    assert len(one) == 6
    assert one == two


def messages_of(folder):
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores
    from rosbags.typesys import get_typestore

    found = {}
    with AnyReader([folder], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append(message)
    return found


def images_of(folder):
    return [bytes(message.data) for message in messages_of(folder)['/camera/image_raw']]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_recordings_hold_what_was_rendered(tmp_path, storage):
    settings = recording.RecordingSettings(
        width=64,
        height=48,
        seconds=0.5,
        rate_hz=6,
        storage=storage,
        raw_depth=True,
        lens='plumb_bob',
    )
    told = []
    recording.write(
        tmp_path / 'bag',
        settings,
        workers=1,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    found = messages_of(tmp_path / 'bag')
    scene = scenes.make(settings.kind, np.random.default_rng(settings.seed))
    (static,) = found['/tf_static']
    children = [transform.child_frame_id for transform in static.transforms]
    assert children == ['camera_optical_frame', 'laser']
    info = found['/camera/camera_info'][0]
    assert info.distortion_model == 'plumb_bob' and len(info.d) == 5
    jpeg = cv2.imdecode(
        np.asarray(found['/camera/image_raw/compressed'][0].data), cv2.IMREAD_COLOR
    )
    assert jpeg.shape == (48, 64, 3)
    depth = np.frombuffer(bytes(found['/camera/depth/image_raw'][2].data), '<f4').reshape(48, 64)
    path = paths.make(
        scene,
        np.random.default_rng((settings.seed, 1)),
        paths.PathSettings(settings.carrier, settings.seconds, settings.rate_hz),
    )
    slopes = undistorted_slopes(recording.camera_fields(settings))
    wanted = trace(scene.solids, scene.shell, path.T_world_camera(2), Rays(slopes)).depth_m
    np.testing.assert_array_equal(depth, wanted)
    pose = found['/odom'][2].pose.pose.position
    start = np.linalg.inv(path.T_world_base[0]) @ path.T_world_base[2]
    np.testing.assert_allclose((pose.x, pose.y, pose.z), start[:3, 3], atol=1e-9)
    scan = found['/scan'][1]
    assert len(scan.ranges) == 720
    stamp = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in found['/odom']]
    assert stamp == [(m.header.stamp.sec, m.header.stamp.nanosec) for m in found['/scan']]
    assert stamp[1][1] - stamp[0][1] == pytest.approx(1e9 / 6, abs=1)


@pytest.mark.parametrize(
    'wrong',
    [
        {'width': 8},
        {'height': 100000},
        {'lens': 'heart'},
        {'hfov_rad': 3.1},
        {'hfov_rad': math.nan},
        {'seed': -1},
        {'jpeg_quality': 0},
        {'noise': -1.0},
        {'noise': math.nan},
        {'seconds': math.nan},
        {'seconds': 1e9},
        {'rate_hz': 0.0},
        {'kind': 'moon'},
        {'carrier': 'kite'},
        {'lens': 'equidistant', 'hfov_rad': math.radians(140)},
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, wrong):
    base = {'width': 32, 'height': 24, 'seconds': 0.2}
    with pytest.raises(SettingsError):
        recording.write(
            tmp_path / 'bag', recording.RecordingSettings(**{**base, **wrong}), workers=1
        )
    assert not (tmp_path / 'bag').exists()


@pytest.mark.parametrize('size', [(1, 64), (64, 1), (64, 9000)])
def test_sample_sizes_out_of_range_are_refused(size):
    with pytest.raises(SettingsError):
        samples.draw(np.random.default_rng(0), *size)
    with pytest.raises(SettingsError):
        samples.draw(np.random.default_rng(0), 32, 32, 0)


def test_the_tool_writes_a_recording_and_a_sheet(tmp_path, capsys, monkeypatch):
    from depth_node.tools import world

    monkeypatch.setattr(world, '_SHEET_ROWS', 1)
    monkeypatch.setattr(world, '_SHEET_COLUMNS', 2)
    sheet, bag = tmp_path / 'sheet.png', tmp_path / 'bag'
    small = ['--size', '32x24', '--seconds', '0.2', '--workers', '1', '--path', 'handheld']
    assert world.main([str(bag), '--contact-sheet', str(sheet), *small]) == 0
    assert cv2.imread(str(sheet)).shape == (288, 384, 3)
    assert (bag / 'metadata.yaml').exists()
    assert world.main([str(bag), *small]) == 1
    assert 'exists' in capsys.readouterr().err
    assert world.main([str(tmp_path / 'x'), '--size', '640*480']) == 1
