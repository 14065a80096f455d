"""Which topics of a recording are the camera, the odometry and the sensors that know metres.

By message type: the only topic of a type is used, a named one is checked, several are listed.
What one cannot do without (images, poses) must be unambiguous; a sensor that merely helps is left
out where several would do, and said.
"""

from __future__ import annotations

from dataclasses import dataclass

from depth_node.dataset.cameras import byproduct_word
from depth_node.errors import RecordingError
from depth_node.errors import quoted
from depth_node.recording import Recording
from depth_node.recording import Topic
from depth_node.recording.reader import COMPRESSED_IMAGE
from depth_node.recording.reader import RAW_IMAGE

ODOMETRY = 'nav_msgs/msg/Odometry'
TRANSFORMS = ('tf2_msgs/msg/TFMessage', 'tf/msg/tfMessage')
IMU = 'sensor_msgs/msg/Imu'
SCAN = 'sensor_msgs/msg/LaserScan'
CLOUD = 'sensor_msgs/msg/PointCloud2'
IMAGES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
TF_PREFIX = 'tf:'


@dataclass(frozen=True)
class TopicChoice:
    """What the user names; None is to be found, '' is not to be used."""

    image: str | None = None
    """Colour or grey images; must be there."""
    camera_info: str | None = None
    """Its camera_info."""
    depth: str | None = None
    """Depth images."""
    odometry: str | None = None
    """An odometry topic, or 'tf:' and the fixed frame, e.g. 'tf:odom'; 'tf:' chooses the frame."""
    imu: str | None = None
    """A sensor_msgs/Imu."""
    scan: str | None = None
    """A sensor_msgs/LaserScan."""
    cloud: str | None = None
    """A sensor_msgs/PointCloud2."""
    stereo: str | None = None
    """Images of the other camera of a stereo pair."""


@dataclass(frozen=True)
class RecordingTopics:
    """The topics of one camera and of what was recorded beside it."""

    image: Topic
    """Colour or grey images, raw or compressed."""
    camera_info: Topic | None
    """None where the recording has none."""
    depth: Topic | None
    """Depth images; None where there are none, or several that would do."""
    odometry: Topic | None
    """None where there is none or TF is to be used."""
    fixed_frame: str
    """Frame that poses from TF are given in; '' for the best one."""
    transforms: tuple[Topic, ...]
    """Dynamic transforms: /tf, and others of the type but for /tf_static."""
    static_transforms: tuple[Topic, ...]
    """/tf_static."""
    imu: Topic | None
    """None where there is none, or several that would do."""
    scan: Topic | None
    """None where there is none, or several that would do."""
    cloud: Topic | None
    """None where there is none, or several that would do."""
    unclear: tuple[str, ...]
    """Sentences about sensors that were left out because several topics would do."""
    partners: tuple[Topic, ...] = ()
    """Images of other cameras, of which one may be a stereo partner."""
    posed: bool = True
    """Whether poses are wanted; without them transforms still say where sensors sit."""


def topics_of(recording: Recording, choice: TopicChoice | None = None) -> RecordingTopics:
    """Choose the topics of one camera and of what was recorded beside it.

    :raises RecordingError: when a named topic is missing, or when images or odometry are
        ambiguous; the text lists what there is.
    """
    choice = choice or TopicChoice()
    camera = recording.camera_topics(choice.image, choice.camera_info, '')
    unclear: list[str] = []
    transforms = recording.of_type(*TRANSFORMS)
    static = tuple(topic for topic in transforms if topic.name.endswith('tf_static'))
    by_tf = (choice.odometry or '').startswith(TF_PREFIX)
    return RecordingTopics(
        image=camera.image,
        camera_info=camera.camera_info,
        depth=_depth(recording, camera.image, choice.depth, unclear),
        odometry=None if by_tf else _odometry(recording, choice.odometry),
        fixed_frame=(choice.odometry or '').removeprefix(TF_PREFIX) if by_tf else '',
        transforms=tuple(topic for topic in transforms if topic not in static),
        static_transforms=static,
        imu=_helper(recording, 'imu', IMU, choice.imu, unclear),
        scan=_helper(recording, 'scan', SCAN, choice.scan, unclear),
        cloud=_helper(recording, 'cloud', CLOUD, choice.cloud, unclear),
        unclear=tuple(unclear),
        partners=_partners(recording, camera.image, choice.stereo),
        posed=choice.odometry != '',
    )


def frame_of(recording: Recording, topic: Topic | None) -> str:
    """Return the frame that the first message of a topic names; '' where there is none."""
    content = None if topic is None else recording.first(topic)
    return str(getattr(content, 'frame_id', ''))


def camera_frame_of(recording: Recording, image: object, camera_info: Topic | None) -> str:
    """Return the frame of images; where they name none, that of their camera_info.

    :param image: one of them.
    """
    return str(getattr(image, 'frame_id', '')) or frame_of(recording, camera_info)


def _depth(
    recording: Recording, image: Topic, wanted: str | None, unclear: list[str]
) -> Topic | None:
    """Choose the depth: the named one, the only one, or the only one of the same camera.

    Depth whose name is closer to that of another camera belongs to that one.
    """
    if wanted == '':
        return None
    topics = recording.depth_topics()
    if wanted:
        return _named(recording, 'depth topic', wanted, topics)
    topics = _nearest(recording, image, topics)
    if len({topic.base for topic in topics}) > 1:
        unclear.append(_said(recording, 'depth', topics))
        return None
    return min(topics, key=lambda topic: len(topic.name), default=None)


def _partners(recording: Recording, image: Topic, wanted: str | None) -> tuple[Topic, ...]:
    """List the images of other cameras, one topic of each: the named one, or all of them."""
    if wanted == '':
        return ()
    depths = recording.depth_topics()
    others = tuple(
        topic
        for topic in recording.of_type(*IMAGES)
        if topic not in depths and topic.base != image.base
    )
    if wanted:
        return (_named(recording, 'stereo topic', wanted, others),)
    name = image.base.rpartition('/')[2]
    cameras: dict[str, Topic] = {}
    for topic in sorted(others, key=lambda t: (t.base.rpartition('/')[2] != name, len(t.name))):
        if topic.namespace != image.namespace:
            cameras.setdefault(topic.namespace, topic)
    return tuple(cameras[namespace] for namespace in sorted(cameras))


def _nearest(recording: Recording, image: Topic, topics: tuple[Topic, ...]) -> tuple[Topic, ...]:
    """Return the topics of depth that share most of their names with the images of a camera."""
    pictures = recording.of_type(RAW_IMAGE, COMPRESSED_IMAGE)
    others = [item for item in pictures if item not in topics and not byproduct_word(item)]
    own = [
        topic
        for topic in topics
        if all(_shared(topic, image) >= _shared(topic, other) for other in others)
    ]
    closest = max((_shared(topic, image) for topic in own), default=0)
    return tuple(topic for topic in own if _shared(topic, image) == closest)


def _shared(one: Topic, other: Topic) -> int:
    """Return how many leading parts of their namespaces two topics have in common."""
    same = 0
    for a, b in zip(one.namespace.split('/'), other.namespace.split('/'), strict=False):
        if a != b:
            break
        same += 1
    return same


def _odometry(recording: Recording, wanted: str | None) -> Topic | None:
    """Choose the odometry; several are refused, because poses decide the result."""
    if wanted == '':
        return None
    topics = recording.of_type(ODOMETRY)
    if wanted:
        return _named(recording, 'odometry topic', wanted, topics)
    if len(topics) > 1:
        raise RecordingError(
            f'recording {recording.path}',
            f'{len(topics)} topics that could be the odometry ({_listed(topics)})',
            'the odometry to be named',
            "Name the one that drifts least without jumps, or 'tf:odom' for TF.",
        )
    return topics[0] if topics else None


def _helper(
    recording: Recording, role: str, kind: str, wanted: str | None, unclear: list[str]
) -> Topic | None:
    """Choose a sensor that merely helps; several are left out and said."""
    if wanted == '':
        return None
    topics = recording.of_type(kind)
    if wanted:
        return _named(recording, f'{role} topic', wanted, topics)
    if len(topics) > 1:
        unclear.append(_said(recording, role, topics))
        return None
    return topics[0] if topics else None


def _named(recording: Recording, role: str, wanted: str, topics: tuple[Topic, ...]) -> Topic:
    """Return the topic of that name, with or without leading slash and transport."""
    bare = wanted.lstrip('/')
    exact = [topic for topic in topics if topic.name.lstrip('/') == bare]
    found = exact or [topic for topic in topics if topic.base == bare]
    if found:
        return found[0]
    listed = ', '.join(
        f'{topic.name} ({topic.kind or "mixed types"}, {topic.count})'
        for topic in recording.topics
    )
    raise RecordingError(
        f'recording {recording.path}',
        f'no {role} {quoted(wanted)}',
        f'one of {_listed(topics)}' if topics else 'a topic of that type',
        f'It holds: {listed}.',
    )


def _said(recording: Recording, role: str, topics: tuple[Topic, ...]) -> str:
    return (
        f'{len(topics)} topics could be the {role} ({_listed(topics)}); none is used until one is '
        'named.'
    )


def _listed(topics: tuple[Topic, ...]) -> str:
    return ', '.join(f'{topic.name} ({topic.count})' for topic in topics)
