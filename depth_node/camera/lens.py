"""Lens distortion: where a ray lands on the image plane at unit focal length, and back.

Slopes are x/z and y/z of a ray in the optical frame of the raw camera, x right, y down,
z forward.  Only the part of a model in which the image grows outwards with the angle is used:
beyond the radius where the polynomial folds back, no real ray has that image, and NaN is returned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from depth_node.frames import CameraFields

Slopes = NDArray[np.float64]

_NEWTON_STEPS = 20
_CONVERGED = 1e-13  # slopes; far below 1e-6 pixels at any focal length met
_ACCEPTED = 1e-11
_TABLE_LENGTH = 4096
_MAX_ANGLE_RAD = math.radians(89.0)


class Lens(Protocol):
    """A map between ray slopes and distorted slopes, both (..., 2) float64."""

    def distort(self, slopes: Slopes) -> Slopes:
        """Return distorted slopes; NaN where the lens does not image the ray."""

    def undistort(self, distorted: Slopes) -> Slopes:
        """Return ray slopes; NaN where no ray in front of the camera lands there."""


@dataclass(frozen=True)
class RadialTangentialLens:
    """The Brown-Conrady model, with the denominator and thin prism terms of OpenCV.

    With r2 = x^2 + y^2 and q = (1 + k1 r2 + k2 r2^2 + k3 r2^3) / (1 + k4 r2 + k5 r2^2 + k6 r2^3):
    x' = x q + 2 p1 x y + p2 (r2 + 2 x^2) + s1 r2 + s2 r2^2 and
    y' = y q + p1 (r2 + 2 y^2) + 2 p2 x y + s3 r2 + s4 r2^2.
    Source: D. C. Brown, Close-range camera calibration, 1971; OpenCV, camera calibration and 3D
    reconstruction, for the order of the coefficients and the further terms.
    """

    numerator: tuple[float, float, float]
    """k1, k2, k3."""
    denominator: tuple[float, float, float]
    """k4, k5, k6."""
    tangential: tuple[float, float]
    """p1, p2."""
    prism: tuple[float, float, float, float]
    """s1, s2, s3, s4."""

    def distort(self, slopes: Slopes) -> Slopes:
        """Return distorted slopes; NaN where the lens does not image the ray."""
        x, y = slopes[..., 0], slopes[..., 1]
        with np.errstate(invalid='ignore', over='ignore', divide='ignore'):
            moved = np.stack(self._image(x, y), axis=-1)
            moved[~(np.hypot(x, y) <= self._monotone()[0][-1])] = np.nan
        return moved

    def undistort(self, distorted: Slopes) -> Slopes:
        """Return ray slopes; NaN where no ray in front of the camera lands there."""
        radii, images = self._monotone()
        target_x, target_y = distorted[..., 0], distorted[..., 1]
        radius = np.hypot(target_x, target_y)
        stretch = np.interp(radius, images, radii) / np.where(radius > 0.0, radius, 1.0)
        x, y = target_x * stretch, target_y * stretch
        with np.errstate(invalid='ignore', over='ignore', divide='ignore'):
            for _ in range(_NEWTON_STEPS):
                image_x, image_y = self._image(x, y)
                error_x, error_y = image_x - target_x, image_y - target_y
                error = np.maximum(np.abs(error_x), np.abs(error_y))
                if not np.any(error > _CONVERGED):
                    break
                a, b, c, d = self._derivatives(x, y)
                determinant = a * d - b * c
                x = x - (d * error_x - b * error_y) / determinant
                y = y - (a * error_y - c * error_x) / determinant
            found = (error <= _ACCEPTED) & (np.hypot(x, y) <= radii[-1])
        return np.where(found[..., np.newaxis], np.stack((x, y), axis=-1), np.nan)

    def _quotient(self, r2: Slopes) -> tuple[Slopes, Slopes]:
        """Return numerator and denominator of the radial factor."""
        k1, k2, k3 = self.numerator
        k4, k5, k6 = self.denominator
        return 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1.0 + r2 * (k4 + r2 * (k5 + r2 * k6))

    def _image(self, x: Slopes, y: Slopes) -> tuple[Slopes, Slopes]:
        """Apply the formula, without regard to folds."""
        p1, p2 = self.tangential
        s1, s2, s3, s4 = self.prism
        r2 = x * x + y * y
        above, below = self._quotient(r2)
        q = above / below
        xy = 2.0 * x * y
        image_x = x * q + p1 * xy + p2 * (r2 + 2.0 * x * x) + r2 * (s1 + r2 * s2)
        image_y = y * q + p1 * (r2 + 2.0 * y * y) + p2 * xy + r2 * (s3 + r2 * s4)
        return image_x, image_y

    def _derivatives(self, x: Slopes, y: Slopes) -> tuple[Slopes, Slopes, Slopes, Slopes]:
        """Return dx'/dx, dx'/dy, dy'/dx, dy'/dy."""
        k1, k2, k3 = self.numerator
        k4, k5, k6 = self.denominator
        p1, p2 = self.tangential
        s1, s2, s3, s4 = self.prism
        r2 = x * x + y * y
        above, below = self._quotient(r2)
        q = above / below
        above_slope = k1 + r2 * (2.0 * k2 + r2 * 3.0 * k3)
        below_slope = k4 + r2 * (2.0 * k5 + r2 * 3.0 * k6)
        twice_q_slope = 2.0 * (above_slope - q * below_slope) / below
        prism_x = 2.0 * (s1 + 2.0 * s2 * r2)
        prism_y = 2.0 * (s3 + 2.0 * s4 * r2)
        shared = x * y * twice_q_slope + 2.0 * (p1 * x + p2 * y)
        return (
            q + x * x * twice_q_slope + 2.0 * p1 * y + 6.0 * p2 * x + x * prism_x,
            shared + y * prism_x,
            shared + x * prism_y,
            q + y * y * twice_q_slope + 6.0 * p1 * y + 2.0 * p2 * x + y * prism_y,
        )

    def _monotone(self) -> tuple[Slopes, Slopes]:
        """Return radii and their images up to where the radial part folds back."""
        radii = np.tan(np.linspace(0.0, _MAX_ANGLE_RAD, _TABLE_LENGTH))
        above, below = self._quotient(radii * radii)
        images = radii * above / np.where(below > 0.0, below, np.nan)
        return _growing(radii, images)


@dataclass(frozen=True)
class EquidistantLens:
    """A fisheye: the image radius is a polynomial of the angle t from the optical axis.

    t' = t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8).  Source: J. Kannala and S. Brandt, A generic
    camera model and calibration method, 2006; OpenCV, fisheye module.
    """

    k: tuple[float, float, float, float]
    """k1, k2, k3, k4."""

    def distort(self, slopes: Slopes) -> Slopes:
        """Return distorted slopes; NaN where the lens does not image the ray."""
        radius = np.hypot(slopes[..., 0], slopes[..., 1])
        angle = np.arctan(radius)
        image = np.where(angle <= self._monotone()[0][-1], self._image(angle), np.nan)
        return slopes * _ratio(image, radius)[..., np.newaxis]

    def undistort(self, distorted: Slopes) -> Slopes:
        """Return ray slopes; NaN where no ray in front of the camera lands there."""
        angles, images = self._monotone()
        target = np.hypot(distorted[..., 0], distorted[..., 1])
        angle = np.interp(target, images, angles)
        with np.errstate(invalid='ignore', over='ignore', divide='ignore'):
            for _ in range(_NEWTON_STEPS):
                error = self._image(angle) - target
                if not np.any(np.abs(error) > _CONVERGED):
                    break
                angle = angle - error / self._derivative(angle)
            found = (np.abs(error) <= _ACCEPTED) & (angle <= angles[-1])
            radius = np.where(found, np.tan(angle), np.nan)
        return distorted * _ratio(radius, target)[..., np.newaxis]

    def _image(self, angle: Slopes) -> Slopes:
        """Apply the polynomial, without regard to folds."""
        k1, k2, k3, k4 = self.k
        t2 = angle * angle
        return angle * (1.0 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))

    def _derivative(self, angle: Slopes) -> Slopes:
        """Return the slope of the polynomial."""
        k1, k2, k3, k4 = self.k
        t2 = angle * angle
        return 1.0 + t2 * (3.0 * k1 + t2 * (5.0 * k2 + t2 * (7.0 * k3 + t2 * 9.0 * k4)))

    def _monotone(self) -> tuple[Slopes, Slopes]:
        """Return angles and their images up to where the polynomial folds back."""
        angles = np.linspace(0.0, math.radians(89.99), _TABLE_LENGTH)
        return _growing(angles, self._image(angles))


def lens_of(fields: CameraFields) -> Lens | None:
    """Return the lens that the fields describe, or None where the image has no distortion.

    An 'equidistant' lens with zero coefficients still bends the image; zeros of the other models
    do not.

    :param fields: fields that passed ``check_fields``.
    """
    if fields.distortion_model == 'equidistant':
        k1, k2, k3, k4 = fields.d
        return EquidistantLens((k1, k2, k3, k4))
    if not any(fields.d):
        return None
    d = (*fields.d, *(0.0,) * (12 - len(fields.d)))
    return RadialTangentialLens(
        numerator=(d[0], d[1], d[4]),
        denominator=(d[5], d[6], d[7]),
        tangential=(d[2], d[3]),
        prism=(d[8], d[9], d[10], d[11]),
    )


def _growing(inputs: Slopes, images: Slopes) -> tuple[Slopes, Slopes]:
    """Cut a table before its largest value; the true fold lies within a step of that."""
    falls = np.flatnonzero(~(np.diff(images) > 0.0))
    length = max(int(falls[0]), 1) if falls.size else len(inputs)
    return inputs[:length], images[:length]


def _ratio(numerator: Slopes, denominator: Slopes) -> Slopes:
    """Divide lengths, with 1 on the optical axis, where both are 0."""
    return np.where(
        denominator > 0.0, numerator / np.where(denominator > 0.0, denominator, 1.0), 1.0
    )
