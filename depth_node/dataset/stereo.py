"""Depth from two images of one moment: disparities that can be believed, as metres.

Semi-global matching both ways (H. Hirschmueller, 2008, as in OpenCV).  A disparity counts where
both ways agree, where there is texture along the row, away from borders and from steps in depth,
and where it is large enough for its noise.  A pair whose rows do not match, or of which too little
agrees, gives nothing: a wrong rig must not look like a scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.dataset.stereo_rig import StereoRig

Floats = NDArray[np.float64]
Grey = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Disparity = NDArray[np.float32]

LEAST_PX = 4.0
"""Disparities of a fifth of a pixel's noise are off by 5 % there; smaller ones are left out."""
NEAREST_M = 0.3
"""Nearer things are not looked for, metres."""
LEAST_SHARE = 0.65
"""Of the pixels with texture, that have to agree both ways."""
MOST_ROW_PX = 0.5
"""By which corners may be off their row, median, pixels."""
FEWEST_CORNERS = 8

_Value = TypeVar('_Value', bound=np.generic)
_BLOCK_PX = 3
_PARTS_PER_PX = 16.0
_BOTH_WAYS_PX = 0.6
_LEAST_GRADIENT = 3.0
_LOCAL_PX = (25, 25)
_CONTRAST = 45.0
_STEP_PX = 1.0
_STEP_SHARE = 0.12
_WINDOW = np.ones((9, 9), np.uint8)
_MOST_CORNERS = 200


@dataclass(frozen=True, eq=False)
class StereoMatch:
    """What two images say."""

    disparity_px: Disparity
    """(H, W) of the camera's common image; NaN where nothing is believed."""
    points: Floats
    """(N, 3) the same in the camera's optical frame, metres."""
    agreed: float
    """Share of the pixels with texture that agree both ways; NaN without texture."""
    row_px: float
    """Median distance of corners from their row, pixels; NaN for too few corners."""

    @property
    def refusal(self) -> str:
        """Say in words why nothing of it counts, or ''."""
        if not np.isfinite(self.agreed):
            return 'the images have no texture'
        if self.agreed < LEAST_SHARE:
            return (
                f'only {self.agreed:.0%} of what has texture is found in the other image: left '
                'and right may be exchanged, or the pose between the cameras is wrong'
            )
        if not np.isfinite(self.row_px):
            return 'too few corners are seen by both cameras'
        if self.row_px > MOST_ROW_PX:
            return (
                f'corners are {self.row_px:.1f} pixels off the rows on which the calibration '
                'expects them: calibrate the pair again'
            )
        return ''


class StereoMatcher:
    """Finds disparities in the images of one rig.

    :param rig: the two cameras.
    """

    def __init__(self, rig: StereoRig) -> None:
        self.rig = rig
        reach = rig.model.fx * rig.baseline_m / NEAREST_M
        steps = int(np.clip(np.ceil(min(reach, rig.model.width / 3) / 16), 1, 16))
        self._reach = 16 * steps
        self._sgbm = cv2.StereoSGBM.create(
            minDisparity=0,
            numDisparities=self._reach,
            blockSize=_BLOCK_PX,
            P1=8 * _BLOCK_PX**2,
            P2=32 * _BLOCK_PX**2,
            preFilterCap=31,
            uniquenessRatio=10,
            speckleWindowSize=50,
            speckleRange=1,
            mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
        )

    def match(self, rgb: NDArray[np.uint8], partner_rgb: NDArray[np.uint8]) -> StereoMatch:
        """Match two images of the same moment.

        :param rgb: (H, W, 3) of the camera, as it sends them.
        :param partner_rgb: (H, W, 3) of its partner.
        """
        images = self.rig.common(rgb, partner_rgb)
        seen = self.rig.seen
        if not self.rig.camera_is_left:  # in a mirror left is right
            images = _mirrored(images[0]), _mirrored(images[1])
            seen = _mirrored(seen[0]), _mirrored(seen[1])
        disparity, agreed, row_px = self._matched(*images, *seen)
        if not self.rig.camera_is_left:
            disparity = _mirrored(disparity)
        return StereoMatch(disparity, self.rig.points(disparity), agreed, row_px)

    def _matched(
        self, left: Grey, right: Grey, left_seen: Mask, right_seen: Mask
    ) -> tuple[Disparity, float, float]:
        """Return what is believed of the left image, the share that agrees, and the row error."""
        textured = _textured(left)
        left, right = _normalised(left), _normalised(right)
        disparity = self._disparity(left, right)
        backwards = _mirrored(self._disparity(_mirrored(right), _mirrored(left)))
        u = np.arange(left.shape[1], dtype=np.float32)[None, :] - np.nan_to_num(disparity)
        v = np.broadcast_to(np.arange(left.shape[0], dtype=np.float32)[:, None], u.shape)
        back = _at(backwards, u, v)
        with np.errstate(invalid='ignore'):
            agree = np.abs(disparity - back) <= _BOTH_WAYS_PX
        inside = _eroded(left_seen) & _at(_eroded(right_seen).astype(np.float32), u, v).astype(
            bool
        )
        # what lies left of this is out of sight of the right camera in most scenes
        inside[:, : left.shape[1] // 6] = False
        looked_at = textured & inside
        agreed = float(agree[looked_at].mean()) if looked_at.sum() >= 50 else float('nan')
        kept = agree & textured & (u >= 3) & _eroded(left_seen) & ~_stepped(disparity)
        corners = _off_row(left, right, disparity, kept & (disparity >= 1.0))
        believed = np.where(kept & (disparity >= LEAST_PX), disparity, np.float32('nan'))
        return believed.astype(np.float32), agreed, corners

    def _disparity(self, left: Grey, right: Grey) -> Disparity:
        """Return (H, W) disparities of the left image; NaN where there are none."""
        # OpenCV gives nothing for the first columns: they are padded
        padded = [
            cv2.copyMakeBorder(image, 0, 0, self._reach, 0, cv2.BORDER_REPLICATE)
            for image in (left, right)
        ]
        fixed = self._sgbm.compute(padded[0], padded[1])[:, self._reach :]
        found = fixed.astype(np.float32) / np.float32(_PARTS_PER_PX)
        return np.asarray(np.where(found >= 0.0, found, np.float32('nan')), np.float32)


def _mirrored(image: NDArray[_Value]) -> NDArray[_Value]:
    return np.ascontiguousarray(image[:, ::-1])


def _at(image: NDArray[np.float32], u: NDArray[np.float32], v: NDArray[np.float32]) -> Disparity:
    """Return the values at the nearest pixels; NaN outside becomes 0 of a mask."""
    border = float('nan') if np.isnan(image).any() else 0.0
    return np.asarray(
        cv2.remap(
            image,
            u.astype(np.float32),
            v.astype(np.float32),
            cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=border,
        ),
        np.float32,
    )


def _eroded(seen: Mask) -> Mask:
    """Take a border away from what is seen."""
    return np.asarray(
        cv2.erode(seen.astype(np.uint8), _WINDOW, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        > 0
    )


def _normalised(image: Grey) -> Grey:
    """Return an image of equal mean and contrast everywhere: cameras expose on their own."""
    values = image.astype(np.float32)
    mean = cv2.blur(values, _LOCAL_PX)
    spread = np.sqrt(np.maximum(cv2.blur(values * values, _LOCAL_PX) - mean * mean, 0.0))
    even = (values - mean) / (spread + _LEAST_GRADIENT) * _CONTRAST + 128.0
    return np.asarray(np.clip(even, 0.0, 255.0), np.uint8)


def _textured(image: Grey) -> Mask:
    """Tell where the image changes along the row by more than its noise, at the very pixel.

    A wider window would take in what lies beside an edge, which has the edge's disparity.
    """
    gradient = cv2.filter2D(image, cv2.CV_32F, np.array([[-0.5, 0.0, 0.5]], np.float32))
    return np.asarray(cv2.blur(gradient * gradient, (3, 3)) >= _LEAST_GRADIENT**2)


def _stepped(disparity: Disparity) -> Mask:
    """Tell where near and far meet within a window: there the near one grows over the far one."""
    known = np.isfinite(disparity)
    high = cv2.dilate(np.where(known, disparity, -1.0).astype(np.float32), _WINDOW)
    low = cv2.erode(np.where(known, disparity, 1e6).astype(np.float32), _WINDOW)
    with np.errstate(invalid='ignore'):
        return np.asarray(high - low > _STEP_PX + _STEP_SHARE * disparity)


def _off_row(left: Grey, right: Grey, disparity: Disparity, where: Mask) -> float:
    """Return how far corners are off their row, median, pixels; NaN for too few of them."""
    corners = cv2.goodFeaturesToTrack(left, _MOST_CORNERS, 0.01, 4, mask=where.astype(np.uint8))
    if corners is None or len(corners) < FEWEST_CORNERS:
        return float('nan')
    places = corners.reshape(-1, 2).astype(np.intp)
    expected = corners.copy()
    expected[:, 0, 0] -= disparity[places[:, 1], places[:, 0]]
    moved, status, _ = cv2.calcOpticalFlowPyrLK(
        left, right, corners, expected.copy(), winSize=(15, 15), maxLevel=0,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    good = status.ravel() > 0
    if good.sum() < FEWEST_CORNERS:
        return float('nan')
    return float(np.median(np.abs(moved - expected)[good, 0, 1]))
