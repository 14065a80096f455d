"""The Fast DDS profile with a large shared-memory segment, given to this process and its children.

Stock settings lose most best-effort images of 640x480 and slow reliable ones down, because a
message is larger than the segment.  The segment belongs to the process that sends, so each sender
of images or clouds has to be given the profile before it joins DDS.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import MutableMapping
from pathlib import Path

from depth_node.share import shared_file

PROFILE_NAME = 'fastdds_large_messages.xml'
# Fast DDS 2 (Humble, Jazzy) reads the first, Fast DDS 3 (Kilted and later) the second.
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
_SET_BY_USER = (*PROFILE_VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS')
_FILES_OF_USER = ('DEFAULT_FASTRTPS_PROFILES.xml', 'DEFAULT_FASTDDS_PROFILES.xml')


def profile_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to add so that Fast DDS reads the packaged profile.

    :param environment: the environment that is to be extended.
    :returns: nothing where the user has chosen transports already or the profile is missing.
    """
    if any(environment.get(name) for name in _SET_BY_USER):
        return {}
    if any(Path(name).is_file() for name in _FILES_OF_USER):
        return {}
    try:
        profile = shared_file('config', PROFILE_NAME)
    except FileNotFoundError:
        return {}
    return {name: str(profile) for name in PROFILE_VARIABLES}


def use_profile(environment: MutableMapping[str, str]) -> None:
    """Extend ``environment`` (os.environ); to be called before the first rclpy.init."""
    environment.update(profile_variables(environment))
