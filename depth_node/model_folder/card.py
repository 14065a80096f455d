"""The card of a model: everything the pipeline must know, as frozen values and as strict YAML.

Nothing is guessed from file names.  A card comes from outside, so that every key, type and range
is checked here once; a refusal names the key.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from dataclasses import field

from depth_node.errors import ModelError
from depth_node.errors import quoted
from depth_node.model_folder import card_yaml

CARD_NAME = 'card.yaml'
WEIGHTS_NAME = 'weights.safetensors'
CARD_FORMAT = 1
LARGEST_CARD_BYTES = 256 * 1024

OUTPUT_KINDS = ('disparity', 'metric', 'relative')
STORAGES = ('f32', 'f16')
FITS = ('native', 'crop', 'stretch')
LARGEST_SIDE_PX = 8192
LARGEST_FILE_BYTES = 8 << 30
LARGEST_INT8_ERROR = 1.0
"""Of a golden output, in its standard deviations: what is farther off is another picture."""

LONGEST_NAME = 100
"""Characters of the name of a model or of one of its files."""

_PLAIN_NAME = re.compile(rf'[A-Za-z0-9][A-Za-z0-9._+-]{{0,{LONGEST_NAME - 1}}}')
_SHA256 = re.compile(r'[0-9a-f]{64}')


@dataclass(frozen=True)
class OutputSpec:
    """What the numbers of the network mean."""

    kind: str
    """'disparity' (sigmoid s in (0, 1), inverse depth = lo + (hi - lo) s), 'metric' (metres) or
    'relative' (inverse depth up to scale and shift)."""
    min_depth_m: float = 0.1
    """Depth where a disparity is 1, metres at ``focal_px``; 1 / hi."""
    max_depth_m: float = 100.0
    """Depth where a disparity is 0, metres at ``focal_px``; 1 / lo."""


@dataclass(frozen=True)
class InputSpec:
    """One size at which the network was exported."""

    height: int
    """Rows of the network's input, pixels."""
    width: int
    """Columns of the network's input, pixels."""
    graph: str
    """Name of the ONNX file of this size, in float32."""
    golden: str
    """Name of the safetensors file with an 'image', (H, W, 3) uint8 RGB, and the 'output', (H, W)
    float32, that the trained network gives for it."""
    graph_f16: str | None = card_yaml.may_be_missing(None)
    """Name of the ONNX file in float16, with float32 where that would overflow; None: none."""
    graph_int8: str | None = card_yaml.may_be_missing(None)
    """Name of the ONNX file quantised to int8; None: none."""
    int8_error: float | None = card_yaml.may_be_missing(None)
    """Golden parity error of ``graph_int8`` on the machine that made it, standard deviations (see
    engines/parity.py); engines are held to it.  None: no such graph."""

    def graph_of(self, precision: str) -> str | None:
        """Return the name of the ONNX file for arithmetic in ``precision``; None: there is none.

        bf16 is made by the engine out of the float32 graph.
        """
        return {'f16': self.graph_f16, 'int8': self.graph_int8}.get(precision, self.graph)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Return the precisions for which there are graphs; bf16 is the engine's own."""
        graphs = {'f32': self.graph, 'f16': self.graph_f16, 'int8': self.graph_int8}
        return tuple(name for name, graph in graphs.items() if graph is not None)

    @property
    def files(self) -> tuple[str, ...]:
        """Return the names of all files that this size needs."""
        names = (self.graph, self.golden, self.graph_f16, self.graph_int8)
        return tuple(name for name in names if name is not None)


@dataclass(frozen=True)
class FileRecord:
    """A file of the folder, as it was when the card was written."""

    sha256: str
    """Hexadecimal SHA-256 of its bytes."""
    size_bytes: int
    """Length, bytes."""


@dataclass(frozen=True)
class ModelCard:
    """All that is known of a model."""

    name: str
    """Name of the folder, as users give it."""
    network: str
    """Registry name, e.g. 'lite-mono'."""
    variant: str
    """Variant of the network, e.g. 'small'."""
    output: OutputSpec
    """What the output means."""
    inputs: tuple[InputSpec, ...]
    """Sizes, the preferred one first."""
    fit: str
    """'native' (the whole image at the size with the nearest aspect, or, where the axes would
    scale apart by over 8 percent, a centre crop), 'crop' (centre crop) or 'stretch' (whole
    image)."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Subtracted from RGB in [0, 1]."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Divides after the subtraction."""
    focal_px: float | None = None
    """Focal length at network input for which the depth is right, pixels; None: unknown."""
    depth_scale: float = 1.0
    """Factor on the network's depth: metres = depth * depth_scale * fx_at_input / focal_px."""
    options: dict[str, object] = field(default_factory=dict)
    """Arguments that rebuild the network besides its variant, e.g. {'dilations': '640x192'}."""
    storage: str = 'f32'
    """Type of the weights on disk, 'f32' or 'f16'; the arithmetic is the engine's choice."""
    weights_license: str = 'not stated'
    """Licence of the weights, an SPDX name where there is one."""
    source: str = ''
    """Where the weights come from: paper, authors, or the command that trained them."""
    parent: str = ''
    """Name and SHA-256 of the model it was fine-tuned from; empty: none."""
    training_data: str = ''
    """What it was trained on."""
    metrics: dict[str, object] = field(default_factory=dict)
    """Measured figures, nested by data set, with the baselines beside them."""
    notes: str = ''
    """What a user should know, in plain words."""
    files: dict[str, FileRecord] = field(default_factory=dict)
    """Every file of the folder except the card."""

    @property
    def is_metric(self) -> bool:
        """True where the output becomes metres without a scale measured elsewhere."""
        return self.output.kind != 'relative' and self.focal_px is not None

    @property
    def needs_intrinsics(self) -> bool:
        """True where depth follows from the focal length, so that there is none without it."""
        return self.is_metric


def is_plain_name(name: str) -> bool:
    """Tell whether ``name`` is a file name and nothing else: no separator, no leading dot."""
    return _PLAIN_NAME.fullmatch(name) is not None


def card_from_yaml(text: str, who: str) -> ModelCard:
    """Read a card.

    :param text: the whole YAML document.
    :param who: path of the card, for the text of an error.
    :raises ModelError: for anything but a mapping with exactly the known keys, values of the right
        types within their ranges, and no tags, aliases or repeated keys.
    """
    mapping = dict(card_yaml.mapping_from(card_yaml.parsed(text, who), who))
    version = mapping.pop('format', None)
    if type(version) is not int or version != CARD_FORMAT:
        raise ModelError(
            f'{who}: format',
            quoted(version),
            str(CARD_FORMAT),
            'The model was made for another version of depth_node.',
        )
    card = card_yaml.dataclass_from(mapping, ModelCard, f'{who}: ')
    check_card(card, who)
    return card


def card_to_yaml(card: ModelCard) -> str:
    """Write a card as YAML text that :func:`card_from_yaml` reads back equal."""
    return card_yaml.dumped({'format': CARD_FORMAT, **dataclasses.asdict(card)})


def check_card(card: ModelCard, who: str) -> None:
    """Refuse values of a card that no model can have.

    :raises ModelError: naming the key, the value and the range.
    """
    for key in ('name', 'network', 'variant'):
        value = getattr(card, key)
        _need(is_plain_name(value), f'{who}: {key}', value, 'letters, digits and . _ + -')
    _check_numbers(card, who)
    _check_inputs(card, who)
    card_yaml.check_plain_data(card.options, f'{who}: options')
    card_yaml.check_plain_data(card.metrics, f'{who}: metrics')


def check_files(card: ModelCard, who: str) -> None:
    """Refuse a card that does not record every file that it speaks of, by plain names.

    :raises ModelError: naming the key, the value and the range.
    """
    for name, record in card.files.items():
        key = f'{who}: files'
        _need(is_plain_name(name) and name != CARD_NAME, key, name, 'a plain file name')
        hashed = _SHA256.fullmatch(record.sha256) is not None
        _need(hashed, f'{key}.{name}.sha256', record.sha256, '64 hexadecimal digits')
        _need(
            0 < record.size_bytes <= LARGEST_FILE_BYTES,
            f'{key}.{name}.size_bytes',
            record.size_bytes,
            f'1 to {LARGEST_FILE_BYTES}',
        )
    named = [WEIGHTS_NAME] + [name for size in card.inputs for name in size.files]
    missing = sorted({name for name in named if name not in card.files})
    if missing:
        raise ModelError(
            f'{who}: files',
            f'no entry for {", ".join(quoted(name) for name in missing)}',
            'the weights and every graph and golden file that the card names',
        )


def _check_numbers(card: ModelCard, who: str) -> None:
    """Check normalisation, depth range and scales."""
    low, high = card.output.min_depth_m, card.output.max_depth_m
    _need(card.output.kind in OUTPUT_KINDS, f'{who}: output.kind', card.output.kind, OUTPUT_KINDS)
    _need(0 < low < high <= 1e5, f'{who}: output', f'{low} to {high} m', '0 < min < max <= 1e5')
    _need(card.fit in FITS, f'{who}: fit', card.fit, FITS)
    _need(card.storage in STORAGES, f'{who}: storage', card.storage, STORAGES)
    _need(all(-10 <= m <= 10 for m in card.mean), f'{who}: mean', card.mean, '-10 to 10')
    _need(all(1e-6 <= s <= 1e3 for s in card.std), f'{who}: std', card.std, '1e-6 to 1e3')
    _need(0 < card.depth_scale <= 1e6, f'{who}: depth_scale', card.depth_scale, 'above 0, to 1e6')
    focal_px = card.focal_px
    _need(
        focal_px is None or 1 <= focal_px <= 1e5, f'{who}: focal_px', focal_px, 'null or 1 to 1e5'
    )


def _check_inputs(card: ModelCard, who: str) -> None:
    """Check the list of input sizes and the names of their files."""
    _need(1 <= len(card.inputs) <= 64, f'{who}: inputs', len(card.inputs), '1 to 64 sizes')
    for index, size in enumerate(card.inputs):
        key = f'{who}: inputs[{index}]'
        for side in (size.height, size.width):
            expected = f'8 to {LARGEST_SIDE_PX} pixels a side'
            _need(8 <= side <= LARGEST_SIDE_PX, key, f'{size.height}x{size.width}', expected)
        for name in size.files:
            _need(is_plain_name(name), key, name, 'a plain file name')
        error = size.int8_error
        _need(
            error is None or 0 < error <= LARGEST_INT8_ERROR,
            f'{key}.int8_error',
            error,
            f'null, or above 0 to {LARGEST_INT8_ERROR:g}',
        )
    shapes = [(size.height, size.width) for size in card.inputs]
    _need(len(set(shapes)) == len(shapes), f'{who}: inputs', shapes, 'each size once')


def _need(fulfilled: bool, who: str, received: object, expected: object) -> None:
    """Raise when a condition on a value does not hold."""
    if fulfilled:
        return
    wanted = ', '.join(expected) if isinstance(expected, tuple) else str(expected)
    raise ModelError(who, quoted(received), wanted, 'Correct the card or get the model anew.')
