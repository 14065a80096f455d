"""From what was found in a recording to plain words: why it cannot be used, what to know."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.audit import CameraAudit
from depth_node.dataset.audit import GyroAudit
from depth_node.dataset.audit import MotionAudit
from depth_node.dataset.audit import PictureAudit
from depth_node.dataset.audit import StampAudit
from depth_node.dataset.clock_offset import ClockOffset
from depth_node.dataset.trajectory import Trajectory
from depth_node.frames import CameraFields

_LEAST_FRAMES = 20
_STILL_M_S = 0.02
_STILL_RAD_S = 0.02
_TURNING_RADIUS_M = 0.2
_LEAST_MOVING = 0.02
_LEAST_PATH_M = 0.2
_LEAST_COVERED = 0.1
_LEAST_CORNERS = 25
_LEAST_FOLLOWED = 0.25
_STILL_PX = 0.3
_DARK, _BRIGHT = 30.0, 225.0
_GAP_NS = 250_000_000
_DIRECTNESS_S = 1.0
_DIRECTNESS_STEP_S = 0.1
_DIRECTNESS_PATH_M = 0.1
_LEAST_DIRECT = 0.35
_LARGEST_GAIN = 1.25
_GAIN_ERRORS = 3.0
_LEAST_CORRELATION = 0.6


def _no_numbers() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


@dataclass
class Findings:
    """What the parts of an audit found; filled on the way."""

    unclear: tuple[str, ...] = ()
    """Sentences about topics that were left out."""
    stamps_ns: NDArray[np.int64] = field(default_factory=_no_numbers)
    """Stamps of all images, nanoseconds."""
    latencies_ns: NDArray[np.int64] = field(default_factory=_no_numbers)
    """Record time minus stamp of all images, nanoseconds."""
    camera: CameraAudit | None = None
    """The camera."""
    fields: CameraFields | None = None
    """What describes it; None where no camera is known."""
    changed_camera: str = ''
    """A sentence, where camera_info changes."""
    motion: MotionAudit | None = None
    """How the camera moved."""
    gyro: GyroAudit | None = None
    """What a gyroscope says."""
    pictures: PictureAudit | None = None
    """What the images look like."""
    undecodable: list[str] = field(default_factory=list)
    """What was wrong with images of the sample."""
    reasons: list[str] = field(default_factory=list)
    """Why the recording cannot be used, as far as known on the way."""
    warnings: list[str] = field(default_factory=list)
    """What to know, as far as known on the way."""

    @property
    def moves(self) -> bool:
        """Whether recorded poses move enough to tell depth."""
        motion = self.motion
        return motion is not None and (
            1.0 - motion.standing - motion.rotating >= _LEAST_MOVING
            and motion.path_m >= _LEAST_PATH_M
        )


def stamps_of(found: Findings) -> StampAudit | None:
    """Return what is to be said of the stamps; None without images."""
    stamps = found.stamps_ns
    if not len(stamps):
        return None
    steps = np.diff(stamps)
    rising = steps[steps > 0]
    period = float(np.median(rising)) if len(rising) else float('nan')
    gaps = int(((rising > 3 * period) & (rising > _GAP_NS)).sum())
    valid = found.latencies_ns[stamps > 0]
    return StampAudit(
        first_ns=int(stamps.min()),
        last_ns=int(stamps.max()),
        rate_hz=1e9 / period,
        gaps=gaps,
        zero=int((stamps == 0).sum()),
        backwards=int((steps < 0).sum()),
        duplicates=int((steps == 0).sum()),
        latency_s=float(np.median(valid)) / 1e9 if len(valid) else float('nan'),
    )


def motion_of(trajectory: Trajectory, image_stamps_ns: NDArray[np.int64]) -> MotionAudit:
    """Return how a camera moved.

    Turning on the spot is turning with less way than a radius of 0.2 m gives, because a camera
    sits beside the axis that a robot turns about.
    """
    speeds, turns, seconds = (
        trajectory.speeds_m_s,
        trajectory.turn_rates_rad_s,
        trajectory.steps_s,
    )
    known = np.isfinite(speeds)
    speeds, turns, seconds = speeds[known], turns[known], seconds[known]
    total = max(float(seconds.sum()), 1e-9)
    standing = (speeds < _STILL_M_S) & (turns < _STILL_RAD_S)
    rotating = ~standing & (speeds < _TURNING_RADIUS_M * turns)
    moving = ~standing & ~rotating
    _, covered = trajectory.at_many(image_stamps_ns)
    return MotionAudit(
        source=trajectory.source,
        poses=len(trajectory.stamps_ns),
        path_m=float((speeds * seconds)[moving].sum()),
        speed_m_s=float(np.median(speeds[moving])) if moving.any() else float('nan'),
        turn_rate_rad_s=float(np.percentile(turns, 95)) if len(turns) else float('nan'),
        standing=float(seconds[standing].sum()) / total,
        rotating=float(seconds[rotating].sum()) / total,
        covered=float(covered.mean()) if len(covered) else 0.0,
        segments=int(trajectory.segments[-1]) + 1,
        directness=_directness(trajectory),
    )


def _directness(trajectory: Trajectory) -> float:
    """Return the median, over seconds of motion, of distance over length of way.

    A body goes somewhere within a second; poses that are in disorder go to and fro.
    """
    step_ns = int(max(_DIRECTNESS_STEP_S * 1e9, trajectory.period_ns))
    count = round(_DIRECTNESS_S * 1e9 / step_ns)
    if count < 2:
        return float('nan')
    shares = [np.zeros(0)]
    # from gap to gap: in one of them a clock may have been set forward by years
    for stamps in np.split(trajectory.stamps_ns, np.flatnonzero(trajectory.is_gap) + 1):
        poses, _ = trajectory.at_many(np.arange(stamps[0], stamps[-1] + 1, step_ns))
        places = poses[:, :3, 3]  # NaN within a jump
        if len(places) <= count:
            continue
        steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
        ways = np.lib.stride_tricks.sliding_window_view(steps, count).sum(axis=1)
        direct = np.linalg.norm(places[count:] - places[:-count], axis=1)
        shares.append(direct[ways > _DIRECTNESS_PATH_M] / ways[ways > _DIRECTNESS_PATH_M])
    every = np.concatenate(shares)
    return float(np.median(every)) if len(every) else float('nan')


def reasons_of(found: Findings, offset: ClockOffset | None = None) -> tuple[str, ...]:
    """Say why a recording cannot be used; nothing where it can.

    :param offset: what the turning in the images says of the clocks and of the lens.
    """
    reasons = list(found.reasons)
    if len(found.stamps_ns) < _LEAST_FRAMES:
        reasons.append(
            f'There are only {len(found.stamps_ns)} images: record a minute or more of driving.'
        )
    elif not found.stamps_ns.any():
        reasons.append(
            'The stamps of all images are zero: let the driver stamp them with the time of '
            'acquisition.'
        )
    if found.changed_camera:
        reasons.append(
            f'{found.changed_camera} Record one camera mode and zoom at a time, or cut the '
            'recording there.'
        )
    reasons += _reasons_of_pictures(found)
    reasons += _reasons_of_motion(found)
    if not reasons:
        reasons += _contradictions(found.motion, offset, found.gyro)
    return tuple(reasons)


def _contradictions(
    motion: MotionAudit | None, offset: ClockOffset | None, gyro: GyroAudit | None
) -> list[str]:
    """Say where poses contradict themselves or the images."""
    if motion is not None and motion.directness < _LEAST_DIRECT:
        return [
            f'The poses of {motion.source} go to and fro ({motion.path_m:.0f} m of way): within a '
            f'second only {motion.directness:.0%} of it leads somewhere. They are in disorder, or '
            'too noisy.'
        ]
    if offset is None or offset.correlation < _LEAST_CORRELATION:
        return []
    if _is_one(offset):
        return []
    told = gyro.images if gyro is not None else None
    if gyro is not None and told is not None and told.is_sharp:
        if _is_one(told):
            return [
                f'The images turn {offset.gain:.2f} times as far as {offset.source} says, but '
                f'{told.gain:.2f} times as far as {gyro.topic}: the turning of {offset.source} '
                'is wrong. Calibrate the odometry, or name another.'
            ]
        return [
            f'The images turn {offset.gain:.2f} times as far as {offset.source} says and '
            f'{told.gain:.2f} times as far as {gyro.topic}: the focal length of camera_info is '
            'wrong. Calibrate, and record again or correct the camera_info.'
        ]
    return [
        f'The images turn {offset.gain:.2f} times as far as {offset.source} says: the focal '
        f'length of camera_info is wrong by that factor, or the turning of {offset.source} is. '
        'Calibrate, and record again or correct the camera_info.'
    ]


def _is_one(offset: ClockOffset) -> bool:
    """Tell whether images turn as far as something else, as far as that is known."""
    margin = _GAIN_ERRORS * offset.gain_error
    low, high = 1 / _LARGEST_GAIN - margin, _LARGEST_GAIN + margin
    return not np.isfinite(offset.gain) or low <= offset.gain <= high


def _reasons_of_pictures(found: Findings) -> list[str]:
    pictures = found.pictures
    if pictures is None or not pictures.sampled:
        said = f' ({found.undecodable[0]})' if found.undecodable else ''
        return [f'No image could be decoded{said}.']
    if len(found.stamps_ns) < 2:
        return []
    if pictures.corners < _LEAST_CORNERS:
        return [
            f'The images have too little texture: {pictures.corners:.0f} corners in half of them, '
            f'{_LEAST_CORNERS} are needed. Check exposure, focus and the lens cap.'
        ]
    if pictures.followed < _LEAST_FOLLOWED:
        return [
            f'Nothing can be followed from image to image: {pictures.followed:.0%} of the corners '
            'are found again. The images are noise, or far too few per second for the motion.'
        ]
    return []


def _reasons_of_motion(found: Findings) -> list[str]:
    motion, pictures = found.motion, found.pictures
    if motion is None:
        if pictures is not None and pictures.flow_px < _STILL_PX:
            return [
                'The camera is standing still: nothing moves in the images. Depth only shows '
                'while driving.'
            ]
        return []
    if motion.covered < _LEAST_COVERED:
        return [
            f'Only {motion.covered:.0%} of the images have a pose from {motion.source}: the '
            'stamps are of different clocks, or the poses end early.'
        ]
    if found.moves:
        return []
    if motion.rotating > _LEAST_MOVING:
        return [
            f'The camera only turns on the spot ({motion.rotating:.0%} of the time, '
            f'{motion.path_m:.2f} m of way): turning shows no depth. Record driving.'
        ]
    return [
        f'The camera is standing still {motion.standing:.0%} of the time ({motion.path_m:.2f} m '
        'of way): depth only shows while driving.'
    ]


def warnings_of(found: Findings, offset: ClockOffset | None, damage: str) -> tuple[str, ...]:
    """Say what to know about a recording."""
    warnings = [*([damage] if damage else []), *found.unclear, *found.warnings]
    stamps = stamps_of(found)
    if found.motion is None:
        warnings.append(
            'There is no odometry and no TF that moves the camera: poses would have to be learnt, '
            'and metres have to come from another sensor.'
        )
    if stamps is not None and (wrong := stamps.zero + stamps.backwards + stamps.duplicates):
        warnings.append(f'{wrong} images have a stamp that is zero, repeated or goes back.')
    if found.undecodable:
        warnings.append(
            f'{len(found.undecodable)} images could not be decoded, first: {found.undecodable[0]}'
        )
    pictures = found.pictures
    if pictures is not None and not _DARK <= pictures.brightness[1] <= _BRIGHT:
        warnings.append(
            f'The images are very {"dark" if pictures.brightness[1] < _DARK else "bright"}.'
        )
    if offset is not None and offset.is_applicable:
        late = 'late' if offset.offset_s > 0 else 'early'
        warnings.append(
            f'Images are stamped {abs(offset.offset_s) * 1e3:.0f} ms too {late} beside '
            f'{offset.source}; this is made up for.'
        )
    return tuple(warnings)
