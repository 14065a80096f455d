"""Where the poses of a camera come from: an odometry topic or TF, and the way to the camera.

A transform tree gives T_parent_child for every child; the pose of the camera is the product along
the way from the fixed frame down to the frame of the images.  Frames by REP-105: of 'map' and
'odom' the latter is taken, because 'map' jumps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.poses import Floats
from depth_node.dataset.topics import RecordingTopics
from depth_node.dataset.trajectory import Trajectory
from depth_node.dataset.trajectory import trajectory_from
from depth_node.errors import RecordingError
from depth_node.errors import quoted
from depth_node.recording import Recording
from depth_node.recording import Topic
from depth_node.recording.messages import OdometryFields
from depth_node.recording.messages import TransformsFields

_MAX_HOPS = 50
_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_UPRIGHT = np.cos(np.radians(40.0))


@dataclass(frozen=True, eq=False)
class Hop:
    """One edge of a transform tree over time."""

    parent: str
    """Frame in which the poses are given."""
    child: str
    """Frame whose poses are given."""
    stamps_ns: NDArray[np.int64]
    """(N,) as sent; of a static edge one, without meaning."""
    poses: Floats
    """(N, 4, 4) T_parent_child."""
    is_static: bool
    """From /tf_static, or the same pose throughout."""

    def constant(self) -> Floats:
        """Return the (4, 4) pose of a static edge: the last one sent."""
        return np.asarray(self.poses[-1])


class TransformTree:
    """Every transform of a recording; of two parents of a frame the one that was sent more."""

    def __init__(self, hops: Sequence[Hop]) -> None:
        self._by_child: dict[str, Hop] = {}
        for hop in sorted(hops, key=lambda item: len(item.stamps_ns)):
            self._by_child[hop.child] = hop

    def up(self, frame: str) -> list[Hop]:
        """Return the edges from a frame to the root, nearest first."""
        way: list[Hop] = []
        while frame in self._by_child and len(way) < _MAX_HOPS:
            way.append(self._by_child[frame])
            frame = way[-1].parent
        return way

    def static_pose(self, parent: str, child: str) -> Floats | None:
        """Return T_parent_child along static edges only, up and down; None where there is none."""
        if parent == child:
            return np.eye(4)
        below, above = self._static_chain(child), self._static_chain(parent)
        shared = next((frame for frame in below if frame in above), None)
        if shared is None:
            return None
        return np.asarray(np.linalg.inv(above[shared]) @ below[shared])

    def upward(self, frame: str) -> float:
        """Return how far the z axis of a frame points up, -1 to 1.

        By the static edges above it; of a frame that moves by itself by its median pose, and 1
        where nothing tells.
        """
        way = self.up(frame)
        if way and not way[0].is_static:
            return float(np.median(way[0].poses[:, 2, 2]))
        return float(list(self._static_chain(frame).values())[-1][2, 2])

    def _static_chain(self, frame: str) -> dict[str, Floats]:
        """Return T_ancestor_frame of every ancestor over static edges, the frame itself first."""
        chain = {frame: np.eye(4)}
        pose = np.eye(4)
        for hop in self.up(frame):
            if not hop.is_static:
                break
            pose = hop.constant() @ pose
            chain.setdefault(hop.parent, pose)
        return chain


def read_transforms(recording: Recording, topics: RecordingTopics) -> TransformTree:
    """Read every transform of a recording, dynamic and static."""
    stamps: dict[tuple[str, str], list[int]] = defaultdict(list)
    poses: dict[tuple[str, str], list[Floats]] = defaultdict(list)
    latched: set[tuple[str, str]] = set()
    static = {topic.name for topic in topics.static_transforms}
    wanted = [*topics.transforms, *topics.static_transforms]
    for record in recording.records(wanted) if wanted else ():
        content = record.content
        for item in content.transforms if isinstance(content, TransformsFields) else ():
            # tf names of ROS 1 may begin with a slash.
            edge = item.parent.lstrip('/'), item.child.lstrip('/')
            if not np.isfinite(item.pose).all() or edge[0] == edge[1]:
                continue
            if record.topic in static:
                latched.add(edge)
            stamps[edge].append(item.stamp_ns)
            poses[edge].append(item.pose)
    return TransformTree(
        [
            Hop(
                *edge,
                np.array(stamps[edge], dtype=np.int64),
                (stacked := np.stack(poses[edge])),
                edge in latched or bool(np.allclose(stacked, stacked[0], rtol=0.0, atol=1e-9)),
            )
            for edge in stamps
        ]
    )


def camera_poses(
    recording: Recording, topics: RecordingTopics, camera_frame: str
) -> Trajectory | None:
    """Return the poses of a camera from odometry or, where there is none, from TF.

    :param camera_frame: frame_id of the images.
    :returns: None where no poses are wanted, and where the recording has neither odometry nor
        dynamic transforms.
    :raises RecordingError: where there are poses, but no way from them to the camera.
    """
    if not topics.posed or (topics.odometry is None and not topics.transforms):
        return None
    tree = read_transforms(recording, topics)
    frame = camera_frame.lstrip('/')
    if topics.odometry is not None:
        return _from_odometry(recording, topics.odometry, tree, frame)
    return _from_transforms(recording, topics, tree, frame)


def _from_odometry(
    recording: Recording, topic: Topic, tree: TransformTree, frame: str
) -> Trajectory | None:
    stamps: list[int] = []
    poses: list[Floats] = []
    child = ''
    for record in recording.records([topic]):
        if isinstance(record.content, OdometryFields):
            child = record.content.child_frame_id.lstrip('/')
            stamps.append(record.content.stamp_ns)
            poses.append(record.content.pose)
    mount = tree.static_pose(child, frame)
    if mount is None:
        raise RecordingError(
            f'recording {recording.path}',
            f'poses of {quoted(child)} on {topic.name} and no static transforms from there to the '
            f'frame of the images, {quoted(frame)}',
            'a way from the odometry to the camera',
            'Record /tf_static too, and let the images carry the frame of the camera.',
        )
    upward = tree.upward(frame) if child == frame else mount[2, 2]
    mount, remarks = as_optical(mount, frame, upward)
    return trajectory_from(
        topic.name, np.array(stamps, np.int64), np.stack(poses) @ mount, remarks
    )


def _from_transforms(
    recording: Recording, topics: RecordingTopics, tree: TransformTree, frame: str
) -> Trajectory | None:
    way = tree.up(frame)
    moving = [hop for hop in way if not hop.is_static]
    fixed = _fixed_frame(recording, way, topics.fixed_frame)
    if fixed is None or not moving:
        return None
    way = way[: [hop.parent for hop in way].index(fixed) + 1]
    moving = [hop for hop in way if not hop.is_static]
    if not moving:
        return None
    # Where several edges move, the poses are those of the busiest at its own times.
    busiest = max(moving, key=lambda hop: len(hop.stamps_ns))
    lead = trajectory_from('', busiest.stamps_ns, busiest.poses)
    if lead is None:
        return None
    chain = np.tile(np.eye(4), (len(lead.stamps_ns), 1, 1))
    for hop in way:
        chain = _poses_at(hop, lead.stamps_ns) @ chain
    known = np.isfinite(chain).all(axis=(1, 2))
    mounts = tree.static_pose(moving[0].child, frame)
    level = np.eye(4) if mounts is None else mounts
    mended, remarks = as_optical(level, frame, tree.upward(frame))
    chain = chain @ np.linalg.inv(level) @ mended
    source = f'tf {fixed} -> {moving[0].child}'
    return trajectory_from(source, lead.stamps_ns[known], chain[known], lead.remarks + remarks)


def _poses_at(hop: Hop, stamps_ns: NDArray[np.int64]) -> Floats:
    """Return the poses of an edge at these times; NaN where they are not known."""
    if hop.is_static:
        return np.broadcast_to(hop.constant(), (len(stamps_ns), 4, 4))
    own = trajectory_from('', hop.stamps_ns, hop.poses)
    if own is None:
        return np.full((len(stamps_ns), 4, 4), np.nan)
    return own.at_many(stamps_ns)[0]


def _fixed_frame(recording: Recording, way: list[Hop], wanted: str) -> str | None:
    """Choose the frame in which the camera moves: the named one, odom, or the root."""
    parents = [hop.parent for hop in way]
    bare = wanted.lstrip('/')
    if bare and bare not in parents:
        raise RecordingError(
            f'recording {recording.path}',
            f'no way from {quoted(bare)} to the frame of the images in TF',
            'one of ' + (', '.join(quoted(item) for item in parents) or 'none: TF is not there'),
        )
    if bare:
        return bare
    odometry = [item for item in parents if item.rpartition('/')[2].startswith('odom')]
    return odometry[0] if odometry else parents[-1] if parents else None


def as_optical(mount: Floats, frame: str, upward: float) -> tuple[Floats, tuple[str, ...]]:
    """Turn a mount whose frame is a body frame (x forward, z up) into that of its optical frame.

    Some drivers put the body's frame into the header of images.  It is taken for one where it is
    not called optical and its z axis points upwards, which an optical axis does only at a camera
    that looks at the ceiling.

    :param mount: (4, 4) T_base_camera as the transforms say.
    :param upward: how far its z axis points up, -1 to 1; see :meth:`TransformTree.upward`.
    :returns: the mount to use, and remarks.
    """
    if 'optical' in frame or upward < _UPRIGHT:
        return mount, ()
    turned = mount.copy()
    turned[:3, :3] = mount[:3, :3] @ _OPTICAL
    return turned, (
        f'The frame of the images, {frame}, is no optical frame: its z axis points up. It was '
        'taken for a body frame, x forward.',
    )
