"""The errors of this package: sentences that say who, what came, what was expected, what to do.

A class tells the kind of thing that was refused, so that callers can count and react; the text is
for the person who reads the log.  Text that came from outside is shown through :func:`quoted`,
never raw, so that a message cannot forge log lines.
"""

from __future__ import annotations

_SHOWN_CHARACTERS = 80


def quoted(value: object) -> str:
    """Show a value from outside: escaped, and cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + '...'


class DepthNodeError(Exception):
    """Base of all errors that this package raises on purpose.

    :param who: what refuses or fails, as a user knows it ('camera_info', a path, a parameter).
    :param received: what was found.
    :param expected: what would have been right.
    :param remedy: what to do about it; empty where the expectation already says it.
    """

    def __init__(self, who: str, received: str, expected: str, remedy: str = '') -> None:
        self.who = who
        self.received = received
        self.expected = expected
        self.remedy = remedy
        sentence = f'{who}: received {received}, expected {expected}.'
        super().__init__(f'{sentence} {remedy}' if remedy else sentence)


class Rejected(DepthNodeError):
    """A message of a stream that is not used; the stream goes on.

    :param reason: short fixed name under which the message is counted, e.g. 'image_data_length'.
    """

    def __init__(
        self, reason: str, who: str, received: str, expected: str, remedy: str = ''
    ) -> None:
        self.reason = reason
        super().__init__(who, received, expected, remedy)


class ImageRejected(Rejected):
    """An image message whose fields contradict each other or that cannot be decoded."""


class CameraRejected(Rejected):
    """A camera_info that describes no usable camera, or not the camera of the image."""


class SettingsError(DepthNodeError):
    """A parameter, or a set of parameters, that is out of range or contradicts itself."""


class ModelError(DepthNodeError):
    """A model folder or checkpoint that is missing, damaged or of another network."""


class EngineError(DepthNodeError):
    """An engine that cannot be loaded, disagrees with the golden outputs, or failed on a frame."""


class RecordingError(DepthNodeError):
    """A recording that cannot be read or does not hold what is needed."""


class MissingPackage(DepthNodeError):
    """An optional Python package that is needed for what was asked.

    :param package: name of the package as it is imported.
    :param purpose: what it is needed for.
    :param install: the command that installs it.
    """

    def __init__(self, package: str, purpose: str, install: str) -> None:
        self.package = package
        super().__init__(
            purpose, f'no Python package {package!r}', 'it to be installed', f'Run: {install}'
        )
