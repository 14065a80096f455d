"""Less flicker: part of the last inverse depth is kept where nothing has moved.

With ``c`` the network's inverse depth of this image, ``p`` what was made of the last one, ``I``
and ``J`` their luminance (0 to 255), all of the size of the network, and ``s`` the share to keep::

    changed = the largest |I - J| of the pixel and the eight around it > 12
    r = s * p + (1 - s) * c    where |p - c| <= 0.1 * c and not changed
    r = c                      anywhere else; also where p or c is unknown

So no value ever lies farther than ``0.1 * s`` from that of the image itself, and where surfaces
are farther apart than a tenth, none lies between them: they are never mixed, however they move.
Surfaces nearer to each other than that are told apart by the image.  Noise that is new in each
image shrinks to ``sqrt((1 - s) / (1 + s))`` of it, 0.38 for s = 0.75; what moves within the
limits lags ``s / (1 - s)`` images behind, 3 for s = 0.75.

Nothing is kept after a gap, a jump back of the stamps, or a change of camera or size, and of each
camera its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.frames import CameraModel

LARGEST_STEP = 0.1
"""Share of the inverse depth by which the last value may differ and be kept."""
LARGEST_CHANGE = 12
"""Levels of 255 by which the luminance may differ where the last value is kept."""
LONGEST_GAP_NS = 500_000_000
_CAMERAS = 16
_NEIGHBOURS = np.ones((3, 3), np.uint8)


class Succession:
    """Tells whether an image follows on the last one, for an engine that keeps the past itself."""

    def __init__(self) -> None:
        self._last: OrderedDict[CameraModel, tuple[str, int]] = OrderedDict()

    def follows(self, model: CameraModel, frame_id: str, stamp_ns: int) -> bool:
        """Note an image, and tell whether the last one of this model was shortly before it.

        :param model: of the image; one past is kept for each.
        :param frame_id: two cameras of one model that take turns follow on nothing.
        :param stamp_ns: 0 where the sender has no clock: it follows on nothing.
        """
        before, last_ns = self._last.pop(model, ('', 0))
        self._last[model] = frame_id, stamp_ns
        if len(self._last) > _CAMERAS:
            self._last.popitem(last=False)
        return before == frame_id and _is_timely(last_ns, stamp_ns)


@dataclass
class _Past:
    """What is kept of the last image of a camera."""

    inverse: NDArray[np.float32]
    luminance: NDArray[np.uint8]
    stamp_ns: int


class Smoother:
    """Smooths the inverse depth of several cameras, each by its own past."""

    def __init__(self) -> None:
        self._pasts: OrderedDict[Hashable, _Past] = OrderedDict()

    def smooth(
        self,
        inverse: NDArray[np.float32],
        rgb: NDArray[np.uint8],
        camera: Hashable,
        stamp_ns: int,
        kept: float,
    ) -> None:
        """Take part of the last inverse depth of a camera over into the present one.

        :param inverse: (h, w), positive, any unit that stays the same; NaN unknown.  Changed in
            place.
        :param rgb: (h, w, 3) of which it was made.
        :param camera: what tells one camera from another.
        :param stamp_ns: of the image.
        :param kept: share of the last value, 0 (nothing, and the past is forgotten) to below 1.
        """
        if kept <= 0.0:
            self.forget()
            return
        luminance = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        past = self._pasts.pop(camera, None)
        if past is None or past.inverse.shape != inverse.shape:
            past = _Past(inverse.copy(), luminance, stamp_ns)
        elif _is_timely(past.stamp_ns, stamp_ns):
            _mix(inverse, past.inverse, _still(luminance, past.luminance), np.float32(kept))
        np.copyto(past.inverse, inverse)
        past.luminance, past.stamp_ns = np.asarray(luminance, np.uint8), stamp_ns
        self._pasts[camera] = past
        if len(self._pasts) > _CAMERAS:
            self._pasts.popitem(last=False)

    def forget(self) -> None:
        """Begin anew."""
        self._pasts.clear()


def _is_timely(last_ns: int, stamp_ns: int) -> bool:
    """Tell whether an image comes shortly after the last one; a stamp of 0 is no time."""
    return last_ns != 0 and 0 < stamp_ns - last_ns <= LONGEST_GAP_NS


def _still(luminance: NDArray[np.uint8], before: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell where the image and what is around has not changed, (h, w)."""
    change = cv2.dilate(cv2.absdiff(luminance, before), _NEIGHBOURS)
    return np.asarray(change <= LARGEST_CHANGE)


def _mix(
    inverse: NDArray[np.float32],
    before: NDArray[np.float32],
    still: NDArray[np.bool_],
    kept: np.float32,
) -> None:
    """Move the inverse depth towards what it was, where both agree and nothing has moved."""
    difference = before - inverse
    # comparisons with NaN are false
    still &= np.abs(difference) <= np.float32(LARGEST_STEP) * inverse
    difference *= kept
    np.add(inverse, difference, out=inverse, where=still)
