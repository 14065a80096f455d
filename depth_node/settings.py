"""Every parameter of the node, once: name, default, unit, range, description, when it may change.

The ROS descriptors, ``config/depth_node.yaml``, the docs' tables and the launch arguments are
made from these fields or tested against them.  A set of parameters is accepted or refused as a
whole: :func:`settings_from` raises before anything is applied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from typing import Any
from typing import cast

from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.parameter import Parameter
from depth_node.parameter import Value
from depth_node.parameter import checked
from depth_node.parameter import parameter as _parameter
from depth_node.setting_texts import intrinsics_px
from depth_node.setting_texts import roi_shares

SMALLEST_VOXEL_M = 0.001


@dataclass(frozen=True)
class InputSettings:
    """How images come in."""

    transport: str = _parameter(
        'raw',
        'Which image topic is read: raw (image) or compressed (image/compressed).',
        choices=('raw', 'compressed'),
        structural=True,
    )
    reliability: str = _parameter(
        'auto',
        'Reliability asked of the image publisher; auto asks for reliable delivery where every '
        'publisher of the topic offers it, because large best-effort images get lost on stock '
        'DDS settings.',
        choices=('auto', 'reliable', 'best_effort'),
        structural=True,
    )
    rectify: str = _parameter(
        'auto',
        'Whether images are rectified before the network; auto does so when camera_info has '
        'distortion and the image topic is not named image_rect*.',
        choices=('auto', 'always', 'never'),
        structural=True,
    )
    max_age_s: float = _parameter(
        0.5,
        'An image older than this when its depth is ready, in seconds since it arrived, is '
        'dropped and counted.',
        low=0.01,
        high=60.0,
    )
    max_pixels: int = _parameter(
        33_177_600,
        'Images with more pixels than this are refused before any memory is taken.',
        low=1_024,
        high=268_435_456,
    )


@dataclass(frozen=True)
class CameraSettings:
    """The camera, for when none is described on camera_info; a usable message there wins."""

    intrinsics: str = _parameter(
        '',
        'Intrinsics for a camera without a usable camera_info: fx fy cx cy in pixels of its first '
        'image, e.g. 525 525 319.5 239.5; images of other sizes and the same shape scale them. '
        'Empty: none. A usable camera_info wins.',
    )
    horizontal_fov_deg: float = _parameter(
        0.0,
        'Horizontal field of view, degrees, for a camera of which not even the intrinsics are '
        'known: 5 or more; square pixels and a centred lens without distortion are assumed. '
        '0: none. A usable camera_info and camera.intrinsics win.',
        low=0.0,
        high=170.0,
    )


@dataclass(frozen=True)
class ModelSettings:
    """Which network runs, and on what."""

    name: str = _parameter(
        'lite-mono-small-world',
        'Model: the name of a folder of the installed models, or the path of a model folder.',
        structural=True,
    )
    engine: str = _parameter(
        'auto',
        'Engine that runs the network, or several in order of preference, e.g. '
        'tensorrt,openvino: while one is being built, the next that is ready serves. auto takes '
        'the first that works of all; tensorrt and cuda need an NVIDIA GPU and are experimental, '
        'so auto tries them in a process of their own first. Engines that were passed over are '
        'told with the reason.',
        choices=('auto', 'tensorrt', 'cuda', 'openvino', 'onnxruntime', 'torch'),
        several=True,
        structural=True,
    )
    precision: str = _parameter(
        'auto',
        'Arithmetic of the network: f32, f16 (on a GPU), bf16 (openvino; faster and less exact), '
        'int8 (openvino, experimental: of a model that was quantised); auto is f32 on a processor '
        'and f16 on a GPU.',
        choices=('auto', 'f32', 'f16', 'bf16', 'int8'),
        structural=True,
    )
    threads: int = _parameter(
        0,
        'CPU threads of the engine; 0 lets the engine decide.',
        low=0,
        high=256,
        structural=True,
    )


@dataclass(frozen=True)
class DepthSettings:
    """What is published as depth."""

    min_m: float = _parameter(
        0.05, 'Depth nearer than this, in metres, becomes NaN.', low=0.0, high=100.0
    )
    max_m: float = _parameter(
        80.0,
        'Depth farther than this, in metres, becomes +Inf: nothing within range.',
        low=0.1,
        high=1_000.0,
    )
    scale: float = _parameter(
        1.0,
        'Factor on the depth of the model, for a camera whose scale is known to be off.',
        low=0.001,
        high=1_000.0,
    )
    edge_step: float = _parameter(
        0.12,
        'Depth that is farther than a neighbouring pixel of the network by more than this share, '
        'or than the next but one where depth bends, becomes NaN: about there it would hang in '
        'the air between two surfaces; 0 keeps all.',
        low=0.0,
        high=10.0,
    )
    smoothing: float = _parameter(
        0.0,
        'Share of the last depth that is kept where neither depth nor image has changed much: '
        'less flicker of a camera at rest, against a lag of s / (1 - s) images, 3 for 0.75; '
        'moving edges are never mixed. 0: none. Models of relative depth heed it not.',
        low=0.0,
        high=0.95,
    )
    full_size: bool = _parameter(
        True,
        'Publish depth at the size of the image (true) or at the size of the network (false).',
    )
    encoding: str = _parameter(
        '32FC1',
        'Numbers of depth/image_rect: 32FC1 (metres, NaN unknown) or 16UC1 (whole millimetres, 0 '
        'for what is unknown or out of range; what is farther than 65.535 m becomes that).',
        choices=('32FC1', '16UC1'),
    )
    beyond: str = _parameter(
        'inf',
        'What depth/image_rect holds where depth is farther than depth.max_m: inf (nothing within '
        'range, as REP-117 has it; 0 in 16UC1), nan (as if unknown; 0 in 16UC1) or max '
        '(depth.max_m, for readers that know numbers only). Points and scan are as with inf.',
        choices=('inf', 'nan', 'max'),
    )
    roi_ratios: str = _parameter(
        '',
        'Region of interest: what is cut off at the left, the right, the top and the bottom of '
        'the rectified image, four shares of its width and height, e.g. 0 0 0 0.2 for a bonnet in '
        'the lowest fifth. Sizes stay; outside depth is unknown, is no point, and neither marks '
        'nor clears in the scan. Empty: the whole image.',
    )
    color_quality: int = _parameter(
        80,
        'JPEG quality of depth/color/compressed: small and coarse 1, large and fine 100.',
        low=1,
        high=100,
    )


@dataclass(frozen=True)
class PointsSettings:
    """What is published as a point cloud."""

    organized: bool = _parameter(
        True,
        'Keep the rows and columns of the image, with NaN where depth is unknown (true), or '
        'publish valid points only (false).',
    )
    color: bool = _parameter(True, 'Give each point the colour of its pixel.')
    padded: bool = _parameter(
        False,
        'Give a coloured point 32 bytes, with rgb at byte 16 as PCL and depth_image_proc lay it '
        'out, instead of 16 bytes with rgb at byte 12.',
    )
    stride: int = _parameter(1, 'Take every n-th row and column, pixels.', low=1, high=64)
    voxel_m: float = _parameter(
        0.0,
        'Keep one point of each cube of this edge, in metres, of a cloud that is not organized; 0 '
        'keeps all, the smallest cube is 0.001. Costs 2 to 9 ms of one CPU core for 640x480 '
        'pixels, the more the smaller the cubes are, and saves what readers would spend.',
        low=0.0,
        high=10.0,
    )
    max_rate_hz: float = _parameter(
        0.0,
        'Clouds per second at most, by the stamps of the images, while depth keeps the rate of '
        'the camera; 0 publishes one for every image.',
        low=0.0,
        high=1_000.0,
        compare=False,  # a cloud that is made for one rate is good for every other
    )


@dataclass(frozen=True)
class ScanSettings:
    """What is published as a virtual laser scan."""

    band: float = _parameter(
        0.05,
        'Height of the band of rows about the horizon of the camera that the scan looks at, as a '
        'share of the image: what is nearest in a column counts.',
        low=0.0,
        high=1.0,
    )
    min_m: float = _parameter(
        0.1,
        'Distance below which the scan says nothing, in metres; a nearer direction becomes NaN.',
        low=0.0,
        high=100.0,
    )
    max_m: float = _parameter(
        10.0,
        'Range of the scan, in metres: a direction with nothing nearer becomes +Inf, which clears '
        'a costmap. Never more than depth.max_m.',
        low=0.1,
        high=1_000.0,
    )
    frame_id: str = _parameter(
        '',
        'Frame of the scan, x forward and z up at the place of the camera; empty takes the frame '
        'of the image without _optical in its name.',
    )


@dataclass(frozen=True)
class NodeSettings:
    """How the node behaves."""

    autostart: bool = _parameter(
        True, 'Configure and activate at start, without a lifecycle manager.', structural=True
    )
    diagnostics_period_s: float = _parameter(
        1.0,
        'Time between two messages on /diagnostics, seconds.',
        low=0.1,
        high=60.0,
        structural=True,
    )
    input_timeout_s: float = _parameter(
        5.0,
        'When a topic that is needed has been silent for this long, seconds, a warning names it '
        'and its publishers.',
        low=0.5,
        high=600.0,
    )


@dataclass(frozen=True)
class Settings:
    """All parameters of the node; the attribute names are the first part of the dotted names."""

    cameras: tuple[str, ...] = _parameter(
        (),
        'Names of the cameras that share one engine, e.g. [front, left], 16 at most: every topic '
        'of one has its name before it, as in front/image and front/points, and the newest images '
        'are taken in turn. Empty: one camera, whose topics have no name before them.',
        structural=True,
    )
    input: InputSettings = field(default_factory=InputSettings)
    camera: CameraSettings = field(default_factory=CameraSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    depth: DepthSettings = field(default_factory=DepthSettings)
    points: PointsSettings = field(default_factory=PointsSettings)
    scan: ScanSettings = field(default_factory=ScanSettings)
    node: NodeSettings = field(default_factory=NodeSettings)


def parameters() -> tuple[Parameter, ...]:
    """List all parameters in the order of the dataclasses."""
    listed = []
    for entry in fields(Settings):
        if entry.name in _CONCERNS:
            listed += [(f'{entry.name}.{item.name}', item) for item in _fields_of(entry.name)]
        else:
            listed.append((entry.name, entry))
    return tuple(
        Parameter(name=name, default=cast(Value, item.default), **item.metadata)
        for name, item in listed
    )


def settings_from(values: Mapping[str, Value]) -> Settings:
    """Check a whole set of parameters and make settings of it.

    :param values: dotted name to value; names that are left out keep their defaults.
    :raises SettingsError: for an unknown name, a wrong type, a value out of range, NaN, or values
        that contradict each other; the text names the parameter, the value and the range.
    """
    known = {item.name: item for item in parameters()}
    grouped: dict[str, dict[str, Value]] = {concern: {} for concern in _CONCERNS}
    alone: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise SettingsError(
                f'parameter {quoted(name)}', quoted(value), 'one of ' + ', '.join(sorted(known))
            )
        accepted = checked(known[name], value)
        concern_name, dot, field_name = name.partition('.')
        if dot:
            grouped[concern_name][field_name] = accepted
        else:
            alone[name] = accepted
    settings = Settings(
        **{name: _CONCERNS[name](**chosen) for name, chosen in grouped.items()}, **alone
    )
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    """Refuse values that contradict each other."""
    for concern, limits in (('depth', settings.depth), ('scan', settings.scan)):
        if limits.min_m >= limits.max_m:
            raise SettingsError(
                f'parameters {concern}.min_m and {concern}.max_m',
                f'{limits.min_m} and {limits.max_m}',
                f'{concern}.min_m below {concern}.max_m',
            )
    points = settings.points
    if points.voxel_m and points.organized:
        raise SettingsError(
            'parameters points.voxel_m and points.organized',
            f'{points.voxel_m} and True',
            'points.voxel_m 0 or points.organized false',
            'Thinning leaves no rows and columns.',
        )
    if 0.0 < points.voxel_m < SMALLEST_VOXEL_M:
        raise SettingsError(
            'parameter points.voxel_m', quoted(points.voxel_m), f'0, or {SMALLEST_VOXEL_M:g} to 10'
        )
    if len(settings.cameras) > 1 and settings.scan.frame_id:
        raise SettingsError(
            'parameters scan.frame_id and cameras',
            f'{quoted(settings.scan.frame_id)} and {len(settings.cameras)} cameras',
            'scan.frame_id empty with several cameras',
            'Scans of different places cannot be in one frame.',
        )
    intrinsics_px(settings.camera.intrinsics)
    roi_shares(settings.depth.roi_ratios)
    if 0.0 < settings.camera.horizontal_fov_deg < 5.0:
        raise SettingsError(
            'parameter camera.horizontal_fov_deg',
            quoted(settings.camera.horizontal_fov_deg),
            '0 for none, or 5 to 170',
            'It is in degrees.',
        )


def structural_changes(before: Settings, after: Settings) -> tuple[str, ...]:
    """Name the structural parameters whose values differ."""
    old, new = flat(before), flat(after)
    return tuple(
        item.name for item in parameters() if item.structural and old[item.name] != new[item.name]
    )


def flat(settings: Settings) -> dict[str, Value]:
    """Return the dotted names and values of ``settings``."""
    values: dict[str, Value] = {}
    for concern, chosen in dataclasses.asdict(settings).items():
        if concern in _CONCERNS:
            values |= {f'{concern}.{name}': value for name, value in chosen.items()}
        else:
            values[concern] = chosen
    return values


_CONCERNS: dict[str, Any] = {
    'input': InputSettings,
    'camera': CameraSettings,
    'model': ModelSettings,
    'depth': DepthSettings,
    'points': PointsSettings,
    'scan': ScanSettings,
    'node': NodeSettings,
}
"""Dataclass of each field of :class:`Settings` that groups parameters; others are parameters."""


def _fields_of(concern: str) -> tuple[dataclasses.Field[Any], ...]:
    """Return the parameters of one concern of :class:`Settings`."""
    return fields(_CONCERNS[concern])
