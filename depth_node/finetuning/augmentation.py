"""Flip, crop and enlarge samples with their cameras; change colours alike in all their images."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.camera.fitting import scaled
from depth_node.frames import CameraModel

Floats = NDArray[np.float32]
_COLOR = 0.2
_HUE_RAD = 0.2 * np.pi


@dataclass(frozen=True)
class AugmentationSettings:
    """How much samples are varied."""

    flip: float = 0.5
    """Probability of a flip left to right; 0 where text or the side of traffic matters."""
    crop: float = 0.5
    """Probability of a crop that is enlarged to the full size."""
    smallest_crop: float = 0.75
    """Smallest side of a crop, as a share of the image's."""
    color: float = 0.5
    """Probability of other colours: brightness, contrast and saturation by up to 20 percent, hue
    by up to 0.1 of the circle.  Only the networks see them; the loss sees the images."""


@dataclass(frozen=True)
class View:
    """The part of a frame that a sample shows: crop, enlarged to the frame's size, then flip.

    Pixel centres are integers.  A column u of the frame becomes (u + 0.5 - left) zoom - 0.5, and
    then W - 1 - u where it is flipped.
    """

    left: float = 0.0
    """Left edge of the crop, frame pixels."""
    top: float = 0.0
    """Top edge of the crop, frame pixels."""
    zoom: float = 1.0
    """Pixels of the sample per frame pixel, at least 1."""
    flipped: bool = False
    """Mirrored left to right."""

    def camera(self, model: CameraModel) -> CameraModel:
        """Return the intrinsics of the sample; poses become S T S when it is flipped."""
        moved = CameraModel(
            model.width,
            model.height,
            model.fx,
            model.fy,
            model.cx - self.left,
            model.cy - self.top,
        )
        seen = scaled(moved, self.zoom, self.zoom, model.width, model.height)
        if not self.flipped:
            return seen
        mirrored_cx = model.width - 1 - seen.cx
        return CameraModel(seen.width, seen.height, seen.fx, seen.fy, mirrored_cx, seen.cy)

    def image(self, image: NDArray[np.generic], nearest: bool = False) -> NDArray[np.generic]:
        """Return an image, (H, W) or (H, W, C), as the sample shows it, bilinear or nearest."""
        if self.zoom != 1.0 or self.left or self.top:
            step = 1 / self.zoom
            back = np.array(
                [
                    [step, 0.0, self.left + 0.5 * step - 0.5],
                    [0.0, step, self.top + 0.5 * step - 0.5],
                ]
            )
            method = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
            image = cv2.warpAffine(
                image,
                back,
                (image.shape[1], image.shape[0]),
                flags=method | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
        return np.ascontiguousarray(image[:, ::-1]) if self.flipped else image

    def pixels(self, u: Floats, v: Floats, width: int) -> tuple[Floats, Floats]:
        """Return where pixels of the frame lie in the sample; they may lie outside."""
        across = (u + 0.5 - self.left) * self.zoom - 0.5
        down = (v + 0.5 - self.top) * self.zoom - 0.5
        across = width - 1 - across if self.flipped else across
        return across.astype(np.float32), down.astype(np.float32)


def drawn_view(
    rng: np.random.Generator, height: int, width: int, settings: AugmentationSettings
) -> View:
    """Draw the view of a sample; the aspect stays."""
    flipped = bool(rng.random() < settings.flip)
    cropped = rng.random() < settings.crop
    share = float(rng.uniform(settings.smallest_crop, 1.0)) if cropped else 1.0
    left, top = rng.random(2) * (1.0 - share) * (width, height)
    return View(float(left), float(top), 1.0 / share, flipped)


@dataclass(frozen=True)
class Colors:
    """A change of colours: (3, 3) matrix and (3,) offset on RGB in [0, 255]."""

    matrix: Floats
    offset: Floats

    def image(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (H, W, 3) RGB in other colours."""
        change = np.concatenate((self.matrix, self.offset[:, None]), axis=1)
        return np.asarray(cv2.transform(rgb, change), np.uint8)


def drawn_colors(rng: np.random.Generator, settings: AugmentationSettings) -> Colors | None:
    """Draw a change of colours, or None for those of the image."""
    wanted = rng.random() < settings.color
    brightness, contrast, saturation = 1 + _COLOR * rng.uniform(-1, 1, 3)
    angle = _HUE_RAD * rng.uniform(-1, 1)
    if not wanted:
        return None
    grey = np.full((3, 3), 1 / 3)
    axis = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / np.sqrt(3.0)
    turn = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) * grey + np.sin(angle) * axis
    matrix = brightness * contrast * ((saturation * np.eye(3) + (1 - saturation) * grey) @ turn)
    offset = np.full(3, 127.5 * brightness * (1 - contrast))
    return Colors(matrix.astype(np.float32), offset.astype(np.float32))
