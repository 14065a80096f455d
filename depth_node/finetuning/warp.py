"""Looking at a source image from the target camera: projection, in-view mask, sampling.

Convention: pixel centres are integers, the image covers 0 to W - 1 between the centres of its
outer columns, and ``grid_sample`` is always called with ``align_corners=True``.  Poses are
T_source_target, (4, 4): they map points of the target camera to the source camera; x right,
y down, z forward.  Everything is projected from inverse depth d, because then

    z_target^-1 (K R K^-1 [u, v, 1] z_target + K t) = A [u, v, 1] + d k,    A = K R K^-1,  k = K t

is affine in what networks give, A [u, v, 1] is the same for all scales of a network, and depth at
infinity is an ordinary value.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NEAREST_RATIO = 1e-3
"""Smallest depth in the source camera, as a share of the depth in the target camera, that counts
as in front of it."""


def camera_matrix(intrinsics: Tensor) -> Tensor:
    """Return K, (..., 3, 3), of (..., 4) fx, fy, cx, cy in pixels."""
    fx, fy, cx, cy = intrinsics.unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = ((fx, zero, cx), (zero, fy, cy), (zero, zero, one))
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def inverse_camera_matrix(intrinsics: Tensor) -> Tensor:
    """Return K^-1, (..., 3, 3), of (..., 4) fx, fy, cx, cy in pixels."""
    fx, fy, cx, cy = intrinsics.unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = ((1 / fx, zero, -cx / fx), (zero, 1 / fy, -cy / fy), (zero, zero, one))
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def pixel_motion(intrinsics: Tensor, T_source_target: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N803
    """Return A = K R K^-1 and k = K t.

    :param intrinsics: (B, 4) fx, fy, cx, cy of both images, pixels.
    :param T_source_target: (B, N, 4, 4), metres.
    :returns: (B, N, 3, 3) and (B, N, 3), pixels and pixel metres.
    """
    forward = camera_matrix(intrinsics)[:, None]
    back = inverse_camera_matrix(intrinsics)[:, None]
    turned = forward @ T_source_target[..., :3, :3] @ back
    return turned, (forward @ T_source_target[..., :3, 3:])[..., 0]


def far_points(turned: Tensor, height: int, width: int) -> Tensor:
    """Return A [u, v, 1] of every pixel, (..., 3, H, W), for A of (..., 3, 3)."""
    u = torch.arange(width, dtype=turned.dtype, device=turned.device)
    v = torch.arange(height, dtype=turned.dtype, device=turned.device)
    along_u = turned[..., 0, None, None] * u
    along_v = turned[..., 1, None, None] * v[:, None] + turned[..., 2, None, None]
    return along_u + along_v


def projected(
    inverse_depth: Tensor, turned: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the pixels of the target lie in the sources.

    :param inverse_depth: (B, 1, H, W), 1 / metres.
    :param turned: (B, N, 3, 3), A of :func:`pixel_motion`.
    :param shift: (B, N, 3), k of :func:`pixel_motion`.
    :returns: pixels (B, N, H, W, 2); their depth in the source, metres, (B, N, H, W); in_view
        (B, N, H, W) bool, which is also False behind the camera.
    """
    height, width = inverse_depth.shape[-2:]
    d = inverse_depth[:, :, None]
    q = far_points(turned, height, width) + d * shift[..., None, None]
    ahead = q[:, :, 2].clamp_min(NEAREST_RATIO)
    pixels = torch.stack((q[:, :, 0] / ahead, q[:, :, 1] / ahead), dim=-1)
    in_view = q[:, :, 2] > NEAREST_RATIO
    for axis, size in ((0, width), (1, height)):
        in_view = in_view & (pixels[..., axis] >= 0) & (pixels[..., axis] <= size - 1)
    return pixels, ahead / d[:, :, 0].clamp_min(1e-9), in_view


def sampled(images: Tensor, pixels: Tensor) -> Tensor:
    """Return images at pixels, bilinear; beyond the border its value.

    :param images: (N, C, H, W).
    :param pixels: (N, h, w, 2), u and v.
    :returns: (N, C, h, w).
    """
    height, width = images.shape[-2:]
    size = pixels.new_tensor((width - 1, height - 1))
    return F.grid_sample(
        images, pixels * (2 / size) - 1, mode='bilinear', padding_mode='border', align_corners=True
    )


def warped(
    sources: Tensor,
    inverse_depth: Tensor,
    intrinsics: Tensor,
    T_source_target: Tensor,  # noqa: N803
) -> tuple[Tensor, Tensor]:
    """Return the sources as the target camera would have seen them.

    :param sources: (B, N, C, H, W).
    :param inverse_depth: (B, 1, H, W) of the target, 1 / metres.
    :param intrinsics: (B, 4) fx, fy, cx, cy of all of them, pixels.
    :param T_source_target: (B, N, 4, 4), metres.
    :returns: (B, N, C, H, W) and in_view (B, N, H, W) bool.
    """
    pixels, _, in_view = projected(inverse_depth, *pixel_motion(intrinsics, T_source_target))
    seen = sampled(sources.flatten(0, 1), pixels.flatten(0, 1))
    return seen.reshape(sources.shape), in_view


def mirrored(T_source_target: Tensor, flipped: Tensor) -> Tensor:  # noqa: N803
    """Return the poses between images that were flipped left to right: S T S, S = diag(-1, 1, 1).

    :param T_source_target: (B, N, 4, 4).
    :param flipped: (B,) bool, which samples were flipped.
    """
    sign = torch.ones(flipped.shape[0], 4, dtype=T_source_target.dtype, device=flipped.device)
    sign[:, 0] = torch.where(flipped, -1.0, 1.0).to(sign.dtype)
    return sign[:, None, :, None] * T_source_target * sign[:, None, None, :]
