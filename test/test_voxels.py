"""Thinning keeps one point of every voxel that has any, and loses no voxel."""

from __future__ import annotations

import numpy as np
import pytest

from depth_node import voxels
from depth_node.cloud import CloudPacker
from depth_node.errors import SettingsError
from depth_node.frames import CameraModel
from depth_node.settings import settings_from


def reference(points_m: np.ndarray, voxel_m: float) -> list[int]:
    """Return the first point of each voxel, one by one, in float64."""
    seen: dict[tuple[int, ...], int] = {}
    for number, point in enumerate(points_m[:, :3].astype(np.float64)):
        seen.setdefault(tuple(np.floor(point / voxel_m).astype(int)), number)
    return sorted(seen.values())


@pytest.mark.parametrize('voxel_m', [0.0625, 0.25, 4.0, 64.0])
def test_every_voxel_with_a_point_keeps_exactly_one(voxel_m: float) -> None:
    rng = np.random.default_rng(3)
    points = rng.normal(0.0, 5.0, (4_000, 4)).astype(np.float32)
    # in steps that floats hold exactly, so that no rounding decides about a voxel
    points = np.round(points * 256) / np.float32(256)
    points = np.concatenate([points, points[::-1]])
    assert voxels.first_in_each(points, voxel_m).tolist() == reference(points, voxel_m)


def test_voxels_that_meet_in_a_place_of_the_table_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(voxels, '_LARGEST_TABLE_BITS', 3)
    points = np.random.default_rng(4).uniform(-2.0, 2.0, (500, 3)).astype(np.float32)
    points = np.round(points * 256) / np.float32(256)
    assert voxels.first_in_each(points, 0.25).tolist() == reference(points, 0.25)


def test_no_points_are_no_points() -> None:
    assert len(voxels.first_in_each(np.empty((0, 4), np.float32), 0.1)) == 0


def test_far_points_in_small_voxels_are_kept_apart() -> None:
    points = np.array([[0, 0, 900.0], [0, 0, 900.25], [-900, 0, 900], [900, 0, 900]], np.float32)
    assert voxels.first_in_each(points, 0.001).tolist() == [0, 1, 2, 3]


def test_a_thinned_cloud_is_the_chosen_points_with_their_colours() -> None:
    rng = np.random.default_rng(5)
    camera = CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5)
    depth_m = rng.uniform(1.0, 3.0, (48, 64)).astype(np.float32)
    depth_m[::5, ::3] = np.nan
    rgb = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    full = CloudPacker(camera, organized=False, color=True, stride=1).pack(depth_m, rgb)
    points = np.frombuffer(bytes(full.data), np.float32).reshape(-1, 4)
    thin = CloudPacker(camera, organized=False, color=True, stride=1, voxel_m=0.5)
    packed = thin.pack(depth_m, rgb)
    chosen = voxels.first_in_each(points, 0.5)
    assert 0 < packed.width == len(chosen) < len(points) / 5
    assert (packed.height, packed.is_dense) == (1, True)
    # bytes: colours read as floats may be NaN
    assert bytes(packed.data) == points[chosen].tobytes()


def test_what_thinning_cannot_do_is_refused_with_a_sentence() -> None:
    with pytest.raises(SettingsError, match=r'points\.organized false.*no rows and columns'):
        settings_from({'points.voxel_m': 0.05})
    with pytest.raises(SettingsError, match=r'points\.voxel_m.*0\.001 to 10'):
        settings_from({'points.voxel_m': 1e-5, 'points.organized': False})
    with pytest.raises(SettingsError, match=r'points\.voxel_m'):
        CloudPacker(CameraModel(4, 3, 5, 5, 2, 1), organized=True, color=True, stride=1, voxel_m=1)
    with pytest.raises(SettingsError, match=r'points\.voxel_m'):
        voxels.first_in_each(np.zeros((1, 3), np.float32), float('nan'))
