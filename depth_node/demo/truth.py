"""Which recorded depth belongs to which published depth, and how far the two are apart."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import numpy as np
from numpy.typing import NDArray

from depth_node.evaluation import AlignedEvaluation
from depth_node.evaluation import AlignedReport
from depth_node.evaluation import Evaluation
from depth_node.evaluation import Report
from depth_node.evaluation import aligned_depth
from depth_node.evaluation import alignment_of
from depth_node.evaluation import nearest
from depth_node.frames import CameraFields
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.image_codec import decode_depth_image
from depth_node.image_codec import decode_raw
from depth_node.recording import CameraTopics
from depth_node.recording import Recording
from depth_node.recording import Topic
from depth_node.recording import open_recording
from depth_node.recording.messages import Content
from depth_node.ros.collector import Published
from depth_node.ros.footage import Shot
from depth_node.ros.footage import as_raw
from depth_node.ros.footage import filmed_shots
from depth_node.ros.footage import recorded_shots

_SAME_MOMENT_NS = 20_000_000
_SAME_CAMERA = 0.01

Depth = NDArray[np.float32]
Quality = Union[Report, AlignedReport]


@dataclass(frozen=True)
class Source:
    """What is played."""

    path: Path
    """Recording, or video file."""
    video: bool = False
    """True for a video file."""
    hfov_deg: float = 65.0
    """Horizontal field of view of a video, degrees."""
    image: str | None = None
    """Image topic of the recording, where it has several."""
    camera_info: str | None = None
    """Its camera_info topic, where it has several."""
    depth: str | None = None
    """Its depth topic, where it has several; '' for none."""


@dataclass(frozen=True)
class Played:
    """One line of the player's log."""

    index: int
    """Number of the picture in its footage."""
    stamp_ns: int
    """Stamp under which it was published."""
    recorded_stamp_ns: int
    """Stamp that it has in the recording."""


@dataclass(frozen=True)
class Exhibit:
    """One picture with what was made of it."""

    rgb: NDArray[np.uint8]
    """(H, W, 3) RGB of the source."""
    depth_m: Depth
    """(h, w) what the node published, metres."""
    truth_m: Depth | None
    """(h, w) what the recording says, metres."""


@dataclass(frozen=True)
class RelativeExhibit:
    """One picture with the relative inverse depth that was made of it."""

    rgb: NDArray[np.uint8]
    """(H, W, 3) RGB of the source."""
    inverse: NDArray[np.float32]
    """(h, w) what the node published; no unit, larger is nearer."""
    aligned_m: Depth | None
    """(h, w) the same with the scale and the shift that fit it best to the truth, metres."""
    truth_m: Depth | None
    """(h, w) what the recording says, metres."""


AnyExhibit = Union[Exhibit, RelativeExhibit]


@dataclass(frozen=True)
class Judgement:
    """What the recording's own depth says about the published one."""

    report: Quality | None
    """None where there is nothing to compare with."""
    note: str
    """Why there is none; empty where there is one."""
    exhibit: AnyExhibit | None
    """The last compared frame, or else the last one; None where no image was kept."""


def read_log(path: Path) -> tuple[Played, ...]:
    """Read the player's log; a last line that was cut short is left out."""
    played = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
            played.append(Played(entry['index'], entry['stamp_ns'], entry['recorded_stamp_ns']))
        except (ValueError, KeyError):
            continue
    return tuple(played)


def picture_count(source: Source, seconds: float = math.inf) -> int | None:
    """Return about how many pictures the first seconds of the source hold; None for a video.

    :param seconds: in the time of the recording.
    :raises RecordingError: when the recording cannot be read or its topics are unclear.
    """
    if source.video:
        return None
    with _opened(source) as (recording, topics):
        duration_s = max((recording.end_ns - recording.start_ns) / 1e9, 1e-3)
        return max(1, round(topics.image.count * min(1.0, seconds / duration_s)))


def judge(
    source: Source,
    played: tuple[Played, ...],
    published: Published,
    camera: CameraFields | None,
) -> Judgement:
    """Compare what was published with the recorded depth.

    :param published: as the node published it; relative inverse depth is compared after an
        alignment of each image to its truth.
    :param camera: depth/camera_info of the node.
    :raises RecordingError: when the recording cannot be read.
    """
    matched = [item for item in played if item.stamp_ns in published.images]
    if not matched:
        return Judgement(None, 'no depth image carries the stamp of a played picture', None)
    if source.video:
        shots = filmed_shots(source.path, math.radians(source.hfov_deg))
        exhibit = _exhibit(_rgb(shots, matched[-1].index), published, matched[-1], None)
        return Judgement(None, 'a video has no recorded depth', exhibit)
    with _opened(source) as (recording, topics):
        note = _why_not(recording, topics, camera)
        truths = {} if note or topics.depth is None else _truths(recording, topics.depth, matched)
        if not note and not truths:
            note = 'no recorded depth has the stamp of a played picture'
        report = _report(matched, published, truths)
        shown = [item for item in matched if item.stamp_ns in truths] or matched
        last = shown[-1]
        rgb = _rgb(recorded_shots(recording, topics), last.index)
        return Judgement(report, note, _exhibit(rgb, published, last, truths.get(last.stamp_ns)))


def _exhibit(
    rgb: NDArray[np.uint8], published: Published, item: Played, truth: Content | None
) -> AnyExhibit:
    """Put a picture, what became of it and the truth side by side."""
    image = published.images[item.stamp_ns]
    truth_m = None if truth is None else nearest(_metres(truth), *image.shape)
    if not published.relative:
        return Exhibit(rgb, image, truth_m)
    alignment = None if truth_m is None else alignment_of(image, truth_m)
    aligned_m = None if alignment is None else aligned_depth(image, alignment)
    return RelativeExhibit(rgb, image, aligned_m, truth_m)


@contextmanager
def _opened(source: Source) -> Iterator[tuple[Recording, CameraTopics]]:
    """Open the recording of a source and choose its topics."""
    with open_recording(source.path) as recording:
        yield recording, recording.camera_topics(source.image, source.camera_info, source.depth)


def _why_not(recording: Recording, topics: CameraTopics, camera: CameraFields | None) -> str:
    """Say why recorded and published depth cannot be compared; empty where they can."""
    if topics.depth is None:
        return 'the recording has no depth'
    recorded = recording.first(topics.camera_info) if topics.camera_info else None
    if not isinstance(recorded, CameraFields) or camera is None:
        return 'without camera_info on both sides nothing tells whether the pixels correspond'
    if any(recorded.d):
        return 'the lens has distortion: recorded depth and rectified depth do not line up'
    if not _same_view(recorded, camera):
        return 'the published depth shows another view than the recorded one'
    first, image = recording.first(topics.depth), recording.first(topics.image)
    if _frame_id(first) != _frame_id(image):
        return f'depth of {_frame_id(first)!r} is not aligned with images of {_frame_id(image)!r}'
    return ''


def _same_view(recorded: CameraFields, camera: CameraFields) -> bool:
    """Tell whether two cameras differ by the size of their images only."""
    if not (recorded.width and recorded.height and camera.width and camera.height):
        return False
    across, down = camera.width / recorded.width, camera.height / recorded.height
    wanted = (
        recorded.k[0] * across,
        recorded.k[4] * down,
        (recorded.k[2] + 0.5) * across - 0.5,
        (recorded.k[5] + 0.5) * down - 0.5,
    )
    given = (camera.k[0], camera.k[4], camera.k[2], camera.k[5])
    limits = [_SAME_CAMERA * size for size in (camera.width, camera.height)] * 2
    return all(abs(a - b) < limit for a, b, limit in zip(wanted, given, limits, strict=True))


def _frame_id(content: Content | None) -> str:
    """Return the frame of an image, or nothing for anything else."""
    return content.frame_id if isinstance(content, (RawImage, CompressedImage)) else ''


def _truths(recording: Recording, topic: Topic, matched: list[Played]) -> dict[int, Content]:
    """Return published stamp to the recorded depth that was made at the same moment."""
    ordered = sorted(matched, key=lambda item: item.recorded_stamp_ns)
    moments = [item.recorded_stamp_ns for item in ordered]
    best: dict[int, tuple[int, Content]] = {}
    for record in recording.records([topic]):
        if not isinstance(record.content, (RawImage, CompressedImage)):
            continue
        moment = record.content.stamp_ns
        place = bisect_left(moments, moment - _SAME_MOMENT_NS)
        while place < len(moments) and moments[place] <= moment + _SAME_MOMENT_NS:
            gap, stamp_ns = abs(moments[place] - moment), ordered[place].stamp_ns
            if stamp_ns not in best or gap < best[stamp_ns][0]:
                best[stamp_ns] = (gap, record.content)
            place += 1
    return {stamp_ns: content for stamp_ns, (_, content) in best.items()}


def _report(
    matched: list[Played], published: Published, truths: Mapping[int, Content]
) -> Quality | None:
    """Measure every frame that has a truth."""
    evaluation = AlignedEvaluation() if published.relative else Evaluation()
    for item in matched:
        if item.stamp_ns in truths:
            image = published.images[item.stamp_ns]
            evaluation.add(image, nearest(_metres(truths[item.stamp_ns]), *image.shape))
    return evaluation.report()


def _metres(content: Content) -> Depth:
    """Decode a recorded depth image."""
    if isinstance(content, (RawImage, CompressedImage)):
        return decode_depth_image(content)
    raise TypeError(f'{type(content).__name__} is no depth image')


def _rgb(shots: Iterator[Shot], index: int) -> NDArray[np.uint8]:
    """Decode the picture of an index."""
    shot = next(shot for shot in shots if shot.index == index)
    return decode_raw(as_raw(shot.picture))
