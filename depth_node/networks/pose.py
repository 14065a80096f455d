"""Camera motion between two images: the pose networks of Monodepth2, and poses as matrices.

Passport
    Paper: Godard, Mac Aodha, Firman, Brostow, "Digging into Self-Supervised Monocular Depth
        Estimation", ICCV 2019; :class:`PoseCnn` follows Zhou et al., CVPR 2017.
    Original: github.com/nianticlabs/monodepth2, commit b676244.
    Licence of the original code and of the published weights: Niantic's, non-commercial.  This
        file was written from the published description and from measured facts; it holds no code
        of theirs, and their weights are never shipped.
    Same as the original: arithmetic, names of all weights.
    Different: fresh ResNets are Kaiming normal, where the authors start from ImageNet.
    Unused by design: nothing.

Both networks take the earlier image first.  An axis-angle vector is a rotation axis times the
angle in radians; a translation is in the unit of the depth with which the network was trained,
which is arbitrary after training on video alone and 5.4 metres after the authors' stereo training.
Camera frames have x right, y down, z forward.  Pair 0 of the result is the motion that training
uses: :func:`pose_matrix` of it takes points from the camera frame of the earlier image into that
of the later one.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.networks.resnet import ResNet
from depth_node.networks.resnet import ResNetLayout
from depth_node.networks.specification import StateDicts
from depth_node.networks.translation import prefixed

CLASSIFIER = re.compile(r'encoder\.fc\.(weight|bias)')
"""Entries of released encoders that no forward pass reads."""

_MEAN, _STD = 0.45, 0.225
_GAIN = 0.01
_WIDTH = 256
_PAIRS = 2
_CNN_LAYERS = ((16, 7), (32, 5), (64, 3), (128, 3), (256, 3), (256, 3), (256, 3))
_AXIS_EPS = 1e-7


class PoseNet(nn.Module):
    """ResNet over both images at once, and four convolutions.

    It gives two motions per pair of images; training uses the first alone.

    :param layout: size of the ResNet.
    """

    def __init__(self, layout: ResNetLayout) -> None:
        super().__init__()
        self.encoder = ResNet(layout, channels_in=6)
        self.net = nn.ModuleList(
            (
                nn.Conv2d(layout.channels[-1], _WIDTH, 1),
                nn.Conv2d(_WIDTH, _WIDTH, 3, 1, 1),
                nn.Conv2d(_WIDTH, _WIDTH, 3, 1, 1),
                nn.Conv2d(_WIDTH, 6 * _PAIRS, 1),
            )
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the motions between two images.

        :param images: (B, 6, H, W), RGB in [0, 1] of the earlier image, then of the later.
        :returns: axis-angle (B, 2, 3), radians, and translation (B, 2, 3), units of the depth.
        """
        x = self.encoder((images - _MEAN) / _STD)[-1]
        for layer in self.net[:-1]:
            x = F.relu(layer(x))
        return _motions(self.net[-1](x), _PAIRS)


class PoseCnn(nn.Module):
    """Seven convolutions of stride 2 over both images, which are not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleList()
        channels_in = 6
        for channels_out, kernel in _CNN_LAYERS:
            self.net.append(nn.Conv2d(channels_in, channels_out, kernel, 2, kernel // 2))
            channels_in = channels_out
        self.pose_conv = nn.Conv2d(channels_in, 6, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the motion between two images.

        :param images: (B, 6, H, W), RGB in [0, 1] of the earlier image, then of the later.
        :returns: axis-angle (B, 1, 3), radians, and translation (B, 1, 3), units of the depth.
        """
        x = images
        for layer in self.net:
            x = F.relu(layer(x))
        return _motions(self.pose_conv(x), 1)


def _motions(x: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Return the mean over the image of (B, 6 * pairs, H, W), split into (B, pairs, 3) twice."""
    mean = _GAIN * x.mean(dim=(2, 3)).reshape(-1, pairs, 6)
    return mean[..., :3], mean[..., 3:]


def translate_pose(files: StateDicts) -> dict[str, object]:
    """Put the entries of pose_encoder.pth and pose.pth, or of pose.pth alone, under our names."""
    return prefixed(files, {'pose_encoder': '', 'pose': ''}, CLASSIFIER)


def pose_matrix(axis_angle: Tensor, translation: Tensor) -> Tensor:
    """Return the motion x' = R x + t as a matrix, or matrices.

    :param axis_angle: (..., 3), radians.
    :param translation: (..., 3), t.
    :returns: (..., 4, 4); of pair 0 of a pose network: earlier camera frame -> later one.
    """
    return _affine(rotation_matrix(axis_angle), translation)


def inverse_pose_matrix(axis_angle: Tensor, translation: Tensor) -> Tensor:
    """Return the inverse of :func:`pose_matrix`, x = R^T (x' - t), without inverting a matrix.

    :param axis_angle: (..., 3), radians.
    :param translation: (..., 3), t.
    :returns: (..., 4, 4); of pair 0 of a pose network: later camera frame -> earlier one.
    """
    back = rotation_matrix(axis_angle).transpose(-2, -1)
    return _affine(back, -(back * translation[..., None, :]).sum(dim=-1))


def rotation_matrix(axis_angle: Tensor) -> Tensor:
    """Return the rotation about an axis, by Rodrigues' formula.

    With the angle a = |v| and the axis n = v / (a + 1e-7):
    R = cos(a) I + (1 - cos(a)) n n^T + sin(a) [n]x.

    :param axis_angle: (..., 3), v, radians; zero gives the identity, and a finite gradient.
    :returns: (..., 3, 3), orthogonal to about 1e-7 / a.
    """
    angle = torch.linalg.vector_norm(axis_angle, dim=-1, keepdim=True)
    axis = axis_angle / (angle + _AXIS_EPS)
    cosine, sine = angle.cos()[..., None], angle.sin()[..., None]
    identity = torch.eye(3, dtype=axis.dtype, device=axis.device)
    outer = axis[..., :, None] * axis[..., None, :]
    return cosine * identity + (1 - cosine) * outer + sine * _cross_product(axis)


def _cross_product(axis: Tensor) -> Tensor:
    """Return [n]x, (..., 3, 3): its product with p is the cross product of n and p."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    rows = ((zero, -z, y), (z, zero, -x), (-y, x, zero))
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _affine(linear: Tensor, shift: Tensor) -> Tensor:
    """Return [linear shift; 0 1], (..., 4, 4)."""
    top = torch.cat((linear, shift[..., None]), dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat((top, bottom), dim=-2)
