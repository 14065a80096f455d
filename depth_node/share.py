"""Where the files lie that are installed beside the code: launch, config, models."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = 'depth_node'


def share_folders() -> Iterator[Path]:
    """Yield folders in which shared files may lie, the likeliest first; not all of them exist.

    The source checkout, then ``share/depth_node`` under the prefix of the installed package (ament
    workspace or virtual environment), of the Python environment, and of every ament prefix.
    """
    here = Path(__file__)
    for file in (here, here.resolve()):
        checkout = file.parents[1]
        if (checkout / 'package.xml').is_file():
            yield checkout
        for prefix in file.parents:
            yield prefix / 'share' / _PACKAGE
    ament = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    for prefix_name in (sys.prefix, *ament):
        if prefix_name:
            yield Path(prefix_name) / 'share' / _PACKAGE


def shared_file(*parts: str) -> Path:
    """Return a file that is installed to ``share/depth_node``.

    :param parts: folders and name below ``share/depth_node``, e.g. 'config', 'depth_node.yaml'.
    :raises FileNotFoundError: when there is no such file; the text lists the places.
    """
    tried = []
    for folder in share_folders():
        path = folder.joinpath(*parts)
        if path.is_file():
            return path
        tried.append(str(folder))
    raise FileNotFoundError(f'no file {"/".join(parts)} in any of: {", ".join(tried)}')
