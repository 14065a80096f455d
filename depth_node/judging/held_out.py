"""The part of a recording that fine-tuning does not see: the last of several equal times."""

from __future__ import annotations

from pathlib import Path

from depth_node.errors import RecordingError
from depth_node.errors import SettingsError
from depth_node.frames import CompressedImage
from depth_node.frames import RawImage
from depth_node.recording import open_recording

BLOCKS = 5


def held_out_span(
    first_ns: int, last_ns: int, blocks: int = BLOCKS, block: int = -1
) -> tuple[int, int]:
    """Return the first stamp of the part that is held out and the first one after it.

    The same cut as ``dataset.pairs.split_by_time`` makes.

    :param first_ns: stamp of the first image, nanoseconds.
    :param last_ns: stamp of the last image, nanoseconds.
    :raises SettingsError: for fewer than two blocks or no such block.
    """
    if blocks < 2 or not -blocks <= block < blocks:
        raise SettingsError('held-out time', f'block {block} of {blocks}', 'one of 2 or more')
    length, place = last_ns - first_ns + 1, block % blocks
    return (
        first_ns + length * place // blocks,
        first_ns + length * (place + 1) // blocks,
    )


def image_stamps_ns(path: Path, image: str | None = None) -> tuple[int, int]:
    """Return the first and the last stamp of the images of a recording; nothing is decoded.

    An image without a stamp does not count.

    :param image: topic, where there are several.
    :raises RecordingError: when it cannot be read or has no images with a stamp.
    """
    with open_recording(path) as recording:
        topic = recording.camera_topics(image, depth='').image
        low: int | None = None
        high: int | None = None
        for record in recording.records([topic]):
            if isinstance(record.content, (RawImage, CompressedImage)):
                stamp_ns = record.content.stamp_ns
                if stamp_ns <= 0:  # never set: time would begin in 1970
                    continue
                low = stamp_ns if low is None else min(low, stamp_ns)
                high = stamp_ns if high is None else max(high, stamp_ns)
    if low is None or high is None:
        raise RecordingError(f'recording {path}', 'no images with a stamp', 'a topic of images')
    return low, high
