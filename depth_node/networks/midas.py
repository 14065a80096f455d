"""MiDaS: relative inverse depth from networks trained on many data sets at once.

Passport
    Papers: Ranftl, Lasinger, Hafner, Schindler, Koltun, "Towards Robust Monocular Depth
        Estimation: Mixing Datasets for Zero-shot Cross-dataset Transfer", TPAMI 2022 (v2.1);
        Ranftl, Bochkovskiy, Koltun, "Vision Transformers for Dense Prediction", ICCV 2021 (DPT);
        Birkl, Wofk, Mueller, "MiDaS v3.1 - A Model Zoo for Robust Monocular Relative Depth
        Estimation", 2023 (BEiT, Swin, LeViT).
    Original: github.com/isl-org/MiDaS, commit 4545977, with timm 0.6.12.
    Licence of the original code: MIT.  This file was written from the published description and
        from measured facts; it holds no code of it.
    Licence of the published weights: published as releases of that repository; no other terms are
        stated.
    Same as the original: arithmetic, and the meaning of all weights; their names but for prefixes
        (see ``translate``).
    Different: the 1x1 convolution of a fusion comes before its resize and the readout is split,
        which gives the same numbers with less work; tables of positions are resized once for a
        graph of fixed size; the original resizes images by bicubic interpolation.
    Unused by design, and left out here: classifiers and last normalisations of the backbones, the
        first residual unit of the coarsest fusion, stored indices and masks.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder import OutputSpec
from depth_node.networks import beit
from depth_node.networks import dpt_vit
from depth_node.networks import levit
from depth_node.networks import swin
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.depth_network import FirstOutput
from depth_node.networks.efficientnet import EFFICIENTNET_LITE3
from depth_node.networks.efficientnet import EfficientNet
from depth_node.networks.midas_decoder import DecoderLayout
from depth_node.networks.midas_decoder import DptDecoder
from depth_node.networks.registry import register
from depth_node.networks.resnet import RESNEXT_101_32X8D
from depth_node.networks.resnet import ResNet
from depth_node.networks.rewrites import Choices
from depth_node.networks.specification import Case
from depth_node.networks.specification import Identity
from depth_node.networks.specification import Meaning
from depth_node.networks.specification import NetworkSpec
from depth_node.networks.specification import Release
from depth_node.networks.specification import StateDicts
from depth_node.networks.specification import Traits
from depth_node.networks.specification import Triple

Rename = Callable[[str], str | None]

_NAME = 'midas'
_PART = 'model'
_BACKBONE = 'pretrained.'
_TIMM_MODEL = 'model.'
_DECODER = 'scratch.'
_NEXT_VIT = 'pretrained.model.stem.'

_IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALVES: tuple[Triple, Triple] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# released layerN hold the stages that end at 1/4, 1/8, 1/16 and 1/32; the stem is in the first
_EFFICIENTNET_NAMES = {
    'layer1.0.': 'conv_stem.',
    'layer1.1.': 'bn1.',
    'layer1.3.': 'blocks.0.',
    'layer1.4.': 'blocks.1.',
    'layer2.0.': 'blocks.2.',
    'layer3.0.': 'blocks.3.',
    'layer3.1.': 'blocks.4.',
    'layer4.0.': 'blocks.5.',
    'layer4.1.': 'blocks.6.',
}
_RESNET_NAMES = {'layer1.0.': 'conv1.', 'layer1.1.': 'bn1.', 'layer1.4.': 'layer1.'}


@dataclass(frozen=True)
class Layout:
    """What tells the variants apart.

    A backbone maps a normalised image to features.  One whose tables depend on the size of the
    image may have ``fix_size(height, width)``, which turns them into constants in place.
    """

    backbone: Callable[[], nn.Module]
    """Makes the backbone."""
    translator: Callable[[Collection[str]], Rename]
    """All names below 'pretrained.' -> the way from one of them to the name in our backbone, or
    None for what is never used."""
    decoder: DecoderLayout
    """The part after the backbone."""
    mark: tuple[str, tuple[int, ...]]
    """A released entry and its shape by which files of this variant are told from the others."""
    taps: tuple[int, ...] = (0, 1, 2, 3)
    """Which of the backbone's features the decoder takes, the largest first."""


def _renaming(rename: Rename) -> Callable[[Collection[str]], Rename]:
    """Return a translator that looks at one name at a time."""
    return lambda keys: rename


def _by_prefix(names: Mapping[str, str]) -> Callable[[Collection[str]], Rename]:
    """Return a translator that exchanges the beginnings of names."""

    def rename(key: str) -> str:
        for old, new in names.items():
            if key.startswith(old):
                return new + key.removeprefix(old)
        return key

    return _renaming(rename)


def _below_model(
    translator: Callable[[Collection[str]], Rename],
) -> Callable[[Collection[str]], Rename]:
    """Return a translator of names that begin with 'model.', which ``translator`` never sees."""

    def made(keys: Collection[str]) -> Rename:
        inner = [key.removeprefix(_TIMM_MODEL) for key in keys if key.startswith(_TIMM_MODEL)]
        rename = translator(inner)
        return lambda key: (
            rename(key.removeprefix(_TIMM_MODEL)) if key.startswith(_TIMM_MODEL) else key
        )

    return made


def _dpt(*skips: int) -> DecoderLayout:
    """Return the decoder that most variants share."""
    return DecoderLayout(skips, widths=(256,) * len(skips), head=(128, 32))


def _beit(make: Callable[[], nn.Module], side: int, heads: int, *skips: int) -> Layout:
    """Return the layout of a BEiT whose training image has ``side`` patches along each side."""
    entry = 'pretrained.model.blocks.0.attn.relative_position_bias_table'
    mark = (entry, ((2 * side - 1) ** 2 + 3, heads))
    return Layout(make, _renaming(beit.translate), _dpt(*skips), mark)


def _swin(make: Callable[[], nn.Module], entry: str, shape: tuple[int, ...], width: int) -> Layout:
    """Return the layout of a Swin transformer; ``entry`` is a name in its first attention."""
    skips = (width, 2 * width, 4 * width, 8 * width)
    mark = (f'pretrained.model.layers.0.blocks.0.attn.{entry}', shape)
    return Layout(make, _below_model(swin.translator), _dpt(*skips), mark)


LAYOUTS: Mapping[str, Layout] = {
    'v21-small': Layout(
        lambda: EfficientNet(EFFICIENTNET_LITE3),
        _by_prefix(_EFFICIENTNET_NAMES),
        DecoderLayout(
            (32, 48, 136, 384), widths=(64, 128, 256, 512), head=(32, 32), aligned_head=False
        ),
        ('pretrained.layer1.0.weight', (32, 3, 3, 3)),
        taps=(2, 3, 5, 7),
    ),
    'dpt-swin2-tiny-256': _swin(swin.swin2_tiny_256, 'logit_scale', (3, 1, 1), 96),
    'dpt-levit-224': Layout(
        levit.levit_384,
        _below_model(levit.translator),
        DecoderLayout((384, 512, 768), (256, 256, 256), head=(32, 8), transposed=(128, 64)),
        ('pretrained.model.patch_embed.0.c.weight', (48, 3, 3, 3)),
        taps=(0, 1, 2),
    ),
    'dpt-swin2-base-384': _swin(swin.swin2_base_384, 'logit_scale', (4, 1, 1), 128),
    'v21-large': Layout(
        lambda: ResNet(RESNEXT_101_32X8D),
        _by_prefix(_RESNET_NAMES),
        DecoderLayout(
            (256, 512, 1024, 2048),
            widths=(256, 256, 256, 256),
            head=(128, 32),
            adds_rectified=True,
            projects=False,
            aligned_head=False,
        ),
        ('pretrained.layer1.0.weight', (64, 3, 7, 7)),
        taps=(1, 2, 3, 4),
    ),
    'dpt-beit-base-384': _beit(beit.beit_base_384, 24, 12, 96, 192, 384, 768),
    'dpt-hybrid': Layout(
        dpt_vit.vit_hybrid,
        _renaming(dpt_vit.translate),
        _dpt(256, 512, 768, 768),
        ('pretrained.model.patch_embed.backbone.stem.conv.weight', (64, 3, 7, 7)),
    ),
    'dpt-swin-large-384': _swin(
        swin.swin_large_384, 'relative_position_bias_table', (529, 6), 192
    ),
    'dpt-swin2-large-384': _swin(swin.swin2_large_384, 'logit_scale', (6, 1, 1), 192),
    'dpt-large': Layout(
        dpt_vit.vit_large,
        _renaming(dpt_vit.translate),
        _dpt(256, 512, 1024, 1024),
        ('pretrained.model.pos_embed', (1, 577, 1024)),
    ),
    'dpt-beit-large-384': _beit(beit.beit_large_384, 24, 16, 256, 512, 1024, 1024),
    'dpt-beit-large-512': _beit(beit.beit_large_512, 32, 16, 256, 512, 1024, 1024),
}


def _traits(
    constants: tuple[Triple, Triple], tolerance: float, fixed_side: int | None = None
) -> Traits:
    return Traits(
        output_kind='relative',
        size_multiple=32,
        mean=constants[0],
        std=constants[1],
        fixed_size=None if fixed_side is None else (fixed_side, fixed_side),
        tolerance=tolerance,
    )


_FIXED_SIDES = {
    'dpt-levit-224': 224,
    'dpt-swin2-tiny-256': 256,
    'dpt-swin2-base-384': 384,
    'dpt-swin2-large-384': 384,
    'dpt-swin-large-384': 384,
}
TRAITS: Mapping[str, Traits] = {
    variant: _traits(_IMAGENET, 1e-4)
    if variant.startswith('v21')
    else _traits(_HALVES, 1e-3, _FIXED_SIDES.get(variant))
    for variant in LAYOUTS
}


class Midas(DepthNetwork):
    """Image to inverse depth, 0 or more, up to a scale and a shift that differ between images."""

    def __init__(self, variant: str) -> None:
        super().__init__(_NAME, TRAITS[variant])
        layout = LAYOUTS[variant]
        self.taps = layout.taps
        self.backbone = layout.backbone()
        self.decoder = DptDecoder(layout.decoder)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return what the decoder takes of a normalised image, the largest feature first."""
        features = self.backbone(x)
        return [features[index] for index in self.taps]

    def from_normalized(self, x: Tensor) -> list[Tensor]:
        """Return the inverse depth (B, 1, H, W) of a normalised image, as the only output."""
        return [self.decoder(self.features(x))]

    def linearized(self, height: int, width: int, choices: Choices) -> nn.Module:
        """Return the network with all that depends on the size alone as constants."""
        self.check_size(height, width)
        plain = FirstOutput(self)
        backbone = plain.network.get_submodule('backbone')
        if hasattr(backbone, 'fix_size'):
            backbone.fix_size(height, width)
        return plain


def build(identity: Identity) -> Midas:
    """Make a freshly initialised network; see NetworkSpec."""
    return Midas(identity.variant)


def infer(files: StateDicts, wanted: str | None) -> Identity:
    """Tell the variant of a released checkpoint by one entry that has its shape in no other."""
    entries = files.get(_PART, {})
    found = next((name for name, layout in LAYOUTS.items() if _has(entries, *layout.mark)), None)
    if found is not None and wanted in (None, found):
        return Identity(found)
    if found is not None:
        received = f'the weights of {found}'
    elif any(key.startswith(_NEXT_VIT) for key in entries):
        received = 'the weights of DPT-Next-ViT-L-384, which is not supported'
    else:
        first = quoted(next(iter(entries), ''))
        received = f'{len(entries)} entries from {first} on that mark no variant'
    raise ModelError(
        'midas checkpoint',
        received,
        f'those of {wanted or ", ".join(LAYOUTS)}',
        'Check that this is a .pt file of a MiDaS release.',
    )


def _has(entries: Mapping[str, object], key: str, shape: tuple[int, ...]) -> bool:
    value = entries.get(key)
    return isinstance(value, Tensor) and tuple(value.shape) == shape


def translate(files: StateDicts, identity: Identity) -> dict[str, object]:
    """Put the backbone's entries under 'backbone', the others under 'decoder'.

    In the released files 'pretrained' holds the backbone and 'scratch' the rest.
    """
    layout = LAYOUTS[identity.variant]
    entries = files.get(_PART, {})
    below = [key.removeprefix(_BACKBONE) for key in entries if key.startswith(_BACKBONE)]
    rename = layout.translator(below)
    unused = f'refinenet{len(layout.decoder.skips)}.resConfUnit1.'
    translated: dict[str, object] = {}
    for key, value in entries.items():
        name: str | None = key
        if key.startswith(_BACKBONE):
            inner = rename(key.removeprefix(_BACKBONE))
            name = None if inner is None else f'backbone.{inner}'
        elif key.startswith(_DECODER):
            inner = key.removeprefix(_DECODER)
            name = None if inner.startswith(unused) else f'decoder.{inner}'
        if name is not None:
            translated[name] = value
    return translated


def meaning(identity: Identity, files: StateDicts, size: tuple[int, int]) -> Meaning:
    """Say what the output of a released model means."""
    if TRAITS[identity.variant].fixed_size is None:
        return Meaning(OutputSpec('relative'), fit='native', notes=_NOTES)
    return Meaning(OutputSpec('relative'), fit='stretch', notes=f'{_NOTES} {_SQUARE_NOTE}')


def probe(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return the decoder's layers and the output by their names in the conformance vectors."""
    named = network.decoder.stages(network.features(network.normalized(image)))
    return {**named, 'output': F.relu(named['pre_relu'])[:, 0]}


_STEMS = {
    'midas_v21_small_256': 'v21-small',
    'midas_v21_384': 'v21-large',
    'dpt_hybrid_384': 'dpt-hybrid',
    'dpt_large_384': 'dpt-large',
}


def conformance_case(stem: str) -> Case | None:
    """Return the network of a name like 'dpt_beit_base_384', the name of its released file."""
    variant = _STEMS.get(stem, stem.replace('_', '-'))
    if variant not in LAYOUTS:
        return None
    identity = Identity(variant)
    tolerance = TRAITS[variant].tolerance
    return Case(build(identity).eval(), lambda files: translate(files, identity), probe, tolerance)


_NOTES = (
    'The output is inverse depth up to a scale and a shift that differ from image to image: there '
    'are no metres in it without true depth of the same image, e.g. of a lidar, to fit both.  The '
    'authors resize images by bicubic interpolation; another kind of resize changes the result a '
    'little.'
)
_SQUARE_NOTE = 'The network takes square images only; the whole image is squeezed into the square.'
_RELEASES = 'github.com/isl-org/MiDaS/releases/download'
_PROTOCOL = (
    'table of the README at network height {height} px: zero-shot, each image aligned to its true '
    'inverse depth by scale and shift; DIW: share of wrongly ordered pairs (WHDR); ETH3D, Sintel: '
    'AbsRel; TUM, KITTI, NYU: percentage of pixels beyond a factor of 1.25, lower is better{note}'
)
_SEEN_NOTE = '; KITTI and NYU were among the training data, so theirs are not zero-shot'
_FIGURES = (
    'diw_whdr',
    'eth3d_abs_rel',
    'sintel_abs_rel',
    'tum_beyond_1_25_percent',
    'kitti_beyond_1_25_percent',
    'nyu_beyond_1_25_percent',
)
# variant, released file, our height and width, the authors' height, whether KITTI and NYU were
# among the training data, figures
_PUBLISHED = (
    ('v21-small', 'v2_1/midas_v21_small_256.pt', 192, 256, 256, False,
     (0.1344, 0.1344, 0.3370, 14.53, 29.27, 13.43)),
    ('dpt-swin2-tiny-256', 'v3_1/dpt_swin2_tiny_256.pt', 256, 256, 256, True,
     (0.1211, 0.1106, 0.2868, 13.43, 10.13, 5.55)),
    ('dpt-levit-224', 'v3_1/dpt_levit_224.pt', 224, 224, 224, True,
     (0.1314, 0.1206, 0.3148, 18.21, 15.27, 8.64)),
    ('dpt-swin2-base-384', 'v3_1/dpt_swin2_base_384.pt', 384, 384, 384, True,
     (0.1095, 0.0790, 0.2404, 8.93, 5.97, 3.28)),
    ('v21-large', 'v2_1/midas_v21_384.pt', 288, 384, 384, False,
     (0.1295, 0.1155, 0.3285, 12.51, 16.08, 8.71)),
    ('dpt-beit-base-384', 'v3_1/dpt_beit_base_384.pt', 384, 512, 384, True,
     (0.1159, 0.0967, 0.2901, 9.88, 26.60, 3.91)),
    ('dpt-hybrid', 'v3/dpt_hybrid_384.pt', 384, 512, 384, False,
     (0.1106, 0.0934, 0.2741, 10.89, 11.56, 8.69)),
    ('dpt-swin-large-384', 'v3_1/dpt_swin_large_384.pt', 384, 384, 384, True,
     (0.1126, 0.0853, 0.2428, 8.74, 6.60, 3.34)),
    ('dpt-swin2-large-384', 'v3_1/dpt_swin2_large_384.pt', 384, 384, 384, True,
     (0.1106, 0.0732, 0.2442, 8.87, 5.84, 2.92)),
    ('dpt-large', 'v3/dpt_large_384.pt', 384, 512, 384, False,
     (0.1082, 0.0888, 0.2697, 9.97, 8.46, 8.32)),
    ('dpt-beit-large-384', 'v3_1/dpt_beit_large_384.pt', 384, 512, 384, True,
     (0.1239, 0.0667, 0.2545, 7.17, 9.84, 2.21)),
    ('dpt-beit-large-512', 'v3_1/dpt_beit_large_512.pt', 512, 672, 512, True,
     (0.1137, 0.0659, 0.2366, 6.13, 11.56, 1.86)),
    ('dpt-beit-large-512', 'v3_1/dpt_beit_large_512.pt', 384, 512, 384, True,
     (0.1245, 0.0681, 0.2176, 6.13, 6.28, 2.16)),
)  # fmt: skip


def _release(
    variant: str,
    file: str,
    height: int,
    width: int,
    authors_height: int,
    has_seen: bool,
    figures: tuple[float, ...],
) -> Release:
    return Release(
        name=f'midas-{variant}-{width}x{height}',
        identity=Identity(variant),
        height=height,
        width=width,
        source=f'{_RELEASES}/{file}',
        protocol=_PROTOCOL.format(height=authors_height, note=_SEEN_NOTE if has_seen else ''),
        figures=dict(zip(_FIGURES, figures, strict=True)),
    )


@register(_NAME)
def specification() -> NetworkSpec:
    """Describe MiDaS."""
    return NetworkSpec(
        name=_NAME,
        paper='Ranftl et al., MiDaS, TPAMI 2022; DPT, ICCV 2021; Birkl et al., MiDaS v3.1, 2023',
        origin='github.com/isl-org/MiDaS, commit 4545977',
        code_license='MIT',
        weights_license='published by the authors in their repository, which is under MIT',
        variants=TRAITS,
        option_help={},
        parts=(_PART,),
        releases=tuple(_release(*row) for row in _PUBLISHED),
        build=build,
        infer=infer,
        translate=translate,
        meaning=meaning,
        conformance_case=conformance_case,
    )
