"""Which other camera of a recording makes a stereo pair with the one that is trained.

The pose between them is that of the camera_infos of a rectified pair, ``P[0, 3] = -fx * baseline``
in the right one, or leads over static transforms.  Exactly one candidate is tried on a few images
of both; several are listed, and none is used until one is named.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from dataclasses import replace

import numpy as np

from depth_node.camera import is_named_rectified
from depth_node.camera.rectifier import rotation_of
from depth_node.dataset.pose_source import TransformTree
from depth_node.dataset.pose_source import as_optical
from depth_node.dataset.stereo_rig import Floats
from depth_node.dataset.stereo_rig import refusal_of_pose
from depth_node.dataset.stereo_sensor import StereoSensor
from depth_node.dataset.stereo_sensor import tried
from depth_node.dataset.topics import RecordingTopics
from depth_node.errors import CameraRejected
from depth_node.frames import CameraFields
from depth_node.recording import Recording
from depth_node.recording import Topic

_SAME_P = 1e-3
_TF_AND_P = 0.1


@dataclass(frozen=True, eq=False)
class StereoSearch:
    """What became of the other cameras of a recording."""

    sensor: StereoSensor | None
    """Of the pair; None where there is none."""
    refused: tuple[tuple[Topic, str], ...]
    """Images of other cameras, and why each is no partner, in words."""
    unclear: str
    """Sentence where several would do; else empty."""

    def remarks(self) -> tuple[str, ...]:
        """Return a sentence for everything that is not used."""
        said = [f'{topic.name} gives no stereo depth: {why}.' for topic, why in self.refused]
        return (*said, *filter(None, [self.unclear]))


def stereo_of(
    recording: Recording,
    topics: RecordingTopics,
    tree: TransformTree,
    camera_frame: str,
    fields: CameraFields | None,
    hidden: Collection[str] = (),
) -> StereoSearch:
    """Find the stereo partner of a camera.

    :param tree: transforms of the recording.
    :param camera_frame: frame_id of the images.
    :param fields: of the camera; None where it is not known, then there is no stereo.
    :param hidden: topics that are not to be used.
    """
    bare = {name.lstrip('/') for name in hidden}
    others = [t for t in topics.partners if not bare & {t.name.lstrip('/'), t.base}]
    if fields is None:
        return StereoSearch(None, (), '')
    refused: list[tuple[Topic, str]] = []
    usable: list[tuple[Topic, CameraFields, Floats]] = []
    for topic in others:
        found = _placed(recording, topics, tree, camera_frame, fields, topic)
        if isinstance(found, str):
            refused.append((topic, found))
        else:
            usable.append((topic, *found))
    if len(usable) > 1:
        listed = ', '.join(topic.name for topic, *_ in usable)
        said = f'{len(usable)} cameras could be the stereo partner ({listed})'
        why = f'{said}; none is used until one is named'
        refused += [(topic, 'several could be the stereo partner') for topic, *_ in usable]
        return StereoSearch(None, tuple(refused), f'{why}.')
    for topic, theirs, pose in usable:
        sensor = StereoSensor(topics.image, topic, fields, theirs, pose)
        try:
            why = tried(recording, sensor)
        except CameraRejected as error:
            why = str(error).rstrip('.')
        if not why:
            return StereoSearch(sensor, tuple(refused), '')
        refused.append((topic, why))
    return StereoSearch(None, tuple(refused), '')


def _placed(
    recording: Recording,
    topics: RecordingTopics,
    tree: TransformTree,
    camera_frame: str,
    fields: CameraFields,
    topic: Topic,
) -> tuple[CameraFields, Floats] | str:
    """Return camera_info and pose of another camera, or why it is no partner, in words."""
    theirs = _camera_info_of(recording, topic)
    if theirs is None:
        return 'it has no camera_info of its own'
    image = recording.first(topic)
    frame = str(getattr(image, 'frame_id', '')) or theirs.frame_id
    by_tf = _pose_by_tf(tree, camera_frame.lstrip('/'), frame.lstrip('/'))
    rectified = is_named_rectified(topics.image.name), is_named_rectified(topic.name)
    by_p = _pose_by_p(fields, theirs, rectified)
    if isinstance(by_p, str):
        if frame.lstrip('/') == camera_frame.lstrip('/'):
            return by_p
        if by_tf is None:
            return (
                f'{by_p}, and no static transforms lead from {camera_frame} to its frame {frame}'
            )
        return refusal_of_pose(by_tf) or (theirs, by_tf)
    if by_tf is not None and frame.lstrip('/') != camera_frame.lstrip('/'):
        apart_m = float(np.linalg.norm(by_tf[:3, 3] - by_p[:3, 3]))
        baseline_m = float(np.linalg.norm(by_p[:3, 3]))
        if apart_m > _TF_AND_P * baseline_m:
            return (
                f'P says that it is {by_p[0, 3]:+.3g} m to the right, transforms say '
                f'{by_tf[0, 3]:+.3g} m'
            )
    return refusal_of_pose(by_p) or (theirs, by_p)


def _pose_by_p(
    ours: CameraFields, theirs: CameraFields, rectified: tuple[bool, bool]
) -> Floats | str:
    """Return T_camera_partner by the convention of rectified pairs, or what speaks against it."""
    if len(ours.p) != 12 or len(theirs.p) != 12 or (ours.p[3] == 0.0 and theirs.p[3] == 0.0):
        return 'no P[3] tells a baseline'
    if (ours.width, ours.height) != (theirs.width, theirs.height):
        return (
            f'different sizes, {ours.width} x {ours.height} and {theirs.width} x {theirs.height}'
        )
    shared = [0, 2, 5, 6]
    if not np.allclose([ours.p[k] for k in shared], [theirs.p[k] for k in shared], rtol=_SAME_P):
        return 'P differs by more than the baseline'
    if not ours.p[0] > 0.0:
        return 'P has no focal length'
    pose = np.eye(4)
    pose[0, 3] = (ours.p[3] - theirs.p[3]) / ours.p[0]
    turned = [
        np.eye(3) if done else rotation_of(fields)
        for done, fields in zip(rectified, (ours, theirs), strict=True)
    ]
    pose[:3, 3] = turned[0].T @ pose[:3, 3]
    pose[:3, :3] = turned[0].T @ turned[1]
    return pose


def _pose_by_tf(tree: TransformTree, camera_frame: str, frame: str) -> Floats | None:
    """Return T_camera_partner over static transforms, both frames optical ones."""
    base = camera_frame
    for hop in tree.up(camera_frame):
        if not hop.is_static:
            break
        base = hop.parent
    ours, theirs = tree.static_pose(base, camera_frame), tree.static_pose(base, frame)
    if ours is None or theirs is None:
        return None
    ours, theirs = (
        as_optical(pose, name, tree.upward(name))[0]
        for pose, name in ((ours, camera_frame), (theirs, frame))
    )
    return np.asarray(np.linalg.inv(ours) @ theirs)


def _camera_info_of(recording: Recording, image: Topic) -> CameraFields | None:
    """Return the first camera_info in the namespace of an image."""
    infos = recording.of_type('sensor_msgs/msg/CameraInfo')
    near = [topic for topic in infos if topic.namespace == image.namespace]
    content = recording.first(near[0]) if len(near) == 1 else None
    return replace(content, stamp_ns=0) if isinstance(content, CameraFields) else None
