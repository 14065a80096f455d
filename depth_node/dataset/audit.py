"""What a recording is good for: everything that decides over a fine-tuning, in one value.

One pass reads the stamps of all images; pixels of a sample only are decoded.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from dataclasses import dataclass
from typing import Any

from depth_node.dataset.clock_offset import ClockOffset
from depth_node.dataset.topics import TopicChoice
from depth_node.errors import RecordingError
from depth_node.errors import quoted
from depth_node.frames import CameraFields

VERSION = 1
"""Of the JSON of an audit."""


@dataclass(frozen=True)
class StampAudit:
    """The stamps of the images."""

    first_ns: int
    """Earliest stamp, nanoseconds."""
    last_ns: int
    """Latest stamp, nanoseconds."""
    rate_hz: float
    """Images per second by the median step; NaN for fewer than two images."""
    gaps: int
    """Steps of more than three median steps and more than 0.25 s."""
    zero: int
    """Images without a stamp."""
    backwards: int
    """Images stamped before the one ahead of them."""
    duplicates: int
    """Images stamped as the one ahead of them."""
    latency_s: float
    """Median time from stamp to record, seconds; NaN without stamps."""


@dataclass(frozen=True)
class CameraAudit:
    """The camera of the images."""

    width: int
    """Columns of the images, pixels."""
    height: int
    """Rows of the images, pixels."""
    lens: str
    """Distortion model as sent; 'none' where the image is not bent."""
    sent: CameraFields | None
    """First camera_info as sent; None where there is none."""
    used_k: tuple[float, float, float, float]
    """fx, fy, cx, cy of the image that the network sees before it is fitted, pixels."""
    rectified: bool
    """Whether images are rectified first."""
    source: str
    """'camera_info' or the parameter that described the camera."""


@dataclass(frozen=True)
class MotionAudit:
    """How the camera moved."""

    source: str
    """'/odom' or 'tf odom -> base_link'."""
    poses: int
    """Number of poses."""
    path_m: float
    """Length of the way, metres."""
    speed_m_s: float
    """Median while moving, metres per second; NaN where it never moves."""
    turn_rate_rad_s: float
    """95th percentile, radians per second."""
    standing: float
    """Share of the time without motion, 0 to 1."""
    rotating: float
    """Share of the time of turning on the spot, 0 to 1."""
    covered: float
    """Share of the images that have a pose, 0 to 1."""
    segments: int
    """Pieces without gap or jump."""
    directness: float = float('nan')
    """Median share of the way within a second that leads somewhere, 0 to 1; NaN where unknown."""


@dataclass(frozen=True)
class GyroUse:
    """How a gyroscope is used to steady the rotation of poses."""

    topic: str
    """The sensor_msgs/Imu."""
    R_camera_gyro: tuple[float, ...]
    """9 values, row by row."""
    delay_ns: int
    """Stamp of the poses minus time of the same moment by the gyroscope, nanoseconds."""


@dataclass(frozen=True)
class GyroAudit:
    """What a gyroscope says of the clocks; its own drops out of their difference."""

    topic: str
    """The sensor_msgs/Imu."""
    measurements: int
    """Usable turn rates."""
    mount: str
    """Its rotation to the camera is from 'tf' or the 'data'; '' where it is not known."""
    images: ClockOffset | None
    """Delay of the images beside it; None where nothing can be said."""
    poses: ClockOffset | None
    """Delay of odometry or TF beside it; None where nothing can be said."""
    use: GyroUse | None = None
    """How it steadies the poses; None where the images do not agree better with them then."""
    apart_rad_s: tuple[float, float] = (float('nan'), float('nan'))
    """How far images and poses turn apart, median, as recorded and steadied."""


@dataclass(frozen=True)
class PictureAudit:
    """What a sample of the images looks like."""

    sampled: int
    """Number of images decoded."""
    brightness: tuple[float, float, float]
    """5th, 50th and 95th percentile of the mean grey value, 0 to 255."""
    sharpness: tuple[float, float, float]
    """5th, 50th and 95th percentile of the variance of the Laplacian at 320 columns."""
    corners: float
    """Median number of corners per image, at most 200."""
    followed: float
    """Median share of corners that are found again in the next image, 0 to 1."""
    flow_px: float
    """Motion from image to image, upper quartile, pixels of the full image; NaN if unknown."""


@dataclass(frozen=True)
class ScaleSource:
    """A sensor that knows metres."""

    kind: str
    """'odometry', 'scan', 'cloud' or 'depth'."""
    topic: str
    """Its topic."""
    count: int
    """Messages."""
    why_not: str
    """Why it cannot be used, in words; '' where it can."""


@dataclass(frozen=True)
class Audit:
    """Everything that decides over fine-tuning from one camera of one recording."""

    recording: str
    """Path."""
    choice: TopicChoice
    """The topics by name as they are used; '' for those that are not."""
    camera_frame: str
    """frame_id of the images."""
    frames: int
    """Number of images."""
    stamps: StampAudit | None
    """None where there are no images to look at."""
    camera: CameraAudit | None
    """None where no camera is known."""
    motion: MotionAudit | None
    """None where there are no poses."""
    clock_offset: ClockOffset | None
    """Delay of the images beside the poses by the sharpest way; None where nothing is known."""
    pictures: PictureAudit | None
    """None where no image could be decoded."""
    scale_sources: tuple[ScaleSource, ...]
    """Sensors that know metres."""
    damage: str
    """What of the recording is missing, '' where nothing is."""
    reasons: tuple[str, ...]
    """Why it cannot be used, in sentences; empty where it can."""
    warnings: tuple[str, ...]
    """What to know about it, in sentences."""
    gyro: GyroAudit | None = None
    """None without a usable gyroscope."""

    @property
    def usable(self) -> bool:
        """Whether something can be learnt from it."""
        return not self.reasons

    @property
    def applied_offset_ns(self) -> int:
        """By how much poses are to be shifted into the clock of the images, nanoseconds."""
        offset = self.clock_offset
        return offset.offset_ns if offset is not None and offset.is_applicable else 0

    @property
    def gyro_use(self) -> GyroUse | None:
        """How a gyroscope steadies the rotation of the poses; None where it does not."""
        return None if self.gyro is None else self.gyro.use

    def to_json(self) -> str:
        """Return the audit as JSON; numbers that are not finite become null."""
        values = {'version': VERSION, **asdict(self)}
        return json.dumps(_without_nan(values), indent=1, allow_nan=False)


def audit_from_json(text: str) -> Audit:
    """Return the audit of what :meth:`Audit.to_json` wrote.

    :raises RecordingError: for other text.
    """
    try:
        values = json.loads(text)
        if values.pop('version') != VERSION:
            raise ValueError('another version')
        return Audit(
            **{
                **values,
                'choice': TopicChoice(**values['choice']),
                'stamps': _made(StampAudit, values['stamps']),
                'camera': _camera(values['camera']),
                'motion': _made(MotionAudit, values['motion']),
                'clock_offset': _made(ClockOffset, values['clock_offset']),
                'gyro': _gyro(values.get('gyro')),
                'pictures': _made(PictureAudit, values['pictures']),
                'scale_sources': tuple(ScaleSource(**item) for item in values['scale_sources']),
                'reasons': tuple(values['reasons']),
                'warnings': tuple(values['warnings']),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        said = quoted(f'{type(error).__name__}: {error}')
        remedy = 'Make it again with the verb audit.'
        raise RecordingError('audit', said, f'JSON of version {VERSION}', remedy) from error


def describe(audit: Audit) -> str:
    """Return the audit as a plain text table, the verdict first."""
    verdict = 'usable' if audit.usable else 'not usable'
    rows = [('recording', audit.recording), ('verdict', verdict)]
    rows += [('because', reason) for reason in audit.reasons]
    rows += [('note', warning) for warning in audit.warnings]
    rows += _rows(audit)
    for source in audit.scale_sources:
        state = source.why_not or 'usable'
        rows.append(('metres from', f'{source.kind} {source.topic} ({source.count}): {state}'))
    width = max(len(name) for name, _ in rows)
    return '\n'.join(f'{name.ljust(width)}  {text}' for name, text in rows)


def _rows(audit: Audit) -> list[tuple[str, str]]:
    """Return the measured part of the table."""
    rows = []
    if audit.stamps is not None:
        seconds = (audit.stamps.last_ns - audit.stamps.first_ns) / 1e9
        rate = audit.stamps.rate_hz
        text = f'{audit.frames} on {audit.choice.image}, {seconds:.1f} s at {rate:.3g} Hz'
        rows.append(('images', text))
    if audit.camera is not None:
        fx, fy, cx, cy = audit.camera.used_k
        size = f'{audit.camera.width} x {audit.camera.height}'
        text = f'{size}, lens {audit.camera.lens}, fx {fx:.1f} fy {fy:.1f} cx {cx:.1f} cy {cy:.1f}'
        rows.append(('camera', text))
    if (motion := audit.motion) is not None:
        rows.append(
            (
                'motion',
                f'{motion.source}: {motion.path_m:.1f} m, {motion.speed_m_s:.2f} m/s, turning up '
                f'to {motion.turn_rate_rad_s:.2f} rad/s, standing {motion.standing:.0%}, turning '
                f'on the spot {motion.rotating:.0%}',
            )
        )
    if (offset := audit.clock_offset) is not None:
        state = 'applied' if offset.is_applicable else 'not applied'
        rows.append(('image delay', f'{_delay(offset)} beside {offset.source}, {state}'))
    if (gyro := audit.gyro) is not None:
        rows.append(('by ' + gyro.topic, f'delay of the images: {_delay(gyro.images)}'))
        if audit.motion is not None:
            rows.append(
                ('by ' + gyro.topic, f'delay of {audit.motion.source}: {_delay(gyro.poses)}')
            )
        if gyro.use is not None:
            before, after = gyro.apart_rad_s
            text = f'steadied: {before:.3f} rad/s beside the images before, {after:.3f} after'
            rows.append(('poses', text))
    if audit.pictures is not None:
        dark, usual, bright = audit.pictures.brightness
        rows.append(('brightness', f'{usual:.0f} of 255 ({dark:.0f} to {bright:.0f})'))
    return rows


def _delay(offset: ClockOffset | None) -> str:
    """Word a delay; one that cannot be trusted is no figure."""
    if offset is None or not offset.is_sharp:
        return 'cannot tell'
    return f'{offset.offset_s * 1e3:.0f} +- {offset.standard_error_s * 1e3:.0f} ms'


def _made(kind: Any, values: dict[str, Any] | None) -> Any:
    """Make one of the flat values; null becomes NaN, lists become tuples."""
    if values is None:
        return None
    return kind(**{name: _restored(value) for name, value in values.items()})


def _gyro(values: dict[str, Any] | None) -> GyroAudit | None:
    if values is None:
        return None
    parts = {name: _made(ClockOffset, values[name]) for name in ('images', 'poses')}
    use = _made(GyroUse, values['use'])
    return GyroAudit(
        **{**values, **parts, 'use': use, 'apart_rad_s': _restored(values['apart_rad_s'])}
    )


def _camera(values: dict[str, Any] | None) -> CameraAudit | None:
    if values is None:
        return None
    sent = values.pop('sent')
    camera: CameraAudit = _made(CameraAudit, {**values, 'sent': ''})
    return CameraAudit(**{**camera.__dict__, 'sent': _made(CameraFields, sent)})


def _restored(value: Any) -> Any:
    if value is None:
        return float('nan')
    return tuple(_restored(item) for item in value) if isinstance(value, list) else value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not float('-inf') < value < float('inf'):
        return None
    return value
