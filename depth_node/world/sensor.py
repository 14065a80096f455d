"""From light to pixel values: lens, exposure, white balance, tone curve, noise, compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_node.world import lens

_ENTRIES = 4096
_BRIGHTEST = 4.0

Array = NDArray[np.float32]


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
    black: float = 0.0
    """Light, of the brightest that is not clipped, below which everything is black."""
    veil: float = 0.0
    """Share of the light that the lens scatters over the picture: milky and low in contrast."""
    motion_px: tuple[float, float] = (0.0, 0.0)
    """Way of the picture across the sensor during the exposure, columns and rows."""
    defocus_px: float = 0.0
    """Radius of the blur at infinite distance from the focus, pixels."""
    focus_m: float = 2.0
    """Depth that is sharp; only matters with ``defocus_px``."""
    aberration: float = 0.0
    """Relative difference in size of the red and the blue picture."""
    shot_noise: float = 0.0
    """Standard deviation in white of the noise that grows with the root of the light, of 255."""
    noise_grain_px: float = 0.0
    """Standard deviation over which neighbours share their noise, as after a colour filter."""
    sharpening: float = 0.0
    """Strength of the halos of sharpened edges."""
    mono: tuple[float, float, float] | None = None
    """Sensitivity of a sensor without colours to red, green and blue; None has colours."""


IDEAL = Sensor()


def random_sensor(rng: np.random.Generator) -> Sensor:
    """Draw a camera as found on robots: mostly decent, sometimes poor in several ways."""
    warm = float(rng.normal(0.0, 0.15))
    poor = rng.random() < 0.35

    def now_and_then(share: float) -> bool:
        return bool(rng.random() < share * (1.6 if poor else 0.7))

    motion = rng.normal(0.0, 1.6, 2) if now_and_then(0.15) else np.zeros(2)
    red, green, blue = (float(part) for part in rng.dirichlet((2.0, 4.0, 1.5)))
    return Sensor(
        exposure=float(np.exp(rng.normal(0.15, 0.5))),
        metering=float(rng.uniform(0.7, 1.0)),
        white_balance=(
            float(np.exp(warm)),
            float(np.exp(rng.normal(0, 0.05))),
            float(np.exp(-warm)),
        ),
        gamma=float(rng.uniform(1.6, 2.6)),
        shoulder=float(rng.uniform(0.0, 0.8) * (rng.random() < 0.7)),
        saturation=0.0 if rng.random() < 0.04 else float(rng.uniform(0.5, 1.7)),
        vignette=float(rng.uniform(0.0, 0.5) * now_and_then(0.5)),
        blur_px=float(rng.uniform(0.25, 0.6) + rng.exponential(0.3) * poor),
        noise=float(rng.exponential(2.0)) if rng.random() < 0.7 else 0.0,
        jpeg_quality=int(rng.integers(15, 97)) if rng.random() < 0.45 else None,
        black=float(rng.uniform(0.0, 0.12) * now_and_then(0.4)),
        veil=float(rng.uniform(0.0, 0.4) * now_and_then(0.12)),
        motion_px=(float(motion[0]), float(motion[1])),
        defocus_px=float(rng.exponential(1.5) * now_and_then(0.2)),
        focus_m=float(np.exp(rng.uniform(-1.2, 2.5))),
        aberration=float(rng.normal(0.0, 0.003) * now_and_then(0.25)),
        shot_noise=float(rng.exponential(4.0) * now_and_then(0.4)),
        noise_grain_px=float(rng.uniform(0.4, 0.9) * now_and_then(0.5)),
        sharpening=float(rng.exponential(0.5) * now_and_then(0.35)),
        mono=(red, green, blue) if rng.random() < 0.08 else None,
    )


def develop(
    light: Array,
    sensor: Sensor,
    rng: np.random.Generator | None,
    depth_m: Array | None = None,
) -> NDArray[np.uint8]:
    """Turn light into a picture.

    :param light: (H, W, 3) linear RGB, 1 is white paper; changed in place.
    :param rng: source of the noise; none is added where None.
    :param depth_m: (H, W) depth for the defocus, +inf is sky; all is sharp where None.
    :returns: (H, W, 3) RGB.
    """
    light = _through_lens(light, sensor, depth_m)
    light *= _gains(light, sensor)
    if sensor.vignette > 0:
        light *= _vignette(light.shape[0], light.shape[1], sensor.vignette)
    if sensor.mono is not None:
        light = np.repeat((light @ np.array(sensor.mono, np.float32))[..., None], 3, axis=2)
    elif sensor.saturation != 1.0:
        grey = light.mean(axis=2, keepdims=True)
        light = grey + np.float32(sensor.saturation) * (light - grey)
    level = np.clip(light * np.float32(_ENTRIES / _BRIGHTEST), 0, _ENTRIES - 1).astype(np.intp)
    value = _tone_curve(sensor).take(level)
    if rng is not None and (sensor.noise > 0 or sensor.shot_noise > 0):
        value += _noise(value, sensor, rng)
    if sensor.sharpening > 0:
        soft = cv2.GaussianBlur(value, (0, 0), 0.9)
        value += np.float32(sensor.sharpening) * (value - soft)
    if sensor.noise > 0 or sensor.shot_noise > 0 or sensor.sharpening > 0:
        np.clip(value, 0, 255, out=value)
    rgb = (value + np.float32(0.5)).astype(np.uint8)
    return rgb if sensor.jpeg_quality is None else _compressed(rgb, sensor.jpeg_quality)


def _through_lens(light: Array, sensor: Sensor, depth_m: Array | None) -> Array:
    if sensor.aberration != 0:
        light = lens.aberrated(light, sensor.aberration)
    if sensor.defocus_px > 0.3 and depth_m is not None:
        light = lens.defocused(light, depth_m, sensor.defocus_px, sensor.focus_m)
    if max(map(abs, sensor.motion_px)) > 0.5:
        light = lens.smeared(light, sensor.motion_px)
    if sensor.blur_px > 0.1:
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), sensor.blur_px))
    if sensor.veil > 0:
        veil = np.minimum(light, 2.0).mean(axis=(0, 1))
        light = light * np.float32(1 - sensor.veil) + np.float32(sensor.veil) * veil
    return light


def _noise(value: Array, sensor: Sensor, rng: np.random.Generator) -> Array:
    """Return the noise of a picture, (H, W, 3); one channel of it without colours."""
    shape = value.shape if sensor.mono is None else (*value.shape[:2], 1)
    noise = rng.standard_normal(shape, np.float32)
    if sensor.noise_grain_px > 0:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), sensor.noise_grain_px))
        noise = noise.reshape(shape) * np.float32(1 + 2.5 * sensor.noise_grain_px**2)
    if sensor.shot_noise > 0:
        variance = sensor.noise**2 + value * np.float32(sensor.shot_noise**2 / 255)
        return np.asarray(noise * np.sqrt(variance, dtype=np.float32), np.float32)
    return noise * np.float32(sensor.noise)


def _gains(light: Array, sensor: Sensor) -> Array:
    mean = float(np.minimum(light, 2.0).mean())
    gain = sensor.exposure * (0.25 / max(mean, 0.01)) ** sensor.metering
    return np.array(sensor.white_balance, np.float32) * np.float32(gain)


def _tone_curve(sensor: Sensor) -> Array:
    x = np.arange(_ENTRIES, dtype=np.float64) * (_BRIGHTEST / _ENTRIES)
    if sensor.black > 0:
        x = np.maximum(x - sensor.black, 0.0) / (1.0 - sensor.black)
    soft = x * (1 + x * sensor.shoulder / 4) / (1 + x * sensor.shoulder)
    return np.asarray(255 * np.clip(soft, 0, 1) ** (1 / sensor.gamma), np.float32)


def _vignette(height: int, width: int, loss: float) -> Array:
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)
    return np.float32(1) - np.float32(loss / 2) * (x[None, :, None] ** 2 + y[:, None, None] ** 2)


def _compressed(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    _, data = cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)
