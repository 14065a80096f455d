"""A recorded gyroscope: reading it, and how it is turned beside the camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.clock_offset import ImageTurns
from depth_node.dataset.clock_offset import TurnRates
from depth_node.dataset.clock_offset import enough
from depth_node.dataset.clock_offset import tried_delays_s
from depth_node.dataset.clock_offset import turned_between
from depth_node.dataset.clock_offset import varying
from depth_node.dataset.poses import Floats
from depth_node.recording import Recording
from depth_node.recording import Topic
from depth_node.recording.messages import ImuFields

_LEAST_MESSAGES = 20
_LARGEST_RAD_S = 40.0
_LEAST_RATE_RAD_S = 0.03
_LEAST_PAIRS = 40
_LEAST_CORRELATION = 0.8
_LEAST_LEAD = 0.05


@dataclass(frozen=True, eq=False)
class Gyroscope:
    """Turn rates as they were recorded, in axes of the sensor."""

    topic: str
    """Its topic."""
    frame: str
    """Frame of the sensor, without leading slash."""
    stamps_ns: NDArray[np.int64]
    """(M,) strictly rising, nanoseconds."""
    rates_rad_s: Floats
    """(M, 3) radians per second, finite."""

    def rates_in(self, rotation: Floats) -> TurnRates:
        """Return the rates in other axes.

        :param rotation: (3, 3) R_other_sensor.
        """
        return TurnRates(self.stamps_ns, self.rates_rad_s @ np.asarray(rotation).T)


def read_gyroscope(recording: Recording, topic: Topic) -> tuple[Gyroscope | None, list[str]]:
    """Read the turn rates of an IMU.

    Those that are marked as not measured or are not finite are left out, and so are stamps that
    are zero or do not rise.

    :returns: None where nothing usable is left; and sentences about what is wrong.
    """
    found = [
        (content.stamp_ns, content.angular_velocity_rad_s, content.frame_id)
        for record in recording.records([topic])
        if isinstance(content := record.content, ImuFields)
    ]
    if not found:
        return None, [f'{topic.name} holds no readable message.']
    stamps = np.array([item[0] for item in found], np.int64)
    rates = np.stack([item[1] for item in found])
    said = []
    measured = np.isfinite(rates).all(axis=1)
    if not measured.all():
        said.append(f'{(~measured).sum()} of {len(rates)} messages on {topic.name} hold no rate.')
    latest = np.maximum.accumulate(np.append(0, stamps))[:-1]
    kept = measured & (stamps > latest)
    stamps, rates = stamps[kept], rates[kept]
    if len(stamps) < _LEAST_MESSAGES:
        said.append(
            f'{topic.name} is not used: only {len(stamps)} of its messages have a turn rate and a '
            'stamp that rises.'
        )
        return None, said
    if (fast := float(np.percentile(np.abs(rates), 95))) > _LARGEST_RAD_S:
        said.append(
            f'{topic.name} is not used: it turns with {fast:.0f} rad/s, more than any robot. It '
            'may be in degrees per second: mend its driver.'
        )
        return None, said
    return Gyroscope(topic.name, found[0][2].lstrip('/'), stamps, rates), said


@dataclass(frozen=True, eq=False)
class FittedRotation:
    """How a gyroscope is turned beside something else that turns with it."""

    rotation: Floats
    """(3, 3) R_other_sensor; about an axis that nothing turns about it is arbitrary."""
    correlation: float
    """Of both turn rates after it, 0 to 1."""


def fitted_rotation(turns: ImageTurns, gyroscope: Gyroscope) -> FittedRotation | None:
    """Return the rotation of a gyroscope that suits the turning of something else.

    At each delay the best rotation is a closed form (W. Kabsch, 1976).  A rotation can also turn
    a rate into its opposite, so that where the motion is even or repeats itself, several delays
    look alike: then nothing can be said.

    :param turns: by images or by poses, in axes of the camera.
    :returns: None where the two do not agree well, or at several delays.
    """
    if len(turns.turns_rad) < _LEAST_PAIRS:
        return None
    seconds = ((turns.end_ns - turns.start_ns) / 1e9)[:, None]
    rates, own = turns.turns_rad / seconds, gyroscope.rates_in(np.eye(3))
    delays = tried_delays_s()
    correlations = np.full(len(delays), -1.0)
    rotations = np.tile(np.eye(3), (len(delays), 1, 1))
    for index, delay in enumerate(delays):
        said, known = turned_between(own, turns, delay)
        if enough(known):
            correlations[index], rotations[index] = _kabsch(
                varying(rates[known]), varying((said / seconds)[known])
            )
    best = int(np.argmax(correlations))
    if correlations[best] < max(_LEAST_CORRELATION, _second(correlations, best) + _LEAST_LEAD):
        return None
    return FittedRotation(rotations[best], float(correlations[best]))


def _kabsch(seen: Floats, said: Floats) -> tuple[float, Floats]:
    """Return the correlation after the best rotation of the second, and that rotation."""
    norm = float(np.sqrt((seen**2).sum() * (said**2).sum()))
    if norm == 0.0 or float(np.sqrt((said**2).sum(axis=1).mean())) < _LEAST_RATE_RAD_S:
        return -1.0, np.eye(3)
    u, sizes, v = np.linalg.svd(seen.T @ said)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    return float((sizes * signs).sum()) / norm, np.asarray((u * signs) @ v)


def _second(values: Floats, best: int) -> float:
    """Return the largest value that a valley parts from the peak; -1 where there is none."""
    second = -1.0
    for side in (values[best:], values[best::-1]):
        valley = np.minimum.accumulate(side)
        apart = side[side > valley + _LEAST_LEAD]
        second = max(second, float(apart.max(initial=-1.0)))
    return second
