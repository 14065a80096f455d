"""What the node says of frames that it does not publish: counted always, logged sparingly.

Also passes on what the rooms without ROS log.
"""

from __future__ import annotations

import logging
from typing import Any

from depth_node.errors import Rejected
from depth_node.health import Health
from depth_node.health import Throttle


class Remarks:
    """Counts drops and logs one line per cause in five seconds; usable from any thread.

    :param camera: name that every line begins with; empty where there is one camera.
    """

    def __init__(self, logger: Any, health: Health, camera: str = '') -> None:
        self._logger = logger
        self._about = f'camera {camera}: ' if camera else ''
        self.health = health
        self._throttle = Throttle()

    def dropped(self, error: Rejected) -> None:
        """Count an image under the reason of ``error`` and say so."""
        self.health.dropped(error.reason)
        self.warn(error.reason, str(error))

    def camera_rejected(self, error: Rejected) -> None:
        """Count a refused camera_info and say so."""
        self.health.camera_rejected(error.reason)
        self.warn(error.reason, str(error))

    def remind(self, cause: str, text: str) -> None:
        """Log a warning about a condition that lasts, every five seconds."""
        if self._throttle.due(cause):
            self._logger.warning(f'{self._about}{text}')

    def warn(self, cause: str, text: str) -> None:
        """Log a warning, unless ``cause`` was told in the last five seconds.

        :param cause: short fixed name, never text from outside.
        :param text: a sentence in which foreign text is quoted.
        """
        count = self._throttle.due(cause)
        if count:
            times = f' ({count} times since the last such line)' if count > 1 else ''
            self._logger.warning(f'{self._about}{text}{times}')


def pass_on_log(logger: Any) -> None:
    """Let a ROS logger say what this package logs in Python, from INFO on."""
    own = logging.getLogger('depth_node')
    own.handlers[:] = [_ToRos(logger)]
    own.setLevel(logging.INFO)
    own.propagate = False


class _ToRos(logging.Handler):
    """A handler of Python's logging that speaks through ROS."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Say one record; ROS wants each severity at a line of its own."""
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)
