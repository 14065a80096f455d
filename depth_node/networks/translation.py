"""Released entries of several files -> entries of one network: what translations share."""

from __future__ import annotations

import re
from collections.abc import Mapping

from depth_node.networks.specification import StateDicts


def prefixed(
    files: StateDicts, attributes: Mapping[str, str], unused: re.Pattern[str] | None = None
) -> dict[str, object]:
    """Put each file's entries under the attribute of the network that holds them.

    :param files: released entries by part.
    :param attributes: part -> attribute of the network, e.g. {'depth': 'decoder'}; an empty
        attribute keeps the names as they are.
    :param unused: entries to leave out because no forward pass reads them; matches whole names as
        released.
    :returns: '<attribute>.<released name>' -> value.
    """
    return {
        f'{attribute}.{key}' if attribute else key: value
        for part, attribute in attributes.items()
        for key, value in files.get(part, {}).items()
        if unused is None or unused.fullmatch(key) is None
    }
