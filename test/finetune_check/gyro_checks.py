"""What a gyroscope beside the camera adds: delays without odometry's turning, steadier poses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import altered_recordings as spoilt

from depth_node.dataset.audit import Audit
from depth_node.dataset.audit_recording import audit_recording
from depth_node.dataset.trajectory import Trajectory
from depth_node.recording import open_recording
from depth_node.world.recording import RecordingSettings
from finetune_check.row import Row
from finetune_check.runs import MIXED
from finetune_check.runs import Setting
from finetune_check.runs import rendered

_DELAY_MS = 80.0
_IMU_HZ = 100.0
_YAW_NOISE_RAD = 0.005
_HAND = RecordingSettings(
    seconds=6.0, rate_hz=15.0, width=176, height=132, carrier='handheld', imu_hz=_IMU_HZ
)


def gyro(setting: Setting) -> Row:
    """A delay is found by the gyroscope alone, mounted as TF says or not; poses get steadier."""
    row = Row('gyro')
    by_hand = rendered(setting, _HAND)
    _delay(setting, by_hand, row, 'in a hand, mount from TF')
    _delay(setting, by_hand, row, 'in a hand, mount from the data', spoilt.without_mount)
    _steadying(setting, by_hand, row)
    robot = rendered(setting, replace(MIXED, imu_hz=_IMU_HZ))
    found = _delay(setting, robot, row, 'on a robot, mount from TF', is_applied=False)
    by_gyro = found.gyro.images if found.gyro is not None else None
    row.told('its standard error, ms', by_gyro.standard_error_s * 1e3 if by_gyro else float('nan'))
    return row


def _delay(
    setting: Setting,
    recording: Path,
    row: Row,
    what: str,
    *alters: spoilt.Alter,
    is_applied: bool = True,
) -> Audit:
    """Find the delay of images without the turning of odometry."""
    alter = spoilt.both(
        spoilt.late_images(round(_DELAY_MS * 1e6)), spoilt.without_heading, *alters
    )
    name = what.replace(' ', '-').replace(',', '')
    found = audit_recording(spoilt.altered(recording, setting.folder / name, alter))
    by_gyro = found.gyro.images if found.gyro is not None else None
    found_ms = by_gyro.offset_s * 1e3 if by_gyro is not None else float('nan')
    row.told(f'delay found, of 80 ms, {what}', found_ms)
    row.at_most(f'error, ms, {what}', abs(found_ms - _DELAY_MS), 15.0)
    if is_applied:
        row.exactly(f'applied, {what}', found.applied_offset_ns != 0, 1)
    return found


def _steadying(setting: Setting, recording: Path, row: Row) -> None:
    """Poses whose heading shakes, beside the true ones."""
    shaking = spoilt.altered(
        recording, setting.folder / 'shaking', spoilt.with_yaw_noise(_YAW_NOISE_RAD)
    )
    audit = audit_recording(shaking)
    truth = _poses(recording, replace(audit, clock_offset=None, gyro=None))
    before = _poses(shaking, replace(audit, clock_offset=None, gyro=None))
    after = _poses(shaking, replace(audit, clock_offset=None))
    wrong = [1e3 * spoilt.turning_error_rad(poses, truth) for poses in (before, after)]
    row.told('turning of poses 0.2 s apart wrong by, mrad, heading shaking by 5 mrad', wrong[0])
    row.at_most('the same after steadying', wrong[1], wrong[0] / 3)
    row.exactly('clean poses steadied', audit_recording(recording).gyro_use is not None, 0)


def _poses(recording: Path, audit: Audit) -> Trajectory:
    with open_recording(recording) as opened:
        return spoilt.used_poses(opened, audit)
