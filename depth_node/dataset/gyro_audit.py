"""What a gyroscope says of the delay of images and of odometry, and what of it is applied.

Depth is learnt from images and the poses at their times, so what has to be known is the delay of
the images beside the *poses*.  A gyroscope gives it in two steps: delay of the images beside the
gyroscope, less the delay of the poses beside the gyroscope.  Its own clock drops out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np

from depth_node.dataset.audit import GyroAudit
from depth_node.dataset.audit import GyroUse
from depth_node.dataset.clock_offset import ClockOffset
from depth_node.dataset.clock_offset import ImageTurns
from depth_node.dataset.clock_offset import TrackedPair
from depth_node.dataset.clock_offset import enough
from depth_node.dataset.clock_offset import offset_of_turns
from depth_node.dataset.clock_offset import turned_between
from depth_node.dataset.clock_offset import turns_of
from depth_node.dataset.clock_offset import turns_with_poses
from depth_node.dataset.gyro_rotation import steadied_by
from depth_node.dataset.gyroscope import Gyroscope
from depth_node.dataset.gyroscope import fitted_rotation
from depth_node.dataset.poses import Floats
from depth_node.dataset.poses import inverted
from depth_node.dataset.poses import rotation_vectors
from depth_node.dataset.trajectory import Trajectory

_STEADIER = 0.9
_PAIR_NS = 50_000_000
_LONGEST_PAIR_NS = 500_000_000
_TURNS_RAD_S = 0.1
_STANDS_SHARE = 0.2
_LEAST_CORRELATION = 0.6
_LARGEST_GAIN = 1.25
_GAIN_ERRORS = 3.0
_APART_S = 0.015
_APART_ERRORS = 3.0


@dataclass(frozen=True, eq=False)
class Compared:
    """What moves with a gyroscope, as far as it is there."""

    pairs: Sequence[TrackedPair]
    """Points that were followed from image to image."""
    trajectory: Trajectory | None
    """Poses of the camera; None where there are none."""
    direct: ClockOffset | None
    """Delay of the images beside the poses, by these two alone."""
    R_camera_gyro: Floats | None
    """(3, 3) by static transforms; None where they do not lead to the gyroscope."""


def compare(
    gyroscope: Gyroscope, with_it: Compared
) -> tuple[GyroAudit, ClockOffset | None, list[str]]:
    """Return what a gyroscope says of images and poses, and what follows from it.

    :returns: what it says; the delay of the images beside the poses by the sharpest way, None
        where there is none; and sentences about contradictions.
    """
    images = _image_turns(with_it)
    poses = None if with_it.trajectory is None else turns_of_poses(with_it.trajectory)
    by_poses, turned = _delay(gyroscope, [] if poses is None else [poses], with_it)
    by_images, mount = _delay(gyroscope, images, with_it)
    source = '' if with_it.trajectory is None else with_it.trajectory.source
    said = [] if poses is None else _contradictions(gyroscope, poses, by_poses, source)
    if with_it.R_camera_gyro is not None and 'data' in (mount, turned):
        said.append(
            f'The static transforms turn {gyroscope.topic} another way than it is mounted, as '
            'the turning of the camera shows; the rotation that was found from it is used.'
        )
    found = GyroAudit(
        topic=gyroscope.topic,
        measurements=len(gyroscope.stamps_ns),
        mount=mount or turned,
        images=by_images,
        poses=by_poses,
    )
    if with_it.trajectory is None:
        return found, None, said
    offset, more = applied(with_it.direct, found, source)
    return steadying(gyroscope, with_it, found, offset), offset, said + more


def applied(
    direct: ClockOffset | None, gyro: GyroAudit | None, poses: str
) -> tuple[ClockOffset | None, list[str]]:
    """Return the delay of the images beside the poses: of all ways to find it the sharpest.

    :param direct: by images and poses alone.
    :param poses: what the poses are of, e.g. '/odom'.
    :returns: the delay, and sentences about how it was found where ways disagree or the clock of
        the poses could not be compared with that of the gyroscope.
    """
    if gyro is None or gyro.images is None or not gyro.images.is_sharp:
        return direct, []
    ways = [way for way in (direct, composed(gyro, poses)) if way is not None and way.is_sharp]
    if not ways:
        return _by_images_alone(gyro.images, gyro.topic, direct, poses)
    best = min(ways, key=lambda way: way.standard_error_s)
    said = []
    if len(ways) == 2 and _apart(*ways):
        one, two = (f'{way.offset_s * 1e3:.0f} ms beside {way.source}' for way in ways)
        said.append(f'The delay of the images is {one}, {two}; the sharper one counts.')
    return best, said


def composed(gyro: GyroAudit, poses: str) -> ClockOffset | None:
    """Return the delay of images beside poses by way of a gyroscope; None where one is missing."""
    images, odometry = gyro.images, gyro.poses
    if images is None or odometry is None or not (images.is_sharp and odometry.is_sharp):
        return None
    return ClockOffset(
        offset_s=images.offset_s - odometry.offset_s,
        standard_error_s=float(np.hypot(images.standard_error_s, odometry.standard_error_s)),
        correlation=min(images.correlation, odometry.correlation),
        sharpness=min(images.sharpness, odometry.sharpness),
        samples=min(images.samples, odometry.samples),
        source=f'{poses} by way of {gyro.topic}',
        gain=images.gain / odometry.gain,
        gain_error=float(
            np.hypot(images.gain_error / images.gain, odometry.gain_error / odometry.gain)
        ),
    )


def steadying(
    gyroscope: Gyroscope, with_it: Compared, found: GyroAudit, offset: ClockOffset | None
) -> GyroAudit:
    """Return the audit with whether a gyroscope is to steady the poses: the images decide.

    :param offset: the delay of the images beside the poses.
    """
    trajectory = with_it.trajectory
    rotation = _rotation(gyroscope, with_it, found.mount)
    if trajectory is None or rotation is None:
        return found
    late_ns = offset.offset_ns if offset is not None and offset.is_applicable else 0
    delay_ns = 0
    if found.images is not None and found.images.is_sharp:
        # the rotation is then aligned with the images, however poorly poses tell their clock
        delay_ns = found.images.offset_ns - late_ns
    elif found.poses is not None and found.poses.is_sharp:
        delay_ns = found.poses.offset_ns
    use = GyroUse(gyroscope.topic, tuple(float(x) for x in np.ravel(rotation)), delay_ns)
    before, after = (
        _apart_rad_s(with_it.pairs, poses, late_ns)
        for poses in (trajectory, steadied_by(trajectory, gyroscope, use))
    )
    chosen = use if after < _STEADIER * before else None
    return replace(found, use=chosen, apart_rad_s=(before, after))


def _apart_rad_s(pairs: Sequence[TrackedPair], poses: Trajectory, late_ns: int) -> float:
    """Return how far images and poses turn apart, median over pairs; NaN for too few."""
    images = turns_with_poses(pairs, poses, late_ns)
    turns, known = turned_between(poses, images, late_ns / 1e9)
    if not enough(known):
        return float('nan')
    seconds = ((images.end_ns - images.start_ns) / 1e9)[:, None]
    return float(np.median(np.linalg.norm(((images.turns_rad - turns) / seconds)[known], axis=1)))


def _rotation(gyroscope: Gyroscope, with_it: Compared, mount: str) -> Floats | None:
    """Return R_camera_gyro by which delays were found; from the data where TF is not right."""
    if mount != 'data':
        return with_it.R_camera_gyro
    fits = [fitted_rotation(item, gyroscope) for item in _image_turns(with_it)]
    good = [fit for fit in fits if fit is not None]
    return max(good, key=lambda fit: fit.correlation).rotation if good else None


def turns_of_poses(trajectory: Trajectory) -> ImageTurns:
    """Return how much a camera turned between poses some 0.05 s apart or, if fewer, neighbours."""
    stamps = trajectory.stamps_ns
    chosen = [0]
    for index in range(1, len(stamps)):
        if stamps[index] - stamps[chosen[-1]] >= 0.9 * _PAIR_NS:
            chosen.append(index)
    first, second = np.array(chosen[:-1], np.intp), np.array(chosen[1:], np.intp)
    good = trajectory.segments[first] == trajectory.segments[second]
    good &= stamps[second] - stamps[first] <= _LONGEST_PAIR_NS
    first, second = first[good], second[good]
    moves = inverted(trajectory.poses[first]) @ trajectory.poses[second]
    turns = rotation_vectors(moves[:, :3, :3]) if len(moves) else np.zeros((0, 3))
    return ImageTurns(stamps[first], stamps[second], turns)


def _by_images_alone(
    images: ClockOffset, topic: str, direct: ClockOffset | None, poses: str
) -> tuple[ClockOffset | None, list[str]]:
    """Take the clock of the gyroscope for that of the poses, which turn too little to tell."""
    if direct is not None and _apart(direct, images):
        return direct, []
    taken = replace(images, source=f'{poses}, taken to have the clock of {topic}')
    return taken, [
        f'{poses} turns too little or too poorly to compare its clock with {topic}; both are '
        'taken to be stamped by the same clock.'
    ]


def _apart(one: ClockOffset, two: ClockOffset) -> bool:
    """Tell whether two delays differ by more than by chance."""
    chance_s = _APART_ERRORS * float(np.hypot(one.standard_error_s, two.standard_error_s))
    return abs(one.offset_s - two.offset_s) > max(_APART_S, chance_s)


def _image_turns(with_it: Compared) -> list[ImageTurns]:
    """Return the turning in the images, without and with what poses say of the direction."""
    turns = [turns_of(with_it.pairs)]
    if with_it.trajectory is not None:
        delay_ns = with_it.direct.offset_ns if with_it.direct is not None else 0
        turns.append(turns_with_poses(with_it.pairs, with_it.trajectory, delay_ns))
    return turns


def _delay(
    gyroscope: Gyroscope, turns: Sequence[ImageTurns], with_it: Compared
) -> tuple[ClockOffset | None, str]:
    """Return the sharpest delay, and which rotation of the gyroscope it was found with."""
    found: list[tuple[ClockOffset, str]] = []
    if with_it.R_camera_gyro is not None:
        found += _found(gyroscope, turns, [with_it.R_camera_gyro] * len(turns), 'tf')
    if not any(offset.correlation >= _LEAST_CORRELATION for offset, _ in found):
        fits = [fitted_rotation(item, gyroscope) for item in turns]
        rotations = [None if fit is None else fit.rotation for fit in fits]
        found += _found(gyroscope, turns, rotations, 'data')
    if not found:
        return None, ''
    good = [item for item in found if item[0].is_sharp] or found
    return min(good, key=lambda item: item[0].standard_error_s)


def _found(
    gyroscope: Gyroscope,
    turns: Sequence[ImageTurns],
    rotations: Sequence[Floats | None],
    mount: str,
) -> list[tuple[ClockOffset, str]]:
    offsets = [
        offset_of_turns(item, gyroscope.rates_in(rotation), gyroscope.topic)
        for item, rotation in zip(turns, rotations, strict=True)
        if rotation is not None
    ]
    return [(offset, mount) for offset in offsets if offset is not None]


def _contradictions(
    gyroscope: Gyroscope, poses: ImageTurns, offset: ClockOffset | None, source: str
) -> list[str]:
    """Say where poses and gyroscope cannot both be right."""
    said, known = turned_between(gyroscope.rates_in(np.eye(3)), poses, 0.0)
    if not known.any():
        return [f'{gyroscope.topic} and {source} have no time in common.']
    seconds = ((poses.end_ns - poses.start_ns) / 1e9)[:, None]
    by_gyro = _wandering((said / seconds)[known])
    by_poses = _wandering((poses.turns_rad / seconds)[known])
    topic = gyroscope.topic
    if by_gyro > _TURNS_RAD_S and by_poses < _STANDS_SHARE * by_gyro:
        return [
            f'{topic} turns ({by_gyro:.2f} rad/s) while {source} hardly does ({by_poses:.2f} '
            'rad/s): the wheels slip, the odometry has no heading, or one topic is a wrong one.'
        ]
    if by_poses > _TURNS_RAD_S and by_gyro < _STANDS_SHARE * by_poses:
        return [
            f'{source} turns ({by_poses:.2f} rad/s) while {topic} hardly does ({by_gyro:.2f} '
            'rad/s): the wheels slip, or it is not an IMU of this robot, or in another unit.'
        ]
    if min(by_gyro, by_poses) <= _TURNS_RAD_S:
        return []
    if offset is None:  # how it is turned beside the camera is not known
        return []
    if offset.correlation < _LEAST_CORRELATION:
        return [
            f'{topic} and {source} both turn, but not together: a wrong topic, a wrong frame, or '
            'clocks that are more than half a second apart.'
        ]
    margin = _GAIN_ERRORS * offset.gain_error
    if 1 / _LARGEST_GAIN - margin <= offset.gain <= _LARGEST_GAIN + margin:
        return []
    return [
        f'{source} turns {offset.gain:.2f} times as far as {topic} says: one of them is not '
        'calibrated, or the wheels slip.'
    ]


def _wandering(rates: Floats) -> float:
    """Return how much a turn rate varies (RMS), a constant bias taken out, radians per second."""
    centred = rates - np.median(rates, axis=0)
    size = np.linalg.norm(centred, axis=1)
    return float(np.sqrt((np.minimum(size, np.percentile(size, 98)) ** 2).mean()))
