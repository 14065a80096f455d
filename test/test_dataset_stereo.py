"""Stereo pairs: depth that is right in metres, or none; and a scale for a model that is wrong."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from dataset_samples import SIZE
from dataset_samples import recorded
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores
from rosbags.typesys import get_typestore

from depth_node.dataset.audit import describe
from depth_node.dataset.audit_recording import audit_recording
from depth_node.dataset.caching import CacheSettings
from depth_node.dataset.caching import cache_recording
from depth_node.dataset.pairs import PairPlan
from depth_node.dataset.scale import chosen_scale
from depth_node.dataset.scale import disagreements
from depth_node.dataset.scale import estimate_scales
from depth_node.dataset.stereo import StereoMatcher
from depth_node.dataset.stereo_rig import Eye
from depth_node.dataset.stereo_rig import StereoRig
from depth_node.dataset.stereo_rig import refusal_of_pose
from depth_node.dataset.topics import TopicChoice
from depth_node.errors import RecordingError
from depth_node.image_codec import decode_compressed
from depth_node.image_codec import decode_depth_image
from depth_node.recording import open_recording
from depth_node.world.recording import RecordingSettings
from depth_node.world.rig import CameraMount

WIDTH, HEIGHT = 240, 180
BESIDE = CameraMount('right', right_m=0.12)
TURNED = CameraMount('turned', -0.12, 0.004, 0.01, math.radians(3.0))
FAR_OFF = CameraMount('side', 0.1, yaw_rad=math.radians(60.0))
PLAIN = RecordingSettings(
    seconds=1.4, rate_hz=5.0, width=WIDTH, height=HEIGHT, extra_cameras=(BESIDE, FAR_OFF)
)
BENT = replace(PLAIN, lens='plumb_bob', extra_cameras=(TURNED,))
SEVERAL = replace(PLAIN, seconds=0.4, extra_cameras=(BESIDE, TURNED))
IMAGE = '/camera/image_raw/compressed'
RIGHT = '/right/image_raw/compressed'
DEPTH = '/camera/depth/image_rect', '/camera/depth/image_raw'
FIRST = TopicChoice(image=IMAGE)


@functools.cache
def moment(settings):
    """Return camera_infos, both images, and the camera's depth, of one moment."""
    name = settings.extra_cameras[0].name
    wanted = {
        IMAGE: 'rgb', f'/{name}/image_raw/compressed': 'partner',
        f'{DEPTH[settings.lens != "none"]}/compressedDepth': 'depth',
        '/camera/camera_info': 'fields', f'/{name}/camera_info': 'partner_fields',
    }  # fmt: skip
    found = {}
    with open_recording(recorded(settings)) as recording:
        for record in recording.records([t for t in recording.topics if t.name in wanted]):
            found[wanted[record.topic]] = record.content
    rgb, partner = decode_compressed(found['rgb']), decode_compressed(found['partner'])
    return (
        (found['fields'], found['partner_fields']), (rgb, partner),
        decode_depth_image(found['depth']),
    )  # fmt: skip


def matched(settings, pose, images=None):
    fields, pair, _ = moment(settings)
    rig = StereoRig(*(Eye(one, WIDTH, HEIGHT) for one in fields), pose)
    return StereoMatcher(rig).match(*(images or pair))


def beside_truth(settings, found) -> np.ndarray:
    """Return measured over true depth where points fall on pixels of the camera."""
    fields, _, depth_m = moment(settings)
    u, v = np.rint(Eye(fields[0], WIDTH, HEIGHT).pixels(found.points)).astype(int).T
    inside = (u >= 0) & (v >= 0) & (u < WIDTH) & (v < HEIGHT)
    ratio = found.points[inside, 2] / depth_m[v[inside], u[inside]]
    return ratio[np.isfinite(ratio)]


@pytest.mark.parametrize('settings', [PLAIN, BENT], ids=['rectified', 'lens and yaw'])
def test_depth_is_the_true_one(settings):
    found = matched(settings, settings.extra_cameras[0].T_first_camera)
    assert found.refusal == ''
    ratio = beside_truth(settings, found)
    assert len(ratio) > 1000
    assert np.median(ratio) == pytest.approx(1.0, abs=0.03)
    assert np.mean(np.abs(ratio - 1.0) < 0.15) > 0.85


def test_cameras_that_expose_on_their_own_measure_the_same():
    rgb, partner = moment(PLAIN)[1]
    darker = (partner * 0.6).astype(np.uint8)
    found = matched(PLAIN, BESIDE.T_first_camera, (rgb, darker))
    assert found.refusal == ''
    assert np.median(beside_truth(PLAIN, found)) == pytest.approx(1.0, abs=0.03)


def test_left_and_right_exchanged_give_no_scale():
    pose = np.linalg.inv(BESIDE.T_first_camera)
    assert 'exchanged' in matched(PLAIN, pose).refusal


@pytest.mark.parametrize('degrees', [-1.5, 0.5, 8.0])
def test_a_camera_that_nods_otherwise_than_calibrated_gives_no_scale(degrees):
    pose = BESIDE.T_first_camera.copy()
    pose[:3, :3], _ = cv2.Rodrigues(np.array([math.radians(degrees), 0.0, 0.0]))
    assert matched(PLAIN, pose).refusal


def test_a_blank_wall_gives_no_scale():
    grey = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    found = matched(PLAIN, BESIDE.T_first_camera, (grey, grey))
    assert 'texture' in found.refusal and not len(found.points)


def test_disparities_within_the_noise_are_left_out():
    found = matched(PLAIN, BESIDE.T_first_camera)
    focal_px = moment(PLAIN)[0][0].k[0]
    assert found.points[:, 2].max() <= focal_px * 0.12 / 4.0 + 1e-6


@pytest.mark.parametrize(
    ('mount', 'said'),
    [
        (CameraMount('a', 0.01), 'no usable baseline'),
        (CameraMount('a', 1.5), 'no usable baseline'),
        (CameraMount('a', 0.1, yaw_rad=0.3), 'degrees apart'),
        (CameraMount('a', 0.02, down_m=0.1), 'not side by side'),
        (CameraMount('a', 0.02, forward_m=0.1), 'not side by side'),
    ],
)
def test_cameras_that_are_no_pair_are_refused(mount, said):
    assert said in refusal_of_pose(mount.T_first_camera)


def cached_stereo(settings, root, choice=FIRST, hidden=('/scan', *DEPTH)):
    return cache_recording(
        recorded(settings), CacheSettings((SIZE,), choice=choice, hidden=hidden), root
    )


def _pixels(axis, side):
    return np.clip(np.rint(axis).astype(int), 0, side - 1)


@pytest.mark.parametrize('settings', [PLAIN, BENT], ids=['by P', 'by transforms'])
def test_a_model_three_times_too_far_is_put_right_by_stereo_alone(settings, tmp_path):
    cache = cached_stereo(settings, tmp_path)
    assert [source.kind for source in cache.sources] == ['stereo']
    assert all(len(cache.sparse_all(k)[0]) <= 4096 for k in range(len(cache)))
    true = cached_stereo(settings, tmp_path, hidden=('/scan', RIGHT, '/turned/image_raw'))
    assert [source.kind for source in true.sources] == ['depth']
    model = {}
    for k in range(len(cache)):
        (part,) = true.sparse_all(k)
        depth_m = np.full(SIZE, np.nan, np.float32)
        depth_m[_pixels(part.v, SIZE[0]), _pixels(part.u, SIZE[1])] = part.depth_m
        model[cache.rgb(k).tobytes()] = 3.0 * depth_m
    plan = PairPlan(dict.fromkeys(range(len(cache)), ()))
    estimates = estimate_scales(cache, plan, lambda rgb: model[rgb.tobytes()])
    chosen = chosen_scale(estimates)
    assert chosen.kind == 'stereo'
    assert chosen.scale == pytest.approx(1 / 3, rel=0.02)
    assert disagreements(estimates) == ()


def test_the_audit_lists_the_pair_and_why_other_cameras_are_none():
    audit = audit_recording(recorded(PLAIN), FIRST)
    said = {s.topic: s.why_not for s in audit.scale_sources if s.kind == 'stereo'}
    assert said[RIGHT] == ''
    assert 'degrees apart' in said['/side/image_raw/compressed']
    assert audit.choice.stereo == RIGHT
    assert f'stereo {RIGHT} (7): usable' in describe(audit)


def test_several_partners_are_listed_and_one_can_be_named():
    audit = audit_recording(recorded(SEVERAL), FIRST)
    assert audit.choice.stereo == ''
    assert any('2 cameras could be the stereo partner' in text for text in audit.warnings)
    named = audit_recording(recorded(SEVERAL), replace(FIRST, stereo='/turned/image_raw'))
    assert named.choice.stereo == '/turned/image_raw/compressed'
    with pytest.raises(RecordingError, match='no stereo topic'):
        audit_recording(recorded(SEVERAL), replace(FIRST, stereo='/moon/image_raw'))


def altered(path, folder, change):
    """Copy a recording; ``change(topic, message)`` edits messages in place."""
    store = get_typestore(Stores.ROS2_JAZZY)
    with (
        AnyReader([path]) as reader,
        Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer,
    ):
        links = {
            item.id: writer.add_connection(item.topic, item.msgtype, typestore=store)
            for item in reader.connections
        }
        for item, stamp_ns, data in reader.messages():
            message = reader.deserialize(data, item.msgtype)
            change(item.topic, message)
            writer.write(links[item.id], stamp_ns, store.serialize_cdr(message, item.msgtype))
    return folder


def only_stereo(path, topic='/right/image_raw') -> str:
    audit = audit_recording(path, replace(FIRST, stereo=topic))
    assert audit.choice.stereo == ''
    (source,) = [source for source in audit.scale_sources if source.kind == 'stereo']
    return source.why_not


def test_an_unsynchronised_partner_is_refused_with_a_sentence(tmp_path):
    def late(topic, message):
        if topic == RIGHT:
            message.header.stamp.nanosec += 30_000_000

    path = altered(recorded(PLAIN), tmp_path / 'late', late)
    assert 'not synchronous' in (why := only_stereo(path)) and '30 ms' in why
    cache = cache_recording(path, CacheSettings((SIZE,), choice=FIRST), tmp_path)
    assert 'stereo' not in {source.kind for source in cache.sources}
    assert any('not synchronous' in remark for remark in cache.header.remarks)


def test_a_baseline_of_p_that_transforms_deny_is_refused(tmp_path):
    def doubled(topic, message):
        if topic == '/right/camera_info':
            message.p = message.p * np.where(np.arange(12) == 3, 2.0, 1.0)

    assert 'transforms say +0.12 m' in only_stereo(
        altered(recorded(PLAIN), tmp_path / 'p', doubled)
    )


def test_transforms_that_exchange_left_and_right_are_refused(tmp_path):
    """Cameras that look inwards match either way: what is near then seems far."""

    def exchanged(topic, message):
        if topic == '/tf_static':
            poses = {item.child_frame_id: item for item in message.transforms}
            one, two = poses['camera_optical_frame'], poses['turned_optical_frame']
            one.child_frame_id, two.child_frame_id = two.child_frame_id, one.child_frame_id

    path = altered(recorded(BENT), tmp_path / 'exchanged', exchanged)
    assert 'exchanged' in only_stereo(path, '/turned/image_raw')


def test_images_of_another_camera_than_described_are_refused(tmp_path):
    def crossed(topic, message):
        if topic == RIGHT:  # P and transforms are right, the driver sends the images mirrored
            rgb = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
            message.data = cv2.imencode('.jpg', rgb[:, ::-1])[1].ravel()

    assert 'is found in the other image' in only_stereo(
        altered(recorded(PLAIN), tmp_path / 'crossed', crossed)
    )


def test_a_projection_without_focal_length_gives_no_pose_and_no_crash(tmp_path):
    def empty(topic, message):
        if topic.endswith('camera_info'):
            message.p = np.zeros(12)
            message.p[3] = -5.0 if topic.startswith('/right') else 0.0

    path = altered(recorded(PLAIN), tmp_path / 'empty', empty)
    audit = audit_recording(path, replace(FIRST, stereo=RIGHT))
    assert audit.scale_sources
