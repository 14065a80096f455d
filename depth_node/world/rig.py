"""The cameras of a recording: the first one, and others that are mounted beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np

from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.frames import CameraFields
from depth_node.world.solids import Floats

FIRST_NAME = 'camera'
"""Of the first camera, in the names of its topics and of its frame."""

_FARTHEST_M = 2.0
_NAME = re.compile(r'[a-z][a-z0-9_]*')
_LENSES: dict[str, tuple[str, tuple[float, ...]]] = {
    'none': ('plumb_bob', (0.0,) * 5),
    'plumb_bob': ('plumb_bob', (-0.22, 0.06, 0.0006, -0.0004, -0.008)),
    'rational_polynomial': (
        'rational_polynomial',
        (0.45, 0.05, 0.0004, -0.0003, 0.0, 0.65, 0.12, 0.005),
    ),
    'equidistant': ('equidistant', (-0.02, 0.004, -0.002, 0.0003)),
}
LENSES = tuple(_LENSES)


@dataclass(frozen=True)
class CameraMount:
    """Where another camera of the same make sits: its pose in the first camera's optical frame."""

    name: str
    """Of its topics, ``/<name>/image_raw``, and of its frame, ``<name>_optical_frame``."""
    right_m: float = 0.0
    """Of the optical centre, to the right, metres."""
    down_m: float = 0.0
    """Of the optical centre, downwards, metres."""
    forward_m: float = 0.0
    """Of the optical centre, forwards, metres."""
    yaw_rad: float = 0.0
    """About the down axis, positive to the right."""
    depth: bool = False
    """Whether its depth is recorded too."""

    @property
    def frame_id(self) -> str:
        """Return the name of its optical frame."""
        return f'{self.name}_optical_frame'

    @property
    def image_topic(self) -> str:
        """Return the topic of its raw images; JPEG goes below it."""
        return f'/{self.name}/image_raw'

    @property
    def camera_info_topic(self) -> str:
        """Return the topic of its camera_info."""
        return f'/{self.name}/camera_info'

    @property
    def is_sideways(self) -> bool:
        """Tell whether it is the partner of the first camera in a rectified stereo pair."""
        return self.right_m != 0.0 and self.down_m == self.forward_m == self.yaw_rad == 0.0

    @property
    def T_first_camera(self) -> Floats:  # noqa: N802
        """Return (4, 4) its pose in the optical frame of the first camera, metres."""
        pose = np.eye(4)
        c, s = math.cos(self.yaw_rad), math.sin(self.yaw_rad)
        pose[:3, :3] = (c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c)
        pose[:3, 3] = self.right_m, self.down_m, self.forward_m
        return pose


def fields_of(width: int, height: int, hfov_rad: float, lens: str, frame_id: str) -> CameraFields:
    """Return a camera_info with the principal point in the middle.

    :param width: columns, pixels.
    :param height: rows, pixels.
    :param hfov_rad: horizontal field of view before distortion.
    :param lens: one of :data:`LENSES`.
    :param frame_id: optical frame.
    """
    model, d = _LENSES[lens]
    focal = width / (2 * math.tan(hfov_rad / 2))
    cx, cy = (width - 1) / 2, (height - 1) / 2
    return CameraFields(
        width,
        height,
        model,
        d,
        (focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0),
        p=(focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0),
        frame_id=frame_id,
    )


def rig_fields(
    first: CameraFields, mounts: Sequence[CameraMount], lens: str
) -> tuple[CameraFields, ...]:
    """Return the camera_info of all cameras, the first one's first.

    Without a lens, the right camera of a pair side by side says so as ROS stereo drivers do:
    ``P[0, 3] = -fx * baseline``.

    :param first: of the first camera.
    :param mounts: of the others.
    :param lens: of all.
    """
    others = [replace(first, frame_id=mount.frame_id) for mount in mounts]
    for k, mount in enumerate(mounts):
        if lens != 'none' or not mount.is_sideways:
            continue
        if mount.right_m > 0:
            others[k] = _as_right(others[k], mount.right_m)
        elif first.p[3] == 0.0:
            first = _as_right(first, -mount.right_m)
    return (first, *others)


def check_mounts(mounts: Sequence[CameraMount]) -> None:
    """Refuse mounts that make no recording.

    :raises SettingsError: for names that are taken or none of ROS, and poses out of range.
    """
    who = 'world recording'
    taken = {FIRST_NAME}
    for mount in mounts:
        if not _NAME.fullmatch(mount.name) or mount.name in taken:
            raise SettingsError(
                who, f'a camera named {quoted(mount.name)}', 'a new name such as camera_right'
            )
        taken.add(mount.name)
        centre = (mount.right_m, mount.down_m, mount.forward_m)
        if not all(abs(value) <= _FARTHEST_M for value in centre):
            raise SettingsError(
                who, f'{mount.name} at {centre} m', f'at most {_FARTHEST_M:g} m each way'
            )
        if not abs(mount.yaw_rad) <= math.pi:
            raise SettingsError(who, f'{mount.name} with yaw {mount.yaw_rad:g}', '-pi to pi')


def _as_right(fields: CameraFields, baseline_m: float) -> CameraFields:
    p = list(fields.p)
    p[3] = -p[0] * baseline_m
    return replace(fields, p=tuple(p))
