"""Depth in other forms, over DDS: millimetres, a picture, and clouds at a rate of their own."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')

from node_rig import HEIGHT
from node_rig import WIDTH
from node_rig import stamp_of
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image


def pictures_of(it):
    pictures = []
    it.peer.create_subscription(Image, 'depth/color', pictures.append, 10)
    it.wait(lambda: it.channel.outputs._color.get_subscription_count())
    it.wait(lambda: it.images.get_subscription_count())
    return pictures


def test_millimetres_hold_from_the_next_image_on(rig):
    it = rig().ready()
    it.send()
    assert it.set(depth__encoding='16UC1').successful
    it.send()
    it.wait(lambda: len(it.depth) == 2)
    assert [message.encoding for message in it.depth] == ['32FC1', '16UC1']
    values = np.frombuffer(it.depth[1].data, np.uint16).reshape(HEIGHT, WIDTH)
    assert it.depth[1].step == 2 * WIDTH
    assert values[0, 0] == 0 and (values.ravel()[1:] == 2000).all()
    refused = it.set(depth__encoding='mono16')
    assert not refused.successful and '32FC1, 16UC1' in refused.reason


@pytest.mark.parametrize('kind', ['metric', 'relative'])
def test_a_picture_comes_with_stamp_and_frame_of_the_image_to_those_who_listen_to_it_alone(
    rig, kind
):
    it = rig(kind=kind).give_camera()
    pictures = pictures_of(it)
    stamp_ns = it.send()
    it.wait(lambda: pictures)
    (picture,) = pictures
    assert stamp_of(picture) == stamp_ns
    assert picture.header.frame_id == 'camera_optical_frame'
    assert (picture.encoding, picture.step) == ('rgb8', 3 * WIDTH)
    rgb = np.frombuffer(picture.data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    assert (rgb[0, 0] == 0).all() and rgb[5, 5].any()
    assert it.report().published == 1


@pytest.mark.parametrize('kind', ['metric', 'relative'])
def test_a_jpeg_comes_to_those_who_listen_to_it_alone(rig, kind):
    it = rig(kind=kind).give_camera()
    pictures = []
    it.peer.create_subscription(CompressedImage, 'depth/color/compressed', pictures.append, 10)
    it.wait(lambda: it.channel.outputs._jpeg.get_subscription_count())
    it.wait(lambda: it.images.get_subscription_count())
    stamp_ns = it.send()
    it.wait(lambda: pictures)
    (picture,) = pictures
    assert stamp_of(picture) == stamp_ns
    rgb = cv2.imdecode(np.frombuffer(bytes(picture.data), np.uint8), cv2.IMREAD_COLOR)
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    assert it.report().published == 1


def test_clouds_keep_their_own_rate_while_depth_keeps_that_of_the_camera(rig):
    it = rig(**{'points.max_rate_hz': 10.0}).listen(points=True).give_camera()
    stamps = [it.send() for _ in range(9)]
    it.wait(lambda: len(it.depth) == 9 and len(it.clouds) == 3)
    it.pump(0.1)
    assert [stamp_of(cloud) for cloud in it.clouds] == [stamps[0], stamps[4], stamps[7]]
    assert it.report().published == 9 and it.report().drops == {}


def test_thinning_is_refused_for_an_organized_cloud_and_done_for_another(rig):
    it = rig().listen(points=True).give_camera()
    refused = it.set(points__voxel_m=0.5)
    assert not refused.successful and 'points.organized false' in refused.reason
    assert it.set(points__voxel_m=0.5, points__organized=False).successful
    it.send()
    it.wait(lambda: it.clouds)
    (cloud,) = it.clouds
    points = np.frombuffer(cloud.data, np.float32).reshape(-1, 4)[:, :3]
    voxels = {tuple(cell) for cell in np.floor(points / 0.5).astype(int)}
    # a wall of 2.56 m x 1.92 m
    assert len(voxels) == len(points) == cloud.width == 6 * 4 and cloud.is_dense
