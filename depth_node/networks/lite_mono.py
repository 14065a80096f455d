"""Lite-Mono: a small CNN and transformer hybrid for monocular disparity.

Passport
    Paper: Zhang, Nex, Vosselman, Kerle, "Lite-Mono: A Lightweight CNN and Transformer
        Architecture for Self-Supervised Monocular Depth Estimation", CVPR 2023.
    Original: github.com/noahzn/Lite-Mono, commit 4874b35.
    Licence of the original code: MIT, but its decoder derives from Monodepth2, whose licence is
        non-commercial.  This file was written from the published description and from measured
        facts; it holds no code of either.
    Licence of the published weights: not stated; they were trained on KITTI, whose terms are
        CC BY-NC-SA 3.0.  They are loaded from where their authors put them, never shipped.
    Same as the original: arithmetic, names and order of all weights, initialisation.
    Different: any height and width that are multiples of 32, because the dilations are an
        argument and not derived from the size; the image pyramid is a chain of three poolings, not
        ten from the top, which gives the same numbers; the positional encoding follows the type
        and device of the image, so that half precision works; the depthwise convolutions leave
        autocast on a CPU, because torch computes wrong weight gradients for dilated ones in
        bfloat16 with channels-last memory.
    Unused by design: ``norm`` of the dilated blocks is in the released files and is never read.
"""

from __future__ import annotations

import math
import re
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
from depth_node.networks.blocks import DropPath
from depth_node.networks.blocks import ReflectConv
from depth_node.networks.blocks import ReflectConvElu
from depth_node.networks.blocks import doubled
from depth_node.networks.blocks import image_pyramid
from depth_node.networks.depth_network import DepthNetwork
from depth_node.networks.lite_mono_plain import plain_lite_mono
from depth_node.networks.registry import register
from depth_node.networks.rewrites import Choices
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
from depth_node.networks.translation import prefixed

DEFAULT_DILATIONS = '640x192'

_NAME = 'lite-mono'
_TRAITS = Traits(
    output_kind='disparity', size_multiple=32, mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225)
)

_HEADS = 8
_EXPANSION = 6
_FOURIER_PER_AXIS = 32
_LAYER_NORM_EPS = 1e-6
_SCALES = 3


@dataclass(frozen=True)
class Layout:
    """What tells the variants apart."""

    channels: tuple[int, int, int]
    """Channels of the features at 1/4, 1/8 and 1/16 of the size."""
    dilations: Mapping[str, tuple[tuple[int, ...], ...]]
    """Name of the training size -> per stage the dilations of its convolution blocks."""


_SHORT = {
    '640x192': ((1, 2, 3), (1, 2, 3), (1, 2, 3, 2, 4, 6)),
    '1024x320': ((1, 2, 5), (1, 2, 5), (1, 2, 5, 2, 4, 10)),
}
_LONG = {
    '640x192': ((1, 2, 3), (1, 2, 3), (1, 2, 3, 1, 2, 3, 2, 4, 6)),
    '1024x320': ((1, 2, 5), (1, 2, 5), (1, 2, 5, 1, 2, 5, 2, 4, 10)),
}
LAYOUTS: Mapping[str, Layout] = {
    'tiny': Layout((32, 64, 128), _SHORT),
    'small': Layout((48, 80, 128), _SHORT),
    'base': Layout((48, 80, 128), _LONG),
    '8m': Layout((64, 128, 224), dict.fromkeys(_LONG, _LONG['640x192'])),
}


class PlainConv(nn.Module):
    """3x3 convolution without bias or activation, zeros beyond the border."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels_in, channels_out, 3, stride, dilation, dilation, groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        return self.conv(x)


class BatchNormGelu(nn.Module):
    """Batch normalisation and an exact GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return F.gelu(self.bn(x))


class StemConv(nn.Module):
    """Convolution, batch normalisation, GELU: the layers at full and half size."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn_gelu = BatchNormGelu(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        return self.bn_gelu(self.conv(x))


class DilatedBlock(nn.Module):
    """Depthwise dilated convolution and a pointwise network, added to the input.

    :param layer_scale: first value of ``gamma``; at the published 1e-6 a fresh block does nothing.
    """

    def __init__(self, channels: int, dilation: int, drop_path: float, layer_scale: float) -> None:
        super().__init__()
        self.ddwconv = PlainConv(channels, channels, dilation=dilation, groups=channels)
        self.bn1 = nn.BatchNorm2d(channels, eps=1e-5)
        self.norm = nn.LayerNorm(channels, eps=_LAYER_NORM_EPS)
        self.pwconv1 = nn.Linear(channels, _EXPANSION * channels)
        self.pwconv2 = nn.Linear(_EXPANSION * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (B, C, H, W)."""
        y = self._depthwise(x).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + self.drop_path(y.permute(0, 3, 1, 2))

    def _depthwise(self, x: Tensor) -> Tensor:
        if x.device.type != 'cpu' or not torch.is_autocast_enabled('cpu'):
            return self.bn1(self.ddwconv(x))
        # torch 2.13: the bfloat16 weight gradient of this convolution is wrong or infinite
        with torch.autocast('cpu', enabled=False):
            return self.bn1(self.ddwconv(x.to(self.bn1.weight.dtype)))


class CrossCovarianceAttention(nn.Module):
    """Attention between channels instead of pixels: its cost is linear in their number.

    Source: El-Nouby et al., XCiT, NeurIPS 2021.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(_HEADS, 1, 1))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep the shape (B, N, C)."""
        batch, count, channels = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, _HEADS, channels // _HEADS)
        query, key, value = qkv.permute(2, 0, 3, 4, 1)  # each (B, heads, C / heads, N)
        weights = self._weights(query, key).to(value.dtype)
        mixed = (weights @ value).permute(0, 3, 1, 2).reshape(batch, count, channels)
        return self.proj(mixed)

    def _weights(self, query: Tensor, key: Tensor) -> Tensor:
        # sums over thousands of pixels overflow half precision
        with torch.autocast(query.device.type, enabled=False):
            wide = torch.promote_types(query.dtype, torch.float32)
            query = F.normalize(query.to(wide), dim=-1)
            key = F.normalize(key.to(wide), dim=-1)
            return torch.softmax(query @ key.transpose(-2, -1) * self.temperature, dim=-1)


class PositionalEncoding(nn.Module):
    """Sines and cosines of row and column, projected to the channels of the features.

    Along an axis, index i, counted from 1, becomes the angle 2 pi i / (last + 1e-6); feature k of
    32 has the frequency 10000^(-2 floor(k / 2) / 32) and is a sine for even k, a cosine for odd k.
    The first 32 inputs of the projection are those of the row, the others those of the column.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(2 * _FOURIER_PER_AXIS, channels, 1)

    def axes(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the parts (1, C, height, 1) and (1, C, 1, width), whose sum is the encoding."""
        weight = self.token_projection.weight
        of_rows, of_columns = weight[:, :, 0, 0].split(_FOURIER_PER_AXIS, dim=1)
        rows = of_rows @ _fourier_axis(height).to(weight)
        columns = of_columns @ _fourier_axis(width).to(weight)
        rows = rows + self.token_projection.bias[:, None]
        return rows[None, :, :, None], columns[None, :, None, :]

    def forward(self, height: int, width: int) -> Tensor:
        """Return (1, C, height, width)."""
        rows, columns = self.axes(height, width)
        return rows + columns


def _fourier_axis(length: int) -> Tensor:
    """Return (32, length) float32; see :class:`PositionalEncoding`."""
    angle = torch.arange(1, length + 1, dtype=torch.float32) / (length + 1e-6) * (2 * math.pi)
    pair = torch.arange(_FOURIER_PER_AXIS // 2, dtype=torch.float32)
    phase = angle / 10000 ** (2 * pair / _FOURIER_PER_AXIS)[:, None]
    return torch.stack((phase.sin(), phase.cos()), dim=1).flatten(0, 1)


class AttentionBlock(nn.Module):
    """Channel attention and a pointwise network; the last block of each stage.

    The residual goes round both: the result of the attention reaches the output only through the
    pointwise network.
    """

    def __init__(
        self, channels: int, drop_path: float, layer_scale: float, *, positional: bool
    ) -> None:
        super().__init__()
        self.gamma_xca = nn.Parameter(torch.full((channels,), layer_scale))
        self.gamma = nn.Parameter(torch.full((channels,), layer_scale))
        self.pos_embd = PositionalEncoding(channels) if positional else None
        self.norm_xca = nn.LayerNorm(channels, eps=_LAYER_NORM_EPS)
        self.xca = CrossCovarianceAttention(channels)
        self.norm = nn.LayerNorm(channels, eps=_LAYER_NORM_EPS)
        self.pwconv1 = nn.Linear(channels, _EXPANSION * channels)
        self.pwconv2 = nn.Linear(_EXPANSION * channels, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (B, C, H, W)."""
        height, width = x.shape[-2:]
        tokens = x if self.pos_embd is None else x + self.pos_embd(height, width)
        tokens = tokens.flatten(2).transpose(1, 2)
        tokens = tokens + self.gamma_xca * self.xca(self.norm_xca(tokens))
        tokens = self.gamma * self.pwconv2(F.gelu(self.pwconv1(self.norm(tokens))))
        return x + self.drop_path(tokens.transpose(1, 2).reshape(x.shape))


class Encoder(nn.Module):
    """Normalised RGB to features at 1/4, 1/8 and 1/16 of the size.

    :param channels: channels of the three features.
    :param dilations: per stage, the dilations of its convolution blocks.
    :param drop_path: rate of the last block; it grows linearly from 0 at the first.
    :param layer_scale: first value of all layer-scale parameters.
    """

    def __init__(
        self,
        channels: Sequence[int],
        dilations: Sequence[Sequence[int]],
        drop_path: float,
        layer_scale: float,
    ) -> None:
        super().__init__()
        first, second, third = channels
        stem = (StemConv(3, first, 2), StemConv(first, first, 1), StemConv(first, first, 1))
        self.downsample_layers = nn.ModuleList(
            (
                nn.Sequential(*stem),
                nn.Sequential(PlainConv(2 * first + 3, second, stride=2)),
                nn.Sequential(PlainConv(2 * second + 3, third, stride=2)),
            )
        )
        self.stem2 = nn.Sequential(PlainConv(first + 3, first, stride=2))
        blocks = sum(len(stage) + 1 for stage in dilations)
        rates = iter(torch.linspace(0.0, drop_path, blocks).tolist())
        self.stages = nn.ModuleList()
        for index, (width, stage) in enumerate(zip(channels, dilations, strict=True)):
            convolutions = [DilatedBlock(width, d, next(rates), layer_scale) for d in stage]
            attention = AttentionBlock(width, next(rates), layer_scale, positional=index == 0)
            self.stages.append(nn.Sequential(*convolutions, attention))
        self.apply(_initialize_encoder)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the three features of (B, 3, H, W) normalised images, the largest first."""
        half, quarter, eighth = image_pyramid(x, _SCALES)
        ahead = self.stem2(torch.cat((self.downsample_layers[0](x), half), dim=1))
        features = [self.stages[0](ahead)]
        for index, image in ((1, quarter), (2, eighth)):
            joined = torch.cat((ahead, features[-1], image), dim=1)
            ahead = self.downsample_layers[index](joined)
            features.append(self.stages[index](ahead))
        return features


class Decoder(nn.Module):
    """Features to disparity logits at three sizes.

    The list holds two convolutions per scale from the coarsest on, then the three heads from the
    finest on: the order of the released files.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        inner = [width // 2 for width in channels]
        before = [*inner[1:], channels[-1]]
        skipped = [0, *channels[:-1]]
        layers: list[nn.Module] = []
        for scale in reversed(range(_SCALES)):
            layers.append(ReflectConvElu(before[scale], inner[scale]))
            layers.append(ReflectConvElu(inner[scale] + skipped[scale], inner[scale]))
        heads = [ReflectConv(width, 1) for width in inner]
        self.decoder = nn.ModuleList([*layers, *heads])
        self.apply(_initialize_decoder)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the logits at full, 1/2 and 1/4 size, each (B, 1, h, w)."""
        layers, heads = self.decoder[: 2 * _SCALES], self.decoder[2 * _SCALES :]
        x = features[-1]
        logits = []
        for step, scale in enumerate(reversed(range(_SCALES))):
            x = doubled(layers[2 * step](x))
            if scale > 0:
                x = torch.cat((x, features[scale - 1]), dim=1)
            x = layers[2 * step + 1](x)
            logits.append(doubled(heads[scale](x)))
        return logits[::-1]


class LiteMono(DepthNetwork):
    """Image to sigmoid disparity; inverse depth is 1/max + (1/min - 1/max) times the disparity.

    The outputs are at full, 1/2 and 1/4 size, each (B, 1, h, w) in (0, 1).

    :param channels: channels of the three features.
    :param dilations: per stage, the dilations of its convolution blocks.
    :param drop_path: stochastic depth rate of the last block, 0 <= rate < 1.
    :param layer_scale: first value of all layer-scale parameters.
    """

    def __init__(
        self,
        channels: Sequence[int],
        dilations: Sequence[Sequence[int]],
        drop_path: float = 0.2,
        layer_scale: float = 1e-6,
    ) -> None:
        super().__init__(_NAME, _TRAITS)
        self.encoder = Encoder(channels, dilations, drop_path, layer_scale)
        self.decoder = Decoder(channels)

    def linearized(self, height: int, width: int, choices: Choices) -> nn.Module:
        """Return the same function as a plain module; see :func:`.rewrites.linearized`."""
        self.check_size(height, width)
        return plain_lite_mono(self, height, width, choices)

    def from_normalized(self, x: Tensor) -> list[Tensor]:
        """Return the disparities of a normalised image."""
        return [torch.sigmoid(logit) for logit in self.decoder(self.encoder(x))]


def _initialize_encoder(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')


def _initialize_decoder(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


_OPTION_HELP = {
    'dilations': "'640x192' (default; also for other sizes) or '1024x320': list of dilations",
    'drop_path': 'stochastic depth rate of the last block, 0 to below 1 (default 0.2)',
    'layer_scale': 'first value of the layer-scale parameters (default 1e-6)',
}


def build(identity: Identity) -> LiteMono:
    """Make a freshly initialised network; see NetworkSpec."""
    layout, options = LAYOUTS[identity.variant], identity.options
    size = options.get('dilations', DEFAULT_DILATIONS)
    if not isinstance(size, str) or size not in layout.dilations:
        raise ModelError(
            'lite-mono option dilations', quoted(size), f'one of {", ".join(layout.dilations)}'
        )
    drop_path = _number(options, 'drop_path', 0.2, below=1.0)
    layer_scale = _number(options, 'layer_scale', 1e-6, below=10.0)
    return LiteMono(layout.channels, layout.dilations[size], drop_path, layer_scale)


def _number(options: Options, key: str, default: float, below: float) -> float:
    value = options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < below:
        raise ModelError(
            f'lite-mono option {key}', quoted(value), f'a number from 0 to below {below}'
        )
    return float(value)


def infer(files: StateDicts, wanted: str | None) -> Identity:
    """Tell variant and dilations of a released checkpoint.

    The variant follows from shapes; the dilations do not, so they follow from the training size
    that the encoder's file carries, and are the default without it.
    """
    encoder = files.get('encoder', {})
    stem = encoder.get('downsample_layers.0.0.conv.weight')
    width = stem.shape[0] if isinstance(stem, Tensor) and stem.ndim == 4 else None
    last = max(
        (int(m[1]) for key in encoder if (m := re.match(r'stages\.2\.(\d+)\.', key))), default=-1
    )
    for variant, layout in LAYOUTS.items():
        fits = (layout.channels[0], len(layout.dilations[DEFAULT_DILATIONS][2])) == (width, last)
        if fits and wanted in (None, variant):
            return Identity(variant, {'dilations': _training_size(encoder)})
    raise ModelError(
        'lite-mono checkpoint',
        f'an encoder with {width} channels in its stem and {last + 1} blocks in its last stage',
        f'the shapes of {wanted or "tiny, small, base or 8m"}',
        'Check that this is encoder.pth of a Lite-Mono release.',
    )


def _training_size(encoder: Mapping[str, object]) -> str:
    size = f'{encoder.get("width")}x{encoder.get("height")}'
    return size if size in _LONG else DEFAULT_DILATIONS


def translate(files: StateDicts, identity: Identity) -> dict[str, object]:
    """Put the entries of encoder.pth and depth.pth under the network's names."""
    return prefixed(files, {'encoder': 'encoder', 'depth': 'decoder'})


def meaning(identity: Identity, files: StateDicts, size: tuple[int, int]) -> Meaning:
    """Say what the output of a released model means."""
    return Meaning(OutputSpec('disparity', min_depth_m=0.1, max_depth_m=100.0), notes=_NOTES)


def probe(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return features, logits and disparities by their names in the conformance vectors."""
    features = network.encoder(network.normalized(image))
    logits = network.decoder(features)
    named = {f'feat_{index}': value for index, value in enumerate(features)}
    named.update({f'logit_{index}': value for index, value in enumerate(logits)})
    named.update({f'disp_{index}': torch.sigmoid(value) for index, value in enumerate(logits)})
    return named


def conformance_case(stem: str) -> Case | None:
    """Read variant and dilations out of a name like 'litemono-tiny_640x192'."""
    match = re.fullmatch(r'litemono(?:-(tiny|small|8m))?_(640x192|1024x320)', stem)
    if match is None:
        return None
    identity = Identity(match[1] or 'base', {'dilations': match[2]})
    network = build(identity).eval()
    return Case(network, lambda files: translate(files, identity), probe, _TRAITS.tolerance)


_NOTES = (
    'Trained without a metric scale: the authors scale every image by its true median before they '
    'measure. The images of training had nearly the aspect of the network, so images of another '
    'aspect are cropped rather than squeezed.'
)
_SOURCE = 'links in the table of github.com/noahzn/Lite-Mono#results (SurfDrive)'
_PUBLISHED = (
    ('tiny', 192, 640, 0.110, 0.837, 4.710, 0.187, 0.880),
    ('small', 192, 640, 0.110, 0.802, 4.671, 0.186, 0.879),
    ('base', 192, 640, 0.107, 0.765, 4.561, 0.183, 0.886),
    ('8m', 192, 640, 0.101, 0.729, 4.454, 0.178, 0.897),
    ('tiny', 320, 1024, 0.104, 0.764, 4.487, 0.180, 0.892),
    ('small', 320, 1024, 0.103, 0.757, 4.449, 0.180, 0.894),
    ('base', 320, 1024, 0.102, 0.746, 4.444, 0.179, 0.896),
    ('8m', 320, 1024, 0.097, 0.710, 4.309, 0.174, 0.905),
)


def _release(variant: str, height: int, width: int, *figures: float) -> Release:
    size = f'{width}x{height}'
    return Release(
        name=f'lite-mono-{variant}-{size}',
        identity=Identity(variant, {'dilations': size}),
        height=height,
        width=width,
        source=_SOURCE,
        protocol=KITTI_EIGEN,
        figures=kitti_figures(*figures),
    )


@register(_NAME)
def specification() -> NetworkSpec:
    """Describe Lite-Mono."""
    return NetworkSpec(
        name=_NAME,
        paper='Zhang et al., Lite-Mono, CVPR 2023',
        origin='github.com/noahzn/Lite-Mono, commit 4874b35',
        code_license='MIT',
        weights_license='not stated; trained on KITTI (CC BY-NC-SA 3.0): non-commercial',
        variants=dict.fromkeys(LAYOUTS, _TRAITS),
        option_help=_OPTION_HELP,
        parts=('encoder', 'depth'),
        releases=tuple(_release(*row) for row in _PUBLISHED),
        build=build,
        infer=infer,
        translate=translate,
        meaning=meaning,
        conformance_case=conformance_case,
    )
