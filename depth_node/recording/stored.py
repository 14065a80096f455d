"""What the readers of damaged files hand over: stored messages, and what was wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from depth_node.errors import quoted


class StoredMessage(NamedTuple):
    """One message as it lies in a file."""

    topic: str
    """Name as recorded."""
    kind: str
    """Message type, e.g. 'sensor_msgs/msg/Image'."""
    time_ns: int
    """When it was recorded, nanoseconds."""
    data: bytes
    """Serialized, perhaps compressed."""


@dataclass
class Damage:
    """What a reader could not read of a file."""

    where: str = ''
    """Where reading ended too early, in words; '' where it did not."""
    chunks: int = 0
    """Chunks left out because their checksum or compression was wrong."""
    holes: int = 0
    """Places where messages were left out and reading went on."""

    def stopped(self, where: str) -> None:
        """Note where reading ended; the first word counts."""
        self.where = self.where or where

    def __str__(self) -> str:
        """Return the faults in words; '' where there is none."""
        parts = [f'reading ended ({quoted(self.where)})'] if self.where else []
        if self.chunks:
            parts.append(f'{self.chunks} damaged chunks were left out')
        if self.holes:
            parts.append(f'{self.holes} places could not be read')
        return ', '.join(parts)
