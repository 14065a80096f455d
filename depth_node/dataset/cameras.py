"""Which image topics of a recording are cameras of their own: those that can be learned from.

What a camera needs is a camera_info of its own, in the namespace of its images, and a place of its
own, its frame.  Infrared and previews of a camera, its raw and its rectified images, are the same
camera again: one of them is used, and the others are named with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.recording import Recording
from depth_node.recording import Topic
from depth_node.recording.reader import CAMERA_INFO
from depth_node.recording.reader import COMPRESSED_IMAGE
from depth_node.recording.reader import RAW_IMAGE

_BYPRODUCTS = frozenset(
    {
        'ir', 'infra', 'infra1', 'infra2', 'infrared', 'amplitude', 'confidence', 'disparity',
        'thumb', 'thumbnail', 'thumbnails', 'preview', 'mask', 'masks', 'label', 'labels',
        'segmentation', 'semantic', 'debug', 'annotated', 'overlay',
    }
)  # fmt: skip
"""Words in the names of topics that show what a camera sees, but not as a camera sees it."""
_PREFERRED = ('image_raw', 'image', 'image_color', 'image_rect_color', 'image_rect', 'image_mono')


@dataclass(frozen=True)
class FoundCameras:
    """The cameras of a recording."""

    images: tuple[Topic, ...]
    """One topic of images each; empty where the names and types of topics do not tell."""
    remarks: tuple[str, ...]
    """Sentences about topics that are left out, or of which something is to be known."""


@dataclass(frozen=True)
class _Candidate:
    """A topic of images and what its first messages say."""

    topic: Topic
    frame_id: str
    pixels: int
    is_grey: bool
    info: Topic | None
    fields: CameraFields | None

    @property
    def order(self) -> tuple[int, int, str]:
        """Return what of the same camera is taken first: large images, as the camera sent them."""
        last = self.topic.base.rpartition('/')[2]
        known = _PREFERRED.index(last) if last in _PREFERRED else len(_PREFERRED)
        return (-self.pixels, known, self.topic.name)


def cameras_of(recording: Recording, named: Sequence[str] = ()) -> FoundCameras:
    """Find the cameras of a recording that has images of several names.

    :param named: image topics, with or without leading slash and transport: only these are looked
        at, and a topic that is named is not doubted by its name or frame.
    :returns: no images where at most one is there, and where none has a camera_info of its own.
    """
    topics = _pictures(recording)
    remarks: list[str] = []
    if named:
        topics, remarks = _restricted(topics, named)
    if len(topics) < 2:
        return FoundCameras(topics if named else (), tuple(remarks))
    found = [_candidate(recording, topic) for topic in topics]
    if not any(item.info for item in found):
        return FoundCameras(topics if named else (), tuple(remarks))
    left = []
    for item in found:
        if item.info is None:
            remarks.append(f'{item.topic.name} is left out: it has no camera_info of its own.')
        else:
            left.append(item)
    if not named:
        left = _apart(_without_byproducts(left, remarks), remarks)
    remarks += _grey_ones(left)
    left.sort(key=lambda item: item.topic.name)
    return FoundCameras(tuple(item.topic for item in left), tuple(remarks))


def byproduct_word(topic: Topic) -> str:
    """Return the word in the name of a topic that says it is no camera of its own; '' for none."""
    base = topic.base.lower()
    words = set(re.split(r'[/_]', base)) & _BYPRODUCTS
    words |= set(base.split('/')) & {'depth'}  # its picture in colours, or its infrared
    return min(words, default='')


def _pictures(recording: Recording) -> tuple[Topic, ...]:
    """Return the topics of images, one transport of each: raw before compressed."""
    depths = recording.depth_topics()
    by_base: dict[str, Topic] = {}
    for topic in recording.of_type(RAW_IMAGE, COMPRESSED_IMAGE):
        known = by_base.get(topic.base)
        if topic not in depths and (known is None or len(topic.name) < len(known.name)):
            by_base[topic.base] = topic
    return tuple(by_base.values())


def _restricted(
    topics: tuple[Topic, ...], named: Sequence[str]
) -> tuple[tuple[Topic, ...], list[str]]:
    """Return the topics that are named; those that are missing are said, unless all are."""
    found: dict[str, Topic] = {}
    missing = []
    for name in named:
        base = Topic(name, '', 0).base
        matches = [topic for topic in topics if topic.base == base]
        found |= {topic.base: topic for topic in matches}
        if not matches:
            missing.append(f'The recording has no images of {name}.')
    return tuple(found.values()), missing if found else []


def _candidate(recording: Recording, topic: Topic) -> _Candidate:
    first = recording.first(topic)
    infos = [item for item in recording.of_type(CAMERA_INFO) if item.namespace == topic.namespace]
    fields = recording.first(infos[0]) if infos else None
    fields = fields if isinstance(fields, CameraFields) else None
    pixels = fields.width * fields.height if fields else 0
    if isinstance(first, RawImage):
        pixels = first.width * first.height
    frame_id = first.frame_id if isinstance(first, RawImage | CompressedImage) else ''
    return _Candidate(
        topic, frame_id, pixels, _is_grey(first), infos[0] if infos else None, fields
    )


def _is_grey(first: object) -> bool:
    if isinstance(first, RawImage):
        return first.encoding.startswith(('mono', '8UC1', '16UC1'))
    return isinstance(first, CompressedImage) and first.format.startswith(('mono', '8UC1'))


def _without_byproducts(found: list[_Candidate], remarks: list[str]) -> list[_Candidate]:
    """Leave out infrared, previews and the like where there are other images."""
    plain = [item for item in found if not byproduct_word(item.topic)]
    if not plain:
        return found
    for item in found:
        if item not in plain:
            word = byproduct_word(item.topic)
            remarks.append(
                f'{item.topic.name} is left out: "{word}" in its name says that it is not what '
                'a camera of its own sees. Name it to use it.'
            )
    return plain


def _apart(found: list[_Candidate], remarks: list[str]) -> list[_Candidate]:
    """Leave out what shows the same camera again, and what carries the frame of another one."""
    kept: list[_Candidate] = []
    for item in sorted(found, key=lambda one: one.order):
        same = next((one for one in kept if one.info == item.info), None)
        if same is not None:
            remarks.append(
                f'{item.topic.name} is left out: it is the camera of {same.topic.name} again.'
            )
            continue
        shared = next(
            (one for one in kept if item.frame_id and one.frame_id == item.frame_id), None
        )
        if shared is not None:
            remarks.append(
                f'{item.topic.name} is left out: its images carry the frame {item.frame_id} of '
                f'{shared.topic.name}, so that its own place is not known.'
                if _is_elsewhere(item, shared)
                else f'{item.topic.name} is left out: by its frame, {item.frame_id}, it is the '
                f'camera of {shared.topic.name} again.'
            )
            continue
        kept.append(item)
    return kept


def _is_elsewhere(one: _Candidate, other: _Candidate) -> bool:
    """Tell whether camera_info says that two cameras of one frame are apart: a stereo pair."""
    shifts = [
        (item.fields.p[3], item.fields.p[7])
        for item in (one, other)
        if item.fields is not None and len(item.fields.p) == 12
    ]
    return len(set(shifts)) > 1


def _grey_ones(kept: list[_Candidate]) -> list[str]:
    """Say which cameras are grey beside others in colour."""
    colored = [item for item in kept if not item.is_grey]
    if not colored:
        return []
    return [
        f'{item.topic.name} is grey, unlike {colored[0].topic.name}; it is learned from too, as '
        'the node would have to serve it. Name the image topics to leave it out.'
        for item in kept
        if item.is_grey
    ]
