"""Batches are a function of seed and number; samples are what their cameras say they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dataset_samples
import numpy as np
import pytest
import torch
from rendered_footage import MemoryCache
from rendered_footage import footage
from rendered_footage import pair
from rendered_footage import rendered

from depth_node.dataset.pairs import plan_pairs
from depth_node.errors import RecordingError
from depth_node.finetuning.augmentation import AugmentationSettings
from depth_node.finetuning.augmentation import Colors
from depth_node.finetuning.augmentation import drawn_colors
from depth_node.finetuning.photometric_gradient import Frames
from depth_node.finetuning.photometric_gradient import photometric_loss
from depth_node.finetuning.pose import RecordedPoses
from depth_node.finetuning.reference_maps import reference_maps
from depth_node.finetuning.samples import Batch
from depth_node.finetuning.samples import BatchSettings
from depth_node.finetuning.samples import Footage
from depth_node.finetuning.samples import Samples
from depth_node.finetuning.warp import pixel_motion
from depth_node.finetuning.warp import sampled

PLAIN = AugmentationSettings(flip=0.0, crop=0.0, color=0.0)


def samples(**changes: object) -> Samples:
    return Samples([footage(rendered(), start=True)], BatchSettings(size=4, **changes))


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    return {k: v for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}


def same(first: Batch, second: Batch) -> bool:
    mine, theirs = tensors(first), tensors(second)
    return mine.keys() == theirs.keys() and all(
        torch.equal(mine[k].nan_to_num(), theirs[k].nan_to_num()) for k in mine
    )


def test_batches_do_not_depend_on_how_many_threads_read_them() -> None:
    one, other = samples(), samples()
    alone = list(one.batches(2, 7, workers=0))
    for workers in (1, 3):
        ahead = list(other.batches(2, 7, workers=workers))
        assert all(map(same, alone, ahead))
    assert not same(alone[0], alone[1])
    assert not same(alone[0], samples(seed=1).batch(2))


def test_processes_share_a_batch_without_changing_it() -> None:
    taken = samples(augmentation=PLAIN)
    whole = taken.batch(3)
    parts = [taken.batch(3, rank, 2) for rank in (0, 1)]
    for name in ('target', 'intrinsics', 'flipped', 'start'):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name))


def test_an_epoch_shows_every_target_once_and_mixes_recordings_evenly() -> None:
    long, short = footage(rendered()), footage(rendered())
    short = replace(short, targets={at: short.targets[at] for at in (2, 3, 4)})
    taken = Samples([long, short], BatchSettings(size=4))
    order = taken._order(0)
    assert len(order) == len(set(order)) == len(taken) == 12
    assert taken._order(1) != order
    thirds = [sum(which for which, _ in order[at : at + 4]) for at in (0, 4, 8)]
    assert thirds == [1, 1, 1]


def test_the_loss_sees_the_colours_of_the_image_and_the_network_others() -> None:
    wild = AugmentationSettings(flip=0.0, crop=0.0, color=1.0)
    taken = samples(augmentation=wild, source_views=True)
    batch = taken.batch(0)
    _, target = taken._order(0)[0]
    image = torch.from_numpy(rendered().images[target]).permute(2, 0, 1)
    assert torch.equal(batch.target[0], image)
    assert not torch.equal(batch.target_view[0], image)
    assert not torch.equal(batch.source_views[0, 0], batch.sources[0, 0])


def test_all_images_of_a_sample_change_colour_alike() -> None:
    cache = rendered()
    still = replace_images(cache, [cache.images[0]] * len(cache.images))
    wild = AugmentationSettings(color=1.0)
    batch = Samples(
        [footage(still)], BatchSettings(size=2, augmentation=wild, source_views=True)
    ).batch(0)
    assert torch.equal(batch.source_views[:, 0], batch.target_view)


def replace_images(cache: MemoryCache, images: list[np.ndarray]) -> MemoryCache:
    return MemoryCache(cache.camera, images, cache.depths, cache.poses)


def test_colours_without_change_are_those_of_the_image() -> None:
    image = rendered().images[0]
    same_colors = Colors(np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    assert np.array_equal(same_colors.image(image), image)
    calm = AugmentationSettings(color=1.0)
    for seed in range(5):
        drawn = drawn_colors(np.random.default_rng(seed), calm)
        grey = drawn.image(np.full((2, 2, 3), 128, np.uint8))
        assert int(np.ptp(grey)) <= 1  # hue and saturation leave grey alone
        assert 85 <= int(grey[0, 0, 0]) <= 175


def test_known_depths_lie_where_the_start_map_says_the_same() -> None:
    for seed in range(3):
        batch = samples(seed=seed).batch(0)
        for row in range(4):
            known = torch.isfinite(batch.sparse_depth[row])
            pixels = batch.sparse_pixels[row][known][None, None]
            there = sampled(batch.start[row, None], pixels).flatten()
            apart = (there * batch.sparse_depth[row][known]).log().abs()
            assert known.sum() > 10
            assert apart.median() < 0.005


def test_a_sample_with_fewer_sources_is_filled_up_and_marked() -> None:
    taken = samples()
    batches = [taken.batch(step) for step in range(3)]
    lonely = [batch for batch in batches if not batch.present.all()]
    assert lonely
    for batch in lonely:
        absent = ~batch.present
        assert torch.equal(batch.T_source_target[absent][0], torch.eye(4))
        assert not batch.sources[absent].any()


def test_two_sources_are_drawn_from_both_sides_in_time() -> None:
    cache = rendered()
    pairs = [pair(cache, 5, source) for source in (2, 3, 7, 8)]
    taken = Samples([Footage(cache, {5: pairs})], BatchSettings(size=1))
    drawn = [taken.batch(step) for step in range(6)]
    assert all(batch.source_later[0].tolist() in ([False, True], [True, False]) for batch in drawn)
    assert len({tuple(batch.pair[0].tolist()) for batch in drawn}) > 1


def test_what_the_robot_sees_of_itself_does_not_count() -> None:
    hood = np.zeros((64, 96), bool)
    hood[50:] = True
    item = replace(footage(rendered()), ignored=hood)
    batch = Samples([item], BatchSettings(size=2, augmentation=PLAIN)).batch(0)
    assert not batch.valid[:, 50:].any() and batch.valid[:, :50].all()
    assert torch.equal(batch.source_valid, batch.valid)


def test_recordings_without_pairs_are_refused() -> None:
    with pytest.raises(RecordingError, match='parallax'):
        Samples([replace(footage(rendered()), targets={})], BatchSettings())


def two_sizes(**changes: object) -> Samples:
    wide, narrow = footage(rendered()), footage(rendered(32, 64, 6))
    return Samples([wide, narrow, wide], BatchSettings(size=3, augmentation=PLAIN, **changes))


def test_cameras_of_two_sizes_take_turns_in_batches_of_one_size() -> None:
    taken = two_sizes()
    assert taken.sizes == {(64, 96): (0, 2), (32, 64): (1,)} and taken.largest == (64, 96)
    # 18 targets of one size and 3 of the other: six batches and one
    shown = [tuple(taken.batch(step).target.shape[-2:]) for step in range(14)]
    assert shown.count((32, 64)) == 2 and set(shown[:7]) == set(shown[7:])
    small = [taken.batch(step) for step in range(14) if shown[step] == (32, 64)]
    images = [rendered(32, 64, 6).images[at] for at in taken._targets[1]]
    for batch in small:  # every target once in each turn
        firsts = {item.permute(1, 2, 0).numpy().tobytes() for item in batch.target}
        assert firsts == {image.tobytes() for image in images}


def test_batches_of_two_sizes_are_a_function_of_their_number() -> None:
    one, other = two_sizes(), two_sizes()
    assert all(map(same, one.batches(3, 9, workers=0), other.batches(3, 9, workers=2)))
    halves = [other.batch(4, rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat([part.target for part in halves]), one.batch(4).target)


@pytest.mark.parametrize(
    'head',
    [
        b'{"indices": [5], "size": [2, 3]}',
        b'{"indices": ["x"], "size": [2, 3], "key": "a"}',
        b'{"indices": [5], "size": [2], "key": "a"}',
        b'{"indices": [5], "size": [3, 2], "key": "a"}',  # as long, but not of these frames
        b'{"indices": [5], "size": [1e400, 3], "key": "a"}',
        b'[]',
        b'\xff',
    ],
)
def test_start_maps_with_a_damaged_head_are_made_again(tmp_path: Path, head: bytes) -> None:
    cache = SimpleNamespace(
        camera=SimpleNamespace(height=2, width=3), rgb=lambda index: np.zeros((2, 3, 3), np.uint8)
    )
    path = tmp_path / 'maps'
    path.write_bytes(head + b'\n' + bytes(12))
    made = reference_maps(cache, [5], lambda rgb: np.ones((2, 3), np.float32), path, 'a')
    np.testing.assert_array_equal(made[5], 1.0)


def test_start_maps_are_predicted_once_and_again_for_another_network(tmp_path: Path) -> None:
    cache, calls = rendered(), []

    def predict(rgb: np.ndarray) -> np.ndarray:
        calls.append(0)
        return rgb[..., 0].astype(np.float32) / 100 + 0.01

    path = tmp_path / 'start.maps'
    made = reference_maps(cache, [3, 5], predict, path, 'a')
    assert list(made) == [3, 5]
    np.testing.assert_allclose(made[5], predict(cache.images[5]), rtol=1e-3)
    del calls[:]
    reference_maps(cache, [5], predict, path, 'a')
    assert not calls
    reference_maps(cache, [5], predict, path, 'b')
    assert len(calls) == 1
    path.write_bytes(path.read_bytes()[:1000])
    reference_maps(cache, [5], predict, path, 'b')
    assert len(calls) == 2


def test_true_depth_of_a_cached_recording_explains_its_images() -> None:
    """Cache, plan and warp agree on cameras, poses and pixels."""
    cache = dataset_samples.cached(dataset_samples.BENT, dataset_samples.HIDDEN)
    truth = dataset_samples.true_depth(dataset_samples.BENT)
    plan = plan_pairs(cache, range(len(cache)), 2.5)
    maps = {
        at: np.nan_to_num(1 / truth[int(cache.stamps_ns[at])]).astype(np.float32)
        for at in plan.targets
    }
    ratios = []
    for factor in (1.0, 1.5):
        scaled = {at: factor * inverse for at, inverse in maps.items()}
        taken = Samples([Footage(cache, plan.targets, start=scaled)], BatchSettings(size=6))
        batch = taken.batch(0)
        images, sources = batch.target.float() / 255, batch.sources.float() / 255
        frames = Frames(images, sources, batch.present, batch.valid, batch.source_valid)
        poses, _ = RecordedPoses()(batch)
        found = photometric_loss(
            batch.start.movedim(1, 0), *pixel_motion(batch.intrinsics, poses), frames
        )
        ratios.append(float(found.per_scale / found.identity))
    assert ratios[0] < 0.45
    assert ratios[1] > 1.2 * ratios[0]
