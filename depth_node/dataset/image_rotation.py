"""How fast a camera turns, from its images alone: tracked corners and a least-squares rotation.

Between two close images the image of a far point moves by B(x, y) w, with w the rotation and
B = [[x y, -(1 + x^2), y], [1 + y^2, -x y, -x]] for slopes x, y (H. C. Longuet-Higgins and
K. Prazdny, The interpretation of a moving retinal image, 1980).  Translation moves each point
along a known line where its direction is known; across that line, only rotation does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera.lens import Lens
from depth_node.dataset.poses import Floats
from depth_node.frames import CameraModel

TRACKING_WIDTH_PX = 320
"""Images are shrunk to this width before corners are tracked, pixels."""

_CORNERS = 200
_QUALITY = 0.01
_SPACING_PX = 6
_WINDOW_PX = (15, 15)
_LEVELS = 3
_BACK_AND_FORTH_PX = 0.5
_LEAST_TRACKS = 12
_ROUNDS = 4
_NOISE = 0.001  # slope; a ninth of a pixel at a focal length of 110 pixels
_USUAL_DEPTH_M = 3.0


@dataclass(frozen=True, eq=False)
class Tracks:
    """Corners that were followed from one image to the next."""

    corners: int
    """How many were found in the first image."""
    before_px: Floats
    """(N, 2) places in the first image, pixels of the full-size image."""
    after_px: Floats
    """(N, 2) places in the second."""

    @property
    def share(self) -> float:
        """Share of the corners that could be followed there and back; 0 where there is none."""
        return len(self.before_px) / self.corners if self.corners else 0.0

    @property
    def median_px(self) -> float:
        """Median length of the motion, pixels; NaN where nothing was followed."""
        if not len(self.before_px):
            return float('nan')
        return float(np.median(np.linalg.norm(self.after_px - self.before_px, axis=1)))


def shrunk_grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey image (h, w) that corners are tracked in."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    scale = TRACKING_WIDTH_PX / grey.shape[1]
    if scale < 1.0:
        size = TRACKING_WIDTH_PX, max(1, round(grey.shape[0] * scale))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey)


def tracked(before: NDArray[np.uint8], after: NDArray[np.uint8], full_width: int) -> Tracks:
    """Follow corners from one grey image to the next, and back to where they came from.

    :param before: (h, w) from :func:`shrunk_grey`; ``after`` likewise, of the same size.
    :param full_width: width of the images before they were shrunk, pixels.
    """
    nothing = np.zeros((0, 2))
    corners = cv2.goodFeaturesToTrack(before, _CORNERS, _QUALITY, _SPACING_PX)
    if corners is None or before.shape != after.shape:
        return Tracks(0, nothing, nothing)
    there, found = _followed(before, after, corners)
    back, again = _followed(after, before, there)
    error = np.linalg.norm((back - corners).reshape(-1, 2), axis=1)
    good = found & again & (error < _BACK_AND_FORTH_PX)
    scale = full_width / before.shape[1]

    def full_size(points: NDArray[np.float32]) -> Floats:
        return np.asarray((points.reshape(-1, 2)[good].astype(np.float64) + 0.5) * scale - 0.5)

    return Tracks(len(corners), full_size(corners), full_size(there))


def _followed(before: Any, after: Any, points: Any) -> tuple[Any, NDArray[np.bool_]]:
    """Return where points went, and which of them were found."""
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, points, None, winSize=_WINDOW_PX, maxLevel=_LEVELS
    )
    return there, np.asarray(found).ravel() == 1


def slopes_of(points_px: Floats, model: CameraModel, lens: Lens | None) -> Floats:
    """Return the ray slopes x/z, y/z (N, 2) of pixels of the image as sent.

    :param model: K at the size of the image.
    :param lens: None where the image is not bent.
    """
    bent = (points_px - (model.cx, model.cy)) / (model.fx, model.fy)
    return bent if lens is None else lens.undistort(bent)


def rotation_between(before: Floats, after: Floats, moved: Floats | None = None) -> Floats | None:
    """Return the rotation of the camera between two images, from slopes of the same points.

    :param before: (N, 2) slopes in the first image, ``after`` in the second.
    :param moved: (3,) how the camera moved, axes of the first image, metres: then it is what is
        square to the motion that this causes that counts, at whatever depth a point is.  None or
        zero: not known or none.
    :returns: (3,) axis times angle of R_before_after, radians, camera axes; None where too few
        points were followed.
    """
    finite = np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1)
    first, second = before[finite], after[finite]
    if len(first) < _LEAST_TRACKS:
        return None
    # B at the middle of the motion makes the linear formula good for some degrees.
    x, y = ((first + second) / 2.0).T
    rows = np.stack(
        [
            np.stack([x * y, -(1.0 + x * x), y], axis=1),
            np.stack([1.0 + y * y, -x * y, -x], axis=1),
        ],
        axis=1,
    )
    flow = second - first
    if moved is not None and np.any(moved):
        axes = _axes(x, y, moved)
        rows, flow = axes @ rows, (axes @ flow[:, :, None])[:, :, 0]
    return _fitted(rows, flow)


def _axes(x: Floats, y: Floats, moved: Floats) -> Floats:
    """Return (N, 2, 2) axes to look along at each point: square to its translation, and along.

    The latter is as much shorter as translation is expected to outweigh noise there.
    """
    along = np.stack([moved[2] * x - moved[0], moved[2] * y - moved[1]], axis=1)
    length = np.linalg.norm(along, axis=1, keepdims=True)
    unit = along / np.maximum(length, 1e-12)
    trusted = 1.0 / (1.0 + (length / (_USUAL_DEPTH_M * _NOISE)) ** 2)
    return np.stack([np.stack([-unit[:, 1], unit[:, 0]], axis=1), unit * trusted], axis=1)


def _fitted(rows: Floats, flow: Floats) -> Floats | None:
    """Return the robust least-squares solution of rows (N, k, 3) times turn = flow (N, k)."""
    weights = np.ones(len(flow))
    turn: NDArray[Any] = np.zeros(3)
    plain = rows.reshape(-1, 3)
    for _ in range(_ROUNDS):
        weighted = (rows * weights[:, None, None]).reshape(-1, 3)
        normal, right = weighted.T @ plain, weighted.T @ flow.reshape(-1)
        try:
            turn = np.linalg.solve(normal, right)
        except np.linalg.LinAlgError:
            return None
        rest = np.linalg.norm(flow - rows @ turn, axis=1)
        spread = 1.5 * float(np.median(rest)) + 1e-9
        weights = 1.0 / (1.0 + (rest / spread) ** 2)
    return np.asarray(turn)
