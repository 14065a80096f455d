"""Which cameras of a recording are takes, which are left out and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import altered_recordings as spoilt
import numpy as np
import pytest
from judging_samples import CAMERA
from judging_samples import T0
from judging_samples import depth
from judging_samples import picture

from depth_node.dataset.takes import Take
from depth_node.dataset.takes import takes_of
from depth_node.dataset.takes import told_apart
from depth_node.dataset.topics import TopicChoice
from depth_node.dataset.topics import topics_of
from depth_node.errors import RecordingError
from depth_node.recording import open_recording
from depth_node.recording.writer import RecordingWriter

Seen = dict[str, str]
"""Topic of images -> frame."""


def recorded(
    path: Path, images: Seen, infos: tuple[str, ...], depths: Seen | None = None, right: str = ''
) -> Path:
    with RecordingWriter(path, 'mcap') as writer:
        for k in range(2):
            for name in infos:
                p = list(CAMERA.p)
                p[3] = -3.0 if name == right else 0.0
                writer.camera_info(name, replace(CAMERA, stamp_ns=T0 + k, p=tuple(p)))
            for name, frame in images.items():
                quality = 90 if name.endswith('/compressed') else None
                topic = name.removesuffix('/compressed')
                writer.image(topic, picture(k), T0 + k, frame, quality)
            for name, frame in (depths or {}).items():
                writer.depth(name, depth(k), T0 + k, frame, False)
    return path


def names(path: Path, *images: str, **given: Any) -> list[str | None]:
    return [take.choice.image for take in takes_of(path, images=images, **given).takes]


def test_every_camera_with_a_camera_info_of_its_own_is_a_take(tmp_path):
    path = recorded(
        tmp_path / 'drive',
        {'/left/image_raw': 'l', '/front/image_raw': 'f', '/front/image_raw/compressed': 'f'},
        ('/left/camera_info', '/front/camera_info'),
    )
    found = takes_of(path)
    assert [take.name for take in found.takes] == [
        'drive /front/image_raw', 'drive /left/image_raw',
    ]  # fmt: skip
    assert not found.remarks
    again = [Take.from_json(take.to_json()) for take in found.takes]
    assert tuple(again) == found.takes


def test_a_camera_without_camera_info_is_left_out_with_a_sentence(tmp_path):
    path = recorded(
        tmp_path / 'drive',
        {'/left/image_raw': 'l', '/front/image_raw': 'f', '/rear/image_raw': 'r'},
        ('/left/camera_info', '/front/camera_info'),
    )
    assert names(path) == ['/front/image_raw', '/left/image_raw']
    (said,) = takes_of(path).remarks
    assert said == '/rear/image_raw is left out: it has no camera_info of its own.'


def test_what_shows_a_camera_again_is_no_camera(tmp_path):
    path = recorded(
        tmp_path / 'drive',
        {
            '/cam/color/image_raw': 'c',
            '/cam/color/image_rect': 'c',
            '/cam/infra1/image_rect_raw': 'i1',
            '/cam/depth/color': 'd',
            '/cam/thumbnail/image': 'c',
            '/small/image_raw': 'c',
        },
        tuple(
            f'/{name}/camera_info'
            for name in ('cam/color', 'cam/infra1', 'cam/depth', 'cam/thumbnail', 'small')
        ),
    )
    found = takes_of(path)
    assert [take.choice.image for take in found.takes] == ['/cam/color/image_raw']
    assert [take.name for take in found.takes] == ['drive']
    said = ' '.join(found.remarks)
    assert '"infra1" in its name' in said and '"thumbnail" in its name' in said
    assert '/cam/color/image_rect is left out: it is the camera of /cam/color/image_raw' in said
    assert '/small/image_raw is left out: by its frame, c, it is the camera of' in said
    assert names(path, '/cam/infra1/image_rect_raw', 'cam/color/image_raw') == [
        '/cam/color/image_raw', '/cam/infra1/image_rect_raw',
    ]  # fmt: skip


def test_infrared_is_used_where_there_is_nothing_else(tmp_path):
    path = recorded(
        tmp_path / 'drive',
        {'/cam/infra1/image_rect_raw': 'i1', '/cam/infra2/image_rect_raw': 'i2'},
        ('/cam/infra1/camera_info', '/cam/infra2/camera_info'),
        right='/cam/infra2/camera_info',
    )
    assert len(names(path)) == 2


def test_a_stereo_partner_is_a_camera_unless_it_carries_the_frame_of_the_other(tmp_path):
    infos = ('/left/camera_info', '/right/camera_info')
    own = recorded(
        tmp_path / 'own',
        {'/left/image_rect': 'l', '/right/image_rect': 'r'},
        infos,
        None,
        infos[1],
    )
    assert len(names(own)) == 2
    shared = recorded(
        tmp_path / 'one',
        {'/left/image_rect': 'l', '/right/image_rect': 'l'},
        infos,
        None,
        infos[1],
    )
    assert names(shared) == ['/left/image_rect']
    assert 'its own place is not known' in takes_of(shared).remarks[0]


def test_names_restrict_the_cameras_and_one_that_is_missing_is_said(tmp_path):
    path = recorded(
        tmp_path / 'drive',
        {'/left/image_raw': 'l', '/front/image_raw/compressed': 'f', '/rear/image_raw': 'r'},
        ('/left/camera_info', '/front/camera_info', '/rear/camera_info'),
    )
    assert names(path, '/left/image_raw') == ['/left/image_raw']
    both = takes_of(path, images=('front/image_raw', '/left/image_raw', '/up/image_raw'))
    assert [take.choice.image for take in both.takes] == [
        '/front/image_raw/compressed', '/left/image_raw',
    ]  # fmt: skip
    assert both.remarks == ('The recording has no images of /up/image_raw.',)
    infos = ('/rear/camera_info', '/left/camera_info')
    named = takes_of(path, images=('/front/image_raw', '/left/image_raw'), infos=infos)
    assert [take.choice.camera_info for take in named.takes] == list(infos)


def test_names_that_no_recording_has_are_refused_by_the_audit_as_ever(tmp_path):
    path = recorded(tmp_path / 'drive', {'/left/image_raw': 'l'}, ('/left/camera_info',))
    (take,) = takes_of(path, images=('/up/image_raw', '/down/image_raw')).takes
    with (
        open_recording(take.path) as recording,
        pytest.raises(RecordingError, match='no image topic'),
    ):
        topics_of(recording, take.choice)


def test_without_any_camera_info_the_images_have_to_be_named(tmp_path):
    path = recorded(tmp_path / 'drive', {'/left/image_raw': 'l', '/front/image_raw': 'f'}, ())
    (take,) = takes_of(path).takes
    with (
        open_recording(take.path) as recording,
        pytest.raises(RecordingError, match='could be the image topic'),
    ):
        topics_of(recording, take.choice)


def test_depth_belongs_to_the_camera_whose_name_is_closest(tmp_path):
    path = recorded(
        tmp_path / 'drive',
        {
            '/robot/left/image_raw': 'l',
            '/robot/front/image_raw': 'f',
            '/robot/rear/image_raw': 'r',
        },
        tuple(f'/robot/{name}/camera_info' for name in ('left', 'front', 'rear')),
        {'/robot/front/depth/image_rect': 'f', '/robot/rear/depth/image_raw': 'other'},
    )
    found = {take.choice.image: take for take in takes_of(path).takes}
    # depth of other pixels may teach, but says nothing of these
    assert [take.reference for take in found.values()] == [
        '/robot/front/depth/image_rect', '', '',
    ]  # fmt: skip
    with open_recording(path) as recording:
        depths = {name: topics_of(recording, take.choice).depth for name, take in found.items()}
    assert depths['/robot/left/image_raw'] is None
    assert depths['/robot/rear/image_raw'].name == '/robot/rear/depth/image_raw'


def test_a_grey_camera_beside_one_in_colour_is_used_and_said(tmp_path):
    path = recorded(
        tmp_path / 'drive',
        {'/left/image_raw': 'l', '/front/image_raw': 'f'},
        ('/left/camera_info', '/front/camera_info'),
    )

    def grey(topic: str, place: int, message: Any, all_of_it: list[Any]) -> Any:
        if topic != '/left/image_raw':
            return message
        changed = {'encoding': 'mono8', 'step': message.width, 'data': np.ascontiguousarray(
            message.data.reshape(-1, 3)[:, 0])}  # fmt: skip
        return type(message)(**{**spoilt.fields_of(message), **changed})

    found = takes_of(spoilt.altered(path, tmp_path / 'grey', grey))
    assert len(found.takes) == 2
    assert '/left/image_raw is grey, unlike /front/image_raw' in found.remarks[0]


def test_takes_of_recordings_with_one_name_have_names_of_their_own(tmp_path):
    images, infos = {'/l/image': 'l', '/f/image': 'f'}, ('/l/camera_info', '/f/camera_info')
    paths = [tmp_path / day / 'drive' for day in ('monday', 'tuesday')]
    for path in paths:
        path.parent.mkdir()
        recorded(path, images, infos)
    takes = told_apart(takes_of(path) for path in paths)
    assert len({take.name for take in takes}) == 4
    assert takes[3].name == f'{paths[1]} /l/image'
    (one,) = takes_of(paths[0], TopicChoice(image='/l/image')).takes
    assert one.name == 'drive'
