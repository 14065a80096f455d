"""Monodepth2: a ResNet and a convolutional decoder, the baseline of self-supervised depth.

Passport
    Paper: Godard, Mac Aodha, Firman, Brostow, "Digging into Self-Supervised Monocular Depth
        Estimation", ICCV 2019.
    Original: github.com/nianticlabs/monodepth2, commit b676244.
    Licence of the original code and of the published weights: Niantic's, non-commercial use only
        (it also speaks of a pending patent).  This file was written from the published description
        and from measured facts; it holds no code of theirs.  The weights are loaded from where
        their authors put them, never shipped; they were trained on KITTI, whose terms are
        CC BY-NC-SA 3.0.
    Same as the original: arithmetic, names of all weights.
    Different: fresh ResNets are Kaiming normal, where the authors start from ImageNet.  The pose
        networks are in pose.py.
    Unused by design: nothing; the classifier ``encoder.fc`` of the released files is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Sequence

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder import OutputSpec
from depth_node.networks.blocks import ReflectConv
from depth_node.networks.blocks import ReflectConvElu
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.pose import CLASSIFIER
from depth_node.networks.pose import PoseCnn
from depth_node.networks.pose import PoseNet
from depth_node.networks.pose import translate_pose
from depth_node.networks.registry import register
from depth_node.networks.resnet import RESNET_18
from depth_node.networks.resnet import RESNET_50
from depth_node.networks.resnet import ResNet
from depth_node.networks.resnet import ResNetLayout
from depth_node.networks.specification import KITTI_EIGEN
from depth_node.networks.specification import Case
from depth_node.networks.specification import Identity
from depth_node.networks.specification import Meaning
from depth_node.networks.specification import NetworkSpec
from depth_node.networks.specification import Release
from depth_node.networks.specification import StateDicts
from depth_node.networks.specification import Traits
from depth_node.networks.translation import prefixed

LAYOUTS: Mapping[str, ResNetLayout] = {'resnet18': RESNET_18, 'resnet50': RESNET_50}

_NAME = 'monodepth2'
_TRAITS = Traits(
    output_kind='disparity', size_multiple=32, mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225)
)

_WIDTHS = (16, 32, 64, 128, 256)
_SCALES = 4
# a border can be mirrored only where there is a second pixel, and the last feature is at 1/32
_SMALLEST_SIDE_PX = 64

_BLOCK = re.compile(r'encoder\.layer([1-4])\.(\d+)\.conv1\.weight')

# KITTI's focal length by the width of the image, and its baseline of 0.54 m by the 0.1 units that
# the authors train with
_FOCAL_PER_WIDTH = 0.58
_STEREO_SCALE = 5.4


class Decoder(nn.Module):
    """Features to disparity logits at four sizes.

    The list holds two convolutions per scale from the coarsest on, then the four heads from the
    finest on: the order of the released files.

    :param channels: channels of the features at 1/2, 1/4, 1/8, 1/16 and 1/32.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        before = (*_WIDTHS[1:], channels[-1])
        skipped = (0, *channels[:-1])
        layers: list[nn.Module] = []
        for scale in reversed(range(len(_WIDTHS))):
            layers.append(ReflectConvElu(before[scale], _WIDTHS[scale]))
            layers.append(ReflectConvElu(_WIDTHS[scale] + skipped[scale], _WIDTHS[scale]))
        heads = [ReflectConv(width, 1) for width in _WIDTHS[:_SCALES]]
        self.decoder = nn.ModuleList([*layers, *heads])

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the logits at full, 1/2, 1/4 and 1/8 size, each (B, 1, h, w)."""
        steps = len(_WIDTHS)
        layers, heads = self.decoder[: 2 * steps], self.decoder[2 * steps :]
        x = features[-1]
        logits = []
        for step, scale in enumerate(reversed(range(steps))):
            x = F.interpolate(layers[2 * step](x), scale_factor=2.0, mode='nearest')
            if scale > 0:
                x = torch.cat((x, features[scale - 1]), dim=1)
            x = layers[2 * step + 1](x)
            if scale < _SCALES:
                logits.append(heads[scale](x))
        return logits[::-1]


class Monodepth2(DepthNetwork):
    """Image to sigmoid disparity; inverse depth is 1/max + (1/min - 1/max) times the disparity.

    The outputs are at full, 1/2, 1/4 and 1/8 size, each (B, 1, h, w) in (0, 1).

    :param layout: size of the ResNet.
    """

    def __init__(self, layout: ResNetLayout) -> None:
        super().__init__(_NAME, _TRAITS)
        self.encoder = ResNet(layout)
        self.decoder = Decoder(layout.channels)

    def check_size(self, height: int, width: int) -> None:
        """Refuse sides that are no multiples of 32 or below 64 pixels; see DepthNetwork."""
        super().check_size(height, width)
        if min(height, width) < _SMALLEST_SIDE_PX:
            raise ModelError(
                _NAME,
                f'an input of {width}x{height} pixels',
                f'sides of at least {_SMALLEST_SIDE_PX} pixels',
            )

    def from_normalized(self, x: Tensor) -> list[Tensor]:
        """Return the disparities of a normalised image."""
        return [torch.sigmoid(logit) for logit in self.decoder(self.encoder(x))]


def build(identity: Identity) -> Monodepth2:
    """Make a freshly initialised network; see NetworkSpec."""
    return Monodepth2(LAYOUTS[identity.variant])


def infer(files: StateDicts, wanted: str | None) -> Identity:
    """Tell the size of the ResNet of a released checkpoint by its names and shapes."""
    encoder = files.get('encoder', {})
    stem = encoder.get('encoder.conv1.weight')
    channels = stem.shape[1] if isinstance(stem, Tensor) and stem.ndim == 4 else None
    found = [match for key in encoder if (match := _BLOCK.fullmatch(key))]
    blocks = tuple(sum(match[1] == stage for match in found) for stage in '1234')
    bottleneck = 'encoder.layer1.0.conv3.weight' in encoder
    for variant, layout in LAYOUTS.items():
        fits = channels == 3 and (layout.blocks, layout.bottleneck) == (blocks, bottleneck)
        if fits and wanted in (None, variant):
            return Identity(variant)
    kind = 'bottleneck' if bottleneck else 'basic'
    raise ModelError(
        'monodepth2 checkpoint',
        f'an encoder with {channels} input channels and {", ".join(map(str, blocks))} {kind} '
        'blocks in its stages',
        f'3 input channels and the blocks of {_wanted_blocks(wanted)}',
        'Check that this is encoder.pth of a Monodepth2 release, not pose_encoder.pth.',
    )


def _wanted_blocks(wanted: str | None) -> str:
    """Name the block counts that were expected."""
    chosen = {name: layout for name, layout in LAYOUTS.items() if wanted in (None, name)}
    named = (f'{name} ({", ".join(map(str, x.blocks))})' for name, x in chosen.items())
    return ' or '.join(named) or f'{quoted(wanted)}, which is no variant'


def translate(files: StateDicts, identity: Identity) -> dict[str, object]:
    """Put the entries of encoder.pth and depth.pth under the network's names."""
    return prefixed(files, {'encoder': '', 'depth': 'decoder'}, CLASSIFIER)


def meaning(identity: Identity, files: StateDicts, size: tuple[int, int]) -> Meaning:
    """Say what the output of a released model means; see :func:`meaning_on_kitti`."""
    return meaning_on_kitti(files.get('encoder', {}), size)


def meaning_on_kitti(encoder: Mapping[str, object], size: tuple[int, int]) -> Meaning:
    """Say what a disparity means that was trained as Monodepth2's is, on KITTI.

    With stereo pairs in training the scale is known: by the authors' convention 5.4 metres are one
    unit of depth.  It holds for the camera of training, whose focal length is 0.58 times the width
    that the file carries; images of another camera are converted by their focal length.

    :param encoder: entries of encoder.pth; 'use_stereo' and 'width' are read.
    :param size: (height, width) of the input, pixels; counts where the file carries no width.
    """
    output = OutputSpec('disparity', min_depth_m=0.1, max_depth_m=100.0)
    if encoder.get('use_stereo') is not True:
        return Meaning(output, notes=f'{_NO_SCALE} {_ASPECT}')
    carried = encoder.get('width')
    width = carried if type(carried) is int and carried > 0 else size[1]
    focal_px = _FOCAL_PER_WIDTH * width
    return Meaning(output, focal_px, _STEREO_SCALE, notes=f'{_STEREO} {_ASPECT}')


def probe(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return features, logits and disparities by their names in the conformance vectors."""
    features = network.encoder(network.normalized(image))
    logits = network.decoder(features)
    named = {f'feat_{index}': value for index, value in enumerate(features)}
    named.update({f'logit_{index}': value for index, value in enumerate(logits)})
    named.update({f'disp_{index}': torch.sigmoid(value) for index, value in enumerate(logits)})
    return named


def probe_pose(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the vectors of a pose network, (1, pairs, 1, 3), by their names there."""
    axis_angle, translation = network(images)
    return {'axisangle': axis_angle[:, :, None], 'translation': translation[:, :, None]}


def conformance_case(stem: str) -> Case | None:
    """Read network and variant out of a name like 'monodepth2_pose_resnet18'."""
    if stem == 'monodepth2_posecnn':
        return Case(PoseCnn().eval(), translate_pose, probe_pose, _TRAITS.tolerance)
    match = re.fullmatch(r'monodepth2_(depth|pose)_(resnet18|resnet50)', stem)
    if match is None:
        return None
    if match[1] == 'pose':
        pose = PoseNet(LAYOUTS[match[2]]).eval()
        return Case(pose, translate_pose, probe_pose, _TRAITS.tolerance)
    identity = Identity(match[2])
    network = build(identity).eval()
    return Case(network, lambda files: translate(files, identity), probe, _TRAITS.tolerance)


_NO_SCALE = (
    'Trained on video without a metric scale: the authors scale every image by its true median '
    'before they measure.'
)
_STEREO = (
    "Trained with KITTI's stereo pairs, so that depth is in metres: the network's unit is 5.4 m. "
    'The scale was learned with one camera on the roof of a car; on a robot that looks from '
    'another height or angle, check it against a known distance.'
)
_ASPECT = (
    'The images of training had nearly the aspect of the network, so images of another aspect are '
    'cropped rather than squeezed.'
)
_FOLDER = 'https://storage.googleapis.com/niantic-lon-static/research/monodepth2'
_SCALED = 'KITTI Eigen 697, depth times 5.4, no median scaling'
_FIGURES = ('abs_rel', 'a1', 'sq_rel', 'rmse_m', 'rmse_log')
# name of the zip, its MD5, figures
_PUBLISHED: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    (
        'mono_640x192',
        'a964b8356e08a02d009609d9e3928f7c',
        (0.115, 0.877, 0.903, 4.863, 0.193),
    ),
    ('stereo_640x192', '3dfb76bcff0786e4ec07ac00f658dd07', (0.109, 0.864)),
    (
        'mono+stereo_640x192',
        'c024d69012485ed05d7eaa9617a96b81',
        (0.106, 0.874, 0.818, 4.750, 0.196),
    ),
    (
        'mono_1024x320',
        '0ab0766efdfeea89a0d9ea8ba90e1e63',
        (0.115, 0.879, 0.882, 4.701, 0.190),
    ),
    ('stereo_1024x320', 'afc2f2126d70cf3fdf26b550898b501a', (0.107, 0.874)),
    ('mono+stereo_1024x320', 'cdc5fc9b23513c07d5b19235d9ef08f7', (0.106, 0.876)),
    ('mono_no_pt_640x192', '9c2f071e35027c895a4728358ffc913a', (0.132, 0.845)),
    ('stereo_no_pt_640x192', '41ec2de112905f85541ac33a854742d1', (0.130, 0.831)),
    ('mono+stereo_no_pt_640x192', '46c3b824f541d143a45c37df65fbab0a', (0.127, 0.836)),
    # linked in the authors' README without a checksum and without figures
    ('mono_resnet50_640x192', '', ()),
    ('mono_resnet50_no_pt_640x192', '', ()),
)


def _release(name: str, md5: str, figures: tuple[float, ...]) -> Release:
    width, height = (int(side) for side in name.rsplit('_', 1)[1].split('x'))
    url = f'{_FOLDER}/{name.replace("+", "%2B")}.zip'
    protocol = _SCALED if 'stereo' in name else KITTI_EIGEN
    return Release(
        name=f'monodepth2-{name.replace("_", "-")}',
        identity=Identity('resnet50' if 'resnet50' in name else 'resnet18'),
        height=height,
        width=width,
        source=f'{url} (MD5 {md5})' if md5 else url,
        protocol=protocol if figures else '',
        figures=dict(zip(_FIGURES, figures, strict=False)),
    )


@register(_NAME)
def specification() -> NetworkSpec:
    """Describe Monodepth2."""
    return NetworkSpec(
        name=_NAME,
        paper='Godard et al., Digging into Self-Supervised Monocular Depth Estimation, ICCV 2019',
        origin='github.com/nianticlabs/monodepth2, commit b676244',
        code_license="Niantic's Monodepth2 licence, non-commercial use only",
        weights_license=(
            "non-commercial: Niantic's Monodepth2 licence (teaching and research, not in or for "
            'products); trained on KITTI (CC BY-NC-SA 3.0)'
        ),
        variants=dict.fromkeys(LAYOUTS, _TRAITS),
        option_help={},
        parts=('encoder', 'depth'),
        releases=tuple(_release(*row) for row in _PUBLISHED),
        build=build,
        infer=infer,
        translate=translate,
        meaning=meaning,
        conformance_case=conformance_case,
    )
