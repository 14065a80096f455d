"""Geometry of the warp: what is known must come out, whatever is done to images and cameras."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rendered_footage import pair
from rendered_footage import rendered
from torch import Tensor

from depth_node.finetuning import pose
from depth_node.finetuning import regularizers
from depth_node.finetuning import warp
from depth_node.finetuning.augmentation import View
from depth_node.finetuning.photometric import photometric_error

TARGET, SOURCE = 5, 7


def tensor_of(rgb: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].double() / 255.0


def intrinsics_of(camera: object) -> Tensor:
    return torch.tensor([[camera.fx, camera.fy, camera.cx, camera.cy]]).double()


def motion(target: int = TARGET, source: int = SOURCE) -> Tensor:
    return torch.from_numpy(pair(rendered(), target, source).T_source_target)[None, None]


def seen_from_target(view: View | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the warped source, the target, and where it is in view, through a view."""
    cache, view = rendered(), view or View()
    inverse = view.image((1 / cache.depths[TARGET]).astype(np.float32))
    images = [tensor_of(view.image(cache.images[index])) for index in (TARGET, SOURCE)]
    poses = warp.mirrored(motion(), torch.tensor([view.flipped]))
    found, in_view = warp.warped(
        images[1][:, None],
        torch.from_numpy(inverse)[None, None].double(),
        intrinsics_of(view.camera(cache.camera)),
        poses,
    )
    return found[:, 0], images[0], in_view[:, 0]


def test_no_motion_gives_back_the_image() -> None:
    image = tensor_of(rendered().images[0])
    still = torch.eye(4, dtype=torch.float64)[None, None]
    inverse = 0.1 + torch.rand(1, 1, *image.shape[-2:], dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        found, in_view = warp.warped(
            image[:, None].to(dtype),
            inverse.to(dtype),
            intrinsics_of(rendered().camera).to(dtype),
            still.to(dtype),
        )
        # in float32 a pixel is known to 1e-5 only, times the contrast of neighbours
        largest = 1e-6 if dtype == torch.float64 else 2e-5
        assert float((found[:, 0] - image).abs().max()) < largest
        assert in_view[..., 1:-1, 1:-1].all()


def test_true_depth_and_poses_explain_the_images() -> None:
    found, target, in_view = seen_from_target()
    error = photometric_error(found, target)[:, 0]
    still = photometric_error(tensor_of(rendered().images[SOURCE]), target)[:, 0]
    assert in_view.double().mean() > 0.6
    assert error[in_view].median() < 0.02
    assert error[in_view].mean() < 0.4 * still[in_view].mean()


@pytest.mark.parametrize('fault', ['pose inverted', 'pose not moved', 'depth doubled'])
def test_wrong_geometry_explains_them_worse(fault: str) -> None:
    cache = rendered()
    inverse = torch.from_numpy(1 / cache.depths[TARGET])[None, None].double()
    poses = motion()
    if fault == 'pose inverted':
        poses = torch.linalg.inv(poses)
    elif fault == 'pose not moved':
        poses = torch.eye(4).double()[None, None]
    else:
        inverse = 0.5 * inverse
    found, in_view = warp.warped(
        tensor_of(cache.images[SOURCE])[:, None], inverse, intrinsics_of(cache.camera), poses
    )
    right, target, right_view = seen_from_target()
    both = in_view[:, 0] & right_view
    wrong = photometric_error(found[:, 0], target)[:, 0][both].mean()
    assert wrong > 1.5 * photometric_error(right, target)[:, 0][both].mean()


@pytest.mark.parametrize(
    'view',
    [
        View(flipped=True),
        View(left=9.3, top=4.1, zoom=1.25),
        View(left=3.0, top=7.7, zoom=1.2, flipped=True),
    ],
    ids=['flip', 'crop', 'both'],
)
def test_augmentation_commutes_with_the_warp(view: View) -> None:
    before, _, in_view = seen_from_target()
    expected = torch.from_numpy(view.image(before[0].permute(1, 2, 0).numpy().astype(np.float32)))
    found, _, still_in_view = seen_from_target(view)
    known = view.image(in_view[0].numpy().astype(np.float32)) == 1
    both = torch.from_numpy(known) & still_in_view[0]
    apart = (found[0].permute(1, 2, 0) - expected).abs().mean(dim=-1)[both]
    assert both.double().mean() > 0.4
    largest = 1e-6 if view.zoom == 1 else 0.01  # a crop is interpolated once more
    assert apart.median() < largest
    wrong = View(view.left + 2, view.top, view.zoom, view.flipped)
    moved = torch.from_numpy(wrong.image(before[0].permute(1, 2, 0).numpy().astype(np.float32)))
    shifted = (found[0].permute(1, 2, 0) - moved).abs().mean(dim=-1)[both].mean()
    assert apart.mean() < 0.5 * shifted or view.zoom == 1


def test_points_move_with_their_sample() -> None:
    view = View(left=9.3, top=4.1, zoom=1.25, flipped=True)
    camera = rendered().camera
    seen = view.camera(camera)
    u, v = np.array([20.0, 40.0], np.float32), np.array([10.0, 30.0], np.float32)
    across, down = view.pixels(u, v, camera.width)
    # the ray of a point is mirrored, and otherwise the same
    np.testing.assert_allclose((across - seen.cx) / seen.fx, -(u - camera.cx) / camera.fx, 1e-5)
    np.testing.assert_allclose((down - seen.cy) / seen.fy, (v - camera.cy) / camera.fy, 1e-4)


def test_driving_towards_a_wall_expands_its_image() -> None:
    """The source is 0.5 m ahead: what the target sees off centre lies farther out there."""
    ahead = torch.eye(4, dtype=torch.float64)[None, None].clone()
    ahead[..., 2, 3] = -0.5  # points of the target are nearer to the source camera
    inverse = torch.full((1, 1, 11, 11), 1 / 2.0, dtype=torch.float64)
    intrinsics = torch.tensor([[10.0, 10.0, 5.0, 5.0]]).double()
    pixels, depth, _ = warp.projected(inverse, *warp.pixel_motion(intrinsics, ahead))
    torch.testing.assert_close(depth, torch.full_like(depth, 1.5))
    torch.testing.assert_close(pixels[0, 0, 5, 8], torch.tensor([5 + 3 * 2 / 1.5, 5.0]).double())


def test_what_lies_behind_the_source_or_beside_it_is_out_of_view() -> None:
    back = torch.eye(4, dtype=torch.float64).repeat(1, 2, 1, 1)
    back[0, 0, 2, 3], back[0, 1, 0, 3] = -3.0, 9.0
    inverse = torch.full((1, 1, 6, 8), 1 / 2.0, dtype=torch.float64)
    intrinsics = torch.tensor([[8.0, 8, 3.5, 2.5]]).double()
    _, in_view = warp.warped(torch.rand(1, 2, 3, 6, 8).double(), inverse, intrinsics, back)
    assert not in_view.any()


def test_true_depths_of_two_frames_agree_and_scaled_ones_do_not() -> None:
    cache = rendered()
    inverse = torch.stack([torch.from_numpy(1 / cache.depths[i]) for i in (TARGET, SOURCE)])[
        :, None
    ]
    intrinsics, valid = intrinsics_of(cache.camera), torch.ones(1, 64, 96, dtype=torch.bool)

    def apart(source: Tensor) -> float:
        loss = regularizers.geometry_consistency(
            inverse[:1].double(), source.double(), intrinsics, motion(), valid,
            torch.ones(1, 1, dtype=torch.bool),
        )  # fmt: skip
        return float(loss)

    assert apart(inverse[1:]) < 0.03
    assert apart(1.5 * inverse[1:]) > 0.15


def batch_of(poses: Tensor, flipped: bool = False) -> object:
    count = poses.shape[1]
    return SimpleNamespace(
        T_source_target=poses.float(),
        flipped=torch.tensor([flipped]),
        pair=torch.arange(count)[None],
        present=torch.ones(1, count, dtype=torch.bool),
    )


def test_a_residual_of_a_pose_keeps_its_bounds_and_starts_at_nothing() -> None:
    residual = pose.BoundedResidual(1)
    recorded = motion()
    found, penalty = residual(batch_of(recorded))
    torch.testing.assert_close(found, recorded.float(), rtol=0, atol=1e-6)
    ((found * torch.rand_like(found)).sum() + penalty).backward()
    assert torch.isfinite(residual.free.grad).all()
    with torch.no_grad():
        residual.free.copy_(torch.tensor([[50.0, -20, 3, 9, 9, 9]]))
    found, penalty = residual(batch_of(recorded))
    length = recorded[0, 0, :3, 3].norm()
    moved = (found[0, 0, :3, 3] - recorded[0, 0, :3, 3]).norm()
    assert float(moved.detach()) == pytest.approx(0.1 * float(length), rel=1e-3)
    turn = found[0, 0, :3, :3].double() @ recorded[0, 0, :3, :3].T
    angle = torch.arccos(((turn.trace() - 1) / 2).clamp(-1, 1))
    assert float(angle.detach()) == pytest.approx(pose.LARGEST_TURN_RAD, rel=1e-2)
    assert float(penalty.detach()) == pytest.approx(2.0, rel=1e-2)


def test_a_pose_network_gives_the_source_the_motion_of_its_side_in_time() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            # the motion is that of brightness: from the earlier image to the later one
            step = (images[:, 3:] - images[:, :3]).mean(dim=(1, 2, 3))
            shift = torch.stack((0 * step, 0 * step, step), dim=1)[:, None]
            return 0 * shift, shift

    frame = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    others = torch.stack((frame - 51, frame + 51), dim=1)  # before, after
    batch = SimpleNamespace(
        target_view=frame,
        source_views=others,
        intrinsics=torch.zeros(1, 4),
        source_later=torch.tensor([[False, True]]),
        present=torch.ones(1, 2, dtype=torch.bool),
        T_source_target=torch.full((1, 2, 4, 4), float('nan')),
        flipped=torch.tensor([False]),
    )
    found, _ = pose.NetworkPoses(Fixed())(batch)
    # before: inverse of the motion source -> target; after: the motion target -> source
    torch.testing.assert_close(found[0, :, 2, 3], torch.tensor([-0.2, 0.2]), rtol=1e-4, atol=1e-6)
