"""Parameters that are numbers in a text, because no ROS parameter is a list that may be empty."""

from __future__ import annotations

import math

from depth_node.errors import SettingsError
from depth_node.errors import quoted

_MOST_CUT = 0.95


def intrinsics_px(text: str) -> tuple[float, float, float, float] | None:
    """Read the parameter camera.intrinsics.

    :returns: fx, fy, cx and cy in pixels; None for an empty text.
    :raises SettingsError: for anything but four numbers that a lens can have.
    """
    if not text:
        return None
    try:
        fx, fy, cx, cy = (float(word) for word in text.split())
    except ValueError:
        fx = fy = cx = cy = math.nan
    plausible = min(fx, fy) > 0.0 and 0.5 <= fx / fy <= 2.0 and min(cx, cy) >= -0.5
    if not plausible or not math.isfinite(fx + fy + cx + cy):
        raise SettingsError(
            'parameter camera.intrinsics',
            quoted(text),
            'four numbers with blanks between: fx and fy above 0 and within a factor of 2 of each '
            'other, cx and cy inside the image, all in pixels; or an empty text',
        )
    return fx, fy, cx, cy


def roi_shares(text: str) -> tuple[float, float, float, float] | None:
    """Read the parameter depth.roi_ratios.

    :returns: what is cut off at the left, the right, the top and the bottom, shares of the image;
        None for an empty text.
    :raises SettingsError: for anything but four shares that leave something.
    """
    if not text:
        return None
    try:
        left, right, top, bottom = (float(word) for word in text.split())
    except ValueError:
        left = right = top = bottom = math.nan
    # min and max pass some NaN over, all does not
    shares = all(share >= 0.0 for share in (left, right, top, bottom))
    if not (shares and left + right <= _MOST_CUT and top + bottom <= _MOST_CUT):
        raise SettingsError(
            'parameter depth.roi_ratios',
            quoted(text),
            'four shares with blanks between, cut off at the left, the right, the top and the '
            f'bottom: each 0 or more, those of opposite sides together {_MOST_CUT:g} at most; or '
            'an empty text',
        )
    return left, right, top, bottom
