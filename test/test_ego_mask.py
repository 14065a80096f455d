"""The robot in its own image: read at the door, and then as unseen as what no pixel saw."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_samples import BENT
from dataset_samples import SIZE
from dataset_samples import recorded

from depth_node.camera import chosen_view
from depth_node.dataset.caching import CacheSettings
from depth_node.dataset.caching import cache_recording
from depth_node.dataset.ego_mask import EgoMask
from depth_node.dataset.pairs import plan_pairs
from depth_node.dataset.tracks import measured_depth_m
from depth_node.dataset.tracks import tracked_depth
from depth_node.errors import DepthNodeError
from depth_node.errors import SettingsError
from depth_node.judging.scenes import JudgeSettings
from depth_node.judging.scenes import scenes
from depth_node.recording import open_recording

TOP = 80
"""The lower third of a 160 x 120 image is the robot."""


@pytest.fixture(scope='session')
def mask(tmp_path_factory: pytest.TempPathFactory) -> EgoMask:
    return EgoMask.read(drawn(tmp_path_factory.mktemp('mask') / 'bumper.png'))


def drawn(path: Path, height: int = 120, width: int = 160, top: int = TOP) -> Path:
    image = np.zeros((height, width), np.uint8)
    image[top:] = 255
    cv2.imwrite(str(path), image)
    return path


def test_white_is_the_robot_and_the_name_of_the_file_does_not_matter(mask, tmp_path):
    assert mask.robot.shape == (120, 160)
    assert not mask.robot[:TOP].any() and mask.robot[TOP:].all()
    assert EgoMask.read(drawn(tmp_path / 'other.png')).sha256 == mask.sha256
    assert EgoMask.read(drawn(tmp_path / 'more.png', top=TOP - 1)).sha256 != mask.sha256


def test_what_is_no_mask_is_refused_at_the_door_with_what_to_do(tmp_path):
    text = tmp_path / 'text.png'
    text.write_text('no image at all')
    for path in (text, drawn(tmp_path / 'white.png', top=0)):
        with pytest.raises(SettingsError, match=r'--ego-mask.*Draw a PNG'):
            EgoMask.read(path)
    with pytest.raises(DepthNodeError, match=r'--ego-mask.*No such file'):
        EgoMask.read(tmp_path / 'missing.png')


def test_the_mask_goes_through_the_lens_as_the_image_does(mask):
    view = view_of_recording()
    assert view.rectifier is not None
    picture = np.repeat((mask.robot * np.uint8(255))[..., None], 3, axis=2)
    shown = view.rectifier.apply(picture)[..., 0]
    kept = mask.kept(view)
    sure = view.rectifier.valid & ((shown < 100) | (shown > 155))
    assert np.array_equal(kept[sure], shown[sure] < 128) and sure.mean() > 0.8
    assert not np.array_equal(kept, ~mask.robot), 'a bent lens moves the edge'
    assert kept[~view.rectifier.valid].all(), 'that is unseen anyway'


def view_of_recording():
    with open_recording(recorded(BENT)) as recording:
        fields = recording.first(recording.camera_topics().camera_info)
    return chosen_view(fields, 160, 120, 'auto', False)


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path):
    other = EgoMask.read(drawn(tmp_path / 'small.png', 60, 80, 50))
    with pytest.raises(SettingsError, match=r'80 x 60 .*160 x 120'):
        cache_recording(recorded(BENT), CacheSettings((SIZE,), ego_mask=other), tmp_path)


def test_frames_tracks_and_measured_depth_see_nothing_of_the_robot(mask, tmp_path):
    plain = cache_recording(recorded(BENT), CacheSettings((SIZE,)), tmp_path)
    masked = cache_recording(recorded(BENT), CacheSettings((SIZE,), ego_mask=mask), tmp_path)
    assert masked.root != plain.root, 'frames are kept under a key with the mask'
    expected = plain.seen & mask.kept(view_of_recording())
    assert plain.seen[TOP + 3 :].any() and np.array_equal(masked.seen, expected)
    assert np.array_equal(masked.rgb(3), plain.rgb(3)), 'the network sees what it will see'
    measured = [part for part in masked.sparse_all(3) if len(part)]
    assert (plain.sparse_all(3)[0].v > TOP + 5).any(), 'there was something to mask'
    plan = plan_pairs(masked, range(len(masked)), measured_depth_m(masked, range(len(masked))))
    pairs = list(plan.targets.values())[len(plan.targets) // 2]
    for part in [*measured, tracked_depth(masked, pairs).depth]:
        # pixels are stored to 1/16, so that a few at the very edge may round to its other side
        assert len(part) and part.sampled(masked.seen.astype(np.float32)).mean() > 0.99
    assert (tracked_depth(plain, pairs).depth.v > TOP).any(), 'there was something to mask'


def test_nothing_counts_there_when_models_are_judged(mask):
    def first_of(settings: JudgeSettings) -> np.ndarray:
        found = scenes(recorded(BENT), settings, lambda _: True, lambda *_: None, {})
        return next(found).truth_m

    plain, masked = first_of(JudgeSettings()), first_of(JudgeSettings(ego_mask=mask))
    kept = mask.kept(view_of_recording())
    assert np.isfinite(plain[~kept]).any() and np.isnan(masked[~kept]).all()
    np.testing.assert_array_equal(masked[kept], plain[kept])


def test_a_mask_that_may_not_be_read_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(self: Path) -> bytes:
        raise PermissionError(13, 'Permission denied')

    path = drawn(tmp_path / 'bumper.png')
    monkeypatch.setattr(Path, 'read_bytes', locked)
    with pytest.raises(DepthNodeError, match='Permission denied'):
        EgoMask.read(path)
