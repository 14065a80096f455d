"""Poses of a camera over time, and what is wrong with them: gaps, jumps, stamps that go back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.poses import Floats
from depth_node.dataset.poses import interpolated
from depth_node.dataset.poses import inverted
from depth_node.dataset.poses import rotation_vectors

_GAP_PERIODS = 3.0
_GAP_NS = 250_000_000
_RESTART_NS = 1_000_000_000
_NEIGHBOURS = 4
# A step is a jump where it differs from its neighbours by more than any robot accelerates.
_JUMP_M, _JUMP_M_S2 = 0.05, 15.0
_JUMP_RAD, _JUMP_RAD_S2 = 0.05, 30.0
_JUMP_FACTOR = 3.0


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Poses of the optical frame of a camera (x right, y down, z forward) in a fixed frame."""

    source: str
    """'/odom' or 'tf odom -> base_link'."""
    stamps_ns: NDArray[np.int64]
    """(N,) strictly rising, nanoseconds; N at least 2."""
    poses: Floats
    """(N, 4, 4) T_world_camera, metres."""
    remarks: tuple[str, ...] = ()
    """Sentences about what had to be mended or assumed."""

    @property
    def period_ns(self) -> float:
        """Median time between two poses, nanoseconds."""
        return float(np.median(np.diff(self.stamps_ns)))

    @cached_property
    def steps_s(self) -> Floats:
        """(N-1,) time from pose to pose, seconds."""
        return np.diff(self.stamps_ns) / 1e9

    @cached_property
    def is_gap(self) -> NDArray[np.bool_]:
        """(N-1,) steps of more than three periods and more than 0.25 s: not interpolated."""
        steps = np.diff(self.stamps_ns)
        return (steps > _GAP_PERIODS * self.period_ns) & (steps > _GAP_NS)

    @cached_property
    def is_jump(self) -> NDArray[np.bool_]:
        """(N-1,) steps that no body makes, e.g. a localisation that corrected itself."""
        metres, radians = self._step_lengths
        seconds = self.steps_s
        usual_m = _usual_rate(metres / seconds) * seconds
        usual_rad = _usual_rate(radians / seconds) * seconds
        return np.asarray(
            (metres > _JUMP_FACTOR * usual_m + _JUMP_M + _JUMP_M_S2 * seconds**2)
            | (radians > _JUMP_FACTOR * usual_rad + _JUMP_RAD + _JUMP_RAD_S2 * seconds**2)
        ) & (seconds < 1.0)

    @cached_property
    def segments(self) -> NDArray[np.int64]:
        """(N,) number of the piece without gap or jump that a pose belongs to, from 0."""
        broken = self.is_gap | self.is_jump
        return np.concatenate([[0], np.cumsum(broken)]).astype(np.int64)

    @cached_property
    def speeds_m_s(self) -> Floats:
        """(N-1,) metres per second from pose to pose; NaN in gaps and jumps."""
        return np.where(self.is_gap | self.is_jump, np.nan, self._step_lengths[0] / self.steps_s)

    @cached_property
    def turn_rates_rad_s(self) -> Floats:
        """(N-1,) radians per second from pose to pose, not negative; NaN in gaps and jumps."""
        return np.where(self.is_gap | self.is_jump, np.nan, self._step_lengths[1] / self.steps_s)

    @cached_property
    def _step_lengths(self) -> tuple[Floats, Floats]:
        moves = inverted(self.poses[:-1]) @ self.poses[1:]
        turns = rotation_vectors(moves[:, :3, :3])
        return np.linalg.norm(moves[:, :3, 3], axis=1), np.linalg.norm(turns, axis=1)

    def at(self, stamp_ns: int) -> Floats | None:
        """Return the (4, 4) pose at a time; None outside, in a gap or within a jump.

        Translations are interpolated linearly, rotations along the shorter arc.
        """
        poses, known = self.at_many(np.array([stamp_ns], dtype=np.int64))
        return poses[0] if known[0] else None

    def at_many(self, stamps_ns: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
        """Return poses (M, 4, 4) at many times, and which of them (M,) are known.

        Those that are not known are NaN.
        """
        stamps = np.asarray(stamps_ns, dtype=np.int64)
        poses = np.full((len(stamps), 4, 4), np.nan)
        after = np.searchsorted(self.stamps_ns, stamps, side='left')
        inside = (after < len(self.stamps_ns)) & (stamps >= self.stamps_ns[0])
        after = np.clip(after, 1, len(self.stamps_ns) - 1)
        before = after - 1
        start, end = self.stamps_ns[before], self.stamps_ns[after]
        share = (stamps - start) / (end - start)
        same = self.segments[before] == self.segments[after]
        known = inside & (same | (stamps == end) | (stamps == start))
        poses[known] = interpolated(
            self.poses[before[known]], self.poses[after[known]], share[known]
        )
        return poses, known

    def connected(self, one_ns: int, two_ns: int) -> bool:
        """Tell whether poses are known at both times without a gap or jump between them."""
        if self.at(one_ns) is None or self.at(two_ns) is None:
            return False
        first, last = sorted((one_ns, two_ns))
        from_index = int(np.searchsorted(self.stamps_ns, first, side='left'))
        to_index = int(np.searchsorted(self.stamps_ns, last, side='right')) - 1
        return to_index < from_index or bool(self.segments[from_index] == self.segments[to_index])


def trajectory_from(
    source: str, stamps_ns: NDArray[np.int64], poses: Floats, remarks: tuple[str, ...] = ()
) -> Trajectory | None:
    """Make a trajectory of poses as they were recorded, in the order of recording.

    Poses that are not finite are left out, of equal stamps the last counts, stamps that are late
    by less than a second are sorted in, and where a clock was set back further, only what comes
    after the latest stamp so far is used.

    :param stamps_ns: (N,) as sent.
    :param poses: (N, 4, 4) T_world_camera.
    :returns: None where fewer than two usable poses are left; stamps that are all zero are not
        usable.
    """
    said = list(remarks)
    kept = np.isfinite(poses).all(axis=(1, 2)) & (stamps_ns > 0)
    _say(said, int((~kept).sum()), 'poses that were not finite or had no stamp were left out.')
    stamps, poses = stamps_ns[kept], poses[kept]
    if len(stamps) < 2:
        return None
    latest = np.maximum.accumulate(stamps)
    restarted = latest - stamps > _RESTART_NS
    _say(said, int(restarted.sum()), 'poses after a clock was set back were left out.')
    stamps, poses = stamps[~restarted], poses[~restarted]
    _say(said, int((np.diff(stamps) < 0).sum()), 'poses that came late were sorted in.')
    order = np.argsort(stamps, kind='stable')
    stamps, poses = stamps[order], poses[order]
    last = np.append(np.diff(stamps) > 0, True)
    _say(said, int((~last).sum()), 'poses had the stamp of a later one and were left out.')
    stamps, poses = stamps[last], poses[last]
    if len(stamps) < 2:
        return None
    return Trajectory(source, stamps.astype(np.int64), poses, tuple(said))


def _usual_rate(rates: Floats) -> Floats:
    """Return for each step the median rate of its neighbours, the step itself left out."""
    padded = np.pad(rates, _NEIGHBOURS, mode='reflect' if len(rates) > _NEIGHBOURS else 'edge')
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1)
    return np.asarray(np.median(np.delete(windows, _NEIGHBOURS, axis=1), axis=1))


def _say(said: list[str], count: int, sentence: str) -> None:
    if count:
        said.append(f'{count} {sentence}')
