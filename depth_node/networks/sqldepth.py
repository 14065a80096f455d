"""SQLDepth: an encoder-decoder whose own features ask for the bins of depth.

Passport
    Paper: Wang, Liang, Xu, Jiao, Yu, "SQLdepth: Generalizable Self-Supervised Fine-Structured
        Monocular Depth Estimation", AAAI 2024.
    Original: github.com/hisfog/SfMNeXt-Impl, commit 85b1a63.
    Licence of the original code: a file says MIT, the README "all rights reserved", and parts
        carry the header of Monodepth2, whose licence is non-commercial.  This file was written
        from the published description and from measured facts; it holds no code of either.
    Licence of the published weights: not stated; they were trained on KITTI, whose terms are
        CC BY-NC-SA 3.0.  They are loaded from where their authors put them, never shipped.
    Same as the original: arithmetic and names of all weights below 'decoder', dropout.  That only
        the top rows of an image become queries, and that the deepest feature of the ResNet gets a
        border of bare biases, is theirs and kept, because the weights are trained for it.
    Different: the result is at full size: where the original stops at half, its inverse is doubled
        bilinearly.  The layers of the encoders and the head have plainer names.  Logits of the
        probabilities come from the product of two small matrices, not from the energy maps, and
        the summaries from torch's attention, so that neither maps nor weights are kept; this is
        the same function.  No dropout between the weights of the attention.  A new network starts
        from torch's defaults, not from ImageNet.
    Unused by design: the classifier of the ResNet (``fc``) and the batch normalisation behind the
        head of the EfficientNet of the indoor model (``bn2``) are in the released files and are
        never read.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder import OutputSpec
from depth_node.networks.blocks import doubled
from depth_node.networks.convnext import CONVNEXT_LARGE
from depth_node.networks.convnext import ConvNeXt
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.efficientnet import EFFICIENTNET_B5
from depth_node.networks.efficientnet import EFFICIENTNET_B5_WITH_HEAD
from depth_node.networks.efficientnet import EfficientNet
from depth_node.networks.half import KeepsFloat32
from depth_node.networks.registry import register
from depth_node.networks.resnet import RESNET_50
from depth_node.networks.resnet import ResNet
from depth_node.networks.specification import KITTI_EIGEN
from depth_node.networks.specification import Case
from depth_node.networks.specification import Identity
from depth_node.networks.specification import Meaning
from depth_node.networks.specification import NetworkSpec
from depth_node.networks.specification import Options
from depth_node.networks.specification import Release
from depth_node.networks.specification import StateDicts
from depth_node.networks.specification import Traits
from depth_node.networks.specification import kitti_figures
from depth_node.networks.vision_transformer import SelfAttention

_NAME = 'sqldepth'
_TRAITS = Traits('metric', size_multiple=32)
# with drawn weights its depths are 40 +- 0.1, and float32 rounds 40 to 4e-5 of that deviation; the
# authors' numbers are 4e-4 from the same arithmetic in float64
_B5_TRAITS = dataclasses.replace(_TRAITS, tolerance=1e-3)
_R50_TRAITS = dataclasses.replace(_TRAITS, mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
_MOST_TOKENS = 500
_HEADS = 4
_LAYERS = 4
_DROPOUT = 0.1
_SMALLEST_BIN = 0.1
_BINS_HIDDEN = 256


@dataclass(frozen=True)
class HeadLayout:
    """Sizes of the self query layer."""

    patch_size: int
    """Side of the square of features that becomes a token, pixels of the features."""
    queries: int
    """Tokens that become queries: the first ones, row by row from the top left."""
    bins: int
    """Intervals of depth."""
    feed_forward: int
    """Width inside the transformer's pointwise networks."""
    dim: int = 32
    """Channels of the features, tokens and queries."""
    min_depth_m: float = 0.001
    """Lower edge of the first bin, metres, or up to the model's scale."""
    max_depth_m: float = 80.0
    """Upper edge of the last bin, in the unit of ``min_depth_m``."""


class EncoderLayer(nn.Module):
    """Attention and a pointwise network, each added to its input and normalised after."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, _HEADS)
        self.linear1 = nn.Linear(width, feed_forward)
        self.linear2 = nn.Linear(feed_forward, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.norm2 = nn.LayerNorm(width, eps=1e-5)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep the shape (B, N, C)."""
        tokens = self.norm1(tokens + self.dropout(self.self_attn(tokens)))
        inner = self.dropout(F.relu(self.linear1(tokens)))
        return self.norm2(tokens + self.dropout(self.linear2(inner)))


class SelfQueryLayer(KeepsFloat32):
    """Features to depth: queries from the features tell the bins and each pixel's share of them.

    With S a convolution of the features, the energy map of a query is its scalar product with
    every pixel of S; the query's summary is the mean of S, weighted by the softmax of the map.
    """

    returns_float32 = True

    def __init__(self, layout: HeadLayout) -> None:
        super().__init__()
        dim, queries = layout.dim, layout.queries
        self.layout = layout
        self.positional_encodings = nn.Parameter(torch.empty(_MOST_TOKENS, dim))
        self.patch_embedding = nn.Conv2d(dim, dim, layout.patch_size, layout.patch_size)
        layers = (EncoderLayer(dim, layout.feed_forward) for _ in range(_LAYERS))
        self.layers = nn.Sequential(*layers)
        self.conv3x3 = nn.Conv2d(dim, dim, 3, 1, 1)
        self.bins_regressor = nn.Sequential(
            nn.Linear(queries * dim, 16 * queries),
            nn.LeakyReLU(),
            nn.Linear(16 * queries, _BINS_HIDDEN),
            nn.LeakyReLU(),
            nn.Linear(_BINS_HIDDEN, layout.bins),
        )
        self.to_bins = nn.Conv2d(queries, layout.bins, 1)
        self._initialize()

    def _initialize(self) -> None:
        nn.init.uniform_(self.positional_encodings)
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.self_attn.qkv.weight)
            nn.init.zeros_(layer.self_attn.qkv.bias)
            nn.init.zeros_(layer.self_attn.proj.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, E, h, w) to depth (B, 1, h, w) between the ends of the range."""
        queries, pixels = self.queries(features), self.pixels(features)
        centres = self.centres(self.bin_logits(summaries(queries, pixels)))
        depth = self.probabilities(queries, pixels) @ centres[:, :, None]
        return depth.mT.unflatten(2, (features.shape[-2], features.shape[-1]))

    def queries(self, features: Tensor) -> Tensor:
        """Return (B, Q, E): the first tokens of the features after the transformer."""
        tokens = self.patch_embedding(features).flatten(2).transpose(1, 2)
        tokens = tokens + self.positional_encodings[: tokens.shape[1]]
        return self.layers(tokens)[:, : self.layout.queries]

    def pixels(self, features: Tensor) -> Tensor:
        """Return S as (B, h w, E).

        Engines leave channels last after a convolution; bringing them in front took 5 percent of
        the time of the whole network.
        """
        return self.conv3x3(features).permute(0, 2, 3, 1).flatten(1, 2)

    def bin_logits(self, summary: Tensor) -> Tensor:
        """Map the queries' summaries (B, Q, E) to (B, bins) that grow with the bins' widths."""
        return self.bins_regressor(summary.flatten(1))

    def centres(self, bin_logits: Tensor) -> Tensor:
        """Return the middles of the bins (B, bins), which fill the range from end to end."""
        low, high = self.layout.min_depth_m, self.layout.max_depth_m
        shares = F.relu(bin_logits) + _SMALLEST_BIN
        widths = (high - low) * shares / shares.sum(1, keepdim=True)
        return low + widths.cumsum(1) - 0.5 * widths

    def probabilities(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """Return each pixel's share of every bin, (B, h w, bins).

        The 1x1 convolution of the energy maps is a product of three matrices; the two small ones
        first are cheaper, and the maps need not exist.
        """
        weight = self.to_bins.weight[:, :, 0, 0] @ queries
        logits = pixels @ weight.mT + self.to_bins.bias
        return torch.softmax(logits, dim=2)


def energy_maps(queries: Tensor, pixels: Tensor) -> Tensor:
    """Return the scalar products (B, Q, h w) of queries (B, Q, E) and pixels (B, h w, E)."""
    return queries @ pixels.mT


def summaries(queries: Tensor, pixels: Tensor) -> Tensor:
    """Return the means of pixels (B, h w, E), weighted by each query's energies, (B, Q, E)."""
    values = pixels[:, None]
    return F.scaled_dot_product_attention(queries[:, None], values, values, scale=1.0)[:, 0]


class UpStep(nn.Module):
    """Bilinear resize to a larger feature, concatenation, two biased convolutions."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, 1, 1),
            nn.BatchNorm2d(channels_out),
            nn.LeakyReLU(),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1),
            nn.BatchNorm2d(channels_out),
            nn.LeakyReLU(),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (B, C, h, w) and (B, C', H, W) to (B, C_out, H, W)."""
        return self.net(torch.cat((_resized(x, skip), skip), dim=1))


class BorderedDecoder(nn.Module):
    """Five features to one at half the size; the deepest gets a border of bare biases.

    :param channels: channels of the features, the largest feature first.
    :param width: channels that the deepest feature is mapped to.
    :param dim: channels of the result.
    """

    def __init__(self, channels: Sequence[int], width: int, dim: int) -> None:
        super().__init__()
        first, second, third, fourth, deepest = channels
        self.conv2 = nn.Conv2d(deepest, width, 1, padding=1)
        self.up1 = UpStep(width + fourth, width // 2)
        self.up2 = UpStep(width // 2 + third, width // 4)
        self.up3 = UpStep(width // 4 + second, width // 8)
        self.up4 = UpStep(width // 8 + first, width // 16)
        self.conv3 = nn.Conv2d(width // 16, dim, 3, 1, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return (B, dim, H / 2, W / 2) of five features from 1/2 to 1/32."""
        first, second, third, fourth, deepest = features
        x = self.up2(self.up1(self.conv2(deepest), fourth), third)
        return self.conv3(self.up4(self.up3(x, second), first))


class ConvNormRelu(nn.Module):
    """3x3 convolution without bias, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        return F.relu(self.bn(self.conv(x)))


class UnetBlock(nn.Module):
    """Bilinear resize, concatenation, two convolutions."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = ConvNormRelu(channels_in, channels_out)
        self.conv2 = ConvNormRelu(channels_out, channels_out)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Map (B, C, h, w) to (B, C_out, H, W), at the size of ``skip`` or else at twice its own.

        The two ways differ: corners stay corners only where there is a ``skip``.
        """
        x = doubled(x) if skip is None else torch.cat((_resized(x, skip), skip), dim=1)
        return self.conv2(self.conv1(x))


class UnetDecoder(nn.Module):
    """Features to one at twice the size of the largest.

    :param channels: channels of the features, the largest feature first.
    :param widths: channels of the blocks, the deepest first; as many as features.
    :param dim: channels of the result.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int], dim: int) -> None:
        super().__init__()
        skipped = (*channels[-2::-1], 0)
        before = (channels[-1], *widths[:-1])
        self.blocks = nn.ModuleList(
            UnetBlock(below + skip, width)
            for below, skip, width in zip(before, skipped, widths, strict=True)
        )
        self.final_conv = nn.Conv2d(widths[-1], dim, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return (B, dim, 2 h, 2 w), where (h, w) is the size of the first feature."""
        *skips, x = features
        for block, skip in zip(self.blocks, (*skips[::-1], None), strict=True):
            x = block(x, skip)
        return self.final_conv(x)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    size = (like.shape[-2], like.shape[-1])
    return F.interpolate(x, size=size, mode='bilinear', align_corners=True)


@dataclass(frozen=True)
class Layout:
    """What tells the variants apart."""

    backbone: Callable[[], nn.Module]
    """Makes the encoder."""
    features: tuple[int, ...]
    """Indices of the encoder's features that the decoder reads, the largest first."""
    channels: tuple[int, ...]
    """Their channels."""
    head: HeadLayout
    """Sizes of the head unless options change them."""
    stem: str
    """Released name of the first convolution's weight, which tells the variant."""
    renamed: tuple[str, str]
    """Pattern that the encoder's released names begin with, and what stands for it in ours."""
    unused: str = r'(?!)'
    """Pattern of released names that no forward pass reads."""
    decoder_width: int | None = None
    """Channels of the deepest level of a bordered decoder; None: a U-Net's."""
    unet_widths: tuple[int, ...] = ()
    """Channels of the blocks of a U-Net's decoder."""
    feature_stride: int = 2
    """Pixels of the image per pixel of the decoder's result."""
    traits: Traits = _TRAITS
    """Normalisation, sizes and tolerance."""


_B5_FEATURES = (1, 2, 3, 5, 7)
_NYU_FEATURES = (1, 2, 3, 5, 8)

LAYOUTS: Mapping[str, Layout] = {
    'resnet50': Layout(
        backbone=lambda: ResNet(RESNET_50),
        features=(0, 1, 2, 3, 4),
        channels=RESNET_50.channels,
        head=HeadLayout(patch_size=16, queries=64, bins=64, feed_forward=512),
        stem='encoder.encoder.conv1.weight',
        renamed=(r'encoder\.encoder\.', 'backbone.'),
        unused=r'encoder\.encoder\.fc\.(weight|bias)',
        decoder_width=256,
        traits=_R50_TRAITS,
    ),
    'efficientnet-b5': Layout(
        backbone=lambda: EfficientNet(EFFICIENTNET_B5),
        features=_B5_FEATURES,
        channels=tuple(EFFICIENTNET_B5.channels[index] for index in _B5_FEATURES),
        head=HeadLayout(patch_size=32, queries=128, bins=128, feed_forward=1024),
        stem='encoder.conv_stem.weight',
        renamed=(r'encoder\.', 'backbone.'),
        unet_widths=(512, 256, 128, 64, 32),
        feature_stride=1,
        traits=_B5_TRAITS,
    ),
    'nyu-efficientnet-b5': Layout(
        backbone=lambda: EfficientNet(EFFICIENTNET_B5_WITH_HEAD),
        features=_NYU_FEATURES,
        channels=tuple(EFFICIENTNET_B5_WITH_HEAD.channels[index] for index in _NYU_FEATURES),
        head=HeadLayout(patch_size=20, queries=128, bins=100, feed_forward=1024, max_depth_m=10.0),
        stem='encoder.original_model.conv_stem.weight',
        renamed=(r'encoder\.original_model\.', 'backbone.'),
        unused=r'encoder\.original_model\.bn2\.\w+',
        decoder_width=2048,
        traits=_B5_TRAITS,
    ),
    'convnext-large': Layout(
        backbone=lambda: ConvNeXt(CONVNEXT_LARGE),
        features=(0, 1, 2, 3),
        channels=CONVNEXT_LARGE.channels,
        head=HeadLayout(patch_size=32, queries=64, bins=64, feed_forward=1024),
        stem='encoder.stem_0.weight',
        renamed=(r'encoder\.(stem|stages)_(\d)\.', r'backbone.\1.\2.'),
        unet_widths=(1024, 512, 256, 128),
    ),
}


class SqlDepth(DepthNetwork):
    """Image to depth (B, 1, H, W), strictly inside the head's range.

    :param variant: one of ``LAYOUTS``.
    :param head: sizes of the self query layer.
    :param decoder_width: channels of the deepest level of a bordered decoder; a U-Net's, whose
        widths are fixed, ignores it.
    """

    def __init__(self, variant: str, head: HeadLayout, decoder_width: int | None) -> None:
        layout = LAYOUTS[variant]
        super().__init__(_NAME, layout.traits)
        self.features = layout.features
        self.feature_stride = layout.feature_stride
        self.backbone = layout.backbone()
        self.decoder: nn.Module
        if decoder_width is None:
            self.decoder = UnetDecoder(layout.channels, layout.unet_widths, head.dim)
        else:
            self.decoder = BorderedDecoder(layout.channels, decoder_width, head.dim)
        self.head = SelfQueryLayer(head)

    def from_normalized(self, x: Tensor) -> list[Tensor]:
        """Return the depth of a normalised image."""
        depth = self.head(self.decoded(x))
        if self.feature_stride == 1:
            return [depth]
        return [doubled(depth.reciprocal()).reciprocal()]

    def decoded(self, x: Tensor) -> Tensor:
        """Return what the head sees, (B, dim, h, w), of a normalised image."""
        features = self.backbone(x)
        return self.decoder([features[index] for index in self.features])

    def check_size(self, height: int, width: int) -> None:
        """Refuse sizes that give fewer tokens than queries, or more than have an encoding."""
        super().check_size(height, width)
        layout = self.head.layout
        side = self.feature_stride * layout.patch_size
        tokens = (height // side) * (width // side)
        if not layout.queries <= tokens <= _MOST_TOKENS:
            raise ModelError(
                self.name,
                f'an input of {width}x{height} pixels, which is {tokens} patches of {side}x{side}',
                f'{layout.queries} to {_MOST_TOKENS} patches',
                f'Take a {"larger" if tokens < layout.queries else "smaller"} size, best that of '
                'the training.',
            )


_OPTION_HELP = {
    'patch_size': 'side of the patches that become tokens, pixels of the decoded features',
    'queries': 'tokens that become queries, 1 to 500',
    'bins': 'intervals of depth, 2 to 1024',
    'feed_forward': "width inside the transformer's pointwise networks",
    'dim': 'channels of features, tokens and queries, a multiple of 4 (default 32)',
    'decoder_width': "channels of the decoder's deepest level, a multiple of 16; resnet50 and "
    'nyu-efficientnet-b5 only',
    'min_depth_m': 'lower edge of the first bin, above 0 (default 0.001)',
    'max_depth_m': 'upper edge of the last bin (default 80; indoors 10)',
}


def build(identity: Identity) -> SqlDepth:
    """Make a freshly initialised network; see NetworkSpec."""
    layout, options = LAYOUTS[identity.variant], identity.options
    head = head_layout(identity)
    width = layout.decoder_width
    if width is not None:
        width = _integer(options, 'decoder_width', width, 16, 4096, multiple=16)
    elif 'decoder_width' in options:
        raise ModelError(
            'sqldepth option decoder_width',
            f'it for {identity.variant}',
            'a variant whose decoder has no fixed widths',
            'Leave it out.',
        )
    return SqlDepth(identity.variant, head, width)


def head_layout(identity: Identity) -> HeadLayout:
    """Return the sizes of the head of a variant as its options change them.

    :raises ModelError: for a value out of range.
    """
    default, options = LAYOUTS[identity.variant].head, identity.options
    low = _number(options, 'min_depth_m', default.min_depth_m, above=0.0)
    return HeadLayout(
        patch_size=_integer(options, 'patch_size', default.patch_size, 1, 128),
        queries=_integer(options, 'queries', default.queries, 1, _MOST_TOKENS),
        bins=_integer(options, 'bins', default.bins, 2, 1024),
        feed_forward=_integer(options, 'feed_forward', default.feed_forward, 1, 8192),
        dim=_integer(options, 'dim', default.dim, _HEADS, 512, multiple=_HEADS),
        min_depth_m=low,
        max_depth_m=_number(options, 'max_depth_m', default.max_depth_m, above=low),
    )


def _integer(
    options: Options, key: str, default: int, least: int, most: int, *, multiple: int = 1
) -> int:
    value = options.get(key, default)
    if type(value) is not int or not least <= value <= most or value % multiple:
        multiples = '' if multiple == 1 else f', a multiple of {multiple}'
        expected = f'an integer from {least} to {most}{multiples}'
        raise ModelError(f'sqldepth option {key}', quoted(value), expected)
    return value


def _number(options: Options, key: str, default: float, above: float) -> float:
    value = options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value <= 1e5:
        expected = f'a number above {above:g}, to 1e5'
        raise ModelError(f'sqldepth option {key}', quoted(value), expected)
    return float(value)


def infer(files: StateDicts, wanted: str | None) -> Identity:
    """Tell variant and sizes of a released checkpoint.

    The variant follows from the names of the encoder, every size from shapes.  The range of depth
    is in no file, so it is left to the default.
    """
    encoder, depth = files.get('encoder', {}), files.get('depth', {})
    found = [name for name, layout in LAYOUTS.items() if layout.stem in encoder]
    if len(found) != 1 or wanted not in (None, found[0]):
        raise ModelError(
            'sqldepth checkpoint',
            f'an encoder with the names of {" and ".join(found) or "no variant"}',
            f'those of {wanted or "one of " + ", ".join(LAYOUTS)}',
            'Check that this is encoder.pth of a SQLDepth release, and leave the variant out.',
        )
    rows, columns = _shape(depth, 'convert_to_prob.0.weight', 4)[:2]
    options: dict[str, object] = {
        'patch_size': _shape(depth, 'embedding_convPxP.weight', 4)[2],
        'queries': columns,
        'bins': rows,
        'feed_forward': _shape(depth, 'transformer_encoder.layers.0.linear1.weight', 2)[0],
        'dim': _shape(depth, 'positional_encodings', 2)[1],
    }
    if LAYOUTS[found[0]].decoder_width is not None:
        options['decoder_width'] = _shape(encoder, 'decoder.conv2.weight', 4)[0]
    return Identity(found[0], options)


def _shape(entries: Mapping[str, object], key: str, axes: int) -> tuple[int, ...]:
    value = entries.get(key)
    if not isinstance(value, Tensor) or value.ndim != axes:
        shape = f'one of shape {tuple(value.shape)}' if isinstance(value, Tensor) else 'none'
        raise ModelError(
            f'sqldepth checkpoint, entry {key}',
            shape,
            f'a tensor with {axes} axes',
            'Check that encoder.pth and depth.pth are those of a SQLDepth release.',
        )
    return tuple(value.shape)


_HEAD_RENAMED = (
    (re.compile(r'transformer_encoder\.layers\.'), 'layers.'),
    (re.compile(r'(layers\.\d+\.self_attn\.)in_proj_'), r'\1qkv.'),
    (re.compile(r'(layers\.\d+\.self_attn\.)out_proj\.'), r'\1proj.'),
    (re.compile(r'embedding_convPxP\.'), 'patch_embedding.'),
    (re.compile(r'convert_to_prob\.0\.'), 'to_bins.'),
)
_STEP = re.compile(r'(decoder\.up\d\.)_net\.')


def translate(files: StateDicts, identity: Identity) -> dict[str, object]:
    """Put the entries of encoder.pth and depth.pth under the network's names."""
    layout = LAYOUTS[identity.variant]
    unused, (pattern, ours) = re.compile(layout.unused), layout.renamed
    translated: dict[str, object] = {}
    for key, value in files.get('encoder', {}).items():
        if unused.fullmatch(key) is None:
            translated[_STEP.sub(r'\1net.', re.sub(f'^{pattern}', ours, key))] = value
    for key, value in files.get('depth', {}).items():
        for old, new in _HEAD_RENAMED:
            key = old.sub(new, key)
        translated[f'head.{key}'] = value
    return translated


_SCALELESS_NOTES = (
    'Trained without a metric scale: its depth is right up to one factor, although the range of '
    'its bins is written in metres. The authors scale every image by its true median before they '
    'measure.'
)
_FINE_TUNED_NOTES = (
    'Fine-tuned with the true depth of KITTI on 1216x352 crops of its images, focal length 721.5 '
    'pixels. The published fine-tuning scales half of each batch by the true median, so its depth '
    'is not called metric here: measure the scale before you rely on it.'
)


def meaning(identity: Identity, files: StateDicts, size: tuple[int, int]) -> Meaning:
    """Say what the output of a released model means."""
    head = head_layout(identity)
    output = OutputSpec('metric', head.min_depth_m, head.max_depth_m)
    fine_tuned = identity.variant == 'convnext-large'
    return Meaning(output, notes=_FINE_TUNED_NOTES if fine_tuned else _SCALELESS_NOTES)


def probe(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return every intermediate result by its name in the conformance vectors."""
    head = network.head
    features = network.decoded(network.normalized(image))
    size = features.shape[-2:]
    queries, pixels = head.queries(features), head.pixels(features)
    summary = summaries(queries, pixels)
    return {
        'encoder_out': features,
        'queries': queries,
        'energy_maps': energy_maps(queries, pixels).unflatten(2, size),
        'summaries': summary,
        'bin_logits': head.bin_logits(summary),
        'probs': head.probabilities(queries, pixels).mT.unflatten(2, size),
        'depth': head(features),
    }


def _options(
    patch_size: int, queries: int, bins: int, feed_forward: int, **more: int
) -> dict[str, object]:
    sizes = {'patch_size': patch_size, 'queries': queries, 'bins': bins}
    return {**sizes, 'feed_forward': feed_forward, 'dim': 32, **more}


_R50_SMALL = Identity('resnet50', _options(16, 64, 64, 512, decoder_width=256))
_R50_LARGE = Identity('resnet50', _options(20, 128, 128, 512, decoder_width=256))
_B5 = Identity('efficientnet-b5', _options(32, 128, 128, 1024))
_CONVNEXT = Identity('convnext-large', _options(32, 64, 64, 1024))
_NYU = Identity('nyu-efficientnet-b5', _options(20, 128, 100, 1024, decoder_width=2048))

_CASES = {
    'sqldepth_resnet50_640x192': _R50_SMALL,
    'sqldepth_resnet50_1024x320': _R50_LARGE,
    'sqldepth_effb5_1024x320': _B5,
    'sqldepth_convnextL_1024x320': _CONVNEXT,
    'sqldepth_nyu_effb5': Identity(_NYU.variant, {**_NYU.options, 'max_depth_m': 80.0}),
}


def conformance_case(stem: str) -> Case | None:
    """Return the network that a name like 'sqldepth_resnet50_640x192' stands for."""
    identity = _CASES.get(stem)
    if identity is None:
        return None
    network = build(identity).eval()
    tolerance = network.traits.tolerance
    return Case(network, lambda files: translate(files, identity), probe, tolerance)


_SOURCE = 'links in github.com/hisfog/SfMNeXt-Impl#readme (Google Drive)'
_FLIPPED = f'{KITTI_EIGEN}, mean with the flipped image'
_METRIC = (
    'KITTI Eigen, improved ground truth, 1216x352 crop and Garg crop, mean with the flipped '
    'image, on input of 1216x352'
)


def _release(
    name: str, identity: Identity, height: int, width: int, abs_rel: float, rmse_m: float
) -> Release:
    return Release(
        name=f'sqldepth-{name}-{width}x{height}',
        identity=identity,
        height=height,
        width=width,
        source=_SOURCE,
        protocol=_METRIC if identity is _CONVNEXT else _FLIPPED,
        figures=kitti_figures(abs_rel, None, rmse_m),
    )


_RELEASES = (
    _release('resnet50', _R50_SMALL, 192, 640, 0.088, 4.175),
    _release('resnet50', _R50_LARGE, 320, 1024, 0.082, 3.914),
    _release('efficientnet-b5', _B5, 320, 1024, 0.080, 3.777),
    _release('convnext-large', _CONVNEXT, 320, 1024, 0.043, 1.698),
    Release('sqldepth-nyu-efficientnet-b5-640x480', _NYU, 480, 640, source=''),
)


@register(_NAME)
def specification() -> NetworkSpec:
    """Describe SQLDepth."""
    return NetworkSpec(
        name=_NAME,
        paper='Wang et al., SQLdepth, AAAI 2024',
        origin='github.com/hisfog/SfMNeXt-Impl, commit 85b1a63',
        code_license='MIT by its licence file, "all rights reserved" by its README',
        weights_license='not stated; trained on KITTI (CC BY-NC-SA 3.0): non-commercial',
        variants={name: layout.traits for name, layout in LAYOUTS.items()},
        option_help=_OPTION_HELP,
        parts=('encoder', 'depth'),
        releases=_RELEASES,
        build=build,
        infer=infer,
        translate=translate,
        meaning=meaning,
        conformance_case=conformance_case,
    )
