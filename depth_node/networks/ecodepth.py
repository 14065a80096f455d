"""ECoDepth: metric depth from the features of a diffusion network that is told the scene.

Passport
    Paper: Patni, Agarwal, Arora, "ECoDepth: Effective Conditioning of Diffusion Models for
        Monocular Depth Estimation", CVPR 2024.
    Original: github.com/Aradhye2002/EcoDepth, commit 82bd662; version 1 is commit 772acc6.
    Licence of the original code: CC BY-NC 4.0, non-commercial.  This file was written from the
        published description and from measured facts; it holds no code of it.
    Licence of the published weights: the same, CC BY-NC 4.0; they contain those of Stable
        Diffusion 1.5 (CreativeML OpenRAIL-M, which forbids some uses) and of ViT-B/16
        (Apache-2.0).  They are loaded from where their authors put them, never shipped.
    Same as the original: arithmetic, and the names of the weights but for the transformer of the
        scene, whose queries, keys and values are one matrix here.
    Different: the cross-attention to the single token of the scene is the vector that it always
        adds (diffusion_unet.py); an 8-bit image keeps all its grey levels on the way to the scene
        classifier, where the original loses one level in 63 of 256 to the rounding of floats;
        weights of version 1 get the padding of version 2 (grey, cut off after the decoder), as the
        authors' own later code gives it to them, not that of their first test script (black, and
        the last row and column of the aggregated features dropped); nothing is frozen: whoever
        trains decides.
    Left out because no forward pass reads it: queries, keys and second normalisation of the
        cross-attentions, the second half of the autoencoder, the head that predicts noise, and in
        version 2 the head of the classifier, which exists only where a comparison asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.errors import ModelError
from depth_node.model_folder import OutputSpec
from depth_node.networks.blocks import doubled
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.depth_network import FirstOutput
from depth_node.networks.diffusion_unet import MULTIPLES
from depth_node.networks.diffusion_unet import DiffusionUNet
from depth_node.networks.latent_encoder import LatentEncoder
from depth_node.networks.registry import register
from depth_node.networks.rewrites import Choices
from depth_node.networks.scene_embedding import ClassEmbedding
from depth_node.networks.scene_embedding import FixedWeights
from depth_node.networks.scene_embedding import SceneEmbedding
from depth_node.networks.scene_embedding import VisionTransformer
from depth_node.networks.scene_embedding import translated_vit
from depth_node.networks.specification import Case
from depth_node.networks.specification import Identity
from depth_node.networks.specification import Meaning
from depth_node.networks.specification import NetworkSpec
from depth_node.networks.specification import Release
from depth_node.networks.specification import StateDicts
from depth_node.networks.specification import Traits
from depth_node.networks.specification import kitti_figures

_NAME = 'ecodepth'
_TRAITS = Traits(
    output_kind='metric',
    size_multiple=1,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    tolerance=1e-3,
)

_COARSEST = 64
_GROUPS = 16
_MIN_DEPTH_M = 1e-3


@dataclass(frozen=True)
class Layout:
    """What tells the variants apart, and what makes a miniature of them."""

    max_depth_m: float
    """Depth where the sigmoid of the last layer is 1, metres."""
    classes: int
    """Kinds of scenes of version 1; 0: version 2, which has none."""
    has_head: bool
    """Whether the scene's transformer has its classifier head; version 1 needs it."""
    vae_width: int = 128
    """Channels of the latent encoder at full size, a multiple of 32."""
    unet_width: int = 320
    """Channels of the diffusion network at 1/8 of the size, a multiple of 32."""
    unet_heads: int = 8
    """Heads of its attentions."""
    vit_width: int = 768
    """Channels of the scene's transformer and of the context."""
    vit_blocks: int = 12
    """Blocks of the scene's transformer."""
    vit_heads: int = 12
    """Heads of its attentions."""
    logits: int = 1000
    """Classes of its head."""
    class_hidden: int = 400
    """Width between those and the kinds of scenes."""
    aggregated: int = 1536
    """Channels of the aggregated features at 1/32 of the size, a multiple of 16."""
    narrow: int = 32
    """Channels of the decoder's transposed convolutions."""
    decoded: int = 192
    """Channels of the decoder's result."""


LAYOUTS: Mapping[str, Layout] = {
    'v1-indoor': Layout(10.0, classes=100, has_head=True),
    'v1-outdoor': Layout(80.0, classes=200, has_head=True),
    'v2-indoor': Layout(10.0, classes=0, has_head=False),
    'v2-outdoor': Layout(80.0, classes=0, has_head=False),
}


class Encoder(nn.Module):
    """RGB in [-1, 1] to features at 1/32 of the size."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.encoder_vq = LatentEncoder(layout.vae_width)
        self.cide_module = _scene_embedding(layout)
        self.unet = DiffusionUNet(layout.unet_width, layout.unet_heads, layout.vit_width)
        eighth, sixteenth, *coarse = (multiple * layout.unet_width for multiple in MULTIPLES)
        self.layer1 = nn.Sequential(
            nn.Conv2d(eighth, eighth, 3, 2, 1),
            nn.GroupNorm(_GROUPS, eighth),
            nn.ReLU(),
            nn.Conv2d(eighth, eighth, 3, 2, 1),
        )
        self.layer2 = nn.Sequential(nn.Conv2d(sixteenth, sixteenth, 3, 2, 1))
        self.out_layer = nn.Sequential(
            nn.Conv2d(eighth + sixteenth + sum(coarse), layout.aggregated, 1),
            nn.GroupNorm(_GROUPS, layout.aggregated),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W), sides that are multiples of 64, to (B, C, H / 32, W / 32)."""
        return self.aggregated(self.unet(self.encoder_vq(x), self.cide_module(x)))

    def aggregated(self, features: list[Tensor]) -> Tensor:
        """Join the features of the diffusion network, the largest first, at 1/32."""
        eighth, sixteenth, thirtysecond, coarsest = features
        parts = (
            self.layer1(eighth),
            self.layer2(sixteenth),
            thirtysecond,
            F.interpolate(coarsest, scale_factor=2.0, mode='nearest'),
        )
        return self.out_layer(torch.cat(parts, dim=1))


def _scene_embedding(layout: Layout) -> SceneEmbedding:
    logits = layout.logits if layout.has_head else 0
    vit = VisionTransformer(layout.vit_width, layout.vit_blocks, layout.vit_heads, logits)
    if not layout.classes:
        return SceneEmbedding(vit)
    return ClassEmbedding(
        vit, layout.vit_width, layout.logits, layout.class_hidden, layout.classes
    )


class Decoder(nn.Module):
    """Features at 1/32 to features at full size: three learned doublings and two bilinear ones."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        inputs = (layout.aggregated, layout.narrow, layout.narrow)
        doublings: list[nn.Module] = []
        for channels in inputs:
            doublings.append(nn.ConvTranspose2d(channels, layout.narrow, 2, 2, bias=False))
            doublings.append(nn.BatchNorm2d(layout.narrow))
            doublings.append(nn.ReLU())
        self.deconv_layers = nn.Sequential(*doublings)
        self.conv_layers = nn.Sequential(
            nn.Conv2d(layout.narrow, layout.decoded, 3, padding=1),
            nn.BatchNorm2d(layout.decoded),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, h, w) to (B, C_out, 32 h, 32 w)."""
        return doubled(doubled(self.conv_layers(self.deconv_layers(x))))


class EcoDepth(DepthNetwork):
    """ECoDepth with all its parts; a fresh one has nothing of Stable Diffusion's training."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(_NAME, _TRAITS)
        self.layout = layout
        self.encoder = Encoder(layout)
        self.decoder = Decoder(layout)
        self.last_layer_depth = nn.Sequential(
            nn.Conv2d(layout.decoded, layout.decoded, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(layout.decoded, 1, 3, padding=1),
        )
        self.decoder.apply(_initialize)
        self.last_layer_depth.apply(_initialize)

    def from_normalized(self, x: Tensor) -> list[Tensor]:
        """Return the depth (B, 1, H, W), metres, of RGB in [-1, 1]."""
        decoded = self.decoder(self.encoder(extended(x)))
        return [self.depth(self.logits(decoded, x))]

    def logits(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Cut what the decoder gives to the size of the image and return (B, 1, H, W)."""
        return self.last_layer_depth(decoded[..., : x.shape[-2], : x.shape[-1]])

    def depth(self, logits: Tensor) -> Tensor:
        """Map logits to metres."""
        return torch.sigmoid(logits) * self.layout.max_depth_m

    def linearized(self, height: int, width: int, choices: Choices) -> nn.Module:
        """Return the network with the time in its biases and the weights of the resizing made."""
        self.check_size(height, width)
        plain = FirstOutput(self)
        encoder = plain.network.encoder
        encoder.unet.fold_time()
        encoder.cide_module.resizing = FixedWeights(_extended_side(max(height, width)))
        return plain


def _initialize(layer: nn.Module) -> None:
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(layer.weight, std=1e-3)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def extended(x: Tensor) -> Tensor:
    """Extend (B, 3, H, W) by zeros at the bottom and right to sides that are multiples of 64.

    Zero is mid grey, because the image is in [-1, 1] here.
    """
    height, width = x.shape[-2:]
    below, right = _extended_side(height) - height, _extended_side(width) - width
    return F.pad(x, (0, right, 0, below)) if below or right else x


def _extended_side(side: int) -> int:
    return -(-side // _COARSEST) * _COARSEST


def build(identity: Identity) -> EcoDepth:
    """Make a freshly initialised network."""
    return EcoDepth(LAYOUTS[identity.variant])


_UNUSED = re.compile(
    r'encoder\.encoder_vq\.(post_quant_conv|decoder)\..+'
    r'|encoder\.unet\.out\..+'
    r'|encoder\.unet\..+\.attn2\.to_[qk]\.weight'
    r'|encoder\.unet\..+\.transformer_blocks\.0\.norm2\.(weight|bias)'
    r'|encoder\.cide_module\.vit_model\.vit\.pooler\..+'
)
_FIRST_UNET = 'encoder.unet.unet.diffusion_model.'
_UNET = 'encoder.unet.'
_VIT = 'encoder.cide_module.vit_model.'
_VIT_OURS = 'encoder.cide_module.vit.'


def infer(files: StateDicts, wanted: str | None) -> Identity:
    """Tell the variant of a released checkpoint.

    Version 1 has class embeddings, and their number tells indoor from outdoor.  The weights of
    version 2 have the same shapes for both, so the user must name the variant.
    """
    entries = files.get('model', {})
    embeddings = entries.get('encoder.cide_module.embeddings')
    if f'{_VIT}vit.embeddings.cls_token' not in entries:
        raise _no_variant('no scene classifier', wanted)
    if embeddings is None:
        return Identity(_second_version(wanted))
    classes = embeddings.shape[0] if isinstance(embeddings, Tensor) and embeddings.ndim else None
    for variant, layout in LAYOUTS.items():
        if classes and layout.classes == classes and wanted in (None, variant):
            return Identity(variant)
    raise _no_variant(f'embeddings of {classes} kinds of scenes', wanted)


def _second_version(wanted: str | None) -> str:
    known = [variant for variant, layout in LAYOUTS.items() if not layout.classes]
    if wanted is None:
        raise ModelError(
            f'{_NAME} checkpoint',
            'weights of version 2, whose shapes are the same indoors (up to 10 m) and outdoors '
            '(up to 80 m)',
            f'the name of the variant, {" or ".join(known)}',
            'Give --variant; the name of the released file says indoor or outdoor.',
        )
    if wanted not in known:
        raise _no_variant('weights of version 2, without class embeddings', wanted)
    return wanted


def _no_variant(received: str, wanted: str | None) -> ModelError:
    return ModelError(
        f'{_NAME} checkpoint',
        received,
        f'the names and shapes of {wanted or ", ".join(LAYOUTS)}',
        'Check that this is a released file of ECoDepth, and of this variant.',
    )


def translate(files: StateDicts, identity: Identity) -> dict[str, object]:
    """Put the entries of a released file under the network's names."""
    return translated(files, LAYOUTS[identity.variant])


def translated(files: StateDicts, layout: Layout) -> dict[str, object]:
    """Put the entries of a released file under the names of a network of this layout.

    Both kinds of files are read: those of version 1's training, in which the diffusion network
    lies two modules deeper, and those of version 2's.
    """
    entries: dict[str, object] = {}
    for key, value in files.get('model', {}).items():
        if key.startswith(_FIRST_UNET):
            key = _UNET + key.removeprefix(_FIRST_UNET)
        if not _UNUSED.fullmatch(key):
            entries[key] = value
    scene = {
        key.removeprefix(_VIT): value for key, value in entries.items() if key.startswith(_VIT)
    }
    known, unknown = translated_vit(scene, layout.has_head)
    return {
        **{key: value for key, value in entries.items() if not key.startswith(_VIT)},
        **{_VIT_OURS + key: value for key, value in known.items()},
        **{_VIT + key: value for key, value in unknown.items()},
    }


_NYU_FOCAL_PX, _NYU_WIDTH = 518.8579, 640
_KITTI_FOCAL_PX, _KITTI_WIDTH = 721.5377, 1216


def meaning(identity: Identity, files: StateDicts, size: tuple[int, int]) -> Meaning:
    """Say what the output of a released model means."""
    max_depth_m = LAYOUTS[identity.variant].max_depth_m
    indoor = identity.variant.endswith('indoor')
    focal_px, full_width = (
        (_NYU_FOCAL_PX, _NYU_WIDTH) if indoor else (_KITTI_FOCAL_PX, _KITTI_WIDTH)
    )
    return Meaning(
        OutputSpec('metric', min_depth_m=_MIN_DEPTH_M, max_depth_m=max_depth_m),
        focal_px=focal_px * size[1] / full_width,
        notes=_INDOOR_NOTES if indoor else _OUTDOOR_NOTES,
    )


def probe(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return what the parts give by their names in the conformance vectors."""
    x = network.normalized(image)
    whole = extended(x)
    encoder, scene = network.encoder, network.encoder.cide_module
    named = {'vit_pixel_values': scene.pixel_values(whole)}
    token = scene.vit(named['vit_pixel_values'])
    if network.layout.has_head:
        named['vit_logits'] = scene.vit.logits(token)
    if isinstance(scene, ClassEmbedding):
        named['class_probs'] = scene.probabilities(token)
    named['cide_embedding'] = scene.context(token)
    named['latents'] = encoder.encoder_vq(whole)
    features = encoder.unet(named['latents'], named['cide_embedding'])
    named.update({f'unet_out_{index}': value for index, value in enumerate(features)})
    named['encoder_out'] = encoder.aggregated(features)
    named['decoder_out'] = network.decoder(named['encoder_out'])
    named['depth_logit'] = network.logits(named['decoder_out'], x)
    named['depth'] = network.depth(named['depth_logit'])
    return named


def conformance_case(stem: str) -> Case | None:
    """Read the variant out of a name like 'ecodepth_v1_indoor'.

    The stored numbers have the logits of the classifier for version 2 too, so that here it keeps
    the head that its forward pass does not use.
    """
    match = re.fullmatch(r'ecodepth_(v[12])_(indoor|outdoor)', stem)
    if match is None:
        return None
    layout = replace(LAYOUTS[f'{match[1]}-{match[2]}'], has_head=True)
    network = EcoDepth(layout).eval()
    return Case(network, lambda files: translated(files, layout), probe, _TRAITS.tolerance)


_HEAVY = (
    'A billion weights, four gigabytes in float32: far too slow on a processor for driving; meant '
    'for comparison and for labelling recordings.'
)
_INDOOR_NOTES = (
    'Metres for rooms: trained on NYU Depth v2 and never above 10 m, so that everything farther, '
    f'and the sky, reads as at most 10 m. {_HEAVY}'
)
_OUTDOOR_NOTES = (
    'Metres for roads: trained on KITTI, whose camera looks ahead from 1.65 m above the road, and '
    f'never above 80 m, which is also the most that the sky reads as. {_HEAVY}'
)
_RECALLED = 'as recalled from the paper, not checked again'
_RELEASES = (
    Release(
        name='ecodepth-v1-indoor',
        identity=Identity('v1-indoor'),
        height=480,
        width=640,
        source='weights_indoor.ckpt of huggingface.co/aradhye/ecodepth, or the Google Drive of '
        'the first version',
        protocol='NYU Depth v2 test, Eigen crop, mean with the mirrored image; abs_rel from the '
        f'abstract, the others {_RECALLED}',
        figures=kitti_figures(0.059, None, 0.218, a1=0.978),
    ),
    Release(
        name='ecodepth-v1-outdoor',
        identity=Identity('v1-outdoor'),
        height=352,
        width=1216,
        source='weights_outdoor.ckpt of huggingface.co/aradhye/ecodepth, or the Google Drive of '
        'the first version',
        protocol='KITTI Eigen 697, Garg crop, no median scaling, two halves of 640 columns '
        'blended, mean with the mirrored image; sq_rel from the abstract, the others '
        f'{_RECALLED}',
        figures=kitti_figures(0.048, 0.139, 2.039, 0.074, 0.979),
    ),
    Release(
        name='ecodepth-v2-indoor',
        identity=Identity('v2-indoor'),
        height=480,
        width=640,
        source='weights_indoor.ckpt of huggingface.co/aradhye/ecodepthv2',
    ),
    Release(
        name='ecodepth-v2-outdoor',
        identity=Identity('v2-outdoor'),
        height=352,
        width=1216,
        source='weights_outdoor.ckpt of huggingface.co/aradhye/ecodepthv2',
    ),
)


@register(_NAME)
def specification() -> NetworkSpec:
    """Describe ECoDepth."""
    return NetworkSpec(
        name=_NAME,
        paper='Patni et al., ECoDepth, CVPR 2024',
        origin='github.com/Aradhye2002/EcoDepth, commit 82bd662',
        code_license='CC BY-NC 4.0 (non-commercial)',
        weights_license='non-commercial: CC BY-NC 4.0; contains weights of Stable Diffusion 1.5 '
        '(CreativeML OpenRAIL-M, which forbids some uses) and of ViT-B/16 (Apache-2.0)',
        variants=dict.fromkeys(LAYOUTS, _TRAITS),
        option_help={},
        parts=('model',),
        releases=_RELEASES,
        build=build,
        infer=infer,
        translate=translate,
        meaning=meaning,
        conformance_case=conformance_case,
    )
