"""The command of the node; what it runs is in lifecycle_node.py.

``python -m depth_node.ros.node --ros-args -r image:=/camera/image_raw``

The node itself is imported late, because its imports take half a second in which no handler of ROS
is in place yet, and a signal then should end the process as it does later: with 0 and in silence.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from depth_node.ros.memory import keep_large_buffers


def main(arguments: list[str] | None = None) -> int:
    """Run the node until a signal or a failure ends it; takes over the signals of the process.

    :param arguments: command line with ROS arguments; None takes sys.argv.
    :returns: exit code, see docs/node.md.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    # before any other thread exists: each would get a heap of its own
    keep_large_buffers(os.environ)
    from depth_node.ros import lifecycle_node

    return lifecycle_node.main(arguments)


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process at once: nothing has been opened yet that would want to be closed.

    An exception could be caught by, or turned into another one in, whatever is being imported.
    """
    os._exit(0)


if __name__ == '__main__':
    sys.exit(main())
