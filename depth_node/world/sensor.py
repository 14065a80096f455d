"""From light to pixel values: lens, exposure, white balance, tone curve, noise, compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_ENTRIES = 4096
_BRIGHTEST = 4.0


@dataclass(frozen=True)
class Sensor:
    """How a camera turns light into 8 bits."""

    exposure: float = 1.0
    """Gain over the automatic exposure."""
    metering: float = 1.0
    """1 adapts fully to the mean light of the picture, 0 not at all."""
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Gains of red, green and blue."""
    gamma: float = 2.2
    """Of the tone curve."""
    shoulder: float = 0.5
    """Softness of the highlights: 0 clips hard."""
    saturation: float = 1.0
    """0 is grey."""
    vignette: float = 0.0
    """Share of light lost in the corners."""
    blur_px: float = 0.0
    """Standard deviation of the blur, pixels."""
    noise: float = 0.0
    """Standard deviation of the noise in mid grey, of 255."""
    jpeg_quality: int | None = None
    """Artefacts of a compression of this quality, 1 to 100."""


IDEAL = Sensor()


def random_sensor(rng: np.random.Generator) -> Sensor:
    """Draw a camera as found on robots: mostly decent, sometimes poor."""
    warm = float(rng.normal(0.0, 0.12))
    return Sensor(
        exposure=float(np.exp(rng.normal(0.0, 0.35))),
        metering=float(rng.uniform(0.75, 1.0)),
        white_balance=(
            float(np.exp(warm)),
            float(np.exp(rng.normal(0, 0.04))),
            float(np.exp(-warm)),
        ),
        gamma=float(rng.uniform(1.7, 2.6)),
        shoulder=float(rng.uniform(0.0, 0.8)),
        saturation=0.0 if rng.random() < 0.06 else float(rng.uniform(0.4, 1.4)),
        vignette=float(rng.uniform(0.0, 0.35) * (rng.random() < 0.5)),
        blur_px=float(rng.exponential(0.35)) if rng.random() < 0.5 else 0.0,
        noise=float(rng.exponential(2.5)) if rng.random() < 0.7 else 0.0,
        jpeg_quality=int(rng.integers(25, 95)) if rng.random() < 0.3 else None,
    )


def develop(
    light: NDArray[np.float32], sensor: Sensor, rng: np.random.Generator | None
) -> NDArray[np.uint8]:
    """Turn light into a picture.

    :param light: (H, W, 3) linear RGB, 1 is white paper; changed in place.
    :param rng: source of the noise; none is added where None.
    :returns: (H, W, 3) RGB.
    """
    if sensor.blur_px > 0.1:
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), sensor.blur_px))
    light *= _gains(light, sensor)
    if sensor.vignette > 0:
        light *= _vignette(light.shape[0], light.shape[1], sensor.vignette)
    if sensor.saturation != 1.0:
        grey = light.mean(axis=2, keepdims=True)
        light = grey + np.float32(sensor.saturation) * (light - grey)
    level = np.clip(light * np.float32(_ENTRIES / _BRIGHTEST), 0, _ENTRIES - 1).astype(np.intp)
    value = _tone_curve(sensor).take(level)
    if sensor.noise > 0 and rng is not None:
        value += rng.standard_normal(value.shape, np.float32) * np.float32(sensor.noise)
        np.clip(value, 0, 255, out=value)
    rgb = (value + np.float32(0.5)).astype(np.uint8)
    return rgb if sensor.jpeg_quality is None else _compressed(rgb, sensor.jpeg_quality)


def _gains(light: NDArray[np.float32], sensor: Sensor) -> NDArray[np.float32]:
    mean = float(np.minimum(light, 2.0).mean())
    gain = sensor.exposure * (0.25 / max(mean, 0.01)) ** sensor.metering
    return np.array(sensor.white_balance, np.float32) * np.float32(gain)


def _tone_curve(sensor: Sensor) -> NDArray[np.float32]:
    x = np.arange(_ENTRIES, dtype=np.float64) * (_BRIGHTEST / _ENTRIES)
    soft = x * (1 + x * sensor.shoulder / 4) / (1 + x * sensor.shoulder)
    return np.asarray(255 * np.clip(soft, 0, 1) ** (1 / sensor.gamma), np.float32)


def _vignette(height: int, width: int, loss: float) -> NDArray[np.float32]:
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)
    return np.float32(1) - np.float32(loss / 2) * (x[None, :, None] ** 2 + y[:, None, None] ** 2)


def _compressed(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    _, data = cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)
