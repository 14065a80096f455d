"""DIFFNet: disparity from an HRNet whose stages are all handed to the decoder.

Passport
    Paper: Zhou, Greenwood, Taylor, "Self-Supervised Monocular Depth Estimation with Internal
        Feature Fusion", BMVC 2021.
    Original: github.com/brandleyzhou/DIFFNet, commit a4d74f1.
    Licence of the original code: none is given, and parts derive from Monodepth2, whose licence is
        non-commercial.  This file was written from the published description and from measured
        facts; it holds no code of either.
    Licence of the published weights: not stated; they were trained on KITTI, whose terms are
        CC BY-NC-SA 3.0.  They are loaded from where their authors put them, never shipped.
    Same as the original: arithmetic, names of all weights.  The image goes into the network as it
        is, without normalisation.
    Different: every weight of the decoder is there once, under its name in ``decoder``, where the
        released files have a second one in ``convs``; fresh weights are Kaiming normal, where the
        authors start from ImageNet.
    Unused by design: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.networks.blocks import ReflectConv
from depth_node.networks.blocks import ReflectConvElu
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.hrnet import BRANCH_WIDTHS
from depth_node.networks.hrnet import STEM_WIDTH
from depth_node.networks.hrnet import Hrnet
from depth_node.networks.hrnet import HrnetFeatures
from depth_node.networks.monodepth2 import meaning_on_kitti
from depth_node.networks.registry import register
from depth_node.networks.specification import KITTI_EIGEN
from depth_node.networks.specification import Case
from depth_node.networks.specification import Identity
from depth_node.networks.specification import Meaning
from depth_node.networks.specification import NetworkSpec
from depth_node.networks.specification import Release
from depth_node.networks.specification import StateDicts
from depth_node.networks.specification import Traits
from depth_node.networks.specification import kitti_figures
from depth_node.networks.translation import prefixed

_NAME = 'diffnet'
_VARIANT = 'hrnet18'
_TRAITS = Traits(output_kind='disparity', size_multiple=32)

_SQUEEZE = 16
_FUSED_WIDTHS = (256, 128, 64, 32)
_FULL_WIDTH = 16
_SCALES = 4
_FIRST_FUSION, _FIRST_HEAD = 2, 6

# second names of the decoder's layers in the released files, by their place in the decoder
_TWINS = (
    'up_x9_0',
    'up_x9_1',
    '72',
    '36',
    '18',
    '9',
    'dispConvScale0',
    'dispConvScale1',
    'dispConvScale2',
    'dispConvScale3',
)


class ChannelAttention(nn.Module):
    """Factors from 0 to 1 on the channels, from their means over the image.

    Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // _SQUEEZE
        self.fc = nn.Sequential(
            nn.Linear(channels, inner, bias=False),
            nn.ReLU(),
            nn.Linear(inner, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (B, C, H, W)."""
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


class Fusion(nn.Module):
    """Join a coarser feature with all features of one scale, weigh the channels, convolve."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.ca = ChannelAttention(channels_in)
        self.conv_se = nn.Conv2d(channels_in, channels_out, 3, 1, 1)

    def forward(self, coarse: Tensor, fine: Sequence[Tensor]) -> Tensor:
        """Map (B, C, H / 2, W / 2) and several (B, C_i, H, W) to (B, C_out, H, W)."""
        joined = torch.cat((repeated(coarse), *fine), dim=1)
        return F.relu(self.conv_se(self.ca(joined)))


def repeated(x: Tensor) -> Tensor:
    """Return (B, C, H, W) at twice the size, every pixel four times."""
    return F.interpolate(x, scale_factor=2.0, mode='nearest')


class Decoder(nn.Module):
    """Features to disparity logits at four sizes.

    The list holds the two convolutions around full size, the fusions at 1/16, 1/8, 1/4 and 1/2,
    then the heads from full size to 1/8: the order of the released files.
    """

    def __init__(self) -> None:
        super().__init__()
        narrow, second, third, widest = BRANCH_WIDTHS
        beside = (2 * third, 3 * second, STEM_WIDTH + 3 * narrow, STEM_WIDTH)
        coarse = (widest, *_FUSED_WIDTHS[:-1])
        half = _FUSED_WIDTHS[-1]
        self.decoder = nn.ModuleList(
            (
                ReflectConvElu(half, _FULL_WIDTH),
                ReflectConvElu(_FULL_WIDTH, _FULL_WIDTH),
                *(
                    Fusion(high + low, out)
                    for high, low, out in zip(coarse, beside, _FUSED_WIDTHS, strict=True)
                ),
                *(ReflectConv(w, 1) for w in (_FULL_WIDTH, *reversed(_FUSED_WIDTHS[1:]))),
            )
        )
        self.apply(_initialize)

    def forward(self, features: HrnetFeatures) -> list[Tensor]:
        """Return the logits at full, 1/2, 1/4 and 1/8 size, each (B, 1, h, w)."""
        beside = (
            features.of_branch(2),
            features.of_branch(1),
            (features.quarter, *features.of_branch(0)),
            (features.stem,),
        )
        (x,) = features.of_branch(3)
        fused = []
        for fusion, fine in zip(self.decoder[_FIRST_FUSION:_FIRST_HEAD], beside, strict=True):
            x = fusion(x, fine)
            fused.append(x)
        x = self.decoder[1](repeated(self.decoder[0](x)))
        heads = self.decoder[_FIRST_HEAD:]
        return [head(y) for head, y in zip(heads, (x, *reversed(fused[1:])), strict=True)]


class DiffNet(DepthNetwork):
    """Image to sigmoid disparity; inverse depth is 1/max + (1/min - 1/max) times the disparity.

    The outputs are at full, 1/2, 1/4 and 1/8 size, each (B, 1, h, w) in (0, 1).
    """

    def __init__(self) -> None:
        super().__init__(_NAME, _TRAITS)
        self.encoder = Hrnet()
        self.decoder = Decoder()

    def from_normalized(self, x: Tensor) -> list[Tensor]:
        """Return the disparities of an image in [0, 1]."""
        return [torch.sigmoid(logit) for logit in self.decoder(self.encoder(x))]


def _initialize(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(identity: Identity) -> DiffNet:
    """Make a freshly initialised network; see NetworkSpec."""
    return DiffNet()


def infer(files: StateDicts, wanted: str | None) -> Identity:
    """Tell that a released checkpoint is of the only variant."""
    encoder = files.get('encoder', {})
    found = tuple(
        _rows(encoder.get(f'stage4.0.branches.{branch}.0.conv1.weight'))
        for branch in range(len(BRANCH_WIDTHS))
    )
    if found == BRANCH_WIDTHS and wanted in (None, _VARIANT):
        return Identity(_VARIANT)
    called = '' if wanted is None else f', called {quoted(wanted)}'
    raise ModelError(
        'diffnet checkpoint',
        f'an encoder with branches of {", ".join(map(str, found))} channels{called}',
        f'the branches of {_VARIANT}: {", ".join(map(str, BRANCH_WIDTHS))} channels',
        'Check that this is encoder.pth of a DIFFNet release.',
    )


def _rows(weight: object) -> int | None:
    """Return the output channels of a convolution's weight; None: it is none."""
    return weight.shape[0] if isinstance(weight, Tensor) and weight.ndim == 4 else None


def translate(files: StateDicts, identity: Identity) -> dict[str, object]:
    """Put the entries of encoder.pth and depth.pth under the network's names.

    The decoder's tensors are in the files twice, as ``convs.<name>`` and ``decoder.<number>``; one
    is enough, and where both are there the latter counts, because the authors' loader writes it
    last.  Older files have ``convs.<name>fSE.`` and ``.fc.`` where newer ones have
    ``convs.<name>.`` and ``.ca.fc.``; the layers are the same.
    """
    depth = {_newer(key): value for key, value in files.get('depth', {}).items()}
    twins = {_twin(key): value for key, value in depth.items() if key.startswith('convs.')}
    named = {key: value for key, value in depth.items() if not key.startswith('convs.')}
    return prefixed(
        {'encoder': files.get('encoder', {}), 'depth': {**twins, **named}},
        {'encoder': 'encoder', 'depth': 'decoder'},
    )


def _newer(key: str) -> str:
    """Return the name that newer files have for an entry of the decoder."""
    key = re.sub(r'^convs\.(72|36|18|9)fSE\.', r'convs.\1.', key)
    return re.sub(r'^(convs\.(?:72|36|18|9)|decoder\.[2-5])\.fc\.', r'\1.ca.fc.', key)


def _twin(key: str) -> str:
    """Return 'decoder.2.conv_se.bias' for 'convs.72.conv_se.bias'; unknown keys as they are."""
    match = re.fullmatch(r'convs\.([^.]+)\.(.+)', key)
    if match is None or match[1] not in _TWINS:
        return key
    return f'decoder.{_TWINS.index(match[1])}.{match[2]}'


def meaning(identity: Identity, files: StateDicts, size: tuple[int, int]) -> Meaning:
    """Say what the output of a released model means; its training is Monodepth2's."""
    return meaning_on_kitti(files.get('encoder', {}), size)


def probe(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return features, logits and disparities by their names in the conformance vectors."""
    features = network.encoder(network.normalized(image))
    of_branches = [feature for branch in range(4) for feature in features.of_branch(branch)]
    logits = network.decoder(features)
    named = dict(enumerate((features.stem, features.quarter, *of_branches)))
    outputs = {f'feat_{index}': value for index, value in named.items()}
    outputs.update({f'logit_{index}': value for index, value in enumerate(logits)})
    outputs.update({f'disp_{index}': torch.sigmoid(value) for index, value in enumerate(logits)})
    return outputs


def conformance_case(stem: str) -> Case | None:
    """Claim the vectors of the name 'diffnet'."""
    if stem != 'diffnet':
        return None
    identity = Identity(_VARIANT)
    network = build(identity).eval()
    return Case(network, lambda files: translate(files, identity), probe, _TRAITS.tolerance)


_SOURCE = 'https://drive.google.com/file/d/{}/view, linked in github.com/brandleyzhou/DIFFNet'
_Five = tuple[float, float, float, float, float]
_NO_PROTOCOL = 'KITTI Eigen 697; whether scaled by the median is not said'
_REFINED = 'KITTI Eigen 697, after refinement on the test images themselves'
# name, Google Drive's name of the file, protocol, figures in the order of kitti_figures
_PUBLISHED: tuple[tuple[str, str, str, _Five], ...] = (
    (
        '640x192',
        '1ZQPZWsIy_KyjV-Et6FSCOPM4iATjDPn-',
        KITTI_EIGEN,
        (0.102, 0.753, 4.459, 0.179, 0.897),
    ),
    (
        'ms-640x192',
        '1_vh1F_cabTlEjBGXkHZOpAB1CMLmosxg',
        _NO_PROTOCOL,
        (0.101, 0.749, 4.445, 0.179, 0.898),
    ),
    (
        '1024x320',
        '1SuyBMS3ZLYuZwgyGSpmNrag7ESjRUC52',
        KITTI_EIGEN,
        (0.097, 0.722, 4.345, 0.174, 0.907),
    ),
    (
        'ms-1024x320',
        '1VR0BYXKyclvv1Gq2XcQCR-fvJuFQ80SI',
        _NO_PROTOCOL,
        (0.094, 0.678, 4.250, 0.172, 0.911),
    ),
    (
        'ms-ttr-1024x320',
        '1u4pizvk9xZ8bbyWLyjd0m_9hnm_mO9-Q',
        _REFINED,
        (0.079, 0.640, 3.934, 0.159, 0.932),
    ),
)


def _release(name: str, link: str, protocol: str, figures: _Five) -> Release:
    width, height = (int(side) for side in name.rsplit('-', 1)[-1].split('x'))
    return Release(
        name=f'diffnet-{name}',
        identity=Identity(_VARIANT),
        height=height,
        width=width,
        source=_SOURCE.format(link),
        protocol=protocol,
        figures=kitti_figures(*figures),
    )


@register(_NAME)
def specification() -> NetworkSpec:
    """Describe DIFFNet."""
    return NetworkSpec(
        name=_NAME,
        paper=(
            'Zhou, Greenwood, Taylor, Self-Supervised Monocular Depth Estimation with Internal '
            'Feature Fusion, BMVC 2021'
        ),
        origin='github.com/brandleyzhou/DIFFNet, commit a4d74f1',
        code_license='none given',
        weights_license='not stated; trained on KITTI (CC BY-NC-SA 3.0): non-commercial',
        variants={_VARIANT: _TRAITS},
        option_help={},
        parts=('encoder', 'depth'),
        releases=tuple(_release(*row) for row in _PUBLISHED),
        build=build,
        infer=infer,
        translate=translate,
        meaning=meaning,
        conformance_case=conformance_case,
    )
