"""Takes: one camera of one recording each, the unit that is audited, cached, learned and judged.

Two cameras of one recording are two takes, as are two recordings with one camera.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

from depth_node.dataset.cameras import cameras_of
from depth_node.dataset.topics import TopicChoice
from depth_node.dataset.topics import topics_of
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.recording import Recording
from depth_node.recording import Topic
from depth_node.recording import open_recording


@dataclass(frozen=True)
class Take:
    """One camera of one recording."""

    path: Path
    """The recording."""
    name: str
    """Short and distinct: of the recording and, where it has several takes, of the images."""
    choice: TopicChoice
    """Topics; images are named where the recording has several cameras."""
    reference: str | None = None
    """Topic of the recorded depth of these very images; '' for none, None where that is still to
    be found out, as the recording has one camera."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), 'path': str(self.path)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Take:
        """Return the take of what :meth:`to_json` made."""
        choice = TopicChoice(**value['choice'])
        return Take(Path(value['path']), value['name'], choice, value['reference'])


@dataclass(frozen=True)
class FoundTakes:
    """The takes of one recording."""

    takes: tuple[Take, ...]
    """At least one."""
    remarks: tuple[str, ...] = ()
    """Sentences about what is left out."""


def takes_of(
    path: Path,
    choice: TopicChoice | None = None,
    images: Sequence[str] = (),
    infos: Sequence[str] = (),
) -> FoundTakes:
    """Find the takes of a recording: one for each camera that can be used.

    :param choice: topics that the user names.
    :param images: image topics, to which the cameras are restricted; none: all.
    :param infos: their camera_info, one for each; none: the neighbours.
    :raises RecordingError: when it cannot be read; topics that do not fit together are found out
        by whoever uses the take.
    """
    choice, name = choice or TopicChoice(), path.resolve().name
    named = tuple(images) or ((choice.image,) if choice.image else ())
    alone = replace(choice, image=named[0]) if named else choice
    if len(infos) == 1:
        alone = replace(alone, camera_info=infos[0])
    if not named and alone.camera_info:
        return FoundTakes((Take(path, name, alone),))
    with open_recording(path, salvage=True) as recording:
        found = cameras_of(recording, named)
        if not found.images:
            return FoundTakes((Take(path, name, alone),), found.remarks)
        told = dict(zip((Topic(item, '', 0).base for item in named), infos, strict=False))
        takes, remarks = [], list(found.remarks)
        for topic in found.images:
            own = replace(
                choice,
                image=topic.name,
                camera_info=told.get(topic.base, choice.camera_info),
            )
            called = name if len(found.images) == 1 else f'{name} {topic.name}'
            takes.append(Take(path, called, own, _reference(recording, own, remarks)))
    return FoundTakes(tuple(takes), tuple(remarks))


def told_apart(found: Iterable[FoundTakes]) -> list[Take]:
    """Return the takes of several recordings with distinct names."""
    takes = [take for item in found for take in item.takes]
    paths_of: dict[str, set[Path]] = {}
    for take in takes:
        paths_of.setdefault(take.path.resolve().name, set()).add(take.path)
    return [
        take
        if len(paths_of[take.path.resolve().name]) == 1
        else replace(take, name=take.name.replace(take.path.resolve().name, str(take.path), 1))
        for take in takes
    ]


def _reference(recording: Recording, choice: TopicChoice, remarks: list[str]) -> str:
    """Return the topic of the depth of a camera's own pixels; '' where there is none."""
    if choice.depth and choice.depth.lstrip('/') not in {
        name for topic in recording.depth_topics() for name in (topic.name.lstrip('/'), topic.base)
    }:
        return choice.depth  # a scan or a cloud; or a mistake, of which others will tell
    topics = topics_of(recording, replace(choice, odometry='', imu='', scan='', cloud=''))
    if topics.depth is None:
        return ''
    frames = {
        content.frame_id
        for topic in (topics.image, topics.depth)
        if isinstance(content := recording.first(topic), RawImage | CompressedImage)
    }
    if len(frames) == 1:
        return topics.depth.name
    remarks.append(
        f'{topics.depth.name} is no reference for {topics.image.name}: it is of another frame, '
        'not of the same pixels.'
    )
    return ''
