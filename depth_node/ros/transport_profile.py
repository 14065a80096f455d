"""The Fast DDS profile with a large shared-memory segment, given to this process and its children.

Stock settings lose most best-effort images of 640x480 and slow reliable ones down, because a
message is larger than the segment.  The segment belongs to the process that sends, so each sender
of images or clouds has to be given the profile before it joins DDS.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import MutableMapping
from pathlib import Path

PROFILE_NAME = 'fastdds_large_messages.xml'
# Fast DDS 2 (Humble, Jazzy) reads the first, Fast DDS 3 (Kilted and later) the second.
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
_SET_BY_USER = (*PROFILE_VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS')
_FILES_OF_USER = ('DEFAULT_FASTRTPS_PROFILES.xml', 'DEFAULT_FASTDDS_PROFILES.xml')
_PACKAGE = 'depth_node'


def shared_file(*parts: str) -> Path:
    """Return a file that is installed to ``share/depth_node``.

    It is looked for beside a source checkout, then under the prefix of the installed package
    (ament workspace or virtual environment), then where the ament index says.

    :param parts: folders and name below ``share/depth_node``, e.g. 'config', 'depth_node.yaml'.
    :raises FileNotFoundError: when there is no such file; the text lists the places.
    """
    tried = []
    for folder in _share_folders():
        path = folder.joinpath(*parts)
        if path.is_file():
            return path
        tried.append(str(folder))
    raise FileNotFoundError(f'no file {"/".join(parts)} in any of: {", ".join(tried)}')


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


def _share_folders() -> Iterator[Path]:
    """Yield folders in which the package's shared files may lie, the likeliest first."""
    here = Path(__file__)
    for file in (here, here.resolve()):
        checkout = file.parents[2]
        if (checkout / 'package.xml').is_file() or (checkout / 'pyproject.toml').is_file():
            yield checkout
        for prefix in file.parents:
            yield prefix / 'share' / _PACKAGE
    yield Path(sys.prefix) / 'share' / _PACKAGE
    yield from _ament_share()


def _ament_share() -> Iterator[Path]:
    """Yield what the ament index knows, where there is one."""
    try:
        from ament_index_python.packages import get_package_share_directory
    except ImportError:
        return
    try:
        yield Path(get_package_share_directory(_PACKAGE))
    except (LookupError, OSError):  # OSError: no AMENT_PREFIX_PATH
        return
