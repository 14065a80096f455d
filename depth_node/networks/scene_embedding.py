"""What kind of scene an image shows, as one vector: the context of ECoDepth's diffusion network.

Paper: Patni, Agarwal, Arora, ECoDepth: Effective Conditioning of Diffusion Models for Monocular
Depth Estimation, CVPR 2024.  The classifier is ViT-B/16 (Dosovitskiy et al., ICLR 2021), whose
images are resized in 8 bits by Pillow; the numbers of that resizing are reproduced exactly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch import nn

from depth_node.networks.vision_transformer import TransformerBlock

CLASSIFIER_SIDE_PX = 224

_PATCH_PX = 16
_LAYER_NORM_EPS = 1e-12
_LARGEST_LEVEL = 255.0

# the fixed-point arithmetic of Pillow's 8-bit resizing
_FRACTION_BITS = 22
# its weights in two parts that single precision, and even 11 bits, hold exactly
_LOW_BITS = 11
_LOW_UNIT = 1 << _LOW_BITS

_RELEASED_STEM = {
    'vit.embeddings.cls_token': 'cls_token',
    'vit.embeddings.position_embeddings': 'position_embeddings',
    'vit.embeddings.patch_embeddings.projection.weight': 'patch_embeddings.weight',
    'vit.embeddings.patch_embeddings.projection.bias': 'patch_embeddings.bias',
}
_RELEASED_PARTS = {
    'layernorm_before': 'norm1',
    'layernorm_after': 'norm2',
    'attention.output.dense': 'attn.proj',
    'intermediate.dense': 'mlp.fc1',
    'output.dense': 'mlp.fc2',
}
_RELEASED_QKV = (
    'attention.attention.query',
    'attention.attention.key',
    'attention.attention.value',
)
_RELEASED_HEAD = re.compile(r'(vit\.layernorm|classifier)\.(weight|bias)')
_RELEASED_LAYER = re.compile(r'vit\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)')


def grey_levels(x: Tensor) -> Tensor:
    """Return (B, 3, H, W) RGB in [-1, 1] as whole levels from 0 to 255, rounded down.

    A value that falls short of a level by no more than the rounding of its type is that level, so
    that 8-bit images keep their levels whatever arithmetic brought them here.  In single precision
    the ways that lead here err by up to 0.95e-5 levels, and 1.5e-5 is allowed.
    """
    half = 0.5 * _LARGEST_LEVEL
    slack = min(0.5, half * torch.finfo(x.dtype).eps)
    return torch.floor(x.float() * half + (half + slack))


def resizing_weights(side: int) -> Tensor:
    """Return the fixed-point weights that bring an axis to the size of the classifier.

    Every result is a triangle-weighted mean of its neighbourhood, which widens with the reduction;
    the weights are multiples of 2^-22.

    :param side: length of the axis, pixels.
    :returns: (2, 224, side) float32 whole numbers; the first times 2048 plus the second is the
        weight times 2^22.
    """
    scale = side / CLASSIFIER_SIDE_PX
    reach = max(scale, 1.0)
    rows = [_row(side, (index + 0.5) * scale, reach) for index in range(CLASSIFIER_SIDE_PX)]
    high = [[(weight + _LOW_UNIT // 2) // _LOW_UNIT for weight in row] for row in rows]
    low = [
        [weight - _LOW_UNIT * part for weight, part in zip(row, parts, strict=True)]
        for row, parts in zip(rows, high, strict=True)
    ]
    return torch.tensor([high, low], dtype=torch.float32)


def _row(side: int, center: float, reach: float) -> list[int]:
    """Return the weights of one result, times 2^22."""
    first = max(int(center - reach + 0.5), 0)
    end = min(int(center + reach + 0.5), side)
    # Pillow multiplies by the inverse, too: the last bit of a weight can depend on it
    inverse = 1.0 / reach
    offsets = [(index - center + 0.5) * inverse for index in range(first, end)]
    heights = [max(0.0, 1.0 - abs(offset)) for offset in offsets]
    total = sum(heights)
    weights = [int(0.5 + height / total * (1 << _FRACTION_BITS)) for height in heights]
    return [0] * first + weights + [0] * (side - end)


def resized(levels: Tensor, weights: Tensor) -> Tensor:
    """Return an 8-bit image, made square by zeros at the bottom or right, at 224x224.

    Columns first, then rows, rounded to whole levels after each.  All sums are of whole numbers
    below 2^24, so that single precision is exact in any order of addition.

    :param levels: (B, 3, H, W) whole levels from 0 to 255.
    :param weights: of the longer side, see :func:`resizing_weights`.
    """
    height, width = levels.shape[-2:]
    # zeros add nothing, so the weights are cut instead of the image extended
    of_columns, of_rows = weights[:, :, :width].transpose(1, 2), weights[:, :, :height]
    narrow = _rounded(levels @ of_columns[0], levels @ of_columns[1])
    return _rounded(of_rows[0] @ narrow, of_rows[1] @ narrow)


def _rounded(high: Tensor, low: Tensor) -> Tensor:
    """Return (high * 2048 + low) / 2^22 rounded to the nearest whole number, halves up."""
    high_unit = 1 << (_FRACTION_BITS - _LOW_BITS)
    total = high + torch.floor(low / _LOW_UNIT) + high_unit // 2
    return torch.floor(total / high_unit)


class ResizingWeights(nn.Module):
    """The weights of :func:`resized`, made for the image at hand."""

    def forward(self, image: Tensor) -> Tensor:
        """Return (2, 224, side) for an image (B, 3, H, W) on its device."""
        return resizing_weights(max(image.shape[-2:])).to(image.device)


class FixedWeights(nn.Module):
    """The weights of :func:`resized` for one size, made once."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.register_buffer('weights', resizing_weights(side), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the weights; the image must be of that size."""
        return self.weights


class VisionTransformer(nn.Module):
    """ViT with 16x16 patches on images of 224x224.

    :param width: channels of the tokens; 768 as published.
    :param blocks: transformer blocks; 12 as published.
    :param heads: heads of their attention; 12 as published.
    :param logits: classes of the head; 0: no head.
    """

    def __init__(self, width: int, blocks: int, heads: int, logits: int) -> None:
        super().__init__()
        patches = (CLASSIFIER_SIDE_PX // _PATCH_PX) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + patches, width))
        self.patch_embeddings = nn.Conv2d(3, width, _PATCH_PX, _PATCH_PX)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, eps=_LAYER_NORM_EPS) for _ in range(blocks)
        )
        self.layernorm: nn.Module = nn.Identity()
        self.classifier: nn.Module = nn.Identity()
        if logits:
            self.layernorm = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
            self.classifier = nn.Linear(width, logits)

    def forward(self, image: Tensor) -> Tensor:
        """Return the class token, not normalised, (B, C), of (B, 3, 224, 224) in [-1, 1]."""
        patches = self.patch_embeddings(image).flatten(2).transpose(1, 2)
        first = self.cls_token.expand(len(patches), -1, -1)
        tokens = torch.cat((first, patches), dim=1) + self.position_embeddings
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, 0]

    def logits(self, token: Tensor) -> Tensor:
        """Map the class token (B, C) to the logits of the classes, where there is a head."""
        return self.classifier(self.layernorm(token))


class SceneEmbedding(nn.Module):
    """RGB in [-1, 1] to the class token of a vision transformer: the context of version 2."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit
        self.resizing = ResizingWeights()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, 1, C)."""
        return self.context(self.vit(self.pixel_values(x)))

    def pixel_values(self, x: Tensor) -> Tensor:
        """Return the image as the classifier wants it, (B, 3, 224, 224) in [-1, 1].

        No gradient passes: the levels are whole numbers.
        """
        with torch.autocast(x.device.type, enabled=False):
            levels = resized(grey_levels(x.detach()), self.resizing(x).float())
        return (levels / (0.5 * _LARGEST_LEVEL) - 1.0).to(x.dtype)

    def context(self, token: Tensor) -> Tensor:
        """Map the class token (B, C) to the context (B, 1, C)."""
        return token[:, None]


class Adapter(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, embedding: Tensor) -> Tensor:
        """Keep the shape (B, C)."""
        return self.fc(embedding)


class ClassEmbedding(SceneEmbedding):
    """RGB in [-1, 1] to a mixture of learned class embeddings: the context of version 1.

    :param vit: transformer with a head.
    :param width: channels of its tokens and of the context.
    :param logits: classes of its head.
    :param hidden: width between those and the classes of this network; 400 as published.
    :param classes: kinds of scenes; 100 indoor and 200 outdoor as published.
    """

    def __init__(
        self, vit: VisionTransformer, width: int, logits: int, hidden: int, classes: int
    ) -> None:
        super().__init__(vit)
        self.fc = nn.Sequential(nn.Linear(logits, hidden), nn.GELU(), nn.Linear(hidden, classes))
        self.embeddings = nn.Parameter(nn.init.normal_(torch.empty(classes, width)))
        self.embedding_adapter = Adapter(width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-4))

    def context(self, token: Tensor) -> Tensor:
        """Map the class token (B, C) to the context (B, 1, C)."""
        embedding = self.probabilities(token) @ self.embeddings
        return (embedding + self.gamma * self.embedding_adapter(embedding))[:, None]

    def probabilities(self, token: Tensor) -> Tensor:
        """Map the class token (B, C) to the probabilities of the kinds of scenes (B, K)."""
        return torch.softmax(self.fc(self.vit.logits(token)), dim=-1)


def translated_vit(
    released: Mapping[str, object], has_head: bool
) -> tuple[dict[str, object], dict[str, object]]:
    """Put the entries of a released vision transformer under the names of ours.

    :param released: entries, from 'vit.' and 'classifier.' on.
    :param has_head: whether ours has a head; without it that of the file is left out.
    :returns: entries by our names, queries, keys and values joined; and, by their own names, those
        that are not known.
    """
    known: dict[str, object] = {}
    unknown: dict[str, object] = {}
    for key, value in released.items():
        layer = _RELEASED_LAYER.fullmatch(key)
        if key in _RELEASED_STEM:
            known[_RELEASED_STEM[key]] = value
        elif _RELEASED_HEAD.fullmatch(key):
            if has_head:
                known[key.removeprefix('vit.')] = value
        elif layer and layer[2] in _RELEASED_PARTS:
            known[f'blocks.{layer[1]}.{_RELEASED_PARTS[layer[2]]}.{layer[3]}'] = value
        elif layer and layer[2] in _RELEASED_QKV and (parts := _matrices(released, layer)):
            if layer[2] == _RELEASED_QKV[0]:
                known[f'blocks.{layer[1]}.attn.qkv.{layer[3]}'] = torch.cat(parts)
        else:
            unknown[key] = value
    return known, unknown


def _matrices(released: Mapping[str, object], layer: re.Match[str]) -> list[Tensor]:
    """Return queries, keys and values of a layer; nothing where they cannot be joined."""
    parts = [
        released.get(f'vit.encoder.layer.{layer[1]}.{part}.{layer[3]}') for part in _RELEASED_QKV
    ]
    found = [part for part in parts if isinstance(part, Tensor) and part.ndim]
    joinable = len(found) == len(parts) and len({part.shape for part in found}) == 1
    return found if joinable else []
