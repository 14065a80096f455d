"""The losses give the numbers of the official implementations, and gradients that are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from depth_node.finetuning import distillation
from depth_node.finetuning import photometric
from depth_node.finetuning import regularizers
from depth_node.finetuning import warp
from depth_node.finetuning.photometric_gradient import Frames
from depth_node.finetuning.photometric_gradient import box_mean
from depth_node.finetuning.photometric_gradient import box_mean_adjoint
from depth_node.finetuning.photometric_gradient import photometric_loss

VECTORS = Path(__file__).parent / 'data' / 'conformance' / 'losses.npz'
LOW, HIGH = 1 / 100, 1 / 0.1


@pytest.fixture(scope='module')
def official() -> dict[str, Tensor]:
    """Inputs and results of the official code, float32."""
    with np.load(VECTORS) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def intrinsics_of(official: dict[str, Tensor]) -> Tensor:
    k = official['K']
    return torch.stack((k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]), dim=1)


def poses_of(official: dict[str, Tensor]) -> Tensor:
    return torch.stack((official['T_warp_inv'], official['T_warp']), dim=1)


def sources_of(official: dict[str, Tensor]) -> Tensor:
    return torch.stack((official['in_frame_m1'], official['in_frame_p1']), dim=1)


def test_the_warp_is_the_official_one(official: dict[str, Tensor]) -> None:
    inverse = 1 / official['in_depth']
    intrinsics, poses = intrinsics_of(official), poses_of(official)
    pixels, _, _ = warp.projected(inverse, *warp.pixel_motion(intrinsics, poses))
    height, width = inverse.shape[-2:]
    normalised = 2 * pixels / torch.tensor((width - 1.0, height - 1.0)) - 1
    seen, _ = warp.warped(sources_of(official), inverse, intrinsics, poses)
    for index, name in enumerate(('m1', 'p1')):
        torch.testing.assert_close(
            normalised[:, index], official[f'pix_coords_{name}'], rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(seen[:, index], official[f'warped_{name}'], rtol=0, atol=2e-4)


def test_the_photometric_error_is_the_official_one(official: dict[str, Tensor]) -> None:
    target = official['in_target']
    ssim = photometric.dissimilarity(official['warped_p1'], target)[..., ::4, ::4]
    torch.testing.assert_close(ssim, official['ssim_map'], rtol=0, atol=1e-5)
    errors, standing = [], []
    for name in ('m1', 'p1'):
        error = photometric.photometric_error(official[f'warped_{name}'], target)
        torch.testing.assert_close(error, official[f'reproj_{name}'], rtol=0, atol=1e-5)
        errors.append(error)
        standing.append(photometric.photometric_error(official[f'in_frame_{name}'], target))
    found, still = torch.cat(errors, dim=1), torch.cat(standing, dim=1)
    torch.testing.assert_close(still, official['identity'], rtol=0, atol=1e-5)
    everywhere = torch.ones(found.shape[0], *found.shape[-2:], dtype=torch.bool)
    best, _ = photometric.smallest_error(found, None)
    torch.testing.assert_close(
        photometric.mean_of(best, everywhere), official['min_reproj'], rtol=1e-5, atol=0
    )
    best, won = photometric.smallest_error(found, still + official['in_noise'])
    torch.testing.assert_close(
        photometric.mean_of(best, everywhere), official['automask_loss'], rtol=1e-5, atol=0
    )
    assert torch.equal(won.float(), official['automask'])


@pytest.mark.parametrize('scale', range(4))
def test_smoothness_is_the_official_one(official: dict[str, Tensor], scale: int) -> None:
    found = regularizers.edge_aware_smoothness(
        official[f'in_disp_s{scale}'], official[f'in_color_s{scale}']
    )
    torch.testing.assert_close(found, official[f'smooth_s{scale}'], rtol=1e-5, atol=0)


def half_pixel_fault(height: int, width: int) -> Tensor:
    """Where the official trainer really samples: its grid is made for other corners.

    Its pixels u become u W / (W - 1) - 1/2, because grid_sample has changed its default since.
    """
    across, down = width / (width - 1), height / (height - 1)
    return torch.tensor([[across, 0.0, -0.5], [0.0, down, -0.5], [0.0, 0.0, 1.0]])


def test_the_whole_loss_of_all_scales_is_the_official_one(official: dict[str, Tensor]) -> None:
    target = official['in_target']
    size = target.shape[-2:]
    disparities = [0.05 + 0.1 * official[f'in_disp_s{scale}'] for scale in range(4)]
    full = [F.interpolate(d, size, mode='bilinear', align_corners=False) for d in disparities]
    inverse = torch.stack([LOW + (HIGH - LOW) * d[:, 0] for d in full])
    everywhere = torch.ones(2, *size, dtype=torch.bool)
    frames = Frames(target, sources_of(official), torch.ones(2, 2, dtype=torch.bool), everywhere)
    turned, shift = warp.pixel_motion(intrinsics_of(official), poses_of(official))
    fault = half_pixel_fault(*size)
    motion = (fault @ turned, (fault @ shift[..., None])[..., 0])
    found = photometric_loss(inverse, *motion, frames, in_view_only=False).per_scale
    losses = []
    for scale in range(4):
        smooth = regularizers.edge_aware_smoothness(
            disparities[scale], official[f'in_color_s{scale}']
        )
        losses.append(found[scale] + 1e-3 / 2**scale * smooth)
        torch.testing.assert_close(losses[-1], official[f'full_loss_{scale}'], rtol=2e-5, atol=0)
    torch.testing.assert_close(
        torch.stack(losses).mean(), official['full_loss'], rtol=2e-5, atol=0
    )


def test_losses_of_unknown_scale_and_shift_are_those_of_the_paper(
    official: dict[str, Tensor],
) -> None:
    prediction, target = official['in_midas_pred'], official['in_midas_target']
    mask = official['in_midas_mask']
    scale, shift = distillation.least_squares_fit(prediction, target, mask)
    torch.testing.assert_close(scale, official['ssi_scale'], rtol=1e-4, atol=0)
    torch.testing.assert_close(shift, official['ssi_shift'], rtol=1e-4, atol=0)
    mse = distillation.scale_shift_invariant_mse(prediction, target, mask)
    torch.testing.assert_close(mse, official['ssi_mse_per_image'], rtol=1e-4, atol=0)
    torch.testing.assert_close(mse.mean(), official['ssi_mse_image_mean'], rtol=1e-4, atol=0)
    residual = scale[:, None, None] * prediction + shift[:, None, None] - target
    matching = distillation.gradient_matching_by_scale(residual, mask)
    torch.testing.assert_close(matching, official['grad_match_per_scale_image'], rtol=1e-4, atol=0)
    torch.testing.assert_close(
        matching.mean(dim=1).sum(), official['grad_match_image'], rtol=1e-4, atol=0
    )
    trimmed = distillation.trimmed_mae(prediction, target, mask)
    torch.testing.assert_close(trimmed, official['trimmed_mae_per_image'], rtol=1e-4, atol=0)
    torch.testing.assert_close(trimmed.mean(), official['trimmed_mae'], rtol=1e-4, atol=0)


def test_the_fast_box_filter_and_its_adjoint_belong_together() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.rand(2, 5, 7, generator=g, dtype=torch.float64)
    w = torch.rand(2, 5, 7, generator=g, dtype=torch.float64)
    slow = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode='reflect'), 3, 1)
    torch.testing.assert_close(box_mean(x), slow)
    torch.testing.assert_close((box_mean(x) * w).sum(), (x * box_mean_adjoint(w)).sum())


def scene(seed: int, size: tuple[int, int] = (9, 12)) -> tuple[Tensor, Tensor, Tensor, Frames]:
    """Return smooth random frames, inverse depths (2, B, H, W) and motion, float64."""
    g = torch.Generator().manual_seed(seed)
    kind = {'generator': g, 'dtype': torch.float64}
    coarse = torch.rand(2, 9, 4, 5, **kind)
    images = F.interpolate(coarse, size, mode='bicubic', align_corners=True).clamp(0, 1)
    images = images + 0.05 * torch.rand(images.shape, **kind)
    inverse = 0.3 + 0.4 * torch.rand(2, 2, *size, **kind)
    intrinsics = torch.tensor([[10.0, 11.0, 5.2, 4.1], [9.0, 9.5, 5.9, 3.7]]).double()
    poses = torch.eye(4, dtype=torch.float64).repeat(2, 2, 1, 1)
    poses[:, :, :3, 3] = 0.3 * (torch.rand(2, 2, 3, **kind) - 0.5)
    poses[:, :, 0, 1], poses[:, :, 1, 0] = 0.02, -0.02
    valid = torch.rand(2, *size, generator=g) > 0.1
    present = torch.tensor([[True, True], [True, False]])
    sources = images[:, 3:].reshape(2, 2, 3, *size)
    frames = Frames(
        images[:, :3], sources, present, valid, torch.rand(2, *size, generator=g) > 0.02
    )
    return inverse, *warp.pixel_motion(intrinsics, poses), frames


def by_formula(
    inverse: Tensor, turned: Tensor, shift: Tensor, frames: Frames, auto_mask: bool
) -> Tensor:
    """The photometric loss of one scale as its formulas say."""
    pixels, _, in_view = warp.projected(inverse[:, None], turned, shift)
    count = frames.sources.shape[1]
    seen = warp.sampled(frames.sources.flatten(0, 1), pixels.flatten(0, 1))
    target = frames.target[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
    shape = (-1, count, *inverse.shape[-2:])
    world = frames.source_valid[:, None].expand(-1, count, -1, -1).flatten(0, 1)[:, None]
    whole = warp.sampled(world.to(inverse), pixels.flatten(0, 1)).reshape(shape) > 0.999
    there = frames.present[:, :, None, None]
    errors = photometric.photometric_error(seen, target).reshape(shape)
    errors = errors.masked_fill(~(in_view & whole & there), float('inf'))
    standing = photometric.photometric_error(frames.sources.flatten(0, 1), target).reshape(shape)
    standing = standing.masked_fill(~there, float('inf'))
    best, _ = photometric.smallest_error(errors, standing if auto_mask else None)
    return photometric.mean_of(best, frames.valid)


@pytest.mark.parametrize('auto_mask', [True, False])
@pytest.mark.parametrize('block', [1, 2])
def test_the_gradient_by_hand_is_that_of_the_formulas(auto_mask: bool, block: int) -> None:
    inverse, turned, shift, frames = scene(3)
    inputs = [value.requires_grad_() for value in (inverse, turned, shift)]
    weights = torch.tensor([0.7, 1.9], dtype=torch.float64)
    fast = photometric_loss(*inputs, frames, auto_mask=auto_mask, block=block).per_scale
    slow = torch.stack([by_formula(d, turned, shift, frames, auto_mask) for d in inverse])
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=0)
    mine = torch.autograd.grad((fast * weights).sum(), inputs)
    theirs = torch.autograd.grad((slow * weights).sum(), inputs)
    for value, expected in zip(mine, theirs, strict=True):
        assert float(expected.abs().max()) > 0
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


def test_the_losses_pass_a_numerical_check_of_their_gradients() -> None:
    inverse, turned, shift, frames = scene(5, (5, 6))
    turned, shift = turned.detach().requires_grad_(), shift.detach().requires_grad_()
    inverse = inverse.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda d, a, k: photometric_loss(d, a, k, frames).per_scale, (inverse, turned, shift),
        eps=1e-7, atol=1e-5, rtol=1e-3,
    )  # fmt: skip
    target, mask = torch.rand_like(inverse[0]), frames.valid
    prediction = inverse[0].detach().requires_grad_()
    for loss in (distillation.distillation_loss, distillation.trimmed_mae):
        assert torch.autograd.gradcheck(lambda d, f=loss: f(d, target, mask), prediction)
    pixels = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]]] * 2).double()
    depth = torch.tensor([[2.0, 1.0, float('nan')], [3.0, 3.0, 3.0]]).double()
    assert torch.autograd.gradcheck(
        lambda d: distillation.sparse_log_depth(d[:, None], pixels, depth), prediction
    )


def test_an_image_without_any_reference_costs_nothing_and_has_a_finite_gradient() -> None:
    inverse = torch.rand(2, 1, 6, 8).requires_grad_()
    nothing = torch.full((2, 5), float('nan'))
    loss = distillation.sparse_log_depth(inverse, torch.full((2, 5, 2), float('nan')), nothing)
    empty = torch.zeros(2, 6, 8, dtype=torch.bool)
    loss = loss.sum() + distillation.distillation_loss(inverse[:, 0], torch.rand(2, 6, 8), empty)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.isfinite(inverse.grad).all()


def test_one_beam_in_ten_may_be_wrong() -> None:
    pixels = torch.stack((torch.arange(10.0), torch.zeros(10)), dim=1)[None]
    depth = torch.full((1, 10), 2.0)
    depth[0, 3] = 60.0
    inverse = torch.full((1, 1, 4, 10), 0.5)
    assert float(distillation.sparse_log_depth(inverse, pixels, depth)) == pytest.approx(
        0, abs=1e-6
    )
    assert float(distillation.sparse_log_depth(inverse, pixels, depth, trimmed=0.0)) > 0.3
